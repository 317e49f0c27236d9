/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - memory of one NUMA node that others can be given.
 *
 * The model
 *   pool   one memfd, mapped once, bound to a NUMA node, in huge pages where
 *          there are any, locked in RAM, zero at first. It can be handed to
 *          another process by its fd and registered with fabrics and devices.
 *   block  memory taken from a pool, named by (pool, offset). Any size from one byte up;
 *          every block starts on a cache line (64 bytes) or as aligned as
 *          asked. Taking and giving back is O(1).
 *
 * How: two-level segregated fit (Masmano et al., ECRTS 2004) whose book-keeping
 * stands outside of the pool, so that a peer that writes out of its block, or a
 * device, cannot break the allocator; neighbours merge at once, so that a pool
 * whose blocks are all back is one free block again. In front of it each thread
 * keeps small blocks of recent sizes; pst_pool_trim() gives them back.
 *
 * Nothing is silent: what the pool wanted and did not get (node, huge pages,
 * lock) stands in pst_pool_stat() with a sentence in @note.
 *
 * Threads: all functions may be called from any thread, except that nobody may
 * use a pool that is being destroyed. A block may be freed by another thread. A
 * child of fork() must not allocate or free: the memory is shared, the book-keeping is not.
 */
#ifndef PST_POOL_H
#define PST_POOL_H

#include <penstock/error.h>
#include <stddef.h>
#include <stdint.h>

struct pst_pool;

#define PST_POOL_ALIGN 64
#define PST_NODE_ANY   (-1)

enum pst_pool_flags {
	PST_POOL_HUGE =
		1, /* huge pages wanted: hugetlb, else transparent, else 4 KiB with a note */
	PST_POOL_HUGE_MUST = 2, /* fail without hugetlb pages */
	PST_POOL_LOCK = 4,	/* lock in RAM wanted; without permission: a note */
	PST_POOL_LOCK_MUST = 8, /* fail when it cannot be locked */
	PST_POOL_READERS =
		16, /* others will only ever read: no new writable mapping (F_SEAL_FUTURE_WRITE) */
};

struct pst_pool_options {
	size_t size; /* sizeof(struct pst_pool_options) */
	const char *name;
	uint64_t bytes; /* rounded up to the page size in use */
	int node;	/* PST_NODE_ANY: where the caller runs */
	uint32_t flags;
};

struct pst_pool_stat {
	uint64_t bytes, used;  /* used: in blocks, as asked and rounded up to 64 */
	uint64_t peak;	       /* the most that was ever in blocks or thread caches */
	uint64_t cached;       /* free blocks held by thread caches */
	uint64_t largest_free; /* the biggest block that could be taken now */
	uint64_t blocks, allocs, frees, failures;
	uint64_t page_bytes;			 /* what backs it: 4096, 2 MiB, 1 GiB */
	uint64_t pages_checked, pages_elsewhere; /* by pst_pool_audit() */
	int node;
	int locked;	/* 1 when all of it is locked in RAM */
	char note[256]; /* what is worse than asked, and what mends it; or empty */
};

/*
 * Before it pins, it compares what it needs with RLIMIT_MEMLOCK, the free pages
 * of the node and the cgroup; on failure @err says what was needed, what the
 * limit is and which command raises it. -ENOMEM, -EPERM, -EINVAL (unknown flag,
 * no such node, 0 bytes).
 */
int pst_pool_create(const struct pst_pool_options *opts, struct pst_pool **out,
		    struct pst_error *err);
void pst_pool_destroy(struct pst_pool *pool); /* NULL is fine */

/* @align: a power of two up to 2 MiB or the pool's page size, 0 for 64. NULL when full.
 * The content is what the last user left (zero in a fresh pool). */
void *pst_pool_alloc(struct pst_pool *pool, size_t bytes, size_t align);
/* NULL is fine. What is no block of this pool, or free already, is counted as a failure. */
void pst_pool_free(struct pst_pool *pool, void *block);

/* Give back what this thread's (@all: every thread's) cache holds of this pool. */
void pst_pool_trim(struct pst_pool *pool, int all);

void *pst_pool_base(const struct pst_pool *pool);
uint64_t pst_pool_bytes(const struct pst_pool *pool);
int pst_pool_fd(const struct pst_pool *pool); /* stays the pool's */
uint64_t pst_pool_offset(const struct pst_pool *pool, const void *block);
void *pst_pool_at(const struct pst_pool *pool, uint64_t offset);

/*
 * Ask the kernel where each page of the pool is (move_pages), move those that
 * are on another node if @repair, and count what stays wrong in the stat.
 * Returns pages left elsewhere, or -errno (-EPERM where the syscall is denied:
 * then nothing is known, and the note says so).
 */
long pst_pool_audit(struct pst_pool *pool, int repair, struct pst_error *err);

void pst_pool_stat(struct pst_pool *pool, struct pst_pool_stat *out);

#endif /* PST_POOL_H */
