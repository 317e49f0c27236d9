/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes into a socket. Frames are made when there is room for them, not
 * before, so what they say of the other direction (ack, done) is the newest.
 * Small frames about the other direction go first, then answers and own
 * requests take turns: neither can hold up the other for longer than one piece
 * of TCP_DATA_MAX bytes.
 */
#include "rdma/crc32c.h"
#include "rdma/tcp/tcp.h"

#include <string.h>

#define ENOUGH (4u << 20) /* bytes in frames that were made: more than a socket takes at once */

static bool full(const struct tcp_conn *conn)
{
	return conn->out_tail - conn->out_head == TCP_OUTS;
}

static struct tcp_out *add(struct tcp_conn *conn, uint16_t type, size_t head_len)
{
	struct tcp_out *o = &conn->out[conn->out_tail++ % TCP_OUTS];

	/* no more of the head than is sent: all of it is filled by a slow loop */
	memset(&o->head, 0, head_len);
	o->head.frame.type = type;
	o->head_len = (uint32_t)head_len;
	o->answer = false;
	o->data = NULL;
	o->len = 0;
	o->buf = NULL;
	return o;
}

/* All is in it: length, ack and CRC. */
static void seal(struct tcp_conn *conn, struct tcp_out *o)
{
	struct tcp_link *link = conn->link;
	struct pst_frame *f = &o->head.frame;

	f->size = o->head_len + (uint32_t)o->len;
	f->ack = link->seq_told = link->seq_taken;
	conn->out_bytes += f->size;
	if (!link->crc)
		return;
	f->crc = pst_crc32c(0, f, o->head_len);
	if (f->type == PST_FRAME_MESSAGE && o->len)
		f->crc = pst_crc32c(f->crc, o->data, o->len);
}

static void add_done(struct tcp_conn *conn)
{
	struct tcp_out *o = add(conn, PST_FRAME_DONE, sizeof(struct pst_frame_done));

	o->head.done.request = conn->told = conn->served;
	conn->untold = 0;
	conn->told_bytes = 0;
	conn->due &= ~(unsigned int)TCP_DUE_DONE;
	seal(conn, o);
}

static void add_plain(struct tcp_conn *conn, unsigned int due, uint16_t type)
{
	conn->due &= ~due;
	seal(conn, add(conn, type, sizeof(struct pst_frame)));
}

static void add_again(struct tcp_conn *conn)
{
	struct tcp_link *link = conn->link;
	unsigned int slot = (unsigned int)__builtin_ctzll(link->again_due);
	struct tcp_out *o = add(conn, PST_FRAME_AGAIN, sizeof(struct pst_frame));
	uint64_t first = link->seq_taken + 1;

	link->again_due &= ~(1ull << slot);
	o->head.frame.seq = first + (slot - first) % TCP_WINDOW;
	seal(conn, o);
}

static void put_grant(struct tcp_out *o, const struct tcp_given *given)
{
	struct pst_frame_grant g = {
		.hdr = o->head.frame, .len = given->len, .access = given->access};

	memcpy(g.key, &given->key, sizeof(g.key));
	memcpy(&o->head, &g, sizeof(g));
	o->head_len = sizeof(g);
}

/* A piece costs the kernel more than a few bytes cost us. */
static void put_data(struct tcp_out *o, const struct tcp_sent *s)
{
	if (s->len <= TCP_INLINE) {
		memcpy(o->head.message + o->head_len, s->buf->data, s->len);
		o->head_len += s->len;
		return;
	}
	o->buf = s->buf;
	o->buf->refs++;
	o->data = s->buf->data;
	o->len = s->len;
}

static void add_numbered(struct tcp_conn *conn, uint64_t seq)
{
	struct tcp_link *link = conn->link;
	const struct tcp_sent *s = &link->sent[seq % TCP_WINDOW];
	struct tcp_out *o = add(conn, s->type, sizeof(struct pst_frame));

	o->head.frame.seq = seq;
	o->head.frame.imm = s->imm;
	if (s->type == PST_FRAME_GRANT)
		put_grant(o, &link->given[s->grant]);
	if (s->buf)
		put_data(o, s);
	seal(conn, o);
}

