/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copies.h - local copies of tensors that others publish, where their memory cannot be mapped.
 *
 * The model
 *   copies  a pool registered with the fabric, and a budget: so many bytes are in
 *           copies at most.
 *   copy    one tensor as of one version; who has it keeps the struct (view.h).
 *   begin   a request: what it uses stays until the next one begins. What has
 *           not been used for longest goes first when there is no room.
 *   pinned  it does not go for others; its room is to be had from the budget all the same.
 *
 * Threads: one.
 */
#ifndef PST_COPIES_H
#define PST_COPIES_H

#include "rdma/fabric.h"

#include <stdatomic.h>
#include <stdbool.h>

struct pst_copies;
struct pst_pool;

struct pst_copy {
	void *at; /* NULL: none */
	uint64_t bytes;
	uint64_t version; /* PST_VERSION_NONE: what is there is no version's, or not yet */
	uint64_t request; /* that used it last */
	bool pinned;
	_Atomic uint32_t *here;	  /* one more while there is a block; NULL: nobody counts */
	_Atomic uint64_t *pulled; /* bytes that came; NULL: nobody counts */
	struct pst_copy *newer, *older;
};

struct pst_copies_options {
	size_t size; /* sizeof(struct pst_copies_options) */
	struct pst_fabric *fabric;
	uint64_t bytes; /* the budget */
	int node;
	uint32_t pool_flags;
};

struct pst_copies_stat {
	uint64_t pulled_bytes, pulls; /* tensors that came */
	uint64_t hits;		      /* tensors that were here */
	uint64_t evicted;	      /* copies that went for others */
	uint64_t used_bytes;
};

int pst_copies_create(const struct pst_copies_options *opts, struct pst_copies **out,
		      struct pst_error *err);
void pst_copies_destroy(struct pst_copies *copies); /* NULL is fine */

/* What a tensor of @bytes takes of the budget. */
uint64_t pst_copies_cost(uint64_t bytes);
uint64_t pst_copies_budget(const struct pst_copies *copies);
struct pst_region *pst_copies_region(const struct pst_copies *copies);
const struct pst_pool *pst_copies_pool(const struct pst_copies *copies);

void pst_copies_begin(struct pst_copies *copies);
/* The request uses what is in @copy, of which a version is here. */
void pst_copies_hit(struct pst_copies *copies, struct pst_copy *copy);
/*
 * The request will pull @bytes into @copy: its block is made sure of, its version
 * taken away. -ENOSPC: everything is in use by this request.
 */
int pst_copies_room(struct pst_copies *copies, struct pst_copy *copy, uint64_t bytes);
void pst_copies_drop(struct pst_copies *copies, struct pst_copy *copy);
/* It stays, or may go again; whether there is a block or not. */
void pst_copies_pin(struct pst_copies *copies, struct pst_copy *copy, bool pinned);

void pst_copies_stat(const struct pst_copies *copies, struct pst_copies_stat *out);

#endif /* PST_COPIES_H */
