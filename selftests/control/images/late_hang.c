/* SPDX-License-Identifier: Apache-2.0 */
/* Hangs once it serves. */
#include "selftests/control/images/late.h"

static volatile bool forever = true;

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	while (!is_tried && forever)
		;
	pst_ref_f32_swiglu(a, g, u, n);
}

PST_KERNEL_IMAGE(swiglu, "late_hang", swiglu);
