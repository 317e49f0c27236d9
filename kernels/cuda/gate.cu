/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DeepSeek-V3's gate (arXiv:2412.19437): a warp a row. The values to choose by lie in shared
 * memory, e of each warp and then one of each group; the next expert in order is found by a scan
 * of all lanes for the best that comes after the last, so ties go to the lower index whatever
 * lane has them.
 */
#include "kernels/cuda/block.cuh"

#define TINY 1e-20f

struct rank {
	float value;
	uint32_t index;
};

static __device__ __forceinline__ bool before(struct rank a, struct rank b)
{
	return a.value > b.value || (a.value == b.value && a.index < b.index);
}

static __device__ struct rank warp_best(struct rank r)
{
	for (int step = 16; step; step /= 2) {
		struct rank other;

		other.value = __shfl_xor_sync(ALL_LANES, r.value, step);
		other.index = __shfl_xor_sync(ALL_LANES, r.index, step);
		if (before(other, r))
			r = other;
	}
	return r;
}

/* The best of @n values, or of those after @last; index n and -inf if there is none. */
static __device__ struct rank next_best(const float *value, size_t n, bool all, struct rank last)
{
	struct rank best = {-INFINITY, (uint32_t)n};

	for (uint32_t i = threadIdx.x % 32; i < n; i += 32) {
		struct rank r = {value[i], i};

		if ((all || before(last, r)) && before(r, best))
			best = r;
	}
	return warp_best(best);
}

/* The sum of the two best of a group, or the one. */
static __device__ float group_value(const float *value, size_t size)
{
	float a = -INFINITY, b = -INFINITY;

	for (size_t i = 0; i < size; i++) {
		b = value[i] > a ? a : fmaxf(b, value[i]);
		a = fmaxf(a, value[i]);
	}
	return size > 1 ? a + b : a;
}

/* Puts the experts of all groups that are not chosen out. */
static __device__ void limit_groups(float *value, float *group, uint32_t e, uint32_t n_group,
				    size_t topk_group)
{
	uint32_t size = e / n_group, lane = threadIdx.x % 32;
	struct rank last = {0, 0};

	for (uint32_t g = lane; g < n_group; g += 32)
		group[g] = group_value(value + g * size, size);
	__syncwarp();
	for (size_t t = 0; t < topk_group && t < n_group; t++)
		last = next_best(group, n_group, !t, last);
	for (uint32_t i = lane; i < e; i += 32) {
		struct rank r = {group[i / size], i / size};

		if (before(last, r))
			value[i] = -INFINITY;
	}
	__syncwarp();
}

static __device__ void fill_values(float *value, float *score, const float *logit,
				   const float *bias, size_t e)
{
	for (size_t i = threadIdx.x % 32; i < e; i += 32) {
		float s = sigmoid(logit[i]), v = bias ? s + bias[i] : s;

		score[i] = s;
		value[i] = v == v ? v : -INFINITY;
	}
	__syncwarp();
}

/* Lane 0 keeps the list, ascending; it is short. */
static __device__ void choose(int32_t *idx, const float *value, size_t e, size_t k)
{
	struct rank last = {0, 0};

	for (size_t j = 0; j < k; j++) {
		last = next_best(value, e, !j, last);
		if (threadIdx.x % 32)
			continue;
		size_t at = j;

		for (; at && idx[at - 1] > (int32_t)last.index; at--)
			idx[at] = idx[at - 1];
		idx[at] = (int32_t)last.index;
	}
}

static __device__ void weigh(float *w, const int32_t *idx, const float *score, size_t k, int norm,
			     float scale)
{
	float sum = 0;

	for (size_t j = 0; j < k; j++)
		sum += score[idx[j]];
	for (size_t j = 0; j < k; j++)
		w[j] = (norm ? score[idx[j]] / (sum + TINY) : score[idx[j]]) * scale;
}

