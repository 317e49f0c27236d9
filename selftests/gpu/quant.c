/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in's kernels on quantised numbers, launched as the driver would. */
#include "kernels/bf16.h"
#include "kernels/op.h"
#include "kernels/quant.h"
#include "selftests/gpu/driver.h"

#include <math.h>

enum { ROWS = 5, HIDDEN = 160, INTER = 144, BLOCKS = 2, EXPERTS = 2 };

enum kind { W8, W4, W8A8 };

static uint64_t rng = 3;

/* Stay, so that who looks for leaks finds them. */
static void *kept[64];
static size_t nkept;

static void *keep(size_t bytes)
{
	ASSERT_LT(nkept, sizeof(kept) / sizeof(*kept));
	return kept[nkept++] = malloc(bytes);
}

static float *random_matrix(size_t rows, size_t cols)
{
	float *to = keep(rows * cols * sizeof(*to));

	for (size_t i = 0; i < rows * cols; i++)
		to[i] = (float)(test_random(&rng) >> 40) / (float)(1 << 23) - 1;
	return to;
}

static CUdeviceptr upload(const void *from, size_t bytes)
{
	CUdeviceptr to;

	OK(cuMemAlloc(&to, bytes));
	OK(cuMemcpyHtoD(to, from, bytes));
	return to;
}

static CUdeviceptr empty(size_t bytes)
{
	CUdeviceptr to;

	OK(cuMemAlloc(&to, bytes));
	return to;
}

/* A weight on the device, and what it is worth. */
struct weight {
	CUdeviceptr codes, scale;
	float *plain;
};

static struct weight weight(enum kind kind, size_t rows, size_t cols)
{
	float *x = random_matrix(rows, cols), tiles[BLOCKS * BLOCKS];
	struct weight w = {.plain = keep(rows * cols * sizeof(float))};
	uint8_t *codes = keep(rows * cols), *packed = keep(pst_int4_bytes(rows, cols));
	uint16_t groups[BLOCKS * HIDDEN];

	if (kind == W4) {
		pst_quant_int4((int8_t *)codes, groups, x, cols, rows, cols);
		pst_dequant_int4(w.plain, cols, (int8_t *)codes, groups, rows, cols);
		pst_int4_pack(packed, (int8_t *)codes, rows, cols);
		w.codes = upload(packed, pst_int4_bytes(rows, cols));
		w.scale = upload(groups, rows * BLOCKS * sizeof(*groups));
	} else {
		pst_quant_tiles(codes, tiles, x, cols, rows, cols);
		pst_dequant_tiles(w.plain, cols, codes, tiles, rows, cols);
		w.codes = upload(codes, rows * cols);
		w.scale = upload(tiles, sizeof(tiles));
	}
	return w;
}

static CUdeviceptr list(const struct weight *w, bool scales)
{
	CUdeviceptr to[EXPERTS];

	for (int i = 0; i < EXPERTS; i++)
		to[i] = scales ? w[i].scale : w[i].codes;
	return upload(to, sizeof(to));
}

/* Activations on the device, with their scales, and in @x what they are worth. */
static CUdeviceptr activations(enum kind kind, float *x, size_t cols, CUdeviceptr *scale)
{
	uint16_t narrow[ROWS * HIDDEN];
	uint8_t codes[ROWS * HIDDEN];
	float scales[ROWS * BLOCKS];

	if (kind == W8A8) {
		pst_quant_rows(codes, scales, x, cols, ROWS, cols);
		pst_dequant_rows(x, cols, codes, scales, ROWS, cols);
		*scale = upload(scales, sizeof(scales));
		return upload(codes, ROWS * cols);
	}
	for (size_t i = 0; i < ROWS * cols; i++) {
		narrow[i] = pst_bf16_from_f32(x[i]);
		x[i] = pst_bf16_to_f32(narrow[i]);
	}
	return upload(narrow, ROWS * cols * sizeof(*narrow));
}

static double dot(const float *a, const float *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return sum;
}

static bool near(float got, double want)
{
	return fabs(got - want) <= 5e-3 * fabs(want) + 1e-4;
}

FIXTURE(quant)
{
	struct fixture_driver driver;
	CUdeviceptr off;
};

FIXTURE_VARIANT(quant)
{
	enum kind kind;
	const char *up, *down;
};

FIXTURE_VARIANT_ADD(quant, w8){.kind = W8, .up = "experts_up_w8", .down = "experts_down_w8"};
FIXTURE_VARIANT_ADD(quant, w4){.kind = W4, .up = "experts_up_w4", .down = "experts_down_w4"};
FIXTURE_VARIANT_ADD(quant,
		    w8a8){.kind = W8A8, .up = "experts_up_w8a8", .down = "experts_down_w8a8"};

