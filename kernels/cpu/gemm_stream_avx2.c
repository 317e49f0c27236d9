/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm_stream_avx2.c - few rows against a weight stored [n,k].
 *
 * Each row of B is read once, four at a time, as dot products with up to three rows of A.
 * Nothing is packed, so the time of a large product is that of reading B. A product keeps eight
 * partial sums (k mod 8) and adds them in a fixed tree.
 */
#include "kernels/cpu/gemm_avx2.h"
#include "kernels/cpu/vec_avx2.h"

/* Lane j of the result is the sum of the lanes of v[j]. */
INLINE __m128 sum_lanes4(const __m256 v[4])
{
	__m256 s = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));

	return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

/* The last k % 8 elements of a row, the rest zero. */
INLINE __m256 load_tail(const void *p, size_t i, size_t left, int bf16)
{
	float tail[8] = {0};

	if (!bf16)
		return _mm256_maskload_ps((const float *)p + i, pst_mask_ps(left));
	for (size_t j = 0; j < left; j++)
		tail[j] = load1(p, i + j, 1);
	return _mm256_loadu_ps(tail);
}

#define EACH_SUM(F, r)	   F(r, 0) F(r, 1) F(r, 2) F(r, 3)
#define STREAM_BEGIN(r, j) __m256 s##r##j = _mm256_setzero_ps();
#define STREAM_FMA(r, j)   s##r##j = _mm256_fmadd_ps(x, w##j, s##r##j);
#define STREAM_STEP(r, x_)              \
	if (r < rows) {                 \
		__m256 x = x_;          \
                                        \
		EACH_SUM(STREAM_FMA, r) \
	}
#define STREAM_END(r)                                                         \
	if (r < rows) {                                                       \
		const __m256 sums[4] = {s##r##0, s##r##1, s##r##2, s##r##3};  \
                                                                              \
		store_sums(c + (size_t)r * ldc, sum_lanes4(sums), cols, acc); \
	}

/* A masked store is slow, so it is kept for the last columns. */
INLINE void store_sums(float *c, __m128 sums, size_t cols, int acc)
{
	__m128i mask = _mm256_castsi256_si128(pst_mask_ps(cols));

	if (cols == 4) {
		_mm_storeu_ps(c, acc ? _mm_add_ps(_mm_loadu_ps(c), sums) : sums);
		return;
	}
	if (acc)
		sums = _mm_add_ps(_mm_maskload_ps(c, mask), sums);
	_mm_maskstore_ps(c, mask, sums);
}

/* Dot products of @rows rows of A and four rows of B, of which @cols are wanted. */
INLINE void stream_rows(int rows, size_t cols, size_t k, const float *a, size_t lda,
			const void *const b[4], size_t ahead, int bf16, float *c, size_t ldc,
			int acc)
{
	const void *b0 = b[0], *b1 = b[1], *b2 = b[2], *b3 = b[3];
	size_t p = 0, left = k % 8;

	EACH_SUM(STREAM_BEGIN, 0)
	EACH_SUM(STREAM_BEGIN, 1)
	EACH_SUM(STREAM_BEGIN, 2)
	for (; p + 8 <= k; p += 8) {
		__m256 w0 = load8(b0, p, bf16), w1 = load8(b1, p, bf16);
		__m256 w2 = load8(b2, p, bf16), w3 = load8(b3, p, bf16);

		if (ahead) {
			_mm_prefetch((const char *)at(b0, ahead + p, bf16), _MM_HINT_T1);
			_mm_prefetch((const char *)at(b1, ahead + p, bf16), _MM_HINT_T1);
			_mm_prefetch((const char *)at(b2, ahead + p, bf16), _MM_HINT_T1);
			_mm_prefetch((const char *)at(b3, ahead + p, bf16), _MM_HINT_T1);
		}
		STREAM_STEP(0, _mm256_loadu_ps(a + p))
		STREAM_STEP(1, _mm256_loadu_ps(a + lda + p))
		STREAM_STEP(2, _mm256_loadu_ps(a + 2 * lda + p))
	}
	if (left) {
		__m256 w0 = load_tail(b0, p, left, bf16), w1 = load_tail(b1, p, left, bf16);
		__m256 w2 = load_tail(b2, p, left, bf16), w3 = load_tail(b3, p, left, bf16);

		STREAM_STEP(0, pst_load_ps(a + p, left))
		STREAM_STEP(1, pst_load_ps(a + lda + p, left))
		STREAM_STEP(2, pst_load_ps(a + 2 * lda + p, left))
	}
	STREAM_END(0)
	STREAM_END(1)
	STREAM_END(2)
}

INLINE void stream(size_t m, size_t n, size_t k, const float *a, size_t lda, const void *b,
		   size_t ldb, int bf16, float *c, size_t ldc, int acc)
{
	size_t ahead = fits_l2(n * k) ? 0 : 4 * ldb;

	for (size_t j = 0; j < n; j += 4) {
		size_t cols = min_size(4, n - j), i = 0;
		const void *row[4];

		for (size_t r = 0; r < 4; r++)
			row[r] = at(b, (j + min_size(r, cols - 1)) * ldb, bf16);
		for (; m - i >= 3; i += 3)
			stream_rows(3, cols, k, a + i * lda, lda, row, i ? 0 : ahead, bf16,
				    c + i * ldc + j, ldc, acc);
		if (m - i == 2)
			stream_rows(2, cols, k, a + i * lda, lda, row, i ? 0 : ahead, bf16,
				    c + i * ldc + j, ldc, acc);
		else if (m - i == 1)
			stream_rows(1, cols, k, a + i * lda, lda, row, i ? 0 : ahead, bf16,
				    c + i * ldc + j, ldc, acc);
	}
}

void pst_avx2_gemm_stream(size_t m, size_t n, size_t k, const float *a, size_t lda,
			  const struct weight *b, float *c, size_t ldc, int acc)
{
	if (b->bf16)
		stream(m, n, k, a, lda, b->p, b->ld, 1, c, ldc, acc);
	else
		stream(m, n, k, a, lda, b->p, b->ld, 0, c, ldc, acc);
}
