/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that came: what each field may be, and what each type does. Nothing is
 * done before the head of a frame makes sense, and nothing of a numbered frame
 * before its CRC is right.
 *
 * A numbered frame that came broken is asked for again; those behind it are
 * kept. They come in order but for those asked for, so which one it was is known
 * even if its number is what was broken, unless several are missing.
 */
#include "rdma/crc32c.h"
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#define TELL_WRITES 16 /* the peer is told at once when so much was written */
#define TELL_BYTES  (256u << 10)
#define AGAINS_MAX  256 /* without one frame that the peer could take */

/* What a frame of one type may look like, and who handles it. */
struct frame_type {
	unsigned int head; /* what must be there before @begin; a GRANT's end comes behind it */
	uint32_t min, max; /* @size */
	bool numbered, way0;
	int (*begin)(struct tcp_conn *conn); /* optional: says where its data goes */
	int (*end)(struct tcp_conn *conn);
};

static bool good_head(const struct tcp_conn *conn);

static uint64_t bit_of(uint64_t seq)
{
	return 1ull << seq % TCP_WINDOW;
}

static bool good_crc(struct tcp_conn *conn, size_t head, const void *data, size_t len)
{
	uint32_t want = conn->in.frame.crc, crc;

	if (!conn->link->crc)
		return !want;
	conn->in.frame.crc = 0;
	crc = pst_crc32c(0, &conn->in, head);
	conn->in.frame.crc = want;
	return want == (len ? pst_crc32c(crc, data, len) : crc);
}

static bool in_window(const struct tcp_link *link, uint64_t seq)
{
	return seq > link->seq_taken && seq - link->seq_taken <= TCP_WINDOW;
}

/* A numbered frame is broken: which one was it? */
static int ask_again(struct tcp_conn *conn)
{
	struct tcp_link *link = conn->link;
	uint64_t seq = conn->in.frame.seq, next = link->seq_top + 1;

	pst_count(&pst_tcp_counters(link)->crc_bad, 1);
	if (!(in_window(link, seq) && link->missing & bit_of(seq)) &&
	    (seq == next || !link->missing))
		seq = link->seq_top = next;
	else if (!in_window(link, seq) || !(link->missing & bit_of(seq)))
		return pst_tcp_fail(link, conn->way, PST_CAUSE_FRAME_BROKEN, NULL);
	if (!in_window(link, seq))
		return pst_tcp_broke(conn, "more numbered frames than the window has room for");
	link->missing |= bit_of(seq);
	link->again_due |= bit_of(seq);
	return 0;
}

/* It is whole: is it one that may come now? */
static int place(struct tcp_conn *conn, struct tcp_came **out)
{
	struct tcp_link *link = conn->link;
	uint64_t seq = conn->in.frame.seq;

	if (!good_head(conn))
		return pst_tcp_broke(conn, "the head of a frame makes no sense");
	if (!in_window(link, seq))
		return pst_tcp_broke(conn, "a frame's number is outside of the window");
	if (seq == link->seq_top + 1)
		link->seq_top = seq;
	else if (seq <= link->seq_top && link->missing & bit_of(seq))
		link->missing &= ~bit_of(seq);
	else
		return pst_tcp_broke(conn, "a frame's number is not the next");
	*out = &link->came[seq % TCP_WINDOW];
	return pst_tcp_acked(conn, conn->in.frame.ack);
}

static int end_numbered(struct tcp_conn *conn)
{
	struct tcp_link *link = conn->link;
	const struct pst_frame *f = &conn->in.frame;
	struct tcp_buf *buf = conn->in_buf;
	struct tcp_came *came = NULL;
	size_t head = f->type == PST_FRAME_GRANT ? sizeof(struct pst_frame_grant) : sizeof(*f);
	int rc;

	conn->in_buf = NULL;
	if (good_crc(conn, head, buf ? buf->data : NULL, f->size - head))
		rc = place(conn, &came);
	else
		rc = ask_again(conn);
	if (!rc && came && f->type == PST_FRAME_GRANT && pst_tcp_take_grant(link, &conn->in))
		rc = pst_tcp_broke(conn, "a grant that makes no sense");
	if (rc || !came) {
		pst_tcp_buf_put(pst_tcp_cq_of(link), buf);
		return rc;
	}
	*came = (struct tcp_came){
		.here = true,
		.type = f->type,
		.len = (uint16_t)(f->type == PST_FRAME_MESSAGE ? f->size - head : 0),
		.imm = f->imm,
		.after = link->answers_in,
		.buf = buf};
	while (link->seq_in < link->seq_top && link->came[(link->seq_in + 1) % TCP_WINDOW].here)
		link->seq_in++;
	pst_tcp_skip(link);
	pst_tcp_ready(link);
	return 0;
}

