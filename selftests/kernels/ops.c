/* SPDX-License-Identifier: Apache-2.0 */
/* What op.h promises, on cases small enough to check by hand, by every table of kernels. */
#include "selftests/lib/test.h"

#include "kernels/op.h"

#include <math.h>

FIXTURE(ops)
{
	const struct pst_ops *o;
};
FIXTURE_VARIANT(ops)
{
	const struct pst_ops *(*table)(void);
};
FIXTURE_VARIANT_ADD(ops, ref){pst_ops_ref};
FIXTURE_VARIANT_ADD(ops, cpu){pst_ops_cpu};
FIXTURE_SETUP(ops)
{
	self->o = variant->table();
	if (variant->table == pst_ops_cpu && self->o == pst_ops_ref())
		SKIP("this CPU has no AVX2, or PENSTOCK_KERNELS=ref is set",
		     "unset PENSTOCK_KERNELS on a CPU with AVX2 and FMA");
}
FIXTURE_TEARDOWN(ops)
{
}

#define EXPECT_NEAR(want, got) expect_near(__LINE__, want, got)
static void expect_near(int line, double want, double got)
{
	if (want == got || fabs(got - want) <= 1e-6 * fmax(1, fabs(want)))
		return;
	test_say(__FILE__, line, "%.9g is not %.9g", got, want);
	test_failed = true;
}

static void expect_floats(int line, const float *want, const float *got, size_t n)
{
	for (size_t i = 0; i < n; i++)
		expect_near(line, want[i], got[i]);
}
#define EXPECT_FLOATS(got, ...)                                               \
	do {                                                                  \
		const float w_[] = {__VA_ARGS__};                             \
		expect_floats(__LINE__, w_, got, sizeof(w_) / sizeof(w_[0])); \
	} while (0)
#define EXPECT_INTS(got, ...)                                                    \
	do {                                                                     \
		const int32_t ints_[] = {__VA_ARGS__};                           \
		for (size_t i_ = 0; i_ < sizeof(ints_) / sizeof(ints_[0]); i_++) \
			EXPECT_EQ(ints_[i_], (got)[i_]);                         \
	} while (0)

TEST_F(ops, gemm)
{
	const float a[] = {1, 2, 3, 4, 5, 6}, b[] = {1, 0, 2, 1, 0, 3};
	float c[4] = {9, 9, 9, 9};

	self->o->gemm(0, 0, 2, 2, 3, a, 3, b, 2, c, 2, 0);
	EXPECT_FLOATS(c, 5, 11, 14, 23);
	self->o->gemm(0, 1, 2, 2, 3, a, 3, b, 3, c, 2, 1);
	EXPECT_FLOATS(c, 5 + 7, 11 + 10, 14 + 16, 23 + 22);
	self->o->gemm(1, 0, 2, 2, 3, a, 2, b, 2, c, 2, 0);
	EXPECT_FLOATS(c, 7, 18, 10, 22);
	self->o->gemm(1, 1, 2, 2, 3, a, 2, b, 3, c, 2, 0);
	EXPECT_FLOATS(c, 11, 16, 14, 20);
}

TEST_F(ops, gemm_of_depth_0_clears_or_keeps)
{
	const float none = 0;
	float c[4] = {1, 2, 3, 4};

	self->o->gemm(0, 0, 2, 2, 0, &none, 1, &none, 2, c, 2, 1);
	EXPECT_FLOATS(c, 1, 2, 3, 4);
	self->o->gemm(0, 0, 2, 2, 0, &none, 1, &none, 2, c, 2, 0);
	EXPECT_FLOATS(c, 0, 0, 0, 0);
}

TEST_F(ops, gemm_bf16)
{
	const float a[] = {1, 2, 3, 4};
	const uint16_t b[] = {0x3f80, 0xbf80, 0x4000, 0}; /* 1 -1 2 0 */
	float c[4];

	self->o->gemm_bf16(0, 0, 2, 2, 2, a, 2, b, 2, c, 2, 0);
	EXPECT_FLOATS(c, 5, -1, 11, -3);
	self->o->gemm_bf16(0, 1, 2, 2, 2, a, 2, b, 2, c, 2, 0);
	EXPECT_FLOATS(c, -1, 2, -1, 6);
}

