/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ops attn and attn_bwd: one head of one sequence in fp32, with errors like ref's. All heads at
 * once, on tensor cores: attn_heads.cu, attn_heads_bwd.cu.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/attn_rows.cuh"

static __device__ __forceinline__ size_t grid_warp(void)
{
	return grid_thread() / 32;
}

static __device__ __forceinline__ size_t grid_warps(void)
{
	return grid_threads() / 32;
}

extern "C" __global__ void __launch_bounds__(128)
	attn(float *o, size_t ldo, float *lse, const float *q, size_t ldq, const float *k,
	     size_t ldk, const float *v, size_t ldv, size_t tq, size_t tk, size_t dqk, size_t dv,
	     float scale)
{
	for (size_t i = grid_warp(); i < tq; i += grid_warps())
		row_forward(o + i * ldo, lse + i, q + i * ldq, rows_from(k, ldk), rows_from(v, ldv),
			    i + 1 + tk > tq ? i + 1 + tk - tq : 0, dqk, dv, scale);
}

/* First all of dq, then all of dk and dv: a warp has a row. */
extern "C" __global__ void __launch_bounds__(128)
	attn_bwd(float *dq, size_t lddq, float *dk, size_t lddk, float *dv, size_t lddv,
		 const float *o, size_t ldo, const float *dout, size_t lddo, const float *lse,
		 const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv,
		 size_t t, size_t dqk, size_t dvdim, float scale)
{
	struct queries w = {
		rows_from(q, ldq), rows_from(dout, lddo), rows_from(o, ldo), lse, NULL, t};

	for (size_t at = grid_warp(); at < 2 * t; at += grid_warps()) {
		size_t i = at < t ? at : at - t;
		const float *of = dout + i * lddo;

		if (at < t)
			row_dq(dq + i * lddq, of, lse[i], dot(of, o + i * ldo, dvdim), q + i * ldq,
			       rows_from(k, ldk), rows_from(v, ldv), i + 1, dqk, dvdim, scale);
		else
			row_dkv(dk + i * lddk, dv + i * lddv, k + i * ldk, v + i * ldv, i, w, dqk,
				dvdim, scale);
	}
}
