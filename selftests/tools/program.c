/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/tools/program.h"

#include "selftests/lib/sanitized.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <penstock/wire.h>
#include <poll.h>
#include <stdarg.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#define RUN_MS	   60000
#define ORPHANS_MS 10000

double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

void sleep_ms(double ms)
{
	struct timespec t = {(time_t)(ms / 1e3), (long)((ms - 1e3 * (time_t)(ms / 1e3)) * 1e6)};

	nanosleep(&t, NULL);
}

const char *in_tmp(const char *fmt, ...)
{
	static char path[8][PATH_MAX];
	static unsigned int turn;
	char *at = path[turn++ % 8];
	int n = snprintf(at, PATH_MAX, "%s/", test_tmpdir());
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(at + n, (size_t)(PATH_MAX - n), fmt, ap);
	va_end(ap);
	return at;
}

void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	ASSERT_NE(NULL, f);
	ASSERT_EQ(len, fwrite(data, 1, len, f));
	ASSERT_EQ(0, fclose(f));
}

static char *read_fd(int fd, size_t *len)
{
	struct stat st;
	char *data;

	ASSERT_EQ(0, fstat(fd, &st));
	data = malloc((size_t)st.st_size + 1);
	ASSERT_EQ(st.st_size, pread(fd, data, (size_t)st.st_size, 0));
	data[st.st_size] = 0;
	if (len)
		*len = (size_t)st.st_size;
	return data;
}

char *read_file(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *data;

	if (fd < 0) {
		printf("# %s: %s\n", path, strerror(errno));
		_exit(TEST_FAIL);
	}
	data = read_fd(fd, len);
	close(fd);
	return data;
}

bool same_files(const char *a, const char *b)
{
	size_t na, nb;
	char *da = read_file(a, &na), *db = read_file(b, &nb);
	bool same = na == nb && !memcmp(da, db, na);

	free(da);
	free(db);
	return same;
}

void shell(const char *fmt, ...)
{
	char command[4096];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	if (system(command)) {
		printf("# failed: %s\n", command);
		_exit(TEST_FAIL);
	}
}

/* This test is FOLDER/selftests/AREA/NAME. */
static void find_program(char path[PATH_MAX], const char *name)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = 0;
	for (int up = 0; up < 3; up++)
		*strrchr(self, '/') = 0;
	ASSERT_LT(snprintf(path, PATH_MAX, "%s/%s", self, name), PATH_MAX);
}

/* Cuts @line into words, in place. */
static void split(char *line, char **word, int max)
{
	int n = 0;

	for (char *p = line; *p;) {
		char end = ' ';

		while (*p == ' ')
			p++;
		if (!*p)
			break;
		if (*p == '\'')
			end = *p++;
		ASSERT_LT(n, max - 1);
		word[n++] = p;
		p = strchrnul(p, end);
		if (*p)
			*p++ = 0;
	}
	word[n] = NULL;
}

static void adapt(const struct how *how)
{
	struct rlimit limit = {how->limit, how->limit};

	if (how->kernels)
		setenv("PENSTOCK_KERNELS", how->kernels, 1);
	if (how->out && !strcmp(how->out, "-"))
		close(STDOUT_FILENO);
	else if (how->out)
		dup2(open(how->out, O_WRONLY), STDOUT_FILENO);
	if (how->limit && setrlimit((__rlimit_resource_t)how->limit_of, &limit))
		_exit(125);
	if (how->hide &&
	    (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	     mount("none", how->hide, "tmpfs", 0, NULL)))
		_exit(125);
	if (how->uid && (setgid(how->uid) || setuid(how->uid)))
		_exit(125);
}

/* Programs that were started and not waited for; whoever else is there was left behind. */
static pid_t started[16];

static bool is_started(pid_t pid)
{
	for (size_t i = 0; i < sizeof(started) / sizeof(*started); i++)
		if (started[i] == pid)
			return true;
	return false;
}

static void set_started(pid_t from, pid_t to)
{
	for (size_t i = 0; i < sizeof(started) / sizeof(*started); i++)
		if (started[i] == from) {
			started[i] = to;
			return;
		}
	ASSERT_TRUE(!"no room for another program");
}

