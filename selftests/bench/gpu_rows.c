/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_rows.c - what gpu-bench times: kernels, shapes, and how many bytes and products that is.
 *
 * Sizes are those of DeepSeek-V3 (arXiv:2412.19437, table of 4.2): hidden 7168, experts of 2048,
 * 256 of them, 8 a token, vocabulary 129280. Bytes are those of a kernel that reads its inputs once
 * and writes its results once; a weight counts if its expert has rows.
 */
#include "selftests/bench/gpu_rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench_sizes deepseek = {4096, 7168, 2048, 256, 8, 129280, 64, (size_t)64 << 20};
static const struct bench_sizes tiny = {6, 64, 32, 16, 2, 100, 8, 500};

const struct bench_sizes *bench_sizes(const struct bench *b)
{
	return b->small ? &tiny : &deepseek;
}

/* Arguments, in the order of the kernel's. */

void bench_arg(struct bench_work *w, uint64_t value)
{
	w->value[w->nparams++] = value;
}

void bench_real(struct bench_work *w, float value)
{
	uint64_t bits = 0;

	memcpy(&bits, &value, sizeof(value));
	bench_arg(w, bits);
}

void bench_shape(struct bench_work *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->shape, sizeof(w->shape), fmt, ap);
	va_end(ap);
}

void bench_ask(struct bench_work *w, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(w->ask, sizeof(w->ask), fmt, ap);
	va_end(ap);
}

CUdeviceptr bench_indices(struct bench *b, size_t n, size_t below)
{
	int32_t *at = malloc((n ? n : 1) * sizeof(*at));
	size_t step = below / 2 + 1;
	CUdeviceptr to;

	if (!at) {
		b->full = true;
		return b->arena;
	}
	/* neighbours have no factor in common */
	while (below && step % 2 == 0 && below % 2 == 0)
		step++;
	for (size_t i = 0; i < n; i++)
		at[i] = (int32_t)(i * (step | 1) % below);
	to = bench_upload(b, at, n * sizeof(*at));
	free(at);
	return to;
}

/* Ops of memory. */

static void elementwise(struct bench_work *w, size_t n, double bytes, const char *what)
{
	bench_shape(w, "n=%zu", n);
	bench_ask(w, "%s %zu", what, n);
	w->bytes = (double)n * bytes;
}

static void make_adamw(struct bench *b, struct bench_work *w, bool narrow)
{
	size_t n = bench_sizes(b)->params;
	const float rest[] = {1e-4f, .9f, .95f, 1e-8f, .1f, .1f, .05f, .5f};

	elementwise(w, n, narrow ? 30 : 32, narrow ? "adamw_bf16" : "adamw");
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, bench_floats(b, n));
	/* second moments are not below 0 */
	bench_arg(w, bench_take(b, n * 4));
	if (!b->full)
		b->gpu.cu->cuMemsetD32Async(w->value[2], 0x3f000000, n, b->gpu.stream);
	w->result = bench_result(b, n * (narrow ? 2 : 4));
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, n);
	for (int i = 0; i < 8; i++)
		bench_real(w, rest[i]);
}

static void adamw(struct bench *b, struct bench_work *w)
{
	make_adamw(b, w, false);
}

static void adamw_bf16(struct bench *b, struct bench_work *w)
{
	make_adamw(b, w, true);
}

static void add(struct bench *b, struct bench_work *w)
{
	size_t n = bench_sizes(b)->tokens * bench_sizes(b)->hidden;

	elementwise(w, n, 12, "add");
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, n);
}

static void to_bf16(struct bench *b, struct bench_work *w)
{
	size_t n = bench_sizes(b)->tokens * bench_sizes(b)->hidden;

	elementwise(w, n, 6, "to_bf16");
	w->result = bench_result(b, 2 * n);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, n);
}

static void from_bf16(struct bench *b, struct bench_work *w)
{
	size_t n = bench_sizes(b)->tokens * bench_sizes(b)->hidden;

	elementwise(w, n, 6, "from_bf16");
	w->result = bench_result(b, 4 * n);
	bench_arg(w, w->result);
	bench_arg(w, bench_halves(b, n));
	bench_arg(w, n);
}

static void swiglu(struct bench *b, struct bench_work *w)
{
	size_t n = bench_sizes(b)->tokens * bench_sizes(b)->chosen * bench_sizes(b)->inter;

	elementwise(w, n, 12, "swiglu");
	w->result = bench_result(b, 4 * n);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, n);
}

