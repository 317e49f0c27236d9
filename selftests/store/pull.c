/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that are pulled: the right ones, whole, once, and no more of them than there is room for.
 */
#include "selftests/store/engine.h"

#include <stdatomic.h>

FIXTURE(pull)
{
	struct servers s;
	struct table t;	      /* of the client, far as well */
	struct engine e;      /* whose view is pulled */
	struct engine mapped; /* sees the same in place */
	struct pst_copies *copies;
	struct pst_copies_stat stat;
	struct pst_error err;
};

static void make_copies(struct fixture_pull *self, uint64_t bytes)
{
	struct pst_copies_options o = {
		.size = sizeof(o), .fabric = self->e.fabric, .bytes = bytes, .node = -1};

	pst_view_keep(self->e.view, NULL);
	pst_copies_destroy(self->copies);
	ASSERT_OK(pst_copies_create(&o, &self->copies, &self->err), &self->err);
	pst_view_keep(self->e.view, self->copies);
}

FIXTURE_SETUP(pull)
{
	settings = FAR;
	servers_start(&self->s, 1, false);
	table_open(&self->t, &self->s);
	table_init(&self->t, 5);
	engine_connect(&self->e, self->s.url[0]);
	settings = MAPPED;
	engine_connect(&self->mapped, self->s.url[0]);
	settings = FAR;
	ASSERT_OK(pst_view_open(self->e.view, &self->err), &self->err);
	ASSERT_OK(pst_view_open(self->mapped.view, &self->err), &self->err);
	EXPECT_TRUE(pst_view_mapped(self->mapped.view));
	EXPECT_FALSE(pst_view_mapped(self->e.view));
	make_copies(self, 1 << 20);
}

FIXTURE_TEARDOWN(pull)
{
	pst_view_keep(self->e.view, NULL);
	pst_copies_destroy(self->copies);
	engine_close(&self->e);
	engine_close(&self->mapped);
	table_close(&self->t);
	servers_stop(&self->s);
}

/* What is here is what the server shows. */
static void expect_same(struct fixture_pull *self, uint32_t i, uint64_t version)
{
	const float *here = pst_view_weight(self->e.view, i, version);
	const float *there = pst_view_weight(self->mapped.view, i, version);

	ASSERT_TRUE(here && there && here != there);
	EXPECT_TRUE(same_bits(there, here, elements(pst_view_tensor(self->e.view, i))));
}

static int need(struct fixture_pull *self, uint32_t i, uint64_t version)
{
	return pst_view_need(self->e.view, &i, 1, version, &self->err);
}

TEST_F(pull, what_is_here_is_not_pulled_again)
{
	uint32_t list[] = {NORM, E0_GATE, HEAD};
	uint64_t bytes = 0;

	for (int i = 0; i < 3; i++)
		bytes += pst_view_tensor(self->e.view, list[i])->bytes;
	for (uint64_t version = 0; version < 3; version++) {
		for (int again = 0; again < 3; again++) {
			pst_copies_begin(self->copies);
			ASSERT_OK(pst_view_need(self->e.view, list, 3, version, &self->err),
				  &self->err);
			for (int i = 0; i < 3; i++)
				expect_same(self, list[i], version);
		}
		pst_copies_stat(self->copies, &self->stat);
		EXPECT_EQ((version + 1) * bytes, self->stat.pulled_bytes);
		EXPECT_EQ((version + 1) * 6, self->stat.hits);
		EXPECT_EQ(version, pst_view_current(self->e.view));
		/* neither of another version nor what was not asked for */
		EXPECT_TRUE(!pst_view_weight(self->e.view, NORM, version + 1));
		EXPECT_TRUE(!pst_view_weight(self->e.view, NORM, PST_VERSION_NONE));
		EXPECT_TRUE(!pst_view_weight(self->e.view, EMBED, version));
		table_step(&self->t, 1);
	}
	EXPECT_EQ(0u, self->stat.evicted);
}

