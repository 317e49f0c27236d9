/* SPDX-License-Identifier: Apache-2.0 */
/* session_gpu.c - a session whose experts a GPU computes: what it must reach, and one group there.
 */
#include "runtime/moe/session_priv.h"

#include "rdma/fail.h"

#include <errno.h>

/* Calls @fn for each piece of memory that a request may touch. */
typedef int reach_fn(struct pst_session *s, const void *at, uint64_t bytes, bool read_only,
		     struct pst_error *err);

static int each_pool(struct pst_session *s, reach_fn *fn, struct pst_error *err)
{
	const struct pst_pool *pool[] = {s->local, s->grads,
					 s->copies ? pst_copies_pool(s->copies) : NULL};
	int rc = 0;

	for (size_t i = 0; i < sizeof(pool) / sizeof(*pool) && !rc; i++)
		if (pool[i])
			rc = fn(s, pst_pool_base(pool[i]), pst_pool_bytes(pool[i]), false, err);
	return rc;
}

static int each_source(struct pst_session *s, reach_fn *fn, struct pst_error *err)
{
	int rc = 0;

	for (uint32_t i = 0; s->source && i < s->setup.servers && !rc; i++) {
		const void *view = NULL, *push = NULL;
		uint64_t view_bytes, push_bytes;

		if (s->source[i].view)
			view = pst_view_memory(s->source[i].view, &view_bytes);
		if (s->source[i].push)
			push = pst_push_memory(s->source[i].push, &push_bytes);
		if (view)
			rc = fn(s, view, view_bytes, true, err);
		if (!rc && push)
			rc = fn(s, push, push_bytes, false, err);
	}
	return rc;
}

static int each(struct pst_session *s, reach_fn *fn, struct pst_error *err)
{
	int rc = 0;

	if (s->rows)
		rc = fn(s, s->rows, s->rows_bytes, true, err);
	if (!rc && s->results)
		rc = fn(s, s->results, s->results_bytes, false, err);
	if (!rc)
		rc = each_pool(s, fn, err);
	return rc ? rc : each_source(s, fn, err);
}

static int reach(struct pst_session *s, const void *at, uint64_t bytes, bool read_only,
		 struct pst_error *err)
{
	int rc = pst_worker_gpu_reach(s->host.gpu, at, bytes, read_only, err);

	s->reached += !rc;
	return rc;
}

static int leave(struct pst_session *s, const void *at, uint64_t bytes, bool read_only,
		 struct pst_error *err)
{
	(void)bytes, (void)read_only, (void)err;
	if (!s->reached)
		return -ENOENT;
	s->reached--;
	pst_worker_gpu_leave(s->host.gpu, at);
	return 0;
}

int pst_session_open_gpu(struct pst_session *s, struct pst_error *err)
{
	if (!s->host.gpu)
		return 0;
	if (s->setup.hidden % 8 || s->setup.inter % 8)
		return pst_fail(err, -EINVAL,
				"experts of %u x %u do not go on a GPU: both must be multiples of "
				"8; use --device cpu",
				s->setup.hidden, s->setup.inter);
	return each(s, reach, err);
}

/* In the order in which it was reached, as far as that came. */
void pst_session_close_gpu(struct pst_session *s)
{
	size_t n = s->expert ? (size_t)s->setup.layers * s->setup.experts : 0;

	if (!s->host.gpu)
		return;
	for (size_t i = 0; i < n; i++)
		pst_gpu_mlp_drop(pst_worker_gpu_mlp(s->host.gpu), &s->expert[i].on_gpu);
	each(s, leave, NULL);
}

int pst_session_compute_gpu(struct pst_session *s, const struct pst_msg_experts *m, uint32_t from,
			    uint32_t n, struct pst_error *err)
{
	struct pst_gpu_mlp *mlp = pst_worker_gpu_mlp(s->host.gpu);
	bool backward = m->what & PST_EXPERTS_BACKWARD;
	struct pst_gpu_weights *weights[PST_EXPERTS_MAX];

	for (uint32_t i = 0; i < n; i++)
		weights[i] = &pst_session_expert(s, m, from + i)->on_gpu;
	return backward ? pst_gpu_mlp_backward(mlp, s->job + from, weights, n, m->version, err)
			: pst_gpu_mlp_forward(mlp, s->job + from, weights, n, m->version, err);
}
