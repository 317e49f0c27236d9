/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Absorbed multi-head latent attention of few queries over a long cache (arXiv:2405.04434 2.1.2):
 * all heads have the same keys, so heads are the rows of a tile, and a row of the cache, once it is
 * in shared memory, is key and value to all of them.
 *
 * A block has ROWS rows (a row is a head of a query) and one part of the keys of a sequence, which
 * pass by KEYS at a time in two places: one is filled by cp.async while the other is used. Eight
 * warps have four strips of 16 rows by two halves: of the keys for scores, of the columns for
 * values. Probabilities go through shared memory, where each half finds the other's maximum, too.
 *
 * bf16 caches whose rows begin on 16 bytes are what it is made for. Others, and fp32 ones, are
 * loaded through registers and rounded to bf16 there; rows wider than PST_CUDA_MLA_COLS, or values
 * wider than PST_CUDA_MLA_VALUES, go row by row in fp32 (attn_rows.cuh).
 *
 * mla_combine weighs the parts by their sums, in order (split keys: arXiv:2311.01282).
 */
#include "kernels/cuda/attn_tile.cuh"
#include "kernels/cuda/attn_rows.cuh"

#define COLS   PST_CUDA_MLA_COLS
#define VALUES PST_CUDA_MLA_VALUES
#define ROWS   PST_CUDA_MLA_ROWS
#define KEYS   PST_CUDA_MLA_KEYS
#define WARPS  (THREADS / 32)
#define TILE   (KEYS * COLS * 2) /* bytes */

/* The cache of one sequence, or a part of it. */
struct cached {
	const void *at;
	size_t ld;
	uint32_t rows, cols;
	bool narrow, wide; /* bf16; rows begin on 16 bytes and end there */
};

/* Where a block's rows are. */
struct place {
	size_t heads, batch, tq, first, b;
};

static __device__ __forceinline__ bool is_row(const struct place &p, size_t r)
{
	return p.first + r < p.heads * p.tq;
}

/* Query of row @r, counted over the batch. */
static __device__ __forceinline__ size_t query_of(const struct place &p, size_t r)
{
	return p.b * p.tq + (p.first + r) / p.heads;
}

static __device__ __forceinline__ size_t head_of(const struct place &p, size_t r)
{
	return (p.first + r) % p.heads;
}

/* Its number among the results of one part. */
static __device__ __forceinline__ size_t result_of(const struct place &p, size_t r)
{
	return head_of(p, r) * p.batch * p.tq + query_of(p, r);
}

static __device__ __forceinline__ unit<float> load_unit(const struct cached &c, size_t at,
							size_t left)
{
	unit<uint16_t> u;
	unit<float> f;

	if (!c.narrow)
		return load_unit((const float *)c.at + at, left, c.wide);
	u = load_unit((const uint16_t *)c.at + at, left, c.wide);
#pragma unroll
	for (int i = 0; i < UNIT; i++)
		f.v[i] = bf16_to(u.v[i]);
	return f;
}

/* Begins to fill @tile with keys from @first on; rows and columns that are not there are zero. */
static __device__ __forceinline__ void load_keys(unsigned char *tile, const struct cached &c,
						 uint32_t first)
{
#pragma unroll 3
	for (uint32_t i = threadIdx.x; i < KEYS * COLS / UNIT; i += THREADS) {
		uint32_t row = i / (COLS / UNIT), n = i % (COLS / UNIT), col = n * UNIT;
		bool in = first + row < c.rows && col < c.cols;
		size_t at = in ? (first + row) * c.ld + col : 0;
		unsigned char *to = tile + piece_at<COLS>(row, n);

		if (c.narrow && c.wide)
			cp_async16(shared_at(to), (const uint16_t *)c.at + at, in ? 16 : 0);
		else
			store_unit(to, load_unit(c, at, in ? c.cols - col : 0));
	}
	cp_async_commit();
}

