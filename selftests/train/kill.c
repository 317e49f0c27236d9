/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who dies on the way changes nothing: workers are killed and stopped at random moments. And
 * what cannot be lost ends the run with a sentence, and nobody stays behind.
 */
#include "selftests/tools/program.h"

/* With a sanitizer, which is slow, the runs are shorter and fewer. */
#if SANITIZED
#define STEPS 16
#define MANY  "--steps 16 --workers 3 "
#define LONG  "--steps 60 --workers 2 "
#else
#define STEPS 40
#define MANY  "--steps 40 --workers 3 "
#define LONG  "--steps 200 --workers 2 "
#endif
#define TRAIN	 "penstock train --preset nano --data " TEXT " --batch 2 --seq 128 --json - "
#define TIMES(n) (SANITIZED ? ((n) + 3) / 4 : (n))

/*
 * A run is disturbed @n times, and on until @need were hit. Runs that are over before they are hit
 * come when the machine was busier while the undisturbed one was timed.
 */
static bool again(int i, int n, int hits, int need)
{
	return i < TIMES(n) || (hits < need && i < TIMES(n) + 12);
}

/* An undisturbed run: its digest, and how long it takes. */
struct calm {
	char digest[32];
	double ms;
};

static struct calm undisturbed(const char *options)
{
	double began = now_ms();
	json_t *r = program_json(NULL, TRAIN "%s", options);
	struct calm c = {.ms = now_ms() - began};

	EXPECT_TRUE(number_of(r, "worker_restarts") == 0);
	strcpy(c.digest, digest_of(r));
	json_decref(r);
	return c;
}

static double uniform(uint64_t *seed)
{
	return (double)(test_random(seed) >> 11) * 0x1p-53;
}

/* At least one process @name of @p; 0 when @p ended before. */
static int wait_for(const struct program *p, const char *name, pid_t *pid, int max)
{
	int n;

	while (!(n = program_children(p->pid, name, pid, max)) && program_runs(p))
		sleep_ms(1);
	return n;
}

/* The end of a run that was disturbed: the digest is as ever. Workers that were replaced. */
static int expect_calm(struct program *p, const struct calm *c)
{
	struct ended e;
	json_t *r;
	int restarts;

	program_wait(p, 60000, &e);
	r = json_loads(e.out, 0, NULL);
	if (e.code || strcmp(c->digest, digest_of(r))) {
		printf("# exit status %d, digest %s, not %s; stderr: %s\n", e.code, digest_of(r),
		       c->digest, e.err);
		test_failed = true;
		return 0;
	}
	restarts = (int)number_of(r, "worker_restarts");
	json_decref(r);
	ended_free(&e);
	return restarts;
}

/* Who was hit too late is a sign that runs are shorter by now: the next moments are earlier. */
static int kill_at(struct calm *c, const char *fabric, double ms, unsigned int victims,
		   uint64_t *seed)
{
	struct program p;
	pid_t pid[8];
	int n, first, restarts;

	program_start(&p, NULL, TRAIN MANY "--fabric %s", fabric);
	sleep_ms(ms);
	n = wait_for(&p, "penstock-worker", pid, 8);
	first = n ? (int)(test_random(seed) % (unsigned int)n) : 0;
	for (int i = 0; i < n && i < (int)victims; i++)
		kill(pid[(first + i) % n], SIGKILL);
	restarts = expect_calm(&p, c);
	c->ms *= restarts ? 1 : 0.85;
	return restarts;
}

TEST(one_worker_at_20_random_moments)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 1;
	int restarts = 0, hits = 0, i;

	for (i = 0; again(i, 20, hits, TIMES(20) / 4); i++) {
		int n = kill_at(&c, "shm", uniform(&seed) * c.ms, 1, &seed);

		EXPECT_LE(n, 1);
		hits += n > 0;
		restarts += n;
	}
	printf("# %d of %d were hit and replaced, %d in all\n", hits, i, restarts);
	EXPECT_GE(hits, TIMES(20) / 4);
}

/* The same where all is moved. */
static void over(const char *fabric, uint64_t seed)
{
	struct calm c = undisturbed(MANY);
	int restarts = 0;
	char options[64];

	snprintf(options, sizeof(options), MANY "--fabric %s", fabric);
	c.ms = undisturbed(options).ms;
	for (int i = 0; again(i, 6, restarts, 1); i++)
		restarts += kill_at(&c, fabric, uniform(&seed) * c.ms, 1 + i % 3, &seed);
	printf("# %d restarts\n", restarts);
	EXPECT_GE(restarts, 1);
}

TEST(over_shm_that_maps_nothing)
{
	over("shm?map=0", 11);
}

TEST(over_tcp)
{
	over("tcp", 12);
}

TEST(two_workers_at_once)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 2;
	int restarts = 0;

	for (int i = 0; again(i, 4, restarts, 1); i++)
		restarts += kill_at(&c, "shm", (0.3 + 0.5 * uniform(&seed)) * c.ms, 2, &seed);
	EXPECT_GE(restarts, 1);
}

TEST(all_workers_at_once)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 3;
	int restarts = 0;

	for (int i = 0; again(i, 1, restarts, 1); i++)
		restarts += kill_at(&c, "shm", 0.5 / (i + 1) * c.ms, 8, &seed);
	EXPECT_GE(restarts, 1);
}

TEST(one_after_the_other)
{
	struct calm c = undisturbed(LONG);
	struct program p;
	pid_t pid[8];
	uint64_t seed = 4;
	int kills = 0;

	program_start(&p, NULL, TRAIN LONG);
	while (kills < 8 && wait_for(&p, "penstock-worker", pid, 8)) {
		sleep_ms(0.08 * c.ms * uniform(&seed));
		kills += !kill(pid[kills % 2 && pid[1] ? 1 : 0], SIGKILL);
	}
	EXPECT_GE(expect_calm(&p, &c), kills / 2);
}

