/* SPDX-License-Identifier: Apache-2.0 */
/* One server and engines that speak to it word by word: steps of two, deaths, wrong words. */
#include "selftests/store/engine.h"

#include <math.h>

FIXTURE(server)
{
	struct servers s;
	struct table t; /* makes the table; its engine has no slot */
	struct engine a, b;
	uint8_t all[TENSORS], none[TENSORS];
};

FIXTURE_VARIANT(server)
{
	const char *settings;
};

FIXTURE_VARIANT_ADD(server, mapped){MAPPED};
FIXTURE_VARIANT_ADD(server, far){FAR};
FIXTURE_VARIANT_ADD(server, tcp){TCP};

FIXTURE_SETUP(server)
{
	struct pst_error err = {0};

	settings = variant->settings;
	servers_start(&self->s, 1, false);
	table_open(&self->t, &self->s);
	ASSERT_OK(pst_client_init(self->t.client, 5, &err), &err);
	engine_connect(&self->a, self->s.url[0]);
	engine_connect(&self->b, self->s.url[0]);
	engine_open_slot(&self->a);
	memset(self->all, 1, sizeof(self->all));
}

FIXTURE_TEARDOWN(server)
{
	/* whatever was said, it serves on */
	EXPECT_EQ(0, engine_stat(&self->b));
	engine_close(&self->b);
	engine_close(&self->a);
	table_close(&self->t);
	servers_stop(&self->s);
}

static void expect_said(struct engine *e, const char *text)
{
	if (!strstr(e->err.text, text))
		EXPECT_STREQ(text, e->err.text);
}

static void whole_step(struct engine *e, const uint8_t *mask, uint64_t version)
{
	engine_put(e, mask, version, 0);
	engine_announce_all(e, mask, version);
	engine_commit(e, version);
	ASSERT_OK(engine_committed(e), &e->err);
	ASSERT_OK(engine_apply(e, version), &e->err);
}

/* A step's parts */

TEST_F(server, a_commit_waits_for_every_gradient)
{
	struct engine *e = &self->a;

	engine_put(e, self->all, 0, 0);
	for (size_t i = 0; i < TENSORS - 1; i++)
		engine_announce(e, i, 0);
	engine_commit(e, 0);
	EXPECT_TRUE(engine_waits(e));
	/* neither another version's nor an unknown tensor's nor another slot's is the one */
	engine_announce(e, TENSORS - 1, 1);
	engine_announce(e, TENSORS, 0);
	engine_announce(e, PST_MAX_TENSORS - 1, 0);
	ASSERT_EQ(0, pst_rpc_announce(e->inbox, e->link, PST_IMM(127, 0, TENSORS - 1)));
	EXPECT_TRUE(engine_waits(e));
	engine_announce(e, TENSORS - 1, 0);
	EXPECT_EQ(0, engine_committed(e));
}

TEST_F(server, a_late_immediate_of_the_step_before_is_ignored)
{
	struct engine *e = &self->a;

	whole_step(e, self->all, 0);
	engine_put(e, self->all, 1, 0);
	for (size_t i = 1; i < TENSORS; i++)
		engine_announce(e, i, 1);
	engine_announce(e, 0, 0);
	engine_commit(e, 1);
	EXPECT_TRUE(engine_waits(e));
	engine_announce(e, 0, 1);
	EXPECT_EQ(0, engine_committed(e));
	EXPECT_EQ(0, engine_apply(e, 1));
}

TEST_F(server, a_commit_without_gradients_needs_none)
{
	whole_step(&self->a, self->none, 0);
	EXPECT_EQ(1u, pst_view_current(self->a.view));
}

/* The server uses the mask as it was when it was committed. */
TEST_F(server, the_mask_is_taken_at_the_commit)
{
	struct engine *e = &self->a;

	engine_put(e, self->none, 0, 0);
	engine_commit(e, 0);
	EXPECT_EQ(0, engine_committed(e));
	for (size_t i = 0; i < TENSORS; i++)
		engine_gradient(e, i)[0] = NAN;
	memset(e->base + e->head.mask, 1, TENSORS);
	engine_flush(e);
	EXPECT_EQ(0, engine_apply(e, 0));
	for (uint32_t i = 0; i < TENSORS; i++)
		EXPECT_TRUE(isfinite(engine_weight(e, i, 1)[0]));
}

