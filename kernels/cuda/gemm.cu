/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm and gemm_bf16: dense products of fp32, on tensor cores that multiply bf16.
 *
 * An fp32 of 24 significant bits is the sum of three bf16 of 8: its upper half, the upper half of
 * what is left, and the rest, with nothing rounded. Of the nine products of parts the six largest
 * are summed; what the others had is below 2^-22 of a term (arXiv:1904.06376, "BF16x3"). A bf16
 * operand is one part and takes three products, and nothing is left out. Tensor cores may not
 * round their sums to nearest, so they sum no more than 16 terms; beyond that it is plain fp32
 * addition (arXiv:2203.03341 says why). Infinities have no such parts: they give NaN.
 *
 *	load     fp32, or bf16, from memory to registers, a step ahead of the sum. Eight terms of a
 *	         row are a unit: they lie side by side (wide loads if all rows begin on 16 bytes)
 *	         or in eight rows, of which the lanes then take neighbouring columns.
 *	split    each element once, on its way to shared memory, where every part has a tile of its
 *	         own with the terms side by side, whatever the operand looked like. 16-byte pieces
 *	         are permuted by the row, so that neither stores nor ldmatrix meet in a bank.
 *	multiply ldmatrix, mma.sync m16n8k16; small products first.
 *
 * Tiles are 128 x 128, 64 x 64 or 32 x 64 as shapes want it. The terms of an element and their
 * order are the same in all of them: a row's numbers do not depend on how many rows there are.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/unit.cuh"

#define DEPTH	PST_CUDA_GEMM_DEPTH
#define UNIT	8
#define PARTS	3
#define ABREAST 8 /* tiles of rows that go by together, so that columns stay in L2 */

/* M x N of C, by WM x WN warps. */
template <int M_, int N_, int WM_, int WN_> struct shape {
	static const int M = M_, N = N_, WM = WM_, WN = WN_, THREADS = WM_ * WN_ * 32;
	static const int MI = M_ / WM_ / 16, NJ = N_ / WN_ / 8;
};
typedef shape<128, 128, 4, 2> large;
typedef shape<64, 64, 2, 2> small;
typedef shape<32, 64, 2, 2> thin;

static __device__ __forceinline__ unsigned char *launch_memory(void)
{
	PST_SHARED(unsigned char, memory);

	return memory;
}

/* How many bf16 an element is. */
template <class T> struct parts_of;
template <> struct parts_of<float> {
	static const int N = PARTS;
};
template <> struct parts_of<uint16_t> {
	static const int N = 1;
};

/* One of the two operands: its rows are rows of C, or columns of C. */
template <class T> struct operand {
	const T *at;
	size_t ld, terms;
	uint32_t first, rows;
	bool across; /* terms lie in different rows of memory */
	bool wide;
};

template <class T>
static __device__ __forceinline__ unit<T> load_terms(const operand<T> &o, uint32_t row, size_t term)
{
	size_t left = term < o.terms ? o.terms - term : 0;
	uint32_t r = o.first + row;
	unit<T> u;

	if (r >= o.rows)
		left = 0;
	if (!o.across)
		return load_unit(left ? o.at + r * o.ld + term : o.at, left, o.wide);
	const T *p = o.at + term * o.ld + r;

#pragma unroll
	for (size_t i = 0; i < UNIT; i++, p += o.ld)
		u.v[i] = i < left ? *p : (T)0;
	return u;
}

/* Which unit of ROWS rows is number @i of this thread. */
template <int ROWS> static __device__ __forceinline__ uint32_t unit_row(bool across, uint32_t i)
{
	return across ? i % ROWS : i / (DEPTH / UNIT);
}

template <int ROWS> static __device__ __forceinline__ uint32_t unit_piece(bool across, uint32_t i)
{
	return across ? i / ROWS : i % (DEPTH / UNIT);
}

template <class T, int ROWS, int THREADS> struct held {
	static const int EACH = ROWS * DEPTH / UNIT / THREADS;
	unit<T> u[EACH];
};

template <class T, int ROWS, int THREADS>
static __device__ __forceinline__ void load(held<T, ROWS, THREADS> &h, const operand<T> &o,
					    size_t term)
{
#pragma unroll
	for (int i = 0; i < h.EACH; i++) {
		uint32_t at = threadIdx.x + (uint32_t)(i * THREADS);

		h.u[i] = load_terms(o, unit_row<ROWS>(o.across, at),
				    term + unit_piece<ROWS>(o.across, at) * UNIT);
	}
}

