/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: what is asked of it, in a ring; what ended, in another; and its end.
 *
 * The end: a link that fails sends its rails to theirs. When the last is dead, nothing is under way
 * any more: what was outstanding ends with an error, what had arrived is handed out, then
 * PST_WC_DOWN.
 */
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLOTS_SIZE ((size_t)VERBS_WINDOW * VERBS_FRAME)
#define DONE_SIZE  (VERBS_DONE + VERBS_REQS)

static struct pst_fabric_counters *counters(const struct verbs_link *link)
{
	return &link->base.cq->fab->count;
}

static void free_link(struct verbs_link *link)
{
	if (link->slots)
		munmap(link->slots, SLOTS_SIZE);
	free(link->req);
	free(link->done);
	free(link->taken);
	free(link->given);
	free(link->replay);
	free(link->url);
	free(link);
}

struct verbs_link *pst_verbs_link_new(struct verbs_cq *cq, uint8_t ways)
{
	struct verbs_link *link = calloc(1, sizeof(*link));
	void *slots;

	if (!link)
		return NULL;
	link->base.cq = &cq->base;
	link->ways = ways;
	TAILQ_INIT(&link->rails);
	link->req = calloc(VERBS_REQS, sizeof(link->req[0]));
	link->done = calloc(DONE_SIZE, sizeof(link->done[0]));
	link->taken = calloc(VERBS_GRANTS, sizeof(link->taken[0]));
	link->given = calloc(VERBS_GRANTS, sizeof(link->given[0]));
	slots = mmap(NULL, SLOTS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	link->slots = slots == MAP_FAILED ? NULL : slots;
	if (!link->req || !link->done || !link->taken || !link->given || !link->slots) {
		free_link(link);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&cq->links, link, on_cq);
	return link;
}

int pst_verbs_link_window(struct verbs_link *link, uint32_t recv)
{
	uint32_t window = recv > VERBS_RESERVED ? recv - VERBS_RESERVED : 0;

	if (window < 4)
		return -EPROTO;
	if (window > VERBS_WINDOW)
		window = VERBS_WINDOW;
	if (!link->window || window < link->window)
		link->window = window;
	return 0;
}

int pst_verbs_link_join(struct verbs_link *link, struct verbs_rail *rail)
{
	if (rail->state != RAIL_SETUP && !TAILQ_EMPTY(&link->rails))
		return -ECONNRESET;
	rail->slots_mr = pst_ibv.reg_mr_iova2(rail->dev->pd, link->slots, SLOTS_SIZE,
					      (uintptr_t)link->slots, IBV_ACCESS_LOCAL_WRITE);
	if (!rail->slots_mr)
		return -errno;
	rail->link = link;
	rail->deadline = rail->state == RAIL_SETUP ? VERBS_NEVER : rail->deadline;
	rail->moved = rail->moved_at = 0;
	rail->moved = pst_verbs_now();
	TAILQ_INSERT_TAIL(&link->rails, rail, on_link);
	if (rail->state == RAIL_SETUP) {
		rail->state = RAIL_UP;
		link->way[rail->way] = rail;
		if (!link->primary)
			link->primary = rail;
		pst_verbs_grant_rejoin(link, rail->way);
	}
	for (uint32_t i = 0; i < rail->nearly; i++)
		pst_verbs_rail_take(rail, &rail->early[i]);
	if (rail->state == RAIL_DEAD)
		pst_verbs_link_lost(link, rail);
	return 0;
}

/* The request at the head ended: its completion, if the caller wants one. */
static void push_done(struct verbs_link *link, const struct verbs_req *req)
{
	const struct pst_recent *r;

	if (req->kind != REQ_SEND && req->kind != REQ_DATA)
		return;
	if (req->kind == REQ_DATA || !(req->flags & PST_WR_UNSIGNALED))
		link->owed_done--;
	if (req->status) {
		r = pst_trace_failed(&link->base.trace, req->id, req->status);
		pst_blame(&link->base, req->cause, link->why_rail, r, link->why_code);
	}
	if (!req->status && req->flags & PST_WR_UNSIGNALED)
		return;
	link->done[link->done_tail++ % DONE_SIZE] = (struct verbs_done){
		.id = req->id, .status = req->status, .cause = req->cause, .op = req->op};
	pst_verbs_ready(link);
}

void pst_verbs_retire(struct verbs_link *link)
{
	while (link->head != link->next) {
		const struct verbs_req *req = verbs_req(link, link->head);

		if (req->pending || !req->issued)
			return;
		push_done(link, req);
		link->head++;
	}
}

struct verbs_req *pst_verbs_req_add(struct verbs_link *link)
{
	struct verbs_req *req = verbs_req(link, link->tail++);

