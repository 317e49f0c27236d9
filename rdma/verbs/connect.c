/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connector's side: a rail to each host of the URL. The first that can be had makes the link;
 * those that cannot, and those that are lost later, are tried again, less and less often.
 */
#include "rdma/fail.h"
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAUSE_MIN 5 /* ms */
#define PAUSE_MAX 200
#define RETRY_MIN 200
#define RETRY_MAX 10000

struct attempt {
	struct verbs_cq *cq;
	const char *url;
	struct pst_url to;
	struct pst_link_hello hello;
	int64_t end;
};

static void fill_hello(struct attempt *a)
{
	const struct pst_settings *set = &a->cq->base.fab->set;

	a->hello = (struct pst_link_hello){
		.fabric = 'v',
		.crc = set->crc,
		.ways = (uint8_t)a->to.hosts,
		.recv = VERBS_RECVS,
		.timeout_ms = set->timeout_ms,
		.pid = (uint32_t)getpid(),
	};
}

static struct verbs_rail *begin(struct verbs_cq *cq, const struct pst_url *to,
				const struct pst_link_hello *hello, int64_t deadline)
{
	struct verbs_rail *rail = pst_verbs_rail_new(cq);
	int rc;

	if (!rail)
		return NULL;
	rail->way = hello->way;
	rail->hello = *hello;
	rc = pst_verbs_rail_connect(rail, to->host[hello->way], to->port, deadline);
	if (rc)
		pst_verbs_settle(rail, rc);
	cq->tick_at = 0;
	return rail;
}

/* One try for one rail. */
static int try_once(struct attempt *a, int64_t deadline, struct verbs_rail **out,
		    struct pst_error *err)
{
	struct verbs_rail *rail = begin(a->cq, &a->to, &a->hello, deadline);
	int rc;

	if (!rail)
		return -ENOMEM;
	while (!rail->settled)
		pst_verbs_turn(a->cq, deadline - pst_verbs_now());
	rc = rail->result;
	if (!rc) {
		*out = rail;
		return 0;
	}
	*err = rail->err;
	pst_verbs_rail_free(rail);
	return rc;
}

static bool may_come(int rc)
{
	return rc == -ECONNREFUSED || rc == -EAGAIN || rc == -ECONNRESET || rc == -EHOSTUNREACH ||
	       rc == -ENETDOWN;
}

static void rest(struct attempt *a, int64_t ms)
{
	int64_t until = pst_verbs_now() + ms;

	if (until > a->end)
		until = a->end;
	for (int64_t now; (now = pst_verbs_now()) < until;)
		pst_verbs_turn(a->cq, until - now);
}

/* The first rail, trying again while the server may still be starting. */
static int first_rail(struct attempt *a, struct verbs_rail **out, struct pst_error *err)
{
	int64_t pause = PAUSE_MIN;
	int rc = -ETIMEDOUT;

	for (;;) {
		for (unsigned int i = 0; i < a->to.hosts; i++) {
			int64_t now = pst_verbs_now();
			int64_t share = (a->end - now) / (int64_t)(a->to.hosts - i);

			struct pst_error why = {0};
			int got = try_once(a, now + share, out, &why);

			if (!got || (!may_come(got) && got != -ETIMEDOUT)) {
				*err = why;
				return got;
			}
			/* That time ran out says less than what was heard before. */
			if (got != -ETIMEDOUT || !err->code) {
				*err = why;
				rc = got;
			}
			/* Way 0 is where it begins: let it be another host's. */
			for (unsigned int k = 1; k < a->to.hosts; k++) {
				char host[sizeof(a->to.host[0])];

				memcpy(host, a->to.host[k - 1], sizeof(host));
				memcpy(a->to.host[k - 1], a->to.host[k], sizeof(host));
				memcpy(a->to.host[k], host, sizeof(host));
			}
		}
		if (pst_verbs_now() + pause >= a->end)
			return rc;
		rest(a, pause);
		pause = pause * 2 < PAUSE_MAX ? pause * 2 : PAUSE_MAX;
	}
}

