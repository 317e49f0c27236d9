/* SPDX-License-Identifier: Apache-2.0 */
/* Pushes that are not what they are said to be, or not where they may be: never used. */
#include "selftests/store/engine.h"

#include "rdma/crc32c.h"

#include <math.h>

static _Thread_local int wrong; /* how many of this thread's next CRCs come out wrong */

/* In place of the library's: bit by bit, and wrong when a test wants it so. */
uint32_t pst_crc32c(uint32_t crc, const void *data, size_t len)
{
	const unsigned char *p = data;

	crc = ~crc;
	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	if (wrong > 0 && wrong--)
		crc ^= 1;
	return ~crc;
}

FIXTURE(push)
{
	struct servers s;
	struct table t;
	struct engine a, b;
	uint8_t all[TENSORS];
	bool bad;
};

FIXTURE_SETUP(push)
{
	struct pst_error err = {0};

	settings = FAR;
	servers_start(&self->s, 1, false);
	table_open(&self->t, &self->s);
	ASSERT_OK(pst_client_init(self->t.client, 5, &err), &err);
	engine_connect(&self->a, self->s.url[0]);
	engine_connect(&self->b, self->s.url[0]);
	engine_open_slot(&self->a);
	memset(self->all, 1, sizeof(self->all));
}

FIXTURE_TEARDOWN(push)
{
	EXPECT_EQ(0, engine_stat(&self->b));
	engine_close(&self->b);
	engine_close(&self->a);
	table_close(&self->t);
	servers_stop(&self->s);
}

static uint64_t bytes_of(struct engine *e, uint32_t i)
{
	return i == PST_PUSHED_MASK ? pst_view_count(e->view) : pst_view_tensor(e->view, i)->bytes;
}

static uint32_t crc_of(struct engine *e, uint32_t i)
{
	return pst_crc32c(
		0, i == PST_PUSHED_MASK ? e->base + e->head.mask : (char *)engine_gradient(e, i),
		bytes_of(e, i));
}

/* Say what is true of what was written. */
static void tell_truth(struct fixture_push *self, uint32_t i, uint64_t version)
{
	ASSERT_OK(engine_tell(&self->a, self->a.slot.slot, i, crc_of(&self->a, i), version,
			      &self->bad),
		  &self->a.err);
	EXPECT_FALSE(self->bad);
}

/* The step is made of what make_gradient() gives. */
static void expect_sum(struct fixture_push *self, uint64_t version)
{
	struct engine *e = &self->a;

	EXPECT_EQ(0, engine_committed(e));
	engine_fetch(e);
	for (size_t i = 0; i < TENSORS; i++) {
		const struct pst_wire_tensor *t = pst_view_tensor(e->view, i);
		size_t n = elements(t);
		float *g = malloc(n * sizeof(*g));
		double norm = 0;

		make_gradient(t, version, 0, g);
		EXPECT_TRUE(same_bits(g, engine_gradient(e, i), n));
		for (size_t k = 0; k < n && i != BIAS; k++)
			norm += (double)g[k] * g[k];
		EXPECT_LE(fabs(engine_norms(e)[i] - norm), 1e-9 * norm);
		free(g);
	}
	EXPECT_EQ(0, engine_apply(e, version));
}

static uint64_t server_crc_bad(struct fixture_push *self)
{
	struct pst_msg_stated stat;
	struct pst_error err = {0};

	ASSERT_OK(pst_client_stat(self->t.client, 0, &stat, &err), &err);
	return stat.crc_bad;
}

TEST_F(push, what_agrees_has_arrived)
{
	struct engine *e = &self->a;

	engine_put(e, self->all, 0, 0);
	tell_truth(self, PST_PUSHED_MASK, 0);
	for (uint32_t i = 1; i < TENSORS; i++)
		tell_truth(self, i, 0);
	engine_commit(e, 0);
	EXPECT_TRUE(engine_waits(e));
	/* also behind the commit */
	tell_truth(self, 0, 0);
	expect_sum(self, 0);
	EXPECT_EQ(0u, server_crc_bad(self));
}

