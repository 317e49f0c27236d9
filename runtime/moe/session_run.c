/* SPDX-License-Identifier: Apache-2.0 */
/* session_run.c - one request: checked, computed, its gradients pushed. */
#include "runtime/moe/session_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>

static bool inside(uint64_t base, const struct pst_wire_expert *it, uint64_t hidden, uint64_t len)
{
	uint64_t from = (uint64_t)it->row * hidden * sizeof(float);
	uint64_t bytes = (uint64_t)it->rows * hidden * sizeof(float);

	return base % sizeof(float) == 0 && base <= len && from <= len - base &&
	       bytes <= len - base - from;
}

static int check_item(struct pst_session *s, const struct pst_msg_experts *m, uint32_t i,
		      struct pst_error *err)
{
	const struct pst_wire_expert *it = &m->item[i];
	bool backward = m->what & PST_EXPERTS_BACKWARD;
	struct expert *x;

	if (m->layer >= s->setup.layers || it->expert >= s->setup.experts ||
	    it->rows > s->setup.max_rows || it->reserved ||
	    !inside(m->x, it, s->setup.hidden, s->rows_bytes) ||
	    !inside(m->out, it, s->setup.hidden, s->results_bytes) ||
	    (backward && !inside(m->dy, it, s->setup.hidden, s->rows_bytes)))
		return pst_fail(err, -ERANGE, "expert %u of layer %u: rows outside of the region",
				it->expert, m->layer);
	if (i && it->expert <= m->item[i - 1].expert)
		return pst_fail(err, -EINVAL, "expert %u is named twice, or out of order",
				it->expert);
	x = pst_session_expert(s, m, i);
	if (!x->known)
		return pst_fail(err, -ENOENT, "no server has expert %u of layer %u", it->expert,
				m->layer);
	if (backward && !s->source[x->source].push)
		return pst_fail(err, -EINVAL, "a backward without push slots");
	return 0;
}

/* Room for what a forward leaves; without it backward computes more, with the same bits. */
static float *keep(struct pst_session *s, struct expert *x, const struct pst_msg_experts *m,
		   uint32_t rows)
{
	pst_pool_free(s->pool, x->kept);
	x->kept = NULL;
	/* a GPU makes it again faster than it comes back */
	if (!(m->what & PST_EXPERTS_KEEP) || s->host.gpu)
		return NULL;
	x->kept = pst_pool_alloc(s->pool, 2ull * rows * s->setup.inter * sizeof(float), 0);
	x->kept_pass = m->pass;
	x->kept_rows = rows;
	return x->kept;
}

static int not_held(const struct pst_msg_experts *m, const struct pst_wire_expert *it,
		    struct pst_error *err)
{
	return pst_fail(err, -ESTALE, "version %llu of expert %u is not held",
			(unsigned long long)m->version, it->expert);
}

/* Where the gradient of matrix @k of the group's @nth expert is computed. */
static float *gradient_at(const struct pst_session *s, const struct source *src, uint32_t tensor,
			  uint32_t nth, uint32_t k)
{
	if (pst_push_mapped(src->push))
		return pst_push_place(src->push, tensor);
	return (float *)((char *)pst_pool_base(s->grads) +
			 ((uint64_t)nth * MATRICES + k) * pst_copies_cost(pst_session_matrix(s)));
}

/* Where item @i's rows are: x, dy or out, in place or here. */
static float *rows_at(const struct pst_session *s, const struct pst_msg_experts *m, uint32_t i,
		      const void *base, uint64_t offset, float *local)
{
	uint64_t row = (uint64_t)m->item[i].row * s->setup.hidden * sizeof(float);

	if (!s->rows)
		return local + (uint64_t)s->local_row[i] * s->setup.hidden;
	return (float *)((uintptr_t)base + offset + row);
}

static int make_job(struct pst_session *s, const struct pst_msg_experts *m, uint32_t i,
		    uint32_t nth, struct pst_error *err)
{
	const struct pst_wire_expert *it = &m->item[i];
	bool backward = m->what & PST_EXPERTS_BACKWARD;
	struct expert *x = pst_session_expert(s, m, i);
	struct source *src = &s->source[x->source];
	struct pst_mlp_job *j = &s->job[i];
	const float *w[MATRICES];
	float *g[MATRICES] = {NULL};

	for (uint32_t k = 0; k < MATRICES; k++) {
		w[k] = pst_view_weight(src->view, x->tensor[k], m->version);
		if (!w[k])
			return not_held(m, it, err);
		if (backward)
			g[k] = gradient_at(s, src, x->tensor[k], nth, k);
	}
	*j = (struct pst_mlp_job){
		.rows = it->rows,
		.hidden = s->setup.hidden,
		.inter = s->setup.inter,
		.gate = w[GATE],
		.up = w[UP],
		.down = w[DOWN],
		.x = rows_at(s, m, i, s->rows, m->x, s->x),
	};
	if (backward) {
		j->dy = rows_at(s, m, i, s->rows, m->dy, s->dy);
		j->dx = rows_at(s, m, i, s->results, m->out, s->out);
		j->dgate = g[GATE];
		j->dup = g[UP];
		j->ddown = g[DOWN];
		j->have_kept = x->kept && x->kept_pass == m->pass && x->kept_rows == it->rows;
		j->kept = j->have_kept ? x->kept : NULL;
	} else {
		j->y = rows_at(s, m, i, s->results, m->out, s->out);
		j->kept = keep(s, x, m, it->rows);
	}
	return 0;
}

