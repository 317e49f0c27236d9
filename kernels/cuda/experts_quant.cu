/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The experts' networks on quantised weights, forward, grouped as those of experts.cu; kernels/
 * quant.h has the formats and cuda.h says what each kernel computes.
 *
 *	W8	fp8 tiles, bf16 activations: for few rows, where weights passing by is all the time
 *	W4	int4, bf16 activations: the same, for half the bytes
 *	W8A8	fp8 tiles, fp8 rows: for many rows, where the tensor cores are
 *
 * All go in steps of one block of a scale, 128 terms: the sums of a step are added, scaled, to
 * those of the steps before (arXiv:2412.19437, 3.3.2), in fp32. So a code becomes bf16 as it is,
 * exactly, and a scale costs one fma a result and step.
 *
 *	load     cp.async, 16 bytes each, STAGES - 1 steps ahead, rows of activations gathered.
 *	         Weights have the evict-first hint for few rows. Packed int4 has a warp's 512
 *	         bytes side by side, and what a lane copies it alone reads.
 *
 *	lay      fp8: 16-byte pieces of a row of 128 bytes are permuted by the row's number, as
 *	         in experts.cu, for ldmatrix: eight rows of a matrix are in eight different
 *	         places of the 128 bytes that the banks hold at once. int4: lanes read 16 bytes
 *	         side by side. bf16 activations: rows of 256 bytes, pieces permuted in pairs,
 *	         for half a warp reads 32 bytes of each of four rows at once.
 *
 *	multiply ldmatrix of e4m3 hands a lane four terms side by side, 4 (l % 4) .. + 3, where
 *	         bf16's mma wants two and two. So 16 terms are multiplied in that order, in which
 *	         a lane reads 8 bytes of activations side by side, and in which int4 is packed.
 *
 * There is no split over k: at DeepSeek-V3's shapes one expert is 32 blocks up and 56 down, and the
 * eight of one token are 256 and 448. Not run on a GPU; on sm_90a W8A8, and W8 and W4 from 64 rows
 * on, would be wgmma fed by TMA.
 */
#include "kernels/cuda/experts.cuh"
#include "kernels/cuda/quant.cuh"

#define DEPTH PST_QUANT_BLOCK
#define HALF  (TILE / 2)

enum kind { W8, W4, W8A8 };

/* A place: weights, then activations; the scales that come with either are behind it. */
#define W_CODES(kind)	  (TILE * DEPTH / ((kind) == W4 ? 2 : 1))
#define W_BYTES(kind)	  (W_CODES(kind) + ((kind) == W4 ? TILE * 2 : 0))
#define X_CODES(kind, of) (DEPTH * (of) * ((kind) == W8A8 ? 1 : 2))
#define X_BYTES(kind, of) (X_CODES(kind, of) + ((kind) == W8A8 ? 4 * (of) : 0))
#define PLACES(kind, of)                                 \
	((kind) == W8	? PST_CUDA_EXPERTS_W8_STAGES(of) \
	 : (kind) == W4 ? PST_CUDA_EXPERTS_W4_STAGES(of) \
			: PST_CUDA_EXPERTS_W8A8_STAGES(of))

/* What a scale of a weight is. */
template <int KIND> struct scale_of {
	typedef float type;
};
template <> struct scale_of<W4> {
	typedef uint16_t type;
};

template <int PIECES> static __device__ __forceinline__ uint32_t permuted(uint32_t row)
{
	return PIECES == 8 ? row & 7 : (row & 3) << 1;
}

/* Where this thread copies its piece of row @r to. */
template <int PIECES>
static __device__ __forceinline__ uint32_t place_of(uint32_t place, uint32_t r)
{
	return place + (r * PIECES + (threadIdx.x % PIECES ^ permuted<PIECES>(r))) * 16;
}

template <bool ONCE>
static __device__ __forceinline__ void copy16(uint32_t to, const void *from, bool in,
					      const void *valid, uint64_t policy)
{
	from = in ? from : valid;
	if (ONCE)
		cp_async16_hint(to, from, in ? 16 : 0, policy);
	else
		cp_async16(to, from, in ? 16 : 0);
}

