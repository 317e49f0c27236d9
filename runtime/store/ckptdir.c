/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/ckptdir.h"

#include "rdma/fail.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_FORMAT "step-%08u"

static int join(char to[PATH_MAX], const char *dir, const char *name, struct pst_error *err)
{
	if ((size_t)snprintf(to, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
		return pst_fail(err, -ENAMETOOLONG, "%s/%s: path too long", dir, name);
	return 0;
}

/* N of "step-N", or -1. */
static long step_of(const char *name)
{
	unsigned int step;
	char back[64];

	if (sscanf(name, "step-%u", &step) != 1)
		return -1;
	snprintf(back, sizeof(back), STEP_FORMAT, step);
	return strcmp(back, name) ? -1 : (long)step;
}

/* The steps in @dir, largest first; their number. */
static int list_steps(const char *dir, long **out)
{
	long *step = NULL;
	int n = 0, room = 0;
	struct dirent *d;
	DIR *in = opendir(dir);

	if (!in)
		return -errno;
	while ((d = readdir(in))) {
		long s = step_of(d->d_name);
		int at = n;

		if (s < 0)
			continue;
		if (n == room) {
			long *grown = realloc(step, (size_t)(room += 64) * sizeof(*step));

			if (!grown) {
				free(step);
				closedir(in);
				return -ENOMEM;
			}
			step = grown;
		}
		for (; at > 0 && step[at - 1] < s; at--)
			step[at] = step[at - 1];
		step[at] = s;
		n++;
	}
	closedir(in);
	*out = step;
	return n;
}

/* The first of @step in @dir that has a config.json. */
static int last_whole(const char *dir, const long *step, int n, char found[PATH_MAX])
{
	char name[64], config[PATH_MAX];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), STEP_FORMAT, (unsigned int)step[i]);
		if (!join(found, dir, name, NULL) && !join(config, found, "config.json", NULL) &&
		    !access(config, F_OK))
			return 0;
	}
	return -ENOENT;
}

int pst_ckptdir_find(const char *path, char found[PATH_MAX], struct pst_error *err)
{
	char dir[PATH_MAX], name[PATH_MAX];
	long *step;
	int n, rc;

	if (!realpath(path, dir))
		return pst_fail(err, -errno, "%s: %s", path, strerror(errno));
	rc = join(name, dir, "config.json", err);
	if (rc < 0)
		return rc;
	if (!access(name, F_OK)) {
		strcpy(found, dir);
		return 0;
	}
	n = list_steps(dir, &step);
	if (n == -ENOTDIR)
		return pst_fail(err, n, "%s: not a directory; a checkpoint is one", path);
	if (n < 0)
		return pst_fail(err, n, "%s: %s", path, strerror(-n));
	rc = last_whole(dir, step, n, name);
	if (n)
		free(step);
	if (rc < 0)
		return pst_fail(
			err, rc,
			"%s: no checkpoint there (no config.json, and no step-N that has one)",
			path);
	strcpy(found, name);
	return 0;
}

static int make_dirs(char *path, struct pst_error *err)
{
	for (char *p = path + 1;; p++) {
		char was = *p;

		if (was && was != '/')
			continue;
		*p = 0;
		if (mkdir(path, 0777) && errno != EEXIST)
			return pst_fail(err, -errno, "%s: cannot be made: %s", path,
					strerror(errno));
		*p = was;
		if (!was)
			return 0;
	}
}

int pst_ckptdir_prepare(const char *out, char absolute[PATH_MAX], struct pst_error *err)
{
	char path[PATH_MAX];
	int rc;

	if (!*out || strlen(out) >= sizeof(path))
		return pst_fail(err, -EINVAL, "the output directory's name is empty or too long");
	strcpy(path, out);
	rc = make_dirs(path, err);
	if (rc < 0)
		return rc;
	if (!realpath(path, absolute))
		return pst_fail(err, -errno, "%s: %s", out, strerror(errno));
	if (access(absolute, W_OK | X_OK))
		return pst_fail(err, -errno, "%s: cannot be written: %s", out, strerror(errno));
	return 0;
}

/* A checkpoint is one level of files. */
static void remove_dir(const char *path)
{
	char file[PATH_MAX];
	struct dirent *d;
	DIR *in = opendir(path);

	while (in && (d = readdir(in)))
		if (strcmp(d->d_name, ".") && strcmp(d->d_name, "..") &&
		    !join(file, path, d->d_name, NULL))
			unlink(file);
	if (in)
		closedir(in);
	rmdir(path);
}

static int sync_dir(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

	if (fd < 0)
		return -errno;
	if (fsync(fd))
		rc = -errno;
	close(fd);
	return rc;
}

/* Temporary directories that a killed run left. */
static void remove_stale(const char *out)
{
	char path[PATH_MAX];
	struct dirent *d;
	DIR *in = opendir(out);

	while (in && (d = readdir(in))) {
		size_t n = strlen(d->d_name);

		if (!strncmp(d->d_name, ".step-", 6) && n > 4 &&
		    !strcmp(d->d_name + n - 4, ".tmp") && !join(path, out, d->d_name, NULL))
			remove_dir(path);
	}
	if (in)
		closedir(in);
}

int pst_ckptdir_begin(const char *out, uint32_t step, char tmp[PATH_MAX], struct pst_error *err)
{
	char name[64];
	int rc;

	remove_stale(out);
	snprintf(name, sizeof(name), "." STEP_FORMAT ".tmp", step);
	rc = join(tmp, out, name, err);
	if (rc < 0)
		return rc;
	if (mkdir(tmp, 0777))
		return pst_fail(err, -errno, "%s: cannot be made: %s", tmp, strerror(errno));
	return 0;
}

/* The last @keep stay, and @saved: a run that began at an older step saves before the last. */
static void prune(const char *out, uint32_t keep, uint32_t saved)
{
	char name[64], path[PATH_MAX];
	long *step = NULL;
	int n = list_steps(out, &step);

	for (int i = 0; keep && i < n; i++) {
		if (i < (int)keep || step[i] == (long)saved)
			continue;
		snprintf(name, sizeof(name), STEP_FORMAT, (unsigned int)step[i]);
		if (!join(path, out, name, NULL))
			remove_dir(path);
	}
	if (n >= 0)
		free(step);
}

int pst_ckptdir_commit(const char *out, uint32_t step, const char *tmp, uint32_t keep,
		       char path[PATH_MAX], struct pst_error *err)
{
	char name[64], to[PATH_MAX];
	int rc;

	snprintf(name, sizeof(name), STEP_FORMAT, step);
	rc = join(to, out, name, err);
	if (!rc)
		rc = sync_dir(tmp);
	if (!rc && rename(tmp, to)) {
		rc = -errno;
		/* the same step is there from before: change places, then drop the old one */
		if ((rc == -ENOTEMPTY || rc == -EEXIST) &&
		    !renameat2(AT_FDCWD, tmp, AT_FDCWD, to, RENAME_EXCHANGE)) {
			remove_dir(tmp);
			rc = 0;
		}
	}
	if (!rc)
		rc = sync_dir(out);
	if (rc < 0)
		return pst_fail(err, rc, "%s: cannot be put in place: %s", to, strerror(-rc));
	prune(out, keep, step);
	strcpy(path, to);
	return 0;
}

void pst_ckptdir_abort(const char *tmp)
{
	remove_dir(tmp);
}
