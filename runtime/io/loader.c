/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/io/loader_backend.h"

#include "rdma/fail.h"
#include "runtime/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_DEPTH 32
#define MAX_DEPTH     4096
#define DEFAULT_CHUNK (1u << 20)
#define MAX_CHUNK     (1u << 30)
#define BLOCK	      ((uint64_t)PST_LOADER_BLOCK)

/* A read of the caller's; [at, end) of the file is still to be cut into requests. */
struct pst_loader_read {
	struct pst_loader_read *next;
	unsigned int file;
	uint64_t offset, bytes, before, after;
	uint64_t at, end;
	char *dst;
};

static uint64_t round_down(uint64_t n)
{
	return n & ~(BLOCK - 1);
}

static uint64_t round_up(uint64_t n)
{
	return round_down(n + BLOCK - 1);
}

uint64_t pst_loader_room(uint64_t offset, uint64_t bytes)
{
	return round_up(offset % BLOCK + bytes);
}

void *pst_loader_target(void *block, uint64_t offset)
{
	return (char *)block + offset % BLOCK;
}

void pst_loader_note(struct pst_loader *loader, const char *fmt, ...)
{
	char *note = loader->stat.note;
	size_t room = sizeof(loader->stat.note), len = strlen(note);
	va_list ap;

	if (len && len + 2 < room) {
		memcpy(note + len, "; ", 3);
		len += 2;
	}
	va_start(ap, fmt);
	vsnprintf(note + len, room - len, fmt, ap);
	va_end(ap);
}

/* The file system refuses O_DIRECT for this file; it can be taken back while reads are under way.
 */
static int use_page_cache(struct pst_loader *loader, struct pst_loader_file *file)
{
	if (fcntl(file->fd, F_SETFL, 0) < 0)
		return -errno;
	file->direct = false;
	if (loader->stat.direct && !(loader->flags & PST_LOADER_BUFFERED))
		pst_loader_note(loader,
				"%.100s is read through the page cache, since its file system "
				"refuses O_DIRECT: keep it on ext4 or xfs",
				file->path);
	loader->stat.direct = 0;
	return 0;
}

/* Cut the next chunk off @r. Returns its length and if it can be read in place. */
static uint64_t cut(const struct pst_loader *loader, struct pst_loader_read *r, bool *in_place)
{
	uint64_t head, over, n;

	*in_place = true;
	if (!loader->files[r->file].direct) {
		if (r->at < r->offset)
			r->at = r->offset;
		r->end = r->offset + r->bytes;
		return r->end - r->at < loader->chunk ? r->end - r->at : loader->chunk;
	}
	n = r->end - r->at < loader->chunk ? r->end - r->at : loader->chunk;
	head = r->at < r->offset ? r->offset - r->at : 0;
	over = r->at + n > r->offset + r->bytes ? r->at + n - r->offset - r->bytes : 0;
	if (((uintptr_t)r->dst - r->offset) % BLOCK) {
		*in_place = false;
	} else if (head > r->before) {
		*in_place = false;
		n = BLOCK;
	} else if (over > r->after) {
		/* Only the last block must not be read in place. */
		*in_place = n > BLOCK;
		n = n > BLOCK ? n - BLOCK : BLOCK;
	}
	return n;
}

static int fill_request(struct pst_loader *loader, struct pst_loader_read *r,
			struct pst_loader_request *req)
{
	uint64_t end = r->offset + r->bytes, n;
	bool in_place;

	n = cut(loader, r, &in_place);
	if (!in_place && !req->bounce) {
		req->bounce = aligned_alloc(BLOCK, loader->chunk);
		if (!req->bounce)
			return -ENOMEM;
	}
	req->file = r->file;
	req->fd = loader->files[r->file].fd;
	req->direct = loader->files[r->file].direct;
	req->offset = r->at;
	req->len = n;
	req->need = (r->at + n < end ? r->at + n : end) - r->at;
	req->done = 0;
	req->from = r->at < r->offset ? r->offset - r->at : 0;
	req->want = req->need - req->from;
	req->dst = r->dst + (r->at + req->from - r->offset);
	req->mem = in_place ? req->dst - req->from : req->bounce;
	r->at += n;
	return 0;
}

