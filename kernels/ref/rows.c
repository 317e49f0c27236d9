/* SPDX-License-Identifier: Apache-2.0 */
/* Whole rows on their way to the experts and back. */
#include "kernels/ref/ref.h"

#include <string.h>

void REF(gather)(real *y, const real *x, const int32_t *idx, size_t rows, size_t cols)
{
	for (size_t r = 0; r < rows; r++)
		memcpy(y + r * cols, x + (size_t)idx[r] * cols, cols * sizeof(*x));
}

void REF(combine)(real *y, const real *x, const real *w, const int32_t *slot, size_t tokens,
		  size_t k, size_t cols, int acc)
{
	for (size_t t = 0; t < tokens; t++, slot += k, y += cols) {
		for (size_t c = 0; c < cols; c++) {
			real sum = 0;

			for (size_t j = 0; j < k; j++) {
				real xi = x[(size_t)slot[j] * cols + c];

				sum += w ? w[t * k + j] * xi : xi;
			}
			y[c] = acc ? y[c] + sum : sum;
		}
	}
}

void REF(combine_dw)(real *dw, const real *dy, const real *x, const int32_t *slot, size_t tokens,
		     size_t k, size_t cols)
{
	for (size_t i = 0; i < tokens * k; i++) {
		const real *a = dy + i / k * cols, *b = x + (size_t)slot[i] * cols;
		double sum = 0;

		for (size_t c = 0; c < cols; c++)
			sum += (double)a[c] * b[c];
		dw[i] = (real)sum;
	}
}

void REF(scatter_scaled)(real *dx, const real *dy, const real *w, const int32_t *slot,
			 size_t tokens, size_t k, size_t cols)
{
	for (size_t i = 0; i < tokens * k; i++) {
		const real *from = dy + i / k * cols;
		real *to = dx + (size_t)slot[i] * cols;

		for (size_t c = 0; c < cols; c++)
			to[c] = w[i] * from[c];
	}
}

void REF(add)(real *y, const real *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
}
