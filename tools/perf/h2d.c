/* SPDX-License-Identifier: Apache-2.0 */
/*
 * h2d: what the copy engines of a GPU give to pinned memory: in, out, and both at once, each copy
 * by a call of its own; and batches, where many copies are one call.
 *
 * Host memory is two parts, one that is copied from and one that is copied to; so is the
 * device's. What arrives is compared with what was sent, after each row.
 */
#include "tools/perf/gpu.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SPAN (64ull << 20) /* memory that is copied in turn, where a copy is smaller */

enum { IN = 1, OUT = 2, BATCH = 4 };

static const struct way {
	const char *name;
	int what;
} ways[] = {
	{"in", IN},
	{"out", OUT},
	{"both", IN | OUT},
	{"in-batch", IN | BATCH},
	{"out-batch", OUT | BATCH},
};

struct copier {
	struct perf_gpu g;
	const struct perf_plan *plan;
	uint64_t part; /* bytes of each of the two parts, here and there */
	uint64_t size;
	size_t slots; /* copies under way */
	CUdeviceptr *to, *from;
	size_t *len;
	CUevent done[PERF_GPU_STREAMS][2];
};

static CUdeviceptr host(const struct copier *c, bool back)
{
	return (uintptr_t)c->g.host.at + (back ? c->part : 0);
}

static CUdeviceptr device(const struct copier *c, bool out)
{
	return c->g.memory + (out ? c->part : 0);
}

static int post_each(struct copier *c, CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s,
		     struct pst_error *err)
{
	int rc = 0;

	for (size_t i = 0; !rc && i < n; i++)
		rc = perf_gpu_result(
			&c->g,
			c->g.cu->cuMemcpyAsync(to + i * c->size, from + i * c->size, c->size, s),
			"copying", err);
	return rc;
}

static int post_batch(struct copier *c, CUdeviceptr to, CUdeviceptr from, size_t n, CUstream s,
		      struct pst_error *err)
{
	CUmemcpyAttributes attrs = {.src_access_order = CU_MEMCPY_SRC_ACCESS_ORDER_ANY};
	size_t first = 0;

	for (size_t i = 0; i < n; i++) {
		c->to[i] = to + i * c->size;
		c->from[i] = from + i * c->size;
		c->len[i] = c->size;
	}
	return perf_gpu_result(
		&c->g, c->g.cu->cuMemcpyBatchAsync(c->to, c->from, c->len, n, &attrs, &first, 1, s),
		"copying a batch", err);
}

static int post(struct copier *c, int what, size_t n, struct pst_error *err)
{
	int (*fn)(struct copier *, CUdeviceptr, CUdeviceptr, size_t, CUstream, struct pst_error *) =
		what & BATCH ? post_batch : post_each;
	int rc = 0;

	if (what & IN)
		rc = fn(c, device(c, false), host(c, false), n, c->g.stream[0], err);
	if (!rc && what & OUT)
		rc = fn(c, host(c, true), device(c, true), n, c->g.stream[1], err);
	return rc;
}

/* A round begins when the one before the last is done: one runs, and one is ready behind it. */
static int begin_round(struct copier *c, uint64_t round, struct pst_error *err)
{
	int rc = 0;

	for (int i = 0; !rc && i < PERF_GPU_STREAMS; i++)
		rc = perf_gpu_wait_event(&c->g, c->done[i][round % 2], err);
	return rc;
}

static int end_round(struct copier *c, uint64_t round, struct pst_error *err)
{
	int rc = 0;

	for (int i = 0; !rc && i < PERF_GPU_STREAMS; i++)
		rc = perf_gpu_result(&c->g,
				     c->g.cu->cuEventRecord(c->done[i][round % 2], c->g.stream[i]),
				     "marking its work", err);
	return rc;
}

static int drain(struct copier *c, struct pst_error *err)
{
	int rc = 0;

	for (int i = 0; !rc && i < PERF_GPU_STREAMS; i++)
		rc = perf_gpu_wait(&c->g, c->g.stream[i], err);
	return rc;
}

/* @iters copies each way, or as many as fit into @span ticks; how many, and how long. */
static int copy(struct copier *c, int what, uint64_t iters, uint64_t span, uint64_t *made,
		uint64_t *took, struct pst_error *err)
{
	uint64_t start = perf_ticks(), done = 0;
	int rc = 0;

	for (uint64_t round = 0; !rc; round++) {
		size_t n = span || iters - done > c->slots ? c->slots : (size_t)(iters - done);

		if (span ? perf_ticks() - start >= span : done == iters)
			break;
		rc = begin_round(c, round, err);
		if (!rc)
			rc = post(c, what, n, err);
		if (!rc)
			rc = end_round(c, round, err);
		done += n;
	}
	if (!rc)
		rc = drain(c, err);
	*made = done;
	*took = perf_ticks() - start;
	return rc;
}

