/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h - the cheapest clock that can be trusted: the CPU's counter where the CPU says that it
 * ticks evenly, else CLOCK_MONOTONIC.
 *
 * Order of calls: perf_clock_start() once, before any thread.
 */
#ifndef PERF_CLOCK_H
#define PERF_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

extern double perf_ns_per_tick;
extern bool perf_counter; /* ticks are the CPU's */

void perf_clock_start(void);

static inline uint64_t perf_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t perf_ticks(void)
{
#if defined(__x86_64__)
	if (perf_counter)
		return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	if (perf_counter) {
		uint64_t t;

		__asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
		return t;
	}
#endif
	return perf_now_ns();
}

static inline double perf_seconds(uint64_t ticks)
{
	return (double)ticks * perf_ns_per_tick * 1e-9;
}

static inline uint64_t perf_ticks_of(double seconds)
{
	return (uint64_t)(seconds * 1e9 / perf_ns_per_tick);
}

#endif /* PERF_CLOCK_H */
