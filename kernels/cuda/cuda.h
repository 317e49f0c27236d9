/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda.h - the CUDA kernels: which there are, where their images lie, how one is launched.
 *
 * The model
 *   image   what nvcc made of one source in this folder: a fat binary with code for sm_80,
 *           sm_90a and sm_100f, embedded in the library. Built without nvcc there is none, and
 *           pst_cuda_image() says so by NULL.
 *   kernel  a function of an image, by the name that PST_CUDA_KERNELS has. One that carries the
 *           name of an op (kernels/op.h) takes the op's arguments, as they are there; an op that
 *           returns a value has one argument more, before the others: where the value goes.
 *           The others are declared below.
 *   launch  grid, block and dynamic shared memory. They follow from the kernel's arguments, and
 *           pst_cuda_geometry() is the one place that knows how: give it what you will give to
 *           cuLaunchKernel(). A launch with more than 48 KiB of shared memory needs that many as
 *           CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES of its function before: an experts'
 *           kernel and one of attention always want the same, gemm what its tiles want,
 *           quant_both and quant_tiles one tile, gate_topk so much only beyond 12288 experts.
 *
 *	image = pst_cuda_image(pst_cuda_kernel_image(k), &bytes);  cuLibraryLoadData(...)
 *	void *params[] = {&y, &x, &idx, &rows, &cols};
 *	pst_cuda_geometry(PST_CUDA_gather, params, &l);
 *	cuLaunchKernel(fn, l.grid[0], l.grid[1], l.grid[2], l.block, 1, 1, l.shared, stream, params,
 *0)
 *
 * Numbers: the same arguments give the same bits from launch to launch, for any grid and whatever
 * the addresses are; sums have an order of their own, fixed by shape, that is not ref's. No float
 * is added atomically. An expert's numbers follow from its rows and its weights alone, not from
 * the experts beside it, from their order or from where its rows lie.
 *
 * What is proved: selftests/gpu/kernels runs all of them on the CPU, under an emulation, against
 * ref; make -C kernels gpu-check runs the same tests on a GPU. None has run on a GPU yet; nothing
 * is known of their speed.
 *
 * Threads: all here are pure functions of their arguments.
 */
#ifndef PST_CUDA_CUDA_H
#define PST_CUDA_CUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* IMAGE(name): from name.cu */
/* clang-format off */
#define PST_CUDA_IMAGES(IMAGE) \
	IMAGE(adamw) \
	IMAGE(attn) \
	IMAGE(attn_heads) \
	IMAGE(attn_heads_bwd) \
	IMAGE(bf16) \
	IMAGE(experts) \
	IMAGE(experts_quant) \
	IMAGE(gate) \
	IMAGE(gemm) \
	IMAGE(heads) \
	IMAGE(mla) \
	IMAGE(quant) \
	IMAGE(rmsnorm) \
	IMAGE(rope) \
	IMAGE(rows) \
	IMAGE(sumsq) \
	IMAGE(swiglu) \
	IMAGE(xent) \
	/* EOL */

/*
 * OP(name, image, shape, i, ...): a kernel of the name of an op. Its launch follows from the
 * arguments i, ... (counted from 0, all of them size_t) as `shape` says in cuda.c.
 */
#define PST_CUDA_OPS(OP) \
	OP(adamw, adamw, quads, 5) \
	OP(adamw_bf16, adamw, quads, 5) \
	OP(add, rows, quads, 2) \
	OP(attn, attn, queries, 9) \
	OP(attn_bwd, attn, attn_bwd, 1) \
	OP(balance, gate, one_block, 4) \
	OP(combine, rows, rows, 4, 6) \
	OP(combine_dw, rows, dots, 4, 5) \
	OP(embed, rows, rows, 3, 4) \
	OP(embed_bwd, rows, embed_bwd, 6, 7) \
	OP(from_bf16, bf16, eights, 2) \
	OP(gate_bwd, gate, warps, 5) \
	OP(gate_topk, gate, gate, 5, 6, 8) \
	OP(gather, rows, rows, 3, 4) \
	OP(gemm, gemm, gemm, 2, 3) \
	OP(gemm_bf16, gemm, gemm_bf16, 2, 3) \
	OP(rmsnorm, rmsnorm, rows, 6, 7) \
	OP(rmsnorm_dw, rmsnorm, columns, 7) \
	OP(rmsnorm_dx, rmsnorm, rows, 8, 9) \
	OP(rope, rope, warps, 2) \
	OP(scatter_scaled, rows, slots, 4, 5, 6) \
	OP(sumsq, sumsq, sumsq, 2) \
	OP(swiglu, swiglu, quads, 3) \
	OP(swiglu_bwd, swiglu, quads, 6) \
	OP(to_bf16, bf16, eights, 2) \
	OP(xent, xent, vocab, 4, 5) \
	/* EOL */
