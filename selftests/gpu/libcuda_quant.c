/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of kernels/cuda/cuda.h on quantised numbers do: all is made plain fp32 by
 * kernels/quant.h, and then is one sum after the other.
 */
#include "selftests/gpu/libcuda_quant.h"

#include "kernels/bf16.h"
#include "kernels/op.h"
#include "kernels/quant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define P(i) (p[i])
#define Z(i) ((size_t)v[i])

enum kind { W8, W4, W8A8 };

/* Entry @e of a list of addresses, as memory here. */
static void *entry(const void *list, size_t e)
{
	void *at;

	pthread_mutex_lock(&cuda.lock);
	at = cuda_at(((const CUdeviceptr *)list)[e], 1);
	pthread_mutex_unlock(&cuda.lock);
	return at;
}

static float *plain(size_t n)
{
	float *to = calloc(n + 1, sizeof(*to));

	if (!to)
		abort();
	return to;
}

/* Entry @e of weights [rows, cols], in fp32. */
static float *weight(enum kind kind, const void *codes, const void *scales, size_t e, size_t rows,
		     size_t cols)
{
	const void *code = entry(codes, e), *scale = entry(scales, e);
	float *to = plain(rows * cols);
	int8_t *unpacked;

	if (kind != W4) {
		pst_dequant_tiles(to, cols, code, scale, rows, cols);
		return to;
	}
	unpacked = malloc(rows * cols + 1);
	if (!unpacked)
		abort();
	pst_int4_unpack(unpacked, code, rows, cols);
	pst_dequant_int4(to, cols, unpacked, scale, rows, cols);
	free(unpacked);
	return to;
}

/* Row @r of activations, in fp32. */
static void activation(enum kind kind, float *to, const void *x, const float *scale, size_t ldx,
		       size_t r, size_t cols)
{
	if (kind == W8A8) {
		pst_dequant_rows(to, cols, (const uint8_t *)x + r * ldx,
				 scale + r * pst_quant_blocks(cols), 1, cols);
		return;
	}
	for (size_t c = 0; c < cols; c++)
		to[c] = pst_bf16_to_f32(((const uint16_t *)x)[r * ldx + c]);
}

static float dot(const float *a, const float *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return (float)sum;
}

static void up_row(uint16_t *a, uint16_t *kept, const float *x, const float *gate, const float *up,
		   size_t hidden, size_t inter)
{
	for (size_t i = 0; i < inter; i++) {
		float g = dot(x, gate + i * hidden, hidden), u = dot(x, up + i * hidden, hidden);

		if (a)
			a[i] = pst_bf16_from_f32(g / (1 + expf(-g)) * u);
		if (!kept)
			continue;
		kept[i] = pst_bf16_from_f32(g);
		kept[inter + i] = pst_bf16_from_f32(u);
	}
}

/* @p and @v begin with ldx, which all kinds have from there on. */
static void up(enum kind kind, void *const *out, const void *from, const float *scale,
	       void *const *p, const uint64_t *v)
{
	const int32_t *idx = P(1), *off = P(6);
	uint16_t *a = out[0], *kept = out[1];
	size_t ldx = Z(0), n = Z(7), hidden = Z(9), inter = Z(10);
	float *x = plain(hidden);

	for (size_t e = 0; e < n; e++) {
		float *gate = weight(kind, P(2), P(3), e, inter, hidden);
		float *second = weight(kind, P(4), P(5), e, inter, hidden);

		for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++) {
			activation(kind, x, from, scale, ldx, idx ? (size_t)idx[r] : r, hidden);
			up_row(a ? a + r * inter : NULL, kept ? kept + r * 2 * inter : NULL, x,
			       gate, second, hidden, inter);
		}
		free(gate), free(second);
	}
	free(x);
}

void cuda_experts_up_w8(void *const *p, const uint64_t *v)
{
	up(W8, p, P(2), NULL, p + 3, v + 3);
}

void cuda_experts_up_w4(void *const *p, const uint64_t *v)
{
	up(W4, p, P(2), NULL, p + 3, v + 3);
}

void cuda_experts_up_w8a8(void *const *p, const uint64_t *v)
{
	up(W8A8, p, P(2), P(3), p + 4, v + 4);
}

static void put(void *y, size_t i, float value, bool narrow)
{
	if (narrow)
		((uint16_t *)y)[i] = pst_bf16_from_f32(value);
	else
		((float *)y)[i] = value;
}

/* @p and @v begin with the weights, which all kinds have from there on. */
static void down(enum kind kind, void *y, bool narrow, const void *a, const float *a_scale,
		 void *const *p, const uint64_t *v)
{
	const int32_t *off = P(2);
	size_t n = Z(3), hidden = Z(5), inter = Z(6);
	float *x = plain(inter);

	for (size_t e = 0; e < n; e++) {
		float *w = weight(kind, P(0), P(1), e, hidden, inter);

		for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++) {
			activation(kind, x, a, a_scale, inter, r, inter);
			for (size_t h = 0; h < hidden; h++)
				put(y, r * hidden + h, dot(x, w + h * inter, inter), narrow);
		}
		free(w);
	}
	free(x);
}

