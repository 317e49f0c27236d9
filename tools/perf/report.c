/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is printed: the settings in force, a line per size with perftest's columns and some more,
 * a plot, and the same as JSON. Nothing that was measured is left out of any figure.
 */
#include "tools/perf/gpu.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1024.0 * 1024)
#define RULE \
	"---------------------------------------------------------------------------------------"
#define PLOT_WIDTH 60

int perf_report_open(const struct perf_plan *plan, struct perf_report *r, struct pst_error *err)
{
	/* JSON has stdout for itself when it goes there */
	bool taken = plan->json && !strcmp(plan->json, "-");

	*r = (struct perf_report){.plan = plan, .out = taken ? stderr : stdout};
	if (plan->compare) {
		int rc = perf_earlier_read(plan->compare, &r->earlier, err);

		if (rc)
			return rc;
	}
	r->rows = json_array();
	return 0;
}

static void print_path(FILE *out, const struct pst_link_info *info)
{
	if (info->mtu)
		fprintf(out, " Mtu             : %u[B]\tMax inline data : %u[B]\n", info->mtu,
			info->max_inline);
	if (info->rails > 1)
		fprintf(out, " Rails           : %u\n", info->rails);
	if (info->conns)
		fprintf(out, " Connections     : %u per link\n", info->conns);
}

static void print_memory(FILE *out, const struct perf_client *c)
{
	uint64_t page = c->plan->page ? c->plan->page : (uint64_t)sysconf(_SC_PAGESIZE);
	int node = c->memory.at ? perf_numa_node(c->memory.at) : -1;

	fprintf(out, " Page size       : %llu[B]\t", (unsigned long long)page);
	if (node >= 0)
		fprintf(out, "NUMA node       : %d\n", node);
	else
		fprintf(out, "NUMA node       : not known\n");
}

static void print_cpus(FILE *out, const struct perf_plan *plan)
{
	fprintf(out, " Clock           : %s\t", perf_counter ? "CPU counter" : "monotonic");
	if (plan->cpu[0] < 0)
		fprintf(out, "CPU             : any\n");
	else if (plan->cpu[1] < 0 || !plan->self)
		fprintf(out, "CPU             : %d\n", plan->cpu[0]);
	else
		fprintf(out, "CPU             : %d, the server on %d\n", plan->cpu[0],
			plan->cpu[1]);
}

static void print_shape(FILE *out, const struct perf_plan *plan)
{
	bool tokens = plan->test->run == perf_run_tokens;

	if (plan->test->run == perf_run_incast)
		fprintf(out, " Writers         : %u\n", plan->engines);
	if (plan->test->kind != PERF_WORK)
		return;
	if (tokens)
		fprintf(out,
			" Engines         : %u\t\tWorkers         : %u\n"
			" Tokens          : %u\t\tExperts, top k  : %u, %u\n",
			plan->engines, plan->workers, plan->tokens, plan->experts, plan->topk);
	fprintf(out, " Hidden          : %u", plan->hidden);
	if (!tokens)
		fprintf(out, "\t\tInter           : %u", plan->inter);
	if (plan->test->wire != PERF_SUM)
		fprintf(out, "\t\tRouting         : %s", plan->routing);
	fprintf(out, "\n");
}