/* clang-format on */

#define PST_CUDA_SUMSQ_PARTS   512
#define PST_CUDA_SUMSQ_THREADS 256

/*
 * sumsq in two launches, for large n, with the same bits: part[PST_CUDA_SUMSQ_PARTS] partial sums,
 * and then their sum.
 */
/* clang-format off */
#define PST_CUDA_SUMSQ(KERNEL) \
	KERNEL(sumsq_parts, (double *part, const float *x, size_t n), sumsq, parts, 2) \
	KERNEL(sumsq_total, (double *out, const double *part, size_t parts), sumsq, one_warp, 2)
/* clang-format on */

/*
 * Attention for all heads of all sequences of a batch in one launch, fp32 in memory. It rounds
 * operands and probabilities to bf16 and sums in fp32, where the ops gemm, gemm_bf16, attn and
 * attn_bwd have errors like sums in fp32 (gemm: but an infinity gives NaN). Heads wider than
 * PST_CUDA_ATTN_DQK or PST_CUDA_ATTN_DV, and caches wider than PST_CUDA_MLA_COLS, are computed in
 * fp32, slowly. What a head of a sequence gets does not depend on the heads and the sequences
 * beside it.
 *
 * Rows of sequence b of @batch begin at row b * tq (q, o, what has their shape) and b * tk (k, v);
 * the part of head h of @heads begins at h * head_* of each row. head_k = head_v = 0: all heads
 * have the same keys and values (forward only). lse and delta: [heads][batch * tq]. Any dqk and dv
 * of at least 1.
 *
 * attn_heads        op attn.
 * attn_heads_delta  delta = dot(dout, o) of each row (arXiv:2205.14135 B.4), for the next two.
 * attn_heads_dq     dq of op attn_bwd (overwritten): tq = tk = t.
 * attn_heads_dkv    dk and dv of it (overwritten).
 *                   A gradient lies as what it is the gradient of: dq as q, dk as k, dv as v,
 *                   dout as o.
 *
 * mla_decode, mla_combine: absorbed multi-head latent attention (arXiv:2405.04434 2.1.2) of few
 * queries over a long cache. A row of the cache is [lora + rope], the key of all heads; its first
 * @lora are the value. Sequence b has len[b] rows in use (at least tq of them, @most at the most),
 * which begin at b * seq_c of @cache and are ldc apart; they are bf16 if @narrow, else fp32. Row
 * b * tq + i of q is query i of tq: it sees keys 0 .. len[b] - tq + i. The keys are cut into parts
 * of @keys (a multiple of 64), P = ceil(most / keys) of them; numbers follow from @keys, not from
 * who is beside a sequence in the batch.
 *
 * mla_decode        part[P][heads][batch * tq][lora] and part_lse[P][heads][batch * tq]: attention
 *                   to each part alone. A part that a query does not see gets lse -inf and no
 *                   values.
 * mla_combine       o, and lse[heads][batch * tq] (NULL: not), from the parts in their order.
 */
/* clang-format off */
#define PST_CUDA_ATTN_HEADS (float *o, size_t ldo, size_t head_o, float *lse, const float *q, \
	size_t ldq, size_t head_q, const float *k, size_t ldk, size_t head_k, const float *v, \
	size_t ldv, size_t head_v, size_t heads, size_t batch, size_t tq, size_t tk, size_t dqk, \
	size_t dv, float scale)
