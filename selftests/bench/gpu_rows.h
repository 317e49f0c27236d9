/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_rows.h - what makes works of gpu-bench: gpu_rows.c, gpu_experts.c, gpu_dense.c. */
#ifndef PST_BENCH_GPU_ROWS_H
#define PST_BENCH_GPU_ROWS_H

#include "selftests/bench/gpu.h"

struct bench_sizes {
	size_t tokens, hidden, inter, experts, chosen, vocab, rope, params;
};

const struct bench_sizes *bench_sizes(const struct bench *b);

/* The next argument of the kernel. */
void bench_arg(struct bench_work *w, uint64_t value);
void bench_real(struct bench_work *w, float value);

__attribute__((format(printf, 2, 3))) void bench_shape(struct bench_work *w, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) void bench_ask(struct bench_work *w, const char *fmt, ...);

/* @n indices below @below; each once if both are the same and even, in an order that is no order.
 */
CUdeviceptr bench_indices(struct bench *b, size_t n, size_t below);

/* Experts: @n of them with @rows each, or with a long tail of the same sum. */
void bench_groups(struct bench *b, struct bench_work *w, size_t n, int rows, bool uneven);

typedef void bench_make_fn(struct bench *b, struct bench_work *w);
/* gpu_experts.c */
bench_make_fn bench_up, bench_up_w8, bench_up_w4, bench_up_w8a8;
bench_make_fn bench_down, bench_down_w8, bench_down_w4, bench_down_w8a8;
bench_make_fn bench_da, bench_dx, bench_dw;
/* gpu_dense.c */
bench_make_fn bench_gemm, bench_gemm_bf16, bench_attn_heads, bench_attn_heads_dq,
	bench_attn_heads_dkv, bench_mla_decode, bench_mla_combine, bench_quant_rows,
	bench_rmsnorm_quant, bench_swiglu_quant, bench_quant_both, bench_dequant_rows;

#endif /* PST_BENCH_GPU_ROWS_H */
