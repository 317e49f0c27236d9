/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/histogram.h"

#include <math.h>

void histogram_add(struct histogram *to, const struct histogram *from)
{
	double shift;

	if (!from->count)
		return;
	if (!to->count) {
		*to = *from;
		return;
	}
	/* squares of distances to our origin: sum (d + shift)^2 */
	shift = (double)(int64_t)(from->origin - to->origin);
	to->squares += from->squares + 2 * shift * from->off + (double)from->count * shift * shift;
	to->off += from->off + (double)from->count * shift;
	to->count += from->count;
	to->sum += from->sum;
	if (from->min < to->min)
		to->min = from->min;
	if (from->max > to->max)
		to->max = from->max;
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
}

static double middle(unsigned int index)
{
	unsigned int octave = index < 256 ? 0 : index / 128 - 1;
	double low = ldexp(index - octave * 128, (int)octave);

	return low + (ldexp(1, (int)octave) - 1) / 2;
}

double histogram_percentile(const struct histogram *h, double part)
{
	uint64_t rank = (uint64_t)ceil(part * (double)h->count), seen = 0;

	if (rank < 1)
		rank = 1;
	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen >= rank)
			return fmin(fmax(middle(i), (double)h->min), (double)h->max);
	}
	return (double)h->max;
}

/* How much of [@low, @high) lies in [@from, @to). */
static double overlap(double low, double high, double from, double to)
{
	return fmax(0, fmin(high, to) - fmax(low, from));
}

double histogram_midmean(const struct histogram *h)
{
	double n = (double)h->count, seen = 0, sum = 0;

	for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		double here = (double)h->bucket[i];

		sum += middle(i) * overlap(seen, seen + here, n / 4, n * 3 / 4);
		seen += here;
	}
	return n > 0 ? fmin(fmax(sum / (n / 2), (double)h->min), (double)h->max) : 0;
}

double histogram_mean(const struct histogram *h)
{
	return h->count ? h->sum / (double)h->count : 0;
}

double histogram_deviation(const struct histogram *h)
{
	double n = (double)h->count;

	if (h->count < 2)
		return 0;
	return sqrt(fmax(0, (h->squares - h->off * h->off / n) / (n - 1)));
}
