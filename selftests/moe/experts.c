/* SPDX-License-Identifier: Apache-2.0 */
/* What a worker tells of itself and its experts, and experts that are pinned, brought and evicted.
 */
#include "selftests/moe/moe.h"

#include "runtime/penstock.h"

#include <penstock/ioctl.h>

static const struct shape small = {.experts = 6, .hidden = 24, .inter = 40, .tokens = 50};

#define ALL   ((LAYERS - DENSE) * 6u)		       /* experts of the model */
#define BYTES (MATRICES * 24ull * 40 * sizeof(float))  /* of an expert */
#define ROWS  ((uint64_t)(LAYERS - DENSE) * 50 * TOPK) /* of a forward */

FIXTURE(experts)
{
	struct rig r;
};

FIXTURE_VARIANT(experts)
{
	unsigned int room; /* for so many */
	const char *settings;
};

FIXTURE_VARIANT_ADD(experts, mapped){0, MAPPED};
FIXTURE_VARIANT_ADD(experts, one){1, FAR};
FIXTURE_VARIANT_ADD(experts, four){4, FAR};
FIXTURE_VARIANT_ADD(experts, all){100, FAR};
FIXTURE_VARIANT_ADD(experts, four_over_tcp){4, TCP};

FIXTURE_SETUP(experts)
{
	settings = variant->settings;
	worker_copy_bytes = variant->room * MATRICES * pst_copies_cost(24 * 40 * sizeof(float));
	rig_open(&self->r, small, 2, 1, false, 30000);
}

FIXTURE_TEARDOWN(experts)
{
	rig_close(&self->r);
}

static struct pst_worker *worker(struct rig *r)
{
	return r->workers.worker[0];
}

static struct pst_worker_stat stat_of(struct rig *r)
{
	struct pst_worker_stat s = {.size = sizeof(s)};

	EXPECT_EQ(0, pst_worker_stat(worker(r), &s));
	return s;
}

static struct pst_expert_stat expert_of(struct rig *r, uint32_t layer, uint32_t index)
{
	struct pst_expert_stat s = {.size = sizeof(s), .layer = layer, .index = index - 1};

	if (!index) {
		s.layer = layer - 1;
		s.index = UINT32_MAX;
	}
	EXPECT_EQ(0, pst_worker_expert(worker(r), &s));
	EXPECT_EQ(layer, s.layer);
	EXPECT_EQ(index, s.index);
	return s;
}

static int place(struct rig *r, uint32_t layer, uint32_t index, uint32_t order)
{
	memset(&r->err, 0, sizeof(r->err));
	return pst_worker_place(worker(r), layer, index, order, &r->err);
}

/* The walk names every expert once, in order; and what it says of them. */
struct sums {
	unsigned int n, copied, pinned;
	uint64_t rows, pulled;
};

static struct sums walk(struct rig *r)
{
	struct pst_expert_stat s = {.size = sizeof(s), .layer = ~0u, .index = ~0u};
	struct sums sums = {0};
	int rc;

	while (!(rc = pst_worker_expert(worker(r), &s))) {
		EXPECT_EQ(DENSE + sums.n / small.experts, s.layer);
		EXPECT_EQ(sums.n % small.experts, s.index);
		EXPECT_EQ(BYTES, s.bytes);
		sums.n++;
		sums.copied += s.copied;
		sums.pinned += s.pinned;
		sums.rows += s.rows;
		sums.pulled += s.pulled;
	}
	EXPECT_EQ(-ENOENT, rc);
	return sums;
}

TEST_F(experts, what_was_done_is_told)
{
	struct pst_worker_stat s = stat_of(&self->r);
	struct sums sums = walk(&self->r);

	EXPECT_EQ(ALL, sums.n);
	EXPECT_EQ(0u, s.rows + s.calls + s.busy_ns + s.pulled);
	EXPECT_EQ(1u, s.engines);
	EXPECT_EQ(1u, s.threads);
	EXPECT_TRUE(s.kernels[0] != 0);
	for (uint64_t step = 1; step <= 3; step++) {
		uint64_t busy = s.busy_ns;

		rig_step(&self->r, EVENLY, harm_none);
		s = stat_of(&self->r);
		sums = walk(&self->r);
		/* one request each of two layers, there and back */
		EXPECT_EQ(4 * step, s.calls);
		EXPECT_EQ(2 * ROWS * step, s.rows);
		EXPECT_EQ(2 * ROWS * step, sums.rows);
		/* the last expert of a layer never has a row */
		EXPECT_EQ(2 * (ALL - 2) * BYTES * step, s.pulled);
		EXPECT_LT(busy, s.busy_ns);
		EXPECT_EQ(0u, s.busy_since_ns);
		EXPECT_EQ(0u, sums.pinned);
	}
	if (!is_far()) {
		EXPECT_EQ(0u, s.moved);
		EXPECT_EQ(0u, sums.pulled);
		EXPECT_EQ(ALL, sums.copied);
	} else {
		struct pst_msg_stated told;

		ASSERT_EQ(0, pst_moe_worker_stat(self->r.moe, 0, &told));
		EXPECT_EQ(told.pulled_bytes, sums.pulled);
		EXPECT_EQ(told.moved_bytes, stat_of(&self->r).moved);
		EXPECT_EQ(variant->room < ALL ? variant->room : ALL - 2, sums.copied);
	}
}

