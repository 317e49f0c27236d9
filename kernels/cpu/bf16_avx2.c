/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

void pst_avx2_to_bf16(uint16_t *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i += 8)
		pst_store_bf16(y + i, n - i, pst_load_ps(x + i, n - i));
}

void pst_avx2_from_bf16(float *y, const uint16_t *x, size_t n)
{
	for (size_t i = 0; i < n; i += 8)
		pst_store_ps(y + i, n - i, pst_load_bf16(x + i, n - i));
}
