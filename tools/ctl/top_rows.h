/* SPDX-License-Identifier: Apache-2.0 */
/* top_rows.h - what penstockctl top says in its sections, before it is known what has room. */
#ifndef CTL_TOP_ROWS_H
#define CTL_TOP_ROWS_H

#include "tools/ctl/top.h"

#define FIELDS 8

struct view_row {
	char text[FIELDS][160]; /* clean */
	size_t order;
	enum tone tone;
};

struct section {
	const char *title[FIELDS]; /* up to one that is NULL */
	bool number[FIELDS];	   /* stands at the right end of its column */
	unsigned int flexible;	   /* the column that is cut when the window is narrow */
	struct view_row *row;
	size_t rows, shown;
	bool newest; /* rows at the end matter most */
};

enum { DEVICES, WORKERS, TIERS, SERVERS, TABLES, EVENTS, SECTIONS };

/* Fills row (to be freed, also on failure) and rows of each. 0 or -ENOMEM. */
int top_rows(const struct top *top, struct section *s);
/* What is wrong comes first, else the order stays. */
void top_worst_first(struct section *s);

/* The same object in the sample before; NULL: it was not there. */
const void *top_earlier(const struct list *list, size_t bytes, uint32_t id);
/* What came in a second; below 0: unknown. */
double top_rate(const struct top *top, uint64_t now, uint64_t before);

#endif /* CTL_TOP_ROWS_H */
