/* SPDX-License-Identifier: Apache-2.0 */
/* How penstockctl top lays out its sections. */
#include "tools/ctl/text.h"
#include "tools/ctl/top_rows.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void add_line(struct view *v, enum tone tone, const char *text)
{
	struct view_line *grown;

	if (v->lines == v->room) {
		v->room = v->room ? 2 * v->room : 32;
		grown = realloc(v->line, v->room * sizeof(*grown));
		if (!grown) {
			v->failed = true;
			v->room = v->lines;
			return;
		}
		v->line = grown;
	}
	v->line[v->lines].text = strdup(text);
	v->line[v->lines].tone = tone;
	v->failed |= !v->line[v->lines].text;
	v->lines += v->line[v->lines].text != NULL;
}

void view_free(struct view *v)
{
	for (size_t i = 0; i < v->lines; i++)
		free(v->line[i].text);
	free(v->line);
	*v = (struct view){0};
}

/* Rows go round, one to each section that has more, until there is no room. */
static void share(struct section *s, unsigned int height, size_t summary)
{
	size_t left = height;
	bool more = true;

	for (int k = 0; k < SECTIONS; k++)
		left -= s[k].rows ? 1 : 0;
	left -= summary;
	while (more && left) {
		more = false;
		for (int k = 0; k < SECTIONS && left; k++)
			if (s[k].shown < s[k].rows) {
				s[k].shown++;
				left--;
				more = true;
			}
	}
}

static void measure(const struct section *s, size_t first, unsigned int window, size_t *width)
{
	size_t sum = 0;

	for (int f = 0; f < FIELDS && s->title[f]; f++) {
		width[f] = strlen(s->title[f]);
		for (size_t i = first; i < first + s->shown; i++) {
			size_t w = text_width(s->row[i].text[f]);

			width[f] = w > width[f] ? w : width[f];
		}
		sum += width[f] + (f ? 2 : 0);
	}
	if (sum > window) {
		size_t over = sum - window, *flexible = &width[s->flexible];

		*flexible = *flexible > over + 6 ? *flexible - over : 6;
	}
}

static void add_row(struct view *v, const struct section *s, const char *const *text,
		    const size_t *width, enum tone tone)
{
	char line[1024];
	size_t n = 0;

	for (int f = 0; f < FIELDS && s->title[f]; f++) {
		size_t w = text_width(text[f]), fits = strlen(text[f]), fill;
		bool last = f + 1 == FIELDS || !s->title[f + 1];
		bool cut = w > width[f] && !last;

		if (cut) {
			fits = text_fit(text[f], width[f] - 1);
			w = width[f];
		}
		fill = w < width[f] ? width[f] - w : 0;
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s%*s%.*s%s%*s", f ? "  " : "",
				      (int)(s->number[f] ? fill : 0), "", (int)fits, text[f],
				      cut ? "~" : "", (int)(s->number[f] || last ? 0 : fill), "");
		if (n >= sizeof(line))
			break;
	}
	add_line(v, tone, line);
}

/* The heading says at its end how many rows are not shown. */
static void add_heading(struct view *v, const struct section *s, const size_t *width,
			unsigned int window)
{
	const char *last;
	char more[48], line[1024];

	add_row(v, s, s->title, width, TONE_HEAD);
	if (v->failed || s->shown == s->rows)
		return;
	last = v->line[v->lines - 1].text;
	snprintf(more, sizeof(more), "%zu of %zu", s->shown, s->rows);
	if (strlen(last) + 2 + strlen(more) > window)
		return;
	snprintf(line, sizeof(line), "%-*s%s", (int)(window - strlen(more)), last, more);
	free(v->line[--v->lines].text);
	add_line(v, TONE_HEAD, line);
}

static void add_section(struct view *v, const struct section *s, unsigned int window)
{
	size_t width[FIELDS] = {0}, first = s->newest ? s->rows - s->shown : 0;
	const char *text[FIELDS];

	if (!s->rows)
		return;
	measure(s, first, window, width);
	add_heading(v, s, width, window);
	for (size_t i = first; i < first + s->shown; i++) {
		for (int f = 0; f < FIELDS; f++)
			text[f] = s->row[i].text[f];
		add_row(v, s, text, width, s->row[i].tone);
	}
}

