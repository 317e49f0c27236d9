/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/model/moe_local.h"

#include "runtime/device/mlp.h"
#include "runtime/model/params.h"

#include <stdlib.h>
#include <string.h>

struct layer {
	size_t tokens;
	float *x;      /* [tokens * topk, hidden], grouped by expert */
	int32_t *slot; /* [tokens, topk]: where a token's row stands there */
	size_t *first; /* [experts + 1] */
};

struct pst_moe {
	struct pst_config cfg;
	struct pst_device *dev;
	const float *const *weights;
	float *const *grads;
	struct layer *layers;
	struct pst_mlp_job *jobs;
	float *rows, *drows, *scratch;
	unsigned int calls;
	int code;
	uint64_t choices;
	struct pst_error err;
};

struct pst_moe *moe_local_create(const struct pst_config *cfg, struct pst_device *dev, size_t rows,
				 const float *const *weights, float *const *grads)
{
	struct pst_moe *moe = calloc(1, sizeof(*moe));
	size_t n = rows * cfg->topk;

	*moe = (struct pst_moe){*cfg, dev, weights, grads, .layers = NULL};
	moe->layers = calloc(cfg->layers, sizeof(*moe->layers));
	moe->jobs = calloc(cfg->experts, sizeof(*moe->jobs));
	moe->rows = calloc(n * cfg->hidden, sizeof(float));
	moe->drows = calloc(n * cfg->hidden, sizeof(float));
	moe->scratch = calloc(n * cfg->moe_inter * 3, sizeof(float));
	for (uint32_t l = 0; l < cfg->layers; l++) {
		moe->layers[l].x = calloc(n * cfg->hidden, sizeof(float));
		moe->layers[l].slot = calloc(n, sizeof(int32_t));
		moe->layers[l].first = calloc(cfg->experts + 1, sizeof(size_t));
	}
	return moe;
}

void moe_local_destroy(struct pst_moe *moe)
{
	for (uint32_t l = 0; l < moe->cfg.layers; l++) {
		free(moe->layers[l].x);
		free(moe->layers[l].slot);
		free(moe->layers[l].first);
	}
	free(moe->layers);
	free(moe->jobs);
	free(moe->rows);
	free(moe->drows);
	free(moe->scratch);
	free(moe);
}

void moe_local_fail(struct pst_moe *moe, unsigned int calls, int code)
{
	moe->calls = calls;
	moe->code = code;
}

uint64_t moe_local_choices(struct pst_moe *moe)
{
	uint64_t choices = moe->choices;

	moe->choices = 0;
	return choices;
}

static int fail(struct pst_moe *moe)
{
	if (!moe->calls || --moe->calls)
		return 0;
	moe->calls = 1;
	return moe->code;
}

const struct pst_error *pst_moe_error(const struct pst_moe *moe)
{
	return &moe->err;
}

static void set_jobs(struct pst_moe *moe, unsigned int layer)
{
	struct layer *l = &moe->layers[layer];

	for (uint32_t e = 0; e < moe->cfg.experts; e++) {
		size_t p = pst_params_expert(&moe->cfg, layer, e), at = l->first[e];

		moe->jobs[e] = (struct pst_mlp_job){
			.rows = l->first[e + 1] - at,
			.hidden = moe->cfg.hidden,
			.inter = moe->cfg.moe_inter,
			.gate = moe->weights[p],
			.up = moe->weights[p + 1],
			.down = moe->weights[p + 2],
			.x = l->x + at * moe->cfg.hidden,
			.y = moe->rows + at * moe->cfg.hidden,
			.dy = moe->drows + at * moe->cfg.hidden,
			.dx = moe->rows + at * moe->cfg.hidden,
			.dgate = moe->grads ? moe->grads[p] : NULL,
			.dup = moe->grads ? moe->grads[p + 1] : NULL,
			.ddown = moe->grads ? moe->grads[p + 2] : NULL,
		};
	}
}

int pst_moe_forward_begin(struct pst_moe *moe, unsigned int layer, size_t tokens, const float *x,
			  const int32_t *expert)
{
	struct layer *l = &moe->layers[layer];
	size_t k = moe->cfg.topk, n = 0, hidden = moe->cfg.hidden;

	for (size_t i = 0; i < tokens * k; i++)
		moe->choices = moe->choices * 31 + (uint64_t)expert[i] + 1;
	l->tokens = tokens;
	for (uint32_t e = 0; e < moe->cfg.experts; e++) {
		l->first[e] = n;
		for (size_t i = 0; i < tokens * k; i++) {
			if (expert[i] != (int32_t)e)
				continue;
			memcpy(l->x + n * hidden, x + i / k * hidden, hidden * sizeof(*x));
			l->slot[i] = (int32_t)n++;
		}
	}
	l->first[moe->cfg.experts] = n;
	return fail(moe);
}

int pst_moe_forward_end(struct pst_moe *moe, unsigned int layer, const float *weight, float *y)
{
	struct layer *l = &moe->layers[layer];

	set_jobs(moe, layer);
	pst_mlp_forward(moe->dev, moe->jobs, moe->cfg.experts, moe->scratch);
	pst_device_ops(moe->dev)->combine(y, moe->rows, weight, l->slot, l->tokens, moe->cfg.topk,
					  moe->cfg.hidden, 1);
	return fail(moe);
}

int pst_moe_backward_begin(struct pst_moe *moe, unsigned int layer, const float *weight,
			   const float *dy)
{
	struct layer *l = &moe->layers[layer];

	pst_device_ops(moe->dev)->scatter_scaled(moe->drows, dy, weight, l->slot, l->tokens,
						 moe->cfg.topk, moe->cfg.hidden);
	return fail(moe);
}

int pst_moe_backward_end(struct pst_moe *moe, unsigned int layer, const float *dy, float *dx,
			 float *dweight)
{
	const struct pst_ops *ops = pst_device_ops(moe->dev);
	struct layer *l = &moe->layers[layer];
	size_t k = moe->cfg.topk, hidden = moe->cfg.hidden;

	set_jobs(moe, layer);
	pst_mlp_forward(moe->dev, moe->jobs, moe->cfg.experts, moe->scratch);
	ops->combine_dw(dweight, dy, moe->rows, l->slot, l->tokens, k, hidden);
	pst_mlp_backward(moe->dev, moe->jobs, moe->cfg.experts, moe->scratch);
	ops->combine(dx, moe->rows, NULL, l->slot, l->tokens, k, hidden, 1);
	return fail(moe);
}
