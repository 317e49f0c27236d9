/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RMSNorm (arXiv:1910.07467): a block a row. The row is read a second time once its sum is known,
 * then from cache: a row of 7168 floats is 28 KiB.
 */
#include "kernels/cuda/block.cuh"

template <bool WIDE>
static __device__ void norm_row(float *y, float *rstd, const float *x, const float *w, size_t cols,
				float eps, float *part)
{
	float sum = 0, scale;

	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	{
		quad q = load_quad<WIDE>(x + c, cols - c);

		for (int i = 0; i < 4; i++)
			sum += q.v[i] * q.v[i];
	}
	scale = 1 / sqrtf(block_sum(sum, part) / (float)cols + eps);
	if (!threadIdx.x)
		*rstd = scale;
	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	{
		quad q = load_quad<WIDE>(x + c, cols - c), v = load_quad<WIDE>(w + c, cols - c);

		for (int i = 0; i < 4; i++)
			q.v[i] = q.v[i] * scale * v.v[i];
		store_quad<WIDE>(y + c, q, cols - c);
	}
}

extern "C" __global__ void rmsnorm(float *y, size_t ldy, float *rstd, const float *x, size_t ldx,
				   const float *w, size_t rows, size_t cols, float eps)
{
	__shared__ float part[MOST_WARPS];
	bool wide = is_wide(y, ldy) && is_wide(x, ldx) && is_wide(w, 0);

	for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
		if (wide)
			norm_row<true>(y + r * ldy, rstd + r, x + r * ldx, w, cols, eps, part);
		else
			norm_row<false>(y + r * ldy, rstd + r, x + r * ldx, w, cols, eps, part);
	}
}

/* With n = x rstd: dx = rstd (dy w - n mean(dy w n)). */
template <bool WIDE>
static __device__ void dx_row(float *dx, const float *dy, const float *x, const float *w,
			      float rstd, size_t cols, float *part)
{
	float sum = 0, f;

	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	{
		quad d = load_quad<WIDE>(dy + c, cols - c), q = load_quad<WIDE>(x + c, cols - c),
		     v = load_quad<WIDE>(w + c, cols - c);

		for (int i = 0; i < 4; i++)
			sum += d.v[i] * v.v[i] * q.v[i];
	}
	f = block_sum(sum, part) / (float)cols * rstd * rstd;
	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	{
		quad d = load_quad<WIDE>(dy + c, cols - c), q = load_quad<WIDE>(x + c, cols - c),
		     v = load_quad<WIDE>(w + c, cols - c);

		for (int i = 0; i < 4; i++)
			d.v[i] = rstd * (d.v[i] * v.v[i] - q.v[i] * f);
		store_quad<WIDE>(dx + c, d, cols - c);
	}
}

extern "C" __global__ void rmsnorm_dx(float *dx, size_t lddx, const float *dy, size_t lddy,
				      const float *x, size_t ldx, const float *w, const float *rstd,
				      size_t rows, size_t cols)
{
	__shared__ float part[MOST_WARPS];
	bool wide = is_wide(dx, lddx) && is_wide(dy, lddy) && is_wide(x, ldx) && is_wide(w, 0);

	for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
		const float *d = dy + r * lddy, *q = x + r * ldx;

		if (wide)
			dx_row<true>(dx + r * lddx, d, q, w, rstd[r], cols, part);
		else
			dx_row<false>(dx + r * lddx, d, q, w, rstd[r], cols, part);
	}
}

/*
 * A block owns 32 columns, a lane one of them. Warp i sums rows i, i + warps, ...; then the warps'
 * sums are added in order. The number of warps is the kernel's own, so bits do not follow the
 * launch.
 */
#define DW_WARPS 16

extern "C" __global__ void __launch_bounds__(DW_WARPS * 32)
	rmsnorm_dw(float *dw, const float *dy, size_t lddy, const float *x, size_t ldx,
		   const float *rstd, size_t rows, size_t cols)
{
	__shared__ float part[DW_WARPS][32];
	size_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;

	for (size_t first = (size_t)blockIdx.x * 32; first < cols;
	     first += (size_t)gridDim.x * 32) {
		size_t c = first + lane;
		float sum = 0;

		for (size_t r = warp; r < rows && c < cols; r += DW_WARPS)
			sum += dy[r * lddy + c] * (x[r * ldx + c] * rstd[r]);
		__syncthreads(); /* whoever still adds the last columns */
		part[warp][lane] = sum;
		__syncthreads();
		for (int i = 1; !warp && i < DW_WARPS; i++)
			sum += part[i][lane];
		if (!warp && c < cols)
			dw[c] = sum;
	}
}
