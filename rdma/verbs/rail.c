/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rail: one RC queue pair, its buffers, what is under way on it, its end.
 *
 * Work requests complete in order, so only some are signaled, and one that completes takes those
 * before it along. A rail that fails moves its queue pair to error and waits until everything has
 * come back (or DRAIN_MS are over, and the queue pair is destroyed): only then is nobody writing to
 * the memory of a read, and only then have all messages been seen that arrived before.
 */
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define DRAIN_MS     200
#define QUIET_BYTES  (64 << 10) /* one signal for so much at the least */
#define QUIET_WANTED 16		/* and for so many that somebody waits for */
#define BUFS_SIZE    ((size_t)(VERBS_RECVS + VERBS_CTRL) * VERBS_FRAME)
#define MEASURE_NS   1000000 /* at the least, while a rail is busy */
#define RECV_BIT     (1u << 31)
#define RETRIES	     6	/* 7 is for ever on some devices */
#define RNR_RETRIES  6	/* between honest peers there is nothing to retry */
#define RNR_TIMER    12 /* 0.64 ms; IB specification, volume 1, table 45 */
#define ACK_UNIT_NS  4096.0

/*
 * The exponent of a queue pair's ack timeout (4.096 us * 2^n): with RETRIES a dead path is to show
 * in half of the time that is allowed.
 */
static uint8_t ack_timeout(uint32_t timeout_ms)
{
	double each = timeout_ms * 1e6 / 2 / (RETRIES + 1);
	uint8_t n = 8;

	while (n < 24 && ACK_UNIT_NS * (double)(1u << (n + 1)) <= each)
		n++;
	return n;
}

static uint64_t wr_id(const struct verbs_rail *rail, uint32_t low)
{
	return (uint64_t)low << 32 | rail->number;
}

struct verbs_rail *pst_verbs_rail_new(struct verbs_cq *cq)
{
	struct verbs_rail *rail = calloc(1, sizeof(*rail));

	if (!rail)
		return NULL;
	rail->cq = cq;
	rail->deadline = VERBS_NEVER;
	TAILQ_INSERT_TAIL(&cq->rails, rail, on_cq);
	return rail;
}

