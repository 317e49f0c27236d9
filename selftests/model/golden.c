/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Against what transformers' DeepseekV3ForCausalLM computed (selftests/goldens):
 * loss, logits and gradients of the same weights and tokens.
 */
#include "selftests/model/net.h"

#include "runtime/io/safetensors.h"

#include <fcntl.h>
#include <jansson.h>
#include <math.h>

#define GATE 1e-5 /* the goldens themselves are off by up to 3e-6, see their README */

FIXTURE(golden)
{
	struct net net;
	struct pst_checkpoint *expect;
	uint32_t batch, seq;
	int32_t *tokens, *targets;
};
FIXTURE_VARIANT(golden)
{
	const char *folder;
};
FIXTURE_VARIANT_ADD(golden, nano){"nano"};
FIXTURE_VARIANT_ADD(golden, no_q_lora){"no-q-lora"};
FIXTURE_VARIANT_ADD(golden, no_dense_no_groups){"no-dense-no-groups"};
FIXTURE_VARIANT_ADD(golden, no_norm_topk){"no-norm-topk"};
FIXTURE_VARIANT_ADD(golden, two_shared){"two-shared"};
FIXTURE_VARIANT_ADD(golden, tied){"tied"};
FIXTURE_VARIANT_ADD(golden, half_rope){"half-rope"};
FIXTURE_VARIANT_ADD(golden, yarn){"yarn"};
FIXTURE_VARIANT_ADD(golden, yarn_mscale){"yarn-mscale"};
FIXTURE_VARIANT_ADD(golden, odd_sizes){"odd-sizes"};

static const char *path_of(const char *folder, const char *file)
{
	static char path[256];

	snprintf(path, sizeof(path), "selftests/goldens/%s/%s", folder, file);
	return path;
}

static struct pst_checkpoint *open_file(const char *folder, const char *file)
{
	struct pst_checkpoint *ckpt;
	struct pst_error err = {0};

	ASSERT_OK(pst_checkpoint_open(path_of(folder, file), "", &ckpt, &err), &err);
	return ckpt;
}

/* A tensor's data, to be freed; its elements must be @size bytes. */
static void *load(const struct pst_checkpoint *ckpt, const char *name, size_t size, size_t *count)
{
	const struct pst_tensor_info *t = pst_checkpoint_find(ckpt, name);
	void *data;
	int fd;

	if (!t) {
		printf("# no tensor %s\n", name);
		_exit(TEST_FAIL);
	}
	ASSERT_EQ(size, pst_dtype_bytes(t->dtype));
	data = malloc(t->bytes + 1);
	fd = open(pst_checkpoint_path(ckpt, t->file), O_RDONLY | O_CLOEXEC);
	ASSERT_GE(fd, 0);
	ASSERT_EQ((ssize_t)t->bytes, pread(fd, data, t->bytes, (off_t)t->offset));
	close(fd);
	*count = t->bytes / size;
	return data;
}

static int32_t *load_tokens(const struct pst_checkpoint *ckpt, const char *name)
{
	size_t n;
	int64_t *wide = load(ckpt, name, 8, &n);
	int32_t *tokens = malloc(n * sizeof(*tokens));

	for (size_t i = 0; i < n; i++)
		tokens[i] = (int32_t)wide[i];
	free(wide);
	return tokens;
}

static void load_weights(struct net *n, const char *folder)
{
	struct pst_checkpoint *ckpt = open_file(folder, "model.safetensors");

	EXPECT_EQ(n->count, pst_checkpoint_count(ckpt));
	for (size_t i = 0; i < n->count; i++) {
		size_t count;
		float *w = load(ckpt, n->params[i].name, 4, &count);

		ASSERT_EQ(net_size(&n->params[i]), count);
		memcpy(n->weights[i], w, count * sizeof(*w));
		free(w);
	}
	pst_checkpoint_close(ckpt);
}

static struct pst_config load_config(const char *folder)
{
	struct pst_error err = {0};
	struct pst_config cfg;
	char *json;
	size_t len;

	ASSERT_OK(pst_file_read(path_of(folder, "config.json"), 1 << 20, &json, &len, &err), &err);
	ASSERT_OK(pst_config_parse(json, len, &cfg, &err), &err);
	free(json);
	return cfg;
}

FIXTURE_SETUP(golden)
{
	const struct variant_golden *v = variant;
	struct pst_config cfg = load_config(v->folder);
	const struct pst_tensor_info *t;

	self->expect = open_file(v->folder, "expect.safetensors");
	t = pst_checkpoint_find(self->expect, "tokens");
	ASSERT_NE(NULL, t);
	self->batch = (uint32_t)t->shape[0];
	self->seq = (uint32_t)t->shape[1];
	self->tokens = load_tokens(self->expect, "tokens");
	self->targets = load_tokens(self->expect, "targets");
	net_create(&self->net, &cfg, 2, self->batch, self->seq, 0, 1);
	load_weights(&self->net, v->folder);
}