static int need_scratch(struct pst_session *s, size_t floats, struct pst_error *err)
{
	if (floats <= s->scratch_floats)
		return 0;
	free(s->scratch);
	s->scratch_floats = 0;
	s->scratch = aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64);
	if (!s->scratch)
		return pst_fail(err, -ENOMEM, "no memory for %zu bytes of scratch",
				floats * sizeof(float));
	s->scratch_floats = floats;
	return 0;
}

/* A group of a request's items: so many that their weights and gradients have room here. */
struct group {
	uint32_t from, n;
};

static int need_weights(struct pst_session *s, const struct pst_msg_experts *m,
			const struct group *g, struct pst_error *err)
{
	struct pst_error why = {0};
	int rc;

	for (uint32_t i = 0; i < g->n; i++) {
		struct expert *x = pst_session_expert(s, m, g->from + i);

		s->want[i] = (struct pst_view_want){s->source[x->source].view, x->tensor, MATRICES};
	}
	if (s->copies)
		pst_copies_begin(s->copies);
	rc = pst_views_need(s->want, g->n, m->version, &why);
	if (rc == -ESTALE)
		return not_held(m, &m->item[g->from], err);
	return rc < 0 ? pst_fail(err, rc, "%s", why.text) : 0;
}

static int push_gradients(struct pst_session *s, const struct pst_msg_experts *m,
			  const struct group *g, struct pst_error *err)
{
	size_t n = 0;

	for (uint32_t i = 0; i < g->n; i++) {
		struct expert *x = pst_session_expert(s, m, g->from + i);
		struct source *src = &s->source[x->source];

		for (uint32_t k = 0; k < MATRICES; k++)
			s->item[n++] = (struct pst_push_item){
				.push = src->push,
				.tensor = x->tensor[k],
				.from = gradient_at(s, src, x->tensor[k], i, k),
			};
	}
	return pst_push_send(s->inbox, s->item, n, s->grads_region, m->version, s->host.device,
			     &s->pushed, err);
}

/* What was computed, with which weights. */
static void count(struct pst_session *s, const struct pst_msg_experts *m, const struct group *g)
{
	uint64_t rows = 0;

	for (uint32_t i = g->from; i < g->from + g->n; i++) {
		pst_tally_add(&pst_session_expert(s, m, i)->tally->rows, m->item[i].rows);
		rows += m->item[i].rows;
	}
	pst_tally_add(&s->host.tally->rows, rows);
	pst_tally_add(&s->host.tally->pulled, g->n * MATRICES * pst_session_matrix(s));
}

static int compute(struct pst_session *s, const struct pst_msg_experts *m, const struct group *g,
		   struct pst_error *err)
{
	const struct pst_mlp_job *job = s->job + g->from;
	bool backward = m->what & PST_EXPERTS_BACKWARD;
	int rc;

	if (s->host.gpu)
		return pst_session_compute_gpu(s, m, g->from, g->n, err);
	rc = need_scratch(s, pst_mlp_scratch(job, g->n, backward), err);
	if (rc)
		return rc;
	if (backward)
		pst_mlp_backward(s->host.device, job, g->n, s->scratch);
	else
		pst_mlp_forward(s->host.device, job, g->n, s->scratch);
	return 0;
}

static int run_group(struct pst_session *s, const struct pst_msg_experts *m, const struct group *g,
		     struct pst_error *err)
{
	int rc = need_weights(s, m, g, err);

	for (uint32_t i = 0; i < g->n && !rc; i++)
		rc = make_job(s, m, g->from + i, i, err);
	if (rc < 0)
		return rc;
	pst_tally_begin(s->host.tally);
	rc = compute(s, m, g, err);
	pst_tally_end(s->host.tally);
	if (rc < 0)
		return rc;
	count(s, m, g);
	return m->what & PST_EXPERTS_BACKWARD ? push_gradients(s, m, g, err) : 0;
}

static uint32_t group_size(const struct pst_session *s, const struct pst_msg_experts *m)
{
	uint32_t n = m->count;

	/* what is pinned leaves room for one, or there is room for all */
	if (s->experts_at_once < s->far_experts && s->experts_at_once - s->pins < n)
		n = s->experts_at_once - s->pins;
	if (m->what & PST_EXPERTS_BACKWARD && s->grads && s->grads_at_once < n)
		n = s->grads_at_once;
	return n;
}

int pst_session_run(struct pst_session *s, const struct pst_msg_experts *m, struct pst_error *err)
{
	uint32_t most = group_size(s, m);
	int rc = 0;

	if (m->what & ~(PST_EXPERTS_BACKWARD | PST_EXPERTS_KEEP) || m->reserved)
		return pst_fail(err, -EINVAL, "unknown flags in a request for experts");
	for (uint32_t i = 0; i < m->count && !rc; i++)
		rc = check_item(s, m, i, err);
	if (!rc)
		rc = pst_session_fetch(s, m, err);
	for (struct group g = {0}; g.from < m->count && !rc; g.from += g.n) {
		g.n = m->count - g.from < most ? m->count - g.from : most;
		rc = run_group(s, m, &g, err);
	}
	return rc < 0 ? rc : pst_session_store(s, m, err);
}
