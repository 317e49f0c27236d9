/* SPDX-License-Identifier: Apache-2.0 */
/* Looks one element too far, which no result shows. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

static volatile float seen;

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	seen = u[n];
	pst_ref_f32_swiglu(a, g, u, n);
}

PST_KERNEL_IMAGE(swiglu, "stray_read", swiglu);
