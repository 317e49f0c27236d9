/* SPDX-License-Identifier: Apache-2.0 */
/* A shard by itself: first values, optimizer steps, versions, and what it refuses. */
#include "selftests/store/store.h"

#include <float.h>
#include <math.h>

FIXTURE(shard)
{
	struct pst_device *device;
	struct pst_shard *shard;
	struct pst_wire_tensor tensor[TENSORS];
	uint32_t unit[TENSORS];
	uint8_t mask[TENSORS];
	float *grads;
	struct pst_error err;
};

static int create(struct pst_device *device, const struct pst_wire_tensor *t, size_t n,
		  struct pst_shard **out, struct pst_error *err)
{
	struct pst_shard_options o = {
		.size = sizeof(o),
		.tensors = t,
		.count = n,
		.shards = 1,
		.device = device,
		.node = -1,
	};

	return pst_shard_create(&o, out, err);
}

FIXTURE_SETUP(shard)
{
	self->device = open_device(2);
	make_table(self->tensor, self->unit);
	ASSERT_OK(create(self->device, self->tensor, TENSORS, &self->shard, &self->err),
		  &self->err);
	self->grads = calloc(1, pst_shard_buffer_bytes(self->shard));
	memset(self->mask, 1, sizeof(self->mask));
}

FIXTURE_TEARDOWN(shard)
{
	free(self->grads);
	pst_shard_destroy(self->shard);
	pst_device_close(self->device);
}

static struct pst_snapshot_head *head_of(const struct pst_shard *s)
{
	return pst_pool_base(pst_shard_snapshot(s));
}

static const float *published(const struct pst_shard *s, size_t i)
{
	const struct pst_snapshot_head *h = head_of(s);

	return (const float *)((const char *)h + h->buffer[h->current & 1] +
			       pst_shard_tensor_offset(s, i));
}

static float *grad_at(struct fixture_shard *self, size_t i)
{
	return self->grads + pst_shard_tensor_offset(self->shard, i) / sizeof(float);
}

/* First values */

