/* SPDX-License-Identifier: Apache-2.0 */
/* An engine that asks a worker for what cannot be: refused with a sentence, the worker lives. */
#include "selftests/moe/moe.h"

#include "runtime/mem/pool.h"

static const struct shape small = {.experts = 6, .hidden = 24, .inter = 40, .tokens = 50};

#define ROWS ((size_t)50 * TOPK)

/* Memory that the engine shows to the worker. */
struct shown {
	struct pst_pool *pool;
	struct pst_region *region;
	struct pst_key key;
};

FIXTURE(hostile)
{
	struct rig r; /* its own engine works on beside the hostile one */
	struct engine e;
	struct shown rows, results;
	struct pst_msg_worker_setup setup; /* a good one, to be spoilt */
	union {
		struct pst_msg_experts m; /* a good one, of one expert */
		char bytes[PST_MSG_MAX];
	} ask;
};

static void show(struct engine *e, uint64_t bytes, uint32_t access, struct shown *out)
{
	struct pst_pool_options po = {
		.size = sizeof(po), .name = "shown", .bytes = bytes, .node = -1};
	struct pst_region_attr attr = {.size = sizeof(attr), .access = access};

	ASSERT_OK(pst_pool_create(&po, &out->pool, &e->err), &e->err);
	attr.addr = pst_pool_base(out->pool);
	attr.len = pst_pool_bytes(out->pool);
	attr.fd = pst_pool_fd(out->pool);
	ASSERT_OK(pst_region_register(e->fabric, &attr, &out->region, &e->err), &e->err);
	ASSERT_EQ(0, pst_link_grant(e->link, out->region, access, &out->key));
}

/* Rows begin behind a page with the list of servers. */
#define X_AT 4096

static void good_words(struct fixture_hostile *self)
{
	self->setup = (struct pst_msg_worker_setup){
		.servers = 1,
		.hidden = small.hidden,
		.inter = small.inter,
		.layers = LAYERS,
		.experts = small.experts,
		.max_rows = ROWS,
	};
	memcpy(&self->setup.rows, &self->rows.key, sizeof(self->rows.key));
	memcpy(&self->setup.results, &self->results.key, sizeof(self->results.key));
	memset(&self->ask, 0, sizeof(self->ask));
	self->ask.m.x = X_AT;
	self->ask.m.dy = X_AT;
	self->ask.m.layer = DENSE;
	self->ask.m.count = 1;
	self->ask.m.item[0] = (struct pst_wire_expert){.expert = 0, .row = 0, .rows = 3};
}

FIXTURE_VARIANT(hostile)
{
	const char *settings;
};

FIXTURE_VARIANT_ADD(hostile, mapped){MAPPED};
FIXTURE_VARIANT_ADD(hostile, far){FAR};
FIXTURE_VARIANT_ADD(hostile, tcp){TCP};

FIXTURE_SETUP(hostile)
{
	size_t bytes = ROWS * small.hidden * sizeof(float);

	settings = variant->settings;
	rig_open(&self->r, small, 1, 1, false, 30000);
	engine_connect(&self->e, self->r.workers.url[0]);
	show(&self->e, X_AT + bytes, PST_ACCESS_READ, &self->rows);
	show(&self->e, bytes, PST_ACCESS_WRITE, &self->results);
	pst_client_describe(self->r.client, 0, pst_pool_base(self->rows.pool));
	good_words(self);
}

FIXTURE_TEARDOWN(hostile)
{
	EXPECT_EQ(0, engine_stat(&self->e));
	pst_view_close(self->e.view);
	self->e.view = NULL;
	pst_region_release(self->rows.region);
	pst_region_release(self->results.region);
	engine_close(&self->e);
	pst_pool_destroy(self->rows.pool);
	pst_pool_destroy(self->results.pool);
	/* and the other engine noticed nothing */
	rig_step(&self->r, EVENLY, harm_none);
	rig_close(&self->r);
}

static int set_up(struct fixture_hostile *self)
{
	return ENGINE_ASK(&self->e, &self->setup, PST_MSG_WORKER_SETUP, &self->e.answer);
}

static int ask(struct fixture_hostile *self)
{
	size_t size = sizeof(self->ask.m) + self->ask.m.count * sizeof(*self->ask.m.item);

	return engine_ask(&self->e, &self->ask, size, PST_MSG_EXPERTS, &self->e.answer,
			  sizeof(self->e.answer));
}

