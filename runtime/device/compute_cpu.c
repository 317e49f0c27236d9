/* SPDX-License-Identifier: Apache-2.0 */
/* A CPU device as a compute: ops of the table over its team, in the host's memory. */
#include "runtime/device/compute_priv.h"

#include <string.h>

#define COLS	  64 /* in one task of a sum over rows */
#define SUM_BLOCK 8192

static size_t div_up(size_t a, size_t b)
{
	return (a + b - 1) / b;
}

static size_t part(size_t total, size_t first, size_t most)
{
	return total - first < most ? total - first : most;
}

struct rows {
	pst_rows_fn *fn;
	void *ctx;
	size_t rows;
};

static void run_rows(void *arg, size_t task)
{
	const struct rows *r = arg;
	size_t first = task * PST_COMPUTE_ROWS;

	r->fn(r->ctx, first, part(r->rows, first, PST_COMPUTE_ROWS));
}

void pst_cpu_rows(struct pst_compute *c, size_t rows, pst_rows_fn *fn, void *ctx)
{
	struct rows r = {fn, ctx, rows};

	pst_device_for(pst_cpu(c), div_up(rows, PST_COMPUTE_ROWS), run_rows, &r);
}

/* Nothing is apart, and nothing under way. */

static void cpu_put(struct pst_compute *c, void *to, const void *host, size_t bytes)
{
	(void)c;
	if (to != host)
		memcpy(to, host, bytes);
}

static const void *cpu_fetch(struct pst_compute *c, void *host, const void *from, size_t bytes)
{
	(void)c, (void)host, (void)bytes;
	return from;
}

static void cpu_mark(struct pst_compute *c, uint32_t mark)
{
	(void)c, (void)mark;
}

static int cpu_wait(struct pst_compute *c)
{
	(void)c;
	return 0;
}

/* Products */

static void cpu_linear(struct pst_compute *c, struct pst_linear l, size_t rows, float *y,
		       size_t ldy, const float *x, size_t ldx)
{
	pst_device_gemm(pst_cpu(c), false, true, rows, l.out, l.in, x, ldx, l.w, l.in, y, ldy,
			false);
}

static void cpu_linear_dx(struct pst_compute *c, struct pst_linear l, size_t rows, float *dx,
			  size_t lddx, const float *dy, size_t lddy, bool acc)
{
	pst_device_gemm(pst_cpu(c), false, false, rows, l.in, l.out, dy, lddy, l.w, l.in, dx, lddx,
			acc);
}

static void cpu_linear_dw(struct pst_compute *c, struct pst_linear l, size_t rows, float *dw,
			  const float *dy, size_t lddy, const float *x, size_t ldx, bool acc)
{
	pst_device_gemm(pst_cpu(c), true, false, l.out, l.in, rows, dy, lddy, x, ldx, dw, l.in,
			acc);
}

static void cpu_mlp(struct pst_compute *c, const struct pst_mlp_job *job, float *scratch)
{
	pst_mlp_forward(pst_cpu(c), job, 1, scratch);
}

static void cpu_mlp_bwd(struct pst_compute *c, const struct pst_mlp_job *job, float *scratch)
{
	pst_mlp_backward(pst_cpu(c), job, 1, scratch);
}

/* Norms */

struct norm {
	const struct pst_ops *ops;
	const struct pst_norm *n;
	float *y;
	/* backward */
	const float *dy;
	float *dx, *dw, *sum;
	size_t lddx;
};

static void norm_rows(void *ctx, size_t first, size_t count)
{
	const struct norm *t = ctx;
	const struct pst_norm *n = t->n;

	t->ops->rmsnorm(t->y + first * n->cols, n->cols, n->rstd + first, n->x + first * n->ldx,
			n->ldx, n->w, count, n->cols, n->eps);
}

static void cpu_norm(struct pst_compute *c, const struct pst_norm *n, float *y)
{
	struct norm t = {.ops = pst_device_ops(pst_cpu(c)), .n = n, .y = y};

	pst_cpu_rows(c, n->rows, norm_rows, &t);
}

static void norm_dx(const struct norm *t, size_t block)
{
	const struct pst_norm *n = t->n;
	size_t first = block * PST_COMPUTE_ROWS, count = part(n->rows, first, PST_COMPUTE_ROWS);
	float *dx = t->dx + first * t->lddx;

	t->ops->rmsnorm_dx(dx, t->lddx, t->dy + first * n->cols, n->cols, n->x + first * n->ldx,
			   n->ldx, n->w, n->rstd + first, count, n->cols);
	for (size_t r = 0; t->sum && r < count; r++)
		t->ops->add(t->sum + (first + r) * n->cols, dx + r * t->lddx, n->cols);
}

