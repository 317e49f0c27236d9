/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/model/net.h"

#include <math.h>

enum { BATCH = 2, SEQ = 12 };

static struct pst_config preset(const char *name)
{
	struct pst_error err = {0};
	struct pst_config cfg;

	ASSERT_OK(pst_config_preset(name, &cfg, &err), &err);
	return cfg;
}

struct batch {
	int32_t tokens[BATCH * SEQ], targets[BATCH * SEQ];
};

/* Some targets count for nothing. */
static struct batch random_batch(uint32_t vocab)
{
	struct batch b;
	uint64_t seed = 11;

	for (size_t i = 0; i < BATCH * SEQ; i++) {
		b.tokens[i] = (int32_t)(test_random(&seed) % vocab);
		b.targets[i] = i % 5 == 2 ? -1 : (int32_t)(test_random(&seed) % vocab);
	}
	return b;
}

static double total(struct net *n, const struct batch *b)
{
	struct pst_model_loss loss;

	ASSERT_EQ(0, net_forward(n, BATCH, SEQ, b->tokens, b->targets, &loss));
	return loss.cross_entropy + loss.balance;
}

FIXTURE(model)
{
	struct net net;
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
FIXTURE_VARIANT_ADD(model, all_dense){16, 1, 3, false, true, 0};
FIXTURE_SETUP(model)
{
	struct pst_config cfg = preset("nano");

	cfg.q_lora = variant->q_lora;
	cfg.shared = variant->shared;
	cfg.dense_layers = variant->dense_layers;
	cfg.tie_embeddings = variant->tied;
	cfg.rope_interleave = variant->interleave;
	net_create(&self->net, &cfg, 2, BATCH, SEQ, variant->alpha, 1);
	net_randomize(&self->net, 3);
	self->batch = random_batch(cfg.vocab);
}
FIXTURE_TEARDOWN(model)
{
	net_destroy(&self->net);
}

/* Loss with parameter @w moved by @step along @along. */
static double total_along(struct fixture_model *f, float *w, const float *saved, const float *along,
			  size_t size, double step)
{
	double loss;

	for (size_t j = 0; j < size; j++)
		w[j] = (float)(saved[j] + step * along[j]);
	loss = total(&f->net, &f->batch);
	memcpy(w, saved, size * sizeof(*w));
	return loss;
}

/*
 * The slope of the loss by a central difference. The loss jumps where a gate
 * changes its mind, so steps that make one do so are halved.
 */
static double slope(struct fixture_model *f, float *w, const float *along, float *saved,
		    size_t size, double step)
{
	uint64_t choices;
	double up, down;

	memcpy(saved, w, size * sizeof(*w));
	moe_local_choices(f->net.moe);
	total(&f->net, &f->batch);
	choices = moe_local_choices(f->net.moe);
	for (int i = 0; i < 8; i++, step /= 2) {
		up = total_along(f, w, saved, along, size, step);
		if (moe_local_choices(f->net.moe) != choices)
			continue;
		down = total_along(f, w, saved, along, size, -step);
		if (moe_local_choices(f->net.moe) == choices)
			return (up - down) / (2 * step);
	}
	return NAN;
}

/*
 * The gradient of one tensor along a direction, mostly uphill so that the slope
 * is not lost in the rounding of the loss, against the loss along it.
 */
static void check_param(struct fixture_model *f, size_t i, float *saved)
{
	struct net *n = &f->net;
	size_t size = net_size(&n->params[i]);
	uint64_t seed = i + 1;
	double want = 0, got, length = 0;
	float *along = saved + size;

	for (size_t j = 0; j < size; j++)
		length += (double)n->grads[i][j] * n->grads[i][j];
	length = sqrt(length);
	for (size_t j = 0; j < size; j++) {
		double up = length > 1e-6 ? n->grads[i][j] / length : 0;

		along[j] = (float)(up + 0.5 * net_uniform(&seed) / sqrt((double)size));
		want += (double)along[j] * n->grads[i][j];
	}
	got = slope(f, n->weights[i], along, saved, size, fmin(4e-3, 2e-3 / (length + 1e-6)));
	if (fabs(got - want) < 0.01 * fabs(want) + 1e-3)
		return;
	printf("# %s: gradient %g, difference %g\n", n->params[i].name, want, got);
	test_failed = true;
}

TEST_F(model, gradients)
{
	float *saved = malloc(2 * 256 * 64 * sizeof(*saved));

	total(&self->net, &self->batch);
	ASSERT_EQ(0, net_backward(&self->net));
	for (size_t i = 0; i < self->net.count; i++)
		if (self->net.params[i].kind != PST_PARAM_BIAS)
			check_param(self, i, saved);
	free(saved);
}

/* All that a step leaves: logits, gradients, loss; in one array to be freed. */
static float *step(struct net *n, const struct batch *b, size_t *count)
{
	size_t logits = (size_t)BATCH * SEQ * n->cfg.vocab, at = logits + 1;
	float *all;

	for (size_t i = 0; i < n->count; i++)
		at += net_size(&n->params[i]);
	*count = at;
	all = malloc(at * sizeof(*all));
	all[logits] = (float)total(n, b);
	memcpy(all, pst_model_logits(n->model), logits * sizeof(*all));
	ASSERT_EQ(0, net_backward(n));
	at = logits + 1;
	for (size_t i = 0; i < n->count; i++) {
		memcpy(all + at, n->grads[i], net_size(&n->params[i]) * sizeof(*all));
		at += net_size(&n->params[i]);
	}
	return all;
}

TEST_F(model, same_bits_from_every_team)
{
	size_t count;
	float *want = step(&self->net, &self->batch, &count);

	for (unsigned int threads = 1; threads <= 4; threads += threads) {
		struct net other;
		float *got;

		net_create(&other, &self->net.cfg, threads, BATCH, SEQ, variant->alpha, 1);
		net_randomize(&other, 3);
		got = step(&other, &self->batch, &count);
		EXPECT_EQ(0, memcmp(want, got, count * sizeof(*got)));
		free(got);
		net_destroy(&other);
	}
	free(want);
}

/* Whatever stood in gradients and activations before, a step leaves the same. */
TEST_F(model, nothing_is_left_over)
{
	size_t count;
	struct batch other = self->batch;
	float *want = step(&self->net, &self->batch, &count), *got;

	for (size_t i = 0; i < BATCH * SEQ; i++)
		other.tokens[i] = (other.tokens[i] + 1) % 256;
	free(step(&self->net, &other, &count));
	for (size_t i = 0; i < self->net.count; i++)
		if (self->net.params[i].kind != PST_PARAM_BIAS)
			memset(self->net.grads[i], 0x5a, net_size(&self->net.params[i]) * 4);
	got = step(&self->net, &self->batch, &count);
	for (size_t i = 0; i < count; i++)
		ASSERT_TRUE(want[i] == got[i]);
	free(want);
	free(got);
}

static double distance(const float *a, const float *b, size_t n)
{
	double diff = 0, sum = 0;

	for (size_t i = 0; i < n; i++) {
		diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		sum += (double)a[i] * a[i];
	}
	return sqrt(diff / sum);
}

/* A prompt, then token by token: the logits of the whole at each place. */
TEST_F(model, feed_is_forward)
{
	struct net *n = &self->net;
	size_t vocab = n->cfg.vocab;
	float *want = malloc(SEQ * vocab * sizeof(*want));
	const float *got;

	ASSERT_EQ(0, net_forward(n, 1, SEQ, self->batch.tokens, NULL, NULL));
	memcpy(want, pst_model_logits(n->model), SEQ * vocab * sizeof(*want));
	for (int round = 0; round < 2; round++) {
		ASSERT_EQ(0, pst_model_feed(n->model, n->given, self->batch.tokens, 5, &got));
		EXPECT_TRUE(distance(want + 4 * vocab, got, vocab) < 1e-5);
		for (uint32_t t = 5; t < SEQ; t++) {
			ASSERT_EQ(0, pst_model_feed(n->model, n->given, self->batch.tokens + t, 1,
						    &got));
			EXPECT_TRUE(distance(want + t * vocab, got, vocab) < 1e-5);
		}
		EXPECT_EQ(-ENOSPC, pst_model_feed(n->model, n->given, self->batch.tokens, 1, &got));
		pst_model_forget(n->model);
	}
	free(want);
}

TEST_F(model, fewer_than_room_for)
{
	struct net *n = &self->net;
	struct pst_model_loss loss;

	ASSERT_EQ(0, net_forward(n, 1, 3, self->batch.tokens, self->batch.targets, &loss));
	EXPECT_EQ(0, net_backward(n));
	EXPECT_TRUE(isfinite(loss.cross_entropy));
}

static void create(struct net *n, double alpha, int train)
{
	struct pst_config cfg = preset("nano");

	net_create(n, &cfg, 2, BATCH, SEQ, alpha, train);
	net_randomize(n, 3);
}

TEST(loss_of_each_token)
{
	struct net n;
	struct batch b = random_batch(256);
	struct pst_model_loss loss;
	float each[BATCH * SEQ];
	double sum = 0;
	size_t counted = 0;

	create(&n, 0, 0);
	ASSERT_EQ(0, pst_model_forward(n.model, n.given, BATCH, SEQ, b.tokens, b.targets, &loss,
				       each));
	for (size_t r = 0; r < BATCH * SEQ; r++) {
		const float *logit = pst_model_logits(n.model) + r * 256;
		double z = 0;

		if (b.targets[r] < 0) {
			EXPECT_TRUE(each[r] == 0);
			continue;
		}
		for (int v = 0; v < 256; v++)
			z += exp(logit[v]);
		EXPECT_TRUE(fabs(log(z) - logit[b.targets[r]] - each[r]) < 1e-4);
		sum += each[r];
		counted++;
	}
	EXPECT_TRUE(sum / (double)counted == loss.cross_entropy);
	net_destroy(&n);
}

/* The mean over sequences: twice the same sequence has the loss of one. */
TEST(balance_is_a_mean)
{
	struct net n;
	struct batch b = random_batch(256);
	struct pst_model_loss one, two;

	create(&n, 0.5, 1);
	memcpy(b.tokens + SEQ, b.tokens, SEQ * sizeof(*b.tokens));
	ASSERT_EQ(0, net_forward(&n, 1, SEQ, b.tokens, b.targets, &one));
	ASSERT_EQ(0, net_forward(&n, 2, SEQ, b.tokens, b.targets, &two));
	/* a layer's sum f P is near 1 where tokens are spread, and there are two layers */
	EXPECT_TRUE(one.balance > 0.5 && one.balance < 4);
	EXPECT_TRUE(fabs(one.balance - two.balance) < 1e-6);
	net_destroy(&n);
}

/* A prompt longer than what goes through the layers at once. */
TEST(long_prompt)
{
	enum { LONG = 200 };
	struct pst_config cfg = preset("nano");
	struct net n;
	int32_t tokens[LONG];
	uint64_t seed = 4;
	float want[256];
	const float *got;

	net_create(&n, &cfg, 2, 1, LONG, 0, 0);
	net_randomize(&n, 3);
	for (int i = 0; i < LONG; i++)
		tokens[i] = (int32_t)(test_random(&seed) % 256);
	ASSERT_EQ(0, net_forward(&n, 1, LONG, tokens, NULL, NULL));
	memcpy(want, pst_model_logits(n.model) + (LONG - 1) * 256, sizeof(want));
	/* the second part fails: nothing of the first may stay in the cache */
	moe_local_fail(n.moe, 5, -EIO);
	EXPECT_EQ(-EIO, pst_model_feed(n.model, n.given, tokens, LONG, &got));
	moe_local_fail(n.moe, 0, 0);
	ASSERT_EQ(0, pst_model_feed(n.model, n.given, tokens, LONG, &got));
	EXPECT_TRUE(distance(want, got, 256) < 1e-5);
	net_destroy(&n);
}

TEST(no_targets_no_gradient)
{
	struct net n;
	struct batch b = random_batch(256);
	struct pst_model_loss loss;

	create(&n, 0, 1);
	for (size_t r = 0; r < BATCH * SEQ; r++)
		b.targets[r] = -1;
	ASSERT_EQ(0, net_forward(&n, BATCH, SEQ, b.tokens, b.targets, &loss));
	EXPECT_TRUE(loss.cross_entropy == 0);
	ASSERT_EQ(0, net_backward(&n));
	for (size_t i = 0; i < n.count; i++)
		for (size_t j = 0; j < net_size(&n.params[i]); j++)
			ASSERT_TRUE(n.grads[i][j] == 0);
	net_destroy(&n);
}

TEST(load_counts_tokens)
{
	struct net n;
	struct batch b = random_batch(256);

	create(&n, 0, 0);
	total(&n, &b);
	total(&n, &b); /* of the last forward only */
	for (uint32_t l = 1; l < 3; l++) {
		uint32_t sum = 0;

		for (uint32_t e = 0; e < n.cfg.experts; e++)
			sum += pst_model_load(n.model, l)[e];
		EXPECT_EQ(BATCH * SEQ * n.cfg.topk, sum);
	}
	net_destroy(&n);
}

/* One act for all layers gives the numbers of one act for each. */
TEST(without_training_the_same)
{
	struct net a, b;
	struct batch batch = random_batch(256);

	create(&a, 0, 1);
	create(&b, 0, 0);
	EXPECT_TRUE(total(&a, &batch) == total(&b, &batch));
	EXPECT_EQ(0, memcmp(pst_model_logits(a.model), pst_model_logits(b.model),
			    BATCH * SEQ * 256 * sizeof(float)));
	EXPECT_EQ(-EINVAL, net_backward(&b));
	net_destroy(&a);
	net_destroy(&b);
}

TEST(order_of_calls)
{
	struct net n;
	struct batch b = random_batch(256);
	const float *logits;

	create(&n, 0, 1);
	EXPECT_EQ(-EINVAL, net_backward(&n));
	total(&n, &b);
	EXPECT_EQ(0, net_backward(&n));
	EXPECT_EQ(-EINVAL, net_backward(&n)); /* the logits are gone */
	total(&n, &b);
	ASSERT_EQ(0, pst_model_feed(n.model, n.given, b.tokens, 1, &logits));
	EXPECT_EQ(-EINVAL, net_backward(&n)); /* generation took the activations */
	net_destroy(&n);
}

TEST(tokens_and_sizes_that_are_refused)
{
	struct net n;
	struct batch b = random_batch(256);
	const float *logits = (void *)1;

	create(&n, 0, 1);
	EXPECT_EQ(-EINVAL, net_forward(&n, BATCH + 1, SEQ, b.tokens, b.targets, NULL));
	EXPECT_EQ(-EINVAL, net_forward(&n, BATCH, SEQ + 1, b.tokens, b.targets, NULL));
	EXPECT_EQ(-EINVAL, net_forward(&n, 0, SEQ, b.tokens, b.targets, NULL));
	EXPECT_EQ(-EINVAL, pst_model_feed(n.model, n.given, b.tokens, 0, &logits));
	EXPECT_EQ(-ENOSPC, pst_model_feed(n.model, n.given, b.tokens, SEQ + 1, &logits));
	b.targets[0] = 256;
	EXPECT_EQ(-EINVAL, net_forward(&n, BATCH, SEQ, b.tokens, b.targets, NULL));
	b.targets[0] = 0;
	b.tokens[3] = 256;
	EXPECT_EQ(-EINVAL, net_forward(&n, BATCH, SEQ, b.tokens, b.targets, NULL));
	EXPECT_EQ(-EINVAL, pst_model_feed(n.model, n.given, b.tokens, 4, &logits));
	b.tokens[3] = -1;
	EXPECT_EQ(-EINVAL, net_forward(&n, BATCH, SEQ, b.tokens, b.targets, NULL));
	EXPECT_EQ((void *)1, (void *)logits);
	net_destroy(&n);
}

/* Each call to the experts fails once; the model says so, and then works again. */
TEST(experts_that_fail)
{
	struct net n;
	struct batch b = random_batch(256);
	const float *logits;
	double want;

	create(&n, 0, 1);
	want = total(&n, &b);
	for (unsigned int call = 1; call <= 4; call++) {
		moe_local_fail(n.moe, call, -EIO);
		EXPECT_EQ(-EIO, net_forward(&n, BATCH, SEQ, b.tokens, b.targets, NULL));
		EXPECT_EQ(-EINVAL, net_backward(&n));
		moe_local_fail(n.moe, call, -EIO);
		EXPECT_EQ(-EIO, pst_model_feed(n.model, n.given, b.tokens, 3, &logits));
		moe_local_fail(n.moe, 0, 0);
		EXPECT_TRUE(want == total(&n, &b));
		moe_local_fail(n.moe, call, -EIO);
		EXPECT_EQ(-EIO, net_backward(&n));
		moe_local_fail(n.moe, 0, 0);
	}
	/* what failed left nothing in the cache */
	EXPECT_EQ(0, pst_model_feed(n.model, n.given, b.tokens, SEQ, &logits));
	net_destroy(&n);
}

static struct pst_model_options options(struct net *n, uint32_t batch, uint32_t seq)
{
	return (struct pst_model_options){.size = sizeof(struct pst_model_options),
					  .config = &n->cfg,
					  .device = n->dev,
					  .pool = n->pool,
					  .moe = n->moe,
					  .batch = batch,
					  .seq = seq,
					  .train = 1};
}

static void expect_no_model(struct pst_model_options o, const char *word)
{
	struct pst_error err = {0};
	struct pst_model *m = (void *)1;

	EXPECT_GT(0, pst_model_create(&o, &m, &err));
	EXPECT_EQ((void *)1, (void *)m);
	EXPECT_NE(NULL, strstr(err.text, word));
}

TEST(options_that_are_refused)
{
	struct net n;
	struct pst_model_options o;

	create(&n, 0, 1);
	o = options(&n, 1, 8);
	o.size--;
	expect_no_model(o, "options");
	o.size++;
	o.batch = 0;
	expect_no_model(o, "0 sequences");
	o.batch = UINT32_MAX;
	expect_no_model(o, "sequences");
	o.batch = 1;
	o.seq = 257;
	expect_no_model(o, "max_position_embeddings");
	o.seq = 256;
	o.batch = 512;
	expect_no_model(o, "smaller batch");
	net_destroy(&n);
}

/* All of the block is the model's, and no more: what it frees is what it took. */
TEST(bytes_are_what_is_taken)
{
	struct net n;
	struct pst_pool_stat stat;
	struct pst_model_options o;

	create(&n, 0, 1);
	o = options(&n, BATCH, SEQ);
	pst_pool_stat(n.pool, &stat);
	EXPECT_EQ(pst_model_bytes(&o), stat.used);
	o.train = 0;
	EXPECT_LT(pst_model_bytes(&o), stat.used);
	pst_model_destroy(n.model);
	n.model = NULL;
	pst_pool_stat(n.pool, &stat);
	EXPECT_EQ((uint64_t)0, stat.used);
	net_destroy(&n);
}

TEST_MAIN
