/* SPDX-License-Identifier: Apache-2.0 */
/* moe_local.h - the routed experts of moe/engine.h computed in this process, for tests. */
#ifndef PST_MOE_LOCAL_H
#define PST_MOE_LOCAL_H

#include "runtime/device/device.h"
#include "runtime/model/config.h"
#include "runtime/moe/engine.h"

/* Weights and gradients in the order of params.h; both must stay. @rows: at most. */
struct pst_moe *moe_local_create(const struct pst_config *cfg, struct pst_device *dev, size_t rows,
				 const float *const *weights, float *const *grads);
void moe_local_destroy(struct pst_moe *moe);

/* A number that stands for all choices of experts since the last call of this. */
uint64_t moe_local_choices(struct pst_moe *moe);

/* From the @calls-th call on, counted from now, every call fails with @code; 0: never. */
void moe_local_fail(struct pst_moe *moe, unsigned int calls, int code);

#endif /* PST_MOE_LOCAL_H */
