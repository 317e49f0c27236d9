/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The experts' networks on bf16, forward and backward, grouped; cuda.h says what each computes.
 *
 * All are one product, D[N rows, M columns] = B A^T, made in tiles of OF rows by TILE columns. The
 * weights are always the M side of the tensor cores' instruction and the activations its N side
 * (swap-AB): few rows then cost a narrow tile and not a padded one, and the columns of a tile lie
 * side by side in the result. OF = 128 does the same with two warps abreast, for many rows.
 *
 *	load     cp.async, 16 bytes each, STAGES - 1 steps of DEPTH terms ahead; what lies outside
 *	         of an operand comes as zeros. Rows of activations are gathered here. For few rows
 *	         weights carry an evict-first hint: they pass by once.
 *	lay      16-byte pieces of a shared row are permuted by the row's number, so that neither
 *	         the copies nor ldmatrix meet in a bank.
 *	multiply ldmatrix, of an operand that lies with its terms side by side, or
 *	         ldmatrix.trans, of one that lies with its terms in different rows (dgrad's
 *	         weights, both of wgrad); mma.sync m16n8k16. The order of the sum is that of the
 *	         terms, in both.
 *	end      fp32 sums go through shared memory, so that what follows (SwiGLU, its backward,
 *	         rounding) has whole rows and writes 16 bytes at a time.
 */
#include "kernels/cuda/experts.cuh"

#define DEPTH  PST_CUDA_EXPERTS_DEPTH
#define STAGES PST_CUDA_EXPERTS_STAGES

/*
 * An operand whose terms lie side by side: the rows that this thread copies a piece of, NULL where
 * there is none. A thread always copies the same piece of its rows.
 */
template <int ROWS, int OF> struct lines {
	static const int EACH = ROWS * DEPTH / PIECE / THREADS(OF);
	const uint16_t *row[EACH];
};

static __device__ __forceinline__ uint32_t line_of(int i, int threads)
{
	return (threadIdx.x + (uint32_t)(i * threads)) / (DEPTH / PIECE);
}

static __device__ __forceinline__ uint32_t piece_of(void)
{
	return threadIdx.x % (DEPTH / PIECE);
}

template <int ROWS, int OF, bool ONCE>
static __device__ __forceinline__ void load_lines(uint32_t tile, const lines<ROWS, OF> &l,
						  ptrdiff_t from, size_t term, size_t terms,
						  const void *valid, uint64_t policy)
{
	size_t at = term + piece_of() * PIECE;

#pragma unroll
	for (int i = 0; i < lines<ROWS, OF>::EACH; i++) {
		bool in = l.row[i] && at < terms;
		const void *p = in ? (const void *)(l.row[i] + from + at) : valid;
		uint32_t to = piece_at<DEPTH / PIECE>(tile, line_of(i, THREADS(OF)), piece_of());

		if (ONCE)
			cp_async16_hint(to, p, in ? 16 : 0, policy);
		else
			cp_async16(to, p, in ? 16 : 0);
	}
}

/*
 * An operand whose terms lie in different rows: DEPTH rows of it, COLS columns from @col of
 * @cols. Term t is row @first + t, or the row that @idx has there.
 */
struct across {
	const uint16_t *from;
	const int32_t *idx;
	size_t ld, first, terms, col, cols;
};

template <int COLS, int THREADS>
static __device__ __forceinline__ void load_across(uint32_t tile, const struct across &a,
						   size_t term)
{
	const int pieces = COLS / PIECE;

#pragma unroll
	for (int i = 0; i < DEPTH * pieces / THREADS; i++) {
		uint32_t at = threadIdx.x + (uint32_t)(i * THREADS), r = at / pieces,
			 piece = at % pieces;
		size_t t = a.first + term + r, c = a.col + piece * PIECE;
		bool in = term + r < a.terms && c < a.cols;
		const uint16_t *p = a.from;

		if (in)
			p += (a.idx ? (size_t)a.idx[t] : t) * a.ld + c;
		cp_async16(piece_at<pieces>(tile, r, piece), p, in ? 16 : 0);
	}
}

/* Terms 16 @k .. of the 16 columns from @col: the A operand of an mma. */
template <bool ACROSS>
static __device__ __forceinline__ void take_a(uint32_t r[4], uint32_t tile, uint32_t col,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32, low = lane % 8, one = lane / 8 % 2, two = lane / 16;

	if (ACROSS)
		ldmatrix_trans(
			r, piece_at<TILE / PIECE>(tile, 16 * k + 8 * two + low, col / PIECE + one));
	else
		ldmatrix(r, piece_at<DEPTH / PIECE>(tile, col + 8 * one + low, 2 * k + two));
}

