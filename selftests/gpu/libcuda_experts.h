/* SPDX-License-Identifier: Apache-2.0 */
/* libcuda_experts.h - the experts' kernels of the stand-in, as struct cuda_op has them. */
#ifndef SELFTESTS_GPU_LIBCUDA_EXPERTS_H
#define SELFTESTS_GPU_LIBCUDA_EXPERTS_H

#include "selftests/gpu/libcuda.h"

void cuda_experts_up(void *const *p, const uint64_t *v);
void cuda_experts_down(void *const *p, const uint64_t *v);
void cuda_experts_da(void *const *p, const uint64_t *v);
void cuda_experts_dx(void *const *p, const uint64_t *v);
void cuda_experts_dw(void *const *p, const uint64_t *v);

/* clang-format off */
#define CUDA_EXPERTS_OPS \
	{"experts_up", "pppzppppzzzz", cuda_experts_up}, \
	{"experts_down", "pipppzzzz", cuda_experts_down}, \
	{"experts_da", "pppppppzzzz", cuda_experts_da}, \
	{"experts_dx", "pipppppzzzz", cuda_experts_dx}, \
	{"experts_dw", "pppzppzzzi", cuda_experts_dw}
/* clang-format on */

#endif /* SELFTESTS_GPU_LIBCUDA_EXPERTS_H */