/* As soon as the process is there: before it listens, or before it is connected to. */
TEST(while_it_starts)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 5;

	for (int i = 0; i < TIMES(4); i++) {
		struct program p;
		pid_t pid[8];
		int n;

		program_start(&p, NULL, TRAIN MANY);
		n = wait_for(&p, "penstock-worker", pid, 8);
		ASSERT_GT(n, 0);
		sleep_ms(3 * uniform(&seed) * i);
		kill(pid[0], SIGKILL);
		EXPECT_EQ(1, expect_calm(&p, &c));
	}
}

/* The checkpoint of the step before tells that the last one is under way. */
TEST(in_the_last_step)
{
	struct calm c = undisturbed(MANY);
	const char *before = in_tmp("out/step-%08d", STEPS - 1);
	struct program p;
	pid_t pid[8];

	program_start(&p, NULL, TRAIN MANY "--save-every %d --out %s", STEPS - 1, in_tmp("out"));
	while (access(before, F_OK) && program_runs(&p))
		sleep_ms(0.2);
	for (int n = program_children(p.pid, "penstock-worker", pid, 8); n > 0; n--)
		kill(pid[n - 1], SIGKILL);
	EXPECT_GE(expect_calm(&p, &c), 1);
}

TEST(a_worker_that_is_stopped)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 6;
	int restarts = 0;

	for (int i = 0; again(i, 2, restarts, 1); i++) {
		struct program p;
		pid_t pid[8];

		program_start(&p, NULL, TRAIN MANY "--worker-timeout 1000");
		sleep_ms((0.2 + 0.5 * uniform(&seed)) * c.ms);
		if (wait_for(&p, "penstock-worker", pid, 8))
			kill(pid[0], SIGSTOP);
		restarts += expect_calm(&p, &c);
	}
	EXPECT_GE(restarts, 1);
}

/* What a server has cannot be had from anybody else. */
static void kill_server(double ms, int sig)
{
	struct program p;
	struct ended e;
	pid_t pid[8];
	char *end;

	program_start(&p, NULL, TRAIN "--steps 4000 --workers 2 --servers 2");
	sleep_ms(ms);
	ASSERT_GT(wait_for(&p, "penstock-ps", pid, 8), 0);
	kill(pid[0], sig);
	program_wait(&p, 30000, &e);
	EXPECT_EQ(1, e.code);
	end = strchr(e.err, '\n');
	if (strncmp(e.err, "penstock train: ", 16) || !strstr(e.err, "-ps") || !end || end[1]) {
		printf("# after %.1f ms: not one line that names the server: %s\n", ms, e.err);
		test_failed = true;
	}
	EXPECT_STREQ("", e.out);
	ended_free(&e);
}

TEST(a_server_ends_the_run)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 7;

	for (int i = 0; i < TIMES(6); i++)
		kill_server(uniform(&seed) * 2 * c.ms, SIGKILL);
	for (int i = 0; i < TIMES(8); i++) /* while it starts */
		kill_server(10 * i, SIGKILL);
	kill_server(c.ms, SIGTERM);
}

/* program_wait fails the test when somebody stays; stopped ones cannot see that they should go. */
TEST(nobody_outlives_the_engine)
{
	struct calm c = undisturbed(MANY);
	uint64_t seed = 8;

	for (int i = 0; i < TIMES(6); i++) {
		struct program p;
		struct ended e;

		program_start(&p, NULL, TRAIN "--steps 4000 --workers 4 --servers 2");
		sleep_ms(uniform(&seed) * 2 * c.ms);
		kill(p.pid, SIGKILL);
		program_wait(&p, 10000, &e);
		EXPECT_EQ(128 + SIGKILL, e.code);
		EXPECT_STREQ("", e.err);
		ended_free(&e);
	}
}

static void wait_for_step_1(struct program *p)
{
	struct ended e;
	char *said;

	while (!strstr(said = program_said(p), "step 1/")) {
		free(said);
		if (!program_runs(p)) {
			program_wait(p, 1000, &e);
			printf("# it ended before its first step: %d, %s\n", e.code, e.err);
			_exit(TEST_FAIL);
		}
		sleep_ms(1);
	}
	free(said);
}

static void interrupt(int sig)
{
	struct program p;
	struct ended e;
	json_t *r;
	char want[32];

	program_start(&p, NULL,
		      "penstock train --preset nano --data " TEXT
		      " --batch 2 --seq 128 --steps 200 --out %s",
		      in_tmp("out%d", sig));
	wait_for_step_1(&p);
	kill(p.pid, sig);
	program_wait(&p, 40000, &e);
	EXPECT_EQ(1, e.code);
	if (!strstr(e.err, "interrupted after step ") || !strstr(e.err, "--resume ") ||
	    !strstr(e.err, in_tmp("out%d", sig))) {
		printf("# does not say how to go on: %s\n", e.err);
		test_failed = true;
	}
	ended_free(&e);
	r = program_json(NULL, TRAIN "--embedded --steps 200");
	strcpy(want, digest_of(r));
	json_decref(r);
	r = program_json(NULL, "penstock train --data " TEXT " --steps 200 --json - --resume %s",
			 in_tmp("out%d", sig));
	EXPECT_STREQ(want, digest_of(r));
	EXPECT_TRUE(number_of(r, "steps") == 200);
	EXPECT_TRUE(number_of(r, "tokens") < 200 * 2 * 128);
	json_decref(r);
}

TEST(an_interrupt_saves_and_the_run_goes_on)
{
	interrupt(SIGINT);
}

TEST(so_does_a_request_to_end)
{
	interrupt(SIGTERM);
}

TEST_MAIN
