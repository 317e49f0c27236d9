/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What crosses over where a model's tensors lie in memory apart from the host's.
 *
 * Weights come group by group, in the order in which they are needed, while what has come is
 * computed with; they stay for as long as their version does. Gradients have two places for
 * layers, used in turn: one goes home while the next layer is computed into the other.
 */
#include "runtime/model/net.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_VERSION UINT64_MAX

/* A parameter of the engine. */
struct dense {
	size_t param;
	uint64_t bytes;
	bool trained; /* it has a gradient */
};

struct pst_apart {
	struct dense *dense; /* in the order of params.h, so by groups */
	size_t *first;	     /* [groups + 1]: of a group */
	uint32_t groups;
	const float **w; /* by parameter, where they are computed with */
	float **g;
	void *weights, *grads; /* blocks of the compute */
	uint64_t version, have;
};

/* Marks of puts behind those of groups. */
static uint32_t mark_of_tokens(const struct pst_model *m)
{
	return m->apart->groups;
}

static uint32_t mark_of_added(const struct pst_model *m)
{
	return m->apart->groups + 1;
}

static uint64_t align(uint64_t bytes)
{
	return (bytes + 255) / 256 * 256;
}

static uint64_t bytes_of(const struct pst_param *p)
{
	return p->shape[0] * (p->ndim == 2 ? p->shape[1] : 1) * sizeof(float);
}

static uint32_t group_of(const struct pst_model *m, const struct pst_param *p, size_t i)
{
	if (p->layer >= 0)
		return 1 + (uint32_t)p->layer;
	return i == m->at.embed ? 0 : 1 + m->cfg.layers;
}

static int list_dense(const struct pst_model *m, struct pst_apart *a, const struct pst_param *param,
		      size_t count)
{
	uint32_t group = 0;
	size_t n = 0;

	a->dense = calloc(count, sizeof(*a->dense));
	a->first = calloc(a->groups + 1, sizeof(*a->first));
	a->w = calloc(count, sizeof(*a->w));
	a->g = calloc(count, sizeof(*a->g));
	if (!a->dense || !a->first || !a->w || !a->g)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (param[i].expert >= 0)
			continue;
		while (group < group_of(m, &param[i], i))
			a->first[++group] = n;
		a->dense[n++] = (struct dense){.param = i,
					       .bytes = bytes_of(&param[i]),
					       .trained = param[i].kind != PST_PARAM_BIAS};
	}
	while (group < a->groups)
		a->first[++group] = n;
	return 0;
}

/* Point the weights into @base; NULL: only count. */
static uint64_t place_weights(struct pst_apart *a, char *base)
{
	uint64_t at = 0;

	for (size_t i = 0; i < a->first[a->groups]; i++) {
		if (base)
			a->w[a->dense[i].param] = (float *)(base + at);
		at += align(a->dense[i].bytes);
	}
	return at;
}

static uint64_t place_group(struct pst_apart *a, uint32_t group, char *base)
{
	uint64_t at = 0;

	for (size_t i = a->first[group]; i < a->first[group + 1]; i++) {
		if (!a->dense[i].trained)
			continue;
		if (base)
			a->g[a->dense[i].param] = (float *)(base + at);
		at += align(a->dense[i].bytes);
	}
	return at;
}

/* The two places, then what is before and behind the layers. */
static uint64_t place_grads(struct pst_apart *a, char *base)
{
	uint32_t last = a->groups - 1;
	uint64_t layer = 0, at;

	for (uint32_t g = 1; g < last; g++) {
		uint64_t bytes = place_group(a, g, NULL);

		layer = bytes > layer ? bytes : layer;
	}
	for (uint32_t g = 1; g < last && base; g++)
		place_group(a, g, base + g % 2 * layer);
	at = 2 * layer;
	at += place_group(a, 0, base ? base + at : NULL);
	return at + place_group(a, last, base ? base + at : NULL);
}

int pst_apart_alloc(struct pst_model *m, uint64_t bytes, const char *what, void **out,
		    struct pst_error *err)
{
	struct pst_error why = {0};
	int rc = m->op->alloc(m->c, bytes, out, &why);

	if (rc != -ENOMEM)
		return rc ? pst_fail(err, rc, "%s", why.text) : 0;
	return pst_fail(err, rc,
			"model: %llu MiB of %s do not fit on the GPU beside what is there; use a "
			"smaller batch or shorter sequences, or have the engine compute on the "
			"cores (--device cuda:N,cpu)",
			(unsigned long long)(bytes >> 20) + 1, what);
}

