/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/process.h"

#include "rdma/fail.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
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
	*out = (struct pst_process){pid, leash[1]};
	return 0;
}

int pst_process_check(const struct pst_process *p, const char *url, struct pst_error *err)
{
	siginfo_t end = {0};
	char why[400];
	ssize_t n;

	if (p->pid <= 0 || waitid(P_PID, (id_t)p->pid, &end, WEXITED | WNOHANG | WNOWAIT) ||
	    !end.si_pid)
		return 0;
	n = recv(p->leash, why, sizeof(why) - 1, MSG_DONTWAIT);
	if (n > 0)
		return pst_fail(err, -ECHILD, "%s: %.*s", url, (int)n, why);
	return pst_fail(err, -ECHILD, "%s: ended before it listened (%s %d)", url,
			end.si_code == CLD_EXITED ? "exit status" : "signal", end.si_status);
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
