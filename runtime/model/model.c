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
				.pool = o->pool,
				.moe = o->moe,
				.batch_max = o->batch,
				.seq_max = o->seq,
				.alpha = o->balance_alpha,
				.train = o->train};
	pst_compute_cpu_init(&m->cores, o->device);
	m->c = o->compute ? o->compute : &m->cores.base;
	m->op = m->c->op;
}

uint64_t pst_model_bytes(const struct pst_model_options *opts)
{
	struct pst_model m;

	set_options(&m, opts);
	return m.c->apart ? pst_plan_host(&m, NULL) : pst_plan(&m, NULL);
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

static int no_room(uint64_t bytes, struct pst_error *err)
{
	return pst_fail(err, -ENOMEM,
			"model: %llu MiB of activations do not fit into the pool; use a smaller "
			"batch or shorter sequences",
			(unsigned long long)(bytes >> 20) + 1);
}

static int alloc_shared(struct pst_model *m, struct pst_error *err)
{
	uint64_t bytes = pst_plan(m, NULL);

	m->block = pst_pool_alloc(m->pool, bytes, 0);
	if (!m->block)
		return no_room(bytes, err);
	pst_plan(m, m->block);
	pst_plan_shared(m);
	return 0;
}

static int alloc_apart(struct pst_model *m, struct pst_error *err)
{
	uint64_t bytes = pst_plan_host(m, NULL);
	void *block;
	int rc;

	m->host_block = pst_pool_alloc(m->pool, bytes, 0);
	if (!m->host_block)
		return no_room(bytes, err);
	pst_plan_host(m, m->host_block);
	rc = pst_apart_alloc(m, pst_plan(m, NULL), "activations", &block, err);
	if (rc)
		return rc;
	m->block = block;
	pst_plan(m, block);
	return pst_apart_create(m, err);
}

static void set_rope(struct pst_model *m)
{
	size_t bytes = (size_t)m->seq_max * (m->cfg.qk_rope / 2) * sizeof(float);

	pst_rope_tables(&m->cfg, m->seq_max, m->host.cos_t, m->host.sin_t);
	m->op->put(m->c, m->cos_t, m->host.cos_t, bytes);
	m->op->put(m->c, m->sin_t, m->host.sin_t, bytes);
}

int pst_model_create(const struct pst_model_options *opts, struct pst_model **out,
		     struct pst_error *err)
{
	struct pst_model *m;
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
	rc = m->c->apart ? alloc_apart(m, err) : alloc_shared(m, err);
	if (rc)
		goto destroy;
	m->scale = (float)pst_rope_softmax_scale(&m->cfg);
	set_rope(m);
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
	pst_apart_destroy(model);
	if (!model->c->apart)
		pst_pool_free(model->pool, model->block);
	else if (model->block)
		model->op->free(model->c, model->block);
	pst_pool_free(model->pool, model->host_block);
	free(model->load);
	free(model->acts);
	free(model->layer_at);
	free(model);
}

int pst_model_layers(struct pst_model *m, const float *const *weights, pst_attend_fn *attend)
{
	pst_apart_need(m, 0);
	m->op->embed(m->c, pst_act(m, 0)->x, weights[m->at.embed], m->tokens, m->rows,
		     m->cfg.hidden);
	for (uint32_t l = 0; l < m->cfg.layers; l++) {
		int rc;

		pst_apart_need(m, 1 + l);
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

	pst_apart_need(m, 1 + m->cfg.layers);
	m->op->norm(m->c, &n, m->last_h);
	m->op->linear(m->c, head(m, weights), rows, m->logits, m->cfg.vocab, m->last_h,
		      m->cfg.hidden);
}

static struct pst_xent xent_of(const struct pst_model *m)
{
	return (struct pst_xent){.rows = m->rows,
				 .vocab = m->cfg.vocab,
				 .logit = m->logits,
				 .spare = m->xent_row,
				 .target = m->targets,
				 .loss = m->token_loss};
}

static bool balanced(const struct pst_model *m)
{
	return m->alpha != 0 && m->train;
}

static void compute_loss(struct pst_model *m)
{
	struct pst_xent x = xent_of(m);

	m->counted = 0;
	for (size_t r = 0; r < m->rows; r++)
		m->counted += m->host.targets[r] >= 0;
	if (m->counted)
		m->op->loss(m->c, &x);
	for (uint32_t l = m->cfg.dense_layers; balanced(m) && l < m->cfg.layers; l++)
		pst_ffn_balance(m, l);
}

static double cross_entropy(const struct pst_model *m, const float *each)
{
	double sum = 0;

	if (!m->counted)
		return 0;
	for (size_t r = 0; r < m->rows; r++)
		sum += m->host.targets[r] >= 0 ? each[r] : 0;
	return sum / (double)m->counted;
}

static double balance(const struct pst_model *m, float *of_sequences)
{
	double sum = 0;

	for (uint32_t l = m->cfg.dense_layers; balanced(m) && l < m->cfg.layers; l++) {
		const float *each = pst_balance_of(m, of_sequences, l);
		double layer = 0;

		for (uint32_t s = 0; s < m->batch; s++)
			layer += each[s];
		sum += layer;
	}
	return sum;
}

/* *each: the loss of each token that has a target. */
static int find_loss(struct pst_model *m, struct pst_model_loss *out, const float **each)
{
	const void *sequences;
	int rc;

	compute_loss(m);
	*each = m->op->fetch(m->c, m->host.token_loss, m->token_loss, m->rows * sizeof(float));
	sequences = m->op->fetch(m->c, m->host.seq_balance, m->seq_balance,
				 (size_t)m->cfg.layers * m->batch_max * sizeof(float));
	rc = m->op->wait(m->c);
	if (rc)
		return rc;
	out->cross_entropy = cross_entropy(m, *each);
	out->balance = balance(m, (float *)(uintptr_t)sequences);
	return 0;
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
	memcpy(m->host.tokens, tokens, m->rows * sizeof(*tokens));
	for (size_t r = 0; r < m->rows; r++) {
		m->host.pos[r] = (int32_t)(r % seq);
		m->host.targets[r] = targets ? targets[r] : -1;
	}
	pst_apart_tokens(m);
}

int pst_model_forward(struct pst_model *model, const float *const *weights, uint32_t batch,
		      uint32_t seq, const int32_t *tokens, const int32_t *targets,
		      struct pst_model_loss *loss, float *token_loss)
{
	struct pst_model *m = model;
	struct pst_model_loss found;
	const float *const *w;
	const int32_t *target;
	const float *each;
	int rc;

	if (!batch || !seq || batch > m->batch_max || seq > m->seq_max ||
	    !in_vocab(m, tokens, targets, (size_t)batch * seq))
		return -EINVAL;
	m->ready = false;
	set_batch(m, batch, seq, tokens, targets);
	w = pst_apart_weights(m, weights);
	rc = pst_model_layers(m, w, pst_attend_causal);
	if (rc)
		return rc;
	pst_model_head(m, w, 0, m->rows);
	rc = find_loss(m, &found, &each);
	if (rc)
		return rc;
	if (loss)
		*loss = found;
	target = m->host.targets;
	for (size_t r = 0; token_loss && r < m->rows; r++)
		token_loss[r] = target[r] >= 0 ? each[r] : 0;
	m->ready = m->train;
	return 0;
}

const float *pst_model_logits(const struct pst_model *model)
{
	return model->c->apart ? NULL : model->logits;
}

const struct pst_error *pst_model_error(const struct pst_model *model)
{
	return &model->c->err;
}

const uint32_t *pst_model_load(const struct pst_model *model, uint32_t layer)
{
	return model->load + (size_t)layer * model->cfg.experts;
}

/* A tied head adds to the gradient of the embedding, so it has to come behind that. */
static void head_dw(struct pst_model *m, const float *const *weights, float *const *grads)
{
	m->op->linear_dw(m->c, head(m, weights), m->rows, grads[m->at.head], m->logits,
			 m->cfg.vocab, m->last_h, m->cfg.hidden, m->cfg.tie_embeddings);
}

static void head_backward(struct pst_model *m, const float *const *weights, float *const *grads)
{
	struct pst_norm n = last_norm(m, weights, 0, m->rows);
	struct pst_xent x = xent_of(m);

	m->op->loss_bwd(m->c, &x, m->counted ? (float)(1 / (double)m->counted) : 0);
	m->op->linear_dx(m->c, head(m, weights), m->rows, m->dh, m->cfg.hidden, m->logits,
			 m->cfg.vocab, false);
	if (!m->cfg.tie_embeddings)
		head_dw(m, weights, grads);
	m->op->norm_bwd(m->c, &n, m->dx, m->cfg.hidden, grads[m->at.norm], NULL, m->dh);
}

int pst_model_backward(struct pst_model *model, const float *const *weights, float *const *grads)
{
	struct pst_model *m = model;
	const float *const *w;
	float *const *g;

	if (!m->ready)
		return -EINVAL;
	m->ready = false;
	w = pst_apart_same(m, weights);
	g = pst_apart_grads(m, grads);
	head_backward(m, w, g);
	if (!m->cfg.tie_embeddings)
		pst_apart_send(m, grads, 1 + m->cfg.layers);
	for (uint32_t l = m->cfg.layers; l-- > 0;) {
		int rc;

		pst_apart_room(m, l);
		rc = pst_ffn_backward(m, w, g, l);
		if (rc)
			return rc;
		pst_attention_backward(m, w, g, l);
		pst_apart_send(m, grads, 1 + l);
	}
	m->op->embed_bwd(m->c, g[m->at.embed], m->dx, m->tokens, m->rows, m->cfg.vocab,
			 m->cfg.hidden);
	if (m->cfg.tie_embeddings) {
		head_dw(m, w, g);
		pst_apart_send(m, grads, 1 + m->cfg.layers);
	}
	pst_apart_send(m, grads, 0);
	return m->op->wait(m->c);
}
