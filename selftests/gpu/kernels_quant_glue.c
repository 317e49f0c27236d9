/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA kernels that make fp8 and read it, in the places that emulate_table.h names: against
 * kernels/quant.h, bit for bit where nothing but quantising happens.
 */
#include "kernels/bf16.h"
#include "kernels/op.h"
#include "kernels/quant.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/gpu/kernels_guard.h"

/* Where the tests run under the emulation, they choose whether the GPU knows e4m3. */
#pragma weak emulate_fp8

#define PAD 8

FIXTURE(cast)
{
	size_t rows, cols, ldx, blocks, row_blocks;
	int narrow;
	bool easy;
	float *x; /* side by side, as it is when it has been rounded to what the kernel gets */
	void *in; /* what the kernel gets: rows ldx apart */
	uint64_t rng;
	struct guards guards;
};

FIXTURE_VARIANT(cast)
{
	size_t rows, cols;
	int narrow;
	bool easy;   /* numbers of a kind, so that a tile has all codes */
	bool no_fp8; /* a target without instructions for e4m3, where that can be chosen */
};

FIXTURE_VARIANT_ADD(cast, smallest){.rows = 1, .cols = 16};
FIXTURE_VARIANT_ADD(cast, no_rows){.rows = 0, .cols = 48};
FIXTURE_VARIANT_ADD(cast, no_columns){.rows = 3, .cols = 0};
FIXTURE_VARIANT_ADD(cast, whole_blocks){.rows = 128, .cols = 256, .narrow = 1, .easy = true};
FIXTURE_VARIANT_ADD(cast, odd_blocks){.rows = 133, .cols = 272, .easy = true};
FIXTURE_VARIANT_ADD(cast, hard){.rows = 133, .cols = 272};
FIXTURE_VARIANT_ADD(cast, odd_blocks_bf16){.rows = 261, .cols = 144, .narrow = 1};
FIXTURE_VARIANT_ADD(cast, without_e4m3){.rows = 133, .cols = 272, .easy = true, .no_fp8 = true};
FIXTURE_VARIANT_ADD(cast, hard_without_e4m3){.rows = 133, .cols = 272, .no_fp8 = true};

/* Blocks of every size, and some with what is hard: zeros, next to nothing, no numbers. */
static float element(struct fixture_cast *self, size_t r, size_t c)
{
	float f = guard_normal(&self->rng);
	uint8_t code = (uint8_t)(c % 0x7e);

	/* half way between codes, where the scale is 1 */
	if (r % 19 == 12)
		return c % 128 ? (pst_fp8_to_f32(code) + pst_fp8_to_f32(code + 1)) / 2 : 448;
	if (self->easy)
		return f;
	f = ldexpf(f, (int)(r % 40) * 5 - 100);
	if (r % 19 == 3)
		return c % 2 ? -0.0f : 0;
	if (r % 19 == 7)
		return f * 0x1p-120f;
	if (r == 9 && c == 5)
		return NAN;
	if (r == 10 && c == 130)
		return -INFINITY;
	return f;
}

FIXTURE_SETUP(cast)
{
	size_t n = variant->rows * variant->cols;

	self->rng = 21;
	self->rows = variant->rows;
	self->cols = variant->cols;
	self->narrow = variant->narrow;
	self->easy = variant->easy;
	self->ldx = self->cols + PAD;
	self->blocks = pst_quant_blocks(self->cols);
	self->row_blocks = pst_quant_blocks(self->rows);
	if (variant->no_fp8 && emulate_fp8)
		emulate_fp8(0);
	self->x = malloc((n + 1) * sizeof(*self->x));
	self->in =
		guarded(&self->guards, self->rows ? (self->rows - 1) * self->ldx + self->cols : 0,
			self->narrow ? 2 : 4);
	for (size_t i = 0; i < n; i++) {
		size_t at = i / self->cols * self->ldx + i % self->cols;
		float f = element(self, i / self->cols, i % self->cols);

		if (self->narrow) {
			((uint16_t *)self->in)[at] = pst_bf16_from_f32(f);
			self->x[i] = pst_bf16_to_f32(((uint16_t *)self->in)[at]);
		} else {
			((float *)self->in)[at] = self->x[i] = f;
		}
	}
}