/*
 * TILE rows of weights from row @first of @rows, with scales; or half a tile of each of two, if
 * @two says so.
 */
template <int KIND> struct matrix {
	typedef typename scale_of<KIND>::type scale_type;
	const uint8_t *codes, *codes_two;
	const scale_type *scale, *scale_two;
	bool two;
	size_t first, rows, terms;

	/* Is row @r of the tile of the second? And its number there. */
	__device__ __forceinline__ bool second(uint32_t r) const
	{
		return two && r >= HALF;
	}
	__device__ __forceinline__ size_t row(uint32_t r) const
	{
		return first + r - (second(r) ? HALF : 0);
	}
};

/* fp8: this thread copies the same piece of rows that are EACH apart, of both halves. */
template <int KIND, int OF> struct weights {
	static const int PIECES = DEPTH / 16, EACH = THREADS(OF) / PIECES;
	const uint8_t *at[2];
	size_t left[2];	    /* rows that the matrix has, from this thread's first on */
	const float *scale; /* of this warp's columns: one a step */
	size_t terms;

	__device__ __forceinline__ void open(const matrix<KIND> &m)
	{
		uint32_t col = warp_col<OF>();

		terms = m.terms;
#pragma unroll
		for (int h = 0; h < 2; h++) {
			uint32_t r = (uint32_t)h * HALF + threadIdx.x / PIECES;
			size_t row = m.row(r);

			left[h] = row < m.rows ? m.rows - row : 0;
			at[h] = (m.second(r) ? m.codes_two : m.codes) + row * terms +
				threadIdx.x % PIECES * 16;
		}
		scale = (m.second(col) ? m.scale_two : m.scale) +
			m.first / DEPTH * blocks_of(terms);
	}
	__device__ __forceinline__ void load(uint32_t place, size_t step, const void *valid,
					     uint64_t policy) const
	{
		bool in = step * DEPTH + threadIdx.x % PIECES * 16 < terms;

#pragma unroll
		for (int h = 0; h < 2; h++) {
			const uint8_t *from = at[h] + step * DEPTH;

#pragma unroll
			for (uint32_t r = 0; r < HALF; r += EACH)
				copy16<KIND == W8>(
					place_of<PIECES>(place, (uint32_t)h * HALF + r +
									threadIdx.x / PIECES),
					from + r * terms, in && r < left[h], valid, policy);
		}
	}
};

/* A lane's pieces of the two tiles of 16 rows that its warp has, and of eight rows of scales. */
template <int OF> struct weights<W4, OF> {
	const uint8_t *tile[2];
	const uint16_t *scale;
	size_t rows;

	__device__ __forceinline__ void open(const matrix<W4> &m)
	{
		size_t bytes = blocks_of(m.terms) * (16 * DEPTH / 2);

		rows = m.rows;
#pragma unroll
		for (int i = 0; i < 2; i++) {
			uint32_t r = warp_col<OF>() + 16 * i;
			size_t at = m.row(r);

			tile[i] = NULL;
			if (at < rows)
				tile[i] = (m.second(r) ? m.codes_two : m.codes) + at / 16 * bytes +
					  threadIdx.x % 32 * 16;
		}
		scale = NULL;
		if (threadIdx.x < TILE / 8 && m.row(threadIdx.x * 8) < rows)
			scale = (m.second(threadIdx.x * 8) ? m.scale_two : m.scale) +
				m.row(threadIdx.x * 8);
	}
	__device__ __forceinline__ void load(uint32_t place, size_t step, const void *valid,
					     uint64_t policy) const
	{
#pragma unroll
		for (uint32_t i = 0; i < 4; i++) {
			const uint8_t *from = tile[i / 2];
			uint32_t to =
				place + (warp_col<OF>() / 16 * 2 + i) * 512 + threadIdx.x % 32 * 16;

			cp_async16_hint(to, from ? from + (step * 2 + i % 2) * 512 : valid,
					from ? 16 : 0, policy);
		}
		if (threadIdx.x < TILE / 8)
			cp_async16(place + W_CODES(W4) + threadIdx.x * 16,
				   scale ? scale + step * rows : valid, scale ? 16 : 0);
	}
};

