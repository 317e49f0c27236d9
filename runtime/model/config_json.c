/* SPDX-License-Identifier: Apache-2.0 */
/* The config.json of a model, in the form of the files on the hub, which every transformers reads.
 */
#include "runtime/model/config.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *rope_scaling(const struct pst_config *c)
{
	if (c->yarn.factor == 0)
		return json_null();
	return json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:I}", "type", "yarn", "factor",
			 c->yarn.factor, "beta_fast", c->yarn.beta_fast, "beta_slow",
			 c->yarn.beta_slow, "mscale", c->yarn.mscale, "mscale_all_dim",
			 c->yarn.mscale_all_dim, "original_max_position_embeddings",
			 (json_int_t)c->yarn.original_positions);
}

static int put_counts(json_t *root, const struct pst_config *c)
{
	const struct {
		const char *name;
		uint32_t value;
	} counts[] = {
		{"vocab_size", c->vocab},
		{"hidden_size", c->hidden},
		{"num_hidden_layers", c->layers},
		{"num_attention_heads", c->heads},
		{"num_key_value_heads", c->heads},
		{"max_position_embeddings", c->max_positions},
		{"intermediate_size", c->dense_inter},
		{"first_k_dense_replace", c->dense_layers},
		{"moe_layer_freq", 1},
		{"moe_intermediate_size", c->moe_inter},
		{"n_routed_experts", c->experts},
		{"n_shared_experts", c->shared},
		{"num_experts_per_tok", c->topk},
		{"n_group", c->n_group},
		{"topk_group", c->topk_group},
		{"kv_lora_rank", c->kv_lora},
		{"qk_nope_head_dim", c->qk_nope},
		{"qk_rope_head_dim", c->qk_rope},
		{"v_head_dim", c->v_dim},
	};
	int rc = 0;

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		rc |= json_object_set_new(root, counts[i].name, json_integer(counts[i].value));
	return rc | json_object_set_new(root, "q_lora_rank",
					c->q_lora ? json_integer(c->q_lora) : json_null());
}

static json_t *to_json(const struct pst_config *c)
{
	json_t *root = json_pack(
		"{s:[s], s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:f, s:f, s:f, s:f, s:f}",
		"architectures", "DeepseekV3ForCausalLM", "model_type", "deepseek_v3",
		"torch_dtype", "float32", "hidden_act", "silu", "scoring_func", "sigmoid",
		"topk_method", "noaux_tc", "attention_bias", 0, "norm_topk_prob", c->norm_topk,
		"rope_interleave", c->rope_interleave, "tie_word_embeddings", c->tie_embeddings,
		"attention_dropout", 0.0, "routed_scaling_factor", c->routed_scale, "rms_norm_eps",
		c->rms_eps, "rope_theta", c->rope_theta, "initializer_range", c->init_std);

	if (!root)
		return NULL;
	if (put_counts(root, c) || json_object_set_new(root, "rope_scaling", rope_scaling(c))) {
		json_decref(root);
		return NULL;
	}
	return root;
}

static bool reads_back(const char *text, const struct pst_config *c)
{
	struct pst_config got;

	if (pst_config_parse(text, strlen(text), &got, NULL))
		return false;
	return got.routed_scale == c->routed_scale && got.rms_eps == c->rms_eps &&
	       got.rope_theta == c->rope_theta && got.init_std == c->init_std &&
	       got.yarn.factor == c->yarn.factor && got.yarn.beta_fast == c->yarn.beta_fast &&
	       got.yarn.beta_slow == c->yarn.beta_slow && got.yarn.mscale == c->yarn.mscale &&
	       got.yarn.mscale_all_dim == c->yarn.mscale_all_dim;
}

/* With as few digits as give the same numbers back: 1e-6, not 9.9999999999999995e-7. */
char *pst_config_json(const struct pst_config *cfg)
{
	json_t *root = to_json(cfg);
	char *text = NULL;

	for (size_t digits = 6; root && digits <= 17; digits++) {
		text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
		if (!text || digits == 17 || reads_back(text, cfg))
			break;
		free(text);
	}
	json_decref(root);
	return text;
}
