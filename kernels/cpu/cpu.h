/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu.h - the vector kernels: pst_avx2_NAME has the signature of op NAME.
 *
 * PST_AVX2_OPS lists the ops that have one; a file named *_avx2.c is built with AVX2 and FMA, and
 * nothing else is, so that the registry can be asked on any x86.
 */
#ifndef PST_CPU_H
#define PST_CPU_H

#include "kernels/op.h"

/* clang-format off */
#define PST_AVX2_OPS(K) \
	K(adamw) \
	K(adamw_bf16) \
	K(add) \
	K(attn) \
	K(attn_bwd) \
	K(combine) \
	K(combine_dw) \
	K(embed_bwd) \
	K(from_bf16) \
	K(gate_topk) \
	K(gemm) \
	K(gemm_bf16) \
	K(rmsnorm) \
	K(rmsnorm_dw) \
	K(rmsnorm_dx) \
	K(rope) \
	K(scatter_scaled) \
	K(sumsq) \
	K(swiglu) \
	K(swiglu_bwd) \
	K(to_bf16) \
	K(xent) \
	/* EOL */

#define PST_AVX2_KERNEL(name) pst_##name##_fn pst_avx2_##name;
PST_AVX2_OPS(PST_AVX2_KERNEL)
#undef PST_AVX2_KERNEL
/* clang-format on */

#endif /* PST_CPU_H */
