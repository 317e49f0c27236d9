/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_far.c - a session whose engine or servers are out of reach for mapping: memory of its own
 * for what it computes with, and the moving of rows.
 */
#include "runtime/moe/session_priv.h"

#include "rdma/fail.h"
#include "runtime/mem/admit.h"
#include "runtime/store/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GRADS_MAX (256ull << 20) /* bytes of gradients at once, where no budget is given */

static struct pst_fabric *fabric_of(const struct pst_session *s)
{
	return pst_inbox_fabric(s->host.inbox);
}

static int make_pool(struct pst_session *s, const char *name, uint64_t bytes,
		     struct pst_pool **pool, struct pst_region **region, struct pst_error *err)
{
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = name,
		.bytes = bytes,
		.node = s->host.node,
		.flags = s->host.pool_flags,
	};
	int rc = pst_pool_create(&po, pool, err);

	return rc < 0 ? rc : pst_pool_region(fabric_of(s), *pool, PST_ACCESS_READ, region, err);
}

/* Set-up */

/* One read from the engine into the beginning of the local pool. */
static int read_engine(struct pst_session *s, struct pst_key key, uint64_t offset, uint64_t len)
{
	struct pst_wr wr = {
		.op = PST_WR_READ,
		.local = s->local_region,
		.local_addr = pst_pool_base(s->local),
		.key = key,
		.remote_off = offset,
		.len = len,
	};
	struct pst_batch b;

	pst_batch_begin(s->host.inbox, &b);
	pst_batch_post(s->host.inbox, &b, s->engine, &wr, 1);
	return pst_batch_wait(s->host.inbox, &b, NULL);
}

static void drop_local(struct pst_session *s)
{
	if (s->local_region)
		pst_region_release(s->local_region);
	pst_pool_destroy(s->local);
	s->local_region = NULL;
	s->local = NULL;
}

/* Nobody says how long the engine's regions are: they hold what their last byte shows is there. */
int pst_session_reach(struct pst_session *s, struct pst_error *err)
{
	const struct pst_msg_worker_setup *m = &s->setup;
	uint64_t rows = (uint64_t)m->max_rows * m->hidden * sizeof(float);
	uint64_t list = m->servers * sizeof(*s->server);
	int rc = make_pool(s, "servers", list, &s->local, &s->local_region, err);

	if (rc < 0)
		return rc;
	rc = read_engine(s, s->rows_key, rows - 1, 1);
	if (!rc)
		rc = read_engine(s, s->results_key, rows - 1, 1);
	if (!rc)
		rc = read_engine(s, s->rows_key, m->servers_offset, list);
	if (!rc)
		memcpy(s->server, pst_pool_base(s->local), list);
	drop_local(s);
	if (rc == -ERANGE)
		return pst_fail(err, -EINVAL, "a set-up that makes no sense");
	return rc < 0 ? pst_fail(err, rc, "the engine's regions cannot be reached: %s",
				 strerror(-rc))
		      : 0;
}

