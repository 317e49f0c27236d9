/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW (arXiv:1711.05101): every array is read and written once. */
#include "kernels/cuda/block.cuh"

struct step {
	float decay, b1, b2, c1, c2, size, root, eps, gscale;
};

static __device__ struct step step_of(float lr, float b1, float b2, float eps, float wd, float bc1,
				      float bc2, float gscale)
{
	struct step s;

	s.decay = lr * wd;
	s.b1 = b1;
	s.b2 = b2;
	s.c1 = 1 - b1;
	s.c2 = 1 - b2;
	s.size = lr / bc1;
	s.root = sqrtf(bc2);
	s.eps = eps;
	s.gscale = gscale;
	return s;
}

static __device__ float one(const struct step &s, float w, float &m, float &v, float g)
{
	g *= s.gscale;
	w -= s.decay * w;
	m = s.b1 * m + s.c1 * g;
	v = s.b2 * v + s.c2 * (g * g);
	return w - s.size * m / (sqrtf(v) / s.root + s.eps);
}

/* The new weights of four; the caller stores them to its kind of snapshot, too. */
template <bool WIDE>
static __device__ quad four(const struct step &s, float *w, float *m, float *v, const float *g,
			    size_t left)
{
	quad qw = load_quad<WIDE>(w, left), qm = load_quad<WIDE>(m, left),
	     qv = load_quad<WIDE>(v, left), qg = load_quad<WIDE>(g ? g : w, g ? left : 0);

	for (int j = 0; j < 4; j++)
		qw.v[j] = one(s, qw.v[j], qm.v[j], qv.v[j], qg.v[j]);
	store_quad<WIDE>(w, qw, left);
	store_quad<WIDE>(m, qm, left);
	store_quad<WIDE>(v, qv, left);
	return qw;
}

template <bool WIDE>
static __device__ void update(float *w, float *m, float *v, float *out, const float *g, size_t n,
			      const struct step &s)
{
	FOR_QUADS(i, grid_thread(), grid_threads(), n)
	{
		quad q = four<WIDE>(s, w + i, m + i, v + i, g ? g + i : NULL, n - i);

		if (out)
			store_quad<WIDE>(out + i, q, n - i);
	}
}

template <bool WIDE>
static __device__ void update_bf16(float *w, float *m, float *v, uint16_t *out, const float *g,
				   size_t n, const struct step &s)
{
	FOR_QUADS(i, grid_thread(), grid_threads(), n)
	{
		quad q = four<WIDE>(s, w + i, m + i, v + i, g ? g + i : NULL, n - i);

		for (size_t j = 0; out && j < 4 && i + j < n; j++)
			out[i + j] = (uint16_t)bf16_of(q.v[j]);
	}
}

static __device__ bool all_wide(const float *w, const float *m, const float *v, const float *g)
{
	return is_wide(w, 0) && is_wide(m, 0) && is_wide(v, 0) && is_wide(g, 0);
}

extern "C" __global__ void adamw(float *w, float *m, float *v, float *out, const float *g, size_t n,
				 float lr, float b1, float b2, float eps, float wd, float bc1,
				 float bc2, float gscale)
{
	struct step s = step_of(lr, b1, b2, eps, wd, bc1, bc2, gscale);

	if (all_wide(w, m, v, g) && is_wide(out, 0))
		update<true>(w, m, v, out, g, n, s);
	else
		update<false>(w, m, v, out, g, n, s);
}

extern "C" __global__ void adamw_bf16(float *w, float *m, float *v, uint16_t *out, const float *g,
				      size_t n, float lr, float b1, float b2, float eps, float wd,
				      float bc1, float bc2, float gscale)
{
	struct step s = step_of(lr, b1, b2, eps, wd, bc1, bc2, gscale);

	if (all_wide(w, m, v, g))
		update_bf16<true>(w, m, v, out, g, n, s);
	else
		update_bf16<false>(w, m, v, out, g, n, s);
}