/* Two engines */

static void two_commit(struct fixture_server *self, struct engine *first, struct engine *second,
		       uint64_t version)
{
	uint8_t half[TENSORS];

	for (int i = 0; i < TENSORS; i++)
		half[i] = i % 2;
	engine_put(&self->a, self->all, version, 1);
	engine_put(&self->b, half, version, 2);
	engine_announce_all(&self->a, self->all, version);
	engine_announce_all(&self->b, half, version);
	engine_commit(first, version);
	EXPECT_TRUE(engine_waits(first));
	engine_commit(second, version);
	EXPECT_EQ(0, engine_committed(first));
	EXPECT_EQ(0, engine_committed(second));
}

TEST_F(server, two_engines_are_summed_in_slot_order)
{
	float *sum, *g;

	engine_open_slot(&self->b);
	EXPECT_EQ(0u, self->a.slot.slot);
	EXPECT_EQ(1u, self->b.slot.slot);
	/* who commits first does not matter */
	for (uint64_t version = 0; version < 2; version++) {
		two_commit(self, version ? &self->a : &self->b, version ? &self->b : &self->a,
			   version);
		engine_fetch(&self->a);
		engine_fetch(&self->b);
		for (size_t i = 0; i < TENSORS; i++) {
			const struct pst_wire_tensor *t = pst_view_tensor(self->a.view, i);
			size_t n = elements(t);
			double norm = 0;

			sum = malloc(n * sizeof(*sum));
			g = malloc(n * sizeof(*g));
			make_gradient(t, version, 1, sum);
			make_gradient(t, version, 2, g);
			for (size_t k = 0; k < n; k++) {
				sum[k] = i % 2 ? sum[k] + g[k] : sum[k];
				norm += (double)sum[k] * sum[k];
			}
			EXPECT_TRUE(same_bits(sum, engine_gradient(&self->a, i), n));
			if (i != BIAS)
				EXPECT_LT(fabs(engine_norms(&self->a)[i] / norm - 1), 1e-12);
			EXPECT_TRUE(engine_norms(&self->a)[i] == engine_norms(&self->b)[i]);
			free(sum);
			free(g);
		}
		EXPECT_EQ(0, engine_apply(&self->a, version));
	}
	EXPECT_EQ(2u, pst_view_current(self->b.view));
}

TEST_F(server, an_engine_that_leaves_takes_its_slot_with_it)
{
	engine_open_slot(&self->b);
	engine_put(&self->a, self->all, 0, 1);
	engine_announce_all(&self->a, self->all, 0);
	engine_commit(&self->a, 0);
	EXPECT_TRUE(engine_waits(&self->a));
	engine_close(&self->b);
	EXPECT_EQ(0, engine_committed(&self->a));
	EXPECT_EQ(0, engine_apply(&self->a, 0));
	/* its number is free again */
	engine_connect(&self->b, self->s.url[0]);
	engine_open_slot(&self->b);
	EXPECT_EQ(1u, self->b.slot.slot);
}

/* A link's end and another's message come in any order. Who joins ends with the slot. */
static void wait_until_gone(const char *url, uint64_t token)
{
	int rc;

	do {
		struct engine probe;

		engine_connect(&probe, url);
		rc = engine_try_join(&probe, token);
		engine_close(&probe);
	} while (!rc || rc == -ECONNRESET || rc == -ENOTCONN);
	ASSERT_EQ(-EACCES, rc);
}

/* The sum was in the slot of the one that dies after all have committed. */
TEST_F(server, a_death_after_the_commit_changes_nothing)
{
	struct engine c;

	engine_open_slot(&self->b);
	engine_connect(&c, self->s.url[0]);
	engine_open_slot(&c);
	engine_put(&c, self->all, 0, 3);
	engine_announce_all(&c, self->all, 0);
	engine_commit(&c, 0);
	two_commit(self, &self->a, &self->b, 0);
	EXPECT_EQ(0, engine_committed(&c));
	engine_close(&self->a);
	wait_until_gone(self->s.url[0], self->a.slot.token);
	EXPECT_EQ(0, engine_apply(&c, 0));
	engine_fetch(&self->b);
	for (size_t i = 0; i < TENSORS; i++) {
		const struct pst_wire_tensor *t = pst_view_tensor(c.view, i);
		size_t n = elements(t);
		float *want = malloc(n * sizeof(*want)), *g = malloc(n * sizeof(*g));

		make_gradient(t, 0, 1, want);
		for (uint64_t salt = 2; salt <= 3; salt++) {
			make_gradient(t, 0, salt, g);
			for (size_t k = 0; k < n && (i % 2 || salt == 3); k++)
				want[k] += g[k];
		}
		EXPECT_TRUE(same_bits(want, engine_gradient(&self->b, i), n));
		free(want);
		free(g);
	}
	engine_close(&c);
	engine_connect(&self->a, self->s.url[0]);
}