int pst_session_make_rows(struct pst_session *s, struct pst_error *err)
{
	uint64_t floats = (uint64_t)s->setup.max_rows * s->setup.hidden;
	int rc;

	if (s->rows)
		return 0;
	floats = (floats + 15) / 16 * 16;
	rc = make_pool(s, "rows", 3 * floats * sizeof(float), &s->local, &s->local_region, err);
	if (rc < 0)
		return rc;
	s->x = pst_pool_base(s->local);
	s->dy = s->x + floats;
	s->out = s->dy + floats;
	return 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* All experts that are known, if a quarter of what is free holds them. */
static uint64_t weights_budget(const struct pst_session *s, uint64_t expert)
{
	uint64_t known = 0, limit;
	uint64_t room = least(pst_admit_memory(""), pst_admit_cgroup("", &limit)) / 4;

	for (size_t i = 0; i < (size_t)s->setup.layers * s->setup.experts; i++)
		known += s->expert[i].known;
	if (s->host.copy_bytes)
		room = s->host.copy_bytes;
	return least(known * expert, room);
}

static int make_weights(struct pst_session *s, uint64_t expert, struct pst_error *err)
{
	uint64_t n = weights_budget(s, expert) / expert;
	struct pst_copies_options o = {
		.size = sizeof(o),
		.fabric = fabric_of(s),
		.bytes = (n ? n : 1) * expert,
		.node = s->host.node,
		.pool_flags = s->host.pool_flags,
	};
	int rc = pst_copies_create(&o, &s->copies, err);

	if (rc < 0)
		return rc;
	s->experts_at_once = (uint32_t)(o.bytes / expert);
	for (uint32_t i = 0; i < s->setup.servers; i++)
		pst_view_keep(s->source[i].view, s->copies);
	return 0;
}

static int make_grads(struct pst_session *s, uint64_t expert, struct pst_error *err)
{
	uint64_t n = (s->host.copy_bytes ? s->host.copy_bytes : GRADS_MAX) / expert;

	n = least(n ? n : 1, least(s->setup.experts, PST_EXPERTS_MAX));
	s->grads_at_once = (uint32_t)n;
	return make_pool(s, "gradients", n * expert, &s->grads, &s->grads_region, err);
}

int pst_session_make_copies(struct pst_session *s, struct pst_error *err)
{
	uint64_t expert = MATRICES * pst_copies_cost(pst_session_matrix(s));
	bool far = false, push = false;
	int rc = 0;

	for (uint32_t i = 0; i < s->setup.servers; i++) {
		struct source *src = &s->source[i];

		far |= !pst_view_mapped(src->view);
		push |= src->push && !pst_push_mapped(src->push);
	}
	if (far)
		rc = make_weights(s, expert, err);
	if (!rc && push)
		rc = make_grads(s, expert, err);
	return rc;
}

void pst_session_free_far(struct pst_session *s)
{
	pst_copies_destroy(s->copies);
	if (s->grads_region)
		pst_region_release(s->grads_region);
	pst_pool_destroy(s->grads);
	drop_local(s);
}

/* Rows */

/* Items that follow each other there do so here: one request moves them. */
static uint32_t run_of(const struct pst_msg_experts *m, uint32_t i, uint64_t *rows)
{
	*rows = m->item[i].rows;
	for (i++; i < m->count; i++) {
		if (m->item[i].row != m->item[i - 1].row + m->item[i - 1].rows)
			break;
		*rows += m->item[i].rows;
	}
	return i;
}

static void move_rows(struct pst_session *s, const struct pst_msg_experts *m, struct pst_batch *b,
		      struct pst_wr wr, uint64_t offset, float *local)
{
	uint64_t row_bytes = s->setup.hidden * sizeof(float), rows;

	wr.local = s->local_region;
	for (uint32_t i = 0, next; i < m->count; i = next) {
		next = run_of(m, i, &rows);
		if (!rows)
			continue;
		wr.local_addr = local + (uint64_t)s->local_row[i] * s->setup.hidden;
		wr.remote_off = offset + m->item[i].row * row_bytes;
		wr.len = rows * row_bytes;
		pst_batch_post(s->host.inbox, b, s->engine, &wr, 1);
	}
}

static int moved(struct pst_session *s, struct pst_batch *b, struct pst_error *err)
{
	struct pst_error why = {0};
	int rc = pst_batch_wait(s->host.inbox, b, &why);

	if (rc == -ERANGE)
		return pst_fail(err, rc, "rows outside of the region: %s", why.text);
	return rc < 0 ? pst_fail(err, rc, "%s", why.text) : 0;
}

int pst_session_fetch(struct pst_session *s, const struct pst_msg_experts *m, struct pst_error *err)
{
	struct pst_wr wr = {.op = PST_WR_READ, .key = s->rows_key};
	struct pst_batch b;
	uint64_t rows = 0;

	if (s->rows)
		return 0;
	for (uint32_t i = 0; i < m->count; i++) {
		s->local_row[i] = (uint32_t)rows;
		rows += m->item[i].rows;
		if (rows > s->setup.max_rows)
			return pst_fail(err, -ERANGE, "a request of more rows than the set-up's %u",
					s->setup.max_rows);
	}
	pst_batch_begin(s->host.inbox, &b);
	move_rows(s, m, &b, wr, m->x, s->x);
	if (m->what & PST_EXPERTS_BACKWARD)
		move_rows(s, m, &b, wr, m->dy, s->dy);
	return moved(s, &b, err);
}

int pst_session_store(struct pst_session *s, const struct pst_msg_experts *m, struct pst_error *err)
{
	struct pst_wr wr = {.op = PST_WR_WRITE, .key = s->results_key};
	struct pst_batch b;

	if (s->rows)
		return 0;
	pst_batch_begin(s->host.inbox, &b);
	move_rows(s, m, &b, wr, m->out, s->out);
	return moved(s, &b, err);
}
