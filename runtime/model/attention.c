/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multi-head latent attention (arXiv:2412.19437 eq. 1-11): keys and values come
 * from a normed latent of kv_lora floats per token, positions from qk_rope more
 * that all heads share.
 */
#include "runtime/model/net.h"
#include "runtime/model/rope.h"

_Static_assert(PST_ROPE_MAX_DIM <= PST_COMPUTE_MAX_ROPE, "positions of a compute");

struct layer {
	struct pst_model *m;
	const float *const *w;
	const struct pst_layer_params *at;
	struct pst_act *a;
};

static struct layer layer_of(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	return (struct layer){m, weights, &m->layer_at[layer], pst_act(m, layer)};
}

static struct pst_norm input_norm(const struct layer *l)
{
	const struct pst_config *c = &l->m->cfg;

	return (struct pst_norm){.w = l->w[l->at->attn_norm],
				 .x = l->a->x,
				 .rstd = l->a->rstd,
				 .ldx = c->hidden,
				 .rows = l->m->rows,
				 .cols = c->hidden,
				 .eps = (float)c->rms_eps};
}

static struct pst_norm q_norm(const struct layer *l)
{
	size_t cols = l->m->cfg.q_lora;

	return (struct pst_norm){.w = l->w[l->at->q_a_norm],
				 .x = l->a->qa,
				 .rstd = l->a->qa_rstd,
				 .ldx = cols,
				 .rows = l->m->rows,
				 .cols = cols,
				 .eps = PST_LATENT_EPS};
}

static struct pst_norm kv_norm(const struct layer *l)
{
	return (struct pst_norm){.w = l->w[l->at->kv_a_norm],
				 .x = l->a->kva,
				 .rstd = l->a->c_rstd,
				 .ldx = pst_ld_kva(l->m),
				 .rows = l->m->rows,
				 .cols = l->m->cfg.kv_lora,
				 .eps = PST_LATENT_EPS};
}

static struct pst_linear linear(const struct layer *l, size_t index, size_t in, size_t out)
{
	return (struct pst_linear){l->w[index], in, out};
}

static struct pst_linear q_linear(const struct layer *l)
{
	const struct pst_config *c = &l->m->cfg;

	return linear(l, c->q_lora ? l->at->q_b : l->at->q, c->q_lora ? c->q_lora : c->hidden,
		      pst_ld_q(l->m));
}

static struct pst_linear q_a_linear(const struct layer *l)
{
	return linear(l, l->at->q_a, l->m->cfg.hidden, l->m->cfg.q_lora);
}

static struct pst_linear kv_a_linear(const struct layer *l)
{
	return linear(l, l->at->kv_a, l->m->cfg.hidden, pst_ld_kva(l->m));
}

static struct pst_linear kv_b_linear(const struct layer *l)
{
	return linear(l, l->at->kv_b, l->m->cfg.kv_lora, pst_ld_kv(l->m));
}

static struct pst_linear o_linear(const struct layer *l)
{
	return linear(l, l->at->o, pst_ld_o(l->m), l->m->cfg.hidden);
}

struct pst_mla pst_mla_of(const struct pst_model *m, uint32_t layer)
{
	const struct pst_act *a = pst_act(m, layer);
	const struct pst_config *c = &m->cfg;

	return (struct pst_mla){.batch = m->batch,
				.seq = m->seq,
				.heads = c->heads,
				.nope = c->qk_nope,
				.rope = c->qk_rope,
				.v = c->v_dim,
				.lora = c->kv_lora,
				.interleave = c->rope_interleave,
				.scale = m->scale,
				.pos = m->pos,
				.cos_t = m->cos_t,
				.sin_t = m->sin_t,
				.q = a->q,
				.kva = a->kva,
				.kv = a->kv,
				.k = a->k,
				.o = a->o,
				.lse = a->lse};
}

static void project_q(struct layer *l)
{
	struct pst_model *m = l->m;
	const struct pst_config *c = &m->cfg;
	struct pst_norm n;

	if (!c->q_lora) {
		m->op->linear(m->c, q_linear(l), m->rows, l->a->q, pst_ld_q(m), l->a->h, c->hidden);
		return;
	}
	n = q_norm(l);
	m->op->linear(m->c, q_a_linear(l), m->rows, l->a->qa, c->q_lora, l->a->h, c->hidden);
	m->op->norm(m->c, &n, l->a->qan);
	m->op->linear(m->c, q_linear(l), m->rows, l->a->q, pst_ld_q(m), l->a->qan, c->q_lora);
}

