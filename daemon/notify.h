/* SPDX-License-Identifier: Apache-2.0 */
/*
 * notify.h - what systemd wants to hear, as sd_notify(3) says it, and what it hands over.
 *
 * Without systemd ($NOTIFY_SOCKET, $WATCHDOG_USEC, $LISTEN_FDS) nothing is said and nothing is
 * there, and that is no error.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>

bool notify_wanted(void);
/* "READY=1\nSTATUS=serving"; 0, or -errno. */
__attribute__((format(printf, 1, 2))) int notify_say(const char *fmt, ...);
/* With descriptors: "FDSTORE=1\nFDNAME=pool-3". @state is sent as it is. */
int notify_send(const char *state, const int *fds, size_t nfds);
/* RELOADING=1 needs the time too. */
int notify_reloading(void);

/* Milliseconds within which WATCHDOG=1 is to be said, 0: nobody waits for it. */
int notify_watchdog_ms(void);

/* A listening SOCK_SEQPACKET socket that was handed over (systemd.socket(5)); -1: none. */
int notify_listening(void);

#endif /* DAEMON_NOTIFY_H */
