/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mem/pool.h"

#include "rdma/fail.h"
#include "runtime/mem/admit.h"
#include "runtime/mem/cache.h"
#include "runtime/mem/pages.h"
#include "runtime/mem/place.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALL_FLAGS \
	(PST_POOL_HUGE | PST_POOL_HUGE_MUST | PST_POOL_LOCK | PST_POOL_LOCK_MUST | PST_POOL_READERS)
#define GRANULE PST_POOL_ALIGN

struct pst_pool {
	struct pst_heap heap; /* first: what alloc and free touch */
	struct pst_pages pages;
	char name[64];
	uint32_t flags;
	int node, nodes; /* of how many that have memory */
	int locked;
	pthread_mutex_t lock; /* guards what the audit writes */
	struct pst_place_audit audit;
	char note[256];
};

__attribute__((format(printf, 2, 3))) static void note(struct pst_pool *pool, const char *fmt, ...)
{
	size_t used = strlen(pool->note);
	va_list ap;

	if (used && used + 2 < sizeof(pool->note)) {
		memcpy(pool->note + used, "; ", 3);
		used += 2;
	}
	va_start(ap, fmt);
	vsnprintf(pool->note + used, sizeof(pool->note) - used, fmt, ap);
	va_end(ap);
}

static int check_options(const struct pst_pool_options *o, struct pst_error *err)
{
	if (o->size != sizeof(*o))
		return pst_fail(err, -EINVAL,
				"pool: options of %zu bytes, this library knows %zu: rebuild the "
				"program against its headers",
				o->size, sizeof(*o));
	if (!o->name || !*o->name)
		return pst_fail(err, -EINVAL, "pool: it has no name");
	if (o->flags & ~(uint32_t)ALL_FLAGS)
		return pst_fail(err, -EINVAL, "pool %s: unknown flags 0x%x", o->name,
				o->flags & ~(uint32_t)ALL_FLAGS);
	if (!o->bytes || o->bytes > 1ull << 45)
		return pst_fail(err, -EINVAL, "pool %s: a size of %llu bytes, want 1 to 2^45",
				o->name, (unsigned long long)o->bytes);
	return 0;
}

static int choose_node(struct pst_pool *pool, int wanted, struct pst_error *err)
{
	struct pst_node_mask mask;

	pst_place_nodes("", &mask);
	pool->nodes = pst_place_count(&mask);
	pool->node = wanted == PST_NODE_ANY ? pst_place_here() : wanted;
	if (pst_place_has(&mask, pool->node))
		return 0;
	if (wanted != PST_NODE_ANY)
		return pst_fail(err, -EINVAL,
				"pool %s: node %d has no memory or does not exist; the nodes that "
				"have are in /sys/devices/system/node/has_memory",
				pool->name, wanted);
	/* CPUs without memory of their own: any other node is as far. */
	for (pool->node = 0; !pst_place_has(&mask, pool->node);)
		pool->node++;
	return 0;
}

/* Taking more memory than there is ends in the kernel's killer, so it is not tried. */
static int admit_memory(struct pst_pool *pool, uint64_t bytes, struct pst_error *err)
{
	uint64_t have = pst_admit_memory(""), limit, room = pst_admit_cgroup("", &limit);
	char a[32], b[32], c[32];

	if (bytes > have)
		return pst_fail(err, -ENOMEM,
				"pool %s: needs %s of memory, %s are available (MemAvailable in "
				"/proc/meminfo); ask for less, or end what uses it: ps -e -o "
				"rss,pid,comm --sort=-rss",
				pool->name, pst_admit_size(a, sizeof(a), bytes),
				pst_admit_size(b, sizeof(b), have));
	if (bytes > room)
		return pst_fail(
			err, -ENOMEM,
			"pool %s: needs %s of memory, its cgroup has %s left of %s; raise "
			"it with: MemoryMax= in the unit, or resources.limits.memory in the "
			"pod",
			pool->name, pst_admit_size(a, sizeof(a), bytes),
			pst_admit_size(b, sizeof(b), room), pst_admit_size(c, sizeof(c), limit));
	return 0;
}

