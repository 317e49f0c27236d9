/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batches of copies: checked when they are added, cut where the driver knows memory by another
 * piece, joined where one ends and the next begins.
 */
#include "runtime/device/gpu_priv.h"

#include <stdlib.h>

enum way { IN, OUT, WITHIN };

struct pst_gpu_copies {
	struct pst_gpu *gpu;
	size_t n, most, asked;
	CUdeviceptr *to, *from;
	size_t *len, *first; /* @first: of each run of one way */
	uint8_t *way;
	CUmemcpyAttributes *attrs;
	uint64_t to_end, from_end; /* how far the last may grow */
};

/* A place that was added, and how far the piece goes that the driver knows it by. */
struct spot {
	bool device, read_only;
	uint64_t end;
};

static int no_place(struct pst_gpu *gpu, uint64_t at, uint64_t bytes, struct pst_error *err)
{
	return pst_fail(err, -EFAULT,
			"cuda:%d: %llu bytes at %#llx are neither in its arena nor registered "
			"host memory; register the pool that they are in",
			gpu->info.ordinal, (unsigned long long)bytes, (unsigned long long)at);
}

static int look_up(struct pst_gpu *gpu, uint64_t at, uint64_t bytes, struct spot *out,
		   struct pst_error *err)
{
	struct pst_gpu_range r;
	uint64_t next;

	if (pst_gpu_in_arena(gpu, at, bytes)) {
		*out = (struct spot){.device = true, .end = gpu->base + gpu->info.arena};
		return 0;
	}
	if (!pst_gpu_host_find(gpu, at, bytes, &r))
		return no_place(gpu, at, bytes, err);
	next = (at - r.at) / gpu->chunk * gpu->chunk + gpu->chunk;
	*out = (struct spot){.read_only = r.read_only,
			     .end = r.at + (next < r.bytes ? next : r.bytes)};
	return 0;
}

/* Which way, or -errno. */
static int find_way(struct pst_gpu *gpu, const struct spot *to, const struct spot *from,
		    struct pst_error *err)
{
	if (!to->device && !from->device)
		return pst_fail(err, -EINVAL,
				"cuda:%d: a copy from host memory to host memory is none of the "
				"GPU's",
				gpu->info.ordinal);
	if (to->read_only)
		return pst_fail(err, -EACCES,
				"cuda:%d: a copy to host memory that was registered as read-only",
				gpu->info.ordinal);
	return !from->device ? IN : !to->device ? OUT : WITHIN;
}

/* Does it go on where the last one ends? */
static bool joins(const struct pst_gpu_copies *c, enum way way, uint64_t to, uint64_t from,
		  uint64_t bytes)
{
	size_t i = c->n - 1;

	return c->n && c->way[i] == way && c->to[i] + c->len[i] == to &&
	       c->from[i] + c->len[i] == from && to + bytes <= c->to_end &&
	       from + bytes <= c->from_end;
}

static int put(struct pst_gpu_copies *c, enum way way, uint64_t to, uint64_t from, uint64_t bytes,
	       struct pst_error *err)
{
	if (joins(c, way, to, from, bytes)) {
		c->len[c->n - 1] += bytes;
		return 0;
	}
	if (c->n == c->most)
		return pst_fail(err, -ENOSPC,
				"cuda:%d: the batch has its %zu copies: send it, or make a larger "
				"one",
				c->gpu->info.ordinal, c->most);
	c->to[c->n] = to;
	c->from[c->n] = from;
	c->len[c->n] = bytes;
	c->way[c->n++] = (uint8_t)way;
	return 0;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* As much of a copy as the driver knows both places of; how much that is. */
static int put_piece(struct pst_gpu_copies *c, uint64_t to, uint64_t from, uint64_t bytes,
		     uint64_t *piece, struct pst_error *err)
{
	struct spot at_to, at_from;
	int way, rc = look_up(c->gpu, to, bytes, &at_to, err);

	if (!rc)
		rc = look_up(c->gpu, from, bytes, &at_from, err);
	if (rc)
		return rc;
	way = find_way(c->gpu, &at_to, &at_from, err);
	if (way < 0)
		return way;
	*piece = least(bytes, least(at_to.end - to, at_from.end - from));
	rc = put(c, (enum way)way, to, from, *piece, err);
	c->to_end = at_to.end;
	c->from_end = at_from.end;
	return rc;
}

int pst_gpu_copies_add(struct pst_gpu_copies *c, uint64_t to, uint64_t from, uint64_t bytes,
		       struct pst_error *err)
{
	size_t n = c->n, len = n ? c->len[n - 1] : 0;
	uint64_t piece;

