/* SPDX-License-Identifier: Apache-2.0 */
/* io_uring: the pools as fixed buffers, the files registered, one system call per batch. */
#include "runtime/io/loader_backend.h"

#include "runtime/io/file.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>

#define PIECE	  (1ull << 30) /* the largest buffer that can be registered */
#define MAX_FILES 256
#define BATCH	  64

struct uring {
	struct io_uring ring;
	bool fixed_buffers;
	unsigned int fixed_files; /* places for them */
};

static unsigned int pieces(uint64_t bytes)
{
	return (unsigned int)((bytes + PIECE - 1) / PIECE);
}

/* All pools, in pieces; @pool->first is the number of its first one. */
static int register_pools(struct pst_loader *loader, struct uring *u)
{
	unsigned int count = 0, n = 0;
	struct iovec *iov;
	int rc;

	for (unsigned int i = 0; i < loader->npools; i++)
		count += pieces(loader->pools[i].bytes);
	iov = calloc(count, sizeof(*iov));
	if (!iov)
		return -ENOMEM;
	for (unsigned int i = 0; i < loader->npools; i++) {
		struct pst_loader_pool *pool = &loader->pools[i];

		pool->first = n;
		for (uint64_t at = 0; at < pool->bytes; at += PIECE)
			iov[n++] = (struct iovec){
				.iov_base = pool->base + at,
				.iov_len = pool->bytes - at < PIECE ? pool->bytes - at : PIECE,
			};
	}
	rc = io_uring_register_buffers(&u->ring, iov, n);
	free(iov);
	return rc;
}

static void register_files(struct uring *u)
{
	int none[MAX_FILES];

	for (unsigned int i = 0; i < MAX_FILES; i++)
		none[i] = -1;
	if (io_uring_register_files(&u->ring, none, MAX_FILES) == 0)
		u->fixed_files = MAX_FILES;
}

/* Set-up may be allowed and use denied: one request that does nothing shows it. */
static int try_out(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int rc;

	io_uring_prep_nop(sqe);
	rc = io_uring_submit(ring);
	if (rc < 0)
		return rc;
	rc = io_uring_wait_cqe(ring, &cqe);
	if (rc < 0)
		return rc;
	rc = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return rc;
}

static int uring_open(struct pst_loader *loader)
{
	struct uring *u = calloc(1, sizeof(*u));
	int rc;

	if (!u)
		return -ENOMEM;
	rc = io_uring_queue_init(loader->depth, &u->ring, 0);
	if (rc < 0)
		goto free_u;
	rc = try_out(&u->ring);
	if (rc < 0)
		goto exit_ring;
	if (loader->npools) {
		rc = register_pools(loader, u);
		u->fixed_buffers = rc >= 0;
		if (rc < 0)
			pst_loader_note(
				loader,
				"the pools cannot be registered with io_uring (%s): reading "
				"without; allow it with: ulimit -l unlimited",
				pst_reason(rc));
	}
	register_files(u);
	loader->priv = u;
	return 0;

exit_ring:
	io_uring_queue_exit(&u->ring);
free_u:
	free(u);
	return rc;
}

static void uring_close(struct pst_loader *loader)
{
	struct uring *u = loader->priv;

	io_uring_queue_exit(&u->ring);
	free(u);
}

static void uring_file(struct pst_loader *loader, unsigned int file)
{
	struct uring *u = loader->priv;

	if (file < u->fixed_files &&
	    io_uring_register_files_update(&u->ring, file, &loader->files[file].fd, 1) == 1)
		loader->files[file].slot = (int)file;
}

/* The registered piece that holds all of the request's memory, or -1. */
static int find_piece(const struct pst_loader *loader, const struct pst_loader_request *req)
{
	for (unsigned int i = 0; i < loader->npools; i++) {
		const struct pst_loader_pool *pool = &loader->pools[i];
		uint64_t at = (uintptr_t)req->io_mem - (uintptr_t)pool->base;

		if (at >= pool->bytes || req->io_len > pool->bytes - at)
			continue;
		if (at / PIECE != (at + req->io_len - 1) / PIECE)
			return -1;
		return (int)(pool->first + at / PIECE);
	}
	return -1;
}

static void uring_submit(struct pst_loader *loader, struct pst_loader_request *req)
{
	struct uring *u = loader->priv;
	/* There is one for each request of the depth. */
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
	int slot = loader->files[req->file].slot, fd = slot < 0 ? req->fd : slot;
	int piece = u->fixed_buffers ? find_piece(loader, req) : -1;

	if (piece < 0)
		io_uring_prep_read(sqe, fd, req->io_mem, req->io_len, req->io_offset);
	else
		io_uring_prep_read_fixed(sqe, fd, req->io_mem, req->io_len, req->io_offset, piece);
	if (slot >= 0)
		io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
	io_uring_sqe_set_data(sqe, req);
}

static int enter(struct io_uring *ring, bool wait)
{
	int rc;

	if (wait && !io_uring_cq_ready(ring))
		rc = io_uring_submit_and_wait(ring, 1);
	else
		rc = io_uring_sq_ready(ring) ? io_uring_submit(ring) : 0;
	/* Busy: what is done has to be taken before more can start. */
	return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY ? 0 : rc;
}

static int uring_reap(struct pst_loader *loader, bool wait)
{
	struct uring *u = loader->priv;
	struct io_uring_cqe *cqe[BATCH];
	struct pst_loader_request *req;
	unsigned int n;
	ssize_t res;
	int rc;

	do {
		rc = enter(&u->ring, wait);
		if (rc < 0)
			return rc;
		n = io_uring_peek_batch_cqe(&u->ring, cqe, BATCH);
	} while (wait && !n);
	for (unsigned int i = 0; i < n; i++) {
		req = io_uring_cqe_get_data(cqe[i]);
		res = cqe[i]->res;
		pst_loader_done(loader, req, res);
	}
	io_uring_cq_advance(&u->ring, n);
	return 0;
}

const struct pst_loader_backend pst_loader_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.file = uring_file,
	.submit = uring_submit,
	.reap = uring_reap,
};