TEST_F(push, a_wrong_crc_is_not_believed)
{
	struct engine *e = &self->a;

	engine_put(e, self->all, 0, 0);
	for (uint32_t i = 0; i < TENSORS - 1; i++)
		tell_truth(self, i, 0);
	engine_commit(e, 0);
	for (int k = 0; k < 3; k++) {
		EXPECT_EQ(0, engine_tell(e, 0, HEAD, crc_of(e, HEAD) ^ 1u << k, 0, &self->bad));
		EXPECT_TRUE(self->bad);
		EXPECT_TRUE(engine_waits(e));
	}
	EXPECT_EQ(3u, server_crc_bad(self));
	tell_truth(self, HEAD, 0);
	expect_sum(self, 0);
}

/* What had arrived has not when other bytes are there now. */
TEST_F(push, what_is_overwritten_is_asked_for_again)
{
	struct engine *e = &self->a;
	uint32_t crc;
	float good;

	engine_put(e, self->all, 0, 0);
	for (uint32_t i = 0; i < TENSORS; i++)
		tell_truth(self, i, 0);
	crc = crc_of(e, E1_UP);
	good = engine_gradient(e, E1_UP)[7];
	engine_gradient(e, E1_UP)[7] = NAN;
	engine_flush(e);
	EXPECT_EQ(0, engine_tell(e, 0, E1_UP, crc, 0, &self->bad));
	EXPECT_TRUE(self->bad);
	engine_commit(e, 0);
	EXPECT_TRUE(engine_waits(e));
	engine_gradient(e, E1_UP)[7] = good;
	engine_flush(e);
	EXPECT_EQ(0, engine_tell(e, 0, E1_UP, crc, 0, &self->bad));
	EXPECT_FALSE(self->bad);
	expect_sum(self, 0);
}

TEST_F(push, the_mask_is_checked_too)
{
	struct engine *e = &self->a;

	engine_put(e, self->all, 0, 0);
	EXPECT_EQ(0, engine_tell(e, 0, PST_PUSHED_MASK, crc_of(e, PST_PUSHED_MASK) + 1, 0,
				 &self->bad));
	EXPECT_TRUE(self->bad);
	tell_truth(self, PST_PUSHED_MASK, 0);
}

/* One tensor twice in a message, once with a wrong CRC: it has to agree twice. */
TEST_F(push, half_a_lie_is_a_lie)
{
	struct engine *e = &self->a;
	union {
		struct pst_msg_pushed m;
		char bytes[sizeof(struct pst_msg_pushed) + 3 * sizeof(struct pst_wire_pushed)];
	} ask = {.m = {.count = 3}};
	struct pst_msg_pushed_answer answer;

	engine_put(e, self->all, 0, 0);
	for (uint32_t i = 1; i < TENSORS; i++)
		tell_truth(self, i, 0);
	for (int i = 0; i < 3; i++)
		ask.m.item[i] = (struct pst_wire_pushed){0, crc_of(e, 0) + (i == 1)};
	EXPECT_EQ(0, ENGINE_ASK(e, &ask, PST_MSG_PUSHED, &answer));
	EXPECT_EQ(2u, answer.bad[0]);
	engine_commit(e, 0);
	EXPECT_TRUE(engine_waits(e));
	tell_truth(self, 0, 0);
	expect_sum(self, 0);
}

TEST_F(push, nobody_pushes_into_anothers_slot)
{
	static const uint32_t none[] = {1, 64, 127, 128, 1u << 25, UINT32_MAX};
	struct engine *e = &self->a;

	engine_put(e, self->all, 0, 0);
	for (uint32_t i = 1; i < TENSORS; i++)
		tell_truth(self, i, 0);
	engine_commit(e, 0);
	/* b has neither opened nor joined it, and knows every word */
	EXPECT_EQ(-EACCES, engine_tell(&self->b, 0, 0, crc_of(e, 0), 0, &self->bad));
	EXPECT_NE(NULL, strstr(self->b.err.text, "slot 0 is not one that this link opened"));
	ASSERT_EQ(0, pst_rpc_announce(self->b.inbox, self->b.link, PST_IMM(0, 0, 0)));
	EXPECT_EQ(0, engine_stat(&self->b));
	EXPECT_TRUE(engine_waits(e));
	for (size_t i = 0; i < sizeof(none) / sizeof(*none); i++)
		EXPECT_EQ(-EACCES, engine_tell(e, none[i], 0, crc_of(e, 0), 0, &self->bad));
	EXPECT_TRUE(engine_waits(e));
	/* with the token it may */
	ASSERT_EQ(0, engine_try_join(&self->b, e->slot.token));
	EXPECT_EQ(0, engine_tell(&self->b, 0, 0, crc_of(e, 0), 0, &self->bad));
	EXPECT_FALSE(self->bad);
	expect_sum(self, 0);
}

