/* SPDX-License-Identifier: Apache-2.0 */
/*
 * params.h - the tensors of a model, by their Hugging Face names, in one order
 * that everybody derives from the config alone: by layer, in a layer attention
 * before feed-forward, experts by index. Sums over tensors run in this order.
 */
#ifndef PST_PARAMS_H
#define PST_PARAMS_H

#include "runtime/model/config.h"

enum pst_param_kind {
	PST_PARAM_MATRIX, /* normal(0, init_std) at first; weight decay */
	PST_PARAM_NORM,	  /* ones at first; no weight decay */
	PST_PARAM_BIAS,	  /* the gate's balance bias: zeros at first, moved by load, not by gradient
			   */
};

struct pst_param {
	char name[96];
	enum pst_param_kind kind;
	unsigned int ndim;
	uint64_t shape[2];
	int layer;  /* -1: not of a layer */
	int expert; /* routed expert that it belongs to, -1: engine's own */
};

/* *out is malloc'ed. */
int pst_params_list(const struct pst_config *cfg, struct pst_param **out, size_t *count);

/* Index of an expert's gate matrix; up and down are the two behind it. */
size_t pst_params_expert(const struct pst_config *cfg, uint32_t layer, uint32_t expert);

#endif /* PST_PARAMS_H */
