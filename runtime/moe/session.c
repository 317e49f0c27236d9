/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/moe/session.h"

#include "rdma/fail.h"
#include "runtime/device/mlp.h"
#include "runtime/mem/pool.h"
#include "runtime/store/rpc.h"
#include "runtime/store/view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_TIMEOUT_MS 10000
#define MAX_SERVERS	  4096
#define MAX_EXPERTS	  (1u << 20)   /* of all layers */
#define KEPT_MAX	  (1ull << 30) /* bytes of activations kept between forward and backward */

enum { GATE, UP, DOWN, MATRICES };

static const char *const matrix_name[MATRICES] = {"gate_proj", "up_proj", "down_proj"};

/* A server as this session uses it. */
struct source {
	struct pst_view *view;
	char *slot_base; /* NULL: forward only */
	uint64_t slot_bytes;
	struct pst_slot_head slot;
	uint32_t slot_number;
};

/* An expert: where its matrices are, and what its last forward left. */
struct expert {
	bool known;
	uint32_t source;
	uint32_t tensor[MATRICES];
	float *kept;
	uint64_t kept_pass;
	uint32_t kept_rows;
};

struct pst_session {
	struct pst_session_host host;
	struct pst_msg_worker_setup setup;
	const char *rows;
	char *results;
	uint64_t rows_bytes, results_bytes;
	struct pst_cq *cq; /* servers */
	struct source *source;
	struct expert *expert; /* [layers * experts] */
	struct pst_pool *pool;
	float *scratch;
	size_t scratch_floats;
	struct pst_mlp_job *job; /* of one request */
};

/* Set-up */

static int map_engine(struct pst_session *s, struct pst_link *engine, struct pst_error *err)
{
	struct pst_key key;
	void *addr;
	int rc;

	memcpy(&key, &s->setup.rows, sizeof(key));
	rc = pst_link_map(engine, key, PST_ACCESS_READ, &addr, &s->rows_bytes);
	if (!rc) {
		s->rows = addr;
		memcpy(&key, &s->setup.results, sizeof(key));
		rc = pst_link_map(engine, key, PST_ACCESS_WRITE, &addr, &s->results_bytes);
		s->results = addr;
	}
	if (rc < 0)
		return pst_fail(err, rc, "the engine's regions cannot be mapped: %s",
				strerror(-rc));
	return 0;
}

static int attach_slot(struct pst_session *s, struct source *src, uint64_t token,
		       struct pst_error *err)
{
	struct pst_msg_slot_attach m = {.hdr = {.size = sizeof(m), .type = PST_MSG_SLOT_ATTACH},
					.token = token};
	struct pst_link *link = pst_view_link(src->view);
	struct pst_msg_slot_opened answer;
	struct pst_key key;
	void *addr;
	int rc = pst_rpc(s->cq, link, &m.hdr, &answer, sizeof(answer), SERVER_TIMEOUT_MS, err);

	if (rc < 0)
		return rc;
	memcpy(&key, &answer.key, sizeof(key));
	rc = pst_link_map(link, key, PST_ACCESS_WRITE, &addr, &src->slot_bytes);
	if (!rc && src->slot_bytes < sizeof(src->slot))
		rc = -EPROTO;
	if (rc < 0)
		return pst_fail(err, rc, "%s: its push slot cannot be used: %s",
				pst_link_peer(link), strerror(-rc));
	src->slot_base = addr;
	memcpy(&src->slot, addr, sizeof(src->slot));
	src->slot_number = answer.slot;
	return 0;
}

static int open_source(struct pst_session *s, unsigned int i, struct pst_error *err)
{
	struct pst_wire_server server;
	int rc;

	memcpy(&server, s->rows + s->setup.servers_offset + i * sizeof(server), sizeof(server));
	server.url[sizeof(server.url) - 1] = 0;
	rc = pst_view_connect(s->cq, server.url, SERVER_TIMEOUT_MS, &s->source[i].view, err);
	if (!rc)
		rc = pst_view_open(s->source[i].view, err);
	if (!rc && server.token)
		rc = attach_slot(s, &s->source[i], server.token, err);
	return rc;
}

static bool slot_holds(const struct source *src, const struct pst_wire_tensor *t)
{
	return !src->slot_base ||
	       (src->slot.gradients % 64 == 0 && src->slot.gradients <= src->slot_bytes &&
		t->offset + t->bytes <= src->slot_bytes - src->slot.gradients);
}

static bool shape_fits(const struct pst_session *s, int matrix, const struct pst_wire_tensor *t)
{
	uint64_t rows = matrix == DOWN ? s->setup.hidden : s->setup.inter;
	uint64_t cols = matrix == DOWN ? s->setup.inter : s->setup.hidden;

	return t->ndim == 2 && t->shape[0] == rows && t->shape[1] == cols;
}

