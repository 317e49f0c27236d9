/* SPDX-License-Identifier: Apache-2.0 */
/* reach.h - connect an engine to the servers and workers of its launch. */
#ifndef PST_REACH_H
#define PST_REACH_H

#include "runtime/launch/launch.h"
#include "runtime/moe/engine.h"
#include "runtime/store/client.h"

/*
 * Make the table on all servers: @co with fabric and tensors; URLs and times are filled in. Waits
 * until all are there. One that ended is found out at once, long before the time is over.
 */
int pst_reach_servers(struct pst_launch *launch, struct pst_client_options *co,
		      struct pst_client **out, struct pst_error *err);

/* Make the experts' engine, and connect it to all workers: @mo without these, and the servers. */
int pst_reach_workers(struct pst_launch *launch, struct pst_client *client,
		      struct pst_moe_options *mo, struct pst_moe **out, struct pst_error *err);

#endif /* PST_REACH_H */
