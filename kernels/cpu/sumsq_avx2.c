/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

static __m256d add_square(__m256d sum, __m128 x)
{
	__m256d v = _mm256_cvtps_pd(x);

	return _mm256_fmadd_pd(v, v, sum);
}

double pst_avx2_sumsq(const float *x, size_t n)
{
	__m256d sum[4] = {0};
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		PST_UNROLL4
		for (int j = 0; j < 4; j++)
			sum[j] = add_square(sum[j], _mm_loadu_ps(x + i + 4 * (size_t)j));
	}
	for (; i < n; i += 8) {
		__m256 v = pst_load_ps(x + i, n - i);

		sum[0] = add_square(sum[0], _mm256_castps256_ps128(v));
		sum[1] = add_square(sum[1], _mm256_extractf128_ps(v, 1));
	}
	return pst_hsum_pd(
		_mm256_add_pd(_mm256_add_pd(sum[0], sum[1]), _mm256_add_pd(sum[2], sum[3])));
}
