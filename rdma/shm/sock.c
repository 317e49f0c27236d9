/* SPDX-License-Identifier: Apache-2.0 */
#include "rdma/shm/sock.h"
#include "rdma/fail.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ABSTRACT_PREFIX "penstock/"
#define BACKLOG		128

static bool good_name(const char *name)
{
	for (const char *c = name; *c; c++)
		if (!isgraph((unsigned char)*c) || (*c == '/' && name[0] != '/'))
			return false;
	return name[0] && strcmp(name, "/");
}

int pst_shm_addr(const char *url, struct shm_addr *out, struct pst_error *err)
{
	const char *name = url + strlen("shm://");
	bool path = name[0] == '/';
	struct sockaddr_un *sun = &out->sun;
	size_t room = sizeof(sun->sun_path) - 1 - (path ? 0 : strlen(ABSTRACT_PREFIX));

	if (!good_name(name))
		return pst_fail(err, -EINVAL,
				"%s: not a name; write shm://NAME without spaces and slashes, or "
				"shm:///PATH of a socket",
				url);
	if (strlen(name) > room)
		return pst_fail(err, -ENAMETOOLONG, "%s: the name may have %zu characters", url,
				room);
	memset(out, 0, sizeof(*out));
	sun->sun_family = AF_UNIX;
	if (path) {
		memcpy(sun->sun_path, name, strlen(name) + 1);
		out->len = sizeof(*sun);
		return 0;
	}
	memcpy(sun->sun_path + 1, ABSTRACT_PREFIX, strlen(ABSTRACT_PREFIX));
	memcpy(sun->sun_path + 1 + strlen(ABSTRACT_PREFIX), name, strlen(name));
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			       strlen(ABSTRACT_PREFIX) + strlen(name));
	return 0;
}

int pst_shm_socket(void)
{
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return sock < 0 ? -errno : sock;
}

/* Does a connection get through, or at least into a full backlog? */
static bool lives(const struct shm_addr *addr)
{
	int probe = pst_shm_socket();
	bool yes = true;

	if (probe < 0)
		return true;
	if (connect(probe, (const struct sockaddr *)&addr->sun, addr->len))
		yes = errno != ECONNREFUSED && errno != ENOENT;
	close(probe);
	return yes;
}

/*
 * Two servers that start at once must not remove each other's socket: the lock
 * of the directory covers the look, the removal and the bind. Whoever holds it
 * for longer than a second is no such server.
 */
static int lock_directory(const struct shm_addr *addr)
{
	char copy[sizeof(addr->sun.sun_path) + 1];
	int fd, tries = 100;

	snprintf(copy, sizeof(copy), "%s", addr->sun.sun_path);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK || !tries--) {
			close(fd);
			return -EBUSY;
		}
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return fd;
}

static int try_bind(int sock, const struct shm_addr *addr)
{
	if (bind(sock, (const struct sockaddr *)&addr->sun, addr->len))
		return -errno;
	return listen(sock, BACKLOG) ? -errno : 0;
}

static int bind_path(int sock, const struct shm_addr *addr)
{
	int rc, dir = lock_directory(addr);
	struct stat st;

	if (dir < 0)
		return dir;
	rc = try_bind(sock, addr);
	if (rc == -EADDRINUSE && !lstat(addr->sun.sun_path, &st) && S_ISSOCK(st.st_mode) &&
	    !lives(addr)) {
		unlink(addr->sun.sun_path);
		rc = try_bind(sock, addr);
	}
	close(dir);
	return rc;
}

int pst_shm_bind(int sock, const struct shm_addr *addr, const char *url, struct pst_error *err)
{
	int rc = pst_shm_addr_is_path(addr) ? bind_path(sock, addr) : try_bind(sock, addr);

	if (rc == -EADDRINUSE)
		return pst_fail(err, rc,
				"listen on %s: the name is in use; stop the other server or take "
				"another name (ss -xl shows who has it)",
				url);
	if (rc)
		return pst_fail(err, rc, "listen on %s: %s", url, strerror(-rc));
	return 0;
}

int pst_shm_send(int sock, const void *packet, size_t len, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)packet, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = control.space;
		msg.msg_controllen = sizeof(control.space);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	for (;;) {
		if (sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* Keep the first fd of what came, close the rest; their number. */
static int take_fds(struct msghdr *msg, int *first)
{
	int n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(fd) <= bytes; at += sizeof(fd)) {
			memcpy(&fd, CMSG_DATA(c) + at, sizeof(fd));
			if (n++)
				close(fd);
			else
				*first = fd;
		}
	}
	return n;
}

int pst_shm_recv(int sock, void *packet, size_t size, int *fd)
{
	union {
		char space[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = packet, .iov_len = size};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.space,
			     .msg_controllen = sizeof(control.space)};
	ssize_t n;

	*fd = -1;
	do {
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	if (take_fds(&msg, fd) <= 1 && !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return (int)n;
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return -EPROTO;
}

int pst_shm_peer(int sock)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		return -errno;
	return cred.uid == geteuid() || cred.uid == 0 ? cred.pid : -EACCES;
}
