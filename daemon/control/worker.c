/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/children.h"

#include "daemon/control/command.h"
#include "daemon/control/ordered.h"
#include "rdma/fail.h"

#include <errno.h>
#include <string.h>

static void started(void *ctx, int rc, const struct pst_error *err, const struct pst_leash *answer)
{
	struct request *r = ctx;
	struct pst_cmd_worker_start *how = (struct pst_cmd_worker_start *)r->arg;
	struct pst_cmd_worker_stat stat = {.size = sizeof(stat), .id = how->out_id};

	(void)answer;
	if (!rc)
		rc = children_worker(r->d->children, false, &stat);
	if (!rc) {
		how->out_pid = stat.out_pid;
		memcpy(how->out_url, stat.out_url, sizeof(how->out_url));
	}
	if (err)
		r->err = *err;
	request_answer(r, rc);
}

int handle_worker_start(struct request *r)
{
	struct pst_cmd_worker_start *how = (struct pst_cmd_worker_start *)r->arg;
	int rc = children_start(r->d->children, how, started, r, &how->out_id, &r->err);

	return rc < 0 ? rc : REQUEST_LATER;
}

int handle_worker_stat(struct request *r)
{
	struct pst_cmd_worker_stat *stat = (struct pst_cmd_worker_stat *)r->arg;
	int rc = children_worker(r->d->children, stat->flags & PST_STAT_NEXT, stat);

	return rc < 0 ? pst_fail(&r->err, rc, "WORKER_STAT: there is no worker %s %u",
				 stat->flags & PST_STAT_NEXT ? "behind" : "with id", stat->id)
		      : 0;
}

int handle_worker_drain(struct request *r)
{
	const struct pst_cmd_worker_drain *how = (const struct pst_cmd_worker_drain *)r->arg;
	int ms = how->timeout_ms < INT32_MAX ? (int)how->timeout_ms : INT32_MAX;

	return ordered(r, how->id, children_drain(r->d->children, how->id, ms, order_ended, r));
}

int handle_worker_stop(struct request *r)
{
	const struct pst_cmd_worker_stop *how = (const struct pst_cmd_worker_stop *)r->arg;

	return ordered(r, how->id, children_stop(r->d->children, how->id, order_ended, r));
}
