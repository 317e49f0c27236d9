/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/flood.h"

#include "rdma/fail.h"

#include <errno.h>
#include <string.h>

#define BATCH  32
#define SMALL  8192	   /* requests above it are each worth a post and a completion */
#define WINDOW (64u << 10) /* what is smaller walks over this much memory, the rest stays */

static uint64_t target(const struct flood *f, const struct perf_remote *r)
{
	if (!f->over)
		return f->limit;
	return (r->posted + f->every - 1) / f->every * f->every;
}

static void fill(const struct flood *f, const struct perf_remote *r, uint64_t nth, uint64_t last,
		 struct pst_wr *wr)
{
	uint64_t off = nth * f->step % f->window;

	*wr = (struct pst_wr){
		.id = nth + 1,
		.op = f->op,
		.flags = (nth + 1) % f->every && nth + 1 != last ? PST_WR_UNSIGNALED : 0,
		.local = f->op == PST_WR_SEND ? NULL : f->c->memory.region,
		.local_addr = r->at + off,
		.key = r->key,
		.remote_off = off,
		.len = f->size,
	};
}

/* How many were posted, 0 when there was no room; or a failure. */
static int post_some(struct flood *f, struct perf_remote *r)
{
	uint64_t last = target(f, r), depth = f->c->plan->depth,
		 room = depth - (r->posted - r->done);
	struct pst_wr wr[BATCH];
	int n = 0, most = f->size > SMALL ? 1 : BATCH, rc;

	while (n < most && (uint64_t)n < room && r->posted + (uint64_t)n < last) {
		fill(f, r, r->posted + (uint64_t)n, last, &wr[n]);
		n++;
	}
	if (!n)
		return 0;
	rc = pst_link_post(r->link, wr, n);
	if (rc < 0)
		return pst_fail(f->c->err, rc, "%s: %s", pst_link_peer(r->link),
				*pst_link_why(r->link) ? pst_link_why(r->link) : strerror(-rc));
	r->posted += (uint64_t)rc;
	return rc;
}

/* As perftest does it: as many as the depth allows, then a look at the completions. */
static int post_all(struct flood *f, struct perf_remote *r)
{
	int rc;

	do {
		rc = post_some(f, r);
	} while (rc > 0 && f->size > SMALL);
	return rc < 0 ? rc : 0;
}

static int collect(struct flood *f)
{
	struct pst_wc wc[64];
	int n = perf_client_poll(f->c, wc, 64);

	if (n < 0)
		return pst_fail(f->c->err, n, "waiting for completions: %s", strerror(-n));
	for (int i = 0; i < n; i++) {
		struct perf_remote *r = pst_link_user(wc[i].link);

		if (wc[i].kind != PST_WC_DONE || wc[i].status)
			return perf_client_bad(f->c, &wc[i]);
		f->done += wc[i].id - r->done;
		r->done = wc[i].id;
	}
	return 0;
}

static bool all_done(const struct flood *f)
{
	for (unsigned int i = 0; i < f->c->n; i++)
		if (f->c->remote[i].done != target(f, &f->c->remote[i]))
			return false;
	return true;
}

static void mark(struct peak *p, uint64_t done)
{
	if (done < p->next || p->n == PEAK_POINTS)
		return;
	p->at[p->n].done = done;
	p->at[p->n++].ticks = perf_ticks();
	p->next = done + p->every;
}

double peak_highest(const struct peak *p, uint64_t size)
{
	double best = 0;

	for (unsigned int i = 1; i < p->n; i++) {
		double s = perf_seconds(p->at[i].ticks - p->at[i - 1].ticks);
		double v = (double)((p->at[i].done - p->at[i - 1].done) * size) / s;

		if (s > 0 && v > best)
			best = v;
	}
	return best;
}

int flood(struct flood *f, uint64_t iters, double seconds, struct peak *p)
{
	uint64_t end = seconds > 0 ? perf_ticks() + perf_ticks_of(seconds) : 0;
	int rc = 0;

	f->limit = end ? UINT64_MAX : iters;
	f->over = false;
	f->done = 0;
	for (unsigned int i = 0; i < f->c->n; i++) {
		f->c->remote[i].posted = 0;
		f->c->remote[i].done = 0;
	}
	while (!rc && !all_done(f)) {
		for (unsigned int i = 0; !rc && i < f->c->n; i++)
			rc = post_all(f, &f->c->remote[i]);
		if (!rc)
			rc = collect(f);
		if (p)
			mark(p, f->done);
		f->over = f->over || (end && perf_ticks() >= end);
	}
	return rc;
}

void flood_prepare(struct flood *f, uint64_t size)
{
	const struct perf_plan *plan = f->c->plan;
	uint64_t most = plan->depth / 2 ? plan->depth / 2 : 1;

	f->size = size;
	f->step = (size + 63) / 64 * 64;
	f->window = f->step * (f->step < WINDOW ? WINDOW / f->step : 1);
	f->every = size > SMALL ? 1 : plan->moderation < most ? plan->moderation : most;
}

uint64_t flood_memory(uint64_t size)
{
	uint64_t step = (size + 63) / 64 * 64;

	return step < WINDOW ? WINDOW : step;
}

int flood_check(const struct flood *f, const struct perf_result *counted, uint64_t sent)
{
	const struct perf_remote *r = &f->c->remote[0];

	if (f->op == PST_WR_READ && !perf_is_pattern(r->at, 0, f->size))
		return pst_fail(f->c->err, -EIO, "what was read is not what the server has");
	if (f->op == PST_WR_SEND && counted->count != sent)
		return pst_fail(f->c->err, -EIO, "%llu messages were sent, %llu heard",
				(unsigned long long)sent, (unsigned long long)counted->count);
	return 0;
}

/* A piece is at least as long as what is under way at a time. */
void peak_start(struct peak *p, const struct flood *f, uint64_t iters)
{
	uint64_t total = iters * f->c->n;

	*p = (struct peak){.every = f->c->plan->depth * f->c->n};
	if (total / p->every >= PEAK_POINTS)
		p->every = total / (PEAK_POINTS - 1) + 1;
	mark(p, 0);
}
