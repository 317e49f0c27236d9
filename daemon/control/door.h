/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.h - the socket that callers come to (penstock/door.h), and who they are.
 *
 * One that systemd handed over (penstockd.socket) is used as it is. Else the socket is
 * made, with its folder if that is missing, in place of one that nobody listens at any more; both
 * go at the end. How many sessions there may be is limited, for each user and in all.
 */
#ifndef DAEMON_DOOR_H
#define DAEMON_DOOR_H

#include "daemon/penstockd.h"

#include <penstock/error.h>

/* Serves from the next turn of the loop on. -EADDRINUSE: another daemon lives at that socket. */
int door_open(struct penstockd *d, struct door **out, struct pst_error *err);
void door_close(struct door *door); /* with all sessions; NULL is fine */
/* After the config was read again: who may change things. The socket stays where it is. */
void door_reload(struct door *door);

#endif /* DAEMON_DOOR_H */