/* Rows of 64 bytes: two of them take all banks, so every second one is permuted anew. */
static __device__ __forceinline__ uint32_t piece_at(uint32_t row, uint32_t piece)
{
	return row * DEPTH * 2 + (piece ^ (row >> 1 & 3)) * 16;
}

/* The upper halves of two floats, the first one's below. */
static __device__ __forceinline__ uint32_t upper_halves(float a, float b)
{
	return __float_as_uint(a) >> 16 | (__float_as_uint(b) & 0xffff0000u);
}

static __device__ __forceinline__ float without_upper_half(float x)
{
	return x - __uint_as_float(__float_as_uint(x) & 0xffff0000u);
}

static __device__ __forceinline__ void store_parts(unsigned char *tile, uint32_t at, uint32_t bytes,
						   unit<float> u)
{
#pragma unroll
	for (int part = 0; part < PARTS; part++) {
		union piece p;

#pragma unroll
		for (int i = 0; i < 4; i++)
			p.w[i] = upper_halves(u.v[2 * i], u.v[2 * i + 1]);
		store16(tile + part * bytes + at, p.f);
#pragma unroll
		for (int i = 0; i < UNIT; i++)
			u.v[i] = without_upper_half(u.v[i]);
	}
}

static __device__ __forceinline__ void store_parts(unsigned char *tile, uint32_t at, uint32_t,
						   const unit<uint16_t> &u)
{
	store_unit(tile + at, u);
}

template <class T, int ROWS, int THREADS>
static __device__ __forceinline__ void store(unsigned char *tile, bool across,
					     const held<T, ROWS, THREADS> &h)
{
#pragma unroll
	for (int i = 0; i < h.EACH; i++) {
		uint32_t at = threadIdx.x + (uint32_t)(i * THREADS);

		store_parts(tile,
			    piece_at(unit_row<ROWS>(across, at), unit_piece<ROWS>(across, at)),
			    ROWS * DEPTH * 2, h.u[i]);
	}
}

/* 16 rows from @row, terms 16 @k and on: the A operand of an mma. */
static __device__ __forceinline__ void take_a(uint32_t r[4], uint32_t tile, uint32_t row,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32;

	ldmatrix(r, tile + piece_at(row + lane % 16, 2 * k + lane / 16));
}

/* The B operands of two, r[0..1] and r[2..3]. */
static __device__ __forceinline__ void take_b(uint32_t r[4], uint32_t tile, uint32_t row,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32;

	ldmatrix(r, tile + piece_at(row + lane % 8 + lane / 16 * 8, 2 * k + lane / 8 % 2));
}

template <class S> struct sums {
	float v[S::MI][S::NJ][4];
};

/* All products of parts that count, the smallest first. */
template <int B_PARTS>
static __device__ __forceinline__ void multiply_parts(float d[4], const uint32_t a[PARTS][4],
						      const uint32_t b[B_PARTS][4], int half)
{
#pragma unroll
	for (int order = PARTS - 1; order >= 0; order--)
#pragma unroll
		for (int j = 0; j < B_PARTS; j++)
			if (order - j >= 0)
				mma_bf16(d, a[order - j], b[j][2 * half], b[j][2 * half + 1]);
}

template <class S, class B>
static __device__ __forceinline__ void multiply(sums<S> &s, uint32_t tile)
{
	const uint32_t a_bytes = S::M * DEPTH * 2, b_bytes = S::N * DEPTH * 2;
	uint32_t warp = threadIdx.x / 32, row = warp % S::WM * (S::MI * 16),
		 col = warp / S::WM * (S::NJ * 8), b_tile = tile + PARTS * a_bytes;

#pragma unroll 1
	for (uint32_t k = 0; k < DEPTH / 16; k++) {
		uint32_t a[S::MI][PARTS][4];

#pragma unroll
		for (uint32_t i = 0; i < S::MI; i++)
#pragma unroll
			for (uint32_t p = 0; p < PARTS; p++)
				take_a(a[i][p], tile + p * a_bytes, row + 16 * i, k);
#pragma unroll
		for (uint32_t j = 0; j < S::NJ; j += 2) {
			uint32_t b[parts_of<B>::N][4];
			float d[S::MI][2][4] = {};

#pragma unroll
			for (uint32_t p = 0; p < parts_of<B>::N; p++)
				take_b(b[p], b_tile + p * b_bytes, col + 8 * j, k);
#pragma unroll
			for (int i = 0; i < S::MI; i++) {
				multiply_parts<parts_of<B>::N>(d[i][0], a[i], b, 0);
				multiply_parts<parts_of<B>::N>(d[i][1], a[i], b, 1);
			}
#pragma unroll
			for (int i = 0; i < S::MI; i++)
#pragma unroll
				for (int e = 0; e < 8; e++)
					s.v[i][j + e / 4][e % 4] += d[i][e / 4][e % 4];
		}
	}
}