FIXTURE_SETUP(quant)
{
	static const int32_t off[] = {0, 2, ROWS};

	setup_driver(&self->driver, NULL);
	self->off = upload(off, sizeof(off));
}

FIXTURE_TEARDOWN(quant)
{
}

TEST_F(quant, up_is_what_the_codes_say)
{
	static const int32_t idx[] = {4, 0, 2, 1, 3};
	struct weight gate[EXPERTS], up[EXPERTS];
	float *x = random_matrix(ROWS, HIDDEN);
	uint16_t a[ROWS * INTER], kept[ROWS * 2 * INTER];
	CUdeviceptr scale = 0, px = activations(variant->kind, x, HIDDEN, &scale), pa, pkept,
		    lists[4], pidx = upload(idx, sizeof(idx));
	size_t n = EXPERTS, rows = ROWS, hidden = HIDDEN, inter = INTER, ldx = HIDDEN;
	void *params[] = {&pa,	      &pkept,	 &px,	    &scale,    &ldx,
			  &pidx,      &lists[0], &lists[1], &lists[2], &lists[3],
			  &self->off, &n,	 &rows,	    &hidden,   &inter};

	for (int i = 0; i < EXPERTS; i++) {
		gate[i] = weight(variant->kind, INTER, HIDDEN);
		up[i] = weight(variant->kind, INTER, HIDDEN);
	}
	lists[0] = list(gate, false), lists[1] = list(gate, true);
	lists[2] = list(up, false), lists[3] = list(up, true);
	pa = empty(sizeof(a)), pkept = empty(sizeof(kept));
	if (variant->kind != W8A8)
		memmove(params + 3, params + 4, 11 * sizeof(*params));
	ASSERT_EQ((CUresult)0, launch(function(variant->up), NULL, params));
	OK(cuMemcpyDtoH(a, pa, sizeof(a)));
	OK(cuMemcpyDtoH(kept, pkept, sizeof(kept)));
	for (size_t r = 0; r < ROWS; r++)
		for (size_t i = 0; i < INTER; i++) {
			const float *row = x + idx[r] * HIDDEN;
			double g = dot(row, gate[r >= 2].plain + i * HIDDEN, HIDDEN);
			double u = dot(row, up[r >= 2].plain + i * HIDDEN, HIDDEN);

			EXPECT_TRUE(near(pst_bf16_to_f32(kept[2 * r * INTER + i]), g));
			EXPECT_TRUE(near(pst_bf16_to_f32(kept[(2 * r + 1) * INTER + i]), u));
			EXPECT_TRUE(near(pst_bf16_to_f32(a[r * INTER + i]), g / (1 + exp(-g)) * u));
		}
}

TEST_F(quant, down_is_what_the_codes_say)
{
	struct weight down[EXPERTS];
	float *a = random_matrix(ROWS, INTER), y[ROWS * HIDDEN];
	CUdeviceptr scale = 0, pa = activations(variant->kind, a, INTER, &scale), py, lists[2];
	size_t n = EXPERTS, rows = ROWS, hidden = HIDDEN, inter = INTER;
	int narrow = 0;
	void *params[] = {&py,	      &narrow, &pa,   &scale,  &lists[0], &lists[1],
			  &self->off, &n,      &rows, &hidden, &inter};

	for (int i = 0; i < EXPERTS; i++)
		down[i] = weight(variant->kind, HIDDEN, INTER);
	lists[0] = list(down, false), lists[1] = list(down, true);
	py = empty(sizeof(y));
	if (variant->kind != W8A8)
		memmove(params + 3, params + 4, 7 * sizeof(*params));
	ASSERT_EQ((CUresult)0, launch(function(variant->down), NULL, params));
	OK(cuMemcpyDtoH(y, py, sizeof(y)));
	for (size_t r = 0; r < ROWS; r++)
		for (size_t h = 0; h < HIDDEN; h++)
			EXPECT_TRUE(
				near(y[r * HIDDEN + h],
				     dot(a + r * INTER, down[r >= 2].plain + h * INTER, INTER)));
}

