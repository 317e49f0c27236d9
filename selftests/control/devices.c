/* SPDX-License-Identifier: Apache-2.0 */
/* CPUs as devices, over machines that are made up. GPUs are in gpus.c. */
#include "selftests/control/world.h"

#include <sys/wait.h>

#define NODE  "/sys/devices/system/node/"
#define CPU   "/sys/devices/system/cpu/cpu"
#define RAPL  "/sys/class/powercap/intel-rapl:"
#define HWMON "/sys/class/hwmon/hwmon"

static const char *const meminfo = "Node 0 MemTotal:       8000000 kB\n"
				   "Node 0 MemFree:        3000000 kB\n"
				   "Node 0 FilePages:      1500000 kB\n"
				   "Node 0 Shmem:           500000 kB\n"
				   "Node 0 SReclaimable:    250000 kB\n";

static void put_core(int cpu, int package)
{
	char file[128], text[32];

	snprintf(text, sizeof(text), "%d\n", package);
	snprintf(file, sizeof(file), CPU "%d/topology/physical_package_id", cpu);
	world_put(file, text);
	static const char *const freq[][2] = {
		{"cpuinfo_min_freq", "800000\n"},  {"cpuinfo_max_freq", "3900000\n"},
		{"scaling_min_freq", "800000\n"},  {"scaling_max_freq", "3900000\n"},
		{"scaling_cur_freq", "2400000\n"},
	};
	for (size_t i = 0; i < sizeof(freq) / sizeof(*freq); i++) {
		snprintf(file, sizeof(file), CPU "%d/cpufreq/%s", cpu, freq[i][0]);
		world_put(file, freq[i][1]);
	}
}

static void put_package(int package)
{
	char file[128], text[32];
	static const char *const rapl[][2] = {
		{"energy_uj", "5000000\n"},
		{"max_energy_range_uj", "9000000\n"},
		{"enabled", "0\n"},
		{"constraint_0_name", "long_term\n"},
		{"constraint_0_power_limit_uw", "150000000\n"},
		{"constraint_0_max_power_uw", "165000000\n"},
	};

	snprintf(text, sizeof(text), "package-%d\n", package);
	snprintf(file, sizeof(file), RAPL "%d/name", package);
	world_put(file, text);
	for (size_t i = 0; i < sizeof(rapl) / sizeof(*rapl); i++) {
		snprintf(file, sizeof(file), RAPL "%d/%s", package, rapl[i][0]);
		world_put(file, rapl[i][1]);
	}
	snprintf(file, sizeof(file), HWMON "%d/name", package);
	world_put(file, "coretemp\n");
	snprintf(text, sizeof(text), "Package id %d\n", package);
	snprintf(file, sizeof(file), HWMON "%d/temp1_label", package);
	world_put(file, text);
	snprintf(file, sizeof(file), HWMON "%d/temp1_input", package);
	world_put(file, package ? "52000\n" : "47000\n");
}

static void put_stat(const char *cpu0, const char *cpu2)
{
	char text[512];

	snprintf(text, sizeof(text),
		 "cpu  999 0 0 999 0 0 0 0 0 0\ncpu0 %s\ncpu1 0 0 0 100 0 0 0 0 0 0\n"
		 "cpu2 %s\ncpu3 0 0 0 100 0 0 0 0 0 0\nintr 1 2 3\nctxt 77\n",
		 cpu0, cpu2);
	world_put("/proc/stat", text);
}

