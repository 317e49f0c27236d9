/* SPDX-License-Identifier: Apache-2.0 */
/* Peers of a tcp link that have the key and break the rules: the link is lost, nothing else. */
#include "selftests/rdma/tcp_raw.h"

#include <limits.h>

#define REGION 65536

FIXTURE(hostile)
{
	struct end me;
	struct pst_listener *listener;
	struct memory mem; /* what the peer was let at: the middle of it is one region */
	struct memory ro;
	struct pst_key rw_key, ro_key;
	struct raw raw;
	char url[64];
	int fds;
};

static void let_in(struct fixture_hostile *self)
{
	union raw_frame f;

	self->raw = raw_open(&self->me, self->url);
	ASSERT_EQ(0,
		  pst_link_grant(self->me.link, self->mem.region, PST_ACCESS_WRITE, &self->rw_key));
	raw_hear(&self->me, &self->raw, &f);
	ASSERT_EQ(PST_FRAME_GRANT, (int)f.f.type);
	ASSERT_EQ(0,
		  pst_link_grant(self->me.link, self->ro.region, PST_ACCESS_READ, &self->ro_key));
	raw_hear(&self->me, &self->raw, &f);
}

FIXTURE_VARIANT(hostile)
{
	const char *url;
};

FIXTURE_VARIANT_ADD(hostile, epoll){.url = "tcp://127.0.0.1:0?io=epoll&timeout=500"};
FIXTURE_VARIANT_ADD(hostile, uring){.url = "tcp://127.0.0.1:0?io=uring&timeout=500"};

FIXTURE_SETUP(hostile)
{
	struct pst_error err = {0};

	use_key("key", "a key for tests of the fabrics");
	self->fds = open_fds();
	end_open_on(&self->me, variant->url);
	ASSERT_OK(pst_listen(self->me.cq, variant->url, &self->listener, &err), &err);
	snprintf(self->url, sizeof(self->url), "%s", pst_listener_url(self->listener));
	self->mem = memory_make(&self->me, REGION, PST_ACCESS_WRITE);
	self->ro = memory_make(&self->me, REGION, PST_ACCESS_READ);
	memset(self->ro.at, 'r', REGION);
	let_in(self);
}

FIXTURE_TEARDOWN(hostile)
{
	raw_close(&self->raw);
	pst_link_close(self->me.link);
	self->me.link = NULL;
	for (size_t i = 0; i < REGION; i++)
		if (self->ro.at[i] != 'r') {
			EXPECT_EQ('r', self->ro.at[i]);
			break;
		}
	memory_drop(&self->mem);
	memory_drop(&self->ro);
	end_close(&self->me);
	EXPECT_EQ(self->fds, open_fds());
}

/* The link is lost for this reason, once; then comes the next peer. */
static void expect_lost(struct fixture_hostile *self, uint32_t cause)
{
	struct pst_wc wc = expect(&self->me, PST_WC_DOWN);
	char c = 0;

	EXPECT_EQ(cause, wc.cause);
	EXPECT_EQ(pst_cause_row(cause)->status, wc.status);
	EXPECT_TRUE(strstr(pst_link_why(self->me.link), pst_cause_row(cause)->what) != NULL);
	EXPECT_EQ(-ENOTCONN, pst_link_send(self->me.link, &c, 1, 0));
	EXPECT_EQ(0, pst_cq_wait(self->me.cq, &wc, 1, 1));
	pst_link_close(self->me.link);
	raw_close(&self->raw);
	let_in(self);
}

static void expect_broke(struct fixture_hostile *self)
{
	expect_lost(self, PST_CAUSE_PEER_BROKE);
}

