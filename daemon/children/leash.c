/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/leash.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where in a message a text is. */
struct text {
	size_t at, len;
};

#define TEXT(type, field)                                                       \
	{                                                                       \
		offsetof(struct type, field), sizeof(((struct type *)0)->field) \
	}

/* A type of message: who sends it, its least size, its texts, and what else must be so. */
struct kind {
	const char *name;
	enum leash_side from;
	size_t size;
	struct text text[3];
	bool (*fits)(const union leash_message *m);
};

static bool fits_hello(const union leash_message *m)
{
	const struct pst_leash_hello *h = &m->hello;

	return (h->role == PST_LEASH_WORKER || h->role == PST_LEASH_SERVER) && h->pid &&
	       h->url[0] && h->node >= PST_ANY && !h->hdr.seq;
}

static bool fits_beat(const union leash_message *m)
{
	return m->beat.draining <= 1 && !m->hdr.seq;
}

static bool fits_expert(const union leash_message *m)
{
	const struct pst_leash_expert *e = &m->expert;

	/* the last of all numbers is where a walk begins */
	return e->layer != PST_EXPERT_FIRST && e->index != PST_EXPERT_FIRST && e->copied <= 1 &&
	       e->pinned <= 1 && !e->hdr.seq;
}

static bool fits_table(const union leash_message *m)
{
	return m->table.gone <= 1 && !m->hdr.seq;
}

static bool fits_code(int32_t code)
{
	return code <= 0 && code > -4096;
}

static bool fits_answer(const union leash_message *m)
{
	return m->hdr.seq && fits_code(m->answer.error.code);
}

static bool fits_fail(const union leash_message *m)
{
	return !m->hdr.seq && m->answer.error.code && fits_code(m->answer.error.code);
}

static bool fits_checked(const union leash_message *m)
{
	return m->hdr.seq && !m->checked.__reserved && fits_code(m->checked.error.code);
}

static bool fits_order(const union leash_message *m)
{
	return m->hdr.seq;
}

static bool fits_bind(const union leash_message *m)
{
	return m->hdr.seq && !m->bind.__reserved && m->bind.op[0];
}

static bool fits_check(const union leash_message *m)
{
	return m->hdr.seq && m->check.op[0];
}

static bool fits_place(const union leash_message *m)
{
	const struct pst_leash_place *p = &m->place;

	return p->hdr.seq && !p->__reserved && p->order >= PST_EXPERT_PIN &&
	       p->order <= PST_EXPERT_BRING;
}

static const struct kind kinds[] = {
	[PST_LEASH_HELLO] = {"HELLO",
			     LEASH_CHILD,
			     sizeof(struct pst_leash_hello),
			     {TEXT(pst_leash_hello, kernels), TEXT(pst_leash_hello, url),
			      TEXT(pst_leash_hello, note)},
			     fits_hello},
	[PST_LEASH_BEAT] = {"BEAT", LEASH_CHILD, sizeof(struct pst_leash_beat), {{0}}, fits_beat},
	[PST_LEASH_EXPERT] =
		{"EXPERT", LEASH_CHILD, sizeof(struct pst_leash_expert), {{0}}, fits_expert},
	[PST_LEASH_TABLE] = {"TABLE",
			     LEASH_CHILD,
			     sizeof(struct pst_leash_table),
			     {TEXT(pst_leash_table, name)},
			     fits_table},
	[PST_LEASH_CHECKED] = {"CHECKED",
			       LEASH_CHILD,
			       sizeof(struct pst_leash_checked),
			       {TEXT(pst_leash_checked, op), TEXT(pst_leash_checked, error.text)},
			       fits_checked},
	[PST_LEASH_ANSWER] = {"ANSWER",
			      LEASH_CHILD,
			      sizeof(struct pst_leash_answer),
			      {TEXT(pst_leash_answer, error.text)},
			      fits_answer},
	[PST_LEASH_FAIL] = {"FAIL",
			    LEASH_CHILD,
			    sizeof(struct pst_leash_answer),
			    {TEXT(pst_leash_answer, error.text)},
			    fits_fail},
	[PST_LEASH_ASK] = {"ASK", LEASH_DAEMON, sizeof(struct pst_leash), {{0}}, NULL},
	[PST_LEASH_DRAIN] = {"DRAIN", LEASH_DAEMON, sizeof(struct pst_leash), {{0}}, fits_order},
	[PST_LEASH_STOP] = {"STOP", LEASH_DAEMON, sizeof(struct pst_leash), {{0}}, fits_order},
	[PST_LEASH_BIND] = {"BIND",
			    LEASH_DAEMON,
			    sizeof(struct pst_leash_bind),
			    {TEXT(pst_leash_bind, op)},
			    fits_bind},
	[PST_LEASH_CHECK] = {"CHECK",
			     LEASH_DAEMON,
			     sizeof(struct pst_leash_check),
			     {TEXT(pst_leash_check, op)},
			     fits_check},
	[PST_LEASH_PLACE] =
		{"PLACE", LEASH_DAEMON, sizeof(struct pst_leash_place), {{0}}, fits_place},
};

