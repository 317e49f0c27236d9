/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/child.h"

#include "daemon/devices/devices.h"
#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DRAIN_MS 60000 /* if nobody says how long it may take */

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

/* Starting and ending */

static int first_cpu(const struct children *c, uint32_t *id, struct pst_error *err)
{
	int rc = devices_find(c->d->devices, "cpu:0", id);

	return rc < 0 ? pst_fail(err, rc, "this host has no CPU with memory") : 0;
}

static int describe(struct child *ch, const struct pst_cmd_worker_start *how, struct pst_error *err)
{
	if (strchr((const char *)how->url, '?'))
		return pst_fail(err, -EINVAL,
				"a worker's URL has no settings: engines have their own");
	ch->device = how->device;
	ch->threads = how->threads;
	memcpy(ch->asked, how->url, sizeof(ch->asked));
	return how->device ? 0 : first_cpu(ch->set, &ch->device, err);
}

int children_start(struct children *c, const struct pst_cmd_worker_start *how, order_fn *done,
		   void *ctx, uint32_t *id, struct pst_error *err)
{
	struct child *ch = child_new(c, PST_LEASH_WORKER, 0);
	struct order *o;
	int rc;

	if (!ch)
		return pst_fail(err, -ENOMEM, "no memory for another worker");
	rc = describe(ch, how, err);
	if (!rc)
		rc = child_spawn(ch, err);
	if (!rc)
		rc = order_new(ch, 0, 0, done, ctx, &o);
	if (rc < 0) {
		child_kill(ch);
		child_unkeep(ch);
		child_free(ch);
		return pst_fail(err, rc, "no memory to start a worker");
	}
	*id = ch->id;
	return 0;
}

/* What has no process has none to end. */
static void stop_waiting(struct child *ch)
{
	loop_cancel(ch->set->d->loop, &ch->next);
	if (!ch->stopped)
		child_stopped(ch);
}

int child_stop(struct child *ch, order_fn *done, void *ctx)
{
	struct order *o;
	int rc = order_new(ch, PST_LEASH_STOP, 0, done, ctx, &o);

	if (rc < 0)
		return rc;
	if (!child_runs(ch)) {
		ch->goal = GOAL_STOP;
		stop_waiting(ch);
		order_later(o, 0, NULL);
		return 0;
	}
	child_say_stop(ch);
	loop_after(ch->set->d->loop, &ch->next, ch->set->times.stop_ms);
	child_keep(ch);
	return 0;
}

static struct child *worker(const struct children *c, uint32_t id)
{
	return child_find(c, PST_LEASH_WORKER, id);
}

int children_stop(struct children *c, uint32_t id, order_fn *done, void *ctx)
{
	struct child *ch = worker(c, id);

	return ch ? child_stop(ch, done, ctx) : -ENOENT;
}

int children_drain(struct children *c, uint32_t id, int timeout_ms, order_fn *done, void *ctx)
{
	struct child *ch = worker(c, id);
	struct pst_leash m;
	struct order *o;
	int rc;

	if (!ch)
		return -ENOENT;
	rc = order_new(ch, PST_LEASH_DRAIN, timeout_ms ? timeout_ms : DRAIN_MS, done, ctx, &o);
	if (rc < 0)
		return rc;
	if (!child_runs(ch)) {
		ch->goal = GOAL_DRAIN;
		stop_waiting(ch);
		order_later(o, 0, NULL);
		return 0;
	}
	m = LEASH_HEADER(m, DRAIN, o->seq);
	order_send(o, &m, -1);
	if (!o->over && ch->goal == GOAL_RUN) {
		ch->goal = GOAL_DRAIN;
		ch->last_order = o->seq;
		child_keep(ch);
	}
	return 0;
}

/* Experts and kernels */

int children_place(struct children *c, uint32_t id, const struct pst_cmd_expert_place *how,
		   order_fn *done, void *ctx)
{
	struct pst_leash_place m = {.layer = how->layer, .index = how->index, .order = how->order};
	struct child *ch = worker(c, id);
	struct order *o;
	int rc;

	if (!ch)
		return -ENOENT;
	rc = order_new(ch, PST_LEASH_PLACE, c->times.order_ms, done, ctx, &o);
	if (rc < 0)
		return rc;
	m.hdr = LEASH_HEADER(m, PLACE, o->seq);
	order_send(o, &m.hdr, -1);
	return 0;
}

