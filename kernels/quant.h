/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.h - the quantised formats, and plain C that makes them and reads them.
 *
 * The model
 *   A matrix is [rows, cols], row-major, and cols is what a product sums over. It becomes codes of
 *   8 or 4 bits, and scales, one for a block of codes; an element is worth code * scale. A block
 *   at the right or lower edge has fewer elements and is a block like the others.
 *
 *   fp8 rows   codes e4m3 [rows, cols]; a scale per 1 x 128: fp32 [rows, blocks of cols]. For
 *              activations: a row has its scales with it, so rows can be gathered and sent.
 *   fp8 tiles  codes e4m3 [rows, cols]; a scale per 128 x 128: fp32 [blocks of rows, blocks of
 *              cols]. For weights, as DeepSeek-V3 publishes them (weight_scale_inv). Both are
 *              those of arXiv:2412.19437, section 3.3.2.
 *   int4       codes -8 .. 7, symmetric; a scale per row and 128 of cols: bf16
 *              [blocks of cols, rows], so that a block of the kernel finds its rows' side by side.
 *              Codes are packed (below). rows is a multiple of 16.
 *
 * Scales: the largest magnitude of the block over what the format ends at (448; 7), at least
 * 2^-126; of int4 rounded to bf16 then. A code is x * (1 / scale), in fp32, to the nearest, ties
 * to even, saturated. So zeros are zeros, of any sign in fp8; and a block with a NaN or an
 * infinity has the scale NaN, whose codes are NaN in fp8 and 0 in int4: all of it reads as NaN.
 * The kernels of kernels/cuda make fp8 with the same bits.
 *
 * e4m3: sign, 4 bits of exponent (bias 7), 3 of fraction; no infinity, 0x7f and 0xff are NaN, 448
 * is the largest (arXiv:2209.05433). Kernels that read codes of weights by integer arithmetic see
 * 480 in place of NaN: a block that has such a code must have the scale NaN, which all here write
 * and pst_quant_mark() sees to for codes from elsewhere.
 *
 * Packed int4: tiles of 16 rows by 64 columns, those of the same rows side by side and as many as
 * make whole blocks of 128 columns; columns beyond the matrix have the code 0. A tile is 32 pieces
 * of 16 bytes, piece l for lane l of a warp, 4 words of 32 bits: word j has, of columns
 * 16 j + 4 (l % 4) + 0..3 and of rows l / 4 and l / 4 + 8, what the lane gives to an mma m16n8k16
 * as a[0..3]; the activations' lanes take the same four columns, in place of the 2 + 2 that the
 * instruction's picture has. Bits 4 i .. 4 i + 3 are the lower half of a[i], bits 16 + 4 i .. the
 * upper: i % 2 chooses the row, i / 2 columns 0, 1 or 2, 3. A nibble is the code + 8. Words are
 * little-endian.
 *
 * Threads: all are pure functions. Outputs do not overlap inputs. Rows of tiles, and of rows of
 * blocks, do not know of each other, so a caller may split a matrix there.
 */
#ifndef PST_QUANT_H
#define PST_QUANT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PST_QUANT_BLOCK 128
#define PST_FP8_MOST	448.0f /* e4m3's largest */
#define PST_FP8_NAN	0x7f

/* Blocks that @n elements have. */
static inline size_t pst_quant_blocks(size_t n)
{
	return n / PST_QUANT_BLOCK + (n % PST_QUANT_BLOCK != 0);
}

/* Nearest, ties to even; beyond 448, infinity too, is 448; a NaN is PST_FP8_NAN. */
uint8_t pst_fp8_from_f32(float f);
float pst_fp8_to_f32(uint8_t e4m3);

/* x[rows, cols], rows @ldx apart, to q[rows, cols], scale[rows, blocks of cols]; and back. */
void pst_quant_rows(uint8_t *q, float *scale, const float *x, size_t ldx, size_t rows, size_t cols);
void pst_dequant_rows(float *x, size_t ldx, const uint8_t *q, const float *scale, size_t rows,
		      size_t cols);

/* The same of tiles: scale[blocks of rows, blocks of cols]. */
void pst_quant_tiles(uint8_t *q, float *scale, const float *x, size_t ldx, size_t rows,
		     size_t cols);
void pst_dequant_tiles(float *x, size_t ldx, const uint8_t *q, const float *scale, size_t rows,
		       size_t cols);

/* Scales of tiles of which a code is NaN become NaN; returns how many these are. */
size_t pst_quant_mark(float *scale, const uint8_t *q, size_t rows, size_t cols);

/* x to code[rows, cols], scale[blocks of cols, rows] in bf16; and back. */
void pst_quant_int4(int8_t *code, uint16_t *scale, const float *x, size_t ldx, size_t rows,
		    size_t cols);
void pst_dequant_int4(float *x, size_t ldx, const int8_t *code, const uint16_t *scale, size_t rows,
		      size_t cols);

/* What packed codes take: about rows * cols / 2; 0 if @rows is no multiple of 16. */
size_t pst_int4_bytes(size_t rows, size_t cols);

/* Codes to pst_int4_bytes() bytes, and back. @rows is a multiple of 16, codes are -8 .. 7. */
void pst_int4_pack(uint8_t *packed, const int8_t *code, size_t rows, size_t cols);
void pst_int4_unpack(int8_t *code, const uint8_t *packed, size_t rows, size_t cols);

#ifdef __cplusplus
}
#endif

#endif /* PST_QUANT_H */
