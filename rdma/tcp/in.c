/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stream from a socket, cut into frames. Two places are filled: the rest of
 * the frame that is being received, right where it belongs, and behind it the
 * stage with the beginnings of the next frames. The stage is as long as the head
 * of a WRITE or DATA frame, and always begins with a frame, so their data can
 * never be in it; the data of a message can, and is copied.
 */
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <string.h>

int pst_tcp_in_iov(struct tcp_conn *conn, struct iovec iov[2])
{
	int n = 0;

	if (conn->body_left)
		iov[n++] = (struct iovec){.iov_base = conn->body, .iov_len = conn->body_left};
	iov[n++] = (struct iovec){.iov_base = conn->stage + conn->staged,
				  .iov_len = TCP_STAGE - conn->staged};
	return n;
}

/* The head of a frame that is whole in the stage: 1, 0 if it is not, -ENOTCONN. */
static int next_head(struct tcp_conn *conn)
{
	unsigned int len;

	if (conn->staged < sizeof(struct pst_frame))
		return 0;
	memcpy(&conn->in, conn->stage, sizeof(struct pst_frame));
	len = pst_tcp_head_len(conn->in.frame.type);
	if (!len)
		return pst_tcp_broke(conn, "no such type of frame");
	if (conn->staged < len)
		return 0;
	memcpy(&conn->in, conn->stage, len);
	conn->staged -= len;
	memmove(conn->stage, conn->stage + len, conn->staged);
	return 1;
}

static void body_from_stage(struct tcp_conn *conn)
{
	unsigned int n =
		conn->body_left < conn->staged ? (unsigned int)conn->body_left : conn->staged;

	if (!n)
		return;
	memcpy(conn->body, conn->stage, n);
	conn->body += n;
	conn->body_left -= n;
	conn->staged -= n;
	memmove(conn->stage, conn->stage + n, conn->staged);
}

static int cut(struct tcp_conn *conn)
{
	int rc;

	while ((rc = next_head(conn)) > 0) {
		rc = pst_tcp_frame_begin(conn);
		if (rc)
			return rc;
		body_from_stage(conn);
		if (conn->body_left)
			return 0;
		rc = pst_tcp_frame_end(conn);
		if (rc)
			return rc;
	}
	return rc;
}

int pst_tcp_in_done(struct tcp_conn *conn, ssize_t n)
{
	uint64_t got = (uint64_t)n, to_body;

	if (n <= 0)
		return n ? pst_tcp_fail_errno(conn, (int)n)
			 : pst_tcp_fail(conn->link, conn->way, PST_CAUSE_PEER_CLOSED, NULL);
	conn->heard = pst_tcp_now();
	conn->pinged = 0;
	to_body = got < conn->body_left ? got : conn->body_left;
	if (conn->body_left) {
		conn->body += to_body;
		conn->body_left -= to_body;
		if (conn->body_left)
			return 0;
		if (pst_tcp_frame_end(conn))
			return -ENOTCONN;
	}
	conn->staged += (unsigned int)(got - to_body);
	return cut(conn);
}
