/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of this side: taken while there is room, cut into parts for the
 * connections, completed in the order in which they were posted. A message is
 * done when it is taken: it is copied, and kept until the peer has it.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <string.h>

static struct tcp_link *to_link(struct pst_link *base)
{
	return pst_container(base, struct tcp_link, base);
}

static struct tcp_req *req_at(struct tcp_link *link, uint64_t i)
{
	return &link->req[i % TCP_REQS];
}

bool pst_tcp_window_open(const struct tcp_link *link)
{
	return link->seq_last - link->seq_acked < TCP_WINDOW && link->grants_sent == link->ngiven;
}

void pst_tcp_room(struct tcp_link *link, unsigned int want)
{
	if (!(link->want & want))
		return;
	link->want = 0;
	link->has_room = true;
	pst_tcp_cq_of(link)->rooms++;
}

void pst_tcp_forget_room(struct tcp_link *link)
{
	link->want = 0;
	pst_tcp_cq_of(link)->rooms -= link->has_room;
	link->has_room = false;
}

bool pst_tcp_spread_done(struct tcp_link *link, uint64_t req)
{
	if (link->spread_clear < link->req_head)
		link->spread_clear = link->req_head;
	while (link->spread_clear < req) {
		const struct tcp_req *r = req_at(link, link->spread_clear);

		if (r->spread && r->parts)
			return false;
		link->spread_clear++;
	}
	return true;
}

struct tcp_sent *pst_tcp_number(struct tcp_link *link, uint16_t type, uint64_t after)
{
	struct tcp_conn *conn = link->conn[0];
	uint64_t seq = ++link->seq_last;
	struct tcp_sent *s = &link->sent[seq % TCP_WINDOW];

	conn->own[conn->own_tail++ % TCP_OWN] =
		(struct tcp_own){.numbered = true, .what = seq, .after = after};
	*s = (struct tcp_sent){.type = type};
	return s;
}

static struct tcp_req *add_req(struct tcp_link *link, const struct pst_wr *wr)
{
	struct tcp_req *r = req_at(link, link->req_tail++);

	*r = (struct tcp_req){.id = wr->id,
			      .op = wr->op,
			      .flags = wr->flags,
			      .key = wr->key,
			      .remote_off = wr->remote_off,
			      .len = wr->len};
	return r;
}

static bool lacks(struct tcp_link *link, unsigned int want)
{
	link->want |= want;
	return false;
}

static bool req_full(const struct tcp_link *link)
{
	return link->req_tail - link->req_head == TCP_REQS;
}

static bool post_send(struct tcp_link *link, const struct pst_wr *wr)
{
	bool quiet = wr->flags & PST_WR_UNSIGNALED;
	struct tcp_sent *s;
	struct tcp_buf *buf;

	if (!pst_tcp_window_open(link))
		return lacks(link, TCP_WANT_WINDOW);
	if (!quiet && req_full(link))
		return lacks(link, TCP_WANT_REQ);
	buf = pst_tcp_buf_get(pst_tcp_cq_of(link));
	if (!buf) {
		pst_tcp_fail(link, 0, PST_CAUSE_NO_MEMORY, NULL);
		return false;
	}
	if (wr->len)
		memcpy(buf->data, wr->local_addr, wr->len);
	s = pst_tcp_number(link, PST_FRAME_MESSAGE, link->req_tail);
	s->buf = buf;
	s->len = (uint16_t)wr->len;
	if (!quiet) {
		add_req(link, wr);
		pst_tcp_ready(link);
	}
	return true;
}

static bool overlap(const struct tcp_req *r, const struct pst_wr *wr)
{
	return r->key.k[0] == wr->key.k[0] && r->key.k[1] == wr->key.k[1] &&
	       r->remote_off < wr->remote_off + wr->len && wr->remote_off < r->remote_off + r->len;
}

static bool will_spread(const struct tcp_link *link, const struct pst_wr *wr)
{
	return link->nconns > 1 && wr->len > TCP_SPREAD;
}

/*
 * Would the peer see @wr's bytes and those of a request under way in the wrong order? On one
 * connection only a write can come too early, for a read that is still being answered.
 */
