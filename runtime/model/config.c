/* SPDX-License-Identifier: Apache-2.0 */
/* From a config.json of model_type deepseek_v3 to a struct pst_config. */
#include "runtime/model/config.h"
#include "runtime/model/config_key.h"
#include "runtime/model/rope.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(nm, field, lo, hi)                                                   \
	{                                                                          \
		.name = nm, .kind = PST_KEY_COUNT, .required = true,               \
		.offset = offsetof(struct pst_config, field), .min = lo, .max = hi \
	}
#define RANK(nm, field, hi)                                                       \
	{                                                                         \
		.name = nm, .kind = PST_KEY_RANK, .required = true,               \
		.offset = offsetof(struct pst_config, field), .min = 1, .max = hi \
	}
#define REAL(nm, field, knd, lo, hi)                                                              \
	{                                                                                         \
		.name = nm, .kind = knd, .offset = offsetof(struct pst_config, field), .min = lo, \
		.max = hi                                                                         \
	}
#define FLAG(nm, field)                                                                        \
	{                                                                                      \
		.name = nm, .kind = PST_KEY_FLAG, .offset = offsetof(struct pst_config, field) \
	}
#define FIXED(nm, value, ...)                                                 \
	{                                                                     \
		.name = nm, .kind = PST_KEY_FIXED, .want = value, __VA_ARGS__ \
	}
#define SKIP(nm)                                 \
	{                                        \
		.name = nm, .kind = PST_KEY_SKIP \
	}
#define OTHER(nm)                                 \
	{                                         \
		.name = nm, .kind = PST_KEY_OTHER \
	}

#define WIDTH (1 << 20)

static const struct pst_key keys[] = {
	FIXED("model_type", "\"deepseek_v3\"", .required = true),
	COUNT("vocab_size", vocab, 1, 1 << 24),
	COUNT("hidden_size", hidden, 1, WIDTH),
	COUNT("num_hidden_layers", layers, 1, 4096),
	COUNT("num_attention_heads", heads, 1, 4096),
	COUNT("max_position_embeddings", max_positions, 1, 1 << 30),
	COUNT("intermediate_size", dense_inter, 1, WIDTH),
	COUNT("first_k_dense_replace", dense_layers, 0, 4096),
	COUNT("moe_intermediate_size", moe_inter, 1, WIDTH),
	COUNT("n_routed_experts", experts, 1, 65536),
	COUNT("n_shared_experts", shared, 0, 1024),
	COUNT("num_experts_per_tok", topk, 1, 65536),
	COUNT("n_group", n_group, 1, 65536),
	COUNT("topk_group", topk_group, 1, 65536),
	RANK("q_lora_rank", q_lora, WIDTH),
	COUNT("kv_lora_rank", kv_lora, 1, WIDTH),
	COUNT("qk_nope_head_dim", qk_nope, 1, 65536),
	COUNT("qk_rope_head_dim", qk_rope, 2, PST_ROPE_MAX_DIM),
	COUNT("v_head_dim", v_dim, 1, 65536),
	FLAG("norm_topk_prob", norm_topk),
	FLAG("rope_interleave", rope_interleave),
	FLAG("tie_word_embeddings", tie_embeddings),
	REAL("routed_scaling_factor", routed_scale, PST_KEY_REAL, 0, 1e6),
	REAL("rms_norm_eps", rms_eps, PST_KEY_REAL, 0, 1),
	REAL("rope_theta", rope_theta, PST_KEY_REAL, 1.001, 1e15),
	REAL("initializer_range", init_std, PST_KEY_ZREAL, 0, 100),
	OTHER("num_key_value_heads"),
	OTHER("head_dim"),
	OTHER("qk_head_dim"),
	OTHER("rope_scaling"),
	OTHER("rope_parameters"),
	FIXED("hidden_act", "\"silu\""),
	FIXED("attention_bias", "false"),
	FIXED("attention_dropout", "0"),
	FIXED("mlp_bias", "false"),
	FIXED("moe_layer_freq", "1"),
	FIXED("scoring_func", "\"sigmoid\""),
	FIXED("topk_method", "\"noaux_tc\""),
	FIXED("quantization_config", "null"),
	FIXED("pretraining_tp", "1"),
	FIXED("output_router_logits", "false"),
	SKIP("architectures"),
	SKIP("transformers_version"),
	SKIP("torch_dtype"),
	SKIP("dtype"),
	SKIP("bos_token_id"),
	SKIP("eos_token_id"),
	SKIP("pad_token_id"),
	SKIP("sep_token_id"),
	SKIP("decoder_start_token_id"),
	SKIP("use_cache"),
	SKIP("auto_map"),
	SKIP("_name_or_path"),
	SKIP("_attn_implementation_autoset"),
	SKIP("_comment"),
	SKIP("ep_size"),
	SKIP("num_nextn_predict_layers"),
	SKIP("aux_loss_alpha"),
	SKIP("seq_aux"),
	SKIP("tokenizer_class"),
	SKIP("chunk_size_feed_forward"),
	SKIP("id2label"),
	SKIP("label2id"),
	SKIP("problem_type"),
	SKIP("task_specific_params"),
	SKIP("is_encoder_decoder"),
	SKIP("is_decoder"),
	SKIP("return_dict"),
	SKIP("output_attentions"),
	SKIP("output_hidden_states"),
	SKIP("torchscript"),
};