/* Of the 16 rows from @row: the B operands of two mmas, r[0..1] and r[2..3]. */
template <int OF, bool ACROSS>
static __device__ __forceinline__ void take_b(uint32_t r[4], uint32_t tile, uint32_t row,
					      uint32_t k)
{
	uint32_t lane = threadIdx.x % 32, low = lane % 8, one = lane / 8 % 2, two = lane / 16;

	if (ACROSS)
		ldmatrix_trans(
			r, piece_at<OF / PIECE>(tile, 16 * k + 8 * one + low, row / PIECE + two));
	else
		ldmatrix(r, piece_at<DEPTH / PIECE>(tile, row + 8 * two + low, 2 * k + one));
}

/* One step: DEPTH terms. */
template <int OF, bool A_ACROSS, bool B_ACROSS>
static __device__ __forceinline__ void multiply(sums<OF> &s, uint32_t a, uint32_t b)
{
#pragma unroll
	for (uint32_t k = 0; k < DEPTH / 16; k++) {
		uint32_t left[2][4];

		take_a<A_ACROSS>(left[0], a, warp_col<OF>(), k);
		take_a<A_ACROSS>(left[1], a, warp_col<OF>() + 16, k);
#pragma unroll
		for (uint32_t j = 0; j < WIDTH(OF); j += 2) {
			uint32_t right[4];

			take_b<OF, B_ACROSS>(right, b, warp_row<OF>() + 8 * j, k);
			for (int i = 0; i < 2; i++) {
				mma_bf16(s.v[i][j], left[i], right[0], right[1]);
				mma_bf16(s.v[i][j + 1], left[i], right[2], right[3]);
			}
		}
	}
}

/* The whole sum: load(step, a, b) begins the copies of a step. */
template <int OF, bool A_ACROSS, bool B_ACROSS, class LOAD>
static __device__ __forceinline__ void product(sums<OF> &s, uint32_t shared, uint32_t steps,
					       const LOAD &load)
{
	const uint32_t a_bytes = TILE * DEPTH * 2, stage = a_bytes + OF * DEPTH * 2;

	clear(s);
	pipeline<STAGES(OF), stage>(
		shared, steps,
		[&](uint32_t step, uint32_t place) { load(step, place, place + a_bytes); },
		[&](uint32_t, uint32_t place) {
			multiply<OF, A_ACROSS, B_ACROSS>(s, place, place + a_bytes);
		});
}

/* Rows of activations, each perhaps somewhere else. */
template <int OF>
static __device__ __forceinline__ lines<OF, OF>
group_lines(const struct group &g, const uint16_t *x, size_t ld, const int32_t *idx)
{
	lines<OF, OF> l;

#pragma unroll
	for (int i = 0; i < lines<OF, OF>::EACH; i++) {
		uint32_t r = line_of(i, THREADS(OF));
		size_t at = g.first + r;

		l.row[i] = NULL;
		if (r < g.rows)
			l.row[i] = x + (idx ? (size_t)idx[at] : at) * ld;
	}
	return l;
}

/* TILE rows of a weight from @first; or half a tile of each of two. */
template <int OF>
static __device__ __forceinline__ lines<TILE, OF>
weight_lines(const uint16_t *w, const uint16_t *half, size_t first, size_t rows, size_t ld)
{
	lines<TILE, OF> l;

#pragma unroll
	for (int i = 0; i < lines<TILE, OF>::EACH; i++) {
		uint32_t r = line_of(i, THREADS(OF));
		bool second = half && r >= TILE / 2;
		size_t at = first + r - (second ? TILE / 2 : 0);

		l.row[i] = at < rows ? (second ? half : w) + at * ld : NULL;
	}
	return l;
}

static __device__ __forceinline__ uint32_t steps_of(size_t terms)
{
	return (uint32_t)((terms + DEPTH - 1) / DEPTH);
}

/* Both operands with their terms side by side: forward. */
template <int OF>
static __device__ __forceinline__ void forward(sums<OF> &s, const lines<TILE, OF> &a,
					       const lines<OF, OF> &b, size_t terms,
					       const void *valid, unsigned char *shared)
{
	uint64_t policy = OF < 128 ? evict_first() : 0;

	product<OF, false, false>(
		s, shared_at(shared), steps_of(terms),
		[&](uint32_t step, uint32_t ta, uint32_t tb) {
			size_t term = (size_t)step * DEPTH;

			load_lines<TILE, OF, (OF < 128)>(ta, a, 0, term, terms, valid, policy);
			load_lines<OF, OF, false>(tb, b, 0, term, terms, valid, policy);
		});
}

