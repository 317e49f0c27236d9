/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The n-th allocation of the daemon fails, for every n: when it begins, and while it serves a
 * script of commands. Each time it says -ENOMEM and nothing else, does not leak, and serves the
 * same script right afterwards. The daemon runs in a process of this test, whose malloc fails on
 * demand.
 */
#include "daemon/log.h"
#include "daemon/parts.h"
#include "selftests/control/table.h"
#include "runtime/penstock.h"
#include "selftests/lib/sanitized.h"
#include "selftests/lib/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define MANY 5000 /* no script needs as many allocations */
#define STEP (SANITIZED ? 7 : 1)

/* Seen by both processes. */
static struct {
	atomic_int left; /* allocations that succeed before one fails; negative: none fails */
	atomic_bool failed;
	atomic_int pid; /* whose allocations */
} * nth;

static bool fails(void)
{
	if (!nth || atomic_load(&nth->pid) != getpid() || atomic_load(&nth->left) < 0)
		return false;
	if (atomic_fetch_sub(&nth->left, 1))
		return false;
	atomic_store(&nth->failed, true);
	errno = ENOMEM;
	return true;
}

void *__real_malloc(size_t len);
void *__real_calloc(size_t n, size_t len);
void *__real_realloc(void *p, size_t len);
void *__real_aligned_alloc(size_t align, size_t len);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t len);
void *__wrap_calloc(size_t n, size_t len);
void *__wrap_realloc(void *p, size_t len);
void *__wrap_aligned_alloc(size_t align, size_t len);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t len)
{
	return fails() ? NULL : __real_malloc(len);
}

void *__wrap_calloc(size_t n, size_t len)
{
	return fails() ? NULL : __real_calloc(n, len);
}

void *__wrap_realloc(void *p, size_t len)
{
	return fails() ? NULL : __real_realloc(p, len);
}

void *__wrap_aligned_alloc(size_t align, size_t len)
{
	return fails() ? NULL : __real_aligned_alloc(align, len);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

/* From the next one on that this process makes; -1: none. */
static void arm(int n)
{
	atomic_store(&nth->failed, false);
	atomic_store(&nth->left, n);
}

static void *json_malloc(size_t len)
{
	return malloc(len);
}

/* The daemon. */

struct host {
	struct penstockd d;
	struct loop_source end;
};

static void end_ready(struct loop_source *src, uint32_t events)
{
	struct host *host = (struct host *)((char *)src - offsetof(struct host, end));

	(void)events;
	loop_end(host->d.loop);
}

static void configure(struct penstockd *d, const char *folder)
{
	config_defaults(&d->config);
	snprintf(d->config.socket, sizeof(d->config.socket), "%s/door.sock", folder);
	d->config.metrics[0] = '\0';
	d->config.group[0] = '\0';
}

static void quiet(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (!getenv("PENSTOCK_TEST_LOG"))
		dup2(null, STDERR_FILENO);
	close(null);
	log_begin("penstockd");
}

/* Until the other end of @end is closed. Exit as a program does, so that leaks are looked for. */
static void run_daemon(const char *folder, int end)
{
	static struct host host;
	struct pst_error err = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	atomic_store(&nth->pid, getpid());
	quiet();
	configure(&host.d, folder);
	host.end.fd = end;
	host.end.ready = end_ready;
	if (parts_open(&host.d, &err) || loop_watch(host.d.loop, &host.end, EPOLLIN)) {
		printf("# %s\n", err.text);
		exit(1);
	}
	loop_run(host.d.loop);
	loop_unwatch(host.d.loop, &host.end);
	parts_close(&host.d, true);
	exit(0);
}

FIXTURE(nth)
{
	pid_t pid;
	int end;
	char socket[108];
};
/* Programs of this build are two folders above the test. */
static void find_programs(void)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	setenv("PENSTOCK_BIN", dirname(dirname(dirname(self))), 1);
}

FIXTURE_SETUP(nth)
{
	int end[2];

	find_programs();

	json_set_alloc_funcs(json_malloc, free);
	nth = mmap(NULL, sizeof(*nth), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)nth);
	atomic_store(&nth->left, -1);
	snprintf(self->socket, sizeof(self->socket), "%s/door.sock", test_tmpdir());
	ASSERT_EQ(0, pipe2(end, O_CLOEXEC));
	fflush(stdout);
	self->pid = fork();
	ASSERT_GE(self->pid, 0);
	if (!self->pid) {
		close(end[1]);
		run_daemon(test_tmpdir(), end[0]);
	}
	close(end[0]);
	self->end = end[1];
	/* it says whose allocations are meant, and must not say so after a test has */
	while (atomic_load(&nth->pid) != self->pid)
		usleep(1000);
}
FIXTURE_TEARDOWN(nth)
{
	int status = 0;

	close(self->end);
	ASSERT_EQ(self->pid, waitpid(self->pid, &status, 0));
	EXPECT_EQ(0, status);
}