TEST_F(pull, the_least_recently_used_goes)
{
	uint64_t cost = pst_copies_cost(pst_view_tensor(self->e.view, E0_GATE)->bytes);
	const uint32_t order[] = {E0_GATE, E0_UP, E1_GATE, E0_GATE, E1_UP, E0_UP, E0_GATE};
	const bool hit[] = {false, false, false, true, false, false, true};
	uint64_t hits = 0;

	make_copies(self, 3 * cost);
	for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
		pst_copies_begin(self->copies);
		ASSERT_OK(need(self, order[i], 0), &self->err);
		expect_same(self, order[i], 0);
		hits += hit[i];
		pst_copies_stat(self->copies, &self->stat);
		EXPECT_EQ(hits, self->stat.hits);
		EXPECT_LE(self->stat.used_bytes, 3 * cost);
	}
	EXPECT_EQ(2u, self->stat.evicted);
	/* an evicted one is not there */
	EXPECT_TRUE(!pst_view_weight(self->e.view, E1_GATE, 0));
}

TEST_F(pull, a_request_keeps_what_it_uses)
{
	uint64_t cost = pst_copies_cost(pst_view_tensor(self->e.view, E0_GATE)->bytes);
	uint32_t four[] = {E0_GATE, E0_UP, E0_DOWN, E1_GATE};

	make_copies(self, 3 * cost);
	pst_copies_begin(self->copies);
	for (int i = 0; i < 3; i++)
		ASSERT_OK(need(self, four[i], 0), &self->err);
	EXPECT_EQ(-ENOSPC, need(self, four[3], 0));
	EXPECT_NE(NULL, strstr(self->err.text, "copies of what is needed at once are more than"));
	for (int i = 0; i < 3; i++)
		expect_same(self, four[i], 0);
	/* too much in one go; and then it goes on */
	pst_copies_begin(self->copies);
	EXPECT_EQ(-ENOSPC, pst_view_need(self->e.view, four, 4, 0, &self->err));
	EXPECT_EQ(-ENOSPC, need(self, EMBED, 0));
	pst_copies_begin(self->copies);
	ASSERT_OK(need(self, four[3], 0), &self->err);
	expect_same(self, four[3], 0);
}

/* Any order, any sizes, too little room: never a wrong bit. */
TEST_F(pull, at_random_under_a_small_budget)
{
	uint64_t state = 3, version = 0;
	uint32_t list[3];

	make_copies(self, 24000);
	for (int round = 0; round < 600; round++) {
		uint32_t n = 1 + (uint32_t)(test_random(&state) % 3);

		if (round % 100 == 99) {
			table_step(&self->t, 1);
			version++;
		}
		for (uint32_t i = 0; i < n; i++)
			list[i] = NORM + (uint32_t)(test_random(&state) % (TENSORS - NORM));
		pst_copies_begin(self->copies);
		ASSERT_OK(pst_view_need(self->e.view, list, n, version, &self->err), &self->err);
		for (uint32_t i = 0; i < n; i++)
			expect_same(self, list[i], version);
	}
	pst_copies_stat(self->copies, &self->stat);
	EXPECT_LT(50u, self->stat.evicted);
	EXPECT_LT(50u, self->stat.hits);
}

TEST_F(pull, another_version_than_there_is)
{
	EXPECT_EQ(-ESTALE, need(self, NORM, 1));
	EXPECT_NE(NULL, strstr(self->err.text, "no longer holds version 1"));
	EXPECT_TRUE(!pst_view_weight(self->e.view, NORM, 1));
	EXPECT_EQ(-ESTALE, need(self, NORM, PST_VERSION_NONE));
	ASSERT_OK(need(self, NORM, 0), &self->err);
	for (int i = 0; i < 2; i++)
		table_step(&self->t, 1);
	/* this one is here, though the server has it no more; that one is not */
	ASSERT_OK(need(self, NORM, 0), &self->err);
	EXPECT_EQ(-ESTALE, need(self, HEAD, 0));
	EXPECT_TRUE(!pst_view_weight(self->e.view, HEAD, 0));
	ASSERT_OK(need(self, HEAD, 2), &self->err);
	expect_same(self, HEAD, 2);
}

TEST_F(pull, a_dead_server_is_an_error)
{
	servers_stop(&self->s);
	/* its end may be heard later */
	while (pst_view_current(self->e.view) != PST_VERSION_NONE)
		;
	EXPECT_EQ(-ECONNRESET, need(self, NORM, 0));
	EXPECT_TRUE(names_url(self->err.text, self->s.url[0]));
	servers_start(&self->s, 1, false);
}

