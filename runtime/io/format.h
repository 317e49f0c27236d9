/* SPDX-License-Identifier: Apache-2.0 */
/*
 * format.h - what readers and writers of safetensors share.
 *
 * Internal to runtime/io.
 */
#ifndef PST_IO_FORMAT_H
#define PST_IO_FORMAT_H

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"

#include <errno.h>

#define PST_SAFETENSORS_WORD	   8 /* the length word */
#define PST_SAFETENSORS_MAX_HEADER 100000000u
#define PST_SAFETENSORS_METADATA   "__metadata__"
#define PST_INDEX_MAX		   (256u << 20)

/* Bytes of a tensor; -EOVERFLOW when they do not fit in 63 bits, -EINVAL for a bad dtype. */
static inline int pst_tensor_bytes(enum pst_dtype dtype, unsigned int ndim, const uint64_t *shape,
				   uint64_t *bytes)
{
	uint64_t n = pst_dtype_bytes(dtype);

	if (!n)
		return -EINVAL;
	for (unsigned int i = 0; i < ndim; i++)
		if (__builtin_mul_overflow(n, shape[i], &n) || n > INT64_MAX)
			return -EOVERFLOW;
	*bytes = n;
	return 0;
}

/* Names come out of files: they must not reach a terminal with control characters. */
static inline int pst_clean(struct pst_error *err, int code)
{
	for (unsigned char *c = err ? (unsigned char *)err->text : NULL; c && *c; c++) {
		if (*c < 0x20 || *c == 0x7f)
			*c = '?';
		else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)
			c[0] = c[1] = '?';
	}
	return code;
}

#define pst_refuse(err, ...) pst_clean(err, pst_fail(err, -EINVAL, __VA_ARGS__))

#endif /* PST_IO_FORMAT_H */