static void swiglu_bwd(struct bench *b, struct bench_work *w)
{
	size_t n = bench_sizes(b)->tokens * bench_sizes(b)->chosen * bench_sizes(b)->inter;

	elementwise(w, n, 24, "swiglu_bwd");
	w->result = bench_result(b, 4 * n);
	bench_arg(w, w->result);
	bench_arg(w, bench_take(b, 4 * n));
	bench_arg(w, bench_take(b, 4 * n));
	for (int i = 0; i < 3; i++)
		bench_arg(w, bench_floats(b, n));
	bench_arg(w, n);
}

static void sum_of(struct bench *b, struct bench_work *w, size_t out, size_t n)
{
	elementwise(w, n, 4, "sumsq");
	w->result = bench_result(b, out * sizeof(double));
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, n);
}

/* By one block, so for few. */
static void sumsq(struct bench *b, struct bench_work *w)
{
	sum_of(b, w, 1, bench_sizes(b)->tokens * 16);
}

static void sumsq_parts(struct bench *b, struct bench_work *w)
{
	sum_of(b, w, PST_CUDA_SUMSQ_PARTS, bench_sizes(b)->params);
}

static void sumsq_total(struct bench *b, struct bench_work *w)
{
	double part[PST_CUDA_SUMSQ_PARTS] = {1};

	bench_shape(w, "n=%d", PST_CUDA_SUMSQ_PARTS);
	w->bytes = sizeof(part);
	w->result = bench_result(b, sizeof(double));
	bench_arg(w, w->result);
	bench_arg(w, bench_upload(b, part, sizeof(part)));
	bench_arg(w, PST_CUDA_SUMSQ_PARTS);
}

/* Ops of rows. */

static void by_rows(struct bench_work *w, const char *what, size_t rows, size_t cols)
{
	bench_shape(w, "%zux%zu", rows, cols);
	bench_ask(w, "%s %zu %zu", what, rows, cols);
}

static void rmsnorm(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden, n = rows * cols;

	by_rows(w, "rmsnorm", rows, cols);
	w->bytes = 8.0 * (double)n;
	w->result = bench_result(b, 4 * n);
	bench_arg(w, w->result);
	bench_arg(w, cols);
	bench_arg(w, bench_take(b, 4 * rows));
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, cols));
	bench_arg(w, rows);
	bench_arg(w, cols);
	bench_real(w, 1e-6f);
}

static void rmsnorm_dx(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden, n = rows * cols;

	by_rows(w, "rmsnorm_dx", rows, cols);
	w->bytes = 12.0 * (double)n;
	w->result = bench_result(b, 4 * n);
	bench_arg(w, w->result);
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, cols));
	bench_arg(w, bench_floats(b, rows));
	bench_arg(w, rows);
	bench_arg(w, cols);
}

static void rmsnorm_dw(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden, n = rows * cols;

	by_rows(w, "rmsnorm_dw", rows, cols);
	w->bytes = 8.0 * (double)n;
	w->result = bench_result(b, 4 * cols);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, rows));
	bench_arg(w, rows);
	bench_arg(w, cols);
}

/* The queries' part that turns: 128 heads. */
static void rope(struct bench *b, struct bench_work *w)
{
	size_t heads = b->small ? 2 : 128, rows = bench_sizes(b)->tokens * heads,
	       dim = bench_sizes(b)->rope;

	by_rows(w, "rope", rows, dim);
	w->bytes = 8.0 * (double)(rows * dim);
	bench_arg(w, bench_floats(b, rows * dim));
	bench_arg(w, dim);
	bench_arg(w, rows);
	bench_arg(w, dim);
	bench_arg(w, bench_indices(b, rows, bench_sizes(b)->tokens));
	bench_arg(w, bench_floats(b, bench_sizes(b)->tokens * dim / 2));
	bench_arg(w, bench_floats(b, bench_sizes(b)->tokens * dim / 2));
	bench_arg(w, 0);
}

static void gate_topk(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t rows = s->tokens, e = s->experts, k = s->chosen;

	by_rows(w, "gate_topk", rows, e);
	w->bytes = 8.0 * (double)(rows * e) + 8.0 * (double)(rows * k);
	bench_arg(w, bench_take(b, 4 * rows * k));
	bench_arg(w, bench_take(b, 4 * rows * k));
	w->result = bench_result(b, 4 * rows * e);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, rows * e));
	bench_arg(w, bench_floats(b, e));
	bench_arg(w, rows);
	bench_arg(w, e);
	bench_arg(w, k);
	bench_arg(w, b->small ? 4 : 8);
	bench_arg(w, b->small ? 2 : 4);
	bench_arg(w, 1);
	bench_real(w, 2.5f);
}

