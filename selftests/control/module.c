/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only the module promises of memory: it is on its node to the page, stays there, and goes
 * with the last who has it. What both doors promise is in control/command.c.
 *
 * selftests/control/module.sh loads the module for it, in a guest.
 */
#include "selftests/control/mapped.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static uint64_t node_memory(int node, const char *which)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	return number_in(path, which);
}

/* Where each page is in physical memory. */
static void frames(const unsigned char *at, size_t bytes, uint64_t *out)
{
	const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	const size_t n = bytes / PAGE * sizeof(*out);

	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)n, pread(fd, out, n, (off_t)((uintptr_t)at / PAGE * sizeof(*out))));
	close(fd);
	for (size_t i = 0; i < bytes / PAGE; i++) {
		ASSERT_TRUE(out[i] >> 63);
		out[i] &= (1ull << 55) - 1;
		ASSERT_NE(0u, out[i]);
	}
}

/* Pages that the kernel says are on another node than @node, or are not there. */
static size_t elsewhere(unsigned char *at, size_t bytes, int node)
{
	size_t wrong = 0;

	for (size_t i = 0; i < bytes; i += PAGE) {
		void *page = at + i;
		int status = -1;

		ASSERT_EQ(0, (int)syscall(SYS_move_pages, 0, 1, &page, NULL, &status, 0));
		wrong += status != node;
	}
	return wrong;
}