static int begin_message(struct tcp_conn *conn)
{
	uint32_t len = conn->in.frame.size - (uint32_t)sizeof(struct pst_frame);

	conn->in_buf = pst_tcp_buf_get(pst_tcp_cq_of(conn->link));
	if (!conn->in_buf)
		return pst_tcp_fail(conn->link, conn->way, PST_CAUSE_NO_MEMORY, NULL);
	conn->body = conn->in_buf->data;
	conn->body_left = len;
	return 0;
}

static int begin_grant(struct tcp_conn *conn)
{
	conn->body = (unsigned char *)&conn->in + TCP_STAGE;
	conn->body_left = sizeof(struct pst_frame_grant) - TCP_STAGE;
	return 0;
}

static int end_again(struct tcp_conn *conn)
{
	struct tcp_link *link = conn->link;
	uint64_t seq = conn->in.frame.seq;

	if (seq <= link->seq_acked || seq > link->seq_gone)
		return pst_tcp_broke(conn, "it asks again for what was not sent");
	if (++link->agains > AGAINS_MAX)
		return pst_tcp_fail(link, conn->way, PST_CAUSE_FRAME_BROKEN, NULL);
	link->again |= bit_of(seq);
	return 0;
}

static int end_ping(struct tcp_conn *conn)
{
	conn->due |= TCP_DUE_CREDIT;
	return 0;
}

static int end_nothing(struct tcp_conn *conn)
{
	(void)conn;
	return 0;
}

static int end_bye(struct tcp_conn *conn)
{
	return pst_tcp_fail(conn->link, conn->way, PST_CAUSE_PEER_CLOSED, NULL);
}

static int begin_write(struct tcp_conn *conn)
{
	const struct pst_frame_range *r = &conn->in.range;

	if (r->request != conn->asked + 1)
		return pst_tcp_broke(conn, "a request's number is not the next");
	conn->body = pst_tcp_check_range(conn->link, r, PST_ACCESS_WRITE);
	if (!conn->body)
		return pst_tcp_broke(conn, "a write to where it was never let");
	conn->asked = r->request;
	conn->body_left = r->len;
	return 0;
}

static int end_write(struct tcp_conn *conn)
{
	conn->served = conn->in.range.request;
	conn->told_bytes += conn->in.range.len;
	if (++conn->untold >= TELL_WRITES || conn->told_bytes >= TELL_BYTES)
		conn->due |= TCP_DUE_DONE;
	pst_tcp_owe(conn->link);
	return 0;
}

static int end_read(struct tcp_conn *conn)
{
	const struct pst_frame_range *r = &conn->in.range;
	unsigned char *from = pst_tcp_check_range(conn->link, r, PST_ACCESS_READ);

	if (r->request != conn->asked + 1)
		return pst_tcp_broke(conn, "a request's number is not the next");
	if (!from)
		return pst_tcp_broke(conn, "a read from where it was never let");
	if (conn->answer_tail - conn->answer_head == TCP_PARTS)
		return pst_tcp_broke(conn, "more reads at once than there may be");
	conn->asked = r->request;
	conn->answer[conn->answer_tail++ % TCP_PARTS] =
		(struct tcp_answer){.from = from, .len = r->len, .number = r->request};
	conn->link->answers_in++;
	return 0;
}

/* The read that DATA is for: the oldest that is under way. */
static struct tcp_part *oldest_read(struct tcp_conn *conn)
{
	for (unsigned int i = conn->part_head; i != conn->part_tail; i++) {
		struct tcp_part *p = &conn->part[i % TCP_PARTS];

		if (p->op == PST_WR_READ && !p->done)
			return p->number ? p : NULL;
	}
	return NULL;
}

static int begin_data(struct tcp_conn *conn)
{
	const struct pst_frame_range *r = &conn->in.range;
	struct tcp_part *p = oldest_read(conn);

	if (!p || p->number != r->request || r->key[0] || r->key[1] || r->offset != p->moved ||
	    r->len > p->len - p->moved)
		return pst_tcp_broke(conn, "data that nobody asked for");
	conn->body = p->local + p->moved;
	conn->body_left = r->len;
	return 0;
}

