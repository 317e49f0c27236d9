/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: requests are carried out by the one who posts them, at post time;
 * what comes from the peer is copied out of its ring when it is polled.
 *
 * The end: a closed socket or a broken ring turns the link DYING. What the peer
 * had put into the ring before is handed out first (one ring full at the most,
 * so that a peer which goes on writing cannot keep the link dying), then
 * PST_WC_DOWN, once.
 */
#include "rdma/shm/shm.h"
#include "rdma/shm/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#define PACKETS_AT_ONCE (SHM_GRANTS_MAX + 64)

struct shm_moved {
	uint64_t read, written, messages, immediates;
};

static struct shm_link *to_link(struct pst_link *base)
{
	return pst_container(base, struct shm_link, base);
}

static struct shm_cq *cq_of(struct shm_link *link)
{
	return pst_container(link->base.cq, struct shm_cq, base);
}

static struct pst_fabric_counters *counters(struct shm_link *link)
{
	return &link->base.cq->count;
}

static void fail_link(struct shm_link *link, int why)
{
	if (link->state != SHM_LIVE)
		return;
	link->state = SHM_DYING;
	link->base.direct.len = 0;
	link->why = why == -EPIPE ? -ECONNRESET : why;
	link->left = why == -EPROTO ? 0 : SHM_RING_SLOTS;
	pst_shm_unwatch(cq_of(link), &link->src);
	shutdown(link->src.fd, SHUT_RDWR); /* the peer is to know at once */
}

static int take_packet(struct shm_link *link, const struct shm_packet *packet, int len, int fd)
{
	if (len == sizeof(*packet) && packet->type == SHM_GRANT)
		return pst_shm_take(link, packet->access, packet->len, packet->key, fd);
	if (fd >= 0)
		close(fd);
	return len == sizeof(*packet) && packet->type == SHM_BELL && fd < 0 ? 0 : -EPROTO;
}

void pst_shm_link_read(struct shm_link *link)
{
	for (int i = 0; i < PACKETS_AT_ONCE && link->state == SHM_LIVE; i++) {
		struct shm_packet packet;
		int fd, rc = pst_shm_recv(link->src.fd, &packet, sizeof(packet), &fd);

		if (rc == -EAGAIN)
			return;
		if (rc > 0)
			rc = take_packet(link, &packet, rc, fd);
		else if (!rc)
			rc = -ECONNRESET;
		if (rc)
			fail_link(link, rc);
	}
}

static void link_ready(struct shm_source *src, uint32_t events)
{
	struct shm_link *link = pst_container(src, struct shm_link, src);

	pst_shm_link_read(link);
	if (events & (EPOLLHUP | EPOLLERR))
		fail_link(link, -ECONNRESET);
}

static void ring_bell(struct shm_link *link)
{
	const struct shm_packet bell = {.type = SHM_BELL};
	int rc = pst_shm_send(link->src.fd, &bell, sizeof(bell), -1);

	pst_count_mine(&counters(link)->doorbells, 1);
	/* -EAGAIN: the peer has packets to wake up for already */
	if (rc && rc != -EAGAIN)
		fail_link(link, rc);
}

