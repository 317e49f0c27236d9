/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/children.h"
#include "daemon/control/command.h"
#include "daemon/control/ordered.h"
#include "rdma/fail.h"

#include <errno.h>

int handle_expert_stat(struct request *r)
{
	struct pst_cmd_expert_stat *stat = (struct pst_cmd_expert_stat *)r->arg;
	int rc = children_expert(r->d->children, stat->flags & PST_STAT_NEXT, stat);

	return rc < 0 ? pst_fail(&r->err, rc,
				 "EXPERT_STAT: no worker tells of expert %u of layer "
				 "%u%s",
				 stat->index, stat->layer,
				 stat->flags & PST_STAT_NEXT ? ", or of one behind it" : "")
		      : 0;
}

int handle_expert_place(struct request *r)
{
	const struct pst_cmd_expert_place *how = (const struct pst_cmd_expert_place *)r->arg;

	if (how->order < PST_EXPERT_PIN || how->order > PST_EXPERT_BRING)
		return pst_fail(&r->err, -EINVAL, "EXPERT_PLACE: there is no order %u", how->order);
	return ordered(r, how->worker,
		       children_place(r->d->children, how->worker, how, order_ended, r));
}