/* There and back, by rows and by tiles, as plain C does it. */
TEST_F(driver, fp8_is_that_of_plain_c)
{
	enum { N = ROWS * HIDDEN };
	float *x = random_matrix(ROWS, HIDDEN), scale[ROWS * BLOCKS], want[N], y[N];
	uint8_t q[N];
	CUdeviceptr px = upload(x, N * 4), pq = empty(N), ps = empty(sizeof(scale)),
		    py = empty(N * 4), none = 0;
	size_t rows = ROWS, cols = HIDDEN, ldt = 16;
	int narrow = 0;
	void *by_rows[] = {&pq, &ps, &px, &narrow, &cols, &rows, &cols};
	void *by_tiles[] = {&pq, &ps, &none, &none, &ldt, &px, &narrow, &cols, &rows, &cols};
	void *back[] = {&py, &narrow, &pq, &ps, &rows, &cols};

	ASSERT_EQ((CUresult)0, launch(function("quant_rows"), NULL, by_rows));
	ASSERT_EQ((CUresult)0, launch(function("dequant_rows"), NULL, back));
	OK(cuMemcpyDtoH(y, py, sizeof(y)));
	pst_quant_rows(q, scale, x, HIDDEN, ROWS, HIDDEN);
	pst_dequant_rows(want, HIDDEN, q, scale, ROWS, HIDDEN);
	EXPECT_EQ(0, memcmp(want, y, sizeof(y)));
	ASSERT_EQ((CUresult)0, launch(function("quant_tiles"), NULL, by_tiles));
	ASSERT_EQ((CUresult)0, launch(function("dequant_tiles"), NULL, back));
	OK(cuMemcpyDtoH(y, py, sizeof(y)));
	pst_quant_tiles(q, scale, x, HIDDEN, ROWS, HIDDEN);
	pst_dequant_tiles(want, HIDDEN, q, scale, ROWS, HIDDEN);
	EXPECT_EQ(0, memcmp(want, y, sizeof(y)));
}

TEST_F(driver, fp8_of_what_was_turned_round)
{
	enum { N = ROWS * HIDDEN, LDT = 16 };
	float *x = random_matrix(ROWS, HIDDEN), xt[N], scale[HIDDEN];
	uint8_t want[N], qt[HIDDEN * LDT];
	CUdeviceptr px = upload(x, N * 4), pq = empty(N), ps = empty(ROWS * BLOCKS * 4),
		    pqt = empty(sizeof(qt)), pst = empty(sizeof(scale));
	size_t rows = ROWS, cols = HIDDEN, ldt = LDT;
	int narrow = 0;
	void *params[] = {&pq, &ps, &pqt, &pst, &ldt, &px, &narrow, &cols, &rows, &cols};

	ASSERT_EQ((CUresult)0, launch(function("quant_both"), NULL, params));
	OK(cuMemcpyDtoH(qt, pqt, sizeof(qt)));
	for (int i = 0; i < N; i++)
		xt[i % HIDDEN * ROWS + i / HIDDEN] = x[i];
	pst_quant_rows(want, scale, xt, ROWS, HIDDEN, ROWS);
	for (int c = 0; c < HIDDEN; c++) {
		EXPECT_EQ(0, memcmp(qt + c * LDT, want + c * ROWS, ROWS));
		EXPECT_EQ(0, qt[c * LDT + ROWS]);
	}
}

TEST_F(driver, fp8_behind_rmsnorm_and_swiglu)
{
	enum { N = ROWS * INTER };
	float *x = random_matrix(ROWS, 2 * INTER), *w = random_matrix(1, INTER), y[N], rstd[ROWS],
	      scale[ROWS * BLOCKS], eps = 0.25f;
	uint8_t q[N], want[N];
	CUdeviceptr px = upload(x, 2 * N * 4), pw = upload(w, INTER * 4), pq = empty(N),
		    ps = empty(sizeof(scale)), pr = empty(sizeof(rstd));
	size_t rows = ROWS, cols = INTER, ldx = 2 * INTER;
	int narrow = 0;
	void *norm[] = {&pq, &ps, &pr, &px, &narrow, &ldx, &pw, &rows, &cols, &eps};
	void *act[] = {&pq, &ps, &px, &narrow, &rows, &cols};

	ASSERT_EQ((CUresult)0, launch(function("rmsnorm_quant"), NULL, norm));
	OK(cuMemcpyDtoH(q, pq, N));
	pst_ops_ref()->rmsnorm(y, INTER, rstd, x, ldx, w, ROWS, INTER, eps);
	pst_quant_rows(want, scale, y, INTER, ROWS, INTER);
	EXPECT_EQ(0, memcmp(want, q, N));
	ASSERT_EQ((CUresult)0, launch(function("swiglu_quant"), NULL, act));
	OK(cuMemcpyDtoH(q, pq, N));
	for (int r = 0; r < ROWS; r++)
		pst_ops_ref()->swiglu(y + r * INTER, x + r * 2 * INTER, x + (2 * r + 1) * INTER,
				      INTER);
	pst_quant_rows(want, scale, y, INTER, ROWS, INTER);
	EXPECT_EQ(0, memcmp(want, q, N));
}

TEST_MAIN