static int bind_in(struct child *ch, const char *op, uint32_t kernel, int image, order_fn *done,
		   void *ctx)
{
	struct pst_leash_bind m = {.kernel = kernel};
	struct order *o;
	int rc = order_new(ch, PST_LEASH_BIND, ch->set->times.order_ms, done, ctx, &o);

	if (rc < 0)
		return rc;
	m.hdr = LEASH_HEADER(m, BIND, o->seq);
	snprintf((char *)m.op, sizeof(m.op), "%s", op);
	order_send(o, &m.hdr, image);
	return 0;
}

int children_bind_one(struct children *c, uint32_t id, const char *op, uint32_t kernel, int image,
		      order_fn *done, void *ctx)
{
	struct child *ch = worker(c, id);

	return ch ? bind_in(ch, op, kernel, image, done, ctx) : -ENOENT;
}

int children_check(struct children *c, uint32_t id, const char *op, uint64_t seed, order_fn *done,
		   void *ctx)
{
	struct pst_leash_check m = {.seed = seed};
	struct child *ch = worker(c, id);
	struct order *o;
	int rc;

	if (!ch)
		return -ENOENT;
	rc = order_new(ch, PST_LEASH_CHECK, c->times.order_ms, done, ctx, &o);
	if (rc < 0)
		return rc;
	m.hdr = LEASH_HEADER(m, CHECK, o->seq);
	snprintf((char *)m.op, sizeof(m.op), "%s", op);
	order_send(o, &m.hdr, -1);
	return 0;
}

/* An order to all workers of a kind. */
struct many {
	TAILQ_ENTRY(many) on_set;
	struct children *set;
	struct loop_timer timer;
	unsigned int left;
	int rc;
	struct pst_error err;
	order_fn *done;
	void *ctx;
};

static void many_end(struct many *m)
{
	if (m->done)
		m->done(m->ctx, m->rc, m->rc < 0 ? &m->err : NULL, NULL);
	loop_cancel(m->set->d->loop, &m->timer);
	TAILQ_REMOVE(&m->set->many, m, on_set);
	free(m);
}

static void on_none(struct loop_timer *timer)
{
	many_end(OF(struct many, timer, timer));
}

/* One that died has no kernel any more: when it is back it is told by who listens. */
static void on_one(void *ctx, int rc, const struct pst_error *err, const struct pst_leash *answer)
{
	struct many *m = ctx;

	(void)answer;
	if (rc < 0 && rc != -ECHILD && !m->rc) {
		m->rc = rc;
		m->err = *err;
	}
	if (!--m->left)
		many_end(m);
}

void many_end_all(struct children *c)
{
	struct many *m;

	while ((m = TAILQ_FIRST(&c->many))) {
		m->rc = pst_fail(&m->err, -ESHUTDOWN, "the daemon ends");
		many_end(m);
	}
}

int children_bind(struct children *c, uint32_t kind, const char *op, uint32_t kernel, int image,
		  order_fn *done, void *ctx)
{
	struct many *m = calloc(1, sizeof(*m));
	struct child *ch;

	if (!m)
		return -ENOMEM;
	*m = (struct many){.set = c, .timer.fire = on_none, .done = done, .ctx = ctx};
	TAILQ_INSERT_TAIL(&c->many, m, on_set);
	TAILQ_FOREACH(ch, &c->all, on_set)
	{
		if (ch->role != PST_LEASH_WORKER || ch->kind != kind || !ch->greeted ||
		    !child_runs(ch))
			continue;
		m->left++;
		/* no memory for the order: then it is the first that failed */
		if (bind_in(ch, op, kernel, image, on_one, m) < 0) {
			m->left--;
			m->rc = pst_fail(&m->err, -ENOMEM, "no memory for an order");
		}
	}
	if (!m->left)
		loop_after(c->d->loop, &m->timer, 0);
	return 0;
}
