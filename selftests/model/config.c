/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/lib/test.h"

#include "runtime/model/config.h"

#include <jansson.h>

static struct pst_config preset(const char *name)
{
	struct pst_error err = {0};
	struct pst_config cfg;

	ASSERT_OK(pst_config_preset(name, &cfg, &err), &err);
	return cfg;
}

/* nano's config.json as an object that a test then spoils. */
static json_t *nano(void)
{
	struct pst_config cfg = preset("nano");
	char *text = pst_config_json(&cfg);
	json_t *root = json_loads(text, 0, NULL);

	ASSERT_NE(NULL, root);
	free(text);
	return root;
}

static int parse(json_t *root, struct pst_config *out, struct pst_error *err)
{
	char *text = json_dumps(root, 0);
	size_t len = strlen(text);
	char *exact = malloc(len); /* without a NUL, so that a sanitizer sees who looks for one */
	int rc;

	memcpy(exact, text, len);
	rc = pst_config_parse(exact, len, out, err);
	free(exact);
	free(text);
	return rc;
}

static void set(json_t *root, const char *key, const char *value)
{
	json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);

	ASSERT_NE(NULL, v);
	json_object_set_new(root, key, v);
}

/* nano with @key set to @value (NULL: removed) is refused, and the sentence has @word. */
static void expect_refused(const char *key, const char *value, const char *word)
{
	struct pst_config cfg, untouched;
	struct pst_error err = {0};
	json_t *root = nano();

	memset(&cfg, 0x5a, sizeof(cfg));
	untouched = cfg;
	if (value)
		set(root, key, value);
	else
		json_object_del(root, key);
	EXPECT_EQ(-EINVAL, parse(root, &cfg, &err));
	EXPECT_EQ(-EINVAL, err.code);
	EXPECT_EQ(0, memcmp(&cfg, &untouched, sizeof(cfg)));
	if (!strstr(err.text, key) || !strstr(err.text, word)) {
		printf("# %s %s: %s (no \"%s\")\n", key, value, err.text, word);
		test_failed = true;
	}
	json_decref(root);
}

static struct pst_config accept(const char *key, const char *value)
{
	struct pst_config cfg;
	struct pst_error err = {0};
	json_t *root = nano();

	set(root, key, value);
	ASSERT_OK(parse(root, &cfg, &err), &err);
	json_decref(root);
	return cfg;
}

TEST(presets)
{
	struct pst_config cfg = preset("nano");
	struct pst_error err = {0};

	EXPECT_EQ(32u, cfg.hidden);
	EXPECT_EQ(-ENOENT, pst_config_preset("huge", &cfg, &err));
	EXPECT_NE(NULL, strstr(err.text, "nano, tiny"));
	EXPECT_EQ(32u, cfg.hidden);
}

static void expect_round_trip(const struct pst_config *cfg)
{
	struct pst_error err = {0};
	struct pst_config got;
	char *text = pst_config_json(cfg);

	memset(&got, 0, sizeof(got));
	ASSERT_NE(NULL, text);
	ASSERT_OK(pst_config_parse(text, strlen(text), &got, &err), &err);
	EXPECT_EQ(0, memcmp(cfg, &got, sizeof(got)));
	free(text);
}

TEST(round_trip)
{
	struct pst_config cfg = preset("tiny");

	expect_round_trip(&cfg);
	cfg = preset("nano");
	expect_round_trip(&cfg);
	cfg.tie_embeddings = true;
	cfg.rope_interleave = false;
	cfg.norm_topk = false;
	cfg.shared = 0;
	cfg.dense_layers = 0;
	cfg.init_std = 0.1 + 0.2; /* needs all 17 digits */
	cfg.rms_eps = 1e-5;
	cfg.yarn.factor = 40;
	cfg.yarn.beta_fast = 32;
	cfg.yarn.beta_slow = 1;
	cfg.yarn.mscale = cfg.yarn.mscale_all_dim = 1;
	cfg.yarn.original_positions = 64;
	expect_round_trip(&cfg);
}

TEST(json_is_short)
{
	struct pst_config cfg = preset("nano");
	char *text = pst_config_json(&cfg);

	EXPECT_NE(NULL, strstr(text, "\"rms_norm_eps\": 1e-6,"));
	EXPECT_NE(NULL, strstr(text, "\"initializer_range\": 0.02,"));
	EXPECT_NE(NULL, strstr(text, "\"DeepseekV3ForCausalLM\""));
	free(text);
}

