/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/moe/session_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_TIMEOUT_MS 10000
#define MAX_SERVERS	  4096
#define MAX_EXPERTS	  (1u << 20)   /* of all layers */
#define KEPT_MAX	  (1ull << 30) /* bytes of activations kept between forward and backward */

static const char *const matrix_name[MATRICES] = {"gate_proj", "up_proj", "down_proj"};

/* Set-up */

static int map_engine(struct pst_session *s, struct pst_error *err)
{
	void *rows, *results;
	int rc;

	memcpy(&s->rows_key, &s->setup.rows, sizeof(s->rows_key));
	memcpy(&s->results_key, &s->setup.results, sizeof(s->results_key));
	rc = pst_link_map(s->engine, s->rows_key, PST_ACCESS_READ, &rows, &s->rows_bytes);
	if (rc == -EOPNOTSUPP) {
		s->rows_bytes = s->results_bytes = INT64_MAX;
		return 0;
	}
	if (!rc)
		rc = pst_link_map(s->engine, s->results_key, PST_ACCESS_WRITE, &results,
				  &s->results_bytes);
	if (rc < 0)
		return pst_fail(err, rc, "the engine's regions cannot be reached: %s",
				strerror(-rc));
	s->rows = rows;
	s->results = results;
	return 0;
}

static int take_servers(struct pst_session *s, struct pst_error *err)
{
	size_t bytes = s->setup.servers * sizeof(*s->server);

	s->server = malloc(bytes);
	if (!s->server)
		return pst_fail(err, -ENOMEM, "no memory for a list of servers");
	if (!s->rows)
		return pst_session_reach(s, err);
	memcpy(s->server, s->rows + s->setup.servers_offset, bytes);
	return 0;
}

static int open_source(struct pst_session *s, unsigned int i, struct pst_error *err)
{
	struct pst_wire_server *server = &s->server[i];
	struct source *src = &s->source[i];
	struct pst_push_options o = {
		.size = sizeof(o),
		.inbox = s->inbox,
		.join = true,
		.token = server->token,
		.timeout_ms = SERVER_TIMEOUT_MS,
	};
	int rc;

	server->url[sizeof(server->url) - 1] = 0;
	rc = pst_view_connect(s->inbox, server->url, SERVER_TIMEOUT_MS, &src->view, err);
	if (!rc)
		rc = pst_view_open(src->view, err);
	o.view = src->view;
	if (!rc && server->token)
		rc = pst_push_open(&o, &src->push, err);
	return rc;
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
			if (!shape_fits(s, m, t))
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

/* Its first matrix is the first to go when there is no room: while that is here all are. */
static void watch(struct pst_session *s, struct expert *x)
{
	s->far_experts++;
	for (int k = 0; k < MATRICES; k++)
		pst_view_count_in(s->source[x->source].view, x->tensor[k],
				  k == GATE ? &x->tally->copies : NULL, &x->tally->pulled);
}

/* Who looks at the worker finds its experts from now on. */
static int enter_experts(struct pst_session *s, struct pst_error *err)
{
	for (uint32_t l = 0; l < s->setup.layers; l++)
		for (uint32_t e = 0; e < s->setup.experts; e++) {
			struct expert *x = &s->expert[(size_t)l * s->setup.experts + e];

			if (!x->known)
				continue;
			if (pst_tally_cover(s->host.tally, l, s->setup.experts) < 0)
				return pst_fail(err, -ENOMEM, "no memory to count experts");
			x->tally = pst_tally_find(s->host.tally, l, e);
			atomic_store(&x->tally->bytes, MATRICES * pst_session_matrix(s));
			if (pst_session_far(s, x))
				watch(s, x);
			else
				atomic_fetch_add(&x->tally->copies, 1);
		}
	return 0;
}

/* Copies that are made of it are counted where they go. */
static void leave_experts(struct pst_session *s)
{
	size_t n = s->expert ? (size_t)s->setup.layers * s->setup.experts : 0;

	for (size_t i = 0; i < n; i++) {
		struct expert *x = &s->expert[i];

		if (!x->tally)
			continue;
		if (x->pinned)
			atomic_fetch_sub(&x->tally->pins, 1);
		if (!pst_session_far(s, x))
			atomic_fetch_sub(&x->tally->copies, 1);
	}
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

static int make_lists(struct pst_session *s, struct pst_error *err)
{
	const struct pst_msg_worker_setup *m = &s->setup;

	s->source = calloc(m->servers, sizeof(*s->source));
	s->expert = calloc((size_t)m->layers * m->experts, sizeof(*s->expert));
	s->job = calloc(PST_EXPERTS_MAX, sizeof(*s->job));
	s->want = calloc(PST_EXPERTS_MAX, sizeof(*s->want));
	s->item = calloc(PST_EXPERTS_MAX * MATRICES, sizeof(*s->item));
	s->local_row = calloc(PST_EXPERTS_MAX, sizeof(*s->local_row));
	if (!s->source || !s->expert || !s->job || !s->want || !s->item || !s->local_row)
		return pst_fail(err, -ENOMEM, "no memory for a session");
	return 0;
}

static int open_sources(struct pst_session *s, struct pst_error *err)
{
	int rc = pst_inbox_create(pst_inbox_fabric(s->host.inbox), 0, &s->inbox, err);

	for (unsigned int i = 0; i < s->setup.servers && !rc; i++)
		rc = open_source(s, i, err);
	return rc < 0 ? rc : find_experts(s, err);
}

/* What is worse than asked shows in its pool, or with the GPU. */
static void tell_note(struct pst_session *s)
{
	struct pst_gpu_stat gs = {0};
	struct pst_pool_stat ps;

	pst_pool_stat(s->pool, &ps);
	if (s->host.gpu)
		pst_gpu_stat(pst_worker_gpu_device(s->host.gpu), &gs);
	pst_tally_note(s->host.tally, *gs.note ? gs.note : ps.note);
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
	s->engine = engine;
	rc = map_engine(s, err);
	if (!rc && !setup_sane(s))
		rc = pst_fail(err, -EINVAL, "a set-up that makes no sense");
	if (!rc)
		rc = take_servers(s, err);
	if (!rc)
		rc = make_lists(s, err);
	if (!rc)
		rc = open_sources(s, err);
	if (!rc)
		rc = make_pool(s, err);
	if (!rc)
		rc = pst_session_make_rows(s, err);
	if (!rc)
		rc = pst_session_make_copies(s, err);
	if (!rc)
		rc = pst_session_open_gpu(s, err);
	if (!rc)
		rc = enter_experts(s, err);
	if (rc < 0) {
		pst_session_close(s);
		return rc;
	}
	tell_note(s);
	*out = s;
	return 0;
}

void pst_session_close(struct pst_session *s)
{
	if (!s)
		return;
	leave_experts(s);
	pst_session_close_gpu(s);
	for (unsigned int i = 0; s->source && i < s->setup.servers; i++) {
		pst_push_close(s->source[i].push);
		pst_view_close(s->source[i].view);
	}
	pst_inbox_destroy(s->inbox);
	pst_session_free_far(s);
	pst_pool_destroy(s->pool);
	free(s->scratch);
	free(s->local_row);
	free(s->item);
	free(s->want);
	free(s->job);
	free(s->expert);
	free(s->source);
	free(s->server);
	free(s);
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
	if (s->copies) {
		struct pst_copies_stat cs;

		pst_copies_stat(s->copies, &cs);
		out->pulled_bytes = cs.pulled_bytes;
		out->pull_hits = cs.hits;
	}
	out->crc_bad = s->pushed.crc_bad;
	out->resent = s->pushed.resent;
}