TEST_F(ops, rmsnorm)
{
	const float x[] = {3, 4}, w[] = {1, 2}, zero[2] = {0};
	float y[2], rstd[1];

	self->o->rmsnorm(y, 2, rstd, x, 2, w, 1, 2, 0);
	EXPECT_NEAR(1 / sqrt(12.5), rstd[0]);
	EXPECT_FLOATS(y, (float)(3 / sqrt(12.5)), (float)(8 / sqrt(12.5)));
	self->o->rmsnorm(y, 2, rstd, zero, 2, w, 1, 2, 1e-4f);
	EXPECT_NEAR(100, rstd[0]);
	EXPECT_FLOATS(y, 0, 0);
}

TEST_F(ops, rope)
{
	/* a quarter turn at position 1; what is past dim stays */
	const float co[] = {1, 1, 0, -1}, si[] = {0, 0, 1, 0};
	const int32_t pos[] = {0, 1};
	float x[] = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5};

	self->o->rope(x, 5, 2, 4, pos, co, si, 0);
	EXPECT_FLOATS(x, 1, 2, 3, 4, 5, -2, 1, -3, -4, 5);
	self->o->rope(x, 5, 2, 4, pos, co, si, 1);
	EXPECT_FLOATS(x, 1, 2, 3, 4, 5, 1, 2, 3, 4, 5);
}

TEST_F(ops, attn_sees_no_later_key)
{
	const float q[] = {1, 1}, k[] = {2, 2}, v[] = {5, 7, 100, 200};
	float o[4], lse[2];

	self->o->attn(o, 2, lse, q, 1, k, 1, v, 2, 2, 2, 1, 2, 0.5f);
	EXPECT_FLOATS(o, 5, 7, 52.5f, 103.5f);
	EXPECT_FLOATS(lse, 1, 1 + logf(2));
}

TEST_F(ops, attn_of_one_query_sees_all_keys)
{
	const float q[] = {1}, k[] = {0, 0, 0, 0}, v[] = {1, 2, 3, 6};
	float o[1], lse[1];

	self->o->attn(o, 1, lse, q, 1, k, 1, v, 1, 1, 4, 1, 1, 1);
	EXPECT_FLOATS(o, 3);
	EXPECT_FLOATS(lse, logf(4));
}

TEST_F(ops, attn_of_large_scores_stays_finite)
{
	const float q[] = {100, 100}, k[] = {100, -100}, v[] = {1, 2};
	float o[2], lse[2];

	self->o->attn(o, 1, lse, q, 1, k, 1, v, 1, 2, 2, 1, 1, 1);
	EXPECT_FLOATS(o, 1, 1);
	EXPECT_FLOATS(lse, 1e4f, 1e4f);
}

TEST_F(ops, swiglu)
{
	const float g[] = {0, 1, 100, -200, -INFINITY, NAN}, u[] = {3, 2, 2, 5, 1, 1};
	float a[6];

	self->o->swiglu(a, g, u, 6);
	EXPECT_FLOATS(a, 0, 2 / (1 + expf(-1)), 200, 0);
	EXPECT_TRUE(isnan(a[5]));
}

TEST_F(ops, gate_ties_go_to_the_lower_index)
{
	const float logit[] = {0, 1, 1, 0, 1, 0}, bias[6] = {0};
	float w[2], score[6];
	int32_t idx[2];

	self->o->gate_topk(idx, w, score, logit, bias, 1, 6, 2, 1, 1, 1, 3);
	EXPECT_INTS(idx, 1, 2);
	EXPECT_FLOATS(w, 1.5f, 1.5f);
	EXPECT_NEAR(0.5, score[0]);
	EXPECT_NEAR(1 / (1 + exp(-1)), score[4]);
}

TEST_F(ops, gate_bias_chooses_but_does_not_weigh)
{
	const float logit[] = {0, 2, 0, 3}, bias[] = {0, -1, 1, 0};
	float w[2], score[4];
	int32_t idx[2];

	self->o->gate_topk(idx, w, score, logit, bias, 1, 4, 2, 1, 1, 0, 2);
	EXPECT_INTS(idx, 2, 3);
	EXPECT_FLOATS(w, 1, (float)(2 / (1 + exp(-3))));
}

TEST_F(ops, gate_groups_are_ranked_by_their_two_best)
{
	/* the best expert of all (0) is in a group whose second is poor */
	const float logit[] = {4, -4, -4, 1, 2, 0, 0, 1, 1.5f}, bias[9] = {0};
	float w[3], score[9];
	int32_t idx[3];

	self->o->gate_topk(idx, w, score, logit, bias, 1, 9, 3, 3, 1, 1, 1);
	EXPECT_INTS(idx, 3, 4, 5);
	self->o->gate_topk(idx, w, score, logit, bias, 1, 9, 3, 3, 2, 1, 1);
	EXPECT_INTS(idx, 3, 4, 8);
}

