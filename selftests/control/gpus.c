/* SPDX-License-Identifier: Apache-2.0 */
/* GPUs as devices: NVML's stand-in says and does what a driver would. */
#include "selftests/control/world.h"
#include "selftests/gpu/standin.h"

#include <sys/wait.h>

#define GIB (1ull << 30)

/* One CPU, and two GPUs on nodes 1 and (the kernel does not know) none. */
FIXTURE(gpus)
{
	struct world w;
	struct standin *s;
	char nvml[PATH_MAX];
};

static void choose(struct world *w, char nvml[PATH_MAX], const char *folder)
{
	world_say_where();
	snprintf(nvml, PATH_MAX, "%s/selftests/gpu/%slibnvidia-ml.so.1", getenv("PENSTOCK_BIN"),
		 folder);
	w->at.nvml = nvml;
}

FIXTURE_SETUP(gpus)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/standin", test_tmpdir());
	self->s = standin_make(path, 2, 141 * GIB);
	setenv(STANDIN_ENV, path, 1);
	choose(&self->w, self->nvml, "");
	CPU_ZERO(&self->w.allowed);
	CPU_SET(0, &self->w.allowed);
	world_put("/proc/stat", "cpu0 0 0 0 100 0 0 0 0 0 0\n");
	world_put("/sys/bus/pci/devices/0000:3b:00.0/numa_node", "1\n");
	world_put("/sys/bus/pci/devices/0000:3c:00.0/numa_node", "-1\n");
}
FIXTURE_TEARDOWN(gpus)
{
	if (self->w.devices)
		world_close(&self->w);
}

/* Device ids: the CPU has 1. */
enum { GPU0 = 2, GPU1 = 3 };

TEST_F(gpus, what_they_are)
{
	struct pst_cmd_device_stat s;
	struct device_place place;
	uint32_t id = 0;

	world_open(&self->w);
	ASSERT_EQ(3u, devices_count(self->w.devices));
	EXPECT_EQ(0, devices_find(self->w.devices, "gpu:1", &id));
	EXPECT_EQ((uint32_t)GPU1, id);
	ASSERT_EQ(0, devices_place(self->w.devices, GPU0, &place));
	EXPECT_EQ((uint32_t)PST_DEVICE_GPU, place.kind);
	EXPECT_EQ(0u, place.index);
	EXPECT_EQ(1, place.node);
	EXPECT_EQ(132u, place.cores);
	s = world_stat(&self->w, GPU0);
	EXPECT_EQ((uint32_t)PST_DEVICE_GPU, s.out_kind);
	EXPECT_EQ(1, s.out_node);
	EXPECT_EQ(132u, s.out_cores);
	EXPECT_STREQ("Stand-in H200", (char *)s.out_name);
	EXPECT_STREQ(self->s->gpu[0].uuid, (char *)s.out_uuid);
	EXPECT_EQ(PST_ANY, world_stat(&self->w, GPU1).out_node);
}

TEST_F(gpus, figures)
{
	struct standin_gpu *g = &self->s->gpu[0];
	struct pst_cmd_device_stat s;

	g->load_percent = 37;
	g->ecc_corrected = 5;
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_load != PST_UNKNOWN32);
	s = world_stat(&self->w, GPU0);
	EXPECT_EQ(370u, s.out_load);
	EXPECT_EQ(141 * GIB, (unsigned long long)s.out_memory_bytes);
	EXPECT_EQ(0ull, (unsigned long long)s.out_memory_used);
	EXPECT_EQ(120000u, s.out_power_mw);
	EXPECT_EQ(700000u, s.out_cap_mw);
	EXPECT_EQ(200000u, s.out_cap_min_mw);
	EXPECT_EQ(700000u, s.out_cap_max_mw);
	EXPECT_EQ(1980u, s.out_clock_mhz);
	EXPECT_EQ(345u, s.out_clock_min_mhz);
	EXPECT_EQ(1980u, s.out_clock_max_mhz);
	EXPECT_EQ(3201u, s.out_memory_clock_mhz);
	EXPECT_EQ(41000u, s.out_temperature_mc);
	EXPECT_EQ(1000000ull, (unsigned long long)s.out_energy_uj);
	EXPECT_EQ(5ull, (unsigned long long)s.out_ecc_corrected);
	EXPECT_EQ(0ull, (unsigned long long)s.out_ecc_uncorrected);
	EXPECT_EQ(0u, s.out_xid);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, s.out_health);
	EXPECT_STREQ("", (char *)s.out_note);
	g->power_mw = 650000;
	WORLD_WAIT(&self->w, GPU0, s.out_power_mw == 650000);
}

