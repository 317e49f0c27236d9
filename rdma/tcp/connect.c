/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connector's side of a link's set-up: find the server, trying less and less
 * often while it may still be starting, and shake hands with it on as many
 * connections as the link is to have. It blocks, without the cq's lock.
 */
#include "rdma/fail.h"
#include "rdma/handshake.h"
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MIN_MS 2
#define RETRY_MAX_MS 1000

struct attempt {
	const char *url;
	struct pst_fabric *fab;
	int64_t end;   /* ms; INT64_MAX: never */
	int64_t until; /* of this try */
	int fd[TCP_CONNS_MAX];
	unsigned int nfds;
	struct pst_link_welcome welcome; /* of way 0 */
};

/* Wait for @events until the try is over. */
static int wait_for(const struct attempt *a, int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = a->until - pst_tcp_now();
		int n;

		if (left <= 0)
			return -ETIMEDOUT;
		n = poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

/* A port of this host that nobody has can be given to the one who looks for it. */
static bool met_itself(int fd)
{
	char here[64], there[64];

	pst_tcp_name(fd, false, here, sizeof(here));
	pst_tcp_name(fd, true, there, sizeof(there));
	return !strcmp(here, there);
}

static int reach(const struct attempt *a, const struct addrinfo *ai)
{
	int rc = 0, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(rc);

	if (fd < 0)
		return -errno;
	pst_tcp_tune(fd, a->fab->set.timeout_ms);
	if (connect(fd, ai->ai_addr, ai->ai_addrlen))
		rc = errno == EINPROGRESS || errno == EINTR ? wait_for(a, fd, POLLOUT) : -errno;
	if (!rc && !getsockopt(fd, SOL_SOCKET, SO_ERROR, &rc, &len))
		rc = -rc;
	if (!rc && !met_itself(fd))
		return fd;
	close(fd);
	return rc ? rc : -ECONNREFUSED;
}

/* No address of ours can be the source: so there is no way to such addresses. */
static bool no_source(int rc, const struct addrinfo *ai)
{
	return rc == -EADDRNOTAVAIL && ai->ai_family == AF_INET6;
}

/*
 * Any of the host's addresses will do. They are sorted, those that can be reached first, so the
 * first one's failure says more than the last one's.
 */
static int reach_any(const struct attempt *a, const struct addrinfo *list)
{
	int first = -EHOSTUNREACH;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		int rc = reach(a, ai);

		if (rc >= 0)
			return rc;
		if (ai == list)
			first = no_source(rc, ai) ? -ENETUNREACH : rc;
	}
	return first;
}

static int say(struct pst_handshake *h, int fd)
{
	const void *msg;
	size_t n;

	while ((n = pst_handshake_next(h, &msg))) {
		ssize_t sent = send(fd, msg, n, MSG_NOSIGNAL);

		if (sent != (ssize_t)n)
			return sent < 0 ? -errno : -EIO;
	}
	return 0;
}

static int hear(const struct attempt *a, int fd, void *to, size_t len)
{
	for (size_t have = 0; have < len;) {
		ssize_t n = recv(fd, (char *)to + have, len - have, 0);

		if (n > 0) {
			have += (size_t)n;
		} else if (!n) {
			return -ECONNRESET;
		} else if (errno == EAGAIN || errno == EINTR) {
			int rc = wait_for(a, fd, POLLIN);

			if (rc)
				return rc;
		} else {
			return -errno;
		}
	}
	return 0;
}

/* One whole message of the handshake. 1: it was the last. */
static int hear_message(const struct attempt *a, struct pst_handshake *h, int fd,
			struct pst_error *err)
{
	unsigned char msg[sizeof(struct pst_link_welcome)];
	struct pst_link_hdr hdr;
	int rc = hear(a, fd, &hdr, sizeof(hdr));

	if (rc)
		return rc;
	if (hdr.magic != PST_LINK_MAGIC || hdr.size < sizeof(hdr) || hdr.size > sizeof(msg))
		return pst_fail_cause(err, PST_CAUSE_NOT_PENSTOCK, NULL, "connect to %s", a->url);
	memcpy(msg, &hdr, sizeof(hdr));
	rc = hear(a, fd, msg + sizeof(hdr), hdr.size - sizeof(hdr));
	return rc ? rc : pst_handshake_take(h, msg, hdr.size, err);
}

static int shake(struct attempt *a, int fd, struct pst_error *err)
{
	const struct tcp_fabric *fab = a->fab->priv;
	const struct pst_settings *set = &a->fab->set;
	const struct pst_link_hello hello = {
		.fabric = 't',
		.crc = set->crc,
		.way = (uint8_t)a->nfds,
		.ways = (uint8_t)set->conns,
		.timeout_ms = set->timeout_ms,
		.pid = (uint32_t)getpid(),
		.link = a->nfds ? a->welcome.link : 0,
	};
	struct pst_handshake h;
	int rc = pst_handshake_begin(&h, PST_HANDSHAKE_CLIENT, fab->secret, &hello);

	while (!rc) {
		rc = say(&h, fd);
		/* a refusal may be there to read although what was said came too late for it */
		if (!rc || rc == -EPIPE || rc == -ECONNRESET)
			rc = hear_message(a, &h, fd, err);
	}
	if (rc < 0)
		return rc;
	if (!a->nfds)
		a->welcome = h.welcome;
	return 0;
}

