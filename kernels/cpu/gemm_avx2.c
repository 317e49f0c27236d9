/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm_avx2.c - matrix product for AVX2 and FMA, one thread.
 *
 * Three ways, chosen by shape alone:
 *   stream   few rows against a weight stored [n,k]: gemm_stream_avx2.c.
 *   thin     few rows, or a short sum, against B stored [k,n]: tiles as below, with B where it
 *            is, read along a few of its rows at once.
 *   blocked  the rest: MR x NR tiles of C in registers over a panel of B packed into the L1
 *            cache and a block of A packed into the L2 cache (Goto and van de Geijn, "Anatomy
 *            of High-Performance Matrix Multiplication", TOMS 34(3), 2008). A panel of B is
 *            packed just before the tiles that use it, so it never leaves L1; meanwhile the
 *            lines of the next are fetched.
 *
 * Order of sums: thin and blocked add k in ascending order within blocks of k, whose size
 * follows from the shape, then the blocks in order. Every product is added by an explicit fused
 * instruction, so all compilers agree.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm_avx2.h"

#define MR	    6
#define NR	    16
#define KC	    256
#define MC	    264
#define STREAM_MAX  12
#define THIN_MAX    12
#define THIN_K	    16
#define FETCH_AHEAD 256

/* The slack takes the overlapping stores of pack_columns(). */
static _Thread_local float a_block[MC * KC + 8] __attribute__((aligned(64)));
static _Thread_local float b_panel[KC * NR] __attribute__((aligned(64)));

/* The size of the equal parts that cut @n into as few pieces of at most @max as there can be. */
static size_t even_part(size_t n, size_t max, size_t unit)
{
	size_t parts = (n + max - 1) / max, part = (n + parts - 1) / parts;

	return (part + unit - 1) / unit * unit;
}

/* r[i] lane j becomes r[j] lane i. */
INLINE void transpose8(__m256 r[8])
{
	__m256 t[8], s[8];

	UNROLL
	for (int i = 0; i < 4; i++) {
		t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
		t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
	}
	UNROLL
	for (int i = 0; i < 2; i++) {
		s[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
		s[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
		s[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
		s[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
	}
	UNROLL
	for (int i = 0; i < 4; i++) {
		r[i] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x20);
		r[i + 4] = _mm256_permute2f128_ps(s[i], s[i + 4], 0x31);
	}
}

/*
 * Pack @rows (at most 8) rows of length @len as columns: dst[p * step + r] = row r, element p.
 * All eight lanes are stored, lanes past @rows repeating the last row; ascending p overwrites
 * what spills into the next column.
 */
INLINE void pack_columns(float *dst, size_t step, const void *src, size_t ld, size_t rows,
			 size_t len, int bf16)
{
	const void *row[8];
	size_t p = 0;

	for (size_t r = 0; r < 8; r++)
		row[r] = at(src, min_size(r, rows - 1) * ld, bf16);
	for (; p + 8 <= len; p += 8) {
		__m256 v[8];

		UNROLL
		for (int r = 0; r < 8; r++)
			v[r] = load8(row[r], p, bf16);
		transpose8(v);
		UNROLL
		for (int r = 0; r < 8; r++)
			_mm256_storeu_ps(dst + (p + (size_t)r) * step, v[r]);
	}
	for (; p < len; p++)
		for (size_t r = 0; r < min_size(8, step); r++)
			dst[p * step + r] = load1(row[r], p, bf16);
}

/* op(A) rows i .. i + mc, columns p .. p + kc, as panels of MR rows: [panel][p][MR]. */
static void pack_a(const float *a, size_t lda, int ta, size_t mc, size_t kc)
{
	float *dst = a_block;

	for (size_t i = 0; i < mc; i += MR, dst += MR * kc) {
		size_t rows = min_size(MR, mc - i);

		if (!ta) {
			pack_columns(dst, MR, a + i * lda, lda, rows, kc, 0);
			continue;
		}
		if (rows < MR) {
			for (size_t p = 0; p < kc; p++)
				for (size_t r = 0; r < MR; r++)
					dst[p * MR + r] = a[p * lda + i + min_size(r, rows - 1)];
			continue;
		}
		for (size_t p = 0; p < kc; p++) {
			const float *src = a + p * lda + i;

			_mm_storeu_ps(dst + p * MR, _mm_loadu_ps(src));
			memcpy(dst + p * MR + 4, src + 4, 2 * sizeof(float));
		}
	}
}

/* op(B) rows p .. p + kc, columns j .. j + cols, into b_panel[p][NR]. */
INLINE void pack_b_as(const void *b, size_t ldb, int tb, size_t kc, size_t cols, int bf16)
{
	if (tb) {
		size_t half = min_size(cols, 8);

		pack_columns(b_panel, NR, b, ldb, half, kc, bf16);
		if (cols > 8)
			pack_columns(b_panel + 8, NR, at(b, 8 * ldb, bf16), ldb, cols - 8, kc,
				     bf16);
		return;
	}
	for (size_t p = 0; p < kc; p++, b = at(b, ldb, bf16)) {
		float *dst = b_panel + p * NR;

		if (cols == NR) {
			_mm256_store_ps(dst, load8(b, 0, bf16));
			_mm256_store_ps(dst + 8, load8(b, 8, bf16));
			continue;
		}
		for (size_t j = 0; j < cols; j++)
			dst[j] = load1(b, j, bf16);
	}
}

static void pack_b(const struct weight *b, size_t p, size_t j, size_t kc, size_t cols)
{
	const void *src = at(b->p, b->trans ? j * b->ld + p : p * b->ld + j, b->bf16);

	if (b->bf16)
		pack_b_as(src, b->ld, b->trans, kc, cols, 1);
	else
		pack_b_as(src, b->ld, b->trans, kc, cols, 0);
}

INLINE void store_row(float *c, __m256 x, __m256 y, int acc)
{
	if (acc) {
		x = _mm256_add_ps(_mm256_loadu_ps(c), x);
		y = _mm256_add_ps(_mm256_loadu_ps(c + 8), y);
	}
	_mm256_storeu_ps(c, x);
	_mm256_storeu_ps(c + 8, y);
}

/* Sums are named, not kept in arrays: compilers put arrays on the stack around the loop. */
#define EACH_ROW(F)   F(0) F(1) F(2) F(3) F(4) F(5)
#define TILE_BEGIN(r) __m256 s##r = _mm256_setzero_ps(), t##r = s##r;
#define TILE_FETCH(r)                                                                    \
	if (r < rows) {                                                                  \
		_mm_prefetch((const char *)(c + (size_t)r * ldc), _MM_HINT_T0);          \
		_mm_prefetch((const char *)(c + (size_t)r * ldc + NR - 1), _MM_HINT_T0); \
	}
#define TILE_STEP(r)                                   \
	if (r < rows) {                                \
		__m256 x = _mm256_broadcast_ss(a + r); \
                                                       \
		s##r = _mm256_fmadd_ps(x, b0, s##r);   \
		t##r = _mm256_fmadd_ps(x, b1, t##r);   \
	}
#define TILE_END(r)   \
	if (r < rows) \
		store_row(c + (size_t)r * ldc, s##r, t##r, acc);

/*
 * c[rows][NR] = or += the product of a packed panel of A and NR columns of B. A packed B is in
 * L1 and C may not be; of an unpacked one the lines of tiles to come are fetched.
 */
INLINE void tile_rows(int rows, int packed, size_t kc, const float *a, const float *b, size_t ldb,
		      float *c, size_t ldc, int acc)
{
	EACH_ROW(TILE_BEGIN)
	if (packed) {
		EACH_ROW(TILE_FETCH)
	}
	UNROLL4
	for (size_t p = 0; p < kc; p++, a += MR, b += ldb) {
		__m256 b0 = _mm256_loadu_ps(b), b1 = _mm256_loadu_ps(b + 8);

		if (!packed)
			_mm_prefetch((const char *)b + FETCH_AHEAD, _MM_HINT_T0);
		EACH_ROW(TILE_STEP)
	}
	EACH_ROW(TILE_END)
}

INLINE void tile_as(int packed, size_t rows, size_t kc, const float *a, const float *b, size_t ldb,
		    float *c, size_t ldc, int acc)
{
	switch (rows) {
	case 6:
		tile_rows(6, packed, kc, a, b, ldb, c, ldc, acc);
		break;
	case 5:
		tile_rows(5, packed, kc, a, b, ldb, c, ldc, acc);
		break;
	case 4:
		tile_rows(4, packed, kc, a, b, ldb, c, ldc, acc);
		break;
	case 3:
		tile_rows(3, packed, kc, a, b, ldb, c, ldc, acc);
		break;
	case 2:
		tile_rows(2, packed, kc, a, b, ldb, c, ldc, acc);
		break;
	default:
		tile_rows(1, packed, kc, a, b, ldb, c, ldc, acc);
	}
}

/* By the panel that pack_b() has made. */
static void tile_packed(size_t rows, size_t kc, const float *a, float *c, size_t ldc, int acc)
{
	tile_as(1, rows, kc, a, b_panel, NR, c, ldc, acc);
}

/* By @n columns, a multiple of NR, of B as it lies in memory. */
static void tiles_direct(size_t rows, size_t n, size_t kc, const float *a, const float *b,
			 size_t ldb, float *c, size_t ldc, int acc)
{
	if (rows == MR)
		for (size_t j = 0; j < n; j += NR)
			tile_rows(MR, 0, kc, a, b + j, ldb, c + j, ldc, acc);
	else
		for (size_t j = 0; j < n; j += NR)
			tile_as(0, rows, kc, a, b + j, ldb, c + j, ldc, acc);
}

/* A tile with fewer than NR columns, of the packed panel, goes by way of a whole one. */
static void tile_edge(size_t rows, size_t cols, size_t kc, const float *a, float *c, size_t ldc,
		      int acc)
{
	float whole[MR * NR];

	tile_packed(rows, kc, a, whole, NR, 0);
	for (size_t r = 0; r < rows; r++)
		for (size_t j = 0; j < cols; j++)
			c[r * ldc + j] =
				acc ? c[r * ldc + j] + whole[r * NR + j] : whole[r * NR + j];
}

/* The lines of B that the next panel will be packed from, fetched a few per tile. */
struct fetch {
	const char *row;
	size_t step, rows, bytes, done;
};

static void fetch_lines(struct fetch *f, size_t lines)
{
	for (; lines > 0 && f->rows > 0; lines--) {
		_mm_prefetch(f->row + f->done, _MM_HINT_T1);
		f->done += 64;
		if (f->done >= f->bytes) {
			f->done = 0;
			f->row += f->step;
			f->rows--;
		}
	}
}

static struct fetch fetch_panel(const struct weight *b, size_t p, size_t j, size_t kc, size_t cols)
{
	size_t size = b->bf16 ? sizeof(uint16_t) : sizeof(float);
	size_t first = b->trans ? j * b->ld + p : p * b->ld + j;

	return (struct fetch){.row = (const char *)b->p + first * size,
			      .step = b->ld * size,
			      .rows = b->trans ? cols : kc,
			      .bytes = (b->trans ? kc : cols) * size};
}

static void multiply_panel(size_t mc, size_t cols, size_t kc, float *c, size_t ldc, int acc,
			   struct fetch *next)
{
	size_t lines = (kc + mc / MR) / (mc / MR + 1) + 1;

	for (size_t i = 0; i < mc; i += MR) {
		size_t rows = min_size(MR, mc - i);

		fetch_lines(next, lines);
		if (cols == NR)
			tile_packed(rows, kc, a_block + i * kc, c + i * ldc, ldc, acc);
		else
			tile_edge(rows, cols, kc, a_block + i * kc, c + i * ldc, ldc, acc);
	}
}

static void blocked(int ta, size_t m, size_t n, size_t k, const float *a, size_t lda,
		    const struct weight *b, float *c, size_t ldc, int acc)
{
	size_t mstep = even_part(m, MC, MR), kstep = even_part(k, KC, 8);

	for (size_t i = 0; i < m; i += mstep) {
		size_t mc = min_size(mstep, m - i);

		for (size_t p = 0; p < k; p += kstep) {
			size_t kc = min_size(kstep, k - p);

			pack_a(a + (ta ? p * lda + i : i * lda + p), lda, ta, mc, kc);
			for (size_t j = 0; j < n; j += NR) {
				size_t cols = min_size(NR, n - j);
				size_t left = min_size(NR, n - j - cols);
				struct fetch next = fetch_panel(b, p, j + cols, kc, left);

				pack_b(b, p, j, kc, cols);
				multiply_panel(mc, cols, kc, c + i * ldc + j, ldc, acc || p > 0,
					       &next);
			}
		}
	}
}

/* B stored [k,n] and used too little to be worth packing: read along a few of its rows at once. */
static void thin(int ta, size_t m, size_t n, size_t k, const float *a, size_t lda,
		 const struct weight *b, float *c, size_t ldc, int acc)
{
	size_t whole = n / NR * NR, mstep = even_part(m, MR, 1);
	size_t kstep = fits_l2(n * k) ? KC : THIN_K;

	for (size_t p = 0; p < k; p += kstep) {
		size_t kc = min_size(kstep, k - p);

		if (whole < n)
			pack_b(b, p, whole, kc, n - whole);
		for (size_t i = 0; i < m; i += mstep) {
			const float *src = (const float *)b->p + p * b->ld;
			size_t rows = min_size(mstep, m - i);

			pack_a(a + (ta ? p * lda + i : i * lda + p), lda, ta, rows, kc);
			tiles_direct(rows, whole, kc, a_block, src, b->ld, c + i * ldc, ldc,
				     acc || p > 0);
			if (whole < n)
				tile_edge(rows, n - whole, kc, a_block, c + i * ldc + whole, ldc,
					  acc || p > 0);
		}
	}
}

static void gemm(int ta, size_t m, size_t n, size_t k, const float *a, size_t lda,
		 const struct weight *b, float *c, size_t ldc, int acc)
{
	if (k == 0) {
		for (size_t i = 0; i < m && !acc; i++)
			memset(c + i * ldc, 0, n * sizeof(*c));
		return;
	}
	if (m == 0 || n == 0)
		return;
	if (!b->trans && !b->bf16 && (m <= THIN_MAX || k <= THIN_K))
		thin(ta, m, n, k, a, lda, b, c, ldc, acc);
	else if (ta || !b->trans || m > STREAM_MAX)
		blocked(ta, m, n, k, a, lda, b, c, ldc, acc);
	else
		pst_avx2_gemm_stream(m, n, k, a, lda, b, c, ldc, acc);
}

void pst_avx2_gemm(int ta, int tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
		   const float *b, size_t ldb, float *c, size_t ldc, int acc)
{
	const struct weight w = {b, ldb, tb, 0};

	gemm(ta, m, n, k, a, lda, &w, c, ldc, acc);
}

void pst_avx2_gemm_bf16(int ta, int tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
			const uint16_t *b, size_t ldb, float *c, size_t ldc, int acc)
{
	const struct weight w = {b, ldb, tb, 1};

	gemm(ta, m, n, k, a, lda, &w, c, ldc, acc);
}