TEST_F(hostile, good_frames_are_taken)
{
	struct pst_key key = self->rw_key;
	union raw_frame f = {.range = {.key = {key.k[0], key.k[1]}, .offset = 5, .len = 3}};
	struct pst_wc wc;

	raw_message(&self->raw, "hello");
	wc = expect(&self->me, PST_WC_MESSAGE);
	EXPECT_EQ(5, (int)wc.len);
	EXPECT_EQ(0, memcmp(wc.msg, "hello", 5));
	f.range.request = 1;
	raw_seal(&self->raw, &f, PST_FRAME_WRITE, sizeof(f.range) + 3, sizeof(f.range));
	memcpy(f.bytes + sizeof(f.range), "abc", 3);
	raw_send(&self->raw, &f, sizeof(f.range) + 3);
	raw_hear(&self->me, &self->raw, &f);
	EXPECT_EQ(PST_FRAME_DONE, (int)f.f.type);
	EXPECT_EQ(1, (int)f.done.request);
	EXPECT_EQ(0, memcmp(self->mem.at, "\0\0\0\0\0abc\0", 9));
}

/* One frame with each field wrong in turn, its CRC right. */
struct flaw {
	uint16_t type;
	size_t at, len;
	uint64_t value;
};

static size_t size_of(uint16_t type)
{
	switch (type) {
	case PST_FRAME_GRANT:
		return sizeof(struct pst_frame_grant);
	case PST_FRAME_WRITE:
	case PST_FRAME_DATA:
		return sizeof(struct pst_frame_range) + 8;
	case PST_FRAME_READ:
		return sizeof(struct pst_frame_range);
	case PST_FRAME_DONE:
		return sizeof(struct pst_frame_done);
	case PST_FRAME_MESSAGE:
		return sizeof(struct pst_frame) + 8;
	default:
		return sizeof(struct pst_frame);
	}
}

static void send_flawed(struct fixture_hostile *self, const struct flaw *flaw)
{
	bool bulk = flaw->type == PST_FRAME_WRITE || flaw->type == PST_FRAME_DATA;
	size_t size = size_of(flaw->type), covered = bulk ? size - 8 : size;
	union raw_frame f = {0};

	if (flaw->type == PST_FRAME_WRITE || flaw->type == PST_FRAME_READ)
		f.range = (struct pst_frame_range){
			.key = {self->rw_key.k[0], self->rw_key.k[1]}, .len = 8, .request = 1};
	raw_seal(&self->raw, &f, flaw->type, size, covered);
	memcpy(f.bytes + flaw->at, &flaw->value, flaw->len);
	f.f.crc = 0;
	f.f.crc = pst_crc32c(0, &f, covered);
	raw_send(&self->raw, &f, size);
}

#define HDR(type, field, value)                                                                  \
	{                                                                                        \
		type, offsetof(struct pst_frame, field), sizeof(((struct pst_frame *)0)->field), \
			value                                                                    \
	}
#define RANGE(type, field, value)                                               \
	{                                                                       \
		type, offsetof(struct pst_frame_range, field),                  \
			sizeof(((struct pst_frame_range *)0)->field) > 8        \
				? 8                                             \
				: sizeof(((struct pst_frame_range *)0)->field), \
			value                                                   \
	}
#define DONE(field, value)                                                 \
	{                                                                  \
		PST_FRAME_DONE, offsetof(struct pst_frame_done, field),    \
			sizeof(((struct pst_frame_done *)0)->field), value \
	}

