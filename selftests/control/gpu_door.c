/* SPDX-License-Identifier: Apache-2.0 */
/* A penstockd with the stand-in's GPUs, asked and ordered through its door. */
#include "selftests/control/daemon.h"
#include "selftests/gpu/standin.h"

#include <limits.h>
#include <poll.h>

#define GIB (1ull << 30)

FIXTURE(door)
{
	struct daemon d;
	struct standin *s;
	struct pst_control *c;
	uint32_t gpu; /* the id of gpu:0 */
};

static struct pst_cmd_device_stat find_gpu(struct pst_control *c)
{
	struct pst_cmd_device_stat s = {.size = sizeof(s), .flags = PST_STAT_NEXT};
	struct pst_error err = {0};

	do
		ASSERT_OK(pst_control_call(c, PST_CMD_DEVICE_STAT, &s, &err), &err);
	while (s.out_kind != PST_DEVICE_GPU);
	return s;
}

FIXTURE_SETUP(door)
{
	char path[PATH_MAX], self_path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self_path, sizeof(self_path) - 1);

	ASSERT_GT(n, 0);
	self_path[n] = '\0';
	for (int i = 0; i < 2; i++)
		*strrchr(self_path, '/') = '\0';
	snprintf(path, sizeof(path), "%s/standin", test_tmpdir());
	self->s = standin_make(path, 1, 141 * GIB);
	setenv(STANDIN_ENV, path, 1);
	strcat(self_path, "/gpu");
	setenv("LD_LIBRARY_PATH", self_path, 1);
	daemon_start(&self->d, NULL);
	self->c = daemon_connect(&self->d);
	self->gpu = find_gpu(self->c).id;
}
FIXTURE_TEARDOWN(door)
{
	pst_control_close(self->c);
	if (self->d.pid)
		EXPECT_EQ(0, daemon_stop(&self->d));
}

static int power(struct pst_control *c, uint32_t id, uint32_t flags, uint32_t cap, uint32_t min,
		 uint32_t max, struct pst_error *err)
{
	struct pst_cmd_device_power p = {sizeof(p), flags, id, cap, min, max};

	*err = (struct pst_error){0};
	return pst_control_call(c, PST_CMD_DEVICE_POWER, &p, err);
}

/* Until a GPU's cap has been read once. */
static void wait_for_figures(struct pst_control *c)
{
	WAIT_FOR(find_gpu(c).out_cap_mw == 700000);
}

TEST_F(door, stat)
{
	struct pst_cmd_device_stat s;

	wait_for_figures(self->c);
	s = find_gpu(self->c);
	EXPECT_STREQ("Stand-in H200", (char *)s.out_name);
	EXPECT_EQ(141 * GIB, (unsigned long long)s.out_memory_bytes);
	EXPECT_EQ((uint32_t)PST_HEALTH_OK, s.out_health);
}

TEST_F(door, set_reset_and_restored_in_the_end)
{
	struct standin_gpu *g = &self->s->gpu[0];
	struct pst_error err;

	wait_for_figures(self->c);
	ASSERT_OK(power(self->c, self->gpu, PST_DEVICE_POWER_CAP, 300000, 0, 0, &err), &err);
	ASSERT_OK(power(self->c, self->gpu, PST_DEVICE_POWER_CLOCK, 0, 500, 900, &err), &err);
	EXPECT_EQ(300000u, g->cap_mw);
	EXPECT_EQ(900u, g->locked_max_mhz);
	EXPECT_EQ(-ERANGE, power(self->c, self->gpu, PST_DEVICE_POWER_CAP, 1000, 0, 0, &err));
	EXPECT_TRUE(strstr(err.text, "200 to 700 W"));
	EXPECT_EQ(-ENOENT, power(self->c, 999, PST_DEVICE_POWER_CAP, 300000, 0, 0, &err));
	ASSERT_OK(power(self->c, self->gpu, PST_DEVICE_POWER_RESET, 0, 0, 0, &err), &err);
	EXPECT_EQ(700000u, g->cap_mw);
	EXPECT_EQ(0u, g->locked_max_mhz);
	ASSERT_OK(power(self->c, self->gpu, PST_DEVICE_POWER_CAP, 250000, 0, 0, &err), &err);
	EXPECT_EQ(250000u, g->cap_mw);
	EXPECT_EQ(0, daemon_stop(&self->d));
	EXPECT_EQ(700000u, g->cap_mw);
}

