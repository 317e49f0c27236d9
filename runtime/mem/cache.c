/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mem/cache.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A thread that has no cache yet: every look-up finds nothing. */
static struct pst_thread no_thread;
__thread struct pst_thread *pst_thread_self __attribute__((tls_model("initial-exec"))) = &no_thread;
bool pst_cache_fences;

/* Guards the list of ids and every pst_thread against threads that end and heaps that go. Taken
 * before a heap's lock. */
static pthread_mutex_t registry = PTHREAD_MUTEX_INITIALIZER;
static uint64_t ids; /* bit: in use */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static bool have_key;

static int barrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0) ? -errno : 0;
}

/* A child of fork() may have to register anew. */
static int barrier_all(void)
{
	if (pst_cache_fences || !barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		return 0;
	barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED);
	return barrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
}

/* Give the @n least recently freed blocks of one size back. The heap's lock is held. */
static void flush(struct pst_cache *c, uint64_t size, unsigned int n)
{
	struct pst_tlsf *t = &c->heap->tlsf;
	unsigned int count = c->count[size];

	for (unsigned int i = 0; i < n; i++) {
		pst_tag_set(t, c->slot[size][i], size, PST_TAG_USED);
		pst_tlsf_give(t, c->slot[size][i]);
	}
	memmove(c->slot[size], c->slot[size] + n, (count - n) * sizeof(c->slot[size][0]));
	pst_cache_set_count(c, size, count - n);
}

static void drain(struct pst_cache *c)
{
	for (uint64_t n = 1; n <= PST_CACHE_SIZES; n++) {
		flush(c, n, c->count[n]);
		c->batch[n] = 0;
	}
}

/* Empty the caches of all threads. The heap's lock is held. */
static void drain_all(struct pst_heap *heap)
{
	int rc;

	for (struct pst_cache *c = heap->caches; c; c = c->next)
		__atomic_store_n(&c->stop, 1, __ATOMIC_SEQ_CST);
	rc = barrier_all();
	for (struct pst_cache *c = heap->caches; c; c = c->next) {
		while (!rc && __atomic_load_n(&c->busy, __ATOMIC_SEQ_CST))
			sched_yield();
		if (!rc || c->thread == pst_thread_self)
			drain(c);
		__atomic_store_n(&c->stop, 0, __ATOMIC_RELEASE);
	}
}

static uint64_t cached(const struct pst_cache *c)
{
	uint64_t sum = 0;

	for (uint64_t n = 1; n <= PST_CACHE_SIZES; n++)
		sum += n * __atomic_load_n(&c->count[n], __ATOMIC_RELAXED);
	return sum;
}

static uint64_t cached_all(const struct pst_heap *heap)
{
	uint64_t sum = 0;

	for (const struct pst_cache *c = heap->caches; c; c = c->next)
		sum += cached(c);
	return sum;
}

/* Both locks are held, the cache is empty or its heap is going. */
static void cache_free(struct pst_cache *c)
{
	c->heap->allocs += c->allocs;
	c->heap->frees += c->frees;
	*c->link = c->next;
	if (c->next)
		c->next->link = c->link;
	c->thread->cache[c->heap->id] = NULL;
	free(c);
}

static void thread_end(void *arg)
{
	struct pst_thread *thread = arg;

	pthread_mutex_lock(&registry);
	for (unsigned int i = 0; i < PST_CACHE_HEAPS; i++) {
		struct pst_cache *c = thread->cache[i];
		struct pst_heap *heap;

		if (!c)
			continue;
		heap = c->heap;
		pthread_mutex_lock(&heap->lock);
		drain(c);
		cache_free(c);
		pthread_mutex_unlock(&heap->lock);
	}
	pthread_mutex_unlock(&registry);
	pst_thread_self = &no_thread;
	free(thread);
}

static void start(void)
{
	have_key = !pthread_key_create(&key, thread_end);
	pst_cache_fences = barrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0;
}

static struct pst_thread *thread_get(void)
{
	struct pst_thread *thread;

	if (pst_thread_self != &no_thread || !have_key)
		return pst_thread_self;
	thread = calloc(1, sizeof(*thread));
	if (!thread)
		return &no_thread;
	if (pthread_setspecific(key, thread)) {
		free(thread);
		return &no_thread;
	}
	pst_thread_self = thread;
	return thread;
}

/* This thread's cache of @heap, made if need be; NULL: it goes without. */
static struct pst_cache *cache_get(struct pst_heap *heap)
{
	struct pst_thread *thread = thread_get();
	struct pst_cache *c = thread->cache[heap->id];

	if (c || thread == &no_thread || heap->id == PST_CACHE_HEAPS)
		return c;
	c = aligned_alloc(64, sizeof(*c));
	if (!c)
		return NULL;
	memset(c, 0, sizeof(*c));
	c->heap = heap;
	c->thread = thread;
	pthread_mutex_lock(&heap->lock);
	c->next = heap->caches;
	c->link = &heap->caches;
	if (c->next)
		c->next->link = &c->next;
	heap->caches = c;
	pthread_mutex_unlock(&heap->lock);
	thread->cache[heap->id] = c;
	return c;
}

