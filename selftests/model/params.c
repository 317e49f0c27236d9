/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/lib/test.h"

#include "runtime/model/params.h"

static struct pst_param *list(const struct pst_config *cfg, size_t *count)
{
	struct pst_param *params;

	ASSERT_EQ(0, pst_params_list(cfg, &params, count));
	return params;
}

static struct pst_config preset(const char *name)
{
	struct pst_error err = {0};
	struct pst_config cfg;

	ASSERT_OK(pst_config_preset(name, &cfg, &err), &err);
	return cfg;
}

static void expect_param(const struct pst_param *p, const char *name, uint64_t rows, uint64_t cols,
			 int layer, int expert)
{
	EXPECT_STREQ(name, p->name);
	EXPECT_EQ(cols ? 2u : 1u, p->ndim);
	EXPECT_EQ(rows, p->shape[0]);
	if (cols)
		EXPECT_EQ(cols, p->shape[1]);
	EXPECT_EQ(layer, p->layer);
	EXPECT_EQ(expert, p->expert);
}

TEST(order_of_nano)
{
	struct pst_config cfg = preset("nano");
	size_t n;
	struct pst_param *p = list(&cfg, &n);

	/* embedding, a dense layer of 12, two MoE layers of 14 + 24, norm, head */
	ASSERT_EQ((size_t)91, n);
	expect_param(&p[0], "model.embed_tokens.weight", 256, 32, -1, -1);
	expect_param(&p[1], "model.layers.0.input_layernorm.weight", 32, 0, 0, -1);
	expect_param(&p[2], "model.layers.0.self_attn.q_a_proj.weight", 16, 32, 0, -1);
	expect_param(&p[3], "model.layers.0.self_attn.q_a_layernorm.weight", 16, 0, 0, -1);
	expect_param(&p[4], "model.layers.0.self_attn.q_b_proj.weight", 32, 16, 0, -1);
	expect_param(&p[5], "model.layers.0.self_attn.kv_a_proj_with_mqa.weight", 24, 32, 0, -1);
	expect_param(&p[6], "model.layers.0.self_attn.kv_a_layernorm.weight", 16, 0, 0, -1);
	expect_param(&p[7], "model.layers.0.self_attn.kv_b_proj.weight", 32, 16, 0, -1);
	expect_param(&p[8], "model.layers.0.self_attn.o_proj.weight", 32, 16, 0, -1);
	expect_param(&p[9], "model.layers.0.post_attention_layernorm.weight", 32, 0, 0, -1);
	expect_param(&p[10], "model.layers.0.mlp.gate_proj.weight", 64, 32, 0, -1);
	expect_param(&p[12], "model.layers.0.mlp.down_proj.weight", 32, 64, 0, -1);
	expect_param(&p[13], "model.layers.1.input_layernorm.weight", 32, 0, 1, -1);
	expect_param(&p[22], "model.layers.1.mlp.gate.weight", 8, 32, 1, -1);
	expect_param(&p[23], "model.layers.1.mlp.gate.e_score_correction_bias", 8, 0, 1, -1);
	expect_param(&p[24], "model.layers.1.mlp.shared_experts.gate_proj.weight", 16, 32, 1, -1);
	expect_param(&p[27], "model.layers.1.mlp.experts.0.gate_proj.weight", 16, 32, 1, 0);
	expect_param(&p[29], "model.layers.1.mlp.experts.0.down_proj.weight", 32, 16, 1, 0);
	expect_param(&p[50], "model.layers.1.mlp.experts.7.down_proj.weight", 32, 16, 1, 7);
	expect_param(&p[89], "model.norm.weight", 32, 0, -1, -1);
	expect_param(&p[90], "lm_head.weight", 256, 32, -1, -1);
	EXPECT_TRUE(p[0].kind == PST_PARAM_MATRIX);
	EXPECT_TRUE(p[3].kind == PST_PARAM_NORM);
	EXPECT_TRUE(p[23].kind == PST_PARAM_BIAS);
	free(p);
}

TEST(without_q_lora)
{
	struct pst_config cfg = preset("tiny");
	size_t n;
	struct pst_param *p = list(&cfg, &n);

	expect_param(&p[2], "model.layers.0.self_attn.q_proj.weight", 96, 96, 0, -1);
	expect_param(&p[3], "model.layers.0.self_attn.kv_a_proj_with_mqa.weight", 56, 96, 0, -1);
	free(p);
}

/* Every name once, every entry filled, whatever is left out. */
static void check_whole(const struct pst_config *cfg)
{
	size_t n;
	struct pst_param *p = list(cfg, &n);

	for (size_t i = 0; i < n; i++) {
		EXPECT_NE(0, p[i].name[0]);
		EXPECT_NE(0u, p[i].ndim);
		EXPECT_NE((uint64_t)0, p[i].shape[0]);
		for (size_t j = 0; j < i; j++)
			EXPECT_NE(0, strcmp(p[i].name, p[j].name));
	}
	for (uint32_t l = cfg->dense_layers; l < cfg->layers; l++) {
		for (uint32_t e = 0; e < cfg->experts; e++) {
			size_t at = pst_params_expert(cfg, l, e);

			ASSERT_LT(at + 2, n);
			EXPECT_EQ((int)l, p[at].layer);
			EXPECT_EQ((int)e, p[at].expert);
			EXPECT_NE(NULL, strstr(p[at].name, ".gate_proj."));
			EXPECT_NE(NULL, strstr(p[at + 1].name, ".up_proj."));
			EXPECT_NE(NULL, strstr(p[at + 2].name, ".down_proj."));
		}
	}
	free(p);
}

TEST(every_shape_is_whole)
{
	struct pst_config cfg = preset("nano");

	check_whole(&cfg);
	cfg.tie_embeddings = true;
	check_whole(&cfg);
	cfg.dense_layers = 0;
	check_whole(&cfg);
	cfg.shared = 0;
	check_whole(&cfg);
	cfg.q_lora = 0;
	check_whole(&cfg);
	cfg.dense_layers = cfg.layers;
	check_whole(&cfg);
}

TEST(tied_head_has_no_entry)
{
	struct pst_config cfg = preset("nano");
	size_t n;
	struct pst_param *p;

	cfg.tie_embeddings = true;
	p = list(&cfg, &n);
	ASSERT_EQ((size_t)90, n);
	EXPECT_STREQ("model.norm.weight", p[89].name);
	free(p);
}

TEST_MAIN
