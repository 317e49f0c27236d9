/* SPDX-License-Identifier: Apache-2.0 */
/* The quantised formats: every code, every edge, and where a packed code lies. */
#include "kernels/bf16.h"
#include "kernels/quant.h"
#include "selftests/lib/test.h"

#include <math.h>

enum { ROWS = 144, COLS = 272, BLOCKS = 3 };

/* arXiv:2209.05433, table 1. */
static double worth(unsigned int code)
{
	int exponent = code >> 3 & 15, fraction = code & 7;
	double sign = code & 0x80 ? -1 : 1;

	if (exponent == 15 && fraction == 7)
		return NAN;
	return sign * (exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9));
}

TEST(fp8_codes_are_worth_what_the_format_says)
{
	for (unsigned int code = 0; code < 256; code++) {
		float f = pst_fp8_to_f32((uint8_t)code);

		if ((code & 0x7f) == PST_FP8_NAN) {
			EXPECT_TRUE(isnan(f));
			continue;
		}
		EXPECT_TRUE((double)f == worth(code) && !signbit(f) == !(code & 0x80));
		EXPECT_EQ(code, pst_fp8_from_f32(f));
	}
}

/* Half way between two codes goes to the even one, anything beside it to the nearer. */
TEST(fp8_rounds_to_the_nearest)
{
	for (unsigned int code = 0; code < 0x7e; code++) {
		float half = (float)((worth(code) + worth(code + 1)) / 2);
		unsigned int even = code & 1 ? code + 1 : code;

		EXPECT_EQ(even, pst_fp8_from_f32(half));
		EXPECT_EQ(even | 0x80, pst_fp8_from_f32(-half));
		EXPECT_EQ(code, pst_fp8_from_f32(nextafterf(half, 0)));
		EXPECT_EQ(code + 1, pst_fp8_from_f32(nextafterf(half, 500)));
	}
}

TEST(fp8_ends_at_448)
{
	EXPECT_EQ(0x7e, pst_fp8_from_f32(448));
	EXPECT_EQ(0x7e, pst_fp8_from_f32(465));
	EXPECT_EQ(0xfe, pst_fp8_from_f32(-1e38f));
	EXPECT_EQ(0x7e, pst_fp8_from_f32(INFINITY));
	EXPECT_EQ(0xfe, pst_fp8_from_f32(-INFINITY));
	EXPECT_EQ(PST_FP8_NAN, pst_fp8_from_f32(NAN));
	EXPECT_EQ(PST_FP8_NAN, pst_fp8_from_f32(-NAN));
	EXPECT_EQ(0, pst_fp8_from_f32(1e-40f));
	EXPECT_EQ(0x80, pst_fp8_from_f32(-1e-40f));
}

FIXTURE(quant)
{
	float x[ROWS * COLS], back[ROWS * COLS];
	uint8_t q[ROWS * COLS];
	float scale[ROWS * BLOCKS];
	uint16_t scale4[ROWS * BLOCKS];
	int8_t code[ROWS * COLS];
	uint8_t packed[ROWS * BLOCKS * 64];
};

FIXTURE_SETUP(quant)
{
	uint64_t rng = 3;

	for (int i = 0; i < ROWS * COLS; i++)
		self->x[i] = ((float)(test_random(&rng) >> 40) / (float)(1 << 23) - 1) *
			     (float)(1 + i / COLS) * (i % COLS < 128 ? 1 : 1000);
	memset(self->scale, 0xff, sizeof(self->scale));
}

FIXTURE_TEARDOWN(quant)
{
}

static float most(const float *x, size_t rows, size_t cols)
{
	float m = 0;

	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			m = fmaxf(m, fabsf(x[r * COLS + c]));
	return m;
}

/* What is lost of an element: half a step at most, of 2^-3 of it or of what the smallest have. */
static bool close_to(float got, float want, float scale)
{
	float step = fmaxf(fabsf(want) / 16, scale * 0x1p-10f);

	return fabsf(got - want) <= step * 1.0001f;
}

