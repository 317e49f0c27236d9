/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/metrics/metrics.h"

#include "daemon/log.h"
#include "rdma/fail.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define CONNECTIONS  32
#define SILENT_S     10u /* a client that says nothing for so long is cut off */

struct metrics {
	struct penstockd *d;
	struct MHD_Daemon *http;
	struct loop_source sockets;
	struct loop_timer due;
	char path[108]; /* of a Unix socket, to be removed; "": none */
};

static enum MHD_Result reply(struct MHD_Connection *c, unsigned int status, char *text, size_t len,
			     const char *type)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result rc;

	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
	rc = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return rc;
}

static enum MHD_Result refuse(struct MHD_Connection *c, unsigned int status, const char *why)
{
	char *text = strdup(why);

	return text ? reply(c, status, text, strlen(text), "text/plain; charset=utf-8") : MHD_NO;
}

static enum MHD_Result tell(struct metrics *m, struct MHD_Connection *c)
{
	char *text = NULL;
	size_t len = 0;
	FILE *to = open_memstream(&text, &len);
	bool whole;

	if (!to)
		return MHD_NO;
	metrics_write(m->d, to);
	whole = !ferror(to);
	if (fclose(to) || !whole) {
		free(text);
		return MHD_NO;
	}
	return reply(c, MHD_HTTP_OK, text, len, CONTENT_TYPE);
}

static enum MHD_Result asked(void *arg, struct MHD_Connection *c, const char *path,
			     const char *method, const char *version, const char *body,
			     size_t *body_len, void **state)
{
	static int begun;

	(void)version;
	(void)body;
	/* the first call of a request has its head only */
	if (!*state) {
		*state = &begun;
		return MHD_YES;
	}
	if (*body_len) {
		*body_len = 0;
		return MHD_YES;
	}
	if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
		return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET\n");
	if (strcmp(path, "/metrics"))
		return refuse(c, MHD_HTTP_NOT_FOUND, "the figures are at /metrics\n");
	return tell(arg, c);
}

/* Let libmicrohttpd do what there is to do, and see when it wants to be asked again. */
static void turn(struct metrics *m)
{
	MHD_UNSIGNED_LONG_LONG ms;

	MHD_run(m->http);
	loop_cancel(m->d->loop, &m->due);
	if (MHD_get_timeout(m->http, &ms) == MHD_YES)
		loop_after(m->d->loop, &m->due, ms > 10000 ? 10000 : (int)ms);
}

static void sockets_ready(struct loop_source *src, uint32_t events)
{
	(void)events;
	turn((struct metrics *)((char *)src - offsetof(struct metrics, sockets)));
}

static void due_fired(struct loop_timer *timer)
{
	turn((struct metrics *)((char *)timer - offsetof(struct metrics, due)));
}

/* One that nobody answers at is a leftover. */
static bool is_served(const struct sockaddr_un *at)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool served = fd >= 0 &&
		      (!connect(fd, (const struct sockaddr *)at, sizeof(*at)) || errno == EAGAIN);

	if (fd >= 0)
		close(fd);
	return served;
}

static int listen_unix(struct metrics *m, const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct stat st;
	int fd;

	if (strlen(path) >= sizeof(at.sun_path))
		return -ENAMETOOLONG;
	strcpy(at.sun_path, path);
	if (!lstat(path, &st)) {
		if (!S_ISSOCK(st.st_mode) || is_served(&at))
			return -EADDRINUSE;
		unlink(path);
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || chmod(path, 0666) || listen(fd, 64)) {
		int rc = -errno;

		close(fd);
		return rc;
	}
	strcpy(m->path, path);
	return fd;
}

static int bind_one(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc, on = 1;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (!bind(fd, ai->ai_addr, ai->ai_addrlen) && !listen(fd, 64))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* "HOST:PORT", a host with colons in brackets */
static int listen_tcp(const char *address)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_NUMERICSERV | AI_PASSIVE};
	const char *colon = strrchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;
	struct addrinfo *list;
	char host[120];
	int rc = -EADDRNOTAVAIL;

	if (!len || len >= sizeof(host))
		return -EINVAL;
	memcpy(host, address, len);
	host[len] = 0;
	if (host[0] == '[' && host[len - 1] == ']') {
		memmove(host, host + 1, len - 2);
		host[len - 2] = 0;
	}
	if (getaddrinfo(host, colon + 1, &hints, &list))
		return -EADDRNOTAVAIL;
	for (const struct addrinfo *ai = list; ai && rc < 0; ai = ai->ai_next)
		rc = bind_one(ai);
	freeaddrinfo(list);
	return rc;
}

static int start(struct metrics *m, int fd)
{
	const union MHD_DaemonInfo *info;
	int rc;

	m->http = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, asked, m, MHD_OPTION_LISTEN_SOCKET,
				   fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
				   MHD_OPTION_CONNECTION_TIMEOUT, SILENT_S, MHD_OPTION_END);
	if (!m->http) {
		close(fd);
		return -EIO;
	}
	info = MHD_get_daemon_info(m->http, MHD_DAEMON_INFO_EPOLL_FD);
	m->sockets = (struct loop_source){.fd = info->epoll_fd, .ready = sockets_ready};
	m->due.fire = due_fired;
	rc = loop_watch(m->d->loop, &m->sockets, EPOLLIN);
	if (rc)
		MHD_stop_daemon(m->http);
	return rc;
}

int metrics_open(struct penstockd *d, struct metrics **out, struct pst_error *err)
{
	const char *at = d->config.metrics;
	struct metrics *m;
	int rc;

	*out = NULL;
	if (!*at)
		return 0;
	m = calloc(1, sizeof(*m));
	if (!m)
		return pst_fail(err, -ENOMEM, "metrics: out of memory");
	m->d = d;
	rc = strncmp(at, "unix:", 5) ? listen_tcp(at) : listen_unix(m, at + 5);
	if (rc >= 0)
		rc = start(m, rc);
	if (!rc) {
		*out = m;
		return 0;
	}
	log_line(LOG_WARNING, NULL,
		 "no metrics at %s: %s; it runs without them (to mend it: metrics = ADDRESS in "
		 "[daemon] of its config)",
		 at, strerror(-rc));
	if (m->path[0])
		unlink(m->path);
	free(m);
	return 0;
}

void metrics_close(struct metrics *m)
{
	if (!m)
		return;
	loop_cancel(m->d->loop, &m->due);
	loop_unwatch(m->d->loop, &m->sockets);
	MHD_stop_daemon(m->http);
	if (m->path[0])
		unlink(m->path);
	free(m);
}
