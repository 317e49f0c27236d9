/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device_gpu.h - GPUs, as the files that make them up share them.
 *
 * The model
 *   keeper  one thread per GPU makes all calls about it: it reads the figures each second or when
 *           it is asked to, and carries out wishes. So a call that hangs holds up its own
 *           thread only, and the loop sees a copy that grows old.
 *   waiter  one thread begins the library and then waits for what the driver tells (XID);
 *           an eventfd wakes the loop.
 *   wish    something to be set, by the loop, which waits a while for it, and no longer.
 *
 * All of it is behind one lock, which nobody holds during a call of the driver. The threads own the
 * memory with the loop: the last frees it.
 */
#ifndef DAEMON_DEVICE_GPU_H
#define DAEMON_DEVICE_GPU_H

#include "daemon/devices/device.h"
#include "daemon/devices/nvml.h"

#include <pthread.h>

#define GPUS 64
/* How old a copy may be when somebody asks, and how long he waits for a new one, in ms. */
#define GPU_FRESH_MS 100
#define GPU_STAT_MS  50

struct gpu_xid {
	uint64_t xid;
	uint32_t health; /* PST_HEALTH_*; OK: a program's fault */
	const char *what, *mend;
};

/* What the catalog says of @xid; never NULL. */
const struct gpu_xid *gpu_xid(uint64_t xid);

enum gpu_wish { WISH_NONE, WISH_CAP, WISH_CLOCK, WISH_UNLOCK };

struct gpus;

struct gpu {
	struct device dev; /* the loop's */
	struct gpus *gpus;
	unsigned int index; /* NVML's */
	/* the keeper's */
	_Atomic(nvml_device) handle; /* the waiter looks at it, too */
	char uuid[64];
	/* under the lock */
	struct pst_cmd_device_stat copy;
	int rc;		    /* of the read that made it: NVML_SUCCESS, or why there is no news */
	uint64_t slow;	    /* NVML_SLOW_* */
	int64_t copy_ms;    /* when the read began; 0: none yet */
	int64_t reading_ms; /* since when one is under way; 0: none is */
	int64_t born_ms;
	bool asked;
	enum gpu_wish wish;
	uint32_t wish_a, wish_b;
	uint32_t wishes; /* how many there were */
	int wish_rc;	 /* of the last: NVML's, or WISH_PENDING */
	/* the loop's */
	uint64_t xid;		     /* the last one */
	const struct gpu_xid *worst; /* what XIDs said of it since it was well; NULL: nothing */
	bool was_lost;
	uint32_t clock_min, clock_max; /* that were set; 0: none were */
};

#define WISH_PENDING (-1)

struct gpus {
	struct nvml nvml;
	const char *library;
	struct device_times times;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int threads; /* that run, with the loop as one */
	bool end;
	int start_rc; /* of the waiter: WISH_PENDING, or 0, or -errno with @start_err */
	struct pst_error start_err;
	struct gpu *gpu[GPUS];
	unsigned int n;
	struct {
		struct gpu *gpu;
		uint64_t xid;
	} told[64]; /* by the driver, for the loop */
	unsigned int ntold;
	uint64_t untold; /* that found no room */
	/* the loop's */
	struct penstockd *d;
	struct devices *devices;
	struct loop_source wake;
	char root[256];
};

/* device_nvml.c: all calls of the driver; by keepers and the waiter, without the lock. */

/* What never changes of gpus->nvml's device gpu->index; NVML's code. */
int gpu_describe(struct gpu *g, struct pst_cmd_device_stat *still);
/* All figures into @out; NVML's code: of the first failure that means the GPU does not answer. */
int gpu_figures(struct gpu *g, struct pst_cmd_device_stat *out, uint64_t *slow);
int gpu_wish(struct gpu *g, enum gpu_wish wish, uint32_t a, uint32_t b);

/* device_gpu_thread.c: the threads. */

/* -errno; gpus->start_rc says when the waiter has begun the library and found the GPUs. */
int gpus_start_waiter(struct gpus *gpus);
int gpu_start_keeper(struct gpu *g);
/* Wait for news under the lock, up to CLOCK_MONOTONIC @until_ms: false when that is past. */
bool gpus_wait(struct gpus *gpus, int64_t until_ms);
/* The lock is held; it is not any more. Who leaves last frees. */
void gpus_leave(struct gpus *gpus);

#endif /* DAEMON_DEVICE_GPU_H */
