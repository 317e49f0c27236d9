/* SPDX-License-Identifier: Apache-2.0 */
/*
 * register: the time that a fabric takes to register memory, by the size of its pages and of the
 * pieces that it is registered in. Each time it is other memory, and all of it has been touched.
 */
#include "rdma/fail.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define USUAL_ITERS 10

static const uint64_t usual_pages[] = {4096, 2 << 20};

static const char *name_of(uint64_t bytes, char buf[16])
{
	static const char unit[] = "BKMGT";
	int u = 0;

	for (; bytes >= 1024 && !(bytes % 1024) && u < 4; u++)
		bytes /= 1024;
	snprintf(buf, 16, "%llu%c", (unsigned long long)bytes, unit[u]);
	return buf;
}

static int one(struct pst_fabric *fab, uint64_t size, uint64_t page, struct histogram *h,
	       struct pst_error *err)
{
	struct pst_region_attr attr = {
		.size = sizeof(attr), .len = size, .access = PST_ACCESS_WRITE};
	struct perf_memory m;
	uint64_t start;
	int rc = perf_memory_map(size, page > 4096 ? page : 0, &m, err);

	if (rc)
		return rc;
	attr.addr = m.at;
	attr.fd = m.fd;
	start = perf_ticks();
	rc = pst_region_register(fab, &attr, &m.region, err);
	if (!rc)
		histogram_record(h, perf_ticks() - start);
	perf_memory_free(&m);
	return rc;
}

static int one_row(const struct perf_plan *plan, struct pst_fabric *fab, uint64_t page,
		   const char *chunk, struct perf_report *report, struct pst_error *err)
{
	uint64_t iters = plan->iters_given ? plan->iters : USUAL_ITERS;
	struct histogram *h = calloc(1, sizeof(*h));
	char pages[16], label[64];
	struct perf_row row;
	int rc = h ? 0 : pst_fail(err, -ENOMEM, "out of memory");

	for (uint64_t i = 0; !rc && i < iters; i++)
		rc = one(fab, plan->size, page, h, err);
	snprintf(label, sizeof(label), "%s/%s", name_of(page, pages), chunk);
	row = (struct perf_row){
		.bytes = plan->size, .iters = iters, .halved = 1, .h = h, .label = label};
	if (!rc) {
		row.seconds = h->sum * perf_ns_per_tick * 1e-9;
		perf_report_row(report, &row);
	}
	free(h);
	return rc;
}

/* @chunk "": as the fabric does it. */
static int one_chunk(const struct perf_plan *plan, const char *chunk, struct perf_report *report,
		     struct pst_error *err)
{
	struct perf_client none = {.plan = plan};
	char url[PERF_URL_MAX + 32];
	int rc;

	snprintf(url, sizeof(url), "%s%s%s%s", plan->url[0], *chunk ? "" : "",
		 !*chunk	   ? ""
		 : *plan->settings ? "&chunk="
				   : "?chunk=",
		 chunk);
	rc = pst_fabric_open(url, &none.fab, err);
	if (rc)
		return rc;
	perf_report_settings(report, &none);
	for (size_t i = 0; !rc && i < sizeof(usual_pages) / sizeof(*usual_pages); i++) {
		struct pst_error why = {0};
		uint64_t page = plan->page ? plan->page : usual_pages[i];

		rc = one_row(plan, none.fab, page, *chunk ? chunk : "-", report, &why);
		/* pages that are not there are said, and no reason to stop, unless asked for */
		if (rc && (plan->page || i == 0))
			*err = why;
		else if (rc) {
			fprintf(report->out, "# %s\n", why.text);
			rc = 0;
		}
		if (plan->page)
			break;
	}
	pst_fabric_close(none.fab);
	return rc;
}

int perf_run_register(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	char *list = strdup(plan->chunks ? plan->chunks : ""), *chunk, *rest = list;
	int rc = list ? 0 : pst_fail(err, -ENOMEM, "out of memory");

	while (!rc && (chunk = strsep(&rest, ",")))
		rc = one_chunk(plan, chunk, report, err);
	free(list);
	return rc;
}
