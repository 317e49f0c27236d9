/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From requests to work requests, in order.
 *
 * On one rail the queue pair keeps the order; a write or send behind a read is fenced, since a
 * read's data may still be on its way when the next work request begins.
 *
 * On several rails a large request is cut into slices, each of which goes to the rail that would
 * have carried it soonest, going by what it was measured to carry and what it still has to.
 * Everything else goes over the primary rail. Between rails there is no order but what is made
 * here: a frame waits until no slice is under way elsewhere, and data waits for data that it
 * overlaps.
 */
#include "rdma/verbs/verbs.h"

#include <string.h>

#define SLICES_PER_RAIL 4 /* of one request, so that the rails end at about the same time */

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Reads are not done when the next work request begins, unless it is fenced. */
static int fence(struct verbs_rail *rail)
{
	bool wait = rail->has_reads && (int32_t)(rail->reads - rail->sq_head) > 0;

	rail->has_reads = false;
	return wait ? IBV_SEND_FENCE : 0;
}

/* Is data under way on a rail that is not @rail? */
static bool elsewhere(const struct verbs_link *link, const struct verbs_rail *rail)
{
	const struct verbs_rail *r;

	if (link->ways == 1)
		return false;
	if (link->nreplay)
		return true;
	TAILQ_FOREACH(r, &link->rails, on_link)
	{
		if (r != rail && r->slices)
			return true;
	}
	return false;
}

static bool overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
	return a < b + blen && b < a + alen;
}

/* Must @b wait until @a, which came before it, has ended? */
static bool collide(const struct verbs_req *a, const struct verbs_req *b)
{
	bool writes = a->op == PST_WR_WRITE || b->op == PST_WR_WRITE;
	bool reads = a->op == PST_WR_READ || b->op == PST_WR_READ;

	if (a->kind != REQ_DATA || !a->len || !a->pending)
		return false;
	if (writes &&
	    overlap(a->taken->addr + a->remote_off, a->len, b->taken->addr + b->remote_off, b->len))
		return true;
	return reads && overlap((uintptr_t)a->local_addr, a->len, (uintptr_t)b->local_addr, b->len);
}

static bool must_wait(const struct verbs_link *link, const struct verbs_req *req)
{
	for (uint32_t at = link->head; at != link->next; at++)
		if (collide(verbs_req(link, at), req))
			return true;
	return false;
}

/* Which piece @off is in, and how far it is to that one's end. Mostly there is one: no division. */
static uint64_t piece_of(uint64_t off, uint64_t chunk, unsigned int pieces, uint64_t *rest)
{
	uint64_t piece = pieces == 1 ? 0 : off / chunk;

	*rest = (piece + 1) * chunk - off;
	return piece;
}

static uint32_t rkey_of(const struct verbs_req *req, const struct verbs_rail *rail, uint64_t off)
{
	const struct verbs_taken *t = req->taken;
	uint64_t rest;

	return t->rkey[rail->way * t->pieces +
		       piece_of(req->remote_off + off, t->chunk, t->pieces, &rest)];
}

/* How far from @off a work request can go: within pieces of both sides and the largest message. */
static uint64_t reach(const struct verbs_req *req, const struct verbs_rail *rail, uint64_t off,
		      uint64_t left)
{
	const struct verbs_taken *t = req->taken;
	const struct verbs_region *r = req->local->priv;
	uint64_t remote = req->remote_off + off;
	uint64_t local = (uintptr_t)req->local_addr + off - (uintptr_t)req->local->addr;
	uint64_t len = least(left, least(VERBS_SLICE_MAX, rail->msg_max)), rest;

	piece_of(remote, t->chunk, t->pieces, &rest);
	len = least(len, rest);
	piece_of(local, r->chunk, r->pieces, &rest);
	return least(len, rest);
}

