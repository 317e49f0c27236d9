/* SPDX-License-Identifier: Apache-2.0 */
/* Streams and events of the stand-in: work is done later, in order, by a thread per stream. */
#include "selftests/gpu/libcuda.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Tasks. */

struct task *cuda_task_copy(const struct task *t)
{
	struct task *copy = malloc(sizeof(*copy));

	if (!copy)
		return NULL;
	*copy = *t;
	if (copy->event)
		copy->event->users++;
	return copy;
}

static void release_event(struct cuda_event *e)
{
	if (!e || --e->users)
		return;
	LIST_REMOVE(e, on_list);
	free(e);
}

void cuda_task_free(struct task *t)
{
	release_event(t->event);
	free(t);
}

void cuda_task_run(struct task *t)
{
	struct cuda_gpu *gpu = t->gpu;
	uint32_t rc, told;

	pthread_mutex_lock(&cuda.lock);
	told = atomic_exchange(&gpu->g->sticky, 0);
	if (gpu->g->lost)
		told = CUDA_ERROR_DEVICE_UNAVAILABLE;
	if (told && !gpu->sticky)
		gpu->sticky = told;
	rc = gpu->sticky;
	pthread_mutex_unlock(&cuda.lock);
	/* nothing runs after a failure */
	if (rc || !t->run)
		return;
	rc = t->run(t);
	pthread_mutex_lock(&cuda.lock);
	if (rc && !gpu->sticky)
		gpu->sticky = rc;
	pthread_mutex_unlock(&cuda.lock);
}

/* Streams. */

static bool ready(const struct cuda_stream *s, const struct task *t)
{
	for (uint32_t i = 0; i < s->gpu->nstreams; i++)
		if (i != s->index && s->gpu->stream[i]->done < t->after[i])
			return false;
	return !t->waits || t->event->done >= t->which;
}

static void finish(struct cuda_stream *s, struct task *t)
{
	if (t->event && !t->waits) {
		t->event->done = t->which;
		t->event->ms = now_ms();
	}
	TAILQ_REMOVE(&s->queue, t, on_queue);
	cuda_task_free(t);
	s->done++;
	pthread_cond_broadcast(&cuda.cond);
}

static void *stream_main(void *arg)
{
	struct cuda_stream *s = arg;
	struct task *t;
	uint32_t us;

	pthread_mutex_lock(&cuda.lock);
	while ((t = TAILQ_FIRST(&s->queue)) || !s->dead) {
		if (!t || !ready(s, t)) {
			pthread_cond_wait(&cuda.cond, &cuda.lock);
			continue;
		}
		pthread_mutex_unlock(&cuda.lock);
		us = cuda.s->delay_us;
		if (us)
			nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
		cuda_task_run(t);
		pthread_mutex_lock(&cuda.lock);
		finish(s, t);
	}
	s->running = false;
	pthread_cond_broadcast(&cuda.cond);
	pthread_mutex_unlock(&cuda.lock);
	return NULL;
}

/* A place of one that has ended is used again: its counters go on, for who waits for them. */
static struct cuda_stream *free_place(struct cuda_gpu *gpu)
{
	struct cuda_stream *s;

	for (uint32_t i = 1; i < gpu->nstreams; i++)
		if (!gpu->stream[i]->running)
			return gpu->stream[i];
	if (gpu->nstreams == CUDA_STREAMS)
		return NULL;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->gpu = gpu;
	s->index = gpu->nstreams;
	TAILQ_INIT(&s->queue);
	gpu->stream[gpu->nstreams++] = s;
	return s;
}

static struct cuda_stream *open_stream(struct cuda_gpu *gpu, bool blocking)
{
	struct cuda_stream *s = free_place(gpu);

	if (!s)
		return NULL;
	s->blocking = blocking;
	s->dead = false;
	s->invalid = false;
	s->running = !pthread_create(&s->thread, NULL, stream_main, s);
	if (!s->running)
		return NULL;
	pthread_detach(s->thread);
	return s;
}

int cuda_streams_open(struct cuda_gpu *gpu)
{
	return open_stream(gpu, false) ? 0 : -1;
}

