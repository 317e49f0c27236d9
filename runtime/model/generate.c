/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Generation over a cache of latents, kv_lora + qk_rope floats a token (arXiv:2405.04434 section
 * 2.1.2).
 */
#include "runtime/model/net.h"

#include <errno.h>
#include <string.h>

static void attend_cached(struct pst_model *m, const float *const *weights, uint32_t layer)
{
	struct pst_mla mla = pst_mla_of(m, layer);
	struct pst_mla_cache cache = {
		.rows = m->cache + (size_t)layer * m->seq_max * pst_ld_kva(m),
		.cached = m->cached,
		.c = pst_act(m, layer)->c,
		.kv_b = weights[m->layer_at[layer].kv_b],
		.absorbed = m->absorbed,
		.latent = m->latent,
	};

	m->op->attend_cache(m->c, &mla, &cache);
}

static int feed_some(struct pst_model *m, const float *const *weights, const int32_t *tokens,
		     uint32_t n)
{
	int rc;

	m->batch = 1;
	m->seq = n;
	m->rows = n;
	memcpy(m->host.tokens, tokens, n * sizeof(*tokens));
	for (uint32_t i = 0; i < n; i++)
		m->host.pos[i] = (int32_t)(m->cached + i);
	pst_apart_tokens(m);
	rc = pst_model_layers(m, weights, attend_cached);
	if (!rc)
		rc = m->op->wait(m->c);
	if (!rc)
		m->cached += n;
	return rc;
}

int pst_model_feed(struct pst_model *model, const float *const *weights, const int32_t *tokens,
		   uint32_t n, const float **logits)
{
	struct pst_model *m = model;
	uint32_t before = m->cached;
	const float *const *w;
	const float *found;
	int rc;

	if (n > m->seq_max - m->cached)
		return -ENOSPC;
	for (uint32_t i = 0; i < n; i++)
		if (tokens[i] < 0 || (uint32_t)tokens[i] >= m->cfg.vocab)
			return -EINVAL;
	if (!n)
		return -EINVAL;
	m->ready = false;
	w = pst_apart_weights(m, weights);
	while (n) {
		uint32_t some = n < PST_FEED_ROWS ? n : PST_FEED_ROWS;

		rc = feed_some(m, w, tokens, some);
		if (rc) {
			m->cached = before;
			return rc;
		}
		tokens += some;
		n -= some;
	}
	pst_model_head(m, w, m->rows - 1, 1);
	found = m->op->fetch(m->c, m->host.logits, m->logits, m->cfg.vocab * sizeof(*found));
	rc = m->op->wait(m->c);
	if (rc) {
		m->cached = before;
		return rc;
	}
	*logits = found;
	return 0;
}

void pst_model_forget(struct pst_model *model)
{
	model->cached = 0;
}
