/* SPDX-License-Identifier: Apache-2.0 */
/* The gate and the loss over a team: rows side by side, or sequences where rows are summed. */
#include "runtime/device/compute_priv.h"

#include <string.h>

struct gate {
	const struct pst_ops *ops;
	const struct pst_gate *g;
	const float *dweight;
	float *loss, alpha;
};

static void choose_rows(void *ctx, size_t first, size_t rows)
{
	const struct gate *t = ctx;
	const struct pst_gate *g = t->g;
	size_t k = first * g->topk, e = first * g->experts;

	t->ops->gate_topk(g->expert + k, g->weight + k, g->score + e, g->logit + e, g->bias, rows,
			  g->experts, g->topk, g->n_group, g->topk_group, g->norm, g->scale);
}

void pst_cpu_gate(struct pst_compute *c, const struct pst_gate *g)
{
	struct gate t = {.ops = pst_device_ops(pst_cpu(c)), .g = g};

	pst_cpu_rows(c, g->batch * g->seq, choose_rows, &t);
}

static void balance_sequence(void *ctx, size_t s)
{
	const struct gate *t = ctx;
	const struct pst_gate *g = t->g;
	size_t first = s * g->seq;

	t->loss[s] = t->ops->balance(g->coef + s * g->experts, g->expert + first * g->topk,
				     g->score + first * g->experts, g->seq, g->experts, g->topk,
				     t->alpha);
}

void pst_cpu_balance(struct pst_compute *c, const struct pst_gate *g, float *loss, float alpha)
{
	struct gate t = {.ops = pst_device_ops(pst_cpu(c)), .g = g, .loss = loss, .alpha = alpha};

	pst_device_for(pst_cpu(c), g->batch, balance_sequence, &t);
}

/* d loss / d logits of one sequence, whose rows share their coef. */
static void gate_sequence(void *ctx, size_t s)
{
	const struct gate *t = ctx;
	const struct pst_gate *g = t->g;
	size_t e = s * g->seq * g->experts, k = s * g->seq * g->topk;

	t->ops->gate_bwd(g->logit + e, t->dweight + k, g->expert + k, g->score + e,
			 g->coef ? g->coef + s * g->experts : NULL, g->seq, g->experts, g->topk,
			 g->norm, g->scale);
}

void pst_cpu_gate_bwd(struct pst_compute *c, const struct pst_gate *g, const float *dweight)
{
	struct gate t = {.ops = pst_device_ops(pst_cpu(c)), .g = g, .dweight = dweight};

	pst_device_for(pst_cpu(c), g->batch, gate_sequence, &t);
}

struct xent {
	const struct pst_ops *ops;
	const struct pst_xent *x;
	float scale;
};

/* Losses only: each row is spoiled in a copy, since the logits are still to be seen. */
static void loss_rows(void *ctx, size_t first, size_t rows)
{
	const struct xent *t = ctx;
	const struct pst_xent *x = t->x;
	float *copy = x->spare + first / PST_COMPUTE_ROWS * x->vocab;

	for (size_t r = first; r < first + rows; r++) {
		memcpy(copy, x->logit + r * x->vocab, x->vocab * sizeof(*copy));
		t->ops->xent(x->loss + r, copy, x->vocab, x->target + r, 1, x->vocab, 1);
	}
}

void pst_cpu_loss(struct pst_compute *c, const struct pst_xent *x)
{
	struct xent t = {.ops = pst_device_ops(pst_cpu(c)), .x = x};

	pst_cpu_rows(c, x->rows, loss_rows, &t);
}

static void dlogit_rows(void *ctx, size_t first, size_t rows)
{
	const struct xent *t = ctx;
	const struct pst_xent *x = t->x;

	t->ops->xent(x->loss + first, x->logit + first * x->vocab, x->vocab, x->target + first,
		     rows, x->vocab, t->scale);
}

void pst_cpu_loss_bwd(struct pst_compute *c, const struct pst_xent *x, float scale)
{
	struct xent t = {.ops = pst_device_ops(pst_cpu(c)), .x = x, .scale = scale};

	pst_cpu_rows(c, x->rows, dlogit_rows, &t);
}
