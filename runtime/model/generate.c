/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generation over a cache of latents. Keys and values are never made: a head's
 * part of kv_b is multiplied into its query and its output instead (absorbed,
 * arXiv:2405.04434 section 2.1.2), so that all heads attend to the same cached
 * rows of kv_lora + qk_rope floats.
 */
#include "runtime/model/net.h"

#include <errno.h>
#include <string.h>

struct feed {
	struct pst_model *m;
	const float *const *w;
	uint32_t layer;
};

static float *cache_row(const struct pst_model *m, uint32_t layer, size_t row)
{
	return m->cache + ((size_t)layer * m->seq_max + row) * pst_ld_kva(m);
}

static void remember(const struct pst_model *m, uint32_t layer)
{
	const struct pst_act *a = pst_act(m, layer);
	size_t lora = m->cfg.kv_lora, ld = pst_ld_kva(m);

	for (size_t r = 0; r < m->rows; r++) {
		float *to = cache_row(m, layer, m->cached + r);

		memcpy(to, a->c + r * lora, lora * sizeof(*to));
		memcpy(to + lora, a->kva + r * ld + lora, m->cfg.qk_rope * sizeof(*to));
	}
}

/* The query of one head against latents: nope times its part of kv_b, and rope as it is. */
static float *absorb_query(const struct feed *f, size_t head, const float *kv_b)
{
	const struct pst_model *m = f->m;
	size_t lora = m->cfg.kv_lora, nope = m->cfg.qk_nope, ld = pst_ld_kva(m);
	const float *q = pst_act(m, f->layer)->q + head * pst_qk(m);
	float *to = m->absorbed + head * m->rows * ld;

	m->ops->gemm(0, 0, m->rows, lora, nope, q, pst_ld_q(m), kv_b, lora, to, ld, 0);
	for (size_t r = 0; r < m->rows; r++)
		memcpy(to + r * ld + lora, q + r * pst_ld_q(m) + nope,
		       m->cfg.qk_rope * sizeof(*to));
	return to;
}

static void attend_head(void *ctx, size_t head)
{
	const struct feed *f = ctx;
	const struct pst_model *m = f->m;
	const struct pst_act *a = pst_act(m, f->layer);
	size_t lora = m->cfg.kv_lora, ld = pst_ld_kva(m);
	const float *kv_b = f->w[m->layer_at[f->layer].kv_b] + head * pst_head_kv(m) * lora;
	const float *rows = cache_row(m, f->layer, 0);
	float *q = absorb_query(f, head, kv_b), *latent = m->latent + head * m->rows * lora;

	m->ops->attn(latent, lora, a->lse + head * m->rows, q, ld, rows, ld, rows, ld, m->rows,
		     m->cached + m->rows, ld, lora, m->scale);
	m->ops->gemm(0, 1, m->rows, m->cfg.v_dim, lora, latent, lora, kv_b + m->cfg.qk_nope * lora,
		     lora, a->o + head * m->cfg.v_dim, pst_ld_o(m), 0);
}

static void attend_cached(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	struct feed f = {m, weights, layer};

	remember(m, layer);
	pst_device_for(m->dev, m->cfg.heads, attend_head, &f);
}

static int feed_some(struct pst_model *m, const float *const *weights, const int32_t *tokens,
		     uint32_t n)
{
	int rc;

	m->rows = n;
	memcpy(m->tokens, tokens, n * sizeof(*tokens));
	for (uint32_t i = 0; i < n; i++)
		m->pos[i] = (int32_t)(m->cached + i);
	rc = pst_model_layers(m, weights, attend_cached);
	if (!rc)
		m->cached += n;
	return rc;
}

int pst_model_feed(struct pst_model *model, const float *const *weights, const int32_t *tokens,
		   uint32_t n, const float **logits)
{
	struct pst_model *m = model;
	uint32_t before = m->cached;

	if (n > m->seq_max - m->cached)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++)
		if (tokens[i] < 0 || (uint32_t)tokens[i] >= m->cfg.vocab)
			return -EINVAL;
	if (!n)
		return -EINVAL;
	m->ready = false;
	while (n) {
		uint32_t some = n < PST_FEED_ROWS ? n : PST_FEED_ROWS;
		int rc = feed_some(m, weights, tokens, some);

		if (rc) {
			m->cached = before;
			return rc;
		}
		tokens += some;
		n -= some;
	}
	pst_model_head(m, weights, m->rows - 1, 1);
	*logits = m->logits;
	return 0;
}

void pst_model_forget(struct pst_model *model)
{
	model->cached = 0;
}
