/* SPDX-License-Identifier: Apache-2.0 */
/* What nvcc made of kernels/cuda/doorbell.cu, in the file PERF_DOORBELL_FATBIN. */
#include "tools/perf/gpu.h"

#ifdef PERF_DOORBELL_FATBIN

/* clang-format off */
__asm__(".pushsection .rodata\n"
	".balign 8\n"
	"perf_doorbell_fatbin:\n"
	".incbin \"" PERF_DOORBELL_FATBIN "\"\n"
	".popsection\n"
	".globl perf_doorbell_fatbin\n"
	".hidden perf_doorbell_fatbin\n");
/* clang-format on */
extern const unsigned char perf_doorbell_fatbin[];

const void *perf_doorbell_image(void)
{
	return perf_doorbell_fatbin;
}

#else

const void *perf_doorbell_image(void)
{
	return NULL;
}

#endif
