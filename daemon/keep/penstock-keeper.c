/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-keeper: holds a daemon's descriptors while no daemon is there.
 *
 * It never waits for its daemon, has one at a time, takes only those of its own user, and ends when
 * it holds nothing for nobody, or when its socket's file is gone: then no daemon could find it.
 */
#include "daemon/keep/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NOT_LISTING SIZE_MAX
#define LOOK_MS	    1000 /* at the socket's file, without a daemon */
#define AGAIN_MS    10	 /* when too many descriptors are on their way */

struct entry {
	char name[KEEPER_NAME];
	int fd;
};

static struct entry entries[KEEPER_MAX];
static size_t nentries;

static int listener = KEEPER_LISTENER, peer = -1;
static size_t listing = NOT_LISTING; /* the next entry to be told of */
static bool crowded;		     /* the kernel takes no more descriptors for now */
static struct sockaddr_un address;
static struct stat socket_file;

static void *close_one(void *arg)
{
	close((int)(intptr_t)arg);
	return NULL;
}

/* Who is the last to have hundreds of gigabytes gives them back, which takes long: a thread does
 * it. */
static void close_later(int fd)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attr, close_one, (void *)(intptr_t)fd))
		close(fd);
	pthread_attr_destroy(&attr);
}

static struct entry *find(const char *name)
{
	for (size_t i = 0; i < nentries; i++)
		if (!strcmp(entries[i].name, name))
			return &entries[i];
	return NULL;
}

static void drop(const char *name)
{
	struct entry *e = find(name);

	if (!e)
		return;
	close_later(e->fd);
	*e = entries[--nentries];
}

static int put(const char *name, int fd)
{
	drop(name);
	if (nentries == KEEPER_MAX)
		return -ENOSPC;
	entries[nentries].fd = fd;
	memcpy(entries[nentries++].name, name, KEEPER_NAME);
	return 0;
}

static void peer_gone(void)
{
	close(peer);
	peer = -1;
	listing = NOT_LISTING;
}

/* 1: sent; 0: there is no room now; -errno. */
static int tell(int to, uint32_t op, const struct entry *e)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct keeper_msg m = {.op = op};
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (e) {
		struct cmsghdr *c;

		memcpy(m.name, e->name, sizeof(m.name));
		msg.msg_control = control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &e->fd, sizeof(int));
	}
	if (sendmsg(to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return 1;
	crowded = errno == ETOOMANYREFS;
	return errno == EAGAIN || errno == EINTR || crowded ? 0 : -errno;
}

/* As far as it goes without waiting. */
static void go_on_listing(void)
{
	int rc = 1;

	while (rc > 0 && listing < nentries) {
		rc = tell(peer, KEEPER_ENTRY, &entries[listing]);
		listing += rc > 0;
	}
	if (rc > 0)
		rc = tell(peer, KEEPER_END, NULL);
	if (rc > 0)
		listing = NOT_LISTING;
	else if (rc < 0)
		peer_gone();
}

/* The one descriptor of a packet, or -1. What is too many was cut off by the kernel. */
static int take_fd(struct msghdr *msg)
{
	int fd = -1;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
		    c->cmsg_len == CMSG_LEN(sizeof(int)))
			memcpy(&fd, CMSG_DATA(c), sizeof(int));
	return fd;
}

static int carry_out(const struct keeper_msg *m, int *fd)
{
	int rc;

	if (listing != NOT_LISTING || m->name[KEEPER_NAME - 1])
		return -EPROTO;
	switch (m->op) {
	case KEEPER_PUT:
		if (*fd < 0 || !m->name[0])
			return -EPROTO;
		rc = put(m->name, *fd);
		if (!rc)
			*fd = -1;
		return rc;
	case KEEPER_DROP:
		drop(m->name);
		return 0;
	case KEEPER_LIST:
		listing = 0;
		return 0;
	default:
		return -EPROTO;
	}
}

