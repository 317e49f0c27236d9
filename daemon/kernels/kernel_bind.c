/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel serves which op, and how workers come to know. */
#include "daemon/kernels/kernels_priv.h"

#include "daemon/log.h"
#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CALM_MS 1000 /* besides the time in which a worker that hangs is found */

/* A slot */

bool slot_has(const struct slot *s, const struct kernel *k)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (s->at[i] == k)
			return true;
	return false;
}

static void cut_out(struct slot *s, const struct kernel *k)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < s->n; i++)
		if (s->at[i] != k)
			s->at[n++] = s->at[i];
	s->n = n;
}

/* What serves now, and the others, by their places. */
static void set_states(struct slot *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		s->at[i]->state = i + 1 < s->n ? PST_KERNEL_REPLACED : PST_KERNEL_BOUND;
}

static struct kernel *oldest_loaded(const struct slot *s)
{
	for (uint32_t i = 0; i < s->n; i++)
		if (!s->at[i]->builtin)
			return s->at[i];
	return NULL;
}

void slot_push(struct slot *s, struct kernel *k)
{
	cut_out(s, k);
	if (s->n == SLOT_MAX) {
		struct kernel *old = oldest_loaded(s);

		cut_out(s, old);
		old->state = PST_KERNEL_TESTED;
		kernel_keep(s->ks, old);
	}
	/* what is built in goes to the bottom when it is nowhere else */
	if (!k->builtin && !slot_has(s, &s->ks->builtin[s->op])) {
		memmove(s->at + 1, s->at, s->n * sizeof(s->at[0]));
		s->at[0] = &s->ks->builtin[s->op];
		s->n++;
	}
	s->at[s->n++] = k;
	k->bound = ++s->ks->bound;
	set_states(s);
}

/* Workers are told */

static void tell(struct slot *s);

static void end_change(struct slot *s, int rc)
{
	struct change *c = s->change;

	s->change = NULL;
	request_answer(c->r, rc);
	free(c);
}

static void bound(struct slot *s)
{
	struct change *c = s->change;
	struct pst_cmd_kernel_rollback *arg = (struct pst_cmd_kernel_rollback *)c->r->arg;
	char to[96], from[96];

	if (c->rollback)
		arg->out_id = c->to->id;
	events_emit(s->ks->d->events, PST_EVENT_KERNEL_BOUND, c->to->id, c->from->id,
		    "%s serves in place of %s%s", kernel_label(c->to, to),
		    kernel_label(c->from, from), c->rollback ? ", by a rollback" : "");
	end_change(s, 0);
}

/* All but what was taken back meanwhile. */
static void put_back(struct slot *s, const struct change *c)
{
	c->to->state = PST_KERNEL_TESTED;
	s->n = 0;
	for (uint32_t i = 0; i < c->nbefore; i++)
		if (c->before[i]->state != PST_KERNEL_TAKEN_BACK)
			s->at[s->n++] = c->before[i];
	set_states(s);
	kernel_keep(s->ks, c->to);
	slot_keep(s);
}

/* Some worker could not: all go back to what served before. */
static void not_bound(struct slot *s, int rc, const struct pst_error *err)
{
	struct change *c = s->change;
	char to[96];

	pst_fail(&c->r->err, rc, "%s is not bound, what served before does again: %s",
		 kernel_label(c->to, to), err ? err->text : strerror(-rc));
	put_back(s, c);
	end_change(s, rc);
	tell(s);
}

static void told(void *ctx, int rc, const struct pst_error *err, const struct pst_leash *answer)
{
	struct slot *s = ctx;
	struct kernels *ks = s->ks;

	(void)answer;
	s->telling = false;
	if (ks->closed) {
		kernels_waited(ks);
		return;
	}
	if (s->change && slot_serving(s) != s->change->to) {
		char to[96];

		rc = pst_fail(&s->change->r->err, -EKEYREVOKED, "%s was taken back meanwhile",
			      kernel_label(s->change->to, to));
		end_change(s, rc);
	} else if (s->change && rc < 0) {
		not_bound(s, rc, err);
	} else if (s->change) {
		bound(s);
	} else if (rc < 0) {
		/* one that died is told when it begins again; one that cannot is a risk */
		log_line(LOG_WARNING, NULL, "op %s: not all workers have what is bound: %s",
			 pst_op_name(s->op), err ? err->text : strerror(-rc));
	}
	if (s->again && !s->telling)
		tell(s);
	kernels_waited(ks);
}

static uint32_t number_of(const struct kernel *k)
{
	return k->builtin ? 0 : k->id;
}

static void late(struct loop_timer *timer)
{
	struct slot *s = OF(struct slot, late, timer);

	told(s, s->late_rc, NULL, NULL);
}

/* All workers, of what serves now. */
static void tell(struct slot *s)
{
	const struct kernel *k = slot_serving(s);
	struct penstockd *d = s->ks->d;

	s->again = s->telling;
	if (s->telling)
		return;
	s->telling = true;
	kernels_wait(s->ks);
	s->late_rc = d->children ? children_bind(d->children, k->kind, pst_op_name(s->op),
						 number_of(k), k->image, told, s)
				 : 0;
	if (d->children && !s->late_rc)
		return;
	s->late.fire = late;
	loop_after(d->loop, &s->late, 0);
}

