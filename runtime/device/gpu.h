/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu.h - a GPU as the runtime sees it, by CUDA's driver API (kernels/cuda/driver.h).
 *
 * The model
 *   gpu     one device, its primary context and three streams: kernels run on COMPUTE, copies to
 *           the device on IN and from it on OUT, so that they overlap.
 *   arena   device memory, taken from the driver once. Blocks of it are addresses on the device;
 *           taking and giving back is O(1) and calls no driver.
 *   host    memory of a pool becomes reachable when it is registered. What is not is refused by
 *           copies: the driver would take it by a hidden copy, and wait.
 *   copies  a batch: neighbours become one, and all of it goes out as one call of the driver where
 *           it has one. The copies of a batch are done in any order; what is read on the host must
 *           not change from the call until they are done.
 *   kernel  a function of a module, which is an image (fatbin or cubin) that was loaded
 *   graphs  what a stream is given for one bucket of batch sizes, recorded once and launched as one
 *   event   a mark in a stream, for another to wait for
 *
 * Order of calls: open; register, modules; then work and waits; unload, unregister, close.
 *
 * What goes wrong. Nothing waits for longer than the caller says, unless the driver's own function
 * does not return, against which only another process helps: keep GPUs out of the process that
 * controls them. An error that stays (an access to wrong memory, an assertion, a lost GPU, ...)
 * kills the gpu: this and all later calls fail with -EIO and one sentence, that names the kernel
 * that was launched last; only a new process can use it again. Close gives back what it can.
 *
 * Threads: any, at the same time, but for a batch and a set of graphs, which have one user at a
 * time each, and for what is closed, unloaded or unregistered. Each call makes the device's context
 * that of its thread, and leaves it so. Not in a child of fork().
 */
#ifndef PST_DEVICE_GPU_H
#define PST_DEVICE_GPU_H

#include <penstock/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pst_gpu;
struct pst_gpu_copies;
struct pst_gpu_event;
struct pst_gpu_graphs;
struct pst_gpu_kernel;
struct pst_gpu_module;

#define PST_GPU_GRANULE 512  /* bytes: blocks of the arena are multiples of it, and so aligned */
#define PST_GPU_ALIGN	4096 /* the most that can be asked for */

enum pst_gpu_stream { PST_GPU_COMPUTE, PST_GPU_IN, PST_GPU_OUT, PST_GPU_STREAMS };

/**
 * struct pst_gpu_options - how to open one; zeros are good
 * @size: sizeof(struct pst_gpu_options)
 * @arena: bytes of device memory to take; 0: fifteen sixteenths of what is free, or of the share
 * @share: of so many that take their memory of this device this is one; 0: 1
 * @chunk: register host memory in pieces of so many bytes, a multiple of the page size; 0: 1 GiB
 * @patience_ms: how long to wait for room in a stream, and in close; 0: 10000
 * @root: put before /sys, for tests; NULL: ""
 */
struct pst_gpu_options {
	size_t size;
	uint64_t arena, chunk;
	uint32_t patience_ms, share;
	const char *root;
};

struct pst_gpu_info {
	int ordinal;
	char name[64], pci[32];
	int node; /* NUMA node that it is attached to; -1: not known */
	int major, minor, multiprocessors;
	int driver;		/* CUDA version of the driver: 13000 is 13.0 */
	uint64_t memory, arena; /* bytes */
	uint32_t shared;	/* bytes that a block may ask for */
	const char *target;	/* which image it runs: "sm_90a" */
};

struct pst_gpu_stat {
	uint64_t used, peak, largest; /* bytes of the arena; the largest free piece */
	uint64_t registered, register_ns;
	uint64_t launches, graph_launches, captures;
	uint64_t copies, sent, calls; /* asked for; after neighbours were merged; of the driver */
	uint64_t bytes_in, bytes_out, bytes_within;
	bool dead;
	char note[256]; /* what is slower than it could be, and what mends it; or "" */
};

