/* SPDX-License-Identifier: Apache-2.0 */
/* A config.json that is none, or of a model that is not ours: one clear line. */
#include "selftests/tools/program.h"

#define GOLDEN "selftests/goldens/nano/config.json"

static json_t *good(void)
{
	json_t *root = json_load_file(GOLDEN, 0, NULL);

	ASSERT_NE(NULL, root);
	return root;
}

static void train(int code, const char *text)
{
	static const char command[] = "penstock train --data " TEXT
				      " --steps 1 --batch 1 --seq 16 --embedded --json - --config";

	if (code)
		program_refused(NULL, code, text, "%s %s", command, in_tmp("c.json"));
	else
		json_decref(program_json(NULL, "%s %s", command, in_tmp("c.json")));
}

static void train_text(const char *config, const char *text)
{
	write_file(in_tmp("c.json"), config, strlen(config));
	train(1, text);
}

/* @key has the JSON value @value, or goes when that is NULL. */
static void train_with(const char *key, const char *value, const char *text)
{
	json_t *root = good();

	if (value)
		json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(root, key);
	ASSERT_EQ(0, json_dump_file(root, in_tmp("c.json"), 0));
	json_decref(root);
	train(1, text);
}

TEST(a_good_one)
{
	shell("cp " GOLDEN " %s", in_tmp("c.json"));
	train(0, NULL);
}

TEST(no_json)
{
	train_text("", "c.json");
	train_text("{", "c.json");
	train_text("[]", "c.json");
	train_text("null", "c.json");
	train_text("{}", "c.json");
	train_text("hidden_size: 32\n", "c.json");
	train_text("{\"hidden_size\": 32, \"hidden_size\": 32}", "hidden_size");
	train_text("\xff\xfe{}", "c.json");
}

TEST(no_file)
{
	static const char command[] = "penstock train --data " TEXT " --steps 1 --config";

	program_refused(NULL, 1, "/nowhere/c.json", "%s /nowhere/c.json", command);
	program_refused(NULL, 1, test_tmpdir(), "%s %s", command, test_tmpdir());
	program_refused(NULL, 1, "/dev/zero", "%s /dev/zero", command);
	ASSERT_EQ(0, symlink("loop", in_tmp("loop")));
	program_refused(NULL, 1, "loop", "%s %s", command, in_tmp("loop"));
	shell("head -c 2000000 /dev/zero >%s", in_tmp("large"));
	program_refused(NULL, 1, "large", "%s %s", command, in_tmp("large"));
}

TEST(keys)
{
	train_with("hidden_sizes", "32", "hidden_sizes");
	train_with("sliding_window", "4", "sliding_window");
	train_with("quantization_config", "{\"quant_method\": \"fp8\"}", "quantization_config");
	train_with("hidden_size", NULL, "hidden_size");
	train_with("n_routed_experts", NULL, "n_routed_experts");
	train_with("model_type", "\"llama\"", "model_type");
}

TEST(values)
{
	train_with("hidden_size", "\"32\"", "hidden_size");
	train_with("hidden_size", "32.5", "hidden_size");
	train_with("hidden_size", "0", "hidden_size");
	train_with("hidden_size", "-32", "hidden_size");
	train_with("hidden_size", "4611686018427387904", "hidden_size");
	train_with("hidden_size", "[32]", "hidden_size");
	train_with("hidden_size", "null", "hidden_size");
	train_with("num_hidden_layers", "1000000000", "num_hidden_layers");
	train_with("n_routed_experts", "1000000000", "n_routed_experts");
	train_with("vocab_size", "4000000000", "vocab_size");
	train_with("vocab_size", "100", "100");
	train_with("rms_norm_eps", "\"small\"", "rms_norm_eps");
	train_with("rms_norm_eps", "-1", "rms_norm_eps");
	train_with("rope_theta", "0", "rope_theta");
	train_with("rope_scaling", "7", "rope_scaling");
	train_with("norm_topk_prob", "1", "norm_topk_prob");
	train_with("scoring_func", "\"tanh\"", "scoring_func");
	train_with("num_experts_per_tok", "9", "num_experts_per_tok");
	train_with("n_group", "3", "n_group");
	train_with("topk_group", "5", "topk_group");
	train_with("first_k_dense_replace", "4", "first_k_dense_replace");
	train_with("qk_rope_head_dim", "7", "qk_rope_head_dim");
	train_with("max_position_embeddings", "8", "positions");
}

/* All keys are fine, and the model is larger than any machine. */
TEST(a_model_that_fits_nowhere)
{
	static const struct how small = {.limit_of = RLIMIT_AS, .limit = 8ull << 30};
	json_t *root = good();

	if (SANITIZED)
		SKIP("a sanitizer needs the address space", "make quick");
	json_object_set_new(root, "hidden_size", json_integer(16384));
	json_object_set_new(root, "moe_intermediate_size", json_integer(16384));
	json_object_set_new(root, "n_routed_experts", json_integer(256));
	ASSERT_EQ(0, json_dump_file(root, in_tmp("c.json"), 0));
	json_decref(root);
	program_refused(&small, 1, "",
			"penstock train --data " TEXT " --steps 1 --batch 1 --seq 16 --json - "
			"--config %s",
			in_tmp("c.json"));
	program_refused(&small, 1, "",
			"penstock train --data " TEXT " --steps 1 --batch 1 --seq 16 --json - "
			"--embedded --config %s",
			in_tmp("c.json"));
}

TEST_MAIN