#define KEYS(table) (table), sizeof(table) / sizeof((table)[0])

/* What rope_scaling or rope_parameters say; read apart, since both may hold a theta. */
static const struct pst_key yarn_keys[] = {
	OTHER("type"),
	OTHER("rope_type"),
	REAL("rope_theta", rope_theta, PST_KEY_REAL, 1.001, 1e15),
	REAL("factor", yarn.factor, PST_KEY_REAL, 1, 1e6),
	REAL("beta_fast", yarn.beta_fast, PST_KEY_REAL, 0, 1e6),
	REAL("beta_slow", yarn.beta_slow, PST_KEY_REAL, 0, 1e6),
	REAL("mscale", yarn.mscale, PST_KEY_ZREAL, 0, 1e6),
	REAL("mscale_all_dim", yarn.mscale_all_dim, PST_KEY_ZREAL, 0, 1e6),
	{.name = "original_max_position_embeddings",
	 .kind = PST_KEY_COUNT,
	 .offset = offsetof(struct pst_config, yarn.original_positions),
	 .min = 1,
	 .max = 1 << 30},
	FIXED("attention_factor", "null"),
	FIXED("truncate", "true"),
};

static const struct pst_key plain_rope_keys[] = {
	OTHER("type"),
	OTHER("rope_type"),
	REAL("rope_theta", rope_theta, PST_KEY_REAL, 1.001, 1e15),
};

/* "yarn" or "default", from either of the two names that the key has had; NULL: refused. */
static const char *rope_type(const json_t *rope, const char *name, struct pst_error *err)
{
	const json_t *a = json_object_get(rope, "rope_type"), *b = json_object_get(rope, "type");
	const char *type = json_string_value(a ? a : b);
	char value[64];

	if (!type || (strcmp(type, "yarn") && strcmp(type, "default"))) {
		pst_fail(err, -EINVAL,
			 "config: \"%s.rope_type\" is %s; only \"yarn\" and \"default\" are "
			 "supported",
			 name, a || b ? pst_key_show(a ? a : b, value, sizeof(value)) : "missing");
		return NULL;
	}
	if (a && b && !json_equal(a, b)) {
		pst_fail(err, -EINVAL, "config: \"%s.type\" is not \"%s.rope_type\"", name, name);
		return NULL;
	}
	return type;
}

static int read_yarn(const json_t *rope, const char *where, struct pst_config *out,
		     struct pst_error *err)
{
	int rc;