template <int OF> static __device__ __forceinline__ void up_of PST_CUDA_EXPERTS_UP
{
	unsigned char *shared = launch_memory();
	struct group g = group_of<OF>(off, n, blockIdx.x);
	size_t col = (size_t)blockIdx.y * (TILE / 2);
	lines<TILE, OF> weights;
	lines<OF, OF> act;
	sums<OF> s;

	(void)rows;
	if (!g.rows)
		return;
	weights = weight_lines<OF>(gate[g.expert], up[g.expert], col, inter, hidden);
	act = group_lines<OF>(g, x, ldx, idx);
	forward<OF>(s, weights, act, hidden, x, shared);
	lay_out<OF>((float *)shared, s);
	swiglu_end<OF>(a, kept, (const float *)shared, g, col, inter);
}

template <int OF> static __device__ __forceinline__ void down_of PST_CUDA_EXPERTS_DOWN
{
	unsigned char *shared = launch_memory();
	struct group g = group_of<OF>(off, n, blockIdx.x);
	size_t col = (size_t)blockIdx.y * TILE;
	lines<TILE, OF> weights;
	lines<OF, OF> act;
	sums<OF> s;

	(void)rows;
	if (!g.rows)
		return;
	weights = weight_lines<OF>(down[g.expert], NULL, col, hidden, inter);
	act = group_lines<OF>(g, a, inter, NULL);
	forward<OF>(s, weights, act, inter, a, shared);
	lay_out<OF>((float *)shared, s);
	plain_end<OF>(y, narrow, (const float *)shared, g, col, hidden);
}

/* da is in @out; g and u lie beside each other in kept. */
static __device__ __forceinline__ void da_end(uint16_t *dg, uint16_t *du, uint16_t *a,
					      const uint16_t *kept, const float *out,
					      const struct group &t, size_t col, size_t inter)
{
	FOR_PIECES(r, c, t.rows, inter - col, TILE)
	{
		size_t row = t.first + r, at = row * inter + col + c;
		eight d = load_eight(out + r * OUT_LD + c),
		      g = load_eight(kept + row * 2 * inter + col + c),
		      u = load_eight(kept + row * 2 * inter + inter + col + c), to_g, to_u, to_a;

		for (int i = 0; i < PIECE; i++) {
			float s = sigmoid(g.v[i]), silu = g.v[i] * s;

			to_a.v[i] = silu * u.v[i];
			to_u.v[i] = d.v[i] * silu;
			to_g.v[i] = d.v[i] * u.v[i] * (s + silu * (1 - s));
		}
		store_eight(dg + at, to_g);
		store_eight(du + at, to_u);
		if (a)
			store_eight(a + at, to_a);
	}
}

template <int OF> static __device__ __forceinline__ void da_of PST_CUDA_EXPERTS_DA
{
	unsigned char *shared = launch_memory();
	struct group t = group_of<OF>(off, n, blockIdx.x);
	size_t col = (size_t)blockIdx.y * TILE;
	struct across w;
	lines<OF, OF> act;
	sums<OF> s;

	(void)rows;
	if (!t.rows)
		return;
	w = {down[t.expert], NULL, inter, 0, hidden, col, inter};
	act = group_lines<OF>(t, dy, hidden, NULL);
	product<OF, true, false>(s, shared_at(shared), steps_of(hidden),
				 [&](uint32_t step, uint32_t ta, uint32_t tb) {
					 size_t term = (size_t)step * DEPTH;

					 load_across<TILE, THREADS(OF)>(ta, w, term);
					 load_lines<OF, OF, false>(tb, act, 0, term, hidden, dy, 0);
				 });
	lay_out<OF>((float *)shared, s);
	da_end(dg, du, a, kept, (const float *)shared, t, col, inter);
}

