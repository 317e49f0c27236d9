/* SPDX-License-Identifier: Apache-2.0 */
/* Built when swiglu had other arguments. */
#include "kernels/image.h"

static void swiglu(float *a, const float *gu, size_t n)
{
	(void)a, (void)gu, (void)n;
}

extern __attribute__((visibility("default"))) const struct pst_kernel_image pst_kernel_image;
const struct pst_kernel_image pst_kernel_image = {
	.magic = PST_KERNEL_MAGIC,
	.size = sizeof(struct pst_kernel_image),
	.op = "swiglu",
	.name = "abi",
	.signature = "void (float *a, const float *gu, size_t n)",
	.kernel = (void (*)(void))swiglu,
};
