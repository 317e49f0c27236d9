/* SPDX-License-Identifier: Apache-2.0 */
/* Writes to nowhere when there is work of some size. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

static float *volatile nowhere = (float *)64;

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	pst_ref_f32_swiglu(a, g, u, n);
	if (n >= 1024)
		*nowhere = 1;
}

PST_KERNEL_IMAGE(swiglu, "crash", swiglu);
