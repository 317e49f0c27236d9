/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/model/net.h"
#include "runtime/model/rope.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS (1u << 24)

static void set_options(struct pst_model *m, const struct pst_model_options *o)
{
	*m = (struct pst_model){.cfg = *o->config,
				.dev = o->device,
				.pool = o->pool,
				.moe = o->moe,
				.batch_max = o->batch,
				.seq_max = o->seq,
				.alpha = o->balance_alpha,
				.train = o->train};
}

uint64_t pst_model_bytes(const struct pst_model_options *opts)
{
	struct pst_model m;

	set_options(&m, opts);
	return pst_plan(&m, NULL);
}

static int check_options(const struct pst_model_options *o, struct pst_error *err)
{
	if (o->size != sizeof(*o))
		return pst_fail(err, -EINVAL, "model: options of %zu bytes, this library has %zu",
				o->size, sizeof(*o));
	if (!o->batch || !o->seq || (uint64_t)o->batch * o->seq > MAX_TOKENS)
		return pst_fail(err, -EINVAL,
				"model: %u sequences of %u tokens asked for; 1 to %u tokens in all "
				"can be held",
				o->batch, o->seq, MAX_TOKENS);
	if (o->seq > o->config->max_positions)
		return pst_fail(err, -EINVAL,
				"model: sequences of %u tokens asked for, but the model knows only "
				"%u positions (max_position_embeddings)",
				o->seq, o->config->max_positions);
	return 0;
}

static int alloc_tables(struct pst_model *m)
{
	const struct pst_config *c = &m->cfg;

	m->layer_at = calloc(c->layers, sizeof(*m->layer_at));
	m->acts = calloc(m->train ? c->layers : 1, sizeof(*m->acts));
	m->load = calloc((size_t)c->layers * c->experts, sizeof(*m->load));
	if (!m->layer_at || !m->acts || !m->load)
		return -ENOMEM;
	pst_layout_model(c, &m->at);
	for (uint32_t l = 0; l < c->layers; l++)
		pst_layout_layer(c, l, &m->layer_at[l]);
	return 0;
}

int pst_model_create(const struct pst_model_options *opts, struct pst_model **out,
		     struct pst_error *err)
{
	struct pst_model *m;
	uint64_t bytes;
	int rc;

	rc = check_options(opts, err);
	if (rc)
		return rc;
	m = malloc(sizeof(*m));
	if (!m)
		return pst_fail(err, -ENOMEM, "model: no memory for its book-keeping");
	set_options(m, opts);
	rc = alloc_tables(m);
	if (rc) {
		pst_fail(err, rc, "model: no memory for its book-keeping");
		goto destroy;
	}
	bytes = pst_plan(m, NULL);
	m->block = pst_pool_alloc(m->pool, bytes, 0);
	if (!m->block) {
		rc = pst_fail(err, -ENOMEM,
			      "model: %llu MiB of activations do not fit into the pool; use a "
			      "smaller batch or shorter sequences",
			      (unsigned long long)(bytes >> 20) + 1);
		goto destroy;
	}
	pst_plan(m, m->block);
	m->ops = pst_device_ops(m->dev);
	m->scale = (float)pst_rope_softmax_scale(&m->cfg);
	pst_rope_tables(&m->cfg, m->seq_max, m->cos_t, m->sin_t);
	*out = m;
	return 0;

destroy:
	pst_model_destroy(m);
	return rc;
}

void pst_model_destroy(struct pst_model *model)
{
	if (!model)
		return;
	pst_pool_free(model->pool, model->block);
	free(model->load);
	free(model->acts);
	free(model->layer_at);
	free(model);
}

int pst_model_layers(struct pst_model *m, const float *const *weights, pst_attend_fn *attend)
{
	pst_tile_embed(m->dev, pst_act(m, 0)->x, weights[m->at.embed], m->tokens, m->rows,
		       m->cfg.hidden);
	for (uint32_t l = 0; l < m->cfg.layers; l++) {
		int rc;

		pst_attention_forward(m, weights, l, attend);
		rc = pst_ffn_forward(m, weights, l);
		if (rc)
			return rc;
	}
	return 0;
}

static struct pst_norm last_norm(const struct pst_model *m, const float *const *weights,
				 size_t first, size_t rows)
{
	return (struct pst_norm){.w = weights[m->at.norm],
				 .x = m->last + first * m->cfg.hidden,
				 .rstd = m->last_rstd,
				 .ldx = m->cfg.hidden,
				 .rows = rows,
				 .cols = m->cfg.hidden,
				 .eps = (float)m->cfg.rms_eps};
}

static struct pst_linear head(const struct pst_model *m, const float *const *weights)
{
	return (struct pst_linear){weights[m->at.head], m->cfg.hidden, m->cfg.vocab};
}

void pst_model_head(struct pst_model *m, const float *const *weights, size_t first, size_t rows)
{
	struct pst_norm n = last_norm(m, weights, first, rows);

	pst_tile_norm(m->dev, &n, m->last_h);
	pst_linear(m->dev, head(m, weights), rows, m->logits, m->cfg.vocab, m->last_h,
		   m->cfg.hidden);
}

