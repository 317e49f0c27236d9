/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agree.h - hold kernels against the reference.
 *
 * A trial of an op makes random inputs of one shape, gives the same to the kernel and to `ref`,
 * and asks of the kernel that
 *   its results are near those of ref (relative L2 over each output, at most the op's gate),
 *   it gives the same bits a second time, from other addresses,
 *   it writes its outputs only: not between the rows, not around them, not its inputs,
 *   it reads its inputs only: what lies around them is NaN and would show in the results,
 *   NaN and infinities in the inputs bring no crash, no stray write and no index out of range.
 * In-place calls that op.h allows are tried too. An op is tried with every shape given, and in
 * each with every combination of its flags.
 *
 * A kernel that crashes takes its caller along, so one that is not trusted is tried in a child
 * process. Nothing here prints or exits; memory is allocated while a trial runs. Threads: any
 * number of trials may run at once.
 */
#ifndef PST_AGREE_H
#define PST_AGREE_H

#include "kernels/op.h"

/* clang-format off */
#define PST_OP_ID(name, ret, args) PST_OP_##name,
enum pst_op { PST_OPS(PST_OP_ID, float) PST_OP_COUNT };
#undef PST_OP_ID
/* clang-format on */

/*
 * What a shape means to an op: rows (or tokens) m, columns n, and the third size k (depth of a
 * product, experts or slots per token, rows of a table). Any may be 0; where op.h wants at least
 * one of something, one is taken.
 */
struct pst_agree_shape {
	size_t m, n, k;
};

/* Shapes that find most mistakes: nothing, one, odd tails, larger than a block. */
extern const struct pst_agree_shape pst_agree_shapes[];
extern const size_t pst_agree_nshapes;

struct pst_agree_result {
	double error;	/* the worst relative L2 error that was seen */
	char text[240]; /* what does not agree, "" if all does */
};

/* "gemm"; NULL if there is no such op. */
const char *pst_op_name(enum pst_op op);

/*
 * Tries the kernel that @ops has for @op; the same @seed gives the same inputs. @gate is the
 * relative L2 error that is allowed, 0 for what an fp32 kernel of this op must reach. Returns
 * 0 (it agrees), -EDOM (it does not, @res says how), -ENOSYS (@ops has no such kernel), -EINVAL
 * (no such op) or -ENOMEM; @res is set in the first two cases.
 */
int pst_agree_op(const struct pst_ops *ops, enum pst_op op, const struct pst_agree_shape *shapes,
		 size_t nshapes, uint64_t seed, double gate, struct pst_agree_result *res);

/* All that @ops has, in the order of PST_OPS, into res[PST_OP_COUNT]: 0 or the first failure. */
int pst_agree_table(const struct pst_ops *ops, const struct pst_agree_shape *shapes, size_t nshapes,
		    uint64_t seed, struct pst_agree_result *res);

#endif /* PST_AGREE_H */
