/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that die or hang at any moment: the same bits, nothing lost, no waiting for ever. */
#include "selftests/moe/moe.h"

FIXTURE_OF_FABRICS(fabric)

/* Some milliseconds of work per call, so that a kill falls into it. */
static const struct shape busy = {.experts = 8, .hidden = 64, .inter = 96, .tokens = 400};
static const struct shape small = {.experts = 6, .hidden = 24, .inter = 40, .tokens = 50};

static uint64_t chance = 5;
static unsigned int kills;
static int only = -1; /* the moment of harm, -1: any */

/* Now and then a worker is killed, some time into what it may be doing. */
static void kill_some(struct rig *r, int moment)
{
	(void)moment;
	if (test_random(&chance) % 3)
		return;
	usleep((useconds_t)(test_random(&chance) % 2000));
	worker_kill(&r->workers, (unsigned int)(test_random(&chance) % r->workers.n));
	kills++;
}

static void kill_all(struct rig *r, int moment)
{
	if (moment != only)
		return;
	for (unsigned int w = 0; w < r->workers.n; w++)
		worker_kill(&r->workers, w);
	kills += r->workers.n;
}

TEST_F(fabric, killed_at_random_moments)
{
	struct pst_moe_stat stat;
	struct rig r;

	rig_open(&r, busy, 2, 3, true, 30000);
	for (int step = 0; step < 40 && (kills < 24 || step < 8); step++)
		rig_step(&r, EVENLY, kill_some);
	pst_moe_stat(r.moe, &stat);
	printf("# %u kills, %llu restarts, %llu experts sent again\n", kills,
	       (unsigned long long)stat.restarts, (unsigned long long)stat.resent);
	EXPECT_LE(24u, kills);
	EXPECT_LT(0u, stat.restarts);
	EXPECT_LE(stat.restarts, kills);
	EXPECT_LE(stat.restarts, r.workers.replaced);
	rig_close(&r);
}

/* All die at once: before and in a forward, before and in a backward. */
TEST_F(fabric, all_killed_at_once)
{
	struct pst_moe_stat stat;
	struct rig r;

	rig_open(&r, small, 1, 2, true, 30000);
	for (only = 0; only < 8; only++)
		rig_step(&r, EVENLY, kill_all);
	pst_moe_stat(r.moe, &stat);
	EXPECT_LE(8u, stat.restarts);
	EXPECT_LE(stat.restarts, r.workers.replaced);
	rig_close(&r);
}

/* One is left, and no other can be had: it does the work of all. */
static void kill_first(struct rig *r, int moment)
{
	if (moment == only)
		worker_kill(&r->workers, 0);
}

TEST_F(fabric, the_last_worker_does_it_all)
{
	struct pst_moe_stat stat;
	struct rig r;

	rig_open(&r, small, 1, 2, true, 30000);
	r.workers.refuse = true;
	/* in the backward: what the dead one had kept is computed again */
	only = 5;
	rig_step(&r, EVENLY, kill_first);
	rig_step(&r, EVENLY, harm_none);
	pst_moe_stat(r.moe, &stat);
	EXPECT_EQ(0u, stat.restarts);
	EXPECT_EQ(0u, r.workers.replaced);
	rig_close(&r);
}

TEST_F(fabric, none_left_is_an_error)
{
	struct batch b;
	struct rig r;

	rig_open(&r, small, 1, 2, true, 30000);
	r.workers.refuse = true;
	batch_make(&r, &b, EVENLY, 1);
	pst_moe_version(r.moe, 0);
	ASSERT_EQ(0, pst_moe_forward_begin(r.moe, DENSE, small.tokens, b.x, b.expert));
	ASSERT_EQ(0, pst_moe_forward_end(r.moe, DENSE, b.w, b.y));
	for (unsigned int w = 0; w < 2; w++)
		worker_kill(&r.workers, w);
	if (!pst_moe_backward_begin(r.moe, DENSE, b.w, b.dy))
		EXPECT_EQ(-ENOLINK, pst_moe_backward_end(r.moe, DENSE, b.dy, b.dx, b.dw));
	EXPECT_EQ(-ENOLINK, pst_moe_error(r.moe)->code);
	if (!strstr(pst_moe_error(r.moe)->text,
		    "no worker is left, and none can be had: no worker"))
		EXPECT_STREQ("no worker is left", pst_moe_error(r.moe)->text);
	batch_free(&r, &b);
	rig_close(&r);
}

