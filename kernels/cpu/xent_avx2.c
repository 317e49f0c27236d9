/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

#include <math.h>

static float row_max(const float *x, size_t n)
{
	__m256 max[4];
	size_t i = 0;

	PST_UNROLL4
	for (int j = 0; j < 4; j++)
		max[j] = _mm256_set1_ps(-INFINITY);
	for (; i + 32 <= n; i += 32) {
		PST_UNROLL4
		for (int j = 0; j < 4; j++)
			max[j] = _mm256_max_ps(_mm256_loadu_ps(x + i + 8 * (size_t)j), max[j]);
	}
	max[0] = _mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3]));
	/* The last ones overlap, since a lane that is masked off would count as 0. */
	if (n >= 8)
		for (; i < n; i += 8)
			max[0] =
				_mm256_max_ps(_mm256_loadu_ps(x + (n - i < 8 ? n - 8 : i)), max[0]);
	else
		for (; i < n; i++)
			max[0] = _mm256_max_ps(_mm256_set1_ps(x[i]), max[0]);
	return pst_hmax_ps(max[0]);
}

/* x = e^(x - max); the sum in fp64, for a vocabulary is long. */
static double row_exp(float *x, size_t n, float max)
{
	const __m256 m = _mm256_set1_ps(max);
	__m256d low = _mm256_setzero_pd(), high = low;

	for (size_t i = 0; i < n; i += 8) {
		__m256 e = pst_exp_ps(_mm256_sub_ps(pst_load_ps(x + i, n - i), m));

		pst_store_ps(x + i, n - i, e);
		if (n - i < 8)
			e = _mm256_and_ps(e, _mm256_castsi256_ps(pst_mask_ps(n - i)));
		low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(e)));
		high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(e, 1)));
	}
	return pst_hsum_pd(_mm256_add_pd(low, high));
}

static void row_scale(float *x, size_t n, float by)
{
	const __m256 f = _mm256_set1_ps(by);

	for (size_t i = 0; i < n; i += 8)
		pst_store_ps(x + i, n - i, _mm256_mul_ps(pst_load_ps(x + i, n - i), f));
}

static float row_loss(float *x, size_t target, size_t n, float scale)
{
	float at = x[target], max = row_max(x, n), p;
	double sum = row_exp(x, n, max);

	p = x[target] / (float)sum;
	row_scale(x, n, scale / (float)sum);
	x[target] = (p - 1) * scale;
	return (float)(log(sum) + (double)(max - at));
}

void pst_avx2_xent(float *loss, float *logit, size_t ld, const int32_t *target, size_t rows,
		   size_t vocab, float scale)
{
	for (size_t r = 0; r < rows; r++, logit += ld) {
		if (target[r] < 0) {
			loss[r] = 0;
			memset(logit, 0, vocab * sizeof(*logit));
		} else {
			loss[r] = row_loss(logit, (size_t)target[r], vocab, scale);
		}
	}
}
