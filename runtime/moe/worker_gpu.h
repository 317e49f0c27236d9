/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_gpu.h - the GPU that computes a worker's experts.
 *
 * The model
 *   gpu    a device, its kernels, and what computes experts on it (device/gpu_mlp.h).
 *   reach  memory of the host where rows, weights, results or gradients are, made known to the
 *          device as long as one session at least has it. Sessions may have the same.
 *
 * Threads: that of the worker.
 */
#ifndef PST_WORKER_GPU_H
#define PST_WORKER_GPU_H

#include "runtime/device/gpu_mlp.h"

struct pst_worker_gpu;

/* @device: "cuda:N", or "cuda:N/K" where K workers share it. @ms: how long one request may take
 * there. */
int pst_worker_gpu_open(const char *device, uint32_t ms, struct pst_worker_gpu **out,
			struct pst_error *err);
/* NULL is fine; a GPU that is dead is left to the end of the process. */
void pst_worker_gpu_close(struct pst_worker_gpu *g);

struct pst_gpu *pst_worker_gpu_device(const struct pst_worker_gpu *g);
struct pst_gpu_mlp *pst_worker_gpu_mlp(const struct pst_worker_gpu *g);

/* @at begins a page; whole pages are taken. As pst_gpu_register(). */
int pst_worker_gpu_reach(struct pst_worker_gpu *g, const void *at, uint64_t bytes, bool read_only,
			 struct pst_error *err);
/* Once for each reach; nothing of it is under way. NULL, and what was not reached: nothing. */
void pst_worker_gpu_leave(struct pst_worker_gpu *g, const void *at);

#endif /* PST_WORKER_GPU_H */
