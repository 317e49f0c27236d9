/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: what is sent stays in its slot until the peer has taken it; what comes is put in order,
 * checked, and asked for again when it is broken.
 *
 * On a link of one rail hardware immediates are numbered by counting what arrives, so a frame that
 * came broken must count if it was a numbered one. It was, if it is longer than a header; of the
 * rest only a message of no bytes is, and its type says so, if that is not what broke. Where this
 * errs, the numbers disagree and the link ends: nothing is ever taken for what it is not.
 */
#include "rdma/crc32c.h"
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <string.h>

#define ASKS_MAX 8

static void broke(struct verbs_link *link, const struct verbs_rail *rail, const char *what)
{
	pst_verbs_link_fail(link, PST_CAUSE_PEER_BROKE, rail->name, what);
}

struct pst_frame *pst_verbs_frame_new(struct verbs_link *link, uint16_t type, uint32_t size,
				      uint64_t *seq)
{
	struct pst_frame *frame = verbs_slot(link, ++link->tx_seq);

	*frame = (struct pst_frame){.size = size, .type = type, .seq = link->tx_seq};
	link->sent[link->tx_seq % VERBS_WINDOW] = (struct verbs_sent){.len = size};
	*seq = link->tx_seq;
	return frame;
}

void pst_verbs_frame_seal(struct verbs_link *link, struct pst_frame *frame)
{
	frame->ack = link->rx_ack;
	link->rx_told = link->rx_ack;
	link->credit_due = false;
	frame->crc = 0;
	if (link->crc)
		frame->crc = pst_crc32c(0, frame, frame->size);
}

bool pst_verbs_frame_say(struct verbs_link *link, uint16_t type, uint64_t seq)
{
	struct verbs_rail *rail = link->primary;
	struct pst_frame *frame = rail ? pst_verbs_rail_ctrl(rail) : NULL;

	if (!frame)
		return false;
	*frame = (struct pst_frame){.size = sizeof(*frame), .type = type, .seq = seq};
	pst_verbs_frame_seal(link, frame);
	pst_verbs_rail_send_ctrl(rail, frame, sizeof(*frame));
	return true;
}

void pst_verbs_frame_ack(struct verbs_link *link)
{
	link->rx_ack = link->rx_given;
	if (link->rx_ack - link->rx_told >= link->window / 4)
		link->credit_due = true;
	if (link->credit_due && link->state == LINK_LIVE)
		pst_verbs_frame_say(link, PST_FRAME_CREDIT, 0);
}

/* Take what is next in order: grants here, the rest is the caller's. */
static void advance(struct verbs_link *link)
{
	for (;;) {
		uint64_t seq = link->rx_seen + 1;
		struct verbs_held *h = &link->held[seq % VERBS_RECVS];

		if (h->state != HELD_FULL || h->seq != seq)
			break;
		link->rx_seen = seq;
		pst_verbs_ready(link);
		if (h->type != PST_FRAME_GRANT)
			continue;
		h->rail->held--;
		if (!pst_verbs_take(link, (struct pst_frame *)(h->rail->bufs +
							       (size_t)h->buf * VERBS_FRAME)))
			broke(link, h->rail, "a grant");
		pst_verbs_rail_return(h->rail, h->buf);
	}
	if (link->asked && link->asked <= link->rx_seen)
		link->asked = link->asks = 0;
}

/* Put what came at its place. False: it was here already, or it is not allowed. */
static bool place(struct verbs_link *link, const struct verbs_rail *rail,
		  const struct verbs_held *item)
{
	struct verbs_held *h = &link->held[item->seq % VERBS_RECVS];

	if (item->seq <= link->rx_seen || (h->state == HELD_FULL && h->seq == item->seq))
		return false;
	if (item->seq > link->rx_ack + VERBS_RECVS ||
	    (link->ways == 1 && item->seq > link->rx_came + 1)) {
		broke(link, rail, "a number out of order");
		return false;
	}
	if (item->seq > link->rx_came)
		link->rx_came = item->seq;
	*h = *item;
	return true;
}

void pst_verbs_imm_came(struct verbs_rail *rail, uint32_t imm)
{
	struct verbs_link *link = rail->link;
	const struct verbs_held item = {
		.seq = link->rx_came + 1,
		.rail = rail,
		.imm = imm,
		.state = HELD_FULL,
		.type = PST_FRAME_IMM,
	};

	if (link->state >= LINK_DEAD)
		return;
	if (link->ways > 1)
		broke(link, rail, "an immediate on a link of several rails");
	else if (place(link, rail, &item))
		advance(link);
}

static void ask_again(struct verbs_link *link, const struct verbs_rail *rail, uint64_t seq)
{
	if (link->asked != seq)
		link->asks = 0;
	link->asked = seq;
	if (++link->asks > ASKS_MAX)
		pst_verbs_link_fail(link, PST_CAUSE_FRAME_BROKEN, rail->name, NULL);
	else
		pst_verbs_frame_say(link, PST_FRAME_AGAIN, seq);
}

static bool is_numbered(uint16_t type)
{
	return type == PST_FRAME_MESSAGE || type == PST_FRAME_IMM || type == PST_FRAME_GRANT;
}

/* Which of the numbered ones was it? 0: none. */
static uint64_t number_of_broken(struct verbs_link *link, const struct pst_frame *frame,
				 uint32_t len)
{
	struct verbs_held *h;

	if (len <= sizeof(*frame) && (len < sizeof(*frame) || !is_numbered(frame->type)))
		return 0;
	/* The answer to AGAIN may be broken too. */
	if (link->asked && frame->seq == link->asked)
		return link->asked;
	if (link->ways == 1) {
		h = &link->held[++link->rx_came % VERBS_RECVS];
		*h = (struct verbs_held){.seq = link->rx_came, .state = HELD_MISSING};
		return link->rx_came;
	}
	/* Over several rails the number is taken from it: a wrong one only asks in vain. */
	if (frame->seq > link->rx_seen && frame->seq <= link->rx_ack + VERBS_RECVS)
		return frame->seq;
	return link->rx_seen + 1;
}

