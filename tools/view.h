/* SPDX-License-Identifier: Apache-2.0 */
/* view.h - what a training run looks like in a terminal. All goes to stdout. */
#ifndef TOOLS_VIEW_H
#define TOOLS_VIEW_H

#include "runtime/penstock.h"

#include <stdbool.h>

/* What the live line shows. */
struct live {
	uint32_t step, steps;
	double loss; /* nats, smoothed */
	double tokens_per_second;
	double pulled, pushed; /* bytes */
	double skew;	       /* load of the busiest expert over the mean */
	double left;	       /* seconds */
	double shown;	       /* when, by seconds_now() */
};

/* The model, the text and which parts run where. */
void view_begin(struct pst_trainer *t);

/* One line that stays where it is on a terminal; else a line now and then. @last: it is done. */
void view_live(const struct live *live, bool last);

/* @loss[n] in nats per byte, as a curve of bits per byte. */
void view_curve(const double *loss, size_t n);

/* Who moved what to whom, and how. */
void view_traffic(struct pst_trainer *t, uint32_t steps);

void view_eval(const struct pst_eval_info *e);

/* Write what checkpoint @dir makes of @prompt; 0 or -errno. */
int view_sample(const char *dir, const char *prompt, uint32_t bytes, uint64_t seed,
		struct pst_error *err);

#endif /* TOOLS_VIEW_H */
