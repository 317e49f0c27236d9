/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping and waking over shm: nobody who sleeps misses what comes. */
#include "selftests/rdma/pair.h"

#include <time.h>

#define ROUNDS 100000

FIXTURE(sleep)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_VARIANT(sleep)
{
	bool process;
};

FIXTURE_VARIANT_ADD(sleep, threads){.process = false};
FIXTURE_VARIANT_ADD(sleep, processes){.process = true};

FIXTURE_SETUP(sleep)
{
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(sleep)
{
	pair_end(&self->pair);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Up to 5 us of nothing, so that a send falls before, into and after the other's falling asleep. */
static void dawdle(uint64_t *seed)
{
	int64_t end = now_ns() + (int64_t)(test_random(seed) % 5000);

	while (now_ns() < end)
		;
}

static void volley(struct end *e, bool serve, uint64_t seed)
{
	uint32_t got;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		if (serve) {
			dawdle(&seed);
			say(e, &i, 4);
		}
		hear(e, &got, 4);
		ASSERT_EQ(i, got);
		if (!serve) {
			dawdle(&seed);
			say(e, &i, 4);
		}
	}
}

static void returns(struct end *peer)
{
	volley(peer, false, 1);
}

TEST_F(sleep, no_wake_up_is_lost)
{
	struct pst_fabric_stat stat;

	pair_start(&self->pair, variant->process, returns);
	volley(self->me, true, 2);
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_LT(0, (int)stat.doorbells);
	printf("%d of %d messages woke a sleeper\n", (int)stat.doorbells, ROUNDS);
}

/* A producer that waits for room against a consumer that waits for messages. */
static void drains(struct end *peer)
{
	uint64_t seed = 3;
	uint32_t got;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		if (!(test_random(&seed) % 512))
			usleep(200);
		hear(peer, &got, 4);
		ASSERT_EQ(i, got);
	}
}

TEST_F(sleep, no_wake_up_for_room_is_lost)
{
	pair_start(&self->pair, variant->process, drains);
	for (uint32_t i = 0; i < ROUNDS; i++)
		say(self->me, &i, 4);
	expect(self->me, PST_WC_DOWN);
}

static void until_told(struct end *peer)
{
	char c;

	hear(peer, &c, 1);
}

TEST_F(sleep, timeout_is_0)
{
	struct pst_wc wc;
	int64_t start;

	pair_start(&self->pair, variant->process, until_told);
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, 0));
	start = now_ns();
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, 30));
	EXPECT_LE(29000000, now_ns() - start);
	say(self->me, "b", 1);
}

static void *wake_later(void *cq)
{
	usleep(20000);
	pst_cq_wake(cq);
	return NULL;
}

TEST_F(sleep, wake_from_another_thread)
{
	struct pst_wc wc;
	pthread_t t;

	pair_start(&self->pair, variant->process, until_told);
	pthread_create(&t, NULL, wake_later, self->me->cq);
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, -1));
	pthread_join(t, NULL);
	/* one that comes before the sleep is not lost */
	pst_cq_wake(self->me->cq);
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, -1));
	say(self->me, "b", 1);
}

static void on_alarm(int sig)
{
	(void)sig;
}

TEST_F(sleep, signal_is_eintr)
{
	struct sigaction sa = {.sa_handler = on_alarm};
	struct pst_wc wc;

	sigaction(SIGALRM, &sa, NULL);
	pair_start(&self->pair, variant->process, until_told);
	if (!variant->process) {
		/* the signal is for this thread */
		say(self->me, "b", 1);
		pthread_join(self->pair.thread, NULL);
		expect(self->me, PST_WC_DOWN);
		self->pair.process = true;
		self->pair.pid = fork();
		if (!self->pair.pid)
			_exit(0);
	}
	ualarm(20000, 0);
	EXPECT_EQ(-EINTR, pst_cq_wait(self->me->cq, &wc, 1, -1));
	if (variant->process)
		say(self->me, "b", 1);
}

TEST_MAIN
