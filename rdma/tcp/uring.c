/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets driven by io_uring: each connection always has one receive under way,
 * into the places where the next bytes belong, so a sleeper wakes up with them
 * already there. Sends are made at once by a system call, as in epoll.c;
 * large ones to another host go without a copy, and end when the kernel has let
 * go of the memory.
 *
 * Whatever is under way of a connection or source ends before it is removed:
 * it is cancelled and waited for. What completes of others meanwhile is kept for
 * the next turn, so that nothing is handled inside of something else.
 *
 * Multishot receives and receive buffers of the kernel's are not used: the data
 * of a WRITE would then be copied.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES	       256
#define PIECES	       64
#define ROUNDS	       32 /* of completions in one turn, then the owner has its turn */
#define SENDS_AT_ONCE  16
#define ZERO_COPY_FROM (64u << 10) /* pinning pages costs more than copying less */

/* Newer than the headers that we build with. */
#ifndef IORING_SEND_ZC_REPORT_USAGE
#define IORING_SEND_ZC_REPORT_USAGE (1u << 3)
#endif
#ifndef IORING_NOTIF_USAGE_ZC_COPIED
#define IORING_NOTIF_USAGE_ZC_COPIED (1u << 31)
#endif

/* What a completion is for: the low bits of its user data. */
enum { TAG_SOURCE, TAG_RECV, TAG_SEND, TAG_NOBODY, TAG_MASK = 3 };

struct done {
	uint64_t data;
	int32_t res;
	uint32_t flags;
};

struct driver {
	struct io_uring ring;
	struct done *kept; /* completions that came while others were waited for */
	unsigned int nkept, room;
};

/* Of a connection. */
struct flight {
	bool receiving, sending;
	bool copied;  /* zero-copy sends were none: the way is a local one */
	int send_rc;  /* a send failed: what comes is read, then it is over */
	ssize_t sent; /* by a send whose memory is still held */
	struct msghdr in, out;
	struct iovec in_iov[2], out_iov[PIECES];
};

static struct driver *driver_of(struct tcp_conn *conn)
{
	return pst_tcp_cq_of(conn->link)->driver;
}

static uint64_t tagged(const void *ptr, unsigned int tag)
{
	return (uint64_t)(uintptr_t)ptr | tag;
}

static struct io_uring_sqe *get_sqe(struct driver *d)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&d->ring);

	while (!sqe) {
		io_uring_submit(&d->ring);
		sqe = io_uring_get_sqe(&d->ring);
	}
	return sqe;
}

/* Kernels that have the newest of what is used have all of it. */
static bool has_all(struct io_uring *ring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool yes = probe && io_uring_opcode_supported(probe, IORING_OP_SENDMSG_ZC);

	io_uring_free_probe(probe);
	return yes && ring->features & IORING_FEAT_EXT_ARG;
}

static int open_ring(struct io_uring *ring, unsigned int entries)
{
	int rc = io_uring_queue_init(entries, ring, 0);

	if (rc || has_all(ring))
		return rc;
	io_uring_queue_exit(ring);
	return -ENOSYS;
}

int pst_tcp_uring_allowed(void)
{
	struct io_uring ring;
	int rc = open_ring(&ring, 1);

	if (!rc)
		io_uring_queue_exit(&ring);
	return rc;
}

static int uring_open(struct tcp_cq *cq)
{
	struct driver *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	rc = open_ring(&d->ring, ENTRIES);
	if (rc) {
		free(d);
		return rc;
	}
	io_uring_ring_dontfork(&d->ring);
	cq->driver = d;
	cq->pollfd = d->ring.ring_fd;
	return 0;
}

static void uring_close(struct tcp_cq *cq)
{
	struct driver *d = cq->driver;

	io_uring_queue_exit(&d->ring);
	free(d->kept);
	free(d);
}

/* The next completion of the ring, to be handled later. False: there is none. */
static bool keep_one(struct driver *d)
{
	struct io_uring_cqe *cqe;

	if (d->nkept == d->room) {
		unsigned int room = d->room ? d->room * 2 : 64;
		struct done *kept = realloc(d->kept, room * sizeof(*kept));

		if (!kept)
			return false;
		d->kept = kept;
		d->room = room;
	}
	if (io_uring_peek_cqe(&d->ring, &cqe))
		return false;
	d->kept[d->nkept++] =
		(struct done){.data = cqe->user_data, .res = cqe->res, .flags = cqe->flags};
	io_uring_cqe_seen(&d->ring, cqe);
	return true;
}

static void cancel(struct driver *d, uint64_t data)
{
	struct io_uring_sqe *sqe = get_sqe(d);

	io_uring_prep_cancel64(sqe, data, 0);
	io_uring_sqe_set_data64(sqe, tagged(NULL, TAG_NOBODY));
}

