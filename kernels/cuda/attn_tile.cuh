/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attn_tile.cuh - what attention in tiles is made of (arXiv:2205.14135, 2307.08691): fp32 rows in
 * memory, bf16 tiles in shared memory, mma.sync, fp32 sums and softmax.
 *
 * A tile is ROWS rows of COLS columns, of which a head may have fewer: the rest is zero, up to the
 * next multiple of 16, and not looked at beyond. 16-byte pieces of a row are permuted by the row's
 * number, so that neither stores nor ldmatrix meet in a bank. Rows are rounded to bf16 on their way
 * there; they are loaded into registers before they are wanted and stored when there is room.
 */
#ifndef PST_CUDA_ATTN_TILE_H
#define PST_CUDA_ATTN_TILE_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/unit.cuh"

#define DQK	PST_CUDA_ATTN_DQK
#define DV	PST_CUDA_ATTN_DV
#define THREADS PST_CUDA_ATTN_THREADS
#define LOG2E	1.4426950408889634f
#define LN2	0.6931471805599453f

static __device__ __forceinline__ unsigned char *launch_memory(void)
{
	PST_SHARED(unsigned char, memory);

	return memory;
}

/* Rows of one head of one sequence. */
struct part {
	const float *at;
	size_t ld;
	uint32_t rows, cols;
	bool wide;
};

static __device__ __forceinline__ struct part part_of(const float *at, size_t ld, size_t head_ld,
						      size_t head, size_t first, size_t rows,
						      size_t cols)
{
	struct part p;

	p.at = at + first * ld + head * head_ld;
	p.ld = ld;
	p.rows = (uint32_t)rows;
	p.cols = (uint32_t)cols;
	p.wide = is_wide(p.at, ld);
	return p;
}

template <int COLS> static __device__ __forceinline__ uint32_t piece_at(uint32_t row, uint32_t n)
{
	return row * COLS * 2 + (n ^ (row & 7)) * 16;
}

/* What a thread has of a tile on its way there. */
template <int ROWS, int COLS> struct held {
	static const int EACH = ROWS * COLS / UNIT / THREADS;
	unit<float> u[EACH];
};

/* Columns up to the next multiple of 16 are there; beyond, nobody looks. */
static __device__ __forceinline__ bool is_used(uint32_t col, const struct part &p)
{
	return col < (p.cols + 15) / 16 * 16;
}

template <int ROWS, int COLS>
static __device__ __forceinline__ void load(held<ROWS, COLS> &h, const struct part &p,
					    uint32_t first)
{
#pragma unroll
	for (int i = 0; i < h.EACH; i++) {
		uint32_t at = threadIdx.x + (uint32_t)(i * THREADS),
			 row = first + at / (COLS / UNIT), col = at % (COLS / UNIT) * UNIT;
		bool in = row < p.rows && col < p.cols;

		h.u[i] = load_unit(in ? p.at + row * p.ld + col : p.at, in ? p.cols - col : 0,
				   p.wide);
	}
}

template <int ROWS, int COLS>
static __device__ __forceinline__ void store(unsigned char *tile, const held<ROWS, COLS> &h,
					     const struct part &p)
{
#pragma unroll
	for (int i = 0; i < h.EACH; i++) {
		uint32_t at = threadIdx.x + (uint32_t)(i * THREADS), n = at % (COLS / UNIT);

		if (is_used(n * UNIT, p))
			store_unit(tile + piece_at<COLS>(at / (COLS / UNIT), n), h.u[i]);
	}
}

/* Columns 16 @k and on of the 16 rows from @row: the A operand of an mma. */
template <int COLS>
static __device__ __forceinline__ void take_a(uint32_t r[4], uint32_t tile, uint32_t row,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32;

	ldmatrix(r, tile + piece_at<COLS>(row + lane % 16, 2 * k + lane / 16));
}

/* The B operands of two, terms being columns: r[0..1] of 8 rows from @row, r[2..3] of the next. */
template <int COLS>
static __device__ __forceinline__ void take_b(uint32_t r[4], uint32_t tile, uint32_t row,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32;

	ldmatrix(r, tile + piece_at<COLS>(row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
}

/* The same, terms being rows 16 @k and on: of 8 columns from @col, and of the next. */
template <int COLS>
static __device__ __forceinline__ void take_b_across(uint32_t r[4], uint32_t tile, uint32_t col,
						     uint32_t k)
{
	uint32_t lane = threadIdx.x % 32;

	ldmatrix_trans(r, tile + piece_at<COLS>(16 * k + lane % 16, col / 8 + lane / 16));
}

/* s[16, 8 N] = rows of @a from @row times rows of @b from @col, over @cols columns. */
template <int COLS, int N>
static __device__ __forceinline__ void scores(float s[N][4], uint32_t a, uint32_t row, uint32_t b,
					      uint32_t col, uint32_t cols)
{
#pragma unroll
	for (int j = 0; j < N; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			s[j][e] = 0;
#pragma unroll 2
	for (uint32_t k = 0; k < (cols + 15) / 16; k++) {
		uint32_t left[4], right[4];

		take_a<COLS>(left, a, row, k);
#pragma unroll
		for (int j = 0; j < N; j += 2) {
			take_b<COLS>(right, b, col + 8 * j, k);
			mma_bf16(s[j], left, right[0], right[1]);
			mma_bf16(s[j + 1], left, right[2], right[3]);
		}
	}
}

/* The sum or the greatest of the four lanes that have a row. */
static __device__ __forceinline__ float row_sum(float x)
{
	x += __shfl_xor_sync(ALL_LANES, x, 1);
	return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

static __device__ __forceinline__ float row_max(float x)
{
	x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
	return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

#endif /* PST_CUDA_ATTN_TILE_H */