/* DeepSeek-V3's own file, without its quantization. */
TEST(deepseek_v3)
{
	static const char text[] =
		"{\"architectures\":[\"DeepseekV3ForCausalLM\"],\"attention_bias\":false,"
		"\"attention_dropout\":0.0,\"auto_map\":{\"AutoConfig\":\"x\"},\"bos_token_id\":0,"
		"\"eos_token_id\":1,\"ep_size\":1,\"first_k_dense_replace\":3,\"hidden_act\":"
		"\"silu\","
		"\"hidden_size\":7168,\"initializer_range\":0.02,\"intermediate_size\":18432,"
		"\"kv_lora_rank\":512,\"max_position_embeddings\":163840,\"model_type\":\"deepseek_"
		"v3\","
		"\"moe_intermediate_size\":2048,\"moe_layer_freq\":1,\"n_group\":8,"
		"\"n_routed_experts\":256,\"n_shared_experts\":1,\"norm_topk_prob\":true,"
		"\"num_attention_heads\":128,\"num_experts_per_tok\":8,\"num_hidden_layers\":61,"
		"\"num_key_value_heads\":128,\"num_nextn_predict_layers\":1,\"q_lora_rank\":1536,"
		"\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"rms_norm_eps\":1e-06,"
		"\"rope_scaling\":{\"beta_fast\":32,\"beta_slow\":1,\"factor\":40,\"mscale\":1.0,"
		"\"mscale_all_dim\":1.0,\"original_max_position_embeddings\":4096,\"type\":"
		"\"yarn\"},"
		"\"rope_theta\":10000,\"routed_scaling_factor\":2.5,\"scoring_func\":\"sigmoid\","
		"\"tie_word_embeddings\":false,\"topk_group\":4,\"topk_method\":\"noaux_tc\","
		"\"torch_dtype\":\"bfloat16\",\"transformers_version\":\"4.33.1\",\"use_cache\":"
		"true,"
		"\"v_head_dim\":128,\"vocab_size\":129280}";
	struct pst_error err = {0};
	struct pst_config cfg;

	ASSERT_OK(pst_config_parse(text, sizeof(text) - 1, &cfg, &err), &err);
	EXPECT_EQ(61u, cfg.layers);
	EXPECT_EQ(1536u, cfg.q_lora);
	EXPECT_EQ(4096u, cfg.yarn.original_positions);
	EXPECT_TRUE(cfg.yarn.factor == 40 && cfg.rope_theta == 10000);
}

TEST(what_may_be_left_out)
{
	static const char *const keys[] = {
		"norm_topk_prob",    "rope_interleave", "rms_norm_eps",	 "routed_scaling_factor",
		"initializer_range", "rope_theta",	"rope_scaling",	 "num_key_value_heads",
		"hidden_act",	     "torch_dtype",	"architectures", "scoring_func",
		"topk_method"};
	struct pst_config want = preset("nano"), got;
	struct pst_error err = {0};
	json_t *root = nano();

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		json_object_del(root, keys[i]);
	memset(&got, 0, sizeof(got));
	ASSERT_OK(parse(root, &got, &err), &err);
	EXPECT_EQ(0, memcmp(&want, &got, sizeof(got)));
	json_decref(root);
}

