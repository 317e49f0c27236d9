/* SPDX-License-Identifier: Apache-2.0 */
/* RoPE in place: a warp a row, a thread a pair. */
#include "kernels/cuda/block.cuh"

extern "C" __global__ void rope(float *x, size_t ldx, size_t rows, size_t dim, const int32_t *pos,
				const float *cos_t, const float *sin_t, int inverse)
{
	size_t half = dim / 2;

	for (size_t r = grid_thread() / 32; r < rows; r += grid_threads() / 32) {
		const float *co = cos_t + (size_t)pos[r] * half,
			    *si = sin_t + (size_t)pos[r] * half;

		for (size_t i = threadIdx.x % 32; i < half; i += 32) {
			float *pair = x + r * ldx + 2 * i, a = pair[0], b = pair[1];
			float c = co[i], s = inverse ? -si[i] : si[i];

			pair[0] = a * c - b * s;
			pair[1] = a * s + b * c;
		}
	}
}
