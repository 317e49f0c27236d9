/* SPDX-License-Identifier: Apache-2.0 */
/* Pools and the server's shards on a machine of two nodes: where their pages really are. */
#include "runtime/io/dtype.h"
#include "runtime/mem/place.h"
#include "runtime/mem/pool.h"
#include "runtime/store/shard.h"
#include "selftests/lib/test.h"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>

#define PAGE	  ((size_t)4096)
#define HUGE_PAGE ((size_t)2 << 20)
#define BYTES	  ((size_t)8 << 20)

FIXTURE(node)
{
	int mine, other;
};

FIXTURE_VARIANT(node)
{
	int mine;
};

FIXTURE_VARIANT_ADD(node, first){0};
FIXTURE_VARIANT_ADD(node, second){1};

static void run_on(int node)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(node, &cpus); /* one processor per node */
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(cpus), &cpus));
	ASSERT_EQ(node, pst_place_here());
}

/* The caller runs on the wrong node, so that no page is on the right one by chance. */
FIXTURE_SETUP(node)
{
	self->mine = variant->mine;
	self->other = !variant->mine;
	run_on(self->other);
}

FIXTURE_TEARDOWN(node)
{
}

static int create(uint64_t bytes, int node, uint32_t flags, struct pst_pool **out,
		  struct pst_error *err)
{
	const struct pst_pool_options o = {
		.size = sizeof(o), .name = "experts", .bytes = bytes, .node = node, .flags = flags};

	memset(err, 0, sizeof(*err));
	return pst_pool_create(&o, out, err);
}

static struct pst_pool *pool_on(int node, uint64_t bytes, uint32_t flags)
{
	struct pst_pool *pool = NULL;
	struct pst_error err;

	ASSERT_OK(create(bytes, node, flags, &pool, &err), &err);
	return pool;
}

static struct pst_pool_stat stat_of(struct pst_pool *pool)
{
	struct pst_pool_stat s;

	pst_pool_stat(pool, &s);
	return s;
}

/* The kernel's word, asked past the library: how many of these pages are on @node. */
static size_t on_node(void *base, size_t bytes, size_t page, int node)
{
	size_t n = 0;

	for (size_t at = 0; at < bytes; at += page) {
		void *where = (char *)base + at;
		int status = -1;

		ASSERT_EQ(0, syscall(SYS_move_pages, 0, 1ul, &where, NULL, &status, 0));
		n += status == node;
	}
	return n;
}

/* What an administrator's migratepages does to a page. */
static void put_on(void *base, size_t bytes, size_t page, int node)
{
	for (size_t at = 0; at < bytes; at += page) {
		void *where = (char *)base + at;
		int status = -1;

		ASSERT_EQ(0, syscall(SYS_move_pages, 0, 1ul, &where, &node, &status,
				     MPOL_MF_MOVE_ALL));
		ASSERT_EQ(node, status);
	}
}

static uint64_t number_at(size_t at)
{
	return at * 0x9e3779b97f4a7c15ull + 1;
}

static void fill(struct pst_pool *pool)
{
	uint64_t *word = pst_pool_base(pool);

	for (size_t i = 0; i < pst_pool_bytes(pool) / PAGE; i++)
		word[i * PAGE / 8] = number_at(i);
}

static bool filled(struct pst_pool *pool)
{
	const uint64_t *word = pst_pool_base(pool);

	for (size_t i = 0; i < pst_pool_bytes(pool) / PAGE; i++)
		if (word[i * PAGE / 8] != number_at(i))
			return false;
	return true;
}

TEST(two_nodes_have_memory)
{
	struct pst_node_mask mask;

	pst_place_nodes("", &mask);
	EXPECT_EQ(2, pst_place_count(&mask));
	EXPECT_TRUE(pst_place_has(&mask, 0));
	EXPECT_TRUE(pst_place_has(&mask, 1));
}