/* Post @len bytes at @off of @req. False: the local memory is not to be had on this device. */
static bool post_data(struct verbs_link *link, struct verbs_chain *chain, struct verbs_rail *rail,
		      uint32_t at, uint64_t off, uint64_t len, bool imm, bool wanted)
{
	struct verbs_req *req = verbs_req(link, at);
	const struct verbs_wqe wqe = {.kind = WQE_DATA, .req = at, .off = off, .len = len};
	bool read = req->op == PST_WR_READ, inlined = !read && len <= rail->max_inline;
	char *local = req->local_addr + off;
	struct verbs_mr *mr = NULL;
	struct ibv_send_wr *wr;
	uint32_t lkey = 0;
	int rc;

	if (len && !inlined) {
		const struct verbs_region *r = req->local->priv;
		uint64_t rest;

		mr = pst_verbs_region_on(req->local, rail->dev, &rc);
		if (!mr) {
			req->cause = pst_verbs_errno_cause(-rc);
			req->status = pst_cause_row(req->cause)->status;
			return false;
		}
		lkey = mr->mr[piece_of((uint64_t)(local - (char *)req->local->addr), r->chunk,
				       r->pieces, &rest)]
			       ->lkey;
	}
	wr = pst_verbs_chain(chain, rail, &wqe, wanted);
	wr->sg_list[0] = (struct ibv_sge){(uintptr_t)local, (uint32_t)len, lkey};
	wr->num_sge = len ? 1 : 0;
	wr->opcode = read ? IBV_WR_RDMA_READ : imm ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
	wr->imm_data = htonl(req->imm);
	wr->wr.rdma.remote_addr = len ? req->taken->addr + req->remote_off + off : 0;
	wr->wr.rdma.rkey = len ? rkey_of(req, rail, off) : 0;
	if (!read)
		wr->send_flags |= (unsigned int)fence(rail) | (inlined ? IBV_SEND_INLINE : 0);
	if (read) {
		rail->reads = rail->sq_tail;
		rail->has_reads = true;
	}
	req->pending++;
	rail->slices++;
	rail->load += len;
	return true;
}

static void post_frame(struct verbs_link *link, struct verbs_chain *chain, struct verbs_rail *rail,
		       uint64_t seq, const struct verbs_wqe *wqe, bool wanted)
{
	struct pst_frame *frame = verbs_slot(link, seq);
	struct ibv_send_wr *wr;

	pst_verbs_frame_seal(link, frame);
	wr = pst_verbs_chain(chain, rail, wqe, wanted);
	wr->sg_list[0] = (struct ibv_sge){(uintptr_t)frame, frame->size, rail->slots_mr->lkey};
	wr->opcode = IBV_WR_SEND;
	wr->send_flags |=
		(unsigned int)fence(rail) | (frame->size <= rail->max_inline ? IBV_SEND_INLINE : 0);
}

/* Is a window still being bound on a rail that is not @rail? Its key must not be told before. */
static bool binds_elsewhere(const struct verbs_link *link, const struct verbs_rail *rail)
{
	for (uint32_t at = link->head; link->ways > 1 && at != link->next; at++) {
		const struct verbs_req *req = verbs_req(link, at);

		if (req->kind == REQ_BIND && req->pending && req->way != rail->way)
			return true;
	}
	return false;
}

static bool issue_frame(struct verbs_link *link, struct verbs_chain *chain, uint32_t at)
{
	struct verbs_rail *rail = link->primary;
	struct verbs_req *req = verbs_req(link, at);
	const struct verbs_wqe wqe = {
		.kind = WQE_FRAME, .req = at, .off = req->seq, .len = sizeof(struct pst_frame)};

	if (!rail || !verbs_sq_room(rail) || elsewhere(link, rail) ||
	    (req->kind == REQ_GRANT && binds_elsewhere(link, rail)))
		return false;
	post_frame(link, chain, rail, req->seq, &wqe, !(req->flags & PST_WR_UNSIGNALED));
	req->pending++;
	link->tx_issued = req->seq;
	return true;
}