TEST(what_may_not)
{
	static const char *const keys[] = {"model_type",       "vocab_size",
					   "hidden_size",      "num_hidden_layers",
					   "kv_lora_rank",     "q_lora_rank",
					   "n_group",	       "n_shared_experts",
					   "qk_rope_head_dim", "max_position_embeddings"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		expect_refused(keys[i], NULL, "missing");
}

TEST(not_supported)
{
	expect_refused("model_type", "\"qwen3_moe\"", "qwen3_moe");
	expect_refused("model_type", "7", "deepseek_v3");
	expect_refused("quantization_config", "{\"quant_method\":\"fp8\"}", "fp8");
	expect_refused("hidden_act", "\"gelu\"", "silu");
	expect_refused("attention_bias", "true", "false");
	expect_refused("attention_dropout", "0.1", "0.1");
	expect_refused("moe_layer_freq", "2", "only 1");
	expect_refused("scoring_func", "\"softmax\"", "sigmoid");
	expect_refused("topk_method", "\"greedy\"", "noaux_tc");
	expect_refused("num_key_value_heads", "1", "must be 2");
	expect_refused("head_dim", "64", "must be 8");
	expect_refused("qk_head_dim", "64", "must be 16");
}

TEST(unknown_keys)
{
	expect_refused("hidden_sise", "32", "\"hidden_size\" meant");
	expect_refused("num_experts_per_token", "2", "\"num_experts_per_tok\" meant");
	expect_refused("zzz", "1", "remove it");
	expect_refused("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "1",
		       "z\" is not");
}

TEST(harmless_keys)
{
	accept("eos_token_id", "[1, 2]");
	accept("transformers_version", "\"5.0.0\"");
	accept("dtype", "\"bfloat16\"");
	accept("quantization_config", "null");
	accept("num_nextn_predict_layers", "1");
	accept("head_dim", "8");
	accept("output_router_logits", "false"); /* transformers 5 writes it */
	accept("attention_dropout", "0");
}

TEST(numbers_out_of_range)
{
	expect_refused("hidden_size", "0", "integer");
	expect_refused("hidden_size", "-1", "integer");
	expect_refused("hidden_size", "32.0", "integer");
	expect_refused("hidden_size", "\"32\"", "integer");
	expect_refused("hidden_size", "4294967328", "integer");
	expect_refused("hidden_size", "9223372036854775807", "integer");
	expect_refused("num_hidden_layers", "null", "integer");
	expect_refused("q_lora_rank", "0", "integer");
	expect_refused("rms_norm_eps", "0", "number");
	expect_refused("rms_norm_eps", "true", "number");
	expect_refused("rope_theta", "-1", "number");
	expect_refused("routed_scaling_factor", "-2.5", "number");
	expect_refused("initializer_range", "-0.1", "number");
	expect_refused("norm_topk_prob", "1", "true or false");
}

TEST(numbers_that_do_not_fit_together)
{
	expect_refused("n_group", "3", "equal groups");
	expect_refused("n_group", "8", "two or more");
	expect_refused("topk_group", "5", "only 4 groups");
	expect_refused("num_experts_per_tok", "5", "only 4 experts");
	expect_refused("qk_rope_head_dim", "7", "even");
	expect_refused("first_k_dense_replace", "4", "num_hidden_layers");
	expect_refused("n_routed_experts", "9", "equal groups");
}

TEST(products_that_overflow)
{
	struct pst_error err = {0};
	struct pst_config cfg;
	json_t *root = nano();

	set(root, "num_hidden_layers", "4096");
	set(root, "n_routed_experts", "65536");
	EXPECT_EQ(-EINVAL, parse(root, &cfg, &err));
	EXPECT_NE(NULL, strstr(err.text, "1048576 experts"));
	json_decref(root);

	root = nano();
	memset(&err, 0, sizeof(err));
	set(root, "num_attention_heads", "4096");
	set(root, "num_key_value_heads", "4096");
	set(root, "v_head_dim", "65536");
	EXPECT_EQ(-EINVAL, parse(root, &cfg, &err));
	EXPECT_NE(NULL, strstr(err.text, "columns"));
	json_decref(root);

	root = nano();
	memset(&err, 0, sizeof(err));
	set(root, "n_shared_experts", "1024");
	set(root, "moe_intermediate_size", "1048576");
	EXPECT_EQ(-EINVAL, parse(root, &cfg, &err));
	EXPECT_NE(NULL, strstr(err.text, "n_shared_experts"));
	json_decref(root);
}

TEST(rope_of_transformers_5)
{
	struct pst_config cfg;
	struct pst_error err = {0};
	json_t *root = nano();

	json_object_del(root, "rope_theta");
	json_object_del(root, "rope_scaling");
	set(root, "rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":5000.0}");
	ASSERT_OK(parse(root, &cfg, &err), &err);
	EXPECT_TRUE(cfg.rope_theta == 5000 && cfg.yarn.factor == 0);
	set(root, "rope_parameters",
	    "{\"rope_type\":\"yarn\",\"rope_theta\":5000.0,\"factor\":4.0}");
	ASSERT_OK(parse(root, &cfg, &err), &err);
	EXPECT_TRUE(cfg.yarn.factor == 4 && cfg.yarn.beta_fast == 32 && cfg.yarn.beta_slow == 1);
	EXPECT_EQ(256u, cfg.yarn.original_positions);
	json_decref(root);
}

TEST(rope_that_is_refused)
{
	expect_refused("rope_scaling", "3", "object");
	expect_refused("rope_scaling", "{}", "missing");
	expect_refused("rope_scaling", "{\"type\":\"linear\",\"factor\":2}", "linear");
	expect_refused("rope_scaling", "{\"type\":\"yarn\"}", "factor");
	expect_refused("rope_scaling", "{\"type\":\"yarn\",\"factor\":0.5}", "factor");
	expect_refused("rope_scaling", "{\"type\":\"yarn\",\"rope_type\":\"default\"}", "type");
	expect_refused("rope_scaling", "{\"type\":\"yarn\",\"factor\":2,\"beta_fast\":1}",
		       "beta_slow");
	expect_refused("rope_scaling", "{\"type\":\"yarn\",\"factor\":2,\"mscail\":1}",
		       "\"rope_scaling.mscale\" meant");
	expect_refused("rope_scaling", "{\"type\":\"yarn\",\"factor\":2,\"truncate\":false}",
		       "truncate");
	expect_refused("rope_scaling", "{\"type\":\"default\",\"factor\":2}", "factor");
	expect_refused("rope_parameters", "{\"rope_type\":\"default\",\"rope_theta\":1e6}",
		       "rope_theta");
}

TEST(rope_given_twice)
{
	struct pst_config cfg;
	struct pst_error err = {0};
	json_t *root = nano();

	set(root, "rope_scaling", "{\"type\":\"yarn\",\"factor\":2}");
	set(root, "rope_parameters", "{\"rope_type\":\"yarn\",\"factor\":2}");
	EXPECT_EQ(-EINVAL, parse(root, &cfg, &err));
	EXPECT_NE(NULL, strstr(err.text, "keep one"));
	json_decref(root);
}

TEST(not_json)
{
	static const char *const texts[] = {
		"",
		"{",
		"[]",
		"7",
		"{\"hidden_size\":1,\"hidden_size\":2}",
		"{} {}",
		"{\"model_type\":\"\xff\"}",
		"{\"a\":1e999}",
		"{\"a\":99999999999999999999}",
	};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct pst_error err = {0};
		struct pst_config cfg;

		EXPECT_EQ(-EINVAL, pst_config_parse(texts[i], strlen(texts[i]), &cfg, &err));
		EXPECT_EQ(0, strncmp("config: ", err.text, 8));
	}
}

