/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets driven by epoll. A cq with few connections is polled by reading from
 * them without asking epoll first, which is looked at now and then.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#define EVENTS	       64
#define PIECES	       64
#define READS_AT_ONCE  64 /* of one connection, then the others have their turn */
#define SENDS_AT_ONCE  16
#define FEW	       4 /* connections: faster read than asked for */
#define POLLS_PER_LOOK 256

struct driver {
	int fd;
	unsigned int polls;
	int64_t looked;
};

/* What an event is for: a source, or a connection by the lowest bit. */
static void *tag(struct tcp_conn *conn)
{
	return (char *)conn + 1;
}

static int control(struct tcp_cq *cq, int op, int fd, uint32_t events, void *ptr)
{
	const struct driver *d = cq->driver;
	struct epoll_event ev = {.events = events, .data.ptr = ptr};

	return epoll_ctl(d->fd, op, fd, &ev) ? -errno : 0;
}

static int epoll_open(struct tcp_cq *cq)
{
	struct driver *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	d->fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->fd < 0) {
		rc = -errno;
		free(d);
		return rc;
	}
	cq->driver = d;
	cq->pollfd = d->fd;
	return 0;
}

static void epoll_shut(struct tcp_cq *cq)
{
	struct driver *d = cq->driver;

	close(d->fd);
	free(d);
}

static int epoll_watch(struct tcp_cq *cq, struct tcp_source *src)
{
	return control(cq, EPOLL_CTL_ADD, src->fd, EPOLLIN, src);
}

static void epoll_unwatch(struct tcp_cq *cq, struct tcp_source *src)
{
	control(cq, EPOLL_CTL_DEL, src->fd, 0, NULL);
}

static int epoll_add(struct tcp_conn *conn)
{
	return control(pst_tcp_cq_of(conn->link), EPOLL_CTL_ADD, conn->fd, EPOLLIN, tag(conn));
}

static void epoll_remove(struct tcp_conn *conn)
{
	control(pst_tcp_cq_of(conn->link), EPOLL_CTL_DEL, conn->fd, 0, NULL);
}

static void want_out(struct tcp_conn *conn, bool want)
{
	if (conn->want_out == want)
		return;
	conn->want_out = want;
	control(pst_tcp_cq_of(conn->link), EPOLL_CTL_MOD, conn->fd,
		want ? EPOLLIN | EPOLLOUT : EPOLLIN, tag(conn));
}

/* One piece goes by the shorter way through the kernel: most calls of who polls find nothing. */
static ssize_t receive(int fd, struct iovec *iov, int pieces)
{
	struct msghdr msg;

	if (pieces == 1)
		return recv(fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT);
	msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = (size_t)pieces};
	return recvmsg(fd, &msg, MSG_DONTWAIT);
}

static ssize_t give(int fd, struct iovec *iov, int pieces)
{
	struct msghdr msg;

	if (pieces == 1)
		return send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL | MSG_DONTWAIT);
	msg = (struct msghdr){.msg_iov = iov, .msg_iovlen = (size_t)pieces};
	return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* 1: there may be more to read; 0: there is not; -ENOTCONN. */
static int read_once(struct tcp_conn *conn)
{
	struct iovec iov[2];
	int pieces = pst_tcp_in_iov(conn, iov);
	size_t room = 0;
	ssize_t n;

	for (int i = 0; i < pieces; i++)
		room += iov[i].iov_len;
	n = receive(conn->fd, iov, pieces);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (pst_tcp_in_done(conn, n < 0 ? -errno : n))
		return -ENOTCONN;
	return (size_t)n == room;
}

static void read_all(struct tcp_conn *conn)
{
	for (int i = 0; i < READS_AT_ONCE; i++)
		if (read_once(conn) <= 0)
			return;
}

/* The other side may have said something before it went. */
static void send_failed(struct tcp_conn *conn, int rc)
{
	while (read_once(conn) > 0)
		;
	pst_tcp_fail_errno(conn, rc);
}

static void epoll_push(struct tcp_conn *conn)
{
	for (int i = 0; i < SENDS_AT_ONCE && conn->fd >= 0; i++) {
		struct iovec iov[PIECES];
		int pieces = pst_tcp_out_iov(conn, iov, PIECES);
		ssize_t n;

		if (!pieces) {
			want_out(conn, false);
			return;
		}
		n = give(conn->fd, iov, pieces);
		if (n < 0 && errno != EAGAIN && errno != EINTR) {
			send_failed(conn, -errno);
			return;
		}
		if (n < 0)
			break;
		pst_tcp_out_done(conn, (size_t)n);
		if (!pst_tcp_out_any(conn)) {
			want_out(conn, false);
			return;
		}
	}
	if (conn->fd >= 0)
		want_out(conn, true);
}

static void serve(struct tcp_conn *conn)
{
	if (conn->fd >= 0)
		read_all(conn);
	if (conn->fd >= 0 && (conn->want_out || pst_tcp_out_any(conn)))
		epoll_push(conn);
}

static int look(struct tcp_cq *cq, int timeout_ms)
{
	struct driver *d = cq->driver;
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(d->fd, ev, EVENTS, timeout_ms);

	d->polls = 0;
	d->looked = pst_tcp_now();
	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		char *what = ev[i].data.ptr;
		struct tcp_source *src = ev[i].data.ptr;

		if ((uintptr_t)what & 1)
			serve((struct tcp_conn *)(what - 1));
		else
			src->ready(src);
	}
	return 0;
}

static int epoll_turn(struct tcp_cq *cq, int timeout_ms)
{
	struct driver *d = cq->driver;
	struct tcp_link *link;

	if (timeout_ms || !cq->nconns || cq->nconns > FEW || ++d->polls >= POLLS_PER_LOOK ||
	    d->looked != pst_tcp_now())
		return look(cq, timeout_ms);
	TAILQ_FOREACH(link, &cq->links, on_cq)
	{
		for (unsigned int i = 0; i < link->nconns; i++)
			serve(link->conn[i]);
	}
	return 0;
}

const struct tcp_io pst_tcp_epoll = {
	.name = "epoll",
	.open = epoll_open,
	.close = epoll_shut,
	.watch = epoll_watch,
	.unwatch = epoll_unwatch,
	.add = epoll_add,
	.remove = epoll_remove,
	.push = epoll_push,
	.turn = epoll_turn,
};
