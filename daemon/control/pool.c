/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/pools/pools.h"

#include "rdma/fail.h"

#include <errno.h>

int handle_pool_create(struct request *r)
{
	return pools_create(r->d->pools, r, (struct pst_cmd_pool_create *)r->arg);
}

int handle_pool_map(struct request *r)
{
	return pools_map(r->d->pools, r, (struct pst_cmd_pool_map *)r->arg);
}

int handle_pool_stat(struct request *r)
{
	struct pst_cmd_pool_stat *io = (struct pst_cmd_pool_stat *)r->arg;
	bool next = io->flags & PST_STAT_NEXT;

	if (!pools_stat(r->d->pools, next, io))
		return 0;
	return pst_fail(&r->err, -ENOENT,
			next ? "there is no pool after %u" : "there is no pool %u", io->id);
}

int handle_pool_destroy(struct request *r)
{
	const struct pst_cmd_pool_destroy *how = (struct pst_cmd_pool_destroy *)r->arg;

	return pools_destroy(r->d->pools, r, how->id);
}