/* One packet. 0; -EAGAIN: there is none; -EPIPE: and there will be none. */
static int hear(void)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	struct keeper_msg m = {0};
	struct iovec iov = {&m, sizeof(m)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(peer, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fd, rc = -EPIPE;

	/* a reset is told before what was sent ahead of it */
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? -EAGAIN
		       : errno == ECONNRESET		 ? 0
							 : -EPIPE;
	fd = take_fd(&msg);
	if (n == sizeof(m) && !(msg.msg_flags & MSG_TRUNC))
		rc = carry_out(&m, &fd) ? -EPIPE : 0;
	if (fd >= 0)
		close(fd);
	return rc;
}

/* All that it said before its end is heard. */
static void hear_all(void)
{
	int rc;

	do
		rc = hear();
	while (!rc && listing == NOT_LISTING);
	if (rc == -EPIPE)
		peer_gone();
}

static void take_in(void)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) || who.uid != geteuid()) {
		close(fd);
	} else if (peer >= 0) {
		tell(fd, KEEPER_BUSY, NULL);
		close(fd);
	} else {
		peer = fd;
	}
}

static bool has_file(void)
{
	struct stat st;

	return !lstat(address.sun_path, &st) && st.st_ino == socket_file.st_ino &&
	       st.st_dev == socket_file.st_dev;
}

static void turn(void)
{
	struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = peer, .events = POLLIN}};
	bool list = listing != NOT_LISTING;

	if (list)
		p[1].events = crowded ? 0 : POLLOUT;
	poll(p, 2, peer < 0 ? LOOK_MS : list && crowded ? AGAIN_MS : -1);
	/* first the daemon that was, whose end is in the same row as the beginning of the next */
	if (peer >= 0 && !list && p[1].revents)
		hear_all();
	if (peer >= 0 && p[1].revents & (POLLHUP | POLLERR) && listing != NOT_LISTING)
		peer_gone();
	if (peer >= 0 && listing != NOT_LISTING)
		go_on_listing();
	if (p[0].revents)
		take_in();
}

static void serve(void)
{
	do
		turn();
	while (peer >= 0 || (nentries && has_file()));
	/* in this order: who comes after the file went finds nobody, who came before is let go */
	if (has_file())
		unlink(address.sun_path);
	close(listener);
}

static void help(void)
{
	printf("Usage: " KEEPER_PROGRAM " [OPTION]\n"
	       "Hold the pools of penstockd while it is not there. penstockd starts it by itself.\n"
	       "\n"
	       "  --help          print this and exit\n"
	       "\n"
	       "Exit status: 0 held nothing any more, 1 failed, 2 usage.\n");
}

/* It is its daemon's no longer: what that one had open or was told is not this one's. */
static int detach(void)
{
	struct rlimit files;
	int null = open("/dev/null", O_RDWR);

	for (int fd = 0; null >= 0 && fd < KEEPER_LISTENER; fd++)
		dup2(null, fd);
	close_range(KEEPER_DAEMON + 1, ~0u, 0);
	fcntl(KEEPER_LISTENER, F_SETFD, FD_CLOEXEC);
	fcntl(KEEPER_DAEMON, F_SETFD, FD_CLOEXEC);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &files)) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	return chdir("/") ? -errno : 0;
}

/* Who kills for memory would kill this one, which has all of it and uses none. */
static void be_spared(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, "-900", 4) < 0) {
		/* only root may */
	}
	close(fd);
}

static int open_socket(void)
{
	socklen_t len = sizeof(address) - 1;
	int type = 0;

	if (getsockname(listener, (struct sockaddr *)&address, &len) ||
	    address.sun_family != AF_UNIX || address.sun_path[0] != '/')
		return -EINVAL;
	len = sizeof(type);
	if (getsockopt(listener, SOL_SOCKET, SO_TYPE, &type, &len) || type != SOCK_SEQPACKET)
		return -EINVAL;
	if (lstat(address.sun_path, &socket_file) || listen(listener, 64))
		return -errno;
	if (fcntl(listener, F_SETFL, O_RDWR | O_NONBLOCK))
		return -errno;
	peer = KEEPER_DAEMON;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--help")) {
		help();
		return 0;
	}
	if (argc != 1 || open_socket()) {
		fprintf(stderr, KEEPER_PROGRAM
			": penstockd starts it by itself; see " KEEPER_PROGRAM " --help\n");
		return 2;
	}
	if (detach())
		return 1;
	be_spared();
	serve();
	return 0;
}