/* The client: how much it pulls, and what it says when that does not fit. */
TEST_F(pull, a_client_pulls_each_version_once)
{
	struct pst_client_moved one, two;

	table_begin(&self->t);
	pst_client_moved(self->t.client, &one);
	table_begin(&self->t);
	pst_client_moved(self->t.client, &two);
	EXPECT_EQ(one.pulled_bytes, two.pulled_bytes);
	EXPECT_EQ(one.pull_hits + TENSORS, two.pull_hits);
	table_step(&self->t, 1);
	table_begin(&self->t);
	pst_client_moved(self->t.client, &two);
	EXPECT_EQ(2 * one.pulled_bytes, two.pulled_bytes);
	for (int i = 0; i < TENSORS; i++)
		EXPECT_TRUE(same_bits(self->t.weight[i],
				      pst_view_weight(self->mapped.view, (size_t)i, 1),
				      elements(&self->t.tensor[i])));
}

/* A server that shows what a test wants, and publishes in the middle of pulls */

#define ROWS	 8
#define ELEMENTS 20000
#define VERSIONS 300

struct show {
	struct pst_shard *shard;
	struct pst_fabric *fabric;
	struct pst_cq *cq;
	struct pst_listener *listener;
	struct pst_region *region;
	char url[64];
	atomic_bool done;
};

static struct pst_shard *make_shard(struct pst_device *dev)
{
	struct pst_wire_tensor t[ROWS];
	struct pst_shard_options o = {.size = sizeof(o),
				      .tensors = t,
				      .count = ROWS,
				      .shards = 1,
				      .device = dev,
				      .node = -1};
	struct pst_error err = {0};
	struct pst_shard *s;
	char name[16];

	for (uint32_t i = 0; i < ROWS; i++) {
		snprintf(name, sizeof(name), "row.%u", i);
		t[i] = tensor(name, ELEMENTS, 0, PST_INIT_ONE, PST_TENSOR_DECAY);
		t[i].order = i;
	}
	ASSERT_OK(pst_shard_create(&o, &s, &err), &err);
	ASSERT_OK(pst_shard_init(s, 1, &err), &err);
	return s;
}

/* Answer whoever asks for the table, until the reader hangs up. */
static void *show_on(void *arg)
{
	struct show *s = arg;
	struct pst_msg_table_opened answer = {0};
	struct pst_key key;
	struct pst_wc wc = {0};

	while (wc.kind != PST_WC_DOWN) {
		if (pst_cq_wait(s->cq, &wc, 1, STORE_TIMEOUT_MS) != 1 || wc.kind != PST_WC_MESSAGE)
			continue;
		ASSERT_EQ(0, pst_link_grant(wc.link, s->region, PST_ACCESS_READ, &key));
		memcpy(&answer.snapshot, &key, sizeof(key));
		ASSERT_EQ(0, pst_rpc_answer(wc.link, wc.msg, &answer.answer, sizeof(answer), NULL));
	}
	return NULL;
}

static void *publish_on(void *arg)
{
	struct show *s = arg;
	float *grads = malloc(pst_shard_buffer_bytes(s->shard));
	uint8_t mask[ROWS];

	memset(mask, 1, sizeof(mask));
	for (size_t i = 0; i < pst_shard_buffer_bytes(s->shard) / sizeof(float); i++)
		grads[i] = 0.5f;
	for (uint64_t v = 0; v < VERSIONS && !atomic_load(&s->done); v++) {
		struct pst_msg_apply a = some_apply(v);

		ASSERT_EQ(0, pst_shard_apply(s->shard, mask, grads, &a));
		if (v % 8 == 0)
			usleep(300);
	}
	free(grads);
	return NULL;
}

static void show_start(struct show *s, struct pst_pool *pool)
{
	struct pst_error err = {0};

	s->fabric = open_fabric();
	snprintf(s->url, sizeof(s->url), "shm://show-%d", (int)getpid());
	ASSERT_OK(pst_cq_create(s->fabric, &s->cq, &err), &err);
	ASSERT_OK(pst_listen(s->cq, s->url, &s->listener, &err), &err);
	ASSERT_OK(pst_pool_region(s->fabric, pool, PST_ACCESS_READ, &s->region, &err), &err);
}

static void show_stop(struct show *s)
{
	pst_cq_destroy(s->cq);
	pst_region_release(s->region);
	pst_fabric_close(s->fabric);
}

