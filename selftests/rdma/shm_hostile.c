/* SPDX-License-Identifier: Apache-2.0 */
/* Peers of a shm link that break its rules: the link is lost, nothing else. */
#include "selftests/rdma/raw.h"

#include <limits.h>
#include <sys/eventfd.h>

FIXTURE(hostile)
{
	struct end me, other;
	struct pst_listener *listener;
	struct raw raw;
	char url[64];
	int fds;
};

FIXTURE_SETUP(hostile)
{
	struct pst_error err = {0};

	self->fds = open_fds();
	end_open(&self->me);
	snprintf(self->url, sizeof(self->url), "shm://hostile-%d", (int)getpid());
	ASSERT_OK(pst_listen(self->me.cq, self->url, &self->listener, &err), &err);
	self->raw = raw_open(&self->me, self->url);
}

FIXTURE_TEARDOWN(hostile)
{
	raw_close(&self->raw);
	end_close(&self->me);
	EXPECT_EQ(self->fds, open_fds());
}

static void expect_protocol_error(struct end *me)
{
	struct pst_wc wc;
	char c = 0;

	EXPECT_EQ(-EPROTO, expect(me, PST_WC_DOWN).status);
	EXPECT_EQ(-ENOTCONN, pst_link_send(me->link, &c, 1, 0));
	EXPECT_EQ(0, pst_cq_wait(me->cq, &wc, 1, 1));
}

TEST_F(hostile, good_slots_are_taken)
{
	struct pst_wc wc;

	memcpy(self->raw.area->ring[0].slot[0].data, "hello", 5);
	raw_put(&self->raw, 0, SHM_MESSAGE, 5, 1);
	raw_put(&self->raw, 1, SHM_IMM, 0, 2);
	EXPECT_EQ(0, memcmp(expect(&self->me, PST_WC_MESSAGE).msg, "hello", 5));
	expect(&self->me, PST_WC_IMM);
	/* and given back, at the latest when there are no more */
	EXPECT_EQ(0, pst_cq_poll(self->me.cq, &wc, 1));
	EXPECT_EQ(2, (int)self->raw.area->ring[0].head);
}

/* Each field of a slot with each kind of nonsense. */
TEST_F(hostile, bad_slots_lose_the_link)
{
	static const struct {
		uint64_t kind, len, seq;
	} bad[] = {
		{SHM_MESSAGE, PST_MSG_MAX + 1, 1},
		{SHM_MESSAGE, 0xffff, 1},
		{0, 4, 1},
		{3, 4, 1},
		{0xffff, 4, 1},
		{SHM_IMM, 1, 1},
		{SHM_MESSAGE, 4, 2},
		{SHM_MESSAGE, 4, SHM_RING_SLOTS + 1},
		{SHM_MESSAGE, 4, UINT64_MAX},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		raw_put(&self->raw, 0, bad[i].kind, bad[i].len, bad[i].seq);
		expect_protocol_error(&self->me);
		pst_link_close(self->me.link);
		raw_close(&self->raw);
		self->raw = raw_open(&self->me, self->url);
	}
}

TEST_F(hostile, good_messages_before_a_bad_one_arrive)
{
	raw_put(&self->raw, 0, SHM_MESSAGE, 4, 1);
	raw_put(&self->raw, 1, SHM_MESSAGE, 4, 1000);
	expect(&self->me, PST_WC_MESSAGE);
	expect_protocol_error(&self->me);
}

/* Heads that were never reached, seen when the ring is full. */
TEST_F(hostile, impossible_heads_lose_the_link)
{
	static const uint64_t bad[] = {SHM_RING_SLOTS + 1, UINT64_MAX, 1ull << 63};
	char c = 'x';

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (int n = 0; n < SHM_RING_SLOTS; n++)
			ASSERT_EQ(0, pst_link_send(self->me.link, &c, 1, 0));
		self->raw.area->ring[1].head = bad[i];
		EXPECT_EQ(-ENOTCONN, pst_link_send(self->me.link, &c, 1, 1000));
		expect_protocol_error(&self->me);
		pst_link_close(self->me.link);
		raw_close(&self->raw);
		self->raw = raw_open(&self->me, self->url);
	}
}

TEST_F(hostile, head_that_goes_back_loses_the_link)
{
	char c = 'x';

	for (int n = 0; n < SHM_RING_SLOTS; n++)
		ASSERT_EQ(0, pst_link_send(self->me.link, &c, 1, 0));
	self->raw.area->ring[1].head = 2;
	ASSERT_EQ(0, pst_link_send(self->me.link, &c, 1, 0));
	ASSERT_EQ(0, pst_link_send(self->me.link, &c, 1, 0));
	self->raw.area->ring[1].head = 1;
	EXPECT_EQ(-ENOTCONN, pst_link_send(self->me.link, &c, 1, 0));
	expect_protocol_error(&self->me);
}