TEST_F(push, words_of_nonsense)
{
	static const uint32_t counts[] = {0, 2, PST_PUSHED_MAX, PST_PUSHED_MAX + 1, UINT32_MAX};
	static const uint32_t tensors[] = {TENSORS, 1u << 24, UINT32_MAX - 1};
	struct engine *e = &self->a;
	union {
		struct pst_msg_pushed m;
		char bytes[sizeof(struct pst_msg_pushed) + sizeof(struct pst_wire_pushed)];
	} ask = {.m = {.count = 1}};
	struct pst_msg_pushed_answer answer;

	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
		ask.m.count = counts[i];
		EXPECT_EQ(-EINVAL, ENGINE_ASK(e, &ask, PST_MSG_PUSHED, &answer));
		EXPECT_NE(NULL, strstr(e->err.text, "whose length is wrong"));
	}
	for (size_t i = 0; i < sizeof(tensors) / sizeof(*tensors); i++)
		EXPECT_EQ(-ERANGE, engine_tell(e, 0, tensors[i], 0, 0, &self->bad));
	EXPECT_EQ(-ESTALE, engine_tell(e, 0, 0, crc_of(e, 0), 1, &self->bad));
	EXPECT_EQ(-ESTALE, engine_tell(e, 0, 0, crc_of(e, 0), PST_VERSION_NONE, &self->bad));
	/* when it is summed it is too late */
	engine_put(e, self->all, 0, 0);
	for (uint32_t i = 0; i < TENSORS; i++)
		tell_truth(self, i, 0);
	engine_commit(e, 0);
	EXPECT_EQ(0, engine_committed(e));
	EXPECT_EQ(-ESTALE, engine_tell(e, 0, 0, crc_of(e, 0), 0, &self->bad));
	EXPECT_NE(NULL, strstr(e->err.text, "takes no more for it"));
	EXPECT_EQ(0, engine_apply(e, 0));
}

/* The client's own */

static void client_alone(struct fixture_push *self)
{
	struct pst_error err = {0};

	engine_close(&self->a);
	engine_connect(&self->a, self->s.url[0]);
	ASSERT_OK(pst_client_train(self->t.client, &err), &err);
}

TEST_F(push, a_client_writes_again_what_was_bad)
{
	struct pst_client_moved moved;

	client_alone(self);
	table_step(&self->t, 1);
	pst_client_moved(self->t.client, &moved);
	EXPECT_EQ(0u, moved.crc_bad);
	EXPECT_LT(0u, moved.pushed_bytes);
	wrong = 3;
	table_step(&self->t, 1);
	EXPECT_EQ(0, wrong);
	pst_client_moved(self->t.client, &moved);
	EXPECT_EQ(3u, moved.crc_bad);
	EXPECT_EQ(3u, moved.resent);
	EXPECT_EQ(3u, server_crc_bad(self));
}

TEST_F(push, a_client_gives_up_in_the_end)
{
	uint8_t has[TENSORS] = {0};
	struct pst_error err = {0};
	double norm;

	client_alone(self);
	table_begin(&self->t);
	has[HEAD] = 1;
	wrong = 1000;
	EXPECT_EQ(-EBADMSG, pst_client_commit(self->t.client, self->t.all, has, &norm, &err));
	EXPECT_NE(NULL, strstr(err.text, "arrived broken 4 times"));
	EXPECT_TRUE(names_url(err.text, self->s.url[0]));
	wrong = 0;
	/* nothing of it was committed: the step can be made */
	table_step(&self->t, 1);
}

/* crc=0: the server is told by immediates, and nobody computes anything. */
TEST_F(push, without_crc_if_the_url_says_so)
{
	struct pst_client_moved moved;
	struct servers s;
	struct table t;

	settings = FAR "&crc=0";
	servers_start(&s, 2, false);
	table_open(&t, &s);
	table_init(&t, 5);
	wrong = 1;
	for (int i = 0; i < 3; i++)
		table_step(&t, 1);
	EXPECT_EQ(1, wrong);
	wrong = 0;
	pst_client_moved(t.client, &moved);
	EXPECT_EQ(0u, moved.crc_bad);
	EXPECT_LT(0u, moved.pushed_bytes);
	table_close(&t);
	servers_stop(&s);
}

TEST_MAIN