/* Is what was copied there, and here? */
static int check(struct copier *c, int what, uint64_t copies, struct pst_error *err)
{
	unsigned char *sent = c->g.host.at, *back = sent + c->part;
	uint64_t used = (copies < c->slots ? copies : c->slots) * c->size;
	int rc = 0;

	if (what & OUT && memcmp(sent, back, used))
		return pst_fail(err, -EIO,
				"cuda:%d: what came out of it is not what is in its memory",
				c->g.ordinal);
	if (!(what & IN))
		return 0;
	memset(back, 0, used);
	rc = perf_gpu_result(
		&c->g,
		c->g.cu->cuMemcpyAsync(host(c, true), device(c, false), used, c->g.stream[1]),
		"copying back", err);
	if (!rc)
		rc = drain(c, err);
	if (!rc && memcmp(sent, back, used))
		rc = pst_fail(err, -EIO, "cuda:%d: what is in its memory is not what was sent",
			      c->g.ordinal);
	return rc;
}

static int one_way(struct copier *c, const struct way *way, struct perf_report *report,
		   struct pst_error *err)
{
	const struct perf_plan *plan = c->plan;
	uint64_t iters = perf_iterations(plan, c->size), warm = perf_warm_up(plan, iters);
	uint64_t span = plan->duration > 0 ? perf_ticks_of(plan->duration) : 0, made, took = 0;
	struct perf_row row;
	int rc;

	memset(c->g.host.at + c->part, 0, c->part);
	rc = copy(c, way->what, warm, 0, &made, &took, err);
	if (!rc)
		rc = copy(c, way->what, iters, span, &made, &took, err);
	if (!rc)
		rc = check(c, way->what, made, err);
	if (rc)
		return rc;
	row = (struct perf_row){
		.bytes = c->size,
		.iters = made,
		.seconds = perf_seconds(took),
		.moved = (double)c->size * (double)made *
			 ((way->what & (IN | OUT)) == (IN | OUT) ? 2 : 1),
		.halved = 1,
		.label = way->name,
	};
	perf_report_row(report, &row);
	return 0;
}

static int one_size(struct copier *c, uint64_t size, struct perf_report *report,
		    struct pst_error *err)
{
	uint64_t fit = c->part / size;
	int rc = 0;

	c->size = size;
	c->slots = fit < c->plan->depth ? (size_t)fit : c->plan->depth;
	for (size_t i = 0; !rc && i < sizeof(ways) / sizeof(*ways); i++)
		if (!(ways[i].what & BATCH) || c->g.cu->cuMemcpyBatchAsync)
			rc = one_way(c, &ways[i], report, err);
	return rc;
}

static uint64_t part_of(const struct perf_plan *plan, uint64_t most)
{
	uint64_t span = most * plan->depth < SPAN ? most * plan->depth : SPAN;

	/* the second part begins on a page, too */
	return ((span > most ? span : most) + 4095) / 4096 * 4096;
}

static int set_up(struct copier *c, uint64_t most, struct pst_error *err)
{
	size_t depth = c->plan->depth;
	int rc;

	c->part = part_of(c->plan, most);
	c->to = calloc(depth, sizeof(*c->to));
	c->from = calloc(depth, sizeof(*c->from));
	c->len = calloc(depth, sizeof(*c->len));
	if (!c->to || !c->from || !c->len)
		return pst_fail(err, -ENOMEM, "out of memory");
	rc = perf_gpu_memory(&c->g, 2 * c->part, c->plan->page, 2 * c->part, err);
	for (int i = 0; !rc && i < 2 * PERF_GPU_STREAMS; i++)
		rc = perf_gpu_result(
			&c->g,
			c->g.cu->cuEventCreate(&c->done[i / 2][i % 2], CU_EVENT_DISABLE_TIMING),
			"making an event", err);
	if (rc)
		return rc;
	perf_fill_pattern(&c->g.host);
	rc = perf_gpu_result(
		&c->g,
		c->g.cu->cuMemcpyAsync(device(c, true), host(c, false), c->part, c->g.stream[0]),
		"copying", err);
	return rc ? rc : drain(c, err);
}

static void tear_down(struct copier *c)
{
	for (int i = 0; !c->g.stuck && i < 2 * PERF_GPU_STREAMS; i++)
		if (c->done[i / 2][i % 2])
			c->g.cu->cuEventDestroy(c->done[i / 2][i % 2]);
	perf_gpu_close(&c->g);
	free(c->to);
	free(c->from);
	free(c->len);
}

int perf_run_h2d(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	uint64_t most = plan->all ? perf_all_max(plan) : plan->size;
	struct copier c = {.plan = plan};
	int rc = perf_gpu_open(plan, &c.g, err);

	if (rc)
		return rc;
	rc = set_up(&c, most, err);
	if (!rc) {
		perf_report_gpu(report, &c.g);
		if (!c.g.cu->cuMemcpyBatchAsync)
			fprintf(report->out, "# no batches: the driver is older than 580 "
					     "(CUDA 13.0)\n");
	}
	for (uint64_t size = plan->all ? 2 : plan->size; !rc && size <= most; size *= 2) {
		rc = one_size(&c, size, report, err);
		if (!plan->all)
			break;
	}
	tear_down(&c);
	return rc;
}
