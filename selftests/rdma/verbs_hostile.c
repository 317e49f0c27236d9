/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers of a verbs link that break the rules, with the key and without: they are refused or their
 * link is lost, for the right reason; nothing outside of what they were given changes, and a good
 * peer is served all the while. In a guest: selftests/vm/run.
 *
 * The hostile one is made of librdmacm and libibverbs alone, and of the handshake where it has to
 * get past it.
 */
#include "rdma/cause.h"
#include "rdma/crc32c.h"
#include "rdma/handshake.h"
#include "rdma/verbs/verbs.h"
#include "selftests/rdma/pair.h"

#include <arpa/inet.h>
#include <rdma/rdma_verbs.h>
#include <stddef.h>
#include <sys/random.h>

#define VICTIM "verbs://10.0.0.2:0?dev=rxe1&timeout=1500"
#define GOOD   "verbs://?dev=rxe0"
#define REGION 65536
#define RECVS  48
#define BUFFER 4400 /* more than a frame may have */

/* The one who is attacked: a thread that serves; the first link is the good peer's. */
struct victim {
	struct end end;
	struct pst_listener *listener;
	struct memory rw, ro; /* the hostile peer is let at the first, the good one at the second */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t news;
	bool stop;
	struct pst_link *good, *bad;
	struct pst_key key; /* of rw on the last hostile link */
	unsigned int connected, down, messages;
	uint32_t cause;
};

/* A connection by hand. */
struct raw {
	struct rdma_cm_id *id;
	struct ibv_mr *mr;
	unsigned char *bufs; /* RECVS to receive, one to send */
	uint64_t seq;
};

union frame {
	struct pst_frame f;
	struct {
		struct pst_frame hdr;
		uint64_t key[2], len;
		uint32_t access, pieces;
		uint64_t addr, chunk;
		uint32_t rkey[4];
	} grant;
	unsigned char bytes[BUFFER];
};

FIXTURE(hostile)
{
	struct victim v;
	struct end good;
	struct memory mine;
	struct pst_key key; /* of the victim's memory, for the good peer */
	struct pst_secret *secret, *other;
	struct raw raw;
	char port[8];
	unsigned int rounds;
};

/* The victim */

static void take(struct victim *v, const struct pst_wc *wc)
{
	struct pst_key key;

	switch (wc->kind) {
	case PST_WC_CONNECTED:
		v->connected++;
		if (!v->good) {
			v->good = wc->link;
			ASSERT_EQ(0,
				  pst_link_grant(wc->link, v->ro.region, PST_ACCESS_WRITE, &key));
			ASSERT_EQ(0, pst_link_send(wc->link, &key, sizeof(key), 10000));
			break;
		}
		v->bad = wc->link;
		ASSERT_EQ(0, pst_link_grant(wc->link, v->rw.region, PST_ACCESS_WRITE, &v->key));
		break;
	case PST_WC_MESSAGE:
		v->messages++;
		break;
	case PST_WC_DOWN:
		v->down++;
		v->cause = wc->cause;
		EXPECT_TRUE(wc->link == v->bad);
		pst_link_close(wc->link);
		v->bad = NULL;
		break;
	default:
		break;
	}
}

static void *serve(void *arg)
{
	struct victim *v = arg;
	bool stop = false;

	while (!stop) {
		struct pst_wc wc;
		int n = pst_cq_wait(v->end.cq, &wc, 1, 20);

		pthread_mutex_lock(&v->lock);
		if (n > 0)
			take(v, &wc);
		stop = v->stop;
		pthread_cond_broadcast(&v->news);
		pthread_mutex_unlock(&v->lock);
	}
	return NULL;
}

/* Until *@count is above @last; false after ten seconds. */
static bool await(struct victim *v, const unsigned int *count, unsigned int last)
{
	struct timespec end;
	int rc = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 10;
	pthread_mutex_lock(&v->lock);
	while (*count <= last && !rc)
		rc = pthread_cond_timedwait(&v->news, &v->lock, &end);
	pthread_mutex_unlock(&v->lock);
	return !rc;
}

/* The hostile peer */

static unsigned char *raw_out(const struct raw *r)
{
	return r->bufs + RECVS * BUFFER;
}

