/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_experts.c - experts in bf16, and on weights of 8 and 4 bits. */
#include "selftests/bench/gpu_rows.h"
#include "kernels/quant.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Matrices one behind the other, and the list of where they are. */
static CUdeviceptr list_of(struct bench *b, CUdeviceptr first, size_t n, size_t bytes)
{
	uint64_t at[BENCH_EXPERTS];

	for (size_t i = 0; i < n; i++)
		at[i] = first + i * bytes;
	return bench_upload(b, at, n * sizeof(*at));
}

static CUdeviceptr offsets(struct bench *b, const struct bench_work *w)
{
	int32_t off[BENCH_EXPERTS + 1] = {0};

	for (size_t i = 0; i < w->n; i++)
		off[i + 1] = off[i] + w->group[i];
	return bench_upload(b, off, (w->n + 1) * sizeof(*off));
}

/* Rows of activations and weights pass once, and so do results. */
static double bytes_of(const struct bench_work *w, double in, double out, double matrices)
{
	double used = 0;

	for (size_t i = 0; i < w->n; i++)
		used += w->group[i] > 0;
	return (double)w->rows * (in + out) +
	       used * matrices * (double)w->hidden * (double)w->inter * 2;
}

static double flops_of(const struct bench_work *w, double products)
{
	return 2.0 * products * (double)w->rows * (double)w->hidden * (double)w->inter;
}

static void finish(struct bench *b, struct bench_work *w)
{
	bench_arg(w, offsets(b, w));
	bench_arg(w, w->n);
	bench_arg(w, w->rows);
	bench_arg(w, w->hidden);
	bench_arg(w, w->inter);
}

void bench_up(struct bench *b, struct bench_work *w)
{
	size_t matrix = w->hidden * w->inter;

	w->form = UP;
	w->bytes = bytes_of(w, 2.0 * (double)w->hidden, 2.0 * (double)w->inter, 2);
	w->flops = flops_of(w, 2);
	w->a = bench_halves(b, w->rows * w->hidden);
	w->b = bench_halves(b, 2 * w->n * matrix);
	w->c = bench_take(b, 2 * w->rows * w->inter * 2);
	w->result = bench_result(b, w->rows * w->inter * 2);
	bench_arg(w, w->result);
	bench_arg(w, 0);
	bench_arg(w, w->a);
	bench_arg(w, w->hidden);
	bench_arg(w, bench_indices(b, w->rows, w->rows));
	bench_arg(w, list_of(b, w->b, w->n, matrix * 2));
	bench_arg(w, list_of(b, w->b + w->n * matrix * 2, w->n, matrix * 2));
	finish(b, w);
}

void bench_down(struct bench *b, struct bench_work *w)
{
	size_t matrix = w->hidden * w->inter;

	w->form = DOWN;
	w->bytes = bytes_of(w, 2.0 * (double)w->inter, 2.0 * (double)w->hidden, 1);
	w->flops = flops_of(w, 1);
	w->a = bench_halves(b, w->rows * w->inter);
	w->b = bench_halves(b, w->n * matrix);
	w->c = bench_take(b, w->rows * w->hidden * 2);
	w->result = bench_result(b, w->rows * w->hidden * 2);
	bench_arg(w, w->result);
	bench_arg(w, 1);
	bench_arg(w, w->a);
	bench_arg(w, list_of(b, w->b, w->n, matrix * 2));
	finish(b, w);
}

void bench_da(struct bench *b, struct bench_work *w)
{
	size_t matrix = w->hidden * w->inter;

	w->form = DA;
	w->bytes = bytes_of(w, 2.0 * (double)w->hidden + 4.0 * (double)w->inter,
			    6.0 * (double)w->inter, 1);
	w->flops = flops_of(w, 1);
	w->a = bench_halves(b, w->rows * w->hidden);
	w->b = bench_halves(b, w->n * matrix);
	w->c = bench_take(b, w->rows * w->inter * 2);
	w->result = bench_result(b, w->rows * w->inter * 2);
	bench_arg(w, w->result);
	bench_arg(w, bench_take(b, w->rows * w->inter * 2));
	bench_arg(w, bench_take(b, w->rows * w->inter * 2));
	bench_arg(w, w->a);
	bench_arg(w, bench_halves(b, 2 * w->rows * w->inter));
	bench_arg(w, list_of(b, w->b, w->n, matrix * 2));
	finish(b, w);
}

void bench_dx(struct bench *b, struct bench_work *w)
{
	size_t matrix = w->hidden * w->inter;

	w->form = DX;
	w->bytes = bytes_of(w, 4.0 * (double)w->inter, 2.0 * (double)w->hidden, 2);
	w->flops = flops_of(w, 2);
	w->a = bench_halves(b, w->rows * w->inter);
	w->b = bench_halves(b, 2 * w->n * matrix);
	w->c = bench_take(b, w->rows * w->hidden * 2);
	w->result = bench_result(b, w->rows * w->hidden * 2);
	bench_arg(w, w->result);
	bench_arg(w, 1);
	bench_arg(w, w->a);
	bench_arg(w, bench_halves(b, w->rows * w->inter));
	bench_arg(w, list_of(b, w->b, w->n, matrix * 2));
	bench_arg(w, list_of(b, w->b + w->n * matrix * 2, w->n, matrix * 2));
	finish(b, w);
}

