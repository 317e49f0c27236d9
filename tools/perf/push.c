/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push: a gradient of an expert, in fp32, into a slot at the server, which adds it to its sum and
 * says so. A push takes from the write's post to the answer.
 *
 * The gradient is all ones, so that the server's sum shows whether each was added once.
 */
#include "rdma/fail.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 4 };

struct pushes {
	struct perf_client *c;
	struct histogram *h;
	uint64_t bytes;
	uint32_t slots;
	uint64_t *start; /* of each slot of each link; 0: free */
	uint64_t begun, done, limit;
	bool warm;
};

static int post(struct pushes *u, unsigned int link, uint32_t slot)
{
	struct perf_remote *r = &u->c->remote[link];
	const struct pst_wr wr = {
		.op = PST_WR_WRITE,
		.flags = PST_WR_IMM | PST_WR_UNSIGNALED,
		.imm = slot,
		.local = u->c->memory.region,
		.local_addr = r->at,
		.key = r->key,
		.remote_off = slot * u->bytes,
		.len = u->bytes,
	};
	int rc;

	u->start[link * u->slots + slot] = perf_ticks();
	rc = pst_link_post(r->link, &wr, 1);
	if (rc < 0)
		return pst_fail(u->c->err, rc, "%s: %s", pst_link_peer(r->link), strerror(-rc));
	if (!rc)
		u->start[link * u->slots + slot] = 0;
	u->begun += (uint64_t)rc;
	return 0;
}

static int post_all(struct pushes *u)
{
	int rc = 0;

	for (unsigned int i = 0; i < u->c->n * u->slots && !rc && u->begun < u->limit; i++)
		if (!u->start[i])
			rc = post(u, i / u->slots, i % u->slots);
	return rc;
}

static int collect(struct pushes *u)
{
	struct pst_wc wc[64];
	int n = perf_client_poll(u->c, wc, 64);

	if (n < 0)
		return pst_fail(u->c->err, n, "waiting for answers: %s", strerror(-n));
	for (int i = 0; i < n; i++) {
		struct perf_remote *r = pst_link_user(wc[i].link);
		uint64_t *start;

		if (wc[i].kind != PST_WC_IMM || wc[i].imm >= u->slots)
			return perf_client_bad(u->c, &wc[i]);
		start = &u->start[(uint32_t)(r - u->c->remote) * u->slots + wc[i].imm];
		if (!*start)
			return perf_client_bad(u->c, &wc[i]);
		if (!u->warm)
			histogram_record(u->h, perf_ticks() - *start);
		*start = 0;
		u->done++;
	}
	return 0;
}

static int push_all(struct pushes *u, uint64_t limit, double seconds)
{
	uint64_t end = seconds > 0 ? perf_ticks() + perf_ticks_of(seconds) : 0;
	int rc = 0;

	u->begun = 0;
	u->done = 0;
	u->limit = end ? UINT64_MAX : limit;
	while (!rc && u->done < u->limit) {
		rc = post_all(u);
		if (!rc)
			rc = collect(u);
		if (end && perf_ticks() >= end && u->limit > u->begun)
			u->limit = u->begun;
	}
	return rc;
}

static int check(const struct pushes *u, const struct perf_result *counted, uint64_t pushed)
{
	double want = (double)pushed;

	/* a float counts ones up to 2^24 */
	if (counted->count == pushed && (counted->sum == want || want / u->c->n >= 1 << 24))
		return 0;
	return pst_fail(
		u->c->err, -EIO, "%llu pushes, of which the server saw %llu and summed %.0f",
		(unsigned long long)pushed, (unsigned long long)counted->count, counted->sum);
}

static int measure(struct pushes *u, struct perf_row *row)
{
	const struct perf_plan *plan = u->c->plan;
	uint64_t iters = perf_iterations(plan, u->bytes), warm = perf_warm_up(plan, iters), start;
	struct perf_result counted;
	int rc = perf_client_start(u->c, 0, 0);

	u->warm = true;
	if (!rc)
		rc = push_all(u, warm, 0);
	u->warm = false;
	start = perf_ticks();
	if (!rc)
		rc = push_all(u, iters, plan->duration);
	*row = (struct perf_row){
		.bytes = u->bytes,
		.iters = u->done,
		.seconds = perf_seconds(perf_ticks() - start),
		.halved = 1,
		.h = u->h,
	};
	if (!rc)
		rc = perf_client_stop(u->c, &counted);
	return rc ? rc : check(u, &counted, warm + u->done);
}

static int run(struct pushes *u, struct perf_report *report)
{
	struct perf_row row;
	int rc;

	u->start = calloc(u->c->n * u->slots, sizeof(*u->start));
	u->h = calloc(1, sizeof(*u->h));
	rc = u->start && u->h ? 0 : pst_fail(u->c->err, -ENOMEM, "out of memory");
	for (uint64_t i = 0; i < u->c->memory.len / sizeof(float); i++)
		((float *)u->c->memory.at)[i] = 1;
	if (!rc)
		rc = measure(u, &row);
	if (!rc)
		perf_report_row(report, &row);
	free(u->start);
	free(u->h);
	return rc;
}

int perf_run_push(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	uint64_t bytes = 3ull * plan->hidden * plan->inter * sizeof(float);
	uint32_t slots = plan->depth_given && plan->depth < 64 ? plan->depth : SLOTS;
	struct perf_want want = {
		.test = PERF_SUM,
		.remote = slots * bytes,
		.local = bytes,
		.work = bytes,
		.slots = slots,
		.links = plan->links,
	};
	struct perf_client c;
	struct pushes u = {.c = &c, .bytes = bytes, .slots = slots};
	int rc = perf_client_open(plan, &want, &c, err);

	if (rc)
		return rc;
	perf_report_settings(report, &c);
	rc = run(&u, report);
	perf_client_close(&c);
	return rc;
}
