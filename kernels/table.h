/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - ops by number: for who does not know at compile time which one is meant.
 *
 * Threads: any; nothing here has state.
 */
#ifndef PST_TABLE_H
#define PST_TABLE_H

#include "kernels/agree.h"

typedef void pst_any_fn(void); /* a kernel of some op */

/* PST_OP_COUNT: there is no op of this name. */
enum pst_op pst_op_find(const char *name);

/* "void (float *y, const float *x, size_t n)"; NULL if there is no such op. */
const char *pst_op_signature(enum pst_op op);

/* What names the signature in 64 bits: FNV-1a over name and signature. 0 if there is no such op. */
uint64_t pst_op_abi(enum pst_op op);

/* NULL: the table has none, or there is no such op. */
pst_any_fn *pst_ops_get(const struct pst_ops *ops, enum pst_op op);
/* The function is of the op's type. */
void pst_ops_put(struct pst_ops *ops, enum pst_op op, pst_any_fn *kernel);

#endif /* PST_TABLE_H */
