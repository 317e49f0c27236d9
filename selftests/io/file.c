/* SPDX-License-Identifier: Apache-2.0 */
/* Small files: read whole, replaced whole, and never torn. */
#include "runtime/io/file.h"
#include "runtime/io/safetensors.h"
#include "selftests/lib/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const char *in_dir(const char *name)
{
	static char path[8][512];
	static unsigned int next;
	char *p = path[next++ % 8];

	snprintf(p, 512, "%s/%s", test_tmpdir(), name);
	return p;
}

static unsigned int files_in(const char *dir)
{
	struct dirent *e;
	unsigned int n = 0;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	if (d)
		closedir(d);
	return n;
}

static int read_code(const char *path, const char *says)
{
	struct pst_error err = {0};
	char *text = NULL;
	size_t len = 0;
	int rc = pst_file_read(path, 1 << 20, &text, &len, &err);

	EXPECT_EQ(NULL, text);
	EXPECT_EQ(rc, err.code);
	EXPECT_TRUE(strstr(err.text, path));
	if (!strstr(err.text, says)) {
		EXPECT_STREQ(says, err.text);
	}
	return rc;
}

TEST(round_trip)
{
	const char *path = in_dir("f");
	struct pst_error err = {0};
	char *text;
	size_t len;

	ASSERT_OK(pst_file_replace(path, "hello", 5, &err), &err);
	ASSERT_OK(pst_file_read(path, 5, &text, &len, &err), &err);
	EXPECT_EQ(5u, len);
	EXPECT_STREQ("hello", text);
	free(text);
	ASSERT_OK(pst_file_replace(path, "", 0, &err), &err);
	ASSERT_OK(pst_file_read(path, 0, &text, &len, &err), &err);
	EXPECT_EQ(0u, len);
	EXPECT_STREQ("", text);
	free(text);
	EXPECT_EQ(1u, files_in(test_tmpdir()));
}

TEST(larger_than_max)
{
	const char *path = in_dir("f");
	struct pst_error err = {0};
	char *text = NULL;
	size_t len;

	ASSERT_OK(pst_file_replace(path, "hello", 5, &err), &err);
	EXPECT_EQ(-EFBIG, pst_file_read(path, 4, &text, &len, &err));
	EXPECT_EQ(NULL, text);
	EXPECT_TRUE(strstr(err.text, "larger than 4 bytes"));
}

/* Files in /proc say that they are empty. */
TEST(size_unknown)
{
	struct pst_error err = {0};
	char *text;
	size_t len;

	ASSERT_OK(pst_file_read("/proc/self/status", 1 << 20, &text, &len, &err), &err);
	EXPECT_TRUE(strstr(text, "VmRSS"));
	EXPECT_EQ(strlen(text), len);
	free(text);
	EXPECT_EQ(-EFBIG, pst_file_read("/proc/self/status", 100, &text, &len, NULL));
}

TEST(not_regular)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ASSERT_EQ(0, mkfifo(in_dir("fifo"), 0600));
	ASSERT_EQ(0, symlink("b", in_dir("a")));
	ASSERT_EQ(0, symlink("a", in_dir("b")));
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", in_dir("sock"));
	ASSERT_EQ(0, bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	EXPECT_EQ(-EINVAL, read_code("/dev/zero", "a character device"));
	EXPECT_EQ(-EINVAL, read_code(in_dir("fifo"), "a fifo"));
	EXPECT_EQ(-EINVAL, read_code(in_dir("sock"), "a socket"));
	EXPECT_EQ(-EINVAL, read_code(test_tmpdir(), "a directory"));
	EXPECT_EQ(-EINVAL, read_code(in_dir("a"), "circle"));
	EXPECT_EQ(-ENOENT, read_code(in_dir("none"), "No such file"));
	close(fd);
}

/* The flag that keeps open from hanging must not stay: with it io_uring does not wait. */
TEST(open_leaves_no_flags)
{
	struct pst_error err = {0};
	int fd;

	ASSERT_EQ(0, pst_file_replace(in_dir("f"), "x", 1, NULL));
	fd = pst_file_open(in_dir("f"), PST_FILE_REGULAR, NULL, &err);
	ASSERT_GE(fd, 0);
	EXPECT_EQ(0, fcntl(fd, F_GETFL) & O_NONBLOCK);
	close(fd);
}

TEST(wrong_arguments)
{
	char *text;
	size_t len;

	EXPECT_EQ(-EINVAL, pst_file_read(NULL, 1, &text, &len, NULL));
	EXPECT_EQ(-EINVAL, pst_file_read("/x", SIZE_MAX, &text, &len, NULL));
	EXPECT_EQ(-EINVAL, pst_file_replace(NULL, "", 0, NULL));
	EXPECT_EQ(-EINVAL, pst_file_replace(in_dir("f"), NULL, 1, NULL));
	EXPECT_EQ(0u, files_in(test_tmpdir()));
}

