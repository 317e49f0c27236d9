/* SPDX-License-Identifier: Apache-2.0 */
/*
 * block.cuh - what kernels share: four floats at a time, sums over a block, bf16.
 *
 * Memory-bound kernels work on four elements at a time, with one 16-byte access where all rows
 * begin on 16 bytes (WIDE) and with single ones where not. Who adds what to which sum is the same
 * in both, so that bits do not depend on addresses.
 */
#ifndef PST_CUDA_BLOCK_H
#define PST_CUDA_BLOCK_H

#include "kernels/cuda/ptx.h"

#include <math.h>

#define ALL_LANES  0xffffffffu
#define MOST_WARPS 32

struct quad {
	float v[4];
};

/* Elements of a thread in a loop over @n: quad i of the block, or of the grid, as strides say. */
#define FOR_QUADS(i, first, stride, n) for (size_t i = 4 * (first); i < (n); i += 4 * (stride))

static __device__ __forceinline__ size_t grid_thread(void)
{
	return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ __forceinline__ size_t grid_threads(void)
{
	return (size_t)gridDim.x * blockDim.x;
}

/* Does @p begin on 16 bytes (NULL does), and then every row of @ld floats after it? */
static __device__ __forceinline__ bool is_wide(const void *p, size_t ld)
{
	return !((uintptr_t)p & 15) && !(ld & 3);
}

/* The up to four elements from @p; what is beyond @left is zero and not read. */
template <bool WIDE> static __device__ __forceinline__ quad load_quad(const float *p, size_t left)
{
	quad q;

	if (WIDE && left >= 4) {
		float4 f = load16(p);

		q.v[0] = f.x, q.v[1] = f.y, q.v[2] = f.z, q.v[3] = f.w;
		return q;
	}
#pragma unroll
	for (size_t i = 0; i < 4; i++)
		q.v[i] = i < left ? p[i] : 0;
	return q;
}

template <bool WIDE>
static __device__ __forceinline__ void store_quad(float *p, const quad &q, size_t left)
{
	if (WIDE && left >= 4) {
		float4 f;

		f.x = q.v[0], f.y = q.v[1], f.z = q.v[2], f.w = q.v[3];
		store16(p, f);
		return;
	}
#pragma unroll
	for (size_t i = 0; i < 4; i++)
		if (i < left)
			p[i] = q.v[i];
}

static __device__ __forceinline__ float warp_sum(float x)
{
	for (int step = 16; step; step /= 2)
		x += __shfl_xor_sync(ALL_LANES, x, step);
	return x;
}

/*
 * The sum over all threads of the block, in every thread; @part has MOST_WARPS places. Called by
 * all threads, in blocks of whole warps.
 */
static __device__ __forceinline__ float block_sum(float x, float *part)
{
	unsigned int lane = threadIdx.x % 32, warps = blockDim.x / 32;

	x = warp_sum(x);
	__syncthreads(); /* whoever still reads the last sum */
	if (!lane)
		part[threadIdx.x / 32] = x;
	__syncthreads();
	return warp_sum(lane < warps ? part[lane] : 0);
}

/* As kernels/bf16.h: nearest, ties to even; a NaN stays one. */
static __device__ __forceinline__ uint32_t bf16_of(float f)
{
	uint32_t u = __float_as_uint(f);

	if ((u & 0x7fffffffu) > 0x7f800000u)
		return u >> 16 | 0x40;
	return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

static __device__ __forceinline__ float bf16_to(uint32_t h)
{
	return __uint_as_float(h << 16);
}

static __device__ __forceinline__ float sigmoid(float x)
{
	return 1 / (1 + expf(-x));
}

#endif /* PST_CUDA_BLOCK_H */
