/* SPDX-License-Identifier: Apache-2.0 */
/* Which files are taken as a key, and that HMAC-SHA256 is what everybody else's is. */
#include "rdma/secret.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define LETTERS "0123456789abcdef0123456789abcdef"

static char path[256];

static const char *make(const char *name, const void *bytes, size_t len, mode_t mode)
{
	int fd;

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	ASSERT_EQ((ssize_t)len, write(fd, bytes, len));
	ASSERT_EQ(0, fchmod(fd, mode));
	close(fd);
	return path;
}

static struct pst_secret *taken(const char *file)
{
	struct pst_secret *s = NULL;
	struct pst_error err = {0};

	ASSERT_OK(pst_secret_read(file, &s, &err), &err);
	ASSERT_TRUE(s != NULL);
	return s;
}

static void refused(int code, const char *file, const char *why)
{
	struct pst_secret *mark = (struct pst_secret *)(uintptr_t)0x10, *s = mark;
	struct pst_error err = {0};

	EXPECT_EQ(code, pst_secret_read(file, &s, &err));
	EXPECT_EQ(code, err.code);
	EXPECT_TRUE(s == mark);
	if (!strstr(err.text, why)) {
		printf("# \"%s\" does not say \"%s\"\n", err.text, why);
		test_failed = true;
	}
	EXPECT_EQ(code, pst_secret_read(file, &s, NULL));
}

/* The MAC of @text by the key in @file, in hexadecimal. */
static const char *mac_of(const char *file, const char *text, size_t len)
{
	static char hex[65];
	struct pst_secret *s = taken(file);
	unsigned char mac[32];

	ASSERT_EQ(0, pst_secret_sign(s, &(struct pst_piece){text, len}, 1, mac));
	for (int i = 0; i < 32; i++)
		sprintf(hex + 2 * i, "%02x", mac[i]);
	pst_secret_free(s);
	return hex;
}

/* RFC 4231, test cases 3, 4 and 6: those whose keys are long enough for us. */
TEST(known_macs)
{
	char key[131], data[50];

	memset(key, 0xaa, sizeof(key));
	memset(data, 0xdd, sizeof(data));
	EXPECT_STREQ("773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
		     mac_of(make("k", key, 20, 0600), data, 50));
	for (int i = 0; i < 25; i++)
		key[i] = (char)(i + 1);
	memset(data, 0xcd, sizeof(data));
	EXPECT_STREQ("82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
		     mac_of(make("k", key, 25, 0600), data, 50));
	memset(key, 0xaa, sizeof(key));
	EXPECT_STREQ("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
		     mac_of(make("k", key, 131, 0600),
			    "Test Using Larger Than Block-Size Key - Hash Key First", 54));
}

TEST(pieces_are_one_text)
{
	struct pst_secret *s = taken(make("k", LETTERS, 32, 0600));
	const struct pst_piece three[] = {{"ab", 2}, {NULL, 0}, {"c", 1}};
	unsigned char a[32], b[32];

	ASSERT_EQ(0, pst_secret_sign(s, three, 3, a));
	ASSERT_EQ(0, pst_secret_sign(s, &(struct pst_piece){"abc", 3}, 1, b));
	EXPECT_FALSE(memcmp(a, b, 32));
	ASSERT_EQ(0, pst_secret_sign(s, &(struct pst_piece){"abd", 3}, 1, b));
	EXPECT_TRUE(memcmp(a, b, 32));
	pst_secret_free(s);
	pst_secret_free(NULL);
}

TEST(white_space_at_the_end)
{
	char plain[65];

	snprintf(plain, sizeof(plain), "%s", mac_of(make("k", LETTERS, 32, 0600), "x", 1));
	EXPECT_STREQ(plain, mac_of(make("k", LETTERS "\n", 33, 0600), "x", 1));
	EXPECT_STREQ(plain, mac_of(make("k", LETTERS " \t\r\n\n", 37, 0600), "x", 1));
	EXPECT_TRUE(strcmp(plain, mac_of(make("k", " " LETTERS, 33, 0600), "x", 1)));
	EXPECT_TRUE(strcmp(plain, mac_of(make("k", LETTERS "\1", 33, 0600), "x", 1)));
}

TEST(sizes)
{
	char key[4097];

	memset(key, 'k', sizeof(key));
	pst_secret_free(taken(make("k", key, 16, 0600)));
	pst_secret_free(taken(make("k", key, 4096, 0600)));
	refused(-EINVAL, make("k", key, 4097, 0600), "more than 4096");
	refused(-EINVAL, make("k", key, 15, 0600), "15 bytes, it takes 16");
	refused(-EINVAL, make("k", "", 0, 0600), "0 bytes");
	/* the new line is no part of it */
	refused(-EINVAL, make("k", "0123456789abcde\n", 16, 0600), "15 bytes");
}

