/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/region.h"

int pst_pool_region(struct pst_fabric *fab, struct pst_pool *pool, uint32_t access,
		    struct pst_region **out, struct pst_error *err)
{
	struct pst_region_attr attr = {
		.size = sizeof(attr),
		.addr = pst_pool_base(pool),
		.len = pst_pool_bytes(pool),
		.fd = pst_pool_fd(pool),
		.access = access,
	};

	return pst_region_register(fab, &attr, out, err);
}
