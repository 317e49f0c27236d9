/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts.cuh - what the experts' kernels share: which rows a block has, the stages of its loads,
 * tiles in shared memory, and what becomes of its sums.
 *
 * A block makes OF rows by TILE columns, THREADS(OF) threads, of which each warp has 32 columns
 * and WIDTH(OF) tiles of 8 rows.
 */
#ifndef PST_CUDA_EXPERTS_H
#define PST_CUDA_EXPERTS_H

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/block.cuh"

#define TILE	PST_CUDA_EXPERTS_TILE
#define PIECE	8 /* elements of 16 bytes, as bf16 */
#define OUT_LD	(TILE + 4)
#define THREADS PST_CUDA_EXPERTS_THREADS
/* 8-wide tiles of rows that a warp has, four warps along the columns */
#define WIDTH(of) ((of) / 8 / (THREADS(of) / 128))

/* What the launch has of shared memory: the tiles of all stages, and then the sums. */
static __device__ __forceinline__ unsigned char *launch_memory(void)
{
	PST_SHARED(unsigned char, memory);

	return memory;
}

/* What a warp sums: 32 columns, WIDTH tiles of rows. */
template <int OF> struct sums {
	float v[2][WIDTH(OF)][4];
};

/* The piece of a tile in shared memory whose rows have PIECES. */
template <int PIECES>
static __device__ __forceinline__ uint32_t piece_at(uint32_t tile, uint32_t row, uint32_t piece)
{
	return tile + (row * PIECES + (piece ^ (row & 7))) * 16;
}

template <int OF> static __device__ __forceinline__ uint32_t warp_col(void)
{
	return threadIdx.x / 32 % 4 * 32;
}

template <int OF> static __device__ __forceinline__ uint32_t warp_row(void)
{
	return threadIdx.x / 128 * (WIDTH(OF) * 8);
}

/*
 * All steps of a block: load(step, place) begins the copies of a step to one of STAGES places of
 * BYTES, use(step, place) reads them. A place is filled again only when all have passed the
 * barrier after they read it.
 */
template <int STAGES, uint32_t BYTES, class LOAD, class USE>
static __device__ __forceinline__ void pipeline(uint32_t shared, uint32_t steps, const LOAD &load,
						const USE &use)
{
	for (uint32_t i = 0; i < STAGES - 1; i++) {
		if (i < steps)
			load(i, shared + i * BYTES);
		cp_async_commit();
	}
	for (uint32_t i = 0, at = 0, next = STAGES - 1; i < steps; i++) {
		cp_async_wait<STAGES - 2>();
		__syncthreads();
		if (i + STAGES - 1 < steps)
			load(i + STAGES - 1, shared + next * BYTES);
		cp_async_commit();
		use(i, shared + at * BYTES);
		at = at + 1 < STAGES ? at + 1 : 0;
		next = next + 1 < STAGES ? next + 1 : 0;
	}
	cp_async_wait<0>();
	__syncthreads(); /* the places are free */
}

template <int OF> static __device__ __forceinline__ void clear(sums<OF> &s)
{
#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int j = 0; j < WIDTH(OF); j++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				s.v[i][j][e] = 0;
}

/* Sums to out[row][column] in shared memory; whole when this returns. */
template <int OF> static __device__ __forceinline__ void lay_out(float *out, const sums<OF> &s)
{
	uint32_t lane = threadIdx.x % 32, col = warp_col<OF>() + lane / 4,
		 row = warp_row<OF>() + lane % 4 * 2;

#pragma unroll
	for (uint32_t i = 0; i < 2; i++) {
#pragma unroll
		for (uint32_t j = 0; j < WIDTH(OF); j++) {
			float *to = out + (row + 8 * j) * OUT_LD + col + 16 * i;

			to[0] = s.v[i][j][0];
			to[OUT_LD] = s.v[i][j][1];
			to[8] = s.v[i][j][2];
			to[OUT_LD + 8] = s.v[i][j][3];
		}
	}
	__syncthreads();
}

/* Eight elements that lie side by side, in fp32. */
struct eight {
	float v[PIECE];
};

static __device__ __forceinline__ eight load_eight(const float *p)
{
	quad a = load_quad<true>(p, 4), b = load_quad<true>(p + 4, 4);
	eight e;

	for (int i = 0; i < 4; i++)
		e.v[i] = a.v[i], e.v[i + 4] = b.v[i];
	return e;
}

