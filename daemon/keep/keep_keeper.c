/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's end of penstock-keeper (keeper.h): found, started, spoken to. */
#include "daemon/keep/keep_store.h"

#include "daemon/keep/keeper.h"
#include "daemon/loop.h"
#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIST_MS 3000 /* for the whole list */
#define ROOM_MS 1000 /* for room in the socket, which only a keeper that is stopped lacks */
#define BUSY_MS 500  /* for the end of the daemon before this one to get around */
#define REAP_MS 50
#define BACKLOG 64

extern char **environ;

/* One that has ended closed its sockets a moment before it can be waited for. */
static void reap(struct keep_store *s)
{
	for (int i = 0; s->child && i < REAP_MS; i++) {
		if (waitpid(s->pid, NULL, WNOHANG))
			s->child = false;
		else
			poll(NULL, 0, 1);
	}
}

static void disconnect(struct keep_store *s)
{
	if (s->conn >= 0)
		close(s->conn);
	s->conn = -1;
	s->dead = false;
}

/* A socket names who last said that it listens, which may be the daemon that made it. */
static bool is_keeper(pid_t pid)
{
	char path[64], name[16] = "";
	FILE *f;

	if (pid <= 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f && !fgets(name, sizeof(name), f))
		name[0] = '\0';
	if (f)
		fclose(f);
	return !strncmp(name, KEEPER_PROGRAM, strcspn(name, "\n")) && name[0];
}

/* 0, -ENOENT: there is no keeper, -EAGAIN: too many wait for it, or another error. */
static int connect_to(struct keep_store *s, struct pst_error *err)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

	if (fd < 0)
		return pst_fail(err, -errno, "keep: no socket: %s", strerror(errno));
	if (connect(fd, (const struct sockaddr *)&s->at, sizeof(s->at))) {
		rc = errno == ECONNREFUSED ? -ENOENT : -errno;
		if (rc != -ENOENT && rc != -EAGAIN)
			pst_fail(err, rc, "keep: %s: %s", s->at.sun_path, strerror(-rc));
		goto close_fd;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len)) {
		rc = pst_fail(err, -errno, "keep: %s: %s", s->at.sun_path, strerror(errno));
		goto close_fd;
	}
	if (who.uid != geteuid()) {
		rc = pst_fail(err, -EPERM,
			      "keep: %s is served by user %u and not by ours: remove it, or give "
			      "this daemon another socket",
			      s->at.sun_path, who.uid);
		goto close_fd;
	}
	s->conn = fd;
	s->pid = who.pid;
	s->child = false;
	return 0;

close_fd:
	close(fd);
	return rc;
}

static int send_msg(struct keep_store *s, const struct keeper_msg *m, int fd)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {(void *)m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	return sendmsg(s->conn, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/*
 * A keeper that is stopped, or too slow, takes nothing. Nothing is lost with it, since all that it
 * has is here too: so it is killed, and -EPIPE has the caller begin a new one.
 */
static int send_patiently(struct keep_store *s, const struct keeper_msg *m, int fd)
{
	int64_t end = loop_now_ms() + ROOM_MS;

	for (;;) {
		struct pollfd p = {.fd = s->conn, .events = POLLOUT};
		int rc = s->conn < 0 || s->dead ? -EPIPE : send_msg(s, m, fd);

		if (!rc)
			return 0;
		if (rc != -EAGAIN && rc != -ETOOMANYREFS && rc != -EINTR)
			break;
		if (loop_now_ms() >= end) {
			if (is_keeper(s->pid))
				kill(s->pid, SIGKILL);
			break;
		}
		/* too many on their way is no event, so that is looked at again in a moment */
		poll(&p, rc == -EAGAIN, rc == -EAGAIN ? ROOM_MS / 4 : 1);
	}
	s->dead = true;
	return -EPIPE;
}

/* A packet within @end: its op, with *@fd and @m; or -errno. */
static int receive(struct keep_store *s, struct keeper_msg *m, int *fd, int64_t end)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = s->conn, .events = POLLIN};
	int64_t left = end - loop_now_ms();
	struct cmsghdr *c;
	ssize_t n;

	*fd = -1;
	if (left <= 0 || !poll(&p, 1, (int)left))
		return -ETIMEDOUT;
	n = recvmsg(s->conn, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0)
		/* a reset is told before what was sent ahead of it */
		return errno == EINTR || errno == EAGAIN || errno == ECONNRESET ? 0 : -errno;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	if (n != sizeof(*m) || m->name[KEEPER_NAME - 1]) {
		if (*fd >= 0)
			close(*fd);
		*fd = -1;
		return n ? -EPROTO : -EPIPE;
	}
	return (int)m->op;
}

static int list(struct keep_store *s, keep_store_fn *fn, void *ctx)
{
	const struct keeper_msg ask = {.op = KEEPER_LIST};
	int64_t end = loop_now_ms() + LIST_MS;
	int rc = send_msg(s, &ask, -1);

	/* who was let go at once may still read why */
	if (rc == -EPIPE)
		rc = 0;
	while (!rc) {
		struct keeper_msg m;
		int fd;

		rc = receive(s, &m, &fd, end);
		if (rc == KEEPER_END)
			return 0;
		if (rc == KEEPER_ENTRY && fd >= 0) {
			fn(ctx, m.name, fd);
			rc = 0;
		} else if (fd >= 0) {
			close(fd);
		}
		if (rc > 0)
			rc = rc == KEEPER_BUSY ? -EBUSY : -EPROTO;
	}
	return rc;
}

