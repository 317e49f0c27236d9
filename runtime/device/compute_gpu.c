/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU as a compute: its memory, what comes and goes, and what becomes of failures. */
#include "runtime/device/compute_gpu_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>

#define BATCH	   512 /* copies that a batch holds */
#define BATCH_FULL 64  /* asked for: large ones are several */

/* Memory */

static int gpu_alloc(struct pst_compute *c, uint64_t bytes, void **out, struct pst_error *err)
{
	uint64_t at;
	int rc = pst_gpu_alloc(pst_gpu_of(c)->gpu, bytes, 0, &at, err);

	if (!rc)
		*out = (void *)(uintptr_t)at;
	return rc;
}

static void gpu_free(struct pst_compute *c, void *block)
{
	pst_gpu_free(pst_gpu_of(c)->gpu, (uintptr_t)block);
}

static int gpu_reach(struct pst_compute *c, void *at, uint64_t bytes, struct pst_error *err)
{
	return pst_gpu_register(pst_gpu_of(c)->gpu, at, bytes, 0, -1, err);
}

static void gpu_leave(struct pst_compute *c, void *at)
{
	struct pst_error ignored = {0};

	pst_gpu_unregister(pst_gpu_of(c)->gpu, at, &ignored);
}

/* Copies */

static void send_batch(struct pst_compute_gpu *g, struct gpu_batch *b)
{
	if (b->n)
		pst_gpu_copies_send(b->copies, b->stream, &g->base.err);
	b->n = 0;
}

static void add_copy(struct pst_compute_gpu *g, struct gpu_batch *b, const void *to,
		     const void *from, size_t bytes)
{
	if (!pst_gpu_well(g) || !bytes)
		return;
	if (b->n == BATCH_FULL)
		send_batch(g, b);
	if (!pst_gpu_copies_add(b->copies, (uintptr_t)to, (uintptr_t)from, bytes, &g->base.err))
		b->n++;
}

void pst_gpu_copy(struct pst_compute_gpu *g, float *y, const float *x, size_t n)
{
	add_copy(g, &g->within, y, x, n * sizeof(*y));
	if (pst_gpu_well(g))
		send_batch(g, &g->within);
}

/* The event of @mark; NULL: it failed. */
static struct pst_gpu_event *find_mark(struct pst_compute_gpu *g, struct gpu_marks *m,
				       uint32_t mark)
{
	struct pst_gpu_event **more;

	if (mark >= m->n) {
		more = realloc(m->event, (mark + 1) * sizeof(*more));
		if (!more) {
			pst_fail(&g->base.err, -ENOMEM, "no memory for marks of a GPU");
			return NULL;
		}
		m->event = more;
		while (m->n <= mark)
			m->event[m->n++] = NULL;
	}
	if (!m->event[mark])
		pst_gpu_event_new(g->gpu, false, &m->event[mark], &g->base.err);
	return m->event[mark];
}

static void set_mark(struct pst_compute_gpu *g, struct gpu_marks *m, uint32_t mark,
		     enum pst_gpu_stream stream)
{
	struct pst_gpu_event *event = pst_gpu_well(g) ? find_mark(g, m, mark) : NULL;

	if (event)
		pst_gpu_event_record(event, stream, &g->base.err);
}

static void need_mark(struct pst_compute_gpu *g, struct gpu_marks *m, uint32_t mark)
{
	struct pst_gpu_event *event = pst_gpu_well(g) ? find_mark(g, m, mark) : NULL;

	if (event)
		pst_gpu_event_await(event, PST_GPU_COMPUTE, &g->base.err);
}

static void gpu_put(struct pst_compute *c, void *to, const void *host, size_t bytes)
{
	add_copy(pst_gpu_of(c), &pst_gpu_of(c)->in, to, host, bytes);
}

static void gpu_put_mark(struct pst_compute *c, uint32_t mark)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);

	if (pst_gpu_well(g))
		send_batch(g, &g->in);
	set_mark(g, &g->put, mark, PST_GPU_IN);
}

static void gpu_put_need(struct pst_compute *c, uint32_t mark)
{
	need_mark(pst_gpu_of(c), &pst_gpu_of(c)->put, mark);
}

/* Copies out come behind what is computed when they are asked for. */
static void follow(struct pst_compute_gpu *g)
{
	if (pst_gpu_well(g))
		pst_gpu_event_record(g->computed, PST_GPU_COMPUTE, &g->base.err);
	if (pst_gpu_well(g))
		pst_gpu_event_await(g->computed, PST_GPU_OUT, &g->base.err);
}

static const void *gpu_fetch(struct pst_compute *c, void *host, const void *from, size_t bytes)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);

	if (g->out.n == BATCH_FULL)
		follow(g);
	add_copy(g, &g->out, host, from, bytes);
	return host;
}

static void gpu_fetch_mark(struct pst_compute *c, uint32_t mark)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);

	follow(g);
	if (pst_gpu_well(g))
		send_batch(g, &g->out);
	set_mark(g, &g->fetched, mark, PST_GPU_OUT);
}

