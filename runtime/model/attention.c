/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Multi-head latent attention (arXiv:2412.19437 eq. 1-11): keys and values come
 * from a normed latent of kv_lora floats per token, positions from qk_rope more
 * that all heads share.
 */
#include "runtime/model/net.h"
#include "runtime/model/rope.h"

#include <string.h>

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

/* Rotate the last qk_rope of @x's rows, or turn a gradient back. */
static void rotate(const struct pst_model *m, float *x, size_t ldx, size_t first, size_t rows,
		   bool inverse)
{
	size_t dim = m->cfg.qk_rope;

	if (!m->cfg.rope_interleave && !inverse)
		pst_rope_interleave(x, ldx, rows, dim, false);
	m->ops->rope(x, ldx, rows, dim, m->pos + first, m->cos_t, m->sin_t, inverse);
	if (!m->cfg.rope_interleave && inverse)
		pst_rope_interleave(x, ldx, rows, dim, true);
}

static void rotate_rows(void *ctx, size_t first, size_t rows)
{
	const struct layer *l = ctx;
	const struct pst_model *m = l->m;
	float *q = l->a->q + first * pst_ld_q(m) + m->cfg.qk_nope;

	for (uint32_t head = 0; head < m->cfg.heads; head++)
		rotate(m, q + head * pst_qk(m), pst_ld_q(m), first, rows, false);
	rotate(m, l->a->kva + first * pst_ld_kva(m) + m->cfg.kv_lora, pst_ld_kva(m), first, rows,
	       false);
}

static void project_q(struct layer *l)
{
	struct pst_model *m = l->m;
	const struct pst_config *c = &m->cfg;
	struct pst_norm n;

	if (!c->q_lora) {
		pst_linear(m->dev, q_linear(l), m->rows, l->a->q, pst_ld_q(m), l->a->h, c->hidden);
		return;
	}
	n = q_norm(l);
	pst_linear(m->dev, q_a_linear(l), m->rows, l->a->qa, c->q_lora, l->a->h, c->hidden);
	pst_tile_norm(m->dev, &n, l->a->qan);
	pst_linear(m->dev, q_linear(l), m->rows, l->a->q, pst_ld_q(m), l->a->qan, c->q_lora);
}

void pst_attention_forward(struct pst_model *m, const float *const *weights, uint32_t layer,
			   pst_attend_fn *attend)
{
	struct layer l = layer_of(m, weights, layer);
	struct pst_norm in = input_norm(&l), latent = kv_norm(&l);
	size_t hidden = m->cfg.hidden;

	pst_tile_norm(m->dev, &in, l.a->h);
	project_q(&l);
	pst_linear(m->dev, kv_a_linear(&l), m->rows, l.a->kva, pst_ld_kva(m), l.a->h, hidden);
	pst_tile_norm(m->dev, &latent, l.a->c);
	pst_tile_rows(m->dev, m->rows, rotate_rows, &l);
	attend(m, weights, layer);
	pst_linear(m->dev, o_linear(&l), m->rows, m->y, hidden, l.a->o, pst_ld_o(m));
	pst_tile_sum(m->dev, l.a->x1, l.a->x, m->y, m->rows * hidden);
}

/* k of each head: its own part out of kv, and the shared rotated part. */
static void assemble_rows(void *ctx, size_t first, size_t rows)
{
	const struct layer *l = ctx;
	const struct pst_model *m = l->m;
	size_t nope = m->cfg.qk_nope, rope = m->cfg.qk_rope;

	for (size_t r = first; r < first + rows; r++) {
		const float *kv = l->a->kv + r * pst_ld_kv(m);
		const float *shared = l->a->kva + r * pst_ld_kva(m) + m->cfg.kv_lora;
		float *k = l->a->k + r * pst_ld_q(m);

		for (uint32_t head = 0; head < m->cfg.heads; head++) {
			memcpy(k, kv, nope * sizeof(*k));
			memcpy(k + nope, shared, rope * sizeof(*k));
			kv += pst_head_kv(m);
			k += pst_qk(m);
		}
	}
}

/* Rows and columns where one head of one sequence begins. */
struct head {
	size_t row, q, kv, o, lse;
};

static struct head find_head(const struct pst_model *m, size_t task)
{
	size_t row = task / m->cfg.heads * m->seq, head = task % m->cfg.heads;

	return (struct head){
		.row = row,
		.q = row * pst_ld_q(m) + head * pst_qk(m),
		.kv = row * pst_ld_kv(m) + head * pst_head_kv(m),
		.o = row * pst_ld_o(m) + head * m->cfg.v_dim,
		.lse = head * m->rows + row,
	};
}

static void attend_head(void *ctx, size_t task)
{
	const struct layer *l = ctx;
	const struct pst_model *m = l->m;
	struct head h = find_head(m, task);

	m->ops->attn(l->a->o + h.o, pst_ld_o(m), l->a->lse + h.lse, l->a->q + h.q, pst_ld_q(m),
		     l->a->k + h.q, pst_ld_q(m), l->a->kv + h.kv + m->cfg.qk_nope, pst_ld_kv(m),
		     m->seq, m->seq, pst_qk(m), m->cfg.v_dim, m->scale);
}

void pst_attend_causal(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	struct layer l = layer_of(m, weights, layer);

	pst_linear(m->dev, kv_b_linear(&l), m->rows, l.a->kv, pst_ld_kv(m), l.a->c, m->cfg.kv_lora);
	pst_tile_rows(m->dev, m->rows, assemble_rows, &l);
	pst_device_for(m->dev, (size_t)m->batch * m->cfg.heads, attend_head, &l);
}

