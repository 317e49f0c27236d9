/* SPDX-License-Identifier: Apache-2.0 */
/* gemm.c - the matrix product of this CPU's kernels against sums in fp64. */
#include <math.h>

#include "kernels/op.h"
#include "selftests/lib/test.h"

#define GUARD 12345.5f
#define PAD   64

struct product {
	int ta, tb, acc, bf16;
	size_t m, n, k, lda, ldb, ldc;
	float *a, *b, *c, *was;
	uint16_t *h;
	double *want, *size; /* the sum, and the sum of absolute values */
	size_t na, nb, nc;
};

static size_t below(uint64_t *state, size_t n)
{
	return (size_t)(test_random(state) % n);
}

static float number(uint64_t *state)
{
	return (float)(int)(test_random(state) >> 40) / (float)(1 << 23) - 1.0f;
}

static float rounded_to_bf16(float x, uint16_t *h)
{
	uint32_t u;

	memcpy(&u, &x, sizeof(u));
	*h = (uint16_t)(u >> 16);
	u &= 0xffff0000;
	memcpy(&x, &u, sizeof(u));
	return x;
}

/* Operands end where their last element ends, so that ASan sees a read past it. */
static void product_fill(struct product *t, uint64_t *seed)
{
	size_t arows = t->ta ? t->k : t->m, acols = t->ta ? t->m : t->k;
	size_t brows = t->tb ? t->n : t->k, bcols = t->tb ? t->k : t->n;

	t->na = arows && acols ? (arows - 1) * t->lda + acols : 0;
	t->nb = brows && bcols ? (brows - 1) * t->ldb + bcols : 0;
	t->nc = t->m * t->ldc;
	t->a = malloc(t->na * sizeof(float) + 1);
	t->b = malloc(t->nb * sizeof(float) + 1);
	t->h = malloc(t->nb * sizeof(uint16_t) + 1);
	t->c = malloc((t->nc + 2 * PAD) * sizeof(float));
	t->was = malloc((t->nc + 2 * PAD) * sizeof(float));
	t->want = calloc(t->nc + 1, sizeof(double));
	t->size = calloc(t->nc + 1, sizeof(double));
	for (size_t i = 0; i < t->na; i++)
		t->a[i] = number(seed);
	for (size_t i = 0; i < t->nb; i++) {
		float rounded = rounded_to_bf16(number(seed), &t->h[i]);

		t->b[i] = t->bf16 ? rounded : number(seed);
	}
	for (size_t i = 0; i < t->nc + 2 * PAD; i++)
		t->was[i] = t->c[i] = GUARD;
	for (size_t i = 0; i < t->m; i++)
		for (size_t j = 0; j < t->n; j++) {
			float *c = &t->c[PAD + i * t->ldc + j];

			t->was[PAD + i * t->ldc + j] = *c = t->acc ? number(seed) : NAN;
		}
}

static void product_free(struct product *t)
{
	free(t->a);
	free(t->b);
	free(t->h);
	free(t->c);
	free(t->was);
	free(t->want);
	free(t->size);
}

static void product_want(struct product *t)
{
	for (size_t i = 0; i < t->m; i++)
		for (size_t j = 0; j < t->n; j++) {
			double sum = t->acc ? t->was[PAD + i * t->ldc + j] : 0, size = fabs(sum);

			for (size_t p = 0; p < t->k; p++) {
				double x = t->a[t->ta ? p * t->lda + i : i * t->lda + p];
				double y = t->b[t->tb ? j * t->ldb + p : p * t->ldb + j];

				sum += x * y;
				size += fabs(x * y);
			}
			t->want[i * t->ldc + j] = sum;
			t->size[i * t->ldc + j] = size;
		}
}

static void product_run(struct product *t)
{
	const struct pst_ops *o = pst_ops_cpu();

	if (t->bf16)
		o->gemm_bf16(t->ta, t->tb, t->m, t->n, t->k, t->a, t->lda, t->h, t->ldb, t->c + PAD,
			     t->ldc, t->acc);
	else
		o->gemm(t->ta, t->tb, t->m, t->n, t->k, t->a, t->lda, t->b, t->ldb, t->c + PAD,
			t->ldc, t->acc);
}

/* How many elements of the whole of C, guards and gaps too, are not what they must be. */
static size_t product_wrong(const struct product *t)
{
	size_t wrong = 0;

	for (size_t x = 0; x < t->nc + 2 * PAD; x++) {
		size_t e = x - PAD;

		if (x < PAD || e >= t->nc || e % t->ldc >= t->n)
			wrong += t->c[x] != GUARD;
		else
			wrong += !(fabs(t->c[x] - t->want[e]) <= 1e-6 * t->size[e] + 1e-30);
	}
	return wrong;
}

static uint64_t digest_add(uint64_t digest, const float *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t u;

		memcpy(&u, &p[i], sizeof(u));
		digest = (digest ^ u) * 0x100000001b3;
	}
	return digest;
}

static struct product product_of(int flags, size_t m, size_t n, size_t k, size_t gap)
{
	struct product t = {.ta = flags & 1,
			    .tb = flags >> 1 & 1,
			    .acc = flags >> 2 & 1,
			    .bf16 = flags >> 3 & 1,
			    .m = m,
			    .n = n,
			    .k = k};

	t.lda = (t.ta ? m : k) + gap;
	t.ldb = (t.tb ? k : n) + gap;
	t.ldc = n + gap + (n + gap == 0);
	return t;
}

