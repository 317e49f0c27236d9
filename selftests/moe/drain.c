/* SPDX-License-Identifier: Apache-2.0 */
/* Workers that send their engines away, at any moment: the same bits, no death, no waiting. */
#include "selftests/moe/moe.h"

#include "runtime/penstock.h"

FIXTURE_OF_FABRICS(drain)

static const struct shape busy = {.experts = 8, .hidden = 64, .inter = 96, .tokens = 400};
static const struct shape small = {.experts = 6, .hidden = 24, .inter = 40, .tokens = 50};

#define MOMENTS 8 /* before and in each of the two forwards and backwards of a step */

static int only;
static unsigned int from, to; /* who drains in that moment */

static void drain_some(struct rig *r, int moment)
{
	for (unsigned int w = from; moment == only && w < to; w++)
		pst_worker_drain(r->workers.worker[w]);
}

static uint64_t restarts(const struct rig *r)
{
	struct pst_moe_stat stat;

	pst_moe_stat(r->moe, &stat);
	return stat.restarts;
}

/* Nobody is made in its place: the others do its work, and it ends when it is left. */
static void drain_at(int moment, unsigned int first, unsigned int behind)
{
	struct rig r;

	rig_open(&r, small, 2, 3, false, 30000);
	r.workers.refuse = true;
	rig_step(&r, EVENLY, harm_none);
	only = moment;
	from = first;
	to = behind;
	rig_step(&r, EVENLY, drain_some);
	rig_step(&r, TO_ONE, harm_none);
	for (unsigned int w = first; w < behind; w++)
		worker_await(&r.workers, w);
	rig_step(&r, EVENLY, harm_none);
	EXPECT_EQ(0u, restarts(&r));
	rig_close(&r);
}

TEST_F(drain, one_of_three_at_any_moment)
{
	for (int m = 0; m < MOMENTS; m++)
		drain_at(m, (unsigned int)m % 3, (unsigned int)m % 3 + 1);
}

TEST_F(drain, two_of_three_at_any_moment)
{
	for (int m = 0; m < MOMENTS; m++)
		drain_at(m, (unsigned int)m % 2, (unsigned int)m % 2 + 2);
}

/* Another is made in its place, and nobody has died. */
TEST_F(drain, all_of_them_and_others_come)
{
	struct rig r;

	rig_open(&r, small, 1, 2, false, 30000);
	from = 0;
	to = 2;
	for (only = 0; only < MOMENTS; only++)
		rig_step(&r, EVENLY, drain_some);
	EXPECT_LE(2u * MOMENTS - 2, r.workers.replaced);
	EXPECT_EQ(0u, restarts(&r));
	rig_close(&r);
}

/* Others keep the workers, and take their time. */
TEST_F(drain, the_last_one_and_one_comes_later)
{
	struct rig r;

	rig_open(&r, small, 1, 1, false, 30000);
	r.workers.kept = true;
	r.workers.later = 10;
	only = 5;
	from = 0;
	to = 1;
	rig_step(&r, EVENLY, drain_some);
	EXPECT_EQ(0u, r.workers.later);
	EXPECT_EQ(1u, r.workers.replaced);
	EXPECT_EQ(0u, restarts(&r));
	rig_close(&r);
}

TEST_F(drain, none_left_is_an_error)
{
	struct batch b;
	struct rig r;
	int rc;

	connect_ms = 300;
	rig_open(&r, small, 1, 1, false, 30000);
	r.workers.kept = true;
	r.workers.later = 1000000;
	batch_make(&r, &b, EVENLY, 1);
	pst_moe_version(r.moe, 0);
	pst_worker_drain(r.workers.worker[0]);
	rc = pst_moe_forward_begin(r.moe, DENSE, small.tokens, b.x, b.expert);
	if (!rc)
		rc = pst_moe_forward_end(r.moe, DENSE, b.w, b.y);
	EXPECT_EQ(-ENOLINK, rc);
	if (!strstr(pst_moe_error(r.moe)->text, "drains") ||
	    !strstr(pst_moe_error(r.moe)->text, "no worker is left"))
		EXPECT_STREQ("no worker is left: ... drains", pst_moe_error(r.moe)->text);
	worker_await(&r.workers, 0);
	batch_free(&r, &b);
	rig_close(&r);
}

/* While it computes, from a thread that nobody waits for. */
struct drainer {
	struct rig *r;
	atomic_bool end;
	unsigned int drains;
	pthread_mutex_t lock; /* a worker is not destroyed while it is told */
};

static struct drainer the_drainer;

