/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What devices say by themselves: a port went down or came up, a queue pair or the device broke.
 *
 * A fabric's cqs share a device's context, so whoever reads an event must pass it on: rails stand
 * in one list, are marked, and their cq is woken. A queue pair cannot go away while an event about
 * it is not acknowledged, nor can its rail: it leaves the list first.
 */
#include "rdma/verbs/verbs.h"

#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct entry {
	LIST_ENTRY(entry) next;
	struct verbs_rail *rail;
};

static LIST_HEAD(, entry) entries = LIST_HEAD_INITIALIZER(entries);

void pst_verbs_async_add(struct verbs_rail *rail)
{
	struct entry *e = malloc(sizeof(*e));

	/* Without one its failures are still seen, only later. */
	if (!e)
		return;
	e->rail = rail;
	pthread_mutex_lock(&lock);
	LIST_INSERT_HEAD(&entries, e, next);
	pthread_mutex_unlock(&lock);
}

void pst_verbs_async_del(struct verbs_rail *rail)
{
	struct entry *e;

	pthread_mutex_lock(&lock);
	LIST_FOREACH(e, &entries, next)
	{
		if (e->rail == rail) {
			LIST_REMOVE(e, next);
			free(e);
			break;
		}
	}
	pthread_mutex_unlock(&lock);
}

/* Is @e about @rail? Then *mark is what it says. */
static bool concerns(const struct ibv_async_event *e, const struct verbs_rail *rail, uint32_t *mark)
{
	bool port = rail->id->port_num == e->element.port_num;

	switch (e->event_type) {
	case IBV_EVENT_QP_FATAL:
	case IBV_EVENT_QP_REQ_ERR:
	case IBV_EVENT_QP_ACCESS_ERR:
		*mark = PST_CAUSE_QP_FATAL;
		return e->element.qp == rail->qp;
	case IBV_EVENT_DEVICE_FATAL:
		*mark = PST_CAUSE_DEVICE_GONE;
		return true;
	case IBV_EVENT_PORT_ERR:
		*mark = PST_CAUSE_PORT_DOWN;
		return port;
	case IBV_EVENT_PORT_ACTIVE:
		*mark = PST_CAUSE_NONE;
		return port;
	default:
		return false;
	}
}

static void pass_on(const struct ibv_context *ctx, const struct ibv_async_event *event)
{
	struct entry *e;
	uint32_t mark;

	pthread_mutex_lock(&lock);
	LIST_FOREACH(e, &entries, next)
	{
		if (e->rail->dev->ctx != ctx || !concerns(event, e->rail, &mark))
			continue;
		e->rail->async = mark;
		pst_verbs_cq_news(e->rail->cq);
	}
	pthread_mutex_unlock(&lock);
}

void pst_verbs_async_ready(struct verbs_source *src)
{
	struct verbs_ccq *ccq = pst_container(src, struct verbs_ccq, async);
	struct ibv_context *ctx = ccq->cq->context;
	struct ibv_async_event event;

	while (!pst_ibv.get_async_event(ctx, &event)) {
		pass_on(ctx, &event);
		pst_ibv.ack_async_event(&event);
	}
}