FIXTURE_TEARDOWN(cast)
{
	EXPECT_TRUE(guards_are_whole(&self->guards));
}

#define RUN(name, ...) ASSERT_EQ(0, emulate_kernel(PST_CUDA_##name, (void *[]){__VA_ARGS__}))

/* Bits are the same, but for those of NaN. */
static bool same(const float *a, const float *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(a + i, b + i, sizeof(*a)) && !(isnan(a[i]) && isnan(b[i])))
			return false;
	return true;
}

TEST_F(cast, rows_have_the_bits_of_plain_c)
{
	size_t n = self->rows * self->cols, scales = self->rows * self->blocks;
	uint8_t *q = guarded(&self->guards, n, 1), *want = malloc(n + 1);
	float *scale = guarded(&self->guards, scales, 4), *want_scale = malloc(scales * 4 + 1);

	RUN(quant_rows, &q, &scale, &self->in, &self->narrow, &self->ldx, &self->rows, &self->cols);
	pst_quant_rows(want, want_scale, self->x, self->cols, self->rows, self->cols);
	EXPECT_EQ(0, memcmp(q, want, n));
	EXPECT_TRUE(same(scale, want_scale, scales));
	free(want), free(want_scale);
}

/* @x[rows, cols] turned round. */
static float *transposed(const float *x, size_t rows, size_t cols)
{
	float *to = malloc((rows * cols + 1) * sizeof(*to));

	for (size_t i = 0; i < rows * cols; i++)
		to[i % cols * rows + i / cols] = x[i];
	return to;
}

/* Codes of @rows rows that lie @ld apart; what is behind is 0. */
static void expect_codes(const uint8_t *got, size_t ld, const uint8_t *want, size_t rows,
			 size_t cols)
{
	static const uint8_t none[16];

	for (size_t r = 0; r < rows; r++) {
		EXPECT_EQ(0, memcmp(got + r * ld, want + r * cols, cols));
		EXPECT_EQ(0, memcmp(got + r * ld + cols, none, ld - cols));
	}
}

TEST_F(cast, rows_and_columns_are_quantised_each_for_itself)
{
	size_t n = self->rows * self->cols, ldt = (self->rows + 15) / 16 * 16,
	       scales = self->rows * self->blocks, scales_t = self->cols * self->row_blocks;
	uint8_t *q = guarded(&self->guards, n, 1), *want = malloc(n + 1);
	uint8_t *qt = guarded(&self->guards, self->cols * ldt, 1);
	float *scale = guarded(&self->guards, scales, 4),
	      *scale_t = guarded(&self->guards, scales_t, 4),
	      *want_scale = malloc((scales + scales_t) * 4 + 1);
	float *xt = transposed(self->x, self->rows, self->cols);

	RUN(quant_both, &q, &scale, &qt, &scale_t, &ldt, &self->in, &self->narrow, &self->ldx,
	    &self->rows, &self->cols);
	pst_quant_rows(want, want_scale, self->x, self->cols, self->rows, self->cols);
	EXPECT_EQ(0, memcmp(q, want, n));
	EXPECT_TRUE(same(scale, want_scale, scales));
	pst_quant_rows(want, want_scale, xt, self->rows, self->cols, self->rows);
	EXPECT_TRUE(same(scale_t, want_scale, scales_t));
	expect_codes(qt, ldt, want, self->cols, self->rows);
	free(want), free(want_scale), free(xt);
}