TEST_F(ops, gate_groups_of_one_and_groups_that_tie)
{
	const float logit[] = {1, 3, 2, 3}, bias[4] = {0};
	float w[2], score[4];
	int32_t idx[2];

	self->o->gate_topk(idx, w, score, logit, bias, 1, 4, 2, 4, 3, 1, 1);
	EXPECT_INTS(idx, 1, 3);
	self->o->gate_topk(idx, w, score, logit, bias, 1, 4, 1, 4, 1, 1, 1);
	EXPECT_INTS(idx, 1);
	/* equal groups: the lower */
	self->o->gate_topk(idx, w, score, bias, bias, 1, 4, 2, 2, 1, 1, 1);
	EXPECT_INTS(idx, 0, 1);
}

TEST_F(ops, gate_takes_k_experts_where_the_groups_have_fewer)
{
	const float logit[] = {0, 0, 1, 1, 0, 0}, bias[6] = {0};
	float w[3], score[6];
	int32_t idx[3];

	/* out is -inf: after 2 and 3, the lowest index */
	self->o->gate_topk(idx, w, score, logit, bias, 1, 6, 3, 3, 1, 1, 1);
	EXPECT_INTS(idx, 0, 2, 3);
}

TEST_F(ops, gate_of_nan_still_has_k_experts)
{
	const float some[] = {NAN, 1, NAN, 2, NAN, 0}, all[] = {NAN, NAN, NAN, NAN, NAN, NAN};
	const float bias[6] = {0};
	float w[4], score[6];
	int32_t idx[4];

	self->o->gate_topk(idx, w, score, some, bias, 1, 6, 4, 1, 1, 1, 1);
	EXPECT_INTS(idx, 0, 1, 3, 5);
	self->o->gate_topk(idx, w, score, all, bias, 1, 6, 4, 1, 1, 1, 1);
	EXPECT_INTS(idx, 0, 1, 2, 3);
	self->o->gate_topk(idx, w, score, all, bias, 1, 6, 4, 3, 2, 1, 1);
	EXPECT_INTS(idx, 0, 1, 2, 3);
	self->o->gate_topk(idx, w, score, bias, all, 1, 6, 4, 2, 1, 1, 1);
	EXPECT_INTS(idx, 0, 1, 2, 3);
}

TEST_F(ops, balance_of_an_even_load_is_alpha)
{
	const float score[] = {.5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f};
	const int32_t even[] = {0, 1, 2, 3}, odd[] = {0, 1, 0, 1};
	float coef[4];

	EXPECT_NEAR(0.25, self->o->balance(coef, even, score, 2, 4, 2, 0.25f));
	EXPECT_FLOATS(coef, .125f, .125f, .125f, .125f);
	EXPECT_NEAR(0.25, self->o->balance(coef, odd, score, 2, 4, 2, 0.25f));
	EXPECT_FLOATS(coef, .25f, .25f, 0, 0);
}

TEST_F(ops, balance_of_a_load_that_follows_the_scores_is_more)
{
	const float score[] = {.6f, .2f, .6f, .2f};
	const int32_t idx[] = {0, 0};
	float coef[2];

	/* f = 2, 0; P = 3/4, 1/4 */
	EXPECT_NEAR(1.5, self->o->balance(coef, idx, score, 2, 2, 1, 1));
	EXPECT_NEAR(0, self->o->balance(coef, idx, score, 0, 2, 1, 1));
}

TEST_F(ops, gate_bwd_by_hand)
{
	const float dw[] = {2}, score[] = {.25f, .5f};
	const int32_t idx[] = {1};
	float dlogit[2];

	self->o->gate_bwd(dlogit, dw, idx, score, NULL, 1, 2, 1, 0, 3);
	EXPECT_FLOATS(dlogit, 0, 2 * 3 * .25f);
	/* one expert's share of itself does not change */
	self->o->gate_bwd(dlogit, dw, idx, score, NULL, 1, 2, 1, 1, 3);
	EXPECT_FLOATS(dlogit, 0, 0);
}

TEST_F(ops, xent)
{
	const int32_t target[] = {2, -1, 1};
	float logit[] = {1, 1, 1, 1, 5, 6, 7, 8, -INFINITY, 4, -INFINITY, 4}, loss[3];

	self->o->xent(loss, logit, 4, target, 3, 4, 2);
	EXPECT_FLOATS(loss, logf(4), 0, logf(2));
	EXPECT_FLOATS(logit, .5f, .5f, -1.5f, .5f, 0, 0, 0, 0, 0, -1, 0, 1);
}

