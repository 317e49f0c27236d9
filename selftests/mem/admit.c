/* SPDX-License-Identifier: Apache-2.0 */
/* What the machine says of its memory, read from a /proc and a /sys of our own. */
#include "runtime/mem/admit.h"
#include "runtime/mem/place.h"
#include "selftests/lib/test.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define GIB (1ull << 30)

static void put(const char *path, const char *text)
{
	char name[512], *slash;
	FILE *f;

	snprintf(name, sizeof(name), "%s%s", test_tmpdir(), path);
	for (slash = name + strlen(test_tmpdir()) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		mkdir(name, 0700);
		*slash = '/';
	}
	f = fopen(name, "w");
	ASSERT_NE(NULL, f);
	fputs(text, f);
	fclose(f);
}

TEST(sizes)
{
	char t[32];

	EXPECT_STREQ("0 bytes", pst_admit_size(t, sizeof(t), 0));
	EXPECT_STREQ("1000 bytes", pst_admit_size(t, sizeof(t), 1000));
	EXPECT_STREQ("8 MiB", pst_admit_size(t, sizeof(t), 8 << 20));
	EXPECT_STREQ("1.5 KiB", pst_admit_size(t, sizeof(t), 1536));
	EXPECT_STREQ("671 GiB", pst_admit_size(t, sizeof(t), 671 * GIB + 12345));
	EXPECT_STREQ("16 TiB", pst_admit_size(t, sizeof(t), 16 * 1024 * GIB));
}

/* An empty machine knows no limits, and has no huge pages. */
TEST(nothing_said)
{
	struct pst_node_mask mask;
	uint64_t limit = 1;

	EXPECT_EQ(PST_ADMIT_UNLIMITED, pst_admit_memory(test_tmpdir()));
	EXPECT_EQ(PST_ADMIT_UNLIMITED, pst_admit_node(test_tmpdir(), 0));
	EXPECT_EQ(PST_ADMIT_UNLIMITED, pst_admit_cgroup(test_tmpdir(), &limit));
	EXPECT_EQ(PST_ADMIT_UNLIMITED, limit);
	EXPECT_EQ(0u, pst_admit_huge(test_tmpdir(), -1, 2 << 20));
	pst_place_nodes(test_tmpdir(), &mask);
	EXPECT_EQ(1, pst_place_count(&mask));
	EXPECT_TRUE(pst_place_has(&mask, 0));
}

TEST(memory)
{
	put("/proc/meminfo", "MemTotal: 4194304 kB\nMemFree: 1 kB\nMemAvailable: 2097152 kB\n");
	put("/sys/devices/system/node/node1/meminfo",
	    "Node 1 MemTotal: 4194304 kB\nNode 1 MemFree: 1024 kB\n"
	    "Node 1 Active(file): 2048 kB\nNode 1 Inactive(file): 4096 kB\n");
	EXPECT_EQ(2 * GIB, pst_admit_memory(test_tmpdir()));
	EXPECT_EQ(7ull << 20, pst_admit_node(test_tmpdir(), 1));
}

