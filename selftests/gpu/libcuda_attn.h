/* SPDX-License-Identifier: Apache-2.0 */
/* libcuda_attn.h - the batched attention kernels of the stand-in, as struct cuda_op has them. */
#ifndef SELFTESTS_GPU_LIBCUDA_ATTN_H
#define SELFTESTS_GPU_LIBCUDA_ATTN_H

#include "selftests/gpu/libcuda.h"

void cuda_attn_heads(void *const *p, const uint64_t *v);
void cuda_attn_heads_delta(void *const *p, const uint64_t *v);
void cuda_attn_heads_dq(void *const *p, const uint64_t *v);
void cuda_attn_heads_dkv(void *const *p, const uint64_t *v);
void cuda_mla_decode(void *const *p, const uint64_t *v);
void cuda_mla_combine(void *const *p, const uint64_t *v);

/* clang-format off */
#define CUDA_ATTN_OPS \
	{"attn_heads", "pzzppzzpzzpzzzzzzzzf", cuda_attn_heads}, \
	{"attn_heads_delta", "pppzzzzzz", cuda_attn_heads_delta}, \
	{"attn_heads_dkv", "pppzzppzzzzzfpzzpzzpzz", cuda_attn_heads_dkv}, \
	{"attn_heads_dq", "ppzzppzzzzzfpzzpzzpzz", cuda_attn_heads_dq}
#define CUDA_MLA_OPS \
	{"mla_combine", "pzzpppzzzzzz", cuda_mla_combine}, \
	{"mla_decode", "pppzzpizzpzzzzzzzf", cuda_mla_decode}
/* clang-format on */

#endif /* SELFTESTS_GPU_LIBCUDA_ATTN_H */
