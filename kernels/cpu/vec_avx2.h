/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vec_avx2.h - what the AVX2 kernels share: exp, sums across lanes, tails.
 *
 * Tails: the last n % 8 elements go through the same vector code with a mask, so an element has
 * the same bits wherever a caller cut the row. Lanes that are masked off load as 0, are never
 * read from memory and never written.
 */
#ifndef PST_VEC_AVX2_H
#define PST_VEC_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Before a loop of four over an array of vectors, which is then kept in registers. */
#ifdef __clang__
#define PST_UNROLL4 _Pragma("unroll 4")
#else
#define PST_UNROLL4 _Pragma("GCC unroll 4")
#endif

/* All bits set in the first @n lanes (n <= 8; more is 8). */
static inline __m256i pst_mask_ps(size_t n)
{
	const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

	return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), lane);
}

/* The first @n of 8 floats (n >= 8: all 8), the other lanes 0. */
static inline __m256 pst_load_ps(const float *p, size_t n)
{
	return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, pst_mask_ps(n));
}

static inline void pst_store_ps(float *p, size_t n, __m256 x)
{
	if (n >= 8)
		_mm256_storeu_ps(p, x);
	else
		_mm256_maskstore_ps(p, pst_mask_ps(n), x);
}

/* ((0+4)+(2+6)) + ((1+5)+(3+7)) */
static inline float pst_hsum_ps(__m256 x)
{
	__m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	s = _mm_add_ps(s, _mm_movehl_ps(s, s));
	return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* (0+2) + (1+3) */
static inline double pst_hsum_pd(__m256d x)
{
	__m128d s = _mm_add_pd(_mm256_castpd256_pd128(x), _mm256_extractf128_pd(x, 1));

	return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
}

/* The largest lane; a NaN lane may or may not be seen. */
static inline float pst_hmax_ps(__m256 x)
{
	__m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

	m = _mm_max_ps(m, _mm_movehl_ps(m, m));
	return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/*
 * e^x within 1.1 ulp (tried on floats over the whole range): x = n ln 2 + r, |r| <= ln 2 / 2, and
 * e^r = 1 + r + r^2 q(r), q interpolated at the Chebyshev nodes. -inf: 0, inf: inf, NaN: NaN.
 * 2^n is applied in two halves, since it alone may be no float where the result is one.
 */
static inline __m256 pst_exp_ps(__m256 x)
{
	__m256 n, r, q;
	__m256i e, half;

	/* max and min return their second operand if one is NaN. */
	x = _mm256_max_ps(_mm256_set1_ps(-105.0f), x);
	x = _mm256_min_ps(_mm256_set1_ps(89.0f), x);
	n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)),
			    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
	r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
	r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
	q = _mm256_set1_ps(0x1.6d10fcp-10f);
	q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.120b62p-7f));
	q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.55551ap-5f));
	q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0x1.5554dep-3f));
	q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0.5f));
	q = _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r);
	q = _mm256_add_ps(q, _mm256_set1_ps(1.0f));

	e = _mm256_cvtps_epi32(n);
	half = _mm256_srai_epi32(e, 1);
	e = _mm256_sub_epi32(e, half);
	half = _mm256_slli_epi32(_mm256_add_epi32(half, _mm256_set1_epi32(127)), 23);
	e = _mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23);
	q = _mm256_mul_ps(q, _mm256_castsi256_ps(half));
	return _mm256_mul_ps(q, _mm256_castsi256_ps(e));
}

/* 1 / (1 + e^-x) */
static inline __m256 pst_sigmoid_ps(__m256 x)
{
	const __m256 one = _mm256_set1_ps(1.0f);
	__m256 e = pst_exp_ps(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)));

	return _mm256_div_ps(one, _mm256_add_ps(one, e));
}

/* The first @n of 8 bf16 as floats (n >= 8: all 8), the other lanes 0. */
static inline __m256 pst_load_bf16(const uint16_t *p, size_t n)
{
	uint16_t part[8] = {0};

	if (n < 8)
		p = memcpy(part, p, n * sizeof(*p));
	return _mm256_castsi256_ps(
		_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}

/* Nearest, ties to even; a NaN is kept, made quiet (kernels/bf16.h has one at a time). */
static inline void pst_store_bf16(uint16_t *p, size_t n, __m256 x)
{
	__m256i u = _mm256_castps_si256(x), high = _mm256_srli_epi32(u, 16), nan;
	uint16_t part[8];

	nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
	u = _mm256_add_epi32(u, _mm256_and_si256(high, _mm256_set1_epi32(1)));
	u = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), 16);
	u = _mm256_blendv_epi8(u, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
	u = _mm256_permute4x64_epi64(_mm256_packus_epi32(u, u), 0x88);
	if (n >= 8) {
		_mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(u));
		return;
	}
	_mm_storeu_si128((__m128i *)part, _mm256_castsi256_si128(u));
	memcpy(p, part, n * sizeof(*p));
}

#endif /* PST_VEC_AVX2_H */
