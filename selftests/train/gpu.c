/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training and generation on a GPU, which is the stand-in's: its kernels are plain C, those of
 * experts in bf16 and the engine's in fp32. So this shows the way of weights, rows and gradients,
 * and what becomes of a GPU that fails. It shows nothing of a real GPU's numbers or speed.
 */
#include "runtime/launch/engine_gpu.h"
#include "runtime/launch/launch.h"
#include "selftests/gpu/engine.h"
#include "selftests/tools/program.h"

#include <math.h>

#define RUN                                                                                   \
	"penstock train --preset nano --data " TEXT " --steps 4 --batch 2 --seq 64 --seed 3 " \
	"--json - "
#define WRITE "--max-tokens 24 --temperature 0 --json - "

static struct standin *gpu(void)
{
	struct standin *s = standin_gpu(512ull << 20);

	standin_engine_images();
	return s;
}

static double loss_of(json_t *r)
{
	return number_of(r, "val_loss");
}

/* Runs on @device in all ways of @how have one digest; how far their loss is from a CPU's. */
static double off_by(const char *device, const char *const *how, size_t n)
{
	json_t *cpu = program_json(NULL, RUN);
	double want = loss_of(cpu), got = 0;
	char digest[32] = "";

	for (size_t i = 0; i < n; i++) {
		json_t *r = program_json(NULL, RUN "--device %s %s", device, how[i]);

		if (!i)
			snprintf(digest, sizeof(digest), "%s", digest_of(r));
		EXPECT_STREQ(digest, digest_of(r));
		EXPECT_TRUE(number_of(r, "worker_restarts") == 0);
		got = loss_of(r);
		json_decref(r);
	}
	EXPECT_TRUE(strcmp(digest_of(cpu), digest) != 0);
	json_decref(cpu);
	return fabs(got - want) / want;
}

/* The same loss but for bf16, the same bits from run to run and wherever the experts are. */
TEST(whole)
{
	static const char *const how[] = {"--workers 2", "--embedded --workers 1 --servers 2",
					  "--workers 1 --fabric tcp"};
	struct standin *s = gpu();

	EXPECT_TRUE(off_by("cuda:0", how, 3) < 0.005);
	EXPECT_GT((uint64_t)s->launches, 1000ull);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
}

/* An engine in fp32, with its experts on the cores, is as good as on them. */
TEST(engine_alone)
{
	static const char *const how[] = {"--workers 2 --threads 1",
					  "--embedded --servers 2 --threads 2 --fabric tcp"};
	struct standin *s = gpu();

	EXPECT_TRUE(off_by("cpu,cuda:0", how, 2) < 1e-5);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	/* it has let go of everything */
	EXPECT_EQ(0u, (uint32_t)s->registered);
	EXPECT_EQ(0u, (uint32_t)s->events);
	EXPECT_EQ(0u, (uint32_t)s->modules);
}

static char *written(const char *dir, const char *device)
{
	json_t *r = program_json(NULL, "penstock generate %s --prompt 'The ' " WRITE "--device %s",
				 dir, device);
	char *text = strdup(json_string_value(json_object_get(r, "text")));

	EXPECT_TRUE(number_of(r, "tokens") > 0);
	json_decref(r);
	return text;
}

/* The same text; a prompt and a byte at a time go the way of the cache. */
TEST(generation)
{
	static const char *const device[] = {"cpu,cuda:0", "cuda:0"};
	struct standin *s = gpu();
	char dir[PATH_MAX], *want;

	snprintf(dir, sizeof(dir), "%s/run", test_tmpdir());
	json_decref(program_json(NULL, RUN "--embedded --out %s", dir));
	want = written(dir, "cpu");
	EXPECT_EQ(0ull, (unsigned long long)s->launches);
	for (size_t i = 0; i < 2; i++) {
		char *got = written(dir, device[i]);

		EXPECT_STREQ(want, got);
		free(got);
	}
	EXPECT_GT((uint64_t)s->launches, 100ull);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	free(want);
}

/* A GPU that fails in the middle: its worker ends, another comes, no number changes. */
TEST(a_workers_gpu_fails)
{
	struct standin *s = gpu();
	json_t *r = program_json(NULL, RUN "--device cuda:0,cpu --workers 2");
	struct standin_fn *fn = &s->fn[STANDIN_cuLaunchKernel];
	char digest[32];

	snprintf(digest, sizeof(digest), "%s", digest_of(r));
	json_decref(r);

	fn->fail_rc = CUDA_ERROR_LAUNCH_FAILED;
	fn->fail_in = 40;
	r = program_json(NULL, RUN "--device cuda:0,cpu --workers 2");
	EXPECT_EQ(0u, (uint32_t)fn->fail_in);
	EXPECT_STREQ(digest, digest_of(r));
	EXPECT_TRUE(number_of(r, "worker_restarts") == 1);
	json_decref(r);
}

