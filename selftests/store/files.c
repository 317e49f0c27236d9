/* SPDX-License-Identifier: Apache-2.0 */
/* A table to files and back: across numbers of servers, from BF16, and what is refused. */
#include "selftests/store/store.h"

#include "runtime/io/safetensors.h"

#include <math.h>
#include <sys/stat.h>

FIXTURE_OF_FABRICS(fabric)

static char *path_of(const char *name)
{
	static char path[4][256];
	static unsigned int turn;
	char *p = path[turn++ % 4];

	snprintf(p, sizeof(*path), "%s/%s", test_tmpdir(), name);
	return p;
}

/* Across numbers of servers */

static void save_from(unsigned int n, int steps, const char *dir, float **after, size_t *count)
{
	struct pst_error err = {0};
	uint64_t bytes;
	struct servers s;
	struct table t;

	servers_start(&s, n, false);
	table_open(&t, &s);
	table_init(&t, 3);
	for (int i = 0; i < steps; i++)
		table_step(&t, 1);
	mkdir(dir, 0755);
	ASSERT_OK(pst_client_save(t.client, dir, &bytes, &err), &err);
	EXPECT_LT(0u, bytes);
	/* and on, as if nothing had been saved */
	for (int i = 0; i < 2; i++)
		table_step(&t, 0.5);
	*after = table_copy(&t, count);
	table_close(&t);
	servers_stop(&s);
}

static float *resume_with(unsigned int n, uint64_t version, const char *dir, bool optimizer)
{
	struct pst_client_loaded loaded;
	struct pst_error err = {0};
	struct servers s;
	struct table t;
	size_t count;
	float *w;

	servers_start(&s, n, false);
	table_open(&t, &s);
	ASSERT_OK(pst_client_load(t.client, dir, optimizer, version, &loaded, &err), &err);
	ASSERT_OK(pst_client_train(t.client, &err), &err);
	EXPECT_LT(0u, loaded.read_bytes);
	for (int i = 0; i < 2; i++)
		table_step(&t, 0.5);
	w = table_copy(&t, &count);
	EXPECT_EQ(version + 2, t.version);
	table_close(&t);
	servers_stop(&s);
	return w;
}

static void save_and_resume(unsigned int from)
{
	char *dir = path_of("checkpoint");
	float *want, *got;
	size_t n;

	save_from(from, 3, dir, &want, &n);
	for (unsigned int to = 1; to <= 3; to++) {
		got = resume_with(to, 3, dir, true);
		EXPECT_TRUE(same_bits(want, got, n));
		free(got);
	}
	/* without the moments it is another step */
	got = resume_with(1, 3, dir, false);
	EXPECT_FALSE(same_bits(want, got, n));
	free(got);
	free(want);
}

TEST_F(fabric, saved_by_one_server_resumes_on_others)
{
	save_and_resume(1);
}

TEST_F(fabric, saved_by_three_servers_resumes_on_others)
{
	save_and_resume(3);
}

/* What a checkpoint may hold */

FIXTURE(file)
{
	struct pst_device *device;
	struct pst_shard *shard;
	struct pst_wire_tensor tensor[TENSORS];
	uint32_t unit[TENSORS];
	struct pst_tensor_source source[TENSORS]; /* a checkpoint that fits; to be spoilt */
	float *data[TENSORS];
	struct pst_error err;
};

FIXTURE_SETUP(file)
{
	struct pst_shard_options o = {.size = sizeof(o),
				      .tensors = self->tensor,
				      .count = TENSORS,
				      .shards = 1,
				      .node = -1};

	o.device = self->device = open_device(2);
	make_table(self->tensor, self->unit);
	ASSERT_OK(pst_shard_create(&o, &self->shard, &self->err), &self->err);
	for (size_t i = 0; i < TENSORS; i++) {
		const struct pst_wire_tensor *t = &self->tensor[i];

		self->data[i] = malloc(elements(t) * sizeof(float));
		make_gradient(t, 0, 0, self->data[i]);
		self->source[i] = (struct pst_tensor_source){.name = t->name,
							     .dtype = PST_F32,
							     .ndim = t->ndim,
							     .shape = {t->shape[0], t->shape[1]},
							     .data = self->data[i]};
	}
}

FIXTURE_TEARDOWN(file)
{
	for (size_t i = 0; i < TENSORS; i++)
		free(self->data[i]);
	pst_shard_destroy(self->shard);
	pst_device_close(self->device);
}

static const float *weight_of(const struct pst_shard *s, size_t i)
{
	const struct pst_snapshot_head *h = pst_pool_base(pst_shard_snapshot(s));

	return (const float *)((const char *)h + h->buffer[h->current & 1] +
			       pst_shard_tensor_offset(s, i));
}

static int write_model(struct fixture_file *self, size_t n)
{
	return pst_safetensors_write(path_of("model.safetensors"), self->source, n, &self->err);
}

static int load(struct fixture_file *self, bool optimizer)
{
	struct pst_shard_loaded loaded;

	memset(&self->err, 0, sizeof(self->err));
	return pst_shard_load(self->shard, test_tmpdir(), optimizer, 4, &loaded, &self->err);
}

static void expect_loads(struct fixture_file *self)
{
	ASSERT_OK(load(self, false), &self->err);
	EXPECT_EQ(4u, pst_shard_version(self->shard));
	for (size_t i = 0; i < TENSORS; i++)
		EXPECT_TRUE(same_bits(self->data[i], weight_of(self->shard, i),
				      elements(&self->tensor[i])));
}

/* It is refused with @text, nothing is published, and a good one loads after it. */
static void expect_refused(struct fixture_file *self, int code, const char *text)
{
	EXPECT_EQ(code, load(self, false));
	if (!strstr(self->err.text, text))
		EXPECT_STREQ(text, self->err.text);
	EXPECT_EQ(PST_VERSION_NONE, pst_shard_version(self->shard));
}