FIXTURE_TEARDOWN(golden)
{
	net_destroy(&self->net);
	pst_checkpoint_close(self->expect);
	free(self->tokens);
	free(self->targets);
}

static double norm(const float *a, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * a[i];
	return sqrt(sum);
}

/* L2 of the difference over L2 of what is wanted; where that is 0, must be 0 too. */
static double off(const float *want, const float *got, size_t n)
{
	double sum = 0, of = norm(want, n);

	for (size_t i = 0; i < n; i++)
		sum += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
	return of > 0 ? sqrt(sum) / of : sqrt(sum);
}

static void expect_close(const char *what, double off)
{
	if (off < GATE)
		return;
	printf("# %s is off by %g, more than %g\n", what, off, GATE);
	test_failed = true;
}

static void forward(struct fixture_golden *f)
{
	struct pst_model_loss loss;
	size_t n;
	float *want = load(f->expect, "loss", 4, &n);

	ASSERT_EQ(0, net_forward(&f->net, f->batch, f->seq, f->tokens, f->targets, &loss));
	expect_close("loss", fabs(loss.cross_entropy - want[0]) / want[0]);
	EXPECT_TRUE(loss.balance == 0);
	free(want);
}

/* nano has all logits, the variants those at some positions of each sequence. */
static void check_logits(struct fixture_golden *f)
{
	size_t vocab = f->net.cfg.vocab, n, positions = f->seq;
	float *want = load(f->expect, "logits", 4, &n);
	const float *got = pst_model_logits(f->net.model);
	int32_t *at = NULL;
	float *picked = malloc(n * sizeof(*picked));

	if (pst_checkpoint_find(f->expect, "positions")) {
		positions = (size_t)pst_checkpoint_find(f->expect, "positions")->shape[0];
		at = load_tokens(f->expect, "positions");
	}
	ASSERT_EQ(f->batch * positions * vocab, n);
	for (size_t i = 0; i < f->batch * positions; i++) {
		size_t pos = at ? (size_t)at[i % positions] : i % positions;
		size_t row = i / positions * f->seq + pos;

		memcpy(picked + i * vocab, got + row * vocab, vocab * sizeof(*got));
	}
	expect_close("logits", off(want, picked, n));
	free(picked);
	free(want);
	free(at);
}

TEST_F(golden, forward)
{
	forward(self);
	check_logits(self);
}

static void check_grads(struct fixture_golden *f)
{
	for (size_t i = 0; i < f->net.count; i++) {
		const struct pst_param *p = &f->net.params[i];
		char name[128];
		size_t n;
		float *want;

		if (p->kind == PST_PARAM_BIAS)
			continue;
		snprintf(name, sizeof(name), "grad.%s", p->name);
		want = load(f->expect, name, 4, &n);
		ASSERT_EQ(net_size(p), n);
		expect_close(name, off(want, f->net.grads[i], n));
		free(want);
	}
}

static size_t find_param(const struct net *n, const char *name)
{
	for (size_t i = 0; i < n->count; i++)
		if (!strcmp(n->params[i].name, name))
			return i;
	printf("# no parameter %s\n", name);
	_exit(TEST_FAIL);
}

static void check_norms(struct fixture_golden *f, const char *folder)
{
	json_t *root = json_load_file(path_of(folder, "expect.json"), 0, NULL), *names;
	size_t n;
	float *want = load(f->expect, "grad_norms", 4, &n);

	ASSERT_NE(NULL, root);
	names = json_object_get(root, "grad_norms");
	if (!json_is_array(names))
		names = json_object_get(root, "names");
	ASSERT_EQ(n, json_array_size(names));
	for (size_t i = 0; i < n; i++) {
		const char *name = json_string_value(json_array_get(names, i));
		size_t p = find_param(&f->net, name);
		double got = norm(f->net.grads[p], net_size(&f->net.params[p]));

		expect_close(name, want[i] > 0 ? fabs(got - want[i]) / want[i] : got);
	}
	json_decref(root);
	free(want);
}

TEST_F(golden, backward)
{
	forward(self);
	ASSERT_EQ(0, net_backward(&self->net));
	if (pst_checkpoint_find(self->expect, "grad_norms"))
		check_norms(self, variant->folder);
	else
		check_grads(self);
}

TEST_MAIN