TEST_F(experts, that_there_are_not)
{
	for (uint32_t order = PST_EXPERT_PIN; order <= PST_EXPERT_BRING; order++) {
		EXPECT_EQ(-ENODATA, place(&self->r, 0, 0, order));
		EXPECT_EQ(-ENODATA, place(&self->r, DENSE, small.experts, order));
		EXPECT_EQ(-ENODATA, place(&self->r, LAYERS, 0, order));
		EXPECT_TRUE(strstr(self->r.err.text, "no engine that is served here") != NULL);
	}
	EXPECT_EQ(-EINVAL, place(&self->r, DENSE, 0, 0));
	EXPECT_EQ(-EINVAL, place(&self->r, DENSE, 0, PST_EXPERT_BRING + 1));
}

TEST_F(experts, brought_and_let_go)
{
	uint32_t far = is_far();
	struct pst_expert_stat s;

	EXPECT_EQ(1 - far, expert_of(&self->r, DENSE, 2).copied);
	EXPECT_EQ(0, place(&self->r, DENSE, 2, PST_EXPERT_BRING));
	s = expert_of(&self->r, DENSE, 2);
	EXPECT_EQ(1u, s.copied);
	EXPECT_EQ(0u, s.pinned);
	EXPECT_EQ(far ? BYTES : 0, s.pulled);
	/* it is here: nothing comes again */
	EXPECT_EQ(0, place(&self->r, DENSE, 2, PST_EXPERT_BRING));
	EXPECT_EQ(far ? BYTES : 0, expert_of(&self->r, DENSE, 2).pulled);
	EXPECT_EQ(0, place(&self->r, DENSE, 2, PST_EXPERT_EVICT));
	EXPECT_EQ(1 - far, expert_of(&self->r, DENSE, 2).copied);
	EXPECT_EQ(0, place(&self->r, DENSE, 2, PST_EXPERT_EVICT));
	EXPECT_EQ(0, place(&self->r, DENSE, 2, PST_EXPERT_UNPIN));
	rig_step(&self->r, EVENLY, harm_none);
}

/* So many as leave room for another stay, whatever the others need; the numbers are as ever. */
TEST_F(experts, pinned)
{
	unsigned int most = !is_far() ? 0 : variant->room < ALL ? variant->room - 1 : ALL;
	unsigned int n = 0;

	for (uint32_t i = 0; i < ALL; i++) {
		int rc = place(&self->r, DENSE + i / small.experts, i % small.experts,
			       PST_EXPERT_PIN);

		EXPECT_EQ(!is_far() || i < most ? 0 : -ENOSPC, rc);
		n += !rc && is_far();
		if (rc)
			EXPECT_TRUE(strstr(self->r.err.text, "unpin one") != NULL);
	}
	EXPECT_EQ(most, n);
	EXPECT_EQ(most, walk(&self->r).pinned);
	for (int step = 0; step < 3; step++) {
		rig_step(&self->r, step % 2 ? TO_ONE : EVENLY, harm_none);
		EXPECT_EQ(most, walk(&self->r).pinned);
		for (uint32_t i = 0; i < most; i++)
			EXPECT_EQ(1u,
				  expert_of(&self->r, DENSE + i / small.experts, i % small.experts)
					  .copied);
	}
	/* what has gone from the list makes room for another */
	if (most && most < ALL) {
		EXPECT_EQ(0, place(&self->r, DENSE, 0, PST_EXPERT_PIN));
		EXPECT_EQ(0, place(&self->r, DENSE, 0, PST_EXPERT_EVICT));
		EXPECT_EQ(0u, expert_of(&self->r, DENSE, 0).copied);
		EXPECT_EQ(0, place(&self->r, DENSE + 1, 5, PST_EXPERT_PIN));
		EXPECT_EQ(0, place(&self->r, DENSE + 1, 5, PST_EXPERT_UNPIN));
		EXPECT_EQ(most - 1, walk(&self->r).pinned);
		rig_step(&self->r, EVENLY, harm_none);
	}
}