static void gate_bwd(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t rows = s->tokens, e = s->experts, k = s->chosen;

	by_rows(w, "gate_bwd", rows, e);
	w->bytes = 8.0 * (double)(rows * e) + 8.0 * (double)(rows * k);
	w->result = bench_result(b, 4 * rows * e);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, rows * k));
	bench_arg(w, bench_indices(b, rows * k, e));
	bench_arg(w, bench_floats(b, rows * e));
	bench_arg(w, bench_floats(b, e));
	bench_arg(w, rows);
	bench_arg(w, e);
	bench_arg(w, k);
	bench_arg(w, 1);
	bench_real(w, 2.5f);
}

static void balance(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t rows = s->tokens, e = s->experts, k = s->chosen;

	by_rows(w, "balance", rows, e);
	w->bytes = 4.0 * (double)(rows * e) + 4.0 * (double)(rows * k);
	w->result = bench_result(b, 4);
	bench_arg(w, w->result);
	bench_arg(w, bench_take(b, 4 * e));
	bench_arg(w, bench_indices(b, rows * k, e));
	bench_arg(w, bench_floats(b, rows * e));
	bench_arg(w, rows);
	bench_arg(w, e);
	bench_arg(w, k);
	bench_real(w, 1e-4f);
}

static void xent(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, vocab = bench_sizes(b)->vocab, n = rows * vocab;

	by_rows(w, "xent", rows, vocab);
	w->bytes = 8.0 * (double)n;
	w->result = bench_result(b, 4 * rows);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, n));
	bench_arg(w, vocab);
	bench_arg(w, bench_indices(b, rows, vocab));
	bench_arg(w, rows);
	bench_arg(w, vocab);
	bench_real(w, 1e-3f);
}

static void embed(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t rows = s->tokens, cols = s->hidden;

	by_rows(w, "embed", rows, cols);
	w->bytes = 8.0 * (double)(rows * cols);
	w->result = bench_result(b, 4 * rows * cols);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, s->vocab * cols));
	bench_arg(w, bench_indices(b, rows, s->vocab));
	bench_arg(w, rows);
	bench_arg(w, cols);
}

static void embed_bwd(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t rows = s->tokens, cols = s->hidden;

	by_rows(w, "embed_bwd", rows, cols);
	w->bytes = 4.0 * (double)(rows * cols) + 4.0 * (double)(s->vocab * cols);
	w->result = bench_result(b, 4 * s->vocab * cols);
	bench_arg(w, w->result);
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, rows * cols));
	bench_arg(w, cols);
	bench_arg(w, bench_indices(b, rows, s->vocab));
	bench_arg(w, rows);
	bench_arg(w, s->vocab);
	bench_arg(w, cols);
}

/* Between tokens and the rows of their experts. */

static void gather(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t rows = s->tokens * s->chosen, cols = s->hidden;

	by_rows(w, "gather", rows, cols);
	/* a row that is read again comes from the cache, or should */
	w->bytes = 4.0 * (double)((rows + s->tokens) * cols);
	w->result = bench_result(b, 4 * rows * cols);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, s->tokens * cols));
	bench_arg(w, bench_indices(b, rows, s->tokens));
	bench_arg(w, rows);
	bench_arg(w, cols);
}

static void routed(struct bench *b, struct bench_work *w, const char *what)
{
	const struct bench_sizes *s = bench_sizes(b);

	bench_shape(w, "%zux%zux%zu", s->tokens, s->chosen, s->hidden);
	bench_ask(w, "%s %zu %zu %zu", what, s->tokens, s->chosen, s->hidden);
	w->bytes = 4.0 * (double)((s->tokens * s->chosen + s->tokens) * s->hidden);
}

static void combine(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t slots = s->tokens * s->chosen;

	routed(b, w, "combine");
	w->result = bench_result(b, 4 * s->tokens * s->hidden);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, slots * s->hidden));
	bench_arg(w, bench_floats(b, slots));
	bench_arg(w, bench_indices(b, slots, slots));
	bench_arg(w, s->tokens);
	bench_arg(w, s->chosen);
	bench_arg(w, s->hidden);
	bench_arg(w, 0);
}

static void combine_dw(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t slots = s->tokens * s->chosen;

	routed(b, w, "combine_dw");
	w->result = bench_result(b, 4 * slots);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, s->tokens * s->hidden));
	bench_arg(w, bench_floats(b, slots * s->hidden));
	bench_arg(w, bench_indices(b, slots, slots));
	bench_arg(w, s->tokens);
	bench_arg(w, s->chosen);
	bench_arg(w, s->hidden);
}

