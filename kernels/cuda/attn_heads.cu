/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention forward, all heads of all sequences (arXiv:2307.08691): a block has QUERIES queries of
 * one head, a warp 16 of them, whose results stay in registers while the keys pass by, KEYS at a
 * time. The softmax is carried by its maximum and sum; probabilities go from the fragment that
 * holds scores to the one that multiplies values as they are, without shared memory.
 *
 * Keys are loaded while values are multiplied, and values while scores are, so that one place for
 * each will do. Blocks with most keys begin first. Heads wider than PST_CUDA_ATTN_DQK or DV are
 * computed row by row in fp32 (attn_rows.cuh).
 *
 * On Hopper wgmma with TMA is what would go beyond this; it could not be tried where this was made.
 */
#include "kernels/cuda/attn_tile.cuh"
#include "kernels/cuda/attn_rows.cuh"

#define QUERIES PST_CUDA_ATTN_QUERIES
#define KEYS	PST_CUDA_ATTN_KEYS
#define WARPS	(THREADS / 32)

struct softmax {
	float max[2], sum[2]; /* of a lane's two rows; max is of scale * LOG2E * score */
};

/*
 * Scores to probabilities of keys from @key on. Row 0 of the lane sees @seen keys in all, row 1 as
 * many as @seen8. What @o held is scaled to the new maximum.
 */
static __device__ __forceinline__ void soften(float s[KEYS / 8][4], float o[DV / 8][4],
					      struct softmax &m, int64_t key, int64_t seen,
					      int64_t seen8, float scale)
{
	uint32_t col = threadIdx.x % 4 * 2;
	float max[2] = {m.max[0], m.max[1]}, keep[2], sum[2] = {0, 0};

#pragma unroll
	for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			int64_t at = key + 8 * j + col + e % 2;

			s[j][e] = at < (e < 2 ? seen : seen8) ? s[j][e] * scale : -INFINITY;
			max[e / 2] = fmaxf(max[e / 2], s[j][e]);
		}
#pragma unroll
	for (int r = 0; r < 2; r++) {
		max[r] = row_max(max[r]);
		keep[r] = exp2f(m.max[r] - (max[r] > -INFINITY ? max[r] : 0));
		m.max[r] = max[r];
		max[r] = max[r] > -INFINITY ? max[r] : 0;
	}
#pragma unroll
	for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			s[j][e] = exp2f(s[j][e] - max[e / 2]);
			sum[e / 2] += s[j][e];
		}
#pragma unroll
	for (int r = 0; r < 2; r++)
		m.sum[r] = m.sum[r] * keep[r] + sum[r];
#pragma unroll
	for (int j = 0; j < DV / 8; j++)
#pragma unroll
		for (int e = 0; e < 4; e++)
			o[j][e] *= keep[e / 2];
}

/* o += p v */
static __device__ __forceinline__ void weigh(float o[DV / 8][4], const float p[KEYS / 8][4],
					     uint32_t values, uint32_t cols)
{
#pragma unroll
	for (uint32_t k = 0; k < KEYS / 16; k++) {
		const float *a = p[2 * k], *b = p[2 * k + 1];
		uint32_t left[4] = {bf16_pair(a[0], a[1]), bf16_pair(a[2], a[3]),
				    bf16_pair(b[0], b[1]), bf16_pair(b[2], b[3])};

#pragma unroll
		for (uint32_t j = 0; j < DV / 8; j += 2) {
			uint32_t right[4];

			if (8 * j >= cols)
				break;
			take_b_across<DV>(right, values, 8 * j, k);
			mma_bf16(o[j], left, right[0], right[1]);
			mma_bf16(o[j + 1], left, right[2], right[3]);
		}
	}
}

struct made {
	float *o, *lse;
	size_t ld;
};

