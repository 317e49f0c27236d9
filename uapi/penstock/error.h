/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * An error as it crosses a boundary: from a library to its caller, from a
 * process to its peer. @code is a negative errno (0: no error). @text is one
 * sentence without a newline for the person at the terminal: what was being
 * done, to what, why it failed and, where one is known, the command that mends
 * it. It always ends in a NUL.
 */
#ifndef _UAPI_PENSTOCK_ERROR_H
#define _UAPI_PENSTOCK_ERROR_H

#include <linux/types.h>

#define PST_ERROR_TEXT 508

struct pst_error {
	__s32 code;
	char text[PST_ERROR_TEXT];
};

#endif /* _UAPI_PENSTOCK_ERROR_H */