/* The next daemon knows what the one that was killed had found. */
TEST_F(door, restored_after_a_kill)
{
	struct standin_gpu *g = &self->s->gpu[0];
	struct pst_error err;

	wait_for_figures(self->c);
	ASSERT_OK(power(self->c, self->gpu, PST_DEVICE_POWER_CAP, 300000, 0, 0, &err), &err);
	ASSERT_OK(power(self->c, self->gpu, PST_DEVICE_POWER_CLOCK, 0, 500, 900, &err), &err);
	daemon_kill(&self->d);
	EXPECT_EQ(300000u, g->cap_mw);
	/* sockets may outlive who was killed by a moment: nobody is to find that one */
	unlink(self->d.socket);
	daemon_run(&self->d);
	pst_control_close(self->c);
	self->c = daemon_connect(&self->d);
	WAIT_FOR(find_gpu(self->c).out_cap_mw == 300000);
	EXPECT_EQ(0, daemon_stop(&self->d));
	EXPECT_EQ(700000u, g->cap_mw);
	EXPECT_EQ(0u, g->locked_max_mhz);
}

static struct pst_event next_event(int fd)
{
	struct pst_event e = {0};
	struct pollfd p = {fd, POLLIN, 0};

	while (poll(&p, 1, -1) <= 0)
		;
	ASSERT_EQ((ssize_t)sizeof(e), read(fd, &e, sizeof(e)));
	return e;
}

TEST_F(door, an_xid_is_an_event)
{
	struct pst_cmd_events how = {.size = sizeof(how),
				     .mask = PST_EVENT_BIT(PST_EVENT_XID) |
					     PST_EVENT_BIT(PST_EVENT_DEVICE)};
	struct pst_error err = {0};
	struct pst_event e;

	ASSERT_OK(pst_control_call(self->c, PST_CMD_EVENTS, &how, &err), &err);
	while (!self->s->fn[STANDIN_nvmlEventSetWait_v2].calls)
		usleep(1000);
	standin_xid(self->s, 0, 48);
	e = next_event(how.out_fd);
	EXPECT_EQ((uint32_t)PST_EVENT_XID, e.type);
	EXPECT_EQ(self->gpu, e.id);
	EXPECT_EQ(48, (int)e.value);
	e = next_event(how.out_fd);
	EXPECT_EQ((uint32_t)PST_EVENT_DEVICE, e.type);
	EXPECT_EQ(PST_HEALTH_DEGRADED, (int)e.value);
	close(how.out_fd);
}

static struct pst_cmd_worker_stat worker(struct pst_control *c, uint32_t id)
{
	struct pst_cmd_worker_stat s = {.size = sizeof(s), .id = id};
	struct pst_error err = {0};

	ASSERT_OK(pst_control_call(c, PST_CMD_WORKER_STAT, &s, &err), &err);
	return s;
}

/* Whatever a GPU of the host does, the same process goes on to serve. */
TEST_F(door, a_worker_survives)
{
	static const int xids[] = {31, 48, 74, 94, 95, 119};
	struct pst_cmd_worker_start how = {.size = sizeof(how), .threads = 1};
	struct standin_gpu *g = &self->s->gpu[0];
	struct pst_error err = {0};
	uint32_t pid;

	wait_for_figures(self->c);
	while (!self->s->fn[STANDIN_nvmlEventSetWait_v2].calls)
		usleep(1000);
	ASSERT_OK(pst_control_call(self->c, PST_CMD_WORKER_START, &how, &err), &err);
	WAIT_FOR(worker(self->c, how.out_id).out_state == PST_WORKER_SERVING);
	pid = worker(self->c, how.out_id).out_pid;
	for (size_t i = 0; i < sizeof(xids) / sizeof(*xids); i++)
		standin_xid(self->s, 0, xids[i]);
	WAIT_FOR(find_gpu(self->c).out_health != PST_HEALTH_OK);
	g->ecc_uncorrected = 3;
	WAIT_FOR(find_gpu(self->c).out_ecc_uncorrected == 3);
	g->lost = 1;
	WAIT_FOR(find_gpu(self->c).out_health == PST_HEALTH_LOST);
	EXPECT_EQ(pid, worker(self->c, how.out_id).out_pid);
	EXPECT_EQ((uint32_t)PST_WORKER_SERVING, worker(self->c, how.out_id).out_state);
	g->lost = 0;
	g->ecc_uncorrected = 0;
	WAIT_FOR(find_gpu(self->c).out_health == PST_HEALTH_OK);
	EXPECT_EQ(pid, worker(self->c, how.out_id).out_pid);
	EXPECT_EQ((uint32_t)PST_WORKER_SERVING, worker(self->c, how.out_id).out_state);
	EXPECT_EQ(0u, worker(self->c, how.out_id).out_restarts);
}

/* The door answers while the driver does not. */
TEST_F(door, a_driver_that_hangs)
{
	wait_for_figures(self->c);
	self->s->fn[STANDIN_nvmlDeviceGetPowerUsage].hang = 1;
	WAIT_FOR(strstr((char *)find_gpu(self->c).out_note, "has not answered"));
	self->s->fn[STANDIN_nvmlDeviceGetPowerUsage].hang = 0;
	WAIT_FOR(!find_gpu(self->c).out_note[0]);
}

TEST_MAIN
