/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/control/daemon.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define START_MS 50000

void daemon_init(struct daemon *d)
{
	static int count;

	memset(d, 0, sizeof(*d));
	snprintf(d->folder, sizeof(d->folder), "%s/d%d", test_tmpdir(), count++);
	ASSERT_EQ(0, mkdir(d->folder, 0755));
	/* callers that are not root come through both */
	ASSERT_EQ(0, chmod(test_tmpdir(), 0755));
	snprintf(d->config, sizeof(d->config), "%s/penstockd.conf", d->folder);
	snprintf(d->socket, sizeof(d->socket), "%s/run/door.sock", d->folder);
	snprintf(d->says, sizeof(d->says), "%s/log", d->folder);
	daemon_configure(d, NULL);
}

void daemon_configure(const struct daemon *d, const char *config)
{
	FILE *f = fopen(d->config, "w");

	ASSERT_NE(NULL, f);
	ASSERT_EQ(0, fchmod(fileno(f), 0600));
	if (!config || !strstr(config, "metrics"))
		fputs("[daemon]\nmetrics = none\n", f);
	if (!config || !strstr(config, "group"))
		fputs("[daemon]\ngroup = root\n", f);
	fputs(config ? config : "", f);
	ASSERT_EQ(0, fclose(f));
}

/* Programs of this build are two folders above the test. */
static void find_penstockd(char path[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	n = snprintf(path, PATH_MAX, "%s/penstockd", dirname(dirname(dirname(self))));
	ASSERT_LT(n, PATH_MAX);
}

static void become(struct daemon *d, const char *program, pid_t parent)
{
	const char *argv[16] = {program, "--config", d->config, "--socket", d->socket};
	int log = open(d->says, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644), n = 5;

	for (int i = 0; d->args[i]; i++)
		argv[n++] = d->args[i];
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent || log < 0 || dup2(log, STDOUT_FILENO) < 0 ||
	    dup2(log, STDERR_FILENO) < 0)
		_exit(126);
	if (d->prepare)
		d->prepare(d->prepare_arg);
	execv(program, (char **)argv);
	_exit(127);
}

/*
 * Who has its socket from the test itself answers at that. Of one that was killed, a child that is
 * no program of its own yet may hold the socket a little longer: that one answers nobody.
 */
static bool is_there(const struct daemon *d)
{
	int fd = daemon_socket(d);
	struct ucred who = {0};
	socklen_t len = sizeof(who);

	if (fd < 0)
		return false;
	EXPECT_EQ(0, getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len));
	close(fd);
	return who.pid == d->pid || who.pid == getpid();
}

void daemon_spawn(struct daemon *d)
{
	pid_t self = getpid();
	char program[PATH_MAX];

	find_penstockd(program);
	fflush(stdout);
	d->pid = fork();
	ASSERT_GE(d->pid, 0);
	if (!d->pid)
		become(d, program, self);
}

void daemon_run(struct daemon *d)
{
	int status;

	daemon_spawn(d);
	for (int ms = 0; !is_there(d) && ms < START_MS; ms += 2) {
		if (waitpid(d->pid, &status, WNOHANG) == d->pid) {
			test_say(__FILE__, __LINE__, "penstockd ended (%#x): %s", status,
				 daemon_says(d));
			_exit(TEST_FAIL);
		}
		usleep(2000);
	}
}

void daemon_start(struct daemon *d, const char *config)
{
	daemon_init(d);
	daemon_configure(d, config);
	daemon_run(d);
}

int daemon_wait(struct daemon *d)
{
	int status = 0;

	ASSERT_EQ(d->pid, waitpid(d->pid, &status, 0));
	d->pid = 0;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int daemon_stop(struct daemon *d)
{
	int code;

	ASSERT_GT(d->pid, 0);
	kill(d->pid, SIGTERM);
	code = daemon_wait(d);
	if (code) {
		char *says = daemon_says(d);

		printf("# penstockd ended with %d: %s\n", code, says);
		free(says);
	}
	return code;
}

void daemon_kill(struct daemon *d)
{
	ASSERT_GT(d->pid, 0);
	kill(d->pid, SIGKILL);
	daemon_wait(d);
}

int daemon_fds(const struct daemon *d)
{
	char path[64];
	DIR *dir;
	int n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)d->pid);
	dir = opendir(path);
	ASSERT_NE(NULL, dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n - 2;
}

char *daemon_says(const struct daemon *d)
{
	char *text = calloc(1, 1 << 16);
	FILE *f = fopen(d->says, "r");

	ASSERT_NE(NULL, text);
	if (f) {
		text[fread(text, 1, (1 << 16) - 1, f)] = '\0';
		fclose(f);
	}
	return text;
}

bool daemon_said(const struct daemon *d, const char *text)
{
	char *says = daemon_says(d);
	bool said = strstr(says, text);

	free(says);
	return said;
}

struct pst_control *daemon_connect(const struct daemon *d)
{
	struct pst_control *control = NULL;
	struct pst_error err = {0};

	ASSERT_OK(pst_control_open(d->socket, &control, &err), &err);
	return control;
}

int daemon_socket(const struct daemon *d)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	ASSERT_GE(fd, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", d->socket);
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	close(fd);
	return -1;
}

bool raw_send(int fd, const void *bytes, size_t len)
{
	return send(fd, bytes, len, MSG_NOSIGNAL) == (ssize_t)len;
}

ssize_t raw_receive(int fd, void *bytes, size_t len)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (poll(&p, 1, 40000) != 1)
		return -1;
	n = recv(fd, bytes, len, 0);
	return n < 0 && errno == ECONNRESET ? 0 : n;
}

int raw_call(int fd, uint32_t cmd, void *arg, uint32_t size)
{
	unsigned char bytes[sizeof(struct pst_door_request) + PST_DOOR_MAX];
	struct pst_door_request head = {.cmd = cmd};
	struct pst_door_answer answer;
	ssize_t n;

	ASSERT_LE(size, (uint32_t)PST_DOOR_MAX);
	memcpy(bytes, &head, sizeof(head));
	memcpy(bytes + sizeof(head), arg, size);
	ASSERT_TRUE(raw_send(fd, bytes, sizeof(head) + size));
	n = raw_receive(fd, bytes, sizeof(bytes));
	ASSERT_GE(n, (ssize_t)sizeof(answer));
	memcpy(&answer, bytes, sizeof(answer));
	ASSERT_EQ(cmd, answer.cmd);
	if (answer.rc) {
		ASSERT_EQ((ssize_t)sizeof(answer), n);
		return answer.rc;
	}
	ASSERT_EQ((ssize_t)(sizeof(answer) + size), n);
	memcpy(arg, bytes + sizeof(answer), size);
	return 0;
}

int as_user(uid_t id, int (*fn)(void *arg), void *arg)
{
	pid_t pid = fork();
	int status = 0;

	ASSERT_GE(pid, 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (setgroups(0, NULL) || setgid((gid_t)id) || setuid(id))
			_exit(125);
		_exit(fn(arg));
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