	for (uint64_t done = 0; done < bytes; done += piece) {
		int rc = put_piece(c, to + done, from + done, bytes - done, &piece, err);

		if (!rc)
			continue;
		/* none of it; how far the last one may grow is not known any more */
		c->n = n;
		if (n)
			c->len[n - 1] = len;
		c->to_end = 0;
		return rc;
	}
	c->asked += bytes > 0;
	return 0;
}

/* Host memory is as it is from the call on; what the device writes is there in the stream's order.
 */
static size_t fill_attributes(struct pst_gpu_copies *c)
{
	size_t runs = 0;

	for (size_t i = 0; i < c->n; i++) {
		if (i && c->way[i] == c->way[i - 1])
			continue;
		c->first[runs] = i;
		c->attrs[runs++] = (CUmemcpyAttributes){
			.src_access_order = c->way[i] == IN ? CU_MEMCPY_SRC_ACCESS_ORDER_ANY
							    : CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
			.flags = CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE,
		};
	}
	return runs;
}

static int send_batch(struct pst_gpu_copies *c, enum pst_gpu_stream stream, struct pst_error *err)
{
	struct pst_gpu *gpu = c->gpu;
	size_t runs = fill_attributes(c);
	int rc = pst_gpu_room(gpu, stream, err);

	if (rc)
		return rc;
	gpu->calls++;
	return pst_gpu_result(gpu,
			      gpu->cu->cuMemcpyBatchAsync(c->to, c->from, c->len, c->n, c->attrs,
							  c->first, runs,
							  gpu->queue[stream].stream),
			      err, "copying %zu pieces at once", c->n);
}

static int send_each(struct pst_gpu_copies *c, enum pst_gpu_stream stream, struct pst_error *err)
{
	struct pst_gpu *gpu = c->gpu;
	int rc = 0;

	for (size_t i = 0; !rc && i < c->n; i++) {
		rc = pst_gpu_room(gpu, stream, err);
		if (rc)
			break;
		gpu->calls++;
		rc = pst_gpu_result(gpu,
				    gpu->cu->cuMemcpyAsync(c->to[i], c->from[i], c->len[i],
							   gpu->queue[stream].stream),
				    err, "copying %zu bytes", c->len[i]);
	}
	return rc;
}

static void count(struct pst_gpu_copies *c)
{
	_Atomic uint64_t *bytes[] = {
		[IN] = &c->gpu->bytes_in,
		[OUT] = &c->gpu->bytes_out,
		[WITHIN] = &c->gpu->bytes_within,
	};

	c->gpu->copies += c->asked;
	c->gpu->sent += c->n;
	for (size_t i = 0; i < c->n; i++)
		*bytes[c->way[i]] += c->len[i];
}

int pst_gpu_copies_send(struct pst_gpu_copies *c, enum pst_gpu_stream stream, struct pst_error *err)
{
	struct pst_gpu *gpu = c->gpu;
	int rc = pst_gpu_enter(gpu, err);

	/* a batch is no node of a graph */
	if (!rc && c->n > 1 && gpu->cu->cuMemcpyBatchAsync &&
	    !atomic_load(&gpu->queue[stream].capturing))
		rc = send_batch(c, stream, err);
	else if (!rc)
		rc = send_each(c, stream, err);
	if (!rc)
		count(c);
	c->n = 0;
	c->asked = 0;
	return rc;
}

int pst_gpu_copies_new(struct pst_gpu *gpu, size_t most, struct pst_gpu_copies **out,
		       struct pst_error *err)
{
	struct pst_gpu_copies *c = calloc(1, sizeof(*c));

	if (c) {
		c->gpu = gpu;
		c->most = most;
		c->to = calloc(most, sizeof(*c->to));
		c->from = calloc(most, sizeof(*c->from));
		c->len = calloc(most, sizeof(*c->len));
		c->first = calloc(most, sizeof(*c->first));
		c->way = calloc(most, sizeof(*c->way));
		c->attrs = calloc(most, sizeof(*c->attrs));
	}
	if (!c || !c->to || !c->from || !c->len || !c->first || !c->way || !c->attrs) {
		pst_gpu_copies_free(c);
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory for a batch of %zu copies",
				gpu->info.ordinal, most);
	}
	*out = c;
	return 0;
}

void pst_gpu_copies_free(struct pst_gpu_copies *c)
{
	if (!c)
		return;
	free(c->to);
	free(c->from);
	free(c->len);
	free(c->first);
	free(c->way);
	free(c->attrs);
	free(c);
}
