/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - lines for people and for the journal, to stderr.
 *
 * Where stderr is the journal ($JOURNAL_STREAM is that file), a line begins with its priority
 * as sd-daemon(3) has it, else with the time. Fields follow as KEY=value, quoted where need be.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

/* <syslog.h>: LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG */
#include <syslog.h>

void log_begin(const char *program);
/* @fields: "worker=3 pid=77" or NULL. One line, whatever @fmt brings. */
__attribute__((format(printf, 3, 4))) void log_line(int priority, const char *fields,
						    const char *fmt, ...);

#endif /* DAEMON_LOG_H */
