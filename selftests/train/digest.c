/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Placement never changes the numbers: the hash over every step's loss, whatever the number of
 * workers, servers and threads, as threads or as processes, with whichever compiler and sanitizer.
 */
#include "selftests/tools/program.h"

/*
 * What every build must get for SHAPE on TEXT. These change with the kernels, the model, the
 * initial values or the text (then take over what the tests say they got); never with a build.
 */
#define DIGEST_AVX2 "d97e04e763dd8c4f"
#define DIGEST_REF  "a7fff1a4d5ddb0d7"
/* Defaults may be tuned, so what changes the numbers is said here. */
#define SHAPE                                                                             \
	"--preset nano --data " TEXT " --steps 20 --batch 2 --seq 128 --lr 0.003 "        \
	"--warmup 50 --balance-alpha 0.001 --bias-rate 0.01 --clip 1 --weight-decay 0.1 " \
	"--beta1 0.9 --beta2 0.95 --eps 1e-8"

FIXTURE(placement)
{
	int unused;
};
FIXTURE_VARIANT(placement)
{
	const char *how;
};
FIXTURE_VARIANT_ADD(placement, embedded){"--embedded"};
#ifndef SANITIZED_THREADS /* they are all in the other one's process, too */
FIXTURE_VARIANT_ADD(placement, processes){""};
#endif
FIXTURE_SETUP(placement)
{
	(void)self;
}
FIXTURE_TEARDOWN(placement)
{
	(void)self;
}

static bool avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static const char *expected(void)
{
	return avx2() ? DIGEST_AVX2 : DIGEST_REF;
}

static void expect_digest(const char *want, const char *command)
{
	json_t *r = program_json(NULL, "penstock train " SHAPE " --json - %s", command);

	if (strcmp(want, digest_of(r))) {
		printf("# %s: %s is not %s\n", command, digest_of(r), want);
		test_failed = true;
	}
	EXPECT_TRUE(number_of(r, "worker_restarts") == 0);
	json_decref(r);
}

TEST_F(placement, workers_servers_threads)
{
	/* with a sanitizer, the corners only: it is slow */
	for (int workers = 1; workers <= 4; workers *= SANITIZED ? 4 : 2)
		for (int servers = 1; servers <= 2; servers++)
			for (int threads = SANITIZED ? 2 : 1; threads <= 2; threads++) {
				char command[96];

				snprintf(command, sizeof(command),
					 "--workers %d --servers %d --threads %d %s", workers,
					 servers, threads, variant->how);
				expect_digest(expected(), command);
			}
}

TEST_F(placement, more_of_them_than_experts_and_cores)
{
	char command[64];

	snprintf(command, sizeof(command), "--workers 9 --servers 5 --threads 7 %s", variant->how);
	expect_digest(expected(), command);
}

/* Where nothing can be mapped, all is moved; where it is moved to changes nothing. */
TEST(fabrics)
{
	static const char *const fabric[] = {"shm?map=0", "tcp", "tcp?crc=0&conns=3",
					     "tcp?io=epoll"};

	for (size_t i = 0; i < sizeof(fabric) / sizeof(*fabric); i += SANITIZED ? 3 : 1) {
		char command[128];

		snprintf(command, sizeof(command), "--fabric %s --workers 3 --servers 2",
			 fabric[i]);
		expect_digest(expected(), command);
		snprintf(command, sizeof(command), "--fabric %s --embedded", fabric[i]);
		expect_digest(expected(), command);
	}
}

TEST(the_default_seed_is_1)
{
	expect_digest(expected(), "--seed 1");
}

/* What must change the numbers does. */
static void expect_another(const char *command)
{
	json_t *r = program_json(NULL, "penstock train " SHAPE " --embedded --json - %s", command);

	if (!strcmp(expected(), digest_of(r))) {
		printf("# the same digest with %s\n", command);
		test_failed = true;
	}
	json_decref(r);
}

TEST(another_run_has_another_digest)
{
	expect_another("--seed 2");
	if (SANITIZED) /* the same code with other numbers */
		return;
	expect_another("--steps 19");
	expect_another("--lr 0.0031");
	expect_another("--batch 3");
	expect_another("--beta2 0.951");
	expect_another("--balance-alpha 0.1");
	expect_another("--bias-rate 0.1");
	expect_another("--clip 0.5");
	expect_another("--weight-decay 3");
}

TEST(plain_c_kernels)
{
	static const struct how ref = {.kernels = "ref"};
	json_t *r = program_json(&ref, "penstock train " SHAPE " --json - --workers 2 --threads 2");

	EXPECT_STREQ(DIGEST_REF, digest_of(r));
	json_decref(r);
	r = program_json(&ref, "penstock train " SHAPE " --json - --embedded --workers 3");
	EXPECT_STREQ(DIGEST_REF, digest_of(r));
	json_decref(r);
}

TEST_MAIN
