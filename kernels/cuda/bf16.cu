/* SPDX-License-Identifier: Apache-2.0 */
/* Casts between fp32 and bf16, eight elements a thread: 16 bytes on the narrow side. */
#include "kernels/cuda/block.cuh"

#define EACH 8

union eight {
	float4 f;
	uint16_t h[EACH];
};

static __device__ bool both_wide(const void *a, const void *b)
{
	return is_wide(a, 0) && is_wide(b, 0);
}

static __device__ void eight_to_bf16(uint16_t *y, const float *x)
{
	quad a = load_quad<true>(x, 4), b = load_quad<true>(x + 4, 4);
	union eight to;

	for (int i = 0; i < 4; i++) {
		to.h[i] = (uint16_t)bf16_of(a.v[i]);
		to.h[i + 4] = (uint16_t)bf16_of(b.v[i]);
	}
	store16(y, to.f);
}

extern "C" __global__ void to_bf16(uint16_t *y, const float *x, size_t n)
{
	bool wide = both_wide(y, x);

	for (size_t i = EACH * grid_thread(); i < n; i += EACH * grid_threads()) {
		if (wide && n - i >= EACH)
			eight_to_bf16(y + i, x + i);
		else
			for (size_t j = i; j < n && j < i + EACH; j++)
				y[j] = (uint16_t)bf16_of(x[j]);
	}
}

static __device__ void eight_from_bf16(float *y, const uint16_t *x)
{
	union eight from;
	quad a, b;

	from.f = load16(x);
	for (int i = 0; i < 4; i++) {
		a.v[i] = bf16_to(from.h[i]);
		b.v[i] = bf16_to(from.h[i + 4]);
	}
	store_quad<true>(y, a, 4);
	store_quad<true>(y + 4, b, 4);
}

extern "C" __global__ void from_bf16(float *y, const uint16_t *x, size_t n)
{
	bool wide = both_wide(y, x);

	for (size_t i = EACH * grid_thread(); i < n; i += EACH * grid_threads()) {
		if (wide && n - i >= EACH)
			eight_from_bf16(y + i, x + i);
		else
			for (size_t j = i; j < n && j < i + EACH; j++)
				y[j] = bf16_to(x[j]);
	}
}
