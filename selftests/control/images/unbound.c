/* SPDX-License-Identifier: Apache-2.0 */
/* Needs a function that nobody has. */
#include "kernels/image.h"

void nobody_has_this(float *a, const float *g, const float *u, size_t n);

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	nobody_has_this(a, g, u, n);
}

PST_KERNEL_IMAGE(swiglu, "unbound", swiglu);