FIXTURE(module)
{
	int fd;
};
FIXTURE_SETUP(module)
{
	self->fd = door_open(O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_TRUE(becomes(self->fd, 0));
}
FIXTURE_TEARDOWN(module)
{
	close(self->fd);
}

FIXTURE(node)
{
	int fd;
};
FIXTURE_VARIANT(node)
{
	int node;
};
FIXTURE_VARIANT_ADD(node, 0){.node = 0};
FIXTURE_VARIANT_ADD(node, 1){.node = 1};
FIXTURE_SETUP(node)
{
	self->fd = door_open(O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_TRUE(becomes(self->fd, 0));
}
FIXTURE_TEARDOWN(node)
{
	close(self->fd);
}

TEST_F(node, to_the_page)
{
	enum { BYTES = 16 * MIB };
	const struct mapped m = map_new(self->fd, "exact", BYTES, variant->node);
	const struct pst_cmd_pool_stat s = stat_of(self->fd, m.pool.out_id);

	EXPECT_EQ(variant->node, m.pool.out_node);
	EXPECT_EQ(HUGE, m.pool.out_page_bytes);
	EXPECT_EQ(8u, s.out_pages);
	EXPECT_EQ(0u, s.out_pages_elsewhere);
	EXPECT_EQ(PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK, (int)s.out_flags);
	pattern(m.at, BYTES);
	EXPECT_EQ(0u, elsewhere(m.at, BYTES, variant->node));
	EXPECT_EQ(BYTES / PAGE, elsewhere(m.at, BYTES, !variant->node));
}

/* Small pages too, and where the caller runs when no node is said. */
TEST_F(node, small)
{
	struct pst_cmd_pool_create pool;
	unsigned cpu, node;
	int fd;

	ASSERT_EQ(0, create(self->fd, "small", 5 * PAGE + 1, variant->node, 0, &pool));
	EXPECT_EQ(6 * PAGE, pool.out_bytes);
	EXPECT_EQ(PAGE, pool.out_page_bytes);
	fd = export_pool(self->fd, pool.out_id, 0);
	unsigned char *at = mmap(NULL, 6 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	ASSERT_TRUE(at != MAP_FAILED);
	pattern(at, 6 * PAGE);
	EXPECT_EQ(0u, elsewhere(at, 6 * PAGE, variant->node));
	EXPECT_TRUE(has_pattern(at, 6 * PAGE));

	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(variant->node, &one);
	ASSERT_EQ(0, sched_setaffinity(0, sizeof(one), &one));
	ASSERT_EQ(0, (int)syscall(SYS_getcpu, &cpu, &node, NULL));
	ASSERT_EQ(variant->node, (int)node);
	ASSERT_EQ(0, create(self->fd, "here", PAGE, PST_ANY, 0, &pool));
	EXPECT_EQ(variant->node, pool.out_node);
}

/*
 * All memory is wanted, in huge pages, for which the kernel moves what it may move; and there is an
 * order to move ours. As huge pages that nobody has mapped it need not be cleared, which takes an
 * emulated machine a minute when others are at work.
 */
TEST_F(node, stays_in_place)
{
	enum { BYTES = 32 * MIB };
	static const char wanted[] = "/proc/sys/vm/nr_hugepages";
	static uint64_t before[BYTES / PAGE], after[BYTES / PAGE];
	const struct mapped m = map_new(self->fd, "stays", BYTES, variant->node);
	const unsigned long there = 1ul << variant->node, other = 1ul << !variant->node;
	const uint64_t had = number_in("/proc/meminfo", "HugePages_Total");
	char number[24];

	pattern(m.at, BYTES);
	frames(m.at, BYTES, before);
	write_file(wanted, "1000000");
	EXPECT_LT(number_in("/proc/meminfo", "MemTotal") / 2,
		  number_in("/proc/meminfo", "HugePages_Total") * HUGE);
	(void)syscall(SYS_migrate_pages, 0, 8, &there, &other);
	EXPECT_NE(0, (int)syscall(SYS_mbind, m.at, BYTES, MPOL_BIND, &other, 8,
				  MPOL_MF_STRICT | MPOL_MF_MOVE_ALL));
	snprintf(number, sizeof(number), "%llu", (unsigned long long)had);
	write_file(wanted, number);
	write_file("/proc/sys/vm/drop_caches", "3");
	write_file("/proc/sys/vm/compact_memory", "1");
	(void)syscall(SYS_migrate_pages, 0, 8, &there, &other);
	EXPECT_NE(0, madvise(m.at, BYTES, MADV_REMOVE));
	(void)madvise(m.at, BYTES, MADV_PAGEOUT);
	(void)madvise(m.at, BYTES, MADV_DONTNEED);
	EXPECT_TRUE(has_pattern(m.at, BYTES));
	frames(m.at, BYTES, after);
	EXPECT_EQ(0, memcmp(before, after, sizeof(before)));
}

TEST_F(node, more_than_there_is)
{
	struct pst_cmd_pool_create pool;

	EXPECT_EQ(-ENOMEM, create(self->fd, "big", 1ull << 40, variant->node, 0, &pool));
	EXPECT_EQ(-ENOMEM, create(self->fd, "big", ~0ull, variant->node, 0, &pool));
	EXPECT_EQ(0u, info(self->fd).out_pool_bytes);
	EXPECT_EQ(0u, info(self->fd).out_quota_used);
	/* Some of the node is in use; the other node is not taken for it. */
	EXPECT_EQ(-ENOMEM, create(self->fd, "big", node_memory(variant->node, "MemTotal"),
				  variant->node, 0, &pool));
	EXPECT_EQ(0, create(self->fd, "big", HUGE, variant->node, 0, &pool));
}

TEST_F(node, freed_on_crash)
{
	enum { BYTES = 128 * MIB };
	const uint64_t before = node_memory(variant->node, "MemFree");
	int ready[2];
	pid_t holder;
	char c;

	ASSERT_EQ(0, pipe2(ready, O_CLOEXEC));
	holder = child();
	if (!holder) {
		const struct mapped m = map_new(door_open(O_RDWR), "crash", BYTES, variant->node);

		pattern(m.at, BYTES);
		ASSERT_EQ(1, write(ready[1], "", 1));
		pause();
	}
	close(ready[1]);
	ASSERT_EQ(1, read(ready[0], &c, 1));
	EXPECT_EQ((uint64_t)BYTES, info(self->fd).out_pool_bytes);
	EXPECT_LT(node_memory(variant->node, "MemFree"), before - BYTES / 2);
	kill(holder, SIGKILL);
	EXPECT_EQ(SIGKILL, ended(holder));
	EXPECT_TRUE(becomes(self->fd, 0));
	EXPECT_GT(node_memory(variant->node, "MemFree"), before - BYTES / 2);
}

TEST_F(module, what_it_is)
{
	const struct pst_cmd_info i = info(self->fd);

	EXPECT_EQ(PST_FEATURE_EXACT_NODE | PST_FEATURE_DMABUF, (int)i.out_features);
	EXPECT_EQ(0x3fu, i.out_commands);
	EXPECT_EQ(2u, i.out_nodes);
	EXPECT_EQ(0u, i.out_pid);
	EXPECT_EQ(1u, i.out_may_change);
	EXPECT_EQ(~0ull, i.out_quota_bytes);
	EXPECT_STREQ("0.1.0", (const char *)i.out_version);
}

/* A huge block is one entry of the page tables, and may be cut into small ones. */
TEST_F(module, mapped_huge)
{
	enum { BYTES = 8 * MIB };
	const struct mapped m = map_new(self->fd, "huge", BYTES, 0);

	pattern(m.at, BYTES);
	EXPECT_EQ((uint64_t)BYTES, number_in("/proc/self/smaps_rollup", "FilePmdMapped"));
	ASSERT_EQ(0, munmap(m.at + PAGE, PAGE));
	EXPECT_EQ(BYTES - HUGE, number_in("/proc/self/smaps_rollup", "FilePmdMapped"));
	EXPECT_EQ(0, mprotect(m.at + HUGE + PAGE, PAGE, PROT_READ));
	EXPECT_EQ(~0ull, *(uint64_t *)m.at);
	EXPECT_TRUE(has_pattern(m.at + BYTES, 0));
	EXPECT_EQ(~(uint64_t)(HUGE + PAGE), *(uint64_t *)(m.at + HUGE + PAGE));
	EXPECT_EQ(0, mlock(m.at + HUGE, HUGE));
}

TEST_F(module, zeros)
{
	enum { BYTES = 4 * MIB };
	struct mapped m = map_new(self->fd, "zeros", BYTES, 0);
	uint64_t sum = 0;

	memset(m.at, 0xff, BYTES);
	munmap(m.at, BYTES);
	close(m.fd);
	ASSERT_EQ(0, destroy(self->fd, m.pool.out_id));
	m = map_new(self->fd, "zeros", BYTES, 0);
	for (size_t i = 0; i < BYTES; i++)
		sum += m.at[i];
	EXPECT_EQ(0u, sum);
}

/* Mappings and descriptors hold the memory, the pool's own end does not take it. */
TEST_F(module, last_holder)
{
	enum { BYTES = 4 * MIB };
	const struct mapped m = map_new(self->fd, "held", BYTES, 0);
	struct pst_cmd_pool_create again;
	const int other = door_open(O_RDWR);

	pattern(m.at, BYTES);
	EXPECT_EQ(-EEXIST, create(other, "held", HUGE, 0, 0, &again));
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(-ENOENT, destroy(other, m.pool.out_id));
	EXPECT_EQ((uint64_t)BYTES, info(other).out_pool_bytes);
	EXPECT_EQ((uint64_t)BYTES, info(other).out_quota_used);
	EXPECT_EQ(0, create(other, "held", HUGE, 0, 0, &again));
	EXPECT_LT(m.pool.out_id, again.out_id);
	EXPECT_TRUE(has_pattern(m.at, BYTES));
	close(m.fd);
	EXPECT_TRUE(has_pattern(m.at, BYTES));
	munmap(m.at, BYTES);
	EXPECT_TRUE(becomes(other, HUGE));
}

/* A process that got the descriptor keeps the memory of one that was killed. */
TEST_F(module, outlives_its_maker)
{
	struct pst_cmd_pool_stat s;
	int ends[2], shared, at[2];
	pid_t maker;

	ASSERT_EQ(0, pipe2(ends, O_CLOEXEC));
	maker = child();
	if (!maker) {
		/* Through the parent's own door: the pool is not the maker's to take along. */
		const struct mapped m = map_new(self->fd, "orphan", HUGE, 1);

		pattern(m.at, HUGE);
		at[0] = m.fd;
		at[1] = (int)m.pool.out_id;
		ASSERT_EQ((ssize_t)sizeof(at), write(ends[1], at, sizeof(at)));
		pause();
	}
	ASSERT_EQ((ssize_t)sizeof(at), read(ends[0], at, sizeof(at)));
	s = stat_of(self->fd, (uint32_t)at[1]);
	EXPECT_EQ(maker, (pid_t)s.out_pid);
	EXPECT_EQ(1u, s.out_maps);
	shared = (int)syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, maker, 0), at[0], 0);
	ASSERT_LE(0, shared);
	kill(maker, SIGKILL);
	ended(maker);
	EXPECT_EQ(0u, stat_of(self->fd, (uint32_t)at[1]).out_pid);
	EXPECT_TRUE(has_pattern(map_at(shared, HUGE, PROT_READ), HUGE));
}

TEST_F(module, only_shared_and_whole)
{
	const struct mapped m = map_new(self->fd, "whole", HUGE, 0);

	EXPECT_TRUE(mmap(NULL, HUGE, PROT_READ, MAP_PRIVATE, m.fd, 0) == MAP_FAILED);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(mmap(NULL, HUGE + PAGE, PROT_READ, MAP_SHARED, m.fd, 0) == MAP_FAILED);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, m.fd, HUGE) == MAP_FAILED);
	EXPECT_EQ(EINVAL, errno);
	EXPECT_TRUE(mremap(m.at, HUGE, 2 * HUGE, MREMAP_MAYMOVE) == MAP_FAILED);
	EXPECT_EQ((off_t)HUGE, lseek(m.fd, 0, SEEK_END));
	/* A part of it, from the middle. */
	unsigned char *at = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, m.fd, 7 * PAGE);

	pattern(m.at, HUGE);
	EXPECT_EQ(~(uint64_t)(7 * PAGE), *(uint64_t *)at);
}

TEST_F(module, is_not_unloaded_in_use)
{
	const struct mapped m = map_new(self->fd, "in use", HUGE, 0);

	close(self->fd);
	self->fd = -1;
	EXPECT_NE(0, (int)syscall(SYS_delete_module, "penstock", O_NONBLOCK));
	close(m.fd);
	EXPECT_NE(0, (int)syscall(SYS_delete_module, "penstock", O_NONBLOCK));
	EXPECT_EQ(0u, *(uint64_t *)m.at);
}

TEST_MAIN
