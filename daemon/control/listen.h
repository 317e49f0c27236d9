/* SPDX-License-Identifier: Apache-2.0 */
/* listen.h - the door's socket as a file: made, taken over when nobody is behind it, removed. */
#ifndef DAEMON_LISTEN_H
#define DAEMON_LISTEN_H

#include <penstock/error.h>
#include <stdbool.h>
#include <sys/types.h>

struct listener {
	int fd;
	char path[108];
	bool made_socket, made_folder; /* and so removed */
	dev_t dev;
	ino_t ino;
};

/* -EADDRINUSE: somebody listens there; -EEXIST: what is there is no socket. */
int listener_open(const char *path, struct listener *out, struct pst_error *err);
void listener_close(struct listener *l);

#endif /* DAEMON_LISTEN_H */
