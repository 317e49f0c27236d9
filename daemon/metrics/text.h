/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - the text format of Prometheus (exposition format 0.0.4): families and samples.
 *
 *	family(to, "penstock_pool_bytes", "gauge", "Bytes that a pool has.");
 *	sample(to, "penstock_pool_bytes", 4096, "pool", "a", "node", "0", NULL);
 */
#ifndef DAEMON_METRICS_TEXT_H
#define DAEMON_METRICS_TEXT_H

#include <stdio.h>

/* Once per family, before its samples. */
void family(FILE *to, const char *name, const char *type, const char *help);
/* Labels are pairs of name and value, ended by NULL; values may hold any byte. */
__attribute__((sentinel)) void sample(FILE *to, const char *name, double value, ...);

#endif /* DAEMON_METRICS_TEXT_H */
