/* SPDX-License-Identifier: Apache-2.0 */
/* Workers and servers. */
#include "tools/ctl/ctl.h"

#include <math.h>
#include <string.h>

const struct word words_worker[] = {
	{PST_WORKER_STARTING, "starting", TONE_WARN}, {PST_WORKER_SERVING, "serving", TONE_PLAIN},
	{PST_WORKER_DRAINING, "draining", TONE_WARN}, {PST_WORKER_STOPPED, "stopped", TONE_PLAIN},
	{PST_WORKER_FAILED, "failed", TONE_BAD},      {0},
};

static const struct column worker_columns[] = {
	COLUMN(pst_cmd_worker_stat, id, "ID", CELL_NUMBER),
	COLUMN_WORDS(pst_cmd_worker_stat, out_state, "STATE", CELL_WORD, words_worker),
	COLUMN(pst_cmd_worker_stat, out_device, "DEVICE", CELL_OR_NONE),
	COLUMN(pst_cmd_worker_stat, out_pid, "PID", CELL_OR_NONE),
	COLUMN(pst_cmd_worker_stat, out_threads, "THREADS", CELL_NUMBER),
	COLUMN(pst_cmd_worker_stat, out_engines, "ENGINES", CELL_NUMBER),
	COLUMN(pst_cmd_worker_stat, out_restarts, "RESTARTS", CELL_NUMBER),
	COLUMN(pst_cmd_worker_stat, out_beat_ms, "HEARD", CELL_MS),
	COLUMN(pst_cmd_worker_stat, out_calls, NULL, CELL_COUNT),
	COLUMN(pst_cmd_worker_stat, out_rows, "ROWS", CELL_COUNT),
	COLUMN(pst_cmd_worker_stat, out_busy_ns, "BUSY", CELL_NS),
	COLUMN(pst_cmd_worker_stat, out_pulled, "PULLED", CELL_BYTES),
	COLUMN(pst_cmd_worker_stat, out_moved, "MOVED", CELL_BYTES),
	COLUMN(pst_cmd_worker_stat, out_copied, "COPIED", CELL_BYTES),
	COLUMN(pst_cmd_worker_stat, out_url, "URL", CELL_TEXT),
	COLUMN(pst_cmd_worker_stat, out_note, "NOTE", CELL_NOTE),
};

const struct sheet sheet_workers = {
	.one = "worker",
	.many = "workers",
	.none = "one is started by: penstockctl worker start",
	.column = worker_columns,
	.columns = sizeof(worker_columns) / sizeof(*worker_columns),
	.row_bytes = sizeof(struct pst_cmd_worker_stat),
};

static const struct column server_columns[] = {
	COLUMN(pst_cmd_server_stat, id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_server_stat, out_pid, "PID", CELL_OR_NONE),
	COLUMN(pst_cmd_server_stat, out_node, "NODE", CELL_NODE),
	COLUMN(pst_cmd_server_stat, out_restarts, "RESTARTS", CELL_NUMBER),
	COLUMN(pst_cmd_server_stat, out_tables, "TABLES", CELL_NUMBER),
	COLUMN(pst_cmd_server_stat, out_bytes, "MEMORY", CELL_BYTES),
	COLUMN(pst_cmd_server_stat, out_read_bytes, "READ", CELL_BYTES),
	COLUMN(pst_cmd_server_stat, out_url, "URL", CELL_TEXT),
	COLUMN(pst_cmd_server_stat, out_note, "NOTE", CELL_NOTE),
};

const struct sheet sheet_servers = {
	.one = "server",
	.many = "servers",
	.none = "they stand in penstockd.conf(5)",
	.column = server_columns,
	.columns = sizeof(server_columns) / sizeof(*server_columns),
	.row_bytes = sizeof(struct pst_cmd_server_stat),
};

static const struct column started[] = {
	COLUMN(pst_cmd_worker_start, out_id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_worker_start, out_pid, "PID", CELL_OR_NONE),
	COLUMN(pst_cmd_worker_start, out_url, "URL", CELL_TEXT),
};

static const struct sheet sheet_started = {
	.one = "worker",
	.many = "workers",
	.column = started,
	.columns = sizeof(started) / sizeof(*started),
	.row_bytes = sizeof(struct pst_cmd_worker_start),
};

int cmd_workers(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "workers", .words = "", .help = "Workers: what computes experts."};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	return rc >= 0 ? rc : ctl_show_all(ctl, PST_CMD_WORKER_STAT, &sheet_workers);
}

int cmd_servers(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "servers",
		.words = "",
		.help = "Parameter servers, that the daemon's config names."};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	return rc >= 0 ? rc : ctl_show_all(ctl, PST_CMD_SERVER_STAT, &sheet_servers);
}

int cmd_worker_start(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_worker_start how = {0};
	const char *device = NULL, *url = "";
	const struct ctl_usage usage = {
		.command = "worker start",
		.words = "",
		.help = "Start a worker, and wait until it listens.",
		.option = {{"device", "NAME", OPT_TEXT, &device, 0, 0,
			    "on this: an id, cpu:N or gpu:N, a name or UUID (the first CPU)", NULL},
			   {"threads", "N", OPT_U32, &how.threads, 0, 4096,
			    "that compute (default 0: the device's cores)", NULL},
			   {"url", "URL", OPT_TEXT, &url, 0, 0,
			    "where it listens (shm, under a name that is chosen)", NULL}},
	};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	if (rc >= 0)
		return rc;
	if (strlen(url) >= sizeof(how.url))
		return usage_error("worker start", "the URL has more than %zu bytes",
				   sizeof(how.url) - 1);
	memcpy(how.url, url, strlen(url));
	if ((device && ctl_find(ctl, &naming_device, device, &how.device) < 0) ||
	    ctl_call(ctl, PST_CMD_WORKER_START, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_started, &how, "worker %u is process %u and listens at %.*s",
			how.out_id, how.out_pid, (int)sizeof(how.out_url),
			(const char *)how.out_url);
}

int cmd_worker_drain(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_worker_drain how = {0};
	const char *word[1];
	double timeout = 60;
	const struct ctl_usage usage = {
		.command = "worker drain",
		.words = "ID|URL",
		.help = "Let engines take their work elsewhere, then stop the worker.",
		.least = 1,
		.most = 1,
		.option = {{"timeout", "SECONDS", OPT_REAL, &timeout, 0.001, 4e6,
			    "how long to wait (default 60); it drains on after that", NULL}},
	};
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	how.timeout_ms = (uint32_t)lround(1e3 * timeout);
	if (ctl_find(ctl, &naming_worker, word[0], &how.id) < 0 ||
	    ctl_call(ctl, PST_CMD_WORKER_DRAIN, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_none, &how, "worker %u is drained", how.id);
}

int cmd_worker_stop(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "worker stop",
		.words = "ID|URL",
		.help = "Stop a worker at once. Engines send what it had to another.",
		.least = 1,
		.most = 1,
	};
	struct pst_cmd_worker_stop how = {0};
	const char *word[1];
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	if (ctl_find(ctl, &naming_worker, word[0], &how.id) < 0 ||
	    ctl_call(ctl, PST_CMD_WORKER_STOP, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_none, &how, "worker %u is stopped", how.id);
}
