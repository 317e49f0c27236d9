/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_guard.h - memory for tests of kernels: every buffer ends at a page that cannot be
 * touched, and begins behind bytes that are looked at.
 */
#ifndef SELFTESTS_GPU_KERNELS_GUARD_H
#define SELFTESTS_GPU_KERNELS_GUARD_H

#include "selftests/lib/test.h"

#include <math.h>
#include <sys/mman.h>

enum { GUARD_PAGE = 4096, GUARD_BUFFERS = 512 };

struct guards {
	struct {
		unsigned char *base, *data;
	} buffer[GUARD_BUFFERS];
	int n;
};

/* @n elements of @size, all 0xff: NaN as e4m3, bf16 and fp32. */
static inline void *guarded(struct guards *g, size_t n, size_t size)
{
	size_t bytes = n * size, pages = (bytes + GUARD_PAGE - 1) / GUARD_PAGE + 1;
	unsigned char *p = mmap(NULL, (pages + 1) * GUARD_PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE((void *)MAP_FAILED, (void *)p);
	ASSERT_LT(g->n, (int)GUARD_BUFFERS);
	memset(p, 0xff, pages * GUARD_PAGE);
	mprotect(p + pages * GUARD_PAGE, GUARD_PAGE, PROT_NONE);
	g->buffer[g->n].base = p;
	g->buffer[g->n].data = p + pages * GUARD_PAGE - bytes;
	return g->buffer[g->n++].data;
}

static inline bool guards_are_whole(const struct guards *g)
{
	for (int i = 0; i < g->n; i++)
		for (unsigned char *p = g->buffer[i].base; p < g->buffer[i].data; p++)
			if (*p != 0xff)
				return false;
	return true;
}

/* About normal, with a deviation of 1. */
static inline float guard_normal(uint64_t *rng)
{
	double sum = -6;

	for (int i = 0; i < 12; i++)
		sum += (double)(test_random(rng) >> 11) / (double)(1ull << 53);
	return (float)sum;
}

/* |got - want| / |want|; infinite if something is not a number. */
static inline double guard_distance(const float *got, const double *want, size_t n)
{
	double diff = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isfinite(got[i]))
			return INFINITY;
		diff += (got[i] - want[i]) * (got[i] - want[i]);
		norm += want[i] * want[i];
	}
	return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

#endif /* SELFTESTS_GPU_KERNELS_GUARD_H */
