/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for one thing on a cq loses nothing of the others. */
#include "selftests/store/engine.h"

/* A peer of the inbox, in the same thread once it is connected. */
struct peer {
	struct pst_cq *cq;
	struct pst_link *link; /* its end, and ours: */
	struct pst_link *ours;
	char url[64];
};

FIXTURE(inbox)
{
	struct pst_fabric *fabric;
	struct pst_inbox *inbox;
	struct pst_listener *listener;
	struct peer a, b;
	struct pst_pool *pool[2]; /* what is read, and where to */
	struct pst_region *region[2];
	struct pst_key key; /* over a, to read */
	struct pst_wc wc;
};

static void *connect_peer(void *arg)
{
	struct peer *p = arg;

	ASSERT_EQ(0, pst_connect(p->cq, p->url, STORE_TIMEOUT_MS, &p->link, NULL));
	return NULL;
}

static void take_peer(struct fixture_inbox *self, struct peer *p)
{
	pthread_t thread;

	snprintf(p->url, sizeof(p->url), "shm://inbox-%d", (int)getpid());
	ASSERT_EQ(0, pst_cq_create(self->fabric, &p->cq, NULL));
	ASSERT_EQ(0, pthread_create(&thread, NULL, connect_peer, p));
	while (pst_inbox_next(self->inbox, &self->wc, STORE_TIMEOUT_MS) != 1)
		;
	ASSERT_EQ(PST_WC_CONNECTED, (int)self->wc.kind);
	p->ours = self->wc.link;
	pthread_join(thread, NULL);
}

static void make_region(struct fixture_inbox *self, int i)
{
	struct pst_pool_options po = {.size = sizeof(po), .name = "x", .bytes = 4096, .node = -1};
	struct pst_error err = {0};

	ASSERT_OK(pst_pool_create(&po, &self->pool[i], &err), &err);
	ASSERT_OK(pst_pool_region(self->fabric, self->pool[i], PST_ACCESS_READ, &self->region[i],
				  &err),
		  &err);
}

FIXTURE_SETUP(inbox)
{
	struct pst_error err = {0};
	char url[64];

	self->fabric = open_fabric();
	ASSERT_OK(pst_inbox_create(self->fabric, PST_INBOX_KEEP, &self->inbox, &err), &err);
	snprintf(url, sizeof(url), "shm://inbox-%d", (int)getpid());
	ASSERT_OK(pst_listen(pst_inbox_cq(self->inbox), url, &self->listener, &err), &err);
	take_peer(self, &self->a);
	take_peer(self, &self->b);
	make_region(self, 0);
	make_region(self, 1);
	ASSERT_EQ(0, pst_link_grant(self->a.link, self->region[0], PST_ACCESS_READ, &self->key));
}

FIXTURE_TEARDOWN(inbox)
{
	pst_cq_destroy(self->a.cq);
	pst_cq_destroy(self->b.cq);
	pst_inbox_destroy(self->inbox);
	for (int i = 0; i < 2; i++) {
		pst_region_release(self->region[i]);
		pst_pool_destroy(self->pool[i]);
	}
	pst_fabric_close(self->fabric);
}

/* A read of a's memory, from @offset on; what it ends with. */
static int read_some(struct fixture_inbox *self, uint64_t offset, uint64_t len,
		     struct pst_error *err)
{
	struct pst_wr wr = {
		.op = PST_WR_READ,
		.local = self->region[1],
		.local_addr = pst_pool_base(self->pool[1]),
		.key = self->key,
		.remote_off = offset,
		.len = len,
	};
	struct pst_batch b;

	pst_batch_begin(self->inbox, &b);
	pst_batch_post(self->inbox, &b, self->a.ours, &wr, 1);
	return pst_batch_wait(self->inbox, &b, err);
}

static void say(struct peer *p, char c)
{
	ASSERT_EQ(0, pst_link_send(p->link, &c, 1, STORE_TIMEOUT_MS));
}

static char hear(struct fixture_inbox *self, const struct pst_link *link)
{
	while (pst_inbox_next(self->inbox, &self->wc, STORE_TIMEOUT_MS) != 1)
		;
	if (self->wc.kind != PST_WC_MESSAGE)
		return 0;
	EXPECT_TRUE(self->wc.link == link);
	return *(const char *)self->wc.msg;
}

