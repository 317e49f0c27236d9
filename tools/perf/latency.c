/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write_lat, read_lat, send_lat: one request at a time, each timed.
 *
 * write_lat and send_lat go there and back and are halved, as perftest does it; a read is there
 * and back by itself. In write_lat both sides look at the last byte of what the other writes into
 * their memory, and at the completion queue now and then, which some fabrics need to move on.
 * What was timed is recorded when the next request is on its way.
 */
#include "rdma/fail.h"
#include "rdma/pause.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct trip {
	struct perf_client *c;
	struct perf_remote *r;
	uint64_t size;
	struct pst_wr wr;
	unsigned char *in; /* write_lat: where the answer comes */
	uint8_t next;
	struct perf_watch watch;
	unsigned int looks; /* without success, in the last turn */
};

typedef int trip_fn(struct trip *t);

static int look(struct trip *t, bool *done)
{
	struct pst_wc wc;
	int n = perf_client_poll(t->c, &wc, 1);

	if (n < 0)
		return pst_fail(t->c->err, n, "waiting for a completion: %s", strerror(-n));
	*done = n;
	if (!n)
		return 0;
	if (wc.kind == PST_WC_DONE && !wc.status && t->wr.op == PST_WR_READ)
		return 0;
	if (wc.kind == PST_WC_MESSAGE && wc.len == t->size && t->wr.op == PST_WR_SEND)
		return 0;
	return perf_client_bad(t->c, &wc);
}

static int post(struct trip *t)
{
	int rc = pst_link_post(t->r->link, &t->wr, 1);

	return rc == 1 ? 0 : perf_client_post(t->c, t->r, &t->wr);
}

/* What is noted of the last turn is noted when this one's write is on its way. */
static int begin(struct trip *t)
{
	int rc;

	if (t->wr.op != PST_WR_WRITE)
		return post(t);
	perf_mark(t->wr.local_addr, t->size, t->next);
	rc = post(t);
	perf_watch_seen(&t->watch, t->looks);
	return rc;
}

static int end_write(struct trip *t)
{
	const unsigned char *last = &t->in[t->size - 1];

	for (;;) {
		bool done;
		int rc;

		for (unsigned int i = 0; i < t->watch.spins; i++) {
			if (__atomic_load_n(last, __ATOMIC_ACQUIRE) == t->next) {
				t->looks = i;
				t->next++;
				return 0;
			}
			if (t->watch.pauses)
				pst_pause();
		}
		t->watch.polled = true;
		rc = look(t, &done);
		if (rc)
			return rc;
	}
}

static int end_other(struct trip *t)
{
	bool done = false;
	int rc = 0;

	while (!rc && !done)
		rc = look(t, &done);
	return rc;
}

/* @h NULL: warm up. Ends after @iters, or after @span ticks if that is not 0. */
static int trips(struct trip *t, uint64_t iters, uint64_t span, struct histogram *h, uint64_t *took)
{
	trip_fn *end = t->wr.op == PST_WR_WRITE ? end_write : end_other;
	uint64_t first = perf_ticks(), before = first, last = 0;
	int rc = 0;

	for (uint64_t i = 0; !rc && (span ? before - first < span : i < iters); i++) {
		uint64_t now;

		rc = begin(t);
		if (i && h)
			histogram_record(h, last);
		if (!rc)
			rc = end(t);
		now = perf_ticks();
		last = now - before;
		before = now;
	}
	if (!rc && h && before != first)
		histogram_record(h, last);
	*took = before - first;
	return rc;
}

static void prepare(struct trip *t, uint64_t size)
{
	uint16_t op = t->wr.op;

	t->size = size;
	t->next = 1;
	perf_watch_start(&t->watch, t->c->plan->fabric);
	t->looks = 0;
	t->wr.len = size;
	t->wr.key = t->r->key;
	t->wr.local_addr = t->r->at;
	t->wr.local = op == PST_WR_SEND ? NULL : t->c->memory.region;
	/* a read is over when it completes, the others when the answer comes */
	t->wr.flags = op == PST_WR_READ ? 0 : PST_WR_UNSIGNALED;
	memset(t->r->at, 0, size);
	if (op == PST_WR_WRITE)
		t->in[size - 1] = 0;
}

static int check_read(struct trip *t)
{
	if (t->wr.op != PST_WR_READ || perf_is_pattern(t->r->at, 0, t->size))
		return 0;
	return pst_fail(t->c->err, -EIO, "what was read is not what the server has");
}

static int one_size(struct trip *t, uint64_t size, struct perf_report *report)
{
	const struct perf_plan *plan = t->c->plan;
	uint64_t iters = perf_iterations(plan, size), took;
	struct histogram *h = calloc(1, sizeof(*h));
	struct perf_result counted;
	struct perf_row row;
	int rc;

	if (!h)
		return pst_fail(t->c->err, -ENOMEM, "out of memory");
	prepare(t, size);
	rc = perf_client_start(t->c, size, 0);
	if (!rc)
		rc = trips(t, perf_warm_up(plan, iters), 0, NULL, &took);
	if (!rc)
		rc = trips(t, iters, plan->duration > 0 ? perf_ticks_of(plan->duration) : 0, h,
			   &took);
	if (!rc)
		rc = perf_client_stop(t->c, &counted);
	if (!rc)
		rc = check_read(t);
	row = (struct perf_row){
		.bytes = size,
		.iters = h->count,
		.seconds = perf_seconds(took),
		.halved = t->wr.op == PST_WR_READ ? 1 : 2,
		.h = h,
	};
	if (!rc)
		perf_report_row(report, &row);
	free(h);
	return rc;
}

int perf_run_latency(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	uint64_t most = plan->all ? perf_all_max(plan) : plan->size;
	uint64_t part = (most + 127) / 128 * 128;
	enum perf_wire_test wire = plan->test->wire;
	struct perf_want want = {
		.test = wire,
		.remote = most < 8 ? 8 : most,
		.local = 2 * part,
		.links = 1,
		/* a reader's server has nothing to do, and would only take a CPU's time */
		.idle = wire == PERF_PASSIVE,
	};
	struct perf_client c;
	struct trip t = {.c = &c};
	int rc = perf_client_open(plan, &want, &c, err);

	if (rc)
		return rc;
	perf_report_settings(report, &c);
	t.r = &c.remote[0];
	t.wr.op = wire == PERF_ECHO	 ? PST_WR_SEND
		  : wire == PERF_PASSIVE ? PST_WR_READ
					 : PST_WR_WRITE;
	t.in = t.r->at;
	if (t.wr.op == PST_WR_WRITE) {
		/* the server writes to the beginning of this link's part */
		t.r->at += part;
	}
	for (uint64_t size = plan->all ? 2 : plan->size; !rc && size <= most; size *= 2) {
		rc = one_size(&t, size, report);
		if (!plan->all)
			break;
	}
	perf_client_close(&c);
	return rc;
}
