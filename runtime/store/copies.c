/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/copies.h"

#include "rdma/fail.h"
#include "runtime/mem/pool.h"
#include "runtime/store/region.h"

#include <penstock/wire.h>

#include <errno.h>
#include <stdlib.h>

struct pst_copies {
	struct pst_pool *pool;
	struct pst_region *region;
	uint64_t budget, used, request;
	struct pst_copy *newest, *oldest;
	struct pst_copies_stat stat;
};

uint64_t pst_copies_cost(uint64_t bytes)
{
	return (bytes + PST_POOL_ALIGN - 1) / PST_POOL_ALIGN * PST_POOL_ALIGN;
}

int pst_copies_create(const struct pst_copies_options *o, struct pst_copies **out,
		      struct pst_error *err)
{
	struct pst_copies *c = calloc(1, sizeof(*c));
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "copies",
		/* the allocator rounds sizes up to the next of its classes when it looks */
		.bytes = o->bytes + o->bytes / 16 + 65536,
		.node = o->node,
		.flags = o->pool_flags,
	};
	int rc;

	if (!c)
		return pst_fail(err, -ENOMEM, "no memory for copies");
	c->budget = o->bytes;
	rc = pst_pool_create(&po, &c->pool, err);
	if (!rc)
		rc = pst_pool_region(o->fabric, c->pool, PST_ACCESS_READ, &c->region, err);
	if (rc < 0) {
		pst_copies_destroy(c);
		return rc;
	}
	*out = c;
	return 0;
}

void pst_copies_destroy(struct pst_copies *c)
{
	if (!c)
		return;
	if (c->region)
		pst_region_release(c->region);
	pst_pool_destroy(c->pool);
	free(c);
}

uint64_t pst_copies_budget(const struct pst_copies *c)
{
	return c->budget;
}

struct pst_region *pst_copies_region(const struct pst_copies *c)
{
	return c->region;
}

const struct pst_pool *pst_copies_pool(const struct pst_copies *c)
{
	return c->pool;
}

void pst_copies_begin(struct pst_copies *c)
{
	c->request++;
}

/* What is pinned is not in the list. */
static void take_out(struct pst_copies *c, struct pst_copy *copy)
{
	if (copy->pinned)
		return;
	*(copy->newer ? &copy->newer->older : &c->newest) = copy->older;
	*(copy->older ? &copy->older->newer : &c->oldest) = copy->newer;
	copy->newer = copy->older = NULL;
}

static void put_first(struct pst_copies *c, struct pst_copy *copy)
{
	copy->request = c->request;
	if (copy->pinned)
		return;
	copy->newer = NULL;
	copy->older = c->newest;
	*(c->newest ? &c->newest->newer : &c->oldest) = copy;
	c->newest = copy;
}

void pst_copies_pin(struct pst_copies *c, struct pst_copy *copy, bool pinned)
{
	if (copy->pinned == pinned)
		return;
	if (copy->at && pinned)
		take_out(c, copy);
	copy->pinned = pinned;
	if (copy->at && !pinned)
		put_first(c, copy);
}

void pst_copies_hit(struct pst_copies *c, struct pst_copy *copy)
{
	take_out(c, copy);
	put_first(c, copy);
	c->stat.hits++;
}

void pst_copies_drop(struct pst_copies *c, struct pst_copy *copy)
{
	if (!copy->at)
		return;
	take_out(c, copy);
	pst_pool_free(c->pool, copy->at);
	c->used -= pst_copies_cost(copy->bytes);
	copy->at = NULL;
	copy->version = PST_VERSION_NONE;
	if (copy->here)
		atomic_fetch_sub_explicit(copy->here, 1, memory_order_relaxed);
}

static bool evict(struct pst_copies *c)
{
	if (!c->oldest || c->oldest->request == c->request)
		return false;
	pst_copies_drop(c, c->oldest);
	c->stat.evicted++;
	return true;
}

static int take_block(struct pst_copies *c, struct pst_copy *copy, uint64_t bytes)
{
	uint64_t cost = pst_copies_cost(bytes);

	if (cost > c->budget)
		return -ENOSPC;
	for (;;) {
		if (c->used + cost <= c->budget)
			copy->at = pst_pool_alloc(c->pool, cost, 0);
		if (copy->at)
			break;
		if (!evict(c))
			return -ENOSPC;
	}
	copy->bytes = bytes;
	c->used += cost;
	if (copy->here)
		atomic_fetch_add_explicit(copy->here, 1, memory_order_relaxed);
	return 0;
}

int pst_copies_room(struct pst_copies *c, struct pst_copy *copy, uint64_t bytes)
{
	if (copy->at) {
		take_out(c, copy);
	} else {
		int rc = take_block(c, copy, bytes);

		if (rc < 0)
			return rc;
	}
	copy->version = PST_VERSION_NONE;
	put_first(c, copy);
	c->stat.pulls++;
	c->stat.pulled_bytes += bytes;
	if (copy->pulled)
		atomic_fetch_add_explicit(copy->pulled, bytes, memory_order_relaxed);
	return 0;
}

void pst_copies_stat(const struct pst_copies *c, struct pst_copies_stat *out)
{
	*out = c->stat;
	out->used_bytes = c->used;
}