static uint64_t check(int flags, size_t m, size_t n, size_t k, size_t gap, uint64_t *seed)
{
	struct product t = product_of(flags, m, n, k, gap);
	uint64_t digest;
	size_t wrong;

	product_fill(&t, seed);
	product_want(&t);
	product_run(&t);
	wrong = product_wrong(&t);
	if (wrong)
		printf("# %zu wrong: ta %d tb %d acc %d bf16 %d m %zu n %zu k %zu gap %zu\n", wrong,
		       t.ta, t.tb, t.acc, t.bf16, m, n, k, gap);
	EXPECT_EQ((size_t)0, wrong);
	digest = digest_add(0, t.c, t.nc + 2 * PAD);
	product_free(&t);
	return digest;
}

TEST(every_flag_and_odd_sizes)
{
	uint64_t seed = 1, digest = 0;

	for (int round = 0; round < 60; round++)
		for (int flags = 0; flags < 16; flags++) {
			size_t m = below(&seed, 41), n = below(&seed, 41), k = below(&seed, 41);

			digest = digest * 31 + check(flags, m, n, k, (size_t)round % 5, &seed);
		}
	printf("# digest %016llx\n", (unsigned long long)digest);
}

/* Past every block size: rows, columns and sums of several blocks, and their remainders. */
TEST(blocks)
{
	static const size_t shape[][3] = {{200, 33, 70}, {64, 70, 300}, {9, 70, 530},
					  {13, 40, 777}, {400, 16, 9},	{1, 130, 1100},
					  {3, 64, 257},	 {12, 31, 512}, {390, 50, 513}};
	uint64_t seed = 2, digest = 0;

	for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++)
		for (int flags = 0; flags < 16; flags++)
			digest = digest * 31 +
				 check(flags, shape[i][0], shape[i][1], shape[i][2], i % 3, &seed);
	printf("# digest %016llx\n", (unsigned long long)digest);
}

TEST(empty_sum)
{
	uint64_t seed = 3;

	for (int flags = 0; flags < 16; flags++) {
		check(flags, 7, 19, 0, 2, &seed);
		check(flags, 0, 19, 3, 0, &seed);
		check(flags, 19, 0, 3, 0, &seed);
	}
}

/* The same product with every operand moved by @off elements from a line's start. */
static uint64_t moved(struct product t, size_t off)
{
	size_t bytes = (t.na + t.nb + t.nb + t.nc + 2 * PAD + 64) * sizeof(float);
	float *room = aligned_alloc(64, (bytes + 4 * 64 + 63) / 64 * 64), *end = room + off;
	struct product copy = t;
	uint64_t digest;

	copy.a = memcpy(end, t.a, t.na * sizeof(float));
	end += t.na;
	copy.b = memcpy(end, t.b, t.nb * sizeof(float));
	end += t.nb;
	copy.c = memcpy(end, t.c, (t.nc + 2 * PAD) * sizeof(float));
	end += t.nc + 2 * PAD;
	copy.h = memcpy((uint16_t *)end + off, t.h, t.nb * sizeof(uint16_t));
	product_run(&copy);
	digest = digest_add(0, copy.c, t.nc + 2 * PAD);
	free(room);
	return digest;
}

TEST(same_bits_at_every_alignment_and_time)
{
	static const size_t shape[][3] = {
		{1, 37, 300}, {8, 37, 130}, {40, 37, 300}, {14, 64, 64}, {200, 20, 20}};
	uint64_t seed = 4;

	for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++)
		for (int flags = 0; flags < 16; flags++) {
			struct product t =
				product_of(flags, shape[i][0], shape[i][1], shape[i][2], i % 2);
			uint64_t first;

			product_fill(&t, &seed);
			first = moved(t, 0);
			EXPECT_EQ(first, moved(t, 0));
			for (size_t off = 1; off < 16; off += 3)
				EXPECT_EQ(first, moved(t, off));
			product_free(&t);
		}
}

/* Op by op the caller may cut n: whole tiles keep their bits. */
TEST(columns_can_be_split)
{
	uint64_t seed = 5;

	for (int flags = 0; flags < 16; flags++) {
		struct product t = product_of(flags, 21, 96, 130, 0), part;
		uint64_t whole;

		product_fill(&t, &seed);
		memset(t.c, 0, (t.nc + 2 * PAD) * sizeof(float));
		product_run(&t);
		whole = digest_add(0, t.c, t.nc + 2 * PAD);
		memset(t.c, 0, (t.nc + 2 * PAD) * sizeof(float));
		for (size_t j = 0; j < t.n; j += 32) {
			part = t;
			part.n = 32;
			part.b += t.tb ? j * t.ldb : j;
			part.h += t.tb ? j * t.ldb : j;
			part.c += j;
			product_run(&part);
		}
		EXPECT_EQ(whole, digest_add(0, t.c, t.nc + 2 * PAD));
		product_free(&t);
	}
}

/* A NaN or an infinity spoils its own row or column and nothing else. */
TEST(not_a_number_stays_in_its_row)
{
	uint64_t seed = 6;

	for (size_t m = 1; m < 30; m += 7)
		for (int flags = 0; flags < 4; flags++) {
			struct product t = product_of(flags, m, 21, 19, 0);

			product_fill(&t, &seed);
			t.a[t.ta ? m - 1 : (m - 1) * t.lda] = NAN;
			product_run(&t);
			for (size_t i = 0; i < m; i++)
				for (size_t j = 0; j < t.n; j++)
					EXPECT_EQ(i == m - 1, isnan(t.c[PAD + i * t.ldc + j]) != 0);
			product_free(&t);
		}
}

TEST_MAIN
