/* SPDX-License-Identifier: Apache-2.0 */
/*
 * route.h - which experts a token goes to: at random, a few more often than others, or as a file
 * recorded it.
 *
 * uniform	all experts alike
 * zipf:S	expert i with a weight of (i + 1)^-S
 * trace:FILE	a line per token: its experts, apart by blanks; # begins a comment. After the last
 *		line comes the first again.
 *
 * The same seed gives the same experts on every machine. Threads: one per routing.
 */
#ifndef PERF_ROUTE_H
#define PERF_ROUTE_H

#include "tools/perf/perf.h"

struct routing {
	enum perf_routing_kind kind;
	uint32_t experts, topk;
	uint64_t state;
	double *upto;	 /* zipf: sums of weights */
	uint32_t *trace; /* topk of each token */
	uint64_t ntrace, at;
};

/* @seed besides the plan's, so that engines differ. @topk experts of each token. */
int routing_open(const struct perf_plan *plan, uint32_t topk, uint32_t seed, struct routing *out,
		 struct pst_error *err);
void routing_close(struct routing *r);
/* The next token's experts, all different: @topk of them. */
void routing_next(struct routing *r, uint32_t *expert);

#endif /* PERF_ROUTE_H */
