/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/spawn.h"

#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static bool there(char path[PATH_MAX], const char *dir, const char *name)
{
	int n = snprintf(path, PATH_MAX, "%s/%s", dir, name);

	return n < PATH_MAX && !access(path, X_OK);
}

/* false: it may be in $PATH */
static bool find(const char *name, char path[PATH_MAX])
{
	const char *bin = getenv("PENSTOCK_BIN");
	char self[PATH_MAX];
	ssize_t n;

	if (bin && *bin)
		return there(path, bin, name);
	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n <= 0)
		return false;
	self[n] = 0;
	*strrchr(self, '/') = 0;
	return there(path, self, name);
}

/* What systemd told this process is not for others. */
static bool is_own(const char *entry)
{
	static const char *const own[] = {"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "FDSTORE="};

	for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++)
		if (!strncmp(entry, own[i], strlen(own[i])))
			return true;
	return false;
}

static char **environment(void)
{
	size_t n = 0, kept = 0;
	char **env;

	while (environ[n])
		n++;
	env = calloc(n + 1, sizeof(*env));
	for (size_t i = 0; env && i < n; i++)
		if (!is_own(environ[i]))
			env[kept++] = environ[i];
	return env;
}

static int set_up(posix_spawn_file_actions_t *files, posix_spawnattr_t *attr, int fd)
{
	sigset_t set;
	int rc;

	sigemptyset(&set);
	posix_spawnattr_setsigmask(attr, &set);
	sigfillset(&set);
	posix_spawnattr_setsigdefault(attr, &set);
	posix_spawnattr_setpgroup(attr, 0);
	posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
					       POSIX_SPAWN_SETPGROUP);
	rc = posix_spawn_file_actions_addopen(files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!rc)
		rc = posix_spawn_file_actions_adddup2(files, STDERR_FILENO, STDOUT_FILENO);
	/* onto itself: only this one gets it */
	if (!rc && fd >= 0)
		rc = posix_spawn_file_actions_adddup2(files, fd, fd);
	return rc;
}

int spawn_program(const char *const *argv, int fd, pid_t *pid, struct pst_error *err)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	char path[PATH_MAX], **env = environment();
	int rc;

	if (!env)
		return pst_fail(err, -ENOMEM, "no memory to start %s", argv[0]);
	posix_spawn_file_actions_init(&files);
	posix_spawnattr_init(&attr);
	rc = set_up(&files, &attr, fd);
	if (!rc && find(argv[0], path))
		rc = posix_spawn(pid, path, &files, &attr, (char **)argv, env);
	else if (!rc)
		rc = posix_spawnp(pid, argv[0], &files, &attr, (char **)argv, env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	free(env);
	if (rc)
		return pst_fail(err, -rc,
				"%s cannot be started: %s (say where it is: PENSTOCK_BIN=DIR)",
				argv[0], strerror(rc));
	return 0;
}

uint64_t spawn_time(pid_t pid)
{
	unsigned long long began = 0;
	char path[32], line[1024], *at;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	line[n > 0 ? n : 0] = 0;
	/* the name may hold anything, so from the last bracket on: field 3 is first there */
	at = strrchr(line, ')');
	if (at)
		sscanf(at + 1,
		       " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		       "%*d %llu",
		       &began);
	return began;
}
