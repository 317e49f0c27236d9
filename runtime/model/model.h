/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - DeepSeek-V3's network on one engine: forward, backward, generation.
 *
 * The model
 *   model    the network for sequences of at most @seq tokens, @batch at once,
 *            with the memory for what forward keeps for backward. It holds no
 *            weights: each call is given an array of pointers, one per
 *            parameter in the order of params.h (routed experts: NULL, their
 *            workers have them; a tied lm_head has no entry of its own).
 *   moe      who computes the routed experts (moe/engine.h).
 *   cache    for generation: per layer and position kv_lora + qk_rope floats.
 *   compute  who computes all but the routed experts (device/compute.h). Where its memory lies
 *            apart, weights go there and gradients come from there by themselves: all that is
 *            given here stays on the host, in memory that the compute was told of.
 *
 * Order of calls: forward, then (training) backward with the same weights.
 * Threads: one; it uses the device's team.
 * Errors: -errno from the moe, whose sentence is in pst_moe_error(); -EINVAL for a
 * token or target outside of the vocabulary, or backward without a forward; of a compute, whose
 * sentence is in pst_model_error().
 *
 * References: block and MLA arXiv:2412.19437 section 2.1, RoPE 2104.09864.
 */
#ifndef PST_MODEL_H
#define PST_MODEL_H

#include "runtime/device/compute.h"
#include "runtime/mem/pool.h"
#include "runtime/model/config.h"
#include "runtime/moe/engine.h"

struct pst_model;

struct pst_model_options {
	size_t size; /* sizeof(struct pst_model_options) */
	const struct pst_config *config;
	struct pst_device *device;
	struct pst_pool *pool; /* activations come from here, or what the host sees of them */
	struct pst_moe *moe;
	uint32_t batch, seq;
	double balance_alpha;	     /* of the sequence-wise balance loss, 0: none */
	int train;		     /* 0: forward and generation only, less memory */
	struct pst_compute *compute; /* NULL: @device computes */
};

int pst_model_create(const struct pst_model_options *opts, struct pst_model **out,
		     struct pst_error *err);
void pst_model_destroy(struct pst_model *model);

/* Bytes that a model with these options takes from its pool. */
uint64_t pst_model_bytes(const struct pst_model_options *opts);

struct pst_model_loss {
	double cross_entropy; /* mean over tokens, in nats, summed in token order */
	double balance;	      /* sum over layers, mean over sequences */
};

/*
 * Which version of the weights the next calls get. Where they are copied to a compute that is done
 * when this changes; until it is called first, in every forward and feed.
 */
void pst_model_version(struct pst_model *model, uint64_t version);

/* Of the compute; code 0: it did not fail. */
const struct pst_error *pst_model_error(const struct pst_model *model);

/*
 * @tokens, @targets: [batch, seq]; target < 0: no loss there. @token_loss: NULL
 * or [batch * seq], the loss of each token. The gradient is of cross_entropy + balance.
 */
int pst_model_forward(struct pst_model *model, const float *const *weights, uint32_t batch,
		      uint32_t seq, const int32_t *tokens, const int32_t *targets,
		      struct pst_model_loss *loss, float *token_loss);

/* Logits of the last forward [batch * seq, vocab]; after backward: of nothing. NULL where the
 * compute's memory lies apart. */
const float *pst_model_logits(const struct pst_model *model);

/*
 * @grads[i] is overwritten with the gradient of parameter i; NULL where the
 * weight was NULL and for biases.
 */
int pst_model_backward(struct pst_model *model, const float *const *weights, float *const *grads);

/* How many tokens each expert of @layer got in the last forward [experts]. */
const uint32_t *pst_model_load(const struct pst_model *model, uint32_t layer);

/*
 * Generation: feed @n tokens behind those already in the cache (n = 1 but for
 * the prompt); *logits, [vocab], are those behind the last. -ENOSPC when the cache is full (seq
 * tokens).
 */
int pst_model_feed(struct pst_model *model, const float *const *weights, const int32_t *tokens,
		   uint32_t n, const float **logits);
void pst_model_forget(struct pst_model *model); /* empty the cache */

#endif /* PST_MODEL_H */
