/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every fabric does the same: messages, one-sided access, keys, order. A
 * fabric adds a variant to each of the fixtures; FABRIC_VARIANTS replaces them all.
 */
#include "selftests/rdma/pair.h"

#define MIB (1024 * 1024)

FIXTURE(fabric)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_VARIANT(fabric)
{
	const char *url;
	bool process;
};

#ifdef FABRIC_VARIANTS
FABRIC_VARIANTS(fabric)
#else
FIXTURE_VARIANT_ADD(fabric, shm_threads){.url = "shm://"};
FIXTURE_VARIANT_ADD(fabric, shm_processes){.url = "shm://", .process = true};
FIXTURE_VARIANT_ADD(fabric, tcp_threads){.url = "tcp://127.0.0.1:0?io=epoll"};
FIXTURE_VARIANT_ADD(fabric, tcp_processes){.url = "tcp://127.0.0.1:0?io=epoll", .process = true};
FIXTURE_VARIANT_ADD(fabric, tcp_uring){.url = "tcp://127.0.0.1:0?io=uring", .process = true};
FIXTURE_VARIANT_ADD(fabric, tcp_conns){.url = "tcp://[::1]:0?io=epoll&conns=3&crc=0"};
#endif

FIXTURE_SETUP(fabric)
{
	use_key("key", "a key for tests of the fabrics");
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(fabric)
{
	pair_end(&self->pair);
}

static void fill(unsigned char *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)test_random(&seed);
}

static bool filled(const unsigned char *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != (unsigned char)test_random(&seed))
			return false;
	return true;
}

/* Every length that is near an edge, and some between. */
static size_t length_of(int i)
{
	static const size_t edge[] = {0, 1, 7, 8, 9, 63, 64, 65, PST_MSG_MAX - 1, PST_MSG_MAX};

	return i % 2 ? edge[i / 2 % 10] : (size_t)(i * 37 % PST_MSG_MAX);
}

/* The rails of a link come up one by one. */
static void rails_of(struct end *me, struct pst_link_info *info, uint32_t want)
{
	struct pst_wc wc;

	for (int i = 0; i < 100; i++) {
		ASSERT_EQ(0, pst_link_info(me->link, info));
		if (info->rails >= want)
			return;
		EXPECT_EQ(0, pst_cq_wait(me->cq, &wc, 1, 50));
	}
}

static void wait_for_word(struct end *peer)
{
	char c;

	hear(peer, &c, 1);
}

TEST_F(fabric, link_says_what_it_goes_over)
{
	bool two = strstr(variant->url, "rxe1,rxe3");
	struct pst_link_info info;

	pair_start_on(&self->pair, variant->url, variant->process, wait_for_word);
	rails_of(self->me, &info, two ? 2 : 0);
	if (!strncmp(variant->url, "verbs", 5)) {
		EXPECT_STREQ(two ? "rxe1,rxe3" : "rxe1", info.device);
		EXPECT_EQ(two ? 2 : 1, (int)info.rails);
		EXPECT_EQ(4096, (int)info.mtu);
		EXPECT_LE(16, (int)info.max_inline);
		EXPECT_EQ(0, (int)info.conns);
	} else {
		bool shm = !strncmp(variant->url, "shm", 3);

		EXPECT_STREQ(shm ? "memory" : "", info.device);
		EXPECT_EQ(shm ? 0 : strstr(variant->url, "conns=3") ? 3 : 1, (int)info.conns);
		EXPECT_EQ(0, (int)(info.rails + info.mtu + info.max_inline));
	}
	say(self->me, "m", 1);
	expect(self->me, PST_WC_DOWN);
	info.mtu = 7;
	EXPECT_EQ(-ENOTCONN, pst_link_info(self->me->link, &info));
	EXPECT_EQ(7, (int)info.mtu);
}

