/* SPDX-License-Identifier: Apache-2.0 */
/* emulate_table.h - the kernels of cuda.h under the emulation (emulate.h), by number. */
#ifndef PST_EMULATE_TABLE_H
#define PST_EMULATE_TABLE_H

#include "kernels/cuda/cuda.h"
#include "selftests/gpu/emulate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs it with what pst_cuda_geometry() says, which is what this returns. */
int emulate_kernel(enum pst_cuda_kernel k, void *const *params);

/* Every second launch of an op's kernel gets @most blocks, if it would have more; 0: none does. */
void emulate_few_blocks(uint32_t most);

#ifdef __cplusplus
}
#endif

#endif /* PST_EMULATE_TABLE_H */
