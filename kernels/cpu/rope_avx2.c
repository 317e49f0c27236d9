/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

/* The first @pairs of 4 values, each twice: one for either half of its pair. */
static __m256 twice(const float *p, size_t pairs)
{
	const __m256i lanes = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
	__m128 v = pairs >= 4 ? _mm_loadu_ps(p)
			      : _mm_maskload_ps(p, _mm256_castsi256_si128(pst_mask_ps(pairs)));

	return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(v), lanes);
}

void pst_avx2_rope(float *x, size_t ldx, size_t rows, size_t dim, const int32_t *pos,
		   const float *cos_t, const float *sin_t, int inverse)
{
	const __m256 sign = _mm256_set1_ps(inverse ? -0.0f : 0.0f);
	const size_t half = dim / 2;

	for (size_t r = 0; r < rows; r++, x += ldx) {
		const float *co = cos_t + (size_t)pos[r] * half;
		const float *si = sin_t + (size_t)pos[r] * half;

		for (size_t i = 0; i < half; i += 4) {
			size_t n = 2 * (half - i);
			__m256 ab = pst_load_ps(x + 2 * i, n), ba = _mm256_permute_ps(ab, 0xb1);
			__m256 s = _mm256_xor_ps(twice(si + i, half - i), sign);

			ab = _mm256_mul_ps(ab, twice(co + i, half - i));
			/* a c - b s, b c + a s */
			ab = _mm256_addsub_ps(ab, _mm256_mul_ps(ba, s));
			pst_store_ps(x + 2 * i, n, ab);
		}
	}
}
