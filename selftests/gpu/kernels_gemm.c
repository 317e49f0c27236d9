/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm and gemm_bf16 on CUDA against ref, and against sums in fp64: in the places that
 * emulate_table.h names.
 */
#include "kernels/agree.h"
#include "kernels/bf16.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/gpu/kernels_ops.h"
#include "selftests/lib/test.h"

#include <math.h>

/* Between what fp32 sums leave and what two bf16 an element would (1e-5). */
#define GATE 5e-7

FIXTURE(dense)
{
	int unused;
};

FIXTURE_VARIANT(dense)
{
	enum pst_op op;
};

FIXTURE_VARIANT_ADD(dense, gemm){.op = PST_OP_gemm};
FIXTURE_VARIANT_ADD(dense, gemm_bf16){.op = PST_OP_gemm_bf16};

FIXTURE_SETUP(dense)
{
}

FIXTURE_TEARDOWN(dense)
{
}

static void agree(enum pst_op op, const struct pst_agree_shape *shapes, size_t n, uint64_t seed)
{
	struct pst_agree_result res = {0};

	emulate_seed(seed);
	EXPECT_EQ(0, pst_agree_op(&kernels_ops, op, shapes, n, seed, 0, &res));
	if (res.text[0])
		printf("# %s\n", res.text);
	printf("# %s: relative error %.2g\n", pst_op_name(op), res.error);
}

TEST_F(dense, agrees_with_ref)
{
	agree(variant->op, pst_agree_shapes, pst_agree_nshapes, 1);
}

/* Steps beyond the two places, both kinds of small tiles, odd ends of all three sizes. */
TEST_F(dense, agrees_with_ref_over_many_terms)
{
	static const struct pst_agree_shape shapes[] = {{3, 70, 333}, {67, 65, 160}, {32, 64, 96}};

	agree(variant->op, shapes, 3, 2);
}

TEST_F(dense, stays_within_its_buffers)
{
	static const struct pst_agree_shape shapes[] = {{5, 33, 7}, {36, 68, 36}, {1, 3, 1}};
	struct pst_agree_result res = {0};

	for (int i = 0; i < 3; i++)
		EXPECT_EQ(0, pst_agree_guarded(&kernels_ops, variant->op, &shapes[i], 7, &res));
	if (res.text[0])
		printf("# %s\n", res.text);
}

static float *random_floats(size_t n, uint64_t seed)
{
	float *x = NULL;

	ASSERT_EQ(0, posix_memalign((void **)&x, 16, (n + 1) * sizeof(*x)));
	for (size_t i = 0; i < n; i++)
		x[i] = (float)(test_random(&seed) >> 40) / (float)(1 << 23) - 1;
	return x;
}

static uint16_t *narrowed(const float *x, size_t n)
{
	uint16_t *y = NULL;

	ASSERT_EQ(0, posix_memalign((void **)&y, 16, (n + 1) * sizeof(*y)));
	for (size_t i = 0; i < n; i++)
		y[i] = pst_bf16_from_f32(x[i]);
	return y;
}

/* |c - a b| / |a b|, the latter in fp64; b is [n, k]. */
static double distance(const float *c, size_t m, size_t n, size_t k, const float *a, const float *b)
{
	double diff = 0, norm = 0;

	for (size_t i = 0; i < m * n; i++) {
		double want = 0;

		for (size_t p = 0; p < k; p++)
			want += (double)a[i / n * k + p] * b[i % n * k + p];
		diff += (c[i] - want) * (c[i] - want);
		norm += want * want;
	}
	return sqrt(diff / norm);
}

