/* SPDX-License-Identifier: Apache-2.0 */
/*
 * safetensors.h - checkpoints as the Hugging Face hub holds them.
 *
 * The model
 *   checkpoint  one .safetensors file, or the shards that a
 *               model.safetensors.index.json names, opened together: a list of
 *               tensors, each with the file and the bytes where its data lies.
 *   Opening reads and checks headers only; data is for the loader (loader.h).
 *
 * Format: https://huggingface.co/docs/safetensors: u64 little-endian N, N bytes
 * of JSON {name: {dtype, shape, data_offsets: [begin, end]}}, data. A file is
 * refused, with one sentence that names it and the tensor, when: N > 100,000,000 or past
 * the end; bad JSON or UTF-8; duplicate names; unknown dtype; shape times dtype
 * is not end - begin (or overflows); offsets overlap, leave holes or do not end
 * exactly at the end of the file. An index is refused when a shard is missing, leaves the
 * directory, or holds other tensors than the index says.
 *
 * Threads: a checkpoint is immutable once open.
 */
#ifndef PST_SAFETENSORS_H
#define PST_SAFETENSORS_H

#include "runtime/io/dtype.h"

#include <penstock/error.h>
#include <stdint.h>

struct pst_checkpoint;

#define PST_MAX_DIMS 8

struct pst_tensor_info {
	const char *name; /* owned by the checkpoint */
	enum pst_dtype dtype;
	unsigned int ndim; /* 0: a scalar */
	uint64_t shape[PST_MAX_DIMS];
	unsigned int file;	/* index of the file */
	uint64_t offset, bytes; /* where its data lies in that file */
};

/*
 * @path: a file, or a directory that holds @stem.safetensors.index.json or
 * @stem.safetensors ("model", "optimizer"; the index wins).
 */
int pst_checkpoint_open(const char *path, const char *stem, struct pst_checkpoint **out,
			struct pst_error *err);
void pst_checkpoint_close(struct pst_checkpoint *ckpt);

size_t pst_checkpoint_count(const struct pst_checkpoint *ckpt);
/* Tensors in order of name. */
const struct pst_tensor_info *pst_checkpoint_at(const struct pst_checkpoint *ckpt, size_t i);
const struct pst_tensor_info *pst_checkpoint_find(const struct pst_checkpoint *ckpt,
						  const char *name);
unsigned int pst_checkpoint_files(const struct pst_checkpoint *ckpt);
const char *pst_checkpoint_path(const struct pst_checkpoint *ckpt, unsigned int file);

/* Parse one file's header of @len bytes (after the length word); what the fuzzer feeds. */
int pst_safetensors_parse(const char *json, size_t len, uint64_t data_bytes,
			  struct pst_tensor_info **out, size_t *count, struct pst_error *err);
void pst_safetensors_free(struct pst_tensor_info *tensors, size_t count);

struct pst_tensor_source {
	const char *name;
	enum pst_dtype dtype;
	unsigned int ndim;
	uint64_t shape[PST_MAX_DIMS];
	const void *data;
};

/*
 * Write @path whole or not at all: to a temporary file beside it, fsync,
 * rename, fsync of the directory. The header is padded so that data starts on a
 * page of the file (later reads need no slack). NaN is not looked for here. -ENOSPC and others
 * leave no temporary file behind.
 */
int pst_safetensors_write(const char *path, const struct pst_tensor_source *tensors, size_t count,
			  struct pst_error *err);

/* Write @dir/@stem.safetensors.index.json over @files[i] holding @names[i]. */
int pst_safetensors_write_index(const char *dir, const char *stem, const char *const *names,
				const char *const *files, size_t count, uint64_t total_bytes,
				struct pst_error *err);

/* Small files: replace @path whole or not at all (temp, fsync, rename, fsync). */
int pst_file_replace(const char *path, const void *data, size_t len, struct pst_error *err);

/*
 * Read a regular file of at most @max bytes whole into malloc'ed memory (a NUL
 * is put behind). Devices, directories, loops of links: -EINVAL with a sentence.
 */
int pst_file_read(const char *path, size_t max, char **out, size_t *len, struct pst_error *err);

#endif /* PST_SAFETENSORS_H */
