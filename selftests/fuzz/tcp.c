/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is what a tcp peer that is past the handshake sends, cut into pieces
 * as a socket may cut it, and what the victim does meanwhile. Frames can be raw
 * bytes, or have their length and CRC put right, so that the fuzzer gets behind
 * the CRC. The victim must hand out only whole messages, end a link once, and
 * keep every byte that the peer was not let at.
 */
#include "rdma/crc32c.h"
#include "rdma/tcp/tcp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REGION 8192
#define GUARD  4096

struct input {
	const uint8_t *at;
	size_t left;
};

struct victim {
	struct pst_fabric *fab;
	struct pst_cq *cq;
	struct pst_region *rw, *ro;
	struct pst_link *link;
	unsigned char *memory; /* guard, rw, guard, ro, guard */
	struct pst_key rw_key, ro_key;
	bool down;
};

static struct victim victim;
static int peer;
static uint64_t seq, request;

static void take(struct input *in, void *out, size_t n)
{
	size_t have = n < in->left ? n : in->left;

	memset(out, 0, n);
	memcpy(out, in->at, have);
	in->at += have;
	in->left -= have;
}

static uint8_t take_byte(struct input *in)
{
	uint8_t b;

	take(in, &b, 1);
	return b;
}

static void must(bool yes)
{
	if (!yes)
		abort();
}

static struct pst_region *make_region(void *addr, uint32_t access)
{
	const struct pst_region_attr attr = {
		.size = sizeof(attr), .addr = addr, .len = REGION, .fd = -1, .access = access};
	struct pst_region *region;

	must(!pst_region_register(victim.fab, &attr, &region, NULL));
	return region;
}

static void make_key(char *path, size_t size)
{
	static const char text[] = "a key for the fuzzer of frames";
	int fd;

	snprintf(path, size, "/tmp/fuzz-key-XXXXXX");
	fd = mkstemp(path);
	must(fd >= 0 && write(fd, text, sizeof(text)) == sizeof(text));
	close(fd);
}

static void open_victim(void)
{
	char path[64];

	if (victim.fab)
		return;
	make_key(path, sizeof(path));
	setenv("PENSTOCK_KEY", path, 1);
	must(!pst_fabric_open("tcp://?io=epoll", &victim.fab, NULL));
	unlink(path);
	must(!pst_cq_create(victim.fab, &victim.cq, NULL));
	victim.memory = aligned_alloc(GUARD, 2 * REGION + 3 * GUARD);
	memset(victim.memory, 'g', 2 * REGION + 3 * GUARD);
	victim.rw = make_region(victim.memory + GUARD, PST_ACCESS_WRITE);
	victim.ro = make_region(victim.memory + 2 * GUARD + REGION, PST_ACCESS_READ);
}

static void open_link(bool crc)
{
	int pair[2];
	const struct tcp_terms terms = {.fd = pair, .nfds = 1, .timeout_ms = 60000, .crc = crc};
	struct tcp_cq *cq = pst_container(victim.cq, struct tcp_cq, base);
	struct tcp_link *link;

	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair));
	peer = pair[1];
	pst_tcp_enter(cq);
	must(!pst_tcp_link_new(cq, &terms, &link));
	pst_tcp_leave(cq);
	victim.link = &link->base;
	victim.down = false;
	must(!pst_link_grant(victim.link, victim.rw, PST_ACCESS_WRITE, &victim.rw_key));
	must(!pst_link_grant(victim.link, victim.ro, PST_ACCESS_READ, &victim.ro_key));
	seq = request = 0;
}

static void handle(const struct pst_wc *wc)
{
	uint64_t sum = 0;

	must(wc->link == victim.link && !victim.down);
	if (wc->kind == PST_WC_MESSAGE) {
		must(wc->len <= PST_MSG_MAX);
		for (uint32_t i = 0; i < wc->len; i++)
			sum += ((const uint8_t *)wc->msg)[i];
		__asm__ volatile("" ::"r"(sum));
	} else if (wc->kind == PST_WC_DOWN) {
		must(wc->status < 0 && wc->cause && pst_link_why(wc->link)[0]);
		victim.down = true;
	} else {
		must(wc->kind == PST_WC_IMM || wc->kind == PST_WC_DONE);
	}
}