static void resend(struct tcp_conn *conn)
{
	struct tcp_link *link = conn->link;
	unsigned int slot = (unsigned int)__builtin_ctzll(link->again);
	uint64_t first = link->seq_acked + 1;

	link->again &= ~(1ull << slot);
	add_numbered(conn, first + (slot - first) % TCP_WINDOW);
}

/* One frame about the other direction, or one once more. */
static bool add_control(struct tcp_conn *conn)
{
	struct tcp_link *link = conn->link;

	if (conn->due & TCP_DUE_DONE && conn->untold)
		add_done(conn);
	else if (conn->due & TCP_DUE_PING)
		add_plain(conn, TCP_DUE_PING, PST_FRAME_PING);
	else if (conn->due & TCP_DUE_CREDIT)
		add_plain(conn, TCP_DUE_CREDIT, PST_FRAME_CREDIT);
	else if (!conn->way && link->again_due)
		add_again(conn);
	else if (!conn->way && link->again)
		resend(conn);
	else
		return false;
	return true;
}

static bool add_answer(struct tcp_conn *conn)
{
	struct tcp_answer *a = &conn->answer[conn->answer_head % TCP_PARTS];
	struct tcp_out *o;

	if (conn->answer_head == conn->answer_tail)
		return false;
	o = add(conn, PST_FRAME_DATA, sizeof(struct pst_frame_range));
	o->data = a->from + a->sent;
	o->len = a->len - a->sent < TCP_DATA_MAX ? a->len - a->sent : TCP_DATA_MAX;
	o->head.range.offset = a->sent;
	o->head.range.len = o->len;
	o->head.range.request = a->number;
	a->sent += o->len;
	o->answer = a->sent == a->len;
	if (o->answer)
		conn->answer_head++;
	seal(conn, o);
	return true;
}

static void add_write(struct tcp_conn *conn, struct tcp_part *p, struct tcp_out *o)
{
	o->data = p->local + p->moved;
	o->len = p->len - p->moved < TCP_DATA_MAX ? p->len - p->moved : TCP_DATA_MAX;
	o->head.range.offset = p->remote_off + p->moved;
	o->head.range.len = o->len;
	p->moved += o->len;
	if (p->moved < p->len)
		return;
	p->number = conn->number;
	conn->own_head++;
}

static void add_read(struct tcp_conn *conn, struct tcp_part *p, struct tcp_out *o)
{
	o->head.range.offset = p->remote_off;
	o->head.range.len = p->len;
	p->number = conn->number;
	conn->own_head++;
}

static bool add_own(struct tcp_conn *conn)
{
	const struct tcp_own *own = &conn->own[conn->own_head % TCP_OWN];
	struct tcp_part *p;
	struct tcp_out *o;

	if (conn->own_head == conn->own_tail)
		return false;
	if (own->numbered) {
		if (!pst_tcp_spread_done(conn->link, own->after))
			return false;
		conn->own_head++;
		add_numbered(conn, own->what);
		return true;
	}
	p = &conn->part[own->what % TCP_PARTS];
	o = add(conn, p->op == PST_WR_WRITE ? PST_FRAME_WRITE : PST_FRAME_READ,
		sizeof(struct pst_frame_range));
	memcpy(o->head.range.key, &p->key, sizeof(p->key));
	o->head.range.request = ++conn->number;
	if (p->op == PST_WR_WRITE)
		add_write(conn, p, o);
	else
		add_read(conn, p, o);
	seal(conn, o);
	return true;
}

static bool add_data(struct tcp_conn *conn)
{
	bool added;

	conn->answer_next = !conn->answer_next;
	added = conn->answer_next ? add_answer(conn) : add_own(conn);
	if (!added)
		added = conn->answer_next ? add_own(conn) : add_answer(conn);
	return added;
}

