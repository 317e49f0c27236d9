/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bf16.h"
#include "kernels/ref/ref.h"

void REF(to_bf16)(uint16_t *y, const real *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = pst_bf16_from_f32((float)x[i]);
}

void REF(from_bf16)(real *y, const uint16_t *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = pst_bf16_to_f32(x[i]);
}
