/* SPDX-License-Identifier: Apache-2.0 */
/* What the rows of penstockctl top say. */
#include "tools/ctl/top_rows.h"
#include "tools/ctl/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

__attribute__((format(printf, 3, 4))) static void put(struct view_row *r, int field,
						      const char *fmt, ...)
{
	char text[sizeof(r->text[0])];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	text_clean(r->text[field], text, sizeof(text) - 1);
}

static const char *word_of(const struct word *w, uint32_t value, enum tone *tone)
{
	for (; w->word; w++)
		if (w->value == value) {
			*tone = w->tone;
			return w->word;
		}
	return "?";
}

/* "101/140 GiB": both in the unit of the second. */
static void put_of(struct view_row *r, int field, double part, double whole, double unit,
		   const char *name)
{
	int digits = whole / unit < 99.5 ? 1 : 0;

	put(r, field, "%.*f/%.*f %s", digits, part / unit, digits, whole / unit, name);
}

static void put_memory(struct view_row *r, int field, uint64_t used, uint64_t bytes)
{
	double whole = (double)bytes;
	char s[32];

	if (bytes == PST_UNKNOWN)
		put(r, field, "-");
	else if (used == PST_UNKNOWN)
		put(r, field, "-/%s", cell_bytes(whole, s));
	else if (whole >= 0x1p40)
		put_of(r, field, (double)used, whole, 0x1p40, "TiB");
	else
		put_of(r, field, (double)used, whole, 0x1p30, "GiB");
}

static void put_power(struct view_row *r, int field, uint32_t mw, uint32_t cap)
{
	if (mw == PST_UNKNOWN32)
		put(r, field, "-");
	else if (cap == PST_UNKNOWN32)
		put(r, field, "%.0f W", mw / 1e3);
	else
		put(r, field, "%.0f/%.0f W", mw / 1e3, cap / 1e3);
}

static void put_unless(struct view_row *r, int field, uint32_t v, double unit, const char *name)
{
	if (v == PST_UNKNOWN32)
		put(r, field, "-");
	else
		put(r, field, "%.0f %s", (int32_t)v / unit, name);
}

/* "gpu:1", as devices are named, counted by kind. */
static void put_device(struct view_row *r, int field, const struct list *devices, uint32_t id)
{
	const struct pst_cmd_device_stat *d = devices->row;
	unsigned int index = 0;
	size_t i = 0;

	while (i < devices->n && d[i].id != id)
		i++;
	if (i == devices->n) {
		put(r, field, id ? "%u" : "-", id);
		return;
	}
	for (size_t k = 0; k < i; k++)
		index += d[k].out_kind == d[i].out_kind;
	put(r, field, "%s:%u", d[i].out_kind == PST_DEVICE_GPU ? "gpu" : "cpu", index);
}

static void fill_device(const struct top *top, struct view_row *r,
			const struct pst_cmd_device_stat *d)
{
	put_device(r, 0, &top->now.devices, d->id);
	put(r, 1, "%.*s", (int)sizeof(d->out_name), (const char *)d->out_name);
	put_unless(r, 2, d->out_load, 10, "%");
	put_memory(r, 3, d->out_memory_used, d->out_memory_bytes);
	put_power(r, 4, d->out_power_mw, d->out_cap_mw);
	put_unless(r, 5, d->out_clock_mhz, 1, "MHz");
	put_unless(r, 6, d->out_temperature_mc, 1000,
		   text_utf8() ? "\xc2\xb0"
				 "C"
			       : "C");
	put(r, 7, "%s", word_of(words_health, d->out_health, &r->tone));
}

const void *top_earlier(const struct list *list, size_t bytes, uint32_t id)
{
	for (size_t i = 0; i < list->n; i++) {
		const char *row = (const char *)list->row + i * bytes;

		if (!memcmp(row + offsetof(struct pst_cmd_worker_stat, id), &id, sizeof(id)))
			return row;
	}
	return NULL;
}

double top_rate(const struct top *top, uint64_t now, uint64_t before)
{
	double s = top->now.at - top->before.at;

	return top->before.at > 0 && s > 0 && now >= before ? (double)(now - before) / s : -1;
}

static void put_rate(struct view_row *r, int field, double rate,
		     const char *(*format)(double, char *))
{
	char s[32];

	put(r, field, "%s", rate < 0 ? "-" : format(rate, s));
}

static void fill_worker(const struct top *top, struct view_row *r,
			const struct pst_cmd_worker_stat *w)
{
	const struct pst_cmd_worker_stat *b = top_earlier(&top->before.workers, sizeof(*w), w->id);
	double busy = b && w->out_threads ? top_rate(top, w->out_busy_ns, b->out_busy_ns) : -1;
	char s[32];

	put(r, 0, "%u", w->id);
	put(r, 1, "%s", word_of(words_worker, w->out_state, &r->tone));
	put_device(r, 2, &top->now.devices, w->out_device);
	put_rate(r, 3, b ? top_rate(top, w->out_rows, b->out_rows) : -1, cell_count);
	if (busy < 0)
		put(r, 4, "-");
	else
		put(r, 4, "%.0f %%", busy * 1e-7 > 100 ? 100 : busy * 1e-7);
	put_rate(r, 5, b ? top_rate(top, w->out_moved, b->out_moved) : -1, cell_bytes);
	put(r, 6, "%s", cell_bytes((double)w->out_copied, s));
	put(r, 7, "%.*s", (int)sizeof(w->out_url), (const char *)w->out_url);
	/* what is moved twice is against the design */
	if (w->out_copied && !r->tone)
		r->tone = TONE_WARN;
}