/* Read what is missing of @req; in whole blocks if it must be. */
static void submit(struct pst_loader *loader, struct pst_loader_request *req)
{
	size_t from = req->direct ? round_down(req->done) : req->done;

	req->io_mem = req->mem + from;
	req->io_offset = req->offset + from;
	req->io_len = req->len - from;
	loader->inflight++;
	loader->stat.requests++;
	loader->backend->submit(loader, req);
}

static void drop_read(struct pst_loader *loader)
{
	struct pst_loader_read *r = loader->head;

	loader->head = r->next;
	if (!loader->head)
		loader->tail = &loader->head;
	free(r);
}

static void pump(struct pst_loader *loader)
{
	struct pst_loader_read *r;
	struct pst_loader_request *req;

	while ((req = loader->free) && (r = loader->head)) {
		if (fill_request(loader, r, req) < 0) {
			pst_fail(&loader->err, -ENOMEM, "%s: no memory to read through",
				 loader->files[r->file].path);
			drop_read(loader);
			continue;
		}
		loader->free = req->next;
		submit(loader, req);
		if (r->at >= r->end)
			drop_read(loader);
	}
}

static void put_request(struct pst_loader *loader, struct pst_loader_request *req)
{
	req->next = loader->free;
	loader->free = req;
}

/* More of @req came. Returns 1 when it is complete, 0 when some is missing. */
static int advance(struct pst_loader *loader, struct pst_loader_request *req, ssize_t result)
{
	size_t now = req->io_offset - req->offset + result;

	/* A read in blocks that ends inside one has met the end of the file. */
	if (!result || now <= req->done)
		return -ENODATA;
	loader->stat.read_bytes += now - req->done;
	req->done = now;
	if (now < req->need)
		return 0;
	loader->stat.wanted_bytes += req->want;
	if (req->mem == req->bounce) {
		memcpy(req->dst, req->mem + req->from, req->want);
		loader->stat.copied_bytes += req->want;
	}
	return 1;
}

static void fail_request(struct pst_loader *loader, const struct pst_loader_request *req, int code)
{
	const struct pst_loader_file *file = &loader->files[req->file];
	unsigned long long at = req->offset + req->done;

	if (code == -ENODATA)
		pst_fail(&loader->err, code,
			 "%s ends at %llu, before the %llu bytes that it had when it was opened: "
			 "it was cut off meanwhile",
			 file->path, at, (unsigned long long)file->bytes);
	else
		pst_fail(&loader->err, code, "%s: %zu bytes at offset %llu cannot be read: %s",
			 file->path, req->io_len, at, pst_reason(code));
}

void pst_loader_done(struct pst_loader *loader, struct pst_loader_request *req, ssize_t result)
{
	int rc;

	loader->inflight--;
	if (result >= 0)
		rc = advance(loader, req, result);
	/* Cancelled: the thread that submitted it has ended since. */
	else if (result == -EINTR || result == -EAGAIN || result == -ECANCELED)
		rc = 0;
	else if (result == -EINVAL && req->direct) {
		rc = use_page_cache(loader, &loader->files[req->file]);
		req->direct = false;
	} else
		rc = (int)result;
	if (!rc) {
		submit(loader, req);
		return;
	}
	if (rc < 0)
		fail_request(loader, req, rc);
	put_request(loader, req);
}

static int reap(struct pst_loader *loader, bool wait)
{
	int rc = loader->backend->reap(loader, wait);

	if (rc >= 0)
		return 0;
	loader->broken = rc;
	return pst_fail(&loader->err, rc, "%s stopped working: %s", loader->backend->name,
			pst_reason(rc));
}

