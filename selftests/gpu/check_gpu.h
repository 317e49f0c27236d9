/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_gpu.h - a GPU for gpu-check and gpu-bench: the first one that the driver shows, and the
 * kernels of cuda.h on it. One is open at a time in a process; a child of fork() opens its own.
 */
#ifndef PST_CHECK_GPU_H
#define PST_CHECK_GPU_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/driver.h"

struct check_gpu {
	const struct pst_cuda *cu;
	CUdevice dev;
	CUcontext ctx;
	CUstream stream;
	char name[64];
	int version, major, minor, sms;
	size_t l2, memory; /* bytes */
	CUlibrary library[PST_CUDA_IMAGE_COUNT];
	struct {
		CUfunction fn;
		uint32_t shared; /* what it may have */
	} kernel[PST_CUDA_KERNEL_COUNT];
};

/*
 * 0, or a sentence with cause and remedy in @why. -ENODEV: this machine cannot run it (no driver,
 * no GPU, none that there is code for, a build without nvcc). Else what is here does not work.
 */
int check_gpu_open(struct check_gpu *g, char *why, size_t len);

/* Launches @k as @l says on g->stream; nothing waits. 0 or a CUDA_ERROR_*. */
CUresult check_gpu_launch(struct check_gpu *g, enum pst_cuda_kernel k,
			  const struct pst_cuda_launch *l, void *const *params);

#endif /* PST_CHECK_GPU_H */
