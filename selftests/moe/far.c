/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that pull and push: the right numbers also where next to nothing fits at a time. */
#include "selftests/moe/moe.h"

static const struct shape small = {.experts = 6, .hidden = 24, .inter = 40, .tokens = 50};

FIXTURE(budget)
{
	struct rig r;
};

FIXTURE_VARIANT(budget)
{
	unsigned int experts; /* that fit, 0: all */
	const char *settings;
};

FIXTURE_VARIANT_ADD(budget, not_even_one){0, FAR};
FIXTURE_VARIANT_ADD(budget, one){1, FAR};
FIXTURE_VARIANT_ADD(budget, four){4, FAR};
FIXTURE_VARIANT_ADD(budget, all){100, FAR};
FIXTURE_VARIANT_ADD(budget, one_without_crc){1, FAR "&crc=0"};
FIXTURE_VARIANT_ADD(budget, one_over_tcp){1, TCP};

static uint64_t expert_bytes(void)
{
	return MATRICES * pst_copies_cost(small.hidden * small.inter * sizeof(float));
}

FIXTURE_SETUP(budget)
{
	settings = variant->settings;
	worker_copy_bytes = variant->experts ? variant->experts * expert_bytes() : 100;
	rig_open(&self->r, small, 2, 2, false, 30000);
}

FIXTURE_TEARDOWN(budget)
{
	rig_close(&self->r);
}

static struct pst_msg_stated stat_of(struct rig *r, unsigned int w)
{
	struct pst_msg_stated stat;

	ASSERT_EQ(0, pst_moe_worker_stat(r->moe, w, &stat));
	return stat;
}

TEST_F(budget, steps_are_those_of_the_truth)
{
	for (int step = 0; step < 4; step++)
		rig_step(&self->r, step % 2 ? TO_ONE : EVENLY, harm_none);
	for (unsigned int w = 0; w < 2; w++) {
		struct pst_msg_stated stat = stat_of(&self->r, w);

		EXPECT_LT(0u, stat.moved_bytes);
		EXPECT_LT(0u, stat.pulled_bytes);
		EXPECT_LT(stat.pulled_bytes, stat.moved_bytes);
		EXPECT_EQ(0u, stat.crc_bad);
		EXPECT_EQ(0u, stat.resent);
	}
}

/* The same version over and over: what fits is pulled once. */
TEST_F(budget, a_version_is_pulled_once_if_it_fits)
{
	struct rig *r = &self->r;
	uint64_t first = 0, pulled = 0;
	struct batch b;

	pst_moe_version(r->moe, 0);
	batch_make(r, &b, EVENLY, 5);
	for (int i = 0; i < 4; i++) {
		for (uint32_t l = DENSE; l < LAYERS; l++) {
			ASSERT_OK(pst_moe_forward_begin(r->moe, l, small.tokens, b.x, b.expert),
				  pst_moe_error(r->moe));
			ASSERT_OK(pst_moe_forward_end(r->moe, l, b.w, b.y), pst_moe_error(r->moe));
		}
		pulled = stat_of(r, 0).pulled_bytes + stat_of(r, 1).pulled_bytes;
		first = first ? first : pulled;
	}
	/* five of six experts have rows, in two layers */
	EXPECT_EQ(10 * MATRICES * small.hidden * small.inter * sizeof(float), first);
	if (variant->experts > 10)
		EXPECT_EQ(first, pulled);
	else if (variant->experts < 4)
		EXPECT_EQ(4 * first, pulled);
	else
		EXPECT_LT(first, pulled);
	batch_free(r, &b);
}

TEST(in_place_nothing_moves)
{
	struct rig r;

	rig_open(&r, small, 2, 2, false, 30000);
	rig_step(&r, EVENLY, harm_none);
	for (unsigned int w = 0; w < 2; w++) {
		EXPECT_EQ(0u, stat_of(&r, w).moved_bytes);
		EXPECT_EQ(0u, stat_of(&r, w).pulled_bytes);
	}
	rig_close(&r);
}

TEST_MAIN
