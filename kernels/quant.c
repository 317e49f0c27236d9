/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/quant.h"
#include "kernels/bf16.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define BLOCK	   PST_QUANT_BLOCK
#define LEAST	   0x1p-126f /* of scales: what is divided by it stays finite */
#define INT4_MOST  7
#define TILE_ROWS  16
#define TILE_COLS  64
#define TILE_BYTES (TILE_ROWS * TILE_COLS / 2)

static uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

static float float_of(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

uint8_t pst_fp8_from_f32(float f)
{
	uint32_t u = bits_of(f), sign = u >> 24 & 0x80;

	u &= 0x7fffffff;
	if (u > 0x7f800000)
		return PST_FP8_NAN;
	if (u > bits_of(PST_FP8_MOST))
		u = bits_of(PST_FP8_MOST);
	/* below 2^-6 steps are of 2^-9: those that floats have at 2^14 */
	if (u < bits_of(0x1p-6f))
		u = bits_of(float_of(u) + 0x1p14f) - bits_of(0x1p14f);
	else
		u = ((u + 0x7ffff + (u >> 20 & 1)) >> 20) - (120 << 3);
	return (uint8_t)(sign | u);
}

float pst_fp8_to_f32(uint8_t e4m3)
{
	uint32_t u = e4m3 & 0x7f;
	float f;

	if (u == PST_FP8_NAN)
		return NAN;
	f = u < 8 ? (float)u * 0x1p-9f : float_of((u << 20) + (120u << 23));
	return e4m3 & 0x80 ? -f : f;
}

/* The largest magnitude, as bits, which are in its order; those of NaN are beyond infinity's. */
static uint32_t most_of(const float *x, size_t ldx, size_t rows, size_t cols)
{
	uint32_t most = 0;

	for (size_t r = 0; r < rows; r++) {
		for (size_t c = 0; c < cols; c++) {
			uint32_t u = bits_of(x[r * ldx + c]) & 0x7fffffff;

			most = u > most ? u : most;
		}
	}
	return most;
}

static float scale_of(uint32_t most, float end)
{
	float scale = float_of(most) / end;

	if (most >= 0x7f800000)
		return NAN;
	return scale < LEAST ? LEAST : scale;
}

static size_t left_of(size_t n, size_t at)
{
	return n - at < BLOCK ? n - at : BLOCK;
}

/* Blocks of @high rows: one row, or 128. */
static void quant(uint8_t *q, float *scale, const float *x, size_t ldx, size_t rows, size_t cols,
		  size_t high)
{
	size_t n;

	for (size_t r = 0; r < rows; r += n) {
		n = rows - r < high ? rows - r : high;
		for (size_t c = 0; c < cols; c += BLOCK) {
			size_t wide = left_of(cols, c);
			float s = scale_of(most_of(x + r * ldx + c, ldx, n, wide), PST_FP8_MOST);
			float inverse = 1 / s;

			*scale++ = s;
			for (size_t i = 0; i < n * wide; i++) {
				size_t row = r + i / wide, col = c + i % wide;

				q[row * cols + col] =
					pst_fp8_from_f32(x[row * ldx + col] * inverse);
			}
		}
	}
}

static void dequant(float *x, size_t ldx, const uint8_t *q, const float *scale, size_t rows,
		    size_t cols, size_t high)
{
	size_t blocks = pst_quant_blocks(cols);

	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			x[r * ldx + c] = pst_fp8_to_f32(q[r * cols + c]) *
					 scale[r / high * blocks + c / BLOCK];
}

void pst_quant_rows(uint8_t *q, float *scale, const float *x, size_t ldx, size_t rows, size_t cols)
{
	quant(q, scale, x, ldx, rows, cols, 1);
}

void pst_dequant_rows(float *x, size_t ldx, const uint8_t *q, const float *scale, size_t rows,
		      size_t cols)
{
	dequant(x, ldx, q, scale, rows, cols, 1);
}

void pst_quant_tiles(uint8_t *q, float *scale, const float *x, size_t ldx, size_t rows, size_t cols)
{
	quant(q, scale, x, ldx, rows, cols, BLOCK);
}

void pst_dequant_tiles(float *x, size_t ldx, const uint8_t *q, const float *scale, size_t rows,
		       size_t cols)
{
	dequant(x, ldx, q, scale, rows, cols, BLOCK);
}

size_t pst_quant_mark(float *scale, const uint8_t *q, size_t rows, size_t cols)
{
	size_t blocks = pst_quant_blocks(cols), n = 0;

	for (size_t r = 0; r < rows; r++) {
		for (size_t c = 0; c < cols; c++) {
			float *s = &scale[r / BLOCK * blocks + c / BLOCK];

			if ((q[r * cols + c] & 0x7f) != PST_FP8_NAN || isnan(*s))
				continue;
			*s = NAN;
			n++;
		}
	}
	return n;
}

static int8_t int4_of(float x)
{
	if (isnan(x))
		return 0;
	x = rintf(x);
	return (int8_t)(x > 7 ? 7 : x < -8 ? -8 : x);
}

void pst_quant_int4(int8_t *code, uint16_t *scale, const float *x, size_t ldx, size_t rows,
		    size_t cols)
{
	for (size_t c = 0; c < cols; c += BLOCK) {
		size_t wide = left_of(cols, c);

		for (size_t r = 0; r < rows; r++) {
			const float *from = x + r * ldx + c;
			float s = scale_of(most_of(from, ldx, 1, wide), INT4_MOST), inverse;

			*scale = pst_bf16_from_f32(s);
			inverse = 1 / pst_bf16_to_f32(*scale++);
			for (size_t i = 0; i < wide; i++)
				code[r * cols + c + i] = int4_of(from[i] * inverse);
		}
	}
}

void pst_dequant_int4(float *x, size_t ldx, const int8_t *code, const uint16_t *scale, size_t rows,
		      size_t cols)
{
	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			x[r * ldx + c] = (float)code[r * cols + c] *
					 pst_bf16_to_f32(scale[c / BLOCK * rows + r]);
}

size_t pst_int4_bytes(size_t rows, size_t cols)
{
	if (rows % TILE_ROWS)
		return 0;
	return rows / TILE_ROWS * pst_quant_blocks(cols) * (BLOCK / TILE_COLS) * TILE_BYTES;
}

/* Where an element is: its byte, and whether it is the byte's upper half. */
static size_t place_of(size_t row, size_t col, size_t cols, bool *upper)
{
	size_t tile =
		row / TILE_ROWS * pst_quant_blocks(cols) * (BLOCK / TILE_COLS) + col / TILE_COLS;
	size_t lane = row % 8 * 4 + col % 16 / 4, word = col % TILE_COLS / 16;
	size_t i = row % TILE_ROWS / 8 + col % 4 / 2 * 2, nibble = i + col % 2 * 4;

	*upper = nibble % 2;
	return tile * TILE_BYTES + lane * 16 + word * 4 + nibble / 2;
}

void pst_int4_pack(uint8_t *packed, const int8_t *code, size_t rows, size_t cols)
{
	memset(packed, 0x88, pst_int4_bytes(rows, cols));
	for (size_t r = 0; r < rows; r++) {
		for (size_t c = 0; c < cols; c++) {
			unsigned int nibble = (unsigned int)(code[r * cols + c] + 8);
			bool upper;
			uint8_t *at = packed + place_of(r, c, cols, &upper);

			*at = (uint8_t)(upper ? (*at & 0x0f) | nibble << 4 : (*at & 0xf0) | nibble);
		}
	}
}

void pst_int4_unpack(int8_t *code, const uint8_t *packed, size_t rows, size_t cols)
{
	for (size_t r = 0; r < rows; r++) {
		for (size_t c = 0; c < cols; c++) {
			bool upper;
			uint8_t byte = packed[place_of(r, c, cols, &upper)];

			code[r * cols + c] = (int8_t)((upper ? byte >> 4 : byte & 15) - 8);
		}
	}
}