static void scatter_scaled(struct bench *b, struct bench_work *w)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t slots = s->tokens * s->chosen;

	routed(b, w, "scatter_scaled");
	w->result = bench_result(b, 4 * slots * s->hidden);
	bench_arg(w, w->result);
	bench_arg(w, bench_floats(b, s->tokens * s->hidden));
	bench_arg(w, bench_floats(b, slots));
	bench_arg(w, bench_indices(b, slots, slots));
	bench_arg(w, s->tokens);
	bench_arg(w, s->chosen);
	bench_arg(w, s->hidden);
}

/* The table. */

/* clang-format off */
#define FEW(kernel, make, rows) {PST_CUDA_experts_##kernel, make, BY_COPY, 32, rows, false}
#define SMALL(kernel, make) \
	FEW(kernel##_16, make, 1), \
	FEW(kernel##_16, make, 2), \
	FEW(kernel##_16, make, 4), \
	FEW(kernel##_16, make, 8), \
	FEW(kernel##_16, make, 16), \
	FEW(kernel##_64, make, 32), \
	FEW(kernel##_64, make, 64)
#define MANY(kernel, make, by) \
	{PST_CUDA_experts_##kernel, make, by, 8, 1024, false}, \
	{PST_CUDA_experts_##kernel, make, by, 8, 1024, true}, \
	{PST_CUDA_experts_##kernel, make, by, 8, 4096, false}
#define GLUE(kernel) {PST_CUDA_##kernel, kernel, BY_COPY, 0, 0, false}
#define MORE(kernel, by) {PST_CUDA_##kernel, bench_##kernel, by, 0, 0, false}

static const struct row {
	enum pst_cuda_kernel k;
	bench_make_fn *make;
	enum bench_limit limit;
	int n, rows; /* experts: of each */
	bool uneven;
} rows[] = {
	SMALL(up, bench_up),
	SMALL(up_w8, bench_up_w8),
	SMALL(up_w4, bench_up_w4),
	SMALL(down, bench_down),
	SMALL(down_w8, bench_down_w8),
	SMALL(down_w4, bench_down_w4),
	FEW(up_w8a8_64, bench_up_w8a8, 64),
	FEW(down_w8a8_64, bench_down_w8a8, 64),
	FEW(da_64, bench_da, 64),
	FEW(dx_64, bench_dx, 64),
	MANY(up_128, bench_up, BY_BF16),
	MANY(down_128, bench_down, BY_BF16),
	MANY(da_128, bench_da, BY_BF16),
	MANY(dx_128, bench_dx, BY_BF16),
	MANY(dw, bench_dw, BY_BF16),
	MANY(up_w8a8_128, bench_up_w8a8, BY_FP8),
	MANY(down_w8a8_128, bench_down_w8a8, BY_FP8),
	MORE(gemm, BY_BF16),
	MORE(gemm_bf16, BY_BF16),
	MORE(attn_heads, BY_BF16),
	MORE(attn_heads_dq, BY_BF16),
	MORE(attn_heads_dkv, BY_BF16),
	MORE(mla_decode, BY_BF16),
	MORE(mla_combine, BY_COPY),
	MORE(quant_rows, BY_COPY),
	MORE(rmsnorm_quant, BY_COPY),
	MORE(swiglu_quant, BY_COPY),
	MORE(quant_both, BY_COPY),
	MORE(dequant_rows, BY_COPY),
	GLUE(adamw),
	GLUE(adamw_bf16),
	GLUE(add),
	GLUE(balance),
	GLUE(combine),
	GLUE(combine_dw),
	GLUE(embed),
	GLUE(embed_bwd),
	GLUE(from_bf16),
	GLUE(gate_bwd),
	GLUE(gate_topk),
	GLUE(gather),
	GLUE(rmsnorm),
	GLUE(rmsnorm_dw),
	GLUE(rmsnorm_dx),
	GLUE(rope),
	GLUE(scatter_scaled),
	GLUE(sumsq),
	GLUE(sumsq_parts),
	GLUE(sumsq_total),
	GLUE(swiglu),
	GLUE(swiglu_bwd),
	GLUE(to_bf16),
	GLUE(xent),
};
/* clang-format on */

/* As many bits as the number has: small, and no two alike. */
static int tiny_rows(int rows)
{
	int n = 0;

	while (rows >> n)
		n++;
	return n;
}

bool bench_make(struct bench *b, int i, struct bench_work *w)
{
	const struct row *r = &rows[i];

	if (i >= (int)(sizeof(rows) / sizeof(*rows)))
		return false;
	*w = (struct bench_work){.k = r->k, .limit = r->limit};
	if (r->n)
		bench_groups(b, w, b->small ? 8 : (size_t)r->n,
			     b->small ? tiny_rows(r->rows) : r->rows, r->uneven);
	r->make(b, w);
	return true;
}
