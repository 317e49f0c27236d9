/* SPDX-License-Identifier: Apache-2.0 */
/* penstockctl top: samples, and the loop that shows them. */
#include "tools/ctl/top.h"
#include "tools/ctl/screen.h"
#include "tools/ctl/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void sample_free(struct sample *s)
{
	free(s->devices.row);
	free(s->workers.row);
	free(s->pools.row);
	free(s->servers.row);
	free(s->tables.row);
	*s = (struct sample){0};
}

int sample_take(struct ctl *ctl, struct sample *out)
{
	struct sample s = {.at = seconds_now()};
	const struct {
		uint32_t cmd;
		struct list *to;
	} list[] = {{PST_CMD_DEVICE_STAT, &s.devices},
		    {PST_CMD_WORKER_STAT, &s.workers},
		    {PST_CMD_POOL_STAT, &s.pools},
		    {PST_CMD_SERVER_STAT, &s.servers},
		    {PST_CMD_TABLE_STAT, &s.tables}};
	int rc = ctl_call(ctl, PST_CMD_INFO, &s.info);

	for (size_t i = 0; rc >= 0 && i < sizeof(list) / sizeof(*list); i++)
		rc = ctl_list(ctl, list[i].cmd, &list[i].to->row, &list[i].to->n);
	if (rc < 0) {
		sample_free(&s);
		return rc;
	}
	*out = s;
	return 0;
}

static int open_events(struct top *top)
{
	struct pst_cmd_events how = {.past = TOP_EVENTS};
	int rc = ctl_call(top->ctl, PST_CMD_EVENTS, &how);

	if (rc < 0)
		return rc;
	top->events_fd = how.out_fd;
	top->events = 0;
	return 0;
}

static void hang_up(struct top *top)
{
	if (top->events_fd >= 0)
		close(top->events_fd);
	top->events_fd = -1;
	ctl_hang_up(top->ctl);
}

static int read_events(struct top *top)
{
	struct pst_event e;
	int rc;

	while ((rc = ctl_next_event(top->ctl, top->events_fd, &e)) == 1) {
		if (top->events == TOP_EVENTS)
			memmove(&top->event[0], &top->event[1],
				sizeof(top->event[0]) * --top->events);
		top->event[top->events++] = e;
	}
	if (!rc)
		return ctl_error(top->ctl, -ECONNRESET, "the daemon is gone");
	return rc == -EAGAIN ? 0 : rc;
}

/* Another sample, and what happened meanwhile. */
static int refresh(struct top *top)
{
	struct sample s;
	int rc = 0;

	if (top->events_fd < 0)
		rc = open_events(top);
	if (rc >= 0)
		rc = sample_take(top->ctl, &s);
	if (rc < 0) {
		hang_up(top);
		return rc;
	}
	sample_free(&top->before);
	top->before = top->now;
	top->now = s;
	/* counters of another daemon began anew */
	if (top->before.info.out_start_ns != s.info.out_start_ns)
		sample_free(&top->before);
	return read_events(top);
}

/* The lists as their own commands print them. */
static int snapshot_json(struct top *top)
{
	const struct sample *s = &top->now;
	json_t *root = json_pack("[{s:o, s:o, s:o, s:o, s:o, s:o, s:o}]", "info",
				 json_rows(&sheet_info, &s->info, 1), "devices",
				 json_rows(&sheet_devices, s->devices.row, s->devices.n), "workers",
				 json_rows(&sheet_workers, s->workers.row, s->workers.n), "pools",
				 json_rows(&sheet_pools, s->pools.row, s->pools.n), "servers",
				 json_rows(&sheet_servers, s->servers.row, s->servers.n), "tables",
				 json_rows(&sheet_tables, s->tables.row, s->tables.n), "events",
				 json_rows(&sheet_events, top->event, top->events));

	return json_print(root);
}

static int snapshot_text(struct top *top)
{
	struct view v;
	int rc = view_make(top, TOP_WIDTH, 0, &v);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < v.lines; i++)
		printf("%s%s%s\n", tone_begin(v.line[i].tone), v.line[i].text,
		       tone_end(v.line[i].tone));
	view_free(&v);
	return 0;
}