TEST(replace_refused)
{
	struct pst_error err = {0};

	EXPECT_EQ(-ENOENT, pst_file_replace(in_dir("none/f"), "x", 1, &err));
	EXPECT_TRUE(strstr(err.text, "directory"));
	EXPECT_EQ(-EINVAL, pst_file_replace(in_dir("f/"), "x", 1, NULL));
	ASSERT_EQ(0, mkdir(in_dir("d"), 0700));
	EXPECT_EQ(-EISDIR, pst_file_replace(in_dir("d"), "x", 1, NULL));
	EXPECT_EQ(1u, files_in(test_tmpdir()));
}

TEST(replace_keeps_mode)
{
	const char *path = in_dir("secret");
	struct stat st;

	umask(022);
	ASSERT_EQ(0, pst_file_replace(path, "x", 1, NULL));
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ(0644u, st.st_mode & 0777);
	ASSERT_EQ(0, chmod(path, 0600));
	ASSERT_EQ(0, pst_file_replace(path, "y", 1, NULL));
	ASSERT_EQ(0, stat(path, &st));
	EXPECT_EQ(0600u, st.st_mode & 0777);
}

/* What a link leads to is another's. */
TEST(replace_a_link)
{
	struct stat st;
	char *text;
	size_t len;

	ASSERT_EQ(0, pst_file_replace(in_dir("real"), "old", 3, NULL));
	ASSERT_EQ(0, symlink("real", in_dir("link")));
	ASSERT_EQ(0, pst_file_replace(in_dir("link"), "new", 3, NULL));
	ASSERT_EQ(0, lstat(in_dir("link"), &st));
	EXPECT_TRUE(S_ISREG(st.st_mode));
	ASSERT_EQ(0, pst_file_read(in_dir("real"), 10, &text, &len, NULL));
	EXPECT_STREQ("old", text);
	free(text);
}

static void write_too_much(const char *dir, const char *path, int code)
{
	size_t len = 1 << 20;
	char *text, *big = calloc(1, len);
	struct pst_error err = {0};

	ASSERT_EQ(0, pst_file_replace(path, "old", 3, NULL));
	EXPECT_EQ(code, pst_file_replace(path, big, len, &err));
	EXPECT_TRUE(strstr(err.text, "unchanged"));
	EXPECT_EQ(1u, files_in(dir));
	ASSERT_EQ(0, pst_file_read(path, 10, &text, &len, NULL));
	EXPECT_STREQ("old", text);
	free(text);
	free(big);
}

static void limit_size(void)
{
	struct rlimit limit = {.rlim_cur = 65536, .rlim_max = 65536};

	signal(SIGXFSZ, SIG_IGN);
	ASSERT_EQ(0, setrlimit(RLIMIT_FSIZE, &limit));
}

TEST(file_size_limit)
{
	limit_size();
	write_too_much(test_tmpdir(), in_dir("f"), -EFBIG);
}

TEST(drive_full)
{
	if (geteuid() || unshare(CLONE_NEWNS))
		SKIP("a small file system cannot be mounted", "sudo");
	ASSERT_EQ(0, mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	ASSERT_EQ(0, mount("none", test_tmpdir(), "tmpfs", 0, "size=128k"));
	write_too_much(test_tmpdir(), in_dir("f"), -ENOSPC);
	ASSERT_EQ(0, umount2(test_tmpdir(), MNT_DETACH));
}

static void in_chroot(void)
{
	ASSERT_EQ(0, chroot(in_dir("root")));
	ASSERT_EQ(0, chdir("/"));
	ASSERT_EQ(0, pst_file_replace("/f", "old", 3, NULL));
	limit_size();
	write_too_much("/", "/f", -EFBIG);
	_exit(test_failed);
}

/* Without /proc the temporary file must have a name, and lose it when writing fails. */
TEST(no_proc)
{
	int status;
	pid_t pid;

	if (geteuid())
		SKIP("chroot is not allowed", "sudo");
	ASSERT_EQ(0, mkdir(in_dir("root"), 0700));
	pid = fork();
	ASSERT_GE(pid, 0);
	/* A child, since leaks are looked for through /proc when a test ends. */
	if (!pid)
		in_chroot();
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

#define TORN (1u << 18)

static void write_for_ever(const char *path)
{
	char *data = malloc(TORN);

	for (int i = 0;; i++) {
		memset(data, 'a' + i % 26, TORN);
		if (pst_file_replace(path, data, TORN, NULL) < 0)
			_exit(1);
	}
}

static void expect_whole(const char *path)
{
	char *text;
	size_t len, same = 0;

	ASSERT_EQ(0, pst_file_read(path, TORN, &text, &len, NULL));
	ASSERT_EQ(TORN, len);
	while (same < len && text[same] == text[0])
		same++;
	EXPECT_EQ(len, same);
	free(text);
}

TEST(writer_killed)
{
	const char *path = in_dir("f");
	uint64_t seed = 1;
	char *first = malloc(TORN);
	int status;

	memset(first, 'A', TORN);
	ASSERT_EQ(0, pst_file_replace(path, first, TORN, NULL));
	free(first);
	for (int round = 0; round < 40; round++) {
		pid_t pid = fork();

		ASSERT_GE(pid, 0);
		if (!pid)
			write_for_ever(path);
		usleep(test_random(&seed) % 15000);
		expect_whole(path);
		kill(pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status));
		expect_whole(path);
	}
}

TEST_MAIN
