/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/child.h"

#include "daemon/events.h"
#include "daemon/children/experts.h"
#include "daemon/log.h"
#include "daemon/children/tables.h"

#include <errno.h>
#include <string.h>

#define TURN 64	  /* messages of one child, then others have their turn */
#define LAST 8192 /* of one that is dead: more than a socket holds */

static void hear_hello(struct child *ch, const struct pst_leash_hello *m)
{
	struct children_listener *l = ch->set->listener;
	struct order *started;
	bool again = ch->greeted;

	if (m->role != ch->role || (pid_t)m->pid != ch->pid) {
		child_broke(ch, "the HELLO of another process");
		return;
	}
	ch->hello = *m;
	ch->greeted = true;
	if (!ch->listened) {
		/* a port that was free is kept */
		ch->listened = true;
		memcpy(ch->url, m->url, sizeof(ch->url));
		child_keep(ch);
	}
	if (again)
		return;
	if (!ch->adopted)
		events_emit(ch->set->d->events, PST_EVENT_STARTED, ch->id, ch->pid,
			    "%s listens at %s (process %d)", child_label(ch), ch->url,
			    (int)ch->pid);
	if (l && ch->role == PST_LEASH_WORKER)
		l->hello(l, ch->id, ch->kind);
	started = order_find(ch, 0);
	if (started)
		order_end(started, 0, NULL, NULL);
}

/* What computes for too long is caught twice: it may be that all stood still, this process too. */
static void hear_beat(struct child *ch, const struct pst_leash_beat *m)
{
	uint32_t limit = ch->set->d->config.silence_ms;
	bool stuck = m->busy_ms > limit && ch->beat.busy_ms > limit && m->calls == ch->beat.calls;

	ch->beat = *m;
	if (stuck)
		child_hung(ch, m->busy_ms, "computed the same");
}

static void say_full(struct child *ch, int rc)
{
	if (ch->set->full_said)
		return;
	ch->set->full_said = true;
	log_line(LOG_WARNING, NULL, "%s has more experts or tables than are remembered (%s)",
		 child_label(ch), strerror(-rc));
}

static void hear_expert(struct child *ch, const struct pst_leash_expert *m)
{
	int rc;

	if (ch->role != PST_LEASH_WORKER) {
		child_broke(ch, "an EXPERT, which no server has,");
		return;
	}
	rc = experts_tell(ch->set->experts, ch->id, m, loop_now_ms());
	if (rc < 0)
		say_full(ch, rc);
}

static void hear_table(struct child *ch, const struct pst_leash_table *m)
{
	int rc;

	if (ch->role != PST_LEASH_SERVER) {
		child_broke(ch, "a TABLE, which no worker has,");
		return;
	}
	rc = tables_tell(ch->set->tables, ch->id, m);
	if (rc < 0)
		say_full(ch, rc);
}

static void hear_answer(struct child *ch, const struct pst_leash_answer *m)
{
	struct order *o = order_find(ch, m->hdr.seq);

	/* those of an earlier daemon may still come */
	if (m->hdr.seq == ch->last_order && !m->error.code)
		ch->finished = true;
	if (!o)
		return;
	if (o->type == PST_LEASH_CHECK && !m->error.code) {
		child_broke(ch, "an ANSWER to a CHECK");
		return;
	}
	/* the process has yet to end */
	if ((o->type == PST_LEASH_DRAIN || o->type == PST_LEASH_STOP) && !m->error.code)
		return;
	order_end(o, m->error.code, &m->error, NULL);
}

static void hear_checked(struct child *ch, const struct pst_leash_checked *m)
{
	struct order *o = order_find(ch, m->hdr.seq);

	if (o && o->type == PST_LEASH_CHECK)
		order_end(o, m->error.code, &m->error, &m->hdr);
	else if (o)
		child_broke(ch, "a CHECKED to what is no CHECK");
}

static void hear_fail(struct child *ch, const struct pst_leash_answer *m)
{
	if (ch->killed)
		return;
	ch->fail_code = m->error.code;
	snprintf(ch->why, sizeof(ch->why), "%.255s", m->error.text);
}

static void hear(struct child *ch, const union leash_message *m)
{
	switch (m->hdr.type) {
	case PST_LEASH_HELLO:
		hear_hello(ch, &m->hello);
		break;
	case PST_LEASH_BEAT:
		hear_beat(ch, &m->beat);
		break;
	case PST_LEASH_EXPERT:
		hear_expert(ch, &m->expert);
		break;
	case PST_LEASH_TABLE:
		hear_table(ch, &m->table);
		break;
	case PST_LEASH_ANSWER:
		hear_answer(ch, &m->answer);
		break;
	case PST_LEASH_CHECKED:
		hear_checked(ch, &m->checked);
		break;
	case PST_LEASH_FAIL:
		hear_fail(ch, &m->answer);
		break;
	}
	if (m->hdr.type != PST_LEASH_HELLO && m->hdr.type != PST_LEASH_BEAT)
		return;
	ch->heard_ms = loop_now_ms();
	if (ch->leash.in)
		child_watch(ch);
}

/* It ends, or has let its leash go: then it is of no use, and must end soon. */
static void hear_end(struct child *ch, int rc, const struct pst_error *err)
{
	loop_unwatch(ch->set->d->loop, &ch->leash);
	if (rc == -EPROTO)
		child_broke(ch, err->text);
	else
		loop_after(ch->set->d->loop, &ch->quiet, ch->set->times.stop_ms);
}

void child_read(struct child *ch, bool all)
{
	union leash_message m;
	struct pst_error err = {0};
	int rc = 1;

	for (unsigned int n = 0; rc > 0 && n < (all ? LAST : TURN) && ch->leash.in; n++) {
		rc = leash_recv(ch->leash.fd, LEASH_CHILD, &m, NULL, &err);
		if (rc > 0)
			hear(ch, &m);
	}
	if (rc < 0)
		hear_end(ch, rc, &err);
}
