/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_gpu.h - the GPU that computes an engine's own part.
 *
 * The model
 *   gpu    a device, its kernels, and what computes with them (device/compute_gpu.h).
 *   reach  memory of the host where weights, gradients and what the host sees of activations are,
 *          made known to the device until the end.
 *
 * Order of calls: open; reach; a model with the compute; destroy that, close; then whose memory was
 * reached. Where an engine has no GPU all here is given NULL, and does nothing.
 *
 * Threads: that of the engine.
 */
#ifndef PST_ENGINE_GPU_H
#define PST_ENGINE_GPU_H

#include "runtime/device/compute_gpu.h"
#include "runtime/mem/pool.h"
#include "runtime/store/client.h"

struct pst_engine_gpu;

/* @device: "cuda:N", or "cuda:N/K" where K share it; "": *out is NULL. Errors: pst_gpu_open(). */
int pst_engine_gpu_open(const char *device, struct pst_engine_gpu **out, struct pst_error *err);
/*
 * A GPU that is dead or hangs is left to the end of the process, and with it what it may still
 * touch: that is taken from the caller, and NULL then.
 */
void pst_engine_gpu_close(struct pst_engine_gpu *g, struct pst_pool **pool,
			  struct pst_client **client, struct pst_fabric **fabric);

struct pst_compute *pst_engine_gpu_compute(const struct pst_engine_gpu *g);

/* As pst_gpu_register(). */
int pst_engine_gpu_reach_pool(struct pst_engine_gpu *g, const struct pst_pool *pool,
			      struct pst_error *err);
/* Weights and slots of @client, as its last begin left them; what is reached already is not again.
 */
int pst_engine_gpu_reach(struct pst_engine_gpu *g, const struct pst_client *client,
			 struct pst_error *err);
/* What is slower than it could be, and what mends it; or "". */
void pst_engine_gpu_note(const struct pst_engine_gpu *g, char note[256]);

#endif /* PST_ENGINE_GPU_H */
