/* SPDX-License-Identifier: Apache-2.0 */
/* Disks that are full or closed, and too little memory, files or locked memory: one clear line. */
#include "selftests/tools/program.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define TRAIN "penstock train --preset nano --data " TEXT " --steps 4 --batch 2 --seq 64 --json - "

static const struct how nobody = {.uid = NOBODY};

/* What is not root runs the programs and reads the text only where everybody may. */
static void as_nobody(void)
{
	struct ended e;

	if (getuid())
		SKIP("not root, so nobody else's limits can be tried", "sudo make check");
	ASSERT_EQ(0, chmod(test_tmpdir(), 0777));
	e = program_run_how(&nobody, TRAIN "--embedded");
	if (e.code == 127 || (e.code && strstr(e.err, "Permission denied")))
		SKIP("the build folder is not open to others",
		     "make check O=/tmp/penstock, from a tree that everybody may read");
	EXPECT_EQ(0, e.code);
	ended_free(&e);
}

TEST(nowhere_to_write)
{
	as_nobody();
	shell("mkdir -m 755 %s", in_tmp("closed"));
	program_refused(&nobody, 1, "closed", TRAIN "--out %s", in_tmp("closed"));
	program_refused(&nobody, 1, "closed/below", TRAIN "--out %s", in_tmp("closed/below"));
	program_refused(&nobody, 1, "closed/r.json", TRAIN "--embedded --json %s",
			in_tmp("closed/r.json"));
	write_file(in_tmp("file"), "x", 1);
	program_refused(NULL, 1, "file", TRAIN "--out %s", in_tmp("file"));
	program_refused(NULL, 1, "file/below", TRAIN "--out %s", in_tmp("file/below"));
	program_refused(NULL, 1, "/proc", TRAIN "--out /proc/penstock");
	shell("test -z \"$(ls -A %s)\"", in_tmp("closed"));
}

/* It is closed after it was looked at. */
TEST(an_out_directory_that_goes)
{
	struct program p;
	struct ended e;

	program_start(&p, NULL,
		      "penstock train --preset nano --data " TEXT
		      " --steps 100000 --batch 2 --seq 64 --save-every 1 --out %s",
		      in_tmp("out"));
	while (access(in_tmp("out/step-00000002"), F_OK) && program_runs(&p))
		sleep_ms(1);
	shell("mv %s %s && touch %s", in_tmp("out"), in_tmp("gone"), in_tmp("out"));
	program_wait(&p, 20000, &e);
	EXPECT_EQ(1, e.code);
	EXPECT_TRUE(strstr(e.err, in_tmp("out")) != NULL);
	EXPECT_TRUE(strchr(e.err, '\n') && !strchr(e.err, '\n')[1]);
	ended_free(&e);
}

static void expect_resumes(const char *dir, uint32_t step)
{
	json_t *r = program_json(NULL, "penstock inspect %s --json -", dir);

	EXPECT_TRUE(number_of(r, "step") == step);
	json_decref(r);
	json_decref(program_json(
		NULL, "penstock train --data " TEXT " --steps 6 --json - --resume %s", dir));
}

/* Nothing but whole checkpoints. */
static void expect_no_halves(const char *dir)
{
	shell("test -z \"$(ls -A %s | grep -v '^step-[0-9]*$')\"", dir);
}

TEST(a_full_disk)
{
	const char *disk = in_tmp("disk");

	ASSERT_EQ(0, mkdir(disk, 0777));
	/* of this process's own, so that it goes with it */
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", disk, "tmpfs", 0, "size=1100k"))
		SKIP("no file system can be mounted here", "sudo make check");
	/* one checkpoint fits, a second does not */
	json_decref(program_json(NULL, TRAIN "--out %s/out", disk));
	program_refused(NULL, 1, "No space left",
			"penstock train --data " TEXT
			" --steps 5 --json - --resume %s/out --out %s/out",
			disk, disk);
	expect_no_halves(in_tmp("disk/out"));
	expect_resumes(in_tmp("disk/out"), 4);
	program_refused(NULL, 1, "No space left",
			"penstock train --data " TEXT
			" --steps 5 --json - --servers 2 --resume %s/out --out %s/out",
			disk, disk);
	expect_no_halves(in_tmp("disk/out"));
	expect_resumes(in_tmp("disk/out"), 4);
	shell("head -c 2000000 /dev/zero >%s/fill 2>/dev/null; true", disk);
	program_refused(NULL, 1, "No space left", TRAIN "--embedded --json %s/r.json", disk);
}

