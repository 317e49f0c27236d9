/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connector's side of a link's set-up: find the server, trying while it may
 * still be starting, make the rings, say hello, and wait to be welcomed.
 */
#include "rdma/fail.h"
#include "rdma/shm/shm.h"
#include "rdma/shm/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 2

struct attempt {
	const char *url;
	struct shm_addr addr;
	int64_t end; /* ms; INT64_MAX: never */
	int sock;
	int memfd;
	int pid;
};

static int make_rings(void)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int rc, fd = memfd_create("penstock-link", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, sizeof(struct shm_area)) && !fcntl(fd, F_ADD_SEALS, seals))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

static void pause_a_little(void)
{
	nanosleep(&(struct timespec){.tv_nsec = RETRY_MS * 1000000}, NULL);
}

static bool may_come(int rc)
{
	return rc == -ECONNREFUSED || rc == -ENOENT || rc == -EAGAIN;
}

/* Connect, again and again while nobody is there. */
static int reach(struct attempt *a)
{
	int rc;

	a->sock = pst_shm_socket();
	if (a->sock < 0)
		return a->sock;
	for (;;) {
		if (!connect(a->sock, (struct sockaddr *)&a->addr.sun, a->addr.len))
			return 0;
		rc = errno == EINTR ? -EAGAIN : -errno;
		if (!may_come(rc) || pst_shm_now() >= a->end)
			break;
		pause_a_little();
	}
	close(a->sock);
	return rc == -ENOENT ? -ECONNREFUSED : rc == -EAGAIN ? -ETIMEDOUT : rc;
}

static int say_hello(struct attempt *a)
{
	const struct shm_hello hello = {
		.magic = SHM_MAGIC,
		.abi = SHM_ABI,
		.slots = SHM_RING_SLOTS,
		.slot_size = sizeof(struct shm_slot),
		.area_size = sizeof(struct shm_area),
	};

	a->pid = pst_shm_peer(a->sock);
	return a->pid < 0 ? a->pid : pst_shm_send(a->sock, &hello, sizeof(hello), a->memfd);
}

static int receive(struct attempt *a, struct shm_welcome *welcome)
{
	struct pollfd p = {.fd = a->sock, .events = POLLIN};

	for (;;) {
		int64_t left = a->end - pst_shm_now();
		int fd, rc = pst_shm_recv(a->sock, welcome, sizeof(*welcome), &fd);

		if (fd >= 0)
			close(fd);
		if (rc == sizeof(*welcome) && fd < 0)
			return 0;
		if (rc != -EAGAIN)
			return rc > 0 ? -EPROTO : rc ? rc : -ECONNRESET;
		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left) < 0 && errno != EINTR)
			return -errno;
	}
}

/* The peer's words go to a terminal: printable, and ended. */
static void clean(char *text, size_t size)
{
	text[size - 1] = '\0';
	for (char *c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

static int read_welcome(struct attempt *a, struct pst_error *err)
{
	struct shm_welcome w;
	int rc = receive(a, &w);

	if (rc)
		return rc;
	if (w.magic != SHM_MAGIC)
		return pst_fail(err, -EPROTO, "connect to %s: what answers there is not penstock",
				a->url);
	if (w.code) {
		clean(w.text, sizeof(w.text));
		rc = w.code < 0 && w.code >= -4095 ? w.code : -EPROTO;
		return pst_fail(err, rc, "connect to %s: refused: %s", a->url, w.text);
	}
	return 0;
}

static const char *reason(int rc)
{
	switch (rc) {
	case -ECONNREFUSED:
		return "nobody listens there; start the server, or see its name with ss -xl";
	case -ETIMEDOUT:
		return "the server does not answer in time; is it stopped or overloaded?";
	case -EACCES:
		return "the server runs as another user; run both as the same user";
	case -ECONNRESET:
		return "the server hung up";
	case -EMFILE:
		return "too many open files; raise ulimit -n";
	default:
		return strerror(-rc);
	}
}

static int set_up(struct attempt *a, struct shm_cq *cq, struct shm_link **out,
		  struct pst_error *err)
{
	int rc = say_hello(a);

	/* A refusal may be there to read although the hello came too late for it. */
	if (!rc || rc == -EPIPE || rc == -ECONNRESET)
		rc = read_welcome(a, err);
	return rc ? rc : pst_shm_link_new(cq, a->sock, a->memfd, 0, out);
}

static int attempt(struct attempt *a, struct shm_cq *cq, struct shm_link **out,
		   struct pst_error *err)
{
	int rc = reach(a);

	if (rc)
		return rc;
	a->memfd = make_rings();
	if (a->memfd < 0) {
		rc = a->memfd;
		goto close_sock;
	}
	rc = set_up(a, cq, out, err);
	close(a->memfd);
	if (!rc)
		return 0;
close_sock:
	close(a->sock);
	return rc;
}

int pst_shm_connect(struct pst_cq *base, const char *url, int timeout_ms, struct pst_link **out,
		    struct pst_error *err)
{
	struct shm_cq *cq = pst_container(base, struct shm_cq, base);
	struct attempt a = {.url = url};
	struct shm_link *link;
	int rc = pst_shm_addr(url, &a.addr, err);

	if (rc)
		return rc;
	a.end = timeout_ms < 0 ? INT64_MAX : pst_shm_now() + timeout_ms;
	for (;;) {
		rc = attempt(&a, cq, &link, err);
		/* A server that is going or coming can hang up on its backlog. */
		if (rc != -ECONNRESET || pst_shm_now() >= a.end)
			break;
		pause_a_little();
	}
	if (rc)
		return pst_fail(err, rc, "connect to %s: %s", url, reason(rc));
	link->base.pid = a.pid;
	snprintf(link->base.peer, sizeof(link->base.peer), "%s pid %d", url, a.pid);
	*out = &link->base;
	return 0;
}