/* "cuda:N" to N and 1, "cuda:N/K", one of K that share it, to N and K. -EINVAL. */
int pst_gpu_parse(const char *device, int *ordinal, uint32_t *share, struct pst_error *err);

/*
 * -ENOENT, -ENOSYS, -ENODEV, -EIO: the driver (pst_cuda_open()). -ENODEV: no such GPU. -ENOEXEC:
 * there are no kernels for it. -ENOMEM: the arena does not fit, with what is free. -EINVAL.
 */
int pst_gpu_open(int ordinal, const struct pst_gpu_options *opts, struct pst_gpu **out,
		 struct pst_error *err);
/* NULL is fine. -ETIMEDOUT, -EIO: work hangs or the gpu is dead, so that its memory on the device
 * stays until the process ends; all else is gone in any case. Of host memory that was registered
 * then nobody knows whether it is still written to. */
int pst_gpu_close(struct pst_gpu *gpu, struct pst_error *err);
void pst_gpu_info(const struct pst_gpu *gpu, struct pst_gpu_info *out);
void pst_gpu_stat(struct pst_gpu *gpu, struct pst_gpu_stat *out);
/* Is it dead? 0, or -EIO with the sentence. */
int pst_gpu_dead(struct pst_gpu *gpu, struct pst_error *err);

/*
 * Until all that @stream was given is done. -ETIMEDOUT after @ms; the work goes on, and may be
 * waited for again.
 */
int pst_gpu_wait(struct pst_gpu *gpu, enum pst_gpu_stream stream, uint32_t ms,
		 struct pst_error *err);

/* Events; @timed: pst_gpu_event_ms() may be asked. */
int pst_gpu_event_new(struct pst_gpu *gpu, bool timed, struct pst_gpu_event **out,
		      struct pst_error *err);
void pst_gpu_event_free(struct pst_gpu_event *event); /* NULL is fine */
int pst_gpu_event_record(struct pst_gpu_event *event, enum pst_gpu_stream stream,
			 struct pst_error *err);
/* What @stream is given from now on begins when @event, as recorded last, has come. */
int pst_gpu_event_await(struct pst_gpu_event *event, enum pst_gpu_stream stream,
			struct pst_error *err);
/* 1: it has come, or was never recorded; 0: not yet. */
int pst_gpu_event_come(struct pst_gpu_event *event, struct pst_error *err);
int pst_gpu_event_wait(struct pst_gpu_event *event, uint32_t ms, struct pst_error *err);
/* Milliseconds from one to the other, which have both come. */
int pst_gpu_event_ms(struct pst_gpu_event *from, struct pst_gpu_event *to, float *ms,
		     struct pst_error *err);

/* A block of the arena, as it was left. @align: a power of two up to PST_GPU_ALIGN; 0: 512.
 * -ENOMEM: with what is asked for beside what is free. */
int pst_gpu_alloc(struct pst_gpu *gpu, uint64_t bytes, uint64_t align, uint64_t *out,
		  struct pst_error *err);
/* At once: work that still uses it is the caller's matter. 0 is fine; what is no block is ignored.
 */
void pst_gpu_free(struct pst_gpu *gpu, uint64_t block);

enum pst_gpu_host_flags {
	PST_GPU_HOST_READ_ONLY = 1, /* the mapping may only be read; nothing is copied there */
};

/*
 * Make [@at, @at + @bytes) reachable, both multiples of the page size, in pieces; all or nothing.
 * @node: where the memory is, -1: not known; on another node than the gpu it costs, and the stat's
 * note says so, once. -EEXIST: some of it is registered already. -EPERM, -ENOMEM: it cannot be
 * pinned. -EOPNOTSUPP: read-only memory, and the device cannot.
 */
int pst_gpu_register(struct pst_gpu *gpu, void *at, uint64_t bytes, uint32_t flags, int node,
		     struct pst_error *err);
