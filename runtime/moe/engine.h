/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine.h - the routed experts of a model, as the engine sees them.
 *
 * The model
 *   moe      the workers that compute this engine's experts, and for each layer
 *            the rows that were sent to them.
 *   routing  for each token the k experts that the gate chose, ascending.
 *   begin    groups the tokens by expert, gathers their rows into memory that
 *            the workers read, tells them, and returns at once, so that the
 *            caller computes (the shared expert) meanwhile.
 *   end      waits and sums what came back, for each token in expert order.
 *
 * An expert's rows are computed whole by one worker, so who computes what
 * never changes the numbers. A worker that dies, or does not answer in time, has
 * its experts sent again to the others, or to its replacement; the caller does not notice.
 *
 * Set-up: pst_moe_create, pst_moe_connect for each worker; then, before each
 * step, pst_moe_version. Per layer: forward_begin, forward_end, and in a training step
 * later backward_begin, backward_end for the same layer, layers in reverse.
 *
 * Threads: one.
 * Errors of the four calls: -errno, only when no worker is left and none can be had (the sentence
 * is in the error that pst_moe_error() gives).
 */
#ifndef PST_MOE_ENGINE_H
#define PST_MOE_ENGINE_H

#include "rdma/fabric.h"
#include "runtime/device/device.h"

#include <penstock/wire.h>

struct pst_moe;

struct pst_moe_options {
	size_t size; /* sizeof(struct pst_moe_options) */
	struct pst_fabric *fabric;
	struct pst_device *device; /* of the engine: gathers and sums */
	unsigned int workers;
	const struct pst_wire_server *servers; /* that have the experts */
	unsigned int nservers;
	uint32_t hidden, inter, experts, topk;
	uint32_t layers, dense_layers; /* the first @dense_layers have no experts */
	uint32_t max_tokens;	       /* in one forward */
	int train;		       /* 0: forward only, less memory */
	int node;		       /* NUMA node of the rows, PST_NODE_ANY */
	uint32_t pool_flags;
	int timeout_ms; /* a worker that is silent for so long is given up */
	int connect_ms; /* for a worker to appear, 0: 20 s */
	/*
	 * Optional: make a new worker number @worker in place of the one that
	 * died (or hangs: make sure that it is dead) and store its URL. -errno: none can be had.
	 * Where others keep the workers: the milliseconds that it may take to connect to
	 * that URL, before the rest does without it; -EAGAIN: it was tried a moment ago.
	 */
	int (*replace)(void *ctx, unsigned int worker, char url[PST_WIRE_URL],
		       struct pst_error *err);
	/*
	 * Optional: 0 while worker @worker runs; -ECHILD and why when it has ended, -EHOSTDOWN
	 * when no worker can do anything any more.
	 */
	int (*check)(void *ctx, unsigned int worker, struct pst_error *err);
	void *ctx;
	/*
	 * Optional: 0 while this engine reaches all servers. A worker that does not is a worker
	 * that failed; without this it is an error, as when it is the server that is gone.
	 */
	int (*reach)(void *reach_ctx, struct pst_error *err);
	void *reach_ctx;
};

int pst_moe_create(const struct pst_moe_options *opts, struct pst_moe **out, struct pst_error *err);
void pst_moe_destroy(struct pst_moe *moe);

/* Connect to worker number @worker at @url, which may still be starting. */
int pst_moe_connect(struct pst_moe *moe, unsigned int worker, const char *url,
		    struct pst_error *err);

/* The version of the weights that what follows is computed with. */
void pst_moe_version(struct pst_moe *moe, uint64_t version);

struct pst_moe_stat {
	uint64_t rows_bytes;	/* gathered for workers */
	uint64_t results_bytes; /* that came back */
	uint64_t weight_bytes;	/* of experts that were computed with */
	uint64_t grad_bytes;	/* of experts, that workers put in slots */
	uint64_t restarts;	/* workers that were replaced */
	uint64_t resent;	/* experts that were sent again */
};

void pst_moe_stat(const struct pst_moe *moe, struct pst_moe_stat *out);
/* What worker number @worker says of itself; between steps. -ENOTCONN: it is dead. */
int pst_moe_worker_stat(struct pst_moe *moe, unsigned int worker, struct pst_msg_stated *out);

/*
 * @x [tokens, hidden], @expert [tokens, k]; both may be reused when this
 * returns. What backward needs is kept until the next forward of @layer.
 */
int pst_moe_forward_begin(struct pst_moe *moe, unsigned int layer, size_t tokens, const float *x,
			  const int32_t *expert);

/* y[t] += sum over j of weight[t,j] * expert_j(x[t]), weight [tokens, k]. */
int pst_moe_forward_end(struct pst_moe *moe, unsigned int layer, const float *weight, float *y);

/* @dy [tokens, hidden]: d loss / d (what forward added to y). */
int pst_moe_backward_begin(struct pst_moe *moe, unsigned int layer, const float *weight,
			   const float *dy);

/* dx[t] += the experts' part; dweight [tokens, k] overwritten. Gradients of the
 * experts' weights are on their servers when this returns. */
int pst_moe_backward_end(struct pst_moe *moe, unsigned int layer, const float *dy, float *dx,
			 float *dweight);

const struct pst_error *pst_moe_error(const struct pst_moe *moe);

#endif /* PST_MOE_ENGINE_H */
