/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/moe/crew.h"

#include "rdma/fail.h"
#include "runtime/store/region.h"
#include "runtime/store/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONNECT_TIMEOUT_MS 20000
#define REACH_MS	   100 /* until the first look whether the worker still runs */
#define SEND_TIMEOUT_MS	   2000
#define SERVERS_MS	   500	 /* until a server that ended is missed here too */
#define CUT_MS		   30000 /* and then a worker that reaches no server is tried again */
#define MAX_REPLACEMENTS   16	 /* of one worker, without an answer in between */
#define NOBODY		   UINT32_MAX

enum state { IDLE, TO_SEND, SENT };

struct member {
	struct pst_link *link; /* NULL: dead */
	unsigned int failures; /* since it last answered */
	uint64_t rows;	       /* given to it in this request */
	int64_t deadline;
	unsigned int outstanding; /* messages */
	bool kept;		  /* by others: it may come back by itself */
	int64_t not_before;	  /* it reached no server: to be tried again then */
	bool drained;		  /* it sent us away: its end is no death */
	bool passed;		  /* so in this request: others are there first */
};

/* One expert of the request under way. */
struct share {
	enum state state;
	uint32_t worker;
	uint64_t seq; /* of the message that it is in */
};

struct pst_crew {
	struct pst_crew_options o;
	struct pst_inbox *inbox;
	struct pst_region *rows, *results;
	struct member *member;
	struct share *share;	      /* [experts] */
	uint32_t *order;	      /* experts, largest first */
	const uint32_t *first;	      /* of the request under way */
	struct pst_msg_experts *head; /* of PST_MSG_MAX bytes: the message under way */
	uint64_t seq;
	uint64_t restarts, resent;
	struct pst_error gone; /* what the last one said that drained */
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Creation */

int pst_crew_create(const struct pst_crew_options *opts, struct pst_crew **out,
		    struct pst_error *err)
{
	struct pst_crew *c = calloc(1, sizeof(*c));
	int rc = -ENOMEM;