/* As it was registered; work with it has ended. -ENOENT. -ETIMEDOUT: the gpu does not get done with
 * what it was given, and the memory stays registered. */
int pst_gpu_unregister(struct pst_gpu *gpu, void *at, struct pst_error *err);
/* Where kernels find registered memory; copies take its own address. -EFAULT. */
int pst_gpu_host_address(struct pst_gpu *gpu, const void *at, uint64_t *out, struct pst_error *err);

/* A batch of up to @most copies. */
int pst_gpu_copies_new(struct pst_gpu *gpu, size_t most, struct pst_gpu_copies **out,
		       struct pst_error *err);
void pst_gpu_copies_free(struct pst_gpu_copies *c); /* NULL is fine */
/*
 * Addresses in the arena or in registered memory, one of them on the device. -EFAULT: it is
 * neither, all of it. -EACCES: to memory that may only be read. -ENOSPC: the batch is full; send
 * it.
 */
int pst_gpu_copies_add(struct pst_gpu_copies *c, uint64_t to, uint64_t from, uint64_t bytes,
		       struct pst_error *err);
/* Give all of it to @stream. It is empty then, also on failure. */
int pst_gpu_copies_send(struct pst_gpu_copies *c, enum pst_gpu_stream stream,
			struct pst_error *err);

/* @image of @bytes is not needed after that. -ENOEXEC: it is damaged, or not for this GPU. */
int pst_gpu_module_load(struct pst_gpu *gpu, const void *image, size_t bytes,
			struct pst_gpu_module **out, struct pst_error *err);
/* With its kernels; none of them runs, no graph has one. NULL is fine. */
void pst_gpu_module_unload(struct pst_gpu_module *m);
/*
 * The kernel @name, ready to be launched with up to @shared bytes of dynamic shared memory; it is
 * the module's. -ENOENT: there is none. -EINVAL: a block cannot have so much shared memory.
 */
int pst_gpu_kernel(struct pst_gpu_module *m, const char *name, uint32_t shared,
		   struct pst_gpu_kernel **out, struct pst_error *err);
uint64_t pst_gpu_kernel_launches(const struct pst_gpu_kernel *kernel);

/* @overlap: the kernel waits by itself (griddepcontrol.wait) for the one before it in the stream,
 * and may begin earlier; where the driver cannot, it begins when that has ended. */
struct pst_gpu_shape {
	uint32_t grid[3], block[3], shared;
	bool overlap;
};
/* @params: where each argument is; taken before it returns. */
int pst_gpu_launch(struct pst_gpu *gpu, enum pst_gpu_stream stream, struct pst_gpu_kernel *kernel,
		   const struct pst_gpu_shape *shape, void **params, struct pst_error *err);

/* Give @stream the work of @bucket, by launches and copies that do not wait. */
typedef int pst_gpu_record_fn(void *ctx, enum pst_gpu_stream stream, uint64_t bucket,
			      struct pst_error *err);
/* Up to @most buckets; the one that was not used for longest makes room. */
int pst_gpu_graphs_new(struct pst_gpu *gpu, size_t most, struct pst_gpu_graphs **out,
		       struct pst_error *err);
void pst_gpu_graphs_free(struct pst_gpu_graphs *g); /* NULL is fine */
/* Launch that of @bucket on @stream; where there is none yet, it is recorded by @record. */
int pst_gpu_graph_launch(struct pst_gpu_graphs *g, enum pst_gpu_stream stream, uint64_t bucket,
			 pst_gpu_record_fn *record, void *ctx, struct pst_error *err);

/*
 * A dma-buf of the host pages around [@at, @at + @bytes), which is a block; the caller closes @fd.
 * @offset: where @at is in it. -EOPNOTSUPP: the sentence says what to do instead.
 */
int pst_gpu_dmabuf(struct pst_gpu *gpu, uint64_t at, uint64_t bytes, int *fd, uint64_t *offset,
		   struct pst_error *err);

#endif /* PST_DEVICE_GPU_H */
