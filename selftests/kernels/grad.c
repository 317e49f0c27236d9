/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every backward op against central differences of its forward, both the fp64 reference: the
 * error of the difference itself is about 1e-10, so a wrong term cannot hide.
 */
#include "selftests/lib/test.h"

#include "kernels/ref/ref.h"

#include <math.h>

#define F64(op) pst_ref_f64_##op

/* What the tests stand on: the loss is the sum of weight * output. */
static double in1[256], in2[256], in3[256], weight[256], out1[256], out2[256];
static double grad1[256], grad2[256], grad3[256], kept[256];

static double uniform(uint64_t *state, double low, double high)
{
	return low + (high - low) * (double)(test_random(state) >> 11) * 0x1p-53;
}

static void fill_all(void)
{
	uint64_t state = 7;

	for (size_t i = 0; i < 256; i++) {
		in1[i] = uniform(&state, -2, 2);
		in2[i] = uniform(&state, -2, 2);
		in3[i] = uniform(&state, -2, 2);
		weight[i] = uniform(&state, -2, 2);
	}
}

static double dot(const double *a, const double *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* Is grad[n] the gradient of loss() in x[n]? */
#define EXPECT_GRADIENT(loss, x, grad, n) expect_gradient(__LINE__, loss, x, grad, n)
static void expect_gradient(int line, double (*loss)(void), double *x, const double *grad, size_t n)
{
	const double h = 1e-5;
	double diff = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		double was = x[i], up, down, want;

		x[i] = was + h;
		up = loss();
		x[i] = was - h;
		down = loss();
		x[i] = was;
		want = (up - down) / (2 * h);
		diff += (grad[i] - want) * (grad[i] - want);
		norm += want * want;
	}
	if (!(norm > 1e-6 && sqrt(diff / norm) < 1e-8)) {
		test_say(__FILE__, line, "gradient: relative error %.3g, norm %.3g",
			 sqrt(diff / norm), sqrt(norm));
		test_failed = true;
	}
}

static double gemm_loss(void)
{
	F64(gemm)(0, 1, 3, 4, 5, in1, 5, in2, 5, out1, 4, 0);
	return dot(weight, out1, 12);
}

TEST(gemm)
{
	fill_all();
	F64(gemm)(0, 0, 3, 5, 4, weight, 4, in2, 5, grad1, 5, 0);
	F64(gemm)(1, 0, 4, 5, 3, weight, 4, in1, 5, grad2, 5, 0);
	EXPECT_GRADIENT(gemm_loss, in1, grad1, 15);
	EXPECT_GRADIENT(gemm_loss, in2, grad2, 20);
}

enum { ROWS = 3, COLS = 5 };

static double rmsnorm_loss(void)
{
	F64(rmsnorm)(out1, COLS, kept, in1, COLS, in2, ROWS, COLS, 0.1);
	return dot(weight, out1, ROWS * COLS);
}

TEST(rmsnorm)
{
	fill_all();
	rmsnorm_loss();
	F64(rmsnorm_dx)(grad1, COLS, weight, COLS, in1, COLS, in2, kept, ROWS, COLS);
	F64(rmsnorm_dw)(grad2, weight, COLS, in1, COLS, kept, ROWS, COLS);
	EXPECT_GRADIENT(rmsnorm_loss, in1, grad1, ROWS * COLS);
	EXPECT_GRADIENT(rmsnorm_loss, in2, grad2, COLS);
}

static const int32_t pos[ROWS] = {2, 0, 1};

static double rope_loss(void)
{
	memcpy(out1, in1, sizeof(out1));
	F64(rope)(out1, 8, ROWS, 6, pos, in2, in3, 0);
	return dot(weight, out1, ROWS * 8);
}

TEST(rope)
{
	fill_all();
	memcpy(grad1, weight, sizeof(grad1));
	F64(rope)(grad1, 8, ROWS, 6, pos, in2, in3, 1);
	EXPECT_GRADIENT(rope_loss, in1, grad1, ROWS * 8);
}

enum { T = 5, DQK = 4, DV = 3 };

static double attn_loss(void)
{
	F64(attn)(out1, DV, kept, in1, DQK, in2, DQK, in3, DV, T, T, DQK, DV, 0.4);
	return dot(weight, out1, T * DV);
}

