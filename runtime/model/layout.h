/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - where each tensor stands in the order of params.h; private to model/. */
#ifndef PST_LAYOUT_H
#define PST_LAYOUT_H

#include "runtime/model/params.h"

#define PST_NO_PARAM ((size_t)-1)

/* Indices of one layer's tensors; PST_NO_PARAM: this layer has none. */
struct pst_layer_params {
	size_t attn_norm;
	size_t q;		   /* without q_lora */
	size_t q_a, q_a_norm, q_b; /* with it */
	size_t kv_a, kv_a_norm, kv_b, o;
	size_t ffn_norm;
	size_t router, bias;   /* MoE layers */
	size_t gate, up, down; /* of the dense or the shared network */
	size_t experts;	       /* gate, up, down of each, by index */
	size_t end;	       /* one past the layer's last */
};

struct pst_model_params {
	size_t embed, norm, head; /* head == embed when tied */
	size_t count;
};

void pst_layout_layer(const struct pst_config *cfg, uint32_t layer, struct pst_layer_params *out);
void pst_layout_model(const struct pst_config *cfg, struct pst_model_params *out);

static inline bool pst_layer_has_mlp(const struct pst_config *cfg, uint32_t layer)
{
	return !pst_config_is_moe(cfg, layer) || cfg->shared;
}

/* Inner width of the dense or the shared network. */
static inline size_t pst_layer_inter(const struct pst_config *cfg, uint32_t layer)
{
	return pst_config_is_moe(cfg, layer) ? (size_t)cfg->shared * cfg->moe_inter
					     : cfg->dense_inter;
}

#endif /* PST_LAYOUT_H */
