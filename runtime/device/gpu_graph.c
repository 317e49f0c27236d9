/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs by bucket: recorded once each, launched as one piece, and dropped when others are used. */
#include "runtime/device/gpu_priv.h"

#include <stdlib.h>
#include <string.h>

struct graph {
	char name[64];
	uint64_t bucket, used; /* @used: a counter when it was launched last; 0: an empty place */
	CUgraphExec exec;
};

struct pst_gpu_graphs {
	struct pst_gpu *gpu;
	size_t most;
	uint64_t uses;
	struct graph *graph;
};

int pst_gpu_graphs_new(struct pst_gpu *gpu, size_t most, struct pst_gpu_graphs **out,
		       struct pst_error *err)
{
	struct pst_gpu_graphs *g = calloc(1, sizeof(*g));

	if (!most)
		most = 1;
	if (g)
		g->graph = calloc(most, sizeof(*g->graph));
	if (!g || !g->graph) {
		free(g);
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory for %zu graphs",
				gpu->info.ordinal, most);
	}
	g->gpu = gpu;
	g->most = most;
	*out = g;
	return 0;
}

/* One that runs is freed by the driver when it has ended. */
static void drop(struct pst_gpu_graphs *g, struct graph *e)
{
	if (!e->used)
		return;
	pst_gpu_forget(g->gpu, e->name);
	if (pst_gpu_enter_undo(g->gpu))
		g->gpu->cu->cuGraphExecDestroy(e->exec);
	e->used = 0;
}

void pst_gpu_graphs_free(struct pst_gpu_graphs *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->most; i++)
		drop(g, &g->graph[i]);
	free(g->graph);
	free(g);
}

/* That of @bucket, or the place that it is to have. */
static struct graph *find(struct pst_gpu_graphs *g, uint64_t bucket)
{
	struct graph *oldest = &g->graph[0];

	for (size_t i = 0; i < g->most; i++) {
		if (g->graph[i].used && g->graph[i].bucket == bucket)
			return &g->graph[i];
		if (g->graph[i].used < oldest->used)
			oldest = &g->graph[i];
	}
	return oldest;
}

/* Also when recording fails a capture is ended, and what it has is thrown away. */
static int capture(struct pst_gpu *gpu, enum pst_gpu_stream stream, uint64_t bucket,
		   pst_gpu_record_fn *record, void *ctx, CUgraph *out, struct pst_error *err)
{
	struct pst_gpu_queue *q = &gpu->queue[stream];
	CUgraph graph = NULL;
	CUresult ended;
	int rc = pst_gpu_result(
		gpu, gpu->cu->cuStreamBeginCapture(q->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
		err, "beginning to record a graph");

	if (rc)
		return rc;
	atomic_store(&q->capturing, true);
	rc = record(ctx, stream, bucket, err);
	atomic_store(&q->capturing, false);
	ended = gpu->cu->cuStreamEndCapture(q->stream, &graph);
	if (!rc)
		rc = pst_gpu_result(gpu, ended, err, "recording the graph of bucket %llu",
				    (unsigned long long)bucket);
	if (rc && !ended && graph)
		gpu->cu->cuGraphDestroy(graph);
	if (!rc)
		*out = graph;
	return rc;
}

static int make(struct pst_gpu_graphs *g, struct graph *e, enum pst_gpu_stream stream,
		uint64_t bucket, pst_gpu_record_fn *record, void *ctx, struct pst_error *err)
{
	struct pst_gpu *gpu = g->gpu;
	CUgraphExec exec = NULL;
	CUgraph graph = NULL;
	int rc = capture(gpu, stream, bucket, record, ctx, &graph, err);

	if (rc)
		return rc;
	rc = pst_gpu_result(gpu, gpu->cu->cuGraphInstantiateWithFlags(&exec, graph, 0), err,
			    "making the graph of bucket %llu", (unsigned long long)bucket);
	gpu->cu->cuGraphDestroy(graph);
	if (rc)
		return rc;
	drop(g, e);
	*e = (struct graph){.bucket = bucket, .exec = exec, .used = ++g->uses};
	snprintf(e->name, sizeof(e->name), "the graph of bucket %llu", (unsigned long long)bucket);
	gpu->captures++;
	return 0;
}

int pst_gpu_graph_launch(struct pst_gpu_graphs *g, enum pst_gpu_stream stream, uint64_t bucket,
			 pst_gpu_record_fn *record, void *ctx, struct pst_error *err)
{
	struct pst_gpu *gpu = g->gpu;
	struct graph *e = find(g, bucket);
	int rc = pst_gpu_enter(gpu, err);

	if (!rc && (!e->used || e->bucket != bucket))
		rc = make(g, e, stream, bucket, record, ctx, err);
	if (!rc)
		rc = pst_gpu_room(gpu, stream, err);
	if (rc)
		return rc;
	e->used = ++g->uses;
	atomic_store(&gpu->last, e->name);
	rc = pst_gpu_result(gpu, gpu->cu->cuGraphLaunch(e->exec, gpu->queue[stream].stream), err,
			    "launching %s", e->name);
	gpu->graph_launches += !rc;
	return rc;
}