static void gpu_fetch_need(struct pst_compute *c, uint32_t mark)
{
	need_mark(pst_gpu_of(c), &pst_gpu_of(c)->fetched, mark);
}

/* Nothing of it is under way any more, if the GPU can still tell. */
static void settle(struct pst_compute_gpu *g)
{
	g->settled = true;
	for (int s = 0; s < PST_GPU_STREAMS; s++) {
		struct pst_error late = {0};

		if (pst_gpu_wait(g->gpu, (enum pst_gpu_stream)s, g->ms, &late))
			return;
	}
}

static int gpu_wait(struct pst_compute *c)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	follow(g);
	if (pst_gpu_well(g))
		send_batch(g, &g->out);
	if (pst_gpu_well(g))
		pst_gpu_event_record(g->home, PST_GPU_OUT, &g->base.err);
	if (pst_gpu_well(g))
		pst_gpu_event_wait(g->home, g->ms, &g->base.err);
	if (!pst_gpu_well(g) && !g->settled)
		settle(g);
	return c->err.code;
}

static const struct pst_compute_ops gpu_ops = {
	.alloc = gpu_alloc,
	.free = gpu_free,
	.reach = gpu_reach,
	.leave = gpu_leave,
	.put = gpu_put,
	.put_mark = gpu_put_mark,
	.put_need = gpu_put_need,
	.fetch = gpu_fetch,
	.fetch_mark = gpu_fetch_mark,
	.fetch_need = gpu_fetch_need,
	.wait = gpu_wait,
	.linear = pst_gpu_linear,
	.linear_dx = pst_gpu_linear_dx,
	.linear_dw = pst_gpu_linear_dw,
	.norm = pst_gpu_norm,
	.norm_bwd = pst_gpu_norm_bwd,
	.sum = pst_gpu_sum,
	.zero = pst_gpu_zero,
	.embed = pst_gpu_embed,
	.embed_bwd = pst_gpu_embed_bwd,
	.mlp = pst_gpu_net,
	.mlp_bwd = pst_gpu_net_bwd,
	.loss = pst_gpu_loss,
	.loss_bwd = pst_gpu_loss_bwd,
	.gate = pst_gpu_gate,
	.balance = pst_gpu_balance,
	.gate_bwd = pst_gpu_gate_bwd,
	.rotate = pst_gpu_rotate,
	.attend = pst_gpu_attend,
	.attend_bwd = pst_gpu_attend_bwd,
	.attend_cache = pst_gpu_attend_cache,
};

static int open_batch(struct pst_compute_gpu *g, struct gpu_batch *b, enum pst_gpu_stream stream,
		      struct pst_error *err)
{
	b->stream = stream;
	return pst_gpu_copies_new(g->gpu, BATCH, &b->copies, err);
}

static int load_kernels(struct pst_compute_gpu *g, struct pst_error *err)
{
	int rc = 0;

	for (size_t i = 0; i < pst_gpu_dense_count && !rc; i++)
		rc = pst_gpu_kernels_load(g->kernels, pst_gpu_dense_kernels[i], err);
	return rc;
}

int pst_compute_gpu_open(struct pst_gpu *gpu, struct pst_gpu_kernels *kernels, uint32_t ms,
			 struct pst_compute **out, struct pst_error *err)
{
	struct pst_compute_gpu *g = calloc(1, sizeof(*g));
	int rc;

	if (!g)
		return pst_fail(err, -ENOMEM, "no memory for an engine on a GPU");
	g->base = (struct pst_compute){.op = &gpu_ops, .apart = true};
	g->gpu = gpu;
	g->kernels = kernels;
	g->ms = ms;
	rc = load_kernels(g, err);
	if (!rc)
		rc = open_batch(g, &g->in, PST_GPU_IN, err);
	if (!rc)
		rc = open_batch(g, &g->out, PST_GPU_OUT, err);
	if (!rc)
		rc = open_batch(g, &g->within, PST_GPU_COMPUTE, err);
	if (!rc)
		rc = pst_gpu_event_new(gpu, false, &g->computed, err);
	if (!rc)
		rc = pst_gpu_event_new(gpu, false, &g->home, err);
	if (rc)
		pst_compute_gpu_close(&g->base);
	else
		*out = &g->base;
	return rc;
}

static void free_marks(struct gpu_marks *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		pst_gpu_event_free(m->event[i]);
	free(m->event);
}

void pst_compute_gpu_close(struct pst_compute *c)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);

	if (!c)
		return;
	free_marks(&g->put);
	free_marks(&g->fetched);
	pst_gpu_event_free(g->home);
	pst_gpu_event_free(g->computed);
	pst_gpu_copies_free(g->within.copies);
	pst_gpu_copies_free(g->out.copies);
	pst_gpu_copies_free(g->in.copies);
	free(g);
}