/* Two samples, since rates are what is looked for. */
static int snapshot(struct top *top, double interval)
{
	struct timespec t = {(time_t)interval, (long)(1e9 * (interval - floor(interval)))};
	int rc = refresh(top);

	if (rc >= 0 && !top->ctl->json) {
		nanosleep(&t, NULL);
		rc = refresh(top);
	}
	if (rc < 0)
		return ctl_fail(top->ctl);
	rc = top->ctl->json ? snapshot_json(top) : snapshot_text(top);
	if (rc < 0) {
		ctl_error(top->ctl, rc, "no memory for the snapshot");
		return ctl_fail(top->ctl);
	}
	return EXIT_DONE;
}

/* Something to say instead of the view. */
static void draw_sentence(unsigned int width, unsigned int height, const char *text)
{
	char clean[PST_ERROR_TEXT + 1];
	const char *at = clean;

	text_clean(clean, text, PST_ERROR_TEXT);
	for (unsigned int y = 0; y < height; y++) {
		screen_line(y, width, at, TONE_PLAIN);
		at += text_fit(at, width);
	}
	screen_show();
}

static void draw(struct top *top, int rc)
{
	unsigned int width, height;
	char text[PST_ERROR_TEXT];
	struct view v;

	screen_size(&width, &height);
	if (width < TOP_WIDTH || height < TOP_HEIGHT) {
		snprintf(text, sizeof(text), "penstockctl top needs %dx%d, this window has %ux%u",
			 TOP_WIDTH, TOP_HEIGHT, width, height);
		draw_sentence(width, height, text);
		return;
	}
	if (rc < 0) {
		snprintf(text, sizeof(text), "%.400s (tried again every moment; q quits)",
			 top->ctl->err.text);
		draw_sentence(width, height, text);
		return;
	}
	if (view_make(top, width, height, &v) < 0)
		return;
	for (unsigned int y = 0; y < height; y++)
		screen_line(y, width, y < v.lines ? v.line[y].text : "",
			    y < v.lines ? v.line[y].tone : TONE_PLAIN);
	screen_show();
	view_free(&v);
}

/* Until q; the daemon may come and go meanwhile. */
static int live(struct top *top, double interval)
{
	int rc = screen_open(), key = 0;

	if (rc < 0) {
		ctl_error(top->ctl, rc, "the terminal cannot be used: %s", strerror(-rc));
		return ctl_fail(top->ctl);
	}
	while (key >= 0 || key == -EINTR) {
		double due = seconds_now() + interval, left;

		if (key != -EINTR)
			rc = refresh(top);
		draw(top, rc);
		do {
			left = due - seconds_now();
			key = screen_key(left > 0 ? (int)ceil(1e3 * left) : 0);
		} while (key > 0 && !strchr("qQ ", key));
		if (key == 'q' || key == 'Q')
			break;
	}
	screen_close();
	return EXIT_DONE;
}

int cmd_top(struct ctl *ctl, int argc, char **argv)
{
	struct top top = {.ctl = ctl, .events_fd = -1};
	double interval = 1;
	uint32_t once = 0;
	const struct ctl_usage usage = {
		.command = "top",
		.words = "",
		.help = "Devices, workers, memory, servers, tables and events, live. q quits, a "
			"blank\nlooks again at once.",
		.option = {{"interval", "SECONDS", OPT_REAL, &interval, 0.01, 3600,
			    "between two looks (default 1)", NULL},
			   {"once", NULL, OPT_FLAG, &once, 0, 0,
			    "once, as plain text; so it is without a terminal", NULL}},
	};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	if (rc >= 0)
		return rc;
	if (once || ctl->json || !screen_possible())
		rc = snapshot(&top, interval);
	else
		rc = live(&top, interval);
	hang_up(&top);
	sample_free(&top.now);
	sample_free(&top.before);
	return rc;
}