int pst_heap_init(struct pst_heap *heap, uint64_t granules)
{
	int rc;

	pthread_once(&once, start);
	memset(heap, 0, sizeof(*heap));
	rc = pst_tlsf_init(&heap->tlsf, granules);
	if (rc)
		return rc;
	pthread_mutex_init(&heap->lock, NULL);
	/* A thread may sit on a 256th of the heap in each size, no more. */
	for (uint64_t n = 1; n <= PST_CACHE_SIZES; n++) {
		uint64_t depth = granules / 256 / n;

		heap->depth[n] = depth < PST_CACHE_DEPTH ? (uint8_t)depth : PST_CACHE_DEPTH;
	}
	pthread_mutex_lock(&registry);
	heap->id = ~ids ? (unsigned int)__builtin_ctzll(~ids) : PST_CACHE_HEAPS;
	if (heap->id < PST_CACHE_HEAPS)
		ids |= 1ull << heap->id;
	pthread_mutex_unlock(&registry);
	return 0;
}

void pst_heap_fini(struct pst_heap *heap)
{
	pthread_mutex_lock(&registry);
	while (heap->caches)
		cache_free(heap->caches);
	if (heap->id < PST_CACHE_HEAPS)
		ids &= ~(1ull << heap->id);
	pthread_mutex_unlock(&registry);
	pthread_mutex_destroy(&heap->lock);
	pst_tlsf_fini(&heap->tlsf);
}

/* The first miss of a size brings one block, the next ones ever more, up to half of the depth. */
static void refill(struct pst_heap *heap, struct pst_cache *c, uint64_t n)
{
	unsigned int most = heap->depth[n] / 2u, batch = c->batch[n];

	while (c->count[n] < batch) {
		uint64_t g = pst_tlsf_take(&heap->tlsf, n, 1);

		if (g == PST_TLSF_NONE)
			break;
		pst_tag_set(&heap->tlsf, g, n, PST_TAG_CACHED);
		c->slot[n][c->count[n]] = g;
		pst_cache_set_count(c, n, c->count[n] + 1u);
	}
	batch = batch ? 2 * batch : 1;
	c->batch[n] = (uint8_t)(batch < most ? batch : most);
}

uint64_t pst_heap_take_slow(struct pst_heap *heap, uint64_t n, uint64_t align)
{
	bool small = n <= PST_CACHE_SIZES && align == 1 && heap->depth[n];
	struct pst_cache *c = small ? cache_get(heap) : NULL;
	uint64_t g;

	pthread_mutex_lock(&heap->lock);
	g = pst_tlsf_take(&heap->tlsf, n, align);
	if (g == PST_TLSF_NONE && cached_all(heap)) {
		drain_all(heap);
		g = pst_tlsf_take(&heap->tlsf, n, align);
	}
	if (g != PST_TLSF_NONE) {
		heap->allocs++;
		if (c)
			refill(heap, c, n);
	}
	if (heap->tlsf.taken > heap->peak)
		heap->peak = heap->tlsf.taken;
	pthread_mutex_unlock(&heap->lock);
	if (g == PST_TLSF_NONE)
		pst_heap_failed(heap);
	return g;
}

void pst_heap_give_slow(struct pst_heap *heap, uint64_t granule)
{
	uint64_t tag = pst_tag_get(&heap->tlsf, granule), n = pst_tag_size(tag);
	bool small = n <= PST_CACHE_SIZES && heap->depth[n];
	struct pst_cache *c = small ? cache_get(heap) : NULL;

	pthread_mutex_lock(&heap->lock);
	if (c && c->count[n] >= heap->depth[n])
		flush(c, n, (heap->depth[n] + 1u) / 2);
	if (pst_tlsf_give(&heap->tlsf, granule))
		heap->frees++;
	else
		pst_heap_failed(heap);
	pthread_mutex_unlock(&heap->lock);
}

void pst_heap_trim(struct pst_heap *heap, bool all)
{
	struct pst_cache *c = pst_thread_self->cache[heap->id];

	pthread_mutex_lock(&heap->lock);
	if (all)
		drain_all(heap);
	else if (c)
		drain(c);
	pthread_mutex_unlock(&heap->lock);
}

void pst_heap_stat(struct pst_heap *heap, struct pst_heap_stat *out)
{
	pthread_mutex_lock(&heap->lock);
	out->cached = cached_all(heap);
	out->used = heap->tlsf.taken > out->cached ? heap->tlsf.taken - out->cached : 0;
	out->peak = heap->peak;
	out->largest = pst_tlsf_largest(&heap->tlsf);
	out->allocs = heap->allocs;
	out->frees = heap->frees;
	for (const struct pst_cache *c = heap->caches; c; c = c->next) {
		out->allocs += __atomic_load_n(&c->allocs, __ATOMIC_RELAXED);
		out->frees += __atomic_load_n(&c->frees, __ATOMIC_RELAXED);
	}
	out->failures = __atomic_load_n(&heap->failures, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&heap->lock);
}