/* Rows of activations, each perhaps somewhere else, and of W8A8 the scale of one of them. */
template <int KIND, int OF> struct activations {
	static const int ELEMENT = KIND == W8A8 ? 1 : 2, PIECES = DEPTH * ELEMENT / 16,
			 EACH = THREADS(OF) / PIECES, N = OF / EACH;
	const uint8_t *x;
	int32_t row[N]; /* below 0: none */
	const float *scale;
	size_t ld, bytes;

	__device__ __forceinline__ void open(const struct group &g, const void *from, size_t ldx,
					     const float *scales, const int32_t *idx, size_t terms)
	{
		x = (const uint8_t *)from + threadIdx.x % PIECES * 16;
		ld = ldx * ELEMENT;
		bytes = terms * ELEMENT;
#pragma unroll
		for (int i = 0; i < N; i++) {
			uint32_t r = (uint32_t)(i * EACH) + threadIdx.x / PIECES;

			row[i] = -1;
			if (r < g.rows)
				row[i] = idx ? idx[g.first + r] : (int32_t)(g.first + r);
		}
		scale = NULL;
		if (KIND == W8A8 && threadIdx.x < g.rows) {
			size_t at = g.first + threadIdx.x;

			scale = scales + (idx ? (size_t)idx[at] : at) * blocks_of(terms);
		}
	}
	__device__ __forceinline__ void load(uint32_t place, size_t step, const void *valid) const
	{
		size_t at = step * PIECES * 16;
		bool in = at + threadIdx.x % PIECES * 16 < bytes;

#pragma unroll
		for (int i = 0; i < N; i++)
			copy16<false>(place_of<PIECES>(place,
						       (uint32_t)(i * EACH) + threadIdx.x / PIECES),
				      x + (size_t)row[i] * ld + at, in && row[i] >= 0, valid, 0);
		if (KIND == W8A8 && threadIdx.x < OF)
			cp_async4(place + X_CODES(W8A8, OF) + threadIdx.x * 4,
				  scale ? scale + step : valid, scale ? 4 : 0);
	}
};

/* bf16 activations of the eight rows from @row, terms 16 @k ..: both operands of an mma. */
static __device__ __forceinline__ void take_bf16(uint32_t r[2], uint32_t tile, uint32_t row,
						 uint32_t k)
{
	uint32_t lane = threadIdx.x % 32, c = lane % 4;

	row += lane / 4;
	load_shared8(r, tile + (row * 16 + ((2 * k + c / 2) ^ permuted<16>(row))) * 16 + c % 2 * 8);
}

/* Terms 32 @k .. of 16 rows of fp8 from @row; of weights, or (PAIR) of two tiles of 8 rows. */
template <bool PAIR>
static __device__ __forceinline__ void take_fp8(uint32_t r[4], uint32_t tile, uint32_t row,
						uint32_t k)
{
	uint32_t lane = threadIdx.x % 32, low = lane % 8, one = lane / 8 % 2, two = lane / 16;

	if (PAIR)
		ldmatrix(r, piece_at<DEPTH / 16>(tile, row + 8 * two + low, 2 * k + one));
	else
		ldmatrix(r, piece_at<DEPTH / 16>(tile, row + 8 * one + low, 2 * k + two));
}

/* Terms 16 @k .. of all rows, with weights @left. */
template <int OF>
static __device__ __forceinline__ void multiply_bf16(sums<OF> &s, const uint32_t left[2][4],
						     uint32_t x, uint32_t k)
{
#pragma unroll
	for (uint32_t j = 0; j < WIDTH(OF); j++) {
		uint32_t right[2];

		take_bf16(right, x, warp_row<OF>() + 8 * j, k);
		mma_bf16(s.v[0][j], left[0], right[0], right[1]);
		mma_bf16(s.v[1][j], left[1], right[0], right[1]);
	}
}

