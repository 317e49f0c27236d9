/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the experts' kernels of kernels/cuda/cuda.h do, one term after the other: bf16 in, fp32
 * sums, as said there. They reach weights through lists of addresses on the device.
 */
#include "selftests/gpu/libcuda_experts.h"

#include "kernels/bf16.h"

#include <math.h>

#define P(i) (p[i])
#define Z(i) ((size_t)v[i])

/* Entry @e of a list of addresses, as memory here. */
static void *entry(const void *list, size_t e)
{
	void *at;

	pthread_mutex_lock(&cuda.lock);
	at = cuda_at(((const CUdeviceptr *)list)[e], 1);
	pthread_mutex_unlock(&cuda.lock);
	return at;
}

static float silu(float g)
{
	return g / (1 + expf(-g));
}

/* Sum of @n terms, @step_a and @step_b apart. */
static float dot(const uint16_t *a, size_t step_a, const uint16_t *b, size_t step_b, size_t n)
{
	float sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += pst_bf16_to_f32(a[i * step_a]) * pst_bf16_to_f32(b[i * step_b]);
	return sum;
}

static void put(void *y, size_t i, float value, bool narrow)
{
	if (narrow)
		((uint16_t *)y)[i] = pst_bf16_from_f32(value);
	else
		((float *)y)[i] = value;
}

void cuda_experts_up(void *const *p, const uint64_t *v)
{
	uint16_t *a = P(0), *kept = P(1);
	const uint16_t *x = P(2);
	const int32_t *idx = P(4), *off = P(7);
	size_t ldx = Z(3), n = Z(8), hidden = Z(10), inter = Z(11);

	for (size_t e = 0; e < n; e++) {
		const uint16_t *gate = entry(P(5), e), *up = entry(P(6), e);

		for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++)
			for (size_t i = 0; i < inter; i++) {
				const uint16_t *row = x + (idx ? (size_t)idx[r] : r) * ldx;
				float g = dot(row, 1, gate + i * hidden, 1, hidden);
				float u = dot(row, 1, up + i * hidden, 1, hidden);

				a[r * inter + i] = pst_bf16_from_f32(silu(g) * u);
				if (!kept)
					continue;
				kept[r * 2 * inter + i] = pst_bf16_from_f32(g);
				kept[(r * 2 + 1) * inter + i] = pst_bf16_from_f32(u);
			}
	}
}

void cuda_experts_down(void *const *p, const uint64_t *v)
{
	const uint16_t *a = P(2);
	const int32_t *off = P(4);
	size_t n = Z(5), hidden = Z(7), inter = Z(8);

	for (size_t e = 0; e < n; e++) {
		const uint16_t *down = entry(P(3), e);

		for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++)
			for (size_t h = 0; h < hidden; h++)
				put(P(0), r * hidden + h,
				    dot(a + r * inter, 1, down + h * inter, 1, inter), (int)v[1]);
	}
}

void cuda_experts_da(void *const *p, const uint64_t *v)
{
	uint16_t *dg = P(0), *du = P(1), *a = P(2);
	const uint16_t *dy = P(3), *kept = P(4);
	const int32_t *off = P(6);
	size_t n = Z(7), hidden = Z(9), inter = Z(10);

	for (size_t e = 0; e < n; e++) {
		const uint16_t *down = entry(P(5), e);

		for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++)
			for (size_t i = 0; i < inter; i++) {
				float da = dot(dy + r * hidden, 1, down + i, inter, hidden);
				float g = pst_bf16_to_f32(kept[r * 2 * inter + i]);
				float u = pst_bf16_to_f32(kept[(r * 2 + 1) * inter + i]);
				float s = 1 / (1 + expf(-g));

				dg[r * inter + i] =
					pst_bf16_from_f32(da * u * s * (1 + g * (1 - s)));
				du[r * inter + i] = pst_bf16_from_f32(da * g * s);
				if (a)
					a[r * inter + i] = pst_bf16_from_f32(g * s * u);
			}
	}
}

void cuda_experts_dx(void *const *p, const uint64_t *v)
{
	const uint16_t *dg = P(2), *du = P(3);
	const int32_t *off = P(6);
	size_t n = Z(7), hidden = Z(9), inter = Z(10);

	for (size_t e = 0; e < n; e++) {
		const uint16_t *gate = entry(P(4), e), *up = entry(P(5), e);

		for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++)
			for (size_t h = 0; h < hidden; h++)
				put(P(0), r * hidden + h,
				    dot(dg + r * inter, 1, gate + h, hidden, inter) +
					    dot(du + r * inter, 1, up + h, hidden, inter),
				    (int)v[1]);
	}
}

void cuda_experts_dw(void *const *p, const uint64_t *v)
{
	const uint16_t *left = P(1), *right = P(2);
	const int32_t *idx = P(4), *off = P(5);
	size_t ldq = Z(3), n = Z(6), m = Z(7), k = Z(8);

	for (size_t e = 0; e < n; e++) {
		float *dw = entry(P(0), e);

		for (size_t i = 0; i < m * k; i++) {
			float sum = (int)v[9] ? dw[i] : 0;

			for (size_t r = (size_t)off[e]; r < (size_t)off[e + 1]; r++)
				sum += pst_bf16_to_f32(left[r * m + i / k]) *
				       pst_bf16_to_f32(
					       right[(idx ? (size_t)idx[r] : r) * ldq + i % k]);
			dw[i] = sum;
		}
	}
}