static void hear_1000(struct end *peer)
{
	for (int i = 0; i < 1000; i++) {
		struct pst_wc wc = expect(peer, PST_WC_MESSAGE);

		ASSERT_EQ(length_of(i), (size_t)wc.len);
		ASSERT_TRUE(filled(wc.msg, wc.len, i));
	}
	meet(peer);
}

TEST_F(fabric, messages_arrive_whole_and_in_order)
{
	unsigned char msg[PST_MSG_MAX];

	pair_start_on(&self->pair, variant->url, variant->process, hear_1000);
	for (int i = 0; i < 1000; i++) {
		fill(msg, length_of(i), i);
		say(self->me, msg, length_of(i));
	}
	meet(self->me);
}

static void hear_batches(struct end *peer)
{
	struct pst_wc wc[16];
	uint32_t next = 0;

	while (next < 512) {
		int left = (int)(512 - next); /* what comes behind them is for hear() */
		int n = pst_cq_wait(peer->cq, wc, left < 16 ? left : 16, 30000);

		ASSERT_LT(0, n);
		for (int i = 0; i < n; i++, next++) {
			ASSERT_EQ(PST_WC_MESSAGE, (int)wc[i].kind);
			ASSERT_EQ(4, (int)wc[i].len);
			/* all messages of one poll are valid at once */
			ASSERT_EQ(0, memcmp(wc[i].msg, &next, 4));
		}
	}
	hear(peer, &next, 4);
}

TEST_F(fabric, batches_complete_in_order)
{
	uint32_t value[32];
	struct pst_wr wr[32];
	struct pst_wc wc[64];
	uint64_t next = 0;

	pair_start_on(&self->pair, variant->url, variant->process, hear_batches);
	for (uint32_t base = 0; base < 512; base += 32) {
		int taken = 0;

		for (uint32_t i = 0; i < 32; i++) {
			value[i] = base + i;
			wr[i] = (struct pst_wr){.id = base + i, .local_addr = &value[i], .len = 4};
		}
		while (taken < 32) {
			int n = pst_link_post(self->me->link, wr + taken, 32 - taken);

			ASSERT_LE(0, n);
			taken += n;
			n = pst_cq_poll(self->me->cq, wc, 64);
			for (int i = 0; i < n; i++) {
				ASSERT_EQ(PST_WC_DONE, (int)wc[i].kind);
				ASSERT_EQ(PST_WR_SEND, (int)wc[i].op);
				ASSERT_EQ(0, wc[i].status);
				ASSERT_EQ(next++, wc[i].id);
			}
		}
	}
	while (next < 512)
		ASSERT_EQ(next++, expect(self->me, PST_WC_DONE).id);
	say(self->me, "bye", 4);
}

/* A word in memory that the test and its peer share whichever way the peer runs. */
static _Atomic int *stuck;

static void hear_when_stuck(struct end *peer)
{
	uint32_t next, got;

	while (!*stuck)
		usleep(100);
	for (next = 0; next < 2000; next++) {
		hear(peer, &got, 4);
		ASSERT_EQ(next, got);
	}
}

static void start_stuck(struct pair *pair, const char *url, bool process)
{
	stuck = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(stuck != MAP_FAILED);
	pair_start_on(pair, url, process, hear_when_stuck);
}

TEST_F(fabric, full_ring_takes_fewer_and_wakes_the_sender)
{
	uint32_t value = 0;
	struct pst_wc wc;

	start_stuck(&self->pair, variant->url, variant->process);
	while (value < 2000) {
		const struct pst_wr wr = {
			.flags = PST_WR_UNSIGNALED, .local_addr = &value, .len = 4};
		int n = pst_link_post(self->me->link, &wr, 1);

		ASSERT_LE(0, n);
		value += (uint32_t)n;
		if (n)
			continue;
		*stuck = 1;
		/* 0 because there is room again, long before the time is over */
		ASSERT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, 30000));
	}
	EXPECT_EQ(1, (int)*stuck);
	EXPECT_EQ(PST_WC_DOWN, (int)expect(self->me, PST_WC_DOWN).kind);
}

