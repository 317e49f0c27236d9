/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tsc.c - prints how fast the time stamp counter of this machine runs, in kHz.
 *
 * A guest under emulation has the host's counter, and would measure it against timers that the
 * emulator serves late when the host is busy: its clock has been seen to run six times too fast.
 */
#include <stdio.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

struct moment {
	uint64_t ticks;
	double ns;
};

/* Both clocks at once: the reading of many that was least disturbed. */
static struct moment now(void)
{
	uint64_t least = UINT64_MAX;
	struct moment best = {0, 0};

	for (int i = 0; i < 200; i++) {
		struct timespec t;
		const uint64_t before = __rdtsc();

		clock_gettime(CLOCK_MONOTONIC_RAW, &t);
		const uint64_t took = __rdtsc() - before;

		if (took < least) {
			least = took;
			best = (struct moment){before + took / 2,
					       (double)t.tv_sec * 1e9 + (double)t.tv_nsec};
		}
	}
	return best;
}

int main(void)
{
	const struct moment from = now();

	usleep(50000);
	const struct moment to = now();

	printf("%.0f\n", (double)(to.ticks - from.ticks) * 1e6 / (to.ns - from.ns));
	return 0;
}
