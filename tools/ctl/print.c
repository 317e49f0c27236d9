/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/print.h"
#include "tools/ctl/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GAP 2

static bool colours(void)
{
	const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

	return !(no && *no) && term && *term && strcmp(term, "dumb") && isatty(STDOUT_FILENO);
}

const char *tone_begin(enum tone tone)
{
	static const char *const begin[] = {"", "\33[1m", "\33[33m", "\33[31m"};

	return colours() ? begin[tone] : "";
}

const char *tone_end(enum tone tone)
{
	return tone != TONE_PLAIN && colours() ? "\33[0m" : "";
}

static const void *row_at(const struct sheet *s, const void *rows, size_t i)
{
	return (const char *)rows + i * s->row_bytes;
}

static bool in_table(const struct column *c)
{
	return c->title && c->kind != CELL_NOTE;
}

/* What stands in line @i, 0: the heading. */
static void content(const struct sheet *s, const struct column *c, const void *rows, size_t i,
		    char buf[CELL_TEXT_MAX])
{
	size_t fits;

	if (!i)
		snprintf(buf, CELL_TEXT_MAX, "%s", c->title);
	else
		cell_text(c, row_at(s, rows, i - 1), buf);
	if (!c->most || text_width(buf) <= c->most)
		return;
	fits = text_fit(buf, c->most - 1u);
	strcpy(buf + fits, "~");
}

/* Columns of the screen that @c needs. */
static size_t width_of(const struct sheet *s, const struct column *c, const void *rows, size_t n)
{
	char buf[CELL_TEXT_MAX];
	size_t width = c->least;

	for (size_t i = 0; i <= n; i++) {
		size_t w;

		content(s, c, rows, i, buf);
		w = text_width(buf);
		width = w > width ? w : width;
	}
	return width;
}

static void pad(FILE *out, size_t columns)
{
	fprintf(out, "%*s", (int)columns, "");
}

/* One line; the last column is not filled up. */
static int put_line(const struct sheet *s, const void *rows, size_t i, const size_t *width,
		    char **line)
{
	size_t len, last = 0, gap = 0, owed = 0;
	char buf[CELL_TEXT_MAX];
	FILE *out = open_memstream(line, &len);

	if (!out)
		return -ENOMEM;
	for (size_t k = 0; k < s->columns; k++)
		if (in_table(&s->column[k]))
			last = k;
	for (size_t k = 0; k <= last; k++) {
		const struct column *c = &s->column[k];
		size_t fill;

		if (!in_table(c))
			continue;
		content(s, c, rows, i, buf);
		fill = width[k] - text_width(buf);
		pad(out, owed + gap + (cell_is_number(c) ? fill : 0));
		fputs(buf, out);
		owed = cell_is_number(c) ? 0 : fill;
		gap = GAP;
	}
	return fclose(out) ? -ENOMEM : 0;
}

static enum tone row_tone(const struct sheet *s, const void *row)
{
	enum tone worst = TONE_PLAIN;

	for (size_t k = 0; k < s->columns; k++) {
		enum tone tone = cell_tone(&s->column[k], row);

		worst = tone > worst ? tone : worst;
	}
	return worst;
}

int table_make(const struct sheet *s, const void *rows, size_t n, struct table *out)
{
	struct table t = {calloc(n + 1, sizeof(*t.line)), calloc(n + 1, sizeof(*t.tone)), 0};
	size_t *width = calloc(s->columns, sizeof(*width));
	int rc = t.line && t.tone && width ? 0 : -ENOMEM;

	for (size_t k = 0; !rc && k < s->columns; k++)
		if (in_table(&s->column[k]))
			width[k] = width_of(s, &s->column[k], rows, n);
	for (size_t i = 0; !rc && i <= n; i++) {
		t.tone[i] = i ? row_tone(s, row_at(s, rows, i - 1)) : TONE_HEAD;
		rc = put_line(s, rows, i, width, &t.line[i]);
		t.lines += !rc;
	}
	free(width);
	if (rc)
		table_free(&t);
	else
		*out = t;
	return rc;
}

