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
 * A worker that drains refuses set-ups and requests (-ESHUTDOWN): engines go elsewhere with what
 * it had not begun.
 *
 * With a GPU all of these move between the device and where they are by its copy engines; weights
 * stay in its memory for as long as they are used and there is room. A GPU that is dead ends the
 * worker, which answers nothing more: its engines go to others, and only a new process can help.
 *
 * The worker keeps only what it can lose: scratch, copies of weights, and
 * the activations of a forward, which a backward elsewhere computes again with the same bits.
 */
#ifndef PST_WORKER_H
#define PST_WORKER_H

#include "runtime/moe/tally.h"

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

struct pst_worker;

struct pst_worker_config {
	size_t size; /* sizeof(struct pst_worker_config) */
	const char *url;
	const char *device;   /* "cuda:N" computes the experts; NULL or "cpu": the cores do */
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
/* Serve until pst_worker_stop(), or until it has drained; 0 or the error that ended it. */
int pst_worker_serve(struct pst_worker *worker, struct pst_error *err);
void pst_worker_stop(struct pst_worker *worker);  /* any thread or signal handler */
void pst_worker_leave(struct pst_worker *worker); /* drain; any thread or signal handler */

/* Any thread, as what follows. */
struct pst_worker_facts {
	struct pst_tally_stat tally;
	uint64_t moved, copied; /* bytes */
	uint32_t threads, draining;
	int node;
	const char *kernels;
};
void pst_worker_facts(struct pst_worker *worker, struct pst_worker_facts *out);
/* As pst_tally_next(). */
int pst_worker_next_expert(struct pst_worker *worker, struct pst_tally_expert_stat *io);
/*
 * PST_EXPERT_*, carried out between two requests, and waited for. -ENODATA: no engine has such
 * an expert; -ENOSPC: no room to pin it.
 */
int pst_worker_order(struct pst_worker *worker, uint32_t layer, uint32_t index, uint32_t order,
		     struct pst_error *err);

/*
 * Serve @op by the kernel in the shared object @image from the next call on; -1: by what is built
 * in. -ENOENT: no such op; -ENOEXEC.
 */
int pst_worker_take_kernel(struct pst_worker *worker, const char *op, int image,
			   struct pst_error *err);
/* Hold what serves @op against ref; 0 or -EDOM, and then too *@error is the worst that was seen. */
int pst_worker_try_kernel(struct pst_worker *worker, const char *op, uint64_t seed, double *error,
			  struct pst_error *err);
void pst_worker_destroy(struct pst_worker *worker);

#endif /* PST_WORKER_H */