template <int OF>
static __device__ __forceinline__ void multiply_w8(sums<OF> &s, uint32_t w, uint32_t x)
{
/* many rows leave no registers to look ahead with */
#pragma unroll(OF < 64 ? 4 : 1)
	for (uint32_t k = 0; k < DEPTH / 32; k++) {
		uint32_t a[2][4];

		take_fp8<false>(a[0], w, warp_col<OF>(), k);
		take_fp8<false>(a[1], w, warp_col<OF>() + 16, k);
#pragma unroll
		for (int h = 0; h < 2; h++) {
			uint32_t left[2][4];

#pragma unroll
			for (int i = 0; i < 2; i++) {
				left[i][0] = bf16x2_of_fp8<false>(a[i][2 * h]);
				left[i][1] = bf16x2_of_fp8<false>(a[i][2 * h + 1]);
				left[i][2] = bf16x2_of_fp8<true>(a[i][2 * h]);
				left[i][3] = bf16x2_of_fp8<true>(a[i][2 * h + 1]);
			}
			multiply_bf16<OF>(s, left, x, 2 * k + (uint32_t)h);
		}
	}
}

template <int OF>
static __device__ __forceinline__ void multiply_w4(sums<OF> &s, uint32_t w, uint32_t x)
{
	uint32_t mine = w + warp_col<OF>() / 16 * 1024 + threadIdx.x % 32 * 16;

/* many rows leave no registers to look ahead with */
#pragma unroll(OF < 64 ? 4 : 1)
	for (uint32_t h = 0; h < 2; h++) {
		uint32_t word[2][4];

		load_shared16(word[0], mine + h * 512);
		load_shared16(word[1], mine + 1024 + h * 512);
#pragma unroll
		for (uint32_t k = 0; k < 4; k++) {
			uint32_t left[2][4];

#pragma unroll
			for (int i = 0; i < 2; i++) {
				left[i][0] = bf16x2_of_int4<0>(word[i][k]);
				left[i][1] = bf16x2_of_int4<1>(word[i][k]);
				left[i][2] = bf16x2_of_int4<2>(word[i][k]);
				left[i][3] = bf16x2_of_int4<3>(word[i][k]);
			}
			multiply_bf16<OF>(s, left, x, 4 * h + k);
		}
	}
}

static __device__ __forceinline__ void mma_fp8(float d[4], const uint32_t a[4], uint32_t b0,
					       uint32_t b1)
{
	if (has_fp8())
		mma_e4m3(d, a, b0, b1);
	else
		mma_e4m3_as_bf16(d, a, b0, b1);
}

template <int OF>
static __device__ __forceinline__ void multiply_w8a8(sums<OF> &s, uint32_t w, uint32_t x)
{
/* many rows leave no registers to look ahead with */
#pragma unroll(OF < 64 ? 4 : 1)
	for (uint32_t k = 0; k < DEPTH / 32; k++) {
		uint32_t left[2][4];

		take_fp8<false>(left[0], w, warp_col<OF>(), k);
		take_fp8<false>(left[1], w, warp_col<OF>() + 16, k);
#pragma unroll
		for (uint32_t j = 0; j < WIDTH(OF); j += 2) {
			uint32_t right[4];

			take_fp8<true>(right, x, warp_row<OF>() + 8 * j, k);
#pragma unroll
			for (int i = 0; i < 2; i++) {
				mma_fp8(s.v[i][j], left[i], right[0], right[1]);
				mma_fp8(s.v[i][j + 1], left[i], right[2], right[3]);
			}
		}
	}
}

