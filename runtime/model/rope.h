/* SPDX-License-Identifier: Apache-2.0 */
/* rope.h - rotary positions (arXiv:2104.09864) with YaRN (arXiv:2309.00071); private to model/. */
#ifndef PST_ROPE_H
#define PST_ROPE_H

#include "runtime/model/config.h"

/* Tables [positions, qk_rope / 2], with YaRN's factor on attention in them. */
void pst_rope_tables(const struct pst_config *cfg, size_t positions, float *cos_t, float *sin_t);

/* What scores are multiplied by before the softmax. */
double pst_rope_softmax_scale(const struct pst_config *cfg);

#define PST_ROPE_MAX_DIM 1024

#endif /* PST_ROPE_H */
