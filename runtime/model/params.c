/* SPDX-License-Identifier: Apache-2.0 */
/* Names and shapes of a model's tensors, as the DeepSeek-V3 checkpoints on the hub have them. */
#include "runtime/model/layout.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static size_t attention_params(const struct pst_config *cfg)
{
	return cfg->q_lora ? 9 : 7; /* with both norms of the layer */
}

static size_t layer_params(const struct pst_config *cfg, uint32_t layer)
{
	if (!pst_config_is_moe(cfg, layer))
		return attention_params(cfg) + 3;
	return attention_params(cfg) + 2 + (cfg->shared ? 3 : 0) + 3 * (size_t)cfg->experts;
}

static size_t first_param(const struct pst_config *cfg, uint32_t layer)
{
	uint32_t dense = layer < cfg->dense_layers ? layer : cfg->dense_layers;
	size_t first = 1 + dense * layer_params(cfg, 0);

	if (layer > dense)
		first += (layer - dense) * layer_params(cfg, cfg->dense_layers);
	return first;
}

void pst_layout_layer(const struct pst_config *cfg, uint32_t layer, struct pst_layer_params *out)
{
	bool lora = cfg->q_lora, moe = pst_config_is_moe(cfg, layer);
	bool mlp = pst_layer_has_mlp(cfg, layer);
	size_t i = first_param(cfg, layer);

	out->attn_norm = i++;
	out->q = lora ? PST_NO_PARAM : i++;
	out->q_a = lora ? i++ : PST_NO_PARAM;
	out->q_a_norm = lora ? i++ : PST_NO_PARAM;
	out->q_b = lora ? i++ : PST_NO_PARAM;
	out->kv_a = i++;
	out->kv_a_norm = i++;
	out->kv_b = i++;
	out->o = i++;
	out->ffn_norm = i++;
	out->router = moe ? i++ : PST_NO_PARAM;
	out->bias = moe ? i++ : PST_NO_PARAM;
	out->gate = mlp ? i++ : PST_NO_PARAM;
	out->up = mlp ? i++ : PST_NO_PARAM;
	out->down = mlp ? i++ : PST_NO_PARAM;
	out->experts = moe ? i : PST_NO_PARAM;
	out->end = moe ? i + 3 * (size_t)cfg->experts : i;
}

void pst_layout_model(const struct pst_config *cfg, struct pst_model_params *out)
{
	out->embed = 0;
	out->norm = first_param(cfg, cfg->layers);
	out->head = cfg->tie_embeddings ? out->embed : out->norm + 1;
	out->count = out->norm + (cfg->tie_embeddings ? 1 : 2);
}

size_t pst_params_expert(const struct pst_config *cfg, uint32_t layer, uint32_t expert)
{
	struct pst_layer_params p;

	pst_layout_layer(cfg, layer, &p);
	return p.experts + 3 * (size_t)expert;
}

/* Where tensors are put: @list[@index] of @layer (-1: of none). */
struct put {
	struct pst_param *list;
	int layer, expert;
};

__attribute__((format(printf, 6, 7))) static void put(const struct put *p, size_t index,
						      enum pst_param_kind kind, uint64_t rows,
						      uint64_t cols, const char *fmt, ...)
{
	struct pst_param *param;
	va_list ap;
	int n = 0;

	if (index == PST_NO_PARAM)
		return;
	param = &p->list[index];
	param->kind = kind;
	param->ndim = cols ? 2 : 1;
	param->shape[0] = rows;
	param->shape[1] = cols;
	param->layer = p->layer;
	param->expert = p->expert;
	if (p->layer >= 0)
		n = snprintf(param->name, sizeof(param->name), "model.layers.%d.", p->layer);
	va_start(ap, fmt);
	vsnprintf(param->name + n, sizeof(param->name) - (size_t)n, fmt, ap);
	va_end(ap);
}

