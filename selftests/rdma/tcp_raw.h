/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tcp_raw.h - the wire of a tcp link by hand, for peers that do not keep to it.
 * It has the key, so it gets past the handshake.
 */
#ifndef PST_SELFTEST_TCP_RAW_H
#define PST_SELFTEST_TCP_RAW_H

#include "rdma/cause.h"
#include "rdma/crc32c.h"
#include "rdma/handshake.h"
#include "selftests/rdma/pair.h"

#include <netinet/in.h>
#include <penstock/link.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>

struct raw {
	int sock;
	uint64_t seq, ack;
	bool crc;
};

/* struct pst_frame_grant without its open end. */
struct raw_grant {
	struct pst_frame hdr;
	uint64_t key[2], len;
	uint32_t access, pieces;
	uint64_t addr, chunk;
};

union raw_frame {
	struct pst_frame f;
	struct raw_grant grant;
	struct pst_frame_range range;
	struct pst_frame_done done;
	unsigned char bytes[sizeof(struct pst_frame) + PST_MSG_MAX];
};

/* A blocking socket to "tcp://127.0.0.1:PORT". */
static inline int raw_connect(const char *url)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1)),
				  .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ASSERT_EQ(0, connect(sock, (struct sockaddr *)&sin, sizeof(sin)));
	return sock;
}

/* Until @sock can be read, or @ms have gone by; @server's cq is polled meanwhile. */
static inline bool raw_wait(struct end *server, int sock, int ms)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	struct pst_wc wc;

	for (int i = 0; i < ms; i++) {
		if (server && pst_cq_poll(server->cq, &wc, 1)) {
			ASSERT_EQ(PST_WC_CONNECTED, (int)wc.kind);
			server->link = wc.link;
		}
		if (poll(&p, 1, 1) > 0)
			return true;
	}
	return false;
}

static inline void raw_get(struct end *server, int sock, void *to, size_t len)
{
	ASSERT_TRUE(raw_wait(server, sock, 10000));
	ASSERT_EQ((ssize_t)len, recv(sock, to, len, MSG_WAITALL));
}

/* The handshake as a good client does it. 0 and the welcome, or what the server refused with. */
static inline int raw_handshake(struct end *server, int sock, const struct pst_link_hello *hello,
				struct pst_link_welcome *out)
{
	unsigned char msg[sizeof(struct pst_link_welcome)];
	struct pst_error err = {0};
	struct pst_secret *secret;
	struct pst_handshake h;
	const void *say;
	size_t n;
	int rc;

	ASSERT_OK(pst_secret_read("", &secret, &err), &err);
	ASSERT_EQ(0, pst_handshake_begin(&h, PST_HANDSHAKE_CLIENT, secret, hello));
	do {
		struct pst_link_hdr hdr;

		while ((n = pst_handshake_next(&h, &say)))
			ASSERT_EQ((ssize_t)n, send(sock, say, n, MSG_NOSIGNAL));
		raw_get(server, sock, &hdr, sizeof(hdr));
		ASSERT_LE(hdr.size, sizeof(msg));
		memcpy(msg, &hdr, sizeof(hdr));
		raw_get(server, sock, msg + sizeof(hdr), hdr.size - sizeof(hdr));
		rc = pst_handshake_take(&h, msg, hdr.size, &err);
	} while (!rc);
	pst_secret_free(secret);
	if (rc < 0)
		return rc;
	*out = h.welcome;
	return 0;
}

static inline struct pst_link_welcome raw_shake(struct end *server, int sock,
						const struct pst_link_hello *hello)
{
	struct pst_link_welcome w;

	ASSERT_EQ(0, raw_handshake(server, sock, hello, &w));
	return w;
}

static inline int raw_try_shake(struct end *server, int sock, const struct pst_link_hello *hello)
{
	struct pst_link_welcome w;

	return raw_handshake(server, sock, hello, &w);
}

static inline struct raw raw_open(struct end *server, const char *url)
{
	const struct pst_link_hello hello = {
		.fabric = 't', .crc = 1, .ways = 1, .timeout_ms = 500, .pid = (uint32_t)getpid()};
	struct raw r = {.sock = raw_connect(url), .crc = true};

	server->link = NULL;
	raw_shake(server, r.sock, &hello);
	while (!server->link)
		raw_wait(server, r.sock, 1);
	return r;
}

static inline void raw_close(struct raw *r)
{
	close(r->sock);
}

/* Lengths, numbers and CRC of a frame as a good peer fills them in. */
static inline void raw_seal(struct raw *r, union raw_frame *f, uint16_t type, size_t size,
			    size_t covered)
{
	f->f.type = type;
	f->f.size = (uint32_t)size;
	f->f.ack = r->ack;
	f->f.seq = type <= PST_FRAME_GRANT ? ++r->seq : f->f.seq;
	f->f.crc = 0;
	f->f.crc = r->crc ? pst_crc32c(0, f, covered) : 0;
}

static inline void raw_send(struct raw *r, const void *data, size_t len)
{
	ASSERT_EQ((ssize_t)len, send(r->sock, data, len, MSG_NOSIGNAL));
}

static inline void raw_grant(struct raw *r, const struct raw_grant *grant)
{
	union raw_frame f = {.grant = *grant};

	raw_seal(r, &f, PST_FRAME_GRANT, sizeof(*grant), sizeof(*grant));
	raw_send(r, &f, sizeof(*grant));
}

static inline void raw_message(struct raw *r, const char *text)
{
	union raw_frame f = {0};
	size_t size = sizeof(f.f) + strlen(text);

	memcpy(f.bytes + sizeof(f.f), text, strlen(text));
	raw_seal(r, &f, PST_FRAME_MESSAGE, size, size);
	raw_send(r, &f, size);
}

/* The next frame that is not about credit, its head only for what carries data. */
static inline void raw_hear(struct end *server, struct raw *r, union raw_frame *f)
{
	do {
		raw_get(server, r->sock, f, sizeof(f->f));
		if (f->f.seq && f->f.type != PST_FRAME_AGAIN)
			r->ack = f->f.seq;
		if (f->f.size > sizeof(f->f)) {
			ASSERT_LE(f->f.size, sizeof(*f));
			raw_get(server, r->sock, f->bytes + sizeof(f->f), f->f.size - sizeof(f->f));
		}
	} while (f->f.type == PST_FRAME_CREDIT || f->f.type == PST_FRAME_PING);
}

#endif /* PST_SELFTEST_TCP_RAW_H */