/* Its gradients would be in no step, so it is told to come back. */
TEST_F(server, nobody_joins_between_commit_and_step)
{
	struct pst_msg m = {0};

	engine_put(&self->a, self->none, 0, 0);
	engine_commit(&self->a, 0);
	EXPECT_EQ(0, engine_committed(&self->a));
	EXPECT_EQ(-EBUSY, ENGINE_ASK(&self->b, &m, PST_MSG_SLOT_OPEN, &self->b.slot));
	expect_said(&self->b, "ask again after it");
	EXPECT_EQ(0, engine_apply(&self->a, 0));
	EXPECT_EQ(0, ENGINE_ASK(&self->b, &m, PST_MSG_SLOT_OPEN, &self->b.slot));
}

/* Wrong words */

TEST_F(server, a_second_commit_is_refused)
{
	struct engine *e = &self->a;
	struct pst_msg_commit m = {.version = 0};

	engine_put(e, self->none, 0, 0);
	engine_commit(e, 0);
	EXPECT_EQ(0, engine_committed(e));
	EXPECT_EQ(-EALREADY, ENGINE_ASK(e, &m, PST_MSG_COMMIT, &e->answer));
	expect_said(e, "a second commit of one step");
	EXPECT_EQ(0, engine_apply(e, 0));
}

TEST_F(server, a_commit_of_another_version_is_refused)
{
	struct pst_msg_commit m = {.version = 3};

	EXPECT_EQ(-ESTALE, ENGINE_ASK(&self->a, &m, PST_MSG_COMMIT, &self->a.answer));
	expect_said(&self->a, "gradients of version 3, the table is at 0");
	whole_step(&self->a, self->all, 0);
}

TEST_F(server, a_commit_without_a_slot_is_refused)
{
	struct pst_msg_commit m = {.version = 0};

	EXPECT_EQ(-EINVAL, ENGINE_ASK(&self->b, &m, PST_MSG_COMMIT, &self->b.answer));
	expect_said(&self->b, "a commit without a slot");
}

TEST_F(server, a_step_before_its_commit_is_refused)
{
	EXPECT_EQ(-EINVAL, engine_apply(&self->a, 0));
	expect_said(&self->a, "before everybody has committed");
	engine_put(&self->a, self->none, 0, 0);
	engine_commit(&self->a, 0);
	EXPECT_EQ(0, engine_committed(&self->a));
	EXPECT_EQ(-ESTALE, engine_apply(&self->a, 1));
	expect_said(&self->a, "a step of another version than 0");
	EXPECT_EQ(0, engine_apply(&self->a, 0));
	EXPECT_EQ(-EINVAL, engine_apply(&self->a, 1));
}

TEST_F(server, one_slot_per_engine)
{
	struct pst_msg m = {0};
	struct pst_msg_slot_opened second;

	EXPECT_EQ(-EEXIST, ENGINE_ASK(&self->a, &m, PST_MSG_SLOT_OPEN, &second));
	expect_said(&self->a, "has a slot already");
	whole_step(&self->a, self->all, 0);
}

TEST_F(server, a_slot_is_joined_with_its_token_only)
{
	struct pst_msg_slot_attach m = {.token = self->a.slot.token + 1};
	struct pst_msg_slot_opened answer;

	EXPECT_EQ(-EACCES, ENGINE_ASK(&self->b, &m, PST_MSG_SLOT_ATTACH, &answer));
	expect_said(&self->b, "no slot has this token");
	m.token = 0;
	EXPECT_EQ(-EACCES, ENGINE_ASK(&self->b, &m, PST_MSG_SLOT_ATTACH, &answer));
	m.token = self->a.slot.token;
	EXPECT_EQ(0, ENGINE_ASK(&self->b, &m, PST_MSG_SLOT_ATTACH, &self->b.slot));
	EXPECT_EQ(self->a.slot.slot, self->b.slot.slot);
	ASSERT_OK(pst_view_open(self->b.view, &self->b.err), &self->b.err);
	engine_map_slot(&self->b);
	/* the same memory */
	self->b.base[self->b.head.mask] = 1;
	engine_flush(&self->b);
	engine_fetch(&self->a);
	EXPECT_EQ(1, self->a.base[self->a.head.mask]);
}

