/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attn_avx2.c - causal attention of one head for AVX2.
 *
 * A block of queries meets the keys it may see in blocks too, so that scores never take more
 * than a fixed scratch: the softmax is carried from block to block by its maximum and sum
 * (arXiv:2205.14135, algorithm 1), and keys after the last query of the block are not touched.
 * Backward recomputes the probabilities from lse. The products are op gemm's; block sizes are
 * constants, so the order of every sum follows from the shape.
 */
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

#define QUERIES 64
#define KEYS	256

/* A block of scores, then probabilities; for backward the gradients of both as well. */
static _Thread_local float prob[QUERIES * KEYS] __attribute__((aligned(64)));
static _Thread_local float grad[QUERIES * KEYS] __attribute__((aligned(64)));

struct softmax {
	float max, sum;
};

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void scale_row(float *x, size_t n, float by)
{
	for (size_t j = 0; j < n; j += 8)
		pst_store_ps(x + j, n - j,
			     _mm256_mul_ps(pst_load_ps(x + j, n - j), _mm256_set1_ps(by)));
}

/* max(@max, scale * x[0 .. n)) */
static float scaled_max(const float *x, size_t n, float scale, float max)
{
	const __m256 by = _mm256_set1_ps(scale);
	__m256 m = _mm256_set1_ps(max);

	for (size_t j = 0; j < n; j += 8) {
		__m256 s = _mm256_mul_ps(pst_load_ps(x + j, n - j), by);

		if (n - j < 8)
			s = _mm256_blendv_ps(m, s, _mm256_castsi256_ps(pst_mask_ps(n - j)));
		m = _mm256_max_ps(s, m);
	}
	return pst_hmax_ps(m);
}

/* x = exp(scale * x - @off) in the first @seen of @n, 0 in the rest; returns their sum. */
static float exp_row(float *x, size_t seen, size_t n, float scale, float off)
{
	const __m256 by = _mm256_set1_ps(scale), from = _mm256_set1_ps(off);
	__m256 sum = _mm256_setzero_ps();
	size_t j = 0;

	for (; j < seen; j += 8) {
		__m256 e = pst_exp_ps(_mm256_fmsub_ps(pst_load_ps(x + j, n - j), by, from));

		if (seen - j < 8)
			e = _mm256_and_ps(e, _mm256_castsi256_ps(pst_mask_ps(seen - j)));
		pst_store_ps(x + j, n - j, e);
		sum = _mm256_add_ps(sum, e);
	}
	for (; j < n; j += 8)
		pst_store_ps(x + j, n - j, _mm256_setzero_ps());
	return pst_hsum_ps(sum);
}

/* Take a block of scores of one row into its softmax; what the row held in @o is scaled down. */
static void soften_row(struct softmax *row, float *x, size_t seen, size_t n, float scale, float *o,
		       size_t dv)
{
	float max = scaled_max(x, seen, scale, row->max), keep;

	keep = _mm256_cvtss_f32(pst_exp_ps(_mm256_set1_ps(row->max - max)));
	if (row->sum > 0 && keep != 1.0f)
		scale_row(o, dv, keep);
	row->sum = row->sum * keep + exp_row(x, seen, n, scale, max);
	row->max = max;
}

/* How many of the keys first .. first + n query @i of the keys' own numbering sees. */
static size_t keys_seen(size_t i, size_t first, size_t n)
{
	return i < first ? 0 : min_size(n, i - first + 1);
}

