/* SPDX-License-Identifier: Apache-2.0 */
/* Experts by workers: bit for bit what pst_mlp_* gives, whoever computes what. */
#include "selftests/moe/moe.h"

FIXTURE_OF_FABRICS(fabric)

static const struct shape small = {.experts = 6, .hidden = 24, .inter = 40, .tokens = 50};

FIXTURE(moe)
{
	struct rig r;
};

FIXTURE_VARIANT(moe)
{
	unsigned int servers, workers;
	bool processes;
	const char *settings;
};

FIXTURE_VARIANT_ADD(moe, one_worker){1, 1, false, MAPPED};
FIXTURE_VARIANT_ADD(moe, two_workers){2, 2, false, MAPPED};
FIXTURE_VARIANT_ADD(moe, four_workers){3, 4, false, MAPPED};
FIXTURE_VARIANT_ADD(moe, two_processes){2, 2, true, MAPPED};
FIXTURE_VARIANT_ADD(moe, one_far_worker){1, 1, false, FAR};
FIXTURE_VARIANT_ADD(moe, four_far_workers){3, 4, false, FAR};
FIXTURE_VARIANT_ADD(moe, two_far_processes){2, 2, true, FAR};
FIXTURE_VARIANT_ADD(moe, four_tcp_workers){3, 4, false, TCP};
FIXTURE_VARIANT_ADD(moe, two_tcp_processes){2, 2, true, TCP};

FIXTURE_SETUP(moe)
{
	settings = variant->settings;
	rig_open(&self->r, small, variant->servers, variant->workers, variant->processes, 30000);
}

FIXTURE_TEARDOWN(moe)
{
	struct pst_moe_stat stat;

	pst_moe_stat(self->r.moe, &stat);
	EXPECT_EQ(0u, stat.restarts);
	EXPECT_EQ(0u, stat.resent);
	rig_close(&self->r);
}

TEST_F(moe, steps_are_those_of_the_truth)
{
	for (int step = 0; step < 3; step++)
		rig_step(&self->r, EVENLY, harm_none);
	EXPECT_EQ(2u, self->r.version);
}

TEST_F(moe, all_rows_to_two_experts)
{
	rig_step(&self->r, TO_ONE, harm_none);
	rig_step(&self->r, EVENLY, harm_none);
	rig_step(&self->r, TO_ONE, harm_none);
}

TEST_F(moe, workers_say_what_they_are)
{
	struct pst_msg_stated stat;

	for (unsigned int w = 0; w < variant->workers; w++) {
		ASSERT_EQ(0, pst_moe_worker_stat(self->r.moe, w, &stat));
		EXPECT_EQ(1u, stat.threads);
		EXPECT_EQ(0u, stat.copied_bytes);
		EXPECT_LT(0u, stat.pool_bytes);
		if (variant->processes)
			EXPECT_EQ((uint32_t)self->r.workers.pid[w], stat.pid);
	}
}

TEST_F(moe, too_many_tokens_are_refused)
{
	struct batch b;

	batch_make(&self->r, &b, EVENLY, 1);
	EXPECT_EQ(-EINVAL,
		  pst_moe_forward_begin(self->r.moe, DENSE, small.tokens + 1, b.x, b.expert));
	EXPECT_STREQ("51 tokens at once, made for 50", pst_moe_error(self->r.moe)->text);
	batch_free(&self->r, &b);
}

/* More experts with rows than a message names: a worker is asked twice. */
TEST_F(fabric, more_experts_than_a_message_holds)
{
	struct rig r;

	rig_open(&r,
		 (struct shape){
			 .experts = PST_EXPERTS_MAX + 20, .hidden = 4, .inter = 8, .tokens = 2500},
		 1, 1, false, 30000);
	rig_step(&r, EVENLY, harm_none);
	rig_close(&r);
}

/* A request for experts goes on where the one before failed for good. */
TEST_F(fabric, a_version_that_no_server_holds)
{
	struct batch b;
	struct rig r;

	rig_open(&r, small, 1, 2, false, 30000);
	batch_make(&r, &b, EVENLY, 1);
	pst_moe_version(r.moe, 7);
	ASSERT_EQ(0, pst_moe_forward_begin(r.moe, DENSE, small.tokens, b.x, b.expert));
	EXPECT_EQ(-ESTALE, pst_moe_forward_end(r.moe, DENSE, b.w, b.y));
	EXPECT_NE(NULL, strstr(pst_moe_error(r.moe)->text, "version 7 of expert"));
	batch_free(&r, &b);
	rig_close(&r);
}

TEST_MAIN
