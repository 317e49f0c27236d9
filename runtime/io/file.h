/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file.h - opening paths that may lead to anything, and replacing files whole.
 *
 * Internal to runtime/io.
 */
#ifndef PST_IO_FILE_H
#define PST_IO_FILE_H

#include <penstock/error.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum pst_file_kind {
	PST_FILE_REGULAR = 0,
	PST_FILE_OR_DEVICE = 1, /* block devices too */
};

/* What errno @code (either sign) means, in English in every locale. */
const char *pst_reason(int code);

/* Open for reading, without ever blocking on what is not a file. Returns the descriptor. */
int pst_file_open(const char *path, enum pst_file_kind kind, struct stat *st,
		  struct pst_error *err);

/*
 * A file being written beside its target: begin, write, commit or abort. Where
 * the file system can, it has no name until commit, so that a writer that is
 * killed leaves nothing behind. Replacing keeps the mode of what was there; a
 * symbolic link at @path is replaced, not followed.
 */
struct pst_replace {
	const char *path, *name; /* the caller's; must outlive this */
	int dir, fd;
	bool named;
	char tmp[64];
};

int pst_replace_begin(struct pst_replace *r, const char *path, struct pst_error *err);
/* Reserve @bytes, so that a full drive is known before the first byte; best effort. */
int pst_replace_reserve(struct pst_replace *r, uint64_t bytes, struct pst_error *err);
/* Write all of @iov (which is used up) at @offset. */
int pst_replace_write(struct pst_replace *r, struct iovec *iov, unsigned int n, uint64_t offset,
		      struct pst_error *err);
/* Either way @r is done with afterwards. */
int pst_replace_commit(struct pst_replace *r, struct pst_error *err);
void pst_replace_abort(struct pst_replace *r);

#endif /* PST_IO_FILE_H */
