/* SPDX-License-Identifier: Apache-2.0 */
/*
 * raw.h - the wire of a shm link by hand, for peers that do not keep to it:
 * only the layout is taken from the library, none of its code.
 */
#ifndef PST_SELFTEST_RAW_H
#define PST_SELFTEST_RAW_H

#include "rdma/shm/wire.h"
#include "selftests/rdma/pair.h"

#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

struct raw {
	int sock, memfd;
	struct shm_area *area;
};

static inline const struct shm_hello *raw_hello(void)
{
	static const struct shm_hello hello = {
		.magic = SHM_MAGIC,
		.abi = SHM_ABI,
		.slots = SHM_RING_SLOTS,
		.slot_size = sizeof(struct shm_slot),
		.area_size = sizeof(struct shm_area),
	};
	return &hello;
}

static inline int raw_memfd(size_t size, int seals)
{
	int fd = memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, (off_t)size));
	ASSERT_EQ(0, fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

/* A blocking socket to "shm://NAME". */
static inline int raw_connect(const char *url)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int n = snprintf(sun.sun_path + 1, sizeof(sun.sun_path) - 1, "penstock/%s", url + 6);

	ASSERT_EQ(0, connect(sock, (struct sockaddr *)&sun,
			     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)));
	return sock;
}

static inline ssize_t raw_send(int sock, const void *data, size_t len, const int *fds, int nfds)
{
	char control[CMSG_SPACE(16 * sizeof(int))] = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c = (struct cmsghdr *)control;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL);
}

/* A packet and the fd that came with it, or -1. */
static inline ssize_t raw_recv(int sock, void *data, size_t len, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = {.iov_base = data, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&msg);

	*fd = -1;
	if (c)
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	return n;
}

static inline void raw_close(struct raw *r)
{
	munmap(r->area, sizeof(*r->area));
	close(r->memfd);
	close(r->sock);
}

/* Connect as a good peer would, while @server's cq is polled here. */
static inline struct raw raw_open(struct end *server, const char *url)
{
	struct raw r = {.sock = raw_connect(url)};
	struct shm_welcome w;
	int fd;

	r.memfd = raw_memfd(sizeof(*r.area), F_SEAL_SHRINK);
	r.area = mmap(NULL, sizeof(*r.area), PROT_READ | PROT_WRITE, MAP_SHARED, r.memfd, 0);
	ASSERT_TRUE(r.area != MAP_FAILED);
	ASSERT_EQ((ssize_t)sizeof(struct shm_hello),
		  raw_send(r.sock, raw_hello(), sizeof(struct shm_hello), &r.memfd, 1));
	server->link = expect(server, PST_WC_CONNECTED).link;
	ASSERT_EQ((ssize_t)sizeof(w), raw_recv(r.sock, &w, sizeof(w), &fd));
	ASSERT_EQ(0, w.code);
	return r;
}

/* Put a slot in by hand; the @i-th since the start. */
static inline void raw_put(struct raw *r, uint64_t i, uint64_t kind, uint64_t len, uint64_t seq)
{
	struct shm_slot *slot = &r->area->ring[0].slot[i % SHM_RING_SLOTS];

	slot->desc = kind << 16 | len;
	slot->seq = seq;
}

#endif /* PST_SELFTEST_RAW_H */