/* @s += @now, each result times its scale: f(i, j, e), as sums are numbered. */
template <int OF, class SCALE>
static __device__ __forceinline__ void promote(sums<OF> &s, const sums<OF> &now, const SCALE &f)
{
#pragma unroll
	for (int i = 0; i < 2; i++)
#pragma unroll
		for (int j = 0; j < WIDTH(OF); j++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				s.v[i][j][e] = fmaf(f(i, j, e), now.v[i][j][e], s.v[i][j][e]);
}

/* One step of each kind: @place as a number, and @at as memory. */
template <int OF>
static __device__ __forceinline__ void step_of(sums<OF> &s, const weights<W8, OF> &w, uint32_t step,
					       uint32_t place, const unsigned char *)
{
	float scale = w.scale[step];
	sums<OF> now;

	clear(now);
	multiply_w8<OF>(now, place, place + W_BYTES(W8));
	promote(s, now, [&](int, int, int) { return scale; });
}

template <int OF>
static __device__ __forceinline__ void step_of(sums<OF> &s, const weights<W4, OF> &, uint32_t,
					       uint32_t place, const unsigned char *at)
{
	const uint16_t *from =
		(const uint16_t *)(at + W_CODES(W4)) + warp_col<OF>() + threadIdx.x % 32 / 4;
	float scale[2][2] = {{bf16_to(from[0]), bf16_to(from[8])},
			     {bf16_to(from[16]), bf16_to(from[24])}};
	sums<OF> now;

	clear(now);
	multiply_w4<OF>(now, place, place + W_BYTES(W4));
	promote(s, now, [&](int i, int, int e) { return scale[i][e / 2]; });
}

template <int OF>
static __device__ __forceinline__ void step_of(sums<OF> &s, const weights<W8A8, OF> &w,
					       uint32_t step, uint32_t place,
					       const unsigned char *at)
{
	const float *rows = (const float *)(at + W_BYTES(W8A8) + X_CODES(W8A8, OF)) +
			    warp_row<OF>() + threadIdx.x % 4 * 2;
	float scale = w.scale[step];
	sums<OF> now;

	clear(now);
	multiply_w8a8<OF>(now, place, place + W_BYTES(W8A8));
	promote(s, now, [&](int, int j, int e) { return scale * rows[8 * j + e % 2]; });
}

/* The whole product of a block, to @memory as lay_out() says. */
template <int KIND, int OF>
static __device__ __forceinline__ void product(unsigned char *memory, const matrix<KIND> &m,
					       const activations<KIND, OF> &x, const void *valid)
{
	const uint32_t bytes = W_BYTES(KIND) + X_BYTES(KIND, OF);
	uint64_t policy = KIND == W8A8 ? 0 : evict_first();
	uint32_t shared = shared_at(memory);
	weights<KIND, OF> w;
	sums<OF> s;

	static_assert(bytes * PLACES(KIND, OF) >= OF * OUT_LD * sizeof(float), "sums have no room");
	w.open(m);
	clear(s);
	pipeline<PLACES(KIND, OF), bytes>(
		shared, (uint32_t)blocks_of(m.terms),
		[&](uint32_t step, uint32_t place) {
			w.load(place, step, valid, policy);
			x.load(place + W_BYTES(KIND), step, valid);
		},
		[&](uint32_t step, uint32_t place) {
			step_of<OF>(s, w, step, place, memory + (place - shared));
		});
	lay_out<OF>((float *)memory, s);
}

template <int KIND, int OF, class SCALE>
static __device__ __forceinline__ void
up_of(uint16_t *a, uint16_t *kept, const void *x, const float *x_scale, size_t ldx,
      const int32_t *idx, const uint8_t *const *gate, const SCALE *const *gate_scale,
      const uint8_t *const *up, const SCALE *const *up_scale, const int32_t *off, size_t n,
      size_t hidden, size_t inter)
{
	unsigned char *memory = launch_memory();
	struct group g = group_of<OF>(off, n, blockIdx.x);
	size_t col = (size_t)blockIdx.y * HALF;
	activations<KIND, OF> act;

	if (!g.rows)
		return;
	act.open(g, x, ldx, x_scale, idx, hidden);
	product<KIND, OF>(memory,
			  {gate[g.expert], up[g.expert], gate_scale[g.expert], up_scale[g.expert],
			   true, col, inter, hidden},
			  act, x);
	swiglu_end<OF>(a, kept, (const float *)memory, g, col, inter);
}

template <int KIND, int OF, class SCALE>
static __device__ __forceinline__ void
down_of(void *y, int narrow, const void *a, const float *a_scale, const uint8_t *const *down,
	const SCALE *const *scale, const int32_t *off, size_t n, size_t hidden, size_t inter)
{
	unsigned char *memory = launch_memory();
	struct group g = group_of<OF>(off, n, blockIdx.x);
	size_t col = (size_t)blockIdx.y * TILE;
	activations<KIND, OF> act;

	if (!g.rows)
		return;
	act.open(g, a, inter, a_scale, NULL, inter);
	product<KIND, OF>(memory,
			  {down[g.expert], NULL, scale[g.expert], NULL, false, col, hidden, inter},
			  act, a);
	plain_end<OF>(y, narrow, (const float *)memory, g, col, hidden);
}

/* clang-format off */
#define EXPERTS(name, of) \
	extern "C" __global__ void __launch_bounds__(THREADS(of)) experts_##name##_##of
/* clang-format on */

EXPERTS(up_w8, 16) PST_CUDA_EXPERTS_UP_W8
{
	(void)rows;
	up_of<W8, 16>(a, kept, x, NULL, ldx, idx, gate, gate_scale, up, up_scale, off, n, hidden,
		      inter);
}

EXPERTS(up_w8, 64) PST_CUDA_EXPERTS_UP_W8
{
	(void)rows;
	up_of<W8, 64>(a, kept, x, NULL, ldx, idx, gate, gate_scale, up, up_scale, off, n, hidden,
		      inter);
}

EXPERTS(up_w4, 16) PST_CUDA_EXPERTS_UP_W4
{
	(void)rows;
	up_of<W4, 16>(a, kept, x, NULL, ldx, idx, gate, gate_scale, up, up_scale, off, n, hidden,
		      inter);
}

EXPERTS(up_w4, 64) PST_CUDA_EXPERTS_UP_W4
{
	(void)rows;
	up_of<W4, 64>(a, kept, x, NULL, ldx, idx, gate, gate_scale, up, up_scale, off, n, hidden,
		      inter);
}

EXPERTS(up_w8a8, 64) PST_CUDA_EXPERTS_UP_W8A8
{
	(void)rows;
	up_of<W8A8, 64>(a, kept, x, x_scale, ldx, idx, gate, gate_scale, up, up_scale, off, n,
			hidden, inter);
}

EXPERTS(up_w8a8, 128) PST_CUDA_EXPERTS_UP_W8A8
{
	(void)rows;
	up_of<W8A8, 128>(a, kept, x, x_scale, ldx, idx, gate, gate_scale, up, up_scale, off, n,
			 hidden, inter);
}

EXPERTS(down_w8, 16) PST_CUDA_EXPERTS_DOWN_W8
{
	(void)rows;
	down_of<W8, 16>(y, narrow, a, NULL, down, scale, off, n, hidden, inter);
}

EXPERTS(down_w8, 64) PST_CUDA_EXPERTS_DOWN_W8
{
	(void)rows;
	down_of<W8, 64>(y, narrow, a, NULL, down, scale, off, n, hidden, inter);
}

EXPERTS(down_w4, 16) PST_CUDA_EXPERTS_DOWN_W4
{
	(void)rows;
	down_of<W4, 16>(y, narrow, a, NULL, down, scale, off, n, hidden, inter);
}

EXPERTS(down_w4, 64) PST_CUDA_EXPERTS_DOWN_W4
{
	(void)rows;
	down_of<W4, 64>(y, narrow, a, NULL, down, scale, off, n, hidden, inter);
}

EXPERTS(down_w8a8, 64) PST_CUDA_EXPERTS_DOWN_W8A8
{
	(void)rows;
	down_of<W8A8, 64>(y, narrow, a, a_scale, down, scale, off, n, hidden, inter);
}

EXPERTS(down_w8a8, 128) PST_CUDA_EXPERTS_DOWN_W8A8
{
	(void)rows;
	down_of<W8A8, 128>(y, narrow, a, a_scale, down, scale, off, n, hidden, inter);
}