TEST_F(quant, rows_have_a_scale_for_128)
{
	pst_quant_rows(self->q, self->scale, self->x, COLS, ROWS, COLS);
	pst_dequant_rows(self->back, COLS, self->q, self->scale, ROWS, COLS);
	for (size_t r = 0; r < ROWS; r++) {
		for (size_t b = 0; b < BLOCKS; b++) {
			size_t wide = b < 2 ? 128 : COLS - 256;
			const float *x = self->x + r * COLS + b * 128;

			EXPECT_TRUE(self->scale[r * BLOCKS + b] == most(x, 1, wide) / 448);
		}
		for (size_t c = 0; c < COLS; c++)
			EXPECT_TRUE(close_to(self->back[r * COLS + c], self->x[r * COLS + c],
					     self->scale[r * BLOCKS + c / 128]));
	}
}

TEST_F(quant, tiles_have_a_scale_for_128_by_128)
{
	pst_quant_tiles(self->q, self->scale, self->x, COLS, ROWS, COLS);
	pst_dequant_tiles(self->back, COLS, self->q, self->scale, ROWS, COLS);
	for (size_t a = 0; a < 2; a++)
		for (size_t b = 0; b < BLOCKS; b++) {
			size_t high = a < 1 ? 128 : ROWS - 128, wide = b < 2 ? 128 : COLS - 256;
			const float *x = self->x + a * 128 * COLS + b * 128;

			EXPECT_TRUE(self->scale[a * BLOCKS + b] == most(x, high, wide) / 448);
		}
	EXPECT_TRUE(isnan(self->scale[2 * BLOCKS]));
	for (size_t i = 0; i < ROWS * COLS; i++)
		EXPECT_TRUE(close_to(self->back[i], self->x[i],
				     self->scale[i / COLS / 128 * BLOCKS + i % COLS / 128]));
}

/* Zeros stay zeros, and the smallest numbers that there are do no harm. */
TEST_F(quant, blocks_of_next_to_nothing)
{
	for (size_t c = 0; c < 128; c++) {
		self->x[c] = c % 2 ? -0.0f : 0;
		self->x[COLS + c] = c % 2 ? 1e-45f : -1e-44f;
	}
	pst_quant_rows(self->q, self->scale, self->x, COLS, 2, COLS);
	pst_quant_int4(self->code, self->scale4, self->x, COLS, 2, COLS);
	EXPECT_TRUE(self->scale[0] == 0x1p-126f && self->scale[BLOCKS] == 0x1p-126f);
	EXPECT_TRUE(pst_bf16_to_f32(self->scale4[0]) == 0x1p-126f);
	for (size_t c = 0; c < 128; c++) {
		EXPECT_EQ(c % 2 ? 0x80 : 0, self->q[c]);
		EXPECT_EQ(0, self->code[c]);
		EXPECT_TRUE(isfinite(pst_fp8_to_f32(self->q[COLS + c])));
	}
}

/* The whole block is NaN, and no other. */
static void expect_lost(struct fixture_quant *self, bool (*lost)(size_t r, size_t c))
{
	for (size_t r = 0; r < ROWS; r++)
		for (size_t c = 0; c < COLS; c++)
			EXPECT_EQ(lost(r, c), isnan(self->back[r * COLS + c]) != 0);
}

static bool in_rows(size_t r, size_t c)
{
	return (r == 3 && c / 128 == 1) || (r == 130 && c / 128 == 2);
}

static bool in_tiles(size_t r, size_t c)
{
	return (r / 128 == 0 && c / 128 == 1) || (r / 128 == 1 && c / 128 == 2);
}

TEST_F(quant, a_block_with_no_number_is_none)
{
	self->x[3 * COLS + 200] = NAN;
	self->x[130 * COLS + 270] = -INFINITY;
	pst_quant_rows(self->q, self->scale, self->x, COLS, ROWS, COLS);
	pst_dequant_rows(self->back, COLS, self->q, self->scale, ROWS, COLS);
	expect_lost(self, in_rows);
	EXPECT_EQ(PST_FP8_NAN, self->q[3 * COLS + 128]);
	EXPECT_EQ(PST_FP8_NAN, self->q[130 * COLS + 256]);
	EXPECT_TRUE(isnan(self->scale[130 * BLOCKS + 2]));
	pst_quant_tiles(self->q, self->scale, self->x, COLS, ROWS, COLS);
	pst_dequant_tiles(self->back, COLS, self->q, self->scale, ROWS, COLS);
	expect_lost(self, in_tiles);
	pst_quant_int4(self->code, self->scale4, self->x, COLS, ROWS, COLS);
	pst_dequant_int4(self->back, COLS, self->code, self->scale4, ROWS, COLS);
	expect_lost(self, in_rows);
	EXPECT_EQ(0, self->code[3 * COLS + 128]);
}