void perf_report_settings(struct perf_report *r, const struct perf_client *c)
{
	const struct perf_plan *plan = r->plan;
	struct pst_link_info info = {0};
	FILE *out = r->out;

	if (r->headed)
		return;
	r->headed = true;
	if (c->n)
		pst_link_info(c->remote[0].link, &info);
	json_decref(r->settings);
	r->settings = perf_json_settings(plan, c);
	fprintf(out, "%s\n                    %s\n", RULE, plan->test->title);
	fprintf(out, " Fabric          : %s\t\tDevice          : %s\n", plan->fabric,
		*info.device ? info.device
		: plan->dev  ? plan->dev
			     : "any");
	fprintf(out, " Number of qps   : %u\t\tTX depth        : %u\n", plan->links, plan->depth);
	if (plan->test->kind == PERF_BANDWIDTH)
		fprintf(out, " CQ Moderation   : %u\t\t", plan->moderation);
	else
		fprintf(out, " ");
	fprintf(out, "Completions     : %s\n",
		plan->crowded ? "event (fewer CPUs than threads)"
		: plan->event ? "event"
			      : "poll");
	fprintf(out, " Message CRC     : %s\t\tTimeout         : ", plan->no_crc ? "OFF" : "ON");
	if (plan->timeout_ms)
		fprintf(out, "%u[ms]\n", plan->timeout_ms);
	else
		fprintf(out, "the fabric's\n");
	print_path(out, &info);
	print_memory(out, c);
	print_cpus(out, plan);
	print_shape(out, plan);
	if (*plan->settings)
		fprintf(out, " Settings        : %s\n", plan->settings + 1);
	if (c->n)
		fprintf(out, " Peer            : %s\n", pst_link_peer(c->remote[0].link));
	fprintf(out, "%s\n", RULE);
}

/* A copy to memory of another node goes through both. */
static void print_near(FILE *out, const struct perf_gpu *g)
{
	int node = perf_numa_node(g->host.at);

	fprintf(out, " NUMA nodes      : ");
	if (node < 0 || g->node < 0)
		fprintf(out, "not known\n");
	else if (node == g->node)
		fprintf(out, "GPU and memory on %d\n", node);
	else
		fprintf(out,
			"GPU on %d, memory on %d, which costs (numactl --cpunodebind=%d "
			"--membind=%d)\n",
			g->node, node, g->node, g->node);
}

void perf_report_gpu(struct perf_report *r, const struct perf_gpu *g)
{
	const struct perf_plan *plan = r->plan;
	uint64_t page = plan->page ? plan->page : (uint64_t)sysconf(_SC_PAGESIZE);
	FILE *out = r->out;

	r->headed = true;
	r->settings = perf_json_gpu(plan, g);
	fprintf(out, "%s\n                    %s\n", RULE, plan->test->title);
	fprintf(out, " Device          : cuda:%d, %s at %s\n", g->ordinal, g->name, g->pci);
	fprintf(out, " Driver          : CUDA %d.%d\t\tTimeout         : %llu[ms]\n",
		g->driver / 1000, g->driver % 1000 / 10, (unsigned long long)g->wait_ms);
	if (plan->test->kind == PERF_COPY)
		fprintf(out, " TX depth        : %u\n", plan->depth);
	fprintf(out, " Page size       : %llu[B]\n", (unsigned long long)page);
	print_near(out, g);
	print_cpus(out, plan);
	fprintf(out, "%s\n", RULE);
}

static void print_head(struct perf_report *r)
{
	const struct perf_test *test = r->plan->test;

	if (test->kind == PERF_DOORBELL || test->kind == PERF_COPY)
		fprintf(r->out, " way       ");
	if (test->kind == PERF_COPY)
		fprintf(r->out,
			" #bytes      #iterations  BW average[MiB/sec]  BW average[GB/sec]  "
			"MsgRate[Mpps]");
	else if (test->kind == PERF_LATENCY || test->kind == PERF_DOORBELL)
		fprintf(r->out, " #bytes  #iterations  t_min[usec]  t_max[usec]  t_typical[usec]  "
				"t_avg[usec]  t_stdev[usec]  99%% percentile[usec]  99.9%% "
				"percentile[usec]  99.99%% percentile[usec]");
	else if (test->run == perf_run_incast)
		fprintf(r->out, " #bytes  #iterations  BW average[MiB/sec]  MsgRate[Mpps]  "
				"slowest[MiB/sec]  fastest[MiB/sec]");
	else if (test->kind == PERF_BANDWIDTH)
		fprintf(r->out, " #bytes  #iterations  BW peak[MiB/sec]  BW average[MiB/sec]  "
				"MsgRate[Mpps]");
	else if (test->kind == PERF_WORK)
		fprintf(r->out, " #bytes      #iterations  BW average[MiB/sec]  Rate[/sec]  "
				"t_min[usec]  t_typical[usec]  99%%[usec]  99.9%%[usec]  "
				"99.99%%[usec]  t_max[usec]");
	else
		fprintf(r->out, " #bytes      #iterations  page/chunk      t_min[usec]  "
				"t_typical[usec]  t_max[usec]  [msec/GiB]");
	if (r->earlier)
		fprintf(r->out, "  earlier  now/earlier");
	fprintf(r->out, "\n");
}

