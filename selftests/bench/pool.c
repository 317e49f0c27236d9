/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.c - a pool against malloc and DPDK's rte_mempool, and what is left of it after long use.
 *
 * First: alloc + free of one size from a warm thread cache. Rounds time ours, malloc
 * and rte_mempool one after the other, so that a neighbour meets all; the clock is the thread's own
 * CPU time; figures are medians, ratios are the medians of the rounds' ratios. rte_mempool knows
 * one size per pool and frees without looking; malloc knows any size.
 *
 * Then: random operations on a pool that is about 70 % full, sizes log-uniform from 64 bytes to
 * 1 MiB. A failure is a request that found no block although that many bytes were free.
 */
#include "runtime/mem/pool.h"

#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 9, TIMES = 2000000, SIZES = 4, BLOCKS = 1 << 16 };

#define POOL_BYTES (1ull << 30)
#define OPERATIONS 10000000u

static const size_t size_of[SIZES] = {64, 256, 1024, 4096};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *v, size_t n)
{
	double copy[ROUNDS];

	memcpy(copy, v, n * sizeof(*v));
	qsort(copy, n, sizeof(*copy), by_value);
	return copy[n / 2];
}

static double time_pool(struct pst_pool *pool, size_t bytes)
{
	double start = now_ns();

	for (int i = 0; i < TIMES; i++) {
		void *block = pst_pool_alloc(pool, bytes, 0);

		__asm__ volatile("" ::"r"(block) : "memory");
		pst_pool_free(pool, block);
	}
	return (now_ns() - start) / TIMES;
}

static double time_malloc(size_t bytes)
{
	double start = now_ns();

	for (int i = 0; i < TIMES; i++) {
		void *block = malloc(bytes);

		__asm__ volatile("" ::"r"(block) : "memory");
		free(block);
	}
	return (now_ns() - start) / TIMES;
}

/* Its program stands beside this one where libdpdk was there to build it. */
static int time_dpdk(double *ns)
{
	char self[PATH_MAX] = "", command[PATH_MAX + 32];
	unsigned int bytes;
	int n = 0;
	FILE *f;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return -1;
	snprintf(command, sizeof(command), "%s/mempool_dpdk", dirname(self));
	if (access(command, X_OK))
		return -1;
	strcat(command, " rows 2>/dev/null");
	f = popen(command, "r");
	while (f && n < SIZES && fscanf(f, "%u %lf", &bytes, &ns[n]) == 2 && bytes == size_of[n])
		n++;
	if (f)
		pclose(f);
	return n == SIZES ? 0 : -1;
}

static double ratio(const double *a, const double *b)
{
	double r[ROUNDS];

	for (int i = 0; i < ROUNDS; i++)
		r[i] = a[i] / b[i];
	return median(r, ROUNDS);
}

static void speed(struct pst_pool *pool)
{
	double ours[SIZES][ROUNDS], libc[SIZES][ROUNDS], theirs[SIZES][ROUNDS], row[SIZES];
	int dpdk = 1;

	for (int r = 0; r < ROUNDS; r++) {
		for (int s = 0; s < SIZES; s++) {
			ours[s][r] = time_pool(pool, size_of[s]);
			libc[s][r] = time_malloc(size_of[s]);
		}
		dpdk = dpdk && !time_dpdk(row);
		for (int s = 0; s < SIZES && dpdk; s++)
			theirs[s][r] = row[s];
	}
	printf("alloc + free from a warm thread cache, medians of %d rounds of %d\n", ROUNDS,
	       TIMES);
	puts("#bytes  pool[ns]  malloc[ns]  rte_mempool[ns]  pool/malloc  pool/rte_mempool");
	for (int s = 0; s < SIZES; s++) {
		printf("%6zu %9.2f %11.2f", size_of[s], median(ours[s], ROUNDS),
		       median(libc[s], ROUNDS));
		if (dpdk)
			printf(" %16.2f %12.2f %17.2f\n", median(theirs[s], ROUNDS),
			       ratio(ours[s], libc[s]), ratio(ours[s], theirs[s]));
		else
			printf(" %16s %12.2f %17s\n", "-", ratio(ours[s], libc[s]), "-");
	}
	if (!dpdk)
		puts("rte_mempool: not built or does not start; apt-get install libdpdk-dev, and "
		     "make bench again");
}

static uint64_t next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct block {
	void *at;
	uint64_t bytes;
};

/* Where all allocated blocks end up after a long time: which are freed is random. */
static void fragment(struct pst_pool *pool)
{
	struct block *b = calloc(BLOCKS, sizeof(*b));
	uint64_t seed = 1, used = 0, n = 0, free_bytes, want = POOL_BYTES / 10 * 7, refused = 0;
	double least = 1, start = now_ns(), share;
	struct pst_pool_stat s;

	if (!b)
		return;
	for (unsigned int i = 0; i < OPERATIONS; i++) {
		uint64_t r = next(&seed), k;

		if (n == BLOCKS || used > want || (n && used > want - want / 50 && r % 2)) {
			k = (r >> 8) % n;
			pst_pool_free(pool, b[k].at);
			used -= b[k].bytes;
			b[k] = b[--n];
		} else {
			double x = (double)(r >> 11) / (double)(1ull << 53);

			b[n].bytes = ((uint64_t)(64 * pow(16384, x)) + 63) / 64 * 64;
			b[n].at = pst_pool_alloc(pool, b[n].bytes, 0);
			refused += !b[n].at;
			used += b[n].at ? b[n].bytes : 0;
			n += b[n].at != NULL;
		}
		if (i % 100000 == 99999 && i > OPERATIONS / 10) {
			pst_pool_stat(pool, &s);
			share = (double)s.largest_free / (double)(s.bytes - s.used);
			least = share < least ? share : least;
		}
	}
	pst_pool_stat(pool, &s);
	free_bytes = s.bytes - s.used;
	printf("%u random operations in %.2f s: %llu blocks, %.1f %% full, %llu refused\n",
	       OPERATIONS, (now_ns() - start) / 1e9, (unsigned long long)n,
	       100.0 * (double)s.used / (double)s.bytes, (unsigned long long)refused);
	printf("largest free block: %.1f %% of the free bytes at the end, %.1f %% at the worst\n",
	       100.0 * (double)s.largest_free / (double)free_bytes, 100 * least);
	while (n)
		pst_pool_free(pool, b[--n].at);
	pst_pool_trim(pool, 1);
	pst_pool_stat(pool, &s);
	printf("all freed and trimmed: largest free block %.4f %% of the pool\n",
	       100.0 * (double)s.largest_free / (double)s.bytes);
	free(b);
}

int main(void)
{
	struct pst_pool_options o = {.size = sizeof(o),
				     .name = "bench",
				     .bytes = POOL_BYTES,
				     .node = PST_NODE_ANY,
				     .flags = PST_POOL_HUGE};
	struct pst_error err = {0};
	struct pst_pool_stat s;
	struct pst_pool *pool;

	if (pst_pool_create(&o, &pool, &err)) {
		fprintf(stderr, "bench: %s\n", err.text);
		return 1;
	}
	pst_pool_stat(pool, &s);
	printf("pool: %llu MiB, pages of %llu KiB, node %d%s%s\n",
	       (unsigned long long)(s.bytes >> 20), (unsigned long long)(s.page_bytes >> 10),
	       s.node, *s.note ? "; " : "", s.note);
	speed(pool);
	fragment(pool);
	pst_pool_destroy(pool);
	return 0;
}