TEST_F(fabric, send_waits_for_room_as_long_as_it_was_told)
{
	uint32_t value = 0;
	int rc;

	start_stuck(&self->pair, variant->url, variant->process);
	while (!(rc = pst_link_send(self->me->link, &value, 4, 0)))
		value++;
	EXPECT_EQ(-ETIMEDOUT, rc);
	EXPECT_EQ(-ETIMEDOUT, pst_link_send(self->me->link, &value, 4, 20));
	*stuck = 1;
	for (; value < 2000; value++)
		ASSERT_EQ(0, pst_link_send(self->me->link, &value, 4, -1));
}

static void meet_twice(struct end *peer)
{
	char c;

	meet(peer);
	hear(peer, &c, 1);
	say(peer, &c, 1);
}

TEST_F(fabric, local_queue_bounds_what_is_outstanding)
{
	struct pst_wr wr[64];
	struct pst_wc wc;
	int taken = 0, n;

	pair_start_on(&self->pair, variant->url, variant->process, meet_twice);
	meet(self->me);
	for (int i = 0; i < 64; i++)
		wr[i] = (struct pst_wr){.op = PST_WR_WRITE, .id = i};
	while ((n = pst_link_post(self->me->link, wr, 64)) > 0)
		taken += n;
	EXPECT_EQ(0, n);
	EXPECT_LE(64, taken);
	for (int i = 0; i < taken; i++) {
		wc = expect(self->me, PST_WC_DONE);
		EXPECT_EQ(i % 64, (int)wc.id);
	}
	EXPECT_EQ(64, pst_link_post(self->me->link, wr, 64));
	for (int i = 0; i < 64; i++)
		expect(self->me, PST_WC_DONE);
	meet(self->me);
}

/* Grants a region, checks what is written to it at each immediate, answers with the inverse. */
static void region_owner(struct end *peer)
{
	struct memory m = memory_make(peer, MIB, PST_ACCESS_WRITE);
	uint32_t round;

	share(peer, &m, PST_ACCESS_WRITE);
	for (round = 0; round < 50; round++) {
		struct pst_wc wc = expect(peer, PST_WC_IMM);

		ASSERT_EQ(round, wc.imm);
		ASSERT_TRUE(filled(m.at + round * 16, 4096, round));
		for (int i = 0; i < 4096; i++)
			m.at[i + round * 16] ^= 0xff;
		say(peer, &round, 4);
	}
	/* not before the other end has read the last of it */
	hear(peer, &round, 1);
	say(peer, "m", 1);
	memory_drop(&m);
}