/* Two packages, each a node of two cores; a third node has memory only. */
FIXTURE(cpus)
{
	struct world w;
};
FIXTURE_SETUP(cpus)
{
	CPU_ZERO(&self->w.allowed);
	for (int cpu = 0; cpu < 4; cpu++) {
		put_core(cpu, cpu / 2);
		CPU_SET(cpu, &self->w.allowed);
	}
	put_package(0);
	put_package(1);
	world_put(NODE "online", "0-2\n");
	world_put(NODE "node0/cpulist", "0-1\n");
	world_put(NODE "node1/cpulist", "2-3\n");
	world_put(NODE "node2/cpulist", "\n");
	world_put(NODE "node0/meminfo", meminfo);
	world_put("/proc/cpuinfo", "processor\t: 0\nmodel name\t: Mill 1\n\nprocessor\t: 2\n"
				   "model name\t: Mill 2\n\n");
	put_stat("0 0 0 100 0 0 0 0 0 0", "0 0 0 100 0 0 0 0 0 0");
}
FIXTURE_TEARDOWN(cpus)
{
	if (self->w.devices)
		world_close(&self->w);
}

TEST_F(cpus, a_device_per_node_with_cores)
{
	struct pst_cmd_device_stat s = {.size = sizeof(s), .flags = PST_STAT_NEXT};
	struct device_place place;
	uint32_t id = 0;

	world_open(&self->w);
	EXPECT_EQ(2u, devices_count(self->w.devices));
	ASSERT_EQ(0, devices_stat(self->w.devices, true, &s));
	EXPECT_EQ(1u, s.id);
	EXPECT_EQ((uint32_t)PST_DEVICE_CPU, s.out_kind);
	EXPECT_EQ(0, s.out_node);
	EXPECT_EQ(2u, s.out_cores);
	EXPECT_STREQ("Mill 1", (char *)s.out_name);
	EXPECT_EQ(sizeof(s), (size_t)s.size);
	EXPECT_EQ((uint32_t)PST_STAT_NEXT, s.flags);
	ASSERT_EQ(0, devices_stat(self->w.devices, true, &s));
	EXPECT_EQ(2u, s.id);
	EXPECT_EQ(1, s.out_node);
	EXPECT_STREQ("Mill 2", (char *)s.out_name);
	EXPECT_EQ(-ENOENT, devices_stat(self->w.devices, true, &s));
	s.id = 3;
	EXPECT_EQ(-ENOENT, devices_stat(self->w.devices, false, &s));
	s.id = 0;
	EXPECT_EQ(-ENOENT, devices_stat(self->w.devices, false, &s));
	EXPECT_EQ(0, devices_find(self->w.devices, "cpu:1", &id));
	EXPECT_EQ(2u, id);
	EXPECT_EQ(-ENOENT, devices_find(self->w.devices, "cpu:2", &id));
	EXPECT_EQ(-ENOENT, devices_find(self->w.devices, "gpu:0", &id));
	ASSERT_EQ(0, devices_place(self->w.devices, 2, &place));
	EXPECT_EQ((uint32_t)PST_DEVICE_CPU, place.kind);
	EXPECT_EQ(1u, place.index);
	EXPECT_EQ(1, place.node);
	EXPECT_EQ(2u, place.cores);
	EXPECT_EQ(-ENOENT, devices_place(self->w.devices, 3, &place));
}

TEST_F(cpus, cores_that_may_not_be_used_are_none)
{
	struct device_place place;

	CPU_CLR(1, &self->w.allowed);
	CPU_CLR(2, &self->w.allowed);
	CPU_CLR(3, &self->w.allowed);
	world_open(&self->w);
	EXPECT_EQ(1u, devices_count(self->w.devices));
	ASSERT_EQ(0, devices_place(self->w.devices, 1, &place));
	EXPECT_EQ(1u, place.cores);
}