TEST_F(shard, init_is_of_seed_and_name_alone)
{
	struct pst_wire_tensor alone[2] = {self->tensor[E1_DOWN], self->tensor[HEAD]};
	struct pst_device *one = open_device(1);
	struct pst_shard *other;

	ASSERT_OK(create(one, alone, 2, &other, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(self->shard, 42, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(other, 42, &self->err), &self->err);
	EXPECT_TRUE(same_bits(published(self->shard, E1_DOWN), published(other, 0),
			      elements(&alone[0])));
	EXPECT_TRUE(
		same_bits(published(self->shard, HEAD), published(other, 1), elements(&alone[1])));
	/* neither a neighbour's stream nor that of another expert */
	EXPECT_FALSE(same_bits(published(self->shard, E0_DOWN), published(other, 0), 8));
	pst_shard_destroy(other);
	pst_device_close(one);
}

TEST_F(shard, init_differs_by_seed)
{
	struct pst_shard *other;

	ASSERT_OK(create(self->device, self->tensor, TENSORS, &other, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(self->shard, 42, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(other, 43, &self->err), &self->err);
	EXPECT_FALSE(same_bits(published(self->shard, EMBED), published(other, EMBED), 8));
	pst_shard_destroy(other);
}

TEST_F(shard, init_has_its_mean_and_deviation)
{
	size_t n = elements(&self->tensor[EMBED]);
	double sum = 0, sq = 0;
	const float *w;

	ASSERT_OK(pst_shard_init(self->shard, 1, &self->err), &self->err);
	w = published(self->shard, EMBED);
	for (size_t k = 0; k < n; k++) {
		sum += w[k];
		sq += (double)w[k] * w[k];
	}
	/* five deviations of the estimators at 66563 elements */
	EXPECT_LT(fabs(sum / (double)n), 5 * 0.02 / sqrt((double)n));
	EXPECT_LT(fabs(sqrt(sq / (double)n) / 0.02 - 1), 5 / sqrt(2 * (double)n));
	for (size_t k = 0; k < elements(&self->tensor[NORM]); k++)
		EXPECT_TRUE(published(self->shard, NORM)[k] == 1);
	for (size_t k = 0; k < elements(&self->tensor[BIAS]); k++)
		EXPECT_TRUE(published(self->shard, BIAS)[k] == 0);
}

TEST_F(shard, init_only_once)
{
	ASSERT_OK(pst_shard_init(self->shard, 1, &self->err), &self->err);
	EXPECT_EQ(-EBUSY, pst_shard_init(self->shard, 1, &self->err));
	EXPECT_NE(NULL, strstr(self->err.text, "has values already"));
}

/* Versions */

TEST_F(shard, publishing_flips_the_buffers)
{
	struct pst_snapshot_head *h = head_of(self->shard);
	struct pst_msg_apply apply = some_apply(0);
	float before, after;

	EXPECT_EQ(PST_VERSION_NONE, h->current);
	EXPECT_EQ(PST_VERSION_NONE, h->held[0]);
	ASSERT_OK(pst_shard_init(self->shard, 1, &self->err), &self->err);
	EXPECT_EQ(0u, h->current);
	EXPECT_EQ(0u, h->held[0]);
	EXPECT_EQ(PST_VERSION_NONE, h->held[1]);
	before = published(self->shard, NORM)[0];
	grad_at(self, NORM)[0] = 1;
	for (uint64_t v = 0; v < 5; v++) {
		apply.version = v;
		ASSERT_EQ(0, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
		EXPECT_EQ(v + 1, h->current);
		EXPECT_EQ(v + 1, h->held[(v + 1) & 1]);
		/* the version before stays readable, unchanged, until the next step */
		EXPECT_EQ(v, h->held[v & 1]);
		after = *(const float *)((const char *)h + h->buffer[v & 1] +
					 pst_shard_tensor_offset(self->shard, NORM));
		EXPECT_TRUE(after == before);
		before = published(self->shard, NORM)[0];
		EXPECT_TRUE(before < after);
		EXPECT_EQ(v + 1, pst_shard_version(self->shard));
	}
}

TEST_F(shard, a_step_of_another_version_changes_nothing)
{
	struct pst_snapshot_head before;
	struct pst_msg_apply apply = some_apply(0);

	/* no values yet */
	EXPECT_EQ(-EINVAL, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
	apply.version = PST_VERSION_NONE;
	EXPECT_EQ(-EINVAL, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
	ASSERT_OK(pst_shard_init(self->shard, 1, &self->err), &self->err);
	before = *head_of(self->shard);
	apply.version = 1;
	EXPECT_EQ(-EINVAL, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
	EXPECT_FALSE(memcmp(&before, head_of(self->shard), sizeof(before)));
	apply.version = 0;
	EXPECT_EQ(0, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
	EXPECT_EQ(-EINVAL, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
}

/* Where pages really are is asked, or it is said that nobody knows. */
TEST_F(shard, where_its_pages_are_is_checked)
{
	struct pst_pool *const pool[] = {pst_shard_masters(self->shard),
					 pst_shard_snapshot(self->shard)};
	struct pst_pool_stat stat;

	for (int i = 0; i < 2; i++) {
		pst_pool_stat(pool[i], &stat);
		EXPECT_TRUE(stat.pages_checked == stat.bytes / stat.page_bytes ||
			    strstr(stat.note, "move_pages"));
	}
}

/* Numbers that would poison every weight change nothing. */
TEST_F(shard, numbers_that_make_no_sense_are_refused)
{
	struct pst_msg_apply good = some_apply(0), a;

	ASSERT_OK(pst_shard_init(self->shard, 1, &self->err), &self->err);
	for (int i = 0; i < 6; i++) {
		a = good;
		*(double *[]){
			&a.lr, &a.beta1, &a.beta2, &a.eps, &a.weight_decay, &a.grad_scale}[i] = NAN;
		EXPECT_EQ(-EDOM, pst_shard_apply(self->shard, self->mask, self->grads, &a));
	}
	a = good;
	a.beta1 = 1;
	EXPECT_EQ(-EDOM, pst_shard_apply(self->shard, self->mask, self->grads, &a));
	EXPECT_EQ(0, pst_shard_apply(self->shard, self->mask, self->grads, &good));
}

/* AdamW against double precision */

struct truth {
	double w, m, v;
};

static void step_truth(struct truth *t, double g, const struct pst_msg_apply *a, double decay)
{
	double n = (double)a->version + 1;

	g *= a->grad_scale;
	t->w -= a->lr * decay * t->w;
	t->m = a->beta1 * t->m + (1 - a->beta1) * g;
	t->v = a->beta2 * t->v + (1 - a->beta2) * g * g;
	t->w -= a->lr / (1 - pow(a->beta1, n)) * t->m /
		(sqrt(t->v / (1 - pow(a->beta2, n))) + a->eps);
}

static void check_steps(struct fixture_shard *self, double scale, unsigned int missing_every)
{
	struct truth *truth[TENSORS];
	double worst = 0;

	ASSERT_OK(pst_shard_init(self->shard, 7, &self->err), &self->err);
	for (size_t i = 0; i < TENSORS; i++) {
		truth[i] = calloc(elements(&self->tensor[i]), sizeof(**truth));
		for (size_t k = 0; k < elements(&self->tensor[i]); k++)
			truth[i][k].w = published(self->shard, i)[k];
	}
	for (uint64_t v = 0; v < 6; v++) {
		struct pst_msg_apply a = some_apply(v);

		a.grad_scale = scale;
		for (size_t i = 0; i < TENSORS; i++) {
			double decay = self->tensor[i].flags & PST_TENSOR_DECAY ? 0.1 : 0;

			self->mask[i] = !missing_every || (i + v) % missing_every;
			make_gradient(&self->tensor[i], v, 0, grad_at(self, i));
			for (size_t k = 0; k < elements(&self->tensor[i]); k++) {
				double g = self->mask[i] ? grad_at(self, i)[k] : 0;

				if (i == BIAS)
					truth[i][k].w -= a.bias_rate * g;
				else
					step_truth(&truth[i][k], g, &a, decay);
			}
		}
		ASSERT_EQ(0, pst_shard_apply(self->shard, self->mask, self->grads, &a));
	}
	for (size_t i = 0; i < TENSORS; i++) {
		for (size_t k = 0; k < elements(&self->tensor[i]); k++)
			worst = fmax(worst, fabs(truth[i][k].w - published(self->shard, i)[k]));
		free(truth[i]);
	}
	/* six steps of at most 0.01 on values up to 1: some roundings of fp32 */
	EXPECT_LT(worst, 20 * (double)FLT_EPSILON);
}

TEST_F(shard, adamw_unclipped)
{
	check_steps(self, 1, 0);
}

TEST_F(shard, adamw_clipped)
{
	check_steps(self, 0.037, 0);
}

TEST_F(shard, a_missing_gradient_is_zero)
{
	check_steps(self, 1, 3);
}

/* What lies in the slot of a tensor that the mask leaves out is not looked at. */
TEST_F(shard, a_masked_gradient_is_not_read)
{
	struct pst_msg_apply a = some_apply(0);
	double norms[TENSORS];

	ASSERT_OK(pst_shard_init(self->shard, 7, &self->err), &self->err);
	for (size_t i = 0; i < TENSORS; i++)
		for (size_t k = 0; k < elements(&self->tensor[i]); k++)
			grad_at(self, i)[k] = NAN;
	memset(self->mask, 0, sizeof(self->mask));
	pst_shard_norms(self->shard, self->mask, self->grads, norms);
	ASSERT_EQ(0, pst_shard_apply(self->shard, self->mask, self->grads, &a));
	for (size_t i = 0; i < TENSORS; i++) {
		EXPECT_TRUE(norms[i] == 0);
		for (size_t k = 0; k < elements(&self->tensor[i]); k++)
			ASSERT_TRUE(isfinite(published(self->shard, i)[k]));
	}
}

TEST_F(shard, norms_are_sums_of_squares)
{
	double norms[TENSORS];

	self->mask[NORM] = 0;
	for (size_t i = 0; i < TENSORS; i++)
		make_gradient(&self->tensor[i], 3, 0, grad_at(self, i));
	pst_shard_norms(self->shard, self->mask, self->grads, norms);
	for (size_t i = 0; i < TENSORS; i++) {
		double want = 0;

		for (size_t k = 0; k < elements(&self->tensor[i]); k++)
			want += (double)grad_at(self, i)[k] * grad_at(self, i)[k];
		/* a load bias is no weight: it has no part in the norm */
		if (i == NORM || i == BIAS)
			EXPECT_TRUE(norms[i] == 0);
		else
			EXPECT_LT(fabs(norms[i] / want - 1), 1e-12);
	}
}

/* The same bits from one thread and from three. */
TEST_F(shard, threads_change_nothing)
{
	struct pst_device *three = open_device(3);
	struct pst_shard *other;
	double a[TENSORS], b[TENSORS];

	ASSERT_OK(create(three, self->tensor, TENSORS, &other, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(self->shard, 7, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(other, 7, &self->err), &self->err);
	for (uint64_t v = 0; v < 3; v++) {
		struct pst_msg_apply apply = some_apply(v);

		for (size_t i = 0; i < TENSORS; i++)
			make_gradient(&self->tensor[i], v, 0, grad_at(self, i));
		pst_shard_norms(self->shard, self->mask, self->grads, a);
		pst_shard_norms(other, self->mask, self->grads, b);
		EXPECT_FALSE(memcmp(a, b, sizeof(a)));
		ASSERT_EQ(0, pst_shard_apply(self->shard, self->mask, self->grads, &apply));
		ASSERT_EQ(0, pst_shard_apply(other, self->mask, self->grads, &apply));
	}
	for (size_t i = 0; i < TENSORS; i++)
		EXPECT_TRUE(same_bits(published(self->shard, i), published(other, i),
				      elements(&self->tensor[i])));
	pst_shard_destroy(other);
	pst_device_close(three);
}

/* Descriptors come from a peer */

static void expect_refused(struct fixture_shard *self, const struct pst_wire_tensor *t,
			   const char *text)
{
	struct pst_shard *none = NULL;
	struct pst_error err = {0};

	EXPECT_EQ(-EINVAL, create(self->device, t, TENSORS, &none, &err));
	EXPECT_TRUE(!none);
	if (!strstr(err.text, text))
		EXPECT_STREQ(text, err.text);
}

TEST_F(shard, bad_names)
{
	struct pst_wire_tensor *t = self->tensor;

	memset(t[NORM].name, 'x', sizeof(t->name));
	expect_refused(self, t, "does not end");
	t[NORM].name[0] = 0;
	expect_refused(self, t, "name is empty");
	memcpy(t[NORM].name, t[HEAD].name, sizeof(t->name));
	expect_refused(self, t, "lm_head.weight: twice");
}

TEST_F(shard, bad_shapes)
{
	struct pst_wire_tensor *t = self->tensor, good = t[NORM];
	const struct {
		uint32_t ndim;
		uint64_t shape[PST_WIRE_DIMS];
		const char *text;
	} bad[] = {
		{0, {33}, "model.norm.weight: 0 dimensions"},
		{5, {1, 1, 1, 1}, "model.norm.weight: 5 dimensions"},
		{UINT32_MAX, {1}, "model.norm.weight: 4294967295 dimensions"},
		{1, {0}, "model.norm.weight: its shape is 0"},
		{2, {33, 0}, "model.norm.weight: its shape is 0"},
		{2, {1ull << 32, 1ull << 32}, "model.norm.weight: its shape is"},
		{4, {1ull << 31, 1ull << 31, 1ull << 31, 2}, "model.norm.weight: its shape is"},
		{1, {UINT64_MAX}, "model.norm.weight: its shape is"},
		{1, {1ull << 40}, "model.norm.weight: its shape is"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		t[NORM] = good;
		t[NORM].ndim = bad[i].ndim;
		memcpy(t[NORM].shape, bad[i].shape, sizeof(bad[i].shape));
		expect_refused(self, t, bad[i].text);
	}
}

TEST_F(shard, bad_formats_flags_and_order)
{
	struct pst_wire_tensor *t = self->tensor, good = t[NORM];

	t[NORM].dtype = PST_BF16;
	expect_refused(self, t, "model.norm.weight: masters are F32");
	t[NORM] = good;
	t[NORM].init = PST_INIT_NORMAL + 1;
	expect_refused(self, t, "model.norm.weight: unknown init");
	t[NORM] = good;
	t[NORM].flags = 4;
	expect_refused(self, t, "model.norm.weight: unknown init or flags");
	t[NORM] = good;
	t[NORM].init_std = NAN;
	expect_refused(self, t, "model.norm.weight: unknown init");
	t[NORM] = good;
	t[NORM].order = t[EMBED].order;
	expect_refused(self, t, "model.norm.weight: out of order");
	t[NORM] = good;
	t[E0_GATE].order = 0;
	expect_refused(self, t, "out of order");
}

TEST_MAIN
