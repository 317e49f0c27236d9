/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables.h - the parts of tables that this host's servers tell of. Bounded: beyond
 * TABLES_MAX no new ones are taken. Threads: one.
 */
#ifndef DAEMON_TABLES_H
#define DAEMON_TABLES_H

#include <penstock/ioctl.h>
#include <penstock/leash.h>
#include <stdbool.h>
#include <stdint.h>

#define TABLES_MAX 4096

struct tables;

int tables_new(struct tables **out);
void tables_free(struct tables *t); /* NULL is fine */

/* What server @id says. -ENOSPC, -ENOMEM: it is not remembered. */
int tables_tell(struct tables *t, uint32_t id, const struct pst_leash_table *m);
/* It is gone, and its memory with it. */
void tables_forget(struct tables *t, uint32_t id);

/* -ENOENT. As PST_CMD_TABLE_STAT says. */
int tables_stat(const struct tables *t, bool next, struct pst_cmd_table_stat *io);

#endif /* DAEMON_TABLES_H */
