/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mempool_dpdk.c - nanoseconds of rte_mempool get + put from its cache, per size.
 *
 * A program of its own since EAL takes the whole process: arguments, CPU, threads. Built where
 * libdpdk is; bench/pool runs it and compares. The clock is the thread's own CPU time.
 */
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mempool.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TIMES = 2000000, ELEMENTS = 4096, CACHE = 256 };

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double time_pairs(struct rte_mempool *mp)
{
	double start;

	for (int warm = 0; warm < 2; warm++) {
		start = now_ns();
		for (int i = 0; i < TIMES; i++) {
			void *block = NULL;

			if (rte_mempool_get(mp, &block))
				return -1;
			__asm__ volatile("" ::"r"(block) : "memory");
			rte_mempool_put(mp, block);
		}
	}
	return (now_ns() - start) / TIMES;
}

int main(int argc, char **argv)
{
	char *eal[] = {argv[0],
		       "--no-huge",
		       "-m",
		       "128",
		       "--no-pci",
		       "--no-shconf",
		       "--no-telemetry",
		       "--iova-mode=va",
		       "--log-level=lib.eal:error",
		       NULL};

	if (rte_eal_init((int)(sizeof(eal) / sizeof(eal[0])) - 1, eal) < 0) {
		fprintf(stderr, "mempool_dpdk: rte_eal_init failed: %s\n", rte_strerror(rte_errno));
		return 1;
	}
	if (argc < 2)
		puts("#bytes  rte_mempool get+put[ns]");
	for (unsigned int bytes = 64; bytes <= 4096; bytes *= 4) {
		struct rte_mempool *mp =
			rte_mempool_create("bench", ELEMENTS, bytes, CACHE, 0, NULL, NULL, NULL,
					   NULL, SOCKET_ID_ANY, 0);

		if (!mp) {
			fprintf(stderr, "mempool_dpdk: no mempool: %s\n", rte_strerror(rte_errno));
			return 1;
		}
		printf("%6u %8.2f\n", bytes, time_pairs(mp));
		rte_mempool_free(mp);
	}
	return 0;
}