/* Wait until what has this user data is over, and forget it. */
static void wait_end(struct driver *d, uint64_t data)
{
	unsigned int i = 0;

	for (;;) {
		for (; i < d->nkept; i++) {
			struct done *k = &d->kept[i];

			if (k->data != data)
				continue;
			k->data = tagged(NULL, TAG_NOBODY);
			if (!(k->flags & IORING_CQE_F_MORE))
				return;
		}
		if (!keep_one(d))
			io_uring_submit_and_wait(&d->ring, 1);
	}
}

static int uring_watch(struct tcp_cq *cq, struct tcp_source *src)
{
	struct io_uring_sqe *sqe = get_sqe(cq->driver);

	io_uring_prep_poll_add(sqe, src->fd, POLLIN);
	io_uring_sqe_set_data64(sqe, tagged(src, TAG_SOURCE));
	src->io = src;
	io_uring_submit(&((struct driver *)cq->driver)->ring);
	return 0;
}

static void uring_unwatch(struct tcp_cq *cq, struct tcp_source *src)
{
	struct driver *d = cq->driver;

	if (!src->io)
		return;
	src->io = NULL;
	cancel(d, tagged(src, TAG_SOURCE));
	wait_end(d, tagged(src, TAG_SOURCE));
}

static void receive(struct tcp_conn *conn)
{
	struct flight *f = conn->io;
	struct io_uring_sqe *sqe = get_sqe(driver_of(conn));

	f->in = (struct msghdr){.msg_iov = f->in_iov};
	f->in.msg_iovlen = (size_t)pst_tcp_in_iov(conn, f->in_iov);
	io_uring_prep_recvmsg(sqe, conn->fd, &f->in, 0);
	io_uring_sqe_set_data64(sqe, tagged(conn, TAG_RECV));
	f->receiving = true;
}

static int uring_add(struct tcp_conn *conn)
{
	struct flight *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->copied = pst_tcp_same_host(conn->fd);
	conn->io = f;
	receive(conn);
	io_uring_submit(&driver_of(conn)->ring);
	return 0;
}

static void uring_remove(struct tcp_conn *conn)
{
	static const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
	struct driver *d = driver_of(conn);
	struct flight *f = conn->io;

	if (f->receiving)
		cancel(d, tagged(conn, TAG_RECV));
	if (f->sending)
		cancel(d, tagged(conn, TAG_SEND));
	/* what was sent without a copy is held until it has arrived: the connection is broken off
	 */
	if (f->sending && !f->copied)
		connect(conn->fd, &nowhere, sizeof(nowhere));
	if (f->receiving)
		wait_end(d, tagged(conn, TAG_RECV));
	if (f->sending)
		wait_end(d, tagged(conn, TAG_SEND));
	free(f);
	conn->io = NULL;
}

/*
 * The other side may have said something before it went: that is read first. It may also be as
 * well as ever, and the fault on this side: then there is nothing more to wait for.
 */
static void send_failed(struct tcp_conn *conn, int rc)
{
	struct flight *f = conn->io;

	f->send_rc = rc;
	shutdown(conn->fd, SHUT_RD);
}

static void wait_for_room(struct tcp_conn *conn)
{
	struct flight *f = conn->io;
	struct io_uring_sqe *sqe = get_sqe(driver_of(conn));

	io_uring_prep_poll_add(sqe, conn->fd, POLLOUT);
	io_uring_sqe_set_data64(sqe, tagged(conn, TAG_SEND));
	f->sending = true;
	f->sent = 0;
}

static size_t bytes_of(const struct msghdr *msg)
{
	size_t n = 0;

	for (size_t i = 0; i < msg->msg_iovlen; i++)
		n += msg->msg_iov[i].iov_len;
	return n;
}

static void send_without_copy(struct tcp_conn *conn)
{
	struct flight *f = conn->io;
	struct io_uring_sqe *sqe = get_sqe(driver_of(conn));

	io_uring_prep_sendmsg_zc(sqe, conn->fd, &f->out, MSG_NOSIGNAL);
	sqe->ioprio |= IORING_SEND_ZC_REPORT_USAGE;
	io_uring_sqe_set_data64(sqe, tagged(conn, TAG_SEND));
	f->sending = true;
	f->sent = 0;
	/* the answer may be here before the kernel says that it has sent it */
	pst_tcp_out_given(conn, bytes_of(&f->out));
}

