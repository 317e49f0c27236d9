/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sum of squares in fp64. Its order is that of SUMSQ_PARTS partial sums, part p being quads
 * p, p + SUMSQ_PARTS, ... of SUMSQ_THREADS threads each: `sumsq` makes all parts in one block,
 * `sumsq_parts` and `sumsq_total` make them all over the device and add them. Both give the same
 * bits.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/block.cuh"

#define PARTS	PST_CUDA_SUMSQ_PARTS
#define THREADS PST_CUDA_SUMSQ_THREADS

static __device__ double warp_sum64(double x)
{
	for (int step = 16; step; step /= 2)
		x += __shfl_xor_sync(ALL_LANES, x, step);
	return x;
}

/* Over the block, in every thread. */
static __device__ double block_sum64(double x, double *warps)
{
	x = warp_sum64(x);
	__syncthreads();
	if (!(threadIdx.x % 32))
		warps[threadIdx.x / 32] = x;
	__syncthreads();
	return warp_sum64(threadIdx.x % 32 < THREADS / 32 ? warps[threadIdx.x % 32] : 0);
}

static __device__ double part_of(const float *x, size_t n, size_t part, double *warps)
{
	bool wide = is_wide(x, 0);
	double sum = 0;

	FOR_QUADS(i, part * THREADS + threadIdx.x, (size_t)PARTS * THREADS, n)
	{
		quad q = wide ? load_quad<true>(x + i, n - i) : load_quad<false>(x + i, n - i);

		for (int j = 0; j < 4; j++)
			sum += (double)q.v[j] * q.v[j];
	}
	return block_sum64(sum, warps);
}

/* Adds parts as they come, in order: what sumsq_total does, too. */
extern "C" __global__ void __launch_bounds__(THREADS) sumsq(double *out, const float *x, size_t n)
{
	__shared__ double warps[MOST_WARPS];
	double sum = 0;

	for (size_t p = 0; p < PARTS && 4 * p * THREADS < n; p++)
		sum += part_of(x, n, p, warps);
	if (!threadIdx.x)
		*out = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS)
	sumsq_parts(double *part, const float *x, size_t n)
{
	__shared__ double warps[MOST_WARPS];

	for (size_t p = blockIdx.x; p < PARTS; p += gridDim.x) {
		double sum = part_of(x, n, p, warps);

		if (!threadIdx.x)
			part[p] = sum;
	}
}

extern "C" __global__ void __launch_bounds__(32)
	sumsq_total(double *out, const double *part, size_t parts)
{
	double sum = 0;

	if (threadIdx.x)
		return;
	for (size_t p = 0; p < parts; p++)
		sum += part[p];
	*out = sum;
}