static __device__ __forceinline__ void store_eight(float *p, const eight &e)
{
	quad a, b;

	for (int i = 0; i < 4; i++)
		a.v[i] = e.v[i], b.v[i] = e.v[i + 4];
	store_quad<true>(p, a, 4);
	store_quad<true>(p + 4, b, 4);
}

union packed {
	float4 f;
	uint16_t h[PIECE];
};

static __device__ __forceinline__ eight load_eight(const uint16_t *p)
{
	union packed from;
	eight e;

	from.f = load16(p);
	for (int i = 0; i < PIECE; i++)
		e.v[i] = bf16_to(from.h[i]);
	return e;
}

static __device__ __forceinline__ void store_eight(uint16_t *p, const eight &e)
{
	union packed to;

	for (int i = 0; i < PIECE; i++)
		to.h[i] = (uint16_t)bf16_of(e.v[i]);
	store16(p, to.f);
}

static __device__ __forceinline__ void store_eight(void *p, size_t at, const eight &e, int narrow)
{
	if (narrow)
		store_eight((uint16_t *)p + at, e);
	else
		store_eight((float *)p + at, e);
}

/* Pieces of a tile of @rows rows by @cols columns (COLS at most), shared out among the block. */
#define FOR_PIECES(r, c, rows, cols, COLS)                                               \
	for (uint32_t at_ = threadIdx.x, r, c;                                           \
	     r = at_ / ((COLS) / PIECE), c = at_ % ((COLS) / PIECE) * PIECE, r < (rows); \
	     at_ += blockDim.x)                                                          \
		if (c < (cols))

static __device__ __forceinline__ uint32_t least(size_t a, uint32_t b)
{
	return a < b ? (uint32_t)a : b;
}

/* Which rows of which expert are tile @tile of all; no rows if there is no such tile. */
struct group {
	uint32_t expert, rows;
	size_t first;
};

template <int OF>
static __device__ struct group group_of(const int32_t *off, size_t n, uint32_t tile)
{
	struct group g = {0, 0, 0};
	uint32_t lane = threadIdx.x % 32;

	for (size_t e = 0; e < n; e += 32) {
		bool in = e + lane < n;
		uint32_t first = in ? (uint32_t)off[e + lane] : 0;
		uint32_t rows = in ? (uint32_t)off[e + lane + 1] - first : 0;
		uint32_t upto = (rows + OF - 1) / OF, who, before;

		for (uint32_t step = 1; step < 32; step *= 2) {
			uint32_t more = __shfl_up_sync(ALL_LANES, upto, step);

			upto += lane >= step ? more : 0;
		}
		who = __ballot_sync(ALL_LANES, tile < upto);
		before = __shfl_sync(ALL_LANES, upto, 31);
		if (!who) {
			tile -= before;
			continue;
		}
		who = (uint32_t)__ffs((int)who) - 1;
		before = __shfl_sync(ALL_LANES, upto - (rows + OF - 1) / OF, (int)who);
		rows = __shfl_sync(ALL_LANES, rows, (int)who);
		first = __shfl_sync(ALL_LANES, first, (int)who);
		g.expert = (uint32_t)e + who;
		g.first = (size_t)first + (size_t)(tile - before) * OF;
		g.rows = least(rows - (tile - before) * OF, OF);
		return g;
	}
	return g;
}

/* A tile is TILE / 2 columns of g beside the same of u. */
template <int OF>
static __device__ __forceinline__ void swiglu_end(uint16_t *a, uint16_t *kept, const float *out,
						  const struct group &t, size_t col, size_t inter)
{
	FOR_PIECES(r, c, t.rows, inter - col, TILE / 2)
	{
		eight g = load_eight(out + r * OUT_LD + c),
		      u = load_eight(out + r * OUT_LD + TILE / 2 + c), to;
		size_t row = t.first + r;

		for (int i = 0; i < PIECE; i++)
			to.v[i] = g.v[i] * sigmoid(g.v[i]) * u.v[i];
		if (a)
			store_eight(a + row * inter + col + c, to);
		if (!kept)
			continue;
		store_eight(kept + row * 2 * inter + col + c, g);
		store_eight(kept + row * 2 * inter + inter + col + c, u);
	}
}

/* Whole rows as they are. */
template <int OF>
static __device__ __forceinline__ void plain_end(void *y, int narrow, const float *out,
						 const struct group &g, size_t col, size_t cols)
{
	FOR_PIECES(r, c, g.rows, cols - col, TILE)
	{
		eight e = load_eight(out + r * OUT_LD + c);

		store_eight(y, (g.first + r) * cols + col + c, e, narrow);
	}
}

#endif /* PST_CUDA_EXPERTS_H */
