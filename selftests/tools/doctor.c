/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-perf doctor over machines that are made up: each check once content, once not. */
#include "rdma/fabric.h"
#include "selftests/lib/test.h"
#include "tools/perf/doctor.h"
#include "tools/perf/perf.h"

#include <fcntl.h>
#include <sys/stat.h>

#define PROC "/proc/sys/"
#define NODE "/sys/devices/system/node/"
#define IB   "/sys/class/infiniband/"
#define PCI  "/sys/bus/pci/devices/"
#define NIC  "0000:3b:00.0"
#define GPU  "0000:af:00.0"

#define EMPTY_GID "0000:0000:0000:0000:0000:0000:0000:0000\n"

static int uring, synced = 1, openable;

static int fake_uring(void)
{
	return uring;
}

static int fake_synced(void)
{
	return synced;
}

static int fake_open(const char *path)
{
	return access(path, F_OK) ? -ENOENT : openable;
}

static const struct doctor_live live = {fake_uring, fake_synced, fake_open};

FIXTURE(tree)
{
	struct doctor d;
};

FIXTURE_SETUP(tree)
{
	self->d =
		(struct doctor){.root = test_tmpdir(), .key = "", .live = &live, .timeout_ms = 500};
}

FIXTURE_TEARDOWN(tree)
{
	doctor_free(&self->d);
}

static void make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(path, 0755);
		*slash = '/';
	}
}

static void put_bytes(const char *file, const void *bytes, size_t len)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s%s", test_tmpdir(), file);
	make_parents(path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	ASSERT_LE(0, fd);
	ASSERT_EQ((ssize_t)len, write(fd, bytes, len));
	close(fd);
}

static void put(const char *file, const char *text)
{
	put_bytes(file, text, strlen(text));
}

static void put_link(const char *file, const char *target)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", test_tmpdir(), file);
	make_parents(path);
	ASSERT_EQ(0, symlink(target, path));
}

static void drop(const char *file)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s%s", test_tmpdir(), file);
	ASSERT_EQ(0, unlink(path));
}

static const struct doctor_line *line(const struct doctor *d, const char *check)
{
	for (size_t i = 0; i < d->nlines; i++)
		if (!strcmp(d->line[i].check, check))
			return &d->line[i];
	return NULL;
}

/* The line of @check is in @state and says @found; whoever costs says what, and what mends it. */
static void expect(const struct doctor *d, const char *check, enum doctor_state state,
		   const char *found, const char *mend)
{
	const struct doctor_line *l = line(d, check);

	if (!l || l->state != state || !strstr(l->found, found) || !strstr(l->mend, mend) ||
	    (state == DOCTOR_COSTS && !l->cost[0]) ||
	    (state != DOCTOR_UNKNOWN && !l->mend[0] != (state == DOCTOR_OK))) {
		printf("# expected of \"%s\": %d, %s, %s\n", check, state, found, mend);
		doctor_print(d, stdout);
		test_failed = true;
	}
}

#define OK(check, found)	  expect(&self->d, check, DOCTOR_OK, found, "")
#define COSTS(check, found, mend) expect(&self->d, check, DOCTOR_COSTS, found, mend)
#define UNKNOWN(check)		  expect(&self->d, check, DOCTOR_UNKNOWN, "", "")

static void look(struct doctor *d, void (*check)(struct doctor *d))
{
	doctor_free(d);
	check(d);
	EXPECT_FALSE(d->failed);
}

TEST_F(tree, no_machine_at_all)
{
	look(&self->d, doctor_machine);
	ASSERT_LT(10u, self->d.nlines);
	for (size_t i = 0; i < self->d.nlines; i++)
		EXPECT_TRUE(self->d.line[i].found[0]);
	COSTS("RDMA", "no device", "rxe0");
	UNKNOWN("memlock");
	UNKNOWN("huge pages");
	UNKNOWN("transparent huge pages");
	UNKNOWN("transparent huge pages of memfds");
	UNKNOWN("NUMA");
	OK("NUMA balancing", "none");
	UNKNOWN("swap");
	UNKNOWN("cgroup");
	UNKNOWN("clock source");
	OK("CPU frequency", "not this kernel's");
	UNKNOWN("TCP tcp_rmem");
	UNKNOWN("TCP tcp_wmem");
}

static void limits(const char *memlock)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "Limit                     Soft Limit           Hard Limit           Units     \n"
		 "Max processes             96365                96365                processes \n"
		 "Max locked memory         %-20s unlimited            bytes     \n"
		 "Max file locks            unlimited            unlimited            locks     \n",
		 memlock);
	put("/proc/self/limits", text);
}