/* Who computes on one GPU is told how many do. */
TEST(who_shares)
{
	static const struct {
		const char *device, *engine;
	} is[] = {
		{NULL, ""},
		{"cpu", ""},
		{"cuda:0", "cuda:0/3"},
		{"cuda:0,cuda:0", "cuda:0/3"},
		{"cuda:0,cuda:1", "cuda:1"},
		{"cpu,cuda:0", "cuda:0"},
		{"cuda:0,cpu", ""},
		{"cuda:0/4", "cuda:0/4"},
	};

	for (size_t i = 0; i < sizeof(is) / sizeof(*is); i++) {
		struct pst_launch_options o = {.size = sizeof(o),
					       .servers = 1,
					       .workers = 2,
					       .device = is[i].device,
					       .embedded = true,
					       .node = -1};
		struct pst_error err = {0};
		struct pst_launch *l;

		ASSERT_OK(pst_launch_create(&o, &l, &err), &err);
		EXPECT_STREQ(is[i].engine, pst_launch_device(l));
		pst_launch_stop(l);
	}
}

/* That of an engine ends the run, with a sentence: when a launch, a copy, or a wait says so. */
TEST(an_engines_gpu_fails)
{
	static const enum standin_call call[] = {STANDIN_cuLaunchKernel, STANDIN_cuMemcpyBatchAsync,
						 STANDIN_cuStreamWaitEvent};
	struct standin *s = gpu();

	for (size_t i = 0; i < sizeof(call) / sizeof(*call); i++) {
		struct standin_fn *fn = &s->fn[call[i]];

		fn->fail_rc = CUDA_ERROR_LAUNCH_FAILED;
		fn->fail_in = 60;
		program_refused(NULL, 1, "only a new process can use the GPU again",
				RUN "--device cpu,cuda:0 --embedded");
		EXPECT_EQ(0u, (uint32_t)fn->fail_in);
	}
}

/* What a GPU that failed may still touch is not given back; of one that is well it is the caller's.
 */
TEST(left_behind)
{
	struct standin *s = gpu();

	for (int fails = 0; fails < 2; fails++) {
		struct pst_pool_options po = {
			.size = sizeof(po), .name = "left", .bytes = 4096, .node = PST_NODE_ANY};
		struct pst_engine_gpu *g;
		struct pst_fabric *fabric = NULL;
		struct pst_client *client = NULL;
		struct pst_pool *pool, *mine;
		struct pst_error err = {0};
		struct pst_compute *c;

		ASSERT_OK(pst_pool_create(&po, &pool, &err), &err);
		ASSERT_OK(pst_engine_gpu_open("cuda:0", &g, &err), &err);
		ASSERT_OK(pst_engine_gpu_reach_pool(g, pool, &err), &err);
		ASSERT_OK(pst_engine_gpu_reach_pool(g, pool, &err), &err);
		c = pst_engine_gpu_compute(g);
		s->fn[STANDIN_cuEventRecord].fail_rc = CUDA_ERROR_LAUNCH_FAILED;
		s->fn[STANDIN_cuEventRecord].fail_in = fails;
		EXPECT_EQ(fails ? -EIO : 0, c->op->wait(c));
		mine = pool;
		pst_engine_gpu_close(g, &pool, &client, &fabric);
		EXPECT_EQ(fails ? NULL : (void *)mine, (void *)pool);
		EXPECT_EQ(fails ? 1u : 0u, (uint32_t)s->registered);
		pst_pool_destroy(pool);
	}
}

TEST(too_little_memory)
{
	standin_gpu(1ull << 19);
	standin_engine_images();
	program_refused(NULL, 1, "do not fit on the GPU", RUN "--device cpu,cuda:0 --embedded");
}

TEST(what_is_not_there)
{
	setenv("PENSTOCK_CUDA_LIB", "/nonexistent/libcuda.so.1", 1);
	program_refused(NULL, 1, "/nonexistent/libcuda.so.1", RUN "--device cuda:0 --embedded");
	program_refused(NULL, 1, "/nonexistent/libcuda.so.1", RUN "--device cuda:0,cpu");
	program_refused(NULL, 1, "/nonexistent/libcuda.so.1", RUN "--device cpu,cuda:0");
	gpu();
	program_refused(NULL, 1, "cuda:7", RUN "--device cuda:7 --embedded");
	program_refused(NULL, 1, "cuda:", RUN "--device cuda: --embedded");
	program_refused(NULL, 1, "tpu", RUN "--device tpu --embedded");
	program_refused(NULL, 1, "lacks a part", RUN "--device cuda:0, --embedded");
	program_refused(NULL, 1, "started here",
			RUN "--device cuda:0,cpu --worker-at tcp://127.0.0.1:1 --servers 1");
	setenv("PENSTOCK_CUDA_KERNELS", "/nonexistent", 1);
	program_refused(NULL, 1, "/nonexistent/", RUN "--device cuda:0,cpu --embedded");
	program_refused(NULL, 1, "/nonexistent/", RUN "--device cpu,cuda:0 --embedded");
}

TEST_MAIN
