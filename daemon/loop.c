/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

struct loop {
	int epoll;
	bool end;
	TAILQ_HEAD(, loop_timer) timers; /* the earliest first */
};

int loop_new(struct loop **out)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return -ENOMEM;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		int rc = -errno;

		free(loop);
		return rc;
	}
	TAILQ_INIT(&loop->timers);
	*out = loop;
	return 0;
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	close(loop->epoll);
	free(loop);
}

int64_t loop_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int loop_watch(struct loop *loop, struct loop_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};

	if (epoll_ctl(loop->epoll, src->in ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, src->fd, &ev) < 0)
		return -errno;
	src->in = true;
	return 0;
}

void loop_unwatch(struct loop *loop, struct loop_source *src)
{
	if (!src->in)
		return;
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, src->fd, NULL);
	src->in = false;
}

void loop_cancel(struct loop *loop, struct loop_timer *timer)
{
	if (!timer->in)
		return;
	TAILQ_REMOVE(&loop->timers, timer, on_loop);
	timer->in = false;
}

void loop_after(struct loop *loop, struct loop_timer *timer, int ms)
{
	struct loop_timer *at;

	loop_cancel(loop, timer);
	timer->at_ms = loop_now_ms() + (ms > 0 ? ms : 0);
	timer->in = true;
	TAILQ_FOREACH(at, &loop->timers, on_loop)
	if (at->at_ms > timer->at_ms)
		break;
	if (at)
		TAILQ_INSERT_BEFORE(at, timer, on_loop);
	else
		TAILQ_INSERT_TAIL(&loop->timers, timer, on_loop);
}

static int wait_ms(const struct loop *loop)
{
	const struct loop_timer *first = TAILQ_FIRST(&loop->timers);
	int64_t ms;

	if (!first)
		return -1;
	ms = first->at_ms - loop_now_ms();
	return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

/* What is armed by one of these callbacks for now waits for the next turn at the latest. */
static void fire(struct loop *loop)
{
	int64_t now = loop_now_ms();
	struct loop_timer *timer;

	while (!loop->end && (timer = TAILQ_FIRST(&loop->timers)) && timer->at_ms <= now) {
		loop_cancel(loop, timer);
		timer->fire(timer);
	}
}

/* One event in each turn: what a callback takes out is never called, even if it was ready too. */
int loop_run(struct loop *loop)
{
	while (!loop->end) {
		struct epoll_event ev;
		int n = epoll_wait(loop->epoll, &ev, 1, wait_ms(loop));

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			struct loop_source *src = ev.data.ptr;

			src->ready(src, ev.events);
		}
		fire(loop);
	}
	loop->end = false;
	return 0;
}

void loop_end(struct loop *loop)
{
	loop->end = true;
}
