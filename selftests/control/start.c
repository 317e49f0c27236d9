/* SPDX-License-Identifier: Apache-2.0 */
/* How penstockd begins, is told to read its config again, and ends; with systemd and without. */
#include "selftests/control/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static mode_t mode_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) ? 0 : st.st_mode & 0777;
}

static const char *folder_of(const struct daemon *d)
{
	static char folder[108];

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(d->socket, '/') - d->socket),
		 d->socket);
	return folder;
}

/* It does not begin, and says why. */
static void expect_refused(struct daemon *d, const char *why)
{
	char *says;

	unlink(d->says);
	daemon_spawn(d);
	EXPECT_EQ(1, daemon_wait(d));
	says = daemon_says(d);
	if (!strstr(says, why)) {
		test_say(__FILE__, __LINE__, "not '%s': %s", why, says);
		test_failed = true;
	}
	free(says);
}

static void narrow_umask(void *arg)
{
	(void)arg;
	umask(077);
}

TEST(makes_and_removes_its_socket)
{
	struct daemon d;

	daemon_init(&d);
	d.prepare = narrow_umask;
	daemon_run(&d);
	EXPECT_EQ(0666, (int)mode_of(d.socket));
	EXPECT_EQ(0755, (int)mode_of(folder_of(&d)));
	EXPECT_EQ(0, daemon_stop(&d));
	EXPECT_EQ(-1, access(folder_of(&d), F_OK));
}

TEST(leaves_a_folder_that_was_there)
{
	struct daemon d;

	daemon_init(&d);
	ASSERT_EQ(0, mkdir(folder_of(&d), 0711));
	daemon_run(&d);
	EXPECT_EQ(0, daemon_stop(&d));
	EXPECT_EQ(-1, access(d.socket, F_OK));
	EXPECT_EQ(0711, (int)mode_of(folder_of(&d)));
}