static void fill_server(struct view_row *r, const struct pst_cmd_server_stat *s)
{
	char t[32];

	put(r, 0, "%u", s->id);
	put(r, 1, "%s", s->out_pid ? "runs" : "down");
	r->tone = s->out_pid ? TONE_PLAIN : TONE_BAD;
	if (s->out_node == PST_ANY)
		put(r, 2, "-");
	else
		put(r, 2, "%d", s->out_node);
	put(r, 3, "%u", s->out_tables);
	put(r, 4, "%s", cell_bytes((double)s->out_bytes, t));
	put(r, 5, "%s", cell_bytes((double)s->out_read_bytes, t));
	put(r, 6, "%u", s->out_restarts);
	put(r, 7, "%.*s", (int)sizeof(s->out_url), (const char *)s->out_url);
}

static void fill_table(const struct top *top, struct view_row *r,
		       const struct pst_cmd_table_stat *t)
{
	const struct pst_cmd_table_stat *b = top_earlier(&top->before.tables, sizeof(*t), t->id);
	char s[32];

	put(r, 0, "%u", t->id);
	put(r, 1, "%.*s", (int)sizeof(t->out_name), (const char *)t->out_name);
	put(r, 2, "%u", t->out_server);
	put(r, 3, "%llu", (unsigned long long)t->out_version);
	put(r, 4, "%s", cell_bytes((double)t->out_bytes, s));
	put(r, 5, "%s", cell_bytes((double)t->out_state_bytes, s));
	put_rate(r, 6, b ? top_rate(top, t->out_pushed_bytes, b->out_pushed_bytes) : -1,
		 cell_bytes);
	put(r, 7, "%u", t->out_clients);
}

static void fill_event(struct view_row *r, const struct pst_event *e)
{
	time_t t = (time_t)(e->time_ns / 1000000000);
	char when[32] = "-";
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(when, sizeof(when), "%H:%M:%S", &tm);
	put(r, 0, "%s", when);
	put(r, 1, "%s", word_of(words_event, e->type, &r->tone));
	put(r, 2, "%.*s", (int)sizeof(e->text), (const char *)e->text);
}

/* All pools of a node; @rows counts the nodes. */
struct tier {
	int32_t node;
	size_t pools;
	uint64_t bytes, huge, pages, elsewhere;
};

static size_t make_tiers(const struct list *pools, struct tier *tier)
{
	size_t n = 0;

	for (size_t i = 0; i < pools->n; i++) {
		const struct pst_cmd_pool_stat *p = (struct pst_cmd_pool_stat *)pools->row + i;
		struct tier *t = tier;

		while (t < tier + n && t->node != p->out_node)
			t++;
		if (t == tier + n)
			*t = (struct tier){.node = p->out_node}, n++;
		t->pools++;
		t->bytes += p->out_bytes;
		t->huge += p->out_page_bytes > 65536 ? p->out_bytes : 0;
		t->pages += p->out_pages;
		t->elsewhere += p->out_pages_elsewhere;
	}
	return n;
}

static void fill_tier(struct view_row *r, const struct tier *t)
{
	char s[32];

	if (t->node == PST_ANY)
		put(r, 0, "any");
	else
		put(r, 0, "%d", t->node);
	put(r, 1, "%zu", t->pools);
	put(r, 2, "%s", cell_bytes((double)t->bytes, s));
	put(r, 3, "%.0f %%", t->bytes ? 100.0 * (double)t->huge / (double)t->bytes : 0);
	put(r, 4, "%.0f %%", t->pages ? 100.0 * (double)t->elsewhere / (double)t->pages : 0);
	r->tone = t->elsewhere ? TONE_WARN : TONE_PLAIN;
}

static int by_tone(const void *a, const void *b)
{
	const struct view_row *x = a, *y = b;

	if (x->tone != y->tone)
		return x->tone > y->tone ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

void top_worst_first(struct section *s)
{
	for (size_t i = 0; i < s->rows; i++)
		s->row[i].order = i;
	qsort(s->row, s->rows, sizeof(*s->row), by_tone);
}

int top_rows(const struct top *top, struct section *s)
{
	const struct sample *now = &top->now;
	const size_t rows[SECTIONS] = {now->devices.n, now->workers.n, now->pools.n,
				       now->servers.n, now->tables.n,  top->events};
	struct tier *tier = calloc(now->pools.n + 1, sizeof(*tier));

	for (int k = 0; k < SECTIONS; k++) {
		s[k].rows = rows[k];
		s[k].row = calloc(rows[k] + 1, sizeof(*s[k].row));
		if (!s[k].row || !tier) {
			free(tier);
			return -ENOMEM;
		}
	}
	for (size_t i = 0; i < now->devices.n; i++)
		fill_device(top, &s[DEVICES].row[i],
			    (struct pst_cmd_device_stat *)now->devices.row + i);
	for (size_t i = 0; i < now->workers.n; i++)
		fill_worker(top, &s[WORKERS].row[i],
			    (struct pst_cmd_worker_stat *)now->workers.row + i);
	s[TIERS].rows = make_tiers(&now->pools, tier);
	for (size_t i = 0; i < s[TIERS].rows; i++)
		fill_tier(&s[TIERS].row[i], &tier[i]);
	for (size_t i = 0; i < now->servers.n; i++)
		fill_server(&s[SERVERS].row[i], (struct pst_cmd_server_stat *)now->servers.row + i);
	for (size_t i = 0; i < now->tables.n; i++)
		fill_table(top, &s[TABLES].row[i],
			   (struct pst_cmd_table_stat *)now->tables.row + i);
	for (size_t i = 0; i < top->events; i++)
		fill_event(&s[EVENTS].row[i], &top->event[i]);
	free(tier);
	return 0;
}
