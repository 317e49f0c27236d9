/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The feed-forward half of a layer: one dense network in the leading layers,
 * behind them the gate, the routed experts (moe/engine.h) and, while those are
 * being computed elsewhere, the shared expert (arXiv:2412.19437 eq. 12-20).
 */
#include "runtime/model/net.h"

#include "runtime/device/mlp.h"

#include <string.h>

struct ffn {
	struct pst_model *m;
	const float *const *w;
	const struct pst_layer_params *at;
	struct pst_act *a;
	uint32_t layer;
};

static struct ffn ffn_of(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	return (struct ffn){m, weights, &m->layer_at[layer], pst_act(m, layer), layer};
}

static struct pst_norm ffn_norm(const struct ffn *f)
{
	const struct pst_config *c = &f->m->cfg;

	return (struct pst_norm){.w = f->w[f->at->ffn_norm],
				 .x = f->a->x1,
				 .rstd = f->a->rstd2,
				 .ldx = c->hidden,
				 .rows = f->m->rows,
				 .cols = c->hidden,
				 .eps = (float)c->rms_eps};
}

static struct pst_linear router(const struct ffn *f)
{
	return (struct pst_linear){f->w[f->at->router], f->m->cfg.hidden, f->m->cfg.experts};
}

static struct pst_mlp_job mlp_job(const struct ffn *f)
{
	const struct pst_model *m = f->m;

	return (struct pst_mlp_job){.rows = m->rows,
				    .hidden = m->cfg.hidden,
				    .inter = pst_layer_inter(&m->cfg, f->layer),
				    .gate = f->w[f->at->gate],
				    .up = f->w[f->at->up],
				    .down = f->w[f->at->down],
				    .x = f->a->h2,
				    .kept = m->train ? f->a->kept : NULL};
}

/* y of the dense or the shared network; nothing where there is none. */
static void mlp_forward(const struct ffn *f)
{
	struct pst_model *m = f->m;
	struct pst_mlp_job job;

	if (!pst_layer_has_mlp(&m->cfg, f->layer)) {
		memset(m->y, 0, m->rows * m->cfg.hidden * sizeof(*m->y));
		return;
	}
	job = mlp_job(f);
	job.y = m->y;
	pst_mlp_forward(m->dev, &job, 1, m->mlp_scratch);
}

/* dh = d loss / d h2 through the same, given dx. */
static void mlp_backward(const struct ffn *f, float *const *grads)
{
	struct pst_model *m = f->m;
	struct pst_mlp_job job;

	if (!pst_layer_has_mlp(&m->cfg, f->layer)) {
		memset(m->dh, 0, m->rows * m->cfg.hidden * sizeof(*m->dh));
		return;
	}
	job = mlp_job(f);
	job.have_kept = true;
	job.dy = m->dx;
	job.dx = m->dh;
	job.dgate = grads[f->at->gate];
	job.dup = grads[f->at->up];
	job.ddown = grads[f->at->down];
	pst_mlp_backward(m->dev, &job, 1, m->mlp_scratch);
}

static void choose_rows(void *ctx, size_t first, size_t rows)
{
	const struct ffn *f = ctx;
	const struct pst_config *c = &f->m->cfg;

	f->m->ops->gate_topk(f->a->expert + first * c->topk, f->a->weight + first * c->topk,
			     f->a->score + first * c->experts, f->m->router + first * c->experts,
			     f->w[f->at->bias], rows, c->experts, c->topk, c->n_group,
			     c->topk_group, c->norm_topk, (float)c->routed_scale);
}

static void count_load(const struct ffn *f)
{
	uint32_t *load = f->m->load + (size_t)f->layer * f->m->cfg.experts;

	memset(load, 0, f->m->cfg.experts * sizeof(*load));
	for (size_t i = 0; i < f->m->rows * f->m->cfg.topk; i++)
		load[f->a->expert[i]]++;
}

