/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loader_backend.h - between the loader and who reads for it.
 *
 * The loader cuts reads into requests and never has more than @depth of them with
 * its backend. A backend is called from the loader's caller only; what it
 * does inside, with the kernel or with threads, is its own.
 *
 * Internal to runtime/io.
 */
#ifndef PST_IO_LOADER_BACKEND_H
#define PST_IO_LOADER_BACKEND_H

#include "runtime/io/loader.h"

#include <stdbool.h>
#include <sys/types.h>

/* One read of the kernel's: @io_len bytes at @io_offset of @fd to @io_mem. */
struct pst_loader_request {
	struct pst_loader_request *next; /* whoever holds it */
	unsigned int file;
	int fd;
	char *io_mem;
	uint64_t io_offset;
	size_t io_len;
	ssize_t result; /* for the backend's use */

	/* The loader's: the chunk that it is part of. */
	uint64_t offset;
	size_t len;	   /* of the chunk, in whole blocks if @direct */
	size_t need;	   /* bytes of it that must come */
	size_t done;	   /* bytes of it that came */
	size_t from, want; /* the part of it that was asked for */
	char *mem;	   /* where the chunk goes */
	char *dst;	   /* where the part asked for goes, if elsewhere */
	char *bounce;	   /* this request's own buffer, made when first needed */
	bool direct;
};

struct pst_loader_backend {
	const char *name;
	/* Required. -EPERM, -ENOSYS, -ENOMEM: this host does not have it. */
	int (*open)(struct pst_loader *loader);
	/* Required. Nothing is in flight. */
	void (*close)(struct pst_loader *loader);
	/* Optional: @file was opened. */
	void (*file)(struct pst_loader *loader, unsigned int file);
	/* Required. Take @req; it may start as late as the next reap. */
	void (*submit)(struct pst_loader *loader, struct pst_loader_request *req);
	/*
	 * Required. Start what was taken, pass what is done to
	 * pst_loader_done(), and if @wait block until that is at least one.
	 */
	int (*reap)(struct pst_loader *loader, bool wait);
};

extern const struct pst_loader_backend pst_loader_uring, pst_loader_threads;

struct pst_loader_file {
	char *path;
	int fd;
	int slot; /* the backend's name for it, or -1 */
	uint64_t bytes;
	bool direct;
};

struct pst_loader_pool {
	char *base;
	uint64_t bytes;
	unsigned int first; /* the backend's */
};

struct pst_loader_read;

struct pst_loader {
	const struct pst_loader_backend *backend;
	void *priv; /* the backend's */
	unsigned int depth;
	uint64_t chunk;
	uint32_t flags;

	struct pst_loader_pool *pools;
	unsigned int npools;
	struct pst_loader_file *files;
	unsigned int nfiles;

	struct pst_loader_read *head, **tail; /* not wholly cut yet */
	struct pst_loader_request *requests, *free;
	unsigned int inflight;
	unsigned int threads; /* of the backend's */
	int broken;	      /* the backend failed: nothing more can be read */
	struct pst_error err;
	struct pst_loader_stat stat;
};

/* @req is done: bytes or -errno. */
void pst_loader_done(struct pst_loader *loader, struct pst_loader_request *req, ssize_t result);

/* Add a sentence to the note. */
__attribute__((format(printf, 2, 3))) void pst_loader_note(struct pst_loader *loader,
							   const char *fmt, ...);

#endif /* PST_IO_LOADER_BACKEND_H */
