/* SPDX-License-Identifier: Apache-2.0 */
/* region.h - a pool as a region that links may be given. */
#ifndef PST_POOL_REGION_H
#define PST_POOL_REGION_H

#include "rdma/fabric.h"
#include "runtime/mem/pool.h"

/* Register all of @pool; @access: the most that a grant may give. The pool outlives the region. */
int pst_pool_region(struct pst_fabric *fab, struct pst_pool *pool, uint32_t access,
		    struct pst_region **out, struct pst_error *err);

#endif /* PST_POOL_REGION_H */