static void norm_dw(const struct norm *t, size_t block)
{
	const struct pst_norm *n = t->n;
	size_t first = block * COLS;

	t->ops->rmsnorm_dw(t->dw + first, t->dy + first, n->cols, n->x + first, n->ldx, n->rstd,
			   n->rows, part(n->cols, first, COLS));
}

/* The tasks of dw come first: each of them sees all rows. */
static void norm_back(void *ctx, size_t task)
{
	const struct norm *t = ctx;
	size_t columns = div_up(t->n->cols, COLS);

	if (task < columns)
		norm_dw(t, task);
	else
		norm_dx(t, task - columns);
}

static void cpu_norm_bwd(struct pst_compute *c, const struct pst_norm *n, float *dx, size_t lddx,
			 float *dw, float *sum, const float *dy)
{
	struct norm t = {.ops = pst_device_ops(pst_cpu(c)),
			 .n = n,
			 .dy = dy,
			 .dx = dx,
			 .dw = dw,
			 .sum = sum,
			 .lddx = lddx};

	pst_device_for(pst_cpu(c), div_up(n->cols, COLS) + div_up(n->rows, PST_COMPUTE_ROWS),
		       norm_back, &t);
}

/* Sums and rows */

struct sum {
	const struct pst_ops *ops;
	float *y;
	const float *a, *b;
	size_t n;
};

static void sum_block(void *ctx, size_t task)
{
	const struct sum *s = ctx;
	size_t first = task * SUM_BLOCK, n = part(s->n, first, SUM_BLOCK);

	if (s->y != s->a)
		memcpy(s->y + first, s->a + first, n * sizeof(float));
	s->ops->add(s->y + first, s->b + first, n);
}

static void cpu_sum(struct pst_compute *c, float *y, const float *a, const float *b, size_t n)
{
	struct sum s = {pst_device_ops(pst_cpu(c)), y, a, b, n};

	pst_device_for(pst_cpu(c), div_up(n, SUM_BLOCK), sum_block, &s);
}

static void cpu_zero(struct pst_compute *c, float *y, size_t n)
{
	(void)c;
	memset(y, 0, n * sizeof(*y));
}

struct embed {
	const struct pst_ops *ops;
	const int32_t *id;
	size_t rows, vocab, cols;
	const float *from;
	float *to;
};

static void embed_rows(void *ctx, size_t first, size_t count)
{
	const struct embed *e = ctx;

	e->ops->embed(e->to + first * e->cols, e->from, e->id + first, count, e->cols);
}

static void cpu_embed(struct pst_compute *c, float *y, const float *table, const int32_t *id,
		      size_t rows, size_t cols)
{
	struct embed e = {pst_device_ops(pst_cpu(c)), id, rows, 0, cols, table, y};

	pst_cpu_rows(c, rows, embed_rows, &e);
}

static void embed_cols(void *ctx, size_t task)
{
	const struct embed *e = ctx;
	size_t first = task * COLS;

	e->ops->embed_bwd(e->to + first, e->cols, e->from + first, e->cols, e->id, e->rows,
			  e->vocab, part(e->cols, first, COLS));
}

static void cpu_embed_bwd(struct pst_compute *c, float *dtable, const float *dy, const int32_t *id,
			  size_t rows, size_t vocab, size_t cols)
{
	struct embed e = {pst_device_ops(pst_cpu(c)), id, rows, vocab, cols, dy, dtable};

	pst_device_for(pst_cpu(c), div_up(cols, COLS), embed_cols, &e);
}

static const struct pst_compute_ops cpu_ops = {
	.put = cpu_put,
	.put_mark = cpu_mark,
	.put_need = cpu_mark,
	.fetch = cpu_fetch,
	.fetch_mark = cpu_mark,
	.fetch_need = cpu_mark,
	.wait = cpu_wait,
	.linear = cpu_linear,
	.linear_dx = cpu_linear_dx,
	.linear_dw = cpu_linear_dw,
	.norm = cpu_norm,
	.norm_bwd = cpu_norm_bwd,
	.sum = cpu_sum,
	.zero = cpu_zero,
	.embed = cpu_embed,
	.embed_bwd = cpu_embed_bwd,
	.mlp = cpu_mlp,
	.mlp_bwd = cpu_mlp_bwd,
	.loss = pst_cpu_loss,
	.loss_bwd = pst_cpu_loss_bwd,
	.gate = pst_cpu_gate,
	.balance = pst_cpu_balance,
	.gate_bwd = pst_cpu_gate_bwd,
	.rotate = pst_cpu_rotate,
	.attend = pst_cpu_attend,
	.attend_bwd = pst_cpu_attend_bwd,
	.attend_cache = pst_cpu_attend_cache,
};

void pst_compute_cpu_init(struct pst_compute_cpu *out, struct pst_device *dev)
{
	*out = (struct pst_compute_cpu){.base = {.op = &cpu_ops}, .dev = dev};
}
