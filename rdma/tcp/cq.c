/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion queue of the tcp fabric: the owner's side of who drives the
 * sockets (progress.c is the other), and the timer.
 *
 * How long to spin before sleeping is learnt: longer when a wait turned out to be
 * shorter than the longest spin, shorter when it was longer. So two ends that
 * answer each other at once stay awake, and a machine with more to do than it
 * has cores is not made slower by those who wait.
 */
#include "rdma/fail.h"
#include "rdma/pause.h"
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define SPIN_MIN_NS 2000
#define SPIN_MAX_NS 100000
#define SPARE_MAX   256 /* buffers that are kept for later */
#define BEAT_MIN_MS 5

static struct tcp_cq *to_cq(struct pst_cq *base)
{
	return pst_container(base, struct tcp_cq, base);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void pst_tcp_enter(struct tcp_cq *cq)
{
	atomic_fetch_add_explicit(&cq->calls, 1, memory_order_relaxed);
	pthread_mutex_lock(&cq->lock);
}

void pst_tcp_leave(struct tcp_cq *cq)
{
	pthread_mutex_unlock(&cq->lock);
}

struct tcp_buf *pst_tcp_buf_get(struct tcp_cq *cq)
{
	struct tcp_buf *buf = cq->spare;

	if (buf) {
		cq->spare = buf->next;
		cq->spares--;
	} else {
		buf = aligned_alloc(64, (sizeof(*buf) + 63) & ~63ull);
	}
	if (buf)
		buf->refs = 1;
	return buf;
}

void pst_tcp_buf_put(struct tcp_cq *cq, struct tcp_buf *buf)
{
	if (!buf || --buf->refs)
		return;
	if (cq->spares >= SPARE_MAX) {
		free(buf);
		return;
	}
	buf->next = cq->spare;
	cq->spare = buf;
	cq->spares++;
}

static void free_bufs(struct tcp_buf *buf)
{
	while (buf) {
		struct tcp_buf *next = buf->next;

		free(buf);
		buf = next;
	}
}

static void wake_ready(struct tcp_source *src)
{
	struct tcp_cq *cq = pst_container(src, struct tcp_cq, wake);
	uint64_t n;

	if (read(src->fd, &n, sizeof(n)) == sizeof(n))
		cq->woken = true;
}

void pst_tcp_cq_wake(struct pst_cq *base)
{
	const uint64_t one = 1;
	ssize_t n = write(to_cq(base)->wake.fd, &one, sizeof(one));

	(void)n; /* -EAGAIN: the counter is full, the sleeper wakes in any case */
}

/*
 * epoll unless io_uring is asked for: between processes of one host, a poller that reads from few
 * sockets itself is faster, since a receive that waits is finished by an interrupt of its own.
 */
static int open_driver(struct tcp_cq *cq)
{
	cq->io = strcmp(cq->base.fab->set.io, "uring") ? &pst_tcp_epoll : &pst_tcp_uring;
	return cq->io->open(cq);
}

static int open_all(struct tcp_cq *cq)
{
	int rc = open_driver(cq);

	if (rc)
		return rc;
	cq->wake = (struct tcp_source){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				       .ready = wake_ready};
	if (cq->wake.fd < 0) {
		rc = -errno;
		goto close_driver;
	}
	rc = cq->io->watch(cq, &cq->wake);
	if (rc)
		goto close_wake;
	rc = pst_tcp_progress_start(cq);
	if (!rc)
		return 0;
	cq->io->unwatch(cq, &cq->wake);
close_wake:
	close(cq->wake.fd);
close_driver:
	cq->io->close(cq);
	return rc;
}

int pst_tcp_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err)
{
	struct tcp_cq *cq = calloc(1, sizeof(*cq));
	int rc;

	if (!cq)
		return pst_fail(err, -ENOMEM, "completion queue: out of memory");
	cq->base.fab = fab;
	cq->spin_ns = SPIN_MAX_NS;
	cq->beat = fab->set.timeout_ms / 16;
	if (cq->beat < BEAT_MIN_MS)
		cq->beat = BEAT_MIN_MS;
	TAILQ_INIT(&cq->links);
	TAILQ_INIT(&cq->ready);
	TAILQ_INIT(&cq->owing);
	TAILQ_INIT(&cq->listeners);
	pthread_mutex_init(&cq->lock, NULL);
	rc = open_all(cq);
	if (!rc) {
		*out = &cq->base;
		return 0;
	}
	pthread_mutex_destroy(&cq->lock);
	free(cq);
	return pst_fail(err, rc,
			"completion queue: %s (ulimit -n says how many files a process may open, "
			"ulimit -u how many threads)",
			strerror(-rc));
}

void pst_tcp_cq_destroy(struct pst_cq *base)
{
	struct tcp_cq *cq = to_cq(base);
	struct tcp_link *link;

	pst_tcp_progress_stop(cq);
	pst_tcp_enter(cq);
	pst_tcp_listeners_close(cq);
	while ((link = TAILQ_FIRST(&cq->links)))
		pst_tcp_link_free(link);
	cq->io->unwatch(cq, &cq->wake);
	cq->io->close(cq);
	pst_tcp_leave(cq);
	close(cq->wake.fd);
	free_bufs(cq->lent);
	free_bufs(cq->spare);
	pthread_mutex_destroy(&cq->lock);
	free(cq);
}

static void settle(struct tcp_link *link)
{
	if (link->seq_taken - link->seq_told >= TCP_WINDOW / 4)
		link->conn[0]->due |= TCP_DUE_CREDIT;
	for (unsigned int i = 0; i < link->nconns && link->state == TCP_LIVE; i++) {
		struct tcp_conn *conn = link->conn[i];

		if (conn->untold)
			conn->due |= TCP_DUE_DONE;
		if (pst_tcp_out_any(conn))
			pst_tcp_cq_of(link)->io->push(conn);
	}
}

