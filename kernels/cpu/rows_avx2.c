/* SPDX-License-Identifier: Apache-2.0 */
/* Whole rows on their way to the experts and back; gather and embed are memcpy() in ref already. */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

/* 8 columns of one token: the sum of its @k rows at @x, in order. */
static __m256 sum_rows(const float *x, const float *w, const int32_t *slot, size_t k, size_t cols,
		       size_t n)
{
	__m256 sum = _mm256_setzero_ps();

	for (size_t j = 0; j < k; j++) {
		__m256 v = pst_load_ps(x + (size_t)slot[j] * cols, n);

		sum = _mm256_add_ps(sum, w ? _mm256_mul_ps(_mm256_set1_ps(w[j]), v) : v);
	}
	return sum;
}

/* 32 columns of the same, so that every cache line is used whole while it is near. */
static void sum_rows_wide(__m256 sum[4], const float *x, const float *w, const int32_t *slot,
			  size_t k, size_t cols)
{
	PST_UNROLL4
	for (int i = 0; i < 4; i++)
		sum[i] = _mm256_setzero_ps();
	for (size_t j = 0; j < k; j++) {
		const float *from = x + (size_t)slot[j] * cols;
		__m256 f = _mm256_set1_ps(w ? w[j] : 1.0f);

		PST_UNROLL4
		for (int i = 0; i < 4; i++) {
			__m256 v = _mm256_loadu_ps(from + 8 * i);

			sum[i] = _mm256_add_ps(sum[i], _mm256_mul_ps(f, v));
		}
	}
}

static void put(float *y, size_t n, __m256 sum, int acc)
{
	pst_store_ps(y, n, acc ? _mm256_add_ps(pst_load_ps(y, n), sum) : sum);
}

void pst_avx2_combine(float *y, const float *x, const float *w, const int32_t *slot, size_t tokens,
		      size_t k, size_t cols, int acc)
{
	for (size_t t = 0; t < tokens; t++, y += cols, slot += k, w = w ? w + k : NULL) {
		size_t c = 0;

		for (; c + 32 <= cols; c += 32) {
			__m256 sum[4];

			sum_rows_wide(sum, x + c, w, slot, k, cols);
			PST_UNROLL4
			for (int i = 0; i < 4; i++)
				put(y + c + 8 * i, 8, sum[i], acc);
		}
		for (; c < cols; c += 8)
			put(y + c, cols - c, sum_rows(x + c, w, slot, k, cols, cols - c), acc);
	}
}

static float dot(const float *a, const float *b, size_t n)
{
	__m256 sum[4] = {0};
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		PST_UNROLL4
		for (int j = 0; j < 4; j++) {
			const size_t at = i + 8 * (size_t)j;

			sum[j] = _mm256_fmadd_ps(_mm256_loadu_ps(a + at), _mm256_loadu_ps(b + at),
						 sum[j]);
		}
	}
	for (; i < n; i += 8)
		sum[0] = _mm256_fmadd_ps(pst_load_ps(a + i, n - i), pst_load_ps(b + i, n - i),
					 sum[0]);
	return pst_hsum_ps(
		_mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

void pst_avx2_combine_dw(float *dw, const float *dy, const float *x, const int32_t *slot,
			 size_t tokens, size_t k, size_t cols)
{
	for (size_t t = 0; t < tokens; t++, dy += cols)
		for (size_t j = 0; j < k; j++)
			*dw++ = dot(dy, x + (size_t)*slot++ * cols, cols);
}

void pst_avx2_scatter_scaled(float *dx, const float *dy, const float *w, const int32_t *slot,
			     size_t tokens, size_t k, size_t cols)
{
	for (size_t t = 0; t < tokens; t++, dy += cols) {
		for (size_t j = 0; j < k; j++) {
			float *to = dx + (size_t)*slot++ * cols;
			__m256 f = _mm256_set1_ps(*w++);

			for (size_t c = 0; c < cols; c += 8)
				pst_store_ps(to + c, cols - c,
					     _mm256_mul_ps(f, pst_load_ps(dy + c, cols - c)));
		}
	}
}

void pst_avx2_add(float *y, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i += 8)
		put(y + i, n - i, pst_load_ps(x + i, n - i), 1);
}

void pst_avx2_embed_bwd(float *dtable, size_t ldt, const float *dy, size_t lddy, const int32_t *id,
			size_t rows, size_t vocab, size_t cols)
{
	for (size_t i = 0; i < vocab; i++)
		memset(dtable + i * ldt, 0, cols * sizeof(*dtable));
	for (size_t r = 0; r < rows; r++)
		pst_avx2_add(dtable + (size_t)id[r] * ldt, dy + r * lddy, cols);
}
