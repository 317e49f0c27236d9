/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pull: whole experts, in bf16, by one-sided reads from a server.
 *
 * An expert is three matrices of hidden x inter. It is read in pieces, as many under way as the
 * depth allows; the next expert's first pieces follow the last of the one before, so every link
 * has memory for two. An expert's time is from its first piece posted to its last completed.
 */
#include "rdma/fail.h"
#include "tools/perf/route.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { HELD = 2 }; /* experts that a link has memory for */

struct puller {
	struct perf_remote *r;
	uint64_t start[HELD];
	uint32_t expert[HELD];
	uint64_t begun; /* experts */
};

struct pull {
	struct perf_client *c;
	struct puller *p;
	struct routing routing;
	struct histogram *h;
	uint64_t bytes, piece, pieces; /* of an expert; in an expert */
	uint64_t begun, done;	       /* experts, of all links */
	uint64_t limit;
	bool warm;
};

/* The next piece of @p's, if it may be posted now. */
static bool next_piece(struct pull *l, struct puller *p, struct pst_wr *wr)
{
	struct perf_remote *r = p->r;
	uint64_t nth = r->posted / l->pieces, off = r->posted % l->pieces * l->piece;
	unsigned int slot = nth % HELD;

	if (r->posted - r->done >= l->c->plan->depth)
		return false;
	if (!off) {
		if (l->begun >= l->limit || nth - r->done / l->pieces >= HELD)
			return false;
		routing_next(&l->routing, &p->expert[slot]);
		p->start[slot] = perf_ticks();
		l->begun++;
	}
	*wr = (struct pst_wr){
		.id = r->posted + 1,
		.op = PST_WR_READ,
		.local = l->c->memory.region,
		.local_addr = r->at + slot * l->bytes + off,
		.key = r->key,
		.remote_off = p->expert[slot] * l->bytes + off,
		.len = off + l->piece > l->bytes ? l->bytes - off : l->piece,
	};
	return true;
}

static int post_all(struct pull *l, struct puller *p)
{
	struct pst_wr wr;

	while (next_piece(l, p, &wr)) {
		int rc = pst_link_post(p->r->link, &wr, 1);

		if (rc < 0)
			return pst_fail(l->c->err, rc, "%s: %s", pst_link_peer(p->r->link),
					strerror(-rc));
		if (!rc) {
			/* no room: the same piece again later, begun as it is */
			if (p->r->posted % l->pieces == 0)
				l->begun--;
			return 0;
		}
		p->r->posted++;
	}
	return 0;
}

static void finish(struct pull *l, struct puller *p, uint64_t nth)
{
	uint64_t took = perf_ticks() - p->start[nth % HELD];

	l->done++;
	if (!l->warm)
		histogram_record(l->h, took);
}

static int collect(struct pull *l)
{
	struct pst_wc wc[64];
	int n = perf_client_poll(l->c, wc, 64);

	if (n < 0)
		return pst_fail(l->c->err, n, "waiting for completions: %s", strerror(-n));
	for (int i = 0; i < n; i++) {
		struct perf_remote *r = pst_link_user(wc[i].link);

		if (wc[i].kind != PST_WC_DONE || wc[i].status)
			return perf_client_bad(l->c, &wc[i]);
		r->done = wc[i].id;
		if (!(r->done % l->pieces))
			finish(l, &l->p[r - l->c->remote], r->done / l->pieces - 1);
	}
	return 0;
}

static int pull_all(struct pull *l, uint64_t limit, double seconds)
{
	uint64_t end = seconds > 0 ? perf_ticks() + perf_ticks_of(seconds) : 0;
	int rc = 0;

	l->begun = 0;
	l->done = 0;
	l->limit = end ? UINT64_MAX : limit;
	while (!rc && l->done < l->limit) {
		for (unsigned int i = 0; !rc && i < l->c->n; i++)
			rc = post_all(l, &l->p[i]);
		if (!rc)
			rc = collect(l);
		if (end && perf_ticks() >= end && l->limit > l->begun)
			l->limit = l->begun;
	}
	return rc;
}

/* The last expert of each link is the one that was wanted, every byte of it. */
static int check(const struct pull *l)
{
	for (unsigned int i = 0; i < l->c->n; i++) {
		const struct perf_remote *r = &l->c->remote[i];
		uint64_t nth = r->done / l->pieces;
		unsigned int slot = (nth - 1) % HELD;
		uint32_t expert = l->p[i].expert[slot];

		if (nth && !perf_is_pattern(r->at + slot * l->bytes, expert * l->bytes, l->bytes))
			return pst_fail(l->c->err, -EIO, "expert %u is not what the server has",
					expert);
	}
	return 0;
}

static int measure(struct pull *l, struct perf_row *row)
{
	const struct perf_plan *plan = l->c->plan;
	uint64_t iters = perf_iterations(plan, l->bytes), warm = perf_warm_up(plan, iters), start;
	int rc = perf_client_start(l->c, 0, 0);

	l->warm = true;
	if (!rc)
		rc = pull_all(l, warm, 0);
	l->warm = false;
	start = perf_ticks();
	if (!rc)
		rc = pull_all(l, iters, plan->duration);
	*row = (struct perf_row){
		.bytes = l->bytes,
		.iters = l->done,
		.seconds = perf_seconds(perf_ticks() - start),
		.halved = 1,
		.h = l->h,
	};
	return rc ? rc : check(l);
}

static int run(struct pull *l, struct perf_report *report)
{
	struct perf_row row;
	int rc;

	l->p = calloc(l->c->n, sizeof(*l->p));
	l->h = calloc(1, sizeof(*l->h));
	rc = l->p && l->h ? 0 : pst_fail(l->c->err, -ENOMEM, "out of memory");
	for (unsigned int i = 0; !rc && i < l->c->n; i++)
		l->p[i].r = &l->c->remote[i];
	if (!rc)
		rc = measure(l, &row);
	if (!rc)
		perf_report_row(report, &row);
	free(l->p);
	free(l->h);
	return rc;
}

int perf_run_pull(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	uint64_t bytes = 3ull * plan->hidden * plan->inter * 2;
	struct perf_want want = {
		.test = PERF_PASSIVE,
		.remote = plan->experts * bytes,
		.local = HELD * bytes,
		.links = plan->links,
		.idle = true,
	};
	struct perf_client c;
	struct pull l = {.c = &c, .bytes = bytes};
	int rc;

	l.piece = plan->size_given ? plan->size : 1u << 20;
	l.pieces = (bytes + l.piece - 1) / l.piece;
	rc = routing_open(plan, 1, 0, &l.routing, err);
	if (rc)
		return rc;
	rc = perf_client_open(plan, &want, &c, err);
	if (!rc) {
		perf_report_settings(report, &c);
		rc = run(&l, report);
		perf_client_close(&c);
	}
	routing_close(&l.routing);
	return rc;
}