static bool issue_bind(struct verbs_link *link, struct verbs_chain *chain, uint32_t at)
{
	struct verbs_req *req = verbs_req(link, at);
	const struct verbs_wqe wqe = {.kind = WQE_BIND, .req = at};
	struct verbs_rail *rail = link->way[req->way];
	struct verbs_window *w = rail && rail == req->rail ? req->window : NULL;

	for (; w && w->region && req->next < w->pieces; req->next++) {
		const struct verbs_region *r = w->region;
		struct verbs_hold *hold = &w->piece[req->next];
		struct ibv_send_wr *wr;

		if (!verbs_sq_room(rail))
			return false;
		wr = pst_verbs_chain(chain, rail, &wqe, true);
		wr->num_sge = 0;
		wr->opcode = IBV_WR_BIND_MW;
		wr->bind_mw.mw = hold->mw;
		wr->bind_mw.rkey = hold->rkey;
		wr->bind_mw.bind_info = (struct ibv_mw_bind_info){
			.mr = r->mr[rail->dev->index]->mr[req->next],
			.addr = (uintptr_t)r->base->addr + req->next * r->chunk,
			.length = verbs_piece_len(r, (unsigned int)req->next),
			.mw_access_flags =
				IBV_ACCESS_REMOTE_READ |
				(req->flags & PST_ACCESS_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0),
		};
		req->pending++;
	}
	return true;
}

static void count_data(struct verbs_link *link, const struct verbs_req *req)
{
	struct pst_fabric_counters *count = &link->base.cq->count;

	pst_count_mine(req->op == PST_WR_READ ? &count->read_bytes : &count->write_bytes, req->len);
}

/* All of it over @rail. False: the rest must wait for room. */
static bool issue_on(struct verbs_link *link, struct verbs_chain *chain, struct verbs_rail *rail,
		     uint32_t at)
{
	struct verbs_req *req = verbs_req(link, at);
	bool signaled = !(req->flags & PST_WR_UNSIGNALED);
	bool imm = req->flags & PST_WR_IMM && link->ways == 1;

	do {
		uint64_t len, left = req->len - req->next;
		bool last;

		if (!verbs_sq_room(rail))
			return false;
		len = left ? reach(req, rail, req->next, left) : 0;
		last = len == left;
		if (!post_data(link, chain, rail, at, req->next, len, imm && last,
			       last && signaled))
			return true;
		req->next += len;
	} while (req->next < req->len);
	return true;
}

/* The grant that @wr is within, if it is the one that was used last and is in one piece. */
static struct verbs_taken *same_grant(const struct verbs_link *link, const struct pst_wr *wr)
{
	uint32_t access = wr->op == PST_WR_WRITE ? PST_ACCESS_WRITE : PST_ACCESS_READ;
	struct verbs_taken *t = &link->taken[link->last];

	if (__builtin_expect(!link->ntaken || t->key.k[0] != wr->key.k[0] ||
				     t->key.k[1] != wr->key.k[1] || access & ~t->access ||
				     wr->remote_off > t->len || wr->len > t->len - wr->remote_off ||
				     t->pieces != 1,
			     0))
		return NULL;
	return t;
}

