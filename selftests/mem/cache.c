/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: their caches, blocks that cross from one to another, ends of threads and of pools. */
#include "runtime/mem/cache.h"
#include "runtime/mem/pool.h"
#include "selftests/lib/test.h"

#include <pthread.h>
#include <semaphore.h>

#if defined(__SANITIZE_THREAD__)
#define ROUNDS 4000
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ROUNDS 4000
#endif
#endif
#ifndef ROUNDS
#define ROUNDS 40000
#endif

enum { THREADS = 4, BYTES = 16 << 20 };

FIXTURE(cache)
{
	struct pst_pool *pool;
};

FIXTURE_VARIANT(cache)
{
	bool fences; /* as where the kernel denies membarrier */
};
FIXTURE_VARIANT_ADD(cache, membarrier){.fences = false};
FIXTURE_VARIANT_ADD(cache, fences){.fences = true};

static struct pst_pool *pool_of(uint64_t bytes)
{
	struct pst_pool_options o = {
		.size = sizeof(o), .name = "test", .bytes = bytes, .node = PST_NODE_ANY};
	struct pst_error err = {0};
	struct pst_pool *pool = NULL;

	ASSERT_OK(pst_pool_create(&o, &pool, &err), &err);
	return pool;
}

static struct pst_pool_stat stat_of(struct pst_pool *pool)
{
	struct pst_pool_stat s;

	pst_pool_stat(pool, &s);
	return s;
}

FIXTURE_SETUP(cache)
{
	self->pool = pool_of(BYTES);
	if (variant->fences)
		pst_cache_fences = true;
}

FIXTURE_TEARDOWN(cache)
{
	pst_pool_destroy(self->pool);
}

/* A free and an alloc of one size are the same block, and the allocator is not asked. */
TEST_F(cache, keeps)
{
	void *a = pst_pool_alloc(self->pool, 200, 0), *b;
	struct pst_pool_stat s;

	pst_pool_free(self->pool, a);
	s = stat_of(self->pool);
	EXPECT_EQ(0u, s.used);
	EXPECT_EQ(0u, s.blocks);
	b = pst_pool_alloc(self->pool, 250, 0);
	pst_pool_free(self->pool, b);
	a = pst_pool_alloc(self->pool, 250, 0);
	EXPECT_EQ(a, b);
	s = stat_of(self->pool);
	EXPECT_EQ(256u, s.used);
	EXPECT_EQ(1u, s.blocks);
	EXPECT_EQ(3u, s.allocs);
	EXPECT_EQ(2u, s.frees);
	pst_pool_free(self->pool, a);
	EXPECT_LT(0u, stat_of(self->pool).cached);
	pst_pool_trim(self->pool, 0);
	s = stat_of(self->pool);
	EXPECT_EQ(0u, s.cached);
	EXPECT_EQ((uint64_t)BYTES, s.largest_free);
}

/* A second free of what lies in the cache is seen, and does not hand it out twice. */
TEST_F(cache, double_free)
{
	void *a, *b;

	a = pst_pool_alloc(self->pool, 64, 0);
	pst_pool_free(self->pool, a);
	pst_pool_free(self->pool, a);
	EXPECT_EQ(1u, stat_of(self->pool).failures);
	EXPECT_EQ(1u, stat_of(self->pool).frees);
	a = pst_pool_alloc(self->pool, 64, 0);
	b = pst_pool_alloc(self->pool, 64, 0);
	EXPECT_NE(a, b);
}

/* What a cache holds is no reason to say that the pool is full. */
TEST_F(cache, full_pool_takes_from_caches)
{
	void *small[64];
	void *all;

	for (int i = 0; i < 64; i++)
		small[i] = pst_pool_alloc(self->pool, 64, 0);
	for (int i = 0; i < 64; i++)
		pst_pool_free(self->pool, small[i]);
	EXPECT_LT(stat_of(self->pool).largest_free, (uint64_t)BYTES);
	all = pst_pool_alloc(self->pool, BYTES, 0);
	EXPECT_NE(NULL, all);
	EXPECT_EQ(NULL, pst_pool_alloc(self->pool, 1, 0));
	EXPECT_EQ(1u, stat_of(self->pool).failures);
	pst_pool_free(self->pool, all);
}

struct thread {
	struct pst_pool *pool;
	pthread_t id;
	sem_t ready, go;
	void *block[32];
	uint64_t seed;
	uint64_t bad;
};

static void *hold_cache(void *arg)
{
	struct thread *t = arg;

	for (int i = 0; i < 32; i++)
		t->block[i] = pst_pool_alloc(t->pool, 320, 0);
	for (int i = 0; i < 32; i++)
		pst_pool_free(t->pool, t->block[i]);
	sem_post(&t->ready);
	sem_wait(&t->go);
	return NULL;
}

static void begin(struct thread *t, struct pst_pool *pool, uint64_t seed, void *(*run)(void *))
{
	memset(t, 0, sizeof(*t));
	t->pool = pool;
	t->seed = seed;
	sem_init(&t->ready, 0, 0);
	sem_init(&t->go, 0, 0);
	ASSERT_EQ(0, pthread_create(&t->id, NULL, run, t));
}

TEST_F(cache, thread_end_gives_back)
{
	struct thread t;

	begin(&t, self->pool, 0, hold_cache);
	sem_wait(&t.ready);
	EXPECT_LT(0u, stat_of(self->pool).cached);
	sem_post(&t.go);
	pthread_join(t.id, NULL);
	EXPECT_EQ(0u, stat_of(self->pool).cached);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->pool).largest_free);
	EXPECT_EQ(32u, stat_of(self->pool).allocs);
	EXPECT_EQ(32u, stat_of(self->pool).frees);
}