static double at(const struct perf_row *row, double part)
{
	return perf_usec(row, histogram_percentile(row->h, part));
}

static void print_latency(FILE *out, const struct perf_row *row)
{
	fprintf(out,
		" %-7llu %-12llu %-12.3f %-12.3f %-16.3f %-12.3f %-14.3f %-21.3f %-23.3f %-.3f",
		(unsigned long long)row->bytes, (unsigned long long)row->iters,
		perf_usec(row, (double)row->h->min), perf_usec(row, (double)row->h->max),
		at(row, 0.5), perf_usec(row, histogram_mean(row->h)),
		perf_usec(row, histogram_deviation(row->h)), at(row, 0.99), at(row, 0.999),
		at(row, 0.9999));
}

static void print_bandwidth(FILE *out, const struct perf_row *row)
{
	fprintf(out, " %-7llu %-12llu ", (unsigned long long)row->bytes,
		(unsigned long long)row->iters);
	if (!row->high)
		fprintf(out, "%-17.2f ", row->peak / MIB);
	fprintf(out, "%-20.2f %-.6f", perf_bandwidth(row) / MIB,
		(double)row->iters / row->seconds / 1e6);
	if (row->high > 0)
		fprintf(out, "       %-17.2f %-.2f", row->low / MIB, row->high / MIB);
}

static void print_work(FILE *out, const struct perf_row *row)
{
	fprintf(out,
		" %-11llu %-12llu %-20.2f %-11.1f %-12.2f %-16.2f %-10.2f %-12.2f %-13.2f %-.2f",
		(unsigned long long)row->bytes, (unsigned long long)row->iters,
		perf_bandwidth(row) / MIB, (double)row->iters / row->seconds,
		perf_usec(row, (double)row->h->min), at(row, 0.5), at(row, 0.99), at(row, 0.999),
		at(row, 0.9999), perf_usec(row, (double)row->h->max));
}

static void print_registered(FILE *out, const struct perf_row *row)
{
	fprintf(out, " %-11llu %-12llu %-15s %-12.2f %-16.2f %-12.2f %-.3f",
		(unsigned long long)row->bytes, (unsigned long long)row->iters, row->label,
		perf_usec(row, (double)row->h->min), at(row, 0.5),
		perf_usec(row, (double)row->h->max),
		at(row, 0.5) / 1e3 * (1024 * MIB / (double)row->bytes));
}

static void print_copies(FILE *out, const struct perf_row *row)
{
	fprintf(out, " %-11llu %-12llu %-20.2f %-19.2f %-.6f", (unsigned long long)row->bytes,
		(unsigned long long)row->iters, perf_bandwidth(row) / MIB,
		perf_bandwidth(row) / 1e9, (double)row->iters / row->seconds / 1e6);
}

static void print_earlier(struct perf_report *r, const struct perf_row *row)
{
	bool latency = r->plan->test->kind == PERF_LATENCY;
	double then = perf_earlier_find(r->earlier, row->bytes, latency);
	double now = latency ? at(row, 0.5) : perf_bandwidth(row) / MIB;

	if (then > 0)
		fprintf(r->out, "  %-8.*f %-.3f", latency ? 3 : 2, then, now / then);
	else
		fprintf(r->out, "  %-8s %s", "-", "-");
}

static void remember(struct perf_report *r, const struct perf_row *row)
{
	if (r->npoints == sizeof(r->point) / sizeof(*r->point))
		return;
	r->point[r->npoints].bytes = row->bytes;
	r->point[r->npoints++].rate = perf_bandwidth(row) / MIB;
}

