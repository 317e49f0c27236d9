/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole model on a GPU, the stand-in's, against the same on cores: loss, gradients and what a
 * cache gives, for all shapes of blocks; and weights that change.
 */
#include "selftests/gpu/engine.h"
#include "selftests/model/net.h"

#include "runtime/device/compute_gpu.h"

#include <math.h>

enum { BATCH = 2, SEQ = 12 };

struct batch {
	int32_t tokens[BATCH * SEQ], targets[BATCH * SEQ];
};

FIXTURE(model)
{
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	struct pst_compute *compute;
	struct standin *standin;
	struct net cpu, there;
	struct batch batch;
};
FIXTURE_VARIANT(model)
{
	uint32_t q_lora, shared, dense_layers;
	bool tied, interleave;
	double alpha;
};
FIXTURE_VARIANT_ADD(model, nano){16, 1, 1, false, true, 0};
FIXTURE_VARIANT_ADD(model, balance){16, 1, 1, false, true, 0.5};
FIXTURE_VARIANT_ADD(model, no_q_lora){0, 1, 1, false, false, 0};
FIXTURE_VARIANT_ADD(model, no_shared){16, 0, 0, true, true, 0.01};
FIXTURE_VARIANT_ADD(model, all_dense){16, 1, 3, true, true, 0};

/* What is asked of copies of gradients: a mark, or -1 - that which is needed. */
static int asked[64];
static size_t nasked;
static const struct pst_compute_ops *real;

static void ask(int what)
{
	ASSERT_LT(nasked, sizeof(asked) / sizeof(*asked));
	asked[nasked++] = what;
}

static void fetch_mark(struct pst_compute *c, uint32_t mark)
{
	ask((int)mark);
	real->fetch_mark(c, mark);
}

static void fetch_need(struct pst_compute *c, uint32_t mark)
{
	ask(-1 - (int)mark);
	real->fetch_need(c, mark);
}

static void listen(struct pst_compute *compute)
{
	static struct pst_compute_ops ops;

	real = compute->op;
	ops = *real;
	ops.fetch_mark = fetch_mark;
	ops.fetch_need = fetch_need;
	compute->op = &ops;
}

static void reach(struct pst_compute *compute, void *at, uint64_t bytes)
{
	struct pst_error err = {0};

	ASSERT_OK(compute->op->reach(compute, at, bytes, &err), &err);
}

static void open_gpu(struct fixture_model *self)
{
	struct pst_gpu_options o = {.size = sizeof(o)};
	struct pst_error err = {0};

	self->standin = standin_gpu(256ull << 20);
	standin_engine_images();
	ASSERT_OK(pst_gpu_open(0, &o, &self->gpu, &err), &err);
	ASSERT_OK(pst_gpu_kernels_open(self->gpu, NULL, &self->kernels, &err), &err);
	ASSERT_OK(pst_compute_gpu_open(self->gpu, self->kernels, 30000, &self->compute, &err),
		  &err);
	listen(self->compute);
}

static struct batch random_batch(void)
{
	struct batch b;
	uint64_t seed = 11;

	for (size_t i = 0; i < BATCH * SEQ; i++) {
		b.tokens[i] = (int32_t)(test_random(&seed) % 256);
		b.targets[i] = i % 5 == 2 ? -1 : (int32_t)(test_random(&seed) % 256);
	}
	return b;
}

FIXTURE_SETUP(model)
{
	struct pst_error err = {0};
	struct net_on on;
	struct pst_config cfg;

	open_gpu(self);
	ASSERT_OK(pst_config_preset("nano", &cfg, &err), &err);
	cfg.q_lora = variant->q_lora;
	cfg.shared = variant->shared;
	cfg.dense_layers = variant->dense_layers;
	cfg.tie_embeddings = variant->tied;
	cfg.rope_interleave = variant->interleave;
	on = (struct net_on){self->compute, reach};
	net_create(&self->cpu, &cfg, 2, BATCH, SEQ, variant->alpha, 1);
	net_create_on(&self->there, &on, &cfg, 1, BATCH, SEQ, variant->alpha, 1);
	net_randomize(&self->cpu, 3);
	net_randomize(&self->there, 3);
	self->batch = random_batch();
}

FIXTURE_TEARDOWN(model)
{
	struct pst_error err = {0};
	struct pst_gpu_stat stat;

	net_destroy_model(&self->there);
	pst_gpu_stat(self->gpu, &stat);
	EXPECT_EQ(0ull, (unsigned long long)stat.used);
	self->compute->op->leave(self->compute, pst_pool_base(self->there.pool));
	self->compute->op->leave(self->compute, self->there.memory);
	pst_compute_gpu_close(self->compute);
	pst_gpu_kernels_close(self->kernels);
	EXPECT_EQ(0, pst_gpu_close(self->gpu, &err));
	EXPECT_EQ(0ull, (unsigned long long)self->standin->pageable_copies);
	net_destroy(&self->there);
	net_destroy(&self->cpu);
}

