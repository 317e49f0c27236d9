/* SPDX-License-Identifier: Apache-2.0 */
/* sampler.h - choose the next token from logits: temperature, top-p (arXiv:1904.09751), seed. */
#ifndef PST_SAMPLER_H
#define PST_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

struct pst_sampler {
	double temperature; /* 0: the likeliest, the lower index of equals */
	double top_p;	    /* keep the likeliest tokens until their sum reaches it */
	uint64_t seed;
	uint64_t drawn; /* tokens so far: token n depends on (seed, n) and its logits alone */
};

/* @scratch: 2 * vocab doubles. Logits that are not numbers count as impossible. */
uint32_t pst_sampler_next(struct pst_sampler *s, const float *logits, size_t vocab,
			  double *scratch);

#endif /* PST_SAMPLER_H */