TEST_F(tree, memlock)
{
	put("/proc/self/status",
	    "Name:\tx\nCapInh:\tffffffffffffffff\nCapEff:\t0000000000000000\n");
	limits("unlimited");
	look(&self->d, doctor_memlock);
	OK("memlock", "unlimited");
	limits("8388608");
	look(&self->d, doctor_memlock);
	COSTS("memlock", "8 MiB", "limits.conf");
	/* CAP_IPC_LOCK alone, and all but that */
	put("/proc/self/status", "Name:\tx\nCapEff:\t0000000000004000\n");
	look(&self->d, doctor_memlock);
	OK("memlock", "CAP_IPC_LOCK");
	put("/proc/self/status", "Name:\tx\nCapEff:\tffffffffffffbfff\n");
	look(&self->d, doctor_memlock);
	COSTS("memlock", "8 MiB", "");
}

static void node(int n, const char *file, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), NODE "node%d/%s", n, file);
	put(path, text);
}

static void two_nodes(void)
{
	node(0, "meminfo", "Node 0 MemTotal:       8388608 kB\nNode 0 MemFree:  1048576 kB\n");
	node(0, "cpulist", "0-3");
	node(0, "distance", "10 21");
	node(1, "meminfo", "Node 1 MemTotal:       8388608 kB\nNode 1 MemFree:  2097152 kB\n");
	node(1, "cpulist", "4-7");
	node(1, "distance", "21 10");
	put(NODE "online", "0-1");
}

