/* SPDX-License-Identifier: Apache-2.0 */
/* Streams, events, and waiting for either no longer than somebody wants to. */
#include "runtime/device/gpu_priv.h"

#include <stdlib.h>
#include <time.h>

#define SPINS	    64	   /* looks before the first sleep */
#define SLEEP_FIRST 2000   /* ns */
#define SLEEP_MOST  200000 /* ns */

const char *const pst_gpu_stream_names[PST_GPU_STREAMS] = {"compute", "copies in", "copies out"};

struct pst_gpu_event {
	struct pst_gpu *gpu;
	CUevent event;
	bool timed;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static CUresult query_stream(struct pst_gpu *gpu, void *which)
{
	return gpu->cu->cuStreamQuery(which);
}

static CUresult query_event(struct pst_gpu *gpu, void *which)
{
	return gpu->cu->cuEventQuery(which);
}

/* CUDA_ERROR_NOT_READY after @ms. */
static CUresult watch(struct pst_gpu *gpu, CUresult (*query)(struct pst_gpu *, void *), void *which,
		      uint32_t ms)
{
	uint64_t until = now_ns() + (uint64_t)ms * 1000000;
	long sleep = SLEEP_FIRST;
	CUresult rc;

	for (unsigned int i = 0;; i++) {
		rc = query(gpu, which);
		if (rc != CUDA_ERROR_NOT_READY || now_ns() >= until)
			return rc;
		if (i < SPINS)
			continue;
		nanosleep(&(struct timespec){.tv_nsec = sleep}, NULL);
		sleep = sleep * 2 < SLEEP_MOST ? sleep * 2 : SLEEP_MOST;
	}
}

static int late(struct pst_gpu *gpu, const char *what, uint32_t ms, struct pst_error *err)
{
	char last[64];

	return pst_fail(err, -ETIMEDOUT,
			"cuda:%d: %s is not there after %u ms; %s was launched last; if it is slow "
			"wait longer, if it hangs only the end of this process frees the GPU",
			gpu->info.ordinal, what, ms, pst_gpu_last(gpu, last, sizeof(last)));
}

/* Of one that hangs nothing can be ended: who waits is let go, and says so. */
static int ended(struct pst_gpu *gpu, CUresult rc, const char *what, uint32_t ms,
		 struct pst_error *err)
{
	if (rc == CUDA_ERROR_NOT_READY)
		return late(gpu, what, ms, err);
	return pst_gpu_result(gpu, rc, err, "waiting for %s", what);
}

int pst_gpu_wait(struct pst_gpu *gpu, enum pst_gpu_stream stream, uint32_t ms,
		 struct pst_error *err)
{
	char what[64];
	int rc = pst_gpu_enter(gpu, err);

	if (rc)
		return rc;
	snprintf(what, sizeof(what), "the end of its stream for %s", pst_gpu_stream_names[stream]);
	return ended(gpu, watch(gpu, query_stream, gpu->queue[stream].stream, ms), what, ms, err);
}

/* When a block of work begins, the one before the last has ended. */
static int next_block(struct pst_gpu *gpu, struct pst_gpu_queue *q, enum pst_gpu_stream stream,
		      struct pst_error *err)
{
	CUevent mark = q->mark[q->posted / PST_GPU_BLOCK % 2];
	char what[64];
	int rc;

	snprintf(what, sizeof(what), "room in its stream for %s", pst_gpu_stream_names[stream]);
	rc = ended(gpu, watch(gpu, query_event, mark, gpu->patience_ms), what, gpu->patience_ms,
		   err);
	if (rc)
		return rc;
	return pst_gpu_result(gpu, gpu->cu->cuEventRecord(mark, q->stream), err,
			      "marking its stream for %s", pst_gpu_stream_names[stream]);
}

int pst_gpu_room(struct pst_gpu *gpu, enum pst_gpu_stream stream, struct pst_error *err)
{
	struct pst_gpu_queue *q = &gpu->queue[stream];
	int rc = 0;

	/* what is recorded is not done yet */
	if (atomic_load_explicit(&q->capturing, memory_order_relaxed))
		return 0;
	pthread_mutex_lock(&q->lock);
	if (!(q->posted % PST_GPU_BLOCK))
		rc = next_block(gpu, q, stream, err);
	if (!rc)
		q->posted++;
	pthread_mutex_unlock(&q->lock);
	return rc;
}

static int open_one(struct pst_gpu *gpu, struct pst_gpu_queue *q, int priority,
		    struct pst_error *err)
{
	const struct pst_cuda *cu = gpu->cu;
	int rc = pst_gpu_result(
		gpu, cu->cuStreamCreateWithPriority(&q->stream, CU_STREAM_NON_BLOCKING, priority),
		err, "making a stream");