void pst_attention_forward(struct pst_model *m, const float *const *weights, uint32_t layer,
			   pst_attend_fn *attend)
{
	struct layer l = layer_of(m, weights, layer);
	struct pst_norm in = input_norm(&l), latent = kv_norm(&l);
	struct pst_mla mla = pst_mla_of(m, layer);
	size_t hidden = m->cfg.hidden;

	m->op->norm(m->c, &in, l.a->h);
	project_q(&l);
	m->op->linear(m->c, kv_a_linear(&l), m->rows, l.a->kva, pst_ld_kva(m), l.a->h, hidden);
	m->op->norm(m->c, &latent, l.a->c);
	m->op->rotate(m->c, &mla);
	attend(m, weights, layer);
	m->op->linear(m->c, o_linear(&l), m->rows, m->y, hidden, l.a->o, pst_ld_o(m));
	m->op->sum(m->c, l.a->x1, l.a->x, m->y, m->rows * hidden);
}

void pst_attend_causal(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	struct layer l = layer_of(m, weights, layer);
	struct pst_mla mla = pst_mla_of(m, layer);

	m->op->linear(m->c, kv_b_linear(&l), m->rows, l.a->kv, pst_ld_kv(m), l.a->c,
		      m->cfg.kv_lora);
	m->op->attend(m->c, &mla);
}

static void latent_backward(struct layer *l, float *const *grads)
{
	struct pst_model *m = l->m;
	struct pst_norm n = kv_norm(l);
	size_t ld = pst_ld_kv(m), lora = m->cfg.kv_lora;

	m->op->linear_dw(m->c, kv_b_linear(l), m->rows, grads[l->at->kv_b], m->dkv, ld, l->a->c,
			 lora, false);
	m->op->linear_dx(m->c, kv_b_linear(l), m->rows, m->dc, lora, m->dkv, ld, false);
	m->op->norm_bwd(m->c, &n, m->dkva, pst_ld_kva(m), grads[l->at->kv_a_norm], NULL, m->dc);
}

/* dh = d loss / d h through kv_a, then through q. */
static void projections_backward(struct layer *l, float *const *grads)
{
	struct pst_model *m = l->m;
	size_t hidden = m->cfg.hidden, lora = m->cfg.q_lora, ld = pst_ld_kva(m);
	struct pst_norm n;

	m->op->linear_dw(m->c, kv_a_linear(l), m->rows, grads[l->at->kv_a], m->dkva, ld, l->a->h,
			 hidden, false);
	m->op->linear_dx(m->c, kv_a_linear(l), m->rows, m->dh, hidden, m->dkva, ld, false);
	ld = pst_ld_q(m);
	if (!lora) {
		m->op->linear_dw(m->c, q_linear(l), m->rows, grads[l->at->q], m->dq, ld, l->a->h,
				 hidden, false);
		m->op->linear_dx(m->c, q_linear(l), m->rows, m->dh, hidden, m->dq, ld, true);
		return;
	}
	n = q_norm(l);
	m->op->linear_dw(m->c, q_linear(l), m->rows, grads[l->at->q_b], m->dq, ld, l->a->qan, lora,
			 false);
	m->op->linear_dx(m->c, q_linear(l), m->rows, m->dqan, lora, m->dq, ld, false);
	m->op->norm_bwd(m->c, &n, m->dqa, lora, grads[l->at->q_a_norm], NULL, m->dqan);
	m->op->linear_dw(m->c, q_a_linear(l), m->rows, grads[l->at->q_a], m->dqa, lora, l->a->h,
			 hidden, false);
	m->op->linear_dx(m->c, q_a_linear(l), m->rows, m->dh, hidden, m->dqa, lora, true);
}

void pst_attention_backward(struct pst_model *m, const float *const *weights, float *const *grads,
			    uint32_t layer)
{
	struct layer l = layer_of(m, weights, layer);
	struct pst_norm in = input_norm(&l);
	struct pst_mla mla = pst_mla_of(m, layer);
	struct pst_mla_grad grad = {m->dout, m->dq, m->dk, m->dkv, m->dkva, m->delta};
	size_t hidden = m->cfg.hidden;

	m->op->linear_dw(m->c, o_linear(&l), m->rows, grads[l.at->o], m->dx, hidden, l.a->o,
			 pst_ld_o(m), false);
	m->op->linear_dx(m->c, o_linear(&l), m->rows, m->dout, pst_ld_o(m), m->dx, hidden, false);
	m->op->attend_bwd(m->c, &mla, &grad);
	latent_backward(&l, grads);
	projections_backward(&l, grads);
	m->op->norm_bwd(m->c, &in, m->tmp, hidden, grads[l.at->attn_norm], m->dx, m->dh);
}
