/* SPDX-License-Identifier: Apache-2.0 */
/* What a server tells of itself and its table, to any thread, while it works. */
#include "selftests/store/store.h"

#include "runtime/penstock.h"

#include <stdatomic.h>

FIXTURE_OF_FABRICS(told)

static struct pst_server_stat stat_of(const struct servers *s)
{
	struct pst_server_stat stat = {.size = sizeof(stat)};

	EXPECT_EQ(0, pst_server_stat(s->server[0], &stat));
	return stat;
}

static int table_above(const struct servers *s, uint32_t number, struct pst_table_stat *out)
{
	*out = (struct pst_table_stat){.size = sizeof(*out), .number = number};
	return pst_server_table(s->server[0], out);
}

static uint64_t table_bytes(const struct table *t)
{
	uint64_t bytes = 0;

	for (int i = 0; i < TENSORS; i++)
		bytes += elements(&t->tensor[i]) * sizeof(float);
	return bytes;
}

/* Of what a step of the tables pushes: see table_step(). */
static uint64_t step_bytes(const struct table *t, uint64_t version)
{
	uint64_t bytes = 0;

	for (int i = 0; i < TENSORS; i++)
		if ((version + (uint64_t)i) % 5)
			bytes += elements(&t->tensor[i]) * sizeof(float);
	return bytes;
}

TEST_F(told, a_table_from_its_beginning_to_its_end)
{
	struct pst_server_stat stat;
	struct pst_table_stat t;
	struct servers s;
	struct table table;
	uint64_t pushed = 0, calls;

	servers_start(&s, 1, false);
	stat = stat_of(&s);
	EXPECT_EQ(0u, stat.tables + stat.clients + stat.pool_bytes + stat.calls);
	EXPECT_EQ(2u, stat.threads);
	EXPECT_EQ(-ENOENT, table_above(&s, 0, &t));
	table_open(&table, &s);
	ASSERT_EQ(0, table_above(&s, 0, &t));
	EXPECT_EQ(1u, t.number);
	EXPECT_EQ((unsigned int)TENSORS, t.tensors);
	EXPECT_EQ(PST_VERSION_NONE, t.version);
	EXPECT_STREQ("part 1 of 1", t.name);
	EXPECT_LE(table_bytes(&table), t.bytes);
	/* masters and two moments */
	EXPECT_LE(3 * table_bytes(&table), t.state_bytes);
	EXPECT_EQ(-ENOENT, table_above(&s, 1, &t));
	table_init(&table, 3);
	for (uint64_t step = 0; step < 3; step++) {
		ASSERT_EQ(0, table_above(&s, 0, &t));
		EXPECT_EQ(step, t.version);
		EXPECT_EQ(pushed, t.pushed);
		table_step(&table, 0);
		pushed += step_bytes(&table, step);
	}
	ASSERT_EQ(0, table_above(&s, 0, &t));
	EXPECT_EQ(pushed, t.pushed);
	EXPECT_EQ(1u, t.clients);
	stat = stat_of(&s);
	EXPECT_EQ(1u, stat.tables);
	EXPECT_EQ(1u, stat.clients);
	/* two buffers, the state, and a slot */
	EXPECT_LE(6 * table_bytes(&table), stat.pool_bytes);
	EXPECT_LT(0u, stat.busy_ns);
	EXPECT_EQ(0u, stat.read_bytes);
	calls = stat.calls;
	EXPECT_LE(3u * 2, calls);
	table_close(&table);
	while (stat_of(&s).clients)
		usleep(1000);
	while (!table_above(&s, 0, &t))
		usleep(1000);
	stat = stat_of(&s);
	EXPECT_EQ(0u, stat.tables);
	EXPECT_EQ(0u, stat.pool_bytes);
	EXPECT_LE(calls, stat.calls);
	/* the next one is another */
	table_open(&table, &s);
	ASSERT_EQ(0, table_above(&s, 0, &t));
	EXPECT_EQ(2u, t.number);
	EXPECT_EQ(0u, t.pushed);
	table_close(&table);
	servers_stop(&s);
}

TEST_F(told, what_was_read_from_disk)
{
	const char *dir = test_tmpdir();
	struct pst_client_loaded loaded;
	struct pst_error err = {0};
	struct pst_table_stat t;
	struct servers s;
	struct table table;
	uint64_t bytes;

	servers_start(&s, 2, false);
	table_open(&table, &s);
	ASSERT_EQ(0, table_above(&s, 0, &t));
	EXPECT_STREQ("part 1 of 2", t.name);
	table_init(&table, 3);
	ASSERT_OK(pst_client_save(table.client, dir, &bytes, &err), &err);
	EXPECT_EQ(0u, stat_of(&s).read_bytes);
	table_close(&table);
	while (stat_of(&s).tables)
		usleep(1000);
	table_open(&table, &s);
	ASSERT_OK(pst_client_load(table.client, dir, true, 9, &loaded, &err), &err);
	EXPECT_LT(0u, stat_of(&s).read_bytes);
	EXPECT_GT(loaded.read_bytes, stat_of(&s).read_bytes);
	ASSERT_EQ(0, table_above(&s, 0, &t));
	EXPECT_EQ(9u, t.version);
	table_close(&table);
	servers_stop(&s);
}

struct asker {
	const struct servers *s;
	atomic_bool end;
	unsigned int seen;
};

static void *keep_asking(void *arg)
{
	struct asker *a = arg;
	struct pst_table_stat t;
	uint64_t last = 0;

	while (!atomic_load(&a->end)) {
		struct pst_server_stat stat = stat_of(a->s);

		EXPECT_LE(last, stat.calls);
		last = stat.calls;
		a->seen += !table_above(a->s, 0, &t);
	}
	return NULL;
}

TEST_F(told, while_tables_come_and_go)
{
	struct servers s;
	struct asker a = {.s = &s};
	struct table table;
	pthread_t thread;

	servers_start(&s, 1, false);
	ASSERT_EQ(0, pthread_create(&thread, NULL, keep_asking, &a));
	for (int run = 0; run < 3; run++) {
		table_open(&table, &s);
		table_init(&table, 3);
		for (int step = 0; step < 3; step++)
			table_step(&table, 0);
		table_close(&table);
		while (stat_of(&s).tables)
			usleep(1000);
	}
	atomic_store(&a.end, true);
	pthread_join(thread, NULL);
	EXPECT_LT(0u, a.seen);
	servers_stop(&s);
}

/* Structs of older callers */
TEST(sizes)
{
	struct pst_server_stat stat = {.size = offsetof(struct pst_server_stat, calls),
				       .calls = 77};
	struct pst_table_stat t = {.size = offsetof(struct pst_table_stat, bytes), .bytes = 77};
	struct servers s;
	struct table table;

	servers_start(&s, 1, false);
	table_open(&table, &s);
	EXPECT_EQ(0, pst_server_stat(s.server[0], &stat));
	EXPECT_EQ(offsetof(struct pst_server_stat, calls), stat.size);
	EXPECT_LT(0u, stat.pool_bytes);
	EXPECT_EQ(77u, stat.calls);
	stat.size = 4;
	EXPECT_EQ(-EINVAL, pst_server_stat(s.server[0], &stat));
	EXPECT_EQ(0, pst_server_table(s.server[0], &t));
	EXPECT_EQ((unsigned int)TENSORS, t.tensors);
	EXPECT_EQ(77u, t.bytes);
	t.size = offsetof(struct pst_table_stat, number);
	EXPECT_EQ(-EINVAL, pst_server_table(s.server[0], &t));
	table_close(&table);
	servers_stop(&s);
}

TEST_MAIN