/* The owner of the cache sleeps meanwhile. */
TEST_F(cache, trim_from_another_thread)
{
	struct thread t;

	begin(&t, self->pool, 0, hold_cache);
	sem_wait(&t.ready);
	pst_pool_trim(self->pool, 0);
	EXPECT_LT(0u, stat_of(self->pool).cached); /* not this thread's */
	pst_pool_trim(self->pool, 1);
	EXPECT_EQ(0u, stat_of(self->pool).cached);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->pool).largest_free);
	sem_post(&t.go);
	pthread_join(t.id, NULL);
}

static void *use_two_pools(void *arg)
{
	struct thread *t = arg;

	hold_cache(arg); /* waits while the pool goes and another comes */
	return hold_cache(t);
}

/* The new pool may get the number of the old one; the thread's cache of the old one is no use. */
TEST_F(cache, destroy_with_live_caches)
{
	struct thread t;

	begin(&t, self->pool, 0, use_two_pools);
	sem_wait(&t.ready);
	pst_pool_destroy(self->pool);
	self->pool = pool_of(BYTES);
	t.pool = self->pool;
	sem_post(&t.go);
	sem_wait(&t.ready);
	EXPECT_EQ(32u, stat_of(self->pool).allocs);
	EXPECT_EQ(0u, stat_of(self->pool).used);
	sem_post(&t.go);
	pthread_join(t.id, NULL);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->pool).largest_free);
}

/* Blocks on their way between threads; who takes one off the table owns it. */
static void *table[64];

/* Sizes are mostly ones that caches keep. The first word says whose the block is. */
static void *cross(void *arg)
{
	struct thread *t = arg;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t r = test_random(&t->seed);
		size_t bytes = r % 8 ? 64 + (r >> 8) % 960 : 64 + (r >> 8) % 20000;
		void *mine = pst_pool_alloc(t->pool, bytes, 0), *old;
		uint64_t *word = mine;

		if (mine) {
			word[0] = (uint64_t)(uintptr_t)mine;
			word[7] = ~word[0];
		}
		old = __atomic_exchange_n(&table[(r >> 40) % 64], mine, __ATOMIC_ACQ_REL);
		word = old;
		if (old && (word[0] != (uint64_t)(uintptr_t)old || word[7] != ~word[0]))
			t->bad++;
		if (old)
			word[0] = word[7] = 0;
		pst_pool_free(t->pool, old);
		if (i % 512 == 0)
			pst_pool_trim(t->pool, (r >> 50) % 2);
	}
	return NULL;
}

TEST_F(cache, blocks_cross_threads)
{
	struct thread t[THREADS];
	struct pst_pool_stat s;

	for (int i = 0; i < THREADS; i++)
		begin(&t[i], self->pool, (uint64_t)i, cross);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(t[i].id, NULL);
		EXPECT_EQ(0u, t[i].bad);
	}
	for (int i = 0; i < 64; i++)
		pst_pool_free(self->pool, table[i]);
	s = stat_of(self->pool);
	EXPECT_EQ(0u, s.used);
	EXPECT_EQ(0u, s.failures);
	EXPECT_EQ((uint64_t)THREADS * ROUNDS, s.allocs);
	EXPECT_EQ((uint64_t)THREADS * ROUNDS, s.frees);
	pst_pool_trim(self->pool, 1);
	s = stat_of(self->pool);
	EXPECT_EQ(0u, s.cached);
	EXPECT_EQ((uint64_t)BYTES, s.largest_free);
}

static int stopping;

static void *churn(void *arg)
{
	struct thread *t = arg;

	sem_post(&t->ready);
	while (!__atomic_load_n(&stopping, __ATOMIC_RELAXED)) {
		uint64_t *a = pst_pool_alloc(t->pool, 128, 0), *b = pst_pool_alloc(t->pool, 128, 0);

		if (!a || !b || a == b) {
			t->bad++;
			return NULL;
		}
		*a = *b = (uint64_t)(uintptr_t)t;
		t->bad += *a != (uint64_t)(uintptr_t)t || *b != (uint64_t)(uintptr_t)t;
		pst_pool_free(t->pool, a);
		pst_pool_free(t->pool, b);
	}
	return NULL;
}

/* Caches are emptied from outside, again and again, under owners at work. */
TEST_F(cache, trim_under_load)
{
	struct thread t[2];

	for (int i = 0; i < 2; i++)
		begin(&t[i], self->pool, 0, churn);
	for (int i = 0; i < 2; i++)
		sem_wait(&t[i].ready);
	for (int i = 0; i < ROUNDS / 4; i++)
		pst_pool_trim(self->pool, 1);
	__atomic_store_n(&stopping, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++) {
		pthread_join(t[i].id, NULL);
		EXPECT_EQ(0u, t[i].bad);
	}
	EXPECT_EQ(0u, stat_of(self->pool).failures);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->pool).largest_free);
}

/* More pools than there are places for caches: the rest works without. */
TEST(many_pools)
{
	enum { N = PST_CACHE_HEAPS + 6 };
	struct pst_pool *pool[N];

	for (int i = 0; i < N; i++) {
		void *a;

		pool[i] = pool_of(1 << 20);
		a = pst_pool_alloc(pool[i], 64, 0);
		EXPECT_LT(pst_pool_offset(pool[i], a), 1u << 20);
		EXPECT_EQ(64u, stat_of(pool[i]).used);
		pst_pool_free(pool[i], a);
		EXPECT_EQ(0u, stat_of(pool[i]).used);
	}
	for (int i = N; i-- > 0;)
		pst_pool_destroy(pool[i]);
	pool[0] = pool_of(1 << 20);
	EXPECT_NE(NULL, pst_pool_alloc(pool[0], 64, 0));
	pst_pool_destroy(pool[0]);
}

TEST_MAIN
