/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/serve/sampler.h"

#include <math.h>
#include <stdlib.h>

static size_t likeliest(const float *logits, size_t vocab)
{
	size_t best = 0;

	for (size_t i = 1; i < vocab; i++)
		if (logits[i] > logits[best] || isnan(logits[best]))
			best = i;
	return best;
}

static double uniform(struct pst_sampler *s)
{
	uint64_t z = s->seed + ++s->drawn * 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	z ^= z >> 31;
	return (double)(z >> 11) * 0x1p-53;
}

static int falling(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x < y) - (x > y);
}

/* The smallest probability that stays: the likeliest ones that sum to top_p. */
static double floor_of(const double *p, size_t n, double top_p, double *sorted)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sorted[i] = p[i];
	qsort(sorted, n, sizeof(*sorted), falling);
	for (size_t i = 0; i < n; i++) {
		sum += sorted[i];
		if (sum >= top_p)
			return sorted[i];
	}
	return 0;
}

uint32_t pst_sampler_next(struct pst_sampler *s, const float *logits, size_t vocab, double *scratch)
{
	size_t best = likeliest(logits, vocab), last = best;
	double sum = 0, floor, point;
	double *p = scratch;

	if (s->temperature <= 0) {
		s->drawn++;
		return (uint32_t)best;
	}
	for (size_t i = 0; i < vocab; i++) {
		p[i] = exp(((double)logits[i] - logits[best]) / s->temperature);
		if (isnan(p[i]))
			p[i] = 0;
		sum += p[i];
	}
	for (size_t i = 0; i < vocab; i++)
		p[i] /= sum;
	floor = s->top_p < 1 ? floor_of(p, vocab, s->top_p, scratch + vocab) : 0;
	sum = 0;
	for (size_t i = 0; i < vocab; i++)
		sum += p[i] >= floor ? p[i] : 0;
	point = uniform(s) * sum;
	for (size_t i = 0; i < vocab; i++) {
		if (p[i] < floor || p[i] <= 0)
			continue;
		last = i;
		point -= p[i];
		if (point < 0)
			break;
	}
	return (uint32_t)last;
}