void table_free(struct table *t)
{
	for (size_t i = 0; i < t->lines; i++)
		free(t->line[i]);
	free(t->line);
	free(t->tone);
	*t = (struct table){0};
}

/* Long sentences, so they stand below, each with what it is about. */
static void print_notes(const struct sheet *s, const void *row)
{
	char note[CELL_TEXT_MAX], id[CELL_TEXT_MAX];

	for (size_t k = 0; k < s->columns; k++) {
		if (s->column[k].kind != CELL_NOTE)
			continue;
		cell_text(&s->column[k], row, note);
		cell_text(&s->column[0], row, id);
		if (strcmp(note, "-"))
			printf("%s %s: %s\n", s->one, id, note);
	}
}

static void print_upright(const struct sheet *s, const void *row)
{
	size_t width = 0;
	char buf[CELL_TEXT_MAX];

	for (size_t k = 0; k < s->columns; k++)
		if (in_table(&s->column[k]) && strlen(s->column[k].title) > width)
			width = strlen(s->column[k].title);
	for (size_t k = 0; k < s->columns; k++) {
		if (!in_table(&s->column[k]))
			continue;
		cell_text(&s->column[k], row, buf);
		printf("%s%-*s%s%s\n", tone_begin(TONE_HEAD), (int)width + GAP, s->column[k].title,
		       tone_end(TONE_HEAD), buf);
	}
}

int print_table(const struct sheet *s, const void *rows, size_t n)
{
	struct table t;
	int rc;

	/* not to stdout: who counts lines there counts none */
	if (!n) {
		fprintf(stderr, "no %s%s%s\n", s->many, s->none ? "; " : "",
			s->none ? s->none : "");
		return 0;
	}
	if (s->upright) {
		print_upright(s, rows);
		return 0;
	}
	rc = table_make(s, rows, n, &t);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < t.lines; i++)
		printf("%s%s%s\n", tone_begin(t.tone[i]), t.line[i], tone_end(t.tone[i]));
	for (size_t i = 0; i < n; i++)
		print_notes(s, row_at(s, rows, i));
	table_free(&t);
	return 0;
}

static json_t *json_row(const struct sheet *s, const void *row)
{
	json_t *o = json_object();

	for (size_t k = 0; k < s->columns; k++)
		if (json_object_set_new(o, cell_key(&s->column[k]),
					cell_json(&s->column[k], row))) {
			json_decref(o);
			return NULL;
		}
	return o;
}

json_t *json_rows(const struct sheet *s, const void *rows, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		if (json_array_append_new(list, json_row(s, row_at(s, rows, i)))) {
			json_decref(list);
			return NULL;
		}
	return list;
}

int json_print(json_t *root)
{
	if (!root)
		return -ENOMEM;
	/* what cannot be written is seen once, at the end, by who looks at stdout */
	json_dumpf(root, stdout, JSON_INDENT(2));
	fputc('\n', stdout);
	json_decref(root);
	return 0;
}

int print_json(const struct sheet *s, const void *rows, size_t n)
{
	return json_print(json_rows(s, rows, n));
}

int print_line(const struct sheet *s, const void *row, bool json)
{
	struct table t;
	json_t *o;
	int rc;

	if (json) {
		o = json_row(s, row);
		if (!o)
			return -ENOMEM;
		json_dumpf(o, stdout, JSON_COMPACT);
		fputc('\n', stdout);
		json_decref(o);
		return 0;
	}
	rc = table_make(s, row, 1, &t);
	if (rc < 0)
		return rc;
	printf("%s%s%s\n", tone_begin(t.tone[1]), t.line[1], tone_end(t.tone[1]));
	table_free(&t);
	return 0;
}
