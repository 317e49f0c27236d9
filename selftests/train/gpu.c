/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training with experts on a GPU, which is the stand-in's: its kernels are plain C, in bf16, so
 * this shows the way of rows, weights and gradients, and what becomes of a worker whose GPU fails.
 * It shows nothing of a real GPU's numbers or speed.
 */
#include "selftests/gpu/worker.h"
#include "selftests/tools/program.h"

#define RUN                                                                                   \
	"penstock train --preset nano --data " TEXT " --steps 6 --batch 2 --seq 64 --seed 3 " \
	"--json - "

static struct standin *gpu(void)
{
	struct standin *s = standin_gpu(512ull << 20);

	standin_images();
	return s;
}

static double loss_of(json_t *r)
{
	return number_of(r, "val_loss");
}

/* The same loss but for bf16, the same bits from run to run and wherever the experts are. */
TEST(as_on_a_cpu)
{
	static const char *const how[] = {"--workers 2", "--embedded --workers 1 --servers 2",
					  "--workers 1 --fabric tcp"};
	json_t *cpu = program_json(NULL, RUN);
	char digest[32] = "";
	double loss = 0;
	struct standin *s = gpu();

	for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
		json_t *r = program_json(NULL, RUN "--device cuda:0 %s", how[i]);

		if (!i)
			snprintf(digest, sizeof(digest), "%s", digest_of(r));
		EXPECT_STREQ(digest, digest_of(r));
		loss = loss_of(r);
		EXPECT_TRUE(number_of(r, "worker_restarts") == 0);
		json_decref(r);
	}
	EXPECT_TRUE(strcmp(digest_of(cpu), digest) != 0);
	EXPECT_TRUE(loss < loss_of(cpu) * 1.005);
	EXPECT_TRUE(loss > loss_of(cpu) * 0.995);
	EXPECT_GT((uint64_t)s->launches, 100ull);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	json_decref(cpu);
}

/* A GPU that fails in the middle: its worker ends, another comes, no number changes. */
TEST(a_gpu_fails)
{
	struct standin *s = gpu();
	json_t *r = program_json(NULL, RUN "--device cuda:0 --workers 2");
	struct standin_fn *fn = &s->fn[STANDIN_cuLaunchKernel];
	char digest[32];

	snprintf(digest, sizeof(digest), "%s", digest_of(r));
	json_decref(r);

	fn->fail_rc = CUDA_ERROR_LAUNCH_FAILED;
	fn->fail_in = 40;
	r = program_json(NULL, RUN "--device cuda:0 --workers 2");
	EXPECT_EQ(0u, (uint32_t)fn->fail_in);
	EXPECT_STREQ(digest, digest_of(r));
	EXPECT_TRUE(number_of(r, "worker_restarts") == 1);
	json_decref(r);
}

TEST(what_is_not_there)
{
	setenv("PENSTOCK_CUDA_LIB", "/nonexistent/libcuda.so.1", 1);
	program_refused(NULL, 1, "/nonexistent/libcuda.so.1", RUN "--device cuda:0 --embedded");
	program_refused(NULL, 1, "/nonexistent/libcuda.so.1", RUN "--device cuda:0");
	gpu();
	program_refused(NULL, 1, "cuda:7", RUN "--device cuda:7 --embedded");
	program_refused(NULL, 1, "cuda:", RUN "--device cuda: --embedded");
	program_refused(NULL, 1, "tpu", RUN "--device tpu --embedded");
	program_refused(NULL, 1, "started here",
			RUN "--device cuda:0 --worker-at tcp://127.0.0.1:1 --servers 1");
	setenv("PENSTOCK_CUDA_KERNELS", "/nonexistent", 1);
	program_refused(NULL, 1, "/nonexistent/", RUN "--device cuda:0 --embedded");
}

TEST_MAIN
