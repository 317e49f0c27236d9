/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/bf16.h"
#include "kernels/ref/ref.h"

#include <tgmath.h>

struct step {
	real decay, b1, b2, c1, c2, size, root, eps, gscale;
};

static struct step step_of(real lr, real b1, real b2, real eps, real wd, real bc1, real bc2,
			   real gscale)
{
	return (struct step){
		.decay = lr * wd,
		.b1 = b1,
		.b2 = b2,
		.c1 = 1 - b1,
		.c2 = 1 - b2,
		.size = lr / bc1,
		.root = sqrt(bc2),
		.eps = eps,
		.gscale = gscale,
	};
}

static real one(const struct step *s, real w, real *m, real *v, real g)
{
	g *= s->gscale;
	w -= s->decay * w;
	*m = s->b1 * *m + s->c1 * g;
	*v = s->b2 * *v + s->c2 * (g * g);
	return w - s->size * *m / (sqrt(*v) / s->root + s->eps);
}

void REF(adamw)(real *w, real *m, real *v, real *out, const real *g, size_t n, real lr, real b1,
		real b2, real eps, real wd, real bc1, real bc2, real gscale)
{
	struct step s = step_of(lr, b1, b2, eps, wd, bc1, bc2, gscale);

	for (size_t i = 0; i < n; i++) {
		w[i] = one(&s, w[i], m + i, v + i, g ? g[i] : 0);
		if (out)
			out[i] = w[i];
	}
}

void REF(adamw_bf16)(real *w, real *m, real *v, uint16_t *out, const real *g, size_t n, real lr,
		     real b1, real b2, real eps, real wd, real bc1, real bc2, real gscale)
{
	struct step s = step_of(lr, b1, b2, eps, wd, bc1, bc2, gscale);

	for (size_t i = 0; i < n; i++) {
		w[i] = one(&s, w[i], m + i, v + i, g ? g[i] : 0);
		if (out)
			out[i] = pst_bf16_from_f32((float)w[i]);
	}
}
