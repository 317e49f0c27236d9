/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

double REF(sumsq)(const real *x, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	return sum;
}
