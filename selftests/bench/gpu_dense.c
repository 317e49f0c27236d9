/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_dense.c - dense products, attention, and what is quantised on the way between kernels. */
#include "selftests/bench/gpu_rows.h"
#include "kernels/quant.h"

/* Products: tokens through a projection to hidden. */

static void gemm(struct bench *b, struct bench_work *w, bool narrow)
{
	const struct bench_sizes *s = bench_sizes(b);
	size_t m = s->tokens, n = s->hidden, k = s->inter;

	bench_shape(w, "%zux%zux%zu", m, n, k);
	w->bytes = 4.0 * (double)(m * k + m * n) + (narrow ? 2.0 : 4.0) * (double)(n * k);
	w->flops = 2.0 * (double)m * (double)n * (double)k;
	bench_arg(w, 0);
	bench_arg(w, 1);
	bench_arg(w, m);
	bench_arg(w, n);
	bench_arg(w, k);
	bench_arg(w, bench_floats(b, m * k));
	bench_arg(w, k);
	bench_arg(w, narrow ? bench_halves(b, n * k) : bench_floats(b, n * k));
	bench_arg(w, k);
	w->result = bench_result(b, 4 * m * n);
	bench_arg(w, w->result);
	bench_arg(w, n);
	bench_arg(w, 0);
}

void bench_gemm(struct bench *b, struct bench_work *w)
{
	gemm(b, w, false);
}

void bench_gemm_bf16(struct bench *b, struct bench_work *w)
{
	gemm(b, w, true);
}

/* Causal attention of one sequence: queries and keys of 192, values of 128. */

struct attention {
	size_t heads, t, dqk, dv;
};

static struct attention attention(const struct bench *b)
{
	return b->small ? (struct attention){2, 6, 24, 16}
			: (struct attention){128, 4096, 192, 128};
}

/* @each: how long the products of a query and a key are, all together. */
static void say_attention(struct bench_work *w, const struct attention *a, size_t each)
{
	bench_shape(w, "%zu heads, t=%zu, %zu/%zu", a->heads, a->t, a->dqk, a->dv);
	bench_ask(w, "%s %zu %zu %zu %zu", pst_cuda_kernel_name(w->k), a->heads, a->t, a->dqk,
		  a->dv);
	w->bytes = 8.0 * (double)(a->heads * a->t) * (double)(a->dqk + a->dv);
	w->flops = (double)a->heads * (double)a->t * (double)(a->t + 1) * (double)each;
}

/* One of q, k, v, o, of all heads: rows, how far rows are from each other, and heads. */
static void heads_of(struct bench *b, struct bench_work *w, const struct attention *a, size_t cols)
{
	bench_arg(w, bench_floats(b, a->t * a->heads * cols));
	bench_arg(w, a->heads * cols);
	bench_arg(w, cols);
}

void bench_attn_heads(struct bench *b, struct bench_work *w)
{
	struct attention a = attention(b);

	say_attention(w, &a, a.dqk + a.dv);
	w->result = bench_result(b, 4 * a.t * a.heads * a.dv);
	bench_arg(w, w->result);
	bench_arg(w, a.heads * a.dv);
	bench_arg(w, a.dv);
	bench_arg(w, bench_take(b, 4 * a.heads * a.t));
	heads_of(b, w, &a, a.dqk);
	heads_of(b, w, &a, a.dqk);
	heads_of(b, w, &a, a.dv);
	bench_arg(w, a.heads);
	bench_arg(w, 1);
	bench_arg(w, a.t);
	bench_arg(w, a.t);
	bench_arg(w, a.dqk);
	bench_arg(w, a.dv);
	bench_real(w, 0.07f);
}

/* What dq and dkv take after their results. */
static void backward(struct bench *b, struct bench_work *w, const struct attention *a)
{
	heads_of(b, w, a, a->dv);
	bench_arg(w, bench_floats(b, a->heads * a->t));
	bench_arg(w, bench_floats(b, a->heads * a->t));
	bench_arg(w, a->heads);
	bench_arg(w, 1);
	bench_arg(w, a->t);
	bench_arg(w, a->dqk);
	bench_arg(w, a->dv);
	bench_real(w, 0.07f);
	heads_of(b, w, a, a->dqk);
	heads_of(b, w, a, a->dqk);
	heads_of(b, w, a, a->dv);
}

void bench_attn_heads_dq(struct bench *b, struct bench_work *w)
{
	struct attention a = attention(b);

	say_attention(w, &a, 2 * a.dqk + a.dv);
	w->result = bench_result(b, 4 * a.t * a.heads * a.dqk);
	bench_arg(w, w->result);
	backward(b, w, &a);
}

void bench_attn_heads_dkv(struct bench *b, struct bench_work *w)
{
	struct attention a = attention(b);

	say_attention(w, &a, 2 * a.dqk + 2 * a.dv);
	w->result = bench_result(b, 4 * a.t * a.heads * a.dqk);
	bench_arg(w, w->result);
	bench_arg(w, bench_take(b, 4 * a.t * a.heads * a.dv));
	backward(b, w, &a);
}

/* Decode over a cache in bf16, a query for each of many sequences. */

struct decode {
	size_t heads, batch, most, keys, lora, rope;
};

static struct decode decode(const struct bench *b)
{
	return b->small ? (struct decode){4, 3, 100, 64, 64, 16}
			: (struct decode){128, 128, 4096, 1024, 512, 64};
}