TEST(a_node_that_is_not_there)
{
	struct pst_pool *pool = NULL;
	struct pst_error err;

	EXPECT_EQ(-EINVAL, create(BYTES, 2, 0, &pool, &err));
	EXPECT_TRUE(strstr(err.text, "node 2"));
}

TEST_F(node, pages_are_where_they_were_asked_for)
{
	struct pst_pool *pool = pool_on(self->mine, BYTES, 0);
	struct pst_error err = {0};

	EXPECT_EQ(BYTES / PAGE, on_node(pst_pool_base(pool), BYTES, PAGE, self->mine));
	EXPECT_EQ(0, pst_pool_audit(pool, 0, &err));
	EXPECT_EQ(BYTES / PAGE, stat_of(pool).pages_checked);
	EXPECT_EQ(self->mine, stat_of(pool).node);
	EXPECT_STREQ("", stat_of(pool).note);
	pst_pool_destroy(pool);
}

TEST_F(node, any_node_is_the_callers)
{
	struct pst_pool *pool;

	run_on(self->mine);
	pool = pool_on(PST_NODE_ANY, BYTES, 0);
	EXPECT_EQ(self->mine, stat_of(pool).node);
	EXPECT_EQ(BYTES / PAGE, on_node(pst_pool_base(pool), BYTES, PAGE, self->mine));
	pst_pool_destroy(pool);
}

/* Found when asked, not touched without leave, moved back with it; the content stays. */
TEST_F(node, pages_elsewhere_are_found_and_moved_back)
{
	struct pst_pool *pool = pool_on(self->mine, BYTES, 0);
	char *base = pst_pool_base(pool);
	struct pst_error err = {0};

	fill(pool);
	put_on(base + PAGE, 3 * PAGE, PAGE, self->other);
	put_on(base + BYTES - PAGE, PAGE, PAGE, self->other);
	EXPECT_EQ(4, pst_pool_audit(pool, 0, &err));
	EXPECT_EQ(4u, stat_of(pool).pages_elsewhere);
	EXPECT_TRUE(strstr(stat_of(pool).note, "another node"));
	EXPECT_EQ(4u, on_node(base, BYTES, PAGE, self->other));
	EXPECT_EQ(0, pst_pool_audit(pool, 1, &err));
	EXPECT_EQ(0u, stat_of(pool).pages_elsewhere);
	EXPECT_EQ(BYTES / PAGE, on_node(base, BYTES, PAGE, self->mine));
	EXPECT_TRUE(filled(pool));
	pst_pool_destroy(pool);
}

TEST_F(node, all_pages_elsewhere)
{
	struct pst_pool *pool = pool_on(self->mine, BYTES, PST_POOL_LOCK_MUST);
	struct pst_error err = {0};

	fill(pool);
	put_on(pst_pool_base(pool), BYTES, PAGE, self->other);
	EXPECT_EQ((long)(BYTES / PAGE), pst_pool_audit(pool, 0, &err));
	EXPECT_EQ(0, pst_pool_audit(pool, 1, &err));
	EXPECT_EQ(BYTES / PAGE, on_node(pst_pool_base(pool), BYTES, PAGE, self->mine));
	EXPECT_TRUE(filled(pool));
	pst_pool_destroy(pool);
}

static long free_huge(int node)
{
	char path[128];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path),
		 "/sys/devices/system/node/node%d/hugepages/hugepages-2048kB/free_hugepages", node);
	f = fopen(path, "re");
	ASSERT_NE(NULL, f);
	ASSERT_EQ(1, fscanf(f, "%ld", &n));
	fclose(f);
	return n;
}