/* Random bytes all over the rings, again and again. */
TEST_F(hostile, garbage_everywhere)
{
	uint64_t seed = 7, *word = (uint64_t *)self->raw.area;
	struct pst_wc wc[8];

	for (int round = 0; round < 20; round++) {
		bool down = false;

		for (int i = 0; i < 2000 && !down; i++) {
			int n;

			for (int k = 0; k < 50; k++)
				word[test_random(&seed) % (sizeof(struct shm_area) / 8)] =
					test_random(&seed) >> (test_random(&seed) % 64);
			word[test_random(&seed) % 4 * 16] = test_random(&seed);
			pst_link_send(self->me.link, &seed, 8, 0);
			n = pst_cq_poll(self->me.cq, wc, 8);
			for (int k = 0; k < n; k++)
				down |= wc[k].kind == PST_WC_DOWN;
		}
		EXPECT_TRUE(down);
		pst_link_close(self->me.link);
		raw_close(&self->raw);
		self->raw = raw_open(&self->me, self->url);
		word = (uint64_t *)self->raw.area;
	}
}

static void send_packet(struct raw *r, const struct shm_packet *p, size_t len, int fd)
{
	raw_send(r->sock, p, len, &fd, fd >= 0);
}

static void expect_refused_grant(struct fixture_hostile *self, const struct shm_packet *p,
				 size_t len, int fd)
{
	send_packet(&self->raw, p, len, fd);
	if (fd >= 0)
		close(fd);
	expect_protocol_error(&self->me);
	pst_link_close(self->me.link);
	raw_close(&self->raw);
	self->raw = raw_open(&self->me, self->url);
}

TEST_F(hostile, bad_grants_lose_the_link)
{
	const struct shm_packet good = {
		.type = SHM_GRANT, .access = 1, .len = 4096, .key = {{1, 2}}};
	struct shm_packet p;
	uint64_t len;
	void *at;
	int fd;

	/* a good one is taken, and the unused fd goes with the link */
	fd = raw_memfd(4096, F_SEAL_SHRINK);
	send_packet(&self->raw, &good, sizeof(good), fd);
	EXPECT_EQ(0, pst_link_map(self->me.link, good.key, 1, &at, &len));
	/* the same key again */
	expect_refused_grant(self, &good, sizeof(good), fd);
	/* no fd, a file that can shrink, one that is too short, one that is no memory */
	expect_refused_grant(self, &good, sizeof(good), -1);
	expect_refused_grant(self, &good, sizeof(good), raw_memfd(4096, F_SEAL_GROW));
	expect_refused_grant(self, &good, sizeof(good), raw_memfd(4095, F_SEAL_SHRINK));
	expect_refused_grant(self, &good, sizeof(good), open("/proc/self/exe", O_RDONLY));
	expect_refused_grant(self, &good, sizeof(good), eventfd(0, 0));
	/* every field */
	p = good, p.type = 3;
	expect_refused_grant(self, &p, sizeof(p), raw_memfd(4096, F_SEAL_SHRINK));
	p = good, p.access = 0;
	expect_refused_grant(self, &p, sizeof(p), raw_memfd(4096, F_SEAL_SHRINK));
	p = good, p.access = 7;
	expect_refused_grant(self, &p, sizeof(p), raw_memfd(4096, F_SEAL_SHRINK));
	p = good, p.len = 0;
	expect_refused_grant(self, &p, sizeof(p), raw_memfd(4096, F_SEAL_SHRINK));
	p = good, p.len = UINT64_MAX;
	expect_refused_grant(self, &p, sizeof(p), raw_memfd(4096, F_SEAL_SHRINK));
	/* too short a packet, a bell with an fd */
	expect_refused_grant(self, &good, 31, raw_memfd(4096, F_SEAL_SHRINK));
	p = (struct shm_packet){.type = SHM_BELL};
	expect_refused_grant(self, &p, sizeof(p), raw_memfd(4096, F_SEAL_SHRINK));
}

TEST_F(hostile, packets_with_many_fds_or_too_long_lose_the_link)
{
	const struct shm_packet p = {.type = SHM_GRANT, .access = 1, .len = 4096, .key = {{1, 2}}};
	char big[8192] = {0};
	int fd[16];

	for (int i = 0; i < 16; i++)
		fd[i] = raw_memfd(4096, F_SEAL_SHRINK);
	for (int n = 2; n <= 16; n *= 2) {
		raw_send(self->raw.sock, &p, sizeof(p), fd, n);
		expect_protocol_error(&self->me);
		pst_link_close(self->me.link);
		raw_close(&self->raw);
		self->raw = raw_open(&self->me, self->url);
	}
	for (int i = 0; i < 16; i++)
		close(fd[i]);
	raw_send(self->raw.sock, big, sizeof(big), NULL, 0);
	expect_protocol_error(&self->me);
}

