/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs fabric of a build that had no headers for it: it says so. */
#include "rdma/fail.h"
#include "rdma/ops.h"

#include <errno.h>

static int open_none(struct pst_fabric *fab, struct pst_error *err)
{
	(void)fab;
	return pst_fail(
		err, -ENODEV,
		"verbs: this build is without RDMA, because libibverbs-dev and librdmacm-dev "
		"were not there; to mend it: apt-get install libibverbs-dev librdmacm-dev, "
		"and build again");
}

const struct pst_fabric_ops pst_verbs_ops = {
	.scheme = "verbs",
	.open = open_none,
};
