/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leash.h - messages of penstock/leash.h, sent, received and checked. Both sides use it.
 *
 * What is received is whole, of a type that the other side may send, with ended names and values
 * in their ranges; control characters in texts have become question marks. Neither call waits.
 */
#ifndef DAEMON_LEASH_H
#define DAEMON_LEASH_H

#include <penstock/error.h>
#include <penstock/leash.h>
#include <stddef.h>

enum leash_side {
	LEASH_CHILD = 1,
	LEASH_DAEMON = 2,
};

/* @hdr.type says which. */
union leash_message {
	struct pst_leash hdr;
	struct pst_leash_hello hello;
	struct pst_leash_beat beat;
	struct pst_leash_expert expert;
	struct pst_leash_table table;
	struct pst_leash_answer answer;
	struct pst_leash_bind bind;
	struct pst_leash_check check;
	struct pst_leash_checked checked;
	struct pst_leash_place place;
	unsigned char raw[PST_LEASH_MAX];
};

/*
 * What @from sent, @len bytes in @m: 0, and texts are made fit for a line; -EPROTO with what is
 * wrong. A message that is longer than is known stays so.
 */
int leash_check(enum leash_side from, union leash_message *m, size_t len, struct pst_error *err);

/*
 * The next message of the other side, @from: 1. 0: there is none now; -EPIPE: nobody has the
 * other end; -EPROTO: it breaks the rules. *@fd: the descriptor that came with it, the caller's
 * to close, or -1; @fd NULL: none is taken.
 */
int leash_recv(int sock, enum leash_side from, union leash_message *m, int *fd,
	       struct pst_error *err);

/* With descriptor @fd, -1: none. -EAGAIN: no room now; -EPIPE: nobody has the other end. */
int leash_send(int sock, const struct pst_leash *m, int fd);

/* The beginning of a message of @type. */
#define LEASH_HEADER(object, what, number) \
	((struct pst_leash){.size = sizeof(object), .type = PST_LEASH_##what, .seq = (number)})

#endif /* DAEMON_LEASH_H */
