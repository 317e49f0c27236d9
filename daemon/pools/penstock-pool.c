/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstock-pool: makes the memory of one pool, and holds its lock while somebody wants it.
 *
 * What fills memory and what locks it keeps a whole process from changing its mappings until it is
 * done, so it is done in one that has nothing else to do. If the daemon ends meanwhile, so does
 * this; once the pool is there, it ends when nobody has the other end of its socket.
 */
#include "daemon/pools/pool_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void help(void)
{
	printf("Usage: penstock-pool [OPTION]\n"
	       "Make a pool for penstockd, and hold it locked in RAM. penstockd starts it by "
	       "itself.\n"
	       "\n"
	       "  --help          print this and exit\n"
	       "\n"
	       "Exit status: 0 nobody wants the pool any more, 1 failed, 2 usage.\n");
}

static int answer(int sock, struct pool_answer *a)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 3)] = {0};
	const int all[] = {a->memory.fd, a->memory.reader, a->memory.door};
	struct iovec iov = {a, sizeof(*a)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int fds[3];

	for (int i = 0; i < 3; i++)
		if (all[i] >= 0)
			fds[a->fds++] = all[i];
	if (a->fds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * a->fds);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * a->fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * a->fds);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* Who stays has no part in where its daemon stood and wrote. */
static void detach(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	signal(SIGHUP, SIG_IGN);
	if (chdir("/")) {
		/* then it stays where it is */
	}
	prctl(PR_SET_PDEATHSIG, 0);
}

static void wait_for_end(int sock)
{
	char byte;

	while (recv(sock, &byte, 1, 0) > 0 || errno == EINTR)
		errno = 0;
}

static int serve(int sock)
{
	struct pool_answer a = {.memory = POOL_MEMORY_NONE};
	struct pool_wish wish;

	if (recv(sock, &wish, sizeof(wish), 0) != sizeof(wish))
		return 1;
	a.rc = pool_memory_make(&wish, &a.memory, &a.err);
	if (a.rc)
		a.memory = POOL_MEMORY_NONE;
	if (a.memory.pool)
		detach();
	if (answer(sock, &a))
		return 1;
	close(a.memory.fd);
	if (a.memory.pool)
		wait_for_end(sock);
	return a.rc ? 1 : 0;
}

int main(int argc, char **argv)
{
	int sock = argc == 2 ? atoi(argv[1]) : -1, type = 0;
	socklen_t len = sizeof(type);

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		help();
		return 0;
	}
	if (sock <= STDERR_FILENO || getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &len) ||
	    type != SOCK_SEQPACKET) {
		fprintf(stderr, "penstock-pool: penstockd starts it by itself; see penstock-pool "
				"--help\n");
		return 2;
	}
	fcntl(sock, F_SETFD, FD_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	return serve(sock);
}