static void look(void)
{
	char junk[4096];
	struct pst_wc wc[7];
	int n;

	while (recv(peer, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	n = pst_cq_wait(victim.cq, wc, 7, 0);
	for (int i = 0; i < n; i++)
		handle(&wc[i]);
}

/* In up to two pieces, with a look between them. */
static void deliver(const void *data, size_t len, size_t cut)
{
	if (cut && cut < len) {
		send(peer, data, cut, MSG_NOSIGNAL | MSG_DONTWAIT);
		look();
		data = (const char *)data + cut;
		len -= cut;
	}
	send(peer, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void send_bytes(struct input *in)
{
	uint8_t buf[256];
	size_t len = take_byte(in);

	take(in, buf, len);
	deliver(buf, len, take_byte(in));
}

/* A frame whose length, number and CRC are right but for one byte of it at the most. */
static void send_frame(struct input *in, bool crc)
{
	union {
		union tcp_head head;
		unsigned char bytes[sizeof(struct pst_frame) + PST_MSG_MAX];
	} f = {0};
	uint16_t type = take_byte(in) % 13;
	size_t len = pst_tcp_head_len(type), head = type == PST_FRAME_GRANT ? 80 : len;
	bool bulk = type == PST_FRAME_WRITE || type == PST_FRAME_DATA;
	uint8_t flaw = take_byte(in), more = take_byte(in);

	head = head ? head : sizeof(struct pst_frame); /* no such type */
	take(in, f.bytes + sizeof(struct pst_frame), head - sizeof(struct pst_frame));
	if (type == PST_FRAME_WRITE || type == PST_FRAME_READ) {
		memcpy(f.head.range.key, flaw & 1 ? &victim.rw_key : &victim.ro_key, 16);
		f.head.range.request = ++request;
		f.head.range.offset %= flaw & 2 ? UINT64_MAX : REGION;
		f.head.range.len = flaw & 4 ? f.head.range.len : more;
	}
	len = head + (bulk || type == PST_FRAME_MESSAGE ? more : 0);
	if (type == PST_FRAME_DATA)
		f.head.range.len = more;
	f.head.frame.type = type;
	f.head.frame.size = (uint32_t)len;
	if (type <= PST_FRAME_GRANT)
		f.head.frame.seq = ++seq;
	if (flaw >= 0xf0)
		f.bytes[take_byte(in) % head] ^= take_byte(in);
	f.head.frame.crc = crc ? pst_crc32c(0, &f, bulk ? head : len) : 0;
	if (flaw == 0xef)
		f.bytes[take_byte(in) % len] ^= take_byte(in);
	deliver(&f, len, take_byte(in));
}

static void post(struct input *in)
{
	struct pst_wr wr[4];
	int n = take_byte(in) % 4 + 1;

	for (int i = 0; i < n; i++) {
		wr[i] = (struct pst_wr){.id = (uint64_t)i,
					.op = take_byte(in) % 4,
					.flags = take_byte(in) & 3,
					.local = victim.rw,
					.local_addr = victim.memory + GUARD};
		wr[i].key.k[0] = take_byte(in);
		wr[i].remote_off = take_byte(in) == 0xff ? UINT64_MAX : take_byte(in) * 64;
		wr[i].len = take_byte(in) * 30;
	}
	pst_link_post(victim.link, wr, n);
}

static void step(struct input *in, bool crc)
{
	switch (take_byte(in) % 8) {
	case 0:
		send_bytes(in);
		break;
	case 1:
	case 2:
	case 3:
	case 4:
		send_frame(in, crc);
		break;
	case 5:
		post(in);
		break;
	case 6:
		if (take_byte(in) > 200)
			shutdown(peer, SHUT_WR);
		break;
	default:
		look();
	}
}

static bool only(const unsigned char *p, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != 'g')
			return false;
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {.at = data, .left = size};
	bool crc = take_byte(&in) & 1;

	open_victim();
	open_link(crc);
	while (in.left)
		step(&in, crc);
	look();
	close(peer);
	/* the hang-up is seen, and after it there is an end of completions */
	for (int i = 0; i < 1000 && !victim.down; i++) {
		struct pst_wc wc[7];
		int n = pst_cq_wait(victim.cq, wc, 7, 0);

		for (int k = 0; k < n; k++)
			handle(&wc[k]);
	}
	must(victim.down);
	pst_link_close(victim.link);
	must(only(victim.memory, GUARD) &&
	     only(victim.memory + GUARD + REGION, 2 * GUARD + REGION));
	return 0;
}