TEST(huge)
{
	put("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "12\n");
	put("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "5\n");
	put("/sys/devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages", "2\n");
	EXPECT_EQ(12u, pst_admit_huge(test_tmpdir(), -1, 2 << 20));
	EXPECT_EQ(5u, pst_admit_huge(test_tmpdir(), 1, 2 << 20));
	EXPECT_EQ(2u, pst_admit_huge(test_tmpdir(), 1, GIB));
	EXPECT_EQ(0u, pst_admit_huge(test_tmpdir(), 0, 2 << 20));
}

/* The group itself has no limit, the one around it has; page cache can be dropped. */
TEST(cgroup_v2)
{
	uint64_t limit = 0;

	put("/proc/self/cgroup", "0::/kubepods/pod1/engine\n");
	put("/sys/fs/cgroup/kubepods/pod1/engine/memory.max", "max\n");
	put("/sys/fs/cgroup/kubepods/pod1/engine/memory.current", "1000\n");
	put("/sys/fs/cgroup/kubepods/pod1/memory.max", "4294967296\n");
	put("/sys/fs/cgroup/kubepods/pod1/memory.current", "3221225472\n");
	put("/sys/fs/cgroup/kubepods/pod1/memory.stat",
	    "anon 1073741824\ninactive_anon 7\ninactive_file 1073741824\n");
	put("/sys/fs/cgroup/kubepods/memory.max", "1099511627776\n");
	put("/sys/fs/cgroup/kubepods/memory.current", "0\n");
	EXPECT_EQ(2 * GIB, pst_admit_cgroup(test_tmpdir(), &limit));
	EXPECT_EQ(4 * GIB, limit);
}

/* Beside the v1 groups there is an empty v2 one. A container sees its group as the root. */
TEST(cgroup_v1)
{
	uint64_t limit = 0;

	put("/proc/self/cgroup", "5:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "3221225472\n");
	put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n");
	EXPECT_EQ(2 * GIB, pst_admit_cgroup(test_tmpdir(), &limit));
	EXPECT_EQ(3 * GIB, limit);

	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	EXPECT_EQ(PST_ADMIT_UNLIMITED, pst_admit_cgroup(test_tmpdir(), &limit));
	EXPECT_EQ(PST_ADMIT_UNLIMITED, limit);
}

TEST(cgroup_over_its_limit)
{
	uint64_t limit;

	put("/proc/self/cgroup", "0::/\n");
	put("/sys/fs/cgroup/memory.max", "1000\n");
	put("/sys/fs/cgroup/memory.current", "2000\n");
	EXPECT_EQ(0u, pst_admit_cgroup(test_tmpdir(), &limit));
}

/* VmLck counts against the limit; CAP_IPC_LOCK (bit 14) lifts it. */
TEST(lock)
{
	struct rlimit r = {.rlim_cur = 8 << 20, .rlim_max = 8 << 20};
	uint64_t limit;

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &r));
	put("/proc/self/status", "Name:\tx\nVmLck:\t    1024 kB\nCapEff:\t0000000000000000\n");
	EXPECT_EQ(7ull << 20, pst_admit_lock(test_tmpdir(), &limit));
	EXPECT_EQ(8ull << 20, limit);
	put("/proc/self/status", "Name:\tx\nVmLck:\t    9000 kB\nCapEff:\t0000000000000000\n");
	EXPECT_EQ(0u, pst_admit_lock(test_tmpdir(), &limit));
	put("/proc/self/status", "Name:\tx\nVmLck:\t    1024 kB\nCapEff:\t0000000000004000\n");
	EXPECT_EQ(PST_ADMIT_UNLIMITED, pst_admit_lock(test_tmpdir(), &limit));
	EXPECT_EQ(8ull << 20, limit);
}

TEST(node_lists)
{
	struct pst_node_mask m;

	EXPECT_EQ(0, pst_place_parse("0-2,8,10-11\n", &m));
	EXPECT_EQ(6, pst_place_count(&m));
	EXPECT_TRUE(pst_place_has(&m, 2) && pst_place_has(&m, 8) && pst_place_has(&m, 11));
	EXPECT_FALSE(pst_place_has(&m, 3) || pst_place_has(&m, 9) || pst_place_has(&m, -1) ||
		     pst_place_has(&m, PST_PLACE_NODES));
	EXPECT_EQ(0, pst_place_parse("\n", &m));
	EXPECT_EQ(0, pst_place_count(&m));
	EXPECT_EQ(-EINVAL, pst_place_parse("0-", &m));
	EXPECT_EQ(-EINVAL, pst_place_parse("3-1", &m));
	EXPECT_EQ(-EINVAL, pst_place_parse("a", &m));
	EXPECT_EQ(-EINVAL, pst_place_parse("1 2", &m));
	EXPECT_EQ(-EINVAL, pst_place_parse("1024", &m));
}

/* A node of CPUs only holds no pool. */
TEST(nodes_with_memory)
{
	struct pst_node_mask m;

	put("/sys/devices/system/node/online", "0-2\n");
	pst_place_nodes(test_tmpdir(), &m);
	EXPECT_EQ(3, pst_place_count(&m));
	put("/sys/devices/system/node/has_memory", "0,2\n");
	pst_place_nodes(test_tmpdir(), &m);
	EXPECT_EQ(2, pst_place_count(&m));
	EXPECT_FALSE(pst_place_has(&m, 1));
}

TEST_MAIN
