/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything is killed at random moments, mostly while checkpoints are written: what is on disk
 * opens, and goes on to the same bits as a run that was never disturbed.
 */
#include "selftests/tools/program.h"

#include <dirent.h>

#define STEPS 40
#define TRAIN "penstock train --data " TEXT " --steps 40 --json - "
#define SHAPE "--preset nano --batch 2 --seq 64 "
#define SAVES "--save-every 5 "

struct calm {
	char digest[32], dir[256];
	double ms;
};

static struct calm undisturbed(void)
{
	struct calm c;
	double began = now_ms();
	json_t *r = program_json(NULL, TRAIN SHAPE SAVES "--out %s", in_tmp("calm"));

	c.ms = now_ms() - began;
	strcpy(c.digest, digest_of(r));
	snprintf(c.dir, sizeof(c.dir), "%s", in_tmp("calm/step-%08d", STEPS));
	json_decref(r);
	return c;
}

static bool has_checkpoint(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool has = false;

	while (d && (e = readdir(d)))
		has |= !strncmp(e->d_name, "step-", 5);
	if (d)
		closedir(d);
	return has;
}

/* The engine, and unless @alone what it started, in an order by chance. */
static void kill_all(struct program *p, bool alone, uint64_t *seed)
{
	pid_t pid[16];
	struct ended e;
	int n = alone ? 0 : program_children(p->pid, "", pid, 15);

	pid[n++] = p->pid;
	for (; n > 0; n--) {
		int i = (int)(test_random(seed) % (unsigned int)n);

		kill(pid[i], SIGKILL);
		pid[i] = pid[n - 1];
	}
	program_wait(p, 10000, &e);
	ended_free(&e);
}

/* What is there opens, and goes on to the end. */
static void expect_resumes(const struct calm *c, const char *dir, const char *how)
{
	json_t *r = program_json(NULL, "penstock inspect %s --json -", dir);
	int from = (int)number_of(r, "step");

	EXPECT_EQ(0, from % 5);
	json_decref(r);
	r = program_json(NULL, TRAIN "--resume %s --out %s %s", dir, dir, how);
	if (strcmp(c->digest, digest_of(r))) {
		printf("# from step %d: digest %s, not %s\n", from, digest_of(r), c->digest);
		test_failed = true;
	}
	json_decref(r);
}

static void expect_same_weights(const struct calm *c, const char *dir)
{
	char end[300], file[2][400];
	const char *const name[] = {"model", "optimizer"};

	snprintf(end, sizeof(end), "%s/step-%08d", dir, STEPS);
	for (int i = 0; i < 2; i++) {
		snprintf(file[0], sizeof(file[0]), "%s/%s.safetensors", c->dir, name[i]);
		snprintf(file[1], sizeof(file[1]), "%s/%s.safetensors", end, name[i]);
		EXPECT_TRUE(same_files(file[0], file[1]));
	}
}

/* Moments are by chance, but every other one waits for a checkpoint that is being written. */
static void wait_for_moment(const struct program *p, const char *dir, const struct calm *c, int i,
			    uint64_t *seed)
{
	double part = (double)(test_random(seed) >> 11) * 0x1p-53;
	char tmp[400];

	if (i % 2 == 0) {
		sleep_ms(part * c->ms);
		return;
	}
	snprintf(tmp, sizeof(tmp), "%s/.step-%08d.tmp", dir, 5 + 5 * (i % 7));
	while (access(tmp, F_OK) && program_runs(p))
		sleep_ms(0.1);
	sleep_ms(4 * part);
}

TEST(killed_at_15_random_moments)
{
	struct calm c = undisturbed();
	uint64_t seed = 1;
	int resumed = 0;

	for (int i = 0; i < 15; i++) {
		const char *dir = in_tmp("out%d", i);
		struct program p;

		program_start(&p, NULL, TRAIN SHAPE SAVES "--out %s", dir);
		wait_for_moment(&p, dir, &c, i, &seed);
		kill_all(&p, i % 3 == 0, &seed);
		if (!has_checkpoint(dir)) {
			program_refused(NULL, 1, "", TRAIN "--resume %s", dir);
			program_refused(NULL, 1, "", "penstock inspect %s", dir);
			continue;
		}
		expect_resumes(&c, dir, "");
		expect_same_weights(&c, dir);
		resumed++;
	}
	printf("# %d of 15 had a checkpoint\n", resumed);
	EXPECT_GE(resumed, 7);
}

/* Two servers write two files: a checkpoint with one of them missing must never be seen. */
TEST(two_servers_resumed_by_another_number)
{
	static const char *const how[] = {"--servers 1 --workers 1 --embedded",
					  "--servers 1 --workers 3 --threads 1", "--servers 1",
					  "--servers 1 --workers 4 --threads 2"};
	struct calm c = undisturbed();
	uint64_t seed = 2;

	for (int i = 0; i < 4; i++) {
		const char *dir = in_tmp("two%d", i);
		struct program p;

		program_start(&p, NULL, TRAIN SHAPE SAVES "--servers 2 --out %s", dir);
		wait_for_moment(&p, dir, &c, 2 * i + 7, &seed);
		while (!has_checkpoint(dir) && program_runs(&p))
			sleep_ms(0.5);
		kill_all(&p, false, &seed);
		expect_resumes(&c, dir, how[i]);
		expect_same_weights(&c, dir);
	}
}

TEST(killed_again_and_again)
{
	struct calm c = undisturbed();
	const char *dir = in_tmp("again");
	uint64_t seed = 3;

	for (int i = 0; i < 6; i++) {
		struct program p;

		if (has_checkpoint(dir))
			program_start(&p, NULL, TRAIN SAVES "--servers %d --resume %s --out %s",
				      1 + i % 3, dir, dir);
		else
			program_start(&p, NULL, TRAIN SHAPE SAVES "--out %s", dir);
		sleep_ms((0.3 + 0.4 * (double)(test_random(&seed) >> 11) * 0x1p-53) * c.ms);
		kill_all(&p, false, &seed);
	}
	while (!has_checkpoint(dir))
		json_decref(program_json(NULL, TRAIN SHAPE SAVES "--out %s", dir));
	expect_resumes(&c, dir, "--servers 1");
	expect_same_weights(&c, dir);
}

/* A save leaves nothing of a killed one behind. */
TEST(leftovers_go_with_the_next_save)
{
	const char *dir = in_tmp("left");

	shell("mkdir -p %s/.step-00000003.tmp && echo half "
	      ">%s/.step-00000003.tmp/model.safetensors",
	      dir, dir);
	json_decref(program_json(NULL, TRAIN SHAPE SAVES "--out %s", dir));
	EXPECT_NE(0, access(in_tmp("left/.step-00000003.tmp"), F_OK));
	shell("test $(ls -A %s | wc -l) = 2", dir); /* --keep 2 */
}

TEST_MAIN
