/* SPDX-License-Identifier: Apache-2.0 */
/*
 * parts.h - the parts of the daemon, opened in the order in which they stand on each other, and
 * closed the other way round.
 */
#ifndef DAEMON_PARTS_H
#define DAEMON_PARTS_H

#include "daemon/penstockd.h"

#include <penstock/error.h>

/* @d has its config; on failure nothing is left open. */
int parts_open(struct penstockd *d, struct pst_error *err);
/* @stop: children end too; else they are left to the next daemon. */
void parts_close(struct penstockd *d, bool stop);

/*
 * Read the config at @path (NULL: none) again. On failure all stays as it was. What came of it is
 * an event.
 */
int parts_reload(struct penstockd *d, const char *path);

#endif /* DAEMON_PARTS_H */