void pst_tcp_settle(struct tcp_cq *cq)
{
	struct tcp_link *link;

	while ((link = TAILQ_FIRST(&cq->owing))) {
		TAILQ_REMOVE(&cq->owing, link, on_owing);
		link->is_owing = false;
		settle(link);
	}
}

void pst_tcp_tick(struct tcp_cq *cq)
{
	int64_t now = pst_tcp_now();
	struct tcp_link *link;

	if (now - cq->ticked < cq->beat)
		return;
	cq->ticked = now;
	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (link->state == TCP_LIVE)
			pst_tcp_link_tick(link, now);
	}
	pst_tcp_listeners_tick(cq, now);
}

int pst_tcp_tick_ms(struct tcp_cq *cq)
{
	if (TAILQ_EMPTY(&cq->links) && TAILQ_EMPTY(&cq->listeners))
		return -1;
	return (int)cq->beat;
}

/* Messages that were handed out are no longer looked at. */
static void take_back(struct tcp_cq *cq)
{
	while (cq->lent) {
		struct tcp_buf *buf = cq->lent;

		cq->lent = buf->next;
		pst_tcp_buf_put(cq, buf);
	}
}

/* What the links have; each has its turn. */
static int collect(struct tcp_cq *cq, struct pst_wc *wc, int n)
{
	struct tcp_link *link;
	int got = 0;

	while (got < n && (link = TAILQ_FIRST(&cq->ready))) {
		got += pst_tcp_link_poll(link, wc + got, n - got);
		if (link->is_ready) {
			TAILQ_REMOVE(&cq->ready, link, on_ready);
			TAILQ_INSERT_TAIL(&cq->ready, link, on_ready);
		}
	}
	return got;
}

/* Without waiting. What was read in the last round is told in this one, if no post did it. */
static int round_trip(struct tcp_cq *cq, struct pst_wc *wc, int n)
{
	int got = collect(cq, wc, n);

	if (got)
		return got;
	pst_tcp_settle(cq);
	cq->io->turn(cq, 0);
	pst_tcp_tick(cq);
	return collect(cq, wc, n);
}

int pst_tcp_cq_poll(struct pst_cq *base, struct pst_wc *wc, int n)
{
	struct tcp_cq *cq = to_cq(base);
	int got;

	pst_tcp_enter(cq);
	take_back(cq);
	got = round_trip(cq, wc, n);
	pst_tcp_leave(cq);
	return got;
}

static int spin(struct tcp_cq *cq, struct pst_wc *wc, int n)
{
	int64_t end = now_ns() + cq->spin_ns;

	do {
		int got = round_trip(cq, wc, n);

		if (got || cq->woken || cq->rooms)
			return got;
		pst_pause();
	} while (now_ns() < end);
	return 0;
}

int pst_tcp_doze(struct tcp_cq *cq, int timeout_ms)
{
	int tick = pst_tcp_tick_ms(cq), rc;

	pst_tcp_settle(cq);
	if (tick >= 0 && (timeout_ms < 0 || tick < timeout_ms))
		timeout_ms = tick;
	if (!TAILQ_EMPTY(&cq->ready))
		timeout_ms = 0;
	atomic_store(&cq->asleep, true);
	rc = cq->io->turn(cq, timeout_ms);
	atomic_store(&cq->asleep, false);
	if (atomic_exchange(&cq->parked, false))
		pst_tcp_progress_kick(cq);
	pst_tcp_tick(cq);
	return rc;
}

static void learn(struct tcp_cq *cq, int64_t waited)
{
	int64_t spin = waited < SPIN_MAX_NS ? cq->spin_ns * 2 : cq->spin_ns / 2;

	cq->spin_ns = spin > SPIN_MAX_NS ? SPIN_MAX_NS : spin < SPIN_MIN_NS ? SPIN_MIN_NS : spin;
}

/* The answer is 0 for a reason. */
static bool told_to_stop(struct tcp_cq *cq)
{
	bool stop = cq->woken || cq->rooms;
	struct tcp_link *link;

	cq->woken = false;
	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (!cq->rooms)
			break;
		pst_tcp_forget_room(link);
	}
	return stop;
}

static int wait_for(struct tcp_cq *cq, struct pst_wc *wc, int n, int timeout_ms)
{
	int64_t start = now_ns(), end = timeout_ms < 0 ? -1 : start / 1000000 + timeout_ms;
	int got = timeout_ms ? spin(cq, wc, n) : round_trip(cq, wc, n), rc = 0;

	while (!got && !told_to_stop(cq)) {
		int64_t left = end < 0 ? INT_MAX : end - now_ns() / 1000000;

		if (end >= 0 && left <= 0)
			return 0;
		if (cq->base.fab->set.poll)
			got = round_trip(cq, wc, n);
		else
			rc = pst_tcp_doze(cq, left > INT_MAX ? INT_MAX : (int)left);
		if (!got)
			got = collect(cq, wc, n);
		if (!got && rc < 0)
			return rc;
	}
	learn(cq, now_ns() - start);
	return got;
}

int pst_tcp_cq_wait(struct pst_cq *base, struct pst_wc *wc, int n, int timeout_ms)
{
	struct tcp_cq *cq = to_cq(base);
	int got;

	pst_tcp_enter(cq);
	take_back(cq);
	got = wait_for(cq, wc, n, timeout_ms);
	pst_tcp_leave(cq);
	return got;
}