/* It has done something, so that all of them together come to an end. */
static bool drain_one(struct pst_worker *worker)
{
	struct pst_worker_stat stat = {.size = sizeof(stat)};

	if (!worker || pst_worker_stat(worker, &stat) || !stat.calls || stat.draining)
		return false;
	pst_worker_drain(worker);
	return true;
}

static void *keep_draining(void *arg)
{
	struct drainer *d = arg;
	uint64_t chance = 3;

	while (!atomic_load(&d->end)) {
		unsigned int w = (unsigned int)(test_random(&chance) % d->r->workers.n);

		usleep((useconds_t)(test_random(&chance) % 5000));
		pthread_mutex_lock(&d->lock);
		d->drains += drain_one(d->r->workers.worker[w]);
		pthread_mutex_unlock(&d->lock);
	}
	return NULL;
}

static int replace_locked(void *ctx, unsigned int i, char url[PST_WIRE_URL], struct pst_error *err)
{
	int rc;

	pthread_mutex_lock(&the_drainer.lock);
	rc = worker_replace(ctx, i, url, err);
	pthread_mutex_unlock(&the_drainer.lock);
	return rc;
}

TEST_F(drain, over_and_over_while_it_computes)
{
	pthread_t thread;
	struct rig r;

	the_drainer = (struct drainer){.r = &r};
	pthread_mutex_init(&the_drainer.lock, NULL);
	replace_with = replace_locked;
	rig_open(&r, busy, 2, 3, false, 30000);
	ASSERT_EQ(0, pthread_create(&thread, NULL, keep_draining, &the_drainer));
	for (int step = 0; step < 8; step++)
		rig_step(&r, EVENLY, harm_none);
	atomic_store(&the_drainer.end, true);
	pthread_join(thread, NULL);
	printf("# %u drains, %u replaced\n", the_drainer.drains, r.workers.replaced);
	EXPECT_LT(0u, r.workers.replaced);
	EXPECT_EQ(0u, restarts(&r));
	rig_close(&r);
}

/* An engine that comes too late */
TEST_F(drain, a_new_engine_is_sent_on)
{
	struct pst_worker_stat stat = {.size = sizeof(stat)};
	struct pst_msg_worker_setup m = {.servers = 1};
	struct engine e;
	struct rig r;

	rig_open(&r, small, 1, 1, false, 30000);
	engine_connect(&e, r.workers.url[0]);
	EXPECT_EQ(0, pst_worker_stat(r.workers.worker[0], &stat));
	EXPECT_EQ(0u, stat.draining);
	EXPECT_EQ(1u, stat.engines);
	pst_worker_drain(r.workers.worker[0]);
	EXPECT_EQ(0, pst_worker_stat(r.workers.worker[0], &stat));
	EXPECT_EQ(1u, stat.draining);
	/* it is there as long as somebody has not left */
	EXPECT_EQ(-ESHUTDOWN, ENGINE_ASK(&e, &m, PST_MSG_WORKER_SETUP, &e.answer));
	EXPECT_TRUE(strstr(e.err.text, "drains") != NULL);
	EXPECT_EQ(0, engine_stat(&e));
	rig_step(&r, EVENLY, harm_none);
	EXPECT_EQ(1u, r.workers.replaced);
	engine_close(&e);
	rig_close(&r);
}

/* With nobody there it ends at once, also when it was told before it began. */
TEST_F(drain, with_nobody_there)
{
	struct workers w = {.n = 1};
	struct pst_error err = {0};
	struct pst_worker *worker;
	char url[PST_WIRE_URL];

	make_url(url, "moe", 99);
	worker = make_worker(url);
	pst_worker_drain(worker);
	ASSERT_OK(pst_worker_run(worker, &err), &err);
	pst_worker_free(worker);
	worker_start(&w, 0);
	pst_worker_drain(w.worker[0]);
	worker_await(&w, 0);
}

/* A crew goes on with another, or with those that it has. */
TEST_F(drain, before_a_crew_has_begun)
{
	for (int refuse = 0; refuse < 2; refuse++) {
		struct pst_moe *first;
		struct rig r;

		rig_open(&r, small, 1, 2, false, 30000);
		first = r.moe; /* which is why it is there still */
		r.workers.refuse = refuse;
		pst_worker_drain(r.workers.worker[0]);
		open_moe(&r, 30000);
		rig_step(&r, EVENLY, harm_none);
		EXPECT_EQ(!refuse, (int)r.workers.replaced);
		EXPECT_EQ(0u, restarts(&r));
		pst_moe_destroy(first);
		rig_close(&r);
	}
}

TEST_MAIN
