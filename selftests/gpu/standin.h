/* SPDX-License-Identifier: Apache-2.0 */
/*
 * standin.h - libcuda.so.1 and libnvidia-ml.so.1 that behave like GPUs which are not there.
 *
 * The model
 *   control file  struct standin, mapped by the test and by both libraries in every process
 *                 that loads them. $PENSTOCK_STANDIN names it. Without it, or with a
 *                 file of another size, the libraries act as a driver that is not loaded.
 *   gpu           what one GPU is and says; what is set through NVML shows up here.
 *   fn            one of the driver's functions: how often it was called, and what is to go
 *                 wrong with it: the n-th call from now fails, or calls hang while told to.
 *
 * A test makes the file with standin_make(), changes fields whenever it wants (all are
 * atomic), and starts what it tests with $PENSTOCK_STANDIN and with $LD_LIBRARY_PATH at the
 * folder of the libraries; or it opens them by path in its own process.
 *
 * Images for cuModuleLoadData() and cuLibraryLoadData() are text: the line STANDIN_IMAGE, then a
 * line "FUNCTION OP" for each function, ended by a NUL. OP is the name of an op (kernels/op.h),
 * whose `ref` kernel runs with the op's arguments in their order: pointers are device addresses
 * (or registered host memory), size_t, int and float as they are. Or it is one of
 *
 *	fault	touches memory that it may not: error 700
 *	assert	fails an assertion: error 710
 *	hang	runs until the gpu's `release` is not 0
 *	nop	does nothing, with any arguments
 *	doorbell  what kernels/cuda/doorbell.cu does, with its arguments
 *
 * An op that returns a value has one more argument, the first: where it goes.
 *
 * A fatbin is taken, too, as if it had a function of its own name for every op: nobody looks
 * inside.
 *
 * What a driver may do and seldom does, this one does always: copies of a batch are made in the
 * reverse of their order, memory that was never written is no zeros, and a driver of an older CUDA
 * version has no functions that are newer.
 */
#ifndef SELFTESTS_GPU_STANDIN_H
#define SELFTESTS_GPU_STANDIN_H

#include "daemon/devices/nvml.h"
#include "kernels/cuda/driver.h"

#include <stdatomic.h>
#include <stdint.h>

#define STANDIN_ENV   "PENSTOCK_STANDIN"
#define STANDIN_IMAGE "penstock stand-in image"
#define STANDIN_GPUS  4
#define STANDIN_XIDS  16
#define STANDIN_PIDS  16

/* Their functions: STANDIN_nvmlInit_v2, STANDIN_cuMemAlloc, ... */
enum standin_call {
#define STANDIN_NVML(ret, name, args)		  STANDIN_nvml##name,
#define STANDIN_CUDA(name, symbol, version, args) STANDIN_##name,
	NVML_CALLS(STANDIN_NVML, STANDIN_NVML) PST_CUDA_CALLS(STANDIN_CUDA, STANDIN_CUDA)
#undef STANDIN_NVML
#undef STANDIN_CUDA
		STANDIN_CALLS
};

struct standin_fn {
	_Atomic uint32_t calls;	  /* how often it was called */
	_Atomic uint32_t fail_in; /* the n-th call from now fails ... */
	_Atomic uint32_t fail_rc; /* ... with this code of its library */
	_Atomic uint32_t hang;	  /* calls wait while this is not 0 */
	_Atomic uint32_t absent;  /* CUDA: the driver has no such function */
};

struct standin_gpu {
	char name[64], uuid[48], pci[32];
	_Atomic uint64_t memory_bytes;
	_Atomic uint32_t sms, cores, major, minor; /* multiprocessors, FP32 cores, capability */
	_Atomic uint32_t load_percent, temperature_c;
	_Atomic uint32_t power_mw, cap_mw, cap_min_mw, cap_max_mw;
	_Atomic uint32_t clock_mhz, clock_min_mhz, clock_max_mhz, memory_clock_mhz;
	_Atomic uint32_t locked_min_mhz, locked_max_mhz; /* 0: not locked */
	_Atomic uint64_t throttle, energy_mj, ecc_corrected, ecc_uncorrected;
	_Atomic uint32_t no_permission;	  /* NVML refuses to set anything */
	_Atomic uint32_t lost;		  /* every call about it fails */
	_Atomic uint32_t no_host_pointer; /* registered memory has another address on the device */
	_Atomic uint32_t no_read_only;	  /* memory that may only be read cannot be registered */
	_Atomic uint32_t no_dma_buf;
	_Atomic uint32_t coherent; /* it uses the host's page tables */
	_Atomic uint32_t sticky;   /* the next work on it ends in this CUDA error, for good */
	_Atomic uint32_t release;  /* op "hang" ends */
	_Atomic uint64_t xids, xid[STANDIN_XIDS]; /* a ring: how many were told so far */
	struct {
		_Atomic int32_t pid; /* who has memory of it; one that died has none */
		_Atomic uint64_t bytes;
	} holder[STANDIN_PIDS];
};

struct standin {
	_Atomic uint32_t size; /* sizeof(struct standin) */
	_Atomic uint32_t ngpus;
	_Atomic uint32_t delay_us;	  /* before each piece of work of a stream */
	_Atomic uint64_t pageable_copies; /* asynchronous copies of host memory not registered */
	_Atomic uint64_t launches, copies, copied_bytes;
	_Atomic uint32_t corrupt;	    /* the n-th copy from now brings another first byte */
	_Atomic uint32_t cuda_version;	    /* of the driver: 13000 is 13.0 */
	_Atomic uint64_t batches, overlaps; /* batches of copies; copies while a kernel ran */
	_Atomic uint64_t pdl;	 /* launches that may begin before the kernel before them ends */
	_Atomic int32_t running; /* kernels */
	/* what is there now, of all processes */
	_Atomic int32_t contexts, streams, events, modules, graphs, registered;
	struct standin_gpu gpu[STANDIN_GPUS];
	struct standin_fn fn[STANDIN_CALLS];
};

/* A control file with @ngpus like an H200, of @memory bytes each; mapped. Ends the test if it
 * cannot be. */
struct standin *standin_make(const char *path, uint32_t ngpus, uint64_t memory);

/* That of $PENSTOCK_STANDIN; NULL: there is none. */
struct standin *standin_find(void);

/* Count a call of @fn, let it hang, or fail it: 0 or the code. */
uint32_t standin_enter(struct standin *s, enum standin_call fn);

/* The driver tells XID error @xid of GPU @gpu. */
void standin_xid(struct standin *s, uint32_t gpu, uint64_t xid);

/* Memory of @gpu that processes have; those that died are forgotten. */
uint64_t standin_used(struct standin *s, uint32_t gpu);
/* This process takes @bytes more (or gives them back); 0 or -1: there is not as much. */
int standin_take(struct standin *s, uint32_t gpu, int64_t bytes);

#endif /* SELFTESTS_GPU_STANDIN_H */