static void close_all(struct attempt *a)
{
	while (a->nfds)
		close(a->fd[--a->nfds]);
}

static int try_once(struct attempt *a, const struct addrinfo *list, struct pst_error *err)
{
	int rc = 0;

	while (!rc && a->nfds < a->fab->set.conns) {
		int fd = reach_any(a, list);

		if (fd < 0)
			return fd;
		rc = shake(a, fd, err);
		if (rc)
			close(fd);
		else
			a->fd[a->nfds++] = fd;
	}
	return rc;
}

/* May the server be starting, or have a bad moment? */
static bool may_come(int rc, const struct pst_error *err)
{
	switch (rc) {
	case -ECONNREFUSED:
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		return true;
	case -ECONNRESET:
	case -EPIPE:
	case -ETIMEDOUT:
	case -EUSERS:
		return true;
	default:
		return rc == -EAGAIN && !err->code;
	}
}

/* Twice as long each time, by chance between half and all of it. */
static void back_off(const struct attempt *a, int *pause_ms)
{
	int64_t left = a->end - pst_tcp_now();
	unsigned int random = 0;
	int64_t ms;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (unsigned int)left;
	ms = *pause_ms / 2 + random % (unsigned int)(*pause_ms / 2 + 1);
	if (ms > left)
		ms = left > 0 ? left : 0;
	nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
	*pause_ms = *pause_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : *pause_ms * 2;
}

/* What to say in the end: a try that had no time left says less than one before it. */
struct verdict {
	int rc;
	struct pst_error why;
};

static int establish(struct attempt *a, const struct addrinfo *list, struct pst_error *err)
{
	struct verdict last = {0};
	int pause_ms = RETRY_MIN_MS;

	for (;;) {
		struct verdict v = {0};

		a->until = pst_tcp_now() + a->fab->set.timeout_ms;
		if (a->until > a->end)
			a->until = a->end;
		v.rc = try_once(a, list, &v.why);
		if (!v.rc)
			return 0;
		close_all(a);
		if (!last.rc || v.rc != -ETIMEDOUT || a->until < a->end)
			last = v;
		if (!may_come(v.rc, &v.why) || pst_tcp_now() >= a->end)
			break;
		back_off(a, &pause_ms);
	}
	if (last.why.code)
		pst_fail(err, last.why.code, "%s", last.why.text);
	return last.rc;
}

static int unreachable(int rc, const char *url, struct pst_error *err)
{
	uint32_t cause;

	switch (rc) {
	case -ECONNREFUSED:
		cause = PST_CAUSE_NOBODY_THERE;
		break;
	case -ETIMEDOUT:
		cause = PST_CAUSE_NO_ANSWER;
		break;
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		cause = PST_CAUSE_NO_ROUTE;
		break;
	case -ECONNRESET:
	case -EPIPE:
		cause = PST_CAUSE_PEER_CLOSED;
		break;
	default:
		return pst_fail(err, rc, "connect to %s: %s", url, strerror(-rc));
	}
	return pst_fail_cause(err, cause, strerror(-rc), "connect to %s", url);
}

static int finish(struct attempt *a, struct tcp_cq *cq, struct tcp_link **out)
{
	const struct tcp_terms terms = {.fd = a->fd,
					.nfds = a->nfds,
					.timeout_ms = a->welcome.timeout_ms,
					.crc = a->welcome.crc};
	bool here = pst_tcp_same_host(a->fd[0]);
	int rc;

	pst_tcp_enter(cq);
	rc = pst_tcp_link_new(cq, &terms, out);
	if (!rc) {
		(*out)->base.pid = here ? (int)a->welcome.pid : 0;
		snprintf((*out)->base.peer, sizeof((*out)->base.peer), "%.130s pid %u", a->url,
			 a->welcome.pid);
	}
	pst_tcp_leave(cq);
	return rc;
}

int pst_tcp_connect(struct pst_cq *base, const char *url, int timeout_ms, struct pst_link **out,
		    struct pst_error *err)
{
	struct attempt a = {.url = url, .fab = base->fab};
	struct addrinfo *list;
	struct tcp_link *link;
	int rc = pst_tcp_resolve(url, false, &list, err);

	if (rc)
		return rc;
	a.end = timeout_ms < 0 ? INT64_MAX : pst_tcp_now() + timeout_ms;
	rc = establish(&a, list, err);
	freeaddrinfo(list);
	if (!rc) {
		rc = finish(&a, pst_container(base, struct tcp_cq, base), &link);
		if (rc)
			close_all(&a);
	}
	if (rc)
		return unreachable(rc, url, err);
	*out = &link->base;
	return 0;
}