/* How far it is from exact sums: three parts of fp32 lose nothing that matters. */
TEST(gemm_is_as_exact_as_fp32)
{
	enum { M = 34, N = 40, K = 2048 };
	float *a = random_floats(M * K, 3), *b = random_floats(N * K, 4);
	float *c = random_floats(M * N, 5);
	uint16_t *narrow = narrowed(b, N * K);
	double d;

	kernels_ops.gemm(0, 1, M, N, K, a, K, b, K, c, N, 0);
	d = distance(c, M, N, K, a, b);
	printf("# gemm, %d terms: relative error %.2g against fp64\n", K, d);
	EXPECT_TRUE(d < GATE);
	for (int i = 0; i < N * K; i++)
		b[i] = pst_bf16_to_f32(narrow[i]);
	kernels_ops.gemm_bf16(0, 1, M, N, K, a, K, narrow, K, c, N, 0);
	d = distance(c, M, N, K, a, b);
	printf("# gemm_bf16, %d terms: relative error %.2g against fp64\n", K, d);
	EXPECT_TRUE(d < GATE);
	free(a), free(b), free(c), free(narrow);
}

/* What a row is does not depend on how many there are: three sizes of tiles, the same bits. */
TEST(gemm_has_the_same_bits_in_tiles_of_any_size)
{
	enum { M = 2048, N = 1024, K = 37, FIRST = 517 };
	float *a = random_floats(M * K, 3), *b = random_floats(N * K, 4);
	float *c = random_floats(M * N, 5), *few = random_floats(100 * N, 6);
	float *want = calloc(M * N, sizeof(*want));
	uint16_t *narrow = narrowed(b, N * K);
	double diff = 0;

	EXPECT_EQ(128, (int)PST_CUDA_GEMM_ROWS((size_t)M, (size_t)N));
	kernels_ops.gemm(0, 1, M, N, K, a, K, b, K, c, N, 0);
	pst_ops_ref()->gemm(0, 1, M, N, K, a, K, b, K, want, N, 0);
	for (int i = 0; i < M * N; i++)
		diff = fmax(diff, fabs((double)c[i] - want[i]));
	EXPECT_TRUE(diff < 1e-5);
	for (size_t m = 100; m; m = m == 100 ? 31 : 0) {
		kernels_ops.gemm(0, 1, m, N, K, a + FIRST * K, K, b, K, few, N, 0);
		EXPECT_EQ(0, memcmp(few, c + FIRST * N, m * N * sizeof(*few)));
	}
	kernels_ops.gemm_bf16(0, 1, M, N, K, a, K, narrow, K, c, N, 0);
	for (size_t m = 100; m; m = m == 100 ? 31 : 0) {
		kernels_ops.gemm_bf16(0, 1, m, N, K, a + FIRST * K, K, narrow, K, few, N, 0);
		EXPECT_EQ(0, memcmp(few, c + FIRST * N, m * N * sizeof(*few)));
	}
	free(a), free(b), free(c), free(few), free(want), free(narrow);
}

/* Rows that begin on 16 bytes are read in another way than those that do not. */
TEST(gemm_addresses_change_no_bits)
{
	enum { M = 40, N = 60, K = 48, LD = 72 };
	float *a = random_floats(LD * LD, 3), *b = random_floats(LD * LD, 4);
	float *c = random_floats(M * N, 5), *d = random_floats(M * N, 6);
	float *odd = random_floats(LD * LD, 7);
	uint16_t *narrow = narrowed(b, LD * LD), *odd_narrow = narrowed(b, LD * LD);

	memcpy(odd + 1, a, LD * LD * sizeof(*a));
	memmove(odd_narrow + 1, odd_narrow, LD * LD * sizeof(*narrow));
	for (int i = 0; i < 4; i++) {
		int tb = i % 2;
		size_t ld = i < 2 ? LD : LD - 4; /* 16 bytes of fp32, but not of bf16 */

		kernels_ops.gemm(0, tb, M, N, K, a, ld, b, ld, c, N, 0);
		kernels_ops.gemm(0, tb, M, N, K, odd + 1, ld, b, ld, d, N, 0);
		EXPECT_EQ(0, memcmp(c, d, M * N * sizeof(*c)));
		kernels_ops.gemm_bf16(0, tb, M, N, K, a, ld, narrow, ld, c, N, 0);
		kernels_ops.gemm_bf16(0, tb, M, N, K, a, ld, odd_narrow + 1, ld, d, N, 0);
		EXPECT_EQ(0, memcmp(c, d, M * N * sizeof(*c)));
	}
	free(a), free(b), free(c), free(d), free(odd), free(narrow), free(odd_narrow);
}