static void start(struct program *p, const struct how *how)
{
	char line[sizeof(p->command)], path[PATH_MAX], *word[128];

	strcpy(line, p->command);
	split(line, word, 128);
	find_program(path, word[0]);
	p->out = memfd_create("stdout", MFD_CLOEXEC);
	p->err = memfd_create("stderr", MFD_CLOEXEC);
	/* who is left behind comes to us */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	fflush(stdout);
	p->pid = fork();
	ASSERT_GE(p->pid, 0);
	if (p->pid) {
		set_started(0, p->pid);
		return;
	}
	dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
	dup2(p->out, STDOUT_FILENO);
	dup2(p->err, STDERR_FILENO);
	if (how)
		adapt(how);
	execv(path, word);
	_exit(127);
}

#define FORMAT(p, fmt)                                                        \
	do {                                                                  \
		va_list ap_;                                                  \
		int n_;                                                       \
		va_start(ap_, fmt);                                           \
		n_ = vsnprintf((p)->command, sizeof((p)->command), fmt, ap_); \
		va_end(ap_);                                                  \
		ASSERT_LT(n_, (int)sizeof((p)->command));                     \
	} while (0)

void program_start(struct program *p, const struct how *how, const char *fmt, ...)
{
	FORMAT(p, fmt);
	start(p, how);
}

char *program_said(const struct program *p)
{
	return read_fd(p->out, NULL);
}

static bool ended_within(pid_t pid, int timeout_ms)
{
	struct pollfd p = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
	bool ended;

	ASSERT_GE(p.fd, 0);
	ended = poll(&p, 1, timeout_ms) == 1;
	close(p.fd);
	return ended;
}

bool program_runs(const struct program *p)
{
	return !ended_within(p->pid, 0);
}

/* Everybody else that the program started, by now a child of this process. */
static bool all_gone(int timeout_ms)
{
	double end = now_ms() + timeout_ms;

	while (now_ms() < end) {
		pid_t pid[64];
		int n = program_children(getpid(), "", pid, 64), left = 0;

		for (int i = 0; i < n; i++)
			left += !is_started(pid[i]) && !waitpid(pid[i], NULL, WNOHANG);
		if (!left)
			return true;
		sleep_ms(2);
	}
	return false;
}

static void kill_rest(void)
{
	pid_t pid[64];
	int n = program_children(getpid(), "", pid, 64);

	for (int i = 0; i < n; i++)
		if (!is_started(pid[i]))
			kill(pid[i], SIGKILL);
	all_gone(ORPHANS_MS);
}

/*
 * Without what is not the program's: when it ends, the leak checker of a sanitizer looks for all
 * threads and says so where the kernel has not yet removed one that has ended and was joined.
 */
static char *without_the_checker(char *err)
{
	static const char end[] = "Unable to get registers from thread ";
	char *line = err, *next;

	for (; SANITIZED && *line; line = next) {
		char *said = strstr(line, end);

		next = strchr(line, '\n');
		next = next ? next + 1 : line + strlen(line);
		if (strncmp(line, "==", 2) || !said || said >= next)
			continue;
		memmove(line, next, strlen(next) + 1);
		next = line;
	}
	return err;
}

void program_wait(struct program *p, int timeout_ms, struct ended *e)
{
	bool late = !ended_within(p->pid, timeout_ms);
	int status;

	if (late) {
		printf("# after %d ms it still runs: %s\n", timeout_ms, p->command);
		kill(p->pid, SIGKILL);
	}
	ASSERT_EQ(p->pid, waitpid(p->pid, &status, 0));
	set_started(p->pid, 0);
	if (!all_gone(ORPHANS_MS)) {
		printf("# left processes behind: %s\n", p->command);
		test_failed = true;
		kill_rest();
	}
	e->code = late			? -1
		  : WIFEXITED(status)	? WEXITSTATUS(status)
		  : WIFSIGNALED(status) ? 128 + WTERMSIG(status)
					: -1;
	e->out = read_fd(p->out, NULL);
	e->err = without_the_checker(read_fd(p->err, NULL));
	close(p->out);
	close(p->err);
}

/* The line that says where it listens, without its beginning and its end. */
static bool heard(const struct program *p, char *url, size_t len)
{
	char *said = program_said(p), *end = strchr(said, '\n');
	size_t head = strlen(PST_LISTENS);
	bool whole = end && !strncmp(said, PST_LISTENS, head);

	if (whole) {
		*end = 0;
		ASSERT_LT((size_t)snprintf(url, len, "%s", said + head), len);
	}
	free(said);
	return whole;
}

void program_serve(struct program *p, char *url, size_t len, const struct how *how, const char *fmt,
		   ...)
{
	double end = now_ms() + RUN_MS;
	struct ended e;

	FORMAT(p, fmt);
	start(p, how);
	while (!heard(p, url, len)) {
		if (!program_runs(p) || now_ms() > end) {
			program_end(p, SIGKILL, &e);
			printf("# %s\n# does not listen: exit status %d, %s\n", p->command, e.code,
			       e.err);
			_exit(TEST_FAIL);
		}
		sleep_ms(2);
	}
}

