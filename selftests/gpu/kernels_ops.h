/* SPDX-License-Identifier: Apache-2.0 */
/* kernels_ops.h - the CUDA kernels that are ops, as a table of ops (emulate_table.h). */
#ifndef PST_KERNELS_OPS_H
#define PST_KERNELS_OPS_H

#include "kernels/op.h"

/* An op that has no kernel is NULL. */
extern const struct pst_ops kernels_ops;

#endif /* PST_KERNELS_OPS_H */
