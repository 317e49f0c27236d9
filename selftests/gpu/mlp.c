/* SPDX-License-Identifier: Apache-2.0 */
/* Experts on a GPU: the same as on a CPU but for bf16, whatever is in the cache; on the stand-in.
 */
#include "runtime/device/gpu_mlp.h"
#include "kernels/bf16.h"
#include "selftests/gpu/worker.h"

#include <math.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define MIB    (1ull << 20)
#define HIDDEN 24
#define INTER  40
#define MATRIX (HIDDEN * INTER)
#define MOST   8
#define ROWS   160 /* of one expert, at most */
#define FLOATS (MOST * (ROWS * HIDDEN * 4 + MATRIX * 6))

static struct standin *standin;

/* Experts, and where their rows, weights and results are: all in one piece of registered memory. */
FIXTURE(mlp)
{
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	struct pst_gpu_mlp *mlp;
	struct pst_device *cpu;
	float *memory, *scratch;
	size_t used;
	uint32_t ms; /* for a call; 0: 30000 */
	struct pst_mlp_job job[MOST], on_cpu[MOST];
	struct pst_gpu_weights weights[MOST], *at[MOST];
};

static float *take(struct fixture_mlp *self, size_t floats)
{
	float *at = self->memory + self->used;

	self->used += floats;
	ASSERT_LE(self->used, (size_t)FLOATS);
	return at;
}

/* What bf16 holds, so that both begin with the same numbers. */
static float *numbers(struct fixture_mlp *self, size_t floats, float scale, uint64_t seed)
{
	float *at = take(self, floats);

	for (size_t i = 0; i < floats; i++) {
		float f = ((float)(test_random(&seed) >> 40) / (float)(1 << 23) - 1) * scale;

		at[i] = pst_bf16_to_f32(pst_bf16_from_f32(f));
	}
	return at;
}

static void make_expert(struct fixture_mlp *self, size_t i, size_t rows)
{
	uint64_t seed = 100 * i + 1;

	self->job[i] = (struct pst_mlp_job){
		.rows = rows,
		.hidden = HIDDEN,
		.inter = INTER,
		.gate = numbers(self, MATRIX, 0.3f, seed),
		.up = numbers(self, MATRIX, 0.3f, seed + 1),
		.down = numbers(self, MATRIX, 0.3f, seed + 2),
		.x = rows ? numbers(self, rows * HIDDEN, 1, seed + 3) : NULL,
		.dy = rows ? numbers(self, rows * HIDDEN, 1, seed + 4) : NULL,
		.y = take(self, rows * HIDDEN),
		.dx = take(self, rows * HIDDEN),
		.dgate = take(self, MATRIX),
		.dup = take(self, MATRIX),
		.ddown = take(self, MATRIX),
	};
	self->at[i] = &self->weights[i];
}

static float *poison(float *at, size_t floats)
{
	for (size_t i = 0; i < floats; i++)
		at[i] = NAN;
	return at;
}

/* The same jobs, with results of their own. */
static void compute_on_cpu(struct fixture_mlp *self, size_t n)
{
	static float results[MOST * (2 * ROWS * HIDDEN + 3 * MATRIX)];
	float *at = results;

	for (size_t i = 0; i < n; i++) {
		struct pst_mlp_job *j = &self->on_cpu[i];

		*j = self->job[i];
		j->y = at;
		j->dx = j->y + j->rows * HIDDEN;
		j->dgate = j->dx + j->rows * HIDDEN;
		j->dup = j->dgate + MATRIX;
		j->ddown = j->dup + MATRIX;
		at = j->ddown + MATRIX;
	}
	pst_mlp_forward(self->cpu, self->on_cpu, n, self->scratch);
	pst_mlp_backward(self->cpu, self->on_cpu, n, self->scratch);
}

static void poison_results(struct fixture_mlp *self, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pst_mlp_job *j = &self->job[i];

		poison(j->y, j->rows * HIDDEN);
		poison(j->dx, j->rows * HIDDEN);
		poison(j->dgate, MATRIX);
		poison(j->dup, MATRIX);
		poison(j->ddown, MATRIX);
	}
}

/* Relative L2, as the gates of bf16 are: what lies between is rounded twice or three times. */
static void expect_close(const char *what, size_t i, const float *got, const float *want, size_t n)
{
	double d = 0, all = 0;

	for (size_t k = 0; k < n; k++) {
		d += ((double)got[k] - want[k]) * ((double)got[k] - want[k]);
		all += (double)want[k] * want[k];
	}
	if (sqrt(d) <= 6e-3 * sqrt(all))
		return;
	test_say(__FILE__, __LINE__, "%s of expert %zu: off by %g", what, i, sqrt(d / all));
	test_failed = true;
}

