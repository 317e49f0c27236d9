/* SPDX-License-Identifier: Apache-2.0 */
/* incast: many writers, a thread and a link each, to one server; all together, and the slowest. */
#include "rdma/fail.h"
#include "tools/perf/crew.h"
#include "tools/perf/flood.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct writer {
	const struct perf_plan *plan;
	struct perf_client c;
	struct pst_error err;
	uint64_t first, last; /* ticks */
	struct flood f;
};

static int warm_up(void *member)
{
	struct writer *w = member;
	uint64_t iters = perf_iterations(w->plan, w->plan->size);
	int rc = perf_client_start(&w->c, w->plan->size, 0);

	w->f = (struct flood){.c = &w->c, .op = PST_WR_WRITE};
	flood_prepare(&w->f, w->plan->size);
	return rc ? rc : flood(&w->f, perf_warm_up(w->plan, iters) + 1, 0, NULL);
}

static int write_all(void *member)
{
	struct writer *w = member;
	int rc;

	w->first = perf_ticks();
	rc = flood(&w->f, perf_iterations(w->plan, w->plan->size), w->plan->duration, NULL);
	w->last = perf_ticks();
	return rc;
}

static int open_all(struct perf_plan *plan, struct writer *w, struct pst_error *err)
{
	struct perf_want want = {
		.test = PERF_PASSIVE,
		.remote = flood_memory(plan->size),
		.local = flood_memory(plan->size),
		.links = 1,
		.idle = true,
	};
	int rc = 0;

	for (uint32_t i = 0; !rc && i < plan->engines; i++) {
		w[i].plan = plan;
		rc = perf_client_open(plan, &want, &w[i].c, err);
		if (!rc)
			w[i].c.err = &w[i].err;
		want.fab = w[0].c.fab;
	}
	return rc;
}

static void add_up(const struct perf_plan *plan, const struct writer *w, struct perf_row *row)
{
	uint64_t first = UINT64_MAX, last = 0;

	row->bytes = plan->size;
	for (uint32_t i = 0; i < plan->engines; i++) {
		double own =
			(double)(w[i].f.done * plan->size) / perf_seconds(w[i].last - w[i].first);

		row->iters += w[i].f.done;
		if (w[i].first < first)
			first = w[i].first;
		if (w[i].last > last)
			last = w[i].last;
		if (!i || own < row->low)
			row->low = own;
		if (own > row->high)
			row->high = own;
	}
	row->seconds = perf_seconds(last - first);
}

static void first_error(const struct perf_plan *plan, const struct writer *w, struct pst_error *err)
{
	for (uint32_t i = 0; i < plan->engines; i++)
		if (w[i].err.code && !err->code)
			*err = w[i].err;
}

int perf_run_incast(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	struct writer *w = calloc(plan->engines, sizeof(*w));
	struct perf_row row = {0};
	int rc;

	if (!w)
		return pst_fail(err, -ENOMEM, "out of memory");
	rc = open_all(plan, w, err);
	if (!rc) {
		perf_report_settings(report, &w[0].c);
		rc = crew_run(w, sizeof(*w), plan->engines, warm_up, write_all, err);
		first_error(plan, w, err);
	}
	if (!rc) {
		add_up(plan, w, &row);
		perf_report_row(report, &row);
	}
	/* the first has the fabric of all */
	for (uint32_t i = plan->engines; i-- > 0;)
		if (w[i].c.plan)
			perf_client_close(&w[i].c);
	free(w);
	return rc;
}