#define PST_CUDA_ATTN_HEADS_DELTA (float *delta, const float *o, const float *dout, size_t ldo, \
	size_t head_o, size_t heads, size_t batch, size_t t, size_t dvdim)
#define PST_CUDA_ATTN_HEADS_DQ (float *dq, const float *dout, size_t ldo, size_t head_o, \
	const float *lse, const float *delta, size_t heads, size_t batch, size_t t, size_t dqk, \
	size_t dvdim, float scale, const float *q, size_t ldq, size_t head_q, const float *k, \
	size_t ldk, size_t head_k, const float *v, size_t ldv, size_t head_v)
#define PST_CUDA_ATTN_HEADS_DKV (float *dk, float *dv, const float *dout, size_t ldo, \
	size_t head_o, const float *lse, const float *delta, size_t heads, size_t batch, size_t t, \
	size_t dqk, size_t dvdim, float scale, const float *q, size_t ldq, size_t head_q, \
	const float *k, size_t ldk, size_t head_k, const float *v, size_t ldv, size_t head_v)
#define PST_CUDA_MLA_DECODE (float *part, float *part_lse, const float *q, size_t ldq, \
	size_t head_q, const void *cache, int narrow, size_t ldc, size_t seq_c, \
	const int32_t *len, size_t heads, size_t batch, size_t tq, size_t most, size_t keys, \
	size_t lora, size_t rope, float scale)
#define PST_CUDA_MLA_COMBINE (float *o, size_t ldo, size_t head_o, float *lse, \
	const float *part, const float *part_lse, size_t heads, size_t batch, size_t tq, \
	size_t most, size_t keys, size_t lora)

#define PST_CUDA_ATTENTION(KERNEL) \
	KERNEL(attn_heads, PST_CUDA_ATTN_HEADS, attn_heads, attn_heads, 13, 14, 15) \
	KERNEL(attn_heads_delta, PST_CUDA_ATTN_HEADS_DELTA, attn_heads, head_rows, 5, 6, 7) \
	KERNEL(attn_heads_dq, PST_CUDA_ATTN_HEADS_DQ, attn_heads_bwd, attn_heads_dq, 6, 7, 8) \
	KERNEL(attn_heads_dkv, PST_CUDA_ATTN_HEADS_DKV, attn_heads_bwd, attn_heads_dkv, 7, 8, 9) \
	KERNEL(mla_decode, PST_CUDA_MLA_DECODE, mla, mla, 10, 11, 12, 13, 14) \
	KERNEL(mla_combine, PST_CUDA_MLA_COMBINE, mla, head_rows, 6, 7, 8) \
	/* EOL */
/* clang-format on */

/*
 * Parts of rows that belong to heads, fp32: that of head h begins at h * head_* of a row; a head_x
 * of 0 gives all heads the same part.
 *
 * copy_heads  @cols of each part of x to that of y; y and x do not overlap.
 * sum_heads   y[r] = the parts of row r of x, added in the order of heads; zero without heads.
 * rope_heads  op rope for each part. @split: pairs lie (i, i + dim / 2) in the tensor and
 *             (2i, 2i + 1) where scores are made of them, so that they move, too: there, or back if
 *             @inverse. @dim: up to PST_CUDA_ROPE_MAX.
 */
#define PST_CUDA_ROPE_MAX 1024
/* clang-format off */
#define PST_CUDA_COPY_HEADS (float *y, size_t ldy, size_t head_y, const float *x, size_t ldx, \
	size_t head_x, size_t rows, size_t heads, size_t cols)
#define PST_CUDA_SUM_HEADS (float *y, size_t ldy, const float *x, size_t ldx, size_t head_x, \
	size_t rows, size_t heads, size_t cols)
#define PST_CUDA_ROPE_HEADS (float *x, size_t ldx, size_t head_x, size_t rows, size_t heads, \
	size_t dim, const int32_t *pos, const float *cos_t, const float *sin_t, int split, \
	int inverse)

#define PST_CUDA_HEADS(KERNEL) \
	KERNEL(copy_heads, PST_CUDA_COPY_HEADS, heads, dots, 6, 7) \
	KERNEL(sum_heads, PST_CUDA_SUM_HEADS, heads, warps, 5) \
	KERNEL(rope_heads, PST_CUDA_ROPE_HEADS, heads, dots, 3, 4) \
	/* EOL */
