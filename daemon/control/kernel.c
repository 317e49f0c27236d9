/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/kernels/kernels.h"

#include "rdma/fail.h"

#include <errno.h>

int handle_kernel_load(struct request *r)
{
	return kernels_load(r->d->kernels, r);
}

int handle_kernel_stat(struct request *r)
{
	struct pst_cmd_kernel_stat *io = (struct pst_cmd_kernel_stat *)r->arg;
	bool next = io->flags & PST_STAT_NEXT;
	int rc = kernels_stat(r->d->kernels, next, io);

	return rc < 0 ? pst_fail(&r->err, rc, "kernel %u: there is no %s", io->id,
				 next ? "kernel behind it" : "such kernel")
		      : 0;
}

int handle_kernel_bind(struct request *r)
{
	return kernels_bind(r->d->kernels, r);
}

int handle_kernel_rollback(struct request *r)
{
	return kernels_rollback(r->d->kernels, r);
}

int handle_kernel_unload(struct request *r)
{
	return kernels_unload(r->d->kernels, r);
}