static __device__ __forceinline__ void load_queries(unsigned char *tile, const float *q, size_t ldq,
						    size_t head_q, const struct place &p,
						    uint32_t cols)
{
	bool wide = is_wide(q, ldq) && head_q % 4 == 0;

#pragma unroll 3
	for (uint32_t i = threadIdx.x; i < ROWS * COLS / UNIT; i += THREADS) {
		uint32_t row = i / (COLS / UNIT), n = i % (COLS / UNIT), col = n * UNIT;
		bool in = is_row(p, row) && col < cols;
		const float *at =
			in ? q + query_of(p, row) * ldq + head_of(p, row) * head_q + col : q;

		store_unit(tile + piece_at<COLS>(row, n), load_unit(at, in ? cols - col : 0, wide));
	}
}

/* A lane has two rows of a strip, and the sums of its own half of the keys. */
struct softmax {
	float max[2], sum[2];
};

/* Scores of 16 keys from @key on; row r sees @seen[r] keys. Its greatest, to where all look. */
static __device__ __forceinline__ void see(float s[2][4], float *greatest, uint32_t key,
					   const uint32_t seen[2], float scale)
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int r = 0; r < 2; r++) {
		float max = -INFINITY;

#pragma unroll
		for (int e = 0; e < 4; e++) {
			float &x = s[e / 2][2 * r + e % 2];

			x = key + e / 2 * 8 + lane % 4 * 2 + e % 2 < seen[r] ? x * scale
									     : -INFINITY;
			max = fmaxf(max, x);
		}
		max = row_max(max);
		if (lane % 4 == 0)
			greatest[lane / 4 + 8 * r] = max;
	}
}

/* Probabilities, to shared memory. @greatest has those of both halves. */
static __device__ __forceinline__ void soften(unsigned char *p, float s[2][4],
					      const float *greatest, uint32_t row, uint32_t half,
					      struct softmax &m, float keep[2])
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int r = 0; r < 2; r++) {
		uint32_t at = row + lane / 4 + 8 * r;
		float max = fmaxf(m.max[r], fmaxf(greatest[at], greatest[ROWS + at])), from;

		from = max > -INFINITY ? max : 0;
		keep[r] = exp2f(m.max[r] - from);
		m.max[r] = max;
		m.sum[r] *= keep[r];
#pragma unroll
		for (int j = 0; j < 2; j++) {
			float a = exp2f(s[j][2 * r] - from), b = exp2f(s[j][2 * r + 1] - from);
			uint32_t col = 16 * half + 8 * j + lane % 4 * 2;

			m.sum[r] += a + b;
			/* rows of 64 bytes: two take all banks */
			*(uint32_t *)(p + at * KEYS * 2 + ((col / 8) ^ (at >> 1 & 3)) * 16 +
				      col % 8 * 2) = bf16_pair(a, b);
		}
	}
}

static __device__ __forceinline__ void take_p(uint32_t r[4], const unsigned char *p, uint32_t row,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32, at = row + lane % 16;

	ldmatrix(r, shared_at(p) + at * KEYS * 2 + ((2 * k + lane / 16) ^ (at >> 1 & 3)) * 16);
}

/* o = keep o + p times the values of this warp's half of the columns. */
static __device__ __forceinline__ void weigh(float o[VALUES / 16][4], const unsigned char *p,
					     uint32_t tile, uint32_t row, uint32_t half,
					     const float keep[2], uint32_t cols)
{
	uint32_t left[KEYS / 16][4], col = half * (VALUES / 2);

#pragma unroll
	for (uint32_t k = 0; k < KEYS / 16; k++)
		take_p(left[k], p, row, k);
#pragma unroll
	for (uint32_t j = 0; j < VALUES / 16; j += 2) {
		if (col + 8 * j >= cols)
			break;
#pragma unroll
		for (int e = 0; e < 8; e++)
			o[j + e / 4][e % 4] *= keep[e % 4 / 2];
#pragma unroll
		for (uint32_t k = 0; k < KEYS / 16; k++) {
			uint32_t right[4];

			take_b_across<COLS>(right, tile, col + 8 * j, k);
			mma_bf16(o[j], left[k], right[0], right[1]);
			mma_bf16(o[j + 1], left[k], right[2], right[3]);
		}
	}
}

