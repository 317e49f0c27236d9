/* SPDX-License-Identifier: Apache-2.0 */
/* The fat binaries that nvcc made, in PST_CUDA_FATBINS; none if the build has no nvcc. */
#include "kernels/cuda/cuda.h"

#ifdef PST_CUDA_FATBINS

/* clang-format off */
#define EMBED(name) \
	__asm__(".pushsection .rodata\n" \
		".balign 8\n" \
		"pst_cuda_fatbin_" #name ":\n" \
		".incbin \"" PST_CUDA_FATBINS "/" #name ".fatbin\"\n" \
		"pst_cuda_fatbin_" #name "_end:\n" \
		".popsection\n" \
		".globl pst_cuda_fatbin_" #name ", pst_cuda_fatbin_" #name "_end\n" \
		".hidden pst_cuda_fatbin_" #name ", pst_cuda_fatbin_" #name "_end\n"); \
	extern const unsigned char pst_cuda_fatbin_##name[], pst_cuda_fatbin_##name##_end[];
PST_CUDA_IMAGES(EMBED)

#define IMAGE(name) {pst_cuda_fatbin_##name, pst_cuda_fatbin_##name##_end},
static const struct { const unsigned char *at, *end; } images[] = {PST_CUDA_IMAGES(IMAGE)};
/* clang-format on */

const void *pst_cuda_image(enum pst_cuda_image i, size_t *bytes)
{
	if ((unsigned int)i >= PST_CUDA_IMAGE_COUNT)
		return NULL;
	*bytes = (size_t)(images[i].end - images[i].at);
	return images[i].at;
}

#else

const void *pst_cuda_image(enum pst_cuda_image i, size_t *bytes)
{
	(void)i, (void)bytes;
	return NULL;
}

#endif