static int fds_of(pid_t pid)
{
	char path[64];
	DIR *dir;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	ASSERT_NE(NULL, dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* What of the script came out as it does when there is memory. */
struct script {
	struct pst_control *control;
	int done, refused; /* -ENOMEM with a sentence */
};

static int call(struct script *s, uint32_t cmd, void *arg, int want)
{
	struct pst_error err = {0};
	int rc = pst_control_call(s->control, cmd, arg, &err);

	if (rc == want) {
		s->done++;
	} else if (rc == -ENOMEM && err.text[0]) {
		s->refused++;
	} else {
		test_say(__FILE__, __LINE__, "command %#x: %d, not %d (%s)", cmd, rc, want,
			 err.text);
		test_failed = true;
	}
	return rc;
}

static void use_pool(struct script *s, uint32_t id)
{
	struct pst_cmd_pool_map map = {.size = sizeof(map), .id = id, .out_fd = -1};
	struct pst_cmd_pool_stat stat = {.size = sizeof(stat), .id = id};
	struct pst_cmd_pool_stat next = {.size = sizeof(next), .flags = PST_STAT_NEXT};
	struct pst_cmd_pool_destroy destroy = {.size = sizeof(destroy), .id = id};

	if (!call(s, PST_CMD_POOL_MAP, &map, 0)) {
		char *p = mmap(NULL, map.out_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, map.out_fd,
			       0);

		EXPECT_NE(MAP_FAILED, (void *)p);
		memset(p, 1, map.out_bytes);
		munmap(p, map.out_bytes);
		close(map.out_fd);
	}
	call(s, PST_CMD_POOL_STAT, &stat, 0);
	call(s, PST_CMD_POOL_STAT, &next, 0);
	if (call(s, PST_CMD_POOL_DESTROY, &destroy, 0))
		call(s, PST_CMD_POOL_DESTROY, &destroy, 0);
}

static void pools(struct script *s)
{
	uint32_t flags[] = {0, PST_POOL_CREATE_KEEP};

	for (int i = 0; i < 2; i++) {
		struct pst_cmd_pool_create create = {.size = sizeof(create),
						     .flags = flags[i],
						     .bytes = 1 << 16,
						     .node = PST_ANY,
						     .name = "pool"};

		if (!call(s, PST_CMD_POOL_CREATE, &create, 0))
			use_pool(s, create.out_id);
	}
}

static void walks(struct script *s)
{
	struct pst_cmd_device_stat device = {.size = sizeof(device), .flags = PST_STAT_NEXT};
	struct pst_cmd_kernel_stat kernel = {.size = sizeof(kernel), .flags = PST_STAT_NEXT};
	struct pst_cmd_worker_stat worker = {.size = sizeof(worker), .flags = PST_STAT_NEXT};
	struct pst_cmd_server_stat server = {.size = sizeof(server), .flags = PST_STAT_NEXT};
	struct pst_cmd_table_stat table_ = {.size = sizeof(table_), .flags = PST_STAT_NEXT};
	struct pst_cmd_expert_stat expert = {.size = sizeof(expert),
					     .flags = PST_STAT_NEXT,
					     .layer = PST_EXPERT_FIRST,
					     .index = PST_EXPERT_FIRST};

	call(s, PST_CMD_DEVICE_STAT, &device, 0);
	call(s, PST_CMD_KERNEL_STAT, &kernel, 0);
	call(s, PST_CMD_WORKER_STAT, &worker, -ENOENT);
	call(s, PST_CMD_SERVER_STAT, &server, -ENOENT);
	call(s, PST_CMD_TABLE_STAT, &table_, -ENOENT);
	call(s, PST_CMD_EXPERT_STAT, &expert, -ENOENT);
}

static void events(struct script *s)
{
	struct pst_cmd_events events = {.size = sizeof(events), .past = 8, .out_fd = -1};

	if (!call(s, PST_CMD_EVENTS, &events, 0))
		close(events.out_fd);
}

/* Files that are no image, and a manifest that is none. */
static void bad_kernel(struct script *s)
{
	struct pst_cmd_kernel_load load = {.size = sizeof(load)};
	int fd = memfd_create("manifest", MFD_CLOEXEC);

	ASSERT_EQ(14, write(fd, "{\"op\": [1, 2]}", 14));
	load.image_fd = load.manifest_fd = fd;
	call(s, PST_CMD_KERNEL_LOAD, &load, -EBADMSG);
	close(fd);
}

/* One good or bad struct for every command. */
static void every_command(struct script *s)
{
	for (const struct table_row *row = table; row < table + table_rows; row++) {
		union table_arg arg;

		if (row->cmd == PST_CMD_POOL_CREATE)
			continue;
		table_good(row, &arg);
		if (!call(s, row->cmd, &arg, row->rc))
			table_drop(row, &arg);
		memset(arg.bytes + 4, 0xff, 4);
		call(s, row->cmd, &arg, -EOPNOTSUPP);
	}
}

static struct script run_script(struct fixture_nth *self)
{
	struct script s = {0};
	struct pst_error err = {0};

	for (int ms = 0; pst_control_open(self->socket, &s.control, &err); ms++) {
		ASSERT_LT(ms, 50000);
		usleep(1000);
	}
	pools(&s);
	walks(&s);
	events(&s);
	bad_kernel(&s);
	every_command(&s);
	pst_control_close(s.control);
	return s;
}

/* Descriptors of sessions and readers go in the loop's next turns. */
static void expect_fds(struct fixture_nth *self, int want)
{
	int now = 0;

	for (int ms = 0; ms < 10000; ms++) {
		now = fds_of(self->pid);
		if (now <= want)
			break;
		usleep(1000);
	}
	EXPECT_LE(now, want);
}

TEST_F(nth, while_it_serves)
{
	struct script whole = run_script(self);
	int fds, n, refused = 0;

	EXPECT_EQ(0, whole.refused);
	usleep(20000);
	fds = fds_of(self->pid);
	for (n = 0; n < MANY && !test_failed; n += STEP) {
		struct script s, after;

		arm(n);
		s = run_script(self);
		if (!atomic_load(&nth->failed))
			break;
		arm(-1);
		refused += s.refused;
		after = run_script(self);
		EXPECT_EQ(whole.done, after.done);
		EXPECT_EQ(0, after.refused);
		expect_fds(self, fds);
		if (test_failed)
			printf("# when allocation %d failed\n", n);
	}
	arm(-1);
	printf("# %d allocations, %d commands of each run, %d refused in all\n", n, whole.done,
	       refused);
	EXPECT_GT(n, 20);
	EXPECT_LT(n, MANY);
	EXPECT_GT(refused, 10 / STEP);
}

static void begin_with(int n)
{
	static struct penstockd d;
	struct pst_error err = {0};
	char folder[64];
	int fds, rc;

	snprintf(folder, sizeof(folder), "%s/begin", test_tmpdir());
	mkdir(folder, 0755);
	quiet();
	configure(&d, folder);
	atomic_store(&nth->pid, getpid());
	fds = fds_of(getpid());
	arm(n);
	rc = parts_open(&d, &err);
	atomic_store(&nth->left, -1);
	if (rc && (rc != -ENOMEM || !err.text[0]))
		printf("# allocation %d: %d (%s)\n", n, rc, err.text);
	EXPECT_TRUE(!rc || (rc == -ENOMEM && err.text[0]));
	if (!rc)
		parts_close(&d, true);
	/* threads that end by themselves close theirs a moment later */
	for (int ms = 0; ms < 10000 && fds_of(getpid()) > fds; ms++)
		usleep(1000);
	EXPECT_LE(fds_of(getpid()), fds);
	exit(test_failed ? TEST_FAIL : TEST_PASS);
}

TEST_F(nth, when_it_begins)
{
	int n, status = 0;

	for (n = 0; n < MANY; n += STEP) {
		pid_t pid;

		fflush(stdout);
		pid = fork();
		if (!pid)
			begin_with(n);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_EQ(0, status);
		if (status)
			printf("# when allocation %d failed\n", n);
		if (!atomic_load(&nth->failed))
			break;
	}
	printf("# %d allocations\n", n);
	EXPECT_GT(n, 8);
	EXPECT_LT(n, MANY);
	/* the other daemon is the one that is measured */
	arm(-1);
	atomic_store(&nth->pid, self->pid);
}

TEST_MAIN