static void raw_free(struct raw *r)
{
	rdma_dereg_mr(r->mr);
	rdma_destroy_ep(r->id);
	free(r->bufs);
	*r = (struct raw){0};
}

/* A connection on which nobody has proved anything; without an id if it is not taken. */
static struct raw raw_try(const struct fixture_hostile *self)
{
	struct rdma_addrinfo hints = {.ai_port_space = RDMA_PS_TCP}, *to;
	struct ibv_qp_init_attr attr = {.cap = {.max_send_wr = 256,
						.max_recv_wr = RECVS,
						.max_send_sge = 1,
						.max_recv_sge = 1},
					.sq_sig_all = 1};
	struct rdma_conn_param param = {.retry_count = 7, .rnr_retry_count = 3};
	struct raw r = {.bufs = calloc(RECVS + 1, BUFFER)};

	ASSERT_EQ(0, rdma_getaddrinfo("10.0.0.2", self->port, &hints, &to));
	ASSERT_EQ(0, rdma_create_ep(&r.id, to, NULL, &attr));
	rdma_freeaddrinfo(to);
	r.mr = rdma_reg_msgs(r.id, r.bufs, (RECVS + 1) * BUFFER);
	ASSERT_TRUE(r.mr != NULL);
	for (size_t i = 0; i < RECVS; i++)
		ASSERT_EQ(0, rdma_post_recv(r.id, (void *)i, r.bufs + i * BUFFER, BUFFER, r.mr));
	if (rdma_connect(r.id, &param))
		raw_free(&r);
	return r;
}

/* Who means to come in tries again: a slow machine may need more than the 1.5 s of the victim. */
static struct raw raw_connect(const struct fixture_hostile *self)
{
	struct raw r = raw_try(self);

	for (int i = 0; i < 4 && !r.id; i++)
		r = raw_try(self);
	ASSERT_TRUE(r.id != NULL);
	return r;
}

static void raw_close(struct raw *r)
{
	if (!r->id)
		return;
	rdma_disconnect(r->id);
	raw_free(r);
}

/* The next send completes; its status. */
static int raw_sent(struct raw *r)
{
	struct ibv_wc wc;
	int n;

	for (int i = 0; i < 10000; i++) {
		n = ibv_poll_cq(r->id->send_cq, 1, &wc);
		if (n)
			return n < 0 ? n : (int)wc.status;
		usleep(1000);
	}
	return -ETIMEDOUT;
}

static int raw_say(struct raw *r, const void *msg, size_t len)
{
	memcpy(raw_out(r), msg, len);
	ASSERT_EQ(0, rdma_post_send(r->id, NULL, raw_out(r), len, r->mr, 0));
	return raw_sent(r);
}

/* What the victim says next, into @msg; its length, or -ECONNRESET. */
static int raw_hear(struct raw *r, void *msg, size_t len)
{
	struct ibv_wc wc;

	for (int i = 0; i < 5000; i++) {
		int n = ibv_poll_cq(r->id->recv_cq, 1, &wc);

		if (n > 0 && wc.status)
			return -ECONNRESET;
		if (n > 0) {
			memcpy(msg, r->bufs + wc.wr_id * BUFFER,
			       wc.byte_len < len ? wc.byte_len : len);
			ASSERT_EQ(0, rdma_post_recv(r->id, (void *)wc.wr_id,
						    r->bufs + wc.wr_id * BUFFER, BUFFER, r->mr));
			return (int)wc.byte_len;
		}
		usleep(1000);
	}
	return -ETIMEDOUT;
}

static const struct pst_link_hello usual = {
	.fabric = 'v', .crc = 1, .ways = 1, .recv = RECVS, .timeout_ms = 1500};

/* The handshake as a good client does it, by @secret: what the victim welcomed with, or -errno. */
static int raw_shake(struct raw *r, const struct pst_secret *secret,
		     const struct pst_link_hello *hello)
{
	struct pst_error err = {0};
	struct pst_handshake h;
	unsigned char in[BUFFER];
	const void *out;
	size_t len;
	int rc = pst_handshake_begin(&h, PST_HANDSHAKE_CLIENT, secret, hello);

	while (!rc) {
		while ((len = pst_handshake_next(&h, &out)))
			raw_say(r, out, len);
		rc = raw_hear(r, in, sizeof(in));
		if (rc > 0)
			rc = pst_handshake_take(&h, in, (size_t)rc, &err);
	}
	return rc;
}

