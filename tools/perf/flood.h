/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flood.h - as many requests of one size as the depth allows, on all links of a client.
 *
 * One completion is asked for per @every requests, so that a small request costs little more than
 * itself; which those are depends on a request's number only, so that a post which was cut short
 * changes nothing. A run of unknown length ends on such a number.
 *
 * Order of calls: flood_prepare(), flood() as often as wanted, flood_check().
 */
#ifndef PERF_FLOOD_H
#define PERF_FLOOD_H

#include "tools/perf/perf.h"

#define PEAK_POINTS 4096

struct flood {
	struct perf_client *c;
	uint16_t op;
	uint64_t size;
	uint64_t window; /* bytes of each link's memory that are walked over */
	uint64_t step;
	uint64_t every;
	uint64_t limit; /* requests per link; UINT64_MAX: until told */
	bool over;
	uint64_t done;
};

/* Points on the way, for the highest speed between two of them. */
struct peak {
	uint64_t every, next;
	unsigned int n;
	struct {
		uint64_t done, ticks;
	} at[PEAK_POINTS];
};

/* Bytes of memory that each end of a link needs for requests of @size. */
uint64_t flood_memory(uint64_t size);
void flood_prepare(struct flood *f, uint64_t size);
/* @iters requests on every link, or until @seconds have passed. @p may be NULL. */
int flood(struct flood *f, uint64_t iters, double seconds, struct peak *p);
/* Reading gave what the server has; all @sent messages were heard. */
int flood_check(const struct flood *f, const struct perf_result *counted, uint64_t sent);

void peak_start(struct peak *p, const struct flood *f, uint64_t iters);
/* Bytes per second between two points, of the fastest. */
double peak_highest(const struct peak *p, uint64_t size);

#endif /* PERF_FLOOD_H */