/* clang-format on */

/*
 * Experts: y = down( silu(gate(x)) * up(x) ), all experts of a layer in one launch a step. Rows of
 * activations are sorted by expert: those of expert i are rows off[i] .. off[i + 1] - 1 of @rows,
 * off[0] = 0, off[n] = rows; any expert may have none. Weights are reached through device arrays
 * of @n pointers. @hidden and @inter are multiples of 8 (at least 8); every matrix and every row
 * of one begins on 16 bytes. All is bf16 (nearest, ties to even) but for what is said to be fp32;
 * sums are fp32.
 *
 * The number in a name is how many rows of one expert a block takes: 16 and 64 for few rows, where
 * weights pass by once; 128 for many. Each takes any number of rows, and all add the same terms in
 * the same order.
 *
 * experts_up    a[rows, inter] = silu(g) * u with g = x gate^T, u = x up^T in fp32. Row r of x is
 *               x[idx[r]], or x[r] if @idx is NULL; rows of x are ldx apart, a multiple of 8.
 *               kept[rows, 2 inter] (NULL: not) holds g, then u, for backward.
 *               gate[i], up[i]: [inter, hidden].
 * experts_down  y[rows, hidden] = a down^T; y is bf16 if @narrow, else fp32. down[i]:
 *               [hidden, inter].
 * experts_da    with da = dy down and g, u as kept: dg, du [rows, inter] as swiglu_bwd's, and a
 *               again (NULL: not), for experts_dw. dy[rows, hidden].
 * experts_dx    dx[rows, hidden] = dg gate + du up; bf16 if @narrow, else fp32. Rows stay sorted
 *               by expert: `combine` sums them into tokens.
 * experts_dw    dw[i] [m, k] fp32 = p_i^T q_i over the rows of expert i, zero if it has none; added
 *               to what was there if @acc. p[rows, m], q[rows, k]; row r of q is q[idx[r]] if @idx
 *               is not NULL, ldq apart. dgate: p = dg, q = x; dup: p = du, q = x; ddown: p = dy,
 *               q = a.
 */
/* clang-format off */
#define PST_CUDA_EXPERTS_UP (uint16_t *a, uint16_t *kept, const uint16_t *x, size_t ldx, \
	const int32_t *idx, const uint16_t *const *gate, const uint16_t *const *up, \
	const int32_t *off, size_t n, size_t rows, size_t hidden, size_t inter)
#define PST_CUDA_EXPERTS_DOWN (void *y, int narrow, const uint16_t *a, \
	const uint16_t *const *down, const int32_t *off, size_t n, size_t rows, size_t hidden, \
	size_t inter)
#define PST_CUDA_EXPERTS_DA (uint16_t *dg, uint16_t *du, uint16_t *a, const uint16_t *dy, \
	const uint16_t *kept, const uint16_t *const *down, const int32_t *off, size_t n, \
	size_t rows, size_t hidden, size_t inter)
#define PST_CUDA_EXPERTS_DX (void *dx, int narrow, const uint16_t *dg, const uint16_t *du, \
	const uint16_t *const *gate, const uint16_t *const *up, const int32_t *off, size_t n, \
	size_t rows, size_t hidden, size_t inter)
#define PST_CUDA_EXPERTS_DW (float *const *dw, const uint16_t *p, const uint16_t *q, size_t ldq, \
	const int32_t *idx, const int32_t *off, size_t n, size_t m, size_t k, int acc)

#define PST_CUDA_QUANT_UP_(x, scale) (uint16_t *a, uint16_t *kept, x, size_t ldx, \
	const int32_t *idx, const uint8_t *const *gate, const scale *const *gate_scale, \
	const uint8_t *const *up, const scale *const *up_scale, const int32_t *off, size_t n, \
	size_t rows, size_t hidden, size_t inter)
#define PST_CUDA_QUANT_DOWN_(a, type) (void *y, int narrow, a, const uint8_t *const *down, \
	const type *const *scale, const int32_t *off, size_t n, size_t rows, size_t hidden, \
	size_t inter)
