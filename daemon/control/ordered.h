/* SPDX-License-Identifier: Apache-2.0 */
/* ordered.h - requests that are an order to a worker, and are answered when it has ended. */
#ifndef DAEMON_ORDERED_H
#define DAEMON_ORDERED_H

#include "daemon/children/children.h"
#include "daemon/control/command.h"
#include "rdma/fail.h"

/* An order_fn with a request as its context. */
static inline void order_ended(void *ctx, int rc, const struct pst_error *err,
			       const struct pst_leash *answer)
{
	struct request *r = ctx;

	(void)answer;
	if (err)
		r->err = *err;
	request_answer(r, rc);
}

/* What the handler returns when giving it brought @rc. */
static inline int ordered(struct request *r, uint32_t id, int rc)
{
	return rc < 0 ? pst_fail(&r->err, rc, "%s: there is no worker with id %u",
				 command_name(r->cmd), id)
		      : REQUEST_LATER;
}

#endif /* DAEMON_ORDERED_H */