	memset(req, 0, sizeof(*req));
	return req;
}

/* May the peer's memory be asked for this? */
static int check_remote(struct verbs_link *link, const struct pst_wr *wr, struct verbs_req *req)
{
	uint32_t access = wr->op == PST_WR_WRITE ? PST_ACCESS_WRITE : PST_ACCESS_READ;
	struct verbs_taken *t = pst_verbs_find(link, &wr->key);

	if (!t) {
		/* Its grant may have come already. */
		pst_verbs_progress(verbs_cq_of(link));
		t = pst_verbs_find(link, &wr->key);
	}
	if (!t)
		return PST_CAUSE_NO_KEY;
	if (access & ~t->access)
		return PST_CAUSE_READ_ONLY;
	if (wr->remote_off > t->len || wr->len > t->len - wr->remote_off)
		return PST_CAUSE_RANGE;
	req->taken = t;
	return PST_CAUSE_NONE;
}

static bool needs_done(const struct pst_wr *wr)
{
	return wr->op != PST_WR_SEND || !(wr->flags & PST_WR_UNSIGNALED);
}

static bool has_room_for(const struct verbs_link *link, bool done, bool frame)
{
	if (!verbs_ring_room(link, done))
		return false;
	/* The last of them is for a grant; a message behind one that waits must wait too. */
	if (frame && (verbs_frame_room(link) < 2 || link->ndue))
		return false;
	if (link->ways > 1)
		return true;
	return link->primary && link->tail - link->next < verbs_sq_room(link->primary);
}

static void put_message(struct verbs_link *link, const struct pst_wr *wr, struct verbs_req *req)
{
	struct pst_frame *frame = pst_verbs_frame_new(
		link, PST_FRAME_MESSAGE, (uint32_t)(sizeof(*frame) + wr->len), &req->seq);

	if (wr->len)
		memcpy(frame + 1, wr->local_addr, wr->len);
	pst_count_mine(&link->base.cq->count.messages, 1);
}

static void put_imm(struct verbs_link *link, const struct pst_wr *wr, struct verbs_req *req)
{
	struct pst_frame *frame;

	pst_count_mine(&link->base.cq->count.immediates, 1);
	if (link->ways == 1) {
		req->seq = ++link->tx_seq;
		link->sent[req->seq % VERBS_WINDOW] = (struct verbs_sent){0};
		return;
	}
	frame = pst_verbs_frame_new(link, PST_FRAME_IMM, sizeof(*frame), &req->seq);
	frame->imm = wr->imm;
	req->frame = true;
}

/* Take a request into the ring. False: there is no room for it now. */
static bool take_in(struct verbs_link *link, const struct pst_wr *wr)
{
	bool imm = wr->flags & PST_WR_IMM;
	struct verbs_req *req;
	uint32_t cause = PST_CAUSE_NONE;

	if (!has_room_for(link, needs_done(wr), wr->op == PST_WR_SEND || imm))
		return false;
	req = pst_verbs_req_add(link);
	req->id = wr->id;
	req->op = wr->op;
	req->flags = wr->flags;
	req->imm = wr->imm;
	link->owed_done += needs_done(wr);
	if (wr->op == PST_WR_SEND) {
		req->kind = REQ_SEND;
		req->frame = true;
		put_message(link, wr, req);
		return true;
	}
	req->kind = REQ_DATA;
	req->local = wr->local;
	req->local_addr = wr->local_addr;
	req->remote_off = wr->remote_off;
	req->len = wr->len;
	if (wr->len)
		cause = (uint32_t)check_remote(link, wr, req);
	req->cause = cause;
	req->status = pst_cause_row(cause)->status;
	if (imm && !req->status)
		put_imm(link, wr, req);
	return true;
}

int pst_verbs_link_post(struct pst_link *base, const struct pst_wr *wr, int n)
{
	struct verbs_link *link = verbs_link(base);
	int i = 0;

	link->want_room = false;
	if (n == 1 && pst_verbs_issue_alone(link, wr))
		return 1;
	if (link->ndue && link->state == LINK_LIVE)
		pst_verbs_grant_flush(link);
	while (i < n && link->state == LINK_LIVE && take_in(link, &wr[i]))
		i++;
	pst_verbs_issue(link);
	link->want_room = i < n && link->state == LINK_LIVE;
	return !i && link->state != LINK_LIVE ? -ENOTCONN : i;
}

bool pst_verbs_link_has_room(struct verbs_link *link)
{
	return link->state == LINK_LIVE && has_room_for(link, true, true);
}

int pst_verbs_link_room(struct pst_link *base, int timeout_ms)
{
	struct verbs_link *link = verbs_link(base);
	int64_t now = pst_verbs_now(), end = timeout_ms < 0 ? VERBS_NEVER : now + timeout_ms;
	int rc = 0;

	while (link->state == LINK_LIVE) {
		if (link->ndue)
			pst_verbs_grant_flush(link);
		if (has_room_for(link, false, true)) {
			link->want_room = false;
			return 0;
		}
		now = pst_verbs_now();
		if (rc == -EINTR)
			return rc;
		if (now >= end)
			return -ETIMEDOUT;
		rc = pst_verbs_turn(verbs_cq_of(link), end - now);
	}
	return -ENOTCONN;
}

static void add_name(struct pst_link_info *out, const char *name)
{
	size_t used = strlen(out->device);

	snprintf(out->device + used, sizeof(out->device) - used, "%s%s", used ? "," : "", name);
}

int pst_verbs_link_info(const struct pst_link *base, struct pst_link_info *out)
{
	const struct verbs_link *link = pst_container(base, const struct verbs_link, base);

	if (link->state != LINK_LIVE)
		return -ENOTCONN;
	for (uint8_t way = 0; way < link->ways; way++) {
		const struct verbs_rail *rail = link->way[way];

		if (!rail)
			continue;
		add_name(out, rail->dev->name);
		if (!out->rails || rail->mtu < out->mtu)
			out->mtu = rail->mtu;
		if (!out->rails || rail->max_inline < out->max_inline)
			out->max_inline = rail->max_inline;
		out->rails++;
	}
	return 0;
}

static int poll_done(struct verbs_link *link, struct pst_wc *wc, int n)
{
	int got = 0;

	while (got < n && link->done_head != link->done_tail) {
		const struct verbs_done *d = &link->done[link->done_head++ % DONE_SIZE];

		wc[got++] = (struct pst_wc){
			.link = &link->base,
			.kind = PST_WC_DONE,
			.id = d->id,
			.op = d->op,
			.status = d->status,
			.cause = d->cause,
		};
	}
	return got;
}

/* What the peer sent, in its order. Not inlined: who waits for own requests alone is faster. */
static __attribute__((noinline)) int poll_came(struct verbs_link *link, struct pst_wc *wc, int n)
{
	struct verbs_cq *cq = verbs_cq_of(link);
	int got = 0;

	while (got < n && link->rx_given != link->rx_seen) {
		struct verbs_held *h = &link->held[++link->rx_given % VERBS_RECVS];

		h->state = HELD_NONE;
		if (h->type == PST_FRAME_GRANT)
			continue;
		wc[got] = (struct pst_wc){.link = &link->base, .kind = PST_WC_IMM, .imm = h->imm};
		if (h->type == PST_FRAME_MESSAGE) {
			unsigned char *buf = h->rail->bufs + (size_t)h->buf * VERBS_FRAME;

			wc[got].kind = PST_WC_MESSAGE;
			wc[got].len = h->len;
			wc[got].msg = buf + sizeof(struct pst_frame);
			h->rail->lent[h->rail->nlent++] = h->buf;
		}
		got++;
	}
	if (link->rx_given != link->rx_ack && !link->is_gave) {
		link->is_gave = true;
		TAILQ_INSERT_TAIL(&cq->gave, link, on_gave);
	}
	return got;
}

int pst_verbs_link_collect(struct verbs_link *link, struct pst_wc *wc, int n)
{
	int got = 0;

	if (link->announce) {
		link->announce = false;
		wc[got++] = (struct pst_wc){.link = &link->base, .kind = PST_WC_CONNECTED};
	}
	got += poll_done(link, wc + got, n - got);
	if (link->rx_given != link->rx_seen)
		got += poll_came(link, wc + got, n - got);
	if (got == n || link->state != LINK_DEAD)
		return got;
	link->state = LINK_DOWN;
	wc[got++] = (struct pst_wc){
		.link = &link->base,
		.kind = PST_WC_DOWN,
		.cause = link->why,
		.status = pst_blame(&link->base, link->why, link->why_rail, NULL, link->why_code),
	};
	pst_count(&counters(link)->links_lost, 1);
	return got;
}

/* Nothing is under way any more. */
static void die(struct verbs_link *link)
{
	int status = pst_cause_row(link->why)->status;

	link->state = LINK_DEAD;
	link->next = link->tail;
	for (uint32_t at = link->head; at != link->tail; at++) {
		struct verbs_req *req = verbs_req(link, at);

		req->issued = true;
		if (!req->status) {
			req->status = status;
			req->cause = link->why;
		}
		req->pending = 0;
	}
	pst_verbs_retire(link);
	pst_verbs_ready(link);
}

static bool has_live_rail(const struct verbs_link *link)
{
	const struct verbs_rail *rail;

	TAILQ_FOREACH(rail, &link->rails, on_link)
	{
		if (rail->state != RAIL_DEAD)
			return true;
	}
	return false;
}

void pst_verbs_link_fail(struct verbs_link *link, uint32_t cause, const char *rail,
			 const char *code)
{
	struct verbs_rail *r;

	if (link->state != LINK_LIVE)
		return;
	link->state = LINK_DYING;
	link->why = cause;
	snprintf(link->why_rail, sizeof(link->why_rail), "%s", rail ? rail : "");
	snprintf(link->why_code, sizeof(link->why_code), "%s", code ? code : "");
	TAILQ_FOREACH(r, &link->rails, on_link)
	{
		pst_verbs_rail_fail(r, cause, code);
	}
	link->primary = NULL;
	verbs_cq_of(link)->tick_at = 0;
}

static int keep_for_replay(struct verbs_link *link, const struct verbs_wqe *wqe)
{
	struct verbs_wqe *more =
		realloc(link->replay, (link->nreplay + 1) * sizeof(link->replay[0]));

	if (!more)
		return -ENOMEM;
	link->replay = more;
	link->replay[link->nreplay++] = *wqe;
	return 0;
}

/* What @rail had under way goes back to be done again. */
static int take_over(struct verbs_link *link, struct verbs_rail *rail)
{
	uint64_t replayed = 0;
	int rc = 0;

	for (; rail->sq_head != rail->sq_tail && !rc; rail->sq_head++) {
		const struct verbs_wqe *wqe = &rail->wqe[rail->sq_head % VERBS_SQ];

		if (wqe->kind == WQE_DATA)
			rc = keep_for_replay(link, wqe);
		if (wqe->kind == WQE_FRAME)
			link->sent[wqe->off % VERBS_WINDOW].owes = wqe->req + 1;
		if (wqe->kind == WQE_BIND)
			verbs_req_ended(link, wqe->req);
		replayed += wqe->kind == WQE_DATA || wqe->kind == WQE_FRAME;
	}
	rail->slices = 0;
	if (link->tx_issued > link->tx_acked)
		link->resend_at = link->tx_acked + 1;
	pst_count(&counters(link)->replayed, replayed);
	return rc;
}

void pst_verbs_link_lost(struct verbs_link *link, struct verbs_rail *rail)
{
	if (link->ways > 1)
		pst_count(&counters(link)->rails_lost, 1);
	if (link->primary == rail)
		link->primary = NULL;
	for (uint8_t way = 0; way < link->ways && !link->primary; way++)
		link->primary = link->way[way];
	if (link->state == LINK_LIVE && !has_live_rail(link) && !pst_verbs_retry_comes(link))
		pst_verbs_link_fail(link, rail->cause, rail->name, rail->code);
	if (link->state == LINK_DYING && !has_live_rail(link)) {
		die(link);
		return;
	}
	if (link->state != LINK_LIVE)
		return;
	/* The last words of a rail that another has replaced. */
	pst_blame(&link->base, rail->cause, rail->name, NULL, rail->code);
	if (take_over(link, rail)) {
		pst_verbs_link_fail(link, PST_CAUSE_DEVICE_FULL, rail->name, NULL);
		return;
	}
	pst_verbs_retry_later(link, rail->way);
	pst_verbs_retire(link);
	pst_verbs_issue(link);
}

static void free_dead_rails(struct verbs_link *link, bool all)
{
	struct verbs_rail *rail, *next;

	for (rail = TAILQ_FIRST(&link->rails); rail; rail = next) {
		next = TAILQ_NEXT(rail, on_link);
		if (!all && (rail->state != RAIL_DEAD || rail->held))
			continue;
		TAILQ_REMOVE(&link->rails, rail, on_link);
		pst_verbs_rail_free(rail);
	}
}

void pst_verbs_link_tick(struct verbs_link *link, int64_t now)
{
	free_dead_rails(link, false);
	if (link->state == LINK_DYING && !has_live_rail(link))
		die(link);
	if (link->state != LINK_LIVE || link->closing)
		return;
	pst_verbs_frame_tick(link);
	if (link->url && link->ways > 1)
		pst_verbs_retry_tick(link, now);
	if (link->next != link->tail || link->nreplay || link->resend_at)
		pst_verbs_issue(link);
}

static bool busy(const struct verbs_link *link)
{
	const struct verbs_rail *rail;

	TAILQ_FOREACH(rail, &link->rails, on_link)
	{
		if (rail->state == RAIL_UP && rail->sq_head != rail->sq_tail)
			return true;
	}
	return link->next != link->tail;
}

/* What was posted is to arrive, if it can: a message and then a close is how programs say goodbye.
 */
static void linger(struct verbs_link *link)
{
	int64_t end = pst_verbs_now() + link->timeout_ms;
	struct verbs_rail *rail;

	link->closing = true;
	TAILQ_FOREACH(rail, &link->rails, on_link)
	{
		if (rail->state == RAIL_UP && !rail->signals && rail->sq_head != rail->sq_tail)
			pst_verbs_rail_probe(rail);
	}
	while (link->state == LINK_LIVE && busy(link) && pst_verbs_now() < end)
		pst_verbs_turn(verbs_cq_of(link), end - pst_verbs_now());
	if (link->state == LINK_LIVE && pst_verbs_frame_say(link, PST_FRAME_BYE, 0))
		while (link->state == LINK_LIVE && busy(link) && pst_verbs_now() < end)
			pst_verbs_turn(verbs_cq_of(link), end - pst_verbs_now());
}

static void forget_retries(struct verbs_link *link)
{
	for (uint8_t way = 0; way < link->ways; way++) {
		if (link->retry[way].rail)
			pst_verbs_rail_free(link->retry[way].rail);
		link->retry[way] = (struct verbs_retry){0};
	}
}

void pst_verbs_link_close(struct pst_link *base)
{
	struct verbs_link *link = verbs_link(base);
	struct verbs_cq *cq = verbs_cq_of(link);
	struct verbs_rail *rail;

	if (link->state == LINK_LIVE)
		linger(link);
	forget_retries(link);
	pst_verbs_link_fail(link, PST_CAUSE_PEER_CLOSED, NULL, NULL);
	TAILQ_FOREACH(rail, &link->rails, on_link)
	{
		pst_verbs_rail_fail(rail, PST_CAUSE_PEER_CLOSED, NULL);
	}
	pst_verbs_grants_drop(link);
	free_dead_rails(link, true);
	if (link->listener)
		link->listener->nlinks--;
	if (link->is_ready)
		TAILQ_REMOVE(&cq->ready, link, on_ready);
	if (link->is_gave)
		TAILQ_REMOVE(&cq->gave, link, on_gave);
	TAILQ_REMOVE(&cq->links, link, on_cq);
	free_link(link);
}
