/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep_store.h - who holds descriptors under names: systemd, or penstock-keeper.
 *
 * Neither of them knows more than names of at most 31 letters; keep.c and its index know the rest.
 */
#ifndef DAEMON_KEEP_STORE_H
#define DAEMON_KEEP_STORE_H

#include <penstock/error.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/un.h>

struct keep_store {
	const struct keep_store_ops *ops;
	/* of the keeper */
	struct sockaddr_un at;
	int conn;  /* -1: none is connected */
	bool dead; /* it does not take what is sent; @conn stays open until close() or begin() */
	pid_t pid; /* 0: unknown */
	bool child;
};

typedef void keep_store_fn(void *ctx, const char *name, int fd);

struct keep_store_ops {
	/* What is there already: @fn for each, whose descriptor is its own then. */
	int (*open)(struct keep_store *s, keep_store_fn *fn, void *ctx, struct pst_error *err);
	void (*close)(struct keep_store *s);
	/* Is there somebody to put to? If not: begin() and put all. */
	bool (*there)(const struct keep_store *s);
	int (*begin)(struct keep_store *s, struct pst_error *err);
	/* A name that is not in use. -EPIPE: nobody is there any more. */
	int (*put)(struct keep_store *s, const char *name, int fd, struct pst_error *err);
	void (*drop)(struct keep_store *s, const char *name);
};

extern const struct keep_store_ops keep_store_systemd, keep_store_keeper;

/* Does systemd keep descriptors of this process? */
bool keep_store_has_systemd(void);

#endif /* DAEMON_KEEP_STORE_H */