/* A file may grow to some size only: as a full disk, for those who are not root. */
TEST(files_that_may_not_grow)
{
	static const struct how small = {.limit_of = RLIMIT_FSIZE, .limit = 100000};
	struct ended e;

	json_decref(program_json(NULL, TRAIN "--embedded --out %s", in_tmp("out")));
	e = program_run_how(&small,
			    "penstock train --data " TEXT
			    " --steps 5 --json - --embedded --resume %s --out %s",
			    in_tmp("out"), in_tmp("out"));
	EXPECT_EQ(1, e.code);
	EXPECT_EQ(0, strncmp(e.err, "penstock train: ", 16));
	expect_no_halves(in_tmp("out"));
	expect_resumes(in_tmp("out"), 4);
	ended_free(&e);
}

TEST(no_memory_may_be_locked)
{
	static const struct how small = {.uid = NOBODY, .limit_of = RLIMIT_MEMLOCK, .limit = 65536};
	static const char *const how[] = {"--embedded", "--workers 2"};
	json_t *r;

	SKIP_WITH_HUGE_PAGES();
	as_nobody();
	r = program_json(NULL, TRAIN);
	for (int i = 0; i < 2; i++) {
		json_t *same = program_json(&small, TRAIN "%s", how[i]);
		struct ended e = program_run_how(&small,
						 "penstock train --preset nano --data " TEXT
						 " --steps 4 --batch 2 --seq 64 %s",
						 how[i]);

		EXPECT_TRUE(json_equal(json_object_get(r, "loss_digest"),
				       json_object_get(same, "loss_digest")));
		EXPECT_EQ(0, e.code);
		EXPECT_TRUE(strstr(e.out, "note: ") != NULL);
		EXPECT_TRUE(strstr(e.out, "ulimit -l") || strstr(e.out, "memlock"));
		EXPECT_STREQ("", e.err);
		ended_free(&e);
		json_decref(same);
		program_refused(&small, 1, "lock", TRAIN "--lock 2 %s", how[i]);
	}
	json_decref(r);
}

TEST(unlocked_by_choice)
{
	static const char *const how[] = {"--embedded", "--workers 2 --servers 2"};

	SKIP_WITH_HUGE_PAGES();
	for (int i = 0; i < 2; i++) {
		struct ended e = program_run("penstock train --preset nano --data " TEXT
					     " --steps 2 --batch 2 --seq 64 --lock 0 %s",
					     how[i]);

		EXPECT_EQ(0, e.code);
		EXPECT_TRUE(strstr(e.out, ", locked") == NULL);
		ended_free(&e);
	}
}

/* Any number of files and any size of memory: done, or one line and no crash. */
static void any_limit(int limit_of, rlim_t limit, const char *how)
{
	struct how small = {.limit_of = limit_of, .limit = limit};
	struct ended e = program_run_how(&small, TRAIN "%s", how);
	const char *end = strchr(e.err, '\n');

	if ((e.code && e.code != 1) ||
	    (e.code == 1 && (strncmp(e.err, "penstock train: ", 16) || !end || end[1]))) {
		printf("# limit %llu, %s: exit status %d, %s\n", (unsigned long long)limit, how,
		       e.code, e.err);
		test_failed = true;
	}
	ended_free(&e);
}

TEST(few_files)
{
	for (rlim_t n = 8; n < 64; n += n < 24 ? 2 : 8) {
		any_limit(RLIMIT_NOFILE, n, "--embedded");
		any_limit(RLIMIT_NOFILE, n, "--workers 2 --servers 2");
	}
}

TEST(little_memory)
{
	if (SANITIZED)
		SKIP("a sanitizer needs the address space", "make quick");
	for (rlim_t mb = 16; mb <= 512; mb += mb / 4) {
		any_limit(RLIMIT_AS, mb << 20, "--embedded");
		any_limit(RLIMIT_AS, mb << 20, "--workers 2 --servers 2");
	}
}

TEST_MAIN
