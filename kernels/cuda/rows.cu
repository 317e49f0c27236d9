/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole rows on their way to the experts and back, and the table of embeddings.
 *
 * All of it is bound by memory: a block takes a row, its threads take neighbouring quads, and
 * nothing is read twice from memory.
 */
#include "kernels/cuda/block.cuh"

/* y = s * x, one row. */
template <bool WIDE>
static __device__ void scale_row(float *y, const float *x, float s, size_t cols)
{
	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	{
		quad q = load_quad<WIDE>(x + c, cols - c);

		for (int i = 0; i < 4; i++)
			q.v[i] *= s;
		store_quad<WIDE>(y + c, q, cols - c);
	}
}

template <bool WIDE> static __device__ void copy_row(float *y, const float *x, size_t cols)
{
	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	store_quad<WIDE>(y + c, load_quad<WIDE>(x + c, cols - c), cols - c);
}

static __device__ void gather_rows(float *y, const float *x, const int32_t *idx, size_t rows,
				   size_t cols)
{
	bool wide = is_wide(y, cols) && is_wide(x, cols);

	for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
		const float *from = x + (size_t)idx[r] * cols;

		if (wide)
			copy_row<true>(y + r * cols, from, cols);
		else
			copy_row<false>(y + r * cols, from, cols);
	}
}

extern "C" __global__ void gather(float *y, const float *x, const int32_t *idx, size_t rows,
				  size_t cols)
{
	gather_rows(y, x, idx, rows, cols);
}

extern "C" __global__ void embed(float *y, const float *table, const int32_t *id, size_t rows,
				 size_t cols)
{
	gather_rows(y, table, id, rows, cols);
}

template <bool WIDE>
static __device__ void combine_row(float *y, const float *x, const float *w, const int32_t *slot,
				   size_t k, size_t cols, int acc)
{
	FOR_QUADS(c, threadIdx.x, blockDim.x, cols)
	{
		quad sum = {{0, 0, 0, 0}};

		for (size_t j = 0; j < k; j++) {
			quad q = load_quad<WIDE>(x + (size_t)slot[j] * cols + c, cols - c);

			for (int i = 0; i < 4; i++)
				sum.v[i] += w ? w[j] * q.v[i] : q.v[i];
		}
		if (acc) {
			quad old = load_quad<WIDE>(y + c, cols - c);

			for (int i = 0; i < 4; i++)
				sum.v[i] = old.v[i] + sum.v[i];
		}
		store_quad<WIDE>(y + c, sum, cols - c);
	}
}

extern "C" __global__ void combine(float *y, const float *x, const float *w, const int32_t *slot,
				   size_t tokens, size_t k, size_t cols, int acc)
{
	bool wide = is_wide(y, cols) && is_wide(x, cols);

	for (size_t t = blockIdx.x; t < tokens; t += gridDim.x) {
		const float *wt = w ? w + t * k : NULL;

		if (wide)
			combine_row<true>(y + t * cols, x, wt, slot + t * k, k, cols, acc);
		else
			combine_row<false>(y + t * cols, x, wt, slot + t * k, k, cols, acc);
	}
}

/* A dot product is one warp's, which keeps its order whatever the block. */
template <bool WIDE> static __device__ float warp_dot(const float *a, const float *b, size_t cols)
{
	float sum = 0;

	FOR_QUADS(c, threadIdx.x % 32, 32, cols)
	{
		quad p = load_quad<WIDE>(a + c, cols - c), q = load_quad<WIDE>(b + c, cols - c);

		for (int i = 0; i < 4; i++)
			sum += p.v[i] * q.v[i];
	}
	return warp_sum(sum);
}

extern "C" __global__ void combine_dw(float *dw, const float *dy, const float *x,
				      const int32_t *slot, size_t tokens, size_t k, size_t cols)
{
	bool wide = is_wide(dy, cols) && is_wide(x, cols);

	for (size_t i = grid_thread() / 32; i < tokens * k; i += grid_threads() / 32) {
		const float *a = dy + i / k * cols, *b = x + (size_t)slot[i] * cols;
		float sum = wide ? warp_dot<true>(a, b, cols) : warp_dot<false>(a, b, cols);

		if (!(threadIdx.x % 32))
			dw[i] = sum;
	}
}

