/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The completion queue of the verbs fabric: a queue of libibverbs per device, and an epoll set with
 * their completion channels, the connection manager's channel, what the devices say, and the
 * wake-up.
 *
 * A poll looks at the queues; the epoll set is looked at every POLLS_PER_LOOK polls and whenever
 * the coarse clock moved on. Asleep, the tick bounds how late a silent death is seen.
 */
#include "rdma/fail.h"
#include "rdma/pause.h"
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define POLLS_PER_LOOK	1024
#define POLLS_PER_CLOCK 16 /* of those that found nothing new */
#define SPIN_NS		5000
#define EVENTS		32
#define BATCH		32 /* completions taken at once */
#define BATCHES		8
#define CQ_FIRST	4096
#define ACKS_AT_ONCE	64
#define TICK_MIN	10 /* ms */
#define TICK_MAX	250

static int64_t coarse_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int pst_verbs_watch(struct verbs_cq *cq, struct verbs_source *src)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = src};

	return epoll_ctl(cq->epfd, EPOLL_CTL_ADD, src->fd, &ev) ? -errno : 0;
}

static void unwatch(struct verbs_cq *cq, const struct verbs_source *src)
{
	epoll_ctl(cq->epfd, EPOLL_CTL_DEL, src->fd, NULL);
}

static int unblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ? -errno : 0;
}

/* The count says nothing of who rang: a device's news may ring twice before it is looked at. */
static void wake_ready(struct verbs_source *src)
{
	struct verbs_cq *cq = pst_container(src, struct verbs_cq, wake);
	uint64_t n;

	if (read(src->fd, &n, sizeof(n)) < 0)
		return;
	if (atomic_exchange(&cq->async, false))
		cq->tick_at = 0;
	if (atomic_exchange(&cq->called, false))
		cq->woken = true;
}

static void ring(struct verbs_cq *cq)
{
	const uint64_t one = 1;
	ssize_t n = write(cq->wake.fd, &one, sizeof(one));

	(void)n; /* -EAGAIN: the counter is full, the sleeper wakes in any case */
}

void pst_verbs_cq_wake(struct pst_cq *base)
{
	verbs_cq(base)->called = true;
	ring(verbs_cq(base));
}

void pst_verbs_cq_news(struct verbs_cq *cq)
{
	cq->async = true;
	ring(cq);
}

static void completion_ready(struct verbs_source *src)
{
	struct verbs_ccq *ccq = pst_container(src, struct verbs_ccq, src);
	struct ibv_cq *cq;
	void *context;

	while (!pst_ibv.get_cq_event(ccq->channel, &cq, &context)) {
		ccq->armed = false;
		if (++ccq->unacked >= ACKS_AT_ONCE) {
			pst_ibv.ack_cq_events(ccq->cq, ccq->unacked);
			ccq->unacked = 0;
		}
	}
}

static void close_ccq(struct verbs_cq *cq, struct verbs_ccq *ccq)
{
	if (!ccq->cq)
		return;
	unwatch(cq, &ccq->src);
	unwatch(cq, &ccq->async);
	if (ccq->unacked)
		pst_ibv.ack_cq_events(ccq->cq, ccq->unacked);
	pst_ibv.destroy_cq(ccq->cq);
	pst_ibv.destroy_comp_channel(ccq->channel);
	ccq->cq = NULL;
}

static int open_ccq(struct verbs_cq *cq, struct verbs_dev *dev, uint32_t entries)
{
	struct verbs_ccq *ccq = &cq->ccq[dev->index];
	uint32_t most = (uint32_t)dev->attr.max_cqe;
	int rc;

	ccq->size = entries > CQ_FIRST ? entries : CQ_FIRST;
	if (ccq->size > most)
		ccq->size = most;
	ccq->channel = pst_ibv.create_comp_channel(dev->ctx);
	if (!ccq->channel)
		return -errno;
	ccq->cq = pst_ibv.create_cq(dev->ctx, (int)ccq->size, ccq, ccq->channel, 0);
	if (!ccq->cq) {
		rc = -errno;
		pst_ibv.destroy_comp_channel(ccq->channel);
		return rc;
	}
	ccq->src = (struct verbs_source){.fd = ccq->channel->fd, .ready = completion_ready};
	ccq->async =
		(struct verbs_source){.fd = dev->ctx->async_fd, .ready = pst_verbs_async_ready};
	rc = unblock(ccq->src.fd);
	if (!rc)
		rc = unblock(ccq->async.fd);
	if (!rc)
		rc = pst_verbs_watch(cq, &ccq->src);
	if (!rc)
		rc = pst_verbs_watch(cq, &ccq->async);
	if (rc)
		close_ccq(cq, ccq);
	return rc;
}