TEST_F(ops, xent_of_large_logits_stays_finite)
{
	const int32_t target[] = {0, 1};
	float logit[] = {3e38f, -3e38f, 1000, 0}, loss[2];

	self->o->xent(loss, logit, 2, target, 2, 2, 1);
	EXPECT_NEAR(0, loss[0]);
	EXPECT_NEAR(1000, loss[1]);
	EXPECT_FLOATS(logit, 0, 0, 1, -1);
}

TEST_F(ops, xent_of_nan_is_nan)
{
	const int32_t target[] = {0, 1, 0};
	float logit[] = {0, NAN, NAN, NAN, INFINITY, 0}, loss[3];

	self->o->xent(loss, logit, 2, target, 3, 2, 1);
	for (int i = 0; i < 3; i++)
		EXPECT_TRUE(isnan(loss[i]));
}

TEST_F(ops, embed)
{
	const float table[] = {1, 2, 3, 4, 5, 6};
	const int32_t id[] = {2, 0, 2};
	float y[6], d[8] = {9, 9, 9, 9, 9, 9, 9, 9};

	self->o->embed(y, table, id, 3, 2);
	EXPECT_FLOATS(y, 5, 6, 1, 2, 5, 6);
	self->o->gather(y, table, id, 2, 2);
	EXPECT_FLOATS(y, 5, 6, 1, 2);
	self->o->embed_bwd(d, 2, table, 2, id, 3, 4, 2);
	EXPECT_FLOATS(d, 3, 4, 0, 0, 6, 8, 0, 0);
}

TEST_F(ops, combine)
{
	const float x[] = {1, 2, 10, 20, 100, 200, 1000, 2000}, w[] = {1, 2, 3, 4};
	const int32_t slot[] = {3, 0, 1, 2};
	float y[4] = {7, 7, 7, 7}, dw[4], dx[8];

	self->o->combine(y, x, w, slot, 2, 2, 2, 0);
	EXPECT_FLOATS(y, 1002, 2004, 430, 860);
	self->o->combine(y, x, NULL, slot, 2, 2, 2, 1);
	EXPECT_FLOATS(y, 2003, 4006, 540, 1080);
	self->o->combine(y, x, w, slot, 2, 0, 2, 1);
	EXPECT_FLOATS(y, 2003, 4006, 540, 1080);
	self->o->combine(y, x, w, slot, 2, 0, 2, 0);
	EXPECT_FLOATS(y, 0, 0, 0, 0);
	self->o->combine_dw(dw, w, x, slot, 2, 2, 2);
	EXPECT_FLOATS(dw, 5000, 5, 110, 1100);
	self->o->scatter_scaled(dx, x, w, slot, 2, 2, 2);
	EXPECT_FLOATS(dx, 2, 4, 30, 60, 40, 80, 1, 2);
}

TEST_F(ops, combine_sums_in_order)
{
	/* the small one is lost only if it comes between the large ones */
	const float x[] = {1e8f, 1, -1e8f}, w[] = {1, 1, 1};
	const int32_t lost[] = {0, 1, 2}, kept[] = {0, 2, 1};
	float y[1];

	self->o->combine(y, x, w, lost, 1, 3, 1, 0);
	EXPECT_FLOATS(y, 0);
	self->o->combine(y, x, w, kept, 1, 3, 1, 0);
	EXPECT_FLOATS(y, 1);
}

TEST_F(ops, add_and_sumsq)
{
	const float x[] = {1, 2, 3}, large[] = {1e30f, 1e30f};
	float y[] = {10, 20, 30};

	self->o->add(y, x, 3);
	EXPECT_FLOATS(y, 11, 22, 33);
	EXPECT_TRUE(self->o->sumsq(x, 3) == 14);
	EXPECT_TRUE(self->o->sumsq(x, 0) == 0);
	/* no float holds it */
	EXPECT_NEAR(2, self->o->sumsq(large, 2) / 1e60);
}

/*
 * torch.optim.AdamW(lr=.1, betas=(.9, .999), eps=1e-8, weight_decay=.01), first two steps:
 * 1 * (1 - .001) - .1 * .5 / .5 = .899, then g = -1.
 */
