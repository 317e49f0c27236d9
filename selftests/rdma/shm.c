/* SPDX-License-Identifier: Apache-2.0 */
/* Memory mapped in place over shm; what shm does as every fabric does is in fabric.c. */
#include "selftests/rdma/pair.h"

FIXTURE(shm)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_VARIANT(shm)
{
	bool process;
};

FIXTURE_VARIANT_ADD(shm, threads){.process = false};
FIXTURE_VARIANT_ADD(shm, processes){.process = true};

FIXTURE_SETUP(shm)
{
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(shm)
{
	pair_end(&self->pair);
}

/* Grants 64 KiB for writing; adds one to each byte of it when told to. */
static void in_place_owner(struct end *peer)
{
	struct memory m = memory_make(peer, 65536, PST_ACCESS_WRITE);
	struct pst_wc wc;

	m.at[65535] = 7;
	share(peer, &m, PST_ACCESS_WRITE);
	wc = expect(peer, PST_WC_IMM);
	EXPECT_EQ(99, (int)wc.imm);
	for (int i = 0; i < 65536; i++)
		m.at[i]++;
	meet(peer);
	hear(peer, &wc.imm, 4);
	memory_drop(&m);
}

TEST_F(shm, map_is_the_memory_itself)
{
	const struct pst_wr there = {.op = PST_WR_WRITE, .flags = PST_WR_IMM, .imm = 99};
	struct pst_fabric_stat stat;
	unsigned char *at;
	struct pst_key key;
	uint64_t len;
	void *again;

	pair_start(&self->pair, variant->process, in_place_owner);
	hear(self->me, &key, sizeof(key));
	ASSERT_EQ(0, pst_link_map(self->me->link, key, PST_ACCESS_READ, (void **)&at, &len));
	EXPECT_EQ(65536, (int)len);
	EXPECT_EQ(7, at[65535]);
	ASSERT_EQ(0, pst_link_map(self->me->link, key, PST_ACCESS_WRITE, &again, &len));
	EXPECT_TRUE(again == at);
	at[100] = 41;
	ASSERT_EQ(0, carry(self->me, &there));
	meet(self->me);
	EXPECT_EQ(42, at[100]);
	EXPECT_EQ(8, at[65535]);
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(0, (int)(stat.read_bytes + stat.write_bytes));
	say(self->me, "bye", 4);
}

/* Grants one region for reading and one for writing. */
static void two_keys(struct end *peer)
{
	struct memory r = memory_make(peer, 4096, PST_ACCESS_READ);
	struct memory w = memory_make(peer, 5000, PST_ACCESS_WRITE);
	struct pst_key key, again;
	char c;

	memset(r.at, 'r', r.len);
	/* no more than what the region was registered for, and the same key for the same right */
	EXPECT_EQ(-EACCES, pst_link_grant(peer->link, r.region, PST_ACCESS_WRITE, &key));
	EXPECT_EQ(-EINVAL, pst_link_grant(peer->link, r.region, 0, &key));
	EXPECT_EQ(-EINVAL, pst_link_grant(peer->link, r.region, 4, &key));
	key = share(peer, &r, PST_ACCESS_READ);
	EXPECT_EQ(0, pst_link_grant(peer->link, r.region, PST_ACCESS_READ, &again));
	EXPECT_EQ(0, memcmp(&key, &again, sizeof(key)));
	share(peer, &w, PST_ACCESS_WRITE);
	hear(peer, &c, 1);
	for (size_t i = 0; i < r.len; i++)
		ASSERT_EQ('r', r.at[i]);
	memory_drop(&r);
	memory_drop(&w);
}

FIXTURE(keys)
{
	struct pair pair;
	struct end *me;
	struct memory mine;
	struct pst_key r, w;
};

FIXTURE_VARIANT(keys)
{
	bool process;
};

FIXTURE_VARIANT_ADD(keys, threads){.process = false};
FIXTURE_VARIANT_ADD(keys, processes){.process = true};

FIXTURE_SETUP(keys)
{
	self->me = &self->pair.me;
	pair_start(&self->pair, variant->process, two_keys);
	self->mine = memory_make(self->me, 8192, PST_ACCESS_READ);
	hear(self->me, &self->r, sizeof(self->r));
	hear(self->me, &self->w, sizeof(self->w));
}

FIXTURE_TEARDOWN(keys)
{
	say(self->me, "b", 1);
	memory_drop(&self->mine);
	pair_end(&self->pair);
}

TEST_F(keys, unknown_key_is_not_mapped)
{
	struct pst_key wrong = {.k = {self->w.k[0], self->w.k[1] ^ 1}};
	uint64_t len = 5;
	void *at = self;

	EXPECT_EQ(-ENOENT, pst_link_map(self->me->link, wrong, PST_ACCESS_READ, &at, &len));
	EXPECT_TRUE(at == self && len == 5);
}

TEST_F(keys, read_only_is_mapped_read_only)
{
	uint64_t len;
	void *at;

	EXPECT_EQ(-EACCES, pst_link_map(self->me->link, self->r, PST_ACCESS_WRITE, &at, &len));
	ASSERT_EQ(0, pst_link_map(self->me->link, self->r, PST_ACCESS_READ, &at, &len));
	EXPECT_EQ('r', *(char *)at);
	EXPECT_EQ(-1, mprotect(at, len, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
}

TEST_MAIN
