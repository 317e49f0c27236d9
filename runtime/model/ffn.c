/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The feed-forward half of a layer: one dense network in the leading layers,
 * behind them the gate, the routed experts (moe/engine.h) and, while those are
 * being computed elsewhere, the shared expert (arXiv:2412.19437 eq. 12-20).
 */
#include "runtime/model/net.h"

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
		m->op->zero(m->c, m->y, m->rows * m->cfg.hidden);
		return;
	}
	job = mlp_job(f);
	job.y = m->y;
	m->op->mlp(m->c, &job, m->mlp_scratch);
}

/* dh = d loss / d h2 through the same, given dx. */
static void mlp_backward(const struct ffn *f, float *const *grads)
{
	struct pst_model *m = f->m;
	struct pst_mlp_job job;

	if (!pst_layer_has_mlp(&m->cfg, f->layer)) {
		m->op->zero(m->c, m->dh, m->rows * m->cfg.hidden);
		return;
	}
	job = mlp_job(f);
	job.have_kept = true;
	job.dy = m->dx;
	job.dx = m->dh;
	job.dgate = grads[f->at->gate];
	job.dup = grads[f->at->up];
	job.ddown = grads[f->at->down];
	m->op->mlp_bwd(m->c, &job, m->mlp_scratch);
}

static struct pst_gate gate_of(const struct ffn *f)
{
	const struct pst_model *m = f->m;
	const struct pst_config *c = &m->cfg;

	return (struct pst_gate){.batch = m->batch,
				 .seq = m->seq,
				 .experts = c->experts,
				 .topk = c->topk,
				 .n_group = c->n_group,
				 .topk_group = c->topk_group,
				 .norm = c->norm_topk,
				 .scale = (float)c->routed_scale,
				 .bias = f->w ? f->w[f->at->bias] : NULL,
				 .logit = m->router,
				 .expert = f->a->expert,
				 .weight = f->a->weight,
				 .score = f->a->score,
				 .coef = m->alpha != 0 ? f->a->coef : NULL};
}

static void count_load(const struct ffn *f, const int32_t *expert)
{
	uint32_t *load = f->m->load + (size_t)f->layer * f->m->cfg.experts;

	memset(load, 0, f->m->cfg.experts * sizeof(*load));
	for (size_t i = 0; i < f->m->rows * f->m->cfg.topk; i++)
		load[expert[i]]++;
}

/* What the routed experts are told, where the host has it. */
struct routed {
	const float *rows, *weight;
	const int32_t *expert;
};

static int fetch_routed(const struct ffn *f, const float *rows, struct routed *out)
{
	struct pst_model *m = f->m;
	size_t k = m->rows * m->cfg.topk;

	out->rows = m->op->fetch(m->c, m->host.x, rows, m->rows * m->cfg.hidden * sizeof(float));
	out->weight = m->op->fetch(m->c, m->host.weight, f->a->weight, k * sizeof(float));
	out->expert = m->op->fetch(m->c, m->host.expert, f->a->expert, k * sizeof(int32_t));
	return m->op->wait(m->c);
}

static int moe_forward(struct ffn *f)
{
	struct pst_model *m = f->m;
	struct pst_gate gate = gate_of(f);
	struct routed r;
	int rc;

	m->op->linear(m->c, router(f), m->rows, m->router, m->cfg.experts, f->a->h2, m->cfg.hidden);
	m->op->gate(m->c, &gate);
	rc = fetch_routed(f, f->a->h2, &r);
	if (!rc)
		rc = pst_moe_forward_begin(m->moe, f->layer, m->rows, r.rows, r.expert);
	if (rc < 0)
		return rc;
	mlp_forward(f);
	count_load(f, r.expert);
	rc = pst_moe_forward_end(m->moe, f->layer, r.weight, pst_apart_lend(m, m->y));
	if (rc < 0)
		return rc;
	pst_apart_take(m, m->y);
	return 0;
}

int pst_ffn_forward(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	struct ffn f = ffn_of(m, weights, layer);
	struct pst_norm n = ffn_norm(&f);
	int rc = 0;

	m->op->norm(m->c, &n, f.a->h2);
	if (pst_config_is_moe(&m->cfg, layer))
		rc = moe_forward(&f);
	else
		mlp_forward(&f);
	if (rc)
		return rc;
	m->op->sum(m->c, pst_next_x(m, layer), f.a->x1, m->y, m->rows * m->cfg.hidden);
	return 0;
}

void pst_ffn_balance(struct pst_model *m, uint32_t layer)
{
	struct ffn f = ffn_of(m, NULL, layer);
	struct pst_gate gate = gate_of(&f);

	m->op->balance(m->c, &gate, pst_balance_of(m, m->seq_balance, layer),
		       (float)(m->alpha / m->batch));
}

static int moe_backward(struct ffn *f, float *const *grads)
{
	struct pst_model *m = f->m;
	size_t hidden = m->cfg.hidden, e = m->cfg.experts;
	struct pst_gate gate = gate_of(f);
	struct routed r;
	int rc;

	rc = fetch_routed(f, m->dx, &r);
	if (!rc)
		rc = pst_moe_backward_begin(m->moe, f->layer, r.weight, r.rows);
	if (rc < 0)
		return rc;
	mlp_backward(f, grads);
	rc = pst_moe_backward_end(m->moe, f->layer, r.rows, pst_apart_lend(m, m->dh),
				  m->host.dweight);
	if (rc < 0)
		return rc;
	pst_apart_put(m, m->dweight, m->host.dweight, m->rows * m->cfg.topk * sizeof(float));
	pst_apart_take(m, m->dh);
	m->op->gate_bwd(m->c, &gate, m->dweight);
	m->op->linear_dw(m->c, router(f), m->rows, grads[f->at->router], m->router, e, f->a->h2,
			 hidden, false);
	m->op->linear_dx(m->c, router(f), m->rows, m->dh, hidden, m->router, e, true);
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
	m->op->norm_bwd(m->c, &n, m->tmp, m->cfg.hidden, grads[f.at->ffn_norm], m->dx, m->dh);
	return 0;
}
