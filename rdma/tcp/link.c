/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link: what it hands out, and its end. When it fails its sockets are closed
 * at once, so from then on nothing touches a region on its behalf; what came
 * before is still handed out, then every request with the reason, then
 * PST_WC_DOWN, once. All connections of a link go to one host: it lives as long
 * as all of them do.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define LINGER_MS 100 /* for the last words to arrive */

static struct tcp_link *to_link(struct pst_link *base)
{
	return pst_container(base, struct tcp_link, base);
}

void pst_tcp_ready(struct tcp_link *link)
{
	if (link->is_ready)
		return;
	link->is_ready = true;
	TAILQ_INSERT_TAIL(&pst_tcp_cq_of(link)->ready, link, on_ready);
}

void pst_tcp_owe(struct tcp_link *link)
{
	if (link->is_owing)
		return;
	link->is_owing = true;
	TAILQ_INSERT_TAIL(&pst_tcp_cq_of(link)->owing, link, on_owing);
}

static void close_conns(struct tcp_link *link)
{
	struct tcp_cq *cq = pst_tcp_cq_of(link);

	for (unsigned int i = 0; i < link->nconns; i++) {
		struct tcp_conn *conn = link->conn[i];

		if (conn->fd < 0)
			continue;
		cq->io->remove(conn);
		cq->nconns--;
		shutdown(conn->fd, SHUT_RDWR); /* a forked child may hold it too */
		close(conn->fd);
		conn->fd = -1;
		pst_tcp_out_drop(conn);
		pst_tcp_buf_put(cq, conn->in_buf);
		conn->in_buf = NULL;
		conn->body_left = 0;
	}
}

int pst_tcp_fail(struct tcp_link *link, unsigned int way, uint32_t cause, const char *code)
{
	if (link->state != TCP_LIVE)
		return -ENOTCONN;
	link->state = TCP_DYING;
	link->cause = cause;
	link->cause_way = way;
	snprintf(link->cause_code, sizeof(link->cause_code), "%s", code ? code : "");
	close_conns(link);
	pst_tcp_reqs_fail(link);
	pst_tcp_ready(link);
	return -ENOTCONN;
}

int pst_tcp_broke(struct tcp_conn *conn, const char *what)
{
	return pst_tcp_fail(conn->link, conn->way, PST_CAUSE_PEER_BROKE, what);
}

int pst_tcp_fail_errno(struct tcp_conn *conn, int rc)
{
	uint32_t cause = PST_CAUSE_PEER_CLOSED;

	if (rc == -ETIMEDOUT)
		cause = PST_CAUSE_PEER_SILENT;
	else if (rc == -EHOSTUNREACH || rc == -ENETUNREACH || rc == -ENETDOWN)
		cause = PST_CAUSE_NO_ROUTE;
	else if (rc == -EFAULT)
		cause = PST_CAUSE_MEMORY_GONE;
	return pst_tcp_fail(conn->link, conn->way, cause, strerror(-rc));
}

static int add_conn(struct tcp_link *link, int fd, uint32_t timeout_ms)
{
	struct tcp_cq *cq = pst_tcp_cq_of(link);
	struct tcp_conn *conn = calloc(1, sizeof(*conn));
	char name[32];
	int rc;

	if (!conn)
		return -ENOMEM;
	*conn = (struct tcp_conn){
		.link = link, .fd = fd, .way = link->nconns, .heard = pst_tcp_now()};
	pst_tcp_name(fd, false, name, sizeof(name));
	snprintf(conn->rail, sizeof(conn->rail), "%s (%u)", name, conn->way);
	pst_tcp_tune(fd, timeout_ms);
	rc = cq->io->add(conn);
	if (rc) {
		free(conn);
		return rc;
	}
	cq->nconns++;
	link->conn[link->nconns++] = conn;
	return 0;
}

static void free_conns(struct tcp_link *link)
{
	for (unsigned int i = 0; i < link->nconns; i++)
		free(link->conn[i]);
}

/* Take the sockets out again; they are the caller's. */
static void undo_conns(struct tcp_link *link)
{
	struct tcp_cq *cq = pst_tcp_cq_of(link);

	for (unsigned int i = 0; i < link->nconns; i++) {
		cq->io->remove(link->conn[i]);
		cq->nconns--;
	}
	free_conns(link);
}

int pst_tcp_link_new(struct tcp_cq *cq, const struct tcp_terms *terms, struct tcp_link **out)
{
	struct tcp_link *link = calloc(1, sizeof(*link));
	int rc = 0;

	if (!link)
		return -ENOMEM;
	link->base.cq = &cq->base;
	link->timeout_ms = terms->timeout_ms;
	link->crc = terms->crc;
	for (unsigned int i = 0; i < terms->nfds && !rc; i++)
		rc = add_conn(link, terms->fd[i], terms->timeout_ms);
	if (rc) {
		undo_conns(link);
		free(link);
		return rc;
	}
	TAILQ_INSERT_TAIL(&cq->links, link, on_cq);
	pst_tcp_progress_kick(cq);
	*out = link;
	return 0;
}

