/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcuda.h - inside of libcuda.so.1 of the stand-in.
 *
 * The model
 *   gpu     a device and its primary context: memory, streams, and the error that stays
 *   memory  a file mapped twice: where device addresses are nothing may be touched; the
 *           alias is what streams use. Each allocation ends in a page that is not there.
 *   stream  a thread that does one task after the other, each when what it waits for is done
 *   task    a copy, a launch, an event, a graph: done later, at addresses looked up then
 *
 * One lock for all of it, held by nobody who works.
 */
#ifndef SELFTESTS_GPU_LIBCUDA_H
#define SELFTESTS_GPU_LIBCUDA_H

#include "selftests/gpu/standin.h"

#include <pthread.h>
#include <stdbool.h>
#include <sys/queue.h>

#define API __attribute__((visibility("default")))

#define CUDA_DECLARE(name, symbol, version, args) API CUresult symbol args;
PST_CUDA_CALLS(CUDA_DECLARE, CUDA_DECLARE)
#undef CUDA_DECLARE

#define CUDA_PARAMS  32
#define CUDA_STREAMS 64

struct block {
	CUdeviceptr at;
	size_t len, asked;
	TAILQ_ENTRY(block) on_gpu; /* in the order of addresses */
};

struct cuda_gpu {
	uint32_t index;
	struct standin_gpu *g;
	uint32_t retained;
	uint32_t sticky; /* CUDA_ERROR_*, for the rest of the process */
	char *base, *alias;
	size_t span;
	int fd;
	TAILQ_HEAD(, block) blocks;
	struct cuda_stream *stream[CUDA_STREAMS]; /* 0: the legacy one */
	uint32_t nstreams;
};

struct task {
	uint32_t (*run)(struct task *t); /* without the lock; an error stays */
	struct cuda_gpu *gpu;
	uint64_t after[CUDA_STREAMS]; /* of each stream of the GPU, how much must be done before */
	CUdeviceptr to, from;
	bool host_to, host_from; /* plain host addresses */
	size_t len;
	uint32_t value;
	struct cuda_event *event;
	uint64_t which; /* recording of the event */
	bool waits;	/* for it, before it begins */
	const struct cuda_op *op;
	uint64_t param[CUDA_PARAMS];
	struct cuda_graph *graph;
	TAILQ_ENTRY(task) on_queue;
};
TAILQ_HEAD(tasks, task);

struct cuda_stream {
	struct cuda_gpu *gpu;
	uint32_t index;
	bool blocking, dead, running;
	pthread_t thread;
	struct tasks queue;
	uint64_t posted, done;
	struct cuda_graph *capture; /* NULL: it does not capture */
	bool invalid;		    /* the capture is */
};

struct cuda_event {
	bool timing, freed;
	uint64_t recorded, done;
	double ms;
	struct cuda_stream *captured; /* recorded in a capture of this stream */
	uint32_t users;
	LIST_ENTRY(cuda_event) on_list;
};

struct cuda_graph {
	struct tasks tasks;
	struct cuda_gpu *gpu;
	LIST_ENTRY(cuda_graph) on_list;
};

struct cuda {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct standin *s; /* NULL: cuInit() was not called */
	struct cuda_gpu gpu[STANDIN_GPUS];
	/* What is there: nobody else may know of it when its gpu has failed. */
	LIST_HEAD(, cuda_event) events;
	LIST_HEAD(, cuda_graph) graphs;
	LIST_HEAD(, cuda_module) modules;
};
extern struct cuda cuda;

/* Each call begins with one of these; the error that it returns, or 0. */
uint32_t cuda_enter(enum standin_call fn);
/* With a context that is current, and well. */
uint32_t cuda_enter_gpu(enum standin_call fn, struct cuda_gpu **gpu);

#define ENTER(fn)                                        \
	do {                                             \
		uint32_t rc_ = cuda_enter(STANDIN_##fn); \
		if (rc_)                                 \
			return rc_;                      \
	} while (0)
#define ENTER_GPU(fn)                                              \
	struct cuda_gpu *gpu;                                      \
	do {                                                       \
		uint32_t rc_ = cuda_enter_gpu(STANDIN_##fn, &gpu); \
		if (rc_)                                           \
			return rc_;                                \
	} while (0)

/* libcuda_memory.c, with the lock */

int cuda_memory_open(struct cuda_gpu *gpu);
/* Where @len bytes at @at really are, in an allocation of any GPU or registered memory; or NULL. */
void *cuda_at(CUdeviceptr at, size_t len);
/* The same for a kernel of @gpu, which may know registered memory by another address. */
void *cuda_at_kernel(const struct cuda_gpu *gpu, CUdeviceptr at);
bool cuda_is_device(CUdeviceptr at, size_t len);

/* libcuda_stream.c */

/* The stream that @s means on @gpu; NULL: none. */
struct cuda_stream *cuda_stream(struct cuda_gpu *gpu, CUstream s);
/* Have @t, which is copied, done on @s, or captured. */
uint32_t cuda_post(struct cuda_gpu *gpu, CUstream s, const struct task *t);
/* Wait for all that was posted; the GPU's error. The lock is held. */
uint32_t cuda_drain(struct cuda_gpu *gpu, struct cuda_stream *s);
uint32_t cuda_drain_all(struct cuda_gpu *gpu);
int cuda_streams_open(struct cuda_gpu *gpu);
/* A task's queue-less copy, with a hold on what it names; NULL: no memory. And its end. */
struct task *cuda_task_copy(const struct task *t);
void cuda_task_free(struct task *t);
/* Run it now, unless the GPU has failed before. Without the lock. */
void cuda_task_run(struct task *t);

/* libcuda_graph.c: the lock is held. */
uint32_t cuda_capture(struct cuda_stream *s, const struct task *t);

/* libcuda_op.c */

struct cuda_op {
	const char *name;
	const char *params; /* 'p' pointer, 'z' size_t, 'i' int, 'f' float */
	void (*run)(void *const *p, const uint64_t *v);
};

/* NULL: there is no such op. */
const struct cuda_op *cuda_op(const char *name);
uint32_t cuda_op_run(struct task *t);

#endif /* SELFTESTS_GPU_LIBCUDA_H */