extern "C" __global__ void scatter_scaled(float *dx, const float *dy, const float *w,
					  const int32_t *slot, size_t tokens, size_t k, size_t cols)
{
	bool wide = is_wide(dx, cols) && is_wide(dy, cols);

	for (size_t i = blockIdx.x; i < tokens * k; i += gridDim.x) {
		float *to = dx + (size_t)slot[i] * cols;
		const float *from = dy + i / k * cols;

		if (wide)
			scale_row<true>(to, from, w[i], cols);
		else
			scale_row<false>(to, from, w[i], cols);
	}
}

template <bool WIDE> static __device__ void add_to(float *y, const float *x, size_t n)
{
	FOR_QUADS(i, grid_thread(), grid_threads(), n)
	{
		quad a = load_quad<WIDE>(y + i, n - i), b = load_quad<WIDE>(x + i, n - i);

		for (int j = 0; j < 4; j++)
			a.v[j] += b.v[j];
		store_quad<WIDE>(y + i, a, n - i);
	}
}

extern "C" __global__ void add(float *y, const float *x, size_t n)
{
	if (is_wide(y, 0) && is_wide(x, 0))
		add_to<true>(y, x, n);
	else
		add_to<false>(y, x, n);
}

/*
 * A block owns EMBED_ROWS rows of the table, and a thread of it some of their columns: it clears
 * them and then walks through the ids in order. Ids are read a block's width at a time, and those
 * of the own rows kept in order (ballots count who comes before).
 */
#define EMBED_ROWS 32

struct hits {
	unsigned int of_warp[MOST_WARPS];
	uint32_t at[MOST_WARPS * 32]; /* which of the ids that were read */
};

static __device__ unsigned int find_hits(struct hits *h, const int32_t *id, size_t left,
					 size_t first)
{
	unsigned int lane = threadIdx.x % 32, warp = threadIdx.x / 32, before = 0, all = 0;
	bool mine = threadIdx.x < left && (size_t)id[threadIdx.x] - first < EMBED_ROWS;
	uint32_t who = __ballot_sync(ALL_LANES, mine);

	if (!lane)
		h->of_warp[warp] = (unsigned int)__popc(who);
	__syncthreads();
	for (unsigned int i = 0; i < blockDim.x / 32; i++) {
		before += i < warp ? h->of_warp[i] : 0;
		all += h->of_warp[i];
	}
	if (mine)
		h->at[before + (unsigned int)__popc(who & ((1u << lane) - 1))] = threadIdx.x;
	__syncthreads();
	return all;
}

extern "C" __global__ void embed_bwd(float *dtable, size_t ldt, const float *dy, size_t lddy,
				     const int32_t *id, size_t rows, size_t vocab, size_t cols)
{
	__shared__ struct hits h;

	for (size_t first = (size_t)blockIdx.x * EMBED_ROWS; first < vocab;
	     first += (size_t)gridDim.x * EMBED_ROWS) {
		size_t last = first + EMBED_ROWS < vocab ? first + EMBED_ROWS : vocab;

		for (size_t v = first; v < last; v++)
			for (size_t c = threadIdx.x; c < cols; c += blockDim.x)
				dtable[v * ldt + c] = 0;
		for (size_t r = 0; r < rows; r += blockDim.x) {
			unsigned int n = find_hits(&h, id + r, rows - r, first);

			for (unsigned int i = 0; i < n; i++) {
				const float *from = dy + (r + h.at[i]) * lddy;
				float *to = dtable + (size_t)id[r + h.at[i]] * ldt;

				for (size_t c = threadIdx.x; c < cols; c += blockDim.x)
					to[c] += from[c];
			}
		}
	}
}
