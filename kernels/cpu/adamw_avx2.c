/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The update is bound by memory, so it is done with the roundings of the reference, operation by
 * operation: a server without AVX2 publishes the same bits.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vec_avx2.h"

#include <math.h>

struct step {
	__m256 decay, b1, b2, c1, c2, size, root, eps, gscale;
};

static inline struct step step_of(float lr, float b1, float b2, float eps, float wd, float bc1,
				  float bc2, float gscale)
{
	return (struct step){
		.decay = _mm256_set1_ps(lr * wd),
		.b1 = _mm256_set1_ps(b1),
		.b2 = _mm256_set1_ps(b2),
		.c1 = _mm256_set1_ps(1 - b1),
		.c2 = _mm256_set1_ps(1 - b2),
		.size = _mm256_set1_ps(lr / bc1),
		.root = _mm256_set1_ps(sqrtf(bc2)),
		.eps = _mm256_set1_ps(eps),
		.gscale = _mm256_set1_ps(gscale),
	};
}

/* Up to 8 weights; returns them as they are now. */
static inline __m256 eight(const struct step *s, float *wp, float *mp, float *vp, const float *gp,
			   size_t n)
{
	__m256 w = pst_load_ps(wp, n), m = pst_load_ps(mp, n), v = pst_load_ps(vp, n);
	__m256 g = gp ? pst_load_ps(gp, n) : _mm256_setzero_ps();
	__m256 root;

	g = _mm256_mul_ps(g, s->gscale);
	w = _mm256_sub_ps(w, _mm256_mul_ps(s->decay, w));
	m = _mm256_add_ps(_mm256_mul_ps(s->b1, m), _mm256_mul_ps(s->c1, g));
	v = _mm256_add_ps(_mm256_mul_ps(s->b2, v), _mm256_mul_ps(s->c2, _mm256_mul_ps(g, g)));
	root = _mm256_add_ps(_mm256_div_ps(_mm256_sqrt_ps(v), s->root), s->eps);
	w = _mm256_sub_ps(w, _mm256_div_ps(_mm256_mul_ps(s->size, m), root));
	pst_store_ps(mp, n, m);
	pst_store_ps(vp, n, v);
	pst_store_ps(wp, n, w);
	return w;
}

void pst_avx2_adamw(float *w, float *m, float *v, float *out, const float *g, size_t n, float lr,
		    float b1, float b2, float eps, float wd, float bc1, float bc2, float gscale)
{
	struct step s = step_of(lr, b1, b2, eps, wd, bc1, bc2, gscale);

	for (size_t i = 0; i < n; i += 8) {
		__m256 now = eight(&s, w + i, m + i, v + i, g ? g + i : NULL, n - i);

		if (out)
			pst_store_ps(out + i, n - i, now);
	}
}

void pst_avx2_adamw_bf16(float *w, float *m, float *v, uint16_t *out, const float *g, size_t n,
			 float lr, float b1, float b2, float eps, float wd, float bc1, float bc2,
			 float gscale)
{
	struct step s = step_of(lr, b1, b2, eps, wd, bc1, bc2, gscale);

	for (size_t i = 0; i < n; i += 8) {
		__m256 now = eight(&s, w + i, m + i, v + i, g ? g + i : NULL, n - i);

		if (out)
			pst_store_bf16(out + i, n - i, now);
	}
}