static void attend_head_backward(void *ctx, size_t task)
{
	const struct layer *l = ctx;
	const struct pst_model *m = l->m;
	struct head h = find_head(m, task);
	size_t v = h.kv + m->cfg.qk_nope;

	m->ops->attn_bwd(m->dq + h.q, pst_ld_q(m), m->dk + h.q, pst_ld_q(m), m->dkv + v,
			 pst_ld_kv(m), l->a->o + h.o, pst_ld_o(m), m->dout + h.o, pst_ld_o(m),
			 l->a->lse + h.lse, l->a->q + h.q, pst_ld_q(m), l->a->k + h.q, pst_ld_q(m),
			 l->a->kv + v, pst_ld_kv(m), m->seq, pst_qk(m), m->cfg.v_dim, m->scale);
}

/* dk of each head goes to dkv, and, summed over heads in order, to the shared part. */
static void disassemble_row(const struct pst_model *m, size_t r)
{
	size_t nope = m->cfg.qk_nope, rope = m->cfg.qk_rope;
	const float *dk = m->dk + r * pst_ld_q(m);
	float *dkv = m->dkv + r * pst_ld_kv(m);
	float *shared = m->dkva + r * pst_ld_kva(m) + m->cfg.kv_lora;

	for (uint32_t head = 0; head < m->cfg.heads; head++) {
		memcpy(dkv, dk, nope * sizeof(*dk));
		if (head)
			m->ops->add(shared, dk + nope, rope);
		else
			memcpy(shared, dk + nope, rope * sizeof(*dk));
		dk += pst_qk(m);
		dkv += pst_head_kv(m);
	}
}

static void unrotate_rows(void *ctx, size_t first, size_t rows)
{
	const struct layer *l = ctx;
	const struct pst_model *m = l->m;
	float *dq = m->dq + first * pst_ld_q(m) + m->cfg.qk_nope;

	for (uint32_t head = 0; head < m->cfg.heads; head++)
		rotate(m, dq + head * pst_qk(m), pst_ld_q(m), first, rows, true);
	for (size_t r = first; r < first + rows; r++)
		disassemble_row(m, r);
	rotate(m, m->dkva + first * pst_ld_kva(m) + m->cfg.kv_lora, pst_ld_kva(m), first, rows,
	       true);
}

static void latent_backward(struct layer *l, float *const *grads)
{
	struct pst_model *m = l->m;
	struct pst_norm n = kv_norm(l);
	size_t ld = pst_ld_kv(m), lora = m->cfg.kv_lora;

	pst_linear_dw(m->dev, kv_b_linear(l), m->rows, grads[l->at->kv_b], m->dkv, ld, l->a->c,
		      lora, false);
	pst_linear_dx(m->dev, kv_b_linear(l), m->rows, m->dc, lora, m->dkv, ld, false);
	pst_tile_norm_bwd(m->dev, &n, m->dkva, pst_ld_kva(m), grads[l->at->kv_a_norm], NULL, m->dc);
}

/* dh = d loss / d h through kv_a, then through q. */
static void projections_backward(struct layer *l, float *const *grads)
{
	struct pst_model *m = l->m;
	size_t hidden = m->cfg.hidden, lora = m->cfg.q_lora, ld = pst_ld_kva(m);
	struct pst_norm n;

	pst_linear_dw(m->dev, kv_a_linear(l), m->rows, grads[l->at->kv_a], m->dkva, ld, l->a->h,
		      hidden, false);
	pst_linear_dx(m->dev, kv_a_linear(l), m->rows, m->dh, hidden, m->dkva, ld, false);
	ld = pst_ld_q(m);
	if (!lora) {
		pst_linear_dw(m->dev, q_linear(l), m->rows, grads[l->at->q], m->dq, ld, l->a->h,
			      hidden, false);
		pst_linear_dx(m->dev, q_linear(l), m->rows, m->dh, hidden, m->dq, ld, true);
		return;
	}
	n = q_norm(l);
	pst_linear_dw(m->dev, q_linear(l), m->rows, grads[l->at->q_b], m->dq, ld, l->a->qan, lora,
		      false);
	pst_linear_dx(m->dev, q_linear(l), m->rows, m->dqan, lora, m->dq, ld, false);
	pst_tile_norm_bwd(m->dev, &n, m->dqa, lora, grads[l->at->q_a_norm], NULL, m->dqan);
	pst_linear_dw(m->dev, q_a_linear(l), m->rows, grads[l->at->q_a], m->dqa, lora, l->a->h,
		      hidden, false);
	pst_linear_dx(m->dev, q_a_linear(l), m->rows, m->dh, hidden, m->dqa, lora, true);
}

void pst_attention_backward(struct pst_model *m, const float *const *weights, float *const *grads,
			    uint32_t layer)
{
	struct layer l = layer_of(m, weights, layer);
	struct pst_norm in = input_norm(&l);
	size_t hidden = m->cfg.hidden;

	pst_linear_dw(m->dev, o_linear(&l), m->rows, grads[l.at->o], m->dx, hidden, l.a->o,
		      pst_ld_o(m), false);
	pst_linear_dx(m->dev, o_linear(&l), m->rows, m->dout, pst_ld_o(m), m->dx, hidden, false);
	pst_device_for(m->dev, (size_t)m->batch * m->cfg.heads, attend_head_backward, &l);
	pst_tile_rows(m->dev, m->rows, unrotate_rows, &l);
	latent_backward(&l, grads);
	projections_backward(&l, grads);
	pst_tile_norm_bwd(m->dev, &in, m->tmp, hidden, grads[l.at->attn_norm], m->dx, m->dh);
}
