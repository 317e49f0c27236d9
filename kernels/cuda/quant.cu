/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To fp8 and back (kernels/quant.h), alone and behind RMSNorm and SwiGLU; cuda.h says what each
 * kernel computes. All are bound by memory.
 *
 * A warp has a block of 128, a lane four elements of it that lie side by side; the block's largest
 * magnitude goes through the warp by shuffles, and a lane's four codes are one store. So what is
 * read is read once, but for RMSNorm, which wants the row's sum before and finds the row in cache.
 *
 * With a transposed copy a block of threads has a tile of 128 x 128, kept in shared memory as fp32:
 * its rows are written as they come, its columns when all are there. A row's quads are permuted by
 * the number of the row, so that of a column's elements eight are in different banks and not all in
 * one.
 */
#include "kernels/cuda/quant.cuh"
#include "kernels/cuda/cuda.h"

#define BLOCK PST_QUANT_BLOCK
#define WARPS (PST_CUDA_QUANT_THREADS / 32)

/* Four of fp32, or of bf16 (@narrow), from element @at, which is a multiple of 4. */
static __device__ __forceinline__ quad load_four(const void *x, int narrow, size_t at)
{
	uint32_t r[2];
	quad q;

	if (!narrow)
		return load_quad<true>((const float *)x + at, 4);
	load8(r, (const uint16_t *)x + at);
	q.v[0] = bf16_to(r[0] & 0xffff), q.v[1] = bf16_to(r[0] >> 16);
	q.v[2] = bf16_to(r[1] & 0xffff), q.v[3] = bf16_to(r[1] >> 16);
	return q;
}

static __device__ __forceinline__ quad no_quad(void)
{
	quad q;

	q.v[0] = q.v[1] = q.v[2] = q.v[3] = 0;
	return q;
}

static __device__ __forceinline__ uint32_t most_of(const quad &q)
{
	return larger(larger(magnitude(q.v[0]), magnitude(q.v[1])),
		      larger(magnitude(q.v[2]), magnitude(q.v[3])));
}

static __device__ __forceinline__ void store_codes(uint8_t *q, const quad &v, float inverse)
{
	float scaled[4];

	for (int i = 0; i < 4; i++)
		scaled[i] = v.v[i] * inverse;
	*(uint32_t *)q = fp8x4_of(scaled);
}

/* A warp's block, @q for its first element; lanes that have none of it are not @in. */
static __device__ __forceinline__ void store_block(uint8_t *q, float *scale, const quad &v, bool in)
{
	uint32_t lane = threadIdx.x % 32;
	float s = fp8_scale(warp_most(most_of(v)));

	if (!lane)
		*scale = s;
	if (in)
		store_codes(q + 4 * lane, v, 1 / s);
}

/* All blocks of a matrix, shared out among warps: f(row, first column, this lane's, in). */
template <class F>
static __device__ __forceinline__ void for_blocks(size_t rows, size_t cols, const F &f)
{
	size_t blocks = blocks_of(cols), warps = grid_threads() / 32;

	for (size_t i = grid_thread() / 32; i < rows * blocks; i += warps) {
		size_t r = i / blocks, first = i % blocks * BLOCK;
		size_t c = first + threadIdx.x % 32 * 4;

		f(i, r, first, c, c < cols);
	}
}

extern "C" __global__ void quant_rows PST_CUDA_QUANT_ROWS
{
	for_blocks(rows, cols, [&](size_t i, size_t r, size_t first, size_t c, bool in) {
		quad v = in ? load_four(x, narrow, r * ldx + c) : no_quad();

		store_block(q + r * cols + first, scale + i, v, in);
	});
}

