/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion queue of the shm fabric: an epoll set of sockets beside a list
 * of links whose rings are looked at directly.
 *
 * A poll looks at the rings only; the sockets (deaths, grants, connections) are
 * looked at every POLLS_PER_LOOK polls and whenever the coarse clock moved on,
 * so a peer's death is seen within some milliseconds however rarely or often
 * the caller polls.
 */
#include "rdma/fail.h"
#include "rdma/pause.h"
#include "rdma/shm/shm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define POLLS_PER_LOOK	1024
#define POLLS_PER_CLOCK 16   /* of those that found something */
#define SPIN_NS		3000 /* short: there may be more threads than cores */
#define EVENTS		32

static struct shm_cq *to_cq(struct pst_cq *base)
{
	return pst_container(base, struct shm_cq, base);
}

static int64_t read_clock(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int pst_shm_watch(struct shm_cq *cq, struct shm_source *src)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = src};

	return epoll_ctl(cq->epfd, EPOLL_CTL_ADD, src->fd, &ev) ? -errno : 0;
}

void pst_shm_unwatch(struct shm_cq *cq, struct shm_source *src)
{
	epoll_ctl(cq->epfd, EPOLL_CTL_DEL, src->fd, NULL);
}

void *pst_shm_buf(struct shm_cq *cq)
{
	return cq->used < SHM_BUFS ? cq->bufs + (size_t)cq->used * PST_MSG_MAX : NULL;
}

static void wake_ready(struct shm_source *src, uint32_t events)
{
	struct shm_cq *cq = pst_container(src, struct shm_cq, wake);
	uint64_t n;

	(void)events;
	if (read(src->fd, &n, sizeof(n)) == sizeof(n))
		cq->woken = true;
}

void pst_shm_cq_wake(struct pst_cq *base)
{
	const uint64_t one = 1;
	ssize_t n = write(to_cq(base)->wake.fd, &one, sizeof(one));

	(void)n; /* -EAGAIN: the counter is full, the sleeper wakes in any case */
}

static int open_fds(struct shm_cq *cq)
{
	int rc;

	cq->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (cq->epfd < 0)
		return -errno;
	cq->wake = (struct shm_source){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
				       .ready = wake_ready};
	if (cq->wake.fd < 0) {
		rc = -errno;
		goto close_epoll;
	}
	rc = pst_shm_watch(cq, &cq->wake);
	if (!rc)
		return 0;
	close(cq->wake.fd);
close_epoll:
	close(cq->epfd);
	return rc;
}

int pst_shm_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err)
{
	struct shm_cq *cq = calloc(1, sizeof(*cq));
	int rc;

	if (!cq)
		return pst_fail(err, -ENOMEM, "completion queue: out of memory");
	cq->base.fab = fab;
	TAILQ_INIT(&cq->links);
	TAILQ_INIT(&cq->listeners);
	cq->bufs = aligned_alloc(64, (size_t)SHM_BUFS * PST_MSG_MAX);
	if (!cq->bufs) {
		rc = pst_fail(err, -ENOMEM, "completion queue: out of memory");
		goto free_cq;
	}
	rc = open_fds(cq);
	if (rc) {
		pst_fail(err, rc,
			 "completion queue: %s (ulimit -n says how many files a process "
			 "may open)",
			 strerror(-rc));
		goto free_bufs;
	}
	*out = &cq->base;
	return 0;

free_bufs:
	free(cq->bufs);
free_cq:
	free(cq);
	return rc;
}

void pst_shm_cq_destroy(struct pst_cq *base)
{
	struct shm_cq *cq = to_cq(base);
	struct shm_link *link;

	pst_shm_listeners_close(cq);
	while ((link = TAILQ_FIRST(&cq->links)))
		pst_shm_link_close(&link->base);
	close(cq->wake.fd);
	close(cq->epfd);
	free(cq->bufs);
	free(cq);
}

