/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cache.h - a heap: the allocator of a pool, each thread's small blocks in front of it.
 *
 * The model
 *   heap   a tlsf, the lock that guards it, and the caches of the threads.
 *   cache  one thread's free blocks of one heap: for each size of up to 64 granules a
 *          stack of a few. What another thread allocated may be freed into it.
 *
 * The owner of a cache works on it without a lock and without an atomic
 * read-modify-write. Who wants to empty the cache of another (trim, or a heap
 * that is full) shuts it by @stop, makes every running thread pass a barrier
 * (membarrier(2)) and waits until the owner is not @busy. So the price is paid
 * by the rare side. Where the kernel denies membarrier, the owner pays with a
 * full barrier in each operation.
 *
 * Who holds the heap's lock and is the owner, or has shut the cache, may touch it.
 */
#ifndef PST_CACHE_H
#define PST_CACHE_H

#include "runtime/mem/tlsf.h"

#include <pthread.h>
#include <stdbool.h>

#define PST_CACHE_SIZES 64 /* the largest block kept, in granules */
#define PST_CACHE_DEPTH 32 /* at most so many of each size */
#define PST_CACHE_HEAPS 64 /* heaps at a time that have caches */

struct pst_heap;
struct pst_thread;

struct pst_cache {
	uint32_t busy, stop;
	uint64_t allocs, frees;
	struct pst_heap *heap;
	struct pst_thread *thread;
	struct pst_cache *next, **link;
	uint8_t count[PST_CACHE_SIZES + 1], batch[PST_CACHE_SIZES + 1];
	uint64_t slot[PST_CACHE_SIZES + 1][PST_CACHE_DEPTH];
} __attribute__((aligned(64)));

struct pst_heap {
	unsigned int id; /* in pst_thread.cache; PST_CACHE_HEAPS: this heap has no caches */
	uint8_t depth[PST_CACHE_SIZES + 1];
	struct pst_tlsf tlsf;
	pthread_mutex_t lock; /* guards all that follows and the tlsf */
	struct pst_cache *caches;
	uint64_t peak;		/* granules */
	uint64_t allocs, frees; /* that no living cache counts */
	uint64_t failures;	/* atomic */
};

struct pst_heap_stat {
	uint64_t used, peak, cached, largest; /* granules */
	uint64_t allocs, frees, failures;
};

struct pst_thread {
	struct pst_cache *cache[PST_CACHE_HEAPS + 1];
};

/* Initial-exec: one load, no call, also in a shared library. Never NULL. */
extern __thread struct pst_thread *pst_thread_self __attribute__((tls_model("initial-exec")));
/* The kernel denies membarrier(2). Set before the first cache is made. */
extern bool pst_cache_fences;

int pst_heap_init(struct pst_heap *heap, uint64_t granules);
void pst_heap_fini(struct pst_heap *heap); /* with the caches of all threads */
uint64_t pst_heap_take_slow(struct pst_heap *heap, uint64_t n, uint64_t align);
void pst_heap_give_slow(struct pst_heap *heap, uint64_t granule);
void pst_heap_trim(struct pst_heap *heap, bool all);
void pst_heap_stat(struct pst_heap *heap, struct pst_heap_stat *out);

static inline void pst_heap_failed(struct pst_heap *heap)
{
	__atomic_fetch_add(&heap->failures, 1, __ATOMIC_RELAXED);
}

static inline void pst_cache_leave(struct pst_cache *c)
{
	__atomic_store_n(&c->busy, 0, __ATOMIC_RELEASE);
}

static inline bool pst_cache_enter(struct pst_cache *c)
{
	if (__builtin_expect(pst_cache_fences, 0))
		__atomic_store_n(&c->busy, 1, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&c->busy, 1, __ATOMIC_RELAXED);
	/* The compiler must keep the order; the processor is made to by membarrier(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (__builtin_expect(!__atomic_load_n(&c->stop, __ATOMIC_SEQ_CST), 1))
		return true;
	pst_cache_leave(c);
	return false;
}

/* Only the owner writes; others read for statistics. */
static inline void pst_cache_inc(uint64_t *counter)
{
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static inline void pst_cache_set_count(struct pst_cache *c, uint64_t n, unsigned int count)
{
	__atomic_store_n(&c->count[n], (uint8_t)count, __ATOMIC_RELAXED);
}

static inline uint64_t pst_heap_take(struct pst_heap *heap, uint64_t n, uint64_t align)
{
	struct pst_cache *c = pst_thread_self->cache[heap->id];
	uint64_t g = PST_TLSF_NONE;

	if (n <= PST_CACHE_SIZES && align == 1 && c && pst_cache_enter(c)) {
		unsigned int count = c->count[n];

		if (__builtin_expect(count, 1)) {
			g = c->slot[n][count - 1];
			pst_cache_set_count(c, n, count - 1);
			pst_tag_set(&heap->tlsf, g, n, PST_TAG_USED);
			pst_cache_inc(&c->allocs);
		}
		pst_cache_leave(c);
	}
	return __builtin_expect(g != PST_TLSF_NONE, 1) ? g : pst_heap_take_slow(heap, n, align);
}

/* What is no block, or is free already, is counted as a failure and changes nothing. */
static inline void pst_heap_give(struct pst_heap *heap, uint64_t granule)
{
	struct pst_cache *c = pst_thread_self->cache[heap->id];
	uint64_t tag = pst_tag_get(&heap->tlsf, granule), n = pst_tag_size(tag);
	bool done = false;

	if (__builtin_expect(pst_tag_kind(tag) != PST_TAG_USED, 0)) {
		pst_heap_failed(heap);
		return;
	}
	if (n <= PST_CACHE_SIZES && c && pst_cache_enter(c)) {
		unsigned int count = c->count[n];

		done = count < heap->depth[n];
		if (__builtin_expect(done, 1)) {
			pst_tag_set(&heap->tlsf, granule, n, PST_TAG_CACHED);
			c->slot[n][count] = granule;
			pst_cache_set_count(c, n, count + 1);
			pst_cache_inc(&c->frees);
		}
		pst_cache_leave(c);
	}
	if (__builtin_expect(!done, 0))
		pst_heap_give_slow(heap, granule);
}

#endif /* PST_CACHE_H */
