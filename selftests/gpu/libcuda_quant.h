/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libcuda_quant.h - the kernels on quantised numbers of the stand-in, as struct cuda_op has them.
 * Experts' go without how many rows a block takes: "experts_up_w8" is both of its kernels.
 */
#ifndef SELFTESTS_GPU_LIBCUDA_QUANT_H
#define SELFTESTS_GPU_LIBCUDA_QUANT_H

#include "selftests/gpu/libcuda.h"

void cuda_experts_up_w8(void *const *p, const uint64_t *v);
void cuda_experts_up_w4(void *const *p, const uint64_t *v);
void cuda_experts_up_w8a8(void *const *p, const uint64_t *v);
void cuda_experts_down_w8(void *const *p, const uint64_t *v);
void cuda_experts_down_w4(void *const *p, const uint64_t *v);
void cuda_experts_down_w8a8(void *const *p, const uint64_t *v);
void cuda_dequant_rows(void *const *p, const uint64_t *v);
void cuda_dequant_tiles(void *const *p, const uint64_t *v);
void cuda_quant_both(void *const *p, const uint64_t *v);
void cuda_quant_rows(void *const *p, const uint64_t *v);
void cuda_quant_tiles(void *const *p, const uint64_t *v);
void cuda_rmsnorm_quant(void *const *p, const uint64_t *v);
void cuda_swiglu_quant(void *const *p, const uint64_t *v);

/* clang-format off */
#define CUDA_QUANT_OPS \
	{"dequant_rows", "pippzz", cuda_dequant_rows}, \
	{"dequant_tiles", "pippzz", cuda_dequant_tiles}, \
	{"experts_down_w4", "pippppzzzz", cuda_experts_down_w4}, \
	{"experts_down_w8", "pippppzzzz", cuda_experts_down_w8}, \
	{"experts_down_w8a8", "pipppppzzzz", cuda_experts_down_w8a8}, \
	{"experts_up_w4", "pppzppppppzzzz", cuda_experts_up_w4}, \
	{"experts_up_w8", "pppzppppppzzzz", cuda_experts_up_w8}, \
	{"experts_up_w8a8", "ppppzppppppzzzz", cuda_experts_up_w8a8}, \
	{"quant_both", "ppppzpizzz", cuda_quant_both}, \
	{"quant_rows", "pppizzz", cuda_quant_rows}, \
	{"quant_tiles", "ppppzpizzz", cuda_quant_tiles}, \
	{"rmsnorm_quant", "ppppizpzzf", cuda_rmsnorm_quant}, \
	{"swiglu_quant", "pppizz", cuda_swiglu_quant}
/* clang-format on */

#endif /* SELFTESTS_GPU_LIBCUDA_QUANT_H */
