/* SPDX-License-Identifier: Apache-2.0 */
/* The peer dies, at any moment: every request ends, the link ends once. On every fabric. */
#include "selftests/rdma/pair.h"

#ifndef KILLS
#define KILLS 50
#endif
#define LAST_WORDS 50

FIXTURE(death){};

FIXTURE_VARIANT(death)
{
	const char *url;
};

#ifdef FABRIC_VARIANTS
FABRIC_VARIANTS(death)
#else
FIXTURE_VARIANT_ADD(death, shm){.url = "shm://"};
FIXTURE_VARIANT_ADD(death, tcp_uring){.url = "tcp://127.0.0.1:0?io=uring"};
FIXTURE_VARIANT_ADD(death, tcp_epoll){.url = "tcp://127.0.0.1:0?io=epoll"};
FIXTURE_VARIANT_ADD(death, tcp_conns){.url = "tcp://127.0.0.1:0?io=epoll&conns=3"};
#endif

FIXTURE_SETUP(death)
{
	use_key("key", "a key for tests of the fabrics");
}

FIXTURE_TEARDOWN(death)
{
}

/* Talks, reads and writes without end. */
static void busy_peer(struct end *peer)
{
	struct memory m = memory_make(peer, 65536, PST_ACCESS_WRITE);
	struct pst_wc wc[16];
	uint32_t i = 0;

	share(peer, &m, PST_ACCESS_WRITE);
	for (;; i++) {
		const struct pst_wr wr = {.flags = PST_WR_UNSIGNALED, .local_addr = &i, .len = 4};

		if (!pst_link_post(peer->link, &wr, 1))
			i--;
		for (int n = pst_cq_poll(peer->cq, wc, 16); n > 0; n--)
			if (wc[n - 1].kind == PST_WC_DOWN)
				return;
	}
}

/* Post one batch of everything; how many completions it owes. */
static int load(struct end *e, struct memory *m, struct pst_key key, uint64_t *id)
{
	struct pst_wr wr[8];
	int n;

	for (int i = 0; i < 8; i++)
		wr[i] = (struct pst_wr){.id = *id + i,
					.op = i % 3,
					.flags = i == 4 ? PST_WR_IMM : 0,
					.local = m->region,
					.local_addr = m->at,
					.key = key,
					.remote_off = i * 4096,
					.len = i % 3 ? 4096 : 100};
	n = pst_link_post(e->link, wr, 8);
	if (n > 0)
		*id += n;
	return n;
}

/* Go on until the link is down: ids in order, messages in order, DOWN last. */
static void run_to_death(struct end *e, struct memory *m, struct pst_key key)
{
	uint64_t id = 0, done = 0;
	struct pst_wc wc[4];
	uint32_t next = 0;
	bool down = false;

	while (!down) {
		int n, rc = load(e, m, key, &id);

		ASSERT_TRUE(rc >= 0 || rc == -ENOTCONN);
		n = pst_cq_wait(e->cq, wc, 4, 30000);
		ASSERT_LE(0, n);
		for (int i = 0; i < n; i++) {
			ASSERT_FALSE(down);
			if (wc[i].kind == PST_WC_DONE) {
				ASSERT_EQ(done++, wc[i].id);
			} else if (wc[i].kind == PST_WC_MESSAGE) {
				ASSERT_EQ(0, memcmp(wc[i].msg, &next, 4));
				next++;
			} else {
				ASSERT_EQ(PST_WC_DOWN, (int)wc[i].kind);
				EXPECT_EQ(-ECONNRESET, wc[i].status);
				down = true;
			}
		}
	}
	EXPECT_EQ(id, done);
	EXPECT_EQ(-ENOTCONN, load(e, m, key, &id));
	EXPECT_EQ(-ENOTCONN, pst_link_post(e->link,
					   &(struct pst_wr){.op = PST_WR_WRITE,
							    .flags = PST_WR_UNSIGNALED,
							    .local = m->region,
							    .local_addr = m->at,
							    .key = key,
							    .len = 8},
					   1));
	EXPECT_EQ(-ENOTCONN, pst_link_send(e->link, "x", 1, 100));
	EXPECT_EQ(0, pst_cq_wait(e->cq, wc, 4, 1));
}

static void *kill_later(void *arg)
{
	struct pair *p = arg;
	uint64_t seed = (uint64_t)p->pid;

	usleep((useconds_t)(test_random(&seed) % 8000));
	kill(p->pid, SIGKILL);
	return NULL;
}

TEST_F(death, kill_at_random_moments_under_load)
{
	int before = 0;
	struct pst_key key;
	pthread_t killer;
	struct memory m;
	struct pair p;

	for (int i = 0; i < KILLS; i++) {
		/* the first time libraries open files of their own */
		if (i == 1)
			before = open_fds();
		pair_start_on(&p, variant->url, true, busy_peer);
		m = memory_make(&p.me, 65536, PST_ACCESS_READ);
		hear(&p.me, &key, sizeof(key));
		pthread_create(&killer, NULL, kill_later, &p);
		run_to_death(&p.me, &m, key);
		pthread_join(killer, NULL);
		ASSERT_EQ(p.pid, waitpid(p.pid, NULL, 0));
		memory_drop(&m);
		end_close(&p.me);
	}
	EXPECT_EQ(before, open_fds());
}

static void stop_here(struct end *peer)
{
	(void)peer;
	pause();
}

