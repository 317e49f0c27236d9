/* SPDX-License-Identifier: Apache-2.0 */
/* A row and the settings as JSON, under perftest's names where it has them. */
#include "tools/perf/gpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define MIB (1024.0 * 1024)

double perf_usec(const struct perf_row *row, double ticks)
{
	return ticks * perf_ns_per_tick / 1e3 / row->halved;
}

double perf_bandwidth(const struct perf_row *row)
{
	double moved = row->moved > 0 ? row->moved : (double)(row->bytes * row->iters);

	return row->seconds > 0 ? moved / row->seconds : 0;
}

static void put(json_t *o, const char *key, double value)
{
	json_object_set_new(o, key, json_real(value));
}

static void put_bandwidth(json_t *o, const struct perf_row *row)
{
	if (row->peak > 0)
		put(o, "BW_peak", row->peak / MIB);
	put(o, "BW_average", perf_bandwidth(row) / MIB);
	put(o, "MsgRate", row->seconds > 0 ? (double)row->iters / row->seconds / 1e6 : 0);
	if (row->high > 0) {
		put(o, "BW_slowest", row->low / MIB);
		put(o, "BW_fastest", row->high / MIB);
	}
}

static void put_latency(json_t *o, const struct perf_row *row)
{
	static const struct {
		const char *key;
		double part;
	} at[] = {{"t_typical", 0.5},
		  {"percentile_90", 0.9},
		  {"percentile_99", 0.99},
		  {"percentile_99.9", 0.999},
		  {"percentile_99.99", 0.9999}};
	const struct histogram *h = row->h;

	put(o, "t_min", perf_usec(row, (double)h->min));
	put(o, "t_max", perf_usec(row, (double)h->max));
	put(o, "t_avg", perf_usec(row, histogram_mean(h)));
	put(o, "t_midmean", perf_usec(row, histogram_midmean(h)));
	put(o, "t_stdev", perf_usec(row, histogram_deviation(h)));
	for (size_t i = 0; i < sizeof(at) / sizeof(*at); i++)
		put(o, at[i].key, perf_usec(row, histogram_percentile(h, at[i].part)));
	json_object_set_new(o, "dropped", json_integer((json_int_t)(row->iters - h->count)));
}

json_t *perf_json_row(const struct perf_plan *plan, const struct perf_row *row)
{
	json_t *o = json_object();

	json_object_set_new(o, "MsgSize", json_integer((json_int_t)row->bytes));
	json_object_set_new(o, "n_iterations", json_integer((json_int_t)row->iters));
	put(o, "seconds", row->seconds);
	if (row->label)
		json_object_set_new(o, plan->test->kind == PERF_REGISTER ? "pages_chunk" : "way",
				    json_string(row->label));
	if (plan->test->kind == PERF_BANDWIDTH || plan->test->kind == PERF_WORK ||
	    plan->test->kind == PERF_COPY)
		put_bandwidth(o, row);
	if (row->h)
		put_latency(o, row);
	if (plan->test->kind == PERF_REGISTER)
		put(o, "ms_per_GiB",
		    perf_usec(row, histogram_percentile(row->h, 0.5)) / 1e3 *
			    (1024 * MIB / (double)row->bytes));
	return o;
}

static json_t *settings_of(const struct perf_plan *plan)
{
	struct utsname host = {0};
	json_t *o = json_object();

	uname(&host);
	json_object_set_new(o, "test", json_string(plan->test->title));
	json_object_set_new(o, "command", json_string(plan->test->name));
	json_object_set_new(o, "timeout_ms", json_integer(plan->timeout_ms));
	json_object_set_new(o, "page_bytes", json_integer((json_int_t)plan->page));
	json_object_set_new(o, "clock", json_string(perf_counter ? "counter" : "monotonic"));
	json_object_set_new(o, "host", json_string(host.nodename));
	json_object_set_new(o, "kernel", json_string(host.release));
	return o;
}

json_t *perf_json_gpu(const struct perf_plan *plan, const struct perf_gpu *g)
{
	json_t *o = settings_of(plan);
	char device[24];

	snprintf(device, sizeof(device), "cuda:%d", g->ordinal);
	json_object_set_new(o, "Device", json_string(device));
	json_object_set_new(o, "GPU", json_string(g->name));
	json_object_set_new(o, "PCI", json_string(g->pci));
	json_object_set_new(o, "CUDA_version", json_integer(g->driver));
	json_object_set_new(o, "TX_depth", json_integer(plan->depth));
	json_object_set_new(o, "NUMA_node", json_integer(perf_numa_node(g->host.at)));
	json_object_set_new(o, "GPU_NUMA_node", json_integer(g->node));
	return o;
}

json_t *perf_json_settings(const struct perf_plan *plan, const struct perf_client *c)
{
	struct pst_link_info info = {0};
	json_t *o = settings_of(plan);

	if (c->n)
		pst_link_info(c->remote[0].link, &info);
	json_object_set_new(o, "Device",
			    json_string(*info.device ? info.device
					: plan->dev  ? plan->dev
						     : ""));
	json_object_set_new(o, "Transport_type", json_string(plan->fabric));
	json_object_set_new(o, "Number_of_qps", json_integer(plan->links));
	json_object_set_new(o, "TX_depth", json_integer(plan->depth));
	json_object_set_new(o, "CQ_Moderation", json_integer(plan->moderation));
	json_object_set_new(o, "Mtu", info.mtu ? json_integer(info.mtu) : json_null());
	json_object_set_new(o, "Max_inline_data",
			    info.mtu ? json_integer(info.max_inline) : json_null());
	json_object_set_new(o, "Number_of_rails", json_integer(info.rails));
	json_object_set_new(o, "CRC", json_boolean(!plan->no_crc));
	json_object_set_new(o, "completions", json_string(plan->event ? "event" : "poll"));
	json_object_set_new(o, "NUMA_node",
			    json_integer(c->memory.at ? perf_numa_node(c->memory.at) : -1));
	json_object_set_new(o, "settings", json_string(plan->settings));
	return o;
}