void program_end(struct program *p, int sig, struct ended *e)
{
	struct ended mine;

	kill(p->pid, sig);
	program_wait(p, RUN_MS, &mine);
	if (e) {
		*e = mine;
		return;
	}
	if (mine.code && mine.code != 128 + sig) {
		printf("# %s\n# exit status %d: %s\n", p->command, mine.code, mine.err);
		test_failed = true;
	}
	ended_free(&mine);
}

void ended_free(struct ended *e)
{
	free(e->out);
	free(e->err);
}

struct ended program_run(const char *fmt, ...)
{
	struct program p;
	struct ended e;

	FORMAT(&p, fmt);
	start(&p, NULL);
	program_wait(&p, RUN_MS, &e);
	return e;
}

struct ended program_run_how(const struct how *how, const char *fmt, ...)
{
	struct program p;
	struct ended e;

	FORMAT(&p, fmt);
	start(&p, how);
	program_wait(&p, RUN_MS, &e);
	return e;
}

/* Name and parent of process @pid. */
static pid_t parent_of(const char *pid, char name[32])
{
	char path[64], line[512] = "", *open_, *close_;
	int fd, parent = -1;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	if (read(fd, line, sizeof(line) - 1) <= 0)
		line[0] = 0;
	close(fd);
	open_ = strchr(line, '(');
	close_ = strrchr(line, ')');
	if (!open_ || !close_ || sscanf(close_, ") %*c %d", &parent) != 1)
		return -1;
	snprintf(name, 32, "%.*s", (int)(close_ - open_ - 1), open_ + 1);
	return parent;
}

int program_children(pid_t parent, const char *name, pid_t *pid, int max)
{
	DIR *proc = opendir("/proc");
	struct dirent *d;
	char comm[32];
	int n = 0;

	ASSERT_NE(NULL, proc);
	while ((d = readdir(proc)) && n < max)
		if (isdigit((unsigned char)d->d_name[0]) && parent_of(d->d_name, comm) == parent &&
		    !strncmp(comm, name, strlen(name)))
			pid[n++] = atoi(d->d_name);
	closedir(proc);
	return n;
}

/* What is wrong with a refusal, or NULL. */
static const char *flaw(const struct ended *e, int code, const char *text)
{
	const char *end = strchr(e->err, '\n');

	if (e->code != code)
		return "exit status";
	if (strncmp(e->err, "penstock", 8) || !strstr(e->err, ": "))
		return "a line that says who speaks";
	if (!end || end[1])
		return "one line and no more";
	if (!strstr(e->err, text))
		return "what is wrong";
	if (strstr(e->out, "loss_digest"))
		return "no result";
	return NULL;
}

void program_refused(const struct how *how, int code, const char *text, const char *fmt, ...)
{
	struct program p;
	struct ended e;
	const char *what;

	FORMAT(&p, fmt);
	start(&p, how);
	program_wait(&p, 20000, &e);
	what = flaw(&e, code, text);
	if (what) {
		printf("# %s\n# exit status %d, wanted %d; on stderr, wanted: %s\n# %s\n# lacks: "
		       "%s\n",
		       p.command, e.code, code, text, e.err, what);
		test_failed = true;
	}
	ended_free(&e);
}

json_t *program_json(const struct how *how, const char *fmt, ...)
{
	struct program p;
	json_error_t why;
	struct ended e;
	json_t *root;

	FORMAT(&p, fmt);
	start(&p, how);
	program_wait(&p, RUN_MS, &e);
	root = e.code ? NULL : json_loads(e.out, JSON_REJECT_DUPLICATES, &why);
	if (!root) {
		printf("# %s\n# exit status %d, stderr: %s# stdout: %.300s\n", p.command, e.code,
		       e.err, e.out);
		_exit(TEST_FAIL);
	}
	ended_free(&e);
	return root;
}

const char *digest_of(const json_t *result)
{
	static char digest[32];
	const char *s = json_string_value(json_object_get(result, "loss_digest"));

	snprintf(digest, sizeof(digest), "%s", s ? s : "none");
	return digest;
}

double number_of(const json_t *result, const char *key)
{
	const json_t *v = json_object_get(result, key);

	if (!json_is_number(v)) {
		printf("# %s is no number in the result\n", key);
		test_failed = true;
	}
	return json_number_value(v);
}
