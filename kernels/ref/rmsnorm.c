/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <tgmath.h>

void REF(rmsnorm)(real *y, size_t ldy, real *rstd, const real *x, size_t ldx, const real *w,
		  size_t rows, size_t cols, real eps)
{
	for (size_t r = 0; r < rows; r++, x += ldx, y += ldy) {
		double sum = 0;

		for (size_t c = 0; c < cols; c++)
			sum += (double)x[c] * x[c];
		rstd[r] = (real)(1 / sqrt(sum / (double)cols + eps));
		for (size_t c = 0; c < cols; c++)
			y[c] = x[c] * rstd[r] * w[c];
	}
}

/* With n = x rstd: dx = rstd (dy w - n mean(dy w n)). */
void REF(rmsnorm_dx)(real *dx, size_t lddx, const real *dy, size_t lddy, const real *x, size_t ldx,
		     const real *w, const real *rstd, size_t rows, size_t cols)
{
	for (size_t r = 0; r < rows; r++, dx += lddx, dy += lddy, x += ldx) {
		double sum = 0;
		real f;

		for (size_t c = 0; c < cols; c++)
			sum += (double)(dy[c] * w[c]) * x[c];
		f = (real)(sum / (double)cols * rstd[r] * rstd[r]);
		for (size_t c = 0; c < cols; c++)
			dx[c] = rstd[r] * (dy[c] * w[c] - x[c] * f);
	}
}

void REF(rmsnorm_dw)(real *dw, const real *dy, size_t lddy, const real *x, size_t ldx,
		     const real *rstd, size_t rows, size_t cols)
{
	for (size_t c = 0; c < cols; c++)
		dw[c] = 0;
	for (size_t r = 0; r < rows; r++, dy += lddy, x += ldx)
		for (size_t c = 0; c < cols; c++)
			dw[c] += dy[c] * (x[c] * rstd[r]);
}
