/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - one table of commands, one copy-in, then a handler.
 *
 * The model
 *   request  one command of one caller, with a struct that is checked: whole (filled up with
 *            zeros), no unknown flags, nothing in reserved fields, names ended, the right to
 *            change things where the command changes something.
 *   handler  does it. It sees no sizes and no sockets. 0, -errno with a sentence in
 *            @err, or REQUEST_LATER: then it has taken the request over and calls
 *            request_answer() when it knows, from the loop.
 *
 * A handler's out fields are in the same struct; the door sends it back if rc is 0.
 */
#ifndef DAEMON_COMMAND_H
#define DAEMON_COMMAND_H

#include "daemon/penstockd.h"

#include <penstock/door.h>
#include <penstock/error.h>
#include <sys/types.h>

#define REQUEST_LATER 1

struct session;

struct caller {
	uid_t uid;
	gid_t gid;
	pid_t pid;
	bool may_change;
};

struct request {
	struct penstockd *d;
	struct session *session; /* NULL: the daemon itself asks (metrics) */
	struct caller who;
	uint32_t cmd;
	int in_fd[PST_DOOR_FDS]; /* -1: none; closed after the answer, unless taken (set to -1) */
	int out_fd;		 /* set by the handler, closed after it was sent; -1: none */
	bool gone;		 /* the session ended before the answer */
	struct pst_error err;
	_Alignas(8) unsigned char arg[PST_DOOR_MAX]; /* the struct */
};

typedef int request_fn(struct request *r);

/* Where a field is in its struct; no bytes: there is none. */
struct command_field {
	uint32_t at, bytes;
};

struct command {
	const char *name; /* "POOL_CREATE" */
	uint32_t size, min;
	uint32_t flags;			     /* that are known */
	struct command_field reserved, text; /* to be zeros; to be ended and filled up */
	bool changes; /* for who may change things only; without, a handler asks itself */
	int in_fd[PST_DOOR_FDS], out_fd; /* offsets in the struct, -1: none */
	request_fn *fn;
};

/* NULL: there is no such command. */
const struct command *command_find(uint32_t cmd);
/* "POOL_CREATE"; "command" for a number that is none. */
const char *command_name(uint32_t cmd);

/*
 * Check @len bytes of a struct at @raw into r->arg: -EINVAL, -E2BIG, -EOPNOTSUPP, -EPERM as
 * penstock/ioctl.h says, with a sentence in r->err.
 */
int command_take(const struct command *c, struct request *r, const void *raw, uint32_t len);

/*
 * Take the descriptors that came with it, as the fields of r->arg name them: -EBADF. All are used
 * up: those that no field names are closed.
 */
int command_take_fds(const struct command *c, struct request *r, const int *fds, uint32_t nfds);

/* Ask as the daemon itself, who may all: for metrics. Not for commands that answer later. */
int command_ask(struct penstockd *d, uint32_t cmd, void *arg);

/* The end of a request that was REQUEST_LATER. @r is freed. */
void request_answer(struct request *r, int rc);

/* What goes when the session does: pools without KEEP. @fn is called once, at its end. */
struct session_end {
	void (*fn)(struct session_end *end);
	TAILQ_ENTRY(session_end) on_session;
};
void session_on_end(struct session *session, struct session_end *end);
void session_forget(struct session *session, struct session_end *end);

/* Handlers, one file per kind of object: control/info.c, pool.c, device.c, ... */
#define COMMAND_HANDLER(NAME, name, last, in1, in2, out) request_fn handle_##name;
PST_COMMANDS(COMMAND_HANDLER)
#undef COMMAND_HANDLER

#endif /* DAEMON_COMMAND_H */