static double distance(const float *a, const float *b, size_t n)
{
	double diff = 0, sum = 1e-30;

	for (size_t i = 0; i < n; i++) {
		diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		sum += (double)a[i] * a[i];
	}
	return sqrt(diff / sum);
}

/* A step on both: the same loss, and the same gradient of every parameter. */
static void step(struct fixture_model *self)
{
	struct pst_model_loss want, got;
	struct net *a = &self->cpu, *b = &self->there;

	ASSERT_EQ(0, net_forward(a, BATCH, SEQ, self->batch.tokens, self->batch.targets, &want));
	ASSERT_EQ(0, net_forward(b, BATCH, SEQ, self->batch.tokens, self->batch.targets, &got));
	EXPECT_TRUE(fabs(want.cross_entropy - got.cross_entropy) < 1e-5);
	EXPECT_TRUE(fabs(want.balance - got.balance) < 1e-5);
	for (uint32_t l = a->cfg.dense_layers; l < a->cfg.layers; l++)
		EXPECT_EQ(0, memcmp(pst_model_load(a->model, l), pst_model_load(b->model, l),
				    a->cfg.experts * sizeof(uint32_t)));
	for (size_t i = 0; i < b->count; i++)
		memset(b->grads[i], 0x5a, net_size(&b->params[i]) * sizeof(float));
	ASSERT_EQ(0, net_backward(a));
	ASSERT_EQ(0, net_backward(b));
	for (size_t i = 0; i < a->count; i++) {
		double off = distance(a->grads[i], b->grads[i], net_size(&a->params[i]));

		if (a->params[i].kind == PST_PARAM_BIAS || off < 1e-4)
			continue;
		printf("# gradient of %s: off by %g\n", a->params[i].name, off);
		test_failed = true;
	}
}

TEST_F(model, forward_and_backward)
{
	step(self);
	EXPECT_EQ(NULL, (void *)pst_model_logits(self->there.model));
	step(self);
}

/* Of the same version they are not copied again; of another they are. */
TEST_F(model, versions_of_weights)
{
	uint64_t bytes;

	pst_model_version(self->there.model, 7);
	step(self);
	bytes = self->standin->copied_bytes;
	step(self);
	/* the second step's copies are what a step has without weights */
	bytes = self->standin->copied_bytes - bytes;
	net_randomize(&self->cpu, 4);
	net_randomize(&self->there, 4);
	pst_model_version(self->there.model, 8);
	bytes += self->standin->copied_bytes;
	step(self);
	EXPECT_GT((uint64_t)self->standin->copied_bytes, bytes);
}

/* A layer's place is that of the layer but one behind it, and waits until that has gone. */
TEST_F(model, places_of_gradients)
{
	static const int want[] = {4, 3, 2, -1 - 3, 1, 0}, tied[] = {3, 2, -1 - 3, 1, 4, 0};

	nasked = 0;
	step(self);
	ASSERT_EQ(6u, nasked);
	EXPECT_EQ(0, memcmp(asked, variant->tied ? tied : want, sizeof(want)));
}

/* Work that takes its time: what must wait for it, waits. */
TEST_F(model, slowly)
{
	self->standin->delay_us = 100;
	step(self);
	self->standin->delay_us = 0;
}

TEST_F(model, feed)
{
	for (int round = 0; round < 2; round++) {
		const float *want, *got;

		for (uint32_t t = 0; t < SEQ; t += t ? 1 : 5) {
			uint32_t n = t ? 1 : 5;

			ASSERT_EQ(0, pst_model_feed(self->cpu.model, self->cpu.given,
						    self->batch.tokens + t, n, &want));
			ASSERT_EQ(0, pst_model_feed(self->there.model, self->there.given,
						    self->batch.tokens + t, n, &got));
			EXPECT_TRUE(distance(want, got, 256) < 1e-5);
		}
		EXPECT_EQ(-ENOSPC, pst_model_feed(self->there.model, self->there.given,
						  self->batch.tokens, 1, &got));
		pst_model_forget(self->cpu.model);
		pst_model_forget(self->there.model);
	}
}

/* The sentence stays, and so does the failure. */
TEST_F(model, a_gpu_fails)
{
	struct standin_fn *fn = &self->standin->fn[STANDIN_cuLaunchKernel];

	fn->fail_rc = CUDA_ERROR_LAUNCH_FAILED;
	fn->fail_in = 9;
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(-EIO, net_forward(&self->there, BATCH, SEQ, self->batch.tokens,
					    self->batch.targets, NULL));
	EXPECT_NE(NULL, strstr(pst_model_error(self->there.model)->text, "only a new process"));
	/* what it may still touch stays: nothing is given back in this process */
	_exit(test_failed);
}

TEST_MAIN