void perf_report_row(struct perf_report *r, const struct perf_row *row)
{
	json_t *o = perf_json_row(r->plan, row);

	if (!json_array_size(r->rows))
		print_head(r);
	if (r->plan->test->kind == PERF_COPY || r->plan->test->kind == PERF_DOORBELL)
		fprintf(r->out, " %-10s", row->label);
	if (r->plan->test->kind == PERF_LATENCY || r->plan->test->kind == PERF_DOORBELL)
		print_latency(r->out, row);
	else if (r->plan->test->kind == PERF_COPY)
		print_copies(r->out, row);
	else if (r->plan->test->kind == PERF_BANDWIDTH)
		print_bandwidth(r->out, row);
	else if (r->plan->test->kind == PERF_WORK)
		print_work(r->out, row);
	else
		print_registered(r->out, row);
	if (r->earlier) {
		bool latency = r->plan->test->kind == PERF_LATENCY;
		double then = perf_earlier_find(r->earlier, row->bytes, latency);

		print_earlier(r, row);
		if (then > 0)
			json_object_set_new(o, "earlier", json_real(then));
	}
	fprintf(r->out, "\n");
	json_array_append_new(r->rows, o);
	remember(r, row);
}

/* Bandwidth over size, both on a logarithmic scale, a line per size. */
static void plot(const struct perf_report *r)
{
	double low = INFINITY, high = 0;

	for (unsigned int i = 0; i < r->npoints; i++) {
		low = fmin(low, r->point[i].rate);
		high = fmax(high, r->point[i].rate);
	}
	if (r->npoints < 2 || !(low > 0))
		return;
	/* a whole power of ten at the left, so that the shortest bar is one */
	low = pow(10, floor(log10(low)));
	fprintf(r->out, "%s\n %9s  MiB/sec, from %g to %.0f, logarithmic\n", RULE, "#bytes", low,
		high);
	for (unsigned int i = 0; i < r->npoints; i++) {
		double part = high > low ? log(r->point[i].rate / low) / log(high / low) : 1;
		int n = (int)lround(part * PLOT_WIDTH);

		fprintf(r->out, " %9llu |", (unsigned long long)r->point[i].bytes);
		for (int k = 0; k < (n ? n : 1); k++)
			fputc('#', r->out);
		fprintf(r->out, " %.2f\n", r->point[i].rate);
	}
}

static int write_json(const struct perf_report *r, json_t *root)
{
	bool to_stdout = !strcmp(r->plan->json, "-");
	FILE *out = to_stdout ? stdout : fopen(r->plan->json, "w");
	int bad = !out;

	errno = out ? 0 : errno;
	if (out) {
		bad = json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
		bad |= fputc('\n', out) == EOF;
		bad |= to_stdout ? fflush(out) : fclose(out);
	}
	if (bad)
		fprintf(stderr, "penstock-perf %s: %s: %s\n", r->plan->test->name, r->plan->json,
			strerror(errno ? errno : EIO));
	return bad ? EXIT_FAILED : EXIT_DONE;
}

int perf_report_close(struct perf_report *r, bool good)
{
	json_t *root = NULL;
	int rc = good ? EXIT_DONE : EXIT_FAILED;

	if (good && r->plan->all && r->plan->test->kind == PERF_BANDWIDTH)
		plot(r);
	if (good && r->headed)
		fprintf(r->out, "%s\n", RULE);
	if (good && r->plan->json) {
		root = json_pack("{s:O, s:O}", "test_info", r->settings, "results", r->rows);
		rc = root ? write_json(r, root) : EXIT_FAILED;
	}
	json_decref(root);
	json_decref(r->settings);
	json_decref(r->rows);
	perf_earlier_free(r->earlier);
	if (fflush(r->out) || ferror(r->out)) {
		fprintf(stderr, "penstock-perf %s: the output cannot be written: %s\n",
			r->plan->test->name, strerror(errno));
		rc = EXIT_FAILED;
	}
	return rc;
}
