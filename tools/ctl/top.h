/* SPDX-License-Identifier: Apache-2.0 */
/*
 * top.h - what penstockctl top knows, and how it is laid out.
 *
 * A sample is all lists at one moment; rates are differences of two. A view is lines: a summary,
 * then sections, each a table with a heading, as many rows of each as there is room for.
 */
#ifndef CTL_TOP_H
#define CTL_TOP_H

#include "tools/ctl/ctl.h"

#define TOP_WIDTH  80
#define TOP_HEIGHT 24
#define TOP_EVENTS 64

struct list {
	void *row;
	size_t n;
};

struct sample {
	double at; /* CLOCK_MONOTONIC, 0: none */
	struct pst_cmd_info info;
	struct list devices, workers, pools, servers, tables;
};

struct top {
	struct ctl *ctl;
	struct sample now, before;
	struct pst_event event[TOP_EVENTS]; /* the last ones, oldest first */
	size_t events;
	int events_fd; /* -1: none */
};

int sample_take(struct ctl *ctl, struct sample *out);
void sample_free(struct sample *s);

struct view_line {
	char *text;
	enum tone tone;
};

struct view {
	struct view_line *line;
	size_t lines, room;
	bool failed; /* no memory */
};

/*
 * @width columns are used, what is longer is left to who shows it. @height 0: every row of every
 * section. 0 or -ENOMEM.
 */
int view_make(const struct top *top, unsigned int width, unsigned int height, struct view *out);
void view_free(struct view *v);

#endif /* CTL_TOP_H */
