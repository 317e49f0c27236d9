/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - what happened, for who reads it and for the log.
 *
 * The last EVENTS_KEPT events are remembered. A reader has one end of a seqpacket
 * pair; one that does not read loses events and is told how many (PST_EVENT_LOST)
 * before the next that finds room.
 */
#ifndef DAEMON_EVENTS_H
#define DAEMON_EVENTS_H

#include "daemon/loop.h"

#include <penstock/ioctl.h>
#include <sys/types.h>

#define EVENTS_KEPT 256

struct events;

int events_new(struct loop *loop, struct events **out);
void events_free(struct events *events); /* NULL is fine */

/* It also goes to the log. Never fails, and leaves errno alone. */
__attribute__((format(printf, 5, 6))) void
events_emit(struct events *events, uint32_t type, uint32_t id, int64_t value, const char *fmt, ...);

/*
 * A descriptor to read from, close-on-exec, as PST_CMD_EVENTS says; or -errno. -EUSERS: @uid, or
 * all together, have as many as may be.
 */
int events_open(struct events *events, uid_t uid, uint64_t mask, uint32_t past);

/* How many of each type since the daemon began, for metrics. */
uint64_t events_count(const struct events *events, uint32_t type);

#endif /* DAEMON_EVENTS_H */
