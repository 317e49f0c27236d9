/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and sockets of the tcp fabric. */
#include "rdma/fail.h"
#include "rdma/tcp/tcp.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

static int resolve_failed(int rc, const char *host, const char *url, struct pst_error *err)
{
	if (rc == EAI_MEMORY)
		return pst_fail(err, -ENOMEM, "%s: out of memory", url);
	return pst_fail_cause(err, PST_CAUSE_NO_NAME, gai_strerror(rc), "%s: host %s", url, host);
}

int pst_tcp_resolve(const char *url, bool passive, struct addrinfo **out, struct pst_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
	struct pst_url u;
	char port[8];
	int rc = pst_url_parse(url, &u, err);

	if (rc)
		return rc;
	if (u.hosts != 1)
		return pst_fail(err, -EINVAL,
				"%s: a tcp link has one host; conns=N gives it more connections",
				url);
	snprintf(port, sizeof(port), "%u", u.port);
	rc = getaddrinfo(u.host[0], port, &hints, out);
	return rc ? resolve_failed(rc, u.host[0], url, err) : 0;
}

void pst_tcp_tune(int sock, uint32_t timeout_ms)
{
	const int one = 1;
	const unsigned int timeout = timeout_ms;

	/* None of them is needed for the link to work. */
	setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(sock, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

void pst_tcp_name(int sock, bool peer, char *text, size_t size)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	char host[64], port[8];

	if ((peer ? getpeername : getsockname)(sock, (struct sockaddr *)&ss, &len) ||
	    getnameinfo((struct sockaddr *)&ss, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(text, size, "?");
	else
		snprintf(text, size, ss.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

static const void *address(const struct sockaddr_storage *ss, size_t *len)
{
	if (ss->ss_family == AF_INET6) {
		*len = sizeof(struct in6_addr);
		return &((const struct sockaddr_in6 *)ss)->sin6_addr;
	}
	*len = sizeof(struct in_addr);
	return &((const struct sockaddr_in *)ss)->sin_addr;
}

bool pst_tcp_same_host(int sock)
{
	struct sockaddr_storage here, there;
	socklen_t a = sizeof(here), b = sizeof(there);
	const void *h, *t;
	size_t n, m;

	if (getsockname(sock, (struct sockaddr *)&here, &a) ||
	    getpeername(sock, (struct sockaddr *)&there, &b))
		return false;
	h = address(&here, &n);
	t = address(&there, &m);
	return n == m && !memcmp(h, t, n);
}