static int end_data(struct tcp_conn *conn)
{
	struct tcp_part *p = oldest_read(conn);

	p->moved += conn->in.range.len;
	conn->link->progress = conn->heard;
	if (p->moved == p->len)
		pst_tcp_part_done(conn, p, 0);
	return 0;
}

static int end_done(struct tcp_conn *conn)
{
	const struct pst_frame_done *d = &conn->in.done;

	if (!d->request || d->request > conn->number_gone || d->reserved || d->status > 0 ||
	    d->status < -4095)
		return pst_tcp_broke(conn, "an end of a request that was not sent");
	conn->link->progress = conn->heard;
	for (unsigned int i = conn->part_head; i != conn->part_tail; i++) {
		struct tcp_part *p = &conn->part[i % TCP_PARTS];

		if (!p->number || p->number > d->request)
			break;
		if (p->op == PST_WR_WRITE && !p->done)
			pst_tcp_part_done(conn, p, p->number == d->request ? d->status : 0);
	}
	return 0;
}

#define HEAD	  sizeof(struct pst_frame)
#define RANGE	  sizeof(struct pst_frame_range)
#define ONLY(len) (len), (len), (len)

static const struct frame_type types[] = {
	[PST_FRAME_MESSAGE] = {HEAD, HEAD, HEAD + PST_MSG_MAX, true, true, begin_message,
			       end_numbered},
	[PST_FRAME_IMM] = {ONLY(HEAD), true, true, NULL, end_numbered},
	[PST_FRAME_GRANT] = {TCP_STAGE, sizeof(struct pst_frame_grant),
			     sizeof(struct pst_frame_grant), true, true, begin_grant, end_numbered},
	[PST_FRAME_AGAIN] = {ONLY(HEAD), false, true, NULL, end_again},
	[PST_FRAME_PING] = {ONLY(HEAD), false, false, NULL, end_ping},
	[PST_FRAME_CREDIT] = {ONLY(HEAD), false, false, NULL, end_nothing},
	[PST_FRAME_BYE] = {ONLY(HEAD), false, false, NULL, end_bye},
	[PST_FRAME_WRITE] = {RANGE, RANGE + 1, UINT32_MAX, false, false, begin_write, end_write},
	[PST_FRAME_READ] = {ONLY(RANGE), false, false, NULL, end_read},
	[PST_FRAME_DATA] = {RANGE, RANGE + 1, UINT32_MAX, false, false, begin_data, end_data},
	[PST_FRAME_DONE] = {ONLY(sizeof(struct pst_frame_done)), false, false, NULL, end_done},
};

static const struct frame_type *type_of(uint16_t type)
{
	return type < sizeof(types) / sizeof(types[0]) && types[type].head ? &types[type] : NULL;
}

unsigned int pst_tcp_head_len(uint16_t type)
{
	const struct frame_type *t = type_of(type);

	return t ? t->head : 0;
}

/* Fields that are the same in every type. */
static bool good_head(const struct tcp_conn *conn)
{
	const struct pst_frame *f = &conn->in.frame;
	const struct frame_type *t = &types[f->type];
	bool has_seq = t->numbered || f->type == PST_FRAME_AGAIN;
	bool bulk = f->type == PST_FRAME_WRITE || f->type == PST_FRAME_DATA;

	return !f->flags && !has_seq == !f->seq && (f->type == PST_FRAME_IMM || !f->imm) &&
	       (!bulk || conn->in.range.len == f->size - RANGE);
}

int pst_tcp_frame_begin(struct tcp_conn *conn)
{
	const struct frame_type *t = type_of(conn->in.frame.type);
	int rc;

	if (conn->in.frame.size < t->min || conn->in.frame.size > t->max || (t->way0 && conn->way))
		return pst_tcp_broke(conn, "a frame that cannot be so long, or not come this way");
	if (t->numbered)
		return t->begin ? t->begin(conn) : 0;
	/* Without its head nobody knows what such a frame was about. */
	if (!good_crc(conn, t->head, NULL, 0))
		return pst_tcp_fail(conn->link, conn->way, PST_CAUSE_FRAME_BROKEN, NULL);
	if (!good_head(conn))
		return pst_tcp_broke(conn, "the head of a frame makes no sense");
	rc = pst_tcp_acked(conn, conn->in.frame.ack);
	return rc || !t->begin ? rc : t->begin(conn);
}

int pst_tcp_frame_end(struct tcp_conn *conn)
{
	return type_of(conn->in.frame.type)->end(conn);
}