/* On a machine of one node there is nowhere else, so nothing to say. */
static void bind_node(struct pst_pool *pool)
{
	uint64_t have = pst_admit_node("", pool->node);
	int strict = pool->pages.hugetlb || pool->pages.bytes <= have;
	char a[32];
	int rc;

	if (pool->nodes < 2)
		return;
	if (!strict)
		note(pool, "node %d has %s free, the rest lies elsewhere", pool->node,
		     pst_admit_size(a, sizeof(a), have));
	rc = pst_place_bind(pool->pages.base, pool->pages.bytes, pool->node, strict);
	if (rc)
		note(pool, "not bound to node %d: mbind is denied (grant CAP_SYS_NICE)",
		     pool->node);
}

/* Round up, open, bind and fill with one kind of page. */
static int try_pages(struct pst_pool *pool, uint64_t bytes, uint64_t page, int hugetlb)
{
	int rc;

	bytes = (bytes + page - 1) & ~(page - 1);
	rc = pst_pages_open(&pool->pages, pool->name, bytes, page, hugetlb);
	if (rc)
		return rc;
	bind_node(pool);
	rc = pst_pages_fill(&pool->pages, pool->node);
	if (!rc)
		return 0;
	pst_pages_close(&pool->pages);
	pool->note[0] = '\0';
	return rc;
}

static int try_hugetlb(struct pst_pool *pool, uint64_t bytes)
{
	static const uint64_t pages[] = {PST_PAGES_1G, PST_PAGES_2M};

	for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
		uint64_t need = (bytes + pages[i] - 1) / pages[i];

		/* Large pages for a pool that fills them, to an eighth. */
		if (pages[i] == PST_PAGES_1G && need * pages[i] - bytes > bytes / 8)
			continue;
		if (pst_admit_huge("", pool->node, pages[i]) >= need &&
		    !try_pages(pool, bytes, pages[i], 1))
			return 0;
	}
	return -ENOMEM;
}

static int fail_hugetlb(struct pst_pool *pool, uint64_t bytes, struct pst_error *err)
{
	unsigned long long need = (bytes + PST_PAGES_2M - 1) / PST_PAGES_2M;
	unsigned long long have = pst_admit_huge("", pool->node, PST_PAGES_2M);

	return pst_fail(
		err, -ENOMEM,
		"pool %s: needs %llu huge pages of 2 MiB on node %d, %llu are free; reserve "
		"them with: echo %llu > /proc/sys/vm/nr_hugepages, or for one node: "
		"/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/nr_hugepages",
		pool->name, need, pool->node, have, need, pool->node);
}

/* In a user namespace the capability shows and does not help, so the limit may still be it. */
static int fail_lock(struct pst_pool *pool, int rc, uint64_t bytes, uint64_t limit,
		     struct pst_error *err)
{
	char a[32], b[32];

	pst_admit_size(a, sizeof(a), bytes);
	pst_admit_size(b, sizeof(b), limit);
	if (limit == PST_ADMIT_UNLIMITED)
		return pst_fail(err, rc, "pool %s: cannot pin %s: mlock: %s", pool->name, a,
				strerror(-rc));
	return pst_fail(
		err, -EPERM,
		"pool %s: needs %s pinned, the limit (RLIMIT_MEMLOCK) is %s; raise it with: "
		"ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit, or \"* - memlock "
		"unlimited\" in /etc/security/limits.d",
		pool->name, a, b);
}

/* Filling hundreds of gigabytes takes minutes; that they may not be locked is known before. */
static int admit_lock(struct pst_pool *pool, uint64_t bytes, struct pst_error *err)
{
	uint64_t limit, room = pst_admit_lock("", &limit);

	if (!(pool->flags & PST_POOL_LOCK_MUST) || bytes <= room)
		return 0;
	return fail_lock(pool, -EPERM, bytes, limit, err);
}

static int lock_pages(struct pst_pool *pool, struct pst_error *err)
{
	uint64_t limit, bytes = pool->pages.bytes;
	char a[32], b[32];
	int rc = -EPERM;

	/* hugetlb pages are never swapped. */
	if (pool->pages.hugetlb)
		pool->locked = 1;
	if (pool->locked || !(pool->flags & (PST_POOL_LOCK | PST_POOL_LOCK_MUST)))
		return 0;
	/* Half a lock is worth nothing, so what cannot succeed is not tried. */
	if (bytes <= pst_admit_lock("", &limit))
		rc = mlock(pool->pages.base, bytes) ? -errno : 0;
	if (!rc) {
		pool->locked = 1;
		return 0;
	}
	if (pool->flags & PST_POOL_LOCK_MUST)
		return fail_lock(pool, rc, bytes, limit, err);
	if (limit == PST_ADMIT_UNLIMITED)
		note(pool, "not locked: mlock: %s", strerror(-rc));
	else
		note(pool,
		     "not locked: %s wanted, RLIMIT_MEMLOCK is %s (ulimit -l unlimited, or "
		     "LimitMEMLOCK=infinity in the unit)",
		     pst_admit_size(a, sizeof(a), bytes), pst_admit_size(b, sizeof(b), limit));
	return 0;
}