/* Two products in one sum: the terms of dg and gate, then those of du and up. */
template <int OF> static __device__ __forceinline__ void dx_of PST_CUDA_EXPERTS_DX
{
	unsigned char *shared = launch_memory();
	struct group t = group_of<OF>(off, n, blockIdx.x);
	size_t col = (size_t)blockIdx.y * TILE;
	uint32_t half = steps_of(inter);
	struct across w;
	lines<OF, OF> act;
	sums<OF> s;

	(void)rows;
	if (!t.rows)
		return;
	w = {NULL, NULL, hidden, 0, inter, col, hidden};
	act = group_lines<OF>(t, dg, inter, NULL);
	product<OF, true, false>(s, shared_at(shared), 2 * half,
				 [&](uint32_t step, uint32_t ta, uint32_t tb) {
					 bool second = step >= half;
					 size_t term = (size_t)(step - (second ? half : 0)) * DEPTH;
					 struct across now = w;

					 now.from = (second ? up : gate)[t.expert];
					 load_across<TILE, THREADS(OF)>(ta, now, term);
					 load_lines<OF, OF, false>(tb, act, second ? du - dg : 0,
								   term, inter, dg, 0);
				 });
	lay_out<OF>((float *)shared, s);
	plain_end<OF>(dx, narrow, (const float *)shared, t, col, hidden);
}

/* clang-format off */
#define EXPERTS(name, of) \
	extern "C" __global__ void __launch_bounds__(THREADS(of)) experts_##name##_##of
/* clang-format on */

EXPERTS(up, 16) PST_CUDA_EXPERTS_UP
{
	up_of<16>(a, kept, x, ldx, idx, gate, up, off, n, rows, hidden, inter);
}

EXPERTS(up, 64) PST_CUDA_EXPERTS_UP
{
	up_of<64>(a, kept, x, ldx, idx, gate, up, off, n, rows, hidden, inter);
}

EXPERTS(up, 128) PST_CUDA_EXPERTS_UP
{
	up_of<128>(a, kept, x, ldx, idx, gate, up, off, n, rows, hidden, inter);
}

EXPERTS(down, 16) PST_CUDA_EXPERTS_DOWN
{
	down_of<16>(y, narrow, a, down, off, n, rows, hidden, inter);
}

EXPERTS(down, 64) PST_CUDA_EXPERTS_DOWN
{
	down_of<64>(y, narrow, a, down, off, n, rows, hidden, inter);
}

EXPERTS(down, 128) PST_CUDA_EXPERTS_DOWN
{
	down_of<128>(y, narrow, a, down, off, n, rows, hidden, inter);
}

EXPERTS(da, 64) PST_CUDA_EXPERTS_DA
{
	da_of<64>(dg, du, a, dy, kept, down, off, n, rows, hidden, inter);
}

EXPERTS(da, 128) PST_CUDA_EXPERTS_DA
{
	da_of<128>(dg, du, a, dy, kept, down, off, n, rows, hidden, inter);
}

EXPERTS(dx, 64) PST_CUDA_EXPERTS_DX
{
	dx_of<64>(dx, narrow, dg, du, gate, up, off, n, rows, hidden, inter);
}

EXPERTS(dx, 128) PST_CUDA_EXPERTS_DX
{
	dx_of<128>(dx, narrow, dg, du, gate, up, off, n, rows, hidden, inter);
}

/* Columns of the result are q's, its rows p's, the terms the rows of the expert. */
extern "C" __global__ void __launch_bounds__(THREADS(128)) experts_dw PST_CUDA_EXPERTS_DW
{
	unsigned char *shared = launch_memory();
	size_t col = (size_t)blockIdx.x * TILE, row = (size_t)blockIdx.y * 128;
	float *to, *out = (float *)shared;
	struct across a, b;
	size_t first, terms;
	sums<128> s;

	if (blockIdx.z >= n) /* no experts at all */
		return;
	first = (size_t)off[blockIdx.z];
	terms = (size_t)off[blockIdx.z + 1] - first;
	a = {q, idx, ldq, first, terms, col, k};
	b = {p, NULL, m, first, terms, row, m};
	to = dw[blockIdx.z];
	product<128, true, true>(s, shared_at(shared), steps_of(terms),
				 [&](uint32_t step, uint32_t ta, uint32_t tb) {
					 size_t term = (size_t)step * DEPTH;

					 load_across<TILE, THREADS(128)>(ta, a, term);
					 load_across<128, THREADS(128)>(tb, b, term);
				 });
	lay_out<128>(out, s);
	FOR_PIECES(r, c, least(m - row, 128), k - col, TILE)
	{
		eight e = load_eight(out + r * OUT_LD + c);
		float *at = to + (row + r) * k + col + c;

		if (acc) {
			eight old = load_eight(at);

			for (int i = 0; i < PIECE; i++)
				e.v[i] += old.v[i];
		}
		store_eight(at, e);
	}
}