void cuda_experts_down_w8(void *const *p, const uint64_t *v)
{
	down(W8, P(0), (int)v[1], P(2), NULL, p + 3, v + 3);
}

void cuda_experts_down_w4(void *const *p, const uint64_t *v)
{
	down(W4, P(0), (int)v[1], P(2), NULL, p + 3, v + 3);
}

void cuda_experts_down_w8a8(void *const *p, const uint64_t *v)
{
	down(W8A8, P(0), (int)v[1], P(2), P(3), p + 4, v + 4);
}

/* Of numbers that are bf16 or fp32, in rows @ld apart. */
static float *wide(const void *x, bool narrow, size_t ld, size_t rows, size_t cols)
{
	float *to = plain(rows * cols);

	for (size_t i = 0; i < rows * cols; i++) {
		size_t at = i / cols * ld + i % cols;

		to[i] = narrow ? pst_bf16_to_f32(((const uint16_t *)x)[at])
			       : ((const float *)x)[at];
	}
	return to;
}

static void narrow_down(void *y, bool narrow, float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put(y, i, x[i], narrow);
	free(x);
}

void cuda_dequant_rows(void *const *p, const uint64_t *v)
{
	float *x = plain(Z(4) * Z(5));

	pst_dequant_rows(x, Z(5), P(2), P(3), Z(4), Z(5));
	narrow_down(P(0), (int)v[1], x, Z(4) * Z(5));
}

void cuda_dequant_tiles(void *const *p, const uint64_t *v)
{
	float *x = plain(Z(4) * Z(5));

	pst_dequant_tiles(x, Z(5), P(2), P(3), Z(4), Z(5));
	narrow_down(P(0), (int)v[1], x, Z(4) * Z(5));
}

void cuda_quant_rows(void *const *p, const uint64_t *v)
{
	float *x = wide(P(2), (int)v[3], Z(4), Z(5), Z(6));

	pst_quant_rows(P(0), P(1), x, Z(6), Z(5), Z(6));
	free(x);
}

void cuda_swiglu_quant(void *const *p, const uint64_t *v)
{
	size_t rows = Z(4), cols = Z(5);
	float *x = wide(P(2), (int)v[3], 2 * cols, rows, 2 * cols), *a = plain(rows * cols);

	for (size_t r = 0; r < rows; r++)
		pst_ops_ref()->swiglu(a + r * cols, x + 2 * r * cols, x + (2 * r + 1) * cols, cols);
	pst_quant_rows(P(0), P(1), a, cols, rows, cols);
	free(x), free(a);
}

void cuda_rmsnorm_quant(void *const *p, const uint64_t *v)
{
	size_t rows = Z(7), cols = Z(8);
	float *x = wide(P(3), (int)v[4], Z(5), rows, cols), eps;
	uint32_t bits = (uint32_t)v[9];

	memcpy(&eps, &bits, sizeof(eps));
	pst_ops_ref()->rmsnorm(x, cols, P(2), x, cols, P(6), rows, cols, eps);
	pst_quant_rows(P(0), P(1), x, cols, rows, cols);
	free(x);
}

/* Rows of @qt are @ldt apart; what is behind them is 0. */
static void spread(uint8_t *qt, size_t ldt, const uint8_t *codes, size_t rows, size_t cols)
{
	memset(qt, 0, rows * ldt);
	for (size_t r = 0; r < rows; r++)
		memcpy(qt + r * ldt, codes + r * cols, cols);
}

/* x, transposed, by @quant. */
static void turned(uint8_t *qt, float *scale, size_t ldt, const float *x, size_t rows, size_t cols,
		   void (*quant)(uint8_t *q, float *scale, const float *x, size_t ldx, size_t rows,
				 size_t cols))
{
	uint8_t *codes = malloc(rows * cols + 1);
	float *xt = plain(rows * cols);

	if (!codes)
		abort();
	for (size_t i = 0; i < rows * cols; i++)
		xt[i % cols * rows + i / cols] = x[i];
	quant(codes, scale, xt, rows, cols, rows);
	spread(qt, ldt, codes, cols, rows);
	free(codes), free(xt);
}

void cuda_quant_both(void *const *p, const uint64_t *v)
{
	size_t rows = Z(8), cols = Z(9);
	float *x = wide(P(5), (int)v[6], Z(7), rows, cols);

	pst_quant_rows(P(0), P(1), x, cols, rows, cols);
	turned(P(2), P(3), Z(4), x, rows, cols, pst_quant_rows);
	free(x);
}

void cuda_quant_tiles(void *const *p, const uint64_t *v)
{
	size_t rows = Z(8), cols = Z(9);
	float *x = wide(P(5), (int)v[6], Z(7), rows, cols);

	pst_quant_tiles(P(0), P(1), x, cols, rows, cols);
	if (P(2))
		turned(P(2), P(3), Z(4), x, rows, cols, pst_quant_tiles);
	free(x);
}