static void seal(struct raw *r, union frame *f, uint16_t type, size_t size)
{
	bool numbered = type == PST_FRAME_MESSAGE || type == PST_FRAME_GRANT;

	f->f.size = (uint32_t)size;
	f->f.type = type;
	f->f.seq = numbered ? ++r->seq : 0;
	f->f.crc = 0;
	f->f.crc = pst_crc32c(0, f, size);
}

static void let_in(struct fixture_hostile *self)
{
	unsigned int last = self->v.connected;
	int rc = 0;

	for (int i = 0; i < 5 && rc != 1; i++) {
		raw_close(&self->raw);
		self->raw = raw_connect(self);
		rc = raw_shake(&self->raw, self->secret, &usual);
	}
	ASSERT_EQ(1, rc);
	ASSERT_TRUE(await(&self->v, &self->v.connected, last));
}

/* The good peer */

static void good_is_served(struct fixture_hostile *self)
{
	struct pst_wr wr = {.id = ++self->rounds,
			    .op = PST_WR_WRITE,
			    .local = self->mine.region,
			    .local_addr = self->mine.at,
			    .key = self->key,
			    .len = 4096};

	memset(self->mine.at, (int)self->rounds, 4096);
	EXPECT_EQ(0, carry(&self->good, &wr));
	EXPECT_EQ((int)(self->rounds & 0xff), (int)self->v.ro.at[4095]);
}

FIXTURE_SETUP(hostile)
{
	static const char key[] = "a key for tests of the fabrics",
			  other[] = "another key, as long as it";
	struct pst_error err = {0};
	struct victim *v = &self->v;
	char url[128];

	use_key("other", other);
	ASSERT_OK(pst_secret_read(getenv("PENSTOCK_KEY"), &self->other, &err), &err);
	use_key("key", key);
	ASSERT_OK(pst_secret_read(getenv("PENSTOCK_KEY"), &self->secret, &err), &err);
	end_open_on(&v->end, VICTIM);
	v->rw = memory_make(&v->end, REGION, PST_ACCESS_WRITE);
	v->ro = memory_make(&v->end, REGION, PST_ACCESS_WRITE);
	memset(v->ro.at, 'r', REGION);
	ASSERT_OK(pst_listen(v->end.cq, VICTIM, &v->listener, &err), &err);
	snprintf(url, sizeof(url), "%s", pst_listener_url(v->listener));
	snprintf(self->port, sizeof(self->port), "%s", strrchr(url, ':') + 1);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->news, NULL);
	ASSERT_EQ(0, pthread_create(&v->thread, NULL, serve, v));
	end_open_on(&self->good, GOOD);
	self->mine = memory_make(&self->good, REGION, PST_ACCESS_WRITE);
	ASSERT_OK(pst_connect(self->good.cq, url, 20000, &self->good.link, &err), &err);
	hear(&self->good, &self->key, sizeof(self->key));
}

FIXTURE_TEARDOWN(hostile)
{
	struct victim *v = &self->v;

	good_is_served(self);
	raw_close(&self->raw);
	pthread_mutex_lock(&v->lock);
	v->stop = true;
	pthread_mutex_unlock(&v->lock);
	pthread_join(v->thread, NULL);
	memory_drop(&self->mine);
	end_close(&self->good);
	for (size_t i = 4096; i < REGION; i++)
		if (v->ro.at[i] != 'r') {
			EXPECT_EQ('r', v->ro.at[i]);
			break;
		}
	memory_drop(&v->rw);
	memory_drop(&v->ro);
	end_close(&v->end);
	pst_secret_free(self->secret);
	pst_secret_free(self->other);
}

/* The link is lost for this reason; a good peer is still served, and then comes the next one. */
static void expect_lost(struct fixture_hostile *self, unsigned int down, uint32_t cause)
{
	ASSERT_TRUE(await(&self->v, &self->v.down, down));
	EXPECT_EQ(cause, self->v.cause);
	raw_close(&self->raw);
	good_is_served(self);
	let_in(self);
}

