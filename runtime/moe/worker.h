/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - computes experts for engines.
 *
 * An engine's link brings a set-up (its regions, the servers with the weights)
 * and then requests: so many rows of these experts of this layer.
 *
 *	what		where memory can be mapped (shm)	elsewhere
 *	rows		read in place in the engine's region	one-sided read
 *	results		written in place there			one-sided write
 *	weights		read in place in servers' snapshots	one-sided read, kept for long
 *	gradients	computed straight into the slots	one-sided write, CRC checked there
 *
 * The worker keeps only what it can lose: scratch, copies of weights, and
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
	/*
	 * Budget of each engine's weights and of its gradients where memory of others cannot
	 * be mapped. 0: all weights of the experts, if a quarter of the free memory holds them.
	 */
	uint64_t copy_bytes;
};

int pst_worker_create(const struct pst_worker_config *config, struct pst_worker **out,
		      struct pst_error *err);
/* The URL that it listens at, without settings; valid until it is destroyed. */
const char *pst_worker_at(const struct pst_worker *worker);
/* Serve until pst_worker_stop(); 0 or the error that ended it. */
int pst_worker_serve(struct pst_worker *worker, struct pst_error *err);
void pst_worker_stop(struct pst_worker *worker); /* any thread or signal handler */
void pst_worker_destroy(struct pst_worker *worker);

#endif /* PST_WORKER_H */