TEST_F(node, huge_pages_of_the_node)
{
	const long mine = free_huge(self->mine), other = free_huge(self->other);
	struct pst_pool *pool = pool_on(self->mine, BYTES, PST_POOL_HUGE);
	struct pst_error err = {0};

	EXPECT_EQ(HUGE_PAGE, stat_of(pool).page_bytes);
	EXPECT_EQ(mine - (long)(BYTES / HUGE_PAGE), free_huge(self->mine));
	EXPECT_EQ(other, free_huge(self->other));
	EXPECT_EQ(BYTES / HUGE_PAGE, on_node(pst_pool_base(pool), BYTES, HUGE_PAGE, self->mine));
	EXPECT_EQ(0, pst_pool_audit(pool, 0, &err));
	EXPECT_EQ(BYTES / HUGE_PAGE, stat_of(pool).pages_checked);
	EXPECT_EQ(1, stat_of(pool).locked);
	EXPECT_STREQ("", stat_of(pool).note);
	pst_pool_destroy(pool);
	EXPECT_EQ(mine, free_huge(self->mine));
}

TEST_F(node, huge_pages_elsewhere_are_moved_back)
{
	struct pst_pool *pool = pool_on(self->mine, BYTES, PST_POOL_HUGE_MUST);
	char *base = pst_pool_base(pool);
	struct pst_error err = {0};

	fill(pool);
	put_on(base + HUGE_PAGE, HUGE_PAGE, HUGE_PAGE, self->other);
	EXPECT_EQ(1, pst_pool_audit(pool, 0, &err));
	EXPECT_EQ(0, pst_pool_audit(pool, 1, &err));
	EXPECT_EQ(BYTES / HUGE_PAGE, on_node(base, BYTES, HUGE_PAGE, self->mine));
	EXPECT_TRUE(filled(pool));
	pst_pool_destroy(pool);
}

/* The other node's huge pages would be enough; they are not taken. */
TEST_F(node, more_huge_pages_than_the_node_has)
{
	const uint64_t bytes = (uint64_t)(free_huge(self->mine) + 1) * HUGE_PAGE;
	const long other = free_huge(self->other);
	struct pst_pool *pool = NULL;
	struct pst_error err;

	ASSERT_LE(bytes / HUGE_PAGE, (uint64_t)(free_huge(self->mine) + other));
	EXPECT_EQ(-ENOMEM, create(bytes, self->mine, PST_POOL_HUGE_MUST, &pool, &err));
	EXPECT_TRUE(strstr(err.text, "nr_hugepages"));
	pool = pool_on(self->mine, bytes, PST_POOL_HUGE);
	EXPECT_EQ(PAGE, stat_of(pool).page_bytes);
	EXPECT_TRUE(strstr(stat_of(pool).note, "nr_hugepages"));
	EXPECT_EQ(other, free_huge(self->other));
	EXPECT_EQ(bytes / PAGE, on_node(pst_pool_base(pool), bytes, PAGE, self->mine));
	pst_pool_destroy(pool);
}

/* What a server makes: masters and a snapshot, both on its node. */
TEST_F(node, a_shard_of_a_server)
{
	const struct pst_wire_tensor tensor = {
		.name = "lm_head.weight", .dtype = PST_F32, .ndim = 2, .shape = {512, 300}};
	struct pst_shard_options o = {
		.size = sizeof(o), .tensors = &tensor, .count = 1, .shards = 1, .node = self->mine};
	struct pst_error err = {0};
	struct pst_shard *shard;

	ASSERT_OK(pst_device_open_cpu(-1, 1, &o.device, &err), &err);
	ASSERT_OK(pst_shard_create(&o, &shard, &err), &err);
	struct pst_pool *const pool[] = {pst_shard_masters(shard), pst_shard_snapshot(shard)};

	for (int i = 0; i < 2; i++) {
		const struct pst_pool_stat s = stat_of(pool[i]);

		EXPECT_EQ(s.bytes / s.page_bytes, s.pages_checked);
		EXPECT_EQ(0u, s.pages_elsewhere);
		EXPECT_EQ(s.bytes / PAGE,
			  on_node(pst_pool_base(pool[i]), s.bytes, PAGE, self->mine));
	}
	pst_shard_destroy(shard);
	pst_device_close(o.device);
}

TEST_MAIN
