/* SPDX-License-Identifier: Apache-2.0 */
/* dtype.h - number formats of tensors, named as safetensors names them. */
#ifndef PST_DTYPE_H
#define PST_DTYPE_H

#include <stddef.h>

/* Values go on the wire and are never reused: PST_DTYPE(value, name, bytes per element). */
#define PST_DTYPES(D)    \
	D(1, BOOL, 1)    \
	D(2, U8, 1)      \
	D(3, I8, 1)      \
	D(4, F8_E5M2, 1) \
	D(5, F8_E4M3, 1) \
	D(6, I16, 2)     \
	D(7, U16, 2)     \
	D(8, F16, 2)     \
	D(9, BF16, 2)    \
	D(10, I32, 4)    \
	D(11, U32, 4)    \
	D(12, F32, 4)    \
	D(13, F64, 8)    \
	D(14, I64, 8)    \
	D(15, U64, 8)    \
	/* EOL */

#define PST_DTYPE_ENUM(value, name, bytes) PST_##name = value,
enum pst_dtype { PST_DTYPES(PST_DTYPE_ENUM) };
#undef PST_DTYPE_ENUM

size_t pst_dtype_bytes(enum pst_dtype dtype);	   /* 0: no such dtype */
const char *pst_dtype_name(enum pst_dtype dtype);  /* NULL: no such dtype */
int pst_dtype_parse(const char *name, size_t len); /* -EINVAL */

#endif /* PST_DTYPE_H */
