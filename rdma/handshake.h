/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handshake.h - two sides prove to each other that they have the same key.
 *
 * The model
 *   Four messages of uapi/penstock/link.h, moved by the caller over whatever it
 *   has: HELLO (client), CHALLENGE (server), PROOF (client), WELCOME (server). Each side's
 *   proof is HMAC-SHA256 by the key over a label of its own, both nonces and
 *   everything that both said before, so neither replay nor reflection nor a
 *   changed field passes. The server proves itself in the CHALLENGE.
 *   A refusal is a WELCOME with a code and a sentence; one that comes before the peer has
 *   proved itself says no more than that it was refused and why in general.
 *
 * Order of calls: pst_handshake_begin; then pst_handshake_next whenever it has something
 * to say, pst_handshake_take for each message that came, until take returns 1.
 * Everything is compared in constant time. Nothing of the peer's is used before it is checked.
 *
 * References: HMAC, RFC 2104; mutual challenge and response, ISO/IEC 9798-4.
 * Threads: one per handshake.
 */
#ifndef PST_RDMA_HANDSHAKE_H
#define PST_RDMA_HANDSHAKE_H

#include "rdma/secret.h"

#include <penstock/link.h>
#include <stdbool.h>
#include <stddef.h>

enum pst_handshake_role { PST_HANDSHAKE_CLIENT, PST_HANDSHAKE_SERVER };

struct pst_handshake {
	enum pst_handshake_role role;
	unsigned int step;
	const struct pst_secret *secret;
	struct pst_link_hello hello;
	struct pst_link_challenge challenge;
	struct pst_link_proof proof;
	struct pst_link_welcome welcome;
	bool due;    /* pst_handshake_next has something */
	bool proved; /* the peer has the key */
};

/*
 * Client: @hello says what it wants (fields that the caller chooses; header, nonce
 * are filled in). Server: NULL; hello is in the struct once it came.
 */
int pst_handshake_begin(struct pst_handshake *h, enum pst_handshake_role role,
			const struct pst_secret *secret, const struct pst_link_hello *hello);

/* The next message to send: its bytes are at *msg until the next call; 0: nothing to say now. */
size_t pst_handshake_next(struct pst_handshake *h, const void **msg);

/*
 * One message of the peer. 1: done, both have the key (the server may have a WELCOME to send
 * still, whose link fields the caller sets in h->welcome before pst_handshake_next). 0: go on.
 * -EACCES: another key; -EPROTO: no such message now; or the peer's refusal; with a sentence.
 */
int pst_handshake_take(struct pst_handshake *h, const void *msg, size_t len, struct pst_error *err);

/* Server: say no, at any step; pst_handshake_next then gives the refusal. */
void pst_handshake_refuse(struct pst_handshake *h, int code, const char *text);

#endif /* PST_RDMA_HANDSHAKE_H */
