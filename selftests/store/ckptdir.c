/* SPDX-License-Identifier: Apache-2.0 */
/* A directory of checkpoints: each whole or not there, whatever happens meanwhile. */
#include "runtime/store/ckptdir.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/stat.h>

FIXTURE(dir)
{
	char out[PATH_MAX], path[PATH_MAX];
	struct pst_error err;
};

FIXTURE_SETUP(dir)
{
	char name[PATH_MAX];

	snprintf(name, sizeof(name), "%s/a/b", test_tmpdir());
	ASSERT_OK(pst_ckptdir_prepare(name, self->out, &self->err), &self->err);
}

FIXTURE_TEARDOWN(dir)
{
}

static void write_file(const char *dir, const char *name, uint32_t value)
{
	char path[PATH_MAX + 16];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)sizeof(value), write(fd, &value, sizeof(value)));
	close(fd);
}

static uint32_t read_file(const char *dir, const char *name)
{
	char path[PATH_MAX + 16];
	uint32_t value = UINT32_MAX;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, &value, sizeof(value)) != sizeof(value))
		value = UINT32_MAX;
	close(fd);
	return value;
}

/* A checkpoint in three files that all hold @value; the config comes first on purpose. */
static void fill(const char *tmp, uint32_t value)
{
	write_file(tmp, "config.json", value);
	write_file(tmp, "model.safetensors", value);
	write_file(tmp, "optimizer.safetensors", value);
}

static int save(const char *out, uint32_t step, uint32_t value, uint32_t keep, char path[PATH_MAX],
		struct pst_error *err)
{
	char tmp[PATH_MAX];
	int rc = pst_ckptdir_begin(out, step, tmp, err);

	if (rc < 0)
		return rc;
	fill(tmp, value);
	return pst_ckptdir_commit(out, step, tmp, keep, path, err);
}

/* The value of the whole checkpoint that is found, UINT32_MAX when it is torn. */
static uint32_t found(struct fixture_dir *self)
{
	char path[PATH_MAX];
	uint32_t v;

	memset(&self->err, 0, sizeof(self->err));
	ASSERT_OK(pst_ckptdir_find(self->out, path, &self->err), &self->err);
	v = read_file(path, "config.json");
	return v == read_file(path, "model.safetensors") &&
			       v == read_file(path, "optimizer.safetensors")
		       ? v
		       : UINT32_MAX;
}

static bool there(struct fixture_dir *self, const char *name)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s/%s", self->out, name);
	return !access(path, F_OK);
}

TEST_F(dir, the_last_step_is_found)
{
	ASSERT_OK(save(self->out, 9, 9, 0, self->path, &self->err), &self->err);
	ASSERT_OK(save(self->out, 100000000, 1, 0, self->path, &self->err), &self->err);
	ASSERT_OK(save(self->out, 10, 10, 0, self->path, &self->err), &self->err);
	/* by number, not by name */
	EXPECT_EQ(1u, found(self));
}

TEST_F(dir, a_checkpoint_is_found_as_itself)
{
	char path[PATH_MAX];

	ASSERT_OK(save(self->out, 3, 3, 0, self->path, &self->err), &self->err);
	ASSERT_OK(pst_ckptdir_find(self->path, path, &self->err), &self->err);
	EXPECT_STREQ(self->path, path);
}

TEST_F(dir, what_is_none_is_not_found)
{
	const char *const other[] = {"step-",		"step-5",	  "step-00000005x",
				     "step-+0000005",	"xstep-00000005", ".step-00000005.tmp",
				     "step-99999999999"};
	char path[PATH_MAX + 64], at[PATH_MAX] = "untouched";

	for (size_t i = 0; i < sizeof(other) / sizeof(*other); i++) {
		snprintf(path, sizeof(path), "%s/%s", self->out, other[i]);
		ASSERT_EQ(0, mkdir(path, 0755));
	}
	EXPECT_EQ(-ENOENT, pst_ckptdir_find(self->out, at, &self->err));
	EXPECT_NE(NULL, strstr(self->err.text, "no checkpoint there"));
	EXPECT_STREQ("untouched", at);
	memset(&self->err, 0, sizeof(self->err));
	EXPECT_EQ(-ENOENT, pst_ckptdir_find("/nowhere/at/all", at, &self->err));
	write_file(self->out, "file", 1);
	snprintf(path, sizeof(path), "%s/file", self->out);
	memset(&self->err, 0, sizeof(self->err));
	EXPECT_EQ(-ENOTDIR, pst_ckptdir_find(path, at, &self->err));
	EXPECT_NE(NULL, strstr(self->err.text, "not a directory"));
}

