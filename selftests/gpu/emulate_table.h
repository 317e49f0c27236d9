/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emulate_table.h - the kernels of cuda.h by number, for tests that run in two places.
 *
 * The same test bodies are linked twice: into gpu/kernels with emulate_table.cc, where a launch is
 * one under the emulation (emulate.h), and into gpu-check with check_launch.c, where it is one on a
 * GPU. So a test gives a kernel only memory that a GPU can be made to reach: what malloc(),
 * calloc(), posix_memalign() and mmap() return, and its own stack; nothing static. It calls nothing
 * of emulate.h but emulate_seed(), which means nothing on a GPU.
 */
#ifndef PST_EMULATE_TABLE_H
#define PST_EMULATE_TABLE_H

#include "kernels/cuda/cuda.h"
#include "selftests/gpu/emulate.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Runs it, to its end, with what pst_cuda_geometry() says, which is what this returns. A launch
 * that fails ends the process.
 */
int emulate_kernel(enum pst_cuda_kernel k, void *const *params);

/* Every second launch of an op's kernel gets @most blocks, if it would have more; 0: none does. */
void emulate_few_blocks(uint32_t most);

/*
 * The rest is emulate_table.cc's alone. A kernel's arguments, a letter for each: 'p' pointer,
 * 'z' size_t, 'i' int, 'f' float. Bit i of @lists: argument i points to pointers.
 */
const char *emulate_signature(enum pst_cuda_kernel k, uint32_t *lists);
/* Runs it as @l says. */
void emulate_kernel_as(enum pst_cuda_kernel k, const struct pst_cuda_launch *l,
		       void *const *params);

#ifdef __cplusplus
}
#endif

#endif /* PST_EMULATE_TABLE_H */
