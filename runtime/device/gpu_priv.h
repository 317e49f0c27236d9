/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_priv.h - inside of gpu_*.c. */
#ifndef PST_DEVICE_GPU_PRIV_H
#define PST_DEVICE_GPU_PRIV_H

#include "kernels/cuda/driver.h"
#include "rdma/fail.h"
#include "runtime/device/gpu.h"
#include "runtime/mem/cache.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

/*
 * The driver's call blocks when a stream has about a thousand pieces of work, so there are fewer: a
 * mark each so many, and at most three such blocks under way.
 */
#define PST_GPU_BLOCK 256

/* Registered memory, in chunks of the gpu's size but for the last. */
struct pst_gpu_range {
	uintptr_t at;
	uint64_t bytes;
	bool read_only;
	struct pst_gpu_range *next;
};

struct pst_gpu_queue {
	CUstream stream;
	CUevent mark[2];
	pthread_mutex_t lock; /* guards @posted and the marks */
	uint64_t posted;
	atomic_bool capturing;
};

struct pst_gpu {
	const struct pst_cuda *cu;
	struct pst_gpu_info info;
	uint64_t chunk;
	uint32_t patience_ms;
	CUdevice dev;
	CUcontext ctx;
	bool same_address; /* kernels find registered memory where it is */
	bool page_tables;  /* of the host: the device is coherent */
	struct pst_gpu_queue queue[PST_GPU_STREAMS];
	uint64_t base; /* of the arena */
	struct pst_heap heap;
	_Atomic(const char *) last; /* what was launched last: freed by pst_gpu_forget() only */
	atomic_bool dead;
	pthread_mutex_t lock;	      /* guards what follows */
	struct pst_error why;	      /* it is dead */
	char last_name[64];	      /* of what is gone */
	struct pst_gpu_range *ranges; /* in the order of addresses */
	char note[256];
	_Atomic uint64_t registered, register_ns, launches, graph_launches, captures, copies, sent,
		calls, bytes_in, bytes_out, bytes_within;
};

extern const char *const pst_gpu_stream_names[PST_GPU_STREAMS];

/* Each call begins with this: the sentence of a dead gpu, or its context on this thread. */
int pst_gpu_enter(struct pst_gpu *gpu, struct pst_error *err);

/* Until all streams are done, as long as patience lasts: what the driver takes back behind work
 * that does not end would never return. */
int pst_gpu_settle(struct pst_gpu *gpu, struct pst_error *err);

/* To undo something: false of a dead gpu, which has let go of everything. */
bool pst_gpu_enter_undo(struct pst_gpu *gpu);

/* 0, or why doing what @fmt says failed with @rc; an error that stays kills the gpu. */
int pst_gpu_result(struct pst_gpu *gpu, CUresult rc, struct pst_error *err, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Room for one more piece of work in @q, or -ETIMEDOUT. */
int pst_gpu_room(struct pst_gpu *gpu, enum pst_gpu_stream stream, struct pst_error *err);

/* @name, of something that goes away, was perhaps launched last: keep a copy. */
void pst_gpu_forget(struct pst_gpu *gpu, const char *name);
const char *pst_gpu_last(struct pst_gpu *gpu, char *to, size_t len);

/* gpu_stream.c */
int pst_gpu_streams_open(struct pst_gpu *gpu, struct pst_error *err);
void pst_gpu_streams_close(struct pst_gpu *gpu);

/* gpu_memory.c */
int pst_gpu_arena_open(struct pst_gpu *gpu, uint64_t bytes, uint32_t share, struct pst_error *err);
void pst_gpu_arena_close(struct pst_gpu *gpu);
bool pst_gpu_in_arena(const struct pst_gpu *gpu, uint64_t at, uint64_t bytes);

/* gpu_host.c: @out is a copy. false: not all of it is registered. */
bool pst_gpu_host_find(struct pst_gpu *gpu, uint64_t at, uint64_t bytes, struct pst_gpu_range *out);
void pst_gpu_host_close(struct pst_gpu *gpu, bool driver);

#endif /* PST_DEVICE_GPU_PRIV_H */