	if (!c)
		return pst_fail(err, rc, "no memory for a crew");
	c->o = *opts;
	if (!c->o.connect_ms)
		c->o.connect_ms = CONNECT_TIMEOUT_MS;
	c->member = calloc(opts->workers, sizeof(*c->member));
	c->share = calloc(opts->experts, sizeof(*c->share));
	c->order = calloc(opts->experts, sizeof(*c->order));
	c->head = calloc(1, PST_MSG_MAX);
	if (!c->member || !c->share || !c->order || !c->head)
		pst_fail(err, rc, "no memory for a crew of %u", opts->workers);
	else
		rc = pst_inbox_create(opts->fabric, PST_INBOX_KEEP, &c->inbox, err);
	if (!rc)
		rc = pst_pool_region(c->o.fabric, opts->rows, PST_ACCESS_READ, &c->rows, err);
	if (!rc)
		rc = pst_pool_region(c->o.fabric, opts->results, PST_ACCESS_WRITE, &c->results,
				     err);
	if (rc < 0) {
		pst_crew_destroy(c);
		return rc;
	}
	*out = c;
	return 0;
}

void pst_crew_destroy(struct pst_crew *c)
{
	if (!c)
		return;
	for (unsigned int w = 0; c->member && w < c->o.workers; w++)
		if (c->member[w].link)
			pst_inbox_close(c->inbox, c->member[w].link);
	pst_inbox_destroy(c->inbox);
	if (c->results)
		pst_region_release(c->results);
	if (c->rows)
		pst_region_release(c->rows);
	free(c->head);
	free(c->order);
	free(c->share);
	free(c->member);
	free(c);
}

void pst_crew_stat(const struct pst_crew *c, uint64_t *restarts, uint64_t *resent)
{
	*restarts = c->restarts;
	*resent = c->resent;
}

/* Events: answers, and deaths */

static uint32_t member_of(const struct pst_crew *c, const struct pst_link *link)
{
	for (uint32_t w = 0; w < c->o.workers; w++)
		if (c->member[w].link == link)
			return w;
	return NOBODY;
}

static void lose(struct pst_crew *c, uint32_t w)
{
	struct member *m = &c->member[w];

	if (!m->link)
		return;
	pst_inbox_close(c->inbox, m->link);
	m->link = NULL;
	m->outstanding = 0;
	for (uint32_t e = 0; e < c->o.experts; e++)
		if (c->share[e].state == SENT && c->share[e].worker == w) {
			c->share[e].state = TO_SEND;
			c->resent++;
		}
}

/* It has begun nothing of what it was asked last, and will begin nothing more. */
static void leave(struct pst_crew *c, uint32_t w, const struct pst_msg_answer *a)
{
	c->gone.code = 0;
	pst_fail(&c->gone, a->error.code, "%.*s", PST_ERROR_TEXT - 1, a->error.text);
	lose(c, w);
	c->member[w].drained = c->member[w].passed = true;
}

static bool lost_way(int code)
{
	return code == -ECONNRESET || code == -ENOTCONN || code == -ETIMEDOUT ||
	       code == -ECONNREFUSED || code == -EHOSTUNREACH || code == -ENETUNREACH ||
	       code == -ECONNABORTED || code == -EPIPE;
}

/*
 * It cannot reach a server that this engine reaches: no more than a worker that died. Whose
 * fault it is shows when a server that ended is missed here, a little later perhaps.
 */
static int cut_off(struct pst_crew *c, uint32_t w, struct pst_error *err)
{
	int64_t end = now_ms() + SERVERS_MS;
	int rc;

	while (!(rc = c->o.reach(c->o.reach_ctx, err)) && now_ms() < end)
		pst_inbox_pump(c->inbox, REACH_MS / 4);
	if (!rc)
		lose(c, w);
	return rc;
}

static int refused(struct pst_crew *c, uint32_t w, const struct pst_msg_answer *a,
		   struct pst_error *err)
{
	int code = a->error.code < 0 ? a->error.code : -EPROTO;

	if (code == -ESHUTDOWN) {
		leave(c, w, a);
		return 0;
	}
	if (c->o.reach && lost_way(code))
		return cut_off(c, w, err);
	return pst_fail(err, code, "%s: %.*s", pst_link_peer(c->member[w].link), PST_ERROR_TEXT - 1,
			a->error.text);
}

static int answered(struct pst_crew *c, uint32_t w, const struct pst_wc *wc, struct pst_error *err)
{
	const struct pst_msg_answer *a = pst_rpc_check(wc->msg, wc->len, sizeof(*a));
	bool ours = false;

	if (!a || a->hdr.type != (PST_MSG_EXPERTS | PST_MSG_ANSWER))
		return 0;
	for (uint32_t e = 0; e < c->o.experts; e++) {
		if (c->share[e].state != SENT || c->share[e].seq != a->hdr.seq ||
		    c->share[e].worker != w)
			continue;
		ours = true;
		if (!a->error.code)
			c->share[e].state = IDLE;
	}
	if (!ours)
		return 0;
	if (a->error.code)
		return refused(c, w, a, err);
	c->member[w].failures = 0;
	c->member[w].outstanding--;
	c->member[w].deadline = now_ms() + c->o.timeout_ms;
	return 0;
}

static int take(struct pst_crew *c, const struct pst_wc *wc, struct pst_error *err)
{
	uint32_t w = member_of(c, wc->link);

	if (w == NOBODY)
		return 0;
	if (wc->kind == PST_WC_DOWN)
		lose(c, w);
	else if (wc->kind == PST_WC_MESSAGE)
		return answered(c, w, wc, err);
	return 0;
}

/* Connecting */

/* An RPC whose waiting does not lose what other workers say meanwhile. */
static int set_up(struct pst_crew *c, unsigned int worker, struct pst_link *link,
		  struct pst_error *err)
{
	struct pst_msg_worker_setup m = c->o.setup;
	struct pst_msg_answer answer;
	int64_t end = now_ms() + c->o.connect_ms;
	struct pst_key key;
	struct pst_wc wc;
	int rc;

