/* SPDX-License-Identifier: Apache-2.0 */
/* Crashes once it serves. */
#include "selftests/control/images/late.h"

static float *volatile nowhere = (float *)64;

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	pst_ref_f32_swiglu(a, g, u, n);
	if (!is_tried)
		*nowhere = 1;
}

PST_KERNEL_IMAGE(swiglu, "late_crash", swiglu);