extern "C" __global__ void gate_topk(int32_t *idx, float *w, float *score, const float *logit,
				     const float *bias, size_t rows, size_t e, size_t k,
				     size_t n_group, size_t topk_group, int norm, float scale)
{
	PST_SHARED(float, values);
	float *value = values + threadIdx.x / 32 * (e + n_group), *group = value + e;

	for (size_t r = grid_thread() / 32; r < rows; r += grid_threads() / 32) {
		fill_values(value, score + r * e, logit + r * e, bias, e);
		if (n_group > 1)
			limit_groups(value, group, (uint32_t)e, (uint32_t)n_group, topk_group);
		choose(idx + r * k, value, e, k);
		if (!(threadIdx.x % 32))
			weigh(w + r * k, idx + r * k, score + r * e, k, norm, scale);
	}
}

/* Through norm and scale: d loss / d s of expert @i, zero if it is not among the chosen. */
static __device__ float weight_grad(const float *dw, const int32_t *idx, const float *score,
				    size_t k, size_t i, int norm, float scale)
{
	float sum = 0, dot = 0, own = 0;
	bool chosen = false;

	for (size_t j = 0; j < k; j++) {
		sum += score[idx[j]];
		dot += dw[j] * score[idx[j]];
		chosen = chosen || (size_t)idx[j] == i;
		own = (size_t)idx[j] == i ? dw[j] : own;
	}
	if (!chosen)
		return 0;
	sum += TINY;
	return norm ? scale * (own - dot / sum) / sum : scale * own;
}

extern "C" __global__ void gate_bwd(float *dlogit, const float *dw, const int32_t *idx,
				    const float *score, const float *coef, size_t rows, size_t e,
				    size_t k, int norm, float scale)
{
	for (size_t r = grid_thread() / 32; r < rows; r += grid_threads() / 32) {
		const float *s = score + r * e;
		float sum = 0, dot = 0;

		for (size_t i = threadIdx.x % 32; coef && i < e; i += 32) {
			sum += s[i];
			dot += coef[i] * s[i];
		}
		sum = warp_sum(sum) + TINY;
		dot = warp_sum(dot);
		for (size_t i = threadIdx.x % 32; i < e; i += 32) {
			float ds = coef ? (coef[i] - dot / sum) / sum : 0;

			ds += weight_grad(dw + r * k, idx + r * k, s, k, i, norm, scale);
			dlogit[r * e + i] = ds * (s[i] * (1 - s[i]));
		}
	}
}

/*
 * One sequence, one block. Counts are whole numbers, which fp32 adds exactly up to 2^24; rows are
 * shared out among a fixed number of warps, so sums keep their order.
 */
#define BALANCE_WARPS 32

static __device__ void balance_coef(float *coef, const int32_t *idx, size_t rows, size_t e,
				    size_t k, float alpha)
{
	for (size_t i = threadIdx.x; i < e; i += blockDim.x)
		coef[i] = 0;
	__syncthreads();
	for (size_t i = threadIdx.x; i < rows * k; i += blockDim.x)
		atomicAdd((unsigned int *)&coef[idx[i]], 1u);
	__syncthreads();
	for (size_t i = threadIdx.x; i < e; i += blockDim.x) {
		float count = (float)__float_as_uint(coef[i]);

		coef[i] = alpha * ((float)e / (float)(k * rows) * count) / (float)rows;
	}
	__syncthreads();
}

extern "C" __global__ void __launch_bounds__(BALANCE_WARPS * 32)
	balance(float *out, float *coef, const int32_t *idx, const float *score, size_t rows,
		size_t e, size_t k, float alpha)
{
	__shared__ float part[MOST_WARPS];
	float loss = 0;

	if (rows && k) {
		balance_coef(coef, idx, rows, e, k, alpha);
	} else {
		for (size_t i = threadIdx.x; i < e; i += blockDim.x)
			coef[i] = 0;
		rows = 0;
	}
	for (size_t r = threadIdx.x / 32; r < rows; r += BALANCE_WARPS) {
		float sum = 0, dot = 0;

		for (size_t i = threadIdx.x % 32; i < e; i += 32) {
			sum += score[r * e + i];
			dot += coef[i] * score[r * e + i];
		}
		sum = warp_sum(sum);
		dot = warp_sum(dot);
		loss += dot / (sum + TINY);
	}
	/* lanes of a warp have the same: one of them counts */
	loss = block_sum(threadIdx.x % 32 ? 0 : loss, part);
	if (!threadIdx.x)
		*out = loss;
}