	m.hdr = (struct pst_msg){.size = sizeof(m), .type = PST_MSG_WORKER_SETUP, .seq = ++c->seq};
	rc = pst_link_grant(link, c->rows, PST_ACCESS_READ, &key);
	memcpy(&m.rows, &key, sizeof(key));
	if (!rc)
		rc = pst_link_grant(link, c->results, PST_ACCESS_WRITE, &key);
	memcpy(&m.results, &key, sizeof(key));
	if (!rc)
		rc = pst_link_send(link, &m, sizeof(m), SEND_TIMEOUT_MS);
	if (rc < 0)
		return pst_fail(err, rc, "%s: cannot be set up: %s", pst_link_peer(link),
				strerror(-rc));
	while (now_ms() < end) {
		rc = pst_inbox_next(c->inbox, &wc, REACH_MS);
		if (rc == 0 && c->o.check)
			rc = c->o.check(c->o.ctx, worker, err);
		if (rc == 0 && c->o.reach)
			rc = c->o.reach(c->o.reach_ctx, err);
		if (rc == -ECHILD || rc == -EHOSTDOWN)
			return rc;
		if (rc <= 0)
			continue;
		if (wc.link != link) {
			rc = take(c, &wc, err);
			if (rc < 0)
				return rc;
			continue;
		}
		if (wc.kind == PST_WC_DOWN)
			return pst_fail(err, -ECONNRESET, "%s: died while it was set up",
					pst_link_peer(link));
		if (wc.kind != PST_WC_MESSAGE || !pst_rpc_check(wc.msg, wc.len, sizeof(answer)))
			continue;
		memcpy(&answer, wc.msg, sizeof(answer));
		answer.error.text[PST_ERROR_TEXT - 1] = 0;
		if (c->o.reach && lost_way(answer.error.code))
			c->member[worker].not_before = now_ms() + CUT_MS;
		if (answer.error.code)
			return pst_fail(err, answer.error.code, "%s", answer.error.text);
		return 0;
	}
	return pst_fail(err, -ETIMEDOUT, "%s: does not answer", pst_link_peer(link));
}

/*
 * A worker may still be starting. That it ended is found out long before the time is over: tries
 * are short at first, and each is twice as long as the one before.
 */
static int reach(struct pst_crew *c, unsigned int worker, const char *url, int timeout_ms,
		 struct pst_link **out, struct pst_error *err)
{
	int64_t end = now_ms() + timeout_ms;
	int rc;

	for (int ms = REACH_MS;; ms *= 2) {
		struct pst_error why = {0};
		int64_t left = end - now_ms();

		if (left > ms)
			left = ms;
		rc = pst_connect(pst_inbox_cq(c->inbox), url, left > 0 ? (int)left : 0, out, &why);
		if (!rc)
			return 0;
		if ((rc != -ECONNREFUSED && rc != -ETIMEDOUT) || now_ms() >= end)
			return pst_fail(err, rc, "%s", why.text);
		rc = c->o.check ? c->o.check(c->o.ctx, worker, err) : 0;
		if (rc < 0)
			return rc;
	}
}

static int connect_to(struct pst_crew *c, unsigned int worker, const char *url, int timeout_ms,
		      struct pst_error *err)
{
	struct pst_link *link;
	int rc = reach(c, worker, url, timeout_ms, &link, err);

