/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/events.h"

#include "daemon/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READERS_MAX	 256
#define READERS_PER_USER 64

/* What is kept is what waits for readers too: each has a place in the row. */
struct reader {
	struct loop_source src;
	struct events *events;
	uid_t uid;
	uint64_t mask;
	uint64_t next; /* the number of the event that is looked at next */
	uint64_t lost;
	TAILQ_ENTRY(reader) on_events;
};

struct events {
	struct loop *loop;
	struct pst_event ring[EVENTS_KEPT]; /* number n is in n % EVENTS_KEPT */
	uint64_t head;			    /* the number that the next one gets */
	uint64_t count[PST_EVENT_END];
	TAILQ_HEAD(, reader) readers;
};

int events_new(struct loop *loop, struct events **out)
{
	struct events *events = calloc(1, sizeof(*events));

	if (!events)
		return -ENOMEM;
	events->loop = loop;
	TAILQ_INIT(&events->readers);
	*out = events;
	return 0;
}

static void reader_free(struct reader *r)
{
	loop_unwatch(r->events->loop, &r->src);
	TAILQ_REMOVE(&r->events->readers, r, on_events);
	close(r->src.fd);
	free(r);
}

void events_free(struct events *events)
{
	struct reader *r;

	if (!events)
		return;
	while ((r = TAILQ_FIRST(&events->readers)))
		reader_free(r);
	free(events);
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int send_event(struct reader *r, const struct pst_event *event)
{
	ssize_t n = send(r->src.fd, event, sizeof(*event), MSG_DONTWAIT | MSG_NOSIGNAL);

	return n < 0 ? -errno : 0;
}

static int send_lost(struct reader *r)
{
	struct pst_event lost = {.size = sizeof(lost), .type = PST_EVENT_LOST};
	int rc;

	lost.time_ns = now_ns();
	lost.value = (int64_t)r->lost;
	snprintf((char *)lost.text, sizeof(lost.text),
		 "%llu events were lost here: they were read too slowly",
		 (unsigned long long)r->lost);
	rc = send_event(r, &lost);
	if (!rc)
		r->lost = 0;
	return rc;
}

static bool wants(const struct reader *r, const struct pst_event *event)
{
	return !r->mask || (r->mask & PST_EVENT_BIT(event->type));
}

/* What it has not seen, as far as there is room: 0, -EAGAIN, or it is gone. */
static int flush(struct reader *r)
{
	struct events *events = r->events;
	int rc = 0;

	for (; r->next < events->head; r->next++) {
		const struct pst_event *event = &events->ring[r->next % EVENTS_KEPT];

		if (!wants(r, event))
			continue;
		if (r->lost)
			rc = send_lost(r);
		if (!rc)
			rc = send_event(r, event);
		if (rc)
			break;
	}
	return rc;
}

/* A reader that cannot be told of anything any more has closed its end. */
static void serve(struct reader *r)
{
	int rc = flush(r);

	if (!rc || rc == -EAGAIN)
		rc = loop_watch(r->events->loop, &r->src, rc ? EPOLLOUT : 0);
	if (rc)
		reader_free(r);
}

static void ready(struct loop_source *src, uint32_t events)
{
	struct reader *r = (struct reader *)((char *)src - offsetof(struct reader, src));

	if (events & (EPOLLHUP | EPOLLERR))
		reader_free(r);
	else
		serve(r);
}

/* The oldest makes room; who has not had it has lost it. */
static struct pst_event *next_place(struct events *events)
{
	struct pst_event *event = &events->ring[events->head % EVENTS_KEPT];
	struct reader *r;

	if (events->head >= EVENTS_KEPT)
		TAILQ_FOREACH(r, &events->readers, on_events)
	if (r->next == events->head - EVENTS_KEPT) {
		r->lost += wants(r, event);
		r->next++;
	}
	memset(event, 0, sizeof(*event));
	return event;
}

static int priority(uint32_t type, int64_t value)
{
	switch (type) {
	case PST_EVENT_DIED:
	case PST_EVENT_HUNG:
	case PST_EVENT_KERNEL_TAKEN_BACK:
	case PST_EVENT_XID:
		return LOG_ERR;
	case PST_EVENT_KERNEL_REFUSED:
	case PST_EVENT_LIMIT:
	case PST_EVENT_POOL:
		return LOG_WARNING;
	case PST_EVENT_DEVICE:
	case PST_EVENT_RELOADED:
		return value ? LOG_WARNING : LOG_NOTICE;
	}
	return LOG_NOTICE;
}

static void to_log(const struct pst_event *e)
{
	static const char *const name[PST_EVENT_END] = {
		[PST_EVENT_LOST] = "lost",
		[PST_EVENT_STARTED] = "started",
		[PST_EVENT_DIED] = "died",
		[PST_EVENT_HUNG] = "hung",
		[PST_EVENT_DRAINED] = "drained",
		[PST_EVENT_STOPPED] = "stopped",
		[PST_EVENT_KERNEL_LOADED] = "kernel_loaded",
		[PST_EVENT_KERNEL_REFUSED] = "kernel_refused",
		[PST_EVENT_KERNEL_BOUND] = "kernel_bound",
		[PST_EVENT_KERNEL_TAKEN_BACK] = "kernel_taken_back",
		[PST_EVENT_DEVICE] = "device",
		[PST_EVENT_XID] = "xid",
		[PST_EVENT_LIMIT] = "limit",
		[PST_EVENT_POOL] = "pool",
		[PST_EVENT_RELOADED] = "reloaded",
	};
	char fields[128];

	snprintf(fields, sizeof(fields), "event=%s id=%u value=%lld", name[e->type], e->id,
		 (long long)e->value);
	log_line(priority(e->type, e->value), fields, "%s", (const char *)e->text);
}

void events_emit(struct events *events, uint32_t type, uint32_t id, int64_t value, const char *fmt,
		 ...)
{
	struct reader *r, *after;
	struct pst_event *event;
	int saved = errno;
	va_list ap;

	if (!type || type >= PST_EVENT_END)
		return;
	event = next_place(events);
	event->size = sizeof(*event);
	event->type = type;
	event->time_ns = now_ns();
	event->id = id;
	event->value = value;
	va_start(ap, fmt);
	vsnprintf((char *)event->text, sizeof(event->text), fmt, ap);
	va_end(ap);
	events->head++;
	events->count[type]++;
	to_log(event);
	for (r = TAILQ_FIRST(&events->readers); r; r = after) {
		after = TAILQ_NEXT(r, on_events);
		serve(r);
	}
	errno = saved;
}

static int check_room(const struct events *events, uid_t uid)
{
	unsigned int all = 0, his = 0;
	const struct reader *r;

	TAILQ_FOREACH(r, &events->readers, on_events)
	{
		all++;
		his += r->uid == uid;
	}
	return all < READERS_MAX && his < READERS_PER_USER ? 0 : -EUSERS;
}

/* The number of the @past'th event of the mask, counted from the last. */
static uint64_t begin_at(const struct reader *r, uint32_t past)
{
	const struct events *events = r->events;
	uint64_t first = events->head > EVENTS_KEPT ? events->head - EVENTS_KEPT : 0;
	uint64_t at = events->head;

	while (past && at > first)
		past -= wants(r, &events->ring[--at % EVENTS_KEPT]);
	return at;
}

static int reader_new(struct events *events, uid_t uid, uint64_t mask, int fd, struct reader **out)
{
	struct reader *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	r->src.fd = fd;
	r->src.ready = ready;
	r->events = events;
	r->uid = uid;
	r->mask = mask;
	rc = loop_watch(events->loop, &r->src, 0);
	if (rc < 0) {
		free(r);
		return rc;
	}
	TAILQ_INSERT_TAIL(&events->readers, r, on_events);
	*out = r;
	return 0;
}

int events_open(struct events *events, uid_t uid, uint64_t mask, uint32_t past)
{
	struct reader *r = NULL;
	int rc = check_room(events, uid), pair[2];

	if (rc < 0)
		return rc;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	rc = reader_new(events, uid, mask, pair[0], &r);
	if (rc < 0) {
		close(pair[0]);
		close(pair[1]);
		return rc;
	}
	r->next = begin_at(r, past);
	serve(r);
	return pair[1];
}

uint64_t events_count(const struct events *events, uint32_t type)
{
	return type < PST_EVENT_END ? events->count[type] : 0;
}