extern "C" __global__ void swiglu_quant PST_CUDA_SWIGLU_QUANT
{
	for_blocks(rows, cols, [&](size_t i, size_t r, size_t first, size_t c, bool in) {
		quad g = in ? load_four(kept, narrow, 2 * r * cols + c) : no_quad();
		quad u = in ? load_four(kept, narrow, (2 * r + 1) * cols + c) : no_quad();

		for (int j = 0; j < 4; j++)
			g.v[j] = g.v[j] * sigmoid(g.v[j]) * u.v[j];
		store_block(q + r * cols + first, scale + i, g, in);
	});
}

extern "C" __global__ void rmsnorm_quant PST_CUDA_RMSNORM_QUANT
{
	__shared__ float part[MOST_WARPS];
	size_t blocks = blocks_of(cols), lane = threadIdx.x % 32;

	for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
		float sum = 0, norm;

		FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
		{
			quad v = load_four(x, narrow, r * ldx + c);

			for (int i = 0; i < 4; i++)
				sum += v.v[i] * v.v[i];
		}
		norm = 1 / sqrtf(block_sum(sum, part) / (float)cols + eps);
		if (!threadIdx.x)
			rstd[r] = norm;
		for (size_t b = threadIdx.x / 32; b < blocks; b += blockDim.x / 32) {
			size_t c = b * BLOCK + lane * 4;
			bool in = c < cols;
			quad v = in ? load_four(x, narrow, r * ldx + c) : no_quad();
			quad by = in ? load_quad<true>(w + c, 4) : no_quad();

			for (int i = 0; i < 4; i++)
				v.v[i] = v.v[i] * norm * by.v[i];
			store_block(q + r * cols + b * BLOCK, scale + r * blocks + b, v, in);
		}
	}
}

/* Codes of @codes times @scale, to fp32 or bf16. */
static __device__ __forceinline__ void store_four(void *y, int narrow, size_t at, uint32_t codes,
						  float scale)
{
	quad v;

	for (int i = 0; i < 4; i++)
		v.v[i] = fp8_to(codes >> 8 * i & 0xff) * scale;
	if (!narrow) {
		store_quad<true>((float *)y + at, v, 4);
		return;
	}
	*(uint32_t *)((uint16_t *)y + at) = bf16_of(v.v[0]) | bf16_of(v.v[1]) << 16;
	*(uint32_t *)((uint16_t *)y + at + 2) = bf16_of(v.v[2]) | bf16_of(v.v[3]) << 16;
}

extern "C" __global__ void dequant_rows PST_CUDA_DEQUANT
{
	for_blocks(rows, cols, [&](size_t i, size_t r, size_t, size_t c, bool in) {
		if (in)
			store_four(y, narrow, r * cols + c, *(const uint32_t *)(q + r * cols + c),
				   scale[i]);
	});
}

extern "C" __global__ void dequant_tiles PST_CUDA_DEQUANT
{
	size_t blocks = blocks_of(cols);

	for_blocks(rows, cols, [&](size_t, size_t r, size_t, size_t c, bool in) {
		if (in)
			store_four(y, narrow, r * cols + c, *(const uint32_t *)(q + r * cols + c),
				   scale[r / BLOCK * blocks + c / BLOCK]);
	});
}

/* The tile in shared memory: quad @i of row @r. */
static __device__ __forceinline__ float *tile_quad(float *tile, uint32_t r, uint32_t i)
{
	return tile + r * BLOCK + (i ^ (r / 4)) * 4;
}

/* A lane's four of column @c: rows 4 lane ... */
static __device__ __forceinline__ quad tile_column(float *tile, uint32_t c)
{
	quad v;

	for (uint32_t i = 0; i < 4; i++)
		v.v[i] = tile_quad(tile, threadIdx.x % 32 * 4 + i, c / 4)[c % 4];
	return v;
}

/* A launch has a block, even if the matrix has no tile. */
static __device__ __forceinline__ bool no_tile(size_t rows, size_t cols)
{
	return (size_t)blockIdx.y * BLOCK >= rows || (size_t)blockIdx.x * BLOCK >= cols;
}

