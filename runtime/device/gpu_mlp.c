/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call has two parts: the networks whose weights are on the device, and then the others. While
 * the first is computed, weights of the second come over, through two places in turn where they lie
 * in fp32 until they are rounded into the cache. Rows go out as soon as their part is done.
 *
 *	IN       rows of part 0 | rows of part 1, weights, weights, ...
 *	COMPUTE                 | part 0 | rounding, rounding, ... | part 1
 *	OUT                               | results of part 0        | results of part 1
 *
 * What does not fit on the device at once is done in halves.
 */
#include "runtime/device/gpu_mlp_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Memory on the device */

static void unlink_weights(struct pst_gpu_mlp *m, struct pst_gpu_weights *w)
{
	*(w->newer ? &w->newer->older : &m->newest) = w->older;
	*(w->older ? &w->older->newer : &m->oldest) = w->newer;
	w->newer = w->older = NULL;
}

static void make_newest(struct pst_gpu_mlp *m, struct pst_gpu_weights *w)
{
	w->older = m->newest;
	*(m->newest ? &m->newest->newer : &m->oldest) = w;
	m->newest = w;
	w->call = m->call;
}

void pst_gpu_mlp_drop(struct pst_gpu_mlp *m, struct pst_gpu_weights *w)
{
	if (!w->block)
		return;
	unlink_weights(m, w);
	pst_gpu_free(m->gpu, w->block);
	m->stat.bytes -= w->bytes;
	*w = (struct pst_gpu_weights){0};
}

/* @bytes, for which weights that this call does not use give way. */
static int take(struct pst_gpu_mlp *m, uint64_t bytes, uint64_t *out, struct pst_error *err)
{
	int rc;

	while ((rc = pst_gpu_alloc(m->gpu, bytes, 0, out, err)) == -ENOMEM && m->oldest &&
	       m->oldest->call != m->call) {
		err->code = 0;
		m->stat.evicted++;
		pst_gpu_mlp_drop(m, m->oldest);
	}
	return rc;
}

/* The same until the call ends. */
static int hold(struct pst_gpu_mlp *m, uint64_t bytes, uint64_t *out, struct pst_error *err)
{
	int rc = take(m, bytes ? bytes : 1, out, err);

	if (!rc)
		m->block[m->blocks++] = *out;
	return rc;
}

static void let_go(struct pst_gpu_mlp *m)
{
	while (m->blocks)
		pst_gpu_free(m->gpu, m->block[--m->blocks]);
}

static int hold_part(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		     struct pst_error *err)
{
	uint64_t rows16 = p->rows * c->hidden * 2, inner16 = p->rows * c->inter * 2;
	struct {
		uint64_t *at, bytes;
		bool backward;
	} want[] = {
		{&p->table, m->table.bytes, false},
		{&p->x, 2 * rows16, false},
		{&p->x16, rows16, false},
		{&p->a, inner16, false},
		{&p->y, 2 * rows16, false},
		{&p->kept, 2 * inner16, true},
		{&p->dy, 2 * rows16, true},
		{&p->dy16, rows16, true},
		{&p->dg, inner16, true},
		{&p->du, inner16, true},
		{&p->dw, p->n * MATRICES * matrix_elements(c) * 4, true},
	};

	for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
		int rc = want[i].backward && !c->backward ? 0
							  : hold(m, want[i].bytes, want[i].at, err);

		if (rc)
			return rc;
	}
	return 0;
}

/* Open and close */