TEST_F(file, f32_loads)
{
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_loads(self);
	EXPECT_EQ(-EBUSY, load(self, false));
	EXPECT_NE(NULL, strstr(self->err.text, "has values already"));
}

TEST_F(file, bf16_loads)
{
	uint16_t *half[TENSORS] = {NULL};

	for (size_t i = 0; i < TENSORS; i++) {
		size_t n = elements(&self->tensor[i]);

		half[i] = malloc(n * sizeof(**half));
		for (size_t k = 0; k < n; k++) {
			uint32_t bits;

			memcpy(&bits, self->data[i] + k, sizeof(bits));
			half[i][k] = (uint16_t)(bits >> 16);
			bits &= 0xffff0000;
			memcpy(self->data[i] + k, &bits, sizeof(bits));
		}
		/* one stays as it was: the formats may be mixed */
		if (i == E1_UP)
			continue;
		self->source[i].dtype = PST_BF16;
		self->source[i].data = half[i];
	}
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_loads(self);
	for (size_t i = 0; i < TENSORS; i++)
		free(half[i]);
}

TEST_F(file, a_missing_tensor_is_named)
{
	ASSERT_OK(write_model(self, TENSORS - 1), &self->err);
	expect_refused(self, -ENOENT, "tensor lm_head.weight: the checkpoint does not have it");
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_loads(self);
}

TEST_F(file, another_shape_is_named)
{
	self->source[HEAD].shape[0] = 41;
	self->source[HEAD].shape[1] = 50;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_refused(self, -EINVAL, "tensor lm_head.weight: dimension 0 is 41, the model has 50");
	self->source[HEAD].ndim = 1;
	self->source[HEAD].shape[0] = 2050;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_refused(self, -EINVAL, "tensor lm_head.weight: 1 dimensions, the model has 2");
}

TEST_F(file, another_format_is_named)
{
	self->source[NORM].dtype = PST_F16;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_refused(self, -ENOTSUP, "tensor model.norm.weight: format F16 cannot be loaded");
}

TEST_F(file, nan_and_infinity_are_named)
{
	/* in the last element of a tensor of two pieces */
	self->data[EMBED][259 * 257 - 1] = NAN;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_refused(self, -EINVAL,
		       "tensor model.embed_tokens.weight: has NaN or infinity in it");
	self->data[EMBED][259 * 257 - 1] = 1;
	self->data[BIAS][0] = -INFINITY;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_refused(self, -EINVAL, "e_score_correction_bias: has NaN or infinity in it");
	self->data[BIAS][0] = 0;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_loads(self);
}

TEST_F(file, nothing_there)
{
	EXPECT_GT(0, load(self, false));
	EXPECT_NE(NULL, strstr(self->err.text, test_tmpdir()));
	/* a model alone has no moments */
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	EXPECT_GT(0, load(self, true));
	EXPECT_NE(NULL, strstr(self->err.text, "optimizer"));
	expect_loads(self);
}

/* After a load that failed the first values are those of the seed all the same. */
TEST_F(file, a_failed_load_leaves_nothing_behind)
{
	struct pst_wire_tensor *t = &self->tensor[HEAD];
	struct pst_shard_options o = {.size = sizeof(o),
				      .tensors = t,
				      .count = 1,
				      .shards = 1,
				      .device = self->device,
				      .node = -1};
	struct pst_shard *fresh;

	self->data[NORM][0] = NAN;
	ASSERT_OK(write_model(self, TENSORS), &self->err);
	expect_refused(self, -EINVAL, "tensor model.norm.weight: has NaN");
	memset(&self->err, 0, sizeof(self->err));
	ASSERT_OK(pst_shard_init(self->shard, 9, &self->err), &self->err);
	ASSERT_OK(pst_shard_create(&o, &fresh, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(fresh, 9, &self->err), &self->err);
	EXPECT_TRUE(same_bits(weight_of(self->shard, HEAD), weight_of(fresh, 0), elements(t)));
	pst_shard_destroy(fresh);
}

TEST_F(file, nothing_to_save_before_there_are_values)
{
	uint64_t bytes = 77;

	EXPECT_EQ(-EINVAL, pst_shard_save(self->shard, test_tmpdir(), &bytes, &self->err));
	EXPECT_NE(NULL, strstr(self->err.text, "no values to save"));
	EXPECT_EQ(77u, bytes);
}

/* A shard of load biases alone has no moments, and saves and loads all the same. */
TEST_F(file, a_shard_without_moments)
{
	struct pst_wire_tensor *t = &self->tensor[BIAS];
	struct pst_shard_options o = {.size = sizeof(o),
				      .tensors = t,
				      .count = 1,
				      .shards = 1,
				      .device = self->device,
				      .node = -1};
	struct pst_shard_loaded loaded;
	struct pst_shard *a, *b;
	uint64_t bytes;

	ASSERT_OK(pst_shard_create(&o, &a, &self->err), &self->err);
	ASSERT_OK(pst_shard_create(&o, &b, &self->err), &self->err);
	ASSERT_OK(pst_shard_init(a, 1, &self->err), &self->err);
	ASSERT_OK(pst_shard_save(a, test_tmpdir(), &bytes, &self->err), &self->err);
	EXPECT_EQ(elements(t) * sizeof(float), bytes);
	ASSERT_OK(pst_shard_load(b, test_tmpdir(), true, 6, &loaded, &self->err), &self->err);
	EXPECT_EQ(6u, pst_shard_version(b));
	pst_shard_destroy(a);
	pst_shard_destroy(b);
}

TEST_MAIN
