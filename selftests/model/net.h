/* SPDX-License-Identifier: Apache-2.0 */
/* net.h - a model with weights, gradients and local experts, for the tests of model/. */
#ifndef TEST_NET_H
#define TEST_NET_H

#include "selftests/lib/test.h"
#include "selftests/model/moe_local.h"

#include "runtime/model/model.h"
#include "runtime/model/params.h"

#include <sys/mman.h>

struct net {
	struct pst_config cfg;
	struct pst_device *dev;
	struct pst_pool *pool;
	struct pst_moe *moe;
	struct pst_model *model;
	struct pst_param *params;
	size_t count;
	float **weights, **grads;
	float *memory; /* with all of these */
	size_t bytes;
	const float **given; /* as model.h wants them: without the experts */
	float **wanted;
};

static inline size_t net_size(const struct pst_param *p)
{
	return p->shape[0] * (p->ndim == 2 ? p->shape[1] : 1);
}

/* Weights and gradients, each beginning on 64 bytes, in whole pages. */
static inline void net_memory(struct net *n)
{
	size_t floats = 0;
	float *at;

	for (size_t i = 0; i < n->count; i++)
		floats += 2 * ((net_size(&n->params[i]) + 15) / 16 * 16);
	n->bytes = (floats * sizeof(*at) + 4095) / 4096 * 4096;
	at = mmap(NULL, n->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)at);
	n->memory = at;
	for (size_t i = 0; i < n->count; i++) {
		n->weights[i] = at;
		at += (net_size(&n->params[i]) + 15) / 16 * 16;
		n->grads[i] = at;
		at += (net_size(&n->params[i]) + 15) / 16 * 16;
	}
}

/* What else computes than the cores; told of its memory here. */
struct net_on {
	struct pst_compute *compute;
	void (*reach)(struct pst_compute *compute, void *at, uint64_t bytes);
};

/* Weights are zero at first. */
static inline void net_create_on(struct net *n, const struct net_on *on,
				 const struct pst_config *cfg, unsigned int threads, uint32_t batch,
				 uint32_t seq, double alpha, int train)
{
	struct pst_error err = {0};
	struct pst_model_options o;

	n->cfg = *cfg;
	ASSERT_EQ(0, pst_params_list(cfg, &n->params, &n->count));
	n->weights = calloc(n->count, sizeof(*n->weights));
	n->grads = calloc(n->count, sizeof(*n->grads));
	n->given = calloc(n->count, sizeof(*n->given));
	n->wanted = calloc(n->count, sizeof(*n->wanted));
	net_memory(n);
	for (size_t i = 0; i < n->count; i++) {
		if (n->params[i].expert >= 0)
			continue;
		n->given[i] = n->weights[i];
		n->wanted[i] = n->params[i].kind == PST_PARAM_BIAS ? NULL : n->grads[i];
	}
	ASSERT_OK(pst_device_open_cpu(PST_NODE_ANY, threads, &n->dev, &err), &err);
	n->moe = moe_local_create(cfg, n->dev, (size_t)batch * seq,
				  (const float *const *)n->weights, n->grads);
	o = (struct pst_model_options){.size = sizeof(o),
				       .config = &n->cfg,
				       .device = n->dev,
				       .moe = n->moe,
				       .batch = batch,
				       .seq = seq,
				       .balance_alpha = alpha,
				       .train = train,
				       .compute = on ? on->compute : NULL};
	ASSERT_OK(
		pst_pool_create(&(struct pst_pool_options){.size = sizeof(struct pst_pool_options),
							   .name = "net",
							   .bytes = pst_model_bytes(&o) + (1 << 20),
							   .node = PST_NODE_ANY},
				&n->pool, &err),
		&err);
	o.pool = n->pool;
	if (on) {
		on->reach(on->compute, pst_pool_base(n->pool), pst_pool_bytes(n->pool));
		on->reach(on->compute, n->memory, n->bytes);
	}
	ASSERT_OK(pst_model_create(&o, &n->model, &err), &err);
}

static inline void net_create(struct net *n, const struct pst_config *cfg, unsigned int threads,
			      uint32_t batch, uint32_t seq, double alpha, int train)
{
	net_create_on(n, NULL, cfg, threads, batch, seq, alpha, train);
}

/* Before another compute than the cores forgets its memory. */
static inline void net_destroy_model(struct net *n)
{
	pst_model_destroy(n->model);
	n->model = NULL;
}

static inline void net_destroy(struct net *n)
{
	net_destroy_model(n);
	pst_pool_destroy(n->pool);
	moe_local_destroy(n->moe);
	pst_device_close(n->dev);
	munmap(n->memory, n->bytes);
	free(n->weights);
	free(n->grads);
	free(n->given);
	free(n->wanted);
	free(n->params);
}

static inline float net_uniform(uint64_t *state)
{
	return (float)(test_random(state) >> 40) / (float)(1 << 23) - 1;
}

/* Weights that make every part matter. */
static inline void net_randomize(struct net *n, uint64_t seed)
{
	for (size_t i = 0; i < n->count; i++) {
		const struct pst_param *p = &n->params[i];
		float scale = p->ndim == 1 ? 0.1f : 1.5f / (float)(p->shape[1] > 16 ? 5 : 4);

		for (size_t j = 0; j < net_size(p); j++)
			n->weights[i][j] = scale * net_uniform(&seed) +
					   (p->kind == PST_PARAM_NORM ? 1.0f : 0.0f);
	}
}

static inline int net_forward(struct net *n, uint32_t batch, uint32_t seq, const int32_t *tokens,
			      const int32_t *targets, struct pst_model_loss *loss)
{
	return pst_model_forward(n->model, n->given, batch, seq, tokens, targets, loss, NULL);
}

static inline int net_backward(struct net *n)
{
	return pst_model_backward(n->model, n->given, n->wanted);
}

#endif /* TEST_NET_H */
