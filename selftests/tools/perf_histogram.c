/* SPDX-License-Identifier: Apache-2.0 */
/* The histogram of penstock-perf: its error is bounded, and nothing gets lost. */
#include "selftests/lib/test.h"
#include "tools/perf/histogram.h"

#include <math.h>

static struct histogram h, other;

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* One value alone is every percentile of itself, exactly. */
TEST(one_value)
{
	histogram_record(&h, 12345678901ull);
	for (double part = 0; part <= 1; part += 0.125)
		EXPECT_TRUE(histogram_percentile(&h, part) == 12345678901.0);
	EXPECT_TRUE(histogram_mean(&h) == 12345678901.0);
	EXPECT_TRUE(histogram_midmean(&h) == 12345678901.0);
	EXPECT_TRUE(histogram_deviation(&h) == 0);
}

TEST(empty)
{
	EXPECT_TRUE(histogram_percentile(&h, 0.5) == 0);
	EXPECT_TRUE(histogram_mean(&h) == 0);
	EXPECT_TRUE(histogram_deviation(&h) == 0);
}

/* Buckets follow each other without a hole or an overlap, up to the largest number. */
TEST(buckets_in_a_row)
{
	unsigned int last = 0;

	for (unsigned int bit = 9; bit < 64; bit++) {
		for (uint64_t low = 0; low < 512; low++) {
			unsigned int i = histogram_index((1ull << bit) + (low << (bit - 9)));

			ASSERT_LT(i, (unsigned int)HISTOGRAM_BUCKETS);
			ASSERT_LE(last, i);
			ASSERT_LE(i - last, bit == 9 ? i : 1u);
			last = i;
		}
	}
	EXPECT_EQ(HISTOGRAM_BUCKETS - 1, (int)histogram_index(UINT64_MAX));
	for (uint64_t v = 1; v < 100000; v++) {
		unsigned int step = histogram_index(v) - histogram_index(v - 1);

		EXPECT_LE(step, 1u);
	}
}

/* Every percentile of values of all magnitudes is within the bound of the exact one. */
TEST(error_bound)
{
	enum { N = 20000 };
	static uint64_t value[N];
	uint64_t state = 7;

	for (int i = 0; i < N; i++) {
		value[i] = test_random(&state) >> test_random(&state) % 60;
		histogram_record(&h, value[i]);
	}
	qsort(value, N, sizeof(*value), by_value);
	for (int i = 1; i <= 10000; i++) {
		double part = i / 10000.0;
		double exact = (double)value[(int)ceil(part * N) - 1];
		double got = histogram_percentile(&h, part);

		EXPECT_TRUE(fabs(got - exact) <= HISTOGRAM_ERROR * exact);
	}
	EXPECT_EQ((uint64_t)N, h.count);
	EXPECT_EQ(value[0], h.min);
	EXPECT_EQ(value[N - 1], h.max);
}

/* By sorting; a value whose rank is cut counts by its part. */
TEST(midmean)
{
	enum { N = 4002 };
	static uint64_t value[N];
	uint64_t state = 9;
	double exact = 0;

	EXPECT_TRUE(histogram_midmean(&h) == 0);
	for (int i = 0; i < N; i++) {
		/* the largest quarter is far away, and must not matter */
		value[i] = i % 5 ? test_random(&state) % 1000 : UINT64_MAX - (uint64_t)i;
		histogram_record(&h, value[i]);
	}
	qsort(value, N, sizeof(*value), by_value);
	for (int i = N / 4; i <= N * 3 / 4; i++) {
		double part = i == N / 4 || i == N * 3 / 4 ? 0.5 : 1;

		exact += part * (double)value[i] / (N / 2.0);
	}
	EXPECT_TRUE(fabs(histogram_midmean(&h) - exact) <= HISTOGRAM_ERROR * exact);
}

/* A clock with coarse steps: the median is one of them, this lies between. */
TEST(midmean_of_a_coarse_clock)
{
	for (int i = 0; i < 1000; i++)
		histogram_record(&h, i < 600 ? 100 : 124);
	EXPECT_TRUE(histogram_percentile(&h, 0.5) == 100);
	EXPECT_TRUE(fabs(histogram_midmean(&h) - (100 * 350 + 124 * 150) / 500.0) < 1e-9);
}

static void expect_moments(const struct histogram *g, double mean, double deviation)
{
	EXPECT_TRUE(fabs(histogram_mean(g) - mean) < 1e-6);
	EXPECT_TRUE(fabs(histogram_deviation(g) - deviation) < 1e-6);
}

/* Small spread at a large value: what a sum of plain squares loses in rounding. */
TEST(moments)
{
	uint64_t big = 1ull << 50;

	for (uint64_t i = 0; i < 4; i++)
		histogram_record(&h, big + i);
	expect_moments(&h, (double)big + 1.5, sqrt(5.0 / 3));
}

/* Two that are added are one that saw all. */
TEST(addition)
{
	struct histogram *all = calloc(1, sizeof(*all));
	uint64_t state = 3;

	for (int i = 0; i < 1000; i++) {
		uint64_t v = 1000 + test_random(&state) % 100000;

		histogram_record(i % 3 ? &h : &other, v);
		histogram_record(all, v);
	}
	histogram_add(&h, &other);
	EXPECT_EQ(all->count, h.count);
	EXPECT_EQ(all->min, h.min);
	EXPECT_EQ(all->max, h.max);
	EXPECT_EQ(0, memcmp(all->bucket, h.bucket, sizeof(h.bucket)));
	EXPECT_TRUE(fabs(histogram_deviation(all) - histogram_deviation(&h)) < 1e-3);
	memset(&other, 0, sizeof(other));
	histogram_add(&h, &other);
	EXPECT_EQ(all->count, h.count);
	histogram_add(&other, &h);
	EXPECT_EQ(all->min, other.min);
	free(all);
}

TEST_MAIN