TEST_F(gpus, no_driver)
{
	self->w.at.nvml = "libnone.so.1";
	world_open(&self->w);
	EXPECT_EQ(1u, devices_count(self->w.devices));
	world_close(&self->w);
	/* a library, but no driver behind it */
	self->w.at.nvml = self->nvml;
	self->s->fn[STANDIN_nvmlInit_v2].fail_in = 1;
	self->s->fn[STANDIN_nvmlInit_v2].fail_rc = 9;
	world_open(&self->w);
	EXPECT_EQ(1u, devices_count(self->w.devices));
}

/* Where there is an NVIDIA GPU and no driver, that is said, with what mends it. */
TEST_F(gpus, a_missing_driver_is_missed)
{
	char log[4096] = "";
	int fd[2];

	ASSERT_EQ(0, pipe(fd));
	ASSERT_LE(0, dup2(fd[1], 2));
	self->w.at.nvml = "libnone.so.1";
	world_open(&self->w);
	world_close(&self->w);
	world_put("/sys/bus/pci/devices/0000:3b:00.0/vendor", "0x10de\n");
	world_put("/sys/bus/pci/devices/0000:3b:00.0/class", "0x030200\n");
	ASSERT_EQ(0, fcntl(fd[0], F_SETFL, O_NONBLOCK));
	EXPECT_GT(0, read(fd[0], log, sizeof(log) - 1));
	world_open(&self->w);
	EXPECT_LT(0, read(fd[0], log, sizeof(log) - 1));
	EXPECT_TRUE(strstr(log, "nvidia-driver"));
}

TEST_F(gpus, an_old_library)
{
	struct pst_cmd_device_stat s;
	struct pst_error err;

	choose(&self->w, self->nvml, "old/");
	world_open(&self->w);
	ASSERT_EQ(3u, devices_count(self->w.devices));
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes == 141 * GIB);
	s = world_stat(&self->w, GPU0);
	EXPECT_STREQ("Stand-in H200", (char *)s.out_name);
	EXPECT_EQ(PST_ANY, s.out_node);
	EXPECT_EQ(PST_UNKNOWN32, s.out_cores);
	EXPECT_EQ(PST_UNKNOWN32, s.out_load);
	EXPECT_EQ(PST_UNKNOWN32, s.out_power_mw);
	EXPECT_EQ(PST_UNKNOWN32, s.out_cap_mw);
	EXPECT_EQ(PST_UNKNOWN, s.out_energy_uj);
	EXPECT_EQ(PST_UNKNOWN32, s.out_clock_mhz);
	EXPECT_EQ(PST_UNKNOWN, s.out_ecc_uncorrected);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, s.out_health);
	EXPECT_EQ(-ENODEV, world_power(&self->w, GPU0, PST_DEVICE_POWER_CAP, 300000, 0, 0, &err));
	EXPECT_EQ(-ENODEV, world_power(&self->w, GPU0, PST_DEVICE_POWER_CLOCK, 0, 500, 900, &err));
	EXPECT_NE('\0', err.text[0]);
}