static bool conflicts(struct tcp_link *link, const struct pst_wr *wr)
{
	bool spread = will_spread(link, wr);

	if (!link->parts || (link->nconns == 1 && (!link->reads || wr->op == PST_WR_READ)))
		return false;
	for (uint64_t i = link->req_head; i != link->req_tail; i++) {
		const struct tcp_req *r = req_at(link, i);

		if (!r->parts || (r->op == PST_WR_READ && wr->op == PST_WR_READ) || !overlap(r, wr))
			continue;
		if (r->op == PST_WR_READ || r->spread || spread)
			return true;
	}
	return false;
}

static bool part_full(const struct tcp_conn *conn)
{
	return conn->part_tail - conn->part_head == TCP_PARTS;
}

static void add_part(struct tcp_conn *conn, const struct pst_wr *wr, uint64_t req, uint64_t at,
		     uint64_t len)
{
	struct tcp_link *link = conn->link;

	conn->own[conn->own_tail++ % TCP_OWN] = (struct tcp_own){.what = conn->part_tail};
	conn->part[conn->part_tail++ % TCP_PARTS] =
		(struct tcp_part){.req = req,
				  .op = wr->op,
				  .key = wr->key,
				  .remote_off = wr->remote_off + at,
				  .local = (unsigned char *)wr->local_addr + at,
				  .len = len};
	if (!link->parts++)
		link->progress = pst_tcp_now();
	link->reads += wr->op == PST_WR_READ;
	req_at(link, req)->parts++;
}

/* By which connections, how much by each. */
static bool add_parts(struct tcp_link *link, const struct pst_wr *wr)
{
	bool spread = will_spread(link, wr);
	uint64_t slices = spread && wr->len >= 2 * TCP_SLICE ? wr->len / TCP_SLICE : 1, slice;
	unsigned int way = spread ? link->next_way : 0;
	struct tcp_req *r;

	if (slices > link->nconns)
		slices = link->nconns;
	for (unsigned int i = 0; i < slices; i++)
		if (part_full(link->conn[(way + i) % link->nconns]))
			return lacks(link, TCP_WANT_PART);
	r = add_req(link, wr);
	r->spread = spread;
	slice = (wr->len / slices + 4095) & ~4095ull;
	for (uint64_t i = 0, at = 0; i < slices; i++, way++, at += slice)
		add_part(link->conn[way % link->nconns], wr, link->req_tail - 1, at,
			 i + 1 < slices ? slice : wr->len - at);
	link->next_way = way % link->nconns;
	return true;
}

static void add_failed(struct tcp_link *link, const struct pst_wr *wr, uint32_t cause)
{
	struct tcp_req *r = add_req(link, wr);

	r->cause = cause;
	r->status = pst_cause_row(cause)->status;
	pst_tcp_ready(link);
}

static bool post_move(struct tcp_link *link, const struct pst_wr *wr)
{
	uint32_t cause;

	if (req_full(link))
		return lacks(link, TCP_WANT_REQ);
	if (wr->flags & PST_WR_IMM && !pst_tcp_window_open(link))
		return lacks(link, TCP_WANT_WINDOW);
	cause = wr->len ? pst_tcp_check_wr(link, wr) : PST_CAUSE_NONE;
	if (cause) {
		add_failed(link, wr, cause);
		return true;
	}
	if (wr->len && conflicts(link, wr))
		return lacks(link, TCP_WANT_PART);
	if (!wr->len) {
		add_req(link, wr);
		pst_tcp_ready(link);
	} else if (!add_parts(link, wr)) {
		return false;
	}
	if (wr->flags & PST_WR_IMM) {
		pst_tcp_number(link, PST_FRAME_IMM, link->req_tail)->imm = wr->imm;
		pst_count(&pst_tcp_counters(link)->immediates, 1);
	}
	return true;
}

static void push_all(struct tcp_link *link)
{
	for (unsigned int i = 0; i < link->nconns && link->state == TCP_LIVE; i++)
		if (pst_tcp_out_any(link->conn[i]))
			pst_tcp_cq_of(link)->io->push(link->conn[i]);
}

