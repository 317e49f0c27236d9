/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attn_rows.cuh - causal attention in fp32, a warp a row: what the ops attn and attn_bwd are, and
 * what heads are computed with that are too wide for tiles (attn_tile.cuh).
 *
 * Lanes share the columns of a row. Sums over columns are a warp's; those over rows go AT_ONCE rows
 * at a time, in order, in registers: SLICE columns of the result, and for more of them the scores
 * are made again. Forward carries the softmax by its maximum and sum (arXiv:2205.14135, algorithm
 * 1), backward makes the probabilities from lse.
 */
#ifndef PST_CUDA_ATTN_ROWS_H
#define PST_CUDA_ATTN_ROWS_H

#include "kernels/cuda/block.cuh"

#define AT_ONCE 4
#define HELD	8 /* columns of a lane */
#define SLICE	(HELD * 32)

/* Rows of fp32 or bf16, @ld apart. */
template <class T> struct rows {
	const T *at;
	size_t ld;
};

template <class T> static __device__ __forceinline__ rows<T> rows_from(const T *at, size_t ld)
{
	rows<T> r = {at, ld};

	return r;
}

template <class T> static __device__ __forceinline__ const T *row_of(const rows<T> &r, size_t i)
{
	return r.at + i * r.ld;
}

static __device__ __forceinline__ float number(float x)
{
	return x;
}

static __device__ __forceinline__ float number(uint16_t x)
{
	return bf16_to(x);
}

/* Of all lanes together. */
static __device__ __forceinline__ float dot(const float *a, const float *b, size_t n)
{
	float sum = 0;

	for (size_t c = threadIdx.x % 32; c < n; c += 32)
		sum += a[c] * b[c];
	return warp_sum(sum);
}

/* Products of @a with up to AT_ONCE rows of @b from @first on, before @n. */
template <class T>
static __device__ __forceinline__ void dots(float s[AT_ONCE], const float *a, const rows<T> &b,
					    size_t first, size_t n, size_t cols)
{
	for (int i = 0; i < AT_ONCE; i++)
		s[i] = 0;
	for (size_t c = threadIdx.x % 32; c < cols; c += 32) {
		float x = a[c];

#pragma unroll
		for (size_t i = 0; i < AT_ONCE; i++)
			s[i] += first + i < n ? x * number(row_of(b, first + i)[c]) : 0;
	}
#pragma unroll
	for (int i = 0; i < AT_ONCE; i++)
		s[i] = warp_sum(s[i]);
}

/* acc += w * columns @from and on of @row */
template <class T>
static __device__ __forceinline__ void add_row(float acc[HELD], float w, const T *row, size_t from,
					       size_t cols)
{
#pragma unroll
	for (size_t i = 0; i < HELD; i++) {
		size_t c = from + i * 32 + threadIdx.x % 32;

		if (c < cols)
			acc[i] += w * number(row[c]);
	}
}

static __device__ __forceinline__ void put_row(float *row, const float acc[HELD], float by,
					       size_t from, size_t cols)
{
#pragma unroll
	for (size_t i = 0; i < HELD; i++) {
		size_t c = from + i * 32 + threadIdx.x % 32;

		if (c < cols)
			row[c] = acc[i] * by;
	}
}

/* One query that sees the first @n keys. */
template <class T>
static __device__ __forceinline__ void row_forward(float *o, float *lse, const float *q,
						   const rows<T> &k, const rows<T> &v, size_t n,
						   size_t dqk, size_t dv, float scale)
{
	for (size_t from = 0; from < dv; from += SLICE) {
		float max = -INFINITY, sum = 0, acc[HELD] = {}, s[AT_ONCE];

		for (size_t j = 0; j < n; j += AT_ONCE) {
			float before = max, keep;

			dots(s, q, k, j, n, dqk);
#pragma unroll
			for (size_t i = 0; i < AT_ONCE; i++) {
				s[i] = j + i < n ? s[i] * scale : -INFINITY;
				max = fmaxf(max, s[i]);
			}
			keep = j ? expf(before - max) : 0;
			sum *= keep;
#pragma unroll
			for (int i = 0; i < HELD; i++)
				acc[i] *= keep;
#pragma unroll
			for (size_t i = 0; i < AT_ONCE; i++) {
				if (j + i >= n)
					break;
				s[i] = expf(s[i] - max);
				sum += s[i];
				add_row(acc, s[i], row_of(v, j + i), from, dv);
			}
		}
		put_row(o, acc, n ? 1 / sum : 0, from, dv);
		if (!from && threadIdx.x % 32 == 0)
			*lse = n ? max + logf(sum) : -INFINITY;
	}
}

/* p and ds of @query and @key. */
static __device__ __forceinline__ void row_weights(float *p, float *ds, const float *q,
						   const float *k, const float *dout,
						   const float *v, float lse, float delta,
						   size_t dqk, size_t dvdim, float scale)
{
	*p = expf(scale * dot(q, k, dqk) - lse);
	*ds = *p * (dot(dout, v, dvdim) - delta) * scale;
}

/* dq of one query that sees the first @n keys. */
static __device__ __forceinline__ void row_dq(float *dq, const float *dout, float lse, float delta,
					      const float *q, const rows<float> &k,
					      const rows<float> &v, size_t n, size_t dqk,
					      size_t dvdim, float scale)
{
	for (size_t from = 0; from < dqk; from += SLICE) {
		float acc[HELD] = {}, p, ds;

		for (size_t j = 0; j < n; j++) {
			row_weights(&p, &ds, q, row_of(k, j), dout, row_of(v, j), lse, delta, dqk,
				    dvdim, scale);
			add_row(acc, ds, row_of(k, j), from, dqk);
		}
		put_row(dq, acc, 1, from, dqk);
	}
}

/* What the queries of a sequence bring for backward. @delta NULL: it is made from @o. */
struct queries {
	rows<float> q, dout, o;
	const float *lse, *delta;
	size_t n;
};

/* dk and dv of key @j. */
static __device__ __forceinline__ void row_dkv(float *dk, float *dv, const float *k, const float *v,
					       size_t j, const struct queries &w, size_t dqk,
					       size_t dvdim, float scale)
{
	for (size_t from = 0; from < dqk || from < dvdim; from += SLICE) {
		float acc_k[HELD] = {}, acc_v[HELD] = {}, p, ds;

		for (size_t i = j; i < w.n; i++) {
			const float *q = row_of(w.q, i), *dout = row_of(w.dout, i);
			float of = w.delta ? w.delta[i] : dot(dout, row_of(w.o, i), dvdim);

			row_weights(&p, &ds, q, k, dout, v, w.lse[i], of, dqk, dvdim, scale);
			add_row(acc_k, ds, q, from, dqk);
			add_row(acc_v, p, dout, from, dvdim);
		}
		put_row(dk, acc_k, 1, from, dqk);
		put_row(dv, acc_v, 1, from, dvdim);
	}
}

#endif /* PST_CUDA_ATTN_ROWS_H */
