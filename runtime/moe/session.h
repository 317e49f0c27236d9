/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session.h - one engine's experts at a worker.
 *
 * Opened from the engine's set-up message; everything in a message is checked before use.
 *
 * Where the engine's regions and the servers' can be mapped nothing moves. Elsewhere the rows
 * of a request are read from the engine, weights that are not here from the servers, and
 * the experts are computed in groups whose weights and gradients have room in the session's
 * memory; results are written to the engine, and gradients to the slots, before the answer.
 * The numbers are the same: every expert is computed whole.
 * Threads: that of the worker.
 */
#ifndef PST_SESSION_H
#define PST_SESSION_H

#include "runtime/device/device.h"
#include "runtime/moe/tally.h"
#include "runtime/moe/worker_gpu.h"
#include "runtime/store/inbox.h"

#include <penstock/wire.h>

struct pst_session;

/* What a session uses of its worker. */
struct pst_session_host {
	struct pst_inbox *inbox; /* engines */
	struct pst_device *device;
	struct pst_worker_gpu *gpu; /* computes the experts; NULL: @device does */
	struct pst_tally *tally;
	int node;
	uint32_t pool_flags;
	uint64_t copy_bytes; /* as in worker.h */
};

int pst_session_open(const struct pst_session_host *host, struct pst_link *engine,
		     const struct pst_msg_worker_setup *setup, struct pst_session **out,
		     struct pst_error *err);
void pst_session_close(struct pst_session *session); /* NULL is fine */

/* Compute; @m->count items are there. */
int pst_session_run(struct pst_session *session, const struct pst_msg_experts *m,
		    struct pst_error *err);

/*
 * Between requests: PST_EXPERT_* of penstock/ioctl.h. -ENODATA: there is no such expert. -ENOSPC:
 * what is pinned leaves no room. Nothing to do where servers are mapped.
 */
int pst_session_place(struct pst_session *session, uint32_t layer, uint32_t index, uint32_t order,
		      struct pst_error *err);
/* 0 if it could be pinned (or is); else as above. */
int pst_session_may_pin(const struct pst_session *session, uint32_t layer, uint32_t index,
			struct pst_error *err);

/* Fill in what the session knows of its pool. */
void pst_session_stat(struct pst_session *session, struct pst_msg_stated *out);

#endif /* PST_SESSION_H */