TEST_F(death, sleeper_is_woken_by_a_death)
{
	struct pst_fabric_stat stat;
	pthread_t killer;
	struct pst_wc wc;
	struct pair p;

	pair_start_on(&p, variant->url, true, stop_here);
	pthread_create(&killer, NULL, kill_later, &p);
	ASSERT_EQ(1, pst_cq_wait(p.me.cq, &wc, 1, -1));
	EXPECT_EQ(PST_WC_DOWN, (int)wc.kind);
	EXPECT_TRUE(wc.link == p.me.link);
	pthread_join(killer, NULL);
	pst_fabric_stat(p.me.fab, &stat);
	EXPECT_EQ(1, (int)stat.links_lost);
	waitpid(p.pid, NULL, 0);
	end_close(&p.me);
}

TEST_F(death, poller_sees_a_death)
{
	pthread_t killer;
	struct pst_wc wc;
	struct pair p;
	int n;

	pair_start_on(&p, variant->url, true, stop_here);
	pthread_create(&killer, NULL, kill_later, &p);
	do {
		n = pst_cq_poll(p.me.cq, &wc, 1);
	} while (!n);
	EXPECT_EQ(PST_WC_DOWN, (int)wc.kind);
	pthread_join(killer, NULL);
	waitpid(p.pid, NULL, 0);
	end_close(&p.me);
}

TEST_F(death, sender_that_waits_for_room_sees_a_death)
{
	pthread_t killer;
	struct pair p;
	int rc;

	pair_start_on(&p, variant->url, true, stop_here);
	pthread_create(&killer, NULL, kill_later, &p);
	do {
		rc = pst_link_send(p.me.link, "x", 1, -1);
	} while (!rc);
	EXPECT_EQ(-ENOTCONN, rc);
	pthread_join(killer, NULL);
	waitpid(p.pid, NULL, 0);
	end_close(&p.me);
}

/* Says as much as fits on every fabric while nobody listens, and dies. */
static void last_words(struct end *peer)
{
	for (uint32_t i = 0; i < LAST_WORDS; i++)
		say(peer, &i, 4);
	/* over verbs what is posted goes when it goes, or never: until this ends, all has gone */
	carry(peer, &(struct pst_wr){.op = PST_WR_WRITE});
	raise(SIGKILL);
}

TEST_F(death, what_was_sent_before_the_death_arrives_first)
{
	struct pst_wc wc;
	uint32_t got;
	struct pair p;

	pair_start_on(&p, variant->url, true, last_words);
	ASSERT_EQ(p.pid, waitpid(p.pid, NULL, 0));
	/* without a spin the sockets are looked at first, so the death is known before them all */
	ASSERT_EQ(1, pst_cq_wait(p.me.cq, &wc, 1, 0));
	EXPECT_EQ(PST_WC_MESSAGE, (int)wc.kind);
	for (uint32_t i = 1; i < LAST_WORDS; i++) {
		hear(&p.me, &got, 4);
		EXPECT_EQ(i, got);
	}
	expect(&p.me, PST_WC_DOWN);
	end_close(&p.me);
}

static void echo(struct end *peer)
{
	uint32_t value;

	for (;;) {
		hear(peer, &value, 4);
		if (!value)
			return;
		say(peer, &value, 4);
	}
}

TEST_F(death, other_links_do_not_notice)
{
	struct pst_error err = {0};
	struct pst_listener *l;
	struct pst_link *link[4];
	struct pst_wc wc;
	struct pair p[4];
	struct end me;
	char name[64];

	/* the links of four processes on one cq; names by the order of arrival */
	for (int i = 0; i < 4; i++)
		pair_prepare(&p[i], variant->url, true, echo);
	end_open_on(&me, variant->url);
	snprintf(name, sizeof(name), "shm://others-%d", (int)getpid());
	ASSERT_OK(
		pst_listen(me.cq, strncmp(variant->url, "shm:", 4) ? variant->url : name, &l, &err),
		&err);
	for (int i = 0; i < 4; i++)
		pair_tell(&p[i], l);
	for (int i = 0; i < 4; i++)
		link[i] = expect(&me, PST_WC_CONNECTED).link;
	kill(pst_link_peer_pid(link[1]), SIGKILL);
	for (uint32_t round = 100; round; round--) {
		for (int i = 0; i < 4; i++)
			if (i != 1)
				ASSERT_EQ(0, pst_link_send(link[i], &round, 4, 30000));
		for (int left = 3; left;) {
			ASSERT_EQ(1, pst_cq_wait(me.cq, &wc, 1, 30000));
			if (wc.kind == PST_WC_DOWN && wc.link == link[1])
				continue;
			ASSERT_EQ(PST_WC_MESSAGE, (int)wc.kind);
			ASSERT_EQ(0, memcmp(wc.msg, &round, 4));
			left--;
		}
	}
	for (int i = 0; i < 4; i++)
		pst_link_send(link[i], &(uint32_t){0}, 4, 0);
	for (int i = 0; i < 4; i++)
		waitpid(p[i].pid, NULL, 0);
	for (int i = 0; i < 4; i++)
		pst_link_close(link[i]);
	end_close(&me);
}

static void meet_and_go(struct end *peer)
{
	meet(peer);
}

TEST_F(death, close_with_outstanding_work)
{
	struct pair p;

	/* the first time libraries open files of their own */
	for (int round = 0; round < 3; round++) {
		int before = open_fds();

		pair_start_on(&p, variant->url, round == 2, meet_and_go);
		meet(&p.me);
		for (int i = 0; i < 50; i++)
			pst_link_post(p.me.link, &(struct pst_wr){.op = PST_WR_WRITE}, 1);
		pair_end(&p);
		if (round)
			EXPECT_EQ(before, open_fds());
	}
}

TEST_MAIN