struct verbs_ccq *pst_verbs_ccq(struct verbs_cq *cq, struct verbs_dev *dev, uint32_t entries,
				int *rc)
{
	struct verbs_ccq *ccq = &cq->ccq[dev->index];
	uint32_t want = ccq->used + entries;

	if (!ccq->cq) {
		*rc = open_ccq(cq, dev, want);
		if (*rc)
			return NULL;
	}
	if (want <= ccq->size)
		return ccq;
	want = want > 2 * ccq->size ? want : 2 * ccq->size;
	if (want > (uint32_t)dev->attr.max_cqe)
		want = (uint32_t)dev->attr.max_cqe;
	*rc = -ENOSPC;
	if (want < ccq->used + entries)
		return NULL;
	*rc = -pst_ibv.resize_cq(ccq->cq, (int)want);
	if (*rc)
		return NULL;
	ccq->size = want;
	return ccq;
}

static int open_fds(struct verbs_cq *cq)
{
	int rc;

	cq->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (cq->epfd < 0)
		return -errno;
	cq->wake = (struct verbs_source){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
					 .ready = wake_ready};
	if (cq->wake.fd < 0) {
		rc = -errno;
		goto close_epoll;
	}
	cq->cm = pst_cm.create_event_channel();
	if (!cq->cm) {
		rc = errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : -ENODEV;
		goto close_wake;
	}
	cq->cm_src = (struct verbs_source){.fd = cq->cm->fd, .ready = pst_verbs_cm_ready};
	rc = unblock(cq->cm->fd);
	if (!rc)
		rc = pst_verbs_watch(cq, &cq->wake);
	if (!rc)
		rc = pst_verbs_watch(cq, &cq->cm_src);
	if (!rc)
		return 0;
	pst_cm.destroy_event_channel(cq->cm);
close_wake:
	close(cq->wake.fd);
close_epoll:
	close(cq->epfd);
	return rc;
}

int pst_verbs_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err)
{
	unsigned int ndevs = verbs_fabric(fab)->ndevs;
	struct verbs_cq *cq = calloc(1, sizeof(*cq) + ndevs * sizeof(cq->ccq[0]));
	int rc;

	if (!cq)
		return pst_fail(err, -ENOMEM, "completion queue: out of memory");
	cq->base.fab = fab;
	cq->nccq = ndevs;
	TAILQ_INIT(&cq->links);
	TAILQ_INIT(&cq->ready);
	TAILQ_INIT(&cq->gave);
	TAILQ_INIT(&cq->listeners);
	TAILQ_INIT(&cq->rails);
	TAILQ_INIT(&cq->reposts);
	rc = open_fds(cq);
	if (rc) {
		free(cq);
		if (rc == -ENODEV)
			return pst_fail_cause(err, PST_CAUSE_VERBS_CM, NULL, "completion queue");
		return pst_fail(err, rc,
				"completion queue: %s (ulimit -n says how many files a process may "
				"open)",
				strerror(-rc));
	}
	*out = &cq->base;
	return 0;
}

void pst_verbs_cq_destroy(struct pst_cq *base)
{
	struct verbs_cq *cq = verbs_cq(base);
	struct verbs_link *link;
	struct verbs_rail *rail;

	while ((link = TAILQ_FIRST(&cq->links)))
		pst_verbs_link_close(&link->base);
	pst_verbs_listeners_close(cq);
	while ((rail = TAILQ_FIRST(&cq->rails)))
		pst_verbs_rail_end(rail);
	for (unsigned int i = 0; i < cq->nccq; i++)
		close_ccq(cq, &cq->ccq[i]);
	pst_cm.destroy_event_channel(cq->cm);
	close(cq->wake.fd);
	close(cq->epfd);
	free(cq->rail);
	free(cq);
}

void pst_verbs_ready(struct verbs_link *link)
{
	if (link->is_ready)
		return;
	link->is_ready = true;
	TAILQ_INSERT_TAIL(&verbs_cq_of(link)->ready, link, on_ready);
}