TEST_F(server, unknown_requests_are_refused)
{
	const uint16_t unknown[] = {0, PST_MSG_WORKER_SETUP, PST_MSG_EXPERTS, 14, 0x7fff};
	struct pst_msg_apply m = some_apply(0);
	struct engine *e = &self->b;
	char want[64];

	for (size_t i = 0; i < sizeof(unknown) / sizeof(*unknown); i++) {
		EXPECT_EQ(-ENOTTY, ENGINE_ASK(e, &m, unknown[i], &e->answer));
		snprintf(want, sizeof(want), "a server does not know request %u", unknown[i]);
		expect_said(e, want);
	}
}

TEST_F(server, short_requests_are_refused)
{
	static const struct {
		uint16_t type;
		size_t bytes;
	} request[] = {
		{PST_MSG_TABLE_CREATE, sizeof(struct pst_msg_table_create)},
		{PST_MSG_TABLE_INIT, sizeof(struct pst_msg_table_init)},
		{PST_MSG_TABLE_LOAD, sizeof(struct pst_msg_table_load)},
		{PST_MSG_SLOT_ATTACH, sizeof(struct pst_msg_slot_attach)},
		{PST_MSG_COMMIT, sizeof(struct pst_msg_commit)},
		{PST_MSG_APPLY, sizeof(struct pst_msg_apply)},
		{PST_MSG_SAVE, sizeof(struct pst_msg_save)},
		{PST_MSG_PUSHED, sizeof(struct pst_msg_pushed)},
	};
	_Alignas(8) char bytes[PST_MSG_MAX] = {0};
	struct engine *e = &self->b;

	for (size_t i = 0; i < sizeof(request) / sizeof(*request); i++) {
		EXPECT_EQ(-EINVAL, engine_ask(e, bytes, request[i].bytes - 1, request[i].type,
					      &e->answer, sizeof(e->answer)));
		expect_said(e, "too short");
	}
}

/* What lies about its size, or is no message at all, gets no answer. */
TEST_F(server, what_is_no_message_is_dropped)
{
	struct pst_msg m = {.size = sizeof(m) + 1, .type = PST_MSG_STAT, .seq = 1};

	EXPECT_EQ(0, pst_link_send(self->b.link, &m, sizeof(m), STORE_TIMEOUT_MS));
	m.size = sizeof(m);
	m.flags = 1;
	EXPECT_EQ(0, pst_link_send(self->b.link, &m, sizeof(m), STORE_TIMEOUT_MS));
	EXPECT_EQ(0, pst_link_send(self->b.link, &m, 3, STORE_TIMEOUT_MS));
	EXPECT_EQ(0, engine_stat(&self->b));
}

TEST_F(server, paths_are_checked)
{
	struct pst_msg_table_load load = {.version = 1};
	struct pst_msg_table_loaded loaded;
	struct pst_msg_save save = {.path = "some/where"};
	struct pst_msg_saved saved;
	struct engine *e = &self->b;

	EXPECT_EQ(-EINVAL, ENGINE_ASK(e, &save, PST_MSG_SAVE, &saved));
	expect_said(e, "makes no sense");
	memset(save.path, '/', sizeof(save.path));
	EXPECT_EQ(-EINVAL, ENGINE_ASK(e, &save, PST_MSG_SAVE, &saved));
	expect_said(e, "makes no sense");
	memset(save.path, 0, sizeof(save.path));
	snprintf(save.path, sizeof(save.path), "%s/missing", test_tmpdir());
	EXPECT_EQ(-ENOENT, ENGINE_ASK(e, &save, PST_MSG_SAVE, &saved));
	expect_said(e, save.path);
	memset(load.path, '/', sizeof(load.path));
	EXPECT_EQ(-EINVAL, ENGINE_ASK(e, &load, PST_MSG_TABLE_LOAD, &loaded));
	memset(load.path, 0, sizeof(load.path));
	load.flags = 2;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(e, &load, PST_MSG_TABLE_LOAD, &loaded));
	load.flags = 0;
	load.reserved = 1;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(e, &load, PST_MSG_TABLE_LOAD, &loaded));
	expect_said(e, "a load request that makes no sense");
}