/* Sums of both halves, and what they divide. */
static __device__ __forceinline__ void finish(float *part, float *part_lse, size_t lora,
					      const float o[VALUES / 16][4], struct softmax &m,
					      float *sums, const struct place &p, uint32_t row,
					      uint32_t half)
{
	uint32_t lane = threadIdx.x % 32;

#pragma unroll
	for (int r = 0; r < 2; r++) {
		m.sum[r] = row_sum(m.sum[r]);
		if (lane % 4 == 0)
			sums[half * ROWS + row + lane / 4 + 8 * r] = m.sum[r];
	}
	__syncthreads();
#pragma unroll
	for (int r = 0; r < 2; r++) {
		uint32_t at = row + lane / 4 + 8 * r;
		float sum = sums[at] + sums[ROWS + at];
		size_t to = is_row(p, at) ? result_of(p, at) : 0;

		if (!is_row(p, at))
			continue;
		if (!half && lane % 4 == 0)
			part_lse[to] = sum != 0 ? (m.max[r] + log2f(sum)) * LN2 : -INFINITY;
		if (sum == 0)
			continue;
#pragma unroll
		for (int j = 0; j < VALUES / 16; j++)
#pragma unroll
			for (int e = 0; e < 2; e++) {
				size_t c = half * (VALUES / 2) + 8 * j + lane % 4 * 2 + e;

				if (c < lora)
					part[to * lora + c] = o[j][2 * r + e] / sum;
			}
	}
}

/* One block. Queries of row r see keys before @seen + r / heads. */
static __device__ __forceinline__ void decode(float *part, float *part_lse, const float *q,
					      size_t ldq, size_t head_q, const struct cached &c,
					      const struct place &p, int64_t seen, size_t lora,
					      float scale)
{
	unsigned char *queries = launch_memory(), *keys = queries + ROWS * COLS * 2,
		      *weights = keys + 2 * TILE;
	float *greatest = (float *)(weights + ROWS * KEYS * 2), *sums = greatest + 2 * ROWS;
	uint32_t warp = threadIdx.x / 32, row = warp % 4 * 16, half = warp / 4, sees[2];
	float o[VALUES / 16][4] = {};
	struct softmax m = {{-INFINITY, -INFINITY}, {0, 0}};
	bool any = is_row(p, row);

#pragma unroll
	for (int r = 0; r < 2; r++) {
		int64_t n =
			seen + (int64_t)((p.first + row + threadIdx.x % 32 / 4 + 8 * r) / p.heads);

		sees[r] = n < 0 ? 0 : (n < c.rows ? (uint32_t)n : c.rows);
	}
	if (c.rows)
		load_keys(keys, c, 0);
	load_queries(queries, q, ldq, head_q, p, c.cols);
	for (uint32_t key = 0, at = 0; key < c.rows; key += KEYS, at ^= 1) {
		float s[2][4] = {}, keep[2] = {};

		cp_async_wait<0>();
		__syncthreads(); /* these keys are there, and the other place is free */
		if (key + KEYS < c.rows)
			load_keys(keys + (at ^ 1) * TILE, c, key + KEYS);
		if (any) {
			scores<COLS, 2>(s, shared_at(queries), row, shared_at(keys + at * TILE),
					16 * half, c.cols);
			see(s, greatest + half * ROWS + row, key + 16 * half, sees, scale * LOG2E);
		}
		__syncthreads();
		if (any)
			soften(weights, s, greatest, row, half, m, keep);
		__syncthreads();
		if (any)
			weigh(o, weights, shared_at(keys + at * TILE), row, half, keep,
			      (uint32_t)lora);
	}
	finish(part, part_lse, lora, o, m, sums, p, row, half);
}