/* Rows from @row on, of which a lane has two. */
static __device__ __forceinline__ void finish(const struct made &to, const float o[DV / 8][4],
					      const struct softmax &m, uint32_t row, uint32_t rows,
					      uint32_t cols)
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int r = 0; r < 2; r++) {
		float sum = row_sum(m.sum[r]), by = sum != 0 ? 1 / sum : 0;
		uint32_t at = row + lane / 4 + 8 * r;

		if (at >= rows)
			continue;
		if (lane % 4 == 0)
			to.lse[at] = m.max[r] > -INFINITY || sum != 0
					     ? (m.max[r] + log2f(sum)) * LN2
					     : -INFINITY;
#pragma unroll
		for (int j = 0; j < DV / 8; j++)
#pragma unroll
			for (int e = 0; e < 2; e++)
				if (8 * j + lane % 4 * 2 + e < cols)
					to.o[at * to.ld + 8 * j + lane % 4 * 2 + e] =
						o[j][2 * r + e] * by;
	}
}

/* One tile of queries of one head, from @first on. */
static __device__ __forceinline__ void attend(const struct made &to, const struct part &q,
					      const struct part &k, const struct part &v,
					      uint32_t first, float scale)
{
	unsigned char *queries = launch_memory(), *keys = queries + QUERIES * DQK * 2,
		      *values = keys + KEYS * DQK * 2;
	uint32_t warp = threadIdx.x / 32, row = first + 16 * warp;
	int64_t beyond = (int64_t)k.rows - q.rows + 1; /* keys that query 0 sees */
	int64_t seen = row + threadIdx.x % 32 / 4 + beyond, last = first + QUERIES - 1 + beyond;
	float o[DV / 8][4] = {};
	struct softmax m = {{-INFINITY, -INFINITY}, {0, 0}};
	held<KEYS, DQK> next_k;

	last = last < k.rows ? last : k.rows;
	for (int i = 0; i < QUERIES / KEYS; i++) {
		load(next_k, q, first + i * KEYS);
		store(queries + i * KEYS * DQK * 2, next_k, q);
	}
	load(next_k, k, 0);
	store(keys, next_k, k);
	__syncthreads();
	for (int64_t key = 0; key < last; key += KEYS) {
		bool any = key < row + 15 + beyond && row < q.rows;
		held<KEYS, DV> next_v;
		float s[KEYS / 8][4];

		load(next_v, v, (uint32_t)key);
		if (any) {
			scores<DQK, KEYS / 8>(s, shared_at(queries), 16 * warp, shared_at(keys), 0,
					      q.cols);
			soften(s, o, m, key, seen, seen + 8, scale * LOG2E);
		}
		store(values, next_v, v);
		__syncthreads();
		load(next_k, k, (uint32_t)key + KEYS);
		if (any)
			weigh(o, s, shared_at(values), v.cols);
		store(keys, next_k, k);
		__syncthreads();
	}
	finish(to, o, m, row, q.rows, v.cols);
}

extern "C" __global__ void __launch_bounds__(THREADS) attn_heads PST_CUDA_ATTN_HEADS
{
	size_t h = blockIdx.y, b = blockIdx.z,
	       first = (size_t)(gridDim.x - 1 - blockIdx.x) * QUERIES;
	struct made to = {o + b * tq * ldo + h * head_o, lse + (h * batch + b) * tq, ldo};
	struct part of_q = part_of(q, ldq, head_q, h, b * tq, tq, dqk),
		    of_k = part_of(k, ldk, head_k, h, b * tk, tk, dqk),
		    of_v = part_of(v, ldv, head_v, h, b * tk, tk, dv);

	if (h >= heads || b >= batch || first >= tq)
		return;
	if (dqk <= DQK && dv <= DV) {
		attend(to, of_q, of_k, of_v, (uint32_t)first, scale);
		return;
	}
	for (size_t i = first + threadIdx.x / 32; i < first + QUERIES && i < tq; i += WARPS)
		row_forward(to.o + i * ldo, to.lse + i, of_q.at + i * ldq, rows_from(of_k.at, ldk),
			    rows_from(of_v.at, ldv), i + 1 + tk > tq ? i + 1 + tk - tq : 0, dqk, dv,
			    scale);
}

extern "C" __global__ void __launch_bounds__(128) attn_heads_delta PST_CUDA_ATTN_HEADS_DELTA
{
	size_t rows = batch * t;

	for (size_t at = grid_thread() / 32; at < heads * rows; at += grid_threads() / 32) {
		size_t from = at % rows * ldo + at / rows * head_o;
		float d = dot(dout + from, o + from, dvdim);

		if (threadIdx.x % 32 == 0)
			delta[at] = d;
	}
}
