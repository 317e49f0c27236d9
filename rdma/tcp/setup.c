/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listener's side of a link's set-up. What it accepts waits for its
 * handshake among all else, so nobody who connects and says nothing holds up
 * the others; they are few, and are sent away after the timeout or when there
 * are too many, the oldest first. A link of several ways waits in between as a
 * half: those of its connections that have come so far.
 */
#include "rdma/fail.h"
#include "rdma/handshake.h"
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define SETUPS_MAX 64
#define ACCEPT_MAX 16 /* at once, then the links have their turn */
#define PAUSE_MS   50 /* after accept failed for want of files or memory */
#define BACKLOG	   512

struct tcp_setup {
	struct tcp_source src;
	struct tcp_listener *listener;
	TAILQ_ENTRY(tcp_setup) on_listener;
	int64_t deadline;
	struct pst_handshake h;
	unsigned char msg[sizeof(struct pst_link_welcome)];
	unsigned int have;
	bool half; /* this way is welcome, and waits for the others */
};

struct tcp_listener {
	struct pst_listener base;
	struct tcp_source src;
	TAILQ_ENTRY(tcp_listener) on_cq;
	TAILQ_HEAD(tcp_setups, tcp_setup) setups; /* oldest first */
	unsigned int nsetups;
	int64_t paused_until; /* ms; 0: accepting */
};

static struct tcp_cq *cq_of(const struct tcp_listener *l)
{
	return pst_container(l->base.cq, struct tcp_cq, base);
}

static const struct pst_settings *settings(const struct tcp_listener *l)
{
	return &l->base.cq->fab->set;
}

/* Forget a set-up; its socket is closed unless a link has it (its fd is -1). */
static void end_setup(struct tcp_setup *s)
{
	struct tcp_listener *l = s->listener;

	TAILQ_REMOVE(&l->setups, s, on_listener);
	l->nsetups--;
	if (s->src.fd >= 0) {
		cq_of(l)->io->unwatch(cq_of(l), &s->src);
		close(s->src.fd);
	}
	free(s);
}