#define PST_CUDA_EXPERTS_UP_W8 PST_CUDA_QUANT_UP_(const uint16_t *x, float)
#define PST_CUDA_EXPERTS_UP_W4 PST_CUDA_QUANT_UP_(const uint16_t *x, uint16_t)
#define PST_CUDA_EXPERTS_UP_W8A8 (uint16_t *a, uint16_t *kept, const uint8_t *x, \
	const float *x_scale, size_t ldx, const int32_t *idx, const uint8_t *const *gate, \
	const float *const *gate_scale, const uint8_t *const *up, const float *const *up_scale, \
	const int32_t *off, size_t n, size_t rows, size_t hidden, size_t inter)
#define PST_CUDA_EXPERTS_DOWN_W8 PST_CUDA_QUANT_DOWN_(const uint16_t *a, float)
#define PST_CUDA_EXPERTS_DOWN_W4 PST_CUDA_QUANT_DOWN_(const uint16_t *a, uint16_t)
#define PST_CUDA_EXPERTS_DOWN_W8A8 (void *y, int narrow, const uint8_t *a, const float *a_scale, \
	const uint8_t *const *down, const float *const *scale, const int32_t *off, size_t n, \
	size_t rows, size_t hidden, size_t inter)

/*
 * To fp8 and back, with the bits of kernels/quant.h. @cols is a multiple of 16; all begins on 16
 * bytes; x and kept are bf16 if @narrow, else fp32, and ldx is a multiple of 8. What is between is
 * fp32.
 *
 * quant_rows     x[rows, cols] to fp8 rows.
 * rmsnorm_quant  op rmsnorm's y to fp8 rows; w[cols] and rstd[rows] are fp32.
 * swiglu_quant   silu(g) * u to fp8 rows; kept[rows, 2 cols] has g, then u, as experts_up's.
 * dequant_rows   fp8 rows to y[rows, cols], bf16 if @narrow, else fp32.
 * dequant_tiles  the same of fp8 tiles.
 * quant_both     x to fp8 rows, and x transposed, [cols, rows], to fp8 rows, too: a block along
 *                rows is not one along columns, so both are made of x itself. Rows of qt are ldt
 *                apart, a multiple of 16, at least @rows and less than 128 more; what is behind
 *                @rows is 0, unless its block is NaN.
 * quant_tiles    x to fp8 tiles, and if @qt is not NULL the same codes and scales transposed.
 */
#define PST_CUDA_QUANT_ROWS (uint8_t *q, float *scale, const void *x, int narrow, size_t ldx, \
	size_t rows, size_t cols)
#define PST_CUDA_RMSNORM_QUANT (uint8_t *q, float *scale, float *rstd, const void *x, int narrow, \
	size_t ldx, const float *w, size_t rows, size_t cols, float eps)
#define PST_CUDA_SWIGLU_QUANT (uint8_t *q, float *scale, const void *kept, int narrow, \
	size_t rows, size_t cols)
#define PST_CUDA_DEQUANT (void *y, int narrow, const uint8_t *q, const float *scale, size_t rows, \
	size_t cols)
#define PST_CUDA_QUANT_CAST (uint8_t *q, float *scale, uint8_t *qt, float *scale_t, size_t ldt, \
	const void *x, int narrow, size_t ldx, size_t rows, size_t cols)

#define PST_CUDA_QUANT_GLUE(KERNEL) \
	KERNEL(dequant_rows, PST_CUDA_DEQUANT, quant, blocks_128, 4, 5) \
	KERNEL(dequant_tiles, PST_CUDA_DEQUANT, quant, blocks_128, 4, 5) \
	KERNEL(quant_both, PST_CUDA_QUANT_CAST, quant, squares_128, 8, 9) \
	KERNEL(quant_rows, PST_CUDA_QUANT_ROWS, quant, blocks_128, 5, 6) \
	KERNEL(quant_tiles, PST_CUDA_QUANT_CAST, quant, squares_128, 8, 9) \
	KERNEL(rmsnorm_quant, PST_CUDA_RMSNORM_QUANT, quant, rows_128, 7, 8) \
	KERNEL(swiglu_quant, PST_CUDA_SWIGLU_QUANT, quant, blocks_128, 4, 5) \
	/* EOL */