TEST_F(fabric, immediate_arrives_after_what_was_written)
{
	struct pst_fabric_stat stat;
	struct memory m;
	struct pst_key key;
	uint32_t round;

	pair_start_on(&self->pair, variant->url, variant->process, region_owner);
	m = memory_make(self->me, 8192, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	for (uint32_t i = 0; i < 50; i++) {
		struct pst_wr wr = {.id = i,
				    .op = PST_WR_WRITE,
				    .flags = PST_WR_IMM,
				    .imm = i,
				    .local = m.region,
				    .local_addr = m.at,
				    .key = key,
				    .remote_off = i * 16,
				    .len = 4096};

		fill(m.at, 4096, i);
		ASSERT_EQ(0, carry(self->me, &wr));
		hear(self->me, &round, 4);
		ASSERT_EQ(i, round);
		wr.op = PST_WR_READ;
		wr.flags = 0;
		wr.local_addr = m.at + 4096;
		ASSERT_EQ(0, carry(self->me, &wr));
		for (int b = 0; b < 4096; b++)
			ASSERT_EQ(m.at[b] ^ 0xff, (int)m.at[4096 + b]);
	}
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(50 * 4096, (int)stat.read_bytes);
	EXPECT_EQ(50 * 4096, (int)stat.write_bytes);
	EXPECT_EQ(50, (int)stat.immediates);
	EXPECT_EQ(0, (int)stat.copied_bytes);
	EXPECT_EQ(0, (int)stat.messages);
	meet(self->me);
	memory_drop(&m);
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
	const char *url;
	bool process;
};

#ifdef FABRIC_VARIANTS
FABRIC_VARIANTS(keys)
#else
FIXTURE_VARIANT_ADD(keys, shm_threads){.url = "shm://"};
FIXTURE_VARIANT_ADD(keys, shm_processes){.url = "shm://", .process = true};
FIXTURE_VARIANT_ADD(keys, tcp_threads){.url = "tcp://127.0.0.1:0?io=epoll"};
FIXTURE_VARIANT_ADD(keys, tcp_processes){.url = "tcp://127.0.0.1:0?io=epoll", .process = true};
FIXTURE_VARIANT_ADD(keys, tcp_uring){.url = "tcp://127.0.0.1:0?io=uring", .process = true};
FIXTURE_VARIANT_ADD(keys, tcp_conns){.url = "tcp://[::1]:0?io=epoll&conns=3&crc=0"};
#endif

FIXTURE_SETUP(keys)
{
	use_key("key", "a key for tests of the fabrics");
	self->me = &self->pair.me;
	pair_start_on(&self->pair, variant->url, variant->process, two_keys);
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

static int access_at(struct fixture_keys *self, int op, struct pst_key key, uint64_t off,
		     uint64_t len)
{
	return carry(self->me, &(struct pst_wr){.id = off ^ len,
						.op = (uint16_t)op,
						.local = self->mine.region,
						.local_addr = self->mine.at,
						.key = key,
						.remote_off = off,
						.len = len});
}

TEST_F(keys, unknown_key_is_enoent)
{
	struct pst_key wrong = {.k = {self->w.k[0], self->w.k[1] ^ 1}};

	EXPECT_EQ(-ENOENT, access_at(self, PST_WR_READ, wrong, 0, 1));
	EXPECT_EQ(-ENOENT, access_at(self, PST_WR_WRITE, wrong, 0, 1));
	EXPECT_EQ(-ENOENT, access_at(self, PST_WR_READ, (struct pst_key){{0, 0}}, 0, 1));
	/* and the link goes on */
	EXPECT_EQ(0, access_at(self, PST_WR_WRITE, self->w, 0, 1));
}

TEST_F(keys, range_is_checked_without_overflow)
{
	EXPECT_EQ(0, access_at(self, PST_WR_WRITE, self->w, 0, 5000));
	EXPECT_EQ(0, access_at(self, PST_WR_WRITE, self->w, 4999, 1));
	EXPECT_EQ(-ERANGE, access_at(self, PST_WR_WRITE, self->w, 0, 5001));
	EXPECT_EQ(-ERANGE, access_at(self, PST_WR_WRITE, self->w, 5000, 1));
	EXPECT_EQ(-ERANGE, access_at(self, PST_WR_READ, self->w, 4999, 2));
	EXPECT_EQ(-ERANGE, access_at(self, PST_WR_READ, self->w, UINT64_MAX, 1));
	EXPECT_EQ(-ERANGE, access_at(self, PST_WR_READ, self->w, UINT64_MAX, 8192));
	EXPECT_EQ(-ERANGE, access_at(self, PST_WR_WRITE, self->w, UINT64_MAX - 8191, 8192));
	EXPECT_EQ(0, access_at(self, PST_WR_READ, self->r, 0, 4096));
	EXPECT_EQ('r', self->mine.at[4095]);
}

TEST_F(keys, read_only_is_read_only)
{
	EXPECT_EQ(-EACCES, access_at(self, PST_WR_WRITE, self->r, 0, 1));
	EXPECT_EQ(0, access_at(self, PST_WR_READ, self->r, 0, 1));
	EXPECT_EQ('r', self->mine.at[0]);
}

TEST_F(keys, immediate_is_not_raised_when_its_write_fails)
{
	struct pst_wr wr = {.op = PST_WR_WRITE,
			    .flags = PST_WR_IMM,
			    .local = self->mine.region,
			    .local_addr = self->mine.at,
			    .key = self->r,
			    .len = 1};

	/* the peer expects a message next and would say so */
	EXPECT_EQ(-EACCES, carry(self->me, &wr));
}

TEST_F(keys, unsignaled_completes_only_if_it_fails)
{
	struct pst_wr wr[4];
	struct pst_wc wc;

	for (int i = 0; i < 4; i++)
		wr[i] = (struct pst_wr){.id = i,
					.op = PST_WR_WRITE,
					.flags = PST_WR_UNSIGNALED,
					.local = self->mine.region,
					.local_addr = self->mine.at,
					.key = self->w,
					.len = 8};
	wr[2].remote_off = 5000;
	ASSERT_EQ(4, pst_link_post(self->me->link, wr, 4));
	wc = expect(self->me, PST_WC_DONE);
	EXPECT_EQ(2, (int)wc.id);
	EXPECT_EQ(-ERANGE, wc.status);
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, 5));
}

