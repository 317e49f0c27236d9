/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listener's side of a link's set-up. An accepted socket waits for its
 * hello in the cq's epoll set beside everything else, so nobody who connects
 * and says nothing holds up the others; after SETUP_MS it is sent away. The
 * hello is one packet, so there is no half-read state.
 */
#include "rdma/fail.h"
#include "rdma/shm/shm.h"
#include "rdma/shm/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <linux/magic.h>
#include <unistd.h>

#define SETUP_MS    2000
#define SETUPS_MAX  64
#define ACCEPT_MAX  16 /* at once, then the links have their turn */
#define PAUSE_MS    50 /* after accept failed for want of files or memory */
#define NO_DEADLINE INT64_MAX

struct shm_setup {
	struct shm_source src;
	struct shm_listener *listener;
	TAILQ_ENTRY(shm_setup) on_listener;
	int64_t deadline;
	int pid;
};

struct shm_listener {
	struct pst_listener base;
	struct shm_source src;
	TAILQ_ENTRY(shm_listener) on_cq;
	TAILQ_HEAD(, shm_setup) setups; /* oldest first */
	unsigned int nsetups;
	int64_t paused_until; /* ms; 0: accepting */
	dev_t dev;	      /* of the socket's path, to remove no other's */
	ino_t ino;
	struct shm_addr addr;
};

static struct shm_cq *cq_of(const struct shm_listener *l)
{
	return pst_container(l->base.cq, struct shm_cq, base);
}

static void answer(int sock, int code, const char *text)
{
	struct shm_welcome w = {.magic = SHM_MAGIC, .abi = SHM_ABI, .code = code};

	snprintf(w.text, sizeof(w.text), "%s", text);
	/* If the peer is gone or does not read, nobody misses the answer. */
	pst_shm_send(sock, &w, sizeof(w), -1);
}

/* Forget a set-up; its socket is closed unless a link has it (@sock < 0). */
static void end_setup(struct shm_setup *s)
{
	struct shm_listener *l = s->listener;

	TAILQ_REMOVE(&l->setups, s, on_listener);
	l->nsetups--;
	if (s->src.fd >= 0) {
		pst_shm_unwatch(cq_of(l), &s->src);
		close(s->src.fd);
	}
	free(s);
}

static void refuse(struct shm_setup *s, int code, const char *text)
{
	answer(s->src.fd, code, text);
	end_setup(s);
}

/* The rings must be plain shared memory of the right size that stays so. */
static bool good_rings(int fd)
{
	int seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
	struct statfs fs;
	struct stat st;

	return seals >= 0 && seals & F_SEAL_SHRINK && !fstatfs(fd, &fs) &&
	       fs.f_type == TMPFS_MAGIC && !fstat(fd, &st) &&
	       st.st_size == (off_t)sizeof(struct shm_area);
}

static int check_hello(const struct shm_hello *h, int len, int memfd, char *why, size_t size)
{
	if (len != sizeof(*h) || h->magic != SHM_MAGIC) {
		snprintf(why, size, "that was no hello of a penstock shm link");
		return -EPROTO;
	}
	if (h->abi != SHM_ABI || h->slots != SHM_RING_SLOTS ||
	    h->slot_size != sizeof(struct shm_slot) || h->area_size != sizeof(struct shm_area)) {
		snprintf(why, size,
			 "the server speaks version %u of the shm link and the client %u, or other "
			 "sizes; install the same release on both sides",
			 SHM_ABI, h->abi);
		return -EPROTO;
	}
	if (h->reserved || !good_rings(memfd)) {
		snprintf(why, size, "the hello came without a sealed memfd for the rings");
		return -EPROTO;
	}
	return 0;
}

static int make_link(struct shm_setup *s, int memfd)
{
	struct shm_listener *l = s->listener;
	struct shm_link *link;
	int rc, sock = s->src.fd;

	pst_shm_unwatch(cq_of(l), &s->src);
	rc = pst_shm_link_new(cq_of(l), sock, memfd, 1, &link);
	if (rc)
		return rc;
	link->announce = link->accepted = true;
	cq_of(l)->taken++;
	link->base.pid = s->pid;
	snprintf(link->base.peer, sizeof(link->base.peer), "%s pid %d", l->base.url, s->pid);
	s->src.fd = -1;
	end_setup(s);
	answer(sock, 0, "");
	return 0;
}

static void setup_ready(struct shm_source *src, uint32_t events)
{
	struct shm_setup *s = pst_container(src, struct shm_setup, src);
	struct shm_hello hello;
	char why[200];
	int memfd, rc, len = pst_shm_recv(src->fd, &hello, sizeof(hello), &memfd);

	(void)events;
	if (len == -EAGAIN)
		return;
	if (len <= 0 && len != -EPROTO) {
		end_setup(s);
		return;
	}
	rc = check_hello(&hello, len, memfd, why, sizeof(why));
	if (!rc) {
		rc = make_link(s, memfd);
		snprintf(why, sizeof(why), "the server cannot take the link: %s", strerror(-rc));
	}
	if (memfd >= 0)
		close(memfd);
	if (rc)
		refuse(s, rc, why);
}