TEST_F(cpus, figures)
{
	struct pst_cmd_device_stat s;

	world_open(&self->w);
	put_stat("30 10 10 150 0 0 0 0 0 0", "0 0 0 100 0 0 0 0 0 0");
	s = world_stat(&self->w, 1);
	EXPECT_EQ(500u, s.out_load); /* 50 busy of 100 */
	EXPECT_EQ(8000000ull * 1024, (unsigned long long)s.out_memory_bytes);
	/* free, cache but for shared memory, and slabs that may go are not in use */
	EXPECT_EQ(3750000ull * 1024, (unsigned long long)s.out_memory_used);
	EXPECT_EQ(2400u, s.out_clock_mhz);
	EXPECT_EQ(800u, s.out_clock_min_mhz);
	EXPECT_EQ(3900u, s.out_clock_max_mhz);
	EXPECT_EQ(PST_UNKNOWN32, s.out_memory_clock_mhz);
	EXPECT_EQ(47000u, s.out_temperature_mc);
	EXPECT_EQ(150000u, s.out_cap_mw);
	EXPECT_EQ(165000u, s.out_cap_max_mw);
	EXPECT_EQ(5000u, s.out_cap_min_mw);
	EXPECT_EQ(0ull, (unsigned long long)s.out_energy_uj);
	EXPECT_EQ(PST_UNKNOWN, s.out_ecc_corrected);
	EXPECT_EQ(0u, s.out_xid);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, s.out_health);
	EXPECT_STREQ("", (char *)s.out_note);
	s = world_stat(&self->w, 2);
	EXPECT_EQ(52000u, s.out_temperature_mc);
	EXPECT_EQ(PST_UNKNOWN, s.out_memory_bytes); /* it has no meminfo */
}

TEST_F(cpus, load_of_each_node_alone)
{
	world_open(&self->w);
	put_stat("0 0 0 200 0 0 0 0 0 0", "75 0 0 125 0 0 0 0 0 0");
	EXPECT_EQ(0u, world_stat(&self->w, 1).out_load);
	EXPECT_EQ(750u, world_stat(&self->w, 2).out_load);
}

TEST_F(cpus, read_again_only_after_a_while)
{
	world_open(&self->w);
	world_put(CPU "0/cpufreq/scaling_cur_freq", "2400000\n");
	EXPECT_EQ(2400u, world_stat(&self->w, 1).out_clock_mhz);
	world_put(CPU "0/cpufreq/scaling_cur_freq", "1200000\n");
	WORLD_WAIT(&self->w, 1, s.out_clock_mhz == 1800);
}

TEST_F(cpus, energy_goes_on_when_the_counter_wraps)
{
	struct pst_cmd_device_stat s;

	world_open(&self->w);
	world_stat(&self->w, 1);
	world_run(&self->w, 110);
	world_put(RAPL "0/energy_uj", "8500000\n");
	s = world_stat(&self->w, 1);
	EXPECT_EQ(3500000ull, (unsigned long long)s.out_energy_uj);
	/* 3.5 J within 110 ms or more */
	EXPECT_NE(PST_UNKNOWN32, s.out_power_mw);
	EXPECT_LE(s.out_power_mw, 32000u);
	EXPECT_GT(s.out_power_mw, 0u);
	world_run(&self->w, 110);
	world_put(RAPL "0/energy_uj", "1000000\n");
	s = world_stat(&self->w, 1);
	EXPECT_EQ(5000000ull, (unsigned long long)s.out_energy_uj);
}