TEST(attn)
{
	fill_all();
	attn_loss();
	F64(attn_bwd)
	(grad1, DQK, grad2, DQK, grad3, DV, out1, DV, weight, DV, kept, in1, DQK, in2, DQK, in3, DV,
	 T, DQK, DV, 0.4);
	EXPECT_GRADIENT(attn_loss, in1, grad1, T * DQK);
	EXPECT_GRADIENT(attn_loss, in2, grad2, T * DQK);
	EXPECT_GRADIENT(attn_loss, in3, grad3, T * DV);
}

static double swiglu_loss(void)
{
	F64(swiglu)(out1, in1, in2, 20);
	return dot(weight, out1, 20);
}

TEST(swiglu)
{
	fill_all();
	swiglu_loss();
	F64(swiglu_bwd)(grad1, grad2, out2, weight, in1, in2, 20);
	EXPECT_EQ(0, memcmp(out1, out2, 20 * sizeof(out1[0])));
	EXPECT_GRADIENT(swiglu_loss, in1, grad1, 20);
	EXPECT_GRADIENT(swiglu_loss, in2, grad2, 20);
}

/* The choice stays what it is under changes of 1e-5: no two of the scores are that near. */
enum { E = 8, K = 3 };
static int32_t idx[ROWS * K];
static int norm;
static double alpha;

static double gate_loss(void)
{
	double loss;

	F64(gate_topk)(idx, out1, out2, in1, in2, ROWS, E, K, 4, 2, norm, 2.5);
	loss = dot(weight, out1, ROWS * K);
	if (alpha != 0)
		loss += F64(balance)(kept, idx, out2, ROWS, E, K, alpha);
	return loss;
}

FIXTURE(gate)
{
	int unused;
};
FIXTURE_VARIANT(gate)
{
	int norm;
	double alpha;
};
FIXTURE_VARIANT_ADD(gate, plain){0, 0};
FIXTURE_VARIANT_ADD(gate, norm){1, 0};
FIXTURE_VARIANT_ADD(gate, plain_and_balance){0, 0.7};
FIXTURE_VARIANT_ADD(gate, norm_and_balance){1, 0.7};
FIXTURE_SETUP(gate)
{
	fill_all();
	norm = variant->norm;
	alpha = variant->alpha;
}
FIXTURE_TEARDOWN(gate)
{
}

TEST_F(gate, logits)
{
	gate_loss();
	F64(gate_bwd)(grad1, weight, idx, out2, alpha != 0 ? kept : NULL, ROWS, E, K, norm, 2.5);
	EXPECT_GRADIENT(gate_loss, in1, grad1, ROWS * E);
}

static const int32_t target[ROWS] = {4, -1, 0};

static double xent_loss(void)
{
	memcpy(out1, in1, sizeof(out1));
	F64(xent)(kept, out1, 8, target, ROWS, 7, 0.25);
	return 0.25 * (kept[0] + kept[1] + kept[2]);
}

TEST(xent)
{
	fill_all();
	xent_loss();
	memcpy(grad1, out1, sizeof(grad1));
	for (int r = 0; r < ROWS; r++)
		grad1[8 * r + 7] = 0; /* between the rows */
	EXPECT_GRADIENT(xent_loss, in1, grad1, ROWS * 8);
}

static const int32_t id[ROWS] = {2, 0, 2};

static double embed_loss(void)
{
	F64(embed)(out1, in1, id, ROWS, COLS);
	return dot(weight, out1, ROWS * COLS);
}

TEST(embed)
{
	fill_all();
	F64(embed_bwd)(grad1, COLS, weight, COLS, id, ROWS, 4, COLS);
	EXPECT_GRADIENT(embed_loss, in1, grad1, 4 * COLS);
}

static const int32_t slot[ROWS * 2] = {3, 0, 5, 1, 4, 2};

static double combine_loss(void)
{
	F64(combine)(out1, in1, in2, slot, ROWS, 2, COLS, 0);
	return dot(weight, out1, ROWS * COLS);
}

TEST(combine)
{
	fill_all();
	F64(scatter_scaled)(grad1, weight, in2, slot, ROWS, 2, COLS);
	F64(combine_dw)(grad2, weight, in1, slot, ROWS, 2, COLS);
	EXPECT_GRADIENT(combine_loss, in1, grad1, ROWS * 2 * COLS);
	EXPECT_GRADIENT(combine_loss, in2, grad2, ROWS * 2);
}

TEST_MAIN