/* A figure that is not supported is unknown, and no error. */
TEST_F(gpus, a_figure_that_is_not_supported)
{
	self->s->fn[STANDIN_nvmlDeviceGetPowerUsage].fail_in = 1;
	self->s->fn[STANDIN_nvmlDeviceGetPowerUsage].fail_rc = 3;
	self->s->ngpus = 1;
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes != PST_UNKNOWN);
	EXPECT_EQ(0u, self->s->fn[STANDIN_nvmlDeviceGetPowerUsage].fail_in);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, GPU0).out_health);
}

static void expect_event(struct world *w, uint32_t type, uint32_t id, int64_t value,
			 const char *text)
{
	struct pst_event e = world_event(w);

	EXPECT_EQ(type, e.type);
	EXPECT_EQ(id, e.id);
	EXPECT_EQ(value, (int64_t)e.value);
	EXPECT_TRUE(strstr((char *)e.text, text));
}

/* An event's thread has looked for the first time: what comes now is told. */
static void wait_for_waiter(struct standin *s)
{
	while (!s->fn[STANDIN_nvmlEventSetWait_v2].calls)
		usleep(1000);
}

TEST_F(gpus, xids)
{
	world_open(&self->w);
	wait_for_waiter(self->s);
	/* a program's fault is told, and the GPU goes on */
	standin_xid(self->s, 1, 31);
	expect_event(&self->w, PST_EVENT_XID, GPU1, 31, "MMU fault");
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, GPU1).out_health);
	EXPECT_EQ(31u, world_stat(&self->w, GPU1).out_xid);
	EXPECT_STREQ("", (char *)world_stat(&self->w, GPU1).out_note);
	/* errors of memory */
	standin_xid(self->s, 0, 48);
	expect_event(&self->w, PST_EVENT_XID, GPU0, 48, "double-bit");
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_DEGRADED, "reset it");
	EXPECT_EQ((uint32_t)PST_HEALTH_DEGRADED, world_stat(&self->w, GPU0).out_health);
	EXPECT_TRUE(strstr((char *)world_stat(&self->w, GPU0).out_note, "XID 48"));
	/* what comes after does not make it better */
	standin_xid(self->s, 0, 13);
	expect_event(&self->w, PST_EVENT_XID, GPU0, 13, "graphics engine");
	EXPECT_EQ((uint32_t)PST_HEALTH_DEGRADED, world_stat(&self->w, GPU0).out_health);
	/* one that nobody knows */
	standin_xid(self->s, 1, 9999);
	expect_event(&self->w, PST_EVENT_XID, GPU1, 9999, "catalog");
	expect_event(&self->w, PST_EVENT_DEVICE, GPU1, PST_HEALTH_DEGRADED, "catalog");
	/* off the bus */
	standin_xid(self->s, 0, 79);
	expect_event(&self->w, PST_EVENT_XID, GPU0, 79, "fell off the bus");
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_LOST, "lost");
	standin_xid(self->s, 0, 48);
	expect_event(&self->w, PST_EVENT_XID, GPU0, 48, "double-bit");
	EXPECT_EQ((uint32_t)PST_HEALTH_LOST, world_stat(&self->w, GPU0).out_health);
}

TEST_F(gpus, many_xids_at_once)
{
	world_open(&self->w);
	wait_for_waiter(self->s);
	for (int i = 0; i < 10; i++)
		standin_xid(self->s, 0, 43);
	for (int i = 0; i < 10; i++)
		expect_event(&self->w, PST_EVENT_XID, GPU0, 43, "stopped");
}

TEST_F(gpus, ecc)
{
	world_open(&self->w);
	self->s->gpu[0].ecc_corrected = 12;
	WORLD_WAIT(&self->w, GPU0, s.out_ecc_corrected == 12);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, GPU0).out_health);
	self->s->gpu[0].ecc_uncorrected = 2;
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_DEGRADED, "2 ECC errors");
	EXPECT_EQ(2ull, (unsigned long long)world_stat(&self->w, GPU0).out_ecc_uncorrected);
}