static int moe_forward(struct ffn *f)
{
	struct pst_model *m = f->m;
	int rc;

	pst_linear(m->dev, router(f), m->rows, m->router, m->cfg.experts, f->a->h2, m->cfg.hidden);
	pst_tile_rows(m->dev, m->rows, choose_rows, f);
	rc = pst_moe_forward_begin(m->moe, f->layer, m->rows, f->a->h2, f->a->expert);
	if (rc < 0)
		return rc;
	mlp_forward(f);
	count_load(f);
	rc = pst_moe_forward_end(m->moe, f->layer, f->a->weight, m->y);
	return rc < 0 ? rc : 0;
}

int pst_ffn_forward(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	struct ffn f = ffn_of(m, weights, layer);
	struct pst_norm n = ffn_norm(&f);
	int rc = 0;

	pst_tile_norm(m->dev, &n, f.a->h2);
	if (pst_config_is_moe(&m->cfg, layer))
		rc = moe_forward(&f);
	else
		mlp_forward(&f);
	if (rc)
		return rc;
	pst_tile_sum(m->dev, pst_next_x(m, layer), f.a->x1, m->y, m->rows * m->cfg.hidden);
	return 0;
}

static void balance_sequence(void *ctx, size_t s)
{
	const struct ffn *f = ctx;
	const struct pst_model *m = f->m;
	size_t first = s * m->seq, e = m->cfg.experts, k = m->cfg.topk;

	m->seq_balance[s] = m->ops->balance(f->a->coef + s * e, f->a->expert + first * k,
					    f->a->score + first * e, m->seq, e, k,
					    (float)(m->alpha / m->batch));
}

double pst_ffn_balance(struct pst_model *m, uint32_t layer)
{
	struct ffn f = ffn_of(m, NULL, layer);
	double sum = 0;

	pst_device_for(m->dev, m->batch, balance_sequence, &f);
	for (uint32_t s = 0; s < m->batch; s++)
		sum += m->seq_balance[s];
	return sum;
}

/* d loss / d router logits of one sequence, whose rows share their coef. */
static void gate_sequence(void *ctx, size_t s)
{
	const struct ffn *f = ctx;
	const struct pst_model *m = f->m;
	const struct pst_config *c = &m->cfg;
	size_t first = s * m->seq, e = c->experts, k = c->topk;

	m->ops->gate_bwd(m->router + first * e, m->dweight + first * k, f->a->expert + first * k,
			 f->a->score + first * e, m->alpha != 0 ? f->a->coef + s * e : NULL, m->seq,
			 e, k, c->norm_topk, (float)c->routed_scale);
}

static int moe_backward(struct ffn *f, float *const *grads)
{
	struct pst_model *m = f->m;
	size_t hidden = m->cfg.hidden, e = m->cfg.experts;
	int rc;

	rc = pst_moe_backward_begin(m->moe, f->layer, f->a->weight, m->dx);
	if (rc < 0)
		return rc;
	mlp_backward(f, grads);
	rc = pst_moe_backward_end(m->moe, f->layer, m->dx, m->dh, m->dweight);
	if (rc < 0)
		return rc;
	pst_device_for(m->dev, m->batch, gate_sequence, f);
	pst_linear_dw(m->dev, router(f), m->rows, grads[f->at->router], m->router, e, f->a->h2,
		      hidden, false);
	pst_linear_dx(m->dev, router(f), m->rows, m->dh, hidden, m->router, e, true);
	return 0;
}

int pst_ffn_backward(struct pst_model *m, const float *const *weights, float *const *grads,
		     uint32_t layer)
{
	struct ffn f = ffn_of(m, weights, layer);
	struct pst_norm n = ffn_norm(&f);
	int rc = 0;

	if (pst_config_is_moe(&m->cfg, layer))
		rc = moe_backward(&f, grads);
	else
		mlp_backward(&f, grads);
	if (rc)
		return rc;
	pst_tile_norm_bwd(m->dev, &n, m->tmp, m->cfg.hidden, grads[f.at->ffn_norm], m->dx, m->dh);
	return 0;
}