int pst_tcp_link_post(struct pst_link *base, const struct pst_wr *wr, int n)
{
	struct tcp_link *link = to_link(base);
	struct tcp_cq *cq = pst_tcp_cq_of(link);
	uint64_t messages = 0;
	int i = 0;

	pst_tcp_enter(cq);
	pst_tcp_forget_room(link);
	while (i < n && link->state == TCP_LIVE &&
	       (wr[i].op == PST_WR_SEND ? post_send : post_move)(link, &wr[i])) {
		messages += wr[i].op == PST_WR_SEND;
		i++;
	}
	push_all(link);
	if (!i && link->state != TCP_LIVE)
		i = -ENOTCONN;
	pst_tcp_leave(cq);
	pst_count(&base->cq->fab->count.messages, messages);
	return i;
}

int pst_tcp_link_room(struct pst_link *base, int timeout_ms)
{
	struct tcp_link *link = to_link(base);
	struct tcp_cq *cq = pst_tcp_cq_of(link);
	int64_t end = timeout_ms < 0 ? INT64_MAX : pst_tcp_now() + timeout_ms;
	int rc = 0;

	pst_tcp_enter(cq);
	while (!rc && link->state == TCP_LIVE && !pst_tcp_window_open(link)) {
		int64_t left = end - pst_tcp_now();

		if (left <= 0 && timeout_ms)
			rc = -ETIMEDOUT;
		else
			rc = pst_tcp_doze(cq, left > 1000 ? 1000 : (int)(left < 0 ? 0 : left));
		if (!rc && !timeout_ms && link->state == TCP_LIVE && !pst_tcp_window_open(link))
			rc = -ETIMEDOUT;
	}
	if (link->state != TCP_LIVE)
		rc = -ENOTCONN;
	else if (pst_tcp_window_open(link))
		rc = 0;
	pst_tcp_leave(cq);
	return rc;
}

int pst_tcp_link_info(const struct pst_link *base, struct pst_link_info *out)
{
	const struct tcp_link *link = pst_container(base, const struct tcp_link, base);
	struct tcp_cq *cq = pst_tcp_cq_of(link);
	int rc = -ENOTCONN;

	pst_tcp_enter(cq);
	if (link->state == TCP_LIVE) {
		out->conns = link->nconns;
		rc = 0;
	}
	pst_tcp_leave(cq);
	return rc;
}

static void req_done(struct tcp_link *link, uint64_t req)
{
	struct pst_fabric_counters *c = pst_tcp_counters(link);
	const struct tcp_req *r = req_at(link, req);

	if (!r->status)
		pst_count(r->op == PST_WR_READ ? &c->read_bytes : &c->write_bytes, r->len);
	if (req == link->req_head)
		pst_tcp_ready(link);
	/* frames may have waited for it */
	if (r->spread && link->conn[0]->own_head != link->conn[0]->own_tail)
		pst_tcp_owe(link);
}

void pst_tcp_part_done(struct tcp_conn *conn, struct tcp_part *part, int status)
{
	struct tcp_link *link = conn->link;
	struct tcp_req *r = req_at(link, part->req);

	part->done = true;
	link->parts--;
	link->reads -= part->op == PST_WR_READ;
	if (status && !r->status) {
		r->status = status;
		r->cause = PST_CAUSE_PEER_REFUSED;
	}
	if (!--r->parts)
		req_done(link, part->req);
	while (conn->part_head != conn->part_tail && conn->part[conn->part_head % TCP_PARTS].done)
		conn->part_head++;
	pst_tcp_room(link, TCP_WANT_PART);
}

void pst_tcp_reqs_fail(struct tcp_link *link)
{
	for (uint64_t i = link->req_head; i != link->req_tail; i++) {
		struct tcp_req *r = req_at(link, i);

		if (!r->parts)
			continue;
		r->parts = 0;
		r->cause = link->cause;
		r->status = pst_cause_row(link->cause)->status;
	}
	link->parts = link->reads = 0;
}
