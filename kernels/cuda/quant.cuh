/* SPDX-License-Identifier: Apache-2.0 */
/*
 * quant.cuh - codes of kernels/quant.h in registers: to bf16 by integer arithmetic, which is exact
 * and the same on every target, and from fp32.
 *
 * No conversion looks for NaN: a block that has one has the scale NaN.
 */
#ifndef PST_CUDA_QUANT_H
#define PST_CUDA_QUANT_H

#include "kernels/cuda/block.cuh"
#include "kernels/quant.h"

/* pst_quant_blocks(). */
static __device__ __forceinline__ size_t blocks_of(size_t n)
{
	return (n + PST_QUANT_BLOCK - 1) / PST_QUANT_BLOCK;
}

/*
 * Codes e4m3 in bytes 0 and 1 of @codes, or in 2 and 3 (UPPER), as two bf16. Exponent and fraction
 * are put where bf16 has its own; then all that is wrong is the bias, by 2^120, for numbers below
 * the normal ones, too.
 */
template <bool UPPER> static __device__ __forceinline__ uint32_t bf16x2_of_fp8(uint32_t codes)
{
	uint32_t t = bytes_of(codes, 0, UPPER ? 0x3424 : 0x1404);

	t = (t >> 4 & 0x07f007f0) | (t & 0x80008000);
	return fma_bf16x2(t, 0x7b807b80, 0x80008000);
}

/*
 * a[I] of packed int4. A nibble in the fraction of 128 is 128 more, and a code 8 less than its
 * nibble.
 */
template <int I> static __device__ __forceinline__ uint32_t bf16x2_of_int4(uint32_t word)
{
	return fma_bf16x2((word >> 4 * I & 0x000f000f) | 0x43004300, 0x3f803f80, 0xc308c308);
}

/* mma_e4m3() on bf16, for targets that lack it: products are exact, sums rounded elsewhere. */
static __device__ __forceinline__ void mma_e4m3_as_bf16(float d[4], const uint32_t a[4],
							uint32_t b0, uint32_t b1)
{
#pragma unroll
	for (int h = 0; h < 2; h++) {
		uint32_t b = h ? b1 : b0;
		uint32_t left[4] = {
			bf16x2_of_fp8<false>(a[2 * h]), bf16x2_of_fp8<false>(a[2 * h + 1]),
			bf16x2_of_fp8<true>(a[2 * h]), bf16x2_of_fp8<true>(a[2 * h + 1])};

		mma_bf16(d, left, bf16x2_of_fp8<false>(b), bf16x2_of_fp8<true>(b));
	}
}

/* pst_fp8_from_f32() of what a scale has made 448 at the most, but for rounding. */
static __device__ __forceinline__ uint32_t fp8_of(float f)
{
	uint32_t u = __float_as_uint(f), sign = u >> 24 & 0x80;

	u &= 0x7fffffff;
	if (u > 0x7f800000)
		return PST_FP8_NAN;
	if (u < 0x3c800000) /* 2^-6 */
		u = __float_as_uint(__uint_as_float(u) + 16384.0f) - 0x46800000;
	else
		u = ((u + 0x7ffff + (u >> 20 & 1)) >> 20) - (120 << 3);
	return sign | u;
}

/* Four codes, the first in the lowest byte. */
static __device__ __forceinline__ uint32_t fp8x4_of(const float v[4])
{
	if (has_fp8())
		return fp8x2_of(v[0], v[1]) | fp8x2_of(v[2], v[3]) << 16;
	return fp8_of(v[0]) | fp8_of(v[1]) << 8 | fp8_of(v[2]) << 16 | fp8_of(v[3]) << 24;
}

static __device__ __forceinline__ float fp8_to(uint32_t code)
{
	uint32_t u = code & 0x7f;
	float f = u < 8 ? (float)u * 0x1p-9f : __uint_as_float((u << 20) + (120u << 23));

	if (u == PST_FP8_NAN)
		f = __uint_as_float(0x7fc00000);
	return code & 0x80 ? -f : f;
}

/* Of the largest magnitude's bits: quant.h's rule. */
static __device__ __forceinline__ float fp8_scale(uint32_t most)
{
	float scale = __uint_as_float(most) / PST_FP8_MOST;

	if (most >= 0x7f800000)
		return __uint_as_float(0x7fc00000);
	return scale < 0x1p-126f ? 0x1p-126f : scale;
}

static __device__ __forceinline__ uint32_t magnitude(float f)
{
	return __float_as_uint(f) & 0x7fffffff;
}

static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static __device__ __forceinline__ uint32_t warp_most(uint32_t most)
{
	for (int step = 16; step; step /= 2)
		most = larger(most, __shfl_xor_sync(ALL_LANES, most, step));
	return most;
}

#endif /* PST_CUDA_QUANT_H */