static bool is_whole(const struct verbs_link *link, struct pst_frame *frame, uint32_t len)
{
	uint32_t crc = frame->crc;
	bool same;

	if (!link->crc)
		return true;
	if (len < sizeof(*frame))
		return false;
	frame->crc = 0;
	same = pst_crc32c(0, frame, len) == crc;
	frame->crc = crc;
	return same;
}

static bool is_allowed(const struct verbs_link *link, const struct pst_frame *f, uint32_t len)
{
	bool bare = len == sizeof(*f);

	if (len < sizeof(*f) || f->size != len || f->flags || f->ack > link->tx_issued)
		return false;
	if (!link->crc && f->crc)
		return false;
	if (f->imm && f->type != PST_FRAME_IMM)
		return false;
	switch (f->type) {
	case PST_FRAME_MESSAGE:
		return f->seq && len <= sizeof(*f) + PST_MSG_MAX;
	case PST_FRAME_GRANT:
		return f->seq && len >= sizeof(struct pst_frame_grant);
	case PST_FRAME_IMM:
		return f->seq && bare && link->ways > 1;
	case PST_FRAME_AGAIN:
		return f->seq && bare;
	case PST_FRAME_PING:
	case PST_FRAME_CREDIT:
	case PST_FRAME_BYE:
		return !f->seq && bare;
	default:
		return false;
	}
}

/* The peer got this one broken. */
static void send_again(struct verbs_link *link, uint64_t seq)
{
	struct verbs_rail *rail = link->primary;
	struct pst_frame *frame = verbs_slot(link, seq);
	struct verbs_chain chain;
	struct ibv_send_wr *wr;

	if (seq <= link->tx_acked || seq > link->tx_issued || !link->sent[seq % VERBS_WINDOW].len ||
	    !rail || rail->sq_tail - rail->sq_head + 2 > rail->sq_size)
		return;
	pst_verbs_frame_seal(link, frame);
	chain.n = 0;
	wr = pst_verbs_chain(&chain, rail, &(struct verbs_wqe){.kind = WQE_CTRL}, true);
	wr->sg_list[0] = (struct ibv_sge){(uintptr_t)frame, frame->size, rail->slots_mr->lkey};
	wr->opcode = IBV_WR_SEND;
	pst_verbs_chain_post(&chain);
}

static void take_unnumbered(struct verbs_link *link, const struct verbs_rail *rail,
			    const struct pst_frame *frame)
{
	switch (frame->type) {
	case PST_FRAME_AGAIN:
		send_again(link, frame->seq);
		break;
	case PST_FRAME_PING:
		link->credit_due = true;
		pst_verbs_frame_say(link, PST_FRAME_CREDIT, 0);
		break;
	case PST_FRAME_BYE:
		pst_verbs_link_fail(link, PST_CAUSE_PEER_CLOSED, rail->name, NULL);
		break;
	default:
		break;
	}
}

static void take_ack(struct verbs_link *link, uint64_t ack)
{
	link->pinged = false;
	if (ack <= link->tx_acked)
		return;
	link->tx_acked = ack;
	if (link->ndue)
		pst_verbs_grant_flush(link);
}

static void take_broken(struct verbs_rail *rail, const struct pst_frame *frame, uint32_t len)
{
	struct verbs_link *link = rail->link;
	uint64_t seq;

	pst_count(&link->base.cq->fab->count.crc_bad, 1);
	seq = number_of_broken(link, frame, len);
	if (seq)
		ask_again(link, rail, seq);
}

/* A numbered one. True: its buffer is kept. */
static bool take_numbered(struct verbs_rail *rail, const struct pst_frame *frame, uint16_t buf)
{
	struct verbs_link *link = rail->link;
	const struct verbs_held item = {
		.seq = frame->seq,
		.rail = rail,
		.imm = frame->imm,
		.len = frame->size - (uint32_t)sizeof(*frame),
		.buf = buf,
		.state = HELD_FULL,
		.type = frame->type,
	};
	bool keep = frame->type != PST_FRAME_IMM;

	if (!place(link, rail, &item))
		return false;
	rail->held += keep;
	advance(link);
	return keep;
}

void pst_verbs_frame_came(struct verbs_rail *rail, uint16_t buf, uint32_t len)
{
	struct pst_frame *frame = (struct pst_frame *)(rail->bufs + (size_t)buf * VERBS_FRAME);
	struct verbs_link *link = rail->link;
	bool kept = false;

	if (link->state >= LINK_DEAD)
		return;
	if (!is_whole(link, frame, len)) {
		take_broken(rail, frame, len);
	} else if (!is_allowed(link, frame, len)) {
		broke(link, rail, "a frame");
	} else {
		take_ack(link, frame->ack);
		if (is_numbered(frame->type))
			kept = take_numbered(rail, frame, buf);
		else
			take_unnumbered(link, rail, frame);
	}
	if (!kept)
		pst_verbs_rail_return(rail, buf);
}

void pst_verbs_frame_tick(struct verbs_link *link)
{
	const struct verbs_rail *rail = link->primary;

	if (!rail)
		return;
	if (link->credit_due)
		pst_verbs_frame_say(link, PST_FRAME_CREDIT, 0);
	/* An acknowledgement may have been lost, if it came broken. */
	if (verbs_frame_room(link) < 2 && !link->pinged)
		link->pinged = pst_verbs_frame_say(link, PST_FRAME_PING, 0);
}