static bool ended(const union leash_message *m, const struct text *t)
{
	return memchr(m->raw + t->at, 0, t->len);
}

/* One line that a terminal takes, and zeros behind it. */
static void clean(union leash_message *m, const struct text *t)
{
	unsigned char *c = m->raw + t->at, *end = c + t->len;

	for (; *c; c++)
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
	memset(c, 0, (size_t)(end - c));
}

int leash_check(enum leash_side from, union leash_message *m, size_t len, struct pst_error *err)
{
	const struct kind *k;

	if (len < sizeof(m->hdr) || len > sizeof(*m) || m->hdr.size != len)
		return pst_fail(err, -EPROTO, "a message of %zu bytes that says it has %u", len,
				len < sizeof(m->hdr) ? 0 : m->hdr.size);
	k = m->hdr.type < sizeof(kinds) / sizeof(*kinds) ? &kinds[m->hdr.type] : NULL;
	if (!k || !k->name || k->from != from)
		return pst_fail(err, -EPROTO, "a message of type %u, which it may not send",
				m->hdr.type);
	if (len < k->size)
		return pst_fail(err, -EPROTO, "a %s of %zu bytes, which has %zu", k->name, len,
				k->size);
	for (size_t i = 0; i < sizeof(k->text) / sizeof(*k->text) && k->text[i].len; i++)
		if (!ended(m, &k->text[i]))
			return pst_fail(err, -EPROTO, "a %s with a text that does not end",
					k->name);
	if (k->fits && !k->fits(m))
		return pst_fail(err, -EPROTO, "a %s with a value out of its range", k->name);
	for (size_t i = 0; i < sizeof(k->text) / sizeof(*k->text) && k->text[i].len; i++)
		clean(m, &k->text[i]);
	return 0;
}

/* Room for one descriptor: the kernel closes what else comes. */
union one_fd {
	char buf[CMSG_SPACE(sizeof(int))];
	struct cmsghdr align;
};

static int taken_fd(struct msghdr *msg)
{
	const struct cmsghdr *c = CMSG_FIRSTHDR(msg);
	int fd = -1;

	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
	    c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	return fd;
}

static int drop(int fd, int rc)
{
	if (fd >= 0)
		close(fd);
	return rc;
}

int leash_recv(int sock, enum leash_side from, union leash_message *m, int *fd,
	       struct pst_error *err)
{
	union one_fd control = {0};
	struct iovec iov = {m, sizeof(*m)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	int came, rc;
	ssize_t n;

	if (fd) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	do
		n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n <= 0)
		return pst_fail(err, -EPIPE, "its leash is closed");
	came = fd ? taken_fd(&msg) : -1;
	/* with MSG_TRUNC it is the length that was sent */
	rc = leash_check(from, m, (size_t)n, err);
	if (rc < 0)
		return drop(came, rc);
	if (fd)
		*fd = came;
	return 1;
}

int leash_send(int sock, const struct pst_leash *m, int fd)
{
	union one_fd control = {0};
	struct iovec iov = {(void *)m, m->size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		c = CMSG_FIRSTHDR(&msg);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
				      .cmsg_type = SCM_RIGHTS,
				      .cmsg_len = CMSG_LEN(sizeof(fd))};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	do
		n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return 0;
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? -EAGAIN : -errno;
}
