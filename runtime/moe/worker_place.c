/* SPDX-License-Identifier: Apache-2.0 */
/* worker_place.c - experts are placed by any thread; the worker's own carries it out. */
#include "runtime/moe/worker_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <penstock/ioctl.h>
#include <stddef.h>

/* It is its caller's, who waits. */
struct place_order {
	uint32_t layer, index, order;
	bool answered;
	int rc;
	struct pst_error err;
	struct place_order *next;
};

static int nobody(uint32_t layer, uint32_t index, struct pst_error *err)
{
	return pst_fail(err, -ENODATA, "expert %u of layer %u: no engine is served here", index,
			layer);
}

/* All or nothing where one may be full: first it is asked of all, then done. */
static int may_pin(const struct pst_worker *w, struct place_order *o)
{
	int rc = 0;

	for (const struct seat *s = w->seats; s && rc != -ENOSPC; s = s->next)
		rc = pst_session_may_pin(s->session, o->layer, o->index, &o->err);
	return rc == -ENOSPC ? rc : 0;
}

static int place(struct pst_worker *w, struct place_order *o)
{
	int done = -ENODATA, rc = o->order == PST_EXPERT_PIN ? may_pin(w, o) : 0;
	struct pst_error err = {0};

	if (rc < 0)
		return rc;
	if (!w->seats)
		return nobody(o->layer, o->index, &o->err);
	for (struct seat *s = w->seats; s; s = s->next) {
		rc = pst_session_place(s->session, o->layer, o->index, o->order, &err);
		/* those that have no such expert do not count, if there are others */
		if (done == -ENODATA || (rc < 0 && rc != -ENODATA)) {
			done = rc;
			o->err = err;
		}
	}
	return done;
}

static struct place_order *take(struct orders *q)
{
	struct place_order *o;

	pthread_mutex_lock(&q->lock);
	o = q->first;
	if (o)
		q->first = o->next;
	pthread_mutex_unlock(&q->lock);
	return o;
}

static void answer(struct orders *q, struct place_order *o, int rc)
{
	pthread_mutex_lock(&q->lock);
	o->rc = rc;
	o->answered = true;
	pthread_cond_broadcast(&q->done);
	pthread_mutex_unlock(&q->lock);
}

void pst_worker_obey(struct pst_worker *w)
{
	struct place_order *o;

	if (!atomic_exchange(&w->orders.some, false))
		return;
	while ((o = take(&w->orders)))
		answer(&w->orders, o, place(w, o));
}

void pst_worker_open_orders(struct pst_worker *w, bool serving)
{
	struct place_order *o;

	pthread_mutex_lock(&w->orders.lock);
	w->orders.serving = serving;
	pthread_mutex_unlock(&w->orders.lock);
	while (!serving && (o = take(&w->orders)))
		answer(&w->orders, o, nobody(o->layer, o->index, &o->err));
}

static void put_last(struct orders *q, struct place_order *o)
{
	struct place_order **at = &q->first;

	while (*at)
		at = &(*at)->next;
	*at = o;
	atomic_store(&q->some, true);
}

int pst_worker_order(struct pst_worker *w, uint32_t layer, uint32_t index, uint32_t order,
		     struct pst_error *err)
{
	struct place_order o = {.layer = layer, .index = index, .order = order};
	struct orders *q = &w->orders;

	if (order < PST_EXPERT_PIN || order > PST_EXPERT_BRING)
		return pst_fail(err, -EINVAL, "order %u: there is no such order", order);
	pthread_mutex_lock(&q->lock);
	if (!q->serving) {
		pthread_mutex_unlock(&q->lock);
		return nobody(layer, index, err);
	}
	put_last(q, &o);
	pst_cq_wake(pst_inbox_cq(w->inbox));
	while (!o.answered)
		pthread_cond_wait(&q->done, &q->lock);
	pthread_mutex_unlock(&q->lock);
	return o.rc < 0 ? pst_fail(err, o.rc, "%s", o.err.text) : 0;
}
