/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything lies in the model's one block. The same walk first counts
 * and then points, so the two cannot differ.
 */
#include "runtime/model/net.h"

struct plan {
	char *base;
	uint64_t used;
};

static void *take(struct plan *p, uint64_t count, uint64_t size)
{
	void *at = p->base ? p->base + p->used : NULL;

	p->used += (count * size + 63) / 64 * 64;
	return at;
}

static float *floats(struct plan *p, uint64_t count)
{
	return take(p, count, sizeof(float));
}

static uint64_t max_rows(const struct pst_model *m)
{
	return (uint64_t)m->batch_max * m->seq_max;
}

static size_t max_inter(const struct pst_model *m)
{
	size_t dense = m->cfg.dense_layers ? m->cfg.dense_inter : 0;
	size_t shared = (size_t)m->cfg.shared * m->cfg.moe_inter;

	return dense > shared ? dense : shared;
}

static void plan_attention(struct plan *p, const struct pst_model *m, struct pst_act *a)
{
	uint64_t rows = max_rows(m);
	const struct pst_config *c = &m->cfg;

	a->qa = floats(p, rows * c->q_lora);
	a->qan = floats(p, rows * c->q_lora);
	a->qa_rstd = floats(p, c->q_lora ? rows : 0);
	a->q = floats(p, rows * pst_ld_q(m));
	a->kva = floats(p, rows * pst_ld_kva(m));
	a->c = floats(p, rows * c->kv_lora);
	a->c_rstd = floats(p, rows);
	a->kv = floats(p, rows * pst_ld_kv(m));
	a->k = floats(p, rows * pst_ld_q(m));
	a->o = floats(p, rows * pst_ld_o(m));
	a->lse = floats(p, rows * c->heads);
}

static void plan_act(struct plan *p, const struct pst_model *m, struct pst_act *a, bool moe,
		     size_t kept)
{
	uint64_t rows = max_rows(m), hidden = m->cfg.hidden;

	a->x = floats(p, rows * hidden);
	a->x1 = floats(p, rows * hidden);
	a->h = floats(p, rows * hidden);
	a->h2 = floats(p, rows * hidden);
	a->rstd = floats(p, rows);
	a->rstd2 = floats(p, rows);
	plan_attention(p, m, a);
	a->kept = floats(p, rows * 2 * kept);
	if (!moe)
		return;
	a->score = floats(p, rows * m->cfg.experts);
	a->weight = floats(p, rows * m->cfg.topk);
	a->coef = floats(p, (uint64_t)m->batch_max * m->cfg.experts);
	a->expert = take(p, rows * m->cfg.topk, sizeof(int32_t));
}

static void plan_acts(struct plan *p, struct pst_model *m)
{
	struct pst_act unused;

	if (!m->train) {
		plan_act(p, m, p->base ? m->acts : &unused, true, 0);
		return;
	}
	for (uint32_t l = 0; l < m->cfg.layers; l++)
		plan_act(p, m, p->base ? &m->acts[l] : &unused, pst_config_is_moe(&m->cfg, l),
			 pst_layer_inter(&m->cfg, l));
}

static void plan_common(struct plan *p, struct pst_model *m)
{
	uint64_t rows = max_rows(m), hidden = m->cfg.hidden;

	m->cos_t = floats(p, (uint64_t)m->seq_max * (m->cfg.qk_rope / 2));
	m->sin_t = floats(p, (uint64_t)m->seq_max * (m->cfg.qk_rope / 2));
	m->pos = take(p, rows, sizeof(int32_t));
	m->tokens = take(p, rows, sizeof(int32_t));
	m->targets = take(p, rows, sizeof(int32_t));
	m->last = floats(p, rows * hidden);
	m->last_rstd = floats(p, rows);
	m->last_h = floats(p, rows * hidden);
	m->logits = floats(p, rows * m->cfg.vocab);
	m->xent_row = floats(p, pst_xent_spare(rows) * m->cfg.vocab);
	m->token_loss = floats(p, rows);
	m->seq_balance = floats(p, (uint64_t)m->cfg.layers * m->batch_max);
	m->y = floats(p, rows * hidden);
	m->mlp_scratch = floats(p, rows * max_inter(m) * (m->train ? 3 : 2));
	m->router = floats(p, rows * m->cfg.experts);
	m->added = floats(p, m->c->apart ? rows * hidden : 0);
}

static void plan_backward(struct plan *p, struct pst_model *m)
{
	uint64_t rows = max_rows(m), hidden = m->cfg.hidden;

	m->dx = floats(p, rows * hidden);
	m->dh = floats(p, rows * hidden);
	m->tmp = floats(p, rows * hidden);
	m->dq = floats(p, rows * pst_ld_q(m));
	m->dk = floats(p, rows * pst_ld_q(m));
	m->dkv = floats(p, rows * pst_ld_kv(m));
	m->dkva = floats(p, rows * pst_ld_kva(m));
	m->dc = floats(p, rows * m->cfg.kv_lora);
	m->dqan = floats(p, rows * m->cfg.q_lora);
	m->dqa = floats(p, rows * m->cfg.q_lora);
	m->dout = floats(p, rows * pst_ld_o(m));
	m->dweight = floats(p, rows * m->cfg.topk);
	m->delta = floats(p, m->c->apart ? rows * m->cfg.heads : 0);
}

static void plan_cache(struct plan *p, struct pst_model *m)
{
	uint64_t rows = m->seq_max < PST_FEED_ROWS ? m->seq_max : PST_FEED_ROWS;

	m->cache = floats(p, (uint64_t)m->cfg.layers * m->seq_max * pst_ld_kva(m));
	m->absorbed = floats(p, rows * m->cfg.heads * pst_ld_kva(m));
	m->latent = floats(p, rows * m->cfg.heads * m->cfg.kv_lora);
}

uint64_t pst_plan(struct pst_model *m, char *base)
{
	struct plan p = {.base = base};

	plan_acts(&p, m);
	plan_common(&p, m);
	if (m->train)
		plan_backward(&p, m);
	plan_cache(&p, m);
	return p.used;
}

uint64_t pst_plan_host(struct pst_model *m, char *base)
{
	uint64_t rows = max_rows(m), hidden = m->cfg.hidden, pairs = m->cfg.qk_rope / 2;
	struct plan p = {.base = base};

	m->host = (struct pst_model_host){
		.pos = take(&p, rows, sizeof(int32_t)),
		.tokens = take(&p, rows, sizeof(int32_t)),
		.targets = take(&p, rows, sizeof(int32_t)),
		.cos_t = floats(&p, m->seq_max * pairs),
		.sin_t = floats(&p, m->seq_max * pairs),
		.token_loss = floats(&p, rows),
		.seq_balance = floats(&p, (uint64_t)m->cfg.layers * m->batch_max),
		.x = floats(&p, rows * hidden),
		.y = floats(&p, rows * hidden),
		.weight = floats(&p, rows * m->cfg.topk),
		.dweight = floats(&p, m->train ? rows * m->cfg.topk : 0),
		.expert = take(&p, rows * m->cfg.topk, sizeof(int32_t)),
		.logits = floats(&p, m->cfg.vocab),
	};
	return p.used;
}

void pst_plan_shared(struct pst_model *m)
{
	m->host = (struct pst_model_host){.pos = m->pos,
					  .tokens = m->tokens,
					  .targets = m->targets,
					  .cos_t = m->cos_t,
					  .sin_t = m->sin_t,
					  .dweight = m->dweight};
}