static int make_lists(struct pst_gpu_mlp *m, struct pst_error *err)
{
	uint64_t off = ((m->most + 1) * sizeof(int32_t) + 15) / 16 * 16;
	uint64_t addresses = MATRICES * m->most * sizeof(uint64_t);
	char *at;
	int rc;

	m->table = (struct mlp_table){
		.bytes = off + 2 * addresses, .weights = off, .grads = off + addresses};
	m->lists_bytes = (MLP_PARTS * m->table.bytes + 4095) & ~4095ull;
	at = mmap(NULL, m->lists_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		return pst_fail(err, -ENOMEM, "no memory for lists of experts");
	rc = pst_gpu_register(m->gpu, at, m->lists_bytes, 0, -1, err);
	if (rc)
		munmap(at, m->lists_bytes);
	else
		m->lists = at;
	return rc;
}

static int make_events(struct pst_gpu_mlp *m, struct pst_error *err)
{
	struct pst_gpu_event **event[] = {&m->came,	  &m->done,	  &m->arrived[0],
					  &m->arrived[1], &m->rounded[0], &m->rounded[1]};
	int rc = 0;

	for (size_t i = 0; i < sizeof(event) / sizeof(*event) && !rc; i++)
		rc = pst_gpu_event_new(m->gpu, false, event[i], err);
	return rc;
}

static int load_kernels(struct pst_gpu_mlp *m, struct pst_error *err)
{
	static const enum pst_cuda_kernel used[] = {
		PST_CUDA_to_bf16,	   PST_CUDA_experts_up_16,   PST_CUDA_experts_up_64,
		PST_CUDA_experts_up_128,   PST_CUDA_experts_down_16, PST_CUDA_experts_down_64,
		PST_CUDA_experts_down_128, PST_CUDA_experts_da_64,   PST_CUDA_experts_da_128,
		PST_CUDA_experts_dx_64,	   PST_CUDA_experts_dx_128,  PST_CUDA_experts_dw,
	};
	int rc = 0;

	for (size_t i = 0; i < sizeof(used) / sizeof(*used) && !rc; i++)
		rc = pst_gpu_kernels_load(m->kernels, used[i], err);
	return rc;
}

int pst_gpu_mlp_open(struct pst_gpu *gpu, struct pst_gpu_kernels *kernels, size_t most, uint32_t ms,
		     struct pst_gpu_mlp **out, struct pst_error *err)
{
	struct pst_gpu_mlp *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return pst_fail(err, -ENOMEM, "no memory for experts on a GPU");
	m->gpu = gpu;
	m->kernels = kernels;
	m->most = most;
	m->ms = ms;
	m->order = calloc(most, sizeof(*m->order));
	rc = m->order ? load_kernels(m, err)
		      : pst_fail(err, -ENOMEM, "no memory for experts on a GPU");
	if (!rc)
		rc = make_lists(m, err);
	if (!rc)
		rc = make_events(m, err);
	/* of one part: lists, x and dy; or weights; or results and gradients */
	if (!rc)
		rc = pst_gpu_copies_new(gpu, 1 + (1 + MATRICES) * most, &m->copies, err);
	if (rc)
		pst_gpu_mlp_close(m);
	else
		*out = m;
	return rc;
}

void pst_gpu_mlp_close(struct pst_gpu_mlp *m)
{
	struct pst_error ignored;

	if (!m)
		return;
	while (m->newest)
		pst_gpu_mlp_drop(m, m->newest);
	pst_gpu_copies_free(m->copies);
	pst_gpu_event_free(m->came);
	pst_gpu_event_free(m->done);
	for (int i = 0; i < MLP_PLACES; i++) {
		pst_gpu_event_free(m->arrived[i]);
		pst_gpu_event_free(m->rounded[i]);
	}
	if (m->lists) {
		pst_gpu_unregister(m->gpu, m->lists, &ignored);
		munmap(m->lists, m->lists_bytes);
	}
	free(m->order);
	free(m);
}

/* What is asked for */

static int check(const struct pst_gpu_mlp *m, struct mlp_call *c, struct pst_error *err)
{
	if (c->n > m->most)
		return pst_fail(err, -EINVAL, "%zu experts at once, at most %zu can be", c->n,
				m->most);
	for (size_t i = 0; i < c->n; i++)
		if (c->jobs[i].hidden != c->hidden || c->jobs[i].inter != c->inter)
			return pst_fail(err, -EINVAL, "experts of different shapes in one call");
	if (!c->hidden || !c->inter || c->hidden % 8 || c->inter % 8)
		return pst_fail(err, -EINVAL,
				"experts of %zu x %zu do not go on a GPU: both must be multiples "
				"of 8; use --device cpu",
				c->hidden, c->inter);
	return 0;
}

/* Part 0: what is there; part 1: what is not. */
static void sort_out(struct pst_gpu_mlp *m, const struct mlp_call *c,
		     struct mlp_part part[MLP_PARTS])
{
	size_t k = 0;

	for (int pass = 0; pass < MLP_PARTS; pass++) {
		struct mlp_part *p = &part[pass];

		p->job = m->order + k;
		for (size_t i = 0; i < c->n; i++) {
			struct pst_gpu_weights *w = c->weights[i];
			size_t rows = c->jobs[i].rows;

			if ((w->block && w->version == c->version) == pass)
				continue;
			m->order[k++] = (uint32_t)i;
			p->n++;
			p->rows += rows;
			p->most_rows = rows > p->most_rows ? rows : p->most_rows;
		}
		p->lists = m->lists + (size_t)pass * m->table.bytes;
	}
}

static int find_room(struct pst_gpu_mlp *m, const struct mlp_call *c,
		     const struct mlp_part part[MLP_PARTS], struct pst_error *err)
{
	int rc = 0;

	for (size_t i = 0; i < c->n; i++)
		if (c->weights[i]->block) {
			unlink_weights(m, c->weights[i]);
			make_newest(m, c->weights[i]);
		}
	m->stat.hits += part[0].n;
	m->stat.misses += part[1].n;
	for (size_t i = 0; i < part[1].n && !rc; i++) {
		struct pst_gpu_weights *w = c->weights[part[1].job[i]];

		if (w->block) {
			w->version = MLP_NO_VERSION;
			continue;
		}
		rc = take(m, MATRICES * matrix_elements(c) * 2, &w->block, err);
		if (rc)
			break;
		w->version = MLP_NO_VERSION;
		w->bytes = MATRICES * matrix_elements(c) * 2;
		m->stat.bytes += w->bytes;
		make_newest(m, w);
	}
	return rc;
}

/* The way of one part */

static int copy_in(struct pst_gpu_mlp *m, uint64_t to, const void *from, uint64_t bytes,
		   struct pst_error *err)
{
	return bytes ? pst_gpu_copies_add(m->copies, to, (uintptr_t)from, bytes, err) : 0;
}

static int copy_out(struct pst_gpu_mlp *m, void *to, uint64_t from, uint64_t bytes,
		    struct pst_error *err)
{
	return bytes ? pst_gpu_copies_add(m->copies, (uintptr_t)to, from, bytes, err) : 0;
}

static void write_lists(const struct pst_gpu_mlp *m, const struct mlp_call *c,
			const struct mlp_part *p)
{
	uint64_t *weights = (uint64_t *)(p->lists + m->table.weights);
	uint64_t *grads = (uint64_t *)(p->lists + m->table.grads);
	uint64_t elements = matrix_elements(c);
	int32_t *off = (int32_t *)p->lists;

	off[0] = 0;
	for (size_t i = 0; i < p->n; i++) {
		const struct pst_gpu_weights *w = c->weights[p->job[i]];

		off[i + 1] = off[i] + (int32_t)c->jobs[p->job[i]].rows;
		for (size_t k = 0; k < MATRICES; k++) {
			weights[k * m->most + i] = w->block + k * elements * 2;
			grads[k * m->most + i] = p->dw + (i * MATRICES + k) * elements * 4;
		}
	}
}

static int send_rows(struct pst_gpu_mlp *m, const struct mlp_call *c, const struct mlp_part *p,
		     struct pst_error *err)
{
	uint64_t at = 0;
	int rc;

	write_lists(m, c, p);
	rc = copy_in(m, p->table, p->lists, m->table.bytes, err);
	for (size_t i = 0; i < p->n && !rc; i++) {
		const struct pst_mlp_job *j = &c->jobs[p->job[i]];
		uint64_t bytes = (uint64_t)j->rows * c->hidden * 4;

		rc = copy_in(m, p->x + at, j->x, bytes, err);
		if (!rc && c->backward)
			rc = copy_in(m, p->dy + at, j->dy, bytes, err);
		at += bytes;
	}
	return rc ? rc : pst_gpu_copies_send(m->copies, PST_GPU_IN, err);
}

static int then(struct pst_gpu_event *event, enum pst_gpu_stream after, enum pst_gpu_stream next,
		struct pst_error *err)
{
	int rc = pst_gpu_event_record(event, after, err);

	return rc ? rc : pst_gpu_event_await(event, next, err);
}

/* The @i-th that is missing, by place @i % MLP_PLACES. */
static int send_weights(struct pst_gpu_mlp *m, const struct mlp_call *c, const struct mlp_part *p,
			size_t i, uint64_t place, struct pst_error *err)
{
	const struct pst_mlp_job *j = &c->jobs[p->job[i]];
	const float *from[MATRICES] = {j->gate, j->up, j->down};
	uint64_t elements = matrix_elements(c);
	int rc = 0;

	if (i >= MLP_PLACES)
		rc = pst_gpu_event_await(m->rounded[i % MLP_PLACES], PST_GPU_IN, err);
	for (size_t k = 0; k < MATRICES && !rc; k++)
		rc = copy_in(m, place + k * elements * 4, from[k], elements * 4, err);
	if (!rc)
		rc = pst_gpu_copies_send(m->copies, PST_GPU_IN, err);
	if (!rc)
		rc = then(m->arrived[i % MLP_PLACES], PST_GPU_IN, PST_GPU_COMPUTE, err);
	if (!rc)
		rc = pst_gpu_mlp_round(m, c->weights[p->job[i]]->block, place, MATRICES * elements,
				       err);
	return rc ? rc : pst_gpu_event_record(m->rounded[i % MLP_PLACES], PST_GPU_COMPUTE, err);
}

static int bring_weights(struct pst_gpu_mlp *m, const struct mlp_call *c, const struct mlp_part *p,
			 struct pst_error *err)
{
	uint64_t bytes = MATRICES * matrix_elements(c) * 4, place[MLP_PLACES];
	int rc = 0;

	for (size_t i = 0; i < MLP_PLACES && i < p->n && !rc; i++)
		rc = hold(m, bytes, &place[i], err);
	for (size_t i = 0; i < p->n && !rc; i++)
		rc = send_weights(m, c, p, i, place[i % MLP_PLACES], err);
	return rc;
}

static int fetch_results(struct pst_gpu_mlp *m, const struct mlp_call *c, const struct mlp_part *p,
			 struct pst_error *err)
{
	uint64_t at = 0, matrix = matrix_elements(c) * 4;
	int rc = 0;

	for (size_t i = 0; i < p->n && !rc; i++) {
		const struct pst_mlp_job *j = &c->jobs[p->job[i]];
		float *grads[MATRICES] = {j->dgate, j->dup, j->ddown};
		uint64_t bytes = (uint64_t)j->rows * c->hidden * 4;

		rc = copy_out(m, c->backward ? j->dx : j->y, p->y + at, bytes, err);
		for (size_t k = 0; k < MATRICES && c->backward && !rc; k++)
			rc = copy_out(m, grads[k], p->dw + (i * MATRICES + k) * matrix, matrix,
				      err);
		at += bytes;
	}
	return rc ? rc : pst_gpu_copies_send(m->copies, PST_GPU_OUT, err);
}

/* Its rows are on their way. */
static int compute(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		   struct pst_error *err)
{
	int rc = pst_gpu_mlp_run(m, c, p, err);

	if (!rc)
		rc = then(m->done, PST_GPU_COMPUTE, PST_GPU_OUT, err);
	return rc ? rc : fetch_results(m, c, p, err);
}

static int start(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		 struct pst_error *err)
{
	int rc = hold_part(m, c, p, err);

	if (!rc)
		rc = send_rows(m, c, p, err);
	return rc ? rc : then(m->came, PST_GPU_IN, PST_GPU_COMPUTE, err);
}

static int run_parts(struct pst_gpu_mlp *m, const struct mlp_call *c,
		     struct mlp_part part[MLP_PARTS], struct pst_error *err)
{
	int rc = 0;

	if (part[0].n)
		rc = start(m, c, &part[0], err);
	if (!rc && part[0].n)
		rc = compute(m, c, &part[0], err);
	if (!rc && part[1].n)
		rc = start(m, c, &part[1], err);
	if (!rc && part[1].n)
		rc = bring_weights(m, c, &part[1], err);
	if (!rc && part[1].n)
		rc = compute(m, c, &part[1], err);
	return rc;
}

/* Nothing of it is under way when this returns, or the GPU is dead or hangs. */
static int finish(struct pst_gpu_mlp *m, struct pst_error *err)
{
	int rc = 0;

	for (int s = 0; s < PST_GPU_STREAMS && !rc; s++)
		rc = pst_gpu_wait(m->gpu, (enum pst_gpu_stream)s, m->ms, err);
	return rc;
}

static int run_once(struct pst_gpu_mlp *m, const struct mlp_call *c, struct pst_error *err)
{
	struct mlp_part part[MLP_PARTS] = {{0}};
	struct pst_error late = {0};
	int rc, waited;

	m->call++;
	sort_out(m, c, part);
	rc = find_room(m, c, part, err);
	if (!rc)
		rc = run_parts(m, c, part, err);
	waited = finish(m, rc ? &late : err);
	/* it may still read and write what it has: nobody gets that again */
	m->stuck = waited;
	if (!waited)
		let_go(m);
	if (rc || waited)
		return rc ? rc : waited;
	for (size_t i = 0; i < part[1].n; i++)
		c->weights[part[1].job[i]]->version = c->version;
	return 0;
}

/* In halves, then, if there is no room for all at once. */
static int run(struct pst_gpu_mlp *m, const struct mlp_call *c, struct pst_error *err)
{
	struct mlp_call half = *c;
	int rc = run_once(m, c, err);

	if (rc != -ENOMEM || c->n < 2)
		return rc;
	err->code = 0;
	half.n = c->n / 2;
	rc = run(m, &half, err);
	if (rc)
		return rc;
	half.jobs += half.n;
	half.weights += half.n;
	half.n = c->n - half.n;
	return run(m, &half, err);
}

static int call(struct pst_gpu_mlp *m, const struct pst_mlp_job *jobs,
		struct pst_gpu_weights *const *weights, size_t njobs, uint64_t version,
		bool backward, struct pst_error *err)
{
	struct mlp_call c = {.jobs = jobs,
			     .weights = weights,
			     .n = njobs,
			     .version = version,
			     .backward = backward};
	int rc;

	if (m->stuck)
		return pst_fail(err, -EIO, "what a GPU was given before hangs; end this process");
	if (!njobs)
		return 0;
	c.hidden = jobs->hidden;
	c.inter = jobs->inter;
	rc = check(m, &c, err);
	return rc ? rc : run(m, &c, err);
}

int pst_gpu_mlp_forward(struct pst_gpu_mlp *m, const struct pst_mlp_job *jobs,
			struct pst_gpu_weights *const *weights, size_t njobs, uint64_t version,
			struct pst_error *err)
{
	return call(m, jobs, weights, njobs, version, false, err);
}

int pst_gpu_mlp_backward(struct pst_gpu_mlp *m, const struct pst_mlp_job *jobs,
			 struct pst_gpu_weights *const *weights, size_t njobs, uint64_t version,
			 struct pst_error *err)
{
	return call(m, jobs, weights, njobs, version, true, err);
}

bool pst_gpu_mlp_stuck(const struct pst_gpu_mlp *m)
{
	return m->stuck;
}

void pst_gpu_mlp_stat(const struct pst_gpu_mlp *m, struct pst_gpu_mlp_stat *out)
{
	*out = m->stat;
}
