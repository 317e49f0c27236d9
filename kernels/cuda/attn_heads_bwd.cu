/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention backward, all heads of all sequences, in two kernels that need nothing of each other:
 * one whose blocks have TILE queries while the keys pass by, and make dq; one whose blocks have
 * TILE keys while the queries pass by, and make dk and dv. No sum is anybody else's, so nothing is
 * added atomically and the order is that of the rows (arXiv:2205.14135 B.4).
 *
 * Both are the same walk. With "own" rows x and y and those that pass by, x' and y' (x is q or k,
 * y is dout or v):
 *	s = x x'^T, d = y y'^T, and from these p and ds, [own, passing]: to shared memory as bf16
 *	gradient of x += ds x'; with keys as own, too: gradient of y += p y'
 * Eight warps have four strips of 16 own rows by two halves of what is made.
 *
 * Rows that pass by have two places, which take turns; the next are loaded while products of these
 * run. Wider heads: row by row, as in attn_heads.cu.
 */
#include "kernels/cuda/attn_tile.cuh"
#include "kernels/cuda/attn_rows.cuh"

#define TILE  PST_CUDA_ATTN_BWD_TILE
#define WARPS (THREADS / 32)
#define X     (TILE * DQK * 2) /* bytes of a tile */
#define Y     (TILE * DV * 2)
#define S     (TILE * TILE * 2)

/* A side: rows x and y of queries, or of keys. */
struct side {
	struct part x, y;
};

/* What backward knows of the queries of a head. */
struct known {
	const float *lse, *delta;
	uint32_t rows;
	float scale;
};

/* p and ds of a pair, from its score and its product of dout and v. */
static __device__ __forceinline__ void weights(float &s, float &d, uint32_t query, uint32_t key,
					       const struct known &w)
{
	float p;

	if (query >= w.rows || key > query) {
		s = d = 0;
		return;
	}
	p = exp2f((s * w.scale - w.lse[query]) * LOG2E);
	d = p * (d - w.delta[query]) * w.scale;
	s = p;
}

/* To a tile of TILE columns, as bf16. */
static __device__ __forceinline__ void put(unsigned char *tile, uint32_t row, uint32_t col,
					   float low, float high)
{
	*(uint32_t *)(tile + piece_at<TILE>(row, col / 8) + col % 8 * 2) = bf16_pair(low, high);
}

/* The first half of a step: p and ds of own rows from @own with those from @other on. */
template <bool KEYS>
static __device__ __forceinline__ void
first_half(unsigned char *shared, unsigned char *passing, unsigned char *p, unsigned char *ds,
	   const struct side &own, const struct known &w, uint32_t own_row, uint32_t other_row)
{
	uint32_t warp = threadIdx.x / 32, row = warp % 4 * 16, col = warp / 4 * (TILE / 2),
		 lane = threadIdx.x % 32;
	float s[TILE / 16][4], d[TILE / 16][4];

	scores<DQK, TILE / 16>(s, shared_at(shared), row, shared_at(passing), col, own.x.cols);
	scores<DV, TILE / 16>(d, shared_at(shared) + X, row, shared_at(passing) + X, col,
			      own.y.cols);
#pragma unroll
	for (int j = 0; j < TILE / 16; j++) {
#pragma unroll
		for (int e = 0; e < 4; e++) {
			uint32_t mine = own_row + row + lane / 4 + e / 2 * 8,
				 other = other_row + col + 8 * j + lane % 4 * 2 + e % 2;

			weights(s[j][e], d[j][e], KEYS ? other : mine, KEYS ? mine : other, w);
		}
#pragma unroll
		for (int r = 0; r < 2; r++) {
			uint32_t at = row + lane / 4 + 8 * r, to = col + 8 * j + lane % 4 * 2;

			if (KEYS)
				put(p, at, to, s[j][2 * r], s[j][2 * r + 1]);
			put(ds, at, to, d[j][2 * r], d[j][2 * r + 1]);
		}
	}
}

/* g[16, COLS / 2] += rows of @weights times columns of @passing, of which there are @cols. */
template <int COLS>
static __device__ __forceinline__ void gather(float g[COLS / 16][4], uint32_t weights,
					      uint32_t passing, uint32_t cols)
{
	uint32_t warp = threadIdx.x / 32, row = warp % 4 * 16, col = warp / 4 * (COLS / 2);

#pragma unroll
	for (uint32_t k = 0; k < TILE / 16; k++) {
		uint32_t left[4];

		take_a<TILE>(left, weights, row, k);
#pragma unroll
		for (uint32_t j = 0; j < COLS / 16; j += 2) {
			uint32_t right[4];

			if (col + 8 * j >= cols)
				break;
			take_b_across<COLS>(right, passing, col + 8 * j, k);
			mma_bf16(g[j], left, right[0], right[1]);
			mma_bf16(g[j + 1], left, right[2], right[3]);
		}
	}
}

template <int COLS>
static __device__ __forceinline__ void finish(float *to, size_t ld, const float g[COLS / 16][4],
					      uint32_t first, uint32_t rows, uint32_t cols)
{
	uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;

#pragma unroll
	for (int j = 0; j < COLS / 16; j++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			uint32_t row = first + warp % 4 * 16 + lane / 4 + e / 2 * 8,
				 col = warp / 4 * (COLS / 2) + 8 * j + lane % 4 * 2 + e % 2;

			if (row < rows && col < cols)
				to[row * ld + col] = g[j][e];
		}
}