TEST_F(gpus, throttled)
{
	static const struct {
		uint64_t reason;
		const char *says;
	} why[] = {{0x04, "power cap"},
		   {0x08, "hardware"},
		   {0x20, "heat"},
		   {0x40, "heat"},
		   {0x80, "power brake"}};

	world_open(&self->w);
	/* it has nothing to do */
	self->s->gpu[0].throttle = 1;
	self->s->gpu[0].power_mw = 7;
	WORLD_WAIT(&self->w, GPU0, s.out_power_mw == 7);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, GPU0).out_health);
	for (size_t i = 0; i < sizeof(why) / sizeof(*why); i++) {
		self->s->gpu[0].throttle = why[i].reason;
		WORLD_WAIT(&self->w, GPU0, strstr((char *)s.out_note, why[i].says));
		EXPECT_EQ((uint32_t)PST_HEALTH_THROTTLED, world_stat(&self->w, GPU0).out_health);
	}
	self->s->gpu[0].throttle = 0;
	WORLD_WAIT(&self->w, GPU0, s.out_health == PST_HEALTH_OK);
}

TEST_F(gpus, lost_and_back)
{
	struct pst_cmd_device_stat s;

	world_open(&self->w);
	wait_for_waiter(self->s);
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes != PST_UNKNOWN);
	standin_xid(self->s, 0, 48);
	expect_event(&self->w, PST_EVENT_XID, GPU0, 48, "");
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_DEGRADED, "");
	self->s->gpu[0].lost = 1;
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_LOST, "GPU is lost");
	s = world_stat(&self->w, GPU0);
	EXPECT_EQ((uint32_t)PST_HEALTH_LOST, s.out_health);
	EXPECT_TRUE(strstr((char *)s.out_note, "nvidia-smi"));
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, GPU1).out_health);
	/* it was reset on the way back, so what it had is no more */
	self->s->gpu[0].lost = 0;
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_OK, "well again");
	EXPECT_STREQ("", (char *)world_stat(&self->w, GPU0).out_note);
}

/* A GPU that is lost when the daemon begins is there, and comes back. */
TEST_F(gpus, lost_from_the_beginning)
{
	self->s->gpu[0].lost = 1;
	world_open(&self->w);
	ASSERT_EQ(3u, devices_count(self->w.devices));
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_LOST, "");
	self->s->gpu[0].lost = 0;
	expect_event(&self->w, PST_EVENT_DEVICE, GPU0, PST_HEALTH_OK, "");
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes == 141 * GIB);
}

/* A call that hangs holds up nobody; the copy says how old it is. */
TEST_F(gpus, a_driver_that_hangs)
{
	struct pst_cmd_device_stat s;
	struct pst_error err;

	self->w.at.times = (struct device_times){20000, 20, 10, 200, 100, 600000};
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes != PST_UNKNOWN);
	WORLD_WAIT(&self->w, GPU1, s.out_memory_bytes != PST_UNKNOWN);
	self->s->fn[STANDIN_nvmlDeviceGetUtilizationRates].hang = 1;
	WORLD_WAIT(&self->w, GPU0, strstr((char *)s.out_note, "has not answered"));
	s = world_stat(&self->w, GPU0);
	EXPECT_EQ(120000u, s.out_power_mw); /* as it was */
	EXPECT_EQ(-ETIMEDOUT,
		  world_power(&self->w, GPU0, PST_DEVICE_POWER_CAP, 300000, 0, 0, &err));
	EXPECT_TRUE(strstr(err.text, "not answered"));
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, world_stat(&self->w, GPU0).out_health);
	/* what was given up is not done later */
	self->s->fn[STANDIN_nvmlDeviceGetUtilizationRates].hang = 0;
	WORLD_WAIT(&self->w, GPU0, !s.out_note[0]);
	EXPECT_EQ(700000u, self->s->gpu[0].cap_mw);
}