/* Every element of a version is the same, so a torn copy has two values. */
static void look(struct engine *e, uint64_t version, int *whole, int *torn)
{
	uint32_t list[ROWS];
	const float *first;

	for (uint32_t i = 0; i < ROWS; i++)
		list[i] = i;
	pst_copies_begin(e->copies);
	if (pst_view_need(e->view, list, ROWS, version, &e->err) < 0) {
		EXPECT_EQ(-ESTALE, e->err.code);
		for (uint32_t i = 0; i < ROWS; i++)
			EXPECT_TRUE(!pst_view_weight(e->view, i, version));
		(*torn)++;
		return;
	}
	(*whole)++;
	first = pst_view_weight(e->view, 0, version);
	for (uint32_t i = 0; i < ROWS; i++) {
		const float *w = pst_view_weight(e->view, i, version);

		for (size_t k = 0; k < ELEMENTS; k++)
			if (memcmp(&w[k], first, sizeof(*w))) {
				EXPECT_EQ(0, (int)k);
				return;
			}
	}
}

TEST(pulls_are_whole_or_nothing)
{
	struct pst_device *dev = open_device(1);
	struct show s = {.shard = make_shard(dev)};
	pthread_t shower, publisher;
	int whole = 0, torn = 0;
	struct engine e;
	uint64_t now;

	settings = FAR;
	show_start(&s, pst_shard_snapshot(s.shard));
	ASSERT_EQ(0, pthread_create(&shower, NULL, show_on, &s));
	engine_connect(&e, s.url);
	ASSERT_OK(pst_view_open(e.view, &e.err), &e.err);
	EXPECT_NE(NULL, engine_weight(&e, 0, 0));
	/* or it would still be here when version 0 is asked for too late */
	pst_view_drop(e.view, 0);
	ASSERT_EQ(0, pthread_create(&publisher, NULL, publish_on, &s));
	do {
		now = pst_view_current(e.view);
		/* every other time the version that is about to be overwritten */
		look(&e, now - (now && whole % 2), &whole, &torn);
	} while (now < VERSIONS);
	pthread_join(publisher, NULL);
	look(&e, VERSIONS, &whole, &torn);
	printf("# %d whole pulls, %d thrown away\n", whole, torn);
	EXPECT_LT(0, whole);
	engine_close(&e);
	pthread_join(shower, NULL);
	show_stop(&s);
	pst_shard_destroy(s.shard);
	pst_device_close(dev);
}

/* Regions that say of themselves what is not so. */
static int open_with(struct show *s, const struct pst_snapshot_head *head, struct pst_pool *pool)
{
	struct engine e;
	pthread_t shower;
	int rc;

	memcpy(pst_pool_base(pool), head, sizeof(*head));
	ASSERT_EQ(0, pthread_create(&shower, NULL, show_on, s));
	engine_connect(&e, s->url);
	rc = pst_view_open(e.view, &e.err);
	engine_close(&e);
	pthread_join(shower, NULL);
	return rc;
}

TEST(heads_that_lie)
{
	struct pst_device *dev = open_device(1);
	struct show s = {.shard = make_shard(dev)};
	struct pst_pool *pool = pst_shard_snapshot(s.shard);
	struct pst_snapshot_head good, h;
	uint64_t bytes = pst_pool_bytes(pool);

	settings = FAR;
	show_start(&s, pool);
	memcpy(&good, pst_pool_base(pool), sizeof(good));
	EXPECT_EQ(0, open_with(&s, &good, pool));
#define LIE(field, value, code)                           \
	do {                                              \
		h = good;                                 \
		h.field = value;                          \
		EXPECT_EQ(code, open_with(&s, &h, pool)); \
	} while (0)
	LIE(magic, 1, -EPROTO);
	LIE(tensors, 0, -EPROTO);
	LIE(tensors, PST_MAX_TENSORS + 1, -EPROTO);
	LIE(tensors, PST_MAX_TENSORS, -ERANGE);
	LIE(tensors, UINT64_MAX / sizeof(struct pst_wire_tensor) + 2, -EPROTO);
	LIE(directory, bytes, -ERANGE);
	LIE(directory, 0 - (uint64_t)8, -EPROTO);
	LIE(directory, 4, -EPROTO);
	LIE(buffer[0], bytes, -ERANGE);
	LIE(buffer[1], bytes, -ERANGE);
	LIE(buffer[1], 32, -EPROTO);
	LIE(buffer_bytes, bytes, -ERANGE);
	LIE(buffer_bytes, UINT64_MAX, -EPROTO);
	/* a tensor that ends behind its buffer */
	LIE(buffer_bytes, 64, -EPROTO);
	EXPECT_EQ(0, open_with(&s, &good, pool));
	show_stop(&s);
	pst_shard_destroy(s.shard);
	pst_device_close(dev);
}

TEST_MAIN
