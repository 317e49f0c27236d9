/* SPDX-License-Identifier: Apache-2.0 */
/*
 * op.h - the table of ops.
 *
 * The model
 *   op      a function with one fixed signature and one meaning. PST_OPS lists
 *           them all; everything else (typedefs, the table struct, the fp32 and
 *           fp64 references, the registry, the agreement check) is made from
 *           that one list.
 *   kernel  one implementation of an op for one kind of device and format.
 *           `ref` is plain C and is the truth; it is built twice, for float
 *           (what a kernel is compared with) and for double (gradient checks).
 *   table   `struct pst_ops`: one kernel per op. pst_ops_ref() is the reference,
 *           pst_ops_cpu() the best this CPU can run, chosen once by CPUID.
 *
 * Numbers
 *   Matrices are row-major; ld* is the distance between rows in elements.
 *   Pointers need the alignment of their element only. Outputs never overlap
 *   inputs unless the op says "in place".
 *   Bits: the result of every output element depends on the arguments and on
 *   the kernel, never on a thread, on an address or on what ran before; gcc and
 *   clang give the same bits (-ffp-contract=off, no -ffast-math). An op that
 *   sums does so in an order fixed by its arguments.
 *   A caller that splits an op among threads must cut it at places that do not
 *   depend on how many threads there are; then the whole keeps its bits.
 *
 * Threads: no op has state that a caller can see; all may run at once. Scratch
 * is thread-local. No op allocates from the heap, does I/O or fails: arguments are the
 * caller's promise, checked where they enter the program.
 */
#ifndef PST_OP_H
#define PST_OP_H

#include <stddef.h>
#include <stdint.h>

/*
 * OP(name, return type, arguments); R is float or double.
 *
 * gemm       C[m,n] = op(A) op(B), plus what C held if @acc. op(A) is m x k:
 *            A is stored [m,k], or [k,m] if @ta. op(B) is k x n: B is stored
 *            [k,n], or [n,k] if @tb (a Hugging Face weight [out,in] is B, tb=1).
 *            Any of m, n, k may be 0 (k = 0 and !acc clears C).
 * gemm_bf16  the same with B in bf16 (the upper half of an fp32).
 * rmsnorm    y = x * rstd * w per row, rstd = 1/sqrt(mean(x^2) + eps) is kept
 *            for backward (arXiv:1910.07467). In place (y == x) allowed.
 * rmsnorm_dx dx = d loss / d x, given dy. dx == dy allowed.
 * rmsnorm_dw dw[c] = sum over rows, in order, of dy * x * rstd; columns are
 *            independent, so a caller may split them.
 * rope       rotate pairs (2i, 2i+1) (interleaved, as on disk) of the first
 *            @dim elements of each of @rows rows by the angle whose cosine and
 *            sine are in row @pos[r] of @cos_t and @sin_t ([positions, dim/2]), in place;
 *            by the negative angle if @inverse (which is its backward).
 * attn       causal softmax(scale q k^T) v for one head of one sequence: query
 *            i of tq sees keys 0 .. i + tk - tq. lse[i] = log sum exp of row i,
 *            kept for backward. q [tq,dqk] k [tk,dqk] v [tk,dv] o [tq,dv].
 * attn_bwd   dq, dk, dv (overwritten), given o, dout, lse
 *            (arXiv:2205.14135 B.4). tq == tk.
 * swiglu     a = silu(g) * u, elementwise over @n. a == u or g allowed.
 * swiglu_bwd dg, du from da; also a again. dg == g, du == u, a == da allowed.
 * gate_topk  DeepSeek-V3's gate (arXiv:2412.19437 eq. 12-16): s = sigmoid(logit); choose by
 *            s + bias: the @topk_group groups (of @n_group) with the largest
 *            sum of their two best, then the @k best experts in those; ties go
 *            to the lower index. idx[rows,k] ascending in each row, w[rows,k] =
 *            chosen s, divided by their sum (+1e-20) if @norm, times @scale;
 *            score[rows,e] = s. A group that is not chosen is out (-inf), as in
 *            DeepSeek's own code.
 * gate_bwd   dlogit[rows,e] (overwritten) from dw[rows,k] through norm, scale
 *            and sigmoid; plus the balance loss: @coef[e] = d loss / d p,
 *            p = s / sum(s) (NULL: none).
 * balance    sequence-wise balance loss of one sequence (eq. 17-20):
 *            f_i = e/(k rows) * count_i, P_i = mean p_i; returns alpha * sum f_i P_i and sets
 *            coef_i = alpha * f_i / rows.
 * xent       loss[r] = -log softmax(logit[r])[target[r]] and in place
 *            logit[r] = (softmax - onehot) * scale; target < 0: loss 0, gradient 0.
 * embed      y[r] = table[id[r]].
 * embed_bwd  dtable (overwritten, zero where no id points) [r] += dy in order
 *            of r; columns are independent, so a caller may split them.
 * gather     y[r] = x[idx[r]].
 * combine    y[t] (+)= sum over j < k, in order of j, of w[t,j] * x[slot[t,j]];
 *            w NULL: 1.
 * combine_dw dw[t,j] = dot(dy[t], x[slot[t,j]]).
 * scatter_scaled  dx[slot[t,j]] = w[t,j] * dy[t].
 * add        y += x over n.
 * sumsq      sum of squares in fp64, in a fixed order.
 * adamw      decoupled weight decay Adam (arXiv:1711.05101), as torch.optim.AdamW:
 *            g' = g * gscale; w -= lr*wd*w; m, v updated; w -= lr/bc1 * m / (sqrt(v)/sqrt(bc2) +
 * eps). bc1 = 1 - b1^t, bc2 = 1 - b2^t. g NULL: all zero. w is also stored to @out (NULL: not), the
 * snapshot that readers will see. adamw_bf16 the same, @out rounded to bf16 (nearest, ties to
 * even). to_bf16    y = bf16(x), nearest, ties to even, NaN stays NaN. from_bf16  y = x, exact.
 */