/* One that is silent for long is lost, until it answers. */
TEST_F(gpus, a_driver_that_hangs_for_long)
{
	struct pst_event e;

	self->s->ngpus = 1;
	self->w.at.times = (struct device_times){20000, 20, 10, 100, 100, 300};
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes != PST_UNKNOWN);
	self->s->fn[STANDIN_nvmlDeviceGetUtilizationRates].hang = 1;
	do
		e = world_event(&self->w);
	while (e.value != PST_HEALTH_LOST);
	EXPECT_TRUE(strstr((char *)e.text, "has not answered"));
	self->s->fn[STANDIN_nvmlDeviceGetUtilizationRates].hang = 0;
	do
		e = world_event(&self->w);
	while (e.value != PST_HEALTH_OK);
}

/* The end does not wait for a driver that hangs. */
TEST_F(gpus, the_end_of_one_that_hangs)
{
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_memory_bytes != PST_UNKNOWN);
	self->s->fn[STANDIN_nvmlDeviceGetMemoryInfo].hang = 1;
	world_run(&self->w, 100);
	world_close(&self->w);
	/* and who was left behind finds the end when it gets on, and frees what it has */
	self->s->fn[STANDIN_nvmlDeviceGetMemoryInfo].hang = 0;
	usleep(50000);
}

TEST_F(gpus, a_driver_that_does_not_begin)
{
	self->s->fn[STANDIN_nvmlInit_v2].hang = 1;
	self->w.at.times = (struct device_times){50, 20, 10, 100, 100, 1000};
	world_open(&self->w);
	EXPECT_EQ(1u, devices_count(self->w.devices));
	self->s->fn[STANDIN_nvmlInit_v2].hang = 0;
	usleep(50000);
}

TEST_F(gpus, what_is_out_of_range)
{
	static const struct {
		uint32_t flags, cap, min, max;
	} bad[] = {
		{PST_DEVICE_POWER_CAP, 199999, 0, 0},
		{PST_DEVICE_POWER_CAP, 700001, 0, 0},
		{PST_DEVICE_POWER_CLOCK, 0, 344, 1000},
		{PST_DEVICE_POWER_CLOCK, 0, 345, 1981},
	};
	struct pst_error err;

	world_open(&self->w);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		EXPECT_EQ(-ERANGE, world_power(&self->w, GPU0, bad[i].flags, bad[i].cap, bad[i].min,
					       bad[i].max, &err));
		EXPECT_NE('\0', err.text[0]);
	}
	EXPECT_EQ(0u, self->s->fn[STANDIN_nvmlDeviceSetPowerManagementLimit].calls);
	EXPECT_EQ(0u, self->s->fn[STANDIN_nvmlDeviceSetGpuLockedClocks].calls);
}

static void set_both(struct world *w)
{
	struct pst_error err;

	WORLD_WAIT(w, GPU1, s.out_cap_mw == 700000);
	ASSERT_OK(world_power(w, GPU1, PST_DEVICE_POWER_CAP | PST_DEVICE_POWER_CLOCK, 300000, 500,
			      900, &err),
		  &err);
}

static void expect_set(const struct standin *s)
{
	EXPECT_EQ(300000u, s->gpu[1].cap_mw);
	EXPECT_EQ(500u, s->gpu[1].locked_min_mhz);
	EXPECT_EQ(900u, s->gpu[1].locked_max_mhz);
	EXPECT_EQ(700000u, s->gpu[0].cap_mw);
	EXPECT_EQ(0u, s->gpu[0].locked_max_mhz);
}

static void expect_as_found(const struct standin *s)
{
	EXPECT_EQ(700000u, s->gpu[1].cap_mw);
	EXPECT_EQ(0u, s->gpu[1].locked_max_mhz);
}