	if (rc < 0)
		return rc;
	rc = set_up(c, worker, link, err);
	if (rc < 0) {
		pst_inbox_close(c->inbox, link);
		return rc;
	}
	c->member[worker].link = link;
	c->member[worker].outstanding = 0;
	return 0;
}

/*
 * A new worker in place of a dead one, or the same one again where others keep it; false: do
 * without, in the latter case for now.
 */
static bool revive(struct pst_crew *c, uint32_t w, struct pst_error *why)
{
	struct member *m = &c->member[w];
	char url[PST_WIRE_URL];

	while (c->o.replace && m->failures < MAX_REPLACEMENTS) {
		struct pst_error last = {0};
		int ms = c->o.replace(c->o.ctx, w, url, &last), rc = ms;

		m->kept = ms > 0 || ms == -EAGAIN;
		if (ms >= 0)
			rc = connect_to(c, w, url, ms ? ms : c->o.connect_ms, &last);
		if (last.code)
			*why = last;
		/* who is not there yet has failed at nothing */
		m->failures += !m->kept || !rc;
		if (!rc) {
			c->restarts += !m->drained;
			m->drained = false;
			return true;
		}
		if (m->kept || rc == -EHOSTDOWN)
			return false;
	}
	return false;
}

/* All are dead, but others may be bringing one back. */
static bool revive_any(struct pst_crew *c, struct pst_error *why)
{
	int64_t end = now_ms() + c->o.connect_ms;
	bool kept;

	do {
		kept = false;
		for (uint32_t w = 0; w < c->o.workers; w++) {
			if (revive(c, w, why))
				return true;
			kept |= c->member[w].kept;
		}
		if (kept)
			pst_inbox_pump(c->inbox, REACH_MS / 4);
	} while (kept && now_ms() < end);
	return false;
}

int pst_crew_connect(struct pst_crew *c, unsigned int worker, const char *url,
		     struct pst_error *err)
{
	struct pst_error why = {0}, last = {0};
	int rc = connect_to(c, worker, url, c->o.connect_ms, &why);

	c->member[worker].drained = rc == -ESHUTDOWN;
	if ((rc == -ECHILD || rc == -ECONNRESET || rc == -ESHUTDOWN) && revive(c, worker, &last))
		rc = 0;
	/* another may do its work, or be found when there is work */
	if (rc == -ESHUTDOWN)
		rc = 0;
	return rc < 0 ? pst_fail(err, rc, "%s", last.code ? last.text : why.text) : 0;
}

/* Giving out */

static uint32_t rows_of(const struct pst_crew *c, uint32_t e)
{
	return c->first[e + 1] - c->first[e];
}

static int larger_first(const void *a, const void *b, void *ctx)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	uint32_t rx = rows_of(ctx, x), ry = rows_of(ctx, y);

	return rx != ry ? (rx < ry) - (rx > ry) : (x > y) - (x < y);
}

static uint32_t least_busy(const struct pst_crew *c, bool alive)
{
	uint32_t best = NOBODY;

	for (uint32_t w = 0; w < c->o.workers; w++)
		if ((!alive || c->member[w].link) &&
		    (best == NOBODY || c->member[w].rows < c->member[best].rows))
			best = w;
	return best;
}

static void share_out(struct pst_crew *c, uint32_t *owner, bool backward)
{
	for (uint32_t e = 0; e < c->o.experts; e++)
		c->order[e] = e;
	qsort_r(c->order, c->o.experts, sizeof(*c->order), larger_first, c);
	for (uint32_t w = 0; w < c->o.workers; w++)
		c->member[w].rows = c->member[w].passed = 0;
	for (uint32_t i = 0; i < c->o.experts; i++) {
		uint32_t e = c->order[i];
		struct share *s = &c->share[e];

		s->state = rows_of(c, e) ? TO_SEND : IDLE;
		if (s->state == IDLE)
			continue;
		if (!backward)
			owner[e] = least_busy(c, false);
		s->worker = owner[e];
		c->member[s->worker].rows += rows_of(c, e);
	}
}

