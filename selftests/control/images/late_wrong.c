/* SPDX-License-Identifier: Apache-2.0 */
/* Does not agree with ref once it serves. */
#include "selftests/control/images/late.h"

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	pst_ref_f32_swiglu(a, g, u, n);
	for (size_t i = 0; i < n && !is_tried; i++)
		a[i] *= 1.5f;
}

PST_KERNEL_IMAGE(swiglu, "late_wrong", swiglu);
