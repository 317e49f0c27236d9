/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels for parts of heads of kernels/cuda/cuda.h do, one part after the other. */
#include "selftests/gpu/libcuda_engine.h"

#include "kernels/op.h"

#include <string.h>

#define P(i) (p[i])
#define Z(i) ((size_t)v[i])
#define I(i) ((int)v[i])

void cuda_copy_heads(void *const *p, const uint64_t *v)
{
	const float *x = P(3);
	float *y = P(0);

	for (size_t r = 0; r < Z(6); r++)
		for (size_t h = 0; h < Z(7); h++)
			memcpy(y + r * Z(1) + h * Z(2), x + r * Z(4) + h * Z(5), Z(8) * sizeof(*y));
}

void cuda_sum_heads(void *const *p, const uint64_t *v)
{
	const float *x = P(2);
	float *y = P(0);

	for (size_t r = 0; r < Z(5); r++)
		for (size_t c = 0; c < Z(7); c++) {
			float sum = 0;

			for (size_t h = 0; h < Z(6); h++)
				sum += x[r * Z(3) + h * Z(4) + c];
			y[r * Z(1) + c] = sum;
		}
}

/* The pairs of @split into the order of the op, or back. */
static void reorder(float *x, size_t dim, int back)
{
	float old[1024];

	memcpy(old, x, dim * sizeof(*x));
	for (size_t i = 0; i < dim; i++) {
		size_t apart = i / 2 + i % 2 * (dim / 2);

		x[back ? apart : i] = old[back ? i : apart];
	}
}

void cuda_rope_heads(void *const *p, const uint64_t *v)
{
	const int32_t *pos = P(6);
	size_t dim = Z(5);
	int split = I(9), inverse = I(10);

	for (size_t r = 0; r < Z(3); r++)
		for (size_t h = 0; h < Z(4); h++) {
			float *x = (float *)P(0) + r * Z(1) + h * Z(2);

			if (split && !inverse)
				reorder(x, dim, 0);
			pst_ops_ref()->rope(x, dim, 1, dim, pos + r, P(7), P(8), inverse);
			if (split && inverse)
				reorder(x, dim, 1);
		}
}