TEST_F(cpus, a_kernel_that_tells_nothing)
{
	struct pst_cmd_device_stat s;
	struct pst_error err;
	char sys[PATH_MAX + 8], gone[PATH_MAX + 8];

	snprintf(sys, sizeof(sys), "%s/sys", test_tmpdir());
	snprintf(gone, sizeof(gone), "%s/gone", test_tmpdir());
	ASSERT_EQ(0, rename(sys, gone));
	world_put("/proc/stat", "");
	world_put("/proc/cpuinfo", "");
	world_open(&self->w);
	EXPECT_EQ(1u, devices_count(self->w.devices));
	s = world_stat(&self->w, 1);
	EXPECT_EQ(4u, s.out_cores);
	EXPECT_EQ(0, s.out_node);
	EXPECT_EQ(PST_UNKNOWN32, s.out_load);
	EXPECT_EQ(PST_UNKNOWN, s.out_memory_bytes);
	EXPECT_EQ(PST_UNKNOWN, s.out_memory_used);
	EXPECT_EQ(PST_UNKNOWN, s.out_energy_uj);
	EXPECT_EQ(PST_UNKNOWN32, s.out_power_mw);
	EXPECT_EQ(PST_UNKNOWN32, s.out_cap_mw);
	EXPECT_EQ(PST_UNKNOWN32, s.out_cap_max_mw);
	EXPECT_EQ(PST_UNKNOWN32, s.out_clock_mhz);
	EXPECT_EQ(PST_UNKNOWN32, s.out_clock_max_mhz);
	EXPECT_EQ(PST_UNKNOWN32, s.out_temperature_mc);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, s.out_health);
	EXPECT_STREQ("", (char *)s.out_name);
	EXPECT_EQ(-ENODEV, world_power(&self->w, 1, PST_DEVICE_POWER_CAP, 100000, 0, 0, &err));
	EXPECT_TRUE(strstr(err.text, "modprobe"));
	EXPECT_EQ(-ENODEV, world_power(&self->w, 1, PST_DEVICE_POWER_CLOCK, 0, 1000, 2000, &err));
	EXPECT_TRUE(strstr(err.text, "cpufreq"));
}

TEST_F(cpus, memory_without_nodes)
{
	char sys[PATH_MAX + 8], gone[PATH_MAX + 8];

	snprintf(sys, sizeof(sys), "%s/sys/devices/system/node", test_tmpdir());
	snprintf(gone, sizeof(gone), "%s/gone", test_tmpdir());
	ASSERT_EQ(0, rename(sys, gone));
	world_put("/proc/meminfo", "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 600 kB\n"
				   "Cached: 250 kB\nShmem: 50 kB\nSReclaimable: 100 kB\n");
	world_open(&self->w);
	EXPECT_EQ(1000ull * 1024, (unsigned long long)world_stat(&self->w, 1).out_memory_bytes);
	EXPECT_EQ(400ull * 1024, (unsigned long long)world_stat(&self->w, 1).out_memory_used);
}

TEST_F(cpus, heat_is_told)
{
	struct pst_event e;

	world_put(CPU "1/thermal_throttle/core_throttle_count", "7\n");
	world_open(&self->w);
	/* what was before the daemon is no news */
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, 1).out_health);
	world_put(CPU "1/thermal_throttle/core_throttle_count", "8\n");
	WORLD_WAIT(&self->w, 1, s.out_health == PST_HEALTH_THROTTLED);
	EXPECT_TRUE(strstr((char *)world_stat(&self->w, 1).out_note, "heat"));
	e = world_event(&self->w);
	EXPECT_EQ((uint32_t)PST_EVENT_DEVICE, e.type);
	EXPECT_EQ(1u, e.id);
	EXPECT_EQ(PST_HEALTH_THROTTLED, (int)e.value);
	EXPECT_TRUE(strstr((char *)e.text, "cpu:0"));
}

