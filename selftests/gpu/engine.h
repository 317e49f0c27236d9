/* SPDX-License-Identifier: Apache-2.0 */
/* engine.h - what an engine needs to compute on the stand-in's GPU, besides what workers do. */
#ifndef TEST_GPU_ENGINE_H
#define TEST_GPU_ENGINE_H

#include "kernels/cuda/cuda.h"
#include "selftests/gpu/worker.h"

/*
 * An image for each that there is, with all its kernels by their own names: all of them are ops of
 * the stand-in. Experts' come from standin_images().
 */
static inline void standin_engine_images(void)
{
	static const char *const name[] = {
#define NAME(name) #name,
		PST_CUDA_IMAGES(NAME)
#undef NAME
	};

	standin_images();
	for (int i = 0; i < PST_CUDA_IMAGE_COUNT; i++) {
		char text[1024] = "";

		for (int k = 0; k < PST_CUDA_KERNEL_COUNT; k++) {
			const char *kernel = pst_cuda_kernel_name((enum pst_cuda_kernel)k);
			size_t at = strlen(text);

			if ((int)pst_cuda_kernel_image((enum pst_cuda_kernel)k) == i)
				snprintf(text + at, sizeof(text) - at, "%s %s\n", kernel, kernel);
		}
		if (strncmp(name[i], "experts", 7))
			standin_image(test_tmpdir(), name[i], text);
	}
}

#endif /* TEST_GPU_ENGINE_H */
