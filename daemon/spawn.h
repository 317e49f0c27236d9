/* SPDX-License-Identifier: Apache-2.0 */
/*
 * spawn.h - start a program of ours, and tell processes apart.
 *
 * Programs are looked for in $PENSTOCK_BIN, else beside this program, then in $PATH.
 */
#ifndef DAEMON_SPAWN_H
#define DAEMON_SPAWN_H

#include <penstock/error.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Run @argv[0] in a group of its own, with /dev/null as input, our stderr for what it prints,
 * descriptor @fd under the same number (-1: none), and without what systemd told this process of
 * itself.
 */
int spawn_program(const char *const *argv, int fd, pid_t *pid, struct pst_error *err);

/* When process @pid began, in ticks since boot; 0: there is no such process. */
uint64_t spawn_time(pid_t pid);

#endif /* DAEMON_SPAWN_H */