static void expect_said(struct fixture_hostile *self, const char *text)
{
	if (!strstr(self->e.err.text, text))
		EXPECT_STREQ(text, self->e.err.text);
}

TEST_F(hostile, good_words_are_answered)
{
	ASSERT_OK(set_up(self), &self->e.err);
	ASSERT_OK(ask(self), &self->e.err);
	self->ask.m.what = PST_EXPERTS_KEEP;
	ASSERT_OK(ask(self), &self->e.err);
	/* no rows are no mistake */
	self->ask.m.item[0].rows = 0;
	ASSERT_OK(ask(self), &self->e.err);
	self->ask.m.count = 0;
	ASSERT_OK(ask(self), &self->e.err);
}

TEST_F(hostile, a_second_set_up)
{
	ASSERT_OK(set_up(self), &self->e.err);
	EXPECT_EQ(-EEXIST, set_up(self));
	expect_said(self, "is set up already");
	ASSERT_OK(ask(self), &self->e.err);
}

TEST_F(hostile, experts_before_the_set_up)
{
	EXPECT_EQ(-EINVAL, ask(self));
	expect_said(self, "experts asked for before the set-up");
}

/* A set-up that failed may be tried again. */
static void expect_no_set_up(struct fixture_hostile *self, int code, const char *text)
{
	EXPECT_EQ(code, set_up(self));
	expect_said(self, text);
	good_words(self);
}

TEST_F(hostile, set_ups_of_nonsense)
{
	struct pst_msg_worker_setup *m = &self->setup;
	const char *nonsense = "a set-up that makes no sense";

	m->servers = 0;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->servers = 1 << 20;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->servers = 4096; /* more than the region holds */
	expect_no_set_up(self, -EINVAL, nonsense);
	m->servers_offset = UINT64_MAX - 8;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->servers_offset = pst_pool_bytes(self->rows.pool) - sizeof(struct pst_wire_server) + 1;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->hidden = 0;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->inter = 0;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->layers = 0;
	expect_no_set_up(self, -EINVAL, nonsense);
	m->experts = 0;
	expect_no_set_up(self, -EINVAL, nonsense);
	/* rows that the engine has no room for */
	m->max_rows =
		(uint32_t)(pst_pool_bytes(self->rows.pool) / small.hidden / sizeof(float)) + 1;
	expect_no_set_up(self, -EINVAL, nonsense);
	/* so many that looking for them would take for ever */
	m->layers = m->experts = 1 << 16;
	expect_no_set_up(self, -EINVAL, nonsense);
	ASSERT_OK(set_up(self), &self->e.err);
}

TEST_F(hostile, set_ups_of_another_model)
{
	struct pst_msg_worker_setup *m = &self->setup;

	m->inter = small.inter + 1;
	expect_no_set_up(self, -EPROTO, "has another shape than asked");
	m->layers = DENSE;
	expect_no_set_up(self, -ENOENT, "no server has experts of this model");
	memset(&m->rows, 0x55, sizeof(m->rows));
	expect_no_set_up(self, -ENOENT, "the engine's regions cannot be reached");
	/* results that may only be read: far, that is found out when they are written */
	m->results = m->rows;
	if (is_far()) {
		ASSERT_OK(set_up(self), &self->e.err);
		EXPECT_EQ(-EACCES, ask(self));
		return;
	}
	expect_no_set_up(self, -EACCES, "the engine's regions cannot be reached");
	ASSERT_OK(set_up(self), &self->e.err);
}

TEST_F(hostile, set_ups_with_other_servers)
{
	struct pst_wire_server *server = pst_pool_base(self->rows.pool), good = *server;

	server->token++;
	expect_no_set_up(self, -EACCES, "no slot has this token");
	*server = good;
	memset(server->url, 'x', sizeof(server->url));
	expect_no_set_up(self, -EPROTONOSUPPORT, "xxx");
	snprintf(server->url, sizeof(server->url), "pigeon://somewhere:1");
	expect_no_set_up(self, -EPROTONOSUPPORT, "pigeon");
	*server = good;
	ASSERT_OK(set_up(self), &self->e.err);
}

static void expect_refused(struct fixture_hostile *self, int code, const char *text)
{
	EXPECT_EQ(code, ask(self));
	expect_said(self, text);
	good_words(self);
}

