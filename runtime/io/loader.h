/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader.h - files into pools, at the drive's speed, without a copy.
 *
 * The model
 *   loader   a queue of reads over several files: io_uring, O_DIRECT, the pools
 *            registered as fixed buffers, cut into chunks, @depth in flight.
 *            Where io_uring is denied (containers) threads with pread take its
 *            place, where O_DIRECT is refused (tmpfs) the page cache; both are said in the note.
 *   read     bytes [offset, offset + bytes) of a file to memory. O_DIRECT wants offset,
 *            length and address aligned, and tensors in safetensors are not. So
 *            a read says how much memory around its target may be overwritten
 *            (the slack); with pst_loader_target() the data lands in place and nothing
 *            is copied. A read whose target is not congruent, or without slack, goes through a
 * bounce buffer and is counted in copied_bytes.
 *
 * Order of calls: open, any number of file and read, wait; again; close.
 *
 * Threads: one at a time per loader.
 * Errors: -errno; the sentence names the file, the offset and the cause. A read past the end is
 * -ENODATA.
 */
#ifndef PST_LOADER_H
#define PST_LOADER_H

#include "runtime/mem/pool.h"

#define PST_LOADER_BLOCK 4096 /* alignment that every drive takes */

struct pst_loader;

enum pst_loader_flags {
	PST_LOADER_THREADS = 1,	 /* do not try io_uring */
	PST_LOADER_BUFFERED = 2, /* do not try O_DIRECT */
};

struct pst_loader_options {
	size_t size;	    /* sizeof(struct pst_loader_options) */
	unsigned int depth; /* 0: 32 */
	uint64_t chunk;	    /* bytes of one request, 0: 1 MiB */
	uint32_t flags;
	struct pst_pool *const *pools; /* targets lie in these; registered once */
	unsigned int npools;
};

struct pst_loader_stat {
	uint64_t read_bytes;   /* from files, with slack */
	uint64_t wanted_bytes; /* of those, asked for */
	uint64_t copied_bytes; /* through a bounce buffer */
	uint64_t requests;
	const char *backend; /* "io_uring" or "threads" */
	int direct;	     /* 1: every file was opened with O_DIRECT */
	char note[256];	     /* what is slower than asked and what mends it */
};

int pst_loader_open(const struct pst_loader_options *opts, struct pst_loader **out,
		    struct pst_error *err);
void pst_loader_close(struct pst_loader *loader); /* waits for what is in flight */

/* Open @path for reading; *file names it in reads. Regular files and block devices only. */
int pst_loader_file(struct pst_loader *loader, const char *path, unsigned int *file,
		    struct pst_error *err);

/* Bytes that a block must have so that @bytes from @offset land in it without a copy. */
uint64_t pst_loader_room(uint64_t offset, uint64_t bytes);

/* Where they land in such a block, which must be aligned to PST_LOADER_BLOCK. */
void *pst_loader_target(void *block, uint64_t offset);

/*
 * Queue a read to @dst. @before and @after: bytes around [dst, dst + bytes) that may be
 * overwritten.
 */
int pst_loader_read(struct pst_loader *loader, unsigned int file, uint64_t offset, uint64_t bytes,
		    void *dst, uint64_t before, uint64_t after, struct pst_error *err);

/* Wait until all that was queued is there. The first error is returned, the rest is still waited
 * for. */
int pst_loader_wait(struct pst_loader *loader, struct pst_error *err);

void pst_loader_stat(const struct pst_loader *loader, struct pst_loader_stat *out);

#endif /* PST_LOADER_H */
