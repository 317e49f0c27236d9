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

#include <stdbool.h>

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

/* One of any size up to a few hundred, another for each seed. */
struct pst_agree_shape pst_agree_any_shape(uint64_t seed);

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

/*
 * The same for one shape, with buffers that end, and then that begin, at a page that cannot be
 * touched: a kernel that reaches around them gets SIGSEGV, if what it reads there shows or not. A
 * handler on its thread asks pst_agree_stray() for what lies at si_addr: true if that is
 * such a page, and then @res says whose. It cannot go back into the trial.
 */
int pst_agree_guarded(const struct pst_ops *ops, enum pst_op op,
		      const struct pst_agree_shape *shape, uint64_t seed,
		      struct pst_agree_result *res);
bool pst_agree_stray(const void *at, struct pst_agree_result *res);

/* Work as large as a layer's, where ops are timed: a few rows, and many. */
extern const struct pst_agree_shape pst_agree_speed_shapes[];
extern const size_t pst_agree_nspeed_shapes;

/*
 * The CPU time that @ops takes for @op, as a part of what @other takes for the same: the median
 * over pairs of calls that follow each other, the worst over all flags, into *@ratio. What seems
 * slower is timed up to four times, and the best counts. Errors as of pst_agree_op(), but for
 * -EDOM: nothing is held against ref.
 */
int pst_agree_speed(const struct pst_ops *ops, const struct pst_ops *other, enum pst_op op,
		    const struct pst_agree_shape *shape, uint64_t seed, double *ratio);

/* All that @ops has, in the order of PST_OPS, into res[PST_OP_COUNT]: 0 or the first failure. */
int pst_agree_table(const struct pst_ops *ops, const struct pst_agree_shape *shapes, size_t nshapes,
		    uint64_t seed, struct pst_agree_result *res);

#endif /* PST_AGREE_H */
