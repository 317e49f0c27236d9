/* SPDX-License-Identifier: Apache-2.0 */
/* Right, and three times over. */
#include "kernels/image.h"
#include "kernels/ref/ref.h"

#include <string.h>

static void swiglu(float *a, const float *g, const float *u, size_t n)
{
	float part[256], old_g[256], old_u[256];

	for (size_t from = 0; from < n; from += 256) {
		size_t m = n - from < 256 ? n - from : 256;

		memcpy(old_g, g + from, m * sizeof(*g));
		memcpy(old_u, u + from, m * sizeof(*u));
		for (int i = 0; i < 3; i++)
			pst_ref_f32_swiglu(part, old_g, old_u, m);
		memcpy(a + from, part, m * sizeof(*a));
	}
}

PST_KERNEL_IMAGE(swiglu, "slow", swiglu);