/* A step-N without a config is no checkpoint, as the sentence says. */
TEST_F(dir, a_step_without_a_config_is_passed_over)
{
	char path[PATH_MAX + 64];

	ASSERT_OK(save(self->out, 3, 3, 0, self->path, &self->err), &self->err);
	snprintf(path, sizeof(path), "%s/step-00000007", self->out);
	ASSERT_EQ(0, mkdir(path, 0755));
	EXPECT_EQ(3u, found(self));
}

TEST_F(dir, the_last_ones_are_kept)
{
	for (uint32_t step = 1; step <= 5; step++)
		ASSERT_OK(save(self->out, step, step, 2, self->path, &self->err), &self->err);
	EXPECT_EQ(5u, found(self));
	EXPECT_TRUE(there(self, "step-00000004"));
	EXPECT_FALSE(there(self, "step-00000003"));
	EXPECT_FALSE(there(self, "step-00000001"));
}

/* A run that resumed from an older step keeps what it saves. */
TEST_F(dir, what_was_just_saved_is_kept)
{
	ASSERT_OK(save(self->out, 8, 8, 1, self->path, &self->err), &self->err);
	ASSERT_OK(save(self->out, 5, 5, 1, self->path, &self->err), &self->err);
	EXPECT_EQ(5u, read_file(self->path, "config.json"));
}

TEST_F(dir, the_same_step_again_replaces_it)
{
	ASSERT_OK(save(self->out, 4, 1, 0, self->path, &self->err), &self->err);
	ASSERT_OK(save(self->out, 4, 2, 0, self->path, &self->err), &self->err);
	EXPECT_EQ(2u, found(self));
	EXPECT_FALSE(there(self, ".step-00000004.tmp"));
}

TEST_F(dir, what_a_killed_run_left_is_removed)
{
	char tmp[PATH_MAX];

	ASSERT_OK(pst_ckptdir_begin(self->out, 4, tmp, &self->err), &self->err);
	fill(tmp, 4);
	ASSERT_OK(pst_ckptdir_begin(self->out, 5, tmp, &self->err), &self->err);
	EXPECT_FALSE(there(self, ".step-00000004.tmp"));
	EXPECT_TRUE(there(self, ".step-00000005.tmp"));
	/* the very same one too */
	write_file(tmp, "old", 1);
	ASSERT_OK(pst_ckptdir_begin(self->out, 5, tmp, &self->err), &self->err);
	EXPECT_FALSE(there(self, ".step-00000005.tmp/old"));
	pst_ckptdir_abort(tmp);
	EXPECT_FALSE(there(self, ".step-00000005.tmp"));
}

TEST_F(dir, what_cannot_be_written_is_named)
{
	char path[PATH_MAX + 64], absolute[PATH_MAX], tmp[PATH_MAX];

	write_file(self->out, "file", 1);
	snprintf(path, sizeof(path), "%s/file/below", self->out);
	EXPECT_EQ(-ENOTDIR, pst_ckptdir_prepare(path, absolute, &self->err));
	EXPECT_NE(NULL, strstr(self->err.text, path));
	memset(&self->err, 0, sizeof(self->err));
	EXPECT_EQ(-EINVAL, pst_ckptdir_prepare("", absolute, &self->err));
	memset(&self->err, 0, sizeof(self->err));
	EXPECT_EQ(-ENOENT, pst_ckptdir_begin("/nowhere/at/all", 1, tmp, &self->err));
	EXPECT_NE(NULL, strstr(self->err.text, "cannot be made"));
}

static void save_for_ever(const char *out, uint32_t from)
{
	char path[PATH_MAX];

	for (uint32_t step = from;; step++)
		for (uint32_t again = 0; again < 2; again++)
			if (save(out, step, 2 * step + again, 1 + step % 2, path, NULL) < 0)
				_exit(TEST_FAIL);
}

/* Killed at any moment: what is found is whole, and no older than what was found before. */
TEST_F(dir, a_kill_at_any_moment_leaves_a_whole_one)
{
	uint64_t random = 20;
	uint32_t last = 2, moved = 0;

	ASSERT_OK(save(self->out, 1, 2, 0, self->path, &self->err), &self->err);
	for (int kills = 0; kills < 40; kills++) {
		uint32_t v;
		pid_t pid = fork();

		ASSERT_LE(0, pid);
		if (!pid)
			save_for_ever(self->out, last / 2 + 1);
		usleep((useconds_t)(test_random(&random) % 8000));
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		v = found(self);
		ASSERT_NE(UINT32_MAX, v);
		ASSERT_LE(last / 2, v / 2);
		moved += v > last;
		last = v;
	}
	EXPECT_LT(0u, moved);
	printf("# 40 kills, %u with new checkpoints, the last step is %u\n", moved, last / 2);
}

TEST_MAIN