/*
 * After one that went where it was to go, and so may have a short way there: what is wrong with the
 * next is found all the same, each by itself.
 */
TEST_F(keys, nothing_follows_from_the_write_before)
{
	const struct pst_wr good = {.id = 7,
				    .op = PST_WR_WRITE,
				    .flags = PST_WR_UNSIGNALED,
				    .local = self->mine.region,
				    .local_addr = self->mine.at,
				    .key = self->w,
				    .len = 8};
	struct pst_link *link = self->me->link;
	struct memory other = memory_make(self->me, 8192, PST_ACCESS_READ);
	struct pst_fabric *fab = self->me->fab;
	struct pst_fabric *elsewhere;
	struct pst_region *far;
	struct pst_error err;
	struct pst_wr wr;

#define FAILS(want, field, value)                                      \
	do {                                                           \
		EXPECT_EQ(1, pst_link_post(link, &good, 1));           \
		wr = good;                                             \
		wr.field = value;                                      \
		EXPECT_EQ(1, pst_link_post(link, &wr, 1));             \
		EXPECT_EQ(want, expect(self->me, PST_WC_DONE).status); \
	} while (0)
#define IS_REFUSED(field, value)                                 \
	do {                                                     \
		EXPECT_EQ(1, pst_link_post(link, &good, 1));     \
		wr = good;                                       \
		wr.field = value;                                \
		EXPECT_EQ(-EINVAL, pst_link_post(link, &wr, 1)); \
	} while (0)
	FAILS(-ERANGE, remote_off, 4993);
	FAILS(-ERANGE, remote_off, 5000);
	FAILS(-ERANGE, remote_off, UINT64_MAX - 7);
	FAILS(-ERANGE, len, 5001);
	FAILS(-ENOENT, key.k[0], self->w.k[0] ^ 1);
	FAILS(-ENOENT, key.k[1], self->w.k[1] ^ 1);
	FAILS(-EACCES, key, self->r);
	FAILS(0, flags, 0);
	IS_REFUSED(local, NULL);
	IS_REFUSED(local, other.region);
	IS_REFUSED(local_addr, self->mine.at - 1);
	IS_REFUSED(local_addr, self->mine.at + 8185);
	IS_REFUSED(local_addr, NULL);
	IS_REFUSED(op, 3);
	IS_REFUSED(flags, PST_WR_UNSIGNALED | 4);

	/* memory of another fabric, at the same place */
	ASSERT_EQ(0, pst_fabric_open("shm://", &elsewhere, &err));
	ASSERT_TRUE(elsewhere != fab);
	ASSERT_EQ(0, pst_region_register(
			     elsewhere,
			     &(struct pst_region_attr){.size = sizeof(struct pst_region_attr),
						       .addr = self->mine.at,
						       .len = 8192,
						       .fd = self->mine.fd,
						       .access = PST_ACCESS_READ},
			     &far, &err));
	IS_REFUSED(local, far);
	pst_region_release(far);
	pst_fabric_close(elsewhere);
	memory_drop(&other);
	/* until this ends all has gone, and the memory may go */
	EXPECT_EQ(0, access_at(self, PST_WR_WRITE, self->w, 0, 8));
}

