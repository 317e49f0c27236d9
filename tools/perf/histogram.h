/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram.h - how often each duration was seen, at bounded error and cost.
 *
 * Log-linear, as HdrHistogram (https://hdrhistogram.org) does it: values below 256 have a bucket
 * each, and every octave above is cut into 128 of equal width. A percentile is the middle of its
 * bucket, so it is wrong by at most 1/256 of itself, over the whole range of uint64_t, in 60 KiB.
 * Nothing is dropped; minimum, maximum, mean and deviation are of the values themselves.
 *
 * Threads: one per histogram; histogram_add() brings them together.
 */
#ifndef PERF_HISTOGRAM_H
#define PERF_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BUCKETS 7424
#define HISTOGRAM_ERROR	  (1.0 / 256)

struct histogram {
	uint64_t count;
	uint64_t min, max;
	double sum;
	uint64_t origin; /* the first value: squares are of distances to it, lest they cancel out */
	double off, squares;
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned int histogram_index(uint64_t v)
{
	unsigned int octave = v < 256 ? 0 : 63 - 7 - (unsigned int)__builtin_clzll(v);

	return octave * 128 + (unsigned int)(v >> octave);
}

static inline void histogram_record(struct histogram *h, uint64_t v)
{
	double d;

	if (!h->count++) {
		h->min = v;
		h->origin = v;
	}
	if (v < h->min)
		h->min = v;
	if (v > h->max)
		h->max = v;
	d = (double)(int64_t)(v - h->origin);
	h->sum += (double)v;
	h->off += d;
	h->squares += d * d;
	h->bucket[histogram_index(v)]++;
}

/* Add what @from saw to @to. */
void histogram_add(struct histogram *to, const struct histogram *from);

/* The value that @part (0 to 1) of all are at or below; 0 of an empty histogram. */
double histogram_percentile(const struct histogram *h, double part);
/* The mean of the middle half: finer than the clock's own steps, and no outlier is in it. */
double histogram_midmean(const struct histogram *h);
double histogram_mean(const struct histogram *h);
double histogram_deviation(const struct histogram *h);

#endif /* PERF_HISTOGRAM_H */