/* Losses only: each row is spoiled in a copy, since the logits are still to be seen. */
static void loss_rows(void *ctx, size_t first, size_t rows)
{
	struct pst_model *m = ctx;
	size_t vocab = m->cfg.vocab;
	float *copy = m->xent_row + first / PST_TILE_ROWS * vocab;

	for (size_t r = first; r < first + rows; r++) {
		memcpy(copy, m->logits + r * vocab, vocab * sizeof(*copy));
		m->ops->xent(m->token_loss + r, copy, vocab, m->targets + r, 1, vocab, 1);
	}
}

static double cross_entropy(struct pst_model *m)
{
	double sum = 0;

	m->counted = 0;
	for (size_t r = 0; r < m->rows; r++)
		m->counted += m->targets[r] >= 0;
	if (!m->counted)
		return 0;
	pst_tile_rows(m->dev, m->rows, loss_rows, m);
	for (size_t r = 0; r < m->rows; r++)
		sum += m->targets[r] >= 0 ? m->token_loss[r] : 0;
	return sum / (double)m->counted;
}

static double balance(struct pst_model *m)
{
	double sum = 0;

	if (m->alpha == 0 || !m->train)
		return 0;
	for (uint32_t l = m->cfg.dense_layers; l < m->cfg.layers; l++)
		sum += pst_ffn_balance(m, l);
	return sum;
}

static bool in_vocab(const struct pst_model *m, const int32_t *tokens, const int32_t *targets,
		     size_t rows)
{
	for (size_t r = 0; r < rows; r++) {
		if (tokens[r] < 0 || (uint32_t)tokens[r] >= m->cfg.vocab)
			return false;
		if (targets && targets[r] >= 0 && (uint32_t)targets[r] >= m->cfg.vocab)
			return false;
	}
	return true;
}

static void set_batch(struct pst_model *m, uint32_t batch, uint32_t seq, const int32_t *tokens,
		      const int32_t *targets)
{
	m->batch = batch;
	m->seq = seq;
	m->rows = (size_t)batch * seq;
	memcpy(m->tokens, tokens, m->rows * sizeof(*tokens));
	for (size_t r = 0; r < m->rows; r++) {
		m->pos[r] = (int32_t)(r % seq);
		m->targets[r] = targets ? targets[r] : -1;
	}
}

int pst_model_forward(struct pst_model *model, const float *const *weights, uint32_t batch,
		      uint32_t seq, const int32_t *tokens, const int32_t *targets,
		      struct pst_model_loss *loss, float *token_loss)
{
	struct pst_model *m = model;
	struct pst_model_loss found;
	int rc;

	if (!batch || !seq || batch > m->batch_max || seq > m->seq_max ||
	    !in_vocab(m, tokens, targets, (size_t)batch * seq))
		return -EINVAL;
	m->ready = false;
	set_batch(m, batch, seq, tokens, targets);
	rc = pst_model_layers(m, weights, pst_attend_causal);
	if (rc)
		return rc;
	pst_model_head(m, weights, 0, m->rows);
	found.cross_entropy = cross_entropy(m);
	found.balance = balance(m);
	if (loss)
		*loss = found;
	for (size_t r = 0; token_loss && r < m->rows; r++)
		token_loss[r] = m->targets[r] >= 0 ? m->token_loss[r] : 0;
	m->ready = m->train;
	return 0;
}

const float *pst_model_logits(const struct pst_model *model)
{
	return model->logits;
}

const uint32_t *pst_model_load(const struct pst_model *model, uint32_t layer)
{
	return model->load + (size_t)layer * model->cfg.experts;
}

static void dlogit_rows(void *ctx, size_t first, size_t rows)
{
	struct pst_model *m = ctx;
	float scale = m->counted ? (float)(1 / (double)m->counted) : 0;

	m->ops->xent(m->token_loss + first, m->logits + first * m->cfg.vocab, m->cfg.vocab,
		     m->targets + first, rows, m->cfg.vocab, scale);
}

/* A tied head adds to the gradient of the embedding, so it has to come behind that. */
static void head_dw(struct pst_model *m, const float *const *weights, float *const *grads)
{
	pst_linear_dw(m->dev, head(m, weights), m->rows, grads[m->at.head], m->logits, m->cfg.vocab,
		      m->last_h, m->cfg.hidden, m->cfg.tie_embeddings);
}

static void head_backward(struct pst_model *m, const float *const *weights, float *const *grads)
{
	struct pst_norm n = last_norm(m, weights, 0, m->rows);

	pst_tile_rows(m->dev, m->rows, dlogit_rows, m);
	pst_linear_dx(m->dev, head(m, weights), m->rows, m->dh, m->cfg.hidden, m->logits,
		      m->cfg.vocab, false);
	if (!m->cfg.tie_embeddings)
		head_dw(m, weights, grads);
	pst_tile_norm_bwd(m->dev, &n, m->dx, m->cfg.hidden, grads[m->at.norm], NULL, m->dh);
}

int pst_model_backward(struct pst_model *model, const float *const *weights, float *const *grads)
{
	struct pst_model *m = model;

	if (!m->ready)
		return -EINVAL;
	m->ready = false;
	head_backward(m, weights, grads);
	for (uint32_t l = m->cfg.layers; l-- > 0;) {
		int rc = pst_ffn_backward(m, weights, grads, l);

		if (rc)
			return rc;
		pst_attention_backward(m, weights, grads, l);
	}
	pst_tile_embed_bwd(m->dev, grads[m->at.embed], m->dx, m->tokens, m->rows, m->cfg.vocab,
			   m->cfg.hidden);
	if (m->cfg.tie_embeddings)
		head_dw(m, weights, grads);
	return 0;
}
