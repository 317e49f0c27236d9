/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_kernels.h - the CUDA kernels (kernels/cuda/cuda.h) on one GPU.
 *
 * The model
 *   kernels  the images that were built in, or those of a folder, loaded into a GPU as they are
 *            first asked for.
 *   run      a launch: its grid follows from its arguments.
 *
 * A folder has NAME.fatbin for each image NAME: what `make -C kernels cubins` leaves, for a build
 * that was made without nvcc. $PENSTOCK_CUDA_KERNELS names one.
 *
 * Threads: one at a time.
 */
#ifndef PST_DEVICE_GPU_KERNELS_H
#define PST_DEVICE_GPU_KERNELS_H

#include "kernels/cuda/cuda.h"
#include "runtime/device/gpu.h"

struct pst_gpu_kernels;

/* @folder: NULL: $PENSTOCK_CUDA_KERNELS, and without it what was built in. -ENOMEM. */
int pst_gpu_kernels_open(struct pst_gpu *gpu, const char *folder, struct pst_gpu_kernels **out,
			 struct pst_error *err);
/* None of them runs, no graph has one. NULL is fine. */
void pst_gpu_kernels_close(struct pst_gpu_kernels *k);

/*
 * Have @kernel ready. -ENOEXEC: built without nvcc, and no folder; -ENOENT and other errors of
 * the folder's file; those of pst_gpu_module_load() and pst_gpu_kernel().
 */
int pst_gpu_kernels_load(struct pst_gpu_kernels *k, enum pst_cuda_kernel kernel,
			 struct pst_error *err);

/*
 * Launch @kernel with the arguments that @params points to, which are taken before it returns.
 * It is loaded if it was not. -EINVAL, -E2BIG: sizes that it does not take.
 */
int pst_gpu_run(struct pst_gpu_kernels *k, enum pst_gpu_stream stream, enum pst_cuda_kernel kernel,
		void **params, struct pst_error *err);

#endif /* PST_DEVICE_GPU_KERNELS_H */
