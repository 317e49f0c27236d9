/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/process.h"

#include "rdma/fail.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <penstock/wire.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* @dir/@sub@program, if it can be run. */
static bool there(char *path, const char *dir, const char *sub, const char *program)
{
	int n = snprintf(path, PATH_MAX, "%s/%s%s", dir, sub, program);

	return n < PATH_MAX && !access(path, X_OK);
}

static void cut_name(char *path)
{
	char *slash = strrchr(path, '/');

	if (slash)
		*slash = 0;
}

static bool find_program(const char *program, char *path)
{
	const char *bin = getenv("PENSTOCK_BIN");
	char dir[PATH_MAX];
	Dl_info info;
	ssize_t n;

	if (bin && *bin)
		return there(path, bin, "", program);
	n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);
	if (n > 0) {
		dir[n] = 0;
		cut_name(dir);
		if (there(path, dir, "", program))
			return true;
	}
	if (dladdr((void *)find_program, &info) && info.dli_fname &&
	    realpath(info.dli_fname, dir)) {
		cut_name(dir);
		if (there(path, dir, "", program) || there(path, dir, "../bin/", program))
			return true;
	}
	return false;
}

int pst_process_start(const char *program, const char *url, const struct pst_process_options *o,
		      struct pst_process *out, struct pst_error *err)
{
	char path[PATH_MAX], threads[16], node[16], lock[16], huge[16];
	char *argv[] = {(char *)program,
			"--listen",
			(char *)url,
			"--threads",
			threads,
			"--node",
			node,
			"--lock",
			lock,
			"--huge",
			huge,
			"--until-eof",
			o->device ? "--device" : NULL,
			(char *)o->device,
			NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int rc, leash[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, leash))
		return pst_fail(err, -errno, "%s: no socket for it: %s", program, strerror(errno));
	snprintf(threads, sizeof(threads), "%u", o->threads);
	snprintf(node, sizeof(node), "%d", o->node);
	snprintf(lock, sizeof(lock), "%u", o->lock);
	snprintf(huge, sizeof(huge), "%u", o->huge);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_adddup2(&files, leash[0], STDIN_FILENO);
	/* onto itself: only this child gets it, and nobody whom the caller starts meanwhile */
	if (o->fd >= 0)
		posix_spawn_file_actions_adddup2(&files, o->fd, o->fd);
	/* what it has to say goes to stderr; stdout is the caller's own */
	posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
	posix_spawnattr_init(&attr);
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	/* a group of its own: the caller decides what an interrupt means */
	posix_spawnattr_setpgroup(&attr, 0);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
	if (find_program(program, path))
		rc = posix_spawn(&pid, path, &files, &attr, argv, environ);
	else
		rc = posix_spawnp(&pid, program, &files, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	close(leash[0]);
	if (rc) {
		close(leash[1]);
		return pst_fail(err, -rc,
				"%s cannot be started: %s (say where it is: PENSTOCK_BIN=DIR)",
				program, strerror(rc));
	}
	*out = (struct pst_process){.pid = pid, .leash = leash[1]};
	return 0;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* What it said before it ended, behind the line with where it listened. */
static int ended(const struct pst_process *p, const siginfo_t *end, const char *name,
		 struct pst_error *err)
{
	char said[800], *why = said;
	ssize_t n = recv(p->leash, said, sizeof(said) - 1, MSG_DONTWAIT);
	bool listened = p->listens;

	said[n > 0 ? n : 0] = 0;
	if (!strncmp(said, PST_LISTENS, strlen(PST_LISTENS))) {
		listened = true;
		why += strcspn(said, "\n");
		why += *why == '\n';
	}
	if (*why)
		return pst_fail(err, -ECHILD, "%s: %s", name, why);
	return pst_fail(err, -ECHILD, "%s: ended%s (%s %d)", name,
			listened ? "" : " before it listened",
			end->si_code == CLD_EXITED ? "exit status" : "signal", end->si_status);
}

int pst_process_check(const struct pst_process *p, const char *name, struct pst_error *err)
{
	siginfo_t end = {0};

	if (p->pid <= 0 || waitid(P_PID, (id_t)p->pid, &end, WEXITED | WNOHANG | WNOWAIT) ||
	    !end.si_pid)
		return 0;
	return ended(p, &end, name, err);
}

/* Its end of the leash is closed: it has ended, or is about to. */
static int gone(const struct pst_process *p, const char *name, struct pst_error *err)
{
	siginfo_t end = {0};

	kill(p->pid, SIGKILL);
	while (waitid(P_PID, (id_t)p->pid, &end, WEXITED | WNOWAIT) && errno == EINTR)
		;
	return ended(p, &end, name, err);
}

/* The line that it says, taken when it is whole. 1: it is; 0: not yet; -EPIPE: it is none. */
static int read_line(const struct pst_process *p, char *line, size_t len)
{
	ssize_t n = recv(p->leash, line, len - 1, MSG_DONTWAIT | MSG_PEEK);
	size_t head = strlen(PST_LISTENS);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	/* what does not listen says why, and then it ends */
	if (n <= 0 || strncmp(line, PST_LISTENS, (size_t)n < head ? (size_t)n : head))
		return -EPIPE;
	end = memchr(line, '\n', (size_t)n);
	if (!end)
		return (size_t)n == len - 1 ? -EPIPE : 0;
	recv(p->leash, line, (size_t)(end - line) + 1, 0);
	*end = 0;
	return 1;
}

int pst_process_wait(struct pst_process *p, const char *name, int timeout_ms, char *url, size_t len,
		     struct pst_error *err)
{
	struct pollfd leash = {.fd = p->leash, .events = POLLIN};
	int64_t end = now_ms() + timeout_ms, left;
	char line[400];

	while ((left = end - now_ms()) > 0) {
		int rc = poll(&leash, 1, (int)left) > 0 ? read_line(p, line, sizeof(line)) : 0;

		if (rc < 0)
			return gone(p, name, err);
		if (!rc)
			continue;
		p->listens = true;
		if ((size_t)snprintf(url, len, "%s", line + strlen(PST_LISTENS)) >= len)
			return pst_fail(err, -ENAMETOOLONG, "%s: listens at a URL of %zu bytes",
					name, strlen(line) - strlen(PST_LISTENS));
		return 0;
	}
	return pst_fail(err, -ETIMEDOUT, "%s: does not listen after %d ms", name, timeout_ms);
}

void pst_process_kill(struct pst_process *p)
{
	if (p->pid <= 0)
		return;
	kill(p->pid, SIGKILL);
	while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(p->leash);
	p->pid = 0;
}
