/* SPDX-License-Identifier: Apache-2.0 */
/* The allocator alone, held against a map of who owns each granule. */
#include "runtime/mem/tlsf.h"
#include "selftests/lib/test.h"

#define GRANULES 100003ull /* no power of two, and prime */

FIXTURE(tlsf)
{
	struct pst_tlsf t;
	uint32_t owner[GRANULES]; /* 0: free */
};

FIXTURE_SETUP(tlsf)
{
	ASSERT_EQ(0, pst_tlsf_init(&self->t, GRANULES));
}

FIXTURE_TEARDOWN(tlsf)
{
	pst_tlsf_fini(&self->t);
}

TEST_F(tlsf, sizes_refused)
{
	struct pst_tlsf t;

	EXPECT_EQ(-EINVAL, pst_tlsf_init(&t, 0));
	EXPECT_EQ(-EINVAL, pst_tlsf_init(&t, 1ull << 40));
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, 0, 1));
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, GRANULES + 1, 1));
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, UINT64_MAX - 63, 1));
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, 1, 1ull << 60));
}

/* Good fit alone, which rounds sizes up to their class, would refuse this. */
TEST_F(tlsf, whole)
{
	EXPECT_EQ(GRANULES, pst_tlsf_largest(&self->t));
	EXPECT_EQ(0u, pst_tlsf_take(&self->t, GRANULES, 1));
	EXPECT_EQ(0u, pst_tlsf_largest(&self->t));
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, 1, 1));
	EXPECT_EQ(GRANULES, pst_tlsf_give(&self->t, 0));
	EXPECT_EQ(GRANULES, pst_tlsf_largest(&self->t));
}

TEST_F(tlsf, neighbours_merge)
{
	uint64_t a = pst_tlsf_take(&self->t, 1, 1), b = pst_tlsf_take(&self->t, 1, 1);
	uint64_t c = pst_tlsf_take(&self->t, 5, 1), d = pst_tlsf_take(&self->t, 1, 1);

	EXPECT_EQ(8u, self->t.taken);
	EXPECT_EQ(1u, pst_tlsf_give(&self->t, a));
	EXPECT_EQ(5u, pst_tlsf_give(&self->t, c)); /* both neighbours used */
	EXPECT_EQ(1u, pst_tlsf_give(&self->t, b)); /* between two free ones, of 1 and of 5 */
	EXPECT_EQ(a, pst_tlsf_take(&self->t, 7, 1));
	EXPECT_EQ(7u, pst_tlsf_give(&self->t, a));
	EXPECT_EQ(1u, pst_tlsf_give(&self->t, d));
	EXPECT_EQ(GRANULES, pst_tlsf_largest(&self->t));
}

TEST_F(tlsf, bad_give)
{
	uint64_t a = pst_tlsf_take(&self->t, 10, 1);

	EXPECT_EQ(0u, pst_tlsf_give(&self->t, a + 1));
	EXPECT_EQ(0u, pst_tlsf_give(&self->t, a + 9));
	EXPECT_EQ(0u, pst_tlsf_give(&self->t, a + 10));	      /* a free block */
	EXPECT_EQ(0u, pst_tlsf_give(&self->t, GRANULES - 1)); /* its tail */
	EXPECT_EQ(10u, self->t.taken);
	EXPECT_EQ(10u, pst_tlsf_give(&self->t, a));
	EXPECT_EQ(0u, pst_tlsf_give(&self->t, a));
	EXPECT_EQ(GRANULES, pst_tlsf_largest(&self->t));
}

