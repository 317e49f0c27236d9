/* SPDX-License-Identifier: Apache-2.0 */
/* Servers behind a client: the same bits from any number of them, and from engines that die. */
#include "selftests/store/engine.h"

#include "rdma/fabric.h"

FIXTURE_OF_FABRICS(fabric)

/* Weights and norm after some steps, from @n servers. */
static float *after_steps(unsigned int n, bool processes, double *norm_sq, size_t *count)
{
	struct servers s;
	struct table t;
	float *w;

	servers_start(&s, n, processes);
	table_open(&t, &s);
	table_init(&t, 11);
	for (int step = 0; step < 6; step++)
		table_step(&t, step == 3 ? 0.25 : 1);
	w = table_copy(&t, count);
	*norm_sq = t.norm_sq;
	table_close(&t);
	servers_stop(&s);
	return w;
}

TEST_F(fabric, any_number_of_servers_gives_the_same_bits)
{
	double norm[4] = {0};
	float *w[4] = {NULL};
	size_t n;

	w[0] = after_steps(2, true, &norm[0], &n);
	for (unsigned int servers = 1; servers <= 3; servers++) {
		w[servers] = after_steps(servers, false, &norm[servers], &n);
		EXPECT_TRUE(same_bits(w[0], w[servers], n));
		EXPECT_FALSE(memcmp(&norm[0], &norm[servers], sizeof(double)));
		EXPECT_TRUE(norm[servers] > 0);
	}
	for (int i = 0; i < 4; i++)
		free(w[i]);
}

TEST_F(fabric, more_servers_than_pieces_are_refused)
{
	struct pst_error err = {0};
	struct servers s;
	struct table t;

	servers_start(&s, 2, false);
	table_prepare(&t);
	memset(t.unit, 0, sizeof(t.unit)); /* all of it is one unit */
	EXPECT_EQ(-EINVAL, table_try(&t, &s, &err));
	EXPECT_STREQ("2 servers are more than this model has pieces for (1 would do)", err.text);
	table_close(&t);
	servers_stop(&s);
}

/* A table is its client's: the server outlives both. */
TEST_F(fabric, a_table_ends_with_its_client)
{
	struct pst_error err = {0};
	struct table t, other;
	struct engine reader, stranger;
	struct servers s;
	int rc;

	servers_start(&s, 1, false);
	table_open(&t, &s);
	table_init(&t, 1);
	table_step(&t, 1);
	engine_connect(&reader, s.url[0]);
	engine_open_slot(&reader);
	engine_connect(&stranger, s.url[0]);
	EXPECT_EQ(0, engine_stat(&stranger));
	table_close(&t);
	table_prepare(&other);
	/* its end may be heard after this word */
	do
		rc = table_try(&other, &s, &err);
	while (rc == -EEXIST);
	ASSERT_OK(rc, &err);
	/* who had something of it has lost its link, others have not */
	rc = engine_stat(&reader);
	EXPECT_TRUE(rc == -ECONNRESET || rc == -ENOTCONN);
	EXPECT_EQ(0, engine_stat(&stranger));
	table_init(&other, 1);
	table_step(&other, 1);
	EXPECT_EQ(0u, other.version);
	engine_close(&reader);
	engine_close(&stranger);
	table_close(&other);
	servers_stop(&s);
}

/* Those that a slot's owner let into it end with it, its neighbours do not. */
TEST_F(fabric, a_slot_takes_its_guests_with_it)
{
	struct engine a, b, guest;
	struct servers s;
	struct table t;
	int rc;

	servers_start(&s, 1, false);
	table_open(&t, &s);
	table_init(&t, 1);
	engine_connect(&a, s.url[0]);
	engine_connect(&b, s.url[0]);
	engine_connect(&guest, s.url[0]);
	engine_open_slot(&a);
	engine_open_slot(&b);
	ASSERT_EQ(0, engine_try_join(&guest, a.slot.token));
	engine_close(&a);
	do
		rc = engine_stat(&guest);
	while (!rc);
	EXPECT_TRUE(rc == -ECONNRESET || rc == -ENOTCONN);
	EXPECT_EQ(0, engine_stat(&b));
	engine_close(&guest);
	engine_close(&b);
	table_close(&t);
	servers_stop(&s);
}

TEST_F(fabric, a_second_table_is_refused)
{
	struct pst_error err = {0};
	struct servers s;
	struct table t, other;

	servers_start(&s, 1, false);
	table_open(&t, &s);
	table_prepare(&other);
	EXPECT_EQ(-EEXIST, table_try(&other, &s, &err));
	EXPECT_NE(NULL, strstr(err.text, "has a table already"));
	table_init(&t, 1);
	table_step(&t, 1);
	table_close(&other);
	table_close(&t);
	servers_stop(&s);
}

TEST_F(fabric, nothing_is_read_before_there_are_values)
{
	struct pst_error err = {0};
	struct servers s;
	struct table t;

	servers_start(&s, 1, false);
	table_open(&t, &s);
	EXPECT_EQ(-ESTALE, pst_client_begin(t.client, t.all, t.weight, t.grad, &t.version, &err));
	EXPECT_NE(NULL, strstr(err.text, "no longer holds version 0"));
	table_close(&t);
	servers_stop(&s);
}

TEST_F(fabric, a_server_that_dies_is_an_error_with_its_name)
{
	uint8_t has[TENSORS] = {0};
	struct pst_error err = {0};
	struct servers s;
	struct table t;

	servers_start(&s, 2, true);
	table_open(&t, &s);
	table_init(&t, 1);
	table_begin(&t);
	kill(s.pid[1], SIGKILL);
	EXPECT_EQ(-ECONNRESET, pst_client_commit(t.client, t.all, has, &t.norm_sq, &err));
	EXPECT_TRUE(names_url(err.text, s.url[1]));
	table_close(&t);
	servers_stop(&s);
}

TEST_F(fabric, a_server_says_what_it_is)
{
	struct pst_msg_stated stat;
	struct pst_error err = {0};
	struct servers s;
	struct table t;

	servers_start(&s, 1, true);
	table_open(&t, &s);
	ASSERT_OK(pst_client_stat(t.client, 0, &stat, &err), &err);
	EXPECT_EQ((uint32_t)s.pid[0], stat.pid);
	EXPECT_EQ(2u, stat.threads);
	EXPECT_EQ(0u, stat.copied_bytes);
	EXPECT_LT(0u, stat.pool_used);
	EXPECT_LE(stat.pool_used, stat.pool_bytes);
	table_close(&t);
	servers_stop(&s);
}

TEST_MAIN