static void told_one(void *ctx, int rc, const struct pst_error *err, const struct pst_leash *answer)
{
	struct slot *s = ctx;

	(void)answer;
	if (rc < 0 && !s->ks->closed)
		log_line(LOG_WARNING, NULL, "op %s: %s", pst_op_name(s->op),
			 err ? err->text : strerror(-rc));
	kernels_waited(s->ks);
}

void slot_tell_one(struct slot *s, uint32_t worker)
{
	const struct kernel *k = slot_serving(s);

	kernels_wait(s->ks);
	if (children_bind_one(s->ks->d->children, worker, pst_op_name(s->op), number_of(k),
			      k->image, told_one, s) < 0)
		kernels_waited(s->ks);
}

/* Requests */

static int begin(struct slot *s, struct request *r, struct kernel *to, bool rollback)
{
	struct change *c = calloc(1, sizeof(*c));
	struct kernel *from = slot_serving(s);

	if (!c)
		return pst_fail(&r->err, -ENOMEM, "kernel %u: no memory to bind it", to->id);
	*c = (struct change){.r = r, .from = from, .to = to, .rollback = rollback, .nbefore = s->n};
	memcpy(c->before, s->at, sizeof(c->before));
	if (rollback) {
		cut_out(s, from);
		from->state = PST_KERNEL_TESTED;
		kernel_keep(s->ks, from);
	}
	slot_push(s, to);
	slot_keep(s);
	s->change = c;
	tell(s);
	return REQUEST_LATER;
}

static int find(struct kernels *ks, struct request *r, uint32_t id, struct kernel **k)
{
	*k = kernel_find(ks, id);
	if (!*k)
		return pst_fail(&r->err, -ENOENT, "kernel %u: there is no such kernel", id);
	if (ks->slot[(*k)->op].change)
		return pst_fail(&r->err, -EBUSY,
				"op %s: another kernel is being bound; ask again when it is",
				pst_op_name((*k)->op));
	return 0;
}

int kernels_bind(struct kernels *ks, struct request *r)
{
	const struct pst_cmd_kernel_bind *arg = (const struct pst_cmd_kernel_bind *)r->arg;
	struct kernel *k;
	char label[96];
	int rc = find(ks, r, arg->id, &k);

	if (rc < 0)
		return rc;
	if (k->state == PST_KERNEL_TAKEN_BACK)
		return pst_fail(&r->err, -EKEYREVOKED,
				"%s was taken back when it served, and is not bound again; load "
				"a better one",
				kernel_label(k, label));
	return slot_serving(&ks->slot[k->op]) == k ? 0 : begin(&ks->slot[k->op], r, k, false);
}

int kernels_rollback(struct kernels *ks, struct request *r)
{
	const struct pst_cmd_kernel_rollback *arg = (const struct pst_cmd_kernel_rollback *)r->arg;
	struct kernel *k;
	struct slot *s;
	char label[96];
	int rc = find(ks, r, arg->id, &k);

	if (rc < 0)
		return rc;
	s = &ks->slot[k->op];
	if (slot_serving(s) != k)
		return pst_fail(&r->err, -EINVAL, "%s is not bound: kernel %u serves its op",
				kernel_label(k, label), slot_serving(s)->id);
	if (s->n == 1)
		return pst_fail(&r->err, -EINVAL, "%s has replaced none", kernel_label(k, label));
	return begin(s, r, s->at[s->n - 2], true);
}

int kernels_unload(struct kernels *ks, struct request *r)
{
	const struct pst_cmd_kernel_unload *arg = (const struct pst_cmd_kernel_unload *)r->arg;
	struct kernel *k;
	char label[96];
	int rc = find(ks, r, arg->id, &k);

	if (rc < 0)
		return rc;
	if (k->builtin)
		return pst_fail(&r->err, -EPERM, "%s is built in", kernel_label(k, label));
	if (slot_has(&ks->slot[k->op], k))
		return pst_fail(&r->err, -EBUSY, "%s is %s", kernel_label(k, label),
				k->state == PST_KERNEL_BOUND ? "bound; roll it back first"
							     : "kept for a rollback");
	kernel_unkeep(ks, k);
	kernel_free(ks, k);
	return 0;
}

void kernel_take_back(struct kernels *ks, struct kernel *k, const char *why)
{
	struct slot *s = &ks->slot[k->op];
	bool served = slot_serving(s) == k;
	char label[96], next[96];

	if (k->builtin || !slot_has(s, k))
		return;
	cut_out(s, k);
	set_states(s);
	k->state = PST_KERNEL_TAKEN_BACK;
	ks->calm_until_ms = loop_now_ms() + CALM_MS + ks->d->config.silence_ms;
	ks->calm_bound = ks->bound;
	kernel_keep(ks, k);
	slot_keep(s);
	events_emit(ks->d->events, PST_EVENT_KERNEL_TAKEN_BACK, k->id, slot_serving(s)->id,
		    "%s is taken back, %s serves: %s", kernel_label(k, label),
		    kernel_label(slot_serving(s), next), why);
	if (served)
		tell(s);
}

void changes_end(struct kernels *ks)
{
	for (int op = 0; op < PST_OP_COUNT; op++) {
		struct slot *s = &ks->slot[op];

		if (s->change) {
			pst_fail(&s->change->r->err, -ECANCELED, "the daemon ends");
			end_change(s, -ECANCELED);
		}
		if (!s->late.in)
			continue;
		loop_cancel(ks->d->loop, &s->late);
		kernels_waited(ks);
	}
}