/* The gap before an aligned block is free for others, and none of it stays. */
TEST_F(tlsf, aligned)
{
	uint64_t a = pst_tlsf_take(&self->t, 3, 1), b = pst_tlsf_take(&self->t, 32768, 32768);
	uint64_t c;

	ASSERT_EQ(32768u, b);
	c = pst_tlsf_take(&self->t, 32765, 1);
	EXPECT_EQ(3u, c);
	EXPECT_EQ(GRANULES - 65536u, pst_tlsf_largest(&self->t));
	/* Exactly as long as what is left: only a look at the block itself finds that it fits. */
	EXPECT_EQ(65536u, pst_tlsf_take(&self->t, GRANULES - 65536u, 32768));
	pst_tlsf_give(&self->t, c);
	/* Long enough, but not from an even granule on. */
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, 32765, 2));
	EXPECT_EQ(4u, pst_tlsf_take(&self->t, 32764, 4));
	pst_tlsf_give(&self->t, 4);
	pst_tlsf_give(&self->t, 65536);
	pst_tlsf_give(&self->t, a);
	pst_tlsf_give(&self->t, b);
	EXPECT_EQ(GRANULES, pst_tlsf_largest(&self->t));
}

/* The largest of many in one class, and the last in its list: what is said to be there is found. */
TEST_F(tlsf, largest_is_found)
{
	uint64_t at[24], left;

	for (int i = 0; i < 24; i++) {
		at[i] = pst_tlsf_take(&self->t, i ? 4100 : 4200, 1);
		ASSERT_NE(PST_TLSF_NONE, at[i]);
		ASSERT_NE(PST_TLSF_NONE, pst_tlsf_take(&self->t, 1, 1)); /* keeps them apart */
	}
	left = pst_tlsf_largest(&self->t);
	ASSERT_NE(PST_TLSF_NONE, pst_tlsf_take(&self->t, left, 1));
	for (int i = 0; i < 24; i++)
		pst_tlsf_give(&self->t, at[i]);
	EXPECT_EQ(4200u, pst_tlsf_largest(&self->t));
	EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, 4201, 1));
	EXPECT_EQ(at[0], pst_tlsf_take(&self->t, 4200, 1));
}

static bool own(struct fixture_tlsf *self, uint64_t at, uint64_t n, uint32_t from, uint32_t to)
{
	for (uint64_t i = at; i < at + n; i++) {
		if (i >= GRANULES || self->owner[i] != from)
			return false;
		self->owner[i] = to;
	}
	return true;
}

/* No granule has two owners, largest is true, all merges. */
TEST_F(tlsf, random)
{
	enum { BLOCKS = 512, STEPS = 200000 };
	static struct {
		uint64_t at, n;
	} block[BLOCKS];
	uint64_t seed = 1, failures = 0;

	for (uint32_t i = 0; i < STEPS; i++) {
		uint64_t r = test_random(&seed), k = r % BLOCKS;
		uint64_t align = 1ull << (r >> 40) % 12 * ((r >> 50) % 4 == 0);

		if (block[k].n) {
			ASSERT_EQ(block[k].n, pst_tlsf_give(&self->t, block[k].at));
			ASSERT_TRUE(own(self, block[k].at, block[k].n, (uint32_t)k + 1, 0));
			block[k].n = 0;
			continue;
		}
		block[k].n = 1 + ((r >> 10) % 4096 >> (r >> 30) % 12);
		block[k].at = pst_tlsf_take(&self->t, block[k].n, align);
		if (block[k].at == PST_TLSF_NONE) {
			block[k].n = 0;
			failures++;
			continue;
		}
		ASSERT_EQ(0u, block[k].at % align);
		ASSERT_TRUE(own(self, block[k].at, block[k].n, 0, (uint32_t)k + 1));
		if (i % 100 == 0) {
			uint64_t n = pst_tlsf_largest(&self->t), at;

			EXPECT_EQ(PST_TLSF_NONE, pst_tlsf_take(&self->t, GRANULES, 1));
			at = pst_tlsf_take(&self->t, n, 1);
			ASSERT_NE(PST_TLSF_NONE, at);
			pst_tlsf_give(&self->t, at);
		}
	}
	for (uint32_t k = 0; k < BLOCKS; k++)
		if (block[k].n)
			pst_tlsf_give(&self->t, block[k].at);
	EXPECT_LT(failures, STEPS / 4u);
	EXPECT_EQ(0u, self->t.taken);
	EXPECT_EQ(GRANULES, pst_tlsf_largest(&self->t));
}

TEST_MAIN