/* What take_in() and issue_one() do, for the request whose time counts most. */
bool pst_verbs_issue_alone(struct verbs_link *link, const struct pst_wr *wr)
{
	struct verbs_rail *rail = link->primary;
	bool read = wr->op == PST_WR_READ, wanted = !(wr->flags & PST_WR_UNSIGNALED);
	const struct verbs_region *r;
	const struct verbs_mr *mr;
	struct verbs_taken *t;
	struct verbs_req *req;
	struct verbs_wqe wqe;
	struct ibv_send_wr out;
	struct ibv_sge sge;

	/* without the hint a compiler takes what comes after so many conditions for rare */
	if (__builtin_expect(link->state != LINK_LIVE || link->ways != 1 || !rail ||
				     rail->state != RAIL_UP || link->next != link->tail ||
				     link->ndue || link->resend_at ||
				     (!read && wr->op != PST_WR_WRITE) || wr->flags & PST_WR_IMM ||
				     !wr->len || wr->len > least(VERBS_SLICE_MAX, rail->msg_max),
			     0))
		return false;
	r = wr->local->priv;
	mr = atomic_load_explicit(&r->mr[rail->dev->index], memory_order_acquire);
	t = same_grant(link, wr);
	if (__builtin_expect(!t || !mr || r->pieces != 1 || !verbs_ring_room(link, true) ||
				     !verbs_sq_room(rail),
			     0))
		return false;

	req = verbs_req(link, link->tail);
	/* what a request of one rail that is posted is asked for; compilers clear a whole slowly */
	req->id = wr->id;
	req->len = req->next = wr->len;
	req->pending = 1;
	req->status = 0;
	req->cause = PST_CAUSE_NONE;
	req->op = wr->op;
	req->flags = wr->flags;
	req->kind = REQ_DATA;
	req->issued = true;
	req->frame = req->spread = false;
	wqe = (struct verbs_wqe){.kind = WQE_DATA, .req = link->tail, .len = wr->len};
	link->next = ++link->tail;
	link->owed_done++;

	sge = (struct ibv_sge){(uintptr_t)wr->local_addr, (uint32_t)wr->len, mr->mr[0]->lkey};
	out.sg_list = &sge;
	out.num_sge = 1;
	out.opcode = read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
	out.send_flags = 0;
	out.imm_data = 0;
	out.wr.rdma.remote_addr = t->addr + wr->remote_off;
	out.wr.rdma.rkey = t->rkey[rail->way];
	if (!read)
		out.send_flags = (unsigned int)fence(rail) |
				 (wr->len <= rail->max_inline ? IBV_SEND_INLINE : 0);
	rail->slices++;
	rail->load += wr->len;
	count_data(link, req);
	pst_verbs_rail_post(rail, &out, &wqe, wanted);
	if (read) {
		rail->reads = rail->sq_tail;
		rail->has_reads = true;
	}
	return true;
}

/* The rail that would have carried @len more bytes first. */
static struct verbs_rail *soonest(const struct verbs_link *link, const struct verbs_req *req,
				  uint64_t len)
{
	struct verbs_rail *best = NULL;
	double first = 0;

	for (uint8_t way = 0; way < link->ways; way++) {
		struct verbs_rail *rail = link->way[way];
		double at;

		if (!rail || !rkey_of(req, rail, req->next) || !verbs_sq_room(rail))
			continue;
		at = (double)(rail->load + len) / (rail->rate > 0 ? rail->rate : 1);
		if (!best || at < first) {
			best = rail;
			first = at;
		}
	}
	return best;
}

static void start_clock(struct verbs_rail *rail)
{
	rail->busy_since = pst_verbs_now_ns();
	rail->carried = 0;
}

static bool issue_spread(struct verbs_link *link, struct verbs_chain *chain, uint32_t at)
{
	struct verbs_req *req = verbs_req(link, at);
	uint64_t slice = req->len / (link->ways * SLICES_PER_RAIL);

	slice = slice < VERBS_SLICE_MIN / 2 ? VERBS_SLICE_MIN / 2 : slice;
	while (req->next < req->len) {
		uint64_t want = least(slice, req->len - req->next), len;
		struct verbs_rail *rail = soonest(link, req, want);

		if (!rail)
			return false;
		if (!rail->slices)
			start_clock(rail);
		len = reach(req, rail, req->next, want);
		if (!post_data(link, chain, rail, at, req->next, len, false, true))
			return true;
		req->next += len;
	}
	return true;
}

/* Over one rail or several, when nothing is in its way. */
static bool issue_data_many(struct verbs_link *link, struct verbs_chain *chain, uint32_t at)
{
	struct verbs_req *req = verbs_req(link, at);
	struct verbs_rail *rail = link->primary;

	if (!rail)
		return false;
	if (!req->next && must_wait(link, req))
		return false;
	req->spread = req->len >= VERBS_SLICE_MIN;
	if (req->spread)
		return issue_spread(link, chain, at);
	/* The peer has not told its keys for this rail yet: another serves. */
	if (!rkey_of(req, rail, req->next))
		rail = soonest(link, req, req->len);
	return rail && issue_on(link, chain, rail, at);
}