TEST_F(cpus, what_is_no_order)
{
	static const struct {
		uint32_t id, flags, cap, min, max;
		int rc;
	} bad[] = {
		{0, PST_DEVICE_POWER_CAP, 100000, 0, 0, -ENOENT},
		{3, PST_DEVICE_POWER_CAP, 100000, 0, 0, -ENOENT},
		{1, 0, 0, 0, 0, -EINVAL},
		{1, 8, 0, 0, 0, -EINVAL},
		{1, PST_DEVICE_POWER_CAP, 0, 0, 0, -EINVAL},
		{1, PST_DEVICE_POWER_CAP, 100000, 800, 0, -EINVAL},
		{1, PST_DEVICE_POWER_CLOCK, 1, 800, 900, -EINVAL},
		{1, PST_DEVICE_POWER_CLOCK, 0, 900, 800, -EINVAL},
		{1, PST_DEVICE_POWER_CLOCK, 0, 0, 0, -EINVAL},
		{1, PST_DEVICE_POWER_RESET | PST_DEVICE_POWER_CAP, 100000, 0, 0, -EINVAL},
		{1, PST_DEVICE_POWER_RESET, 100000, 0, 0, -EINVAL},
		{1, PST_DEVICE_POWER_CAP, 4999, 0, 0, -ERANGE},
		{1, PST_DEVICE_POWER_CAP, 165001, 0, 0, -ERANGE},
		{1, PST_DEVICE_POWER_CLOCK, 0, 799, 900, -ERANGE},
		{1, PST_DEVICE_POWER_CLOCK, 0, 800, 3901, -ERANGE},
	};
	struct pst_error err;

	world_open(&self->w);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		EXPECT_EQ(bad[i].rc, world_power(&self->w, bad[i].id, bad[i].flags, bad[i].cap,
						 bad[i].min, bad[i].max, &err));
		EXPECT_EQ(bad[i].rc, err.code);
		EXPECT_NE('\0', err.text[0]);
	}
	EXPECT_STREQ("150000000", world_get(RAPL "0/constraint_0_power_limit_uw"));
	EXPECT_STREQ("3900000", world_get(CPU "0/cpufreq/scaling_max_freq"));
}

static void expect_as_found(void)
{
	EXPECT_STREQ("150000000", world_get(RAPL "0/constraint_0_power_limit_uw"));
	EXPECT_STREQ("0", world_get(RAPL "0/enabled"));
	EXPECT_STREQ("800000", world_get(CPU "0/cpufreq/scaling_min_freq"));
	EXPECT_STREQ("3900000", world_get(CPU "0/cpufreq/scaling_max_freq"));
	EXPECT_STREQ("3900000", world_get(CPU "1/cpufreq/scaling_max_freq"));
}

static void set_both(struct world *w)
{
	struct pst_error err;

	ASSERT_OK(world_power(w, 1, PST_DEVICE_POWER_CAP, 90000, 0, 0, &err), &err);
	ASSERT_OK(world_power(w, 1, PST_DEVICE_POWER_CLOCK, 0, 1000, 2000, &err), &err);
	EXPECT_STREQ("90000000", world_get(RAPL "0/constraint_0_power_limit_uw"));
	EXPECT_STREQ("1", world_get(RAPL "0/enabled"));
	EXPECT_STREQ("1000000", world_get(CPU "0/cpufreq/scaling_min_freq"));
	EXPECT_STREQ("2000000", world_get(CPU "1/cpufreq/scaling_max_freq"));
	/* the other package is not meant */
	EXPECT_STREQ("150000000", world_get(RAPL "1/constraint_0_power_limit_uw"));
	EXPECT_STREQ("3900000", world_get(CPU "2/cpufreq/scaling_max_freq"));
}

TEST_F(cpus, set_and_reset)
{
	struct pst_cmd_device_stat s;
	struct pst_error err;

	world_open(&self->w);
	world_stat(&self->w, 1);
	set_both(&self->w);
	s = world_stat(&self->w, 1); /* at once */
	EXPECT_EQ(90000u, s.out_cap_mw);
	EXPECT_EQ(2000u, s.out_clock_max_mhz);
	EXPECT_EQ((uint32_t)PST_HEALTH_THROTTLED, s.out_health);
	EXPECT_TRUE(strstr((char *)s.out_note, "penstockctl power"));
	/* set twice, what was found is still what was there at first */
	ASSERT_OK(world_power(&self->w, 1, PST_DEVICE_POWER_CAP, 80000, 0, 0, &err), &err);
	ASSERT_OK(world_power(&self->w, 1, PST_DEVICE_POWER_RESET, 0, 0, 0, &err), &err);
	expect_as_found();
	EXPECT_EQ(150000u, world_stat(&self->w, 1).out_cap_mw);
	/* nothing to put back is no error */
	ASSERT_OK(world_power(&self->w, 1, PST_DEVICE_POWER_RESET, 0, 0, 0, &err), &err);
}

