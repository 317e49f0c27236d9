/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control/listen.h"

#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 64

static int fill_address(const char *path, struct sockaddr_un *addr, struct pst_error *err)
{
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (path[0] != '/')
		return pst_fail(err, -EINVAL, "socket '%s': not a path that begins with /", path);
	if (strlen(path) >= sizeof(addr->sun_path))
		return pst_fail(err, -ENAMETOOLONG,
				"socket %s: longer than %zu bytes, which is what the address of a "
				"socket can have",
				path, sizeof(addr->sun_path) - 1);
	snprintf(addr->sun_path, sizeof(addr->sun_path), "%s", path);
	return 0;
}

static void folder_of(const char *path, char folder[108])
{
	const char *slash = strrchr(path, '/');
	int len = (int)(slash - path);

	snprintf(folder, 108, "%.*s", len ? len : 1, path);
}

/* The last folder of the path, for all to enter; not those above it. */
static int make_folder(struct listener *l, struct pst_error *err)
{
	char folder[108];

	folder_of(l->path, folder);
	if (!mkdir(folder, 0755)) {
		l->made_folder = true;
		chmod(folder, 0755); /* whatever the umask is */
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	return pst_fail(err, -errno, "socket %s: its folder %s cannot be made: %s", l->path, folder,
			strerror(errno));
}

/* 0: nobody is there, and nothing that is not ours is in the way any more. */
static int clear_place(const struct sockaddr_un *addr, struct pst_error *err)
{
	const char *path = addr->sun_path;
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) < 0)
		return errno == ENOENT
			       ? 0
			       : pst_fail(err, -errno, "socket %s: %s", path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return pst_fail(err, -EEXIST,
				"socket %s: something else has this name; remove it "
				"or choose another (--socket)",
				path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return pst_fail(err, -errno, "socket %s: %s", path, strerror(errno));
	rc = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 ? -errno : 0;
	close(fd);
	if (rc != -ECONNREFUSED)
		return pst_fail(err, -EADDRINUSE,
				"socket %s: another daemon serves it; end that "
				"one first, or choose another (--socket)",
				path);
	if (unlink(path) < 0 && errno != ENOENT)
		return pst_fail(err, -errno,
				"socket %s: what an earlier daemon left cannot be "
				"removed: %s",
				path, strerror(errno));
	return 0;
}

static int bind_it(struct listener *l, const struct sockaddr_un *addr, struct pst_error *err)
{
	struct stat st;

	if (bind(l->fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0)
		return pst_fail(err, -errno, "socket %s: %s", l->path, strerror(errno));
	l->made_socket = true;
	if (stat(l->path, &st) < 0 || chmod(l->path, 0666) < 0 || listen(l->fd, BACKLOG) < 0)
		return pst_fail(err, -errno, "socket %s: %s", l->path, strerror(errno));
	l->dev = st.st_dev;
	l->ino = st.st_ino;
	return 0;
}

/* Two daemons that begin at once: one looks and binds, then the other. */
static int lock_folder(const struct listener *l)
{
	char folder[108];
	int fd;

	folder_of(l->path, folder);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		flock(fd, LOCK_EX);
	return fd;
}

int listener_open(const char *path, struct listener *out, struct pst_error *err)
{
	struct listener l = {.fd = -1};
	struct sockaddr_un addr;
	int lock, rc;

	rc = fill_address(path, &addr, err);
	if (rc)
		return rc;
	snprintf(l.path, sizeof(l.path), "%s", path);
	rc = make_folder(&l, err);
	if (rc)
		return rc;
	lock = lock_folder(&l);
	rc = clear_place(&addr, err);
	if (!rc) {
		l.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		rc = l.fd < 0 ? pst_fail(err, -errno, "socket %s: %s", path, strerror(errno))
			      : bind_it(&l, &addr, err);
	}
	if (lock >= 0)
		close(lock);
	if (rc) {
		listener_close(&l);
		return rc;
	}
	*out = l;
	return 0;
}

/* Only what is still ours: the name may be another daemon's by now. */
void listener_close(struct listener *l)
{
	char folder[108];
	struct stat st;

	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	if (l->made_socket && !lstat(l->path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(l->path);
	if (l->made_folder) {
		folder_of(l->path, folder);
		rmdir(folder);
	}
}