/* The buffer of a new socket has room for all of a handshake. */
static int say(struct tcp_setup *s)
{
	const void *msg;
	size_t n;

	while ((n = pst_handshake_next(&s->h, &msg)))
		if (send(s->src.fd, msg, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
			return -EIO;
	return 0;
}

static void refuse(struct tcp_setup *s, int code, const char *text)
{
	pst_count(&s->listener->base.cq->fab->count.links_refused, 1);
	pst_handshake_refuse(&s->h, code, text);
	/* If the peer is gone or does not read, nobody misses the answer. */
	say(s);
	shutdown(s->src.fd, SHUT_WR);
	end_setup(s);
}

static uint64_t new_link_id(void)
{
	uint64_t id = 0;

	while (!id)
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			return 0;
	return id;
}

/* The ways of @s's link that are here, by number; how many they are. */
static unsigned int gather(struct tcp_setup *s, struct tcp_setup *way[TCP_CONNS_MAX])
{
	uint64_t id = s->h.hello.link ? s->h.hello.link : s->h.welcome.link;
	unsigned int n = 1;
	struct tcp_setup *o;

	memset(way, 0, TCP_CONNS_MAX * sizeof(way[0]));
	way[s->h.hello.way] = s;
	TAILQ_FOREACH(o, &s->listener->setups, on_listener)
	{
		if (!o->half || o->h.welcome.link != id || o->h.hello.ways != s->h.hello.ways ||
		    way[o->h.hello.way])
			continue;
		way[o->h.hello.way] = o;
		n++;
	}
	return n;
}

static int make_link(struct tcp_setup *s, struct tcp_setup *const way[TCP_CONNS_MAX])
{
	const struct pst_link_welcome *w = &way[0]->h.welcome;
	struct tcp_listener *l = s->listener;
	struct tcp_cq *cq = cq_of(l);
	int fd[TCP_CONNS_MAX];
	struct tcp_terms terms = {
		.fd = fd, .nfds = s->h.hello.ways, .timeout_ms = w->timeout_ms, .crc = w->crc};
	struct tcp_link *link;
	int rc;

	for (unsigned int i = 0; i < terms.nfds; i++) {
		fd[i] = way[i]->src.fd;
		cq->io->unwatch(cq, &way[i]->src);
	}
	rc = pst_tcp_link_new(cq, &terms, &link);
	if (rc) {
		for (unsigned int i = 0; i < terms.nfds; i++)
			cq->io->watch(cq, &way[i]->src);
		return rc;
	}
	link->accepted = link->announce = true;
	cq->accepted++;
	link->base.pid = pst_tcp_same_host(fd[0]) ? (int)s->h.hello.pid : 0;
	snprintf(link->base.peer, sizeof(link->base.peer), "tcp://");
	pst_tcp_name(fd[0], true, link->base.peer + 6, sizeof(link->base.peer) - 24);
	snprintf(link->base.peer + strlen(link->base.peer), 24, " pid %u", s->h.hello.pid);
	pst_tcp_ready(link);
	return 0;
}

/* The peer has the key: what it may have. */
static int admit(struct tcp_setup *s, struct tcp_setup *way[TCP_CONNS_MAX])
{
	const struct pst_link_hello *hello = &s->h.hello;
	const struct pst_settings *set = settings(s->listener);
	struct pst_link_welcome *w = &s->h.welcome;

	if (hello->fabric != 't')
		return -EPROTO;
	if (!hello->way && cq_of(s->listener)->accepted >= set->links)
		return -EUSERS;
	w->pid = (uint32_t)getpid();
	w->timeout_ms = hello->timeout_ms > set->timeout_ms ? hello->timeout_ms : set->timeout_ms;
	w->crc = hello->crc || set->crc;
	w->link = hello->way ? hello->link : new_link_id();
	if (!w->link)
		return -EIO;
	/* a further way has way 0 among the halves; another number or twice the same is no link */
	gather(s, way);
	if (!way[0] || way[hello->way] != s)
		return -EPROTO;
	return 0;
}

/* Its handshake is over: with the other ways it may be a link. */
static void welcome(struct tcp_setup *s)
{
	struct tcp_setup *way[TCP_CONNS_MAX];
	unsigned int ways = s->h.hello.ways;
	int rc = admit(s, way);

	if (rc) {
		refuse(s, rc,
		       rc == -EUSERS ? "it has as many links as links= allows"
				     : "this is no way of a link that we know");
		return;
	}
	if (gather(s, way) < ways) {
		s->half = true;
		if (say(s))
			end_setup(s);
		return;
	}
	rc = make_link(s, way);
	if (rc) {
		refuse(s, rc, strerror(-rc));
		return;
	}
	say(s); /* a peer that is gone is found out as any other */
	for (unsigned int i = 0; i < ways; i++) {
		way[i]->src.fd = -1;
		end_setup(way[i]);
	}
}

/* A whole message is there. False: the set-up is gone. */
static bool take(struct tcp_setup *s)
{
	struct pst_error why = {0};
	int rc = pst_handshake_take(&s->h, s->msg, s->have, &why);

	s->have = 0;
	if (rc < 0) {
		refuse(s, rc, why.text);
		return false;
	}
	if (rc) {
		welcome(s);
		return false;
	}
	if (!say(s))
		return true;
	end_setup(s);
	return false;
}

/* Bytes that the message has which is being received. 0: it cannot be one. */
static unsigned int wanted(const struct tcp_setup *s)
{
	struct pst_link_hdr hdr;

	if (s->have < sizeof(hdr))
		return sizeof(hdr);
	memcpy(&hdr, s->msg, sizeof(hdr));
	if (hdr.magic != PST_LINK_MAGIC || hdr.size <= sizeof(hdr) || hdr.size > sizeof(s->msg))
		return 0;
	return hdr.size;
}

static void setup_ready(struct tcp_source *src)
{
	struct tcp_setup *s = pst_container(src, struct tcp_setup, src);

	for (;;) {
		unsigned int want = wanted(s);
		ssize_t n;

		if (!want) {
			refuse(s, -EPROTO, "that was no message of the handshake");
			return;
		}
		if (s->have == want) {
			if (!take(s))
				return;
			continue;
		}
		/* a way that waits for the others has nothing to say yet */
		n = recv(src->fd, s->msg + s->have, want - s->have, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0 || s->half) {
			end_setup(s);
			return;
		}
		s->have += (unsigned int)n;
	}
}

static void begin_setup(struct tcp_listener *l, int sock)
{
	const struct tcp_fabric *fab = l->base.cq->fab->priv;
	struct tcp_setup *s = calloc(1, sizeof(*s));

	if (!s)
		goto close_sock;
	s->src = (struct tcp_source){.fd = sock, .ready = setup_ready};
	s->listener = l;
	s->deadline = pst_tcp_now() + settings(l)->timeout_ms;
	if (pst_handshake_begin(&s->h, PST_HANDSHAKE_SERVER, fab->secret, NULL) ||
	    cq_of(l)->io->watch(cq_of(l), &s->src))
		goto free_setup;
	pst_tcp_tune(sock, settings(l)->timeout_ms);
	TAILQ_INSERT_TAIL(&l->setups, s, on_listener);
	l->nsetups++;
	return;
free_setup:
	free(s);
close_sock:
	close(sock);
}

static void listener_ready(struct tcp_source *src)
{
	struct tcp_listener *l = pst_container(src, struct tcp_listener, src);

	for (int i = 0; i < ACCEPT_MAX && l->nsetups <= SETUPS_MAX; i++) {
		int sock = accept4(src->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (sock >= 0) {
			begin_setup(l, sock);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			/* The connection stays in the backlog: without a pause we would spin. */
			cq_of(l)->io->unwatch(cq_of(l), src);
			l->paused_until = pst_tcp_now() + PAUSE_MS;
		}
		if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
}

static void tick(struct tcp_listener *l, int64_t now)
{
	struct tcp_setup *s;

	while ((s = TAILQ_FIRST(&l->setups)) && (s->deadline <= now || l->nsetups > SETUPS_MAX))
		refuse(s, -ETIMEDOUT, "the handshake did not end in time");
	if (l->paused_until && l->paused_until <= now && !cq_of(l)->io->watch(cq_of(l), &l->src))
		l->paused_until = 0;
}

void pst_tcp_listeners_tick(struct tcp_cq *cq, int64_t now)
{
	struct tcp_listener *l;

	TAILQ_FOREACH(l, &cq->listeners, on_cq)
	{
		tick(l, now);
	}
}

static int open_socket(const struct addrinfo *ai)
{
	const int one = 1, zero = 0;
	int rc, fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (!bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, BACKLOG))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

static int bind_failed(int rc, const char *url, struct pst_error *err)
{
	if (rc == -EADDRINUSE)
		return pst_fail(err, rc,
				"listen on %s: the port is in use; stop the other server or take "
				"another port (ss -tlnp shows who has it)",
				url);
	if (rc == -EADDRNOTAVAIL)
		return pst_fail(err, rc,
				"listen on %s: no interface of this host has that address (ip addr "
				"shows those there are)",
				url);
	return pst_fail(err, rc, "listen on %s: %s", url, strerror(-rc));
}

static int open_listener(struct tcp_listener *l, const char *url, struct pst_error *err)
{
	struct addrinfo *list;
	int rc = pst_tcp_resolve(url, true, &list, err);

	if (rc)
		return rc;
	rc = -EADDRNOTAVAIL;
	for (const struct addrinfo *ai = list; ai && rc < 0; ai = ai->ai_next)
		rc = open_socket(ai);
	freeaddrinfo(list);
	if (rc < 0)
		return bind_failed(rc, url, err);
	l->src.fd = rc;
	rc = cq_of(l)->io->watch(cq_of(l), &l->src);
	if (!rc)
		return 0;
	close(l->src.fd);
	return pst_fail(err, rc, "listen on %s: %s", url, strerror(-rc));
}

/* The URL as it was given, with the port that the socket has. */
static void name_listener(struct tcp_listener *l, const char *url)
{
	const char *host = url + strlen("tcp://"), *colon = strrchr(host, ':');
	char name[64], *port;

	if (colon && strchr(colon, ']'))
		colon = NULL;
	pst_tcp_name(l->src.fd, false, name, sizeof(name));
	port = strrchr(name, ':');
	snprintf(l->base.url, sizeof(l->base.url), "%.*s%s",
		 colon ? (int)(colon - url) : (int)strlen(url), url, port ? port : "");
}

int pst_tcp_listen(struct pst_cq *base, const char *url, struct pst_listener **out,
		   struct pst_error *err)
{
	struct tcp_listener *l = calloc(1, sizeof(*l));
	struct tcp_cq *cq;
	int rc;

	if (!l)
		return pst_fail(err, -ENOMEM, "listen on %s: out of memory", url);
	l->base.cq = base;
	l->src.ready = listener_ready;
	TAILQ_INIT(&l->setups);
	cq = cq_of(l);
	pst_tcp_enter(cq);
	rc = open_listener(l, url, err);
	if (!rc) {
		TAILQ_INSERT_TAIL(&cq->listeners, l, on_cq);
		pst_tcp_progress_kick(cq);
	}
	pst_tcp_leave(cq);
	if (rc) {
		free(l);
		return rc;
	}
	name_listener(l, url);
	*out = &l->base;
	return 0;
}

static void close_listener(struct tcp_listener *l)
{
	struct tcp_setup *s;

	while ((s = TAILQ_FIRST(&l->setups)))
		end_setup(s);
	TAILQ_REMOVE(&cq_of(l)->listeners, l, on_cq);
	if (!l->paused_until)
		cq_of(l)->io->unwatch(cq_of(l), &l->src);
	close(l->src.fd);
	free(l);
}

void pst_tcp_listener_close(struct pst_listener *base)
{
	struct tcp_listener *l = pst_container(base, struct tcp_listener, base);
	struct tcp_cq *cq = cq_of(l);

	pst_tcp_enter(cq);
	close_listener(l);
	pst_tcp_leave(cq);
}

void pst_tcp_listeners_close(struct tcp_cq *cq)
{
	struct tcp_listener *l;

	while ((l = TAILQ_FIRST(&cq->listeners)))
		close_listener(l);
}
