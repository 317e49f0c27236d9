/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one connection at the door: requests in, answers out, in their order.
 *
 * The model
 *   running   the request whose handler answers later. Nothing is read meanwhile, so
 *             what else the caller sent waits in his socket, and in its order.
 *   pending   an answer that found no room. A caller who leaves it there too
 *             long is cut off.
 *
 * Nobody waits: neither for a caller who does not read, nor for one who does not write.
 */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H

#include "daemon/control/command.h"

#define SESSION_PATIENCE_MS 2000 /* for an answer to be read */

struct session {
	struct penstockd *d;
	struct loop_source src;
	struct loop_timer end; /* runs out: the session ends */
	struct caller who;
	struct request *running, *pending;
	struct pst_door_answer answer; /* to @pending, or alone to what there was no memory for */
	uint32_t arg_len;	       /* of the request in hand, as it came */
	bool unsent;		       /* @answer */
	struct pst_cmd_why why;	       /* of the last that failed */
	TAILQ_HEAD(, session_end) ends;
	void (*gone)(struct session *s); /* told last: it takes it out of its list */
	TAILQ_ENTRY(session) on_door;
};

/* @fd becomes the session's, if it is made. */
int session_new(struct penstockd *d, int fd, const struct caller *who,
		void (*gone)(struct session *s), struct session **out);
void session_close(struct session *s); /* with all that goes with it; @s is freed */

#endif /* DAEMON_SESSION_H */