/* Find an expert's three matrices; a dense layer has none. */
static int find_expert(struct pst_session *s, uint32_t layer, uint32_t e, struct pst_error *err)
{
	struct expert *x = &s->expert[(size_t)layer * s->setup.experts + e];
	char name[PST_WIRE_NAME];

	for (uint32_t p = 0; p < s->setup.servers && !x->known; p++) {
		struct source *src = &s->source[p];
		int m;

		for (m = 0; m < MATRICES; m++) {
			const struct pst_wire_tensor *t;
			long i;

			snprintf(name, sizeof(name), "model.layers.%u.mlp.experts.%u.%s.weight",
				 layer, e, matrix_name[m]);
			i = pst_view_find(src->view, name);
			if (i < 0)
				break;
			t = pst_view_tensor(src->view, (size_t)i);
			if (!shape_fits(s, m, t) || !slot_holds(src, t))
				return pst_fail(err, -EPROTO, "%s: has another shape than asked",
						name);
			x->tensor[m] = (uint32_t)i;
		}
		x->source = p;
		x->known = m == MATRICES;
	}
	return 0;
}

static bool setup_sane(const struct pst_session *s)
{
	const struct pst_msg_worker_setup *m = &s->setup;
	uint64_t servers = (uint64_t)m->servers * sizeof(struct pst_wire_server);
	uint64_t rows = (uint64_t)m->max_rows * m->hidden * sizeof(float);

	return m->servers && m->servers <= MAX_SERVERS && m->hidden && m->hidden <= 1 << 20 &&
	       m->inter && m->inter <= 1 << 20 && m->layers && m->experts &&
	       (uint64_t)m->layers * m->experts <= MAX_EXPERTS && m->max_rows &&
	       m->max_rows <= 1 << 28 && rows <= s->rows_bytes && rows <= s->results_bytes &&
	       m->servers_offset <= s->rows_bytes && servers <= s->rows_bytes - m->servers_offset;
}

static int find_experts(struct pst_session *s, struct pst_error *err)
{
	bool any = false;

	for (uint32_t l = 0; l < s->setup.layers; l++)
		for (uint32_t e = 0; e < s->setup.experts; e++) {
			int rc = find_expert(s, l, e, err);

			if (rc < 0)
				return rc;
			any |= s->expert[(size_t)l * s->setup.experts + e].known;
		}
	if (!any)
		return pst_fail(err, -ENOENT, "no server has experts of this model");
	return 0;
}

static int make_pool(struct pst_session *s, struct pst_error *err)
{
	const struct pst_msg_worker_setup *m = &s->setup;
	uint64_t kept = 2ull * m->layers * m->max_rows * m->inter * sizeof(float);
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "activations",
		.bytes = kept < KEPT_MAX ? kept : KEPT_MAX,
		.node = s->host.node,
		.flags = s->host.pool_flags,
	};

	return pst_pool_create(&po, &s->pool, err);
}

int pst_session_open(const struct pst_session_host *host, struct pst_link *engine,
		     const struct pst_msg_worker_setup *setup, struct pst_session **out,
		     struct pst_error *err)
{
	struct pst_session *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return pst_fail(err, -ENOMEM, "no memory for a session");
	s->host = *host;
	s->setup = *setup;
	rc = map_engine(s, engine, err);
	if (!rc && !setup_sane(s))
		rc = pst_fail(err, -EINVAL, "a set-up that makes no sense");
	if (rc < 0)
		goto close_session;
	s->source = calloc(setup->servers, sizeof(*s->source));
	s->expert = calloc((size_t)setup->layers * setup->experts, sizeof(*s->expert));
	s->job = calloc(PST_EXPERTS_MAX, sizeof(*s->job));
	if (!s->source || !s->expert || !s->job) {
		rc = pst_fail(err, -ENOMEM, "no memory for a session");
		goto close_session;
	}
	rc = pst_cq_create(host->fabric, &s->cq, err);
	for (unsigned int i = 0; i < setup->servers && !rc; i++)
		rc = open_source(s, i, err);
	if (!rc)
		rc = find_experts(s, err);
	if (!rc)
		rc = make_pool(s, err);
	if (rc < 0)
		goto close_session;
	*out = s;
	return 0;
close_session:
	pst_session_close(s);
	return rc;
}

void pst_session_close(struct pst_session *s)
{
	if (!s)
		return;
	for (unsigned int i = 0; s->source && i < s->setup.servers; i++)
		pst_view_close(s->source[i].view);
	if (s->cq)
		pst_cq_destroy(s->cq);
	pst_pool_destroy(s->pool);
	free(s->scratch);
	free(s->job);
	free(s->expert);
	free(s->source);
	free(s);
}

/* Computing */

