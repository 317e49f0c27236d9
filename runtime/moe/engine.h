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
 * Order of calls, per layer: forward_begin, forward_end, and in a training step
 * later backward_begin, backward_end for the same layer, layers in reverse.
 *
 * Threads: one.
 * Errors: -errno, only when no worker is left and none can be had (the sentence is
 * in the error that pst_moe_error() gives).
 */
#ifndef PST_MOE_ENGINE_H
#define PST_MOE_ENGINE_H

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

struct pst_moe;

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