/* The memory of receives and control frames, known to the device. */
static int open_bufs(struct verbs_rail *rail)
{
	void *at =
		mmap(NULL, BUFS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int rc;

	if (at == MAP_FAILED)
		return -errno;
	rail->bufs_mr = pst_ibv.reg_mr_iova2(rail->dev->pd, at, BUFS_SIZE, (uintptr_t)at,
					     IBV_ACCESS_LOCAL_WRITE);
	if (!rail->bufs_mr) {
		rc = -errno;
		munmap(at, BUFS_SIZE);
		return rc;
	}
	rail->bufs = at;
	return 0;
}

/* A queue pair with as much inline data as the device takes; what it took is remembered. */
static int open_qp(struct verbs_rail *rail)
{
	struct verbs_dev *dev = rail->dev;
	uint32_t most = (uint32_t)dev->attr.max_qp_wr;
	struct ibv_qp_init_attr attr = {
		.send_cq = rail->ccq->cq,
		.recv_cq = rail->ccq->cq,
		.cap = {.max_recv_wr = VERBS_RECVS, .max_send_sge = 1, .max_recv_sge = 1},
		.qp_type = IBV_QPT_RC,
	};

	rail->sq_size = most < VERBS_SQ ? most : VERBS_SQ;
	for (uint32_t max = dev->max_inline;; max = max > 32 ? max / 2 : 0) {
		attr.cap.max_inline_data = max;
		attr.cap.max_send_wr = rail->sq_size;
		rail->qp = pst_ibv.create_qp(dev->pd, &attr);
		if (rail->qp) {
			dev->max_inline = max;
			rail->max_inline = attr.cap.max_inline_data;
			return 0;
		}
		if (!max || (errno != EINVAL && errno != ENOMEM))
			return -errno;
	}
}

int pst_verbs_rail_move(struct verbs_rail *rail, enum ibv_qp_state state, uint8_t in, uint8_t out)
{
	struct ibv_qp_attr attr = {.qp_state = state};
	int mask;

	if (pst_cm.init_qp_attr(rail->id, &attr, &mask))
		return -errno;
	if (state == IBV_QPS_INIT)
		attr.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
	if (state == IBV_QPS_RTR) {
		rail->mtu = 128u << attr.path_mtu;
		attr.max_dest_rd_atomic = in;
		attr.min_rnr_timer = RNR_TIMER;
	}
	if (state == IBV_QPS_RTS) {
		attr.max_rd_atomic = out;
		attr.retry_cnt = RETRIES;
		attr.rnr_retry = RNR_RETRIES;
		attr.timeout = ack_timeout(rail->cq->base.fab->set.timeout_ms);
	}
	return -pst_ibv.modify_qp(rail->qp, &attr, mask);
}

/* A number that no rail of this cq had for long: late completions name nobody. */
static int number_rail(struct verbs_rail *rail)
{
	struct verbs_cq *cq = rail->cq;
	unsigned int i = 0;

	while (i < cq->nrails && cq->rail[i])
		i++;
	if (i == 1 << 14)
		return -ENOSPC;
	if (i == cq->nrails) {
		unsigned int n = i ? 2 * i : 8;
		void *more = realloc(cq->rail, n * sizeof(cq->rail[0]));

		if (!more)
			return -ENOMEM;
		cq->rail = more;
		memset(cq->rail + i, 0, (n - i) * sizeof(cq->rail[0]));
		cq->nrails = n;
	}
	rail->number = (cq->generation++ & 0x1ffff) << 14 | i;
	cq->rail[i] = rail;
	return 0;
}

static uint64_t port_msg_max(const struct verbs_rail *rail)
{
	struct ibv_port_attr attr;

	memset(&attr, 0, sizeof(attr));
	if (pst_ibv.query_port(rail->dev->ctx, rail->id->port_num,
			       (struct _compat_ibv_port_attr *)&attr) ||
	    !attr.max_msg_sz)
		return 1 << 20;
	return attr.max_msg_sz;
}

int pst_verbs_rail_open(struct verbs_rail *rail)
{
	int rc;

	rail->dev = pst_verbs_dev(rail->cq->base.fab, rail->id->verbs->device);
	if (!rail->dev)
		return -ENODEV;
	snprintf(rail->name, sizeof(rail->name), "rail %u (%s)", rail->way, rail->dev->name);
	rail->ccq = pst_verbs_ccq(rail->cq, rail->dev, VERBS_RECVS + VERBS_SQ, &rc);
	if (!rail->ccq)
		return rc;
	rail->ccq->used += VERBS_RECVS + VERBS_SQ;
	rail->dev->used = true;
	rail->msg_max = port_msg_max(rail);
	rail->wqe = calloc(VERBS_SQ, sizeof(rail->wqe[0]));
	if (!rail->wqe)
		return -ENOMEM;
	rc = number_rail(rail);
	if (rc)
		return rc;
	rc = open_bufs(rail);
	if (!rc)
		rc = open_qp(rail);
	if (!rc)
		rc = pst_verbs_rail_move(rail, IBV_QPS_INIT, 0, 0);
	if (rc)
		return rc;
	pst_verbs_async_add(rail);
	for (uint16_t i = 0; i < VERBS_RECVS; i++)
		rail->repost[rail->nrepost++] = i;
	pst_verbs_rail_recvs(rail);
	rail->moved = pst_verbs_now();
	return 0;
}

static void close_qp(struct verbs_rail *rail)
{
	if (!rail->qp)
		return;
	pst_ibv.destroy_qp(rail->qp);
	rail->qp = NULL;
}

/* Its port is down. The news of that may still be on their way. */
static bool port_is_down(struct verbs_rail *rail)
{
	if (rail->async == PST_CAUSE_PORT_DOWN)
		return true;
	if (!rail->dev || pst_verbs_port_is_active(rail->dev->ctx, rail->id->port_num))
		return false;
	rail->async = PST_CAUSE_PORT_DOWN;
	return true;
}

/* All that it has but its connection. */
static void release(struct verbs_rail *rail)
{
	struct verbs_cq *cq = rail->cq;
	unsigned int at = rail->number % (1 << 14);

	close_qp(rail);
	if (rail->slots_mr)
		pst_ibv.dereg_mr(rail->slots_mr);
	if (rail->bufs_mr) {
		pst_ibv.dereg_mr(rail->bufs_mr);
		munmap(rail->bufs, BUFS_SIZE);
	}
	rail->slots_mr = rail->bufs_mr = NULL;
	if (rail->ccq)
		rail->ccq->used -= VERBS_RECVS + VERBS_SQ;
	rail->ccq = NULL;
	if (cq->rail && at < cq->nrails && cq->rail[at] == rail)
		cq->rail[at] = NULL;
	if (rail->reposting)
		TAILQ_REMOVE(&cq->reposts, rail, on_repost);
	rail->reposting = false;
	free(rail->wqe);
	rail->wqe = NULL;
}

void pst_verbs_rail_end(struct verbs_rail *rail)
{
	pst_verbs_async_del(rail);
	release(rail);
	if (rail->id)
		pst_cm.destroy_id(rail->id);
	TAILQ_REMOVE(&rail->cq->rails, rail, on_cq);
	free(rail);
}

void pst_verbs_rail_free(struct verbs_rail *rail)
{
	if (!rail->connected || !port_is_down(rail)) {
		pst_verbs_rail_end(rail);
		return;
	}
	pst_verbs_async_del(rail);
	release(rail);
	rail->link = NULL;
	rail->state = RAIL_DEAD;
	rail->settled = rail->orphan = true;
	pst_verbs_async_add(rail);
}

void pst_verbs_rail_return(struct verbs_rail *rail, uint16_t buf)
{
	if (rail->state >= RAIL_DYING)
		return;
	rail->repost[rail->nrepost++] = buf;
	if (rail->reposting)
		return;
	rail->reposting = true;
	TAILQ_INSERT_TAIL(&rail->cq->reposts, rail, on_repost);
}

void pst_verbs_rail_recvs(struct verbs_rail *rail)
{
	struct ibv_recv_wr wr[VERBS_RECVS], *bad;
	struct ibv_sge sge[VERBS_RECVS];
	uint32_t n = rail->nrepost;

	rail->nrepost = 0;
	if (!n || rail->state >= RAIL_DYING)
		return;
	for (uint32_t i = 0; i < n; i++) {
		uint16_t buf = rail->repost[i];

		sge[i] = (struct ibv_sge){
			.addr = (uintptr_t)(rail->bufs + (size_t)buf * VERBS_FRAME),
			.length = VERBS_FRAME,
			.lkey = rail->bufs_mr->lkey,
		};
		wr[i] = (struct ibv_recv_wr){
			.wr_id = wr_id(rail, RECV_BIT | buf),
			.next = i + 1 < n ? &wr[i + 1] : NULL,
			.sg_list = &sge[i],
			.num_sge = 1,
		};
	}
	rail->recvs += n;
	if (ibv_post_recv(rail->qp, wr, &bad))
		pst_verbs_rail_fail(rail, PST_CAUSE_DEVICE_REFUSED, "ibv_post_recv");
}

/* All that was posted before comes back with this one. */
static void signal_with(struct verbs_rail *rail, struct ibv_send_wr *wr, uint32_t at)
{
	wr->send_flags |= IBV_SEND_SIGNALED;
	rail->wqe[at % VERBS_SQ].signaled = true;
	rail->signals++;
	rail->quiet = 0;
	rail->quiet_bytes = 0;
	rail->owed = false;
}

struct ibv_send_wr *pst_verbs_chain(struct verbs_chain *chain, struct verbs_rail *rail,
				    const struct verbs_wqe *wqe, bool wanted)
{
	struct ibv_send_wr *wr;
	uint32_t at;

	if (chain->n && (chain->rail != rail || chain->n == VERBS_CHAIN))
		pst_verbs_chain_post(chain);
	chain->rail = rail;
	at = rail->sq_tail++;
	rail->wqe[at % VERBS_SQ] = *wqe;
	rail->quiet++;
	rail->quiet_bytes += wqe->len;
	rail->owed |= wanted;
	wr = &chain->wr[chain->n];
	wr->wr_id = wr_id(rail, at & ~RECV_BIT);
	wr->next = wr + 1;
	wr->sg_list = &chain->sge[chain->n];
	wr->num_sge = 1;
	wr->send_flags = 0;
	wr->imm_data = 0; /* some providers refuse a bind that has one */
	chain->n++;
	if (rail->quiet >= rail->sq_size / 4 ||
	    (rail->owed && (rail->quiet_bytes >= QUIET_BYTES || rail->quiet >= QUIET_WANTED)))
		signal_with(rail, wr, at);
	return wr;
}

void pst_verbs_chain_post(struct verbs_chain *chain)
{
	struct verbs_rail *rail = chain->rail;
	struct ibv_send_wr *last, *bad;
	int rc;

	if (!chain->n)
		return;
	last = &chain->wr[chain->n - 1];
	last->next = NULL;
	chain->n = 0;
	if (rail->owed)
		signal_with(rail, last, rail->sq_tail - 1);
	if (rail->state >= RAIL_DYING)
		return;
	if (rail->signals == 1)
		rail->moved = rail->link && rail->link->ways > 1 ? pst_verbs_now() : rail->moved;
	rc = ibv_post_send(rail->qp, chain->wr, &bad);
	if (rc)
		pst_verbs_rail_fail(rail, PST_CAUSE_DEVICE_REFUSED, strerror(rc));
}

void pst_verbs_rail_post(struct verbs_rail *rail, struct ibv_send_wr *wr,
			 const struct verbs_wqe *wqe, bool wanted)
{
	uint32_t at = rail->sq_tail++;
	struct ibv_send_wr *bad;
	int rc;

	rail->wqe[at % VERBS_SQ] = *wqe;
	rail->quiet++;
	rail->quiet_bytes += wqe->len;
	wr->wr_id = wr_id(rail, at & ~RECV_BIT);
	wr->next = NULL;
	if (wanted || rail->quiet >= rail->sq_size / 4)
		signal_with(rail, wr, at);
	rc = ibv_post_send(rail->qp, wr, &bad);
	if (rc)
		pst_verbs_rail_fail(rail, PST_CAUSE_DEVICE_REFUSED, strerror(rc));
}

void *pst_verbs_rail_ctrl(struct verbs_rail *rail)
{
	uint32_t i = rail->ctrl_next % VERBS_CTRL;
	uint32_t under_way = rail->sq_tail - rail->sq_head;

	/* Its last use must have come back, and there must be room in the queue. */
	if ((int32_t)(rail->sq_head - rail->ctrl_wqe[i]) < 0 || under_way + 2 > rail->sq_size)
		return NULL;
	return rail->bufs + (size_t)(VERBS_RECVS + i) * VERBS_FRAME;
}

void pst_verbs_rail_send_ctrl(struct verbs_rail *rail, void *buf, uint32_t len)
{
	const struct verbs_wqe wqe = {.kind = WQE_CTRL};
	struct verbs_chain chain;
	struct ibv_send_wr *wr;

	chain.n = 0;
	wr = pst_verbs_chain(&chain, rail, &wqe, true);
	wr->opcode = IBV_WR_SEND;
	wr->sg_list[0] = (struct ibv_sge){(uintptr_t)buf, len, rail->bufs_mr->lkey};
	if (len <= rail->max_inline)
		wr->send_flags |= IBV_SEND_INLINE;
	rail->ctrl_wqe[rail->ctrl_next++ % VERBS_CTRL] = rail->sq_tail;
	pst_verbs_chain_post(&chain);
}

void pst_verbs_rail_probe(struct verbs_rail *rail)
{
	const struct verbs_wqe wqe = {.kind = WQE_CTRL};
	struct verbs_chain chain;
	struct ibv_send_wr *wr;

	if (rail->sq_tail - rail->sq_head + 1 > rail->sq_size)
		return;
	chain.n = 0;
	wr = pst_verbs_chain(&chain, rail, &wqe, true);
	wr->opcode = IBV_WR_RDMA_WRITE;
	wr->num_sge = 0;
	wr->wr.rdma.remote_addr = 0;
	wr->wr.rdma.rkey = 0;
	pst_verbs_chain_post(&chain);
}

static void end_wqe(struct verbs_rail *rail, const struct verbs_wqe *wqe)
{
	rail->signals -= wqe->signaled;
	if (wqe->kind == WQE_CTRL)
		return;
	if (wqe->kind == WQE_DATA) {
		rail->slices--;
		rail->load -= wqe->len;
	}
	verbs_req_ended(rail->link, wqe->req);
}

/* How fast this rail is, as a running average; only links of several rails want to know. */
static void measure(struct verbs_rail *rail, uint64_t bytes)
{
	int64_t now = pst_verbs_now_ns(), took = now - rail->busy_since;
	double rate;

	rail->carried += bytes;
	if (rail->carried < VERBS_SLICE_MIN / 2 || (rail->load && took < MEASURE_NS))
		return;
	if (rail->busy_since && took > 0) {
		rate = (double)rail->carried / (double)took;
		rail->rate = rail->rate > 0 ? 0.75 * rail->rate + 0.25 * rate : rate;
	}
	rail->carried = 0;
	rail->busy_since = now;
}

/* Everything before place @end has completed. */
static void reap(struct verbs_rail *rail, uint32_t end)
{
	uint64_t bytes = 0;

	while (rail->sq_head != end) {
		const struct verbs_wqe *wqe = &rail->wqe[rail->sq_head % VERBS_SQ];

		bytes += wqe->len;
		end_wqe(rail, wqe);
		rail->sq_head++;
	}
	if (rail->link && rail->link->ways > 1)
		measure(rail, bytes);
	if (rail->link)
		pst_verbs_retire(rail->link);
	if (rail->link && rail->link->next != rail->link->tail)
		pst_verbs_issue(rail->link);
}

static void sent(struct verbs_rail *rail, const struct ibv_wc *wc)
{
	/* The wr_id has 31 bits of the place; the rest is that of the queue. */
	uint32_t low = (uint32_t)(wc->wr_id >> 32);
	uint32_t at = rail->sq_head + ((low - rail->sq_head) & ~RECV_BIT);
	char code[96];

	if (at - rail->sq_head >= rail->sq_tail - rail->sq_head)
		return;
	rail->sq_back = at + 1;
	if (wc->status == IBV_WC_SUCCESS) {
		reap(rail, at + 1);
		return;
	}
	if (rail->broken)
		return;
	/* The first that comes back in error: those before it were carried out. */
	rail->broken = true;
	reap(rail, at);
	if (rail->state >= RAIL_DYING)
		return;
	snprintf(code, sizeof(code), "%s, vendor code %u", pst_ibv.wc_status_str(wc->status),
		 wc->vendor_err);
	pst_verbs_rail_fail(rail, pst_verbs_wc_cause(wc->status), code);
}

void pst_verbs_rail_take(struct verbs_rail *rail, const struct verbs_early *e)
{
	if (!e->is_imm) {
		pst_verbs_frame_came(rail, e->buf, e->len);
		return;
	}
	pst_verbs_imm_came(rail, e->imm);
	pst_verbs_rail_return(rail, e->buf);
}

static void received(struct verbs_rail *rail, const struct ibv_wc *wc, uint16_t buf)
{
	struct verbs_early e;

	rail->recvs--;
	if (wc->status != IBV_WC_SUCCESS) {
		if (rail->state < RAIL_DYING)
			pst_verbs_rail_fail(rail, pst_verbs_wc_cause(wc->status),
					    pst_ibv.wc_status_str(wc->status));
		return;
	}
	e = (struct verbs_early){
		.buf = buf,
		.len = wc->byte_len,
		.is_imm = wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM,
		.imm = ntohl(wc->imm_data),
	};
	if (rail->link) {
		pst_verbs_rail_take(rail, &e);
	} else if (rail->settled && !rail->result) {
		rail->early[rail->nearly++] = e;
	} else {
		if (!e.is_imm)
			pst_verbs_handshake(rail, rail->bufs + (size_t)buf * VERBS_FRAME, e.len);
		pst_verbs_rail_return(rail, buf);
	}
}

void pst_verbs_rail_wc(struct verbs_cq *cq, const struct ibv_wc *wc)
{
	uint32_t number = (uint32_t)wc->wr_id, at = number & 0x3fff;
	uint32_t high = (uint32_t)(wc->wr_id >> 32);
	struct verbs_rail *rail = at < cq->nrails ? cq->rail[at] : NULL;

	if (!rail || rail->number != number)
		return; /* one that is gone */
	if (high & RECV_BIT)
		received(rail, wc, (uint16_t)high);
	else
		sent(rail, wc);
}

/* One work request more: it comes back when all before it have, signaled or not. */
static void mark_end(struct verbs_rail *rail)
{
	const uint32_t at = rail->sq_tail;
	struct ibv_send_wr wr = {
		.wr_id = wr_id(rail, at & ~RECV_BIT),
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
	};
	struct ibv_send_wr *bad;

	if (at - rail->sq_head >= rail->sq_size || ibv_post_send(rail->qp, &wr, &bad))
		return;
	rail->wqe[at % VERBS_SQ] = (struct verbs_wqe){.kind = WQE_CTRL, .signaled = true};
	rail->sq_tail++;
	rail->signals++;
}

/* A port that is down looks like this, to its queue pairs and to those who wait. */
static bool is_of_the_way(uint32_t cause)
{
	return cause == PST_CAUSE_RETRY_EXC || cause == PST_CAUSE_FLUSHED ||
	       cause == PST_CAUSE_LOC_QP_OP || cause == PST_CAUSE_PEER_SILENT;
}

void pst_verbs_rail_fail(struct verbs_rail *rail, uint32_t cause, const char *code)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	if (rail->state >= RAIL_DYING)
		return;
	if (rail->state == RAIL_SETUP && !rail->settled)
		pst_fail_cause(&rail->err, cause, code, "%s", rail->name);
	rail->state = RAIL_DYING;
	rail->cause = cause;
	if (is_of_the_way(cause) && (rail->async || port_is_down(rail)))
		rail->cause = rail->async;
	snprintf(rail->code, sizeof(rail->code), "%s", code ? code : "");
	rail->deadline = pst_verbs_now() + DRAIN_MS;
	rail->cq->tick_at = 0;
	/* A goodbye through a port that is down is lost, and breaks the connection manager of rxe.
	 */
	if (rail->connected && !port_is_down(rail))
		pst_cm.disconnect(rail->id);
	if (rail->qp) {
		pst_ibv.modify_qp(rail->qp, &attr, IBV_QP_STATE);
		mark_end(rail);
	}
	if (rail->link && rail->link->way[rail->way] == rail) {
		rail->link->way[rail->way] = NULL;
		pst_verbs_grant_lost(rail->link, rail->way);
	}
	if (!rail->settled)
		pst_verbs_settle(rail, pst_cause_row(cause)->status);
}