/* A read-write grant on a file that this side cannot map writable is an error of the request. */
TEST_F(hostile, grant_that_promises_too_much)
{
	const struct shm_packet p = {.type = SHM_GRANT, .access = 3, .len = 4096, .key = {{1, 2}}};
	int fd = raw_memfd(4096, F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
	uint64_t len;
	void *at;

	send_packet(&self->raw, &p, sizeof(p), fd);
	close(fd);
	EXPECT_EQ(-EACCES, pst_link_map(self->me.link, p.key, PST_ACCESS_WRITE, &at, &len));
}

TEST_F(hostile, flood_of_grants_is_bounded)
{
	struct shm_packet p = {.type = SHM_GRANT, .access = 1, .len = 4096};
	int fd = raw_memfd(4096, F_SEAL_SHRINK);
	struct pst_wc wc;
	int sent = 0;

	fcntl(self->raw.sock, F_SETFL, O_NONBLOCK);
	for (; sent < 10000; sent++) {
		p.key.k[0] = (uint64_t)sent;
		if (raw_send(self->raw.sock, &p, sizeof(p), &fd, 1) < 0 &&
		    pst_cq_wait(self->me.cq, &wc, 1, 1) == 1)
			break;
	}
	close(fd);
	EXPECT_EQ(PST_WC_DOWN, (int)wc.kind);
	EXPECT_EQ(-EPROTO, wc.status);
	EXPECT_LT(sent, 10000);
}

/* What the peer really gets for a read-only key: it cannot map it writable. */
static void try_to_write(struct fixture_hostile *self, struct memory *m, int error)
{
	struct shm_packet p;
	struct pst_key key;
	int fd;

	ASSERT_EQ(0, pst_link_grant(self->me.link, m->region, PST_ACCESS_READ, &key));
	ASSERT_EQ((ssize_t)sizeof(p), raw_recv(self->raw.sock, &p, sizeof(p), &fd));
	EXPECT_EQ(SHM_GRANT, (int)p.type);
	EXPECT_EQ(0, memcmp(&key, &p.key, sizeof(key)));
	EXPECT_TRUE(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
	EXPECT_TRUE(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	EXPECT_EQ(error, errno);
	EXPECT_EQ(-1, (int)write(fd, "x", 1));
	EXPECT_NE(0, ftruncate(fd, 1));
	close(fd);
}

TEST_F(hostile, read_only_fd_cannot_be_mapped_writable)
{
	struct memory m = memory_make(&self->me, 4096, PST_ACCESS_READ);

	try_to_write(self, &m, EACCES);
	memory_drop(&m);
}

TEST_F(hostile, sealed_region_cannot_be_mapped_writable)
{
	struct memory m = memory_make(&self->me, 4096, PST_ACCESS_READ);
	char path[64];

	ASSERT_EQ(0, fcntl(m.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	try_to_write(self, &m, EPERM);
	/* not even through a new file description; the owner's mapping still can */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", m.fd);
	m.at[0] = 1;
	EXPECT_TRUE(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, open(path, O_RDWR), 0) == MAP_FAILED);
	self->fds++;
	memory_drop(&m);
}

/* Bells and the flags of sleep are hints: a peer that plays with them changes nothing. */
TEST_F(hostile, nonsense_flags_and_bells_are_harmless)
{
	const struct shm_packet bell = {.type = SHM_BELL};
	struct pst_wc wc;

	for (int i = 0; i < 300; i++) {
		self->raw.area->ring[0].sleeping = (uint32_t)i * 0x1010101;
		self->raw.area->ring[0].wake_at = i % 2 ? UINT64_MAX : 1;
		self->raw.area->ring[1].sleeping = 0xffffffff;
		send_packet(&self->raw, &bell, sizeof(bell), -1);
		if (i < 100)
			ASSERT_EQ(0, pst_link_send(self->me.link, "x", 1, 0));
		ASSERT_EQ(0, pst_cq_poll(self->me.cq, &wc, 1));
		if (!(i % 10))
			ASSERT_EQ(0, pst_cq_wait(self->me.cq, &wc, 1, 0));
	}
	raw_put(&self->raw, 0, SHM_MESSAGE, 4, 1);
	expect(&self->me, PST_WC_MESSAGE);
}

TEST_MAIN
