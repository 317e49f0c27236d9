/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keep.h - descriptors that outlive the daemon, with a few words about each.
 *
 * The model
 *   entry   a name ("pool-3", "child-7"), one descriptor (a memfd, a leash) and a
 *           small JSON object: what the next daemon must know of it.
 *   keeper  who holds them: systemd's file descriptor store where $NOTIFY_SOCKET
 *           and FDSTORE are, else a process of its own, penstock-keeper, that is started
 *           with the first entry and ends when it has none and no daemon.
 *
 * keep_open() brings back what an earlier daemon of the same socket put there; each part takes its
 * own with keep_each(), which hands over the descriptors.
 */
#ifndef DAEMON_KEEP_H
#define DAEMON_KEEP_H

#include <jansson.h>
#include <penstock/error.h>

struct keep;
struct loop;

/* @socket: the daemon's, from which the keeper's is named. */
int keep_open(const char *socket, struct keep **out, struct pst_error *err);
void keep_close(struct keep *keep); /* entries stay; NULL is fine */
/* From here on a keeper that ends is noticed at once; a new one is given all again. */
void keep_watch(struct keep *keep, struct loop *loop);

/*
 * Put or replace: whoever is killed at whatever moment, the next daemon has the old one or the new
 * one, whole. @fd stays the caller's; @about is not stolen and has at most 4 KiB as text (-E2BIG).
 * -ENOSPC: there are 1024 entries.
 */
int keep_put(struct keep *keep, const char *name, int fd, json_t *about, struct pst_error *err);
void keep_drop(struct keep *keep, const char *name);

/* For what was there at keep_open() with this beginning of its name; @fd is the callee's. */
typedef void keep_fn(void *ctx, const char *name, int fd, json_t *about);
void keep_each(struct keep *keep, const char *prefix, keep_fn *fn, void *ctx);

#endif /* DAEMON_KEEP_H */