static bool issue_data(struct verbs_link *link, struct verbs_chain *chain, uint32_t at)
{
	struct verbs_req *req = verbs_req(link, at);

	if (req->status)
		return true;
	if (link->ways == 1) {
		if (!req->len && !(req->flags & PST_WR_IMM))
			return true;
		if (!issue_on(link, chain, link->primary, at))
			return false;
		if (req->flags & PST_WR_IMM)
			link->tx_issued = req->seq;
	} else {
		if (req->next < req->len && !issue_data_many(link, chain, at))
			return false;
		if (req->frame && !req->status && !issue_frame(link, chain, at))
			return false;
	}
	count_data(link, req);
	return true;
}

static bool issue_one(struct verbs_link *link, struct verbs_chain *chain, uint32_t at)
{
	switch (verbs_req(link, at)->kind) {
	case REQ_BIND:
		return issue_bind(link, chain, at);
	case REQ_DATA:
		return issue_data(link, chain, at);
	default:
		return issue_frame(link, chain, at);
	}
}

/* Slices of a rail that was lost. Each is of a request that waits for it. */
static bool replay_data(struct verbs_link *link, struct verbs_chain *chain)
{
	while (link->nreplay) {
		struct verbs_wqe *wqe = &link->replay[link->nreplay - 1];
		struct verbs_req *req = verbs_req(link, wqe->req);
		struct verbs_rail *rail = link->primary;
		uint64_t next = req->next;

		req->next = wqe->off;
		if (rail && !rkey_of(req, rail, wqe->off))
			rail = soonest(link, req, wqe->len);
		req->next = next;
		if (!rail || !verbs_sq_room(rail))
			return false;
		link->nreplay--;
		req->pending--; /* post_data counts it again */
		post_data(link, chain, rail, wqe->req, wqe->off, wqe->len, false, true);
	}
	return true;
}

/* Frames that the peer has not taken, in order: it drops those that it has. */
static bool replay_frames(struct verbs_link *link, struct verbs_chain *chain)
{
	struct verbs_rail *rail = link->primary;

	if (link->resend_at <= link->tx_acked)
		link->resend_at = link->tx_acked + 1;
	for (; link->resend_at <= link->tx_issued; link->resend_at++) {
		struct verbs_sent *sent = &link->sent[link->resend_at % VERBS_WINDOW];
		struct verbs_wqe wqe = {.kind = WQE_CTRL, .off = link->resend_at};

		if (!rail || !verbs_sq_room(rail) || elsewhere(link, rail))
			return false;
		if (sent->owes) {
			wqe.kind = WQE_FRAME;
			wqe.req = sent->owes - 1;
		}
		sent->owes = 0;
		post_frame(link, chain, rail, link->resend_at, &wqe, true);
	}
	link->resend_at = 0;
	return true;
}

static bool is_wanted(const struct verbs_link *link, uint32_t at)
{
	const struct verbs_req *req = verbs_req(link, at);

	return !req->pending && req->kind == REQ_DATA &&
	       (req->status || !(req->flags & PST_WR_UNSIGNALED));
}

void pst_verbs_issue(struct verbs_link *link)
{
	struct verbs_chain chain;

	if (link->state != LINK_LIVE || !link->primary)
		return;
	chain.n = 0;
	if (replay_data(link, &chain) && (!link->resend_at || replay_frames(link, &chain)))
		while (link->next != link->tail && issue_one(link, &chain, link->next))
			verbs_req(link, link->next++)->issued = true;
	pst_verbs_chain_post(&chain);
	pst_verbs_retire(link);
	/* What needed no work request may wait in the ring behind one that was not signaled. */
	if (link->head != link->next && link->primary && link->primary->quiet &&
	    is_wanted(link, link->next - 1))
		pst_verbs_rail_probe(link->primary);
}
