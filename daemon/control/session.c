/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control/session.h"

#include "daemon/control/packet.h"
#include "daemon/log.h"
#include "rdma/fail.h"

#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void request_free(struct request *r)
{
	for (int i = 0; i < PST_DOOR_FDS; i++)
		close_fd(&r->in_fd[i]);
	close_fd(&r->out_fd);
	free(r);
}

/* From the loop, so that a handler that answers does not have its session freed under it. */
static void end_soon(struct session *s)
{
	loop_unwatch(s->d->loop, &s->src);
	loop_after(s->d->loop, &s->end, 0);
}

static void cut_off(struct session *s, const char *why)
{
	char fields[64];

	snprintf(fields, sizeof(fields), "uid=%u pid=%d", s->who.uid, (int)s->who.pid);
	log_line(LOG_WARNING, fields, "a caller was cut off: %s", why);
	end_soon(s);
}

/* The bytes of the answer: its head, and the struct if the command did what it should. */
static ssize_t send_answer(struct session *s)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {0};
	struct request *r = s->pending;
	struct iovec iov[2] = {{&s->answer, sizeof(s->answer)}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 1};

	if (r && !s->answer.rc) {
		iov[msg.msg_iovlen++] = (struct iovec){r->arg, s->arg_len};
		if (r->out_fd >= 0) {
			struct cmsghdr *c;

			msg.msg_control = control;
			msg.msg_controllen = sizeof(control);
			c = CMSG_FIRSTHDR(&msg);
			c->cmsg_level = SOL_SOCKET;
			c->cmsg_type = SCM_RIGHTS;
			c->cmsg_len = CMSG_LEN(sizeof(int));
			memcpy(CMSG_DATA(c), &r->out_fd, sizeof(int));
		}
	}
	return sendmsg(s->src.fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void answer_done(struct session *s)
{
	if (s->pending)
		request_free(s->pending);
	s->pending = NULL;
	s->unsent = false;
	loop_cancel(s->d->loop, &s->end);
	if (loop_watch(s->d->loop, &s->src, EPOLLIN) < 0)
		end_soon(s);
}

/* Sends what there is to say, or waits for room: for a while. */
static void flush(struct session *s)
{
	if (send_answer(s) >= 0) {
		answer_done(s);
		return;
	}
	if (errno != EAGAIN && errno != ENOBUFS && errno != ENOMEM) {
		end_soon(s);
		return;
	}
	if (!s->end.in)
		loop_after(s->d->loop, &s->end, SESSION_PATIENCE_MS);
	if (loop_watch(s->d->loop, &s->src, EPOLLOUT) < 0)
		end_soon(s);
}

static void remember(struct session *s, uint32_t cmd, int rc, const char *text)
{
	memset(&s->why, 0, sizeof(s->why));
	s->why.out_cmd = cmd;
	s->why.out_code = rc;
	if (text && text[0])
		snprintf((char *)s->why.out_text, sizeof(s->why.out_text), "%s", text);
	else
		snprintf((char *)s->why.out_text, sizeof(s->why.out_text), "%s: %s",
			 command_name(cmd), strerror(-rc));
}

/* What the caller put in stays as he put it, whatever the handler made of it. */
static void finish_arg(const struct session *s, struct request *r)
{
	const struct command *c = command_find(r->cmd);
	uint32_t size = s->arg_len;
	int32_t out_fd = r->out_fd >= 0 ? 0 : -1;

	memcpy(r->arg, &size, sizeof(size));
	if (c && c->out_fd >= 0)
		memcpy(r->arg + c->out_fd, &out_fd, sizeof(out_fd));
}

/* @r may be NULL, if there was no memory for it. */
static void answer(struct session *s, struct request *r, uint32_t cmd, int rc)
{
	if (rc < 0)
		remember(s, cmd, rc, r ? r->err.text : NULL);
	else if (r)
		finish_arg(s, r);
	s->answer.rc = rc;
	s->answer.cmd = cmd;
	s->pending = r;
	s->unsent = true;
	flush(s);
}

void request_answer(struct request *r, int rc)
{
	struct session *s = r->session;

	if (r->gone || !s) {
		request_free(r);
		return;
	}
	s->running = NULL;
	answer(s, r, r->cmd, rc);
}

static struct request *request_new(struct session *s, uint32_t cmd)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->d = s->d;
	r->session = s;
	r->who = s->who;
	r->cmd = cmd;
	for (int i = 0; i < PST_DOOR_FDS; i++)
		r->in_fd[i] = -1;
	r->out_fd = -1;
	return r;
}

