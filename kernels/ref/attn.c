/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <tgmath.h>

static real dot(const real *a, const real *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return (real)sum;
}

static void axpy(real *y, real a, const real *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += a * x[i];
}

static void clear(real *x, size_t ld, size_t rows, size_t cols)
{
	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			x[r * ld + c] = 0;
}

/* log sum exp of one query against the first @n keys; -inf if there are none. */
static real row_lse(const real *q, const real *k, size_t ldk, size_t n, size_t dqk, real scale)
{
	real max = -INFINITY;
	double sum = 0;

	for (size_t j = 0; j < n; j++) {
		real s = scale * dot(q, k + j * ldk, dqk);

		if (!(s <= max)) /* a NaN is taken too */
			max = s;
	}
	if (max == -INFINITY)
		return max;
	for (size_t j = 0; j < n; j++)
		sum += exp(scale * dot(q, k + j * ldk, dqk) - max);
	return (real)(max + log(sum));
}

/* The scores are computed twice rather than kept: there is no scratch of their size. */
void REF(attn)(real *o, size_t ldo, real *lse, const real *q, size_t ldq, const real *k, size_t ldk,
	       const real *v, size_t ldv, size_t tq, size_t tk, size_t dqk, size_t dv, real scale)
{
	clear(o, ldo, tq, dv);
	for (size_t i = 0; i < tq; i++) {
		size_t n = i + 1 + tk > tq ? i + 1 + tk - tq : 0;

		lse[i] = row_lse(q + i * ldq, k, ldk, n, dqk, scale);
		for (size_t j = 0; j < n; j++) {
			real p = exp(scale * dot(q + i * ldq, k + j * ldk, dqk) - lse[i]);

			axpy(o + i * ldo, p, v + j * ldv, dv);
		}
	}
}

void REF(attn_bwd)(real *dq, size_t lddq, real *dk, size_t lddk, real *dv, size_t lddv,
		   const real *o, size_t ldo, const real *dout, size_t lddo, const real *lse,
		   const real *q, size_t ldq, const real *k, size_t ldk, const real *v, size_t ldv,
		   size_t t, size_t dqk, size_t dvdim, real scale)
{
	clear(dq, lddq, t, dqk);
	clear(dk, lddk, t, dqk);
	clear(dv, lddv, t, dvdim);
	for (size_t i = 0; i < t; i++) {
		const real *qi = q + i * ldq, *doi = dout + i * lddo;
		real d = dot(doi, o + i * ldo, dvdim);

		for (size_t j = 0; j <= i; j++) {
			real p = exp(scale * dot(qi, k + j * ldk, dqk) - lse[i]);
			real ds = p * (dot(doi, v + j * ldv, dvdim) - d) * scale;

			axpy(dv + j * lddv, p, doi, dvdim);
			axpy(dq + i * lddq, ds, k + j * ldk, dqk);
			axpy(dk + j * lddk, ds, qi, dqk);
		}
	}
}
