/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - the daemon's figures for Prometheus, at config.metrics.
 *
 * The model
 *   server  libmicrohttpd in the daemon's loop: GET /metrics gives the text format 0.0.4. It asks
 *           nothing that the control interface does not answer to everybody who looks.
 *   family  a name with help and type, and its samples. All begin with penstock_, are in base
 *           units, and name no user.
 *
 * An address that is taken is no reason not to run: the log says so once, and what mends it.
 * Threads: the loop's.
 */
#ifndef DAEMON_METRICS_H
#define DAEMON_METRICS_H

#include "daemon/penstockd.h"

#include <penstock/error.h>
#include <stdio.h>

/* An empty config.metrics: nothing listens, and *out is NULL. */
int metrics_open(struct penstockd *d, struct metrics **out, struct pst_error *err);
void metrics_close(struct metrics *metrics); /* NULL is fine */

/* All of it, as text. */
void metrics_write(struct penstockd *d, FILE *to);

#endif /* DAEMON_METRICS_H */
