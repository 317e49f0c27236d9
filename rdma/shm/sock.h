/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sock.h - the Unix sockets of the shm fabric: names, packets with fds, who
 * the peer is. Everything is non-blocking, close-on-exec and without SIGPIPE.
 */
#ifndef PST_SHM_SOCK_H
#define PST_SHM_SOCK_H

#include <penstock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct shm_addr {
	struct sockaddr_un sun;
	socklen_t len;
};

/* shm://name is an abstract name, shm:///path a socket in the file system. */
int pst_shm_addr(const char *url, struct shm_addr *out, struct pst_error *err);
static inline bool pst_shm_addr_is_path(const struct shm_addr *addr)
{
	return addr->sun.sun_path[0] != '\0';
}

/* A new socket, or -errno. */
int pst_shm_socket(void);

/*
 * Bind and listen. A path that a dead server left is replaced. -EADDRINUSE if
 * somebody lives there.
 */
int pst_shm_bind(int sock, const struct shm_addr *addr, const char *url, struct pst_error *err);

/* Send a packet, with @fd if it is >= 0. 0 or -errno (-EAGAIN: the peer does not read). */
int pst_shm_send(int sock, const void *packet, size_t len, int fd);

/*
 * Receive a packet of up to @size bytes and at most one fd (else *fd = -1),
 * which is the caller's. Its length, 0 at the end, -EAGAIN, -EPROTO if it is
 * longer or has more fds, or another -errno.
 */
int pst_shm_recv(int sock, void *packet, size_t size, int *fd);

/* The peer's pid, or -EACCES if it is another user and not root. */
int pst_shm_peer(int sock);

#endif /* PST_SHM_SOCK_H */
