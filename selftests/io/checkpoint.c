/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of several files: the index, its shards, and when they disagree. */
#include "runtime/io/safetensors.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/stat.h>

static const uint8_t data[16] = {1, 2, 3, 4, 5, 6, 7, 8};

static const char *in_dir(const char *name)
{
	static char path[8][512];
	static unsigned int next;
	char *p = path[next++ % 8];

	snprintf(p, 512, "%s/%s", test_tmpdir(), name);
	return p;
}

static void shard(const char *file, const char *a, const char *b)
{
	const struct pst_tensor_source s[] = {{a, PST_U8, 1, {4}, data},
					      {b, PST_U8, 1, {2}, data + 4}};
	struct pst_error err = {0};

	ASSERT_OK(pst_safetensors_write(in_dir(file), s, b ? 2 : 1, &err), &err);
}

static void text(const char *file, const char *content)
{
	ASSERT_EQ(0, pst_file_replace(in_dir(file), content, strlen(content), NULL));
}

#define INDEX	 "model.safetensors.index.json"
#define MAP(map) text(INDEX, "{\"metadata\":{\"total_size\":1},\"weight_map\":{" map "}}")

static int open_code(const char *path, struct pst_error *err)
{
	struct pst_checkpoint *ckpt = NULL;
	int rc;

	memset(err, 0, sizeof(*err));
	rc = pst_checkpoint_open(path, "model", &ckpt, err);
	EXPECT_EQ(rc < 0, ckpt == NULL);
	EXPECT_EQ(rc, err->code);
	pst_checkpoint_close(ckpt);
	return rc;
}

static void expect_refused(int code, const char *says)
{
	struct pst_error err;

	EXPECT_EQ(code, open_code(test_tmpdir(), &err));
	if (!strstr(err.text, says))
		test_say(__FILE__, __LINE__, "\"%s\" lacks \"%s\"", err.text, says);
	EXPECT_TRUE(strstr(err.text, says));
}

TEST(index_written_and_read)
{
	const char *names[] = {"c", "a", "b"};
	const char *files[] = {"two", "one", "one"};
	struct pst_checkpoint *ckpt;
	struct pst_error err = {0};

	shard("one", "a", "b");
	shard("two", "c", NULL);
	ASSERT_OK(pst_safetensors_write_index(test_tmpdir(), "model", names, files, 3, 10, &err),
		  &err);
	ASSERT_OK(pst_checkpoint_open(test_tmpdir(), NULL, &ckpt, &err), &err);
	ASSERT_EQ(3u, pst_checkpoint_count(ckpt));
	EXPECT_STREQ("a", pst_checkpoint_at(ckpt, 0)->name);
	EXPECT_STREQ("b", pst_checkpoint_at(ckpt, 1)->name);
	EXPECT_STREQ("c", pst_checkpoint_at(ckpt, 2)->name);
	ASSERT_EQ(2u, pst_checkpoint_files(ckpt));
	EXPECT_STREQ(in_dir("one"),
		     pst_checkpoint_path(ckpt, pst_checkpoint_find(ckpt, "b")->file));
	EXPECT_STREQ(in_dir("two"),
		     pst_checkpoint_path(ckpt, pst_checkpoint_find(ckpt, "c")->file));
	EXPECT_EQ(4096u, pst_checkpoint_find(ckpt, "c")->offset);
	EXPECT_EQ(4100u, pst_checkpoint_find(ckpt, "b")->offset);
	pst_checkpoint_close(ckpt);
	/* the index by its own name */
	EXPECT_EQ(0, open_code(in_dir(INDEX), &err));
	EXPECT_EQ(0, open_code(in_dir("one"), &err));
}

TEST(stems)
{
	struct pst_checkpoint *ckpt = NULL;
	struct pst_error err = {0};

	shard("optimizer.safetensors", "m", "v");
	expect_refused(-ENOENT, "neither model.safetensors.index.json nor model.safetensors");
	ASSERT_OK(pst_checkpoint_open(test_tmpdir(), "optimizer", &ckpt, &err), &err);
	EXPECT_STREQ(in_dir("optimizer.safetensors"), pst_checkpoint_path(ckpt, 0));
	pst_checkpoint_close(ckpt);
}

TEST(index_wins)
{
	shard("model.safetensors", "a", NULL);
	MAP("\"a\":\"none\"");
	expect_refused(-ENOENT, "none is missing");
}

TEST(broken_index_is_not_passed_over)
{
	shard("model.safetensors", "a", NULL);
	ASSERT_EQ(0, symlink("nowhere", in_dir(INDEX)));
	expect_refused(-ENOENT, INDEX);
}

TEST(missing_shard)
{
	shard("one", "a", "b");
	MAP("\"a\":\"one\",\"b\":\"one\",\"c\":\"two\"");
	expect_refused(-ENOENT, "two is missing");
	expect_refused(-ENOENT, "tensor c");
}

TEST(shard_outside)
{
	static const char *const bad[] = {"../x", "/etc/passwd", "a/../../x", "..",  ".",
					  "",	  "a//b",	 "a/",	      "./a", "/"};
	char map[256];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(map, sizeof(map), "{\"weight_map\":{\"t\":\"%s\"}}", bad[i]);
		text(INDEX, map);
		expect_refused(-EINVAL, "not below the directory");
	}
}

/* Below the directory, and through links as the hub's cache has them, is fine. */
TEST(shard_in_subdirectory)
{
	struct pst_error err;

	ASSERT_EQ(0, mkdir(in_dir("sub"), 0700));
	shard("sub/..one", "a", NULL);
	ASSERT_EQ(0, symlink("sub/..one", in_dir("two")));
	MAP("\"a\":\"sub/..one\"");
	EXPECT_EQ(0, open_code(test_tmpdir(), &err));
	MAP("\"a\":\"two\"");
	EXPECT_EQ(0, open_code(test_tmpdir(), &err));
}