static int fail_list(const struct keep_store *s, int rc, struct pst_error *err)
{
	if (rc == -EBUSY)
		return pst_fail(err, rc,
				"keep: another daemon is connected to %s: give this one another "
				"socket, or end that one",
				s->at.sun_path);
	if (rc == -EAGAIN)
		return pst_fail(err, rc,
				"keep: " KEEPER_PROGRAM " of %s takes nobody in; which one it is: "
				"ss -xlp src %s",
				s->at.sun_path, s->at.sun_path);
	if (rc == -ETIMEDOUT)
		return pst_fail(err, rc,
				"keep: " KEEPER_PROGRAM " of %s (pid %d) does not answer: wake it "
				"with kill -CONT %d, or lose what it keeps with kill -9 %d",
				s->at.sun_path, s->pid, s->pid, s->pid);
	return pst_fail(err, rc, "keep: " KEEPER_PROGRAM " of %s (pid %d): %s", s->at.sun_path,
			s->pid, strerror(-rc));
}

/* The daemon before this one may have been killed this moment, and its keeper not know it yet. */
static int open_store(struct keep_store *s, keep_store_fn *fn, void *ctx, struct pst_error *err)
{
	int64_t end = loop_now_ms() + BUSY_MS;
	int rc;

	for (;;) {
		rc = connect_to(s, err);
		if (rc && rc != -EAGAIN)
			return rc == -ENOENT ? 0 : rc;
		if (!rc) {
			rc = list(s, fn, ctx);
			if (!rc)
				return 0;
			disconnect(s);
		}
		/* it was on its way out, with nothing */
		if (rc == -EPIPE)
			return 0;
		if ((rc != -EBUSY && rc != -EAGAIN) || loop_now_ms() >= end)
			return fail_list(s, rc, err);
		poll(NULL, 0, 20);
	}
}

static bool there(const struct keep_store *s)
{
	return s->conn >= 0 && !s->dead;
}

/* Beside this program, as the runtime looks for its own. */
static bool find_program(char *path)
{
	const char *bin = getenv("PENSTOCK_BIN");
	char self[PATH_MAX], *slash;
	ssize_t n;

	if (bin && *bin)
		return snprintf(path, PATH_MAX, "%s/" KEEPER_PROGRAM, bin) < PATH_MAX &&
		       !access(path, X_OK);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0)
		return false;
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	return snprintf(path, PATH_MAX, "%s/" KEEPER_PROGRAM, self) < PATH_MAX &&
	       !access(path, X_OK);
}

/* A socket of mode 0600 that the keeper will serve. A file whose keeper is gone is replaced. */
static int bind_socket(const struct keep_store *s, struct pst_error *err)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), rc;
	struct stat st;

	if (fd < 0)
		return pst_fail(err, -errno, "keep: no socket: %s", strerror(errno));
	if (!lstat(s->at.sun_path, &st) && S_ISSOCK(st.st_mode))
		unlink(s->at.sun_path);
	/* it listens from here on: the next daemon may come before the keeper has begun */
	if (!fchmod(fd, 0600) && !bind(fd, (const struct sockaddr *)&s->at, sizeof(s->at)) &&
	    !listen(fd, BACKLOG))
		return fd;
	rc = pst_fail(err, -errno, "keep: no socket at %s: %s", s->at.sun_path, strerror(errno));
	close(fd);
	return rc;
}

/* Numbers that the child's own are moved onto must not be among them: those here are above. */
static int move_up(int fd)
{
	int up = fcntl(fd, F_DUPFD_CLOEXEC, KEEPER_DAEMON + 1);

	close(fd);
	return up;
}

static int spawn(const char *path, int listener, int daemon, pid_t *pid)
{
	char *argv[] = {KEEPER_PROGRAM, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int rc;

	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, listener, KEEPER_LISTENER);
	posix_spawn_file_actions_adddup2(&files, daemon, KEEPER_DAEMON);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	rc = posix_spawn(pid, path, &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return -rc;
}

static int begin(struct keep_store *s, struct pst_error *err)
{
	char path[PATH_MAX];
	int pair[2], listener, rc;

	disconnect(s);
	reap(s);
	if (!find_program(path))
		return pst_fail(err, -ENOENT,
				"keep: " KEEPER_PROGRAM " is not beside this program (say where it "
				"is: PENSTOCK_BIN=DIR)");
	listener = bind_socket(s, err);
	if (listener < 0)
		return listener;
	listener = move_up(listener);
	if (listener < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
		rc = pst_fail(err, -errno, "keep: no sockets for it: %s", strerror(errno));
		goto close_listener;
	}
	pair[1] = move_up(pair[1]);
	rc = pair[1] < 0 ? -EMFILE : spawn(path, listener, pair[1], &s->pid);
	close(pair[1]);
	if (rc) {
		close(pair[0]);
		pst_fail(err, rc, "keep: %s cannot be started: %s", path, strerror(-rc));
		goto close_listener;
	}
	s->conn = pair[0];
	s->child = true;
	rc = 0;

close_listener:
	if (listener >= 0)
		close(listener);
	return rc;
}

static int put(struct keep_store *s, const char *name, int fd, struct pst_error *err)
{
	struct keeper_msg m = {.op = KEEPER_PUT};
	int rc;

	snprintf(m.name, sizeof(m.name), "%s", name);
	rc = send_patiently(s, &m, fd);
	if (rc)
		return pst_fail(err, rc, "keep: " KEEPER_PROGRAM " of %s has ended",
				s->at.sun_path);
	return 0;
}

static void drop(struct keep_store *s, const char *name)
{
	struct keeper_msg m = {.op = KEEPER_DROP};

	snprintf(m.name, sizeof(m.name), "%s", name);
	send_patiently(s, &m, -1);
}

const struct keep_store_ops keep_store_keeper = {
	.open = open_store,
	.close = disconnect,
	.there = there,
	.begin = begin,
	.put = put,
	.drop = drop,
};
