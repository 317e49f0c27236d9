/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one engine's experts at a worker.
 *
 * Opened from the engine's set-up message; everything in a message is checked before use.
 * Threads: that of the worker.
 */
#ifndef PST_SESSION_H
#define PST_SESSION_H

#include "rdma/fabric.h"
#include "runtime/device/device.h"

#include <penstock/wire.h>

struct pst_session;

/* What a session uses of its worker. */
struct pst_session_host {
	struct pst_fabric *fabric;
	struct pst_device *device;
	int node;
	uint32_t pool_flags;
};

int pst_session_open(const struct pst_session_host *host, struct pst_link *engine,
		     const struct pst_msg_worker_setup *setup, struct pst_session **out,
		     struct pst_error *err);
void pst_session_close(struct pst_session *session); /* NULL is fine */

/* Compute; @m->count items are there. */
int pst_session_run(struct pst_session *session, const struct pst_msg_experts *m,
		    struct pst_error *err);

/* Fill in what the session knows of its pool. */
void pst_session_stat(struct pst_session *session, struct pst_msg_stated *out);

#endif /* PST_SESSION_H */
