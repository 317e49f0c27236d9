/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/child.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

static void take_out(struct order *o)
{
	loop_cancel(o->child->set->d->loop, &o->timer);
	TAILQ_REMOVE(&o->child->orders, o, on_child);
}

void order_end(struct order *o, int rc, const struct pst_error *err, const struct pst_leash *m)
{
	struct pst_error said = {0};

	if (err)
		said = *err;
	said.code = rc;
	if (rc < 0 && !said.text[0])
		snprintf(said.text, sizeof(said.text), "%s: %s", child_label(o->child),
			 strerror(-rc));
	take_out(o);
	if (o->done)
		o->done(o->ctx, rc, rc < 0 ? &said : NULL, m);
	free(o);
}

static void timed_out(struct order *o)
{
	struct pst_error err = {0};

	if (o->type == PST_LEASH_DRAIN)
		pst_fail(&err, -ETIMEDOUT,
			 "%s still serves %u engines: it drains on, and stops when they have left",
			 child_label(o->child), o->child->beat.engines);
	else
		pst_fail(&err, -ETIMEDOUT, "%s does not answer", child_label(o->child));
	order_end(o, err.code, &err, NULL);
}

static void on_time(struct loop_timer *timer)
{
	struct order *o = OF(struct order, timer, timer);

	if (o->over)
		order_end(o, o->rc, &o->err, NULL);
	else
		timed_out(o);
}

int order_new(struct child *ch, uint32_t type, int timeout_ms, order_fn *done, void *ctx,
	      struct order **out)
{
	struct order *o = calloc(1, sizeof(*o));

	if (!o)
		return -ENOMEM;
	*o = (struct order){.child = ch, .type = type, .done = done, .ctx = ctx};
	o->seq = type ? ++ch->set->seq : 0;
	o->timer.fire = on_time;
	TAILQ_INSERT_TAIL(&ch->orders, o, on_child);
	if (timeout_ms)
		loop_after(ch->set->d->loop, &o->timer, timeout_ms);
	*out = o;
	return 0;
}

void order_later(struct order *o, int rc, const char *why)
{
	o->over = true;
	o->rc = rc;
	snprintf(o->err.text, sizeof(o->err.text), "%s%s%s", why ? child_label(o->child) : "",
		 why ? " " : "", why ? why : "");
	loop_after(o->child->set->d->loop, &o->timer, 0);
}

void order_send(struct order *o, const struct pst_leash *m, int fd)
{
	int rc;

	if (!child_runs(o->child)) {
		order_later(o, -ECHILD,
			    o->child->stopped ? "is stopped" : "is not running now: it died");
		return;
	}
	rc = leash_send(o->child->leash.fd, m, fd);
	if (rc == -EAGAIN)
		order_later(o, -EAGAIN, "does not read what it is told");
	else if (rc < 0)
		order_later(o, -ECHILD, "has let go of its leash: it ends");
}

struct order *order_find(const struct child *ch, uint64_t seq)
{
	struct order *o;

	TAILQ_FOREACH(o, &ch->orders, on_child)
	if (o->seq == seq && !o->over)
		return o;
	return NULL;
}

/* Those that are over already end from the loop. */
static struct order *first_open(const struct child *ch)
{
	struct order *o;

	TAILQ_FOREACH(o, &ch->orders, on_child)
	if (!o->over)
		return o;
	return NULL;
}

static void end_died(struct order *o, bool well)
{
	const struct child *ch = o->child;
	struct pst_error err = {0};

	if (o->type == PST_LEASH_STOP || (o->type == PST_LEASH_DRAIN && well)) {
		order_end(o, 0, NULL, NULL);
		return;
	}
	if (!o->type)
		pst_fail(&err, ch->fail_code ? ch->fail_code : -ECHILD,
			 "%s ended before it listened: %s", child_label(ch), ch->death);
	else if (o->type == PST_LEASH_DRAIN)
		pst_fail(&err, -ECHILD, "%s is stopped, but it did not end well: %s",
			 child_label(ch), ch->death);
	else
		pst_fail(&err, -ECHILD, "%s died before it answered: %s", child_label(ch),
			 ch->death);
	order_end(o, err.code, &err, NULL);
}

void orders_died(struct child *ch, bool well)
{
	struct order *o;

	while ((o = first_open(ch)))
		end_died(o, well);
}

void orders_free(struct child *ch)
{
	struct order *o;

	while ((o = TAILQ_FIRST(&ch->orders)))
		order_end(o, -ESHUTDOWN, NULL, NULL);
}
