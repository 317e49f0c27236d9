/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

#include <math.h>

/* sum of a b c, in 32 partial sums */
static float dot3(const float *a, const float *b, const float *c, size_t n)
{
	__m256 sum[4] = {0};
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		PST_UNROLL4
		for (int j = 0; j < 4; j++) {
			const size_t at = i + 8 * (size_t)j;
			__m256 ab = _mm256_mul_ps(_mm256_loadu_ps(a + at), _mm256_loadu_ps(b + at));

			sum[j] = _mm256_fmadd_ps(ab, _mm256_loadu_ps(c + at), sum[j]);
		}
	}
	for (; i < n; i += 8) {
		__m256 ab = _mm256_mul_ps(pst_load_ps(a + i, n - i), pst_load_ps(b + i, n - i));

		sum[0] = _mm256_fmadd_ps(ab, pst_load_ps(c + i, n - i), sum[0]);
	}
	return pst_hsum_ps(
		_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

static float squares(const float *x, size_t n)
{
	__m256 sum[4] = {0};
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		PST_UNROLL4
		for (int j = 0; j < 4; j++) {
			__m256 v = _mm256_loadu_ps(x + i + 8 * (size_t)j);

			sum[j] = _mm256_fmadd_ps(v, v, sum[j]);
		}
	}
	for (; i < n; i += 8) {
		__m256 v = pst_load_ps(x + i, n - i);

		sum[0] = _mm256_fmadd_ps(v, v, sum[0]);
	}
	return pst_hsum_ps(
		_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

void pst_avx2_rmsnorm(float *y, size_t ldy, float *rstd, const float *x, size_t ldx, const float *w,
		      size_t rows, size_t cols, float eps)
{
	for (size_t r = 0; r < rows; r++, x += ldx, y += ldy) {
		__m256 s;

		rstd[r] = 1 / sqrtf(squares(x, cols) / (float)cols + eps);
		s = _mm256_set1_ps(rstd[r]);
		for (size_t c = 0; c < cols; c += 8) {
			__m256 n = _mm256_mul_ps(pst_load_ps(x + c, cols - c), s);

			n = _mm256_mul_ps(n, pst_load_ps(w + c, cols - c));
			pst_store_ps(y + c, cols - c, n);
		}
	}
}

void pst_avx2_rmsnorm_dx(float *dx, size_t lddx, const float *dy, size_t lddy, const float *x,
			 size_t ldx, const float *w, const float *rstd, size_t rows, size_t cols)
{
	for (size_t r = 0; r < rows; r++, dx += lddx, dy += lddy, x += ldx) {
		float mean = dot3(dy, w, x, cols) / (float)cols * rstd[r] * rstd[r];
		__m256 f = _mm256_set1_ps(mean), s = _mm256_set1_ps(rstd[r]);

		for (size_t c = 0; c < cols; c += 8) {
			__m256 g = _mm256_mul_ps(pst_load_ps(dy + c, cols - c),
						 pst_load_ps(w + c, cols - c));

			g = _mm256_fnmadd_ps(pst_load_ps(x + c, cols - c), f, g);
			pst_store_ps(dx + c, cols - c, _mm256_mul_ps(s, g));
		}
	}
}

/* Adds up to four rows, one after the other, to 8 columns of dw. */
static __m256 add_rows(__m256 sum, const float *dy, size_t lddy, const float *x, size_t ldx,
		       const float *rstd, size_t rows, size_t n)
{
	for (size_t r = 0; r < rows; r++) {
		__m256 v = _mm256_mul_ps(pst_load_ps(x + r * ldx, n), _mm256_set1_ps(rstd[r]));

		v = _mm256_mul_ps(pst_load_ps(dy + r * lddy, n), v);
		sum = _mm256_add_ps(sum, v);
	}
	return sum;
}

/* Rows in fours: dw itself is then read and written once for four rows that stream by. */
void pst_avx2_rmsnorm_dw(float *dw, const float *dy, size_t lddy, const float *x, size_t ldx,
			 const float *rstd, size_t rows, size_t cols)
{
	for (size_t c = 0; c < cols; c++)
		dw[c] = 0;
	for (size_t r = 0; r < rows; r += 4) {
		size_t some = rows - r < 4 ? rows - r : 4;

		for (size_t c = 0; c < cols; c += 8) {
			__m256 sum = pst_load_ps(dw + c, cols - c);

			sum = add_rows(sum, dy + r * lddy + c, lddy, x + r * ldx + c, ldx, rstd + r,
				       some, cols - c);
			pst_store_ps(dw + c, cols - c, sum);
		}
	}
}