TEST_F(ops, adamw)
{
	float w[] = {1}, m[] = {0}, v[] = {0}, out[] = {7};
	const float g1[] = {1}, g2[] = {-2};
	double m2 = .9 * .05 - .1, v2 = .999 * .00025 + .001, bc1 = 1 - .9 * .9,
	       bc2 = 1 - .999 * .999;

	self->o->adamw(w, m, v, out, g1, 1, .1f, .9f, .999f, 1e-8f, .01f, .1f, .001f, .5f);
	EXPECT_NEAR(.899, w[0]);
	EXPECT_NEAR(.05, m[0]);
	EXPECT_NEAR(.00025, v[0]);
	EXPECT_TRUE(out[0] == w[0]);
	self->o->adamw(w, m, v, NULL, g2, 1, .1f, .9f, .999f, 1e-8f, .01f, (float)bc1, (float)bc2,
		       .5f);
	EXPECT_NEAR(.899 * .999 - .1 / bc1 * m2 / (sqrt(v2) / sqrt(bc2) + 1e-8), w[0]);
	EXPECT_TRUE(out[0] != w[0]);
}

TEST_F(ops, adamw_without_a_gradient_decays)
{
	float w[] = {2}, m[] = {.5f}, v[] = {.25f}, out[1];

	self->o->adamw(w, m, v, out, NULL, 1, .1f, .5f, .5f, 0, .5f, 1, 1, 1);
	EXPECT_NEAR(.25, m[0]);
	EXPECT_NEAR(.125, v[0]);
	EXPECT_NEAR(1.9 - .1 * .25 / sqrt(.125), w[0]);
}

TEST_F(ops, adamw_bf16_rounds_the_snapshot_only)
{
	/* 1 + 2^-8 is half way between two bf16: to the even one */
	float w[] = {1.00390625f, 1.01171875f}, m[2] = {0}, v[2] = {0};
	uint16_t out[2];

	self->o->adamw_bf16(w, m, v, out, NULL, 2, .1f, .9f, .9f, 1e-8f, 0, 1, 1, 1);
	EXPECT_TRUE(w[0] == 1.00390625f && w[1] == 1.01171875f);
	EXPECT_EQ(0x3f80, out[0]);
	EXPECT_EQ(0x3f82, out[1]);
	self->o->adamw_bf16(w, m, v, NULL, NULL, 2, .1f, .9f, .9f, 1e-8f, 0, 1, 1, 1);
}

TEST_F(ops, bf16)
{
	static const uint32_t bits[] = {0x3f800000, 0x3f808000, 0x3f808001, 0x3f818000, 0x7f7fffff,
					0xff800000, 0x7f800001, 0xffffffff, 0x00000001, 0x80000000};
	static const uint16_t want[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x7f80,
					0xff80, 0x7fc0, 0xffff, 0x0000, 0x8000};
	float x[10], back[10];
	uint16_t y[10];

	memcpy(x, bits, sizeof(x));
	self->o->to_bf16(y, x, 10);
	for (int i = 0; i < 10; i++)
		EXPECT_EQ(want[i], y[i]);
	self->o->from_bf16(back, y, 10);
	EXPECT_FLOATS(back, 1, 1, 1.0078125f, 1.015625f);
	EXPECT_TRUE(isinf(back[4]) && isinf(back[5]) && isnan(back[6]) && isnan(back[7]));
}

TEST_F(ops, nothing_to_do_touches_nothing)
{
	float y[2] = {1, 2}, x[1] = {3};
	int32_t i[1] = {0};
	uint16_t h[1] = {5};

	self->o->gemm(0, 0, 0, 2, 3, x, 3, x, 2, y, 2, 0);
	self->o->rmsnorm(y, 2, y, x, 2, x, 0, 2, 0);
	self->o->rope(y, 2, 0, 2, i, x, x, 0);
	self->o->attn(y, 1, y, x, 1, x, 1, x, 1, 0, 0, 1, 1, 1);
	self->o->attn_bwd(y, 1, y, 1, y, 1, x, 1, x, 1, x, x, 1, x, 1, x, 1, 0, 1, 1, 1);
	self->o->swiglu(y, x, x, 0);
	self->o->gate_topk(i, y, y, x, x, 0, 4, 2, 1, 1, 1, 1);
	self->o->xent(y, y, 2, i, 0, 2, 1);
	self->o->combine(y, x, x, i, 0, 2, 2, 0);
	self->o->embed_bwd(y, 2, x, 2, i, 0, 0, 2);
	self->o->adamw_bf16(y, y, y, h, x, 0, 1, 1, 1, 1, 1, 1, 1, 1);
	self->o->to_bf16(h, x, 0);
	EXPECT_FLOATS(y, 1, 2);
	EXPECT_EQ(0, i[0]);
	EXPECT_EQ(5, h[0]);
}

TEST_MAIN
