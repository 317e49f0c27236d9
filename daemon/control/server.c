/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/children.h"
#include "daemon/control/command.h"
#include "rdma/fail.h"

int handle_server_stat(struct request *r)
{
	struct pst_cmd_server_stat *stat = (struct pst_cmd_server_stat *)r->arg;
	int rc = children_server(r->d->children, stat->flags & PST_STAT_NEXT, stat);

	return rc < 0 ? pst_fail(&r->err, rc, "SERVER_STAT: there is no server %s %u",
				 stat->flags & PST_STAT_NEXT ? "behind" : "with id", stat->id)
		      : 0;
}