/* clang-format off */
#define PST_OPS(OP, R) \
	OP(gemm, void, (int ta, int tb, size_t m, size_t n, size_t k, const R *a, size_t lda, \
			const R *b, size_t ldb, R *c, size_t ldc, int acc)) \
	OP(gemm_bf16, void, (int ta, int tb, size_t m, size_t n, size_t k, const R *a, size_t lda, \
			     const uint16_t *b, size_t ldb, R *c, size_t ldc, int acc)) \
	OP(rmsnorm, void, (R *y, size_t ldy, R *rstd, const R *x, size_t ldx, const R *w, \
			   size_t rows, size_t cols, R eps)) \
	OP(rmsnorm_dx, void, (R *dx, size_t lddx, const R *dy, size_t lddy, const R *x, size_t ldx, \
			      const R *w, const R *rstd, size_t rows, size_t cols)) \
	OP(rmsnorm_dw, void, (R *dw, const R *dy, size_t lddy, const R *x, size_t ldx, \
			      const R *rstd, size_t rows, size_t cols)) \
	OP(rope, void, (R *x, size_t ldx, size_t rows, size_t dim, const int32_t *pos, \
			const R *cos_t, const R *sin_t, int inverse)) \
	OP(attn, void, (R *o, size_t ldo, R *lse, const R *q, size_t ldq, const R *k, size_t ldk, \
			const R *v, size_t ldv, size_t tq, size_t tk, size_t dqk, size_t dv, R scale)) \
	OP(attn_bwd, void, (R *dq, size_t lddq, R *dk, size_t lddk, R *dv, size_t lddv, \
			    const R *o, size_t ldo, const R *dout, size_t lddo, const R *lse, \
			    const R *q, size_t ldq, const R *k, size_t ldk, const R *v, size_t ldv, \
			    size_t t, size_t dqk, size_t dvdim, R scale)) \
	OP(swiglu, void, (R *a, const R *g, const R *u, size_t n)) \
	OP(swiglu_bwd, void, (R *dg, R *du, R *a, const R *da, const R *g, const R *u, size_t n)) \
	OP(gate_topk, void, (int32_t *idx, R *w, R *score, const R *logit, const R *bias, \
			     size_t rows, size_t e, size_t k, size_t n_group, size_t topk_group, \
			     int norm, R scale)) \
	OP(gate_bwd, void, (R *dlogit, const R *dw, const int32_t *idx, const R *score, \
			    const R *coef, size_t rows, size_t e, size_t k, int norm, R scale)) \
	OP(balance, R, (R *coef, const int32_t *idx, const R *score, size_t rows, size_t e, \
			size_t k, R alpha)) \
	OP(xent, void, (R *loss, R *logit, size_t ld, const int32_t *target, size_t rows, \
			size_t vocab, R scale)) \
	OP(embed, void, (R *y, const R *table, const int32_t *id, size_t rows, size_t cols)) \
	OP(embed_bwd, void, (R *dtable, size_t ldt, const R *dy, size_t lddy, const int32_t *id, \
			     size_t rows, size_t vocab, size_t cols)) \
	OP(gather, void, (R *y, const R *x, const int32_t *idx, size_t rows, size_t cols)) \
	OP(combine, void, (R *y, const R *x, const R *w, const int32_t *slot, size_t tokens, \
			   size_t k, size_t cols, int acc)) \
	OP(combine_dw, void, (R *dw, const R *dy, const R *x, const int32_t *slot, size_t tokens, \
			      size_t k, size_t cols)) \
	OP(scatter_scaled, void, (R *dx, const R *dy, const R *w, const int32_t *slot, \
				  size_t tokens, size_t k, size_t cols)) \
	OP(add, void, (R *y, const R *x, size_t n)) \
	OP(sumsq, double, (const R *x, size_t n)) \
	OP(adamw, void, (R *w, R *m, R *v, R *out, const R *g, size_t n, R lr, R b1, R b2, R eps, \
			 R wd, R bc1, R bc2, R gscale)) \
	OP(adamw_bf16, void, (R *w, R *m, R *v, uint16_t *out, const R *g, size_t n, R lr, R b1, \
			      R b2, R eps, R wd, R bc1, R bc2, R gscale)) \
	OP(to_bf16, void, (uint16_t *y, const R *x, size_t n)) \
	OP(from_bf16, void, (R *y, const uint16_t *x, size_t n)) \
	/* EOL */

#define PST_OP_TYPEDEF(name, ret, args) typedef ret pst_##name##_fn args;
PST_OPS(PST_OP_TYPEDEF, float)
#undef PST_OP_TYPEDEF

#define PST_OP_MEMBER(name, ret, args) pst_##name##_fn *name;
struct pst_ops {
	const char *kernels;	/* which kernels these are: "ref", "avx2" */
	PST_OPS(PST_OP_MEMBER, float)
};
#undef PST_OP_MEMBER
/* clang-format on */

/* The reference kernels in fp32. Never NULL, valid for ever. */
const struct pst_ops *pst_ops_ref(void);

/*
 * The best kernels that the running CPU has (CPUID and XGETBV, asked once), an
 * op without a vector kernel falling to `ref`. Setting PENSTOCK_KERNELS=ref in
 * the environment before the first call chooses the reference.
 */
const struct pst_ops *pst_ops_cpu(void);

#endif /* PST_OP_H */