/* Those experts of worker @w that are to be sent, as many as fit in a message. */
static int send_some(struct pst_crew *c, uint32_t w)
{
	struct pst_msg_experts *m = c->head;
	struct member *member = &c->member[w];
	int rc;

	m->count = 0;
	m->hdr.seq = ++c->seq;
	for (uint32_t e = 0; e < c->o.experts && m->count < PST_EXPERTS_MAX; e++) {
		struct share *s = &c->share[e];

		if (s->state != TO_SEND || s->worker != w)
			continue;
		m->item[m->count++] = (struct pst_wire_expert){
			.expert = e, .row = c->first[e], .rows = rows_of(c, e)};
		s->state = SENT;
		s->seq = m->hdr.seq;
	}
	m->hdr.size = (uint32_t)(sizeof(*m) + m->count * sizeof(*m->item));
	rc = pst_link_send(member->link, m, m->hdr.size, SEND_TIMEOUT_MS);
	if (!rc && !member->outstanding++)
		member->deadline = now_ms() + c->o.timeout_ms;
	return rc;
}

static uint32_t next_to_send(const struct pst_crew *c)
{
	for (uint32_t e = 0; e < c->o.experts; e++)
		if (c->share[e].state == TO_SEND)
			return e;
	return NOBODY;
}

/* Not now, while there are others. */
static bool passed_by(const struct member *m)
{
	return m->passed || now_ms() < m->not_before;
}

static int send_all(struct pst_crew *c, struct pst_error *err)
{
	struct pst_error why = c->gone;
	uint32_t e;

	while ((e = next_to_send(c)) != NOBODY) {
		uint32_t w = c->share[e].worker;

		if (!c->member[w].link && (passed_by(&c->member[w]) || !revive(c, w, &why))) {
			uint32_t other = least_busy(c, true);

			if (other == NOBODY && revive_any(c, &why))
				other = least_busy(c, true);
			if (other == NOBODY)
				return pst_fail(err, -ENOLINK,
						"no worker is left, and none can be had: %.400s",
						why.code ? why.text : "no way to start one");
			c->share[e].worker = other;
			c->member[other].rows += rows_of(c, e);
			continue;
		}
		if (send_some(c, w) < 0)
			lose(c, w);
	}
	return 0;
}

int pst_crew_ask(struct pst_crew *c, const struct pst_msg_experts *m, const uint32_t *first,
		 uint32_t *owner, struct pst_error *err)
{
	*c->head = *m;
	c->head->hdr = (struct pst_msg){.type = PST_MSG_EXPERTS};
	c->first = first;
	share_out(c, owner, m->what & PST_EXPERTS_BACKWARD);
	return send_all(c, err);
}

/* Waiting */

static bool all_idle(const struct pst_crew *c)
{
	for (uint32_t e = 0; e < c->o.experts; e++)
		if (c->share[e].state != IDLE)
			return false;
	return true;
}

/* Milliseconds until the first worker is overdue; those that are, are lost. */
static int overdue(struct pst_crew *c)
{
	int64_t now = now_ms(), first = now + c->o.timeout_ms;

	for (uint32_t w = 0; w < c->o.workers; w++) {
		struct member *m = &c->member[w];

		if (!m->link || !m->outstanding)
			continue;
		if (m->deadline <= now)
			lose(c, w);
		else if (m->deadline < first)
			first = m->deadline;
	}
	return (int)(first - now);
}

int pst_crew_wait(struct pst_crew *c, struct pst_error *err)
{
	struct pst_wc wc;

	while (!all_idle(c)) {
		int rc = pst_inbox_next(c->inbox, &wc, overdue(c));

		if (rc < 0 && rc != -EINTR)
			return pst_fail(err, rc, "waiting for workers: %s", strerror(-rc));
		rc = rc > 0 ? take(c, &wc, err) : 0;
		if (!rc)
			rc = send_all(c, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int pst_crew_worker_stat(struct pst_crew *c, unsigned int w, struct pst_msg_stated *out)
{
	struct pst_msg m = {.size = sizeof(m), .type = PST_MSG_STAT};
	int rc;

	if (!c->member[w].link)
		return -ENOTCONN;
	rc = pst_rpc(c->inbox, c->member[w].link, &m, out, sizeof(*out), c->o.timeout_ms, NULL);
	if (rc < 0)
		lose(c, w); /* its end may have been heard, and will not be again */
	return rc;
}