TEST_F(hostile, every_field_is_checked)
{
	static const struct flaw flaws[] = {
		HDR(PST_FRAME_CREDIT, type, 0),
		HDR(PST_FRAME_CREDIT, type, 12),
		HDR(PST_FRAME_CREDIT, type, 0xffff),
		HDR(PST_FRAME_CREDIT, size, 31),
		HDR(PST_FRAME_CREDIT, size, 33),
		HDR(PST_FRAME_CREDIT, flags, 1),
		HDR(PST_FRAME_CREDIT, imm, 1),
		HDR(PST_FRAME_CREDIT, seq, 1),
		HDR(PST_FRAME_CREDIT, ack, 3),
		HDR(PST_FRAME_CREDIT, ack, UINT64_MAX),
		HDR(PST_FRAME_PING, size, 0),
		HDR(PST_FRAME_PING, seq, 1),
		HDR(PST_FRAME_BYE, flags, 0x8000),
		HDR(PST_FRAME_IMM, flags, 1),
		HDR(PST_FRAME_IMM, seq, 0),
		HDR(PST_FRAME_IMM, seq, 2),
		HDR(PST_FRAME_IMM, seq, 65),
		HDR(PST_FRAME_IMM, seq, UINT64_MAX),
		HDR(PST_FRAME_IMM, ack, 3),
		HDR(PST_FRAME_MESSAGE, imm, 1),
		HDR(PST_FRAME_MESSAGE, flags, 1),
		HDR(PST_FRAME_MESSAGE, seq, 3),
		HDR(PST_FRAME_MESSAGE, size, 31),
		HDR(PST_FRAME_MESSAGE, size, sizeof(struct pst_frame) + PST_MSG_MAX + 1),
		HDR(PST_FRAME_MESSAGE, size, UINT32_MAX),
		HDR(PST_FRAME_AGAIN, seq, 0),
		HDR(PST_FRAME_AGAIN, seq, 3),
		HDR(PST_FRAME_AGAIN, seq, UINT64_MAX),
		HDR(PST_FRAME_READ, size, 73),
		RANGE(PST_FRAME_READ, key, 0),
		RANGE(PST_FRAME_READ, offset, REGION - 7),
		RANGE(PST_FRAME_READ, offset, UINT64_MAX),
		RANGE(PST_FRAME_READ, offset, UINT64_MAX - 7),
		RANGE(PST_FRAME_READ, len, 0),
		RANGE(PST_FRAME_READ, len, REGION + 1),
		RANGE(PST_FRAME_READ, len, UINT64_MAX),
		RANGE(PST_FRAME_READ, request, 0),
		RANGE(PST_FRAME_READ, request, 2),
		HDR(PST_FRAME_WRITE, size, sizeof(struct pst_frame_range) + 7),
		HDR(PST_FRAME_WRITE, size, sizeof(struct pst_frame_range)),
		HDR(PST_FRAME_WRITE, imm, 1),
		HDR(PST_FRAME_WRITE, seq, 1),
		RANGE(PST_FRAME_WRITE, key, 1),
		RANGE(PST_FRAME_WRITE, offset, REGION - 7),
		RANGE(PST_FRAME_WRITE, offset, UINT64_MAX - 3),
		RANGE(PST_FRAME_WRITE, len, 7),
		RANGE(PST_FRAME_WRITE, len, 1ull << 32 | 8),
		RANGE(PST_FRAME_WRITE, request, 2),
		RANGE(PST_FRAME_DATA, len, 8),
		DONE(request, 0),
		DONE(request, 1),
		DONE(request, UINT64_MAX),
		DONE(status, 1),
		DONE(reserved, 1),
	};

	for (size_t i = 0; i < sizeof(flaws) / sizeof(flaws[0]); i++) {
		send_flawed(self, &flaws[i]);
		expect_broke(self);
		if (test_failed) {
			test_say(__FILE__, __LINE__, "flaw %zu", i);
			return;
		}
	}
	EXPECT_EQ(0, (int)self->mem.at[REGION - 1]);
}

TEST_F(hostile, bad_grants_lose_the_link)
{
	static const struct raw_grant bad[] = {
		{.key = {1, 2}, .len = 0, .access = 1},
		{.key = {1, 2}, .len = 1, .access = 0},
		{.key = {1, 2}, .len = 1, .access = 2},
		{.key = {1, 2}, .len = 1, .access = 7},
		{.key = {1, 2}, .len = 1, .access = 1, .pieces = 1},
		{.key = {1, 2}, .len = 1, .access = 1, .addr = 1},
		{.key = {1, 2}, .len = 1, .access = 1, .chunk = 1},
	};
	struct raw_grant good = {.key = {1, 2}, .len = 1, .access = 1};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		raw_grant(&self->raw, &bad[i]);
		expect_broke(self);
	}
	/* the same key twice */
	raw_grant(&self->raw, &good);
	raw_grant(&self->raw, &good);
	expect_broke(self);
	/* one more than there may be */
	for (good.key[0] = 0; good.key[0] <= 256; good.key[0]++)
		raw_grant(&self->raw, &good);
	expect_broke(self);
}