FIXTURE_OF_FABRICS(fabric)

TEST_F(fabric, a_server_without_a_table_says_so)
{
	const uint16_t needs[] = {PST_MSG_TABLE_INIT, PST_MSG_TABLE_LOAD,  PST_MSG_TABLE_OPEN,
				  PST_MSG_SLOT_OPEN,  PST_MSG_SLOT_ATTACH, PST_MSG_COMMIT,
				  PST_MSG_APPLY,      PST_MSG_SAVE,	   PST_MSG_PUSHED};
	_Alignas(8) char bytes[PST_MSG_MAX] = {0};
	struct servers s;
	struct engine e;

	servers_start(&s, 1, false);
	engine_connect(&e, s.url[0]);
	for (size_t i = 0; i < sizeof(needs) / sizeof(*needs); i++) {
		EXPECT_EQ(-ENOENT,
			  engine_ask(&e, bytes, 2048, needs[i], &e.answer, sizeof(e.answer)));
		expect_said(&e, "has no table yet");
	}
	EXPECT_EQ(0, engine_stat(&e));
	engine_close(&e);
	servers_stop(&s);
}

/* A directory that cannot be: nothing granted, lies about its place and its size. */
TEST_F(fabric, a_table_of_nonsense_is_refused)
{
	struct pst_msg_table_create good = {.tensors = 1, .shards = 1}, m;
	struct servers s;
	struct engine e;

	servers_start(&s, 1, false);
	engine_connect(&e, s.url[0]);
	m = good;
	EXPECT_EQ(-ENOENT, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	expect_said(&e, "the table's directory cannot be read");
	m = good;
	m.tensors = 0;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	expect_said(&e, "a table of 0 tensors, shard 0 of 1");
	m = good;
	m.tensors = UINT64_MAX;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	m = good;
	m.shard = 1;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	expect_said(&e, "shard 1 of 1");
	m = good;
	m.shards = 0;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	EXPECT_EQ(0, engine_stat(&e));
	engine_close(&e);
	servers_stop(&s);
}

TEST_F(fabric, a_directory_lies_within_its_region)
{
	struct pst_pool_options po = {.size = sizeof(po), .name = "d", .bytes = 4096, .node = -1};
	struct pst_region_attr attr = {.size = sizeof(attr), .access = PST_ACCESS_READ};
	struct pst_msg_table_create m = {.shards = 1};
	struct pst_region *region;
	struct pst_pool *pool;
	struct pst_key key;
	struct servers s;
	struct engine e;

	servers_start(&s, 1, false);
	engine_connect(&e, s.url[0]);
	ASSERT_OK(pst_pool_create(&po, &pool, &e.err), &e.err);
	attr.addr = pst_pool_base(pool);
	attr.len = pst_pool_bytes(pool);
	attr.fd = pst_pool_fd(pool);
	ASSERT_OK(pst_region_register(e.fabric, &attr, &region, &e.err), &e.err);
	ASSERT_EQ(0, pst_link_grant(e.link, region, PST_ACCESS_READ, &key));
	memcpy(&m.key, &key, sizeof(key));
	m.tensors = attr.len / sizeof(struct pst_wire_tensor) + 1;
	EXPECT_EQ(-ERANGE, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	m.tensors = 1;
	m.offset = attr.len;
	EXPECT_EQ(-ERANGE, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	m.offset = UINT64_MAX - 7;
	EXPECT_EQ(-ERANGE, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	m.offset = 4;
	EXPECT_EQ(-ERANGE, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	expect_said(&e, "the table's directory cannot be read");
	/* zeros make no tensor */
	m.offset = 0;
	EXPECT_EQ(-EINVAL, ENGINE_ASK(&e, &m, PST_MSG_TABLE_CREATE, &e.answer));
	expect_said(&e, "name is empty");
	EXPECT_EQ(0, engine_stat(&e));
	pst_view_close(e.view);
	e.view = NULL;
	pst_region_release(region);
	engine_close(&e);
	pst_pool_destroy(pool);
	servers_stop(&s);
}

TEST_MAIN