static size_t parts_of(const struct decode *d)
{
	return (d->most + d->keys - 1) / d->keys;
}

static void say_decode(struct bench_work *w, const struct decode *d)
{
	bench_shape(w, "%zu heads, %zux%zu keys", d->heads, d->batch, d->most);
}

void bench_mla_decode(struct bench *b, struct bench_work *w)
{
	struct decode d = decode(b);
	size_t row = d.lora + d.rope, part = parts_of(&d) * d.heads * d.batch;
	int32_t len[128];

	for (size_t i = 0; i < d.batch; i++)
		len[i] = (int32_t)d.most;
	say_decode(w, &d);
	w->bytes = 2.0 * (double)(d.batch * d.most * row) + 4.0 * (double)(part * d.lora);
	w->flops = 2.0 * (double)(d.batch * d.heads * d.most) * (double)(row + d.lora);
	w->result = bench_result(b, 4 * part * d.lora);
	bench_arg(w, w->result);
	bench_arg(w, bench_take(b, 4 * part));
	bench_arg(w, bench_floats(b, d.batch * d.heads * row));
	bench_arg(w, d.heads * row);
	bench_arg(w, row);
	bench_arg(w, bench_halves(b, d.batch * d.most * row));
	bench_arg(w, 1);
	bench_arg(w, row);
	bench_arg(w, d.most * row);
	bench_arg(w, bench_upload(b, len, d.batch * sizeof(*len)));
	bench_arg(w, d.heads);
	bench_arg(w, d.batch);
	bench_arg(w, 1);
	bench_arg(w, d.most);
	bench_arg(w, d.keys);
	bench_arg(w, d.lora);
	bench_arg(w, d.rope);
	bench_real(w, 0.07f);
}

void bench_mla_combine(struct bench *b, struct bench_work *w)
{
	struct decode d = decode(b);
	size_t part = parts_of(&d) * d.heads * d.batch, out = d.batch * d.heads * d.lora;

	say_decode(w, &d);
	w->bytes = 4.0 * (double)(part * d.lora + out);
	w->result = bench_result(b, 4 * out);
	bench_arg(w, w->result);
	bench_arg(w, d.heads * d.lora);
	bench_arg(w, d.lora);
	bench_arg(w, 0);
	bench_arg(w, bench_floats(b, part * d.lora));
	bench_arg(w, bench_floats(b, part));
	bench_arg(w, d.heads);
	bench_arg(w, d.batch);
	bench_arg(w, 1);
	bench_arg(w, d.most);
	bench_arg(w, d.keys);
	bench_arg(w, d.lora);
}

/* To fp8 and back: rows of bf16. */

static void codes(struct bench *b, struct bench_work *w, size_t rows, size_t cols, double bytes)
{
	bench_shape(w, "%zux%zu", rows, cols);
	w->bytes = bytes * (double)rows * (double)cols;
	w->result = bench_result(b, rows * cols);
	bench_arg(w, w->result);
	bench_arg(w, bench_take(b, 4 * rows * pst_quant_blocks(cols)));
}

void bench_quant_rows(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden;

	codes(b, w, rows, cols, 3);
	bench_arg(w, bench_halves(b, rows * cols));
	bench_arg(w, 1);
	bench_arg(w, cols);
	bench_arg(w, rows);
	bench_arg(w, cols);
}

void bench_rmsnorm_quant(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden;

	codes(b, w, rows, cols, 3);
	bench_arg(w, bench_take(b, 4 * rows));
	bench_arg(w, bench_halves(b, rows * cols));
	bench_arg(w, 1);
	bench_arg(w, cols);
	bench_arg(w, bench_floats(b, cols));
	bench_arg(w, rows);
	bench_arg(w, cols);
	bench_real(w, 1e-6f);
}

void bench_swiglu_quant(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens * bench_sizes(b)->chosen, cols = bench_sizes(b)->inter;

	codes(b, w, rows, cols, 5);
	bench_arg(w, bench_halves(b, 2 * rows * cols));
	bench_arg(w, 1);
	bench_arg(w, rows);
	bench_arg(w, cols);
}

void bench_quant_both(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden;
	size_t ldt = (rows + 15) / 16 * 16;

	codes(b, w, rows, cols, 4);
	bench_arg(w, bench_take(b, cols * ldt));
	bench_arg(w, bench_take(b, 4 * cols * pst_quant_blocks(rows)));
	bench_arg(w, ldt);
	bench_arg(w, bench_halves(b, rows * cols));
	bench_arg(w, 1);
	bench_arg(w, cols);
	bench_arg(w, rows);
	bench_arg(w, cols);
}

void bench_dequant_rows(struct bench *b, struct bench_work *w)
{
	size_t rows = bench_sizes(b)->tokens, cols = bench_sizes(b)->hidden;

	bench_shape(w, "%zux%zu", rows, cols);
	w->bytes = 3.0 * (double)rows * (double)cols;
	w->result = bench_result(b, 2 * rows * cols);
	bench_arg(w, w->result);
	bench_arg(w, 1);
	bench_arg(w, bench_quarters(b, rows * cols));
	bench_arg(w, bench_floats(b, rows * pst_quant_blocks(cols)));
	bench_arg(w, rows);
	bench_arg(w, cols);
}