static void post_receives(struct verbs_cq *cq)
{
	struct verbs_rail *rail;

	while ((rail = TAILQ_FIRST(&cq->reposts))) {
		TAILQ_REMOVE(&cq->reposts, rail, on_repost);
		rail->reposting = false;
		pst_verbs_rail_recvs(rail);
	}
}

int pst_verbs_progress(struct verbs_cq *cq)
{
	struct ibv_wc wc[BATCH];
	int n, all = 0;

	for (unsigned int i = 0; i < cq->nccq; i++) {
		if (!cq->ccq[i].cq)
			continue;
		for (int batch = 0; batch < BATCHES; batch++) {
			n = ibv_poll_cq(cq->ccq[i].cq, BATCH, wc);
			for (int k = 0; k < n; k++)
				pst_verbs_rail_wc(cq, &wc[k]);
			all += n > 0 ? n : 0;
			if (n < BATCH)
				break;
		}
	}
	if (!TAILQ_EMPTY(&cq->reposts))
		post_receives(cq);
	return all;
}

/* The buffers that the last poll lent come back, and their senders are told. */
static void take_back(struct verbs_cq *cq)
{
	struct verbs_link *link;
	struct verbs_rail *rail;

	TAILQ_FOREACH(link, &cq->gave, on_gave)
	{
		TAILQ_FOREACH(rail, &link->rails, on_link)
		{
			rail->held -= rail->nlent;
			while (rail->nlent)
				pst_verbs_rail_return(rail, rail->lent[--rail->nlent]);
		}
	}
	post_receives(cq);
	while ((link = TAILQ_FIRST(&cq->gave))) {
		TAILQ_REMOVE(&cq->gave, link, on_gave);
		link->is_gave = false;
		pst_verbs_frame_ack(link);
	}
}

static int collect(struct verbs_cq *cq, struct pst_wc *wc, int n)
{
	struct verbs_link *link, *last = TAILQ_LAST(&cq->ready, verbs_ready_list);
	int got = 0;

	/* Each once, so that one that has much lets the others have their turn. */
	while (got < n && (link = TAILQ_FIRST(&cq->ready))) {
		got += pst_verbs_link_collect(link, wc + got, n - got);
		TAILQ_REMOVE(&cq->ready, link, on_ready);
		link->is_ready = verbs_has_news(link);
		if (link->is_ready)
			TAILQ_INSERT_TAIL(&cq->ready, link, on_ready);
		if (link == last)
			break;
	}
	return got;
}

static int64_t tick_ms(const struct verbs_cq *cq)
{
	int64_t ms = cq->base.fab->set.timeout_ms / 16;
	const struct verbs_rail *rail;

	ms = ms < TICK_MIN ? TICK_MIN : ms > TICK_MAX ? TICK_MAX : ms;
	TAILQ_FOREACH(rail, &cq->rails, on_cq)
	{
		if (rail->state == RAIL_DYING || (rail->state == RAIL_SETUP && rail->settled))
			return 1;
		if (rail->state == RAIL_SETUP)
			ms = TICK_MIN;
	}
	return ms;
}

/* What takes its time: set-ups and rails that come to their end, links that may have gone silent.
 */
static void tick(struct verbs_cq *cq)
{
	struct verbs_rail *rail, *next_rail;
	struct verbs_link *link, *next_link;
	int64_t now = pst_verbs_now();

	if (now < cq->tick_at)
		return;
	for (rail = TAILQ_FIRST(&cq->rails); rail; rail = next_rail) {
		next_rail = TAILQ_NEXT(rail, on_cq);
		pst_verbs_rail_tick(rail, now);
	}
	for (link = TAILQ_FIRST(&cq->links); link; link = next_link) {
		next_link = TAILQ_NEXT(link, on_cq);
		pst_verbs_link_tick(link, now);
	}
	pst_verbs_setups_tick(cq);
	cq->tick_at = now + tick_ms(cq);
}

/* Look at the files, waiting up to @timeout ms for one. 0 or -EINTR. */
static int look(struct verbs_cq *cq, int timeout)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(cq->epfd, ev, EVENTS, timeout);
	int rc = n < 0 ? -errno : 0;

	for (int i = 0; i < n; i++) {
		struct verbs_source *src = ev[i].data.ptr;

		src->ready(src);
	}
	tick(cq);
	cq->polls = 0;
	cq->looked = coarse_ns();
	return rc;
}