/* One line of who, and one of how much. */
static void add_summary(struct view *v, const struct top *top, unsigned int window)
{
	const struct sample *now = &top->now;
	double rows = 0, moved = 0;
	char left[256], clean[sizeof(left) + 1], when[32], up[32], s[3][32];
	struct timespec boot;
	uint64_t copied = 0;
	time_t t = time(NULL);
	struct tm tm;
	size_t used;

	for (size_t i = 0; i < now->workers.n; i++) {
		const struct pst_cmd_worker_stat *w =
			(struct pst_cmd_worker_stat *)now->workers.row + i;
		const struct pst_cmd_worker_stat *b =
			top_earlier(&top->before.workers, sizeof(*w), w->id);
		double r = b ? top_rate(top, w->out_rows, b->out_rows) : -1;
		double m = b ? top_rate(top, w->out_moved, b->out_moved) : -1;

		rows += r > 0 ? r : 0;
		moved += m > 0 ? m : 0;
		copied += w->out_copied;
	}
	clock_gettime(CLOCK_BOOTTIME, &boot);
	cell_seconds((double)boot.tv_sec - 1e-9 * (double)now->info.out_start_ns, up);
	snprintf(left, sizeof(left), "penstockd %.*s, process %u, up %s",
		 (int)sizeof(now->info.out_version), (const char *)now->info.out_version,
		 now->info.out_pid, up);
	text_clean(clean, left, sizeof(left));
	strftime(when, sizeof(when), "%H:%M:%S", localtime_r(&t, &tm));
	used = text_width(clean) + strlen(when);
	snprintf(left, sizeof(left), "%.200s%*s%s", clean,
		 used + 2 < window ? (int)(window - used) : 2, "", when);
	add_line(v, TONE_PLAIN, left);
	snprintf(left, sizeof(left), "%s rows/s, %s/s moved, %s copied; %s in pools",
		 cell_count(rows, s[0]), cell_bytes(moved, s[1]), cell_bytes((double)copied, s[2]),
		 cell_bytes((double)now->info.out_pool_bytes, up));
	add_line(v, copied ? TONE_WARN : TONE_PLAIN, left);
}

int view_make(const struct top *top, unsigned int width, unsigned int height, struct view *out)
{
	struct section s[SECTIONS] = {
		[DEVICES] = {{"DEVICE", "NAME", "LOAD", "MEMORY", "POWER", "CLOCK", "TEMP",
			      "HEALTH"},
			     {0, 0, 1, 1, 1, 1, 1, 0},
			     .flexible = 1},
		[WORKERS] = {{"WORKER", "STATE", "DEVICE", "ROWS/S", "BUSY", "MOVED/S", "COPIED",
			      "URL"},
			     {1, 0, 0, 1, 1, 1, 1, 0},
			     .flexible = 7},
		[TIERS] = {{"NODE", "POOLS", "MEMORY", "HUGE PAGES", "ELSEWHERE"},
			   {1, 1, 1, 1, 1},
			   .flexible = 0},
		[SERVERS] = {{"SERVER", "STATE", "NODE", "TABLES", "MEMORY", "READ", "RESTARTS",
			      "URL"},
			     {1, 0, 1, 1, 1, 1, 1, 0},
			     .flexible = 7},
		[TABLES] = {{"TABLE", "NAME", "SERVER", "VERSION", "SIZE", "STATE", "PUSHED/S",
			     "CLIENTS"},
			    {1, 0, 1, 1, 1, 1, 1, 1},
			    .flexible = 1},
		[EVENTS] = {{"EVENT", "TYPE", "WHAT"}, {0}, .flexible = 2, .newest = true},
	};
	struct view v = {0};
	int rc = top_rows(top, s);

	for (int k = 0; !rc && k < EVENTS; k++)
		if (height)
			top_worst_first(&s[k]);
	if (!rc)
		add_summary(&v, top, width);
	for (int k = 0; k < SECTIONS; k++)
		s[k].shown = height ? 0 : s[k].rows;
	if (!rc && height)
		share(s, height, v.lines);
	for (int k = 0; !rc && k < SECTIONS; k++)
		add_section(&v, &s[k], width);
	for (int k = 0; k < SECTIONS; k++)
		free(s[k].row);
	if (rc || v.failed) {
		view_free(&v);
		return -ENOMEM;
	}
	*out = v;
	return 0;
}