	for (int i = 0; !rc && i < 2; i++)
		rc = pst_gpu_result(gpu, cu->cuEventCreate(&q->mark[i], CU_EVENT_DISABLE_TIMING),
				    err, "making an event");
	return rc;
}

/* Copies go first: what computes waits for them, never the other way round. */
int pst_gpu_streams_open(struct pst_gpu *gpu, struct pst_error *err)
{
	int least = 0, most = 0, rc = 0;

	if (gpu->cu->cuCtxGetStreamPriorityRange &&
	    gpu->cu->cuCtxGetStreamPriorityRange(&least, &most))
		most = 0;
	for (int i = 0; i < PST_GPU_STREAMS; i++)
		pthread_mutex_init(&gpu->queue[i].lock, NULL);
	for (int i = 0; !rc && i < PST_GPU_STREAMS; i++)
		rc = open_one(gpu, &gpu->queue[i], i == PST_GPU_COMPUTE ? 0 : most, err);
	if (rc)
		pst_gpu_streams_close(gpu);
	return rc;
}

void pst_gpu_streams_close(struct pst_gpu *gpu)
{
	for (int i = PST_GPU_STREAMS; i--;) {
		struct pst_gpu_queue *q = &gpu->queue[i];

		for (int k = 2; k--;)
			if (q->mark[k])
				gpu->cu->cuEventDestroy(q->mark[k]);
		if (q->stream)
			gpu->cu->cuStreamDestroy(q->stream);
		pthread_mutex_destroy(&q->lock);
	}
}

int pst_gpu_event_new(struct pst_gpu *gpu, bool timed, struct pst_gpu_event **out,
		      struct pst_error *err)
{
	struct pst_gpu_event *e;
	int rc = pst_gpu_enter(gpu, err);

	if (rc)
		return rc;
	e = calloc(1, sizeof(*e));
	if (!e)
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory for an event", gpu->info.ordinal);
	e->gpu = gpu;
	e->timed = timed;
	rc = pst_gpu_result(gpu,
			    gpu->cu->cuEventCreate(&e->event, timed ? 0 : CU_EVENT_DISABLE_TIMING),
			    err, "making an event");
	if (rc)
		free(e);
	else
		*out = e;
	return rc;
}

void pst_gpu_event_free(struct pst_gpu_event *event)
{
	if (!event)
		return;
	if (pst_gpu_enter_undo(event->gpu))
		event->gpu->cu->cuEventDestroy(event->event);
	free(event);
}

int pst_gpu_event_record(struct pst_gpu_event *event, enum pst_gpu_stream stream,
			 struct pst_error *err)
{
	struct pst_gpu *gpu = event->gpu;
	int rc = pst_gpu_enter(gpu, err);

	if (!rc)
		rc = pst_gpu_room(gpu, stream, err);
	if (!rc)
		rc = pst_gpu_result(
			gpu, gpu->cu->cuEventRecord(event->event, gpu->queue[stream].stream), err,
			"recording an event in its stream for %s", pst_gpu_stream_names[stream]);
	return rc;
}

int pst_gpu_event_await(struct pst_gpu_event *event, enum pst_gpu_stream stream,
			struct pst_error *err)
{
	struct pst_gpu *gpu = event->gpu;
	int rc = pst_gpu_enter(gpu, err);

	if (!rc)
		rc = pst_gpu_room(gpu, stream, err);
	if (!rc)
		rc = pst_gpu_result(
			gpu, gpu->cu->cuStreamWaitEvent(gpu->queue[stream].stream, event->event, 0),
			err, "having its stream for %s wait for an event",
			pst_gpu_stream_names[stream]);
	return rc;
}

int pst_gpu_event_come(struct pst_gpu_event *event, struct pst_error *err)
{
	struct pst_gpu *gpu = event->gpu;
	int rc = pst_gpu_enter(gpu, err);
	CUresult state;

	if (rc)
		return rc;
	state = gpu->cu->cuEventQuery(event->event);
	if (state == CUDA_ERROR_NOT_READY)
		return 0;
	rc = pst_gpu_result(gpu, state, err, "looking for an event");
	return rc ? rc : 1;
}

int pst_gpu_event_wait(struct pst_gpu_event *event, uint32_t ms, struct pst_error *err)
{
	struct pst_gpu *gpu = event->gpu;
	int rc = pst_gpu_enter(gpu, err);

	return rc ? rc : ended(gpu, watch(gpu, query_event, event->event, ms), "an event", ms, err);
}

int pst_gpu_event_ms(struct pst_gpu_event *from, struct pst_gpu_event *to, float *ms,
		     struct pst_error *err)
{
	struct pst_gpu *gpu = from->gpu;
	int rc = pst_gpu_enter(gpu, err);

	if (rc)
		return rc;
	if (!from->timed || !to->timed)
		return pst_fail(err, -EINVAL,
				"cuda:%d: an event that was made without a clock has no time",
				gpu->info.ordinal);
	return pst_gpu_result(gpu, gpu->cu->cuEventElapsedTime(ms, from->event, to->event), err,
			      "asking for the time between two events");
}