/*
 * Experts on quantised weights (kernels/quant.h), as experts_up and experts_down but for what is
 * said here; @hidden and @inter are multiples of 16.
 *
 * w8    weights are fp8 tiles, as they are published: each has its scales in a list of the same
 *       order, gate_scale[i]: fp32 [blocks of inter, blocks of hidden]. Activations are bf16.
 * w4    weights are packed int4, scales bf16 [blocks of hidden, inter]. Activations are bf16.
 * w8a8  weights as w8, activations fp8 rows: x_scale is [rows of x, blocks of hidden], ldx a
 *       multiple of 16; a likewise, rows side by side. Up: @a may be NULL, for swiglu_quant makes
 *       what down wants of @kept. Down is any grouped product of fp8 rows and fp8 tiles: dgrad's,
 *       with tiles of the transposed weights.
 *
 * Sums over a block of 128 terms are scaled and added to those before in fp32. The number in a
 * name is how many rows a block takes, as above, and changes no bit; on a target that lacks
 * instructions for e4m3 w8a8 multiplies as bf16, exactly, and its sums may round elsewhere.
 */
#define PST_CUDA_QUANT(KERNEL) \
	KERNEL(experts_up_w8_16, PST_CUDA_EXPERTS_UP_W8, experts_quant, half_w8_16, 10, 11, 13, 12) \
	KERNEL(experts_up_w8_64, PST_CUDA_EXPERTS_UP_W8, experts_quant, half_w8_64, 10, 11, 13, 12) \
	KERNEL(experts_up_w4_16, PST_CUDA_EXPERTS_UP_W4, experts_quant, half_w4_16, 10, 11, 13, 12) \
	KERNEL(experts_up_w4_64, PST_CUDA_EXPERTS_UP_W4, experts_quant, half_w4_64, 10, 11, 13, 12) \
	KERNEL(experts_up_w8a8_64, PST_CUDA_EXPERTS_UP_W8A8, experts_quant, half_w8a8_64, 11, 12, \
	       14, 13) \
	KERNEL(experts_up_w8a8_128, PST_CUDA_EXPERTS_UP_W8A8, experts_quant, half_w8a8_128, 11, \
	       12, 14, 13) \
	KERNEL(experts_down_w8_16, PST_CUDA_EXPERTS_DOWN_W8, experts_quant, tiles_w8_16, 6, 7, 8, \
	       9) \
	KERNEL(experts_down_w8_64, PST_CUDA_EXPERTS_DOWN_W8, experts_quant, tiles_w8_64, 6, 7, 8, \
	       9) \
	KERNEL(experts_down_w4_16, PST_CUDA_EXPERTS_DOWN_W4, experts_quant, tiles_w4_16, 6, 7, 8, \
	       9) \
	KERNEL(experts_down_w4_64, PST_CUDA_EXPERTS_DOWN_W4, experts_quant, tiles_w4_64, 6, 7, 8, \
	       9) \
	KERNEL(experts_down_w8a8_64, PST_CUDA_EXPERTS_DOWN_W8A8, experts_quant, tiles_w8a8_64, 7, \
	       8, 9, 10) \
	KERNEL(experts_down_w8a8_128, PST_CUDA_EXPERTS_DOWN_W8A8, experts_quant, tiles_w8a8_128, \
	       7, 8, 9, 10) \
	PST_CUDA_QUANT_GLUE(KERNEL) \
	/* EOL */

