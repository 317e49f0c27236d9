/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pst_fail() - say why something failed and return its code.
 *
 * Set-up paths take a `struct pst_error *` (which may be NULL) and end in
 *	return pst_fail(err, -ENOMEM, "pool %s: ...", name);
 * Data paths return a bare -errno. The first reason wins: an error that is
 * already set is kept, so that a caller cannot blur what the callee said.
 */
#ifndef PST_FAIL_H
#define PST_FAIL_H

#include <penstock/error.h>
#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 3, 4))) static inline int pst_fail(struct pst_error *err, int code,
								 const char *fmt, ...)
{
	va_list ap;

	if (!err || err->code)
		return code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	return code;
}

#endif /* PST_FAIL_H */