TEST_F(hostile, a_good_frame_is_taken)
{
	union frame f = {0};
	unsigned int last = self->v.messages;

	let_in(self);
	seal(&self->raw, &f, PST_FRAME_MESSAGE, sizeof(f.f) + 5);
	EXPECT_EQ(0, raw_say(&self->raw, &f, f.f.size));
	EXPECT_TRUE(await(&self->v, &self->v.messages, last));
	EXPECT_EQ(0u, self->v.down);
}

struct flaw {
	uint16_t type;
	size_t at, len;
	uint64_t value;
};

#define HDR(type, field, value)                                                                  \
	{                                                                                        \
		type, offsetof(struct pst_frame, field), sizeof(((struct pst_frame *)0)->field), \
			value                                                                    \
	}
#define GRANT(field, value)                                                \
	{                                                                  \
		PST_FRAME_GRANT, offsetof(union frame, grant.field),       \
			sizeof(((union frame *)0)->grant.field) > 8        \
				? 8                                        \
				: sizeof(((union frame *)0)->grant.field), \
			value                                              \
	}

static size_t size_of(uint16_t type)
{
	union frame *f = NULL;

	return type == PST_FRAME_MESSAGE ? sizeof(f->f) + 8
	       : type == PST_FRAME_GRANT ? offsetof(union frame, grant.rkey) + 4
					 : sizeof(f->f);
}

/* One frame with one field wrong, its CRC right. */
static void say_flawed(struct fixture_hostile *self, const struct flaw *flaw)
{
	union frame f = {0};
	size_t size = size_of(flaw->type);

	if (flaw->type == PST_FRAME_GRANT) {
		f.grant.key[0] = 7;
		f.grant.len = f.grant.chunk = 4096;
		f.grant.access = PST_ACCESS_READ;
		f.grant.pieces = 1;
	}
	seal(&self->raw, &f, flaw->type, size);
	memcpy(f.bytes + flaw->at, &flaw->value, flaw->len);
	f.f.crc = 0;
	f.f.crc = pst_crc32c(0, &f, size);
	raw_say(&self->raw, &f, size);
}

TEST_F(hostile, every_field_is_checked)
{
	static const struct flaw flaws[] = {
		HDR(PST_FRAME_CREDIT, type, 0),
		HDR(PST_FRAME_CREDIT, type, PST_FRAME_WRITE),
		HDR(PST_FRAME_CREDIT, type, PST_FRAME_DONE),
		HDR(PST_FRAME_CREDIT, type, 0xffff),
		HDR(PST_FRAME_CREDIT, size, 31),
		HDR(PST_FRAME_CREDIT, size, UINT32_MAX),
		HDR(PST_FRAME_CREDIT, flags, 1),
		HDR(PST_FRAME_CREDIT, imm, 1),
		HDR(PST_FRAME_CREDIT, seq, 1),
		HDR(PST_FRAME_CREDIT, ack, 1000),
		HDR(PST_FRAME_CREDIT, ack, UINT64_MAX),
		HDR(PST_FRAME_PING, seq, 1),
		HDR(PST_FRAME_BYE, seq, 1),
		HDR(PST_FRAME_IMM, seq, 1), /* the device's own, on a link of one rail */
		HDR(PST_FRAME_AGAIN, seq, 0),
		HDR(PST_FRAME_MESSAGE, seq, 0),
		HDR(PST_FRAME_MESSAGE, seq, 3),
		HDR(PST_FRAME_MESSAGE, seq, UINT64_MAX),
		HDR(PST_FRAME_MESSAGE, size, 32),
		HDR(PST_FRAME_MESSAGE, imm, 1),
		HDR(PST_FRAME_MESSAGE, flags, 0x8000),
		GRANT(len, 0),
		GRANT(len, UINT64_MAX),
		GRANT(access, 0),
		GRANT(access, 0xffff),
		GRANT(pieces, 0),
		GRANT(pieces, 2),
		GRANT(pieces, UINT32_MAX),
		GRANT(chunk, 0),
		GRANT(chunk, 1),
		GRANT(addr, UINT64_MAX),
	};

	let_in(self);
	for (size_t i = 0; i < sizeof(flaws) / sizeof(flaws[0]); i++) {
		unsigned int down = self->v.down;

		say_flawed(self, &flaws[i]);
		expect_lost(self, down, PST_CAUSE_PEER_BROKE);
		if (test_failed) {
			test_say(__FILE__, __LINE__, "flaw %zu", i);
			return;
		}
	}
}

