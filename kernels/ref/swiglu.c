/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <tgmath.h>

static real sigmoid(real x)
{
	return 1 / (1 + exp(-x));
}

void REF(swiglu)(real *a, const real *g, const real *u, size_t n)
{
	for (size_t i = 0; i < n; i++)
		a[i] = g[i] * sigmoid(g[i]) * u[i];
}

void REF(swiglu_bwd)(real *dg, real *du, real *a, const real *da, const real *g, const real *u,
		     size_t n)
{
	for (size_t i = 0; i < n; i++) {
		real gi = g[i], ui = u[i], dai = da[i], s = sigmoid(gi), silu = gi * s;

		a[i] = silu * ui;
		du[i] = dai * silu;
		dg[i] = dai * ui * (s + silu * (1 - s));
	}
}
