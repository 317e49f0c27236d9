/* SPDX-License-Identifier: Apache-2.0 */
/* SwiGLU alone; the experts' own is in their products (experts.cu). */
#include "kernels/cuda/block.cuh"

template <bool WIDE>
static __device__ void forward(float *a, const float *g, const float *u, size_t n)
{
	FOR_QUADS(i, grid_thread(), grid_threads(), n)
	{
		quad gate = load_quad<WIDE>(g + i, n - i), up = load_quad<WIDE>(u + i, n - i), to;

		for (int j = 0; j < 4; j++)
			to.v[j] = gate.v[j] * sigmoid(gate.v[j]) * up.v[j];
		store_quad<WIDE>(a + i, to, n - i);
	}
}

extern "C" __global__ void swiglu(float *a, const float *g, const float *u, size_t n)
{
	if (is_wide(a, 0) && is_wide(g, 0) && is_wide(u, 0))
		forward<true>(a, g, u, n);
	else
		forward<false>(a, g, u, n);
}

/* All is read before anything is written, for outputs may lie on inputs. */
template <bool WIDE>
static __device__ void backward(float *dg, float *du, float *a, const float *da, const float *g,
				const float *u, size_t n)
{
	FOR_QUADS(i, grid_thread(), grid_threads(), n)
	{
		quad d = load_quad<WIDE>(da + i, n - i), gate = load_quad<WIDE>(g + i, n - i),
		     up = load_quad<WIDE>(u + i, n - i), to_a, to_u, to_g;

		for (int j = 0; j < 4; j++) {
			float s = sigmoid(gate.v[j]), silu = gate.v[j] * s;

			to_a.v[j] = silu * up.v[j];
			to_u.v[j] = d.v[j] * silu;
			to_g.v[j] = d.v[j] * up.v[j] * (s + silu * (1 - s));
		}
		store_quad<WIDE>(a + i, to_a, n - i);
		store_quad<WIDE>(du + i, to_u, n - i);
		store_quad<WIDE>(dg + i, to_g, n - i);
	}
}

extern "C" __global__ void swiglu_bwd(float *dg, float *du, float *a, const float *da,
				      const float *g, const float *u, size_t n)
{
	if (is_wide(dg, 0) && is_wide(du, 0) && is_wide(a, 0) && is_wide(da, 0) && is_wide(g, 0) &&
	    is_wide(u, 0))
		backward<true>(dg, du, a, da, g, u, n);
	else
		backward<false>(dg, du, a, da, g, u, n);
}