/* A number that was there before is not handed out twice. */
TEST_F(hostile, replayed_frames_are_dropped)
{
	unsigned int last = self->v.messages, down;
	union frame f = {0};

	let_in(self);
	seal(&self->raw, &f, PST_FRAME_MESSAGE, sizeof(f.f) + 8);
	for (int i = 0; i < 5; i++)
		EXPECT_EQ(0, raw_say(&self->raw, &f, f.f.size));
	ASSERT_TRUE(await(&self->v, &self->v.messages, last));
	seal(&self->raw, &f, PST_FRAME_MESSAGE, sizeof(f.f) + 8);
	EXPECT_EQ(0, raw_say(&self->raw, &f, f.f.size));
	ASSERT_TRUE(await(&self->v, &self->v.messages, last + 1));
	EXPECT_EQ(last + 2, self->v.messages);
	/* asked for what it never got */
	down = self->v.down;
	memset(&f, 0, sizeof(f));
	seal(&self->raw, &f, PST_FRAME_AGAIN, sizeof(f.f));
	f.f.seq = 40;
	f.f.crc = 0;
	f.f.crc = pst_crc32c(0, &f, sizeof(f.f));
	EXPECT_EQ(0, raw_say(&self->raw, &f, sizeof(f.f)));
	good_is_served(self);
	EXPECT_EQ(down, self->v.down);
}

/* Frames whose CRC never is right are asked for again a few times, and that is all. */
TEST_F(hostile, broken_for_ever)
{
	unsigned int down = self->v.down;
	union frame f = {0};

	let_in(self);
	for (int i = 0; i < 40 && self->v.down == down; i++) {
		seal(&self->raw, &f, PST_FRAME_MESSAGE, sizeof(f.f) + 8);
		f.f.seq = 1;
		f.f.crc ^= 1;
		raw_say(&self->raw, &f, f.f.size);
	}
	ASSERT_TRUE(await(&self->v, &self->v.down, down));
	EXPECT_TRUE(self->v.cause == PST_CAUSE_FRAME_BROKEN ||
		    self->v.cause == PST_CAUSE_PEER_BROKE);
}

/* One-sided: past its memory, by a key that nobody gave, and what it was given for reading. */
static int raw_write(struct raw *r, uint64_t addr, uint32_t rkey)
{
	ASSERT_EQ(0, rdma_post_write(r->id, NULL, raw_out(r), 64, r->mr, 0, addr, rkey));
	return raw_sent(r);
}

TEST_F(hostile, memory_that_it_was_not_given)
{
	union frame f;
	unsigned int down;

	let_in(self);
	do
		ASSERT_LT(0, raw_hear(&self->raw, &f, sizeof(f)));
	while (f.f.type != PST_FRAME_GRANT);
	memset(raw_out(&self->raw), 'w', 64);
	EXPECT_EQ(0, raw_write(&self->raw, f.grant.addr, f.grant.rkey[0]));
	down = self->v.down;
	EXPECT_EQ(IBV_WC_REM_ACCESS_ERR,
		  raw_write(&self->raw, f.grant.addr + f.grant.len - 63, f.grant.rkey[0]));
	for (uint32_t i = 1; i < 8; i++) {
		raw_close(&self->raw);
		ASSERT_TRUE(await(&self->v, &self->v.down, down));
		let_in(self);
		down = self->v.down;
		memset(raw_out(&self->raw), 'w', 64);
		EXPECT_NE(0, raw_write(&self->raw, (uintptr_t)self->v.ro.at, f.grant.rkey[0] + i));
	}
	raw_close(&self->raw);
	ASSERT_TRUE(await(&self->v, &self->v.down, down));
	let_in(self);
	/* the key of a link that has gone */
	EXPECT_NE(0, raw_write(&self->raw, f.grant.addr, f.grant.rkey[0]));
	EXPECT_EQ('w', self->v.rw.at[63]);
	EXPECT_EQ(0, (int)self->v.rw.at[REGION - 1]);
}