TEST_F(cast, tiles_are_turned_round_as_they_are)
{
	size_t n = self->rows * self->cols, ldt = (self->rows + 15) / 16 * 16,
	       scales = self->row_blocks * self->blocks;
	uint8_t *q = guarded(&self->guards, n, 1), *want = malloc(n + 1), *none = NULL;
	uint8_t *qt = guarded(&self->guards, self->cols * ldt, 1);
	uint8_t *alone = guarded(&self->guards, n, 1);
	float *scale = guarded(&self->guards, scales, 4),
	      *scale_t = guarded(&self->guards, scales, 4), *want_scale = malloc(scales * 4 + 1),
	      *no_scale = NULL;

	RUN(quant_tiles, &q, &scale, &qt, &scale_t, &ldt, &self->in, &self->narrow, &self->ldx,
	    &self->rows, &self->cols);
	pst_quant_tiles(want, want_scale, self->x, self->cols, self->rows, self->cols);
	EXPECT_EQ(0, memcmp(q, want, n));
	EXPECT_TRUE(same(scale, want_scale, scales));
	for (size_t i = 0; i < scales; i++)
		EXPECT_TRUE(same(scale_t + i % self->blocks * self->row_blocks + i / self->blocks,
				 want_scale + i, 1));
	for (size_t c = 0; c < self->cols; c++)
		for (size_t r = 0; r < ldt; r++) {
			uint8_t code = r < self->rows ? want[r * self->cols + c] : 0;
			bool nan = r >= self->rows && (qt[c * ldt + r] & 0x7f) == PST_FP8_NAN;

			EXPECT_TRUE(qt[c * ldt + r] == code || nan);
		}
	RUN(quant_tiles, &alone, &scale, &none, &no_scale, &ldt, &self->in, &self->narrow,
	    &self->ldx, &self->rows, &self->cols);
	EXPECT_EQ(0, memcmp(alone, q, n));
	free(want), free(want_scale);
}

/* All codes, and back: to fp32, and to bf16. */
TEST_F(cast, codes_are_worth_what_plain_c_says)
{
	size_t n = self->rows * self->cols, scales = self->rows * self->blocks;
	uint8_t *q = guarded(&self->guards, n, 1);
	float *scale = guarded(&self->guards, scales, 4), *want = malloc((n + 1) * 4),
	      *y = guarded(&self->guards, n, 4);
	uint16_t *half = guarded(&self->guards, n, 2);
	int narrow = 0;

	for (size_t i = 0; i < n; i++)
		q[i] = (uint8_t)(i * 37 + i / 256);
	for (size_t i = 0; i < scales; i++)
		scale[i] = (float)(1 + i) / 3;
	pst_dequant_rows(want, self->cols, q, scale, self->rows, self->cols);
	RUN(dequant_rows, &y, &narrow, &q, &scale, &self->rows, &self->cols);
	EXPECT_TRUE(same(y, want, n));
	pst_dequant_tiles(want, self->cols, q, scale, self->rows, self->cols);
	RUN(dequant_tiles, &y, &narrow, &q, &scale, &self->rows, &self->cols);
	EXPECT_TRUE(same(y, want, n));
	narrow = 1;
	RUN(dequant_tiles, &half, &narrow, &q, &scale, &self->rows, &self->cols);
	for (size_t i = 0; i < n; i++)
		EXPECT_TRUE(isnan(want[i]) ? isnan(pst_bf16_to_f32(half[i]))
					   : half[i] == pst_bf16_from_f32(want[i]));
	free(want);
}

FIXTURE(fused)
{
	size_t rows, cols, blocks;
	uint64_t rng;
	struct guards guards;
};

FIXTURE_VARIANT(fused)
{
	size_t rows, cols;
	int narrow;
};

FIXTURE_VARIANT_ADD(fused, smallest){.rows = 1, .cols = 16};
FIXTURE_VARIANT_ADD(fused, no_rows){.rows = 0, .cols = 16};
FIXTURE_VARIANT_ADD(fused, fp32){.rows = 7, .cols = 400};
FIXTURE_VARIANT_ADD(fused, bf16){.rows = 5, .cols = 1168, .narrow = 1};

FIXTURE_SETUP(fused)
{
	self->rng = 5;
	self->rows = variant->rows;
	self->cols = variant->cols;
	self->blocks = pst_quant_blocks(self->cols);
}