TEST_F(hostile, rows_out_of_the_region)
{
	struct pst_msg_experts *m = &self->ask.m;
	uint64_t rows = pst_pool_bytes(self->rows.pool),
		 results = pst_pool_bytes(self->results.pool);
	uint64_t bases[] = {rows, rows - 4,	     UINT64_MAX - 3,	UINT64_MAX,
			    1,	  (uint64_t)1 << 63, 0 - (uint64_t)X_AT};
	const char *out = "rows outside of the region";

	ASSERT_OK(set_up(self), &self->e.err);
	for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
		m->x = bases[i];
		expect_refused(self, -ERANGE, out);
		m->out = bases[i];
		expect_refused(self, -ERANGE, out);
		m->what = PST_EXPERTS_BACKWARD;
		m->dy = bases[i];
		expect_refused(self, -ERANGE, out);
	}
	m->item[0].row = (uint32_t)(results / small.hidden / sizeof(float)) - 2;
	expect_refused(self, -ERANGE, out);
	m->item[0].row = UINT32_MAX;
	expect_refused(self, -ERANGE, out);
	m->item[0].rows = ROWS + 1;
	expect_refused(self, -ERANGE, out);
	m->item[0].rows = UINT32_MAX;
	expect_refused(self, -ERANGE, out);
	m->item[0].rows = ROWS;
	ASSERT_OK(ask(self), &self->e.err);
	/* each is within the region, and they are too many for who has to copy them */
	m->count = 2;
	m->item[1] = (struct pst_wire_expert){.expert = 1, .rows = 1};
	if (is_far())
		expect_refused(self, -ERANGE, "a request of more rows than the set-up's 100");
}

TEST_F(hostile, experts_that_are_not_there)
{
	struct pst_msg_experts *m = &self->ask.m;

	ASSERT_OK(set_up(self), &self->e.err);
	m->layer = 0;
	expect_refused(self, -ENOENT, "no server has expert 0 of layer 0");
	m->layer = LAYERS;
	expect_refused(self, -ERANGE, "expert 0 of layer 3");
	m->layer = UINT32_MAX;
	expect_refused(self, -ERANGE, "of layer 4294967295");
	m->item[0].expert = small.experts;
	expect_refused(self, -ERANGE, "expert 6 of layer 1");
	m->item[0].expert = UINT32_MAX;
	expect_refused(self, -ERANGE, "expert 4294967295 of layer 1");
	m->version = 1;
	expect_refused(self, -ESTALE, "version 1 of expert 0 is not held");
	/* one expert twice would be written by two threads */
	m->count = 2;
	m->item[1] = m->item[0];
	expect_refused(self, -EINVAL, "expert 0 is named twice, or out of order");
	ASSERT_OK(ask(self), &self->e.err);
}

TEST_F(hostile, flags_and_lengths)
{
	struct pst_msg_experts *m = &self->ask.m;
	struct engine *e = &self->e;

	ASSERT_OK(set_up(self), &e->err);
	m->what = 4;
	expect_refused(self, -EINVAL, "unknown flags");
	m->reserved = 1;
	expect_refused(self, -EINVAL, "unknown flags");
	m->item[0].reserved = 1;
	expect_refused(self, -ERANGE, "rows outside");
	/* more items than the message has, or fewer */
	m->count = 2;
	EXPECT_EQ(-EINVAL, engine_ask(e, m, sizeof(*m) + sizeof(*m->item), PST_MSG_EXPERTS,
				      &e->answer, sizeof(e->answer)));
	expect_said(self, "whose length is wrong");
	m->count = UINT32_MAX;
	EXPECT_EQ(-EINVAL, engine_ask(e, m, sizeof(*m) + sizeof(*m->item), PST_MSG_EXPERTS,
				      &e->answer, sizeof(e->answer)));
	expect_said(self, "whose length is wrong");
	EXPECT_EQ(-ENOTTY,
		  engine_ask(e, m, sizeof(*m) - 1, PST_MSG_EXPERTS, &e->answer, sizeof(e->answer)));
	EXPECT_EQ(-ENOTTY,
		  engine_ask(e, m, sizeof(*m), PST_MSG_COMMIT, &e->answer, sizeof(e->answer)));
	expect_said(self, "a worker does not know request 7 of 72 bytes");
	good_words(self);
	ASSERT_OK(ask(self), &e->err);
}

TEST_F(hostile, a_backward_without_slots)
{
	struct pst_wire_server *server = pst_pool_base(self->rows.pool);

	server->token = 0;
	ASSERT_OK(set_up(self), &self->e.err);
	self->ask.m.what = PST_EXPERTS_BACKWARD;
	expect_refused(self, -EINVAL, "a backward without push slots");
	ASSERT_OK(ask(self), &self->e.err);
}

TEST_MAIN