struct result {
	float *c;
	size_t ld, m, n;
	int acc;
};

template <class S>
static __device__ __forceinline__ void write(const result &to, size_t first_row, size_t first_col,
					     const sums<S> &s)
{
	uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	size_t row = first_row + warp % S::WM * (S::MI * 16) + lane / 4,
	       col = first_col + warp / S::WM * (S::NJ * 8) + lane % 4 * 2;

#pragma unroll
	for (int i = 0; i < S::MI; i++)
#pragma unroll
		for (int j = 0; j < S::NJ; j++)
#pragma unroll
			for (int e = 0; e < 4; e++) {
				size_t r = row + 16 * i + e / 2 * 8, c = col + 8 * j + e % 2;
				float *at = to.c + r * to.ld + c;

				if (r < to.m && c < to.n)
					*at = s.v[i][j][e] + (to.acc ? *at : 0);
			}
}

/* One tile of C. Two places in shared memory take turns: while one is read, the next is filled. */
template <class S, class B>
static __device__ __forceinline__ void tile_of(const result &to, const operand<float> &a,
					       const operand<B> &b)
{
	const uint32_t b_at = PARTS * S::M * DEPTH * 2,
		       bytes = b_at + parts_of<B>::N * S::N * DEPTH * 2;
	unsigned char *shared = launch_memory();
	held<float, S::M, S::THREADS> from_a;
	held<B, S::N, S::THREADS> from_b;
	sums<S> s = {};
	uint32_t place = 0;

	if (a.terms) {
		load(from_a, a, 0);
		load(from_b, b, 0);
	}
	for (size_t term = 0; term < a.terms; term += DEPTH, place ^= 1) {
		unsigned char *at = shared + place * bytes;

		store(at, a.across, from_a);
		store(at + b_at, b.across, from_b);
		__syncthreads(); /* and the other place has been read */
		if (term + DEPTH < a.terms) {
			load(from_a, a, term + DEPTH);
			load(from_b, b, term + DEPTH);
		}
		multiply<S, B>(s, shared_at(at));
	}
	write<S>(to, a.first, b.first, s);
	__syncthreads();
}

/* Tiles in strips of ABREAST rows of tiles. */
template <class S, class B>
static __device__ __forceinline__ void tiles(const result &to, operand<float> a, operand<B> b)
{
	size_t down = (to.m + S::M - 1) / S::M, right = (to.n + S::N - 1) / S::N;

	for (size_t at = blockIdx.x; at < down * right; at += gridDim.x) {
		size_t strip = at / (ABREAST * right) * ABREAST, in = at % (ABREAST * right),
		       high = down - strip < ABREAST ? down - strip : ABREAST;

		a.first = (uint32_t)((strip + in % high) * S::M);
		b.first = (uint32_t)(in / high * S::N);
		tile_of<S, B>(to, a, b);
	}
}

template <class B>
static __device__ __forceinline__ void product(int ta, int tb, size_t m, size_t n, size_t k,
					       const float *a, size_t lda, const B *b, size_t ldb,
					       float *c, size_t ldc, int acc)
{
	operand<float> left = {a, lda, k, 0, (uint32_t)m, ta != 0, is_wide(a, lda)};
	operand<B> right = {b,
			    ldb,
			    k,
			    0,
			    (uint32_t)n,
			    !tb,
			    is_wide(b, ldb) && (sizeof(B) == 4 || ldb % 8 == 0)};
	result to = {c, ldc, m, n, acc};

	switch (PST_CUDA_GEMM_ROWS(m, n)) {
	case 32:
		tiles<thin, B>(to, left, right);
		break;
	case 64:
		tiles<small, B>(to, left, right);
		break;
	default:
		tiles<large, B>(to, left, right);
	}
}

extern "C" __global__ void __launch_bounds__(256)
	gemm(int ta, int tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
	     const float *b, size_t ldb, float *c, size_t ldc, int acc)
{
	product(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, acc);
}

extern "C" __global__ void __launch_bounds__(256)
	gemm_bf16(int ta, int tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
		  const uint16_t *b, size_t ldb, float *c, size_t ldc, int acc)
{
	product(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, acc);
}
