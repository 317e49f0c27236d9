/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm over the team. The cut is a function of m, n and k alone: blocks of 96
 * rows (16 register tiles of 6), made smaller, and then columns cut too, only
 * while there are few blocks and each is still worth a hand-over.
 */
#include "runtime/device/device.h"

#define MIN_TASKS  8
#define MIN_VOLUME (1 << 18) /* multiply-adds: some 5 us */

struct gemm {
	const struct pst_ops *ops;
	bool ta, tb, acc;
	size_t m, n, k, lda, ldb, ldc;
	const float *a, *b;
	float *c;
	size_t rows, cols, across; /* of a block; blocks per row of blocks */
};

static size_t div_up(size_t a, size_t b)
{
	return (a + b - 1) / b;
}

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static void gemm_block(void *ctx, size_t task)
{
	const struct gemm *g = ctx;
	size_t i = task / g->across * g->rows, j = task % g->across * g->cols;
	const float *a = g->a + (g->ta ? i : i * g->lda);
	const float *b = g->b + (g->tb ? j * g->ldb : j);

	g->ops->gemm(g->ta, g->tb, min_size(g->rows, g->m - i), min_size(g->cols, g->n - j), g->k,
		     a, g->lda, b, g->ldb, g->c + i * g->ldc + j, g->ldc, g->acc);
}

static size_t count_blocks(const struct gemm *g)
{
	return div_up(g->m, g->rows) * div_up(g->n, g->cols);
}

static void cut(struct gemm *g)
{
	g->rows = 96;
	g->cols = g->n;
	while (count_blocks(g) < MIN_TASKS &&
	       min_size(g->rows, g->m) * g->cols * (g->k + 1) >= 2 * MIN_VOLUME) {
		if (g->cols >= 128)
			g->cols = div_up(g->cols / 2, 16) * 16;
		else if (g->rows > 48)
			g->rows = 48;
		else
			break;
	}
	g->across = div_up(g->n, g->cols);
}

void pst_device_gemm(struct pst_device *dev, bool ta, bool tb, size_t m, size_t n, size_t k,
		     const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
		     bool acc)
{
	struct gemm g = {.ta = ta,
			 .tb = tb,
			 .acc = acc,
			 .m = m,
			 .n = n,
			 .k = k,
			 .lda = lda,
			 .ldb = ldb,
			 .ldc = ldc,
			 .a = a,
			 .b = b,
			 .c = c};

	if (!m || !n)
		return;
	cut(&g);
	pst_device_enter(dev);
	g.ops = pst_device_ops(dev);
	pst_device_for(dev, count_blocks(&g), gemm_block, &g);
	pst_device_leave(dev);
}