/* KERNEL(name, arguments, image, shape, i, ...): as OP(), from the image on. */
#define PST_CUDA_EXPERTS(KERNEL) \
	KERNEL(experts_up_16, PST_CUDA_EXPERTS_UP, experts, half_16, 8, 9, 11, 10) \
	KERNEL(experts_up_64, PST_CUDA_EXPERTS_UP, experts, half_64, 8, 9, 11, 10) \
	KERNEL(experts_up_128, PST_CUDA_EXPERTS_UP, experts, half_128, 8, 9, 11, 10) \
	KERNEL(experts_down_16, PST_CUDA_EXPERTS_DOWN, experts, tiles_16, 5, 6, 7, 8) \
	KERNEL(experts_down_64, PST_CUDA_EXPERTS_DOWN, experts, tiles_64, 5, 6, 7, 8) \
	KERNEL(experts_down_128, PST_CUDA_EXPERTS_DOWN, experts, tiles_128, 5, 6, 7, 8) \
	KERNEL(experts_da_64, PST_CUDA_EXPERTS_DA, experts, tiles_64, 7, 8, 10, 9) \
	KERNEL(experts_da_128, PST_CUDA_EXPERTS_DA, experts, tiles_128, 7, 8, 10, 9) \
	KERNEL(experts_dx_64, PST_CUDA_EXPERTS_DX, experts, tiles_64, 7, 8, 9, 10) \
	KERNEL(experts_dx_128, PST_CUDA_EXPERTS_DX, experts, tiles_128, 7, 8, 9, 10) \
	KERNEL(experts_dw, PST_CUDA_EXPERTS_DW, experts, weights, 6, 7, 8) \
	PST_CUDA_QUANT(KERNEL) \
	/* EOL */

#define PST_CUDA_KERNELS(OP, KERNEL) \
	PST_CUDA_OPS(OP) PST_CUDA_SUMSQ(KERNEL) PST_CUDA_ATTENTION(KERNEL) PST_CUDA_HEADS(KERNEL) \
	PST_CUDA_EXPERTS(KERNEL)

#define PST_CUDA_ID(name, ...) PST_CUDA_##name,
enum pst_cuda_kernel { PST_CUDA_KERNELS(PST_CUDA_ID, PST_CUDA_ID) PST_CUDA_KERNEL_COUNT };
#undef PST_CUDA_ID

#define PST_CUDA_IMAGE_ID(name) PST_CUDA_IMAGE_##name,
enum pst_cuda_image { PST_CUDA_IMAGES(PST_CUDA_IMAGE_ID) PST_CUDA_IMAGE_COUNT };
#undef PST_CUDA_IMAGE_ID
/* clang-format on */

/* Blocks have one dimension. */
struct pst_cuda_launch {
	uint32_t grid[3], block, shared;
};

/* "gather"; NULL if there is no such kernel. */
const char *pst_cuda_kernel_name(enum pst_cuda_kernel k);

/* PST_CUDA_KERNEL_COUNT if there is no such name. */
enum pst_cuda_kernel pst_cuda_kernel_find(const char *name);

/* Whose function it is; PST_CUDA_IMAGE_COUNT if there is no such kernel. */
enum pst_cuda_image pst_cuda_kernel_image(enum pst_cuda_kernel k);

/*
 * The fat binary and its size, valid for ever, on an 8-byte boundary. NULL, with *@bytes left as
 * it was, if there is no such image or the library was built without nvcc.
 */
const void *pst_cuda_image(enum pst_cuda_image i, size_t *bytes);

/*
 * The launch of @k for the arguments that @params points to, as cuLaunchKernel() takes them; of
 * these only sizes are read. Returns 0; -EINVAL (no such kernel, or sizes that it does not take);
 * -E2BIG (more than one launch can do). Nothing to do is a launch, too, of blocks that find that
 * out.
 */
int pst_cuda_geometry(enum pst_cuda_kernel k, void *const *params, struct pst_cuda_launch *l);

/*
 * attn_heads and its backward: the widest head that tiles take (wider ones work, without tensor
 * cores), and what a block takes.
 */
#define PST_CUDA_ATTN_DQK      192
#define PST_CUDA_ATTN_DV       128
#define PST_CUDA_ATTN_THREADS  256
#define PST_CUDA_ATTN_QUERIES  128
#define PST_CUDA_ATTN_KEYS     64
#define PST_CUDA_ATTN_BWD_TILE 64
#define PST_CUDA_ATTN_SHARED                                                 \
	(((PST_CUDA_ATTN_QUERIES + PST_CUDA_ATTN_KEYS) * PST_CUDA_ATTN_DQK + \
	  PST_CUDA_ATTN_KEYS * PST_CUDA_ATTN_DV) *                           \
	 2)
