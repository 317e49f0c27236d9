/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pools.h - memory that others map: made by runtime's pool (or by the module, where it is
 * loaded), counted per user, kept when the daemon ends if that was asked for.
 *
 * Threads: the loop's.
 */
#ifndef DAEMON_POOLS_H
#define DAEMON_POOLS_H

#include "daemon/control/command.h"

int pools_open(struct penstockd *d, struct pools **out, struct pst_error *err);
void pools_close(struct pools *pools); /* what is to be kept stays with keep; NULL is fine */

/* As the commands say; @r is the request, for who asks and for the session that it goes with. */
int pools_create(struct pools *pools, struct request *r, struct pst_cmd_pool_create *how);
int pools_map(struct pools *pools, struct request *r, struct pst_cmd_pool_map *how);
int pools_stat(struct pools *pools, bool next, struct pst_cmd_pool_stat *io);
int pools_destroy(struct pools *pools, struct request *r, uint32_t id);

struct pools_sum {
	uint64_t bytes, user_bytes;
	bool module; /* they come from /dev/penstock */
};
void pools_sum(const struct pools *pools, uid_t uid, struct pools_sum *out);

#endif /* DAEMON_POOLS_H */