/* The engine leaves: its copies and pins are no more, what was done with them is still told. */
TEST_F(experts, of_an_engine_that_has_left)
{
	struct sums sums;

	if (variant->room > 1)
		EXPECT_EQ(0, place(&self->r, DENSE, 0, PST_EXPERT_PIN));
	rig_step(&self->r, EVENLY, harm_none);
	pst_moe_destroy(self->r.moe);
	while (stat_of(&self->r).engines)
		usleep(1000);
	sums = walk(&self->r);
	EXPECT_EQ(ALL, sums.n);
	EXPECT_EQ(2 * ROWS, sums.rows);
	EXPECT_EQ(0u, sums.copied);
	EXPECT_EQ(0u, sums.pinned);
	EXPECT_EQ(-ENODATA, place(&self->r, DENSE, 0, PST_EXPERT_PIN));
	open_moe(&self->r, 30000);
	rig_step(&self->r, EVENLY, harm_none);
	EXPECT_EQ(4 * ROWS, walk(&self->r).rows);
}

/* Any thread, while it works and while it ends */
struct asker {
	struct rig *r;
	atomic_bool end;
	unsigned int asked;
	atomic_uint placed;
};

static void *keep_asking(void *arg)
{
	struct asker *a = arg;
	uint64_t chance = 7;

	while (!atomic_load(&a->end)) {
		uint32_t i = (uint32_t)(test_random(&chance) % ALL);
		int rc =
			pst_worker_place(worker(a->r), DENSE + i / small.experts, i % small.experts,
					 1 + (uint32_t)(test_random(&chance) % 4), NULL);

		a->placed += !rc;
		walk(a->r);
		stat_of(a->r);
		a->asked++;
	}
	return NULL;
}

TEST_F(experts, asked_and_placed_while_it_works)
{
	struct asker a = {.r = &self->r};
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, keep_asking, &a));
	/* six steps, and as many as it takes until something was placed */
	for (int step = 0; step < 6 || !atomic_load(&a.placed); step++)
		rig_step(&self->r, EVENLY, harm_none);
	/* it ends while it is asked */
	pst_worker_end(worker(&self->r));
	usleep(20000);
	atomic_store(&a.end, true);
	pthread_join(thread, NULL);
	printf("# asked %u times, %u placed\n", a.asked, a.placed);
	EXPECT_EQ(-ENODATA, place(&self->r, DENSE, 0, PST_EXPERT_BRING));
}

/* Structs of older and newer callers */
TEST(sizes)
{
	struct {
		struct pst_worker_stat s;
		char more[64];
	} newer = {.s.size = sizeof(newer)};
	struct pst_worker_stat older = {.size = offsetof(struct pst_worker_stat, busy_ns),
					.busy_ns = 77};
	struct pst_expert_stat x = {.size = offsetof(struct pst_expert_stat, bytes),
				    .layer = ~0u,
				    .index = ~0u,
				    .bytes = 77};
	struct rig r;

	rig_open(&r, small, 1, 1, false, 30000);
	rig_step(&r, EVENLY, harm_none);
	memset(newer.more, 1, sizeof(newer.more));
	EXPECT_EQ(0, pst_worker_stat(worker(&r), &newer.s));
	EXPECT_EQ(sizeof(newer), newer.s.size);
	EXPECT_EQ(2 * ROWS, newer.s.rows);
	EXPECT_EQ(0, newer.more[0] | newer.more[63]);
	EXPECT_EQ(0, pst_worker_stat(worker(&r), &older));
	EXPECT_EQ(2 * ROWS, older.rows);
	EXPECT_EQ(77u, older.busy_ns);
	older.size = 0;
	EXPECT_EQ(-EINVAL, pst_worker_stat(worker(&r), &older));
	EXPECT_EQ(0, pst_worker_expert(worker(&r), &x));
	EXPECT_EQ(1u * DENSE, x.layer);
	EXPECT_EQ(77u, x.bytes);
	x.size = offsetof(struct pst_expert_stat, index);
	EXPECT_EQ(-EINVAL, pst_worker_expert(worker(&r), &x));
	rig_close(&r);
}

TEST_MAIN
