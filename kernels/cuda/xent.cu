/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cross-entropy in place: a block a row. The first pass keeps the maximum so far and the sum of
 * exponentials above it (arXiv:1805.02867), the second writes the gradient over the logits.
 */
#include "kernels/cuda/block.cuh"

struct soft {
	float max, sum;
};

/* Of all that either has seen, in any order; a part that saw nothing has -inf and 0. */
static __device__ __forceinline__ struct soft join(struct soft a, struct soft b)
{
	struct soft to;

	to.max = fmaxf(a.max, b.max);
	to.sum = 0;
	if (a.sum)
		to.sum += a.sum * expf(a.max - to.max);
	if (b.sum)
		to.sum += b.sum * expf(b.max - to.max);
	return to;
}

static __device__ struct soft warp_join(struct soft s)
{
	for (int step = 16; step; step /= 2) {
		struct soft other;

		other.max = __shfl_xor_sync(ALL_LANES, s.max, step);
		other.sum = __shfl_xor_sync(ALL_LANES, s.sum, step);
		s = join(s, other);
	}
	return s;
}

static __device__ struct soft block_join(struct soft s, struct soft *part)
{
	struct soft none = {-INFINITY, 0};

	s = warp_join(s);
	__syncthreads(); /* whoever still reads the last row's */
	if (!(threadIdx.x % 32))
		part[threadIdx.x / 32] = s;
	__syncthreads();
	return warp_join(threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : none);
}

template <bool WIDE> static __device__ struct soft row_soft(const float *x, size_t vocab)
{
	struct soft s = {-INFINITY, 0};

	FOR_QUADS(c, threadIdx.x, blockDim.x, vocab)
	{
		quad q = load_quad<WIDE>(x + c, vocab - c);
		struct soft four = {-INFINITY, 0};

		for (size_t i = 0; i < 4 && i < vocab - c; i++)
			four.max = fmaxf(four.max, q.v[i]);
		for (size_t i = 0; i < 4 && i < vocab - c; i++)
			four.sum += expf(q.v[i] - four.max);
		s = join(s, four);
	}
	return s;
}

template <bool WIDE>
static __device__ void row_grad(float *x, struct soft s, int32_t target, size_t vocab, float scale)
{
	float inverse = 1 / s.sum;

	FOR_QUADS(c, threadIdx.x, blockDim.x, vocab)
	{
		quad q = load_quad<WIDE>(x + c, vocab - c);

		for (size_t i = 0; i < 4; i++) {
			float p = target < 0 ? 0 : expf(q.v[i] - s.max) * inverse;

			q.v[i] = (p - (c + i == (size_t)(int64_t)target ? 1 : 0)) * scale;
		}
		store_quad<WIDE>(x + c, q, vocab - c);
	}
}

template <bool WIDE>
static __device__ void xent_row(float *loss, float *x, int32_t target, size_t vocab, float scale,
				struct soft *part)
{
	struct soft s = {0, 1};

	if (target >= 0) {
		float at = x[target]; /* before anyone writes: join has barriers */

		s = block_join(row_soft<WIDE>(x, vocab), part);
		if (!threadIdx.x)
			*loss = logf(s.sum) + (s.max - at);
	} else if (!threadIdx.x) {
		*loss = 0;
	}
	row_grad<WIDE>(x, s, target, vocab, scale);
}

extern "C" __global__ void xent(float *loss, float *logit, size_t ld, const int32_t *target,
				size_t rows, size_t vocab, float scale)
{
	__shared__ struct soft part[MOST_WARPS];
	bool wide = is_wide(logit, ld);

	for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
		if (wide)
			xent_row<true>(loss + r, logit + r * ld, target[r], vocab, scale, part);
		else
			xent_row<false>(loss + r, logit + r * ld, target[r], vocab, scale, part);
	}
}
