/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trial.h - the inside of agree.c, buffer.c and speed.c: one trial of one op.
 *
 * A trial function makes its buffers, calls the op on them through BOTH() and returns; the
 * judging is the same for all. Each output exists NCOPIES times: [KERNEL], [REF] and [AGAIN], all
 * begun with the same contents. Buffers are fenced by 0xff bytes: NaN to floats, -1 to indices; or
 * they end, or begin, at a page that cannot be touched.
 *
 * A trial that is timed lets [KERNEL] and [REF] take turns for as long as its clock wants, from
 * the same contents each time: those of [AGAIN], that no call gets.
 */
#ifndef PST_TRIAL_H
#define PST_TRIAL_H

#include "kernels/agree.h"

#include <stdbool.h>

enum { KERNEL, REF, AGAIN, NCOPIES };
enum kind { F32, BF16, I32 };

/* What stands around buffers: bytes that are looked at, or a page behind or before them. */
enum guard { FENCED, GUARD_BEHIND, GUARD_BEFORE };

struct buffer {
	unsigned char *base, *data;
	size_t mapped; /* with both guards; 0: it is on the heap */
	enum kind kind;
	size_t bytes, rows, cols, ld;
	uint64_t seal; /* of an input: what it held before the kernel ran */
	int copy;      /* of an output: which one; -1: an input */
};

struct clock; /* speed.c */

struct trial {
	const struct pst_ops *ops, *other; /* other NULL: ref */
	enum pst_op op;
	enum guard guard;
	struct clock *clock; /* NULL: it is not timed */
	size_t m, n, k;
	unsigned int flags; /* bits that the op uses as it likes */
	bool wild;	    /* NaN and infinities among the inputs */
	uint64_t rng;
	double gate, floor, error;
	int rc;
	char *text;
	size_t textlen;
	int nbuffers;
	struct buffer buffer[48];
};

/* One op: how to try it, the error an fp32 kernel may have, flag combinations. */
struct op_trial {
	void (*run)(struct trial *t);
	double gate;
	/*
	 * RMS of a result below which error counts as absolute: terms of what is exactly 0 there
	 * cancel, in a few elements by chance and to any degree. Whole results are larger.
	 */
	double floor;
	unsigned int flags;
};
extern const struct op_trial pst_op_trials[PST_OP_COUNT];

float *trial_in(struct trial *t, size_t rows, size_t cols, size_t ld, float low, float high);
uint16_t *trial_in_bf16(struct trial *t, size_t rows, size_t cols, size_t ld);
/* Any of [low, below), or each of [0, n) once. */
int32_t *trial_in_index(struct trial *t, size_t n, int32_t low, size_t below);
int32_t *trial_in_permutation(struct trial *t, size_t n);
void trial_out(struct trial *t, float *copy[NCOPIES], size_t rows, size_t cols, size_t ld,
	       float low, float high);
void trial_out_bf16(struct trial *t, uint16_t *copy[NCOPIES], size_t n);
void trial_out_i32(struct trial *t, int32_t *copy[NCOPIES], size_t rows, size_t cols);
__attribute__((format(printf, 2, 3))) void trial_disagrees(struct trial *t, const char *fmt, ...);
/* Before the call with copy *@s, which it may change: false when all are done. */
bool trial_next(struct trial *t, int *s);
bool trial_next_timed(struct trial *t, int *s);
void trial_free(struct trial *t); /* its buffers */

static inline size_t trial_kind_size(enum kind kind)
{
	return kind == BF16 ? sizeof(uint16_t) : sizeof(float);
}

static inline const struct pst_ops *trial_table(const struct trial *t, int s)
{
	if (s != REF)
		return t->ops;
	return t->other ? t->other : pst_ops_ref();
}

#define BOTH(t, op, ...)                        \
	for (int s = 0; trial_next(t, &s); s++) \
	trial_table(t, s)->op(__VA_ARGS__)

#endif /* PST_TRIAL_H */