TEST_F(tree, huge_pages)
{
	two_nodes();
	node(0, "hugepages/hugepages-2048kB/nr_hugepages", "512\n");
	node(0, "hugepages/hugepages-2048kB/free_hugepages", "256\n");
	node(0, "hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
	node(0, "hugepages/hugepages-1048576kB/free_hugepages", "0\n");
	node(1, "hugepages/hugepages-2048kB/nr_hugepages", "0\n");
	node(1, "hugepages/hugepages-2048kB/free_hugepages", "0\n");
	look(&self->d, doctor_huge);
	OK("huge pages node0", "1 GiB of 2 MiB pages, 512 MiB free");
	COSTS("huge pages node1", "none reserved", "node1/hugepages/hugepages-2048kB/nr_hugepages");
	EXPECT_EQ(2u, self->d.nlines);
	node(0, "hugepages/hugepages-2048kB/free_hugepages", "0\n");
	node(1, "hugepages/hugepages-1048576kB/nr_hugepages", "2\n");
	node(1, "hugepages/hugepages-1048576kB/free_hugepages", "1\n");
	look(&self->d, doctor_huge);
	COSTS("huge pages node0", "none free", "echo 1024 >" NODE "node0");
	OK("huge pages node1", "2 GiB of 1 GiB pages, 1 GiB free");
	/* a node with CPUs only has nothing to reserve */
	node(1, "hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
	node(1, "meminfo", "Node 1 MemTotal:       0 kB\n");
	look(&self->d, doctor_huge);
	EXPECT_EQ(1u, self->d.nlines);
}

TEST_F(tree, transparent_huge_pages)
{
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
	put("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
	    "always within_size [advise] never deny force\n");
	look(&self->d, doctor_thp);
	OK("transparent huge pages", "madvise");
	OK("transparent huge pages of memfds", "advise");
	put("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
	put("/sys/kernel/mm/transparent_hugepage/shmem_enabled",
	    "always within_size advise never [deny] force\n");
	look(&self->d, doctor_thp);
	COSTS("transparent huge pages", "never", "echo madvise >");
	COSTS("transparent huge pages of memfds", "deny", "echo advise >");
}

TEST_F(tree, numa)
{
	two_nodes();
	look(&self->d, doctor_numa);
	OK("NUMA node0", "8 GiB, 1 GiB free, CPUs 0-3, distances 10 21");
	OK("NUMA node1", "8 GiB, 2 GiB free, CPUs 4-7, distances 21 10");
	node(1, "meminfo", "Node 1 MemTotal:       0 kB\n");
	look(&self->d, doctor_numa);
	COSTS("NUMA node1", "CPUs 4-7 and no memory", "memory modules");
	/* a node that is empty altogether waits for its memory to be plugged in */
	node(1, "cpulist", "\n");
	look(&self->d, doctor_numa);
	OK("NUMA node1", "0 B");
	/* the other way about it is memory without CPUs, which is fine */
	node(0, "cpulist", "\n");
	look(&self->d, doctor_numa);
	OK("NUMA node0", "CPUs none");
}

TEST_F(tree, numa_balancing)
{
	node(0, "cpulist", "0-3");
	put(PROC "kernel/numa_balancing", "1\n");
	look(&self->d, doctor_balancing);
	OK("NUMA balancing", "with one node");
	two_nodes();
	put(PROC "kernel/numa_balancing", "0\n");
	look(&self->d, doctor_balancing);
	OK("NUMA balancing", "off");
	put(PROC "kernel/numa_balancing", "1\n");
	look(&self->d, doctor_balancing);
	COSTS("NUMA balancing", "on", "sysctl -w kernel.numa_balancing=0");
}

TEST_F(tree, swap)
{
	put("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	look(&self->d, doctor_swap);
	OK("swap", "none");
	put("/proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
			   "/dev/sda2 partition\t1048576\t0\t-2\n/swap file\t1048576\t12\t-3\n");
	look(&self->d, doctor_swap);
	COSTS("swap", "2 GiB", "swapoff");
}

TEST_F(tree, cgroup_v2)
{
	put("/proc/meminfo", "MemTotal:       8388608 kB\nMemFree: 1 kB\n");
	put("/sys/fs/cgroup/cgroup.controllers", "memory rdma\n");
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	put("/sys/fs/cgroup/a/memory.max", "max\n");
	put("/sys/fs/cgroup/a/b/rdma.max", "mlx5_0 hca_handle=max hca_object=max\n");
	look(&self->d, doctor_cgroup);
	OK("cgroup memory", "no limit");
	OK("cgroup rdma", "no limit");
	/* that of a group above counts as well */
	put("/sys/fs/cgroup/a/memory.max", "1073741824\n");
	put("/sys/fs/cgroup/a/b/memory.max", "2147483648\n");
	put("/sys/fs/cgroup/a/rdma.max", "mlx5_1 hca_handle=max hca_object=max\n"
					 "mlx5_0 hca_handle=max hca_object=20\n");
	look(&self->d, doctor_cgroup);
	COSTS("cgroup memory", "1 GiB in /sys/fs/cgroup/a", "MemoryMax");
	COSTS("cgroup rdma", "mlx5_0 hca_handle=max hca_object=20",
	      "echo 'mlx5_0 hca_handle=max hca_object=max' >/sys/fs/cgroup/a/rdma.max");
	/* more than there is, is no limit */
	put("/sys/fs/cgroup/a/memory.max", "8589934592\n");
	put("/sys/fs/cgroup/a/b/memory.max", "8589934592\n");
	look(&self->d, doctor_cgroup);
	OK("cgroup memory", "no limit");
}

TEST_F(tree, cgroup_v1)
{
	put("/proc/meminfo", "MemTotal:       8388608 kB\n");
	put("/proc/self/cgroup", "9:name=systemd:/\n4:memory:/x/y\n0::/\n");
	put("/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "9223372036854771712\n");
	put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	look(&self->d, doctor_cgroup);
	OK("cgroup memory", "no limit");
	put("/sys/fs/cgroup/memory/x/y/memory.limit_in_bytes", "536870912\n");
	look(&self->d, doctor_cgroup);
	COSTS("cgroup memory", "512 MiB in /sys/fs/cgroup/memory/x/y", "--memory");
}

TEST_F(tree, clock_source)
{
	put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
	look(&self->d, doctor_clock);
	OK("clock source", "tsc");
	put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
	put("/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet\n");
	look(&self->d, doctor_clock);
	COSTS("clock source", "hpet", "echo tsc >");
	put("/sys/devices/system/clocksource/clocksource0/available_clocksource", "hpet\n");
	look(&self->d, doctor_clock);
	COSTS("clock source", "hpet", "tsc=reliable");
}

TEST_F(tree, cpu_frequency)
{
	put("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
	put("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n");
	put("/sys/devices/system/cpu/cpuidle/current_driver", "none\n");
	look(&self->d, doctor_governor);
	OK("CPU frequency", "performance");
	put("/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
	look(&self->d, doctor_governor);
	COSTS("CPU frequency", "powersave on 1 of 2", "cpupower");
}

TEST_F(tree, live)
{
	look(&self->d, doctor_synced);
	OK("clock", "synchronised");
	synced = 0;
	look(&self->d, doctor_synced);
	COSTS("clock", "not synchronised", "timedatectl");
	synced = -EPERM;
	look(&self->d, doctor_synced);
	UNKNOWN("clock");
	look(&self->d, doctor_uring);
	OK("io_uring", "allowed");
	uring = -EPERM;
	look(&self->d, doctor_uring);
	COSTS("io_uring", "refused", "seccomp");
	put(PROC "kernel/io_uring_disabled", "2\n");
	look(&self->d, doctor_uring);
	COSTS("io_uring", "refused", "sysctl -w kernel.io_uring_disabled=0");
	put(PROC "kernel/io_uring_disabled", "0\n");
	uring = -ENOSYS;
	look(&self->d, doctor_uring);
	COSTS("io_uring", "refused", "5.1");
}

TEST_F(tree, tcp_buffers)
{
	put(PROC "net/ipv4/tcp_rmem", "4096\t131072\t6291456\n");
	put(PROC "net/ipv4/tcp_wmem", "4096\t16384\t4194304\n");
	look(&self->d, doctor_tcp);
	OK("TCP tcp_rmem", "6 MiB");
	OK("TCP tcp_wmem", "4 MiB");
	put(PROC "net/ipv4/tcp_wmem", "4096\t16384\t4194303\n");
	look(&self->d, doctor_tcp);
	OK("TCP tcp_rmem", "6 MiB");
	COSTS("TCP tcp_wmem", "4.0 MiB", "sysctl -w net.ipv4.tcp_wmem='4096 16384 16777216'");
}

static const char *make_key(const char *name, mode_t mode)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", test_tmpdir(), name);
	put(path + strlen(test_tmpdir()), "0123456789abcdef0123456789abcdef\n");
	ASSERT_EQ(0, chmod(path, mode));
	return path;
}

TEST_F(tree, key)
{
	self->d.key = make_key("key", 0600);
	look(&self->d, doctor_key);
	OK("key", "there");
	make_key("key", 0644);
	look(&self->d, doctor_key);
	COSTS("key", "mode 0644", "chmod 600");
	drop("/key");
	look(&self->d, doctor_key);
	COSTS("key", "no key", "head -c 32 /dev/urandom");
	/* where a link is asked for it cannot be done without */
	self->d.host = "a";
	look(&self->d, doctor_key);
	expect(&self->d, "key", DOCTOR_STOPS, "no key", "urandom");
}

static void ib(const char *dev, const char *file, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), IB "%s/%s", dev, file);
	put(path, text);
}

/* A good RoCE card with one port. */
static void card(void)
{
	put(PCI NIC "/numa_node", "0\n");
	put(PCI NIC "/current_link_speed", "16.0 GT/s PCIe\n");
	put(PCI NIC "/max_link_speed", "16.0 GT/s PCIe\n");
	put(PCI NIC "/current_link_width", "16\n");
	put(PCI NIC "/max_link_width", "16\n");
	put_link(PCI NIC "/driver", "../../../bus/pci/drivers/mlx5_core");
	ib("mlx5_0", "node_type", "1: CA\n");
	ib("mlx5_0", "fw_ver", "22.39.1002\n");
	put_link(IB "mlx5_0/device", "../../../bus/pci/devices/" NIC);
	ib("mlx5_0", "ports/1/state", "4: ACTIVE\n");
	ib("mlx5_0", "ports/1/phys_state", "5: LinkUp\n");
	ib("mlx5_0", "ports/1/rate", "100 Gb/sec (4X EDR)\n");
	ib("mlx5_0", "ports/1/link_layer", "Ethernet\n");
	ib("mlx5_0", "ports/1/gids/0", "fe80:0000:0000:0000:0c42:a1ff:fe00:0001\n");
	ib("mlx5_0", "ports/1/gids/1", "fe80:0000:0000:0000:0c42:a1ff:fe00:0001\n");
	ib("mlx5_0", "ports/1/gids/2", "0000:0000:0000:0000:0000:ffff:0a00:0001\n");
	ib("mlx5_0", "ports/1/gids/3", EMPTY_GID);
	ib("mlx5_0", "ports/1/gid_attrs/types/0", "IB/RoCE v1\n");
	ib("mlx5_0", "ports/1/gid_attrs/types/1", "RoCE v2\n");
	ib("mlx5_0", "ports/1/gid_attrs/types/2", "RoCE v2\n");
	ib("mlx5_0", "ports/1/gid_attrs/ndevs/0", "eth7\n");
	put("/sys/class/net/eth7/mtu", "9000\n");
	put("/sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_0\n");
	put("/sys/class/misc/rdma_cm/abi_version", "1\n");
	put("/dev/infiniband/uverbs0", "");
	put("/dev/infiniband/rdma_cm", "");
	put("/etc/libibverbs.d/mlx5.driver", "driver mlx5\n");
}

TEST_F(tree, good_card)
{
	char dev[64];

	card();
	look(&self->d, doctor_rdma);
	OK("mlx5_0", "CA, firmware 22.39.1002");
	OK("mlx5_0 access", "uverbs0 opens, provider mlx5");
	OK("mlx5_0 slot", "16.0 GT/s PCIe x16");
	OK("mlx5_0/1 port", "ACTIVE, Ethernet, 100 Gb/sec (4X EDR), netdev eth7");
	OK("mlx5_0/1 MTU", "4096");
	OK("mlx5_0/1 GID", "RoCE v2, 10.0.0.1");
	EXPECT_EQ(6u, self->d.nlines);
	doctor_rdma_of(&self->d, "eth7", dev);
	EXPECT_STREQ("mlx5_0", dev);
	doctor_rdma_of(&self->d, "eth8", dev);
	EXPECT_STREQ("", dev);
}

TEST_F(tree, closed_card)
{
	card();
	openable = -EACCES;
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0 access", "do not open", "--device /dev/infiniband");
	openable = 0;
	drop("/etc/libibverbs.d/mlx5.driver");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0 access", "mlx5 is not installed", "apt-get install ibverbs-providers");
	drop("/dev/infiniband/rdma_cm");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0 access", "do not open", "/dev/infiniband");
	put("/sys/class/infiniband_verbs/uverbs0/ibdev", "mlx5_7\n");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0 access", "no program", "modprobe -a ib_uverbs rdma_ucm");
}

TEST_F(tree, slow_slot)
{
	card();
	put(PCI NIC "/current_link_width", "8\n");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0 slot", "x8, the card could 16.0 GT/s PCIe x16", "another slot");
	EXPECT_STREQ("50 % of its bandwidth", line(&self->d, "mlx5_0 slot")->cost);
	put(PCI NIC "/current_link_speed", "8.0 GT/s PCIe\n");
	look(&self->d, doctor_rdma);
	EXPECT_STREQ("75 % of its bandwidth", line(&self->d, "mlx5_0 slot")->cost);
}

TEST_F(tree, ports_that_are_down)
{
	card();
	ib("mlx5_0", "ports/1/state", "1: DOWN\n");
	ib("mlx5_0", "ports/1/phys_state", "3: Disabled\n");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0/1 port", "DOWN, physically Disabled", "ip link set eth7 up");
	ib("mlx5_0", "ports/1/link_layer", "InfiniBand\n");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0/1 port", "DOWN", "cable");
	ib("mlx5_0", "ports/1/state", "2: INIT\n");
	ib("mlx5_0", "ports/1/phys_state", "5: LinkUp\n");
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0/1 port", "INIT, physically LinkUp", "opensm");
	/* nobody but the library knows its MTU, and its GID needs no choice */
	UNKNOWN("mlx5_0/1 MTU");
	EXPECT_TRUE(line(&self->d, "mlx5_0/1 GID") == NULL);
}

TEST_F(tree, mtu)
{
	static const struct {
		const char *netdev, *found, *cost;
	} row[] = {{"1500\n", "1024 of 4096", "4 packets"},
		   {"4191\n", "2048 of 4096", "2 packets"},
		   {"2143\n", "1024 of 4096", "4 packets"},
		   {"600\n", "256 of 4096", "16 packets"}};

	card();
	for (size_t i = 0; i < sizeof(row) / sizeof(*row); i++) {
		put("/sys/class/net/eth7/mtu", row[i].netdev);
		look(&self->d, doctor_rdma);
		COSTS("mlx5_0/1 MTU", row[i].found, "ip link set eth7 mtu 9000");
		EXPECT_TRUE(strstr(line(&self->d, "mlx5_0/1 MTU")->cost, row[i].cost) != NULL);
	}
	put("/sys/class/net/eth7/mtu", "4192\n");
	look(&self->d, doctor_rdma);
	OK("mlx5_0/1 MTU", "4096");
}

TEST_F(tree, gids)
{
	card();
	ib("mlx5_0", "ports/1/gids/2", EMPTY_GID);
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0/1 GID", "link-local only", "ip addr add ADDRESS/24 dev eth7");
	ib("mlx5_0", "ports/1/gids/1", EMPTY_GID);
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0/1 GID", "RoCE v1 only", "ip addr add");
	ib("mlx5_0", "ports/1/gids/0", EMPTY_GID);
	look(&self->d, doctor_rdma);
	COSTS("mlx5_0/1 GID", "none", "ip addr add");
	/* the table is longer than any list of names */
	for (int i = 0; i < 300; i++) {
		char file[64];

		snprintf(file, sizeof(file), "ports/1/gids/%d", i);
		ib("mlx5_0", file, EMPTY_GID);
	}
	ib("mlx5_0", "ports/1/gids/300", "2001:0db8:0000:0000:0000:0000:0000:0001\n");
	ib("mlx5_0", "ports/1/gid_attrs/types/300", "RoCE v2\n");
	look(&self->d, doctor_rdma);
	OK("mlx5_0/1 GID", "2001:0db8");
}

/* Soft-RoCE has a netdev for a parent; iWARP and EFA have no GIDs to choose from. */
TEST_F(tree, other_kinds)
{
	card();
	drop(IB "mlx5_0/device");
	ib("mlx5_0", "parent", "veth0\n");
	drop(IB "mlx5_0/ports/1/gid_attrs/ndevs/0");
	put("/sys/class/net/veth0/mtu", "1500\n");
	look(&self->d, doctor_rdma);
	OK("mlx5_0", "CA, firmware 22.39.1002, in software");
	COSTS("mlx5_0 access", "provider rxe", "ibverbs-providers");
	COSTS("mlx5_0/1 MTU", "veth0 has 1500", "ip link set veth0 mtu 9000");
	EXPECT_TRUE(line(&self->d, "mlx5_0 slot") == NULL);
	ib("mlx5_0", "node_type", "4: RNIC\n");
	look(&self->d, doctor_rdma);
	EXPECT_TRUE(line(&self->d, "mlx5_0/1 MTU") == NULL);
	ib("mlx5_0", "node_type", "0: <unknown>\n");
	ib("mlx5_0", "ports/1/link_layer", "Unspecified\n");
	look(&self->d, doctor_rdma);
	EXPECT_TRUE(line(&self->d, "mlx5_0/1 GID") == NULL);
	OK("mlx5_0/1 port", "ACTIVE");
}

static void gpu(const char *on_node)
{
	put(PCI GPU "/class", "0x030200\n");
	put(PCI GPU "/vendor", "0x10de\n");
	put(PCI GPU "/numa_node", on_node);
	/* a console's is none to compute with */
	put(PCI "0000:01:00.0/class", "0x030000\n");
	put(PCI "0000:01:00.0/vendor", "0x1a03\n");
}

TEST_F(tree, placement)
{
	two_nodes();
	card();
	gpu("0\n");
	look(&self->d, doctor_placement);
	OK("mlx5_0 node", "0");
	OK("GPU " GPU " node", "0");
	OK("GPU " GPU " NIC", "mlx5_0, on the same node");
	EXPECT_EQ(3u, self->d.nlines);
	put(PCI GPU "/numa_node", "1\n");
	look(&self->d, doctor_placement);
	COSTS("GPU " GPU " NIC", "none on node 1", "node 1");
	put(PCI GPU "/numa_node", "-1\n");
	look(&self->d, doctor_placement);
	COSTS("GPU " GPU " node", "does not tell", "numa_node");
}

TEST_F(tree, one_node_needs_no_numbers)
{
	node(0, "meminfo", "Node 0 MemTotal: 8388608 kB\n");
	card();
	gpu("-1\n");
	look(&self->d, doctor_placement);
	OK("GPU " GPU " node", "0");
	OK("GPU " GPU " NIC", "mlx5_0");
}

TEST_F(tree, peer_to_peer)
{
	card();
	gpu("0\n");
	look(&self->d, doctor_peer);
	COSTS("peer-to-peer", "without its driver", "nvidia");
	put(PROC "kernel/osrelease", "6.1.0-56-amd64\n");
	put("/proc/driver/nvidia/version",
	    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1\n");
	look(&self->d, doctor_peer);
	COSTS("peer-to-peer", "neither", "modprobe nvidia_peermem");
	put("/proc/driver/nvidia/version",
	    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.1\n");
	look(&self->d, doctor_peer);
	OK("peer-to-peer", "dma-buf");
	put(PROC "kernel/osrelease", "5.10.0\n");
	look(&self->d, doctor_peer);
	COSTS("peer-to-peer", "neither", "modprobe nvidia_peermem");
	put("/sys/module/nvidia_peermem/version", "1\n");
	look(&self->d, doctor_peer);
	OK("peer-to-peer", "nvidia_peermem");
}

TEST_F(tree, iommu)
{
	card();
	gpu("0\n");
	put(PCI NIC "/iommu_group/type", "identity\n");
	look(&self->d, doctor_peer);
	OK("mlx5_0 IOMMU", "identity");
	OK("GPU " GPU " IOMMU", "none");
	put(PCI NIC "/iommu_group/type", "DMA-FQ\n");
	look(&self->d, doctor_peer);
	COSTS("mlx5_0 IOMMU", "DMA-FQ", "iommu=pt");
}

/* The configuration of a bridge: one capability before ACS, which redirects as @control says. */
static void bridge(unsigned char control, size_t len)
{
	unsigned char config[512] = {0};

	config[0x100] = 0x01; /* error reporting, then at 0x148 */
	config[0x102] = 0x01;
	config[0x103] = 0x14;
	config[0x102] |= 0x80;
	config[0x148] = 0x0d;
	config[0x14a] = 0x01;
	config[0x148 + 6] = control;
	put(PCI "0000:3a:00.0/class", "0x060400\n");
	put_bytes(PCI "0000:3a:00.0/config", config, len);
}

TEST_F(tree, access_control)
{
	gpu("0\n");
	bridge(0, 512);
	look(&self->d, doctor_peer);
	OK("PCIe ACS", "none of 1 bridges");
	bridge(0x13, 512);
	look(&self->d, doctor_peer);
	OK("PCIe ACS", "none of 1 bridges");
	bridge(0x04, 512);
	look(&self->d, doctor_peer);
	COSTS("PCIe ACS", "1 bridges redirect, 0000:3a:00.0",
	      "setpci -s 0000:3a:00.0 ECAP_ACS+6.w");
	bridge(0x1d, 512);
	look(&self->d, doctor_peer);
	COSTS("PCIe ACS", "redirect", "setpci");
	/* others than root see the beginning alone */
	bridge(0x1d, 64);
	look(&self->d, doctor_peer);
	UNKNOWN("PCIe ACS");
}

static const char *member(const json_t *root, size_t i, const char *name)
{
	return json_string_value(json_object_get(json_array_get(root, i), name));
}

TEST_F(tree, json)
{
	char *text = NULL;
	json_t *root;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	look(&self->d, doctor_swap);
	doctor_say(&self->d, DOCTOR_STOPS, "odd \"name\"", "bytes \xff\n\x1b");
	doctor_cost(&self->d, "all");
	doctor_mend(&self->d, "a \\ b");
	ASSERT_EQ(0, doctor_json(&self->d, out));
	fclose(out);
	root = json_loads(text, 0, NULL);
	ASSERT_EQ(2u, json_array_size(root));
	EXPECT_STREQ(self->d.line[0].check, member(root, 0, "check"));
	EXPECT_STREQ("odd \"name\"", member(root, 1, "check"));
	EXPECT_STREQ("stops", member(root, 1, "state"));
	EXPECT_STREQ("bytes ???", member(root, 1, "found"));
	EXPECT_STREQ("all", member(root, 1, "cost"));
	EXPECT_STREQ("a \\ b", member(root, 1, "mend"));
	json_decref(root);
	free(text);
}

TEST_F(tree, print)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	doctor_say(&self->d, DOCTOR_OK, "a", "b");
	doctor_say(&self->d, DOCTOR_COSTS, "c", "d");
	doctor_cost(&self->d, "e");
	doctor_mend(&self->d, "f");
	doctor_sentence(&self->d, DOCTOR_STOPS, "g", "h; to mend it: i");
	doctor_sentence(&self->d, DOCTOR_UNKNOWN, "j", "k");
	doctor_print(&self->d, out);
	fclose(out);
	EXPECT_STREQ("ok       a: b\n"
		     "costs    c: d; e; to mend it: f\n"
		     "stops    g: h; to mend it: i\n"
		     "unknown  j: k\n",
		     text);
	free(text);
}

/* A server at a port of its own, until the test ends. */
static void serve(const char *scheme, const char *key, char url[128])
{
	struct pst_listener *listener;
	struct pst_fabric *fab;
	struct pst_error err = {0};
	struct pst_cq *cq;
	struct pst_wc wc[4];
	char ask[600];
	int ready[2];
	ssize_t n;

	ASSERT_EQ(0, pipe(ready));
	if (fork()) {
		close(ready[1]);
		n = read(ready[0], url, 127);
		ASSERT_LT(0, n);
		url[n] = '\0';
		return;
	}
	close(ready[0]);
	alarm(50);
	snprintf(ask, sizeof(ask), "%s://127.0.0.1:0?key=%s", scheme, key);
	ASSERT_OK(pst_fabric_open(ask, &fab, &err), &err);
	ASSERT_OK(pst_cq_create(fab, &cq, &err), &err);
	ASSERT_OK(pst_listen(cq, ask, &listener, &err), &err);
	n = (ssize_t)strlen(pst_listener_url(listener));
	ASSERT_EQ(n, write(ready[1], pst_listener_url(listener), (size_t)n));
	while (getppid() != 1) {
		int got = pst_cq_wait(cq, wc, 4, 100);

		for (int i = 0; i < got; i++)
			if (wc[i].kind == PST_WC_DOWN)
				pst_link_close(wc[i].link);
	}
	_exit(0);
}

TEST_F(tree, good_path)
{
	char url[128], key[512], with_key[700];

	snprintf(key, sizeof(key), "%s", make_key("key", 0600));
	serve("tcp", key, url);
	self->d.key = key;
	self->d.host = url;
	look(&self->d, doctor_path);
	OK("key", "there");
	OK("127.0.0.1 address", "127.0.0.1");
	OK("127.0.0.1 route", "by lo");
	OK("127.0.0.1 packets", "arrive whole");
	OK("127.0.0.1 round trip", "ms");
	OK("tcp", "open and proved in");
	/* without a scheme the fabric is found */
	self->d.host = url + strlen("tcp://");
	look(&self->d, doctor_path);
	OK(url, "open and proved in");
	EXPECT_TRUE(line(&self->d, "127.0.0.1 link") == NULL);
	/* the URL's own key goes before the command line's */
	snprintf(with_key, sizeof(with_key), "%s?key=%s", url, key);
	self->d.key = "/nowhere/key";
	self->d.host = with_key;
	look(&self->d, doctor_path);
	OK("key", "there");
	OK("tcp", "open and proved in");
	EXPECT_STREQ("/nowhere/key", self->d.key);
}

TEST_F(tree, path_with_another_key)
{
	char url[128], key[512];

	snprintf(key, sizeof(key), "%s", make_key("key", 0600));
	serve("tcp", key, url);
	self->d.key = make_key("other", 0600);
	put("/other", "another key than the server's key\n");
	self->d.host = url;
	look(&self->d, doctor_path);
	expect(&self->d, "tcp", DOCTOR_STOPS, "another key", "");
}

TEST_F(tree, path_to_nobody)
{
	char key[512];

	snprintf(key, sizeof(key), "%s", make_key("key", 0600));
	self->d.key = key;
	self->d.host = "tcp://127.0.0.1:1";
	look(&self->d, doctor_path);
	expect(&self->d, "tcp", DOCTOR_STOPS, "", "");
	self->d.host = "127.0.0.1:1";
	look(&self->d, doctor_path);
	expect(&self->d, "127.0.0.1 link", DOCTOR_STOPS, "no fabric opens, at port 1",
	       "penstock-ps");
	self->d.host = "no..name";
	look(&self->d, doctor_path);
	expect(&self->d, "no..name address", DOCTOR_STOPS, "", "/etc/hosts");
	EXPECT_TRUE(line(&self->d, "no..name route") == NULL);
	self->d.host = "tcp://a b";
	look(&self->d, doctor_path);
	expect(&self->d, "HOST", DOCTOR_STOPS, "no host", "HOST:PORT");
	self->d.host = "";
	look(&self->d, doctor_path);
	expect(&self->d, "HOST", DOCTOR_STOPS, "no host", "HOST:PORT");
}

TEST_F(tree, path_without_a_key)
{
	self->d.key = "/nowhere/key";
	self->d.host = "tcp://127.0.0.1:1";
	look(&self->d, doctor_path);
	expect(&self->d, "key", DOCTOR_STOPS, "no key", "urandom");
	EXPECT_TRUE(line(&self->d, "tcp") == NULL);
	OK("127.0.0.1 route", "lo");
}

/* The program's own words and statuses. */
static int doctor_says(char *const words[], char **said)
{
	int rc, n = 0, out = dup(1), errors = dup(2), fd;
	char path[512];
	FILE *in;
	size_t len = 0;

	while (words[n])
		n++;
	snprintf(path, sizeof(path), "%s/said", test_tmpdir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	fflush(stdout);
	dup2(fd, 1);
	dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 2);
	rc = perf_doctor(n, (char **)words);
	fflush(stdout);
	dup2(out, 1);
	dup2(errors, 2);
	close(fd);
	in = fopen(path, "re");
	*said = NULL;
	ASSERT_LT(0, getdelim(said, &len, '\0', in));
	fclose(in);
	return rc;
}

TEST(command)
{
	char *said, json[512];
	json_t *root;

	snprintf(json, sizeof(json), "%s/json", test_tmpdir());
	EXPECT_EQ(0, doctor_says((char *[]){"doctor", "--json", json, NULL}, &said));
	EXPECT_TRUE(strstr(said, " looked at: ") != NULL);
	free(said);
	root = json_load_file(json, 0, NULL);
	EXPECT_LT(10u, json_array_size(root));
	json_decref(root);
	EXPECT_EQ(1, doctor_says((char *[]){"doctor", "tcp://no..name", NULL}, &said));
	EXPECT_TRUE(strstr(said, "stops    no..name address: ") != NULL);
	free(said);
	/* standard output is JSON alone */
	EXPECT_EQ(0, doctor_says((char *[]){"doctor", "--json", "-", NULL}, &said));
	root = json_loads(said, 0, NULL);
	EXPECT_LT(10u, json_array_size(root));
	json_decref(root);
	free(said);
	EXPECT_EQ(2, perf_doctor(3, (char *[]){"doctor", "a", "b", NULL}));
	EXPECT_EQ(2, perf_doctor(2, (char *[]){"doctor", "--nothing", NULL}));
	EXPECT_EQ(1, doctor_says((char *[]){"doctor", "--json", "/nowhere/x", NULL}, &said));
	free(said);
}

TEST_MAIN