static void expect_forward(struct fixture_mlp *self, size_t n)
{
	for (size_t i = 0; i < n; i++)
		expect_close("y", i, self->job[i].y, self->on_cpu[i].y, self->job[i].rows * HIDDEN);
}

static void expect_backward(struct fixture_mlp *self, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct pst_mlp_job *j = &self->job[i], *c = &self->on_cpu[i];

		expect_close("dx", i, j->dx, c->dx, j->rows * HIDDEN);
		expect_close("dgate", i, j->dgate, c->dgate, MATRIX);
		expect_close("dup", i, j->dup, c->dup, MATRIX);
		expect_close("ddown", i, j->ddown, c->ddown, MATRIX);
	}
}

static void forward(struct fixture_mlp *self, size_t n, uint64_t version)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_gpu_mlp_forward(self->mlp, self->job, self->at, n, version, &err), &err);
}

static void backward(struct fixture_mlp *self, size_t n, uint64_t version)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_gpu_mlp_backward(self->mlp, self->job, self->at, n, version, &err), &err);
}

static struct pst_gpu_mlp_stat stat_of(const struct fixture_mlp *self)
{
	struct pst_gpu_mlp_stat s;

	pst_gpu_mlp_stat(self->mlp, &s);
	return s;
}

static void open_gpu(struct fixture_mlp *self, uint64_t arena)
{
	struct pst_gpu_options o = {.size = sizeof(o), .arena = arena};
	struct pst_error err = {0};

	ASSERT_OK(pst_gpu_open(0, &o, &self->gpu, &err), &err);
	ASSERT_OK(pst_gpu_register(self->gpu, self->memory, FLOATS * 4, 0, -1, &err), &err);
	ASSERT_OK(pst_gpu_kernels_open(self->gpu, test_tmpdir(), &self->kernels, &err), &err);
	ASSERT_OK(pst_gpu_mlp_open(self->gpu, self->kernels, MOST, self->ms ? self->ms : 30000,
				   &self->mlp, &err),
		  &err);
}

static void close_gpu(struct fixture_mlp *self)
{
	struct pst_error err = {0};

	for (size_t i = 0; i < MOST; i++)
		pst_gpu_mlp_drop(self->mlp, &self->weights[i]);
	pst_gpu_mlp_close(self->mlp);
	pst_gpu_kernels_close(self->kernels);
	EXPECT_EQ(0, pst_gpu_unregister(self->gpu, self->memory, &err));
	EXPECT_EQ(0, pst_gpu_close(self->gpu, &err));
	self->gpu = NULL;
}

