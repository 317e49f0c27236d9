/* SPDX-License-Identifier: Apache-2.0 */
/* Never comes back from work of some size. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

static volatile int forever = 1;

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	while (n >= 1024 && forever)
		;
	pst_ref_f32_swiglu(a, g, u, n);
}

PST_KERNEL_IMAGE(swiglu, "hang", swiglu);
