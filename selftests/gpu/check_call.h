/* SPDX-License-Identifier: Apache-2.0 */
/* check_call.h - a kernel's call in words, and its arguments one after the other. */
#ifndef PST_CHECK_CALL_H
#define PST_CHECK_CALL_H

#include "kernels/cuda/cuda.h"

#include <stddef.h>

struct check_arg {
	char kind; /* 'p' pointer, 'z' size_t, 'i' int, 'f' float */
	char name[32];
};

/* Argument @i of @k as cuda.h and op.h declare it; 0, or -ENOENT: there are not as many. */
int check_arg(enum pst_cuda_kernel k, int i, struct check_arg *out);

/* "experts_dw(ldq 24, n 2, m 8, k 16, acc 0)": all but the pointers. Returns @to. */
char *check_call(enum pst_cuda_kernel k, void *const *params, char *to, size_t len);

#endif /* PST_CHECK_CALL_H */
