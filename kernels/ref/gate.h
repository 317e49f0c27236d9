/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gate.h - which experts a token goes to: the part of gate_topk that is the same in every kernel.
 *
 * Without scratch: `struct pst_rank` is a place in the order (larger first, then lower index),
 * and the next in order is found by a scan for the best that comes after the last one. A NaN
 * counts as -inf, so that k distinct experts are found whatever the scores are.
 */
#ifndef PST_REF_GATE_H
#define PST_REF_GATE_H

#include "kernels/ref/ref.h"

#include <math.h>
#include <stdbool.h>

struct pst_rank {
	real value;
	size_t index;
};

/* Does @a come before @b in the order? */
static inline bool pst_rank_before(struct pst_rank a, struct pst_rank b)
{
	return a.value > b.value || (a.value == b.value && a.index < b.index);
}

static inline real pst_gate_value(const real *score, const real *bias, size_t i)
{
	real v = bias ? score[i] + bias[i] : score[i];

	return v == v ? v : -(real)INFINITY;
}

/* The sum of the two best of @n experts from @first, or the one. */
static inline real pst_gate_group(const real *score, const real *bias, size_t first, size_t n)
{
	real a = -(real)INFINITY, b = -(real)INFINITY;

	for (size_t i = first; i < first + n; i++) {
		real v = pst_gate_value(score, bias, i);

		b = v > a ? a : (v > b ? v : b);
		a = v > a ? v : a;
	}
	return n > 1 ? a + b : a;
}

/* The last group, in order, that is chosen. */
static inline struct pst_rank pst_gate_last_group(const real *score, const real *bias, size_t size,
						  size_t n_group, size_t topk_group)
{
	struct pst_rank last = {0, 0};

	for (size_t t = 0; t < topk_group && t < n_group; t++) {
		struct pst_rank best = {0, n_group};

		for (size_t g = 0; g < n_group; g++) {
			struct pst_rank r = {pst_gate_group(score, bias, g * size, size), g};

			if ((!t || pst_rank_before(last, r)) &&
			    (best.index == n_group || pst_rank_before(r, best)))
				best = r;
		}
		last = best;
	}
	return last;
}

/* The best expert after @last (NULL: the best of all). */
static inline struct pst_rank pst_gate_next(const real *score, const real *bias, size_t e,
					    size_t n_group, struct pst_rank last_group,
					    const struct pst_rank *last)
{
	struct pst_rank best = {0, e};
	size_t size = e / n_group;

	for (size_t g = 0; g < n_group; g++) {
		struct pst_rank group = {0, g};
		bool out = false;

		if (n_group > 1) {
			group.value = pst_gate_group(score, bias, g * size, size);
			out = pst_rank_before(last_group, group);
		}
		for (size_t i = g * size; i < (g + 1) * size; i++) {
			struct pst_rank r = {out ? -(real)INFINITY : pst_gate_value(score, bias, i),
					     i};

			if ((!last || pst_rank_before(*last, r)) &&
			    (best.index == e || pst_rank_before(r, best)))
				best = r;
		}
	}
	return best;
}

/* idx[k], ascending, for one row. */
static inline void pst_gate_choose(int32_t *idx, const real *score, const real *bias, size_t e,
				   size_t k, size_t n_group, size_t topk_group)
{
	struct pst_rank last_group = {0, 0}, last;

	n_group = n_group ? n_group : 1;
	if (n_group > 1)
		last_group = pst_gate_last_group(score, bias, e / n_group, n_group, topk_group);
	for (size_t j = 0; j < k; j++) {
		size_t at = j;

		last = pst_gate_next(score, bias, e, n_group, last_group, j ? &last : NULL);
		for (; at && idx[at - 1] > (int32_t)last.index; at--)
			idx[at] = idx[at - 1];
		idx[at] = (int32_t)last.index;
	}
}

/* w[k] of the experts in idx[k]. */
static inline void pst_gate_weigh(real *w, const int32_t *idx, const real *score, size_t k,
				  int norm, real scale)
{
	real sum = 0;

	for (size_t j = 0; j < k; j++)
		sum += score[idx[j]];
	for (size_t j = 0; j < k; j++)
		w[j] = (norm ? score[idx[j]] / (sum + (real)1e-20) : score[idx[j]]) * scale;
}

#endif /* PST_REF_GATE_H */
