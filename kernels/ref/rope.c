/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

void REF(rope)(real *x, size_t ldx, size_t rows, size_t dim, const int32_t *pos, const real *cos_t,
	       const real *sin_t, int inverse)
{
	size_t half = dim / 2;

	for (size_t r = 0; r < rows; r++, x += ldx) {
		const real *co = cos_t + (size_t)pos[r] * half;
		const real *si = sin_t + (size_t)pos[r] * half;

		for (size_t i = 0; i < half; i++) {
			real a = x[2 * i], b = x[2 * i + 1], s = inverse ? -si[i] : si[i];

			x[2 * i] = a * co[i] - b * s;
			x[2 * i + 1] = a * s + b * co[i];
		}
	}
}
