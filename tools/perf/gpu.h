/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu.h - the GPU of h2d and doorbell: CUDA's driver, and no wait without an end.
 *
 * Order of calls: open; pin, module; work and waits; close. One thread.
 */
#ifndef PERF_GPU_H
#define PERF_GPU_H

#include "kernels/cuda/driver.h"
#include "tools/perf/perf.h"

#define PERF_GPU_STREAMS 2

struct perf_gpu {
	const struct pst_cuda *cu;
	int ordinal, node, driver; /* @node: where it sits, -1: not known */
	char name[64], pci[32];
	CUdevice dev;
	CUcontext ctx;
	CUstream stream[PERF_GPU_STREAMS];
	uint64_t wait_ms;
	bool stuck; /* it has work that does not end: nothing can be taken back */
	struct perf_memory host;
	bool pinned;
	CUdeviceptr memory;
	CUmodule module;
};

/* That of --device. */
int perf_gpu_open(const struct perf_plan *plan, struct perf_gpu *g, struct pst_error *err);
void perf_gpu_close(struct perf_gpu *g); /* also of one that is not open, if it is all zeros */

/* @len bytes of @g->host, pinned, and @device bytes of its own memory; 0: none. */
int perf_gpu_memory(struct perf_gpu *g, uint64_t len, uint64_t page, uint64_t device,
		    struct pst_error *err);

/* 0, or what failed with @rc, as a sentence. */
int perf_gpu_result(struct perf_gpu *g, CUresult rc, const char *what, struct pst_error *err);
/* Until @stream, or @event, is done; -ETIMEDOUT after --timeout. */
int perf_gpu_wait(struct perf_gpu *g, CUstream stream, struct pst_error *err);
int perf_gpu_wait_event(struct perf_gpu *g, CUevent event, struct pst_error *err);
int perf_gpu_late(struct perf_gpu *g, const char *what, struct pst_error *err);

/* doorbell_image.c: what nvcc made of kernels/cuda/doorbell.cu; NULL: built without it. */
const void *perf_doorbell_image(void);

/* report.c */
void perf_report_gpu(struct perf_report *r, const struct perf_gpu *g);
/* json.c */
json_t *perf_json_gpu(const struct perf_plan *plan, const struct perf_gpu *g);

#endif /* PERF_GPU_H */
