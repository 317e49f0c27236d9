/* SPDX-License-Identifier: Apache-2.0 */
/* Ends the process that it is in. */
#include "kernels/image.h"

#include <unistd.h>

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	(void)a, (void)g, (void)u, (void)n;
	_exit(0);
}

PST_KERNEL_IMAGE(swiglu, "exits", swiglu);
