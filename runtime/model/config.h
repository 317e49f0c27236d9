/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - the shape of a model, from a Hugging Face config.json.
 *
 * DeepSeek-V3's block (model_type "deepseek_v3"). What the file asks for and
 * Penstock does not do is refused by name, never ignored: a key that could change the numbers
 * and is unknown is an error, keys that cannot (transformers_version, ...) are listed and skipped.
 */
#ifndef PST_CONFIG_H
#define PST_CONFIG_H

#include <penstock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pst_config {
	uint32_t vocab, hidden, layers, heads, max_positions;
	uint32_t dense_inter, dense_layers;	   /* intermediate_size, first_k_dense_replace */
	uint32_t moe_inter, experts, shared, topk; /* shared: number of shared experts */
	uint32_t n_group, topk_group;
	uint32_t q_lora, kv_lora, qk_nope, qk_rope, v_dim; /* q_lora 0: none */
	bool norm_topk, rope_interleave, tie_embeddings;
	double routed_scale, rms_eps, rope_theta, init_std;
	struct { /* YaRN (arXiv:2309.00071); factor 0: none */
		double factor, beta_fast, beta_slow, mscale, mscale_all_dim;
		uint32_t original_positions;
	} yarn;
};

/* @json need not end in a NUL. -EINVAL with a sentence that names the key. */
int pst_config_parse(const char *json, size_t len, struct pst_config *out, struct pst_error *err);

/* The same from the file @path, which the sentence names. */
int pst_config_read(const char *path, struct pst_config *out, struct pst_error *err);

/* A built-in shape with a byte vocabulary: "nano", "tiny". -ENOENT lists them. */
int pst_config_preset(const char *name, struct pst_config *out, struct pst_error *err);

/* The config.json of @cfg, to be freed; transformers reads it. NULL: no memory. */
char *pst_config_json(const struct pst_config *cfg);

static inline bool pst_config_is_moe(const struct pst_config *cfg, uint32_t layer)
{
	return layer >= cfg->dense_layers;
}

#endif /* PST_CONFIG_H */