/* Did the clock move on? Who polls often asks it seldom, who polls seldom each time. */
static bool is_time(struct verbs_cq *cq)
{
	if (cq->skipped < cq->skip) {
		cq->skipped++;
		return false;
	}
	cq->skipped = 0;
	if (cq->looked != coarse_ns()) {
		cq->skip = 0;
		return true;
	}
	cq->skip = cq->skip < POLLS_PER_CLOCK / 2 ? 2 * cq->skip + 1 : POLLS_PER_CLOCK;
	return false;
}

int pst_verbs_cq_poll(struct pst_cq *base, struct pst_wc *wc, int n)
{
	struct verbs_cq *cq = verbs_cq(base);
	int got = 0;

	if (!TAILQ_EMPTY(&cq->gave))
		take_back(cq);
	if (!TAILQ_EMPTY(&cq->ready))
		got = collect(cq, wc, n);
	if (!got && pst_verbs_progress(cq))
		got = collect(cq, wc, n);
	if (++cq->polls < POLLS_PER_LOOK && cq->tick_at && !is_time(cq))
		return got;
	look(cq, 0);
	return got ? got : collect(cq, wc, n);
}

static int64_t until(int64_t end, int64_t at)
{
	int64_t left = (end >= 0 && end < at ? end : at) - pst_verbs_now();

	return left < 0 ? 0 : left > INT_MAX ? INT_MAX : left;
}

/* Ask for an event at the next completion, then look once more: it may have come before. */
static bool arm(struct verbs_cq *cq)
{
	for (unsigned int i = 0; i < cq->nccq; i++) {
		struct verbs_ccq *ccq = &cq->ccq[i];

		if (ccq->cq && !ccq->armed)
			ccq->armed = !ibv_req_notify_cq(ccq->cq, 0);
	}
	return !pst_verbs_progress(cq) && TAILQ_EMPTY(&cq->ready);
}

int pst_verbs_turn(struct verbs_cq *cq, int64_t timeout_ms)
{
	int64_t end = pst_verbs_now() + timeout_ms;
	int rc, n = pst_verbs_progress(cq);

	rc = look(cq, n || !arm(cq) ? 0 : (int)until(end, cq->tick_at));
	pst_verbs_progress(cq);
	return rc;
}

static bool has_room(const struct verbs_cq *cq)
{
	struct verbs_link *link;

	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (link->want_room && pst_verbs_link_has_room(link))
			return true;
	}
	return false;
}

/* The caller is told of room once. */
static void told_of_room(struct verbs_cq *cq)
{
	struct verbs_link *link;

	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		if (link->want_room && pst_verbs_link_has_room(link))
			link->want_room = false;
	}
}

static int spin(struct verbs_cq *cq, struct pst_wc *wc, int n, int64_t end)
{
	int64_t now;

	do {
		int got = pst_verbs_cq_poll(&cq->base, wc, n);

		if (got || cq->woken || has_room(cq))
			return got;
		pst_pause();
		now = pst_verbs_now_ns();
	} while (now < end);
	return 0;
}

int pst_verbs_cq_wait(struct pst_cq *base, struct pst_wc *wc, int n, int timeout_ms)
{
	struct verbs_cq *cq = verbs_cq(base);
	int64_t now = pst_verbs_now_ns();
	int64_t end = timeout_ms < 0 ? -1 : now / 1000000 + timeout_ms;
	int64_t spin_end = now + (timeout_ms ? SPIN_NS : 0);
	int got, rc;

	if (base->fab->set.poll)
		spin_end = timeout_ms < 0 ? INT64_MAX : now + (int64_t)timeout_ms * 1000000;
	got = spin(cq, wc, n, spin_end);
	while (!got) {
		if (cq->woken || has_room(cq) || (end >= 0 && pst_verbs_now() >= end)) {
			cq->woken = false;
			told_of_room(cq);
			return 0;
		}
		rc = look(cq, arm(cq) ? (int)until(end, cq->tick_at) : 0);
		pst_verbs_progress(cq);
		got = collect(cq, wc, n);
		if (!got && rc == -EINTR)
			return rc;
	}
	return got;
}
