/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts of rows that belong to heads: copied, summed over heads, rotated. All of it is bound by
 * memory. A part is short (64 or 128 columns), so a warp takes one, and its threads take
 * neighbouring columns; where quads would be wide the parts of most models do not begin on 16
 * bytes for every head.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/block.cuh"

extern "C" __global__ void copy_heads(float *y, size_t ldy, size_t head_y, const float *x,
				      size_t ldx, size_t head_x, size_t rows, size_t heads,
				      size_t cols)
{
	for (size_t i = grid_thread() / 32; i < rows * heads; i += grid_threads() / 32) {
		size_t r = i / heads, h = i % heads;
		const float *from = x + r * ldx + h * head_x;
		float *to = y + r * ldy + h * head_y;

		for (size_t c = threadIdx.x % 32; c < cols; c += 32)
			to[c] = from[c];
	}
}

extern "C" __global__ void sum_heads(float *y, size_t ldy, const float *x, size_t ldx,
				     size_t head_x, size_t rows, size_t heads, size_t cols)
{
	for (size_t r = grid_thread() / 32; r < rows; r += grid_threads() / 32)
		for (size_t c = threadIdx.x % 32; c < cols; c += 32) {
			const float *from = x + r * ldx + c;
			float sum = heads ? from[0] : 0;

			for (size_t h = 1; h < heads; h++)
				sum += from[h * head_x];
			y[r * ldy + c] = sum;
		}
}

/* Pairs of a thread: PST_CUDA_ROPE_MAX of dim are half as many for the 32 of a warp. */
#define PAIRS (PST_CUDA_ROPE_MAX / 64)

/* All pairs are read before one is written: with @split they come from where others go. */
extern "C" __global__ void rope_heads(float *x, size_t ldx, size_t head_x, size_t rows,
				      size_t heads, size_t dim, const int32_t *pos,
				      const float *cos_t, const float *sin_t, int split,
				      int inverse)
{
	size_t half = dim / 2, lane = threadIdx.x % 32;
	float a[PAIRS], b[PAIRS];

	for (size_t n = grid_thread() / 32; n < rows * heads; n += grid_threads() / 32) {
		float *at = x + n / heads * ldx + n % heads * head_x;
		const float *co = cos_t + (size_t)pos[n / heads] * half,
			    *si = sin_t + (size_t)pos[n / heads] * half;

#pragma unroll
		for (size_t j = 0; j < PAIRS; j++) {
			size_t i = lane + 32 * j;

			if (i >= half)
				continue;
			a[j] = at[split && !inverse ? i : 2 * i];
			b[j] = at[split && !inverse ? i + half : 2 * i + 1];
		}
		__syncwarp();
#pragma unroll
		for (size_t j = 0; j < PAIRS; j++) {
			size_t i = lane + 32 * j;
			float c, s;

			if (i >= half)
				continue;
			c = co[i];
			s = inverse ? -si[i] : si[i];
			at[split && inverse ? i : 2 * i] = a[j] * c - b[j] * s;
			at[split && inverse ? i + half : 2 * i + 1] = a[j] * s + b[j] * c;
		}
		__syncwarp();
	}
}
