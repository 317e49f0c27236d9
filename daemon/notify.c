/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_FDS_START 3
#define NOTIFY_FDS_MAX	 4

/* A path, or with '@' a name in the abstract namespace. 0: no such address. */
static socklen_t address(struct sockaddr_un *addr)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t len = path ? strlen(path) : 0;

	if (len < 2 || len >= sizeof(addr->sun_path) || (path[0] != '/' && path[0] != '@'))
		return 0;
	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	memcpy(addr->sun_path, path, len);
	if (path[0] == '@')
		addr->sun_path[0] = '\0';
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

bool notify_wanted(void)
{
	struct sockaddr_un addr;

	return address(&addr) != 0;
}

int notify_send(const char *state, const int *fds, size_t nfds)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * NOTIFY_FDS_MAX)] = {0};
	struct iovec iov = {(void *)state, strlen(state)};
	struct sockaddr_un addr;
	struct msghdr msg = {.msg_name = &addr, .msg_iov = &iov, .msg_iovlen = 1};
	int fd, rc;

	msg.msg_namelen = address(&addr);
	if (!msg.msg_namelen)
		return 0;
	if (nfds > NOTIFY_FDS_MAX)
		return -EINVAL;
	if (nfds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
	}
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = sendmsg(fd, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

int notify_say(const char *fmt, ...)
{
	char state[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(state, sizeof(state), fmt, ap);
	va_end(ap);
	return notify_send(state, NULL, 0);
}

int notify_reloading(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return notify_say("RELOADING=1\nMONOTONIC_USEC=%lld",
			  (long long)t.tv_sec * 1000000 + t.tv_nsec / 1000);
}

static long long number(const char *name)
{
	const char *text = getenv(name);
	char *end;
	long long n;

	if (!text || !*text)
		return -1;
	errno = 0;
	n = strtoll(text, &end, 10);
	return *end || errno || n < 0 ? -1 : n;
}

int notify_watchdog_ms(void)
{
	long long us = number("WATCHDOG_USEC"), pid = number("WATCHDOG_PID");

	if (us <= 0 || (pid >= 0 && pid != getpid()))
		return 0;
	return us < 2000 ? 1 : us / 1000 > INT32_MAX ? INT32_MAX : (int)(us / 1000);
}

static bool option_is(int fd, int option, int want)
{
	socklen_t len = sizeof(int);
	int is;

	return !getsockopt(fd, SOL_SOCKET, option, &is, &len) && is == want;
}

/* Those of the descriptor store come in the same row; none of them listens. */
int notify_listening(void)
{
	long long n = number("LISTEN_FDS"), pid = number("LISTEN_PID");

	if (pid != getpid())
		return -1;
	for (int fd = LISTEN_FDS_START; n > 0 && fd < LISTEN_FDS_START + n; fd++)
		if (option_is(fd, SO_ACCEPTCONN, 1) && option_is(fd, SO_DOMAIN, AF_UNIX) &&
		    option_is(fd, SO_TYPE, SOCK_SEQPACKET)) {
			fcntl(fd, F_SETFD, FD_CLOEXEC);
			return fd;
		}
	return -1;
}