TEST_F(cpus, put_back_in_the_end)
{
	world_open(&self->w);
	set_both(&self->w);
	world_close(&self->w);
	expect_as_found();
	/* and forgotten: the next daemon leaves alone what others set since */
	world_put(RAPL "0/constraint_0_power_limit_uw", "120000000\n");
	world_open(&self->w);
	world_close(&self->w);
	EXPECT_STREQ("120000000", world_get(RAPL "0/constraint_0_power_limit_uw"));
}

/* @fn in a daemon that is killed then. */
static void in_a_killed_one(struct world *w, void (*fn)(struct world *w))
{
	int status;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		world_open(w);
		fn(w);
		kill(getpid(), test_failed ? SIGTERM : SIGKILL);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST_F(cpus, put_back_by_the_next_daemon)
{
	struct pst_error err;

	in_a_killed_one(&self->w, set_both);
	EXPECT_STREQ("90000000", world_get(RAPL "0/constraint_0_power_limit_uw"));
	world_open(&self->w);
	/* it goes on as set, and knows what it was */
	EXPECT_EQ(90000u, world_stat(&self->w, 1).out_cap_mw);
	ASSERT_OK(world_power(&self->w, 1, PST_DEVICE_POWER_CAP, 70000, 0, 0, &err), &err);
	world_close(&self->w);
	expect_as_found();
}

TEST_F(cpus, reset_by_the_next_daemon)
{
	struct pst_error err;

	in_a_killed_one(&self->w, set_both);
	world_open(&self->w);
	ASSERT_OK(world_power(&self->w, 1, PST_DEVICE_POWER_RESET, 0, 0, 0, &err), &err);
	expect_as_found();
}

/* From here on as who is not root, and so may write only to files of mode 0666. */
static void as_nobody(struct world *w)
{
	struct pst_error err;

	/* the keeper is there already, it is not for who is nobody to start one */
	ASSERT_OK(world_power(w, 2, PST_DEVICE_POWER_CAP, 100000, 0, 0, &err), &err);
	ASSERT_EQ(0, chmod(test_tmpdir(), 0755));
	if (geteuid() == 0 && seteuid(65534))
		SKIP("another user is needed", "run it as root");
}

static void allow(const char *file, mode_t mode)
{
	char path[PATH_MAX + 64];

	snprintf(path, sizeof(path), "%s%s", test_tmpdir(), file);
	ASSERT_EQ(0, chmod(path, mode));
}

/* A file is refused in the middle: what went before is undone. */
TEST_F(cpus, all_or_nothing)
{
	struct pst_error err;
	int rc;

	allow(CPU "0/cpufreq/scaling_min_freq", 0666);
	allow(CPU "0/cpufreq/scaling_max_freq", 0666);
	allow(CPU "1/cpufreq/scaling_min_freq", 0666);
	allow(CPU "1/cpufreq/scaling_max_freq", 0444);
	world_open(&self->w);
	as_nobody(&self->w);
	rc = world_power(&self->w, 1, PST_DEVICE_POWER_CLOCK, 0, 1000, 2000, &err);
	ASSERT_EQ(0, seteuid(getuid()));
	EXPECT_EQ(-EPERM, rc);
	EXPECT_TRUE(strstr(err.text, "scaling_max_freq"));
	expect_as_found();
	EXPECT_STREQ("800000", world_get(CPU "1/cpufreq/scaling_min_freq"));
}

TEST_F(cpus, who_may_not_is_told_so)
{
	struct pst_error err;
	int rc;

	allow(RAPL "0/constraint_0_power_limit_uw", 0444);
	world_open(&self->w);
	as_nobody(&self->w);
	rc = world_power(&self->w, 1, PST_DEVICE_POWER_CAP, 90000, 0, 0, &err);
	ASSERT_EQ(0, seteuid(getuid()));
	EXPECT_EQ(-EPERM, rc);
	EXPECT_TRUE(strstr(err.text, "root"));
	expect_as_found();
}

TEST_MAIN