/* The same row by row. */
template <class T>
static __device__ __forceinline__ void
decode_rows(float *part, float *part_lse, const float *q, size_t ldq, size_t head_q,
	    const struct cached &c, const struct place &p, int64_t seen, size_t lora, float scale)
{
	rows<T> keys = rows_from((const T *)c.at, c.ld);

	for (size_t r = threadIdx.x / 32; r < ROWS && is_row(p, r); r += WARPS) {
		int64_t n = seen + (int64_t)((p.first + r) / p.heads);
		size_t to = result_of(p, r);

		n = n < 0 ? 0 : (n < c.rows ? n : c.rows);
		if (n)
			row_forward(part + to * lora, part_lse + to,
				    q + query_of(p, r) * ldq + head_of(p, r) * head_q, keys, keys,
				    (size_t)n, c.cols, lora, scale);
		else if (threadIdx.x % 32 == 0)
			part_lse[to] = -INFINITY;
	}
}

/* This block's part of the keys. */
static __device__ __forceinline__ struct cached part_of(const void *cache, int narrow, size_t ldc,
							size_t seq_c, size_t b, size_t first,
							size_t rows, size_t cols)
{
	size_t at = b * seq_c + first * ldc, align = narrow ? 8 : 4;
	struct cached c;

	c.at = narrow ? (const void *)((const uint16_t *)cache + at)
		      : (const void *)((const float *)cache + at);
	c.ld = ldc;
	c.rows = (uint32_t)rows;
	c.cols = (uint32_t)cols;
	c.narrow = narrow != 0;
	c.wide = !((uintptr_t)c.at & 15) && ldc % align == 0 && cols % UNIT == 0;
	return c;
}

extern "C" __global__ void __launch_bounds__(THREADS) mla_decode PST_CUDA_MLA_DECODE
{
	struct place p = {heads, batch, tq, (size_t)blockIdx.y * ROWS, blockIdx.z};
	size_t first = blockIdx.x * keys, all, cols = lora + rope;
	struct cached c;
	int64_t seen;

	if (p.b >= batch || p.first >= heads * tq || first >= most)
		return;
	all = (size_t)len[p.b] < most ? (size_t)len[p.b] : most;
	c = part_of(cache, narrow, ldc, seq_c, p.b, first < all ? first : 0,
		    first < all ? (all - first < keys ? all - first : keys) : 0, cols);
	seen = (int64_t)all - (int64_t)tq + 1 - (int64_t)first;
	part += blockIdx.x * heads * batch * tq * lora;
	part_lse += blockIdx.x * heads * batch * tq;
	if (cols <= COLS && lora <= VALUES)
		decode(part, part_lse, q, ldq, head_q, c, p, seen, lora, scale);
	else if (narrow)
		decode_rows<uint16_t>(part, part_lse, q, ldq, head_q, c, p, seen, lora, scale);
	else
		decode_rows<float>(part, part_lse, q, ldq, head_q, c, p, seen, lora, scale);
}

/* A warp a row. */
extern "C" __global__ void __launch_bounds__(128) mla_combine PST_CUDA_MLA_COMBINE
{
	size_t parts = (most + keys - 1) / keys, n = batch * tq, apart = heads * n;

	for (size_t at = grid_thread() / 32; at < apart; at += grid_threads() / 32) {
		float max = -INFINITY, sum = 0, *to = o + at % n * ldo + at / n * head_o;

		for (size_t p = 0; p < parts; p++)
			max = fmaxf(max, part_lse[p * apart + at]);
		for (size_t p = 0; p < parts && max > -INFINITY; p++)
			sum += expf(part_lse[p * apart + at] - max);
		for (size_t from = 0; from < lora; from += SLICE) {
			float acc[HELD] = {};

			for (size_t p = 0; p < parts; p++) {
				float l = part_lse[p * apart + at];

				if (l > -INFINITY)
					add_row(acc, expf(l - max) / sum,
						part + (p * apart + at) * lora, from, lora);
			}
			put_row(to, acc, 1, from, lora);
		}
		if (lse && threadIdx.x % 32 == 0)
			lse[at] = max + logf(sum);
	}
}
