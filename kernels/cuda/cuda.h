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
 *           kernel always wants the same, gate_topk so much only beyond 12288 experts.
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
 * ref. None has run on a GPU yet; nothing is known of their speed.
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
	IMAGE(bf16) \
	IMAGE(experts) \
	IMAGE(gate) \
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
	OP(balance, gate, one_block, 4) \
	OP(combine, rows, rows, 4, 6) \
	OP(combine_dw, rows, dots, 4, 5) \
	OP(embed, rows, rows, 3, 4) \
	OP(embed_bwd, rows, embed_bwd, 6, 7) \
	OP(from_bf16, bf16, eights, 2) \
	OP(gate_bwd, gate, warps, 5) \
	OP(gate_topk, gate, gate, 5, 6, 8) \
	OP(gather, rows, rows, 3, 4) \
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
	/* EOL */

#define PST_CUDA_KERNELS(OP, KERNEL) \
	PST_CUDA_OPS(OP) PST_CUDA_SUMSQ(KERNEL) PST_CUDA_EXPERTS(KERNEL)

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

/* Experts: what a block takes of what it makes, and its shared memory, as experts.cu has it. */
#define PST_CUDA_EXPERTS_TILE	     128 /* columns of the result */
#define PST_CUDA_EXPERTS_DEPTH	     64	 /* terms a step */
#define PST_CUDA_EXPERTS_THREADS(of) ((of) == 128 ? 256 : 128)
#define PST_CUDA_EXPERTS_STAGES(of)  ((of) == 128 ? 3 : 4)
#define PST_CUDA_EXPERTS_SHARED(of) \
	(PST_CUDA_EXPERTS_STAGES(of) * (PST_CUDA_EXPERTS_TILE + (of)) * PST_CUDA_EXPERTS_DEPTH * 2)

#ifdef __cplusplus
}
#endif

#endif /* PST_CUDA_CUDA_H */
