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

int pst_process_start(const char *program, const char *url, unsigned int threads, int node,
		      struct pst_process *out, struct pst_error *err)
{
	char path[PATH_MAX], nthreads[16], nnode[16];
	char *argv[] = {(char *)program, "--listen", (char *)url,   "--threads", nthreads,
			"--node",	 nnode,	     "--until-eof", NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none;
	int rc, leash[2];
	pid_t pid;

	if (pipe2(leash, O_CLOEXEC))
		return pst_fail(err, -errno, "%s: no pipe for it: %s", program, strerror(errno));

	snprintf(nthreads, sizeof(nthreads), "%u", threads);
	snprintf(nnode, sizeof(nnode), "%d", node);
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
