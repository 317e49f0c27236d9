/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tile.h - ops over a device's team, cut by shape alone; private to model/.
 *
 * What is independent by row is cut by rows, sums over rows by columns, so that
 * every sum keeps the order that its op gives it.
 */
#ifndef PST_TILE_H
#define PST_TILE_H

#include "runtime/device/device.h"

#define PST_TILE_ROWS 32
#define PST_TILE_COLS 64

/* Run @fn for rows [first, first + count) of @rows, in blocks of PST_TILE_ROWS. */
typedef void pst_rows_fn(void *ctx, size_t first, size_t count);
void pst_tile_rows(struct pst_device *dev, size_t rows, pst_rows_fn *fn, void *ctx);

/* y = x W^T with a weight [out, in]; rows of x and y are @ldx and @ldy apart. */
struct pst_linear {
	const float *w;
	size_t in, out;
};
void pst_linear(struct pst_device *dev, struct pst_linear l, size_t rows, float *y, size_t ldy,
		const float *x, size_t ldx);
void pst_linear_dx(struct pst_device *dev, struct pst_linear l, size_t rows, float *dx, size_t lddx,
		   const float *dy, size_t lddy, bool acc);
void pst_linear_dw(struct pst_device *dev, struct pst_linear l, size_t rows, float *dw,
		   const float *dy, size_t lddy, const float *x, size_t ldx, bool acc);

struct pst_norm {
	const float *w, *x;
	float *rstd;
	size_t ldx, rows, cols;
	float eps;
};
void pst_tile_norm(struct pst_device *dev, const struct pst_norm *n, float *y);

/* dx = d loss / d x and dw; with @sum also sum += dx (rows @cols apart). */
void pst_tile_norm_bwd(struct pst_device *dev, const struct pst_norm *n, float *dx, size_t lddx,
		       float *dw, float *sum, const float *dy);

/* y = a + b over n; y may be a. */
void pst_tile_sum(struct pst_device *dev, float *y, const float *a, const float *b, size_t n);

void pst_tile_embed(struct pst_device *dev, float *y, const float *table, const int32_t *id,
		    size_t rows, size_t cols);
void pst_tile_embed_bwd(struct pst_device *dev, float *dtable, const float *dy, const int32_t *id,
			size_t rows, size_t vocab, size_t cols);

#endif /* PST_TILE_H */