/* Look at the sockets, waiting up to @timeout ms for one. 0 or -EINTR. */
static int look(struct shm_cq *cq, int timeout)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(cq->epfd, ev, EVENTS, timeout);
	int rc = n < 0 ? -errno : 0;

	for (int i = 0; i < n; i++) {
		struct shm_source *src = ev[i].data.ptr;

		src->ready(src, ev[i].events);
	}
	pst_shm_listeners_tick(cq);
	cq->polls = 0;
	cq->looked = read_clock(CLOCK_MONOTONIC_COARSE);
	return rc;
}

/* What the links have; the next poll begins with another link. */
static int collect(struct shm_cq *cq, struct pst_wc *wc, int n)
{
	struct shm_link *link, *first = TAILQ_FIRST(&cq->links);
	int got = 0;

	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (got == n)
			break;
		got += pst_shm_link_poll(link, wc + got, n - got);
	}
	if (got && TAILQ_NEXT(first, on_cq)) {
		TAILQ_REMOVE(&cq->links, first, on_cq);
		TAILQ_INSERT_TAIL(&cq->links, first, on_cq);
	}
	return got;
}

/* Did the clock move on? Who polls often asks it seldom, who polls seldom each time. */
static bool is_time(struct shm_cq *cq)
{
	if (cq->skipped < cq->skip) {
		cq->skipped++;
		return false;
	}
	cq->skipped = 0;
	if (cq->looked != read_clock(CLOCK_MONOTONIC_COARSE)) {
		cq->skip = 0;
		return true;
	}
	cq->skip = cq->skip < POLLS_PER_CLOCK / 2 ? 2 * cq->skip + 1 : POLLS_PER_CLOCK;
	return false;
}

int pst_shm_cq_poll(struct pst_cq *base, struct pst_wc *wc, int n)
{
	struct shm_cq *cq = to_cq(base);
	int got;

	cq->used = 0;
	got = collect(cq, wc, n);
	if (++cq->polls < POLLS_PER_LOOK && !is_time(cq))
		return got;
	look(cq, 0);
	return got ? got : collect(cq, wc, n);
}

static int spin(struct shm_cq *cq, struct pst_wc *wc, int n)
{
	int64_t end = read_clock(CLOCK_MONOTONIC) + SPIN_NS;

	do {
		int got = pst_shm_cq_poll(&cq->base, wc, n);

		if (got)
			return got;
		pst_pause();
	} while (read_clock(CLOCK_MONOTONIC) < end);
	return 0;
}

static bool has_room(struct shm_cq *cq)
{
	struct shm_link *link;

	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (pst_shm_link_has_room(link))
			return true;
	}
	return false;
}

/* Milliseconds until the earlier of two times, of which -1 is never. */
static int until(int64_t a, int64_t b)
{
	int64_t at = a < 0 || (b >= 0 && b < a) ? b : a;
	int64_t left = at - pst_shm_now();

	if (at < 0)
		return -1;
	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

/* Sleep until something may have come, or @end. The order is argued in ring.h. */
static int doze(struct shm_cq *cq, int64_t end)
{
	struct shm_link *link;
	bool quiet = true;
	int rc;

	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (!pst_shm_link_arm(link))
			quiet = false;
	}
	rc = look(cq, quiet ? until(end, pst_shm_listeners_tick(cq)) : 0);
	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		pst_shm_rx_disarm(&link->rx);
	}
	return rc;
}

int pst_shm_cq_wait(struct pst_cq *base, struct pst_wc *wc, int n, int timeout_ms)
{
	struct shm_cq *cq = to_cq(base);
	int64_t end = timeout_ms < 0 ? -1 : pst_shm_now() + timeout_ms;
	int got = timeout_ms ? spin(cq, wc, n) : 0;
	int rc = 0;

	while (!got) {
		if (cq->woken || has_room(cq)) {
			cq->woken = false;
			return 0;
		}
		rc = doze(cq, end);
		cq->used = 0;
		got = collect(cq, wc, n);
		if (!got && rc < 0)
			return rc;
		if (!got && end >= 0 && pst_shm_now() >= end) {
			cq->woken = false;
			return 0;
		}
	}
	return got;
}