static int get_pages(struct pst_pool *pool, uint64_t bytes, struct pst_error *err)
{
	int must = pool->flags & PST_POOL_HUGE_MUST, huge = must || pool->flags & PST_POOL_HUGE;
	char a[32];
	int rc;

	if (huge && !try_hugetlb(pool, bytes))
		return 0;
	if (must)
		return fail_hugetlb(pool, bytes, err);
	rc = admit_memory(pool, bytes, err);
	if (!rc)
		rc = admit_lock(pool, bytes, err);
	if (rc)
		return rc;
	rc = try_pages(pool, bytes, huge && pst_pages_thp() ? PST_PAGES_2M : 4096, 0);
	if (rc)
		return pst_fail(err, rc == -ENOSPC || rc == -EFAULT ? -ENOMEM : rc,
				"pool %s: cannot get %s of memory: %s", pool->name,
				pst_admit_size(a, sizeof(a), bytes), strerror(-rc));
	return 0;
}

/* What should be huge and is not is known only after the pages are there. */
static void check_huge(struct pst_pool *pool)
{
	struct pst_pages *p = &pool->pages;
	unsigned long long need = (p->bytes + PST_PAGES_2M - 1) / PST_PAGES_2M;
	uint64_t huge = p->page > 4096 ? pst_pages_huge(p) : 0;
	char a[32], b[32];

	if (!(pool->flags & (PST_POOL_HUGE | PST_POOL_HUGE_MUST)) || huge >= p->bytes)
		return;
	p->page = 4096;
	if (huge)
		note(pool, "%s of %s in huge pages (echo %llu > /proc/sys/vm/nr_hugepages)",
		     pst_admit_size(a, sizeof(a), huge), pst_admit_size(b, sizeof(b), p->bytes),
		     need);
	else
		note(pool,
		     "4 KiB pages: no huge page is free (echo %llu > "
		     "/proc/sys/vm/nr_hugepages)",
		     need);
}

static int seal(struct pst_pool *pool, struct pst_error *err)
{
	int rc = pst_pages_seal(&pool->pages, (pool->flags & PST_POOL_READERS) != 0);

	if (rc)
		return pst_fail(
			err, rc,
			"pool %s: its memory cannot be sealed (%s); readers-only pools need "
			"Linux 5.1 or later",
			pool->name, strerror(-rc));
	return 0;
}

int pst_pool_create(const struct pst_pool_options *opts, struct pst_pool **out,
		    struct pst_error *err)
{
	struct pst_pool *pool;
	int rc;

	rc = check_options(opts, err);
	if (rc)
		return rc;
	pool = aligned_alloc(64, (sizeof(*pool) + 63) & ~63ul);
	if (!pool)
		return pst_fail(err, -ENOMEM, "pool %s: no memory for its book-keeping",
				opts->name);
	memset(pool, 0, sizeof(*pool));
	snprintf(pool->name, sizeof(pool->name), "%s", opts->name);
	pool->flags = opts->flags;
	rc = choose_node(pool, opts->node, err);
	if (rc)
		goto free_pool;
	rc = get_pages(pool, opts->bytes, err);
	if (rc)
		goto free_pool;
	check_huge(pool);
	rc = lock_pages(pool, err);
	if (rc)
		goto close_pages;
	rc = seal(pool, err);
	if (rc)
		goto close_pages;
	rc = pst_heap_init(&pool->heap, pool->pages.bytes / GRANULE);
	if (rc) {
		pst_fail(err, rc,
			 "pool %s: no address space for its book-keeping: ulimit -v "
			 "unlimited",
			 pool->name);
		goto close_pages;
	}
	pthread_mutex_init(&pool->lock, NULL);
	*out = pool;
	return 0;

close_pages:
	pst_pages_close(&pool->pages);
free_pool:
	free(pool);
	return rc;
}