static struct expert *expert_of(struct pst_session *s, const struct pst_msg_experts *m, uint32_t i)
{
	return &s->expert[(size_t)m->layer * s->setup.experts + m->item[i].expert];
}

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
	x = expert_of(s, m, i);
	if (!x->known)
		return pst_fail(err, -ENOENT, "no server has expert %u of layer %u", it->expert,
				m->layer);
	if (backward && !s->source[x->source].slot_base)
		return pst_fail(err, -EINVAL, "a backward without push slots");
	return 0;
}

/* Room for what a forward leaves; without it backward computes more, with the same bits. */
static float *keep(struct pst_session *s, struct expert *x, const struct pst_msg_experts *m,
		   uint32_t rows)
{
	pst_pool_free(s->pool, x->kept);
	x->kept = NULL;
	if (!(m->what & PST_EXPERTS_KEEP))
		return NULL;
	x->kept = pst_pool_alloc(s->pool, 2ull * rows * s->setup.inter * sizeof(float), 0);
	x->kept_pass = m->pass;
	x->kept_rows = rows;
	return x->kept;
}

static int make_job(struct pst_session *s, const struct pst_msg_experts *m, uint32_t i,
		    struct pst_error *err)
{
	const struct pst_wire_expert *it = &m->item[i];
	uint64_t at = (uint64_t)it->row * s->setup.hidden * sizeof(float);
	struct expert *x = expert_of(s, m, i);
	struct source *src = &s->source[x->source];
	struct pst_mlp_job *j = &s->job[i];
	const float *w[MATRICES];
	float *g[MATRICES] = {NULL};

	for (int k = 0; k < MATRICES; k++) {
		w[k] = pst_view_weight(src->view, x->tensor[k], m->version);
		if (!w[k])
			return pst_fail(err, -ESTALE, "version %llu of expert %u is not held",
					(unsigned long long)m->version, it->expert);
		if (m->what & PST_EXPERTS_BACKWARD)
			g[k] = (float *)(src->slot_base + src->slot.gradients +
					 pst_view_tensor(src->view, x->tensor[k])->offset);
	}
	*j = (struct pst_mlp_job){
		.rows = it->rows,
		.hidden = s->setup.hidden,
		.inter = s->setup.inter,
		.gate = w[GATE],
		.up = w[UP],
		.down = w[DOWN],
		.x = (const float *)(s->rows + m->x + at),
	};
	if (m->what & PST_EXPERTS_BACKWARD) {
		j->dy = (const float *)(s->rows + m->dy + at);
		j->dx = (float *)(s->results + m->out + at);
		j->dgate = g[GATE];
		j->dup = g[UP];
		j->ddown = g[DOWN];
		j->have_kept = x->kept && x->kept_pass == m->pass && x->kept_rows == it->rows;
		j->kept = j->have_kept ? x->kept : NULL;
	} else {
		j->y = (float *)(s->results + m->out + at);
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

/* Tell the servers which gradients have arrived in the slots. */
static int announce(struct pst_session *s, const struct pst_msg_experts *m, struct pst_error *err)
{
	for (uint32_t i = 0; i < m->count; i++) {
		struct expert *x = expert_of(s, m, i);
		struct source *src = &s->source[x->source];
		struct pst_link *link = pst_view_link(src->view);

		for (int k = 0; k < MATRICES; k++) {
			int rc = pst_rpc_announce(
				s->cq, link, PST_IMM(src->slot_number, m->version, x->tensor[k]));

			if (rc < 0)
				return pst_fail(err, rc, "%s: cannot be told of a gradient: %s",
						pst_link_peer(link), strerror(-rc));
		}
	}
	return 0;
}

int pst_session_run(struct pst_session *s, const struct pst_msg_experts *m, struct pst_error *err)
{
	bool backward = m->what & PST_EXPERTS_BACKWARD;
	int rc = 0;

	if (m->what & ~(PST_EXPERTS_BACKWARD | PST_EXPERTS_KEEP) || m->reserved)
		return pst_fail(err, -EINVAL, "unknown flags in a request for experts");
	for (uint32_t i = 0; i < m->count && !rc; i++)
		rc = check_item(s, m, i, err);
	for (uint32_t i = 0; i < m->count && !rc; i++)
		rc = make_job(s, m, i, err);
	if (!rc)
		rc = need_scratch(s, pst_mlp_scratch(s->job, m->count, backward), err);
	if (rc < 0)
		return rc;
	if (!backward) {
		pst_mlp_forward(s->host.device, s->job, m->count, s->scratch);
		return 0;
	}
	pst_mlp_backward(s->host.device, s->job, m->count, s->scratch);
	return announce(s, m, err);
}

void pst_session_stat(struct pst_session *s, struct pst_msg_stated *out)
{
	struct pst_pool_stat ps;

	pst_pool_stat(s->pool, &ps);
	out->node = ps.node;
	out->locked = (uint32_t)ps.locked;
	out->page_bytes = ps.page_bytes;
	out->pool_bytes = ps.bytes;
	out->pool_used = ps.used;
	memcpy(out->note, ps.note, sizeof(out->note));
}
