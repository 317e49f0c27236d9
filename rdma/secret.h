/* SPDX-License-Identifier: Apache-2.0 */
/*
 * secret.h - the key that the two sides of a link share.
 *
 * A file of 16 to 4096 bytes, any bytes (white space at its end is not part of it),
 * that belongs to the user or to root and that nobody else can read or write; also an open
 * memfd of that kind by its /proc/self/fd path. To make one:
 *	(umask 077; head -c 32 /dev/urandom | base64 >FILE)
 */
#ifndef PST_RDMA_SECRET_H
#define PST_RDMA_SECRET_H

#include <penstock/error.h>
#include <stddef.h>

struct pst_secret;

/*
 * Read @path; "" for $PENSTOCK_KEY, then ~/.config/penstock/key. -ENOENT with the command that
 * makes one, -EACCES for a file that others can read or that is another's, -EINVAL for its size.
 */
int pst_secret_read(const char *path, struct pst_secret **out, struct pst_error *err);
void pst_secret_free(struct pst_secret *secret); /* and wipes it; NULL is fine */

/* HMAC-SHA256 over the @n pieces. */
struct pst_piece {
	const void *data;
	size_t len;
};
int pst_secret_sign(const struct pst_secret *secret, const struct pst_piece *piece, int n,
		    unsigned char mac[32]);

#endif /* PST_RDMA_SECRET_H */