static int make_link(struct attempt *a, struct verbs_rail *rail, struct verbs_link **out)
{
	const struct pst_link_welcome *w = &rail->hs.welcome;
	struct verbs_link *link = pst_verbs_link_new(a->cq, (uint8_t)a->to.hosts);
	int rc;

	if (!link)
		return -ENOMEM;
	link->url = malloc(sizeof(*link->url));
	if (!link->url) {
		rc = -ENOMEM;
		goto close_link;
	}
	*link->url = a->to;
	link->number = w->link;
	link->crc = w->crc;
	link->timeout_ms = w->timeout_ms;
	link->hello = a->hello;
	link->hello.link = w->link;
	snprintf(link->base.peer, sizeof(link->base.peer), "%.*s pid %u", (int)strcspn(a->url, "?"),
		 a->url, w->pid);
	link->base.pid = pst_verbs_pid_here(&rail->id->route.addr.dst_addr, w->pid);
	rc = pst_verbs_link_window(link, w->recv);
	if (!rc)
		rc = pst_verbs_link_join(link, rail);
	if (rc)
		goto close_link;
	*out = link;
	return 0;

close_link:
	pst_verbs_link_close(&link->base);
	return rc;
}

/* The other ways: begun all at once, waited for together. */
static void more_rails(struct attempt *a, struct verbs_link *link)
{
	bool busy = link->ways > 1;

	for (uint8_t way = 0; way < link->ways; way++)
		if (!link->way[way])
			link->retry[way].at = 1;
	pst_verbs_retry_tick(link, pst_verbs_now());
	while (busy && pst_verbs_now() < a->end && link->state == LINK_LIVE) {
		pst_verbs_turn(a->cq, a->end - pst_verbs_now());
		busy = false;
		for (uint8_t way = 0; way < link->ways; way++)
			busy |= link->retry[way].rail != NULL;
	}
}

int pst_verbs_connect(struct pst_cq *base, const char *url, int timeout_ms, struct pst_link **out,
		      struct pst_error *err)
{
	struct attempt a = {.cq = verbs_cq(base), .url = url};
	struct pst_error why = {0};
	struct verbs_rail *rail = NULL;
	struct verbs_link *link;
	int rc = pst_url_parse(url, &a.to, err);

	if (rc)
		return rc;
	a.end = timeout_ms < 0 ? INT64_MAX / 2 : pst_verbs_now() + timeout_ms;
	fill_hello(&a);
	rc = first_rail(&a, &rail, &why);
	if (rc)
		return pst_fail(err, rc, "connect to %.*s: %s", (int)strcspn(url, "?"), url,
				why.text[0] ? why.text : strerror(-rc));
	rc = make_link(&a, rail, &link);
	if (rc) {
		pst_verbs_rail_free(rail);
		return pst_fail(err, rc, "connect to %s: %s", url, strerror(-rc));
	}
	more_rails(&a, link);
	*out = &link->base;
	return 0;
}

void pst_verbs_retry_later(struct verbs_link *link, uint8_t way)
{
	struct verbs_retry *r = &link->retry[way];

	if (!link->url || link->closing || r->rail)
		return;
	r->pause = r->pause ? 2 * r->pause : RETRY_MIN;
	if (r->pause > RETRY_MAX)
		r->pause = RETRY_MAX;
	r->at = pst_verbs_now() + r->pause;
}

bool pst_verbs_retry_comes(const struct verbs_link *link)
{
	for (uint8_t way = 0; way < link->ways; way++) {
		const struct verbs_rail *rail = link->retry[way].rail;

		if (rail && rail->connected && !rail->result && rail->state == RAIL_SETUP)
			return true;
	}
	return false;
}

/* It did not come after all, and there is no other. */
static void give_up(struct verbs_link *link, const struct verbs_rail *rail)
{
	for (uint8_t way = 0; way < link->ways; way++)
		if (link->way[way])
			return;
	if (!pst_verbs_retry_comes(link))
		pst_verbs_link_fail(link, PST_CAUSE_PEER_CLOSED, rail->name, rail->err.text);
}

static void look_at(struct verbs_link *link, uint8_t way)
{
	struct verbs_retry *r = &link->retry[way];
	struct verbs_rail *rail = r->rail;
	int rc = rail->result;

	if (rail->state == RAIL_DYING && rail->qp)
		return;
	r->rail = NULL;
	if (!rc)
		rc = pst_verbs_link_join(link, rail);
	if (!rc) {
		r->pause = 0;
		return;
	}
	give_up(link, rail);
	pst_verbs_rail_free(rail);
	pst_verbs_retry_later(link, way);
}

void pst_verbs_retry_tick(struct verbs_link *link, int64_t now)
{
	for (uint8_t way = 0; way < link->ways; way++) {
		struct verbs_retry *r = &link->retry[way];

		if (r->rail && r->rail->settled)
			look_at(link, way);
		if (!r->at || now < r->at || r->rail || link->state != LINK_LIVE)
			continue;
		r->at = 0;
		link->hello.way = way;
		r->rail = begin(verbs_cq_of(link), link->url, &link->hello, now + link->timeout_ms);
		if (!r->rail)
			pst_verbs_retry_later(link, way);
	}
}