TEST(modes)
{
	static const mode_t good[] = {0600, 0400, 0700},
			    bad[] = {0640, 0620, 0604, 0602, 0610, 0601, 0666, 0440};
	char mode[16];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		pst_secret_free(taken(make("k", LETTERS, 32, good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(mode, sizeof(mode), "mode %04o", bad[i]);
		refused(-EACCES, make("k", LETTERS, 32, bad[i]), mode);
		refused(-EACCES, path, "chmod 600");
	}
}

TEST(owners)
{
	if (geteuid())
		SKIP("only root can give files away", "as root");
	make("k", LETTERS, 32, 0600);
	ASSERT_EQ(0, chown(path, 65534, (gid_t)-1));
	refused(-EACCES, path, "belongs to user 65534");
	refused(-EACCES, path, "chown 0");

	/* another one's, for whom it is */
	ASSERT_EQ(0, chmod(test_tmpdir(), 0755));
	ASSERT_EQ(0, seteuid(65534));
	pst_secret_free(taken(path));
	ASSERT_EQ(0, seteuid(0));
}

TEST(no_files)
{
	char name[300];

	snprintf(name, sizeof(name), "%s/none", test_tmpdir());
	refused(-ENOENT, name, "to make one: (umask 077");
	refused(-ENOENT, name, name);
	refused(-EINVAL, test_tmpdir(), "not a file");
	refused(-EINVAL, "/dev/null", "not a file");
	snprintf(name, sizeof(name), "%s/fifo", test_tmpdir());
	ASSERT_EQ(0, mkfifo(name, 0600));
	refused(-EINVAL, name, "not a file");
}

/* The command in the sentence really makes a key. */
TEST(command_works)
{
	char name[300], shell[700];
	struct pst_error err = {0};
	struct pst_secret *s;
	const char *from;

	snprintf(name, sizeof(name), "%s/a/b/key", test_tmpdir());
	ASSERT_EQ(-ENOENT, pst_secret_read(name, &s, &err));
	from = strchr(err.text, '(');
	ASSERT_TRUE(from && strchr(from, ')'));
	snprintf(shell, sizeof(shell), "%.*s", (int)(strchr(from, ')') - from + 1), from);
	ASSERT_EQ(0, system(shell));
	pst_secret_free(taken(name));
}

TEST(usual_places)
{
	char dir[300], a[65];

	ASSERT_EQ(0, setenv("HOME", test_tmpdir(), 1));
	ASSERT_EQ(0, unsetenv("PENSTOCK_KEY"));
	refused(-ENOENT, "", "/.config/penstock/key");
	snprintf(dir, sizeof(dir), "%s/.config", test_tmpdir());
	ASSERT_EQ(0, mkdir(dir, 0700));
	snprintf(dir, sizeof(dir), "%s/.config/penstock", test_tmpdir());
	ASSERT_EQ(0, mkdir(dir, 0700));
	make(".config/penstock/key", LETTERS, 32, 0600);
	snprintf(a, sizeof(a), "%s", mac_of("", "x", 1));
	EXPECT_STREQ(a, mac_of(path, "x", 1));

	make("other", LETTERS LETTERS, 64, 0600);
	ASSERT_EQ(0, setenv("PENSTOCK_KEY", path, 1));
	EXPECT_TRUE(strcmp(a, mac_of("", "x", 1)));
	ASSERT_EQ(0, setenv("PENSTOCK_KEY", "", 1));
	EXPECT_STREQ(a, mac_of("", "x", 1));
	/* one that is named and not there is not replaced by another */
	ASSERT_EQ(0, setenv("PENSTOCK_KEY", "/nowhere/key", 1));
	refused(-ENOENT, "", "/nowhere/key");
	ASSERT_EQ(0, unsetenv("PENSTOCK_KEY"));
	ASSERT_EQ(0, unsetenv("HOME"));
	refused(-ENOENT, "", "PENSTOCK_KEY");
}

TEST(memfds)
{
	int fd = memfd_create("key", MFD_CLOEXEC);

	ASSERT_EQ(32, write(fd, LETTERS, 32));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	/* as the kernel makes them everybody may */
	refused(-EACCES, path, "chmod");
	ASSERT_EQ(0, fchmod(fd, 0600));
	pst_secret_free(taken(path));
	/* again, although the fd was read and written */
	pst_secret_free(taken(path));
	close(fd);
}

TEST_MAIN