FIXTURE_TEARDOWN(fused)
{
	EXPECT_TRUE(guards_are_whole(&self->guards));
}

/* @n numbers as a kernel gets them, and what they are worth. */
static void *random_input(struct fixture_fused *self, float *x, size_t n, int narrow)
{
	void *to = guarded(&self->guards, n, narrow ? 2 : 4);

	for (size_t i = 0; i < n; i++) {
		float f = guard_normal(&self->rng) * (1 + (float)(i / 128 % 5));

		if (narrow)
			((uint16_t *)to)[i] = pst_bf16_from_f32(f);
		else
			((float *)to)[i] = f;
		x[i] = narrow ? pst_bf16_to_f32(pst_bf16_from_f32(f)) : f;
	}
	return to;
}

/* The scale is that of @want, up to what fp32 leaves, and no code is farther than half a step. */
static void expect_rows(struct fixture_fused *self, const uint8_t *q, const float *scale,
			const float *want)
{
	size_t n = self->rows * self->cols;
	uint8_t *codes = malloc(n + 1);
	float *scales = malloc((self->rows * self->blocks + 1) * sizeof(*scales));

	pst_quant_rows(codes, scales, want, self->cols, self->rows, self->cols);
	for (size_t i = 0; i < self->rows * self->blocks; i++)
		EXPECT_TRUE(fabsf(scale[i] - scales[i]) < 1e-5f * scales[i]);
	for (size_t i = 0; i < n; i++) {
		float s = scales[i / self->cols * self->blocks + i % self->cols / 128];
		float half = fmaxf(fabsf(want[i]) / 16, s * 0x1p-10f);

		EXPECT_TRUE(fabsf(pst_fp8_to_f32(q[i]) * s - want[i]) < half * 1.001f);
	}
	free(codes), free(scales);
}

TEST_F(fused, rmsnorm_and_rows)
{
	size_t n = self->rows * self->cols;
	float *x = malloc((n + 1) * 4), *w = malloc(self->cols * 4), *y = malloc((n + 1) * 4),
	      *want_rstd = malloc((self->rows + 1) * 4), eps = 0.25f;
	void *in = random_input(self, x, n, variant->narrow),
	     *by = random_input(self, w, self->cols, 0);
	uint8_t *q = guarded(&self->guards, n, 1);
	float *scale = guarded(&self->guards, self->rows * self->blocks, 4),
	      *rstd = guarded(&self->guards, self->rows, 4);
	int narrow = variant->narrow;

	pst_ops_ref()->rmsnorm(y, self->cols, want_rstd, x, self->cols, w, self->rows, self->cols,
			       eps);
	RUN(rmsnorm_quant, &q, &scale, &rstd, &in, &narrow, &self->cols, &by, &self->rows,
	    &self->cols, &eps);
	for (size_t r = 0; r < self->rows; r++)
		EXPECT_TRUE(fabsf(rstd[r] - want_rstd[r]) < 1e-5f * want_rstd[r]);
	expect_rows(self, q, scale, y);
	free(x), free(w), free(y), free(want_rstd);
}

TEST_F(fused, swiglu_and_rows)
{
	size_t n = self->rows * self->cols;
	float *x = malloc((2 * n + 1) * 4), *a = malloc((n + 1) * 4);
	void *kept = random_input(self, x, 2 * n, variant->narrow);
	uint8_t *q = guarded(&self->guards, n, 1);
	float *scale = guarded(&self->guards, self->rows * self->blocks, 4);
	int narrow = variant->narrow;

	for (size_t r = 0; r < self->rows; r++)
		pst_ops_ref()->swiglu(a + r * self->cols, x + 2 * r * self->cols,
				      x + (2 * r + 1) * self->cols, self->cols);
	RUN(swiglu_quant, &q, &scale, &kept, &narrow, &self->rows, &self->cols);
	expect_rows(self, q, scale, a);
	free(x), free(a);
}
