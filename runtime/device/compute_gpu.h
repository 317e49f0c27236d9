/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compute_gpu.h - a GPU as a compute (compute.h): tensors in its arena, an op a launch or a few.
 *
 * The model
 *   put, fetch  by the copy engines, from and to host memory that was reached (registered), while
 *               the GPU computes.
 *   wait        for copies out; what is computed then is done, too, as far as it was asked for
 *               before. A GPU that does not get done within @ms, or fails, is what wait returns,
 *               with its sentence in the compute's err. That is its end.
 *
 * Numbers: fp32 in memory; products in what kernels/cuda/gemm.cu has. Not run on a GPU yet.
 */
#ifndef PST_DEVICE_COMPUTE_GPU_H
#define PST_DEVICE_COMPUTE_GPU_H

#include "runtime/device/compute.h"
#include "runtime/device/gpu_kernels.h"

/* All kernels that it needs are loaded: errors are those of pst_gpu_kernels_load(). Both stay. */
int pst_compute_gpu_open(struct pst_gpu *gpu, struct pst_gpu_kernels *kernels, uint32_t ms,
			 struct pst_compute **out, struct pst_error *err);
void pst_compute_gpu_close(
	struct pst_compute *c); /* nothing is allocated or reached; NULL is fine */

#endif /* PST_DEVICE_COMPUTE_GPU_H */