void pst_avx2_attn(float *o, size_t ldo, float *lse, const float *q, size_t ldq, const float *k,
		   size_t ldk, const float *v, size_t ldv, size_t tq, size_t tk, size_t dqk,
		   size_t dv, float scale)
{
	size_t past = tk - tq;

	for (size_t i = 0; i < tq; i += QUERIES) {
		size_t nq = min_size(QUERIES, tq - i), end = past + i + nq;
		struct softmax row[QUERIES];

		for (size_t r = 0; r < nq; r++)
			row[r] = (struct softmax){-INFINITY, 0};
		for (size_t j = 0; j < end; j += KEYS) {
			size_t nk = min_size(KEYS, end - j);

			pst_avx2_gemm(0, 1, nq, nk, dqk, q + i * ldq, ldq, k + j * ldk, ldk, prob,
				      KEYS, 0);
			for (size_t r = 0; r < nq; r++)
				soften_row(&row[r], prob + r * KEYS, keys_seen(past + i + r, j, nk),
					   nk, scale, o + (i + r) * ldo, dv);
			pst_avx2_gemm(0, 0, nq, dv, nk, prob, KEYS, v + j * ldv, ldv, o + i * ldo,
				      ldo, j > 0);
		}
		for (size_t r = 0; r < nq; r++) {
			scale_row(o + (i + r) * ldo, dv, 1.0f / row[r].sum);
			lse[i + r] = row[r].max + logf(row[r].sum);
		}
	}
}

static float dot(const float *x, const float *y, size_t n)
{
	__m256 sum = _mm256_setzero_ps();

	for (size_t j = 0; j < n; j += 8)
		sum = _mm256_fmadd_ps(pst_load_ps(x + j, n - j), pst_load_ps(y + j, n - j), sum);
	return pst_hsum_ps(sum);
}

/* dp, the gradient of the probabilities @p, becomes that of the scores: p (dp - mean) scale. */
static void score_grad_row(float *dp, const float *p, size_t n, float mean, float scale)
{
	const __m256 by = _mm256_set1_ps(scale), from = _mm256_set1_ps(mean);

	for (size_t j = 0; j < n; j += 8) {
		__m256 d = _mm256_sub_ps(pst_load_ps(dp + j, n - j), from);

		d = _mm256_mul_ps(_mm256_mul_ps(pst_load_ps(p + j, n - j), d), by);
		pst_store_ps(dp + j, n - j, d);
	}
}

static void clear_rows(float *x, size_t ld, size_t rows, size_t cols)
{
	for (size_t i = 0; i < rows; i++)
		memset(x + i * ld, 0, cols * sizeof(*x));
}

void pst_avx2_attn_bwd(float *dq, size_t lddq, float *dk, size_t lddk, float *dv, size_t lddv,
		       const float *o, size_t ldo, const float *dout, size_t lddo, const float *lse,
		       const float *q, size_t ldq, const float *k, size_t ldk, const float *v,
		       size_t ldv, size_t t, size_t dqk, size_t dvdim, float scale)
{
	clear_rows(dk, lddk, t, dqk);
	clear_rows(dv, lddv, t, dvdim);
	for (size_t i = 0; i < t; i += QUERIES) {
		size_t nq = min_size(QUERIES, t - i), end = i + nq;
		const float *qi = q + i * ldq, *di = dout + i * lddo;
		float mean[QUERIES];

		for (size_t r = 0; r < nq; r++)
			mean[r] = dot(di + r * lddo, o + (i + r) * ldo, dvdim);
		for (size_t j = 0; j < end; j += KEYS) {
			size_t nk = min_size(KEYS, end - j);

			pst_avx2_gemm(0, 1, nq, nk, dqk, qi, ldq, k + j * ldk, ldk, prob, KEYS, 0);
			pst_avx2_gemm(0, 1, nq, nk, dvdim, di, lddo, v + j * ldv, ldv, grad, KEYS,
				      0);
			for (size_t r = 0; r < nq; r++) {
				exp_row(prob + r * KEYS, keys_seen(i + r, j, nk), nk, scale,
					lse[i + r]);
				score_grad_row(grad + r * KEYS, prob + r * KEYS, nk, mean[r],
					       scale);
			}
			pst_avx2_gemm(1, 0, nk, dvdim, nq, prob, KEYS, di, lddo, dv + j * lddv,
				      lddv, 1);
			pst_avx2_gemm(1, 0, nk, dqk, nq, grad, KEYS, qi, ldq, dk + j * lddk, lddk,
				      1);
			pst_avx2_gemm(0, 0, nq, dqk, nk, grad, KEYS, k + j * ldk, ldk,
				      dq + i * lddq, lddq, j > 0);
		}
	}
}