int pst_loader_read(struct pst_loader *loader, unsigned int file, uint64_t offset, uint64_t bytes,
		    void *dst, uint64_t before, uint64_t after, struct pst_error *err)
{
	struct pst_loader_read *r;
	struct stat st;
	uint64_t end;

	if (!loader || file >= loader->nfiles || (bytes && !dst))
		return pst_fail(err, -EINVAL, "loader_read: wrong arguments");
	if (loader->broken)
		return pst_fail(err, loader->broken, "the loader stopped working: %s",
				pst_reason(loader->broken));
	/* A file that has grown since it was opened can be read to its new end. */
	if ((__builtin_add_overflow(offset, bytes, &end) || end > loader->files[file].bytes) &&
	    fstat(loader->files[file].fd, &st) == 0 && S_ISREG(st.st_mode))
		loader->files[file].bytes = st.st_size;
	if (end < offset || end > loader->files[file].bytes)
		return pst_fail(
			err, -ENODATA, "%s: %llu bytes at offset %llu go past its end at %llu",
			loader->files[file].path, (unsigned long long)bytes,
			(unsigned long long)offset, (unsigned long long)loader->files[file].bytes);
	if (!bytes)
		return 0;
	r = malloc(sizeof(*r));
	if (!r)
		return pst_fail(err, -ENOMEM, "%s: no memory to read it", loader->files[file].path);
	*r = (struct pst_loader_read){
		.file = file,
		.offset = offset,
		.bytes = bytes,
		.before = before,
		.after = after,
		.at = round_down(offset),
		.end = round_up(end),
		.dst = dst,
	};
	*loader->tail = r;
	loader->tail = &r->next;
	pump(loader);
	reap(loader, false);
	return 0;
}

int pst_loader_wait(struct pst_loader *loader, struct pst_error *err)
{
	int rc;

	do {
		pump(loader);
		if (loader->broken || !loader->inflight)
			break;
	} while (reap(loader, true) == 0);
	while (loader->head)
		drop_read(loader);
	rc = loader->err.code;
	if (rc)
		pst_fail(err, rc, "%s", loader->err.text);
	else if (loader->broken)
		rc = pst_fail(err, loader->broken, "the loader stopped working: %s",
			      pst_reason(loader->broken));
	memset(&loader->err, 0, sizeof(loader->err));
	return rc;
}

static int file_bytes(int fd, const struct stat *st, uint64_t *bytes)
{
	if (S_ISBLK(st->st_mode))
		return ioctl(fd, BLKGETSIZE64, bytes) < 0 ? -errno : 0;
	*bytes = (uint64_t)st->st_size;
	return 0;
}

int pst_loader_file(struct pst_loader *loader, const char *path, unsigned int *file,
		    struct pst_error *err)
{
	struct pst_loader_file *files, *f;
	struct stat st;
	int fd, rc;

	if (!loader || !path || !file)
		return pst_fail(err, -EINVAL, "loader_file: wrong arguments");
	files = realloc(loader->files, (loader->nfiles + 1) * sizeof(*files));
	if (!files)
		return pst_fail(err, -ENOMEM, "%s: no memory to open it", path);
	loader->files = files;
	f = &files[loader->nfiles];
	fd = pst_file_open(path, PST_FILE_OR_DEVICE, &st, err);
	if (fd < 0)
		return fd;
	*f = (struct pst_loader_file){.path = strdup(path), .fd = fd, .slot = -1, .direct = true};
	if (!f->path) {
		rc = pst_fail(err, -ENOMEM, "%s: no memory to open it", path);
		goto close_fd;
	}
	rc = file_bytes(fd, &st, &f->bytes);
	if (rc < 0) {
		pst_fail(err, rc, "%s: its size cannot be read: %s", path, pst_reason(rc));
		goto free_path;
	}
	if (loader->flags & PST_LOADER_BUFFERED || fcntl(fd, F_SETFL, O_DIRECT) < 0)
		use_page_cache(loader, f);
	*file = loader->nfiles++;
	if (loader->backend->file)
		loader->backend->file(loader, *file);
	return 0;

free_path:
	free(f->path);
close_fd:
	close(fd);
	return rc;
}

static void note_threads(struct pst_loader *loader, int why)
{
	if (why == -EPERM || why == -EACCES || why == -ENOSYS)
		pst_loader_note(
			loader,
			"io_uring is denied (seccomp, or kernel.io_uring_disabled): reading "
			"with %u threads; allow it with: docker run --security-opt "
			"seccomp=unconfined, or: sysctl kernel.io_uring_disabled=0",
			loader->threads);
	else
		pst_loader_note(loader, "io_uring cannot be set up (%s): reading with %u threads%s",
				pst_reason(why), loader->threads,
				why == -ENOMEM ? "; raise the limit with: ulimit -l unlimited"
					       : "");
}

