/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's end of penstock-pool. */
#include "daemon/pools/pool_memory.h"

#include "daemon/spawn.h"
#include "rdma/fail.h"
#include "runtime/mem/admit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS 3

int pool_memory_ask(const struct pool_wish *wish, int *sock, pid_t *pid, struct pst_error *err)
{
	const char *argv[] = {"penstock-pool", NULL, NULL};
	char number[16];
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return pst_fail(err, -errno, "pool %s: no socket: %s", wish->name, strerror(errno));
	snprintf(number, sizeof(number), "%d", pair[1]);
	argv[1] = number;
	/* before there is somebody to read it: it waits in the socket */
	rc = send(pair[0], wish, sizeof(*wish), MSG_NOSIGNAL) < 0 ? -errno : 0;
	if (rc)
		pst_fail(err, rc, "pool %s: %s", wish->name, strerror(-rc));
	else
		rc = spawn_program(argv, pair[1], pid, err);
	close(pair[1]);
	if (rc)
		close(pair[0]);
	else
		*sock = pair[0];
	return rc;
}

static void take_fds(struct msghdr *msg, int fds[FDS], uint32_t *n)
{
	*n = 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t bytes = c->cmsg_len - CMSG_LEN(0);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		*n = (uint32_t)(bytes / sizeof(int));
		memcpy(fds, CMSG_DATA(c), bytes);
	}
}

/* Numbers of another process give way to those that came. */
static bool put_fds(struct pool_memory *m, const int *fds, uint32_t n)
{
	int *at[FDS] = {&m->fd, &m->reader, &m->door};
	uint32_t used = 0;

	for (int i = 0; i < FDS; i++) {
		if (*at[i] < 0)
			continue;
		*at[i] = used < n ? fds[used] : -1;
		used++;
	}
	m->pool = NULL;
	m->holder = -1;
	return used == n && m->fd >= 0;
}

/* It says why it fails; if it says nothing it was killed, and not by us. */
static int fail_dead(const struct pool_wish *wish, struct pst_error *err)
{
	char a[32];

	return pst_fail(err, -ENOMEM,
			"pool %s: penstock-pool was killed while it took %s; did the kernel run "
			"out of memory? journalctl -k -g oom",
			wish->name, pst_admit_size(a, sizeof(a), wish->bytes));
}

int pool_memory_take(const struct pool_wish *wish, int sock, struct pool_memory *out,
		     struct pst_error *err)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * FDS)];
	struct pool_answer a;
	struct iovec iov = {&a, sizeof(a)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[FDS], rc;
	uint32_t nfds = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -EAGAIN;
	/* nothing is filled in where nothing came: not even how much came with it */
	if (n >= 0)
		take_fds(&msg, fds, &nfds);
	if (n != sizeof(a)) {
		rc = n <= 0 ? fail_dead(wish, err)
			    : pst_fail(err, -EPROTO,
				       "pool %s: penstock-pool is not of this penstockd's version; "
				       "restart penstockd",
				       wish->name);
	} else if (a.rc) {
		rc = a.rc;
		pst_fail(err, rc, "%.*s", (int)sizeof(a.err.text) - 1, a.err.text);
	} else if (!put_fds(&a.memory, fds, nfds)) {
		rc = pst_fail(err, -EMFILE,
			      "pool %s: no descriptor is free for it; raise "
			      "LimitNOFILE= in the unit",
			      wish->name);
	} else {
		*out = a.memory;
		if (out->flags & PST_POOL_CREATE_LOCK && !out->huge)
			out->holder = sock;
		else
			close(sock);
		return 0;
	}
	for (uint32_t i = 0; i < nfds; i++)
		close(fds[i]);
	close(sock);
	return rc;
}
