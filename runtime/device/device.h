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
 *   bind    an op's kernel is swapped by pst_device_bind(), while the device computes or
 *           not. Calls that run end with the kernels that they began with.
 *
 * Threads: a device is used by one thread at a time, which works along; kernels are bound,
 * and tables read between enter and leave, by any.
 */
#ifndef PST_DEVICE_H
#define PST_DEVICE_H

#include "kernels/agree.h"

#include <penstock/error.h>
#include <stdbool.h>

struct pst_device;
struct pst_image;

typedef void pst_task_fn(void *ctx, size_t task);

/*
 * @threads: 0 for as many as the node has cores this process may use. @node:
 * PST_NODE_ANY (-1) for no binding.
 */
int pst_device_open_cpu(int node, unsigned int threads, struct pst_device **out,
			struct pst_error *err);
void pst_device_close(struct pst_device *dev);

/*
 * What serves now: to be asked for each call anew. Where kernels may be bound meanwhile the table
 * stays between enter and leave only, which pst_mlp_*() and pst_device_gemm() do by themselves;
 * other devices, an engine's or a server's, are bound by nobody.
 */
const struct pst_ops *pst_device_ops(const struct pst_device *dev);
void pst_device_enter(struct pst_device *dev);
void pst_device_leave(struct pst_device *dev);

/*
 * Serve @op by the kernel of @image from the next call on, NULL: by what is built in. The image is
 * of this op, and is held until no call uses it any more. 0 or -ENOMEM.
 */
int pst_device_bind(struct pst_device *dev, enum pst_op op, struct pst_image *image);
unsigned int pst_device_tables(struct pst_device *dev); /* that are in memory, for tests */

unsigned int pst_device_threads(const struct pst_device *dev);

void pst_device_for(struct pst_device *dev, size_t tasks, pst_task_fn *fn, void *ctx);

/* gemm (op.h) cut into row blocks of the result over the team. */
void pst_device_gemm(struct pst_device *dev, bool ta, bool tb, size_t m, size_t n, size_t k,
		     const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
		     bool acc);

#endif /* PST_DEVICE_H */
