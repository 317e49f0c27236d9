/* SPDX-License-Identifier: Apache-2.0 */
/* libcuda_engine.h - the kernels for parts of heads of the stand-in, as struct cuda_op has them. */
#ifndef SELFTESTS_GPU_LIBCUDA_ENGINE_H
#define SELFTESTS_GPU_LIBCUDA_ENGINE_H

#include "selftests/gpu/libcuda.h"

void cuda_copy_heads(void *const *p, const uint64_t *v);
void cuda_rope_heads(void *const *p, const uint64_t *v);
void cuda_sum_heads(void *const *p, const uint64_t *v);

/* clang-format off */
#define CUDA_ENGINE_OPS \
	{"copy_heads", "pzzpzzzzz", cuda_copy_heads}, \
	{"rope_heads", "pzzzzzpppii", cuda_rope_heads}, \
	{"sum_heads", "pzpzzzzz", cuda_sum_heads}
/* clang-format on */

#endif /* SELFTESTS_GPU_LIBCUDA_ENGINE_H */