void pst_pool_destroy(struct pst_pool *pool)
{
	if (!pool)
		return;
	pst_heap_fini(&pool->heap);
	pst_pages_close(&pool->pages);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void *pst_pool_alloc(struct pst_pool *pool, size_t bytes, size_t align)
{
	uint64_t n = (bytes + GRANULE - 1) / GRANULE, g;
	uint64_t to = align <= GRANULE ? 1 : align / GRANULE;

	/* 0 bytes, and a size so large that rounding it up wraps, both give n == 0. */
	if (__builtin_expect(!n || align & (align - 1) || align > pool->pages.align, 0)) {
		pst_heap_failed(&pool->heap);
		return NULL;
	}
	g = pst_heap_take(&pool->heap, n, to);
	return g == PST_TLSF_NONE ? NULL : (char *)pool->pages.base + g * GRANULE;
}

void pst_pool_free(struct pst_pool *pool, void *block)
{
	uint64_t offset = (uint64_t)((uintptr_t)block - (uintptr_t)pool->pages.base);

	if (!block)
		return;
	if (__builtin_expect(offset >= pool->pages.bytes || offset % GRANULE, 0)) {
		pst_heap_failed(&pool->heap);
		return;
	}
	pst_heap_give(&pool->heap, offset / GRANULE);
}

void pst_pool_trim(struct pst_pool *pool, int all)
{
	pst_heap_trim(&pool->heap, all != 0);
}

void *pst_pool_base(const struct pst_pool *pool)
{
	return pool->pages.base;
}

uint64_t pst_pool_bytes(const struct pst_pool *pool)
{
	return pool->pages.bytes;
}

int pst_pool_fd(const struct pst_pool *pool)
{
	return pool->pages.fd;
}

uint64_t pst_pool_offset(const struct pst_pool *pool, const void *block)
{
	return (uint64_t)((const char *)block - (const char *)pool->pages.base);
}

void *pst_pool_at(const struct pst_pool *pool, uint64_t offset)
{
	return (char *)pool->pages.base + offset;
}

long pst_pool_audit(struct pst_pool *pool, int repair, struct pst_error *err)
{
	struct pst_place_audit audit;
	int rc;

	rc = pst_place_audit(pool->pages.base, pool->pages.bytes, pool->pages.page, pool->node,
			     repair, &audit);
	pthread_mutex_lock(&pool->lock);
	if (!rc) {
		pool->audit = audit;
		if (audit.elsewhere && !strstr(pool->note, "another node"))
			note(pool, "pages are on another node: it is full (see numastat -m)");
	} else if (!strstr(pool->note, "move_pages")) {
		note(pool, "where its pages are is unknown: move_pages is denied (grant "
			   "CAP_SYS_NICE)");
	}
	pthread_mutex_unlock(&pool->lock);
	if (!rc)
		return (long)audit.elsewhere;
	return pst_fail(err, rc == -ENOSYS || rc == -EACCES ? -EPERM : rc,
			"pool %s: the kernel does not say where its pages are: move_pages: %s; "
			"grant CAP_SYS_NICE, or in a container: --cap-add SYS_NICE",
			pool->name, strerror(-rc));
}

void pst_pool_stat(struct pst_pool *pool, struct pst_pool_stat *out)
{
	struct pst_heap_stat h;

	pst_heap_stat(&pool->heap, &h);
	pthread_mutex_lock(&pool->lock);
	*out = (struct pst_pool_stat){
		.bytes = pool->pages.bytes,
		.used = h.used * GRANULE,
		.peak = h.peak * GRANULE,
		.cached = h.cached * GRANULE,
		.largest_free = h.largest * GRANULE,
		.blocks = h.allocs > h.frees ? h.allocs - h.frees : 0,
		.allocs = h.allocs,
		.frees = h.frees,
		.failures = h.failures,
		.page_bytes = pool->pages.page,
		.pages_checked = pool->audit.checked,
		.pages_elsewhere = pool->audit.elsewhere,
		.node = pool->node,
		.locked = pool->locked,
	};
	memcpy(out->note, pool->note, sizeof(out->note));
	pthread_mutex_unlock(&pool->lock);
}
