/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unit.cuh - eight elements that lie side by side, of operands that may begin anywhere: on their
 * way from memory to tiles in shared memory, of bf16 in 16-byte pieces.
 */
#ifndef PST_CUDA_UNIT_H
#define PST_CUDA_UNIT_H

#include "kernels/cuda/block.cuh"

#define UNIT 8

template <class T> struct unit {
	T v[UNIT];
};

union piece {
	uint32_t w[4];
	float4 f;
	unit<uint16_t> u;
};

/* What is beyond @left is zero and not read. @wide: @p is on 16 bytes. */
static __device__ __forceinline__ unit<float> load_unit(const float *p, size_t left, bool wide)
{
	unit<float> u;
	quad a, b;

	if (wide && left >= UNIT)
		a = load_quad<true>(p, 4), b = load_quad<true>(p + 4, 4);
	else
		a = load_quad<false>(p, left), b = load_quad<false>(p + 4, left > 4 ? left - 4 : 0);
#pragma unroll
	for (int i = 0; i < 4; i++)
		u.v[i] = a.v[i], u.v[i + 4] = b.v[i];
	return u;
}

static __device__ __forceinline__ unit<uint16_t> load_unit(const uint16_t *p, size_t left,
							   bool wide)
{
	union piece to;

	if (wide && left >= UNIT) {
		to.f = load16(p);
		return to.u;
	}
#pragma unroll
	for (size_t i = 0; i < UNIT; i++)
		to.u.v[i] = i < left ? p[i] : (uint16_t)0;
	return to.u;
}

static __device__ __forceinline__ void store_unit(unsigned char *to, const unit<uint16_t> &u)
{
	union piece p;

	p.u = u;
	store16(to, p.f);
}

/* Rounded to bf16. */
static __device__ __forceinline__ void store_unit(unsigned char *to, const unit<float> &u)
{
	union piece p;

#pragma unroll
	for (int i = 0; i < 4; i++)
		p.w[i] = bf16_pair(u.v[2 * i], u.v[2 * i + 1]);
	store16(to, p.f);
}

#endif /* PST_CUDA_UNIT_H */