int pst_shm_link_new(struct shm_cq *cq, int sock, int memfd, int side, struct shm_link **out)
{
	struct shm_link *link = calloc(1, sizeof(*link));
	int rc;

	if (!link)
		return -ENOMEM;
	link->base.cq = &cq->base;
	link->src = (struct shm_source){.fd = sock, .ready = link_ready};
	link->area =
		mmap(NULL, sizeof(struct shm_area), PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	if (link->area == MAP_FAILED) {
		rc = -errno;
		goto free_link;
	}
	link->tx.ring = &link->area->ring[side];
	link->rx.ring = &link->area->ring[!side];
	rc = pst_shm_watch(cq, &link->src);
	if (rc)
		goto unmap_area;
	TAILQ_INSERT_TAIL(&cq->links, link, on_cq);
	*out = link;
	return 0;

unmap_area:
	munmap(link->area, sizeof(struct shm_area));
free_link:
	free(link);
	return rc;
}

void pst_shm_link_close(struct pst_link *base)
{
	struct shm_link *link = to_link(base);
	struct shm_cq *cq = cq_of(link);

	if (link->state == SHM_LIVE)
		pst_shm_unwatch(cq, &link->src);
	TAILQ_REMOVE(&cq->links, link, on_cq);
	cq->taken -= link->accepted;
	shutdown(link->src.fd, SHUT_RDWR); /* a forked child may hold the socket too */
	close(link->src.fd);
	pst_shm_drop_grants(link);
	munmap(link->area, sizeof(struct shm_area));
	free(link);
}

static bool done_full(const struct shm_link *link)
{
	return link->done_tail - link->done_head == SHM_DONE_MAX;
}

/* A request cannot fail in other ways than these: nothing but memory is between the two sides. */
static uint32_t cause_of(int status)
{
	switch (status) {
	case -ENOENT:
		return PST_CAUSE_NO_KEY;
	case -EACCES:
		return PST_CAUSE_READ_ONLY;
	case -ERANGE:
		return PST_CAUSE_RANGE;
	default:
		return PST_CAUSE_NO_MAP;
	}
}

static void push_done(struct shm_link *link, const struct pst_wr *wr, int status)
{
	struct shm_done *d = &link->done[link->done_tail++ % SHM_DONE_MAX];

	*d = (struct shm_done){.id = wr->id, .op = wr->op, .status = status};
	if (!status)
		return;
	d->cause = cause_of(status);
	pst_blame(&link->base, d->cause, NULL, pst_trace_failed(&link->base.trace, wr->id, status),
		  strerror(-status));
}

static void write_there_next(struct shm_link *link, const struct shm_taken *t)
{
	link->base.direct = (struct pst_direct){
		.fab = link->base.cq->fab, .key = t->key, .at = t->addr, .len = t->len};
}

/* The one-sided part of a request; its status. */
static int move(struct shm_link *link, const struct pst_wr *wr, struct shm_moved *moved)
{
	bool write = wr->op == PST_WR_WRITE;
	uint32_t access = write ? PST_ACCESS_WRITE : PST_ACCESS_READ;
	struct shm_taken *t;
	char *remote;
	int rc;

	if (!wr->len)
		return 0;
	t = &link->taken[link->last];
	/* mostly it is the region that was used last */
	if (!pst_shm_allows(t, &wr->key, access)) {
		rc = pst_shm_find(link, &wr->key, access, &t);
		if (rc)
			return rc;
	}
	if (wr->remote_off > t->len || wr->len > t->len - wr->remote_off)
		return -ERANGE;
	remote = (char *)t->addr + wr->remote_off;
	if (write) {
		pst_copy(remote, wr->local_addr, wr->len);
		moved->written += wr->len;
		write_there_next(link, t);
	} else {
		pst_copy(wr->local_addr, remote, wr->len);
		moved->read += wr->len;
	}
	return 0;
}

/* 1: there is a slot for one item. 0: none, and a doorbell is ordered. */
static int need_slot(struct shm_link *link)
{
	int room = pst_shm_tx_room(&link->tx);

	if (!room)
		room = pst_shm_tx_want(&link->tx);
	if (room < 0)
		fail_link(link, room);
	link->want_room = !room;
	return room > 0;
}

static void put_item(struct shm_link *link, const struct pst_wr *wr, struct shm_moved *moved)
{
	if (wr->op == PST_WR_SEND) {
		pst_shm_tx_put(&link->tx,
			       (struct shm_item){.kind = SHM_MESSAGE, .len = (uint16_t)wr->len},
			       wr->local_addr);
		moved->messages++;
	} else {
		pst_shm_tx_put(&link->tx, (struct shm_item){.kind = SHM_IMM, .imm = wr->imm}, NULL);
		moved->immediates++;
	}
}

/* Carry one request out. False: there is no room for it now. */
static bool post_one(struct shm_link *link, const struct pst_wr *wr, struct shm_moved *moved)
{
	bool item = wr->op == PST_WR_SEND || wr->flags & PST_WR_IMM;
	bool quiet = wr->flags & PST_WR_UNSIGNALED;
	int status;

	/* A send that is taken cannot fail, so it completes only if it is signaled. */
	if (done_full(link) && !(quiet && wr->op == PST_WR_SEND))
		return false;
	if (item && !need_slot(link))
		return false;
	status = wr->op == PST_WR_SEND ? 0 : move(link, wr, moved);
	if (item && !status)
		put_item(link, wr, moved);
	if (status || !quiet)
		push_done(link, wr, status);
	return true;
}

int pst_shm_link_post(struct pst_link *base, const struct pst_wr *wr, int n)
{
	struct shm_link *link = to_link(base);
	struct pst_fabric_counters *count = counters(link);
	struct shm_moved moved = {0};
	int i = 0;

	link->want_room = false;
	while (i < n && link->state == SHM_LIVE && post_one(link, &wr[i], &moved))
		i++;
	if (moved.messages + moved.immediates && pst_shm_tx_rouse(&link->tx))
		ring_bell(link);
	pst_count_mine(&count->read_bytes, moved.read);
	pst_count_mine(&count->write_bytes, moved.written);
	pst_count_mine(&count->messages, moved.messages);
	pst_count_mine(&count->immediates, moved.immediates);
	return !i && link->state != SHM_LIVE ? -ENOTCONN : i;
}

bool pst_shm_link_has_room(struct shm_link *link)
{
	int room;

	if (!link->want_room || link->state != SHM_LIVE)
		return false;
	room = pst_shm_tx_room(&link->tx);
	if (room < 0)
		fail_link(link, room);
	if (room <= 0)
		return false;
	link->want_room = false;
	return true;
}

int pst_shm_link_room(struct pst_link *base, int timeout_ms)
{
	struct shm_link *link = to_link(base);
	int64_t end = timeout_ms < 0 ? -1 : pst_shm_now() + timeout_ms;

	while (link->state == SHM_LIVE) {
		struct pollfd p = {.fd = link->src.fd, .events = POLLIN};
		int64_t left = end < 0 ? -1 : end - pst_shm_now();

		if (!link->want_room || pst_shm_link_has_room(link))
			return 0;
		if (end >= 0 && left < 0)
			left = 0;
		if (poll(&p, 1, (int)left) < 0)
			return -errno;
		if (p.revents)
			pst_shm_link_read(link);
		if (link->state == SHM_LIVE && !left)
			return pst_shm_link_has_room(link) ? 0 : -ETIMEDOUT;
	}
	return -ENOTCONN;
}

int pst_shm_link_info(const struct pst_link *base, struct pst_link_info *out)
{
	const struct shm_link *link = pst_container(base, const struct shm_link, base);

	if (link->state != SHM_LIVE)
		return -ENOTCONN;
	snprintf(out->device, sizeof(out->device), "memory");
	return 0;
}

static struct pst_wc *new_wc(struct shm_link *link, struct pst_wc *wc, enum pst_wc_kind kind)
{
	*wc = (struct pst_wc){.link = &link->base, .kind = (uint16_t)kind};
	return wc;
}

static int poll_done(struct shm_link *link, struct pst_wc *wc, int n)
{
	int got = 0;

	while (got < n && link->done_head != link->done_tail) {
		const struct shm_done *d = &link->done[link->done_head++ % SHM_DONE_MAX];
		struct pst_wc *w = new_wc(link, &wc[got++], PST_WC_DONE);

		w->id = d->id;
		w->op = d->op;
		w->status = d->status;
		w->cause = d->cause;
	}
	return got;
}

/* One item of the peer's: 1, 0 if there is none (or no buffer), -EPROTO. */
static int poll_item(struct shm_link *link, struct pst_wc *wc)
{
	struct shm_item item;
	void *buf = pst_shm_buf(cq_of(link));
	int rc;

	if (!buf)
		return 0;
	rc = pst_shm_rx_get(&link->rx, &item, buf);
	if (rc <= 0)
		return rc;
	if (item.kind == SHM_IMM) {
		new_wc(link, wc, PST_WC_IMM)->imm = item.imm;
		return 1;
	}
	new_wc(link, wc, PST_WC_MESSAGE);
	wc->len = item.len;
	wc->msg = buf;
	cq_of(link)->used++;
	return 1;
}

static int poll_ring(struct shm_link *link, struct pst_wc *wc, int n)
{
	int got = 0, rc = 1;

	while (got < n && (link->state == SHM_LIVE || link->left)) {
		rc = poll_item(link, &wc[got]);
		if (rc <= 0)
			break;
		got++;
		if (link->state == SHM_DYING)
			link->left--;
	}
	if (rc < 0)
		fail_link(link, rc);
	if (rc < 0 || (!rc && link->state == SHM_DYING && cq_of(link)->used < SHM_BUFS))
		link->left = 0;
	/* what was taken is given back when there is time, or when the peer may run short of it */
	if ((!got || rc <= 0 || pst_shm_rx_taken(&link->rx) >= SHM_RING_SLOTS / 8) &&
	    pst_shm_rx_release(&link->rx) && link->state == SHM_LIVE)
		ring_bell(link);
	return got;
}

int pst_shm_link_poll(struct shm_link *link, struct pst_wc *wc, int n)
{
	int got = 0;

	/* what nearly all polls of a spinning caller find */
	if (link->state == SHM_LIVE && !link->announce && link->done_head == link->done_tail &&
	    pst_shm_rx_idle(&link->rx))
		return 0;
	if (link->state == SHM_DOWN)
		return 0;
	if (link->announce) {
		link->announce = false;
		new_wc(link, &wc[got++], PST_WC_CONNECTED);
	}
	got += poll_done(link, wc + got, n - got);
	got += poll_ring(link, wc + got, n - got);
	if (got < n && link->state == SHM_DYING && !link->left) {
		link->state = SHM_DOWN;
		new_wc(link, &wc[got], PST_WC_DOWN)->status = link->why;
		wc[got].cause = link->why == -EPROTO ? PST_CAUSE_PEER_BROKE : PST_CAUSE_PEER_CLOSED;
		pst_blame(&link->base, wc[got++].cause, NULL, NULL, strerror(-link->why));
		pst_count_mine(&counters(link)->links_lost, 1);
	}
	return got;
}

bool pst_shm_link_arm(struct shm_link *link)
{
	if (link->state == SHM_DOWN)
		return true;
	return pst_shm_rx_arm(&link->rx) && link->state == SHM_LIVE && !link->announce &&
	       link->done_head == link->done_tail;
}
