/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ckptdir.h - a directory of checkpoints, each whole or not there.
 *
 * A checkpoint is written into @out/.step-N.tmp, synced, and renamed to
 * @out/step-N; older ones are removed after that. A crash at any moment leaves the
 * previous checkpoint as it was, and perhaps a .tmp that the next save removes.
 */
#ifndef PST_CKPTDIR_H
#define PST_CKPTDIR_H

#include <limits.h>
#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The checkpoint at @path: itself if it has a config.json, else the step-N in
 * it with the largest N. Absolute, without links. -ENOENT.
 */
int pst_ckptdir_find(const char *path, char found[PATH_MAX], struct pst_error *err);

/* Make @out (and the directories above it) if need be, and look whether it can be written. */
int pst_ckptdir_prepare(const char *out, char absolute[PATH_MAX], struct pst_error *err);

/* A fresh temporary directory for step @step. */
int pst_ckptdir_begin(const char *out, uint32_t step, char tmp[PATH_MAX], struct pst_error *err);

/* All files are in @tmp: make it step @step, and remove all but it and the last @keep (0: none). */
int pst_ckptdir_commit(const char *out, uint32_t step, const char *tmp, uint32_t keep,
		       char path[PATH_MAX], struct pst_error *err);
void pst_ckptdir_abort(const char *tmp);

#endif /* PST_CKPTDIR_H */