TEST_F(quant, codes_from_elsewhere_are_marked)
{
	pst_quant_tiles(self->q, self->scale, self->x, COLS, ROWS, COLS);
	EXPECT_EQ((size_t)0, pst_quant_mark(self->scale, self->q, ROWS, COLS));
	self->q[5 * COLS + 140] = 0xff;
	self->q[5 * COLS + 141] = 0xff;
	self->q[143 * COLS + 271] = 0x7f;
	EXPECT_EQ((size_t)2, pst_quant_mark(self->scale, self->q, ROWS, COLS));
	pst_dequant_tiles(self->back, COLS, self->q, self->scale, ROWS, COLS);
	expect_lost(self, in_tiles);
}

TEST_F(quant, int4_loses_half_a_step)
{
	pst_quant_int4(self->code, self->scale4, self->x, COLS, ROWS, COLS);
	pst_dequant_int4(self->back, COLS, self->code, self->scale4, ROWS, COLS);
	for (size_t r = 0; r < ROWS; r++) {
		for (size_t c = 0; c < COLS; c++) {
			float s = pst_bf16_to_f32(self->scale4[c / 128 * ROWS + r]);
			size_t wide = c < 256 ? 128 : COLS - 256;
			float m = most(self->x + r * COLS + c / 128 * 128, 1, wide);

			EXPECT_TRUE(fabsf(s - m / 7) <= m / 7 * 0x1p-8f);
			EXPECT_TRUE(fabsf(self->back[r * COLS + c] - self->x[r * COLS + c]) <=
				    s * 0.5001f);
		}
	}
}

TEST_F(quant, int4_comes_back_from_its_package)
{
	int8_t *back = malloc(ROWS * COLS);
	uint64_t rng = 4;

	for (size_t i = 0; i < ROWS * COLS; i++)
		self->code[i] = (int8_t)((int)(test_random(&rng) >> 60) - 8);
	ASSERT_EQ(sizeof(self->packed), pst_int4_bytes(ROWS, COLS));
	EXPECT_EQ((size_t)0, pst_int4_bytes(ROWS + 8, COLS));
	memset(self->packed, 0x5a, sizeof(self->packed));
	pst_int4_pack(self->packed, self->code, ROWS, COLS);
	pst_int4_unpack(back, self->packed, ROWS, COLS);
	EXPECT_EQ(0, memcmp(back, self->code, ROWS * COLS));
	free(back);
}

/* Lane @l, word @j, and in it operand @i of an mma, lower or upper half: as quant.h says. */
TEST_F(quant, int4_lies_as_an_mma_wants_it)
{
	uint64_t rng = 5;
	size_t at = 0;

	for (size_t i = 0; i < ROWS * COLS; i++)
		self->code[i] = (int8_t)((int)(test_random(&rng) >> 60) - 8);
	pst_int4_pack(self->packed, self->code, ROWS, COLS);
	for (size_t strip = 0; strip < ROWS; strip += 16)
		for (size_t from = 0; from < BLOCKS * 128; from += 64)
			for (size_t l = 0; l < 32; l++)
				for (size_t j = 0; j < 4; j++, at += 4) {
					uint32_t word;

					memcpy(&word, self->packed + at, sizeof(word));
					for (size_t i = 0; i < 8; i++) {
						size_t r = strip + l / 4 + i % 2 * 8;
						size_t c = from + 16 * j + l % 4 * 4 +
							   i % 4 / 2 * 2 + i / 4;
						int code = (int)(word >> 4 * i & 15) - 8;

						EXPECT_EQ(c < COLS ? self->code[r * COLS + c] : 0,
							  code);
					}
				}
	EXPECT_EQ(sizeof(self->packed), at);
}

TEST_MAIN
