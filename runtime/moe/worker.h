/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - computes experts for engines.
 *
 * An engine's link brings a set-up (its regions, the servers with the weights)
 * and then requests: so many rows of these experts of this layer. Rows are read, and
 * results written, in place in the engine's regions; weights are read in place in
 * the servers' snapshots; weight gradients are computed straight into the
 * engine's slots there. The worker keeps only what it can lose: scratch, and
 * the activations of a forward, which a backward elsewhere computes again with the same bits.
 */
#ifndef PST_WORKER_H
#define PST_WORKER_H

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

struct pst_worker;

struct pst_worker_config {
	size_t size; /* sizeof(struct pst_worker_config) */
	const char *url;
	unsigned int threads; /* 0: the node's cores */
	int node;	      /* -1: any */
	uint32_t pool_flags;  /* enum pst_pool_flags */
};

int pst_worker_create(const struct pst_worker_config *config, struct pst_worker **out,
		      struct pst_error *err);
/* Serve until pst_worker_stop(); 0 or the error that ended it. */
int pst_worker_serve(struct pst_worker *worker, struct pst_error *err);
void pst_worker_stop(struct pst_worker *worker); /* any thread or signal handler */
void pst_worker_destroy(struct pst_worker *worker);

#endif /* PST_WORKER_H */