TEST(duplicate_is_named)
{
	static const char text[] = "{\"hidden_size\":1,\n\"hidden_size\":2}";
	struct pst_error err = {0};
	struct pst_config cfg;

	EXPECT_EQ(-EINVAL, pst_config_parse(text, sizeof(text) - 1, &cfg, &err));
	EXPECT_NE(NULL, strstr(err.text, "line 2"));
	EXPECT_NE(NULL, strstr(err.text, "duplicate"));
	EXPECT_NE(NULL, strstr(err.text, "hidden_size"));
}

/* What a sentence quotes may be long and hold anything; the sentence stays one in ASCII. */
static void expect_plain(const char *key, const char *value)
{
	struct pst_error err = {0};
	struct pst_config cfg;
	json_t *root = nano();

	json_object_set_new(root, key, json_string(value));
	EXPECT_EQ(-EINVAL, parse(root, &cfg, &err));
	EXPECT_LT(strlen(err.text), (size_t)300);
	for (const char *s = err.text; *s; s++)
		EXPECT_TRUE(*s >= ' ' && *s <= '~');
	json_decref(root);
}

TEST(what_is_quoted_stays_plain)
{
	char text[512] = "";

	for (int i = 0; i < 200; i++)
		strcat(text, "\xc3\xa4");
	expect_plain("hidden_act", text);
	expect_plain("model_type", text);
	expect_plain("rope_scaling", text);
	expect_plain(text, "x");
	expect_plain("hidden_act", "a\nb\x1b[2J");
	expect_plain("model_type", "a\nb\x1b[2J");
	expect_plain("a\nb\x1b[2J\xc2\x9b", "x");
}

TEST_MAIN