static void raw_range(struct fixture_hostile *self, uint16_t type, struct pst_key key,
		      uint64_t request, uint32_t len)
{
	union raw_frame f = {0};
	uint32_t data = type == PST_FRAME_WRITE ? len : 0;

	f.range.key[0] = key.k[0];
	f.range.key[1] = key.k[1];
	f.range.len = len;
	f.range.request = request;
	raw_seal(&self->raw, &f, type, sizeof(f.range) + data, sizeof(f.range));
	raw_send(&self->raw, &f, sizeof(f.range) + data);
}

TEST_F(hostile, read_only_is_not_written_and_another_links_key_opens_nothing)
{
	struct pst_key other = self->rw_key;

	raw_range(self, PST_FRAME_WRITE, self->ro_key, 1, 8);
	expect_broke(self);
	/* the key of the link before */
	raw_range(self, PST_FRAME_READ, other, 1, 8);
	expect_broke(self);
	raw_range(self, PST_FRAME_WRITE, other, 1, 8);
	expect_broke(self);
}

TEST_F(hostile, flood_of_reads_is_bounded)
{
	for (uint64_t i = 1; i <= 2000; i++) {
		union raw_frame f = {.range = {.key = {self->ro_key.k[0], self->ro_key.k[1]},
					       .len = REGION,
					       .request = i}};

		raw_seal(&self->raw, &f, PST_FRAME_READ, sizeof(f.range), sizeof(f.range));
		if (send(self->raw.sock, &f, sizeof(f.range), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		if (!(i % 100)) {
			struct pst_wc wc;

			if (pst_cq_poll(self->me.cq, &wc, 1))
				break;
		}
	}
	pst_link_close(self->me.link);
	raw_close(&self->raw);
	let_in(self);
}

TEST_F(hostile, messages_beyond_the_window_lose_the_link)
{
	struct pst_wc wc;

	for (int i = 0; i < 65; i++)
		raw_message(&self->raw, "x");
	for (int i = 0; i < 64; i++)
		usleep(100);
	/* what had room is handed out */
	for (int i = 0; i < 64; i++) {
		ASSERT_EQ(1, pst_cq_wait(self->me.cq, &wc, 1, 1000));
		if (wc.kind == PST_WC_DOWN)
			break;
		EXPECT_EQ(PST_WC_MESSAGE, (int)wc.kind);
	}
}

/* How many grants come before a frame of @type. */
static int grants_before(struct fixture_hostile *self, uint16_t type)
{
	struct raw_grant g;

	for (int n = 0;; n++) {
		raw_get(&self->me, self->raw.sock, &g, sizeof(g.hdr));
		if (g.hdr.type == type)
			return n;
		ASSERT_EQ(PST_FRAME_GRANT, (int)g.hdr.type);
		raw_get(&self->me, self->raw.sock, (char *)&g + sizeof(g.hdr),
			sizeof(g) - sizeof(g.hdr));
	}
}

/* The peer answers a ping at once, behind all that may go out. */
static void raw_ping(struct raw *r)
{
	union raw_frame f = {0};

	raw_seal(r, &f, PST_FRAME_PING, sizeof(f.f), sizeof(f.f));
	raw_send(r, &f, sizeof(f.f));
}

TEST_F(hostile, grants_stay_inside_of_the_window)
{
	enum { MORE = 100, FIRST = 2, WINDOW = 64 };
	const struct pst_region_attr attr = {.size = sizeof(attr),
					     .addr = self->mem.at,
					     .len = REGION,
					     .fd = -1,
					     .access = PST_ACCESS_READ};
	struct pst_region *region[MORE];
	struct pst_error err = {0};
	struct pst_key key;

	self->raw.ack = 0;
	for (int i = 0; i < MORE; i++) {
		ASSERT_OK(pst_region_register(self->me.fab, &attr, &region[i], &err), &err);
		EXPECT_EQ(0, pst_link_grant(self->me.link, region[i], PST_ACCESS_READ, &key));
	}
	raw_ping(&self->raw);
	EXPECT_EQ(WINDOW - FIRST, grants_before(self, PST_FRAME_CREDIT));
	/* what waits goes when the peer has taken them */
	self->raw.ack = WINDOW;
	raw_ping(&self->raw);
	EXPECT_EQ(0, grants_before(self, PST_FRAME_CREDIT));
	raw_ping(&self->raw);
	EXPECT_EQ(MORE + FIRST - WINDOW, grants_before(self, PST_FRAME_CREDIT));
	pst_link_close(self->me.link);
	raw_close(&self->raw);
	for (int i = 0; i < MORE; i++)
		pst_region_release(region[i]);
	let_in(self);
}

TEST_F(hostile, flood_of_agains_is_bounded)
{
	union raw_frame f = {0};

	for (int i = 0; i < 300; i++) {
		f.f.seq = 1;
		raw_seal(&self->raw, &f, PST_FRAME_AGAIN, sizeof(f.f), sizeof(f.f));
		f.f.ack = 0;
		f.f.crc = 0;
		f.f.crc = pst_crc32c(0, &f, sizeof(f.f));
		if (i < 1)
			self->raw.ack = 0;
		if (send(self->raw.sock, &f, sizeof(f.f), MSG_NOSIGNAL) < 0)
			break;
	}
	expect_lost(self, PST_CAUSE_FRAME_BROKEN);
}

/* Half a frame and silence: the peer is given up, its neighbour does not notice. */
TEST_F(hostile, half_a_frame_and_silence)
{
	union raw_frame f = {0};

	raw_seal(&self->raw, &f, PST_FRAME_MESSAGE, sizeof(f.f) + 100, sizeof(f.f) + 100);
	raw_send(&self->raw, &f, sizeof(f.f) + 50);
	expect_lost(self, PST_CAUSE_PEER_SILENT);
}

TEST_F(hostile, half_a_write_and_silence)
{
	union raw_frame f = {.range = {.key = {self->rw_key.k[0], self->rw_key.k[1]},
				       .len = 1000,
				       .request = 1}};

	raw_seal(&self->raw, &f, PST_FRAME_WRITE, sizeof(f.range) + 1000, sizeof(f.range));
	raw_send(&self->raw, &f, sizeof(f.range) + 500);
	expect_lost(self, PST_CAUSE_PEER_SILENT);
}

/* Answers pings, and nothing else. */
TEST_F(hostile, requests_that_are_never_done_end)
{
	const struct pst_key key = {{9, 9}};
	const struct raw_grant grant = {.key = {9, 9}, .len = 4096, .access = 3};
	struct pst_wr wr = {.id = 5,
			    .op = PST_WR_WRITE,
			    .local = self->mem.region,
			    .local_addr = self->mem.at,
			    .key = key,
			    .len = 100};
	union raw_frame f = {0};
	struct pst_wc wc;
	int n;

	raw_grant(&self->raw, &grant);
	raw_wait(&self->me, self->raw.sock, 2);
	ASSERT_EQ(1, pst_link_post(self->me.link, &wr, 1));
	do {
		f.f.seq = 0;
		raw_seal(&self->raw, &f, PST_FRAME_CREDIT, sizeof(f.f), sizeof(f.f));
		send(self->raw.sock, &f, sizeof(f.f), MSG_NOSIGNAL);
		n = pst_cq_wait(self->me.cq, &wc, 1, 20);
	} while (!n);
	EXPECT_EQ(PST_WC_DONE, (int)wc.kind);
	EXPECT_EQ(5, (int)wc.id);
	EXPECT_EQ(-ETIMEDOUT, wc.status);
	expect_lost(self, PST_CAUSE_PEER_STALLED);
}

/* A broken message is asked for again; those behind it wait for it. */
TEST_F(hostile, broken_message_is_sent_again)
{
	struct pst_fabric_stat stat;
	union raw_frame good = {0}, f;
	size_t size = sizeof(good.f) + 5;

	memcpy(good.bytes + sizeof(good.f), "first", 5);
	raw_seal(&self->raw, &good, PST_FRAME_MESSAGE, size, size);
	f = good;
	f.bytes[sizeof(f.f) + 2] ^= 4;
	raw_send(&self->raw, &f, size);
	raw_message(&self->raw, "second");
	raw_hear(&self->me, &self->raw, &f);
	EXPECT_EQ(PST_FRAME_AGAIN, (int)f.f.type);
	EXPECT_EQ(1, (int)f.f.seq);
	EXPECT_EQ(0, (int)f.f.ack);
	raw_send(&self->raw, &good, size);
	EXPECT_EQ(0, memcmp(expect(&self->me, PST_WC_MESSAGE).msg, "first", 5));
	EXPECT_EQ(0, memcmp(expect(&self->me, PST_WC_MESSAGE).msg, "second", 6));
	pst_fabric_stat(self->me.fab, &stat);
	EXPECT_EQ(1, (int)stat.crc_bad);
	/* a third time it is no frame that may come */
	raw_send(&self->raw, &good, size);
	expect_broke(self);
}

TEST_F(hostile, broken_number_is_known_by_its_place)
{
	union raw_frame good = {0}, f;

	good.f.imm = 77;
	raw_seal(&self->raw, &good, PST_FRAME_IMM, sizeof(good.f), sizeof(good.f));
	f = good;
	f.f.seq ^= 1ull << 40;
	raw_send(&self->raw, &f, sizeof(f.f));
	raw_hear(&self->me, &self->raw, &f);
	EXPECT_EQ(PST_FRAME_AGAIN, (int)f.f.type);
	EXPECT_EQ(1, (int)f.f.seq);
	raw_send(&self->raw, &good, sizeof(good.f));
	EXPECT_EQ(77, (int)expect(&self->me, PST_WC_IMM).imm);
}

/* The other way round: what we said came broken there. */
TEST_F(hostile, message_is_kept_until_it_is_taken)
{
	union raw_frame f, again = {0};
	uint64_t seq;

	self->raw.ack = 2;
	ASSERT_EQ(0, pst_link_send(self->me.link, "keep me", 7, 0));
	raw_hear(&self->me, &self->raw, &f);
	ASSERT_EQ(PST_FRAME_MESSAGE, (int)f.f.type);
	seq = again.f.seq = f.f.seq;
	self->raw.ack = seq - 1;
	raw_seal(&self->raw, &again, PST_FRAME_AGAIN, sizeof(again.f), sizeof(again.f));
	raw_send(&self->raw, &again, sizeof(again.f));
	raw_hear(&self->me, &self->raw, &f);
	EXPECT_EQ(PST_FRAME_MESSAGE, (int)f.f.type);
	EXPECT_EQ(seq, f.f.seq);
	EXPECT_EQ(0, memcmp(f.bytes + sizeof(f.f), "keep me", 7));
	/* once it is taken, it is not there any more */
	self->raw.ack = seq;
	raw_message(&self->raw, "taken");
	expect(&self->me, PST_WC_MESSAGE);
	again.f.seq = seq;
	raw_seal(&self->raw, &again, PST_FRAME_AGAIN, sizeof(again.f), sizeof(again.f));
	raw_send(&self->raw, &again, sizeof(again.f));
	expect_broke(self);
}

TEST_F(hostile, broken_head_of_a_write_loses_the_link)
{
	union raw_frame f = {
		.range = {.key = {self->rw_key.k[0], self->rw_key.k[1]}, .len = 8, .request = 1}};

	raw_seal(&self->raw, &f, PST_FRAME_WRITE, sizeof(f.range) + 8, sizeof(f.range));
	f.range.offset = 16;
	raw_send(&self->raw, &f, sizeof(f.range) + 8);
	expect_lost(self, PST_CAUSE_FRAME_BROKEN);
}

TEST_F(hostile, garbage)
{
	uint64_t seed = 7;

	for (int round = 0; round < 50; round++) {
		uint64_t word[64];
		struct pst_wc wc;
		int n = 0;

		for (int i = 0; i < 64; i++)
			word[i] = test_random(&seed) >> test_random(&seed) % 64;
		/* half of them begin like a frame */
		if (round % 2)
			word[0] = 40 | (1 + test_random(&seed) % 11) << 32;
		send(self->raw.sock, word, sizeof(word), MSG_NOSIGNAL);
		shutdown(self->raw.sock, SHUT_WR);
		while (n != 1 || wc.kind != PST_WC_DOWN)
			n = pst_cq_wait(self->me.cq, &wc, 1, 1000);
		pst_link_close(self->me.link);
		raw_close(&self->raw);
		let_in(self);
	}
}

TEST_MAIN