/* Send what can be sent now; the ring is told of the rest by the caller's next submit. */
static void send_some(struct tcp_conn *conn)
{
	struct flight *f = conn->io;

	for (int i = 0; i < SENDS_AT_ONCE && !f->sending && !f->send_rc; i++) {
		ssize_t n;

		f->out = (struct msghdr){.msg_iov = f->out_iov};
		f->out.msg_iovlen = (size_t)pst_tcp_out_iov(conn, f->out_iov, PIECES);
		if (!f->out.msg_iovlen)
			return;
		if (!f->copied && bytes_of(&f->out) >= ZERO_COPY_FROM) {
			send_without_copy(conn);
			return;
		}
		n = sendmsg(conn->fd, &f->out, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n >= 0)
			pst_tcp_out_done(conn, (size_t)n);
		else if (errno == EAGAIN)
			wait_for_room(conn);
		else if (errno != EINTR)
			send_failed(conn, -errno);
		if (n >= 0 && !pst_tcp_out_any(conn))
			return;
	}
	if (!f->sending && !f->send_rc)
		wait_for_room(conn);
}

static void uring_push(struct tcp_conn *conn)
{
	struct driver *d = driver_of(conn);

	if (conn->fd < 0)
		return;
	send_some(conn);
	if (io_uring_sq_ready(&d->ring))
		io_uring_submit(&d->ring);
}

static void received(struct tcp_conn *conn, int res)
{
	struct flight *f = conn->io;

	f->receiving = false;
	if (res <= 0 && f->send_rc)
		res = f->send_rc;
	/* cancelled: the thread that began it is gone */
	if (res != -EINTR && res != -EAGAIN && res != -ECANCELED && pst_tcp_in_done(conn, res))
		return;
	receive(conn);
	if (pst_tcp_out_any(conn))
		send_some(conn);
}

static void sent(struct tcp_conn *conn, const struct done *k)
{
	struct flight *f = conn->io;
	bool notice = k->flags & IORING_CQE_F_NOTIF;

	if (k->flags & IORING_CQE_F_MORE) {
		f->sent = k->res;
		return;
	}
	f->sending = false;
	if (notice && (uint32_t)k->res & IORING_NOTIF_USAGE_ZC_COPIED)
		f->copied = true;
	if (notice && f->sent > 0)
		pst_tcp_out_done(conn, (size_t)f->sent);
	else if (notice ? f->sent < 0 : k->res < 0) {
		int rc = notice ? (int)f->sent : k->res;

		if (rc == -EINVAL || rc == -EOPNOTSUPP || rc == -ENOMEM || rc == -ENOBUFS)
			f->copied = true; /* not here, or not now: with a copy, then */
		else if (rc != -ECANCELED && rc != -EINTR && rc != -EAGAIN)
			send_failed(conn, rc);
	}
	send_some(conn);
}

static void handle(struct tcp_cq *cq, const struct done *k)
{
	void *who = (void *)(uintptr_t)(k->data & ~(uint64_t)TAG_MASK);
	struct tcp_source *src = who;

	switch (k->data & TAG_MASK) {
	case TAG_SOURCE:
		/* watched again before it is handled, since that may be its end */
		uring_watch(cq, src);
		src->ready(src);
		break;
	case TAG_RECV:
		received(who, k->res);
		break;
	case TAG_SEND:
		sent(who, k);
		break;
	default:
		break;
	}
}

/* All completions that are there; were there any? */
static bool handle_all(struct tcp_cq *cq)
{
	struct driver *d = cq->driver;
	bool any = false;

	while (keep_one(d))
		;
	/* handling one can keep more, or take some out */
	for (unsigned int i = 0; i < d->nkept; i++) {
		struct done k = d->kept[i];

		d->kept[i].data = tagged(NULL, TAG_NOBODY);
		handle(cq, &k);
		any = true;
	}
	d->nkept = 0;
	return any;
}

static int sleep_for(struct driver *d, int timeout_ms)
{
	struct __kernel_timespec ts = {.tv_sec = timeout_ms / 1000,
				       .tv_nsec = (long long)timeout_ms % 1000 * 1000000};
	struct io_uring_cqe *cqe;
	int rc = io_uring_submit_and_wait_timeout(&d->ring, &cqe, 1, timeout_ms < 0 ? NULL : &ts,
						  NULL);

	return rc == -EINTR ? -EINTR : 0;
}

static int uring_turn(struct tcp_cq *cq, int timeout_ms)
{
	struct driver *d = cq->driver;
	int rc = 0;

	if (timeout_ms && !d->nkept && !io_uring_cq_ready(&d->ring))
		rc = sleep_for(d, timeout_ms);
	for (int i = 0; i < ROUNDS && handle_all(cq); i++)
		if (io_uring_sq_ready(&d->ring))
			io_uring_submit(&d->ring);
	return rc;
}

const struct tcp_io pst_tcp_uring = {
	.name = "uring",
	.open = uring_open,
	.close = uring_close,
	.watch = uring_watch,
	.unwatch = uring_unwatch,
	.add = uring_add,
	.remove = uring_remove,
	.push = uring_push,
	.turn = uring_turn,
};
