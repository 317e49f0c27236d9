/* SPDX-License-Identifier: Apache-2.0 */
/*
 * print.h - objects as a table for people, or as JSON, from one list of columns.
 *
 * JSON is an array with an object per row, every column in it. A table has the columns with a
 * title, each as wide as it must be, and the notes of its rows below.
 */
#ifndef CTL_PRINT_H
#define CTL_PRINT_H

#include "tools/ctl/cell.h"

#include <stdbool.h>

struct sheet {
	const char *one, *many; /* "worker", "workers": what a row is */
	const char *none;	/* a sentence when there is none; NULL: "no workers" */
	const struct column *column;
	size_t columns;
	size_t row_bytes;
	bool upright; /* one row, a line per column */
};

/* A table's lines, the heading first. */
struct table {
	char **line;
	enum tone *tone;
	size_t lines;
};

/* 0 or -ENOMEM. */
int table_make(const struct sheet *s, const void *rows, size_t n, struct table *out);
void table_free(struct table *t);

/* All of these print to stdout. */
int print_table(const struct sheet *s, const void *rows, size_t n);
int print_json(const struct sheet *s, const void *rows, size_t n);
/* One row at a time, as they come: a line of the table without a heading, or an object. */
int print_line(const struct sheet *s, const void *row, bool json);

json_t *json_rows(const struct sheet *s, const void *rows, size_t n);
/* Takes @root. 0 or -ENOMEM. */
int json_print(json_t *root);

/* What makes a terminal show @tone; "" where colours are not wanted. */
const char *tone_begin(enum tone tone);
const char *tone_end(enum tone tone);

#endif /* CTL_PRINT_H */
