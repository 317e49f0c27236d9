/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The families, one table per kind of object: the objects are read once and written once for every
 * family, since the format wants the samples of a family together. Names by Prometheus' own rules
 * (prometheus.io/docs/practices/naming): one prefix, base units, _total for what only grows.
 */
#include "daemon/control/command.h"
#include "daemon/events.h"
#include "daemon/metrics/metrics.h"
#include "daemon/metrics/text.h"
#include "runtime/penstock.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Where a figure is in its struct, and what one of it is in the family's unit. */
struct figure {
	const char *name, *type, *help;
	size_t at;
	double unit;
	bool wide; /* 64 bits, else 32 */
};

#define U64(kind, field, name, type, unit, help)                                                   \
	{                                                                                          \
		"penstock_" name, type, help, offsetof(struct pst_cmd_##kind##_stat, field), unit, \
			true                                                                       \
	}
#define U32(kind, field, name, type, unit, help)                                                   \
	{                                                                                          \
		"penstock_" name, type, help, offsetof(struct pst_cmd_##kind##_stat, field), unit, \
			false                                                                      \
	}

/* NaN: the object does not tell. */
static double figure_of(const struct figure *f, const void *object)
{
	uint64_t wide;
	uint32_t narrow;

	if (f->wide) {
		memcpy(&wide, (const char *)object + f->at, sizeof(wide));
		return wide == PST_UNKNOWN ? __builtin_nan("") : (double)wide * f->unit;
	}
	memcpy(&narrow, (const char *)object + f->at, sizeof(narrow));
	return narrow == PST_UNKNOWN32 ? __builtin_nan("") : (double)narrow * f->unit;
}

/* The objects of one STAT command, as many as there are. */
struct list {
	unsigned char *object;
	size_t count, size;
};

/* @size: of the struct; its id is the third field. */
static void list_read(struct penstockd *d, struct list *l, uint32_t cmd, size_t size)
{
	unsigned char one[PST_DOOR_MAX] __attribute__((aligned(8)));
	uint32_t head[3] = {(uint32_t)size, PST_STAT_NEXT, 0};

	*l = (struct list){.size = size};
	for (;;) {
		unsigned char *more;

		memset(one, 0, size);
		memcpy(one, head, sizeof(head));
		if (command_ask(d, cmd, one))
			return;
		memcpy(&head[2], one + 2 * sizeof(uint32_t), sizeof(uint32_t));
		more = realloc(l->object, (l->count + 1) * size);
		if (!more)
			return;
		l->object = more;
		memcpy(l->object + l->count++ * size, one, size);
	}
}

/* What its samples are told apart by: two pairs at most. */
typedef void label_fn(const void *object, char value[2][128]);

static void write_list(FILE *to, const struct list *l, const struct figure *f, size_t n,
		       const char *const names[2], label_fn *labels)
{
	for (; n; n--, f++) {
		family(to, f->name, f->type, f->help);
		for (size_t i = 0; i < l->count; i++) {
			const void *object = l->object + i * l->size;
			double value = figure_of(f, object);
			char said[2][128] = {"", ""};

			if (__builtin_isnan(value))
				continue;
			labels(object, said);
			sample(to, f->name, value, names[0], said[0], names[1], said[1], NULL);
		}
	}
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Devices */

static void device_labels(const void *object, char value[2][128])
{
	const struct pst_cmd_device_stat *s = object;

	snprintf(value[0], 128, "%u", s->id);
	snprintf(value[1], 128, "%s", s->out_kind == PST_DEVICE_GPU ? "gpu" : "cpu");
}

static void write_devices(struct penstockd *d, FILE *to)
{
	static const struct figure figures[] = {
		U64(device, out_memory_bytes, "device_memory_bytes", "gauge", 1,
		    "Memory of a device."),
		U64(device, out_memory_used, "device_memory_used_bytes", "gauge", 1,
		    "Memory of a device that is in use."),
		U32(device, out_load, "device_load_ratio", "gauge", 1e-3,
		    "Share of the time that a device computed, of late."),
		U32(device, out_health, "device_health", "gauge", 1,
		    "0 ok, 1 throttled, 2 errors were seen, 3 lost."),
		U64(device, out_energy_uj, "device_energy_joules_total", "counter", 1e-6,
		    "Energy that a device took."),
		U32(device, out_power_mw, "device_power_watts", "gauge", 1e-3,
		    "Power of a device."),
		U32(device, out_cap_mw, "device_power_cap_watts", "gauge", 1e-3,
		    "Power that a device may take at most."),
		U32(device, out_clock_mhz, "device_clock_hertz", "gauge", 1e6,
		    "Clock of a device's cores."),
		U32(device, out_clock_max_mhz, "device_clock_max_hertz", "gauge", 1e6,
		    "What a device's cores may run at."),
		U32(device, out_memory_clock_mhz, "device_memory_clock_hertz", "gauge", 1e6,
		    "Clock of a device's memory."),
		U32(device, out_temperature_mc, "device_temperature_celsius", "gauge", 1e-3,
		    "Temperature of a device."),
		U32(device, out_xid, "device_last_xid", "gauge", 1,
		    "The last XID error that the driver told, 0: none."),
		U64(device, out_ecc_corrected, "device_ecc_corrected_errors_total", "counter", 1,
		    "Errors of a device's memory that were corrected."),
		U64(device, out_ecc_uncorrected, "device_ecc_uncorrected_errors_total", "counter",
		    1, "Errors of a device's memory that were not corrected."),
	};
	static const char *const labels[2] = {"device", "kind"};
	struct list l;

	list_read(d, &l, PST_CMD_DEVICE_STAT, sizeof(struct pst_cmd_device_stat));
	family(to, "penstock_device_info", "gauge", "What a device is.");
	for (size_t i = 0; i < l.count; i++) {
		const struct pst_cmd_device_stat *s = (const void *)(l.object + i * l.size);
		char value[2][128], node[16];

		device_labels(s, value);
		snprintf(node, sizeof(node), "%d", s->out_node);
		sample(to, "penstock_device_info", 1, "device", value[0], "kind", value[1], "node",
		       node, "name", (const char *)s->out_name, "uuid", (const char *)s->out_uuid,
		       NULL);
	}
	write_list(to, &l, figures, COUNT(figures), labels, device_labels);
	free(l.object);
}

/* Pools */

static void pool_labels(const void *object, char value[2][128])
{
	const struct pst_cmd_pool_stat *s = object;

	snprintf(value[0], 128, "%u", s->id);
	snprintf(value[1], 128, "%d", s->out_node);
}

static void write_pools(struct penstockd *d, FILE *to)
{
	static const struct figure figures[] = {
		U64(pool, out_bytes, "pool_bytes", "gauge", 1, "Bytes that a pool has."),
		U64(pool, out_page_bytes, "pool_page_bytes", "gauge", 1, "Size of a pool's pages."),
		U64(pool, out_pages, "pool_pages_checked", "gauge", 1,
		    "Pages of a pool whose node was looked at."),
		U64(pool, out_pages_elsewhere, "pool_pages_elsewhere", "gauge", 1,
		    "Of these, on another node than the pool's."),
	};
	static const char *const labels[2] = {"pool", "node"};
	struct list l;

	list_read(d, &l, PST_CMD_POOL_STAT, sizeof(struct pst_cmd_pool_stat));
	write_list(to, &l, figures, COUNT(figures), labels, pool_labels);
	free(l.object);
}

/* Workers and servers */

static void worker_labels(const void *object, char value[2][128])
{
	const struct pst_cmd_worker_stat *s = object;

	snprintf(value[0], 128, "%u", s->id);
	snprintf(value[1], 128, "%u", s->out_device);
}

static void write_workers(struct penstockd *d, FILE *to)
{
	static const struct figure figures[] = {
		U32(worker, out_restarts, "worker_restarts_total", "counter", 1,
		    "Times that a worker was started again."),
		U32(worker, out_engines, "worker_engines", "gauge", 1,
		    "Engines that a worker serves."),
		U32(worker, out_threads, "worker_threads", "gauge", 1, "Threads that compute."),
		U32(worker, out_beat_ms, "worker_last_beat_seconds", "gauge", 1e-3,
		    "Time since a worker was last heard of."),
		U64(worker, out_rows, "worker_rows_total", "counter", 1,
		    "Rows that a worker computed."),
		U64(worker, out_calls, "worker_requests_total", "counter", 1,
		    "Requests that a worker served."),
		U64(worker, out_busy_ns, "worker_busy_seconds_total", "counter", 1e-9,
		    "Time that a worker computed."),
		U64(worker, out_pulled, "worker_pulled_bytes_total", "counter", 1,
		    "Bytes of weights that a worker used."),
		U64(worker, out_moved, "worker_moved_bytes_total", "counter", 1,
		    "Bytes that crossed a worker's links."),
		U64(worker, out_copied, "worker_copied_bytes_total", "counter", 1,
		    "Bytes that a worker moved more than once."),
	};
	static const char *const labels[2] = {"worker", "device"};
	struct list l;

	list_read(d, &l, PST_CMD_WORKER_STAT, sizeof(struct pst_cmd_worker_stat));
	family(to, "penstock_worker_up", "gauge",
	       "1 for a worker that serves or drains, 0 for one that should.");
	for (size_t i = 0; i < l.count; i++) {
		const struct pst_cmd_worker_stat *s = (const void *)(l.object + i * l.size);
		char value[2][128];

		if (s->out_state == PST_WORKER_STOPPED)
			continue;
		worker_labels(s, value);
		sample(to, "penstock_worker_up",
		       s->out_state == PST_WORKER_SERVING || s->out_state == PST_WORKER_DRAINING,
		       "worker", value[0], "device", value[1], "url", (const char *)s->out_url,
		       NULL);
	}
	write_list(to, &l, figures, COUNT(figures), labels, worker_labels);
	free(l.object);
}

static void server_labels(const void *object, char value[2][128])
{
	const struct pst_cmd_server_stat *s = object;

	snprintf(value[0], 128, "%u", s->id);
	snprintf(value[1], 128, "%d", s->out_node);
}

static void write_servers(struct penstockd *d, FILE *to)
{
	static const struct figure figures[] = {
		U32(server, out_restarts, "server_restarts_total", "counter", 1,
		    "Times that a server was started again."),
		U32(server, out_tables, "server_tables", "gauge", 1,
		    "Tables that a server has parts of."),
		U64(server, out_bytes, "server_pool_bytes", "gauge", 1,
		    "Bytes in a server's pools."),
		U64(server, out_read_bytes, "server_read_bytes_total", "counter", 1,
		    "Bytes that a server read from disk."),
	};
	static const char *const labels[2] = {"server", "node"};
	struct list l;

	list_read(d, &l, PST_CMD_SERVER_STAT, sizeof(struct pst_cmd_server_stat));
	family(to, "penstock_server_up", "gauge",
	       "1 for a server that runs, 0 for one that should.");
	for (size_t i = 0; i < l.count; i++) {
		const struct pst_cmd_server_stat *s = (const void *)(l.object + i * l.size);
		char value[2][128];

		server_labels(s, value);
		sample(to, "penstock_server_up", s->out_pid != 0, "server", value[0], "node",
		       value[1], "url", (const char *)s->out_url, NULL);
	}
	write_list(to, &l, figures, COUNT(figures), labels, server_labels);
	free(l.object);
}

static void table_labels(const void *object, char value[2][128])
{
	const struct pst_cmd_table_stat *s = object;

	snprintf(value[0], 128, "%s", (const char *)s->out_name);
	snprintf(value[1], 128, "%u", s->out_server);
}

static void write_tables(struct penstockd *d, FILE *to)
{
	static const struct figure figures[] = {
		U64(table, out_bytes, "table_bytes", "gauge", 1,
		    "Bytes of the snapshot of a server's part of a table."),
		U64(table, out_state_bytes, "table_state_bytes", "gauge", 1,
		    "Bytes that the optimizer keeps beside it."),
		U64(table, out_version, "table_version", "gauge", 1,
		    "The version that was published last."),
		U64(table, out_pushed_bytes, "table_pushed_bytes_total", "counter", 1,
		    "Gradients that came in."),
		U32(table, out_clients, "table_clients", "gauge", 1, "Links that use it."),
	};
	static const char *const labels[2] = {"table", "server"};
	struct list l;

	list_read(d, &l, PST_CMD_TABLE_STAT, sizeof(struct pst_cmd_table_stat));
	write_list(to, &l, figures, COUNT(figures), labels, table_labels);
	free(l.object);
}

/* Experts: a model has tens of thousands, so their sums, and the worst layer. */

struct experts {
	uint64_t count, copies, pinned, rows, pulled;
	double worst; /* of the layers: rows of its busiest expert, of late, over their mean */
	uint32_t layer, in_layer;
	uint64_t most, sum; /* of the layer that is being looked at */
};

static void end_layer(struct experts *e)
{
	double ratio = e->sum ? (double)e->most * e->in_layer / (double)e->sum : 0;

	e->worst = ratio > e->worst ? ratio : e->worst;
	e->most = e->sum = e->in_layer = 0;
}

static void write_experts(struct penstockd *d, FILE *to)
{
	struct pst_cmd_expert_stat s = {.size = sizeof(s),
					.flags = PST_STAT_NEXT,
					.layer = PST_EXPERT_FIRST,
					.index = PST_EXPERT_FIRST};
	struct experts e = {0};

	while (!command_ask(d, PST_CMD_EXPERT_STAT, &s)) {
		if (e.count && s.layer != e.layer)
			end_layer(&e);
		e.layer = s.layer;
		e.count++;
		e.in_layer++;
		e.copies += s.out_copies;
		e.pinned += s.out_pinned;
		e.rows += s.out_rows;
		e.pulled += s.out_pulled;
		e.sum += s.out_recent_rows;
		e.most = s.out_recent_rows > e.most ? s.out_recent_rows : e.most;
	}
	end_layer(&e);
	family(to, "penstock_experts", "gauge", "Experts that this host's workers computed.");
	sample(to, "penstock_experts", (double)e.count, NULL);
	family(to, "penstock_expert_copies", "gauge", "Copies of experts in workers.");
	sample(to, "penstock_expert_copies", (double)e.copies, NULL);
	family(to, "penstock_expert_copies_pinned", "gauge", "Of these, told to stay.");
	sample(to, "penstock_expert_copies_pinned", (double)e.pinned, NULL);
	family(to, "penstock_expert_rows_total", "counter",
	       "Rows that were computed with experts.");
	sample(to, "penstock_expert_rows_total", (double)e.rows, NULL);
	family(to, "penstock_expert_pulled_bytes_total", "counter",
	       "Bytes of experts that came over links.");
	sample(to, "penstock_expert_pulled_bytes_total", (double)e.pulled, NULL);
	family(to, "penstock_expert_load_imbalance_ratio", "gauge",
	       "Rows of the busiest expert over the mean of its layer, of late, in the worst "
	       "layer.");
	sample(to, "penstock_expert_load_imbalance_ratio", e.worst, NULL);
}

/* Kernels */

static const char *kernel_state(uint32_t state)
{
	switch (state) {
	case PST_KERNEL_TESTED:
		return "tested";
	case PST_KERNEL_BOUND:
		return "bound";
	case PST_KERNEL_REPLACED:
		return "replaced";
	default:
		return "taken_back";
	}
}

static void kernel_labels(const void *object, char value[2][128])
{
	const struct pst_cmd_kernel_stat *s = object;

	snprintf(value[0], 128, "%u", s->id);
	snprintf(value[1], 128, "%s", (const char *)s->out_op);
}

static void write_kernels(struct penstockd *d, FILE *to)
{
	static const struct figure figures[] = {
		U64(kernel, out_checks, "kernel_checks_total", "counter", 1,
		    "Times that a kernel was held against ref."),
		U64(kernel, out_error_ppb, "kernel_error_ratio", "gauge", 1e-9,
		    "The worst relative error seen in these."),
		U32(kernel, out_workers, "kernel_workers", "gauge", 1,
		    "Workers that it serves in."),
	};
	static const char *const labels[2] = {"kernel", "op"};
	struct list l;

	list_read(d, &l, PST_CMD_KERNEL_STAT, sizeof(struct pst_cmd_kernel_stat));
	family(to, "penstock_kernel_info", "gauge", "What a kernel is, and whether it is bound.");
	for (size_t i = 0; i < l.count; i++) {
		const struct pst_cmd_kernel_stat *s = (const void *)(l.object + i * l.size);
		char value[2][128];

		kernel_labels(s, value);
		sample(to, "penstock_kernel_info", 1, "kernel", value[0], "op", value[1], "name",
		       (const char *)s->out_name, "state", kernel_state(s->out_state), NULL);
	}
	write_list(to, &l, figures, COUNT(figures), labels, kernel_labels);
	free(l.object);
}

/* The daemon itself, and what happened */

static const char *const event_names[PST_EVENT_END] = {
	[PST_EVENT_STARTED] = "started",
	[PST_EVENT_DIED] = "died",
	[PST_EVENT_HUNG] = "hung",
	[PST_EVENT_DRAINED] = "drained",
	[PST_EVENT_STOPPED] = "stopped",
	[PST_EVENT_KERNEL_LOADED] = "kernel_loaded",
	[PST_EVENT_KERNEL_REFUSED] = "kernel_refused",
	[PST_EVENT_KERNEL_BOUND] = "kernel_bound",
	[PST_EVENT_KERNEL_TAKEN_BACK] = "kernel_taken_back",
	[PST_EVENT_DEVICE] = "device",
	[PST_EVENT_XID] = "xid",
	[PST_EVENT_LIMIT] = "limit",
	[PST_EVENT_POOL] = "pool",
	[PST_EVENT_RELOADED] = "reloaded",
};

static double start_time(const struct penstockd *d)
{
	struct timespec real, boot;

	clock_gettime(CLOCK_REALTIME, &real);
	clock_gettime(CLOCK_BOOTTIME, &boot);
	return (double)(real.tv_sec - boot.tv_sec) + (double)(real.tv_nsec - boot.tv_nsec) * 1e-9 +
	       (double)d->started_ns * 1e-9;
}

static void write_daemon(struct penstockd *d, FILE *to)
{
	family(to, "penstock_build_info", "gauge", "Which Penstock this is.");
	sample(to, "penstock_build_info", 1, "version", pst_version(), NULL);
	family(to, "penstock_start_time_seconds", "gauge",
	       "When the daemon began, since the epoch.");
	sample(to, "penstock_start_time_seconds", start_time(d), NULL);
	family(to, "penstock_events_total", "counter", "What happened since the daemon began.");
	for (uint32_t type = 0; type < PST_EVENT_END; type++)
		if (event_names[type])
			sample(to, "penstock_events_total", (double)events_count(d->events, type),
			       "type", event_names[type], NULL);
}

void metrics_write(struct penstockd *d, FILE *to)
{
	write_daemon(d, to);
	write_devices(d, to);
	write_pools(d, to);
	write_workers(d, to);
	write_servers(d, to);
	write_tables(d, to);
	write_experts(d, to);
	write_kernels(d, to);
}