static int open_backend(struct pst_loader *loader, struct pst_error *err)
{
	int why = 0, rc;

	if (!(loader->flags & PST_LOADER_THREADS)) {
		loader->backend = &pst_loader_uring;
		why = loader->backend->open(loader);
		if (why >= 0)
			return 0;
	}
	loader->backend = &pst_loader_threads;
	rc = loader->backend->open(loader);
	if (rc < 0)
		return pst_fail(err, rc, "loader: no thread can be started: %s (see: ulimit -u)",
				pst_reason(rc));
	if (why < 0)
		note_threads(loader, why);
	return 0;
}

static int check_options(const struct pst_loader_options *opts, struct pst_error *err)
{
	if (opts->size != sizeof(*opts) ||
	    opts->flags & ~(uint32_t)(PST_LOADER_THREADS | PST_LOADER_BUFFERED) ||
	    (opts->npools && !opts->pools))
		return pst_fail(err, -EINVAL, "loader_open: wrong options");
	if (opts->depth > MAX_DEPTH || opts->chunk > MAX_CHUNK)
		return pst_fail(
			err, -EINVAL,
			"loader: a depth of %u is over %u, or a chunk of %llu bytes is over "
			"%u",
			opts->depth, MAX_DEPTH, (unsigned long long)opts->chunk, MAX_CHUNK);
	return 0;
}

static int make_tables(struct pst_loader *loader, const struct pst_loader_options *opts)
{
	loader->requests = calloc(loader->depth, sizeof(*loader->requests));
	loader->pools = calloc(opts->npools + 1, sizeof(*loader->pools));
	if (!loader->requests || !loader->pools)
		return -ENOMEM;
	for (unsigned int i = 0; i < loader->depth; i++)
		put_request(loader, &loader->requests[i]);
	loader->npools = opts->npools;
	for (unsigned int i = 0; i < opts->npools; i++) {
		loader->pools[i].base = pst_pool_base(opts->pools[i]);
		loader->pools[i].bytes = pst_pool_bytes(opts->pools[i]);
	}
	return 0;
}

static void free_tables(struct pst_loader *loader)
{
	for (unsigned int i = 0; loader->requests && i < loader->depth; i++)
		free(loader->requests[i].bounce);
	free(loader->requests);
	free(loader->pools);
	free(loader);
}

int pst_loader_open(const struct pst_loader_options *opts, struct pst_loader **out,
		    struct pst_error *err)
{
	struct pst_loader *loader;
	int rc;

	if (!opts || !out)
		return pst_fail(err, -EINVAL, "loader_open: wrong arguments");
	rc = check_options(opts, err);
	if (rc < 0)
		return rc;
	loader = calloc(1, sizeof(*loader));
	if (!loader)
		return pst_fail(err, -ENOMEM, "loader: no memory");
	loader->depth = opts->depth ? opts->depth : DEFAULT_DEPTH;
	loader->chunk = opts->chunk ? round_up(opts->chunk) : DEFAULT_CHUNK;
	loader->flags = opts->flags;
	loader->tail = &loader->head;
	loader->stat.direct = 1;
	rc = make_tables(loader, opts);
	if (rc < 0) {
		pst_fail(err, rc, "loader: no memory for a depth of %u", loader->depth);
		goto free_loader;
	}
	rc = open_backend(loader, err);
	if (rc < 0)
		goto free_loader;
	loader->stat.backend = loader->backend->name;
	*out = loader;
	return 0;

free_loader:
	free_tables(loader);
	return rc;
}

void pst_loader_close(struct pst_loader *loader)
{
	if (!loader)
		return;
	while (loader->head)
		drop_read(loader);
	pst_loader_wait(loader, NULL);
	loader->backend->close(loader);
	for (unsigned int i = 0; i < loader->nfiles; i++) {
		close(loader->files[i].fd);
		free(loader->files[i].path);
	}
	free(loader->files);
	free_tables(loader);
}

void pst_loader_stat(const struct pst_loader *loader, struct pst_loader_stat *out)
{
	*out = loader->stat;
}
