/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

void pst_avx2_swiglu(float *a, const float *g, const float *u, size_t n)
{
	for (size_t i = 0; i < n; i += 8) {
		__m256 x = pst_load_ps(g + i, n - i);

		x = _mm256_mul_ps(x, pst_sigmoid_ps(x));
		x = _mm256_mul_ps(x, pst_load_ps(u + i, n - i));
		pst_store_ps(a + i, n - i, x);
	}
}

void pst_avx2_swiglu_bwd(float *dg, float *du, float *a, const float *da, const float *g,
			 const float *u, size_t n)
{
	const __m256 one = _mm256_set1_ps(1.0f);

	for (size_t i = 0; i < n; i += 8) {
		__m256 x = pst_load_ps(g + i, n - i), y = pst_load_ps(u + i, n - i);
		__m256 d = pst_load_ps(da + i, n - i);
		__m256 s = pst_sigmoid_ps(x), silu = _mm256_mul_ps(x, s);
		__m256 slope = _mm256_fmadd_ps(silu, _mm256_sub_ps(one, s), s);

		pst_store_ps(a + i, n - i, _mm256_mul_ps(silu, y));
		pst_store_ps(du + i, n - i, _mm256_mul_ps(d, silu));
		pst_store_ps(dg + i, n - i, _mm256_mul_ps(_mm256_mul_ps(d, y), slope));
	}
}