/* A worker that is alive and silent. */
static void stop_one(struct rig *r, int moment)
{
	if (moment == only)
		kill(r->workers.pid[1], SIGSTOP);
}

TEST_F(fabric, a_worker_that_hangs_is_given_up)
{
	struct pst_moe_stat stat;
	struct rig r;

	rig_open(&r, small, 1, 2, true, 300);
	for (unsigned int i = 0; i < 3; i++) {
		only = (int[]){0, 3, 6}[i];
		rig_step(&r, EVENLY, stop_one);
		pst_moe_stat(r.moe, &stat);
		/* a loaded machine may be taken for a hanging worker, never the other way */
		EXPECT_LE(i + 1, stat.restarts);
	}
	rig_close(&r);
}

/* The same by name: kept by one worker, asked of another. */
TEST_F(fabric, lost_activations_are_computed_again)
{
	struct rig r;

	rig_open(&r, small, 1, 1, true, 30000);
	for (only = 4; only < 8; only++)
		rig_step(&r, EVENLY, kill_all);
	EXPECT_EQ(4u, kills);
	rig_close(&r);
}

/* Its ways to the servers are cut, and they live: it is replaced as if it had died. */
static void cut_one(struct rig *r, int moment)
{
	if (moment == only)
		kill(r->workers.pid[1], SIGUSR1);
}

TEST_F(fabric, a_worker_that_loses_its_way)
{
	/* one that is made later has the engine's own ways too, for it is a copy of this process */
	for (only = 0; only < 8; only++) {
		struct pst_moe_stat stat;
		struct rig r;

		rig_open(&r, small, 2, 2, true, 30000);
		rig_step(&r, EVENLY, cut_one);
		rig_step(&r, EVENLY, harm_none);
		pst_moe_stat(r.moe, &stat);
		EXPECT_EQ(1u, stat.restarts);
		rig_close(&r);
	}
}

/* A server's death is no worker's: it is an error with the server's name. */
TEST_F(fabric, a_dead_server_is_an_error)
{
	struct batch b;
	struct rig r;
	int rc;

	rig_open(&r, small, 2, 2, true, 30000);
	batch_make(&r, &b, EVENLY, 1);
	pst_moe_version(r.moe, 0);
	ASSERT_EQ(0, pst_moe_forward_begin(r.moe, DENSE, small.tokens, b.x, b.expert));
	ASSERT_EQ(0, pst_moe_forward_end(r.moe, DENSE, b.w, b.y));
	kill(r.servers.pid[0], SIGKILL);
	kill(r.servers.pid[1], SIGKILL);
	rc = pst_moe_backward_begin(r.moe, DENSE, b.w, b.dy);
	if (!rc)
		rc = pst_moe_backward_end(r.moe, DENSE, b.dy, b.dx, b.dw);
	/* memory that is mapped outlives its owner: the hang-up may be heard later */
	if (rc)
		EXPECT_TRUE(names_url(pst_moe_error(r.moe)->text, r.servers.url[0]) ||
			    names_url(pst_moe_error(r.moe)->text, r.servers.url[1]));
	EXPECT_GT(0, pst_client_commit(r.client, r.none, r.has, &(double){0}, &r.err));
	EXPECT_TRUE(names_url(r.err.text, r.servers.url[0]) ||
		    names_url(r.err.text, r.servers.url[1]));
	batch_free(&r, &b);
	rig_close(&r);
}

TEST_MAIN
