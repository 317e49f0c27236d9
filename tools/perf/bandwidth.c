/* SPDX-License-Identifier: Apache-2.0 */
/* write_bw, read_bw and send_bw: what goes through, size by size. */
#include "rdma/fail.h"
#include "tools/perf/flood.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int measure(struct flood *f, uint64_t size, struct peak *p, struct perf_row *row)
{
	const struct perf_plan *plan = f->c->plan;
	uint64_t iters = perf_iterations(plan, size), warm = perf_warm_up(plan, iters), start;
	struct perf_result counted;
	int rc;

	flood_prepare(f, size);
	if (f->op == PST_WR_SEND)
		memset(f->c->memory.at, 0, f->c->memory.len);
	rc = perf_client_start(f->c, size, 0);
	if (!rc && warm)
		rc = flood(f, warm, 0, NULL);
	warm = rc || !warm ? 0 : f->done;
	start = perf_ticks();
	peak_start(p, f, iters);
	if (!rc)
		rc = flood(f, iters, plan->duration, p);
	/* messages are there when the server has counted them, the others when they complete */
	if (!rc && f->op != PST_WR_SEND)
		row->seconds = perf_seconds(perf_ticks() - start);
	if (!rc)
		rc = perf_client_stop(f->c, &counted);
	if (!rc && f->op == PST_WR_SEND)
		row->seconds = perf_seconds(perf_ticks() - start);
	if (!rc)
		rc = flood_check(f, &counted, warm + f->done);
	row->bytes = size;
	row->iters = f->done;
	row->peak = peak_highest(p, size);
	return rc;
}

static int one_size(struct flood *f, uint64_t size, struct perf_report *report)
{
	struct peak *p = malloc(sizeof(*p));
	struct perf_row row = {0};
	int rc = p ? measure(f, size, p, &row) : pst_fail(f->c->err, -ENOMEM, "out of memory");

	if (!rc) {
		double average = (double)(row.iters * row.bytes) / row.seconds;

		if (row.peak < average)
			row.peak = average;
		perf_report_row(report, &row);
	}
	free(p);
	return rc;
}

int perf_run_bandwidth(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	uint64_t most = plan->all ? perf_all_max(plan) : plan->size;
	struct perf_want want = {
		.test = plan->test->wire,
		.remote = flood_memory(most),
		.local = flood_memory(most),
		.links = plan->links,
		.idle = plan->test->wire == PERF_PASSIVE,
	};
	struct perf_client c;
	struct flood f = {.c = &c};
	int rc = perf_client_open(plan, &want, &c, err);

	if (rc)
		return rc;
	perf_report_settings(report, &c);
	f.op = plan->test->wire == PERF_COUNT	      ? PST_WR_SEND
	       : !strcmp(plan->test->name, "read_bw") ? PST_WR_READ
						      : PST_WR_WRITE;
	for (uint64_t size = plan->all ? 2 : plan->size; !rc && size <= most; size *= 2) {
		rc = one_size(&f, size, report);
		if (!plan->all)
			break;
	}
	perf_client_close(&c);
	return rc;
}