TEST(disagreement)
{
	shard("one", "a", "b");
	shard("two", "c", NULL);
	MAP("\"a\":\"one\",\"c\":\"two\"");
	expect_refused(-EINVAL, "holds tensor b, which");
	MAP("\"a\":\"one\",\"b\":\"one\",\"c\":\"two\",\"d\":\"two\"");
	expect_refused(-EINVAL, "tensor d is in two, which lacks it");
	MAP("\"a\":\"one\",\"aa\":\"one\",\"b\":\"one\",\"c\":\"two\"");
	expect_refused(-EINVAL, "tensor aa is in one, which lacks it");
	MAP("\"a\":\"one\",\"b\":\"two\",\"c\":\"two\"");
	expect_refused(-EINVAL, "tensor b is in two, but");
	MAP("\"b\":\"one\",\"a\":\"one\",\"c\":\"two\"");
	struct pst_error err;
	EXPECT_EQ(0, open_code(test_tmpdir(), &err));
}

TEST(in_two_shards)
{
	shard("one", "a", NULL);
	shard("two", "a", "b");
	MAP("\"a\":\"one\",\"b\":\"two\"");
	expect_refused(-EINVAL, "tensor a");
}

TEST(bad_index)
{
	text(INDEX, "");
	expect_refused(-EINVAL, "not valid JSON");
	text(INDEX, "{}");
	expect_refused(-EINVAL, "no weight_map");
	text(INDEX, "[]");
	expect_refused(-EINVAL, "no weight_map");
	text(INDEX, "{\"weight_map\":[]}");
	expect_refused(-EINVAL, "no weight_map");
	text(INDEX, "{\"weight_map\":{\"a\":1}}");
	expect_refused(-EINVAL, "not a string");
	text(INDEX, "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}");
	expect_refused(-EINVAL, "duplicate");
	text(INDEX, "{\"weight_map\":{\"a\":\"x\\u0000y\"}}");
	expect_refused(-EINVAL, "not valid JSON");
	ASSERT_EQ(0, unlink(in_dir(INDEX)));
	ASSERT_EQ(0, mkfifo(in_dir(INDEX), 0600));
	expect_refused(-EINVAL, "a fifo");
}

TEST(bad_shard_is_named)
{
	text("one", "12345678{}");
	MAP("\"a\":\"one\"");
	expect_refused(-EINVAL, in_dir("one"));
}

TEST(empty_index)
{
	struct pst_error err;

	text(INDEX, "{\"weight_map\":{}}");
	EXPECT_EQ(0, open_code(test_tmpdir(), &err));
}

TEST(write_index_refused)
{
	const char *names[] = {"a", "a"};
	const char *files[] = {"x", "y"};
	const char *bad[] = {"a", "\xff"};

	EXPECT_EQ(-EINVAL,
		  pst_safetensors_write_index(test_tmpdir(), "model", names, files, 2, 0, NULL));
	EXPECT_EQ(-EINVAL,
		  pst_safetensors_write_index(test_tmpdir(), "model", bad, files, 2, 0, NULL));
	EXPECT_EQ(-EINVAL,
		  pst_safetensors_write_index(test_tmpdir(), "model", files, bad, 2, 0, NULL));
	EXPECT_EQ(-EINVAL, pst_safetensors_write_index(NULL, "model", names, files, 1, 0, NULL));
	EXPECT_LT(access(in_dir(INDEX), F_OK), 0);
}

/* As many tensors as a large model has in all of its shards. */
TEST(many)
{
	enum { SHARDS = 20, EACH = 1000, ALL = SHARDS * EACH };
	struct pst_tensor_source *s = calloc(EACH, sizeof(*s));
	const char **names = calloc(ALL, sizeof(*names)), **files = calloc(ALL, sizeof(*files));
	struct pst_checkpoint *ckpt;
	struct pst_error err = {0};
	char *name;

	for (int i = 0; i < SHARDS; i++) {
		ASSERT_GT(asprintf(&name, "model-%05d.safetensors", i), 0);
		for (int j = 0; j < EACH; j++) {
			files[i * EACH + j] = name;
			ASSERT_GT(asprintf((char **)&names[i * EACH + j], "layers.%d.experts.%d", j,
					   i),
				  0);
			s[j] = (struct pst_tensor_source){
				names[i * EACH + j], PST_U8, 1, {1}, data};
		}
		ASSERT_OK(pst_safetensors_write(in_dir(name), s, EACH, &err), &err);
	}
	ASSERT_OK(pst_safetensors_write_index(test_tmpdir(), "model", names, files, ALL, ALL, &err),
		  &err);
	ASSERT_OK(pst_checkpoint_open(test_tmpdir(), NULL, &ckpt, &err), &err);
	EXPECT_EQ((size_t)ALL, pst_checkpoint_count(ckpt));
	for (int i = 0; i < ALL; i++) {
		const struct pst_tensor_info *t = pst_checkpoint_find(ckpt, names[i]);

		ASSERT_NE(NULL, t);
		EXPECT_STREQ(in_dir(files[i]), pst_checkpoint_path(ckpt, t->file));
	}
	pst_checkpoint_close(ckpt);
	for (int i = 0; i < ALL; i++)
		free((char *)names[i]);
	for (int i = 0; i < SHARDS; i++)
		free((char *)files[i * EACH]);
	free(names);
	free(files);
	free(s);
}

TEST_MAIN
