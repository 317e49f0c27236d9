/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.h - what runs kernels.
 *
 * The model
 *   device  the cores of one NUMA node: a table of ops and a team of threads
 *           that live as long as the device.
 *   for     pst_device_for() runs a numbered set of tasks, any task on any
 *           thread, in any order, and returns when all are done. The tasks of
 *           an op are cut by the shape alone, so bits never depend on the team.
 *
 * Threads: a device is used by one thread at a time, which works along.
 */
#ifndef PST_DEVICE_H
#define PST_DEVICE_H

#include "kernels/op.h"

#include <penstock/error.h>
#include <stdbool.h>

struct pst_device;

typedef void pst_task_fn(void *ctx, size_t task);

/*
 * @threads: 0 for as many as the node has cores this process may use. @node:
 * PST_NODE_ANY (-1) for no binding.
 */
int pst_device_open_cpu(int node, unsigned int threads, struct pst_device **out,
			struct pst_error *err);
void pst_device_close(struct pst_device *dev);

const struct pst_ops *pst_device_ops(const struct pst_device *dev);
unsigned int pst_device_threads(const struct pst_device *dev);

void pst_device_for(struct pst_device *dev, size_t tasks, pst_task_fn *fn, void *ctx);

/* gemm (op.h) cut into row blocks of the result over the team. */
void pst_device_gemm(struct pst_device *dev, bool ta, bool tb, size_t m, size_t n, size_t k,
		     const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
		     bool acc);

#endif /* PST_DEVICE_H */