/* Of all lengths that may have a way of their own: what arrives is what was sent, and no more. */
TEST_F(keys, short_writes_arrive_whole)
{
	struct pst_wr wr = {.op = PST_WR_WRITE,
			    .flags = PST_WR_UNSIGNALED,
			    .local = self->mine.region,
			    .local_addr = self->mine.at,
			    .key = self->w};
	unsigned char *back = self->mine.at + 4096;

	for (uint64_t len = 0; len <= 40; len++) {
		memset(self->mine.at, 'a', 64);
		EXPECT_EQ(0, access_at(self, PST_WR_WRITE, self->w, 0, 64));
		for (uint64_t i = 0; i < len; i++)
			self->mine.at[i] = (unsigned char)(len + i);
		wr.len = len;
		wr.remote_off = 11;
		EXPECT_EQ(1, pst_link_post(self->me->link, &wr, 1));
		EXPECT_EQ(0, carry(self->me, &(struct pst_wr){.op = PST_WR_READ,
							      .local = self->mine.region,
							      .local_addr = back,
							      .key = self->w,
							      .len = 64}));
		for (uint64_t i = 0; i < 64; i++)
			ASSERT_EQ(i < 11 || i >= 11 + len ? 'a' : (int)(len + i - 11),
				  (int)back[i]);
	}
}

TEST_F(keys, malformed_requests_are_refused_whole)
{
	const struct pst_wr good = {.op = PST_WR_WRITE,
				    .local = self->mine.region,
				    .local_addr = self->mine.at,
				    .key = self->w,
				    .len = 8};
	struct pst_wr wr[2] = {good, good};
	struct pst_link *link = self->me->link;
	struct pst_wc wc;

#define REFUSED(field, value)                                   \
	do {                                                    \
		wr[0] = good;                                   \
		wr[0].field = value;                            \
		EXPECT_EQ(-EINVAL, pst_link_post(link, wr, 2)); \
	} while (0)
	REFUSED(op, 3);
	REFUSED(flags, 4);
	REFUSED(local, NULL);
	REFUSED(local_addr, self->mine.at - 1);
	REFUSED(local_addr, self->mine.at + 8185);
	REFUSED(len, 8193);
	REFUSED(len, UINT64_MAX);
	wr[0] = (struct pst_wr){.op = PST_WR_SEND, .local_addr = self, .len = PST_MSG_MAX + 1};
	EXPECT_EQ(-EINVAL, pst_link_post(link, wr, 1));
	wr[0] = (struct pst_wr){.op = PST_WR_SEND, .flags = PST_WR_IMM};
	EXPECT_EQ(-EINVAL, pst_link_post(link, wr, 1));
	EXPECT_EQ(-EINVAL, pst_link_post(link, wr, -1));
	EXPECT_EQ(0, pst_link_post(link, wr, 0));
	EXPECT_EQ(-EINVAL, pst_link_send(link, self, PST_MSG_MAX + 1, 0));
	EXPECT_EQ(0, pst_cq_poll(self->me->cq, &wc, 1));

	/* those before a malformed one are taken */
	wr[0] = good;
	wr[1].op = 9;
	EXPECT_EQ(1, pst_link_post(link, wr, 2));
	EXPECT_EQ(0, expect(self->me, PST_WC_DONE).status);
}

TEST_MAIN
