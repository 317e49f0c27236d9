/* SPDX-License-Identifier: Apache-2.0 */
/*
 * experts.h - what this host's workers tell of experts, put together: where copies are, how hot
 * each is.
 *
 * A worker counts from its own beginning; what it counted before it died is not lost. What
 * is remembered is bounded: beyond EXPERTS_MAX (an expert of one worker each) no new ones are
 * taken. Threads: one.
 */
#ifndef DAEMON_EXPERTS_H
#define DAEMON_EXPERTS_H

#include <penstock/ioctl.h>
#include <penstock/leash.h>
#include <stdbool.h>
#include <stdint.h>

#define EXPERTS_MAX (1u << 20)

struct experts;

int experts_new(struct experts **out);
void experts_free(struct experts *x); /* NULL is fine */

/* What worker @id says, at @now_ms. -ENOSPC, -ENOMEM: it is not remembered. */
int experts_tell(struct experts *x, uint32_t id, const struct pst_leash_expert *e, int64_t now_ms);
/* Its copies went with it; it will count from 0 again. */
void experts_died(struct experts *x, uint32_t id);
/* It will not come back. */
void experts_forget(struct experts *x, uint32_t id);

/* -ENOENT. As PST_CMD_EXPERT_STAT says. */
int experts_stat(struct experts *x, bool next, struct pst_cmd_expert_stat *io, int64_t now_ms);

#endif /* DAEMON_EXPERTS_H */