struct cuda_stream *cuda_stream(struct cuda_gpu *gpu, CUstream s)
{
	if (!s || s == CU_STREAM_LEGACY)
		return gpu->stream[0];
	for (uint32_t i = 1; i < gpu->nstreams; i++)
		if (gpu->stream[i] == s && !s->dead)
			return s;
	return NULL;
}

/* The legacy stream and those that block come one after the other. */
static void order(struct task *t, const struct cuda_stream *s)
{
	struct cuda_gpu *gpu = s->gpu;

	memset(t->after, 0, sizeof(t->after));
	if (s->index == 0) {
		for (uint32_t i = 1; i < gpu->nstreams; i++)
			if (gpu->stream[i]->blocking)
				t->after[i] = gpu->stream[i]->posted;
	} else if (s->blocking) {
		t->after[0] = gpu->stream[0]->posted;
	}
}

uint32_t cuda_post(struct cuda_gpu *gpu, CUstream handle, const struct task *what)
{
	struct cuda_stream *s;
	struct task *t = NULL;
	uint32_t rc = 0;

	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	if (!s)
		rc = CUDA_ERROR_INVALID_HANDLE;
	else if (s->capture)
		rc = cuda_capture(s, what);
	else if (!(t = cuda_task_copy(what)))
		rc = CUDA_ERROR_OUT_OF_MEMORY;
	if (t) {
		t->gpu = gpu;
		order(t, s);
		TAILQ_INSERT_TAIL(&s->queue, t, on_queue);
		s->posted++;
		pthread_cond_broadcast(&cuda.cond);
	}
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

uint32_t cuda_drain(struct cuda_gpu *gpu, struct cuda_stream *s)
{
	uint64_t upto = s->posted;

	while (s->done < upto)
		pthread_cond_wait(&cuda.cond, &cuda.lock);
	return gpu->sticky;
}

uint32_t cuda_drain_all(struct cuda_gpu *gpu)
{
	for (uint32_t i = 0; i < gpu->nstreams; i++)
		cuda_drain(gpu, gpu->stream[i]);
	return gpu->sticky;
}

static uint32_t create(struct cuda_gpu *gpu, CUstream *to, unsigned int flags)
{
	struct cuda_stream *s;

	if (flags & ~CU_STREAM_NON_BLOCKING)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	s = open_stream(gpu, !flags);
	pthread_mutex_unlock(&cuda.lock);
	if (!s)
		return CUDA_ERROR_OUT_OF_MEMORY;
	cuda.s->streams++;
	*to = s;
	return 0;
}

API CUresult cuStreamCreate(CUstream *to, unsigned int flags)
{
	ENTER_GPU(cuStreamCreate);
	return create(gpu, to, flags);
}

API CUresult cuStreamCreateWithPriority(CUstream *to, unsigned int flags, int priority)
{
	ENTER_GPU(cuStreamCreateWithPriority);
	(void)priority;
	return create(gpu, to, flags);
}

/* Its work is done before it goes. */
API CUresult cuStreamDestroy_v2(CUstream handle)
{
	struct cuda_stream *s;

	ENTER_GPU(cuStreamDestroy);
	pthread_mutex_lock(&cuda.lock);
	s = handle ? cuda_stream(gpu, handle) : NULL;
	if (s && s->index) {
		cuda.s->streams--;
		s->dead = true;
		pthread_cond_broadcast(&cuda.cond);
	}
	pthread_mutex_unlock(&cuda.lock);
	return s && s->index ? 0 : CUDA_ERROR_INVALID_HANDLE;
}

/* A capture does not survive that somebody waits for it. */
static uint32_t may_wait(struct cuda_stream *s)
{
	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!s->capture)
		return 0;
	s->invalid = true;
	return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

API CUresult cuStreamSynchronize(CUstream handle)
{
	struct cuda_stream *s;
	uint32_t rc;

	ENTER_GPU(cuStreamSynchronize);
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	rc = may_wait(s);
	if (!rc)
		rc = cuda_drain(gpu, s);
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuStreamQuery(CUstream handle)
{
	struct cuda_stream *s;
	uint32_t rc;

	ENTER_GPU(cuStreamQuery);
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	rc = may_wait(s);
	if (!rc)
		rc = s->done < s->posted ? CUDA_ERROR_NOT_READY : gpu->sticky;
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

/* Events. */

API CUresult cuEventCreate(CUevent *to, unsigned int flags)
{
	struct cuda_event *e;

	ENTER_GPU(cuEventCreate);
	(void)gpu;
	e = calloc(1, sizeof(*e));
	if (!e)
		return CUDA_ERROR_OUT_OF_MEMORY;
	e->timing = !(flags & CU_EVENT_DISABLE_TIMING);
	e->users = 1;
	cuda.s->events++;
	pthread_mutex_lock(&cuda.lock);
	LIST_INSERT_HEAD(&cuda.events, e, on_list);
	pthread_mutex_unlock(&cuda.lock);
	*to = e;
	return 0;
}

API CUresult cuEventDestroy_v2(CUevent e)
{
	ENTER(cuEventDestroy);
	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&cuda.lock);
	release_event(e);
	cuda.s->events--;
	pthread_mutex_unlock(&cuda.lock);
	return 0;
}

API CUresult cuEventRecord(CUevent e, CUstream handle)
{
	struct task t = {.event = e};
	struct cuda_stream *s;

	ENTER_GPU(cuEventRecord);
	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	/* in a capture it is a place in the graph, and never done by itself */
	e->captured = s && s->capture ? s : NULL;
	if (s && !e->captured)
		t.which = ++e->recorded;
	pthread_mutex_unlock(&cuda.lock);
	if (!s)
		return CUDA_ERROR_INVALID_HANDLE;
	return e->captured ? 0 : cuda_post(gpu, handle, &t);
}

API CUresult cuStreamWaitEvent(CUstream handle, CUevent e, unsigned int flags)
{
	struct task t = {.event = e, .waits = true};
	struct cuda_stream *s, *captured;

	ENTER_GPU(cuStreamWaitEvent);
	if (!e || flags)
		return e ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&cuda.lock);
	s = cuda_stream(gpu, handle);
	captured = e->captured;
	t.which = e->recorded;
	pthread_mutex_unlock(&cuda.lock);
	/* graphs of more than one stream are not served */
	if (captured)
		return captured == s ? 0 : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	return cuda_post(gpu, handle, &t);
}

static uint32_t event_state(const struct cuda_gpu *gpu, const struct cuda_event *e)
{
	if (e->captured)
		return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
	return gpu->sticky ? gpu->sticky : e->done < e->recorded ? CUDA_ERROR_NOT_READY : 0;
}

API CUresult cuEventQuery(CUevent e)
{
	uint32_t rc;

	ENTER_GPU(cuEventQuery);
	pthread_mutex_lock(&cuda.lock);
	rc = e ? event_state(gpu, e) : CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuEventSynchronize(CUevent e)
{
	uint64_t upto;
	uint32_t rc;

	ENTER_GPU(cuEventSynchronize);
	if (!e)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&cuda.lock);
	upto = e->recorded;
	while ((rc = event_state(gpu, e)) == CUDA_ERROR_NOT_READY && e->done < upto)
		pthread_cond_wait(&cuda.cond, &cuda.lock);
	pthread_mutex_unlock(&cuda.lock);
	return rc == CUDA_ERROR_NOT_READY ? 0 : rc;
}

API CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
	uint32_t rc = 0;

	ENTER_GPU(cuEventElapsedTime);
	if (!from || !to || !from->timing || !to->timing)
		return CUDA_ERROR_INVALID_HANDLE;
	pthread_mutex_lock(&cuda.lock);
	if (!from->recorded || !to->recorded)
		rc = CUDA_ERROR_INVALID_HANDLE;
	if (!rc)
		rc = event_state(gpu, from);
	if (!rc)
		rc = event_state(gpu, to);
	if (!rc)
		*ms = (float)(to->ms - from->ms);
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}