static void put_attention(const struct put *p, const struct pst_config *c,
			  const struct pst_layer_params *at)
{
	const char *attn = "self_attn.";
	uint64_t q = (uint64_t)c->heads * (c->qk_nope + c->qk_rope);
	uint64_t kv = (uint64_t)c->heads * (c->qk_nope + c->v_dim);

	put(p, at->attn_norm, PST_PARAM_NORM, c->hidden, 0, "input_layernorm.weight");
	put(p, at->q, PST_PARAM_MATRIX, q, c->hidden, "%sq_proj.weight", attn);
	put(p, at->q_a, PST_PARAM_MATRIX, c->q_lora, c->hidden, "%sq_a_proj.weight", attn);
	put(p, at->q_a_norm, PST_PARAM_NORM, c->q_lora, 0, "%sq_a_layernorm.weight", attn);
	put(p, at->q_b, PST_PARAM_MATRIX, q, c->q_lora, "%sq_b_proj.weight", attn);
	put(p, at->kv_a, PST_PARAM_MATRIX, (uint64_t)c->kv_lora + c->qk_rope, c->hidden,
	    "%skv_a_proj_with_mqa.weight", attn);
	put(p, at->kv_a_norm, PST_PARAM_NORM, c->kv_lora, 0, "%skv_a_layernorm.weight", attn);
	put(p, at->kv_b, PST_PARAM_MATRIX, kv, c->kv_lora, "%skv_b_proj.weight", attn);
	put(p, at->o, PST_PARAM_MATRIX, c->hidden, (uint64_t)c->heads * c->v_dim, "%so_proj.weight",
	    attn);
	put(p, at->ffn_norm, PST_PARAM_NORM, c->hidden, 0, "post_attention_layernorm.weight");
}

/* The three matrices of a SwiGLU network at @gate, @up, @down, named below @where. */
static void put_mlp(const struct put *p, const size_t index[3], uint64_t hidden, uint64_t inter,
		    const char *where)
{
	put(p, index[0], PST_PARAM_MATRIX, inter, hidden, "%s.gate_proj.weight", where);
	put(p, index[1], PST_PARAM_MATRIX, inter, hidden, "%s.up_proj.weight", where);
	put(p, index[2], PST_PARAM_MATRIX, hidden, inter, "%s.down_proj.weight", where);
}

static void put_experts(struct put p, const struct pst_config *c, const struct pst_layer_params *at)
{
	char where[48];

	for (uint32_t e = 0; e < c->experts; e++) {
		size_t i = at->experts + 3 * (size_t)e;

		p.expert = (int)e;
		snprintf(where, sizeof(where), "mlp.experts.%u", e);
		put_mlp(&p, (const size_t[]){i, i + 1, i + 2}, c->hidden, c->moe_inter, where);
	}
}

static void put_layer(const struct put *p, const struct pst_config *c,
		      const struct pst_layer_params *at)
{
	uint32_t layer = (uint32_t)p->layer;
	bool moe = pst_config_is_moe(c, layer);

	put_attention(p, c, at);
	put_mlp(p, (const size_t[]){at->gate, at->up, at->down}, c->hidden,
		pst_layer_inter(c, layer), moe ? "mlp.shared_experts" : "mlp");
	if (!moe)
		return;
	put(p, at->router, PST_PARAM_MATRIX, c->experts, c->hidden, "mlp.gate.weight");
	put(p, at->bias, PST_PARAM_BIAS, c->experts, 0, "mlp.gate.e_score_correction_bias");
	put_experts(*p, c, at);
}

int pst_params_list(const struct pst_config *cfg, struct pst_param **out, size_t *count)
{
	struct pst_model_params at;
	struct put p = {.layer = -1, .expert = -1};

	pst_layout_model(cfg, &at);
	p.list = calloc(at.count, sizeof(*p.list));
	if (!p.list)
		return -ENOMEM;
	put(&p, at.embed, PST_PARAM_MATRIX, cfg->vocab, cfg->hidden, "model.embed_tokens.weight");
	for (uint32_t layer = 0; layer < cfg->layers; layer++) {
		struct pst_layer_params in_layer;

		p.layer = (int)layer;
		pst_layout_layer(cfg, layer, &in_layer);
		put_layer(&p, cfg, &in_layer);
	}
	p.layer = -1;
	put(&p, at.norm, PST_PARAM_NORM, cfg->hidden, 0, "model.norm.weight");
	if (at.head != at.embed)
		put(&p, at.head, PST_PARAM_MATRIX, cfg->vocab, cfg->hidden, "lm_head.weight");
	*out = p.list;
	*count = at.count;
	return 0;
}