	out->yarn.beta_fast = 32;
	out->yarn.beta_slow = 1;
	out->yarn.original_positions = out->max_positions;
	rc = pst_keys_read(rope, KEYS(yarn_keys), where, out, err);
	if (rc)
		return rc;
	if (out->yarn.factor == 0)
		return pst_fail(err, -EINVAL, "config: \"%sfactor\" is missing", where);
	if (out->yarn.beta_fast <= out->yarn.beta_slow)
		return pst_fail(
			err, -EINVAL,
			"config: \"%sbeta_fast\" is %g, not above \"%sbeta_slow\", which is %g",
			where, out->yarn.beta_fast, where, out->yarn.beta_slow);
	return 0;
}

static int read_rope(const json_t *rope, const char *name, struct pst_config *out,
		     struct pst_error *err)
{
	double theta = out->rope_theta;
	const char *type;
	char where[32];
	int rc;

	if (!json_is_object(rope))
		return pst_fail(err, -EINVAL, "config: \"%s\" is neither an object nor null", name);
	type = rope_type(rope, name, err);
	if (!type)
		return -EINVAL;
	snprintf(where, sizeof(where), "%s.", name);
	if (!strcmp(type, "yarn"))
		rc = read_yarn(rope, where, out, err);
	else
		rc = pst_keys_read(rope, KEYS(plain_rope_keys), where, out, err);
	if (!rc && theta != 0 && out->rope_theta != theta)
		rc = pst_fail(err, -EINVAL,
			      "config: \"rope_theta\" is %g, but \"%srope_theta\" is %g", theta,
			      where, out->rope_theta);
	return rc;
}

static int read_ropes(const json_t *root, struct pst_config *out, struct pst_error *err)
{
	const json_t *v4 = json_object_get(root, "rope_scaling");
	const json_t *v5 = json_object_get(root, "rope_parameters");
	int rc = 0;

	if (json_is_null(v4))
		v4 = NULL;
	if (json_is_null(v5))
		v5 = NULL;
	if (v4 && v5)
		return pst_fail(err, -EINVAL,
				"config: both \"rope_scaling\" and \"rope_parameters\" are given; "
				"keep one");
	if (v4 || v5)
		rc = read_rope(v4 ? v4 : v5, v4 ? "rope_scaling" : "rope_parameters", out, err);
	if (!rc && out->rope_theta == 0)
		out->rope_theta = 10000;
	return rc;
}

/* A key whose value must follow from others. */
static int check_derived(const json_t *root, const char *name, uint64_t want, const char *why,
			 struct pst_error *err)
{
	const json_t *v = json_object_get(root, name);

	if (!v || (json_is_integer(v) && (uint64_t)json_integer_value(v) == want))
		return 0;
	return pst_fail(err, -EINVAL, "config: \"%s\" must be %llu, %s", name,
			(unsigned long long)want, why);
}

static int check_heads(const json_t *root, const struct pst_config *c, struct pst_error *err)
{
	int rc = check_derived(root, "num_key_value_heads", c->heads,
			       "as \"num_attention_heads\": latent attention has no key groups",
			       err);

	if (!rc)
		rc = check_derived(root, "head_dim", c->qk_rope, "as \"qk_rope_head_dim\"", err);
	if (!rc)
		rc = check_derived(root, "qk_head_dim", (uint64_t)c->qk_nope + c->qk_rope,
				   "\"qk_nope_head_dim\" plus \"qk_rope_head_dim\"", err);
	return rc;
}

static int check_experts(const struct pst_config *c, struct pst_error *err)
{
	if (c->experts % c->n_group || c->experts / c->n_group < 2)
		return pst_fail(err, -EINVAL,
				"config: \"n_routed_experts\" is %u, which \"n_group\" %u does not "
				"cut into equal groups of two or more",
				c->experts, c->n_group);
	if (c->topk_group > c->n_group)
		return pst_fail(err, -EINVAL,
				"config: \"topk_group\" is %u, but there are only %u groups "
				"(\"n_group\")",
				c->topk_group, c->n_group);
	if (c->topk > c->topk_group * (c->experts / c->n_group))
		return pst_fail(err, -EINVAL,
				"config: \"num_experts_per_tok\" is %u, but the chosen groups "
				"(\"topk_group\" %u) hold only %u experts",
				c->topk, c->topk_group, c->topk_group * (c->experts / c->n_group));
	return 0;
}