static void close_all(const int *fds, uint32_t nfds)
{
	for (uint32_t i = 0; i < nfds; i++)
		close(fds[i]);
}

static int check(const struct command *c, const struct packet *p, struct request *r, const int *fds,
		 uint32_t nfds)
{
	int rc;

	if (!c)
		rc = pst_fail(&r->err, -ENOTTY, "this daemon has no command %#x", p->cmd);
	else if (p->rc)
		rc = pst_fail(&r->err, p->rc,
			      "%s: the struct is not as long as it says, or longer "
			      "than %u bytes",
			      c->name, PST_DOOR_MAX);
	else
		rc = command_take(c, r, p->arg, p->len);
	if (!rc)
		return command_take_fds(c, r, fds, nfds);
	close_all(fds, nfds);
	return rc;
}

static void run(struct session *s, const struct packet *p, const int *fds, uint32_t nfds)
{
	const struct command *c = command_find(p->cmd);
	struct request *r = request_new(s, p->cmd);
	int rc;

	if (!r) {
		close_all(fds, nfds);
		answer(s, NULL, p->cmd, -ENOMEM);
		return;
	}
	s->arg_len = p->len;
	/* before the handler, which may hand it to who answers at once */
	s->running = r;
	rc = check(c, p, r, fds, nfds);
	if (!rc)
		rc = c->fn(r);
	if (rc != REQUEST_LATER)
		request_answer(r, rc);
	else if (s->running && loop_watch(s->d->loop, &s->src, 0) < 0)
		end_soon(s);
}

static uint32_t take_fds(struct msghdr *msg, int fds[PST_DOOR_FDS])
{
	uint32_t n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < PST_DOOR_FDS)
				fds[n++] = fd;
			else
				close(fd);
		}
	}
	return n;
}

static void read_one(struct session *s)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * PST_DOOR_FDS)];
	_Alignas(8) unsigned char bytes[PACKET_MAX];
	struct iovec iov = {bytes, sizeof(bytes)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(s->src.fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[PST_DOOR_FDS];
	struct packet p;
	uint32_t nfds;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_soon(s);
		return;
	}
	nfds = take_fds(&msg, fds);
	if (msg.msg_flags & MSG_CTRUNC) {
		close_all(fds, nfds);
		cut_off(s, "more descriptors than a command can have");
	} else if (packet_read(bytes, (size_t)n, msg.msg_flags & MSG_TRUNC, &p)) {
		close_all(fds, nfds);
		cut_off(s, "a packet that is no request");
	} else {
		run(s, &p, fds, nfds);
	}
}

static void ready(struct loop_source *src, uint32_t events)
{
	struct session *s = (struct session *)((char *)src - offsetof(struct session, src));

	if (s->unsent && (events & EPOLLOUT))
		flush(s);
	else if (!s->running && !s->unsent && (events & EPOLLIN))
		read_one(s);
	else if (events & (EPOLLHUP | EPOLLERR))
		end_soon(s);
}

static void end_fired(struct loop_timer *timer)
{
	struct session *s = (struct session *)((char *)timer - offsetof(struct session, end));

	if (s->unsent && s->src.in)
		log_line(LOG_WARNING, NULL,
			 "a caller (process %d of user %u) was cut off: it does "
			 "not read its answers",
			 (int)s->who.pid, s->who.uid);
	session_close(s);
}

int session_new(struct penstockd *d, int fd, const struct caller *who,
		void (*gone)(struct session *s), struct session **out)
{
	struct session *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->d = d;
	s->who = *who;
	s->gone = gone;
	s->src.fd = fd;
	s->src.ready = ready;
	s->end.fire = end_fired;
	TAILQ_INIT(&s->ends);
	rc = loop_watch(d->loop, &s->src, EPOLLIN);
	if (rc < 0) {
		free(s);
		return rc;
	}
	*out = s;
	return 0;
}

void session_on_end(struct session *session, struct session_end *end)
{
	TAILQ_INSERT_TAIL(&session->ends, end, on_session);
}

void session_forget(struct session *session, struct session_end *end)
{
	TAILQ_REMOVE(&session->ends, end, on_session);
}

void session_close(struct session *s)
{
	struct session_end *end;

	loop_unwatch(s->d->loop, &s->src);
	loop_cancel(s->d->loop, &s->end);
	if (s->running) {
		s->running->gone = true;
		s->running->session = NULL;
	}
	while ((end = TAILQ_FIRST(&s->ends))) {
		TAILQ_REMOVE(&s->ends, end, on_session);
		end->fn(end);
	}
	if (s->pending)
		request_free(s->pending);
	close(s->src.fd);
	s->gone(s);
	free(s);
}
