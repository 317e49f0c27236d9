/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.h - what penstockd and penstock-keeper say to each other.
 *
 * Over a seqpacket socket beside the daemon's own, each packet is one struct keeper_msg, with one
 * descriptor where it says so. The keeper answers LIST only: what was put is safe once it was
 * sent, since a packet that waits in a socket outlives its sender.
 *
 *	daemon to keeper	PUT (descriptor), DROP, LIST
 *	keeper to daemon	ENTRY (descriptor) for each, then END; BUSY instead of all
 *				service when another daemon is connected, and nothing more
 *
 * Both are of the same build or of neighbouring ones: a packet of another size, or an op that is
 * not known, ends the connection.
 */
#ifndef DAEMON_KEEPER_H
#define DAEMON_KEEPER_H

#include <stdint.h>

#define KEEPER_PROGRAM "penstock-keeper"
#define KEEPER_SUFFIX  ".keep" /* behind the daemon's socket */
#define KEEPER_NAME    32
#define KEEPER_MAX     1026 /* KEEP_MAX, the index of them, and one that replaces another */

/* Descriptors that a keeper is started with: a socket that listens, and its daemon. */
#define KEEPER_LISTENER 3
#define KEEPER_DAEMON	4

enum {
	KEEPER_PUT = 1,
	KEEPER_DROP = 2,
	KEEPER_LIST = 3,
	KEEPER_ENTRY = 4,
	KEEPER_END = 5,
	KEEPER_BUSY = 6,
};

struct keeper_msg {
	uint32_t op;
	char name[KEEPER_NAME];
};

#endif /* DAEMON_KEEPER_H */