/* Has everything come back? */
static bool drained(const struct verbs_rail *rail)
{
	return !rail->qp || (!rail->recvs && rail->sq_back == rail->sq_tail);
}

/* Trouble that a queue pair does not see: the device spoke, or nothing moves. */
static void look_after(struct verbs_rail *rail, int64_t now)
{
	struct verbs_link *link = rail->link;
	uint32_t said = atomic_load_explicit(&rail->async, memory_order_relaxed);
	bool others = false;

	if (rail->sq_back != rail->moved_at || rail->sq_head == rail->sq_tail) {
		rail->moved = now;
		rail->moved_at = rail->sq_back;
	}
	for (unsigned int i = 0; i < link->ways; i++)
		others |= link->way[i] && link->way[i] != rail;
	/* A port that is down may come up again: a rail that is the last one waits for it. */
	if (said && (others || said != PST_CAUSE_PORT_DOWN))
		pst_verbs_rail_fail(rail, said, NULL);
	else if (now - rail->moved >= link->timeout_ms)
		pst_verbs_rail_fail(rail, PST_CAUSE_PEER_SILENT, NULL);
	else if (!rail->signals)
		pst_verbs_rail_probe(rail);
}

void pst_verbs_rail_tick(struct verbs_rail *rail, int64_t now)
{
	if (rail->orphan) {
		if (rail->async != PST_CAUSE_PORT_DOWN)
			pst_verbs_rail_end(rail);
		return;
	}
	if (rail->state == RAIL_UP && !rail->link->closing)
		look_after(rail, now);
	if (rail->state == RAIL_SETUP && now >= rail->deadline)
		pst_verbs_settle(rail, -ETIMEDOUT);
	if (rail->state != RAIL_DYING || (!drained(rail) && now < rail->deadline))
		return;
	close_qp(rail);
	rail->state = RAIL_DEAD;
	if (rail->link)
		pst_verbs_link_lost(rail->link, rail);
}