TEST_F(inbox, what_comes_meanwhile_is_kept_in_order)
{
	struct pst_wr imm = {.op = PST_WR_WRITE, .flags = PST_WR_IMM, .imm = 77};
	const char *first;

	say(&self->a, 'a');
	EXPECT_EQ('a', hear(self, self->a.ours));
	first = self->wc.msg;
	say(&self->a, 'b');
	ASSERT_EQ(1, pst_link_post(self->a.link, &imm, 1));
	say(&self->a, 'c');
	memset(pst_pool_base(self->pool[0]), 'x', 8);
	for (int i = 0; i < 40; i++)
		ASSERT_EQ(0, read_some(self, 0, 8, NULL));
	EXPECT_FALSE(memcmp(pst_pool_base(self->pool[1]), "xxxxxxxx", 8));
	/* what was given before is still there */
	EXPECT_EQ('a', *first);
	say(&self->a, 'd');
	EXPECT_EQ('b', hear(self, self->a.ours));
	EXPECT_EQ(0, hear(self, self->a.ours));
	EXPECT_EQ(PST_WC_IMM, (int)self->wc.kind);
	EXPECT_EQ(77u, self->wc.imm);
	EXPECT_EQ('c', hear(self, self->a.ours));
	EXPECT_EQ('d', hear(self, self->a.ours));
	EXPECT_EQ(0, pst_inbox_next(self->inbox, &self->wc, 1));
}

TEST_F(inbox, an_answer_reaches_its_call_whoever_waits)
{
	struct pst_msg m = {.size = sizeof(m), .type = PST_MSG_STAT};
	struct pst_msg_answer answer, said = {0};
	struct pst_rpc_call call;
	struct pst_wc wc;

	ASSERT_EQ(0, pst_rpc_send(self->inbox, &call, self->a.ours, &m, &answer, sizeof(answer),
				  NULL));
	while (pst_cq_wait(self->a.cq, &wc, 1, STORE_TIMEOUT_MS) != 1)
		;
	ASSERT_EQ(0, pst_rpc_answer(self->a.link, wc.msg, &said, sizeof(said), NULL));
	say(&self->a, 'a');
	for (int i = 0; i < 40; i++)
		ASSERT_EQ(0, read_some(self, 0, 8, NULL));
	EXPECT_EQ(0, pst_rpc_wait(self->inbox, &call, 1, 0, NULL));
	EXPECT_EQ('a', hear(self, self->a.ours));
}

TEST_F(inbox, what_cannot_be_read_is_said)
{
	struct pst_error err = {0};

	EXPECT_EQ(-ERANGE, read_some(self, pst_pool_bytes(self->pool[0]), 8, &err));
	EXPECT_LT(0, (int)strlen(err.text));
	self->key.k[0] ^= 1;
	EXPECT_EQ(-ENOENT, read_some(self, 0, 8, &err));
	self->key.k[0] ^= 1;
	EXPECT_EQ(0, read_some(self, 0, 8, NULL));
	pst_link_close(self->a.link);
	while (pst_inbox_next(self->inbox, &self->wc, STORE_TIMEOUT_MS) != 1)
		;
	EXPECT_EQ(PST_WC_DOWN, (int)self->wc.kind);
	EXPECT_EQ(-ECONNRESET, read_some(self, 0, 8, &err));
}

TEST_F(inbox, a_closed_link_is_forgotten)
{
	say(&self->a, 'a');
	say(&self->b, 'b');
	say(&self->a, 'c');
	while (pst_inbox_pump(self->inbox, 0) > 0)
		;
	pst_inbox_close(self->inbox, self->a.ours);
	EXPECT_EQ('b', hear(self, self->b.ours));
	EXPECT_EQ(0, pst_inbox_next(self->inbox, &self->wc, 1));
	say(&self->b, 'd');
	EXPECT_EQ('d', hear(self, self->b.ours));
}

/* Who says more than is kept has said it all. */
TEST_F(inbox, a_flood_ends)
{
	static char much[PST_MSG_MAX];
	size_t most = PST_INBOX_MAX / PST_MSG_MAX, heard = 0;

	for (size_t i = 0; i < most + 1000; i++) {
		ASSERT_EQ(0, pst_link_send(self->a.link, much, sizeof(much), STORE_TIMEOUT_MS));
		if (i % 64 == 0)
			while (pst_inbox_pump(self->inbox, 0) > 0)
				;
	}
	while (pst_inbox_pump(self->inbox, 0) > 0)
		;
	while (!pst_inbox_next(self->inbox, &self->wc, 0) || self->wc.kind == PST_WC_MESSAGE)
		heard++;
	EXPECT_EQ(PST_WC_DOWN, (int)self->wc.kind);
	EXPECT_EQ(-ENOBUFS, self->wc.status);
	EXPECT_TRUE(self->wc.link == self->a.ours);
	EXPECT_LE(heard, most);
	EXPECT_LT(most / 2, heard);
	/* that was all of it */
	say(&self->a, 'a');
	EXPECT_EQ(0, pst_inbox_next(self->inbox, &self->wc, 1));
	pst_inbox_close(self->inbox, self->a.ours);
	/* others are heard */
	say(&self->b, 'b');
	EXPECT_EQ('b', hear(self, self->b.ours));
}

TEST_MAIN