/* a tile of own rows, two that pass by, and @weights of both */
#define PST_CUDA_ATTN_BWD_SHARED(weights)                                                    \
	((3 * (PST_CUDA_ATTN_DQK + PST_CUDA_ATTN_DV) + PST_CUDA_ATTN_BWD_TILE * (weights)) * \
	 PST_CUDA_ATTN_BWD_TILE * 2)

/* mla_decode: the widest rows of a cache that tiles take, and what a block takes. */
#define PST_CUDA_MLA_COLS   576
#define PST_CUDA_MLA_VALUES 512
#define PST_CUDA_MLA_ROWS   64
#define PST_CUDA_MLA_KEYS   32
#define PST_CUDA_MLA_SHARED                                                 \
	(((PST_CUDA_MLA_ROWS + 2 * PST_CUDA_MLA_KEYS) * PST_CUDA_MLA_COLS + \
	  PST_CUDA_MLA_ROWS * PST_CUDA_MLA_KEYS) *                          \
		 2 +                                                        \
	 4 * PST_CUDA_MLA_ROWS * 4)

/*
 * gemm: rows of C in a tile, as gemm.cu has them, by the shape of C alone: few rows; not enough
 * large tiles for a GPU; or large ones. Threads, columns, and shared memory for B of @parts parts.
 */
#define PST_CUDA_GEMM_DEPTH 32 /* terms a step */
#define PST_CUDA_GEMM_ROWS(m, n) \
	((m) <= 32 ? 32 : (((m) + 127) / 128 * (((n) + 127) / 128) < 128 ? 64 : 128))
#define PST_CUDA_GEMM_COLS(rows)    ((rows) == 128 ? 128 : 64)
#define PST_CUDA_GEMM_THREADS(rows) ((rows) == 128 ? 256 : 128)
#define PST_CUDA_GEMM_SHARED(rows, parts) \
	(2 * (3 * (rows) + PST_CUDA_GEMM_COLS(rows) * (parts)) * PST_CUDA_GEMM_DEPTH * 2)

/* Experts: what a block takes of what it makes, and its shared memory, as experts.cu has it. */
#define PST_CUDA_EXPERTS_TILE	     128 /* columns of the result */
#define PST_CUDA_EXPERTS_DEPTH	     64	 /* terms a step */
#define PST_CUDA_EXPERTS_THREADS(of) ((of) == 128 ? 256 : 128)
#define PST_CUDA_EXPERTS_STAGES(of)  ((of) == 128 ? 3 : 4)
#define PST_CUDA_EXPERTS_SHARED(of) \
	(PST_CUDA_EXPERTS_STAGES(of) * (PST_CUDA_EXPERTS_TILE + (of)) * PST_CUDA_EXPERTS_DEPTH * 2)

/* Threads of quant.cu's blocks that have a tile. */
#define PST_CUDA_QUANT_THREADS 256

/*
 * The same on quantised weights: a step is a block of a scale, 128 terms. A stage is codes of 128
 * rows of weights, of int4 their scales, and rows of activations, of fp8 with theirs.
 */
#define PST_CUDA_EXPERTS_W8_STAGES(of)	 ((of) == 64 ? 3 : 4)
#define PST_CUDA_EXPERTS_W4_STAGES(of)	 ((of) == 64 ? 3 : 4)
#define PST_CUDA_EXPERTS_W8A8_STAGES(of) 4
#define PST_CUDA_EXPERTS_W8_SHARED(of) \
	(PST_CUDA_EXPERTS_W8_STAGES(of) * (128 * 128 + 128 * 2 * (of)))
#define PST_CUDA_EXPERTS_W4_SHARED(of) \
	(PST_CUDA_EXPERTS_W4_STAGES(of) * (128 * (64 + 2) + 128 * 2 * (of)))
#define PST_CUDA_EXPERTS_W8A8_SHARED(of) \
	(PST_CUDA_EXPERTS_W8A8_STAGES(of) * (128 * 128 + (of) * (128 + 4)))

#ifdef __cplusplus
}
#endif

#endif /* PST_CUDA_CUDA_H */