TEST_F(gpus, set_and_reset)
{
	struct pst_error err;

	world_open(&self->w);
	set_both(&self->w);
	expect_set(self->s);
	WORLD_WAIT(&self->w, GPU1, s.out_cap_mw == 300000);
	EXPECT_EQ(500u, world_stat(&self->w, GPU1).out_clock_min_mhz);
	EXPECT_EQ(900u, world_stat(&self->w, GPU1).out_clock_max_mhz);
	ASSERT_OK(world_power(&self->w, GPU1, PST_DEVICE_POWER_CAP, 400000, 0, 0, &err), &err);
	ASSERT_OK(world_power(&self->w, GPU1, PST_DEVICE_POWER_RESET, 0, 0, 0, &err), &err);
	expect_as_found(self->s);
	EXPECT_EQ(1980u, world_stat(&self->w, GPU1).out_clock_max_mhz);
}

TEST_F(gpus, put_back_in_the_end)
{
	world_open(&self->w);
	set_both(&self->w);
	world_close(&self->w);
	expect_as_found(self->s);
}

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

TEST_F(gpus, put_back_by_the_next_daemon)
{
	struct pst_cmd_device_stat s;
	struct standin_gpu one;

	in_a_killed_one(&self->w, set_both);
	expect_set(self->s);
	/* the driver counts otherwise after it was loaded again: the UUID tells which it is */
	memcpy(&one, &self->s->gpu[1], sizeof(one));
	memcpy(&self->s->gpu[1], &self->s->gpu[0], sizeof(one));
	memcpy(&self->s->gpu[0], &one, sizeof(one));
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_cap_mw == 300000);
	s = world_stat(&self->w, GPU0);
	EXPECT_EQ(500u, s.out_clock_min_mhz);
	EXPECT_EQ(900u, s.out_clock_max_mhz);
	world_close(&self->w);
	EXPECT_EQ(700000u, self->s->gpu[0].cap_mw);
	EXPECT_EQ(0u, self->s->gpu[0].locked_max_mhz);
}

TEST_F(gpus, reset_by_the_next_daemon)
{
	struct pst_error err;

	in_a_killed_one(&self->w, set_both);
	world_open(&self->w);
	ASSERT_OK(world_power(&self->w, GPU1, PST_DEVICE_POWER_RESET, 0, 0, 0, &err), &err);
	expect_as_found(self->s);
}

/* What cannot be put back now is left to the next daemon. */
TEST_F(gpus, lost_in_the_end)
{
	world_open(&self->w);
	set_both(&self->w);
	self->s->gpu[1].lost = 1;
	world_close(&self->w);
	expect_set(self->s);
	self->s->gpu[1].lost = 0;
	world_open(&self->w);
	world_close(&self->w);
	expect_as_found(self->s);
}

TEST_F(gpus, all_or_nothing)
{
	struct pst_error err;

	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU1, s.out_cap_mw == 700000);
	self->s->fn[STANDIN_nvmlDeviceSetGpuLockedClocks].fail_in = 1;
	self->s->fn[STANDIN_nvmlDeviceSetGpuLockedClocks].fail_rc = 3;
	EXPECT_EQ(-ENODEV,
		  world_power(&self->w, GPU1, PST_DEVICE_POWER_CAP | PST_DEVICE_POWER_CLOCK, 300000,
			      500, 900, &err));
	expect_as_found(self->s);
}

TEST_F(gpus, who_may_not_is_told_so)
{
	struct pst_error err;

	self->s->gpu[0].no_permission = 1;
	world_open(&self->w);
	WORLD_WAIT(&self->w, GPU0, s.out_cap_mw == 700000);
	EXPECT_EQ(-EPERM, world_power(&self->w, GPU0, PST_DEVICE_POWER_CAP, 300000, 0, 0, &err));
	EXPECT_TRUE(strstr(err.text, "root"));
	EXPECT_EQ(-EPERM, world_power(&self->w, GPU0, PST_DEVICE_POWER_CLOCK, 0, 500, 900, &err));
}

TEST_MAIN
