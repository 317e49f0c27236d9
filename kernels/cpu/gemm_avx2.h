/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_avx2.h - what the files of op gemm for AVX2 share: the operand B and loads from it. */
#ifndef PST_GEMM_AVX2_H
#define PST_GEMM_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define L2_BYTES ((size_t)512 << 10)

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL	_Pragma("clang loop unroll(full)")
#define UNROLL4 _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL	_Pragma("GCC unroll 16")
#define UNROLL4 _Pragma("GCC unroll 4")
#endif

/* B of op gemm: fp32 or bf16, stored [k,n], or [n,k] if @trans. */
struct weight {
	const void *p;
	size_t ld;
	int trans, bf16;
};

static inline size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* A matrix of which the L2 cache can hold all and leave room for the others. */
static inline int fits_l2(size_t elements)
{
	return elements * sizeof(float) <= L2_BYTES / 2;
}

static inline float widen(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

INLINE __m256 load8(const void *p, size_t i, int bf16)
{
	if (!bf16)
		return _mm256_loadu_ps((const float *)p + i);

	__m128i h = _mm_loadu_si128((const __m128i *)((const uint16_t *)p + i));

	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

INLINE float load1(const void *p, size_t i, int bf16)
{
	return bf16 ? widen(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

INLINE const void *at(const void *p, size_t i, int bf16)
{
	return bf16 ? (const void *)((const uint16_t *)p + i)
		    : (const void *)((const float *)p + i);
}

/* C = or += A B where @b is stored [n,k] and @m is small; as op gemm. */
void pst_avx2_gemm_stream(size_t m, size_t n, size_t k, const float *a, size_t lda,
			  const struct weight *b, float *c, size_t ldc, int acc);

#endif /* PST_GEMM_AVX2_H */