/* Own rows from @first on; those that pass by are from..upto. */
template <bool KEYS>
static __device__ __forceinline__ void walk(float *gx, float *gy, const struct side &own,
					    const struct side &other, const struct known &w,
					    uint32_t first, uint32_t from, uint32_t upto)
{
	unsigned char *shared = launch_memory(), *passing = shared + X + Y,
		      *ds = passing + 2 * (X + Y), *p = ds + S;
	float dx[DQK / 16][4] = {}, dy[DV / 16][4] = {};
	held<TILE, DQK> next_x;
	held<TILE, DV> next_y;
	uint32_t place = 0;

	load(next_x, own.x, first);
	load(next_y, own.y, first);
	store(shared, next_x, own.x);
	store(shared + X, next_y, own.y);
	load(next_x, other.x, from);
	load(next_y, other.y, from);
	store(passing, next_x, other.x);
	store(passing + X, next_y, other.y);
	__syncthreads();
	for (uint32_t at = from; at < upto; at += TILE, place ^= 1) {
		unsigned char *now = passing + place * (X + Y),
			      *next = passing + (place ^ 1) * (X + Y);

		load(next_x, other.x, at + TILE);
		first_half<KEYS>(shared, now, p, ds, own, w, first, at);
		store(next, next_x, other.x);
		__syncthreads();
		load(next_y, other.y, at + TILE);
		gather<DQK>(dx, shared_at(ds), shared_at(now), own.x.cols);
		if (KEYS)
			gather<DV>(dy, shared_at(p), shared_at(now) + X, own.y.cols);
		store(next + X, next_y, other.y);
		__syncthreads();
	}
	finish<DQK>(gx, own.x.ld, dx, first, own.x.rows, own.x.cols);
	if (KEYS)
		finish<DV>(gy, own.y.ld, dy, first, own.y.rows, own.y.cols);
}

struct head {
	struct side q, k;
	struct known w;
	size_t at_q, at_k, at_v; /* where its gradients begin */
};

#define HEAD_OF                                                                                \
	head_of(dout, ldo, head_o, lse, delta, batch, t, dqk, dvdim, scale, q, ldq, head_q, k, \
		ldk, head_k, v, ldv, head_v)
static __device__ __forceinline__ struct head
head_of(const float *dout, size_t ldo, size_t head_o, const float *lse, const float *delta,
	size_t batch, size_t t, size_t dqk, size_t dvdim, float scale, const float *q, size_t ldq,
	size_t head_q, const float *k, size_t ldk, size_t head_k, const float *v, size_t ldv,
	size_t head_v)
{
	size_t h = blockIdx.y, first = blockIdx.z * t, at = h * batch * t + first;
	struct head to = {
		{part_of(q, ldq, head_q, h, first, t, dqk),
		 part_of(dout, ldo, head_o, h, first, t, dvdim)},
		{part_of(k, ldk, head_k, h, first, t, dqk),
		 part_of(v, ldv, head_v, h, first, t, dvdim)},
		{lse + at, delta + at, (uint32_t)t, scale},
		first * ldq + h * head_q,
		first * ldk + h * head_k,
		first * ldv + h * head_v,
	};

	return to;
}

extern "C" __global__ void __launch_bounds__(THREADS) attn_heads_dq PST_CUDA_ATTN_HEADS_DQ
{
	size_t first = (size_t)(gridDim.x - 1 - blockIdx.x) * TILE;
	struct head h = HEAD_OF;

	if (blockIdx.y >= heads || blockIdx.z >= batch || first >= t)
		return;
	if (dqk <= DQK && dvdim <= DV) {
		walk<false>(dq + h.at_q, NULL, h.q, h.k, h.w, (uint32_t)first, 0,
			    (uint32_t)(first + TILE < t ? first + TILE : t));
		return;
	}
	for (size_t i = first + threadIdx.x / 32; i < first + TILE && i < t; i += WARPS)
		row_dq(dq + h.at_q + i * ldq, h.q.y.at + i * ldo, h.w.lse[i], h.w.delta[i],
		       h.q.x.at + i * ldq, rows_from(h.k.x.at, ldk), rows_from(h.k.y.at, ldv),
		       i + 1, dqk, dvdim, scale);
}

extern "C" __global__ void __launch_bounds__(THREADS) attn_heads_dkv PST_CUDA_ATTN_HEADS_DKV
{
	size_t first = (size_t)blockIdx.x * TILE;
	struct head h = HEAD_OF;
	struct queries w = {rows_from(h.q.x.at, ldq),
			    rows_from(h.q.y.at, ldo),
			    rows_from((const float *)NULL, 0),
			    h.w.lse,
			    h.w.delta,
			    t};

	if (blockIdx.y >= heads || blockIdx.z >= batch || first >= t)
		return;
	if (dqk <= DQK && dvdim <= DV) {
		walk<true>(dk + h.at_k, dv + h.at_v, h.k, h.q, h.w, (uint32_t)first,
			   (uint32_t)first, (uint32_t)t);
		return;
	}
	for (size_t j = first + threadIdx.x / 32; j < first + TILE && j < t; j += WARPS)
		row_dkv(dk + h.at_k + j * ldk, dv + h.at_v + j * ldv, h.k.x.at + j * ldk,
			h.k.y.at + j * ldv, j, w, dqk, dvdim, scale);
}