static bool has_data(const struct tcp_conn *conn)
{
	return conn->own_head != conn->own_tail || conn->answer_head != conn->answer_tail;
}

static void fill(struct tcp_conn *conn)
{
	/* what goes out anyway can as well say what was written */
	if (conn->untold && (conn->due || has_data(conn)))
		conn->due |= TCP_DUE_DONE;
	while (!full(conn) && conn->out_bytes < ENOUGH)
		if (!add_control(conn) && !add_data(conn))
			break;
	/* the last word, so only when all else is said */
	if (conn->due & TCP_DUE_BYE && !full(conn) && !has_data(conn))
		add_plain(conn, TCP_DUE_BYE, PST_FRAME_BYE);
}

bool pst_tcp_out_any(struct tcp_conn *conn)
{
	return conn->out_head != conn->out_tail || conn->due || has_data(conn) ||
	       (!conn->way && (conn->link->again_due || conn->link->again));
}

int pst_tcp_out_iov(struct tcp_conn *conn, struct iovec *iov, int n)
{
	uint64_t skip = conn->out_at;
	int k = 0;

	fill(conn);
	for (unsigned int i = conn->out_head; i != conn->out_tail && k + 2 <= n; i++) {
		struct tcp_out *o = &conn->out[i % TCP_OUTS];
		uint64_t head = skip < o->head_len ? skip : o->head_len;
		uint64_t data = skip - head;

		if (head < o->head_len)
			iov[k++] = (struct iovec){(char *)&o->head + head, o->head_len - head};
		if (data < o->len)
			iov[k++] = (struct iovec){(char *)(uintptr_t)o->data + data, o->len - data};
		skip = 0;
	}
	return k;
}

/* From now on the peer may answer it. */
static void given(struct tcp_conn *conn, const struct tcp_out *o)
{
	struct tcp_link *link = conn->link;
	const struct pst_frame *f = &o->head.frame;

	if (f->type == PST_FRAME_WRITE || f->type == PST_FRAME_READ) {
		if (o->head.range.request > conn->number_gone)
			conn->number_gone = o->head.range.request;
	} else if (f->seq > link->seq_gone && f->type != PST_FRAME_AGAIN) {
		link->seq_gone = f->seq;
	}
}

void pst_tcp_out_given(struct tcp_conn *conn, size_t n)
{
	uint64_t end = conn->out_at + n;

	for (unsigned int i = conn->out_head; i != conn->out_tail; i++) {
		const struct tcp_out *o = &conn->out[i % TCP_OUTS];
		uint64_t len = o->head_len + o->len;

		if (end < len)
			break;
		end -= len;
		given(conn, o);
	}
}

static void gone(struct tcp_conn *conn, struct tcp_out *o)
{
	struct tcp_link *link = conn->link;

	given(conn, o);
	pst_tcp_buf_put(pst_tcp_cq_of(link), o->buf);
	if (o->head.frame.type == PST_FRAME_WRITE)
		link->progress = pst_tcp_now();
	if (o->answer) {
		link->answers_out++;
		pst_tcp_ready(link);
	}
}

void pst_tcp_out_done(struct tcp_conn *conn, size_t n)
{
	conn->out_bytes -= n;
	conn->out_at += n;
	while (conn->out_head != conn->out_tail) {
		struct tcp_out *o = &conn->out[conn->out_head % TCP_OUTS];
		uint64_t len = o->head_len + o->len;

		if (conn->out_at < len)
			break;
		conn->out_at -= len;
		conn->out_head++;
		gone(conn, o);
	}
}

void pst_tcp_out_drop(struct tcp_conn *conn)
{
	for (; conn->out_head != conn->out_tail; conn->out_head++)
		pst_tcp_buf_put(pst_tcp_cq_of(conn->link),
				conn->out[conn->out_head % TCP_OUTS].buf);
	conn->out_at = conn->out_bytes = 0;
	conn->own_head = conn->own_tail;
	conn->answer_head = conn->answer_tail;
	conn->due = 0;
}