/* The tile of this block, of a matrix with @rows and @cols, from memory to shared memory. */
template <class F>
static __device__ __forceinline__ void load_tile(float *tile, const void *x, int narrow, size_t ldx,
						 size_t rows, size_t cols, const F &f)
{
	uint32_t lane = threadIdx.x % 32;
	size_t c = (size_t)blockIdx.x * BLOCK + lane * 4;

	for (uint32_t r = threadIdx.x / 32; r < BLOCK; r += WARPS) {
		size_t row = (size_t)blockIdx.y * BLOCK + r;
		bool in = row < rows && c < cols;
		quad v = in ? load_four(x, narrow, row * ldx + c) : no_quad();

		store_quad<true>(tile_quad(tile, r, lane), v, 4);
		f(row, v, in);
	}
}

static __device__ __forceinline__ float *launch_memory(void)
{
	PST_SHARED(float, memory);

	return memory;
}

/* Columns of the tile as rows of @qt, which are @ldt apart: f(column, its four) stores them. */
template <class F>
static __device__ __forceinline__ void for_columns(float *tile, size_t ldt, size_t cols, const F &f)
{
	size_t r = (size_t)blockIdx.y * BLOCK + threadIdx.x % 32 * 4;

	for (uint32_t i = threadIdx.x / 32; i < BLOCK; i += WARPS) {
		size_t c = (size_t)blockIdx.x * BLOCK + i;

		if (c < cols)
			f(c, r, tile_column(tile, i), r < ldt);
	}
}

extern "C" __global__ void __launch_bounds__(PST_CUDA_QUANT_THREADS) quant_both PST_CUDA_QUANT_CAST
{
	float *tile = launch_memory();
	size_t first = (size_t)blockIdx.x * BLOCK, blocks = blocks_of(cols);

	if (no_tile(rows, cols))
		return;
	load_tile(tile, x, narrow, ldx, rows, cols, [&](size_t row, const quad &v, bool in) {
		if (row < rows)
			store_block(q + row * cols + first, scale + row * blocks + blockIdx.x, v,
				    in);
	});
	__syncthreads();
	for_columns(tile, ldt, cols, [&](size_t c, size_t r, const quad &v, bool in) {
		store_block(qt + c * ldt + (size_t)blockIdx.y * BLOCK,
			    scale_t + c * blocks_of(rows) + blockIdx.y, v, in);
		(void)r;
	});
}

extern "C" __global__ void __launch_bounds__(PST_CUDA_QUANT_THREADS) quant_tiles PST_CUDA_QUANT_CAST
{
	__shared__ uint32_t part[WARPS];
	float *tile = launch_memory(), s, inverse;
	uint32_t lane = threadIdx.x % 32, most = 0;
	size_t col = (size_t)blockIdx.x * BLOCK + lane * 4;

	if (no_tile(rows, cols))
		return;
	load_tile(tile, x, narrow, ldx, rows, cols,
		  [&](size_t, const quad &v, bool) { most = larger(most, most_of(v)); });
	most = warp_most(most);
	if (!lane)
		part[threadIdx.x / 32] = most;
	__syncthreads();
	s = fp8_scale(warp_most(part[lane % WARPS]));
	inverse = 1 / s;
	if (!threadIdx.x) {
		scale[(size_t)blockIdx.y * blocks_of(cols) + blockIdx.x] = s;
		if (qt)
			scale_t[(size_t)blockIdx.x * blocks_of(rows) + blockIdx.y] = s;
	}
	for (uint32_t r = threadIdx.x / 32; r < BLOCK; r += WARPS) {
		size_t row = (size_t)blockIdx.y * BLOCK + r;

		if (row < rows && col < cols)
			store_codes(q + row * cols + col,
				    load_quad<true>(tile_quad(tile, r, lane), 4), inverse);
	}
	if (!qt)
		return;
	for_columns(tile, ldt, cols, [&](size_t c, size_t r, const quad &v, bool in) {
		if (in)
			store_codes(qt + c * ldt + r, v, inverse);
	});
}
