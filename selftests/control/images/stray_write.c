/* SPDX-License-Identifier: Apache-2.0 */
/* One element too far. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	pst_ref_f32_swiglu(a, g, u, n);
	a[n] = 0;
}

PST_KERNEL_IMAGE(swiglu, "stray_write", swiglu);