/* Bounds on products, so that no size further down can overflow. */
static int check_sizes(const struct pst_config *c, struct pst_error *err)
{
	uint64_t widest = (uint64_t)c->qk_nope + (c->qk_rope > c->v_dim ? c->qk_rope : c->v_dim);

	if (c->dense_layers > c->layers)
		return pst_fail(err, -EINVAL,
				"config: \"first_k_dense_replace\" is %u, but "
				"\"num_hidden_layers\" only %u",
				c->dense_layers, c->layers);
	if (c->qk_rope % 2)
		return pst_fail(err, -EINVAL,
				"config: \"qk_rope_head_dim\" is %u; positions turn pairs, so it "
				"must be even",
				c->qk_rope);
	if ((uint64_t)c->layers * c->experts > 1 << 20)
		return pst_fail(err, -EINVAL,
				"config: \"num_hidden_layers\" %u times \"n_routed_experts\" %u is "
				"more than %u experts",
				c->layers, c->experts, 1 << 20);
	if (c->heads * widest > 1 << 24)
		return pst_fail(err, -EINVAL,
				"config: \"num_attention_heads\" is %u; with heads of up to %llu "
				"that is more than %u columns",
				c->heads, (unsigned long long)widest, 1 << 24);
	if ((uint64_t)c->shared * c->moe_inter > 1 << 24)
		return pst_fail(
			err, -EINVAL,
			"config: \"n_shared_experts\" %u of \"moe_intermediate_size\" %u are "
			"more than %u columns",
			c->shared, c->moe_inter, 1 << 24);
	return 0;
}

static int read_config(const json_t *root, struct pst_config *out, struct pst_error *err)
{
	const json_t *type = json_object_get(root, "model_type");
	char value[64];
	int rc;

	if (!json_is_object(root))
		return pst_fail(err, -EINVAL, "config: it is not a JSON object");
	/* first, since of another family nearly every key is strange */
	if (json_is_string(type) && strcmp(json_string_value(type), "deepseek_v3"))
		return pst_fail(err, -EINVAL,
				"config: \"model_type\" is %s; only \"deepseek_v3\" is supported",
				pst_key_show(type, value, sizeof(value)));
	rc = pst_keys_read(root, KEYS(keys), "", out, err);
	if (!rc)
		rc = read_ropes(root, out, err);
	if (!rc)
		rc = check_heads(root, out, err);
	if (!rc)
		rc = check_experts(out, err);
	if (!rc)
		rc = check_sizes(out, err);
	return rc;
}

static int refuse_text(json_error_t *why, struct pst_error *err)
{
	/* it may quote the file */
	for (char *s = why->text; *s; s++)
		if (*s < ' ' || *s > '~')
			*s = '?';
	return pst_fail(err, -EINVAL, "config: not good JSON in line %d: %s", why->line, why->text);
}

int pst_config_parse(const char *json, size_t len, struct pst_config *out, struct pst_error *err)
{
	/* where a file may leave a key out: as transformers' DeepseekV3Config */
	struct pst_config config = {.norm_topk = true,
				    .rope_interleave = true,
				    .routed_scale = 2.5,
				    .rms_eps = 1e-6,
				    .init_std = 0.02};
	json_error_t why;
	json_t *root;
	int rc;

	root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &why);
	if (!root)
		return refuse_text(&why, err);
	rc = read_config(root, &config, err);
	json_decref(root);
	if (!rc)
		*out = config;
	return rc;
}

int pst_config_read(const char *path, struct pst_config *out, struct pst_error *err)
{
	struct pst_error why = {0};
	size_t len;
	char *text;
	int rc = pst_file_read(path, 1 << 20, &text, &len, err);

	if (rc < 0)
		return rc;
	rc = pst_config_parse(text, len, out, &why);
	free(text);
	return rc < 0 ? pst_fail(err, rc, "%s: %.400s", path, why.text) : 0;
}
