/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model/tile.h"

#include <string.h>

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
	size_t first = task * PST_TILE_ROWS;

	r->fn(r->ctx, first, part(r->rows, first, PST_TILE_ROWS));
}

void pst_tile_rows(struct pst_device *dev, size_t rows, pst_rows_fn *fn, void *ctx)
{
	struct rows r = {fn, ctx, rows};

	pst_device_for(dev, div_up(rows, PST_TILE_ROWS), run_rows, &r);
}

void pst_linear(struct pst_device *dev, struct pst_linear l, size_t rows, float *y, size_t ldy,
		const float *x, size_t ldx)
{
	pst_device_gemm(dev, false, true, rows, l.out, l.in, x, ldx, l.w, l.in, y, ldy, false);
}

void pst_linear_dx(struct pst_device *dev, struct pst_linear l, size_t rows, float *dx, size_t lddx,
		   const float *dy, size_t lddy, bool acc)
{
	pst_device_gemm(dev, false, false, rows, l.in, l.out, dy, lddy, l.w, l.in, dx, lddx, acc);
}

void pst_linear_dw(struct pst_device *dev, struct pst_linear l, size_t rows, float *dw,
		   const float *dy, size_t lddy, const float *x, size_t ldx, bool acc)
{
	pst_device_gemm(dev, true, false, l.out, l.in, rows, dy, lddy, x, ldx, dw, l.in, acc);
}

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

void pst_tile_norm(struct pst_device *dev, const struct pst_norm *n, float *y)
{
	struct norm t = {.ops = pst_device_ops(dev), .n = n, .y = y};

	pst_tile_rows(dev, n->rows, norm_rows, &t);
}

static void norm_dx(const struct norm *t, size_t block)
{
	const struct pst_norm *n = t->n;
	size_t first = block * PST_TILE_ROWS, count = part(n->rows, first, PST_TILE_ROWS);
	float *dx = t->dx + first * t->lddx;

	t->ops->rmsnorm_dx(dx, t->lddx, t->dy + first * n->cols, n->cols, n->x + first * n->ldx,
			   n->ldx, n->w, n->rstd + first, count, n->cols);
	for (size_t r = 0; t->sum && r < count; r++)
		t->ops->add(t->sum + (first + r) * n->cols, dx + r * t->lddx, n->cols);
}

static void norm_dw(const struct norm *t, size_t block)
{
	const struct pst_norm *n = t->n;
	size_t first = block * PST_TILE_COLS;

	t->ops->rmsnorm_dw(t->dw + first, t->dy + first, n->cols, n->x + first, n->ldx, n->rstd,
			   n->rows, part(n->cols, first, PST_TILE_COLS));
}

/* The tasks of dw come first: each of them sees all rows. */
static void norm_bwd(void *ctx, size_t task)
{
	const struct norm *t = ctx;
	size_t columns = div_up(t->n->cols, PST_TILE_COLS);

	if (task < columns)
		norm_dw(t, task);
	else
		norm_dx(t, task - columns);
}

void pst_tile_norm_bwd(struct pst_device *dev, const struct pst_norm *n, float *dx, size_t lddx,
		       float *dw, float *sum, const float *dy)
{
	struct norm t = {.ops = pst_device_ops(dev),
			 .n = n,
			 .dy = dy,
			 .dx = dx,
			 .dw = dw,
			 .sum = sum,
			 .lddx = lddx};

	pst_device_for(dev, div_up(n->cols, PST_TILE_COLS) + div_up(n->rows, PST_TILE_ROWS),
		       norm_bwd, &t);
}

#define SUM_BLOCK 8192

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

void pst_tile_sum(struct pst_device *dev, float *y, const float *a, const float *b, size_t n)
{
	struct sum s = {pst_device_ops(dev), y, a, b, n};

	pst_device_for(dev, div_up(n, SUM_BLOCK), sum_block, &s);
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

void pst_tile_embed(struct pst_device *dev, float *y, const float *table, const int32_t *id,
		    size_t rows, size_t cols)
{
	struct embed e = {pst_device_ops(dev), id, rows, 0, cols, table, y};

	pst_tile_rows(dev, rows, embed_rows, &e);
}

static void embed_cols(void *ctx, size_t task)
{
	const struct embed *e = ctx;
	size_t first = task * PST_TILE_COLS;

	e->ops->embed_bwd(e->to + first, e->cols, e->from + first, e->cols, e->id, e->rows,
			  e->vocab, part(e->cols, first, PST_TILE_COLS));
}

void pst_tile_embed_bwd(struct pst_device *dev, float *dtable, const float *dy, const int32_t *id,
			size_t rows, size_t vocab, size_t cols)
{
	struct embed e = {pst_device_ops(dev), id, rows, vocab, cols, dy, dtable};

	pst_device_for(dev, div_up(cols, PST_TILE_COLS), embed_cols, &e);
}