FIXTURE_SETUP(mlp)
{
	struct pst_error err = {0};

	standin = standin_gpu(64 * MIB);
	standin_images();
	self->memory =
		mmap(NULL, FLOATS * 4, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_TRUE(self->memory != MAP_FAILED);
	self->scratch = calloc(MOST * ROWS * 3 * INTER, sizeof(float));
	ASSERT_OK(pst_device_open_cpu(-1, 1, &self->cpu, &err), &err);
	open_gpu(self, 16 * MIB);
}

FIXTURE_TEARDOWN(mlp)
{
	if (self->gpu)
		close_gpu(self);
	pst_device_close(self->cpu);
	munmap(self->memory, FLOATS * 4);
	free(self->scratch);
}

TEST_F(mlp, as_on_a_cpu)
{
	static const size_t rows[MOST] = {3, 0, 1, 17, 64, 8, 65, 130};

	for (size_t i = 0; i < MOST; i++)
		make_expert(self, i, rows[i]);
	compute_on_cpu(self, MOST);
	poison_results(self, MOST);
	forward(self, MOST, 1);
	backward(self, MOST, 1);
	expect_forward(self, MOST);
	expect_backward(self, MOST);
	EXPECT_EQ((uint64_t)MOST, stat_of(self).misses);
	EXPECT_EQ((uint64_t)MOST, stat_of(self).hits);
	EXPECT_EQ(MOST * 3ull * MATRIX * 2, stat_of(self).bytes);
}

/* What is there stays; a new version comes over, and only that. */
TEST_F(mlp, weights_come_once_a_version)
{
	for (size_t i = 0; i < 4; i++)
		make_expert(self, i, 4);
	compute_on_cpu(self, 4);
	forward(self, 4, 7);
	standin->copied_bytes = 0;
	poison_results(self, 4);
	forward(self, 4, 7);
	expect_forward(self, 4);
	EXPECT_EQ(4ull, stat_of(self).hits);
	EXPECT_LT((uint64_t)standin->copied_bytes, 4ull * 3 * MATRIX * 4);
	/* the same place, other numbers */
	for (size_t k = 0; k < MATRIX; k++)
		((float *)(uintptr_t)self->job[2].down)[k] *= 2;
	forward(self, 4, 7);
	expect_forward(self, 4);
	compute_on_cpu(self, 4);
	poison_results(self, 4);
	forward(self, 4, 8);
	expect_forward(self, 4);
	EXPECT_EQ(8ull, stat_of(self).misses);
}

/* Those that are there are computed with those that are not, in one call. */
TEST_F(mlp, some_are_there)
{
	struct pst_gpu_weights *odd[2];
	struct pst_mlp_job job[2];
	struct pst_error err = {0};

	for (size_t i = 0; i < 4; i++)
		make_expert(self, i, 5 + i);
	compute_on_cpu(self, 4);
	for (size_t i = 0; i < 2; i++) {
		odd[i] = self->at[2 * i + 1];
		job[i] = self->job[2 * i + 1];
	}
	ASSERT_OK(pst_gpu_mlp_forward(self->mlp, job, odd, 2, 1, &err), &err);
	poison_results(self, 4);
	forward(self, 4, 1);
	expect_forward(self, 4);
	EXPECT_EQ(2ull, stat_of(self).hits);
	EXPECT_EQ(4ull, stat_of(self).misses);
	poison_results(self, 4);
	pst_gpu_mlp_drop(self->mlp, self->at[1]);
	backward(self, 4, 1);
	expect_backward(self, 4);
	EXPECT_EQ(5ull, stat_of(self).misses);
}

/* Bits do not depend on what else is asked, nor on what is there. */
TEST_F(mlp, the_same_bits)
{
	static float alone[ROWS * HIDDEN];

	for (size_t i = 0; i < 3; i++)
		make_expert(self, i, 9 * i + 2);
	forward(self, 1, 1);
	memcpy(alone, self->job[0].y, self->job[0].rows * HIDDEN * 4);
	poison_results(self, 3);
	forward(self, 3, 1);
	EXPECT_EQ(0, memcmp(alone, self->job[0].y, self->job[0].rows * HIDDEN * 4));
}

/* Memory for a few experts: others go, calls are done in halves, and no number changes. */
TEST_F(mlp, little_memory)
{
	close_gpu(self);
	self->used = 0;
	for (size_t i = 0; i < MOST; i++)
		make_expert(self, i, 6);
	open_gpu(self, 96 << 10);
	compute_on_cpu(self, MOST);
	for (int turn = 0; turn < 2; turn++) {
		poison_results(self, MOST);
		forward(self, MOST, 1);
		backward(self, MOST, 1);
		expect_forward(self, MOST);
		expect_backward(self, MOST);
	}
	EXPECT_GT(stat_of(self).evicted, 0ull);
}

TEST_F(mlp, no_room_for_one)
{
	struct pst_error err = {0};

	close_gpu(self);
	self->used = 0;
	make_expert(self, 0, 6);
	open_gpu(self, 12 << 10);
	EXPECT_EQ(-ENOMEM, pst_gpu_mlp_forward(self->mlp, self->job, self->at, 1, 1, &err));
	EXPECT_TRUE(strstr(err.text, "cuda:0") != NULL);
}

TEST_F(mlp, what_cannot_be)
{
	struct pst_mlp_job other[2];
	struct pst_error err = {0};
	static float elsewhere[ROWS * HIDDEN];

	make_expert(self, 0, 6);
	make_expert(self, 1, 6);
	memcpy(other, self->job, sizeof(other));
	other[1].inter = 48;
	EXPECT_EQ(-EINVAL, pst_gpu_mlp_forward(self->mlp, other, self->at, 2, 1, &err));
	err.code = 0;
	other[0].inter = 41;
	EXPECT_EQ(-EINVAL, pst_gpu_mlp_forward(self->mlp, other, self->at, 1, 1, &err));
	EXPECT_TRUE(strstr(err.text, "multiples of 8") != NULL);
	err.code = 0;
	EXPECT_EQ(-EINVAL, pst_gpu_mlp_forward(self->mlp, self->job, self->at, MOST + 1, 1, &err));
	err.code = 0;
	memcpy(other, self->job, sizeof(other));
	other[1].x = elsewhere;
	EXPECT_EQ(-EFAULT, pst_gpu_mlp_forward(self->mlp, other, self->at, 2, 1, &err));
	/* that one failed; the next does not */
	compute_on_cpu(self, 2);
	poison_results(self, 2);
	forward(self, 2, 1);
	expect_forward(self, 2);
}

/* The @nth call of @fn fails: an error, nothing lost, and the next call is right. False: there are
 * not so many. */
static bool fails(struct fixture_mlp *self, enum standin_call fn, uint32_t nth)
{
	struct pst_error err = {0};
	bool reached;
	int rc;

	for (size_t i = 0; i < 4; i += 2)
		pst_gpu_mlp_drop(self->mlp, &self->weights[i]);
	standin->fn[fn].fail_rc = CUDA_ERROR_INVALID_VALUE;
	standin->fn[fn].fail_in = nth;
	rc = pst_gpu_mlp_backward(self->mlp, self->job, self->at, 4, 1, &err);
	reached = !standin->fn[fn].fail_in;
	standin->fn[fn].fail_in = 0;
	EXPECT_EQ(reached ? -EINVAL : 0, rc);
	poison_results(self, 4);
	backward(self, 4, 1);
	expect_backward(self, 4);
	return reached;
}

TEST_F(mlp, any_call_fails)
{
	static const enum standin_call calls[] = {STANDIN_cuLaunchKernel, STANDIN_cuEventRecord,
						  STANDIN_cuStreamWaitEvent,
						  STANDIN_cuMemcpyBatchAsync};

	for (size_t i = 0; i < 4; i++)
		make_expert(self, i, 3);
	compute_on_cpu(self, 4);
	for (size_t k = 0; k < sizeof(calls) / sizeof(*calls); k++) {
		uint32_t nth = 1;

		while (fails(self, calls[k], nth))
			nth++;
		EXPECT_GT(nth, 3u);
	}
}

TEST_F(mlp, a_lost_gpu)
{
	struct pst_error err = {0};

	make_expert(self, 0, 6);
	forward(self, 1, 1);
	standin->gpu[0].sticky = CUDA_ERROR_ECC_UNCORRECTABLE;
	EXPECT_EQ(-EIO, pst_gpu_mlp_forward(self->mlp, self->job, self->at, 1, 1, &err));
	EXPECT_TRUE(strstr(err.text, "cuda:0") != NULL);
	err.code = 0;
	EXPECT_EQ(-EIO, pst_gpu_mlp_backward(self->mlp, self->job, self->at, 1, 1, &err));
	_exit(test_failed);
}

/* One that hangs is given up in time, and nothing that it may still touch is used again. */
TEST_F(mlp, a_gpu_that_hangs)
{
	struct pst_error err = {0};

	make_expert(self, 0, 6);
	close_gpu(self);
	standin_image(test_tmpdir(), "bf16", "to_bf16 hang\n");
	self->ms = 50;
	open_gpu(self, 16 * MIB);
	EXPECT_FALSE(pst_gpu_mlp_stuck(self->mlp));
	EXPECT_EQ(-ETIMEDOUT, pst_gpu_mlp_forward(self->mlp, self->job, self->at, 1, 1, &err));
	EXPECT_TRUE(pst_gpu_mlp_stuck(self->mlp));
	err.code = 0;
	EXPECT_EQ(-EIO, pst_gpu_mlp_forward(self->mlp, self->job, self->at, 1, 1, &err));
	EXPECT_TRUE(strstr(err.text, "hangs") != NULL);
	standin->gpu[0].release = 1;
	_exit(test_failed);
}

TEST(no_kernels)
{
	struct pst_error err = {0};
	struct pst_gpu_kernels *k;
	struct pst_gpu *gpu;
	char path[PATH_MAX];

	standin = standin_gpu(64 * MIB);
	ASSERT_OK(pst_gpu_open(0, &(struct pst_gpu_options){.size = sizeof(struct pst_gpu_options)},
			       &gpu, &err),
		  &err);
	ASSERT_OK(pst_gpu_kernels_open(gpu, test_tmpdir(), &k, &err), &err);
	EXPECT_EQ(-ENOENT, pst_gpu_kernels_load(k, PST_CUDA_to_bf16, &err));
	EXPECT_TRUE(strstr(err.text, "/bf16.fatbin") != NULL);
	err.code = 0;
	standin_image(test_tmpdir(), "bf16", "");
	EXPECT_LT(pst_gpu_kernels_load(k, PST_CUDA_to_bf16, &err), 0);
	EXPECT_TRUE(strstr(err.text, "to_bf16") != NULL);
	err.code = 0;
	snprintf(path, sizeof(path), "%s/rows.fatbin", test_tmpdir());
	ASSERT_EQ(0, mkdir(path, 0755));
	EXPECT_LT(pst_gpu_kernels_load(k, PST_CUDA_gather, &err), 0);
	pst_gpu_kernels_close(k);
	EXPECT_EQ(0, pst_gpu_close(gpu, &err));
}

TEST_MAIN
