/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref.h - the reference kernels, in fp32 (pst_ref_f32_NAME) and fp64 (pst_ref_f64_NAME).
 *
 * A source in this folder is written once in terms of `real` and REF(name) and built twice, with
 * PST_REAL_FLOAT and with PST_REAL_DOUBLE. Sums along a row are kept in double in both, so that
 * what a kernel is compared with does not err more than the kernel.
 */
#ifndef PST_REF_H
#define PST_REF_H

#include "kernels/op.h"

/* clang-format off */
#define PST_REF_F32(name, ret, args) ret pst_ref_f32_##name args;
#define PST_REF_F64(name, ret, args) ret pst_ref_f64_##name args;
PST_OPS(PST_REF_F32, float)
PST_OPS(PST_REF_F64, double)
#undef PST_REF_F32
#undef PST_REF_F64
/* clang-format on */

#ifdef PST_REAL_DOUBLE
typedef double real;
#define REF(name) pst_ref_f64_##name
#else
typedef float real;
#define REF(name) pst_ref_f32_##name
#endif

#endif /* PST_REF_H */
