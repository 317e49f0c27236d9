/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_mlp.h - the jobs of mlp.h on a GPU: in bf16 with sums in fp32, all experts of a call by one
 * launch a step.
 *
 * The model
 *   mlp      workspace, and a cache of weights in the device's memory, in bf16.
 *   weights  one network's place in the cache. Who asks keeps the struct, all zeros at first.
 *            Weights of another version, or that are not there, come over and are made bf16
 *            there; those of the call that are there compute meanwhile. What was not used for
 *            longest goes first when there is no room.
 *   call     forward or backward, whole when it returns. Rows, results, weights and gradients
 *            stay where they are on the host, in registered memory (pst_gpu_register()), and
 *            move by the copy engines.
 *
 * Numbers: x, dy and the weights are rounded to bf16 (nearest, ties to even), as is what lies
 * between the products; y, dx and the gradients are fp32. A network's results follow from its own
 * rows and weights, not from what else is in the call or in the cache. Nothing is kept from forward
 * for backward, which makes gate(x) and up(x) again, with the same bits: the jobs' @kept and
 * @have_kept are not looked at.
 *
 * Threads: one at a time.
 */
#ifndef PST_DEVICE_GPU_MLP_H
#define PST_DEVICE_GPU_MLP_H

#include "runtime/device/gpu_kernels.h"
#include "runtime/device/mlp.h"

struct pst_gpu_mlp;

struct pst_gpu_weights {
	uint64_t block; /* 0: none */
	uint64_t bytes, version, call;
	struct pst_gpu_weights *newer, *older;
};

struct pst_gpu_mlp_stat {
	uint64_t hits, misses, evicted; /* networks */
	uint64_t bytes;			/* of weights that are there */
};

/* @ms: how long one call may take. @most: jobs in a call, at most. */
int pst_gpu_mlp_open(struct pst_gpu *gpu, struct pst_gpu_kernels *kernels, size_t most, uint32_t ms,
		     struct pst_gpu_mlp **out, struct pst_error *err);
void pst_gpu_mlp_close(struct pst_gpu_mlp *m); /* all weights were dropped; NULL is fine */

/* What is there of @w goes; to be called before @w itself does. */
void pst_gpu_mlp_drop(struct pst_gpu_mlp *m, struct pst_gpu_weights *w);

/*
 * weights[i] is the place of jobs[i]'s network, whose weights are of @version; each is in a call
 * once. All jobs have the same hidden and inter, multiples of 8. -EINVAL; -EFAULT: memory that is
 * not registered; -ENOMEM: one network alone has no room on the device; -ETIMEDOUT; -EIO: the GPU
 * is dead (gpu.h).
 */
int pst_gpu_mlp_forward(struct pst_gpu_mlp *m, const struct pst_mlp_job *jobs,
			struct pst_gpu_weights *const *weights, size_t njobs, uint64_t version,
			struct pst_error *err);
int pst_gpu_mlp_backward(struct pst_gpu_mlp *m, const struct pst_mlp_job *jobs,
			 struct pst_gpu_weights *const *weights, size_t njobs, uint64_t version,
			 struct pst_error *err);

/*
 * A call ended with its work under way: the GPU is dead or hangs. It may still write into results,
 * and only the end of the process keeps it from that; all later calls fail with -EIO.
 */
bool pst_gpu_mlp_stuck(const struct pst_gpu_mlp *m);

void pst_gpu_mlp_stat(const struct pst_gpu_mlp *m, struct pst_gpu_mlp_stat *out);

#endif /* PST_DEVICE_GPU_MLP_H */