TEST(takes_over_from_the_dead)
{
	struct daemon d;

	daemon_start(&d, NULL);
	daemon_kill(&d);
	ASSERT_EQ(0, access(d.socket, F_OK));
	daemon_run(&d);
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(leaves_the_living_alone)
{
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct daemon d, other;

	daemon_start(&d, NULL);
	other = d;
	snprintf(other.says, sizeof(other.says), "%s/other", d.folder);
	expect_refused(&other, "another daemon serves it");
	ASSERT_EQ(0, raw_call(daemon_socket(&d), PST_CMD_INFO, &info, sizeof(info)));
	EXPECT_EQ((uint32_t)d.pid, info.out_pid);
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(two_at_once)
{
	struct daemon d[2];
	int ended, status, codes = 0;

	daemon_init(&d[0]);
	d[1] = d[0];
	for (int i = 0; i < 2; i++)
		daemon_spawn(&d[i]);
	ended = waitpid(-1, &status, 0);
	EXPECT_TRUE(ended == d[0].pid || ended == d[1].pid);
	EXPECT_EQ(1, WEXITSTATUS(status));
	codes = ended == d[0].pid ? 1 : 0;
	EXPECT_GE(daemon_socket(&d[codes]), 0);
	EXPECT_EQ(0, daemon_stop(&d[codes]));
}

TEST(something_else_is_there)
{
	struct daemon d;
	int fd;

	daemon_init(&d);
	ASSERT_EQ(0, mkdir(folder_of(&d), 0755));
	fd = open(d.socket, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	ASSERT_GE(fd, 0);
	close(fd);
	expect_refused(&d, "something else has this name");
	EXPECT_EQ(0600, (int)mode_of(d.socket));
}

TEST(paths_that_cannot_be)
{
	struct daemon d;

	daemon_init(&d);
	snprintf(d.socket, sizeof(d.socket), "%s/a/b/c.sock", d.folder);
	expect_refused(&d, "cannot be made");
	snprintf(d.socket, sizeof(d.socket), "/proc/c.sock");
	expect_refused(&d, "/proc/c.sock");
}

/* On the command line a path may begin where it was started; it is said whole. */
TEST(a_path_from_here)
{
	struct daemon d;

	daemon_init(&d);
	ASSERT_EQ(0, chdir(d.folder));
	snprintf(d.socket, sizeof(d.socket), "here.sock");
	daemon_run(&d);
	WAIT_FOR(daemon_said(&d, "/here.sock"));
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(config_that_is_wrong)
{
	struct daemon d;

	daemon_init(&d);
	daemon_configure(&d, "[pools]\nquota = much\n");
	expect_refused(&d, "penstockd.conf:6: quota: 'much' is no size");
	ASSERT_EQ(0, unlink(d.config));
	expect_refused(&d, "cannot be read: No such file");
}

TEST(ends_on_signals)
{
	int sigs[] = {SIGTERM, SIGINT};
	struct daemon d;

	daemon_init(&d);
	for (int i = 0; i < 2; i++) {
		daemon_run(&d);
		kill(d.pid, sigs[i]);
		EXPECT_EQ(0, daemon_wait(&d));
	}
}

/* systemd's side of it. */
static int notify_socket(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	ASSERT_EQ(0, bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	return fd;
}

/* What it says next, but for what the descriptor store hears. */
static const char *hear(int fd)
{
	static char text[1024];
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	do {
		if (poll(&p, 1, 40000) != 1)
			return "nothing";
		n = recv(fd, text, sizeof(text) - 1, 0);
		ASSERT_GT(n, 0);
		text[n] = '\0';
	} while (!strncmp(text, "FDSTORE", 7));
	return text;
}

static void expect_hears(int fd, const char *what)
{
	const char *text = hear(fd);

	if (strncmp(text, what, strlen(what))) {
		test_say(__FILE__, __LINE__, "not '%s': %s", what, text);
		test_failed = true;
	}
}

static void with_notify(void *arg)
{
	setenv("NOTIFY_SOCKET", arg, 1);
}

TEST(tells_systemd)
{
	struct daemon d;
	char path[128];
	int fd;

	daemon_init(&d);
	snprintf(path, sizeof(path), "%s/notify", d.folder);
	fd = notify_socket(path);
	d.prepare = with_notify;
	d.prepare_arg = path;
	daemon_run(&d);
	expect_hears(fd, "READY=1\nSTATUS=");
	kill(d.pid, SIGHUP);
	expect_hears(fd, "RELOADING=1\nMONOTONIC_USEC=");
	expect_hears(fd, "READY=1");
	EXPECT_EQ(0, daemon_stop(&d));
	expect_hears(fd, "STOPPING=1");
	close(fd);
}

static void with_watchdog(void *arg)
{
	char pid[16];

	setenv("NOTIFY_SOCKET", arg, 1);
	setenv("WATCHDOG_USEC", "60000", 1);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
}

TEST(answers_the_watchdog)
{
	struct daemon d;
	char path[128];
	int fd;

	daemon_init(&d);
	snprintf(path, sizeof(path), "%s/notify", d.folder);
	fd = notify_socket(path);
	d.prepare = with_watchdog;
	d.prepare_arg = path;
	daemon_run(&d);
	expect_hears(fd, "READY=1");
	for (int i = 0; i < 3; i++)
		expect_hears(fd, "WATCHDOG=1");
	EXPECT_EQ(0, daemon_stop(&d));
	close(fd);
}

TEST(tells_systemd_why_not)
{
	struct daemon d;
	char path[128];
	int fd;

	daemon_init(&d);
	daemon_configure(&d, "nonsense\n");
	snprintf(path, sizeof(path), "%s/notify", d.folder);
	fd = notify_socket(path);
	d.prepare = with_notify;
	d.prepare_arg = path;
	daemon_spawn(&d);
	EXPECT_EQ(1, daemon_wait(&d));
	expect_hears(fd, "STATUS=");
	close(fd);
}

/* A socket that is there before the daemon: callers may wait in it. */
struct activation {
	int listening, other;
};

static void activated(void *arg)
{
	const struct activation *a = arg;
	char pid[16];

	/* in the second place, behind something else */
	ASSERT_EQ(3, dup2(a->other, 3));
	ASSERT_EQ(4, dup2(a->listening, 4));
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("LISTEN_PID", pid, 1);
	setenv("LISTEN_FDS", "2", 1);
	setenv("LISTEN_FDNAMES", "other:penstockd.socket", 1);
}

TEST(socket_activation)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct activation a;
	struct daemon d;
	int fd, first;

	daemon_init(&d);
	snprintf(d.socket, sizeof(d.socket), "%s/given.sock", d.folder);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", d.socket);
	/* numbers above those that they get */
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	a.listening = fcntl(fd, F_DUPFD_CLOEXEC, 50);
	close(fd);
	a.other = open("/dev/null", O_RDONLY | O_CLOEXEC);
	a.other = fcntl(a.other, F_DUPFD_CLOEXEC, 50);
	ASSERT_EQ(0, bind(a.listening, (struct sockaddr *)&addr, sizeof(addr)));
	ASSERT_EQ(0, listen(a.listening, 8));
	first = daemon_socket(&d); /* waits already */
	d.prepare = activated;
	d.prepare_arg = &a;
	daemon_spawn(&d);
	EXPECT_EQ(0, raw_call(first, PST_CMD_INFO, &info, sizeof(info)));
	EXPECT_EQ((uint32_t)d.pid, info.out_pid);
	close(first);
	EXPECT_EQ(0, daemon_stop(&d));
	EXPECT_EQ(0, access(d.socket, F_OK)); /* it is systemd's */
}

/* Reload. */

static int events_of(struct pst_control *control)
{
	struct pst_cmd_events events = {.size = sizeof(events),
					.mask = PST_EVENT_BIT(PST_EVENT_RELOADED)};
	struct pst_error err = {0};

	ASSERT_OK(pst_control_call(control, PST_CMD_EVENTS, &events, &err), &err);
	return events.out_fd;
}

static struct pst_event next_event(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct pst_event event;

	ASSERT_EQ(1, poll(&p, 1, 40000));
	ASSERT_EQ((ssize_t)sizeof(event), read(fd, &event, sizeof(event)));
	return event;
}

static struct pst_cmd_info info_of(struct pst_control *control)
{
	struct pst_cmd_info info = {.size = sizeof(info)};

	ASSERT_EQ(0, pst_control_call(control, PST_CMD_INFO, &info, NULL));
	return info;
}

TEST(reload)
{
	struct pst_control *control;
	struct pst_event event;
	struct daemon d;
	int events;

	daemon_start(&d, "[pools]\nquota = 3G\n");
	control = daemon_connect(&d);
	EXPECT_EQ(3ull << 30, info_of(control).out_quota_bytes);
	events = events_of(control);
	daemon_configure(&d, "[pools]\nquota = 5M\n");
	kill(d.pid, SIGHUP);
	event = next_event(events);
	EXPECT_EQ((uint32_t)PST_EVENT_RELOADED, event.type);
	EXPECT_EQ(0, event.value);
	EXPECT_EQ(5ull << 20, info_of(control).out_quota_bytes);
	/* an error leaves all as it was */
	daemon_configure(&d, "[pools]\nquota = 7M\nbreak = yes\n");
	kill(d.pid, SIGHUP);
	event = next_event(events);
	EXPECT_EQ(-EINVAL, event.value);
	EXPECT_TRUE(strstr((char *)event.text, "unknown key 'break'") != NULL);
	EXPECT_EQ(5ull << 20, info_of(control).out_quota_bytes);
	/* and so does no config at all */
	ASSERT_EQ(0, unlink(d.config));
	kill(d.pid, SIGHUP);
	EXPECT_EQ(-ENOENT, next_event(events).value);
	EXPECT_EQ(5ull << 20, info_of(control).out_quota_bytes);
	close(events);
	pst_control_close(control);
	EXPECT_EQ(0, daemon_stop(&d));
}

static int became_member(void *arg)
{
	const struct daemon *d = arg;
	struct pst_control *control = daemon_connect(d);
	int events = events_of(control);
	int before = (int)info_of(control).out_may_change, after;

	/* "ready" to who makes him a member */
	if (write(STDIN_FILENO, "r", 1) != 1)
		return 99;
	EXPECT_EQ(0, next_event(events).value);
	after = (int)info_of(control).out_may_change;
	return before * 2 + after;
}

static int in_background(void *arg)
{
	return as_user(65534, became_member, arg);
}

/* Who is connected may change things when the new config says so. */
TEST(reload_changes_who_may)
{
	int ready[2], status;
	struct daemon d;
	pid_t pid;
	char byte;

	if (getuid())
		SKIP("it takes root to become somebody else", "sudo");
	daemon_start(&d, NULL);
	ASSERT_EQ(0, pipe(ready));
	pid = fork();
	if (!pid) {
		dup2(ready[1], STDIN_FILENO);
		_exit(in_background(&d));
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	daemon_configure(&d, "[daemon]\ngroup = nogroup\n");
	kill(d.pid, SIGHUP);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(1, WEXITSTATUS(status));
	EXPECT_EQ(0, daemon_stop(&d));
}

/* Options. */

/* Called so it ends with @code, and what it says begins with @says. */
static void expect_ends(const char *option, int code, const char *begins)
{
	struct daemon d;
	char *says;

	daemon_init(&d);
	d.args[0] = option;
	daemon_spawn(&d);
	EXPECT_EQ(code, daemon_wait(&d));
	says = daemon_says(&d);
	says[strnlen(says, strlen(begins))] = '\0';
	EXPECT_STREQ(begins, says);
	free(says);
}

TEST(options_that_are_none)
{
	expect_ends("--nonsense", 2,
		    "penstockd: unknown or incomplete option: --nonsense; see penstockd --help\n");
	expect_ends("nonsense", 2, "penstockd: not an option: nonsense; see penstockd --help\n");
	expect_ends("--socket", 2, "penstockd: unknown or incomplete option: --socket; see ");
}

TEST(version_and_help)
{
	char want[64];

	snprintf(want, sizeof(want), "penstockd %s\n", pst_version());
	expect_ends("--version", 0, want);
	expect_ends("--help", 0, "Usage: penstockd [OPTION...]\n");
}

TEST_MAIN