/* Who is not even heard: 0, or why. */
static int turn_away(struct shm_listener *l, int sock, int pid)
{
	if (pid < 0) {
		answer(sock, pid, "the server runs as another user; run both as the same user");
		return pid;
	}
	if (cq_of(l)->taken >= l->base.cq->fab->set.links) {
		answer(sock, -EUSERS,
		       "the server has as many links as it takes; raise links= in its URL");
		return -EUSERS;
	}
	return 0;
}

static void begin_setup(struct shm_listener *l, int sock)
{
	struct shm_setup *s;
	int pid = pst_shm_peer(sock);

	if (turn_away(l, sock, pid)) {
		pst_count(&l->base.cq->fab->count.links_refused, 1);
		goto close_sock;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		goto close_sock;
	*s = (struct shm_setup){
		.src = {.fd = sock, .ready = setup_ready},
		.listener = l,
		.deadline = pst_shm_now() + SETUP_MS,
		.pid = pid,
	};
	if (pst_shm_watch(cq_of(l), &s->src)) {
		free(s);
		goto close_sock;
	}
	TAILQ_INSERT_TAIL(&l->setups, s, on_listener);
	l->nsetups++;
	return;
close_sock:
	close(sock);
}

static void listener_ready(struct shm_source *src, uint32_t events)
{
	struct shm_listener *l = pst_container(src, struct shm_listener, src);

	(void)events;
	for (int i = 0; i < ACCEPT_MAX; i++) {
		int sock = accept4(src->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (sock >= 0) {
			begin_setup(l, sock);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN) {
			/* The connection stays in the backlog: without a pause we would spin. */
			pst_shm_unwatch(cq_of(l), src);
			l->paused_until = pst_shm_now() + PAUSE_MS;
		}
		return;
	}
}

static int64_t tick(struct shm_listener *l, int64_t now)
{
	struct shm_setup *s;

	while ((s = TAILQ_FIRST(&l->setups)) && (s->deadline <= now || l->nsetups > SETUPS_MAX))
		refuse(s, -ETIMEDOUT, "the hello did not come in time");
	if (l->paused_until && l->paused_until <= now && !pst_shm_watch(cq_of(l), &l->src))
		l->paused_until = 0;
	if (s && (!l->paused_until || s->deadline < l->paused_until))
		return s->deadline;
	return l->paused_until ? l->paused_until : NO_DEADLINE;
}

int64_t pst_shm_listeners_tick(struct shm_cq *cq)
{
	int64_t at, first = NO_DEADLINE;
	struct shm_listener *l;

	TAILQ_FOREACH(l, &cq->listeners, on_cq)
	{
		at = tick(l, pst_shm_now());
		if (at < first)
			first = at;
	}
	return first == NO_DEADLINE ? -1 : first;
}

/* The path is ours as long as the file there is the one that we bound. */
static void remember_path(struct shm_listener *l)
{
	struct stat st;

	if (pst_shm_addr_is_path(&l->addr) && !lstat(l->addr.sun.sun_path, &st)) {
		l->dev = st.st_dev;
		l->ino = st.st_ino;
	}
}

static void remove_path(const struct shm_listener *l)
{
	const char *path = l->addr.sun.sun_path;
	struct stat st;

	if (l->ino && !lstat(path, &st) && st.st_dev == l->dev && st.st_ino == l->ino)
		unlink(path);
}

static int open_listener(struct shm_listener *l, struct pst_error *err)
{
	int rc = pst_shm_addr(l->base.url, &l->addr, err);

	if (rc)
		return rc;
	l->src.fd = pst_shm_socket();
	if (l->src.fd < 0)
		return pst_fail(err, l->src.fd, "listen on %s: %s", l->base.url,
				strerror(-l->src.fd));
	rc = pst_shm_bind(l->src.fd, &l->addr, l->base.url, err);
	if (rc)
		goto close_sock;
	remember_path(l);
	rc = pst_shm_watch(cq_of(l), &l->src);
	if (!rc)
		return 0;
	pst_fail(err, rc, "listen on %s: %s", l->base.url, strerror(-rc));
	remove_path(l);
close_sock:
	close(l->src.fd);
	return rc;
}

int pst_shm_listen(struct pst_cq *base, const char *url, struct pst_listener **out,
		   struct pst_error *err)
{
	struct shm_listener *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return pst_fail(err, -ENOMEM, "listen on %s: out of memory", url);
	l->base.cq = base;
	l->src.ready = listener_ready;
	TAILQ_INIT(&l->setups);
	snprintf(l->base.url, sizeof(l->base.url), "%s", url);
	rc = open_listener(l, err);
	if (rc) {
		free(l);
		return rc;
	}
	TAILQ_INSERT_TAIL(&cq_of(l)->listeners, l, on_cq);
	*out = &l->base;
	return 0;
}

void pst_shm_listener_close(struct pst_listener *base)
{
	struct shm_listener *l = pst_container(base, struct shm_listener, base);
	struct shm_setup *s;

	while ((s = TAILQ_FIRST(&l->setups)))
		end_setup(s);
	TAILQ_REMOVE(&cq_of(l)->listeners, l, on_cq);
	if (!l->paused_until)
		pst_shm_unwatch(cq_of(l), &l->src);
	remove_path(l);
	close(l->src.fd);
	free(l);
}

void pst_shm_listeners_close(struct shm_cq *cq)
{
	struct shm_listener *l;

	while ((l = TAILQ_FIRST(&cq->listeners)))
		pst_shm_listener_close(&l->base);
}
