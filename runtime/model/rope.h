/* SPDX-License-Identifier: Apache-2.0 */
/* rope.h - rotary positions (arXiv:2104.09864) with YaRN (arXiv:2309.00071); private to model/. */
#ifndef PST_ROPE_H
#define PST_ROPE_H

#include "runtime/model/config.h"

/* Tables [positions, qk_rope / 2], with YaRN's factor on attention in them. */
void pst_rope_tables(const struct pst_config *cfg, size_t positions, float *cos_t, float *sin_t);

/* What scores are multiplied by before the softmax. */
double pst_rope_softmax_scale(const struct pst_config *cfg);

/*
 * Models with rope_interleave false rotate pairs (i, i + dim / 2). Bring @rows
 * rows of @x into the order of pairs (2i, 2i + 1), or @back. A score is a sum
 * over both its sides, so it does not matter that they stay in that order.
 */
void pst_rope_interleave(float *x, size_t ldx, size_t rows, size_t dim, bool back);

#define PST_ROPE_MAX_DIM 1024

#endif /* PST_ROPE_H */