void bench_dw(struct bench *b, struct bench_work *w)
{
	size_t matrix = w->hidden * w->inter;

	w->form = DW;
	w->bytes = bytes_of(w, 2.0 * (double)w->inter, 2.0 * (double)w->hidden, 2);
	w->flops = flops_of(w, 1);
	w->a = bench_halves(b, w->rows * w->inter);
	w->b = bench_halves(b, w->rows * w->hidden);
	w->result = bench_result(b, w->n * matrix * 4);
	w->c = bench_take(b, w->n * matrix * 4);
	bench_arg(w, list_of(b, w->result, w->n, matrix * 4));
	bench_arg(w, w->a);
	bench_arg(w, w->b);
	bench_arg(w, w->hidden);
	bench_arg(w, 0);
	bench_arg(w, offsets(b, w));
	bench_arg(w, w->n);
	bench_arg(w, w->inter);
	bench_arg(w, w->hidden);
	bench_arg(w, 0);
}

/* Quantised weights: codes of any bits, and scales of any size; it takes as long. */

/* The lists of @matrices weights [rows, cols] of each expert and of their scales, as arguments. */
static void quantised(struct bench *b, struct bench_work *w, int matrices, size_t rows, size_t cols,
		      bool four)
{
	size_t blocks = pst_quant_blocks(cols), each = rows * cols, scales;

	if (four) {
		each = (rows + 15) / 16 * 16 * blocks * PST_QUANT_BLOCK / 2;
		scales = blocks * rows * sizeof(uint16_t);
	} else {
		scales = pst_quant_blocks(rows) * blocks * sizeof(float);
	}
	scales = (scales + 15) / 16 * 16;
	for (int i = 0; i < matrices; i++) {
		CUdeviceptr codes = bench_quarters(b, w->n * each);
		CUdeviceptr scale = four ? bench_halves(b, w->n * scales / 2)
					 : bench_floats(b, w->n * scales / 4);

		bench_arg(w, list_of(b, codes, w->n, each));
		bench_arg(w, list_of(b, scale, w->n, scales));
	}
	w->bytes += (double)(matrices * (int)w->n) * (double)(each + scales);
}

static void up_quantised(struct bench *b, struct bench_work *w, bool four, bool rows_too)
{
	w->bytes = (double)w->rows * ((rows_too ? 1.0 : 2.0) * (double)w->hidden +
				      (rows_too ? 4.0 : 2.0) * (double)w->inter);
	w->flops = flops_of(w, 2);
	w->result = bench_result(b, w->rows * w->inter * (rows_too ? 4 : 2));
	/* with rows of 8 bits what is kept goes to swiglu_quant, and no a is made */
	bench_arg(w, rows_too ? 0 : w->result);
	bench_arg(w, rows_too ? w->result : 0);
	if (rows_too) {
		bench_arg(w, bench_quarters(b, w->rows * w->hidden));
		bench_arg(w, bench_floats(b, w->rows * pst_quant_blocks(w->hidden)));
	} else {
		bench_arg(w, bench_halves(b, w->rows * w->hidden));
	}
	bench_arg(w, w->hidden);
	bench_arg(w, bench_indices(b, w->rows, w->rows));
	quantised(b, w, 2, w->inter, w->hidden, four);
	finish(b, w);
}

static void down_quantised(struct bench *b, struct bench_work *w, bool four, bool rows_too)
{
	w->bytes = (double)w->rows *
		   ((rows_too ? 1.0 : 2.0) * (double)w->inter + 2.0 * (double)w->hidden);
	w->flops = flops_of(w, 1);
	w->result = bench_result(b, w->rows * w->hidden * 2);
	bench_arg(w, w->result);
	bench_arg(w, 1);
	if (rows_too) {
		bench_arg(w, bench_quarters(b, w->rows * w->inter));
		bench_arg(w, bench_floats(b, w->rows * pst_quant_blocks(w->inter)));
	} else {
		bench_arg(w, bench_halves(b, w->rows * w->inter));
	}
	quantised(b, w, 1, w->hidden, w->inter, four);
	finish(b, w);
}

#define QUANTISED(kind, four, rows_too)                               \
	void bench_up_##kind(struct bench *b, struct bench_work *w)   \
	{                                                             \
		up_quantised(b, w, four, rows_too);                   \
	}                                                             \
	void bench_down_##kind(struct bench *b, struct bench_work *w) \
	{                                                             \
		down_quantised(b, w, four, rows_too);                 \
	}
QUANTISED(w8, false, false)
QUANTISED(w4, true, false)
QUANTISED(w8a8, false, true)

/* Without the number of rows that a block takes. */
static void ask_experts(struct bench_work *w)
{
	const char *name = pst_cuda_kernel_name(w->k), *last = strrchr(name, '_');
	size_t at, len = isdigit((unsigned char)last[1]) ? (size_t)(last - name) : strlen(name);

	bench_ask(w, "%.*s %zu %zu", (int)len, name, w->hidden, w->inter);
	for (size_t i = 0; i < w->n; i++) {
		at = strlen(w->ask);
		snprintf(w->ask + at, sizeof(w->ask) - at, " %d", w->group[i]);
	}
}

void bench_groups(struct bench *b, struct bench_work *w, size_t n, int rows, bool uneven)
{
	const int of_256[8] = {77, 51, 38, 31, 23, 18, 13, 5};
	int left = (int)n * rows;

	w->hidden = bench_sizes(b)->hidden;
	w->inter = bench_sizes(b)->inter;
	w->n = n;
	w->rows = n * (size_t)rows;
	for (size_t i = 0; i < n; i++) {
		w->group[i] = !uneven	   ? rows
			      : i + 1 == n ? left
					   : (int)n * rows * of_256[i % 8] / 256;
		left -= w->group[i];
	}
	bench_shape(w, uneven ? "%zu experts, uneven, %zu rows" : "%zu experts, even, %zu rows", n,
		    w->rows);
	ask_experts(w);
}
