/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs of the stand-in: what one stream was given between two calls, to be done again. */
#include "selftests/gpu/libcuda.h"

#include <stdlib.h>

/* Under the lock, as the next. */
static struct cuda_graph *new_graph(struct cuda_gpu *gpu)
{
	struct cuda_graph *g = calloc(1, sizeof(*g));

	if (g) {
		TAILQ_INIT(&g->tasks);
		g->gpu = gpu;
		cuda.s->graphs++;
		LIST_INSERT_HEAD(&cuda.graphs, g, on_list);
	}
	return g;
}

static void free_graph(struct cuda_graph *g)
{
	struct task *t;

	while (g && (t = TAILQ_FIRST(&g->tasks))) {
		TAILQ_REMOVE(&g->tasks, t, on_queue);
		cuda_task_free(t);
	}
	if (!g)
		return;
	LIST_REMOVE(g, on_list);
	cuda.s->graphs--;
	free(g);
}

/* A copy of @t at the end of @g. */
static uint32_t append(struct cuda_graph *g, const struct task *t)
{
	struct task *copy = cuda_task_copy(t);

	if (!copy)
		return CUDA_ERROR_OUT_OF_MEMORY;
	copy->gpu = g->gpu;
	TAILQ_INSERT_TAIL(&g->tasks, copy, on_queue);
	return 0;
}

uint32_t cuda_capture(struct cuda_stream *s, const struct task *t)
{
	/* events of other streams, and graphs in graphs, are not served */
	if (t->event || t->graph) {
		s->invalid = true;
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	}
	return append(s->capture, t);
}

API CUresult cuStreamBeginCapture_v2(CUstream handle, int mode)
{
	struct cuda_stream *s;
	uint32_t rc = 0;

	ENTER_GPU(cuStreamBeginCapture);
	(void)mode;
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	if (!s)
		rc = CUDA_ERROR_INVALID_HANDLE;
	else if (!s->index)
		rc = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	else if (s->capture)
		rc = CUDA_ERROR_ILLEGAL_STATE;
	else if (!(s->capture = new_graph(gpu)))
		rc = CUDA_ERROR_OUT_OF_MEMORY;
	else
		s->invalid = false;
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuStreamEndCapture(CUstream handle, CUgraph *to)
{
	struct cuda_stream *s;
	uint32_t rc = 0;

	ENTER_GPU(cuStreamEndCapture);
	*to = NULL;
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	if (!s || !s->capture) {
		rc = s ? CUDA_ERROR_ILLEGAL_STATE : CUDA_ERROR_INVALID_HANDLE;
	} else if (s->invalid) {
		rc = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
		free_graph(s->capture);
		s->capture = NULL;
	} else {
		*to = s->capture;
		s->capture = NULL;
	}
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuStreamIsCapturing(CUstream handle, int *to)
{
	struct cuda_stream *s;

	ENTER_GPU(cuStreamIsCapturing);
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	if (s)
		*to = !s->capture ? 0 : s->invalid ? 2 : 1;
	pthread_mutex_unlock(&cuda.lock);
	return s ? 0 : CUDA_ERROR_INVALID_HANDLE;
}

API CUresult cuGraphInstantiateWithFlags(CUgraphExec *to, CUgraph from, unsigned long long flags)
{
	struct cuda_graph *g;
	struct task *t;
	uint32_t rc = 0;

	ENTER_GPU(cuGraphInstantiateWithFlags);
	if (!from || flags)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	g = new_graph(gpu);
	if (!g)
		rc = CUDA_ERROR_OUT_OF_MEMORY;
	TAILQ_FOREACH(t, &from->tasks, on_queue)
	{
		rc = rc ? rc : append(g, t);
	}
	if (rc)
		free_graph(g);
	else
		*to = g;
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

/* One piece of work of its stream; the first failure ends it. */
static uint32_t run_graph(struct task *whole)
{
	struct task *t;

	TAILQ_FOREACH(t, &whole->graph->tasks, on_queue)
	{
		cuda_task_run(t);
	}
	return 0;
}

API CUresult cuGraphLaunch(CUgraphExec g, CUstream s)
{
	ENTER_GPU(cuGraphLaunch);
	if (!g)
		return CUDA_ERROR_INVALID_VALUE;
	return cuda_post(gpu, s, &(struct task){.run = run_graph, .graph = g});
}

API CUresult cuGraphExecDestroy(CUgraphExec g)
{
	ENTER(cuGraphExecDestroy);
	if (!g)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	cuda_drain_all(g->gpu);
	free_graph(g);
	pthread_mutex_unlock(&cuda.lock);
	return 0;
}

API CUresult cuGraphDestroy(CUgraph g)
{
	ENTER(cuGraphDestroy);
	if (!g)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	free_graph(g);
	pthread_mutex_unlock(&cuda.lock);
	return 0;
}
