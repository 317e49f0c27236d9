/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/clock.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define CALIBRATE_NS 20000000

double perf_ns_per_tick = 1;
bool perf_counter;

/* Does the counter tick at one rate, whatever the core does? */
static bool even_counter(void)
{
#if defined(__x86_64__)
	unsigned int a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && d >> 8 & 1;
#elif defined(__aarch64__)
	return true;
#else
	return false;
#endif
}

void perf_clock_start(void)
{
	uint64_t t0, t1, n0, n1;

	perf_ns_per_tick = 1;
	perf_counter = even_counter();
	if (!perf_counter)
		return;
	n0 = perf_now_ns();
	t0 = perf_ticks();
	do
		n1 = perf_now_ns();
	while (n1 - n0 < CALIBRATE_NS);
	t1 = perf_ticks();
	perf_ns_per_tick = (double)(n1 - n0) / (double)(t1 - t0);
}