/* Nothing unread may be left, or closing would throw away what the peer has not got yet. */
static bool drain(int fd)
{
	char junk[16384];
	ssize_t n;

	do
		n = recv(fd, junk, sizeof(junk), MSG_DONTWAIT);
	while (n > 0);
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void last_words(struct tcp_conn *conn)
{
	struct tcp_cq *cq = pst_tcp_cq_of(conn->link);
	int left = 0;

	conn->due |= TCP_DUE_BYE;
	cq->io->push(conn);
	if (conn->fd < 0)
		return;
	cq->io->remove(conn);
	cq->nconns--;
	shutdown(conn->fd, SHUT_WR);
	for (int i = 0; i < LINGER_MS && drain(conn->fd); i++) {
		struct pollfd p = {.fd = conn->fd, .events = POLLIN};

		if (ioctl(conn->fd, SIOCOUTQ, &left) || !left)
			break;
		poll(&p, 1, 1);
	}
	close(conn->fd);
	conn->fd = -1;
	pst_tcp_out_drop(conn);
	pst_tcp_buf_put(cq, conn->in_buf);
	conn->in_buf = NULL;
}

static void free_numbered(struct tcp_link *link)
{
	struct tcp_cq *cq = pst_tcp_cq_of(link);

	for (int i = 0; i < TCP_WINDOW; i++) {
		pst_tcp_buf_put(cq, link->sent[i].buf);
		if (link->came[i].here)
			pst_tcp_buf_put(cq, link->came[i].buf);
	}
}

void pst_tcp_link_free(struct tcp_link *link)
{
	struct tcp_cq *cq = pst_tcp_cq_of(link);

	for (unsigned int i = 0; i < link->nconns && link->state == TCP_LIVE; i++)
		last_words(link->conn[i]);
	pst_tcp_forget_room(link);
	free_numbered(link);
	free_conns(link);
	TAILQ_REMOVE(&cq->links, link, on_cq);
	if (link->is_ready)
		TAILQ_REMOVE(&cq->ready, link, on_ready);
	if (link->is_owing)
		TAILQ_REMOVE(&cq->owing, link, on_owing);
	cq->accepted -= link->accepted;
	free(link);
}

void pst_tcp_link_close(struct pst_link *base)
{
	struct tcp_cq *cq = pst_tcp_cq_of(to_link(base));

	pst_tcp_enter(cq);
	pst_tcp_link_free(to_link(base));
	pst_tcp_leave(cq);
}

int pst_tcp_acked(struct tcp_conn *conn, uint64_t ack)
{
	struct tcp_link *link = conn->link;

	if (ack > link->seq_gone)
		return pst_tcp_broke(conn, "it took what was not sent");
	if (ack <= link->seq_acked)
		return 0;
	while (link->seq_acked < ack) {
		struct tcp_sent *s = &link->sent[++link->seq_acked % TCP_WINDOW];

		link->again &= ~(1ull << link->seq_acked % TCP_WINDOW);
		pst_tcp_buf_put(pst_tcp_cq_of(link), s->buf);
		s->buf = NULL;
	}
	link->agains = 0;
	pst_tcp_grants_go(link);
	if (pst_tcp_window_open(link))
		pst_tcp_room(link, TCP_WANT_WINDOW);
	return 0;
}

static struct tcp_came *next_came(struct tcp_link *link)
{
	return link->seq_taken < link->seq_in ? &link->came[(link->seq_taken + 1) % TCP_WINDOW]
					      : NULL;
}

static void take(struct tcp_link *link)
{
	link->came[++link->seq_taken % TCP_WINDOW].here = false;
	if (link->state == TCP_LIVE && link->seq_taken - link->seq_told >= TCP_WINDOW / 4)
		pst_tcp_owe(link);
}

void pst_tcp_skip(struct tcp_link *link)
{
	const struct tcp_came *c;

	while ((c = next_came(link)) && c->type == PST_FRAME_GRANT)
		take(link);
}

static struct pst_wc *new_wc(struct tcp_link *link, struct pst_wc *wc, enum pst_wc_kind kind)
{
	*wc = (struct pst_wc){.link = &link->base, .kind = (uint16_t)kind};
	return wc;
}

static void blame(struct tcp_link *link, uint32_t cause, const struct pst_recent *recent)
{
	bool all = link->state != TCP_LIVE && cause == link->cause;
	const struct tcp_conn *conn = link->conn[all ? link->cause_way : 0];

	pst_blame(&link->base, cause, conn->rail, recent, all ? link->cause_code : NULL);
}

static void hand_out_req(struct tcp_link *link, const struct tcp_req *r, struct pst_wc *wc)
{
	new_wc(link, wc, PST_WC_DONE);
	wc->id = r->id;
	wc->op = r->op;
	wc->status = r->status;
	wc->cause = r->cause;
	if (r->status)
		blame(link, r->cause, pst_trace_failed(&link->base.trace, r->id, r->status));
}

static int poll_reqs(struct tcp_link *link, struct pst_wc *wc, int n)
{
	int got = 0;

	while (got < n && link->req_head != link->req_tail) {
		const struct tcp_req *r = &link->req[link->req_head % TCP_REQS];

		if (r->parts)
			break;
		link->req_head++;
		if (r->status || !(r->flags & PST_WR_UNSIGNALED))
			hand_out_req(link, r, &wc[got++]);
		pst_tcp_room(link, TCP_WANT_REQ);
	}
	return got;
}

/* An answer that is on its way was asked for before the message was sent. */
static bool may_see(const struct tcp_link *link, const struct tcp_came *c)
{
	return link->answers_out >= c->after || link->state != TCP_LIVE;
}

static int poll_came(struct tcp_link *link, struct pst_wc *wc, int n)
{
	struct tcp_cq *cq = pst_tcp_cq_of(link);
	struct tcp_came *c;
	int got = 0;

	while (got < n && (c = next_came(link)) && may_see(link, c)) {
		struct pst_wc *w = &wc[got++];

		if (c->type == PST_FRAME_IMM) {
			new_wc(link, w, PST_WC_IMM)->imm = c->imm;
		} else {
			new_wc(link, w, PST_WC_MESSAGE)->msg = c->buf->data;
			w->len = c->len;
			c->buf->next = cq->lent;
			cq->lent = c->buf;
		}
		take(link);
		pst_tcp_skip(link);
	}
	return got;
}

/* Is there more to hand out than fitted? */
static bool more(const struct tcp_link *link)
{
	return link->state == TCP_DYING ||
	       (link->req_head != link->req_tail && !link->req[link->req_head % TCP_REQS].parts) ||
	       (link->seq_taken < link->seq_in &&
		may_see(link, &link->came[(link->seq_taken + 1) % TCP_WINDOW]));
}

int pst_tcp_link_poll(struct tcp_link *link, struct pst_wc *wc, int n)
{
	int got = 0;

	if (link->announce) {
		link->announce = false;
		new_wc(link, &wc[got++], PST_WC_CONNECTED);
	}
	got += poll_reqs(link, wc + got, n - got);
	got += poll_came(link, wc + got, n - got);
	if (got < n && link->state == TCP_DYING) {
		link->state = TCP_DOWN;
		new_wc(link, &wc[got], PST_WC_DOWN)->status = pst_cause_row(link->cause)->status;
		wc[got++].cause = link->cause;
		blame(link, link->cause, NULL);
		pst_count(&pst_tcp_counters(link)->links_lost, 1);
	}
	if (link->state == TCP_DOWN || !more(link)) {
		TAILQ_REMOVE(&pst_tcp_cq_of(link)->ready, link, on_ready);
		link->is_ready = false;
	}
	return got;
}

/* Nothing was heard there for so long that a ping went out, which nobody has answered. */
static bool is_silent(const struct tcp_conn *conn, int64_t now, int64_t since)
{
	return conn->pinged && now - conn->pinged >= since;
}

static void ping(struct tcp_conn *conn, int64_t now)
{
	conn->pinged = now;
	conn->due |= TCP_DUE_PING;
	pst_tcp_cq_of(conn->link)->io->push(conn);
}

/* The times of all steps, and two beats of the timer, are less than the timeout together. */
void pst_tcp_link_tick(struct tcp_link *link, int64_t now)
{
	int64_t timeout = link->timeout_ms;
	bool stalled = link->parts && now - link->progress >= timeout * 7 / 8, waits = false;

	for (unsigned int i = 0; i < link->nconns && link->state == TCP_LIVE; i++) {
		struct tcp_conn *conn = link->conn[i];

		if (is_silent(conn, now, stalled ? timeout / 4 : timeout / 2))
			pst_tcp_fail(link, i, PST_CAUSE_PEER_SILENT, NULL);
		else if (!conn->pinged && now - conn->heard >= timeout / 3)
			ping(conn, now);
		waits |= conn->pinged != 0;
	}
	/* whoever still owes an answer to a ping may be silent altogether: that is said instead */
	if (stalled && !waits && link->state == TCP_LIVE)
		pst_tcp_fail(link, 0, PST_CAUSE_PEER_STALLED, NULL);
}
