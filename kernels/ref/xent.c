/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <tgmath.h>

static real row_loss(real *x, size_t target, size_t vocab, real scale)
{
	real max = -INFINITY, at = x[target];
	double sum = 0;

	for (size_t c = 0; c < vocab; c++)
		max = x[c] > max ? x[c] : max;
	for (size_t c = 0; c < vocab; c++) {
		x[c] = exp(x[c] - max);
		sum += x[c];
	}
	for (size_t c = 0; c < vocab; c++)
		x[c] = (x[c] / (real)sum - (c == target)) * scale;
	return (real)(log(sum) + (max - at));
}

void REF(xent)(real *loss, real *logit, size_t ld, const int32_t *target, size_t rows, size_t vocab,
	       real scale)
{
	for (size_t r = 0; r < rows; r++, logit += ld) {
		if (target[r] >= 0) {
			loss[r] = row_loss(logit, (size_t)target[r], vocab, scale);
			continue;
		}
		loss[r] = 0;
		for (size_t c = 0; c < vocab; c++)
			logit[c] = 0;
	}
}