static int alloc(struct pst_model *m, struct pst_error *err)
{
	struct pst_apart *a = m->apart;
	int rc = pst_apart_alloc(m, place_weights(a, NULL), "weights", &a->weights, err);

	if (!rc)
		place_weights(a, a->weights);
	if (!rc && m->train)
		rc = pst_apart_alloc(m, place_grads(a, NULL), "gradients", &a->grads, err);
	if (!rc && m->train)
		place_grads(a, a->grads);
	return rc;
}

int pst_apart_create(struct pst_model *m, struct pst_error *err)
{
	struct pst_apart *a = calloc(1, sizeof(*a));
	struct pst_param *param;
	size_t count;
	int rc;

	if (!a || pst_params_list(&m->cfg, &param, &count) < 0) {
		free(a);
		return pst_fail(err, -ENOMEM, "model: no memory for its book-keeping");
	}
	m->apart = a;
	a->groups = m->cfg.layers + 2;
	a->version = a->have = NO_VERSION;
	rc = list_dense(m, a, param, count);
	free(param);
	if (rc)
		return pst_fail(err, rc, "model: no memory for its book-keeping");
	return alloc(m, err);
}

void pst_apart_destroy(struct pst_model *m)
{
	struct pst_apart *a = m->apart;

	if (!a)
		return;
	/* what is under way ends, or the compute is at its end */
	m->op->wait(m->c);
	if (a->grads)
		m->op->free(m->c, a->grads);
	if (a->weights)
		m->op->free(m->c, a->weights);
	free(a->g);
	free(a->w);
	free(a->first);
	free(a->dense);
	free(a);
	m->apart = NULL;
}

void pst_model_version(struct pst_model *model, uint64_t version)
{
	if (model->apart)
		model->apart->version = version;
}

const float *const *pst_apart_weights(struct pst_model *m, const float *const *weights)
{
	struct pst_apart *a = m->apart;

	if (!a)
		return weights;
	if (a->have == a->version && a->have != NO_VERSION)
		return a->w;
	for (uint32_t g = 0; g < a->groups; g++) {
		for (size_t i = a->first[g]; i < a->first[g + 1]; i++) {
			const struct dense *d = &a->dense[i];

			m->op->put(m->c, (void *)(uintptr_t)a->w[d->param], weights[d->param],
				   d->bytes);
		}
		m->op->put_mark(m->c, g);
	}
	a->have = a->version;
	return a->w;
}

const float *const *pst_apart_same(const struct pst_model *m, const float *const *weights)
{
	return m->apart ? m->apart->w : weights;
}

void pst_apart_need(struct pst_model *m, uint32_t group)
{
	if (m->apart)
		m->op->put_need(m->c, group);
}

float *const *pst_apart_grads(struct pst_model *m, float *const *grads)
{
	return m->apart ? m->apart->g : grads;
}

void pst_apart_room(struct pst_model *m, uint32_t layer)
{
	if (m->apart && layer + 2 < m->cfg.layers)
		m->op->fetch_need(m->c, 1 + layer + 2);
}

void pst_apart_send(struct pst_model *m, float *const *grads, uint32_t group)
{
	struct pst_apart *a = m->apart;

	if (!a)
		return;
	for (size_t i = a->first[group]; i < a->first[group + 1]; i++) {
		const struct dense *d = &a->dense[i];

		if (d->trained && grads[d->param])
			m->op->fetch(m->c, grads[d->param], a->g[d->param], d->bytes);
	}
	m->op->fetch_mark(m->c, group);
}

void pst_apart_put(struct pst_model *m, void *to, const void *host, size_t bytes)
{
	if (m->apart)
		m->op->put(m->c, to, host, bytes);
}

void pst_apart_tokens(struct pst_model *m)
{
	if (!m->apart)
		return;
	m->op->put(m->c, m->tokens, m->host.tokens, m->rows * sizeof(*m->tokens));
	m->op->put(m->c, m->pos, m->host.pos, m->rows * sizeof(*m->pos));
	m->op->put(m->c, m->targets, m->host.targets, m->rows * sizeof(*m->targets));
	m->op->put_mark(m->c, mark_of_tokens(m));
	m->op->put_need(m->c, mark_of_tokens(m));
}

float *pst_apart_lend(struct pst_model *m, float *y)
{
	if (!m->apart)
		return y;
	return memset(m->host.y, 0, m->rows * m->cfg.hidden * sizeof(*y));
}

void pst_apart_take(struct pst_model *m, float *y)
{
	size_t n = m->rows * m->cfg.hidden;

	if (!m->apart)
		return;
	m->op->put(m->c, m->added, m->host.y, n * sizeof(*y));
	m->op->put_mark(m->c, mark_of_added(m));
	m->op->put_need(m->c, mark_of_added(m));
	m->op->sum(m->c, y, y, m->added, n);
}