/* More than there are buffers for, and messages that no buffer holds. */
TEST_F(hostile, floods_and_long_ones)
{
	unsigned int down;
	union frame f = {0};

	let_in(self);
	down = self->v.down;
	seal(&self->raw, &f, PST_FRAME_PING, sizeof(f.f));
	for (int i = 0; i < 2000 && self->v.down == down; i++)
		if (raw_say(&self->raw, &f, f.f.size))
			break;
	good_is_served(self);
	raw_close(&self->raw);
	ASSERT_TRUE(await(&self->v, &self->v.down, down));
	let_in(self);
	down = self->v.down;
	seal(&self->raw, &f, PST_FRAME_MESSAGE, BUFFER);
	EXPECT_NE(0, raw_say(&self->raw, &f, BUFFER));
	ASSERT_TRUE(await(&self->v, &self->v.down, down));
	raw_close(&self->raw);
}

/* Before it has proved anything. */

static void expect_refused(struct fixture_hostile *self, const struct pst_secret *secret,
			   const struct pst_link_hello *hello)
{
	unsigned int last = self->v.connected;
	struct raw r = raw_connect(self);

	EXPECT_GT(0, raw_shake(&r, secret, hello));
	raw_close(&r);
	EXPECT_EQ(last, self->v.connected);
}

TEST_F(hostile, hellos_that_are_none)
{
	struct pst_link_hello bad[] = {usual, usual, usual, usual, usual, usual};

	bad[0].fabric = 't';
	bad[1].way = 1;
	bad[2].ways = 0;
	bad[3].ways = 200;
	bad[4].recv = 3;
	bad[5].link = 12345;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_refused(self, self->secret, &bad[i]);
	expect_refused(self, self->other, &usual);
	good_is_served(self);
}

/* What a good client said once is of no use to who heard it. */
TEST_F(hostile, replayed_handshake)
{
	struct pst_handshake h;
	unsigned char hello[BUFFER], proof[BUFFER], in[BUFFER];
	size_t hello_len, proof_len;
	struct pst_error err = {0};
	struct pst_link_welcome w;
	struct raw r = raw_connect(self);
	unsigned int last;
	const void *out;
	int n;

	ASSERT_EQ(0, pst_handshake_begin(&h, PST_HANDSHAKE_CLIENT, self->secret, &usual));
	hello_len = pst_handshake_next(&h, &out);
	memcpy(hello, out, hello_len);
	raw_say(&r, hello, hello_len);
	n = raw_hear(&r, in, sizeof(in));
	ASSERT_EQ(0, pst_handshake_take(&h, in, (size_t)n, &err));
	proof_len = pst_handshake_next(&h, &out);
	memcpy(proof, out, proof_len);
	raw_close(&r);
	last = self->v.connected;
	r = raw_connect(self);
	raw_say(&r, hello, hello_len);
	EXPECT_LT(0, raw_hear(&r, in, sizeof(in)));
	raw_say(&r, proof, proof_len);
	EXPECT_EQ((int)sizeof(w), raw_hear(&r, &w, sizeof(w)));
	EXPECT_GT(0, w.code);
	raw_close(&r);
	EXPECT_EQ(last, self->v.connected);
}

TEST_F(hostile, noise_instead_of_a_hello)
{
	unsigned char noise[300];

	for (size_t len = 0; len <= sizeof(noise); len += 60) {
		unsigned int last = self->v.connected;
		struct raw r = raw_connect(self);

		ASSERT_EQ((ssize_t)sizeof(noise), getrandom(noise, sizeof(noise), 0));
		raw_say(&r, noise, len);
		raw_hear(&r, noise, sizeof(noise));
		raw_close(&r);
		EXPECT_EQ(last, self->v.connected);
	}
	good_is_served(self);
}

/* They say nothing, more of them than may wait; a good client comes in all the same. */
TEST_F(hostile, silent_ones_hold_nobody_up)
{
	enum { SILENT = VERBS_SETUPS + 3 };
	struct raw r[SILENT];

	for (int i = 0; i < SILENT; i++)
		r[i] = raw_try(self);
	let_in(self);
	good_is_served(self);
	for (int i = 0; i < SILENT; i++)
		raw_close(&r[i]);
}

TEST_MAIN
