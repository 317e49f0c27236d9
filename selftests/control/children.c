/* SPDX-License-Identifier: Apache-2.0 */
/* The set of children, with doubles of the children. */
#include "daemon/events.h"
#include "selftests/control/double.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>

/* fields of structs have many types */
#define EXPECT_N(want, got) EXPECT_EQ((int64_t)(want), (int64_t)(got))
#define ASSERT_N(want, got) ASSERT_EQ((int64_t)(want), (int64_t)(got))

/* How an order ended. */
struct ended {
	unsigned int times;
	int rc;
	struct pst_error err;
	struct pst_leash_checked checked;
};

FIXTURE(set)
{
	struct penstockd d;
	struct children *c;
	struct loop_timer tick;
	struct children_listener listener;
	struct ended ended;
	uint32_t hellos, gpus, deaths, last_death;
	int last_sig;
	bool last_hung;
};

static struct fixture_set *now; /* whose tick it is */

static void on_tick(struct loop_timer *timer)
{
	(void)timer;
	loop_end(now->d.loop);
}

/* A turn of the daemon's loop. */
static void turn(struct fixture_set *self)
{
	now = self;
	self->tick.fire = on_tick;
	loop_after(self->d.loop, &self->tick, 2);
	ASSERT_EQ(0, loop_run(self->d.loop));
}

#define UNTIL(cond)     \
	while (!(cond)) \
	turn(self)

static void on_hello(struct children_listener *l, uint32_t id, uint32_t kind)
{
	(void)l;
	EXPECT_TRUE(kind == PST_DEVICE_CPU || kind == PST_DEVICE_GPU);
	EXPECT_GT(id, 0u);
	now->hellos++;
	now->gpus += kind == PST_DEVICE_GPU;
}

static void on_died(struct children_listener *l, uint32_t id, int sig, bool hung)
{
	(void)l;
	now->deaths++;
	now->last_death = id;
	now->last_sig = sig;
	now->last_hung = hung;
}

static void on_end(void *ctx, int rc, const struct pst_error *err, const struct pst_leash *answer)
{
	struct ended *e = ctx;

	e->times++;
	e->rc = rc;
	EXPECT_EQ(rc < 0, err != NULL);
	if (err)
		e->err = *err;
	if (answer)
		memcpy(&e->checked, answer, sizeof(e->checked));
}

/* A daemon takes over what there is. */
static void begin(struct fixture_set *self)
{
	struct pst_error err = {0};

	now = self;
	ASSERT_OK(children_open(&self->d, &self->c, &err), &err);
	self->c->times.again_ms = 1;
	self->c->times.again_max_ms = 4;
	self->c->times.stop_ms = 200;
	self->listener = (struct children_listener){.hello = on_hello, .died = on_died};
	children_listen(self->c, &self->listener);
}

FIXTURE_SETUP(set)
{
	double_install();
	self->d.config.silence_ms = 5000;
	ASSERT_EQ(0, loop_new(&self->d.loop));
	ASSERT_EQ(0, events_new(self->d.loop, &self->d.events));
	begin(self);
}

FIXTURE_TEARDOWN(set)
{
	children_close(self->c, true);
	EXPECT_N(0, double_kept());
	events_free(self->d.events);
	loop_cancel(self->d.loop, &self->tick);
	loop_free(self->d.loop);
}

static uint32_t start_at(struct fixture_set *self, const char *url)
{
	struct pst_cmd_worker_start how = {.size = sizeof(how)};
	struct pst_error err = {0};
	struct ended e = {0};
	uint32_t id = 0;

	snprintf((char *)how.url, sizeof(how.url), "%s", url);
	ASSERT_OK(children_start(self->c, &how, on_end, &e, &id, &err), &err);
	UNTIL(e.times);
	ASSERT_OK(e.rc, &e.err);
	return id;
}

static uint32_t start(struct fixture_set *self)
{
	return start_at(self, "");
}

static struct pst_cmd_worker_stat stat_of(struct fixture_set *self, uint32_t id)
{
	struct pst_cmd_worker_stat s = {.size = sizeof(s), .id = id};

	ASSERT_EQ(0, children_worker(self->c, false, &s));
	return s;
}

static uint32_t state(struct fixture_set *self, uint32_t id)
{
	return stat_of(self, id).out_state;
}

static bool runs(pid_t pid)
{
	return !kill(pid, 0);
}

static uint64_t events(struct fixture_set *self, uint32_t type)
{
	return events_count(self->d.events, type);
}

TEST_F(set, starts)
{
	struct pst_cmd_worker_stat s = {.size = sizeof(s)};
	uint32_t id = start(self), other = start_at(self, "shm://my-own");

	EXPECT_N(1, id);
	EXPECT_N(2, other);
	EXPECT_N(2, children_workers(self->c));
	UNTIL(stat_of(self, id).out_rows);
	s = stat_of(self, id);
	EXPECT_N(PST_WORKER_SERVING, s.out_state);
	EXPECT_N(1, s.out_device);
	EXPECT_N(2, s.out_threads);
	EXPECT_N(0, s.out_restarts);
	EXPECT_N(1, s.out_engines);
	EXPECT_N(10, s.out_rows);
	EXPECT_N(3, s.out_calls);
	EXPECT_TRUE(!strncmp((char *)s.out_url, "shm://penstock-worker-1-", 24));
	EXPECT_TRUE(runs((pid_t)s.out_pid));
	EXPECT_STREQ("shm://my-own", (char *)stat_of(self, other).out_url);
	EXPECT_N(2, events(self, PST_EVENT_STARTED));
	EXPECT_N(2, self->hellos);
	/* the walk */
	s.id = 0;
	EXPECT_EQ(0, children_worker(self->c, true, &s));
	EXPECT_N(1, s.id);
	EXPECT_EQ(0, children_worker(self->c, true, &s));
	EXPECT_N(2, s.id);
	EXPECT_EQ(-ENOENT, children_worker(self->c, true, &s));
	EXPECT_N(2, s.id);
}

TEST_F(set, what_is_killed_is_started_again)
{
	uint32_t id = start(self);
	struct pst_cmd_worker_stat s, then;

	UNTIL((s = stat_of(self, id)).out_rows);
	for (int i = 1; i < 4; i++) {
		kill((pid_t)stat_of(self, id).out_pid, SIGTERM);
		UNTIL(state(self, id) == PST_WORKER_SERVING &&
		      stat_of(self, id).out_restarts == (uint32_t)i &&
		      stat_of(self, id).out_rows == 10 + 10u * (unsigned int)i);
	}
	then = stat_of(self, id);
	EXPECT_NE(s.out_pid, then.out_pid);
	EXPECT_STREQ((char *)s.out_url, (char *)then.out_url);
	EXPECT_N(12, then.out_calls);
	EXPECT_TRUE(strstr((char *)then.out_note, "signal 15"));
	EXPECT_N(3, events(self, PST_EVENT_DIED));
	EXPECT_N(4, events(self, PST_EVENT_STARTED));
	EXPECT_N(3, self->deaths);
	EXPECT_N(id, self->last_death);
	EXPECT_N(SIGTERM, self->last_sig);
	EXPECT_FALSE(self->last_hung);
	EXPECT_FALSE(runs((pid_t)s.out_pid));
}

/* Stopped, as a hung one is seen from outside. */
TEST_F(set, what_hangs_is_killed)
{
	uint32_t id, other;
	struct pst_cmd_worker_stat s;

	self->d.config.silence_ms = 200;
	id = start(self);
	other = start(self);
	s = stat_of(self, id);
	kill((pid_t)s.out_pid, SIGSTOP);
	UNTIL(stat_of(self, id).out_restarts == 1 && state(self, id) == PST_WORKER_SERVING);
	EXPECT_FALSE(runs((pid_t)s.out_pid));
	EXPECT_N(1, events(self, PST_EVENT_HUNG));
	EXPECT_N(0, events(self, PST_EVENT_DIED));
	EXPECT_TRUE(strstr((char *)stat_of(self, id).out_note, "no sign of life"));
	EXPECT_N(1, self->deaths);
	EXPECT_TRUE(self->last_hung);
	EXPECT_N(0, stat_of(self, other).out_restarts);
}

TEST_F(set, what_computes_for_ever_is_killed)
{
	uint32_t id;

	self->d.config.silence_ms = 1000;
	double_does("busy");
	id = start(self);
	double_does("");
	UNTIL(stat_of(self, id).out_restarts == 1 && state(self, id) == PST_WORKER_SERVING);
	EXPECT_N(1, events(self, PST_EVENT_HUNG));
	EXPECT_TRUE(strstr((char *)stat_of(self, id).out_note, "computed the same"));
}

TEST_F(set, what_does_not_listen_is_killed)
{
	struct pst_cmd_worker_start how = {.size = sizeof(how)};
	uint32_t id;

	self->c->times.start_ms = 50;
	double_does("break:8");
	ASSERT_EQ(0, children_start(self->c, &how, on_end, &self->ended, &id, NULL));
	UNTIL(self->ended.times);
	EXPECT_N(-ECHILD, self->ended.rc);
}

/* Who stood still itself does not blame others. */
TEST_F(set, a_daemon_that_stood_still_kills_nobody)
{
	uint32_t id;

	self->d.config.silence_ms = 300;
	id = start(self);
	kill((pid_t)stat_of(self, id).out_pid, SIGSTOP);
	usleep(900000);
	kill((pid_t)stat_of(self, id).out_pid, SIGCONT);
	for (int i = 0; i < 100; i++)
		turn(self);
	EXPECT_N(0, stat_of(self, id).out_restarts);
	EXPECT_N(0, events(self, PST_EVENT_HUNG));
}

static void configure(struct fixture_set *self, const char *name, const char *device,
		      const char *url)
{
	struct config_worker *w = &self->d.config.worker[self->d.config.nworkers++];

	snprintf(w->name, sizeof(w->name), "%s", name);
	snprintf(w->device, sizeof(w->device), "%s", device);
	snprintf(w->url, sizeof(w->url), "%s", url);
}

TEST_F(set, what_dies_too_often_has_failed)
{
	double_does("crash");
	configure(self, "a", "cpu:0", "");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(state(self, 1) == PST_WORKER_FAILED);
	EXPECT_GE(events(self, PST_EVENT_DIED), 10u);
	EXPECT_TRUE(strstr((char *)stat_of(self, 1).out_note, "exit status 3"));
	EXPECT_N(1, children_workers(self->c));
	/* it is tried again after a minute, and is well */
	EXPECT_GT(child_find(self->c, PST_LEASH_WORKER, 1)->next.at_ms, loop_now_ms() + 50000);
	loop_after(self->d.loop, &child_find(self->c, PST_LEASH_WORKER, 1)->next, 0);
	double_does("");
	UNTIL(state(self, 1) == PST_WORKER_SERVING);
	EXPECT_GE(stat_of(self, 1).out_restarts, 10u);
}

TEST_F(set, what_cannot_start_says_why)
{
	struct pst_cmd_worker_start how = {.size = sizeof(how)};
	struct pst_cmd_worker_stat s = {.size = sizeof(s)};
	uint32_t id = 0;

	double_does("fail");
	ASSERT_EQ(0, children_start(self->c, &how, on_end, &self->ended, &id, NULL));
	EXPECT_N(1, id);
	EXPECT_N(PST_WORKER_STARTING, state(self, id));
	UNTIL(self->ended.times);
	EXPECT_N(-EADDRINUSE, self->ended.rc);
	EXPECT_TRUE(strstr(self->ended.err.text, "somebody listens there"));
	double_does("crash");
	ASSERT_EQ(0, children_start(self->c, &how, on_end, &self->ended, &id, NULL));
	UNTIL(self->ended.times == 2);
	EXPECT_N(-ECHILD, self->ended.rc);
	EXPECT_TRUE(strstr(self->ended.err.text, "exit status 3"));
	/* ids are not used again */
	EXPECT_N(2, id);
	EXPECT_EQ(-ENOENT, children_worker(self->c, true, &s));
}

TEST_F(set, what_cannot_be_started_is_refused)
{
	struct pst_cmd_worker_start how = {.size = sizeof(how), .device = 3};
	struct pst_error err = {0};
	uint32_t id = 99;

	EXPECT_EQ(-ENOENT, children_start(self->c, &how, on_end, &self->ended, &id, NULL));
	how = (struct pst_cmd_worker_start){.url = "tcp://here?crc=0"};
	EXPECT_EQ(-EINVAL, children_start(self->c, &how, on_end, &self->ended, &id, NULL));
	how.url[0] = 0;
	setenv("PENSTOCK_BIN", "/nonexistent", 1);
	setenv("PATH", "/nonexistent", 1);
	err.code = 0;
	EXPECT_EQ(-ENOENT, children_start(self->c, &how, on_end, &self->ended, &id, &err));
	EXPECT_TRUE(strstr(err.text, "PENSTOCK_BIN"));
	EXPECT_N(99, id);
	for (int i = 0; i < 5; i++)
		turn(self);
	EXPECT_N(0, self->ended.times);
	EXPECT_N(0, double_kept());
}

/* Orders */

TEST_F(set, drained)
{
	uint32_t id = start(self);

	ASSERT_EQ(0, children_drain(self->c, id, 0, on_end, &self->ended));
	EXPECT_N(PST_WORKER_DRAINING, state(self, id));
	UNTIL(self->ended.times);
	EXPECT_N(0, self->ended.rc);
	EXPECT_N(PST_WORKER_STOPPED, state(self, id));
	EXPECT_N(1, events(self, PST_EVENT_DRAINED));
	EXPECT_N(0, events(self, PST_EVENT_DIED));
	EXPECT_N(0, stat_of(self, id).out_pid);
	EXPECT_N(0, children_workers(self->c));
	/* once more is no error */
	ASSERT_EQ(0, children_drain(self->c, id, 0, on_end, &self->ended));
	UNTIL(self->ended.times == 2);
	EXPECT_N(0, self->ended.rc);
	EXPECT_EQ(-ENOENT, children_drain(self->c, 9, 0, on_end, &self->ended));
	for (int i = 0; i < 20; i++)
		turn(self);
	EXPECT_N(1, events(self, PST_EVENT_STARTED));
}

TEST_F(set, drains_on_when_the_time_is_over)
{
	uint32_t id;

	double_does("deaf");
	id = start(self);
	ASSERT_EQ(0, children_drain(self->c, id, 30, on_end, &self->ended));
	UNTIL(self->ended.times);
	EXPECT_N(-ETIMEDOUT, self->ended.rc);
	EXPECT_N(PST_WORKER_DRAINING, state(self, id));
	/* it is not started again whatever its end */
	ASSERT_EQ(0, children_drain(self->c, id, 0, on_end, &self->ended));
	kill((pid_t)stat_of(self, id).out_pid, SIGKILL);
	UNTIL(self->ended.times == 2);
	EXPECT_N(-ECHILD, self->ended.rc);
	EXPECT_N(PST_WORKER_STOPPED, state(self, id));
}

TEST_F(set, stopped)
{
	uint32_t id = start(self), deaf;
	pid_t pid;

	double_does("deaf");
	deaf = start(self);
	pid = (pid_t)stat_of(self, deaf).out_pid;
	ASSERT_EQ(0, children_stop(self->c, id, on_end, &self->ended));
	UNTIL(self->ended.times);
	EXPECT_N(0, self->ended.rc);
	EXPECT_N(PST_WORKER_STOPPED, state(self, id));
	/* one that does not is killed */
	ASSERT_EQ(0, children_stop(self->c, deaf, on_end, &self->ended));
	UNTIL(self->ended.times == 2);
	EXPECT_N(0, self->ended.rc);
	EXPECT_N(PST_WORKER_STOPPED, state(self, deaf));
	EXPECT_FALSE(runs(pid));
	EXPECT_N(2, events(self, PST_EVENT_STOPPED));
	EXPECT_EQ(-ENOENT, children_stop(self->c, 9, on_end, &self->ended));
}

TEST_F(set, orders_are_answered)
{
	struct pst_cmd_expert_place how = {.order = PST_EXPERT_PIN};
	uint32_t id = start(self);

	ASSERT_EQ(0, children_place(self->c, id, &how, on_end, &self->ended));
	UNTIL(self->ended.times);
	EXPECT_N(0, self->ended.rc);
	how.order = PST_EXPERT_EVICT;
	ASSERT_EQ(0, children_place(self->c, id, &how, on_end, &self->ended));
	UNTIL(self->ended.times == 2);
	EXPECT_N(-ENODATA, self->ended.rc);
	EXPECT_STREQ("no such expert", self->ended.err.text);
	ASSERT_EQ(0, children_check(self->c, id, "gemm", 123, on_end, &self->ended));
	UNTIL(self->ended.times == 3);
	EXPECT_N(0, self->ended.rc);
	EXPECT_N(123, self->ended.checked.error_ppb);
	EXPECT_N(5, self->ended.checked.kernel);
	EXPECT_STREQ("gemm", (char *)self->ended.checked.op);
	EXPECT_EQ(-ENOENT, children_place(self->c, 9, &how, on_end, &self->ended));
	EXPECT_EQ(-ENOENT, children_check(self->c, 9, "gemm", 1, on_end, &self->ended));
	EXPECT_EQ(-ENOENT, children_bind_one(self->c, 9, "gemm", 0, -1, on_end, &self->ended));
}

TEST_F(set, orders_to_the_dead)
{
	struct pst_cmd_expert_place how = {.order = PST_EXPERT_PIN};
	uint32_t id;

	double_does("dumb");
	id = start(self);
	/* it dies with an order */
	ASSERT_EQ(0, children_place(self->c, id, &how, on_end, &self->ended));
	kill((pid_t)stat_of(self, id).out_pid, SIGKILL);
	self->c->times.again_ms = 10000;
	self->c->times.again_max_ms = 10000;
	UNTIL(self->ended.times);
	EXPECT_N(-ECHILD, self->ended.rc);
	EXPECT_TRUE(strstr(self->ended.err.text, "signal 9"));
	/* it is dead */
	ASSERT_EQ(0, children_place(self->c, id, &how, on_end, &self->ended));
	EXPECT_N(1, self->ended.times);
	UNTIL(self->ended.times == 2);
	EXPECT_N(-ECHILD, self->ended.rc);
	EXPECT_N(PST_WORKER_STARTING, state(self, id));
	/* what is not there is stopped at once */
	ASSERT_EQ(0, children_stop(self->c, id, on_end, &self->ended));
	EXPECT_N(PST_WORKER_STOPPED, state(self, id));
	UNTIL(self->ended.times == 3);
	EXPECT_N(0, self->ended.rc);
	ASSERT_EQ(0, children_place(self->c, id, &how, on_end, &self->ended));
	UNTIL(self->ended.times == 4);
	EXPECT_N(-ECHILD, self->ended.rc);
}

TEST_F(set, orders_have_a_time)
{
	uint32_t id;

	double_does("dumb");
	id = start(self);
	self->c->times.order_ms = 30;
	ASSERT_EQ(0, children_check(self->c, id, "gemm", 1, on_end, &self->ended));
	UNTIL(self->ended.times);
	EXPECT_N(-ETIMEDOUT, self->ended.rc);
}

/* One that does not read fills its leash up: that is an error, and nothing waits. */
TEST_F(set, orders_to_one_that_does_not_read)
{
	struct pst_cmd_expert_place how = {.order = PST_EXPERT_PIN};
	uint32_t id = start(self);
	struct ended e = {0};
	unsigned int n = 0;

	kill((pid_t)stat_of(self, id).out_pid, SIGSTOP);
	while (!e.times && n++ < 100000) {
		ASSERT_EQ(0, children_place(self->c, id, &how, on_end, &e));
		if (n % 64 == 0)
			turn(self);
	}
	EXPECT_N(-EAGAIN, e.rc);
	kill((pid_t)stat_of(self, id).out_pid, SIGKILL);
	UNTIL(stat_of(self, id).out_restarts == 1);
	UNTIL(e.times == n);
}

TEST_F(set, kernels_are_bound_everywhere)
{
	int image = memfd_create("image", MFD_CLOEXEC);

	/* nobody: soon, but not before the call returns */
	ASSERT_EQ(0,
		  children_bind(self->c, PST_DEVICE_CPU, "gemm", 5, image, on_end, &self->ended));
	EXPECT_N(0, self->ended.times);
	UNTIL(self->ended.times);
	EXPECT_N(0, self->ended.rc);
	start(self);
	start(self);
	ASSERT_EQ(0,
		  children_bind(self->c, PST_DEVICE_CPU, "gemm", 5, image, on_end, &self->ended));
	UNTIL(self->ended.times == 2);
	EXPECT_N(0, self->ended.rc);
	ASSERT_EQ(0, children_bind(self->c, PST_DEVICE_CPU, "gemm", 5, -1, on_end, &self->ended));
	UNTIL(self->ended.times == 3);
	EXPECT_N(-EBADF, self->ended.rc);
	ASSERT_EQ(0, children_bind_one(self->c, 2, "gemm", 0, -1, on_end, &self->ended));
	UNTIL(self->ended.times == 4);
	EXPECT_N(0, self->ended.rc);
	/* one that crashes them is told by their deaths */
	ASSERT_EQ(0,
		  children_bind(self->c, PST_DEVICE_CPU, "gemm", 66, image, on_end, &self->ended));
	UNTIL(self->ended.times == 5);
	EXPECT_N(0, self->ended.rc);
	EXPECT_N(2, self->deaths);
	EXPECT_N(SIGABRT, self->last_sig);
	UNTIL(self->hellos == 4);
	close(image);
}

/* Broken children */

TEST_F(set, who_breaks_the_rules_is_killed)
{
	char does[16];

	self->c->times.stop_ms = 30;
	self->d.config.silence_ms = 5000;
	for (uint32_t i = 0; i < DOUBLE_RULES - 1; i++) {
		uint32_t id;

		snprintf(does, sizeof(does), "break:%u", i);
		double_does(does);
		id = start(self);
		double_does("");
		UNTIL(stat_of(self, id).out_restarts >= 1 && state(self, id) == PST_WORKER_SERVING);
		EXPECT_TRUE(strstr((char *)stat_of(self, id).out_note, "on its leash"));
	}
}

TEST_F(set, a_server_has_no_experts)
{
	struct pst_cmd_server_stat s = {.size = sizeof(s), .id = 1};
	struct config_server *how = &self->d.config.server[self->d.config.nservers++];

	snprintf(how->name, sizeof(how->name), "s");
	how->node = PST_ANY;
	double_does("break:6");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(!children_server(self->c, false, &s) && s.out_restarts);
	EXPECT_TRUE(strstr((char *)s.out_note, "EXPERT"));
}

TEST_F(set, who_shouts_does_not_drown_others)
{
	struct pollfd p = {.events = POLLIN};
	siginfo_t stopped;
	uint32_t loud, id;

	double_does("flood");
	loud = start(self);
	double_does("");
	id = start(self);
	UNTIL(stat_of(self, id).out_rows);
	ASSERT_EQ(0, children_stop(self->c, id, on_end, &self->ended));
	UNTIL(self->ended.times);
	EXPECT_N(0, self->ended.rc);
	EXPECT_N(PST_WORKER_SERVING, state(self, loud));
	/* of what fills its leash one turn reads a part */
	usleep(50000);
	ASSERT_EQ(0, kill((pid_t)stat_of(self, loud).out_pid, SIGSTOP));
	ASSERT_EQ(0, waitid(P_PID, stat_of(self, loud).out_pid, &stopped, WSTOPPED | WNOWAIT));
	p.fd = child_find(self->c, PST_LEASH_WORKER, loud)->leash.fd;
	child_read(child_find(self->c, PST_LEASH_WORKER, loud), false);
	EXPECT_EQ(1, poll(&p, 1, 0));
	child_read(child_find(self->c, PST_LEASH_WORKER, loud), true);
	EXPECT_EQ(0, poll(&p, 1, 0));
}

/* Figures */

static struct pst_cmd_expert_stat expert(struct fixture_set *self, uint32_t index)
{
	struct pst_cmd_expert_stat e = {.size = sizeof(e), .layer = 7, .index = index};

	children_expert(self->c, false, &e);
	return e;
}

TEST_F(set, experts_of_all_workers)
{
	struct pst_cmd_expert_stat e = {
		.size = sizeof(e), .layer = PST_EXPERT_FIRST, .index = PST_EXPERT_FIRST};
	uint32_t id, other;

	EXPECT_EQ(-ENOENT, children_expert(self->c, true, &e));
	id = start(self);
	other = start(self);
	UNTIL(expert(self, 1).out_copies == 2);
	e.layer = e.index = PST_EXPERT_FIRST;
	ASSERT_EQ(0, children_expert(self->c, true, &e));
	EXPECT_N(7, e.layer);
	EXPECT_N(0, e.index);
	EXPECT_N(64, e.out_bytes);
	EXPECT_N(20, e.out_rows);
	EXPECT_N(0, e.out_pinned);
	EXPECT_N(3, e.out_workers);
	ASSERT_EQ(0, children_expert(self->c, true, &e));
	EXPECT_N(1, e.index);
	EXPECT_N(2, e.out_pinned);
	EXPECT_EQ(-ENOENT, children_expert(self->c, true, &e));
	/* a copy dies with its worker, what was counted does not */
	self->c->times.again_ms = self->c->times.again_max_ms = 10000;
	kill((pid_t)stat_of(self, id).out_pid, SIGKILL);
	UNTIL(expert(self, 0).out_copies == 1);
	EXPECT_N(2, expert(self, 0).out_workers);
	EXPECT_N(20, expert(self, 0).out_rows);
	/* what nobody has any more is gone */
	ASSERT_EQ(0, children_stop(self->c, id, NULL, NULL));
	ASSERT_EQ(0, children_stop(self->c, other, on_end, &self->ended));
	UNTIL(self->ended.times);
	e.layer = 7;
	e.index = 0;
	EXPECT_EQ(-ENOENT, children_expert(self->c, false, &e));
}

TEST_F(set, servers_and_tables)
{
	struct pst_cmd_server_stat s = {.size = sizeof(s)};
	struct pst_cmd_table_stat t = {.size = sizeof(t)};
	struct config_server *how = &self->d.config.server[self->d.config.nservers++];

	snprintf(how->name, sizeof(how->name), "s");
	snprintf(how->url, sizeof(how->url), "tcp://host:0");
	how->node = PST_ANY;
	double_does("port");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(!children_table(self->c, true, &t));
	EXPECT_N(1, t.id);
	EXPECT_N(1, t.out_server);
	EXPECT_N(4, t.out_tensors);
	EXPECT_STREQ("table", (char *)t.out_name);
	EXPECT_EQ(0, children_server(self->c, true, &s));
	EXPECT_N(1, s.id);
	EXPECT_STREQ("tcp://host:4711", (char *)s.out_url);
	EXPECT_N(0, children_workers(self->c));
	/* a port that was got is kept, tables go with the process */
	kill((pid_t)s.out_pid, SIGKILL);
	UNTIL(!children_server(self->c, false, &s) && s.out_restarts == 1 && s.out_tables);
	EXPECT_STREQ("tcp://host:4711", (char *)s.out_url);
	t.id = 0;
	EXPECT_EQ(0, children_table(self->c, true, &t));
	EXPECT_N(2, t.id);
	EXPECT_EQ(-ENOENT, children_table(self->c, true, &t));
}

/* From daemon to daemon */

TEST_F(set, the_next_daemon_goes_on)
{
	struct pst_cmd_worker_stat before, s;
	uint32_t id = start(self);

	UNTIL(stat_of(self, id).out_rows);
	kill((pid_t)stat_of(self, id).out_pid, SIGKILL);
	UNTIL(stat_of(self, id).out_restarts == 1 && stat_of(self, id).out_rows == 20);
	before = stat_of(self, id);
	children_close(self->c, false);
	EXPECT_TRUE(runs((pid_t)before.out_pid));
	begin(self);
	UNTIL(state(self, id) == PST_WORKER_SERVING && stat_of(self, id).out_rows > 10);
	s = stat_of(self, id);
	EXPECT_N(before.out_pid, s.out_pid);
	EXPECT_STREQ((char *)before.out_url, (char *)s.out_url);
	EXPECT_N(1, s.out_restarts);
	EXPECT_N(20, s.out_rows);
	EXPECT_N(2, expert(self, 0).out_copies + expert(self, 1).out_copies);
	/* it is this one's now */
	EXPECT_N(2, events(self, PST_EVENT_STARTED));
	kill((pid_t)s.out_pid, SIGKILL);
	UNTIL(stat_of(self, id).out_restarts == 2 && state(self, id) == PST_WORKER_SERVING);
	EXPECT_N(2, start(self));
}

TEST_F(set, what_died_without_a_daemon_is_started_again)
{
	struct pst_cmd_worker_stat before;
	uint32_t id = start(self);

	before = stat_of(self, id);
	children_close(self->c, false);
	kill((pid_t)before.out_pid, SIGKILL);
	ASSERT_EQ((pid_t)before.out_pid, waitpid((pid_t)before.out_pid, NULL, 0));
	begin(self);
	UNTIL(state(self, id) == PST_WORKER_SERVING);
	EXPECT_STREQ((char *)before.out_url, (char *)stat_of(self, id).out_url);
	EXPECT_N(1, stat_of(self, id).out_restarts);
	EXPECT_N(1, events(self, PST_EVENT_DIED));
}

/* Its pid has gone to another process since. */
TEST_F(set, a_pid_alone_is_no_child)
{
	struct pst_cmd_worker_stat before;
	uint32_t id = start(self);
	pid_t pid;

	before = stat_of(self, id);
	children_close(self->c, false);
	/* processes of the same hundredth of a second look alike */
	usleep(30000);
	pid = fork();
	if (!pid)
		pause();
	double_rewrite("pid", pid);
	begin(self);
	UNTIL(state(self, id) == PST_WORKER_SERVING);
	EXPECT_NE(before.out_pid, stat_of(self, id).out_pid);
	EXPECT_NE((uint32_t)pid, stat_of(self, id).out_pid);
	EXPECT_TRUE(runs(pid));
	kill(pid, SIGKILL);
}

TEST_F(set, what_is_kept_badly_is_let_go)
{
	struct pst_cmd_worker_stat s = {.size = sizeof(s)};

	start(self);
	children_close(self->c, false);
	double_rewrite("node", -7);
	begin(self);
	EXPECT_EQ(-ENOENT, children_worker(self->c, true, &s));
	EXPECT_N(0, double_kept());
}

TEST_F(set, a_drain_outlives_the_daemon)
{
	uint32_t id;

	double_does("deaf");
	configure(self, "a", "cpu:0", "");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(state(self, id = 1) == PST_WORKER_SERVING);
	ASSERT_EQ(0, children_drain(self->c, id, 0, on_end, &self->ended));
	children_close(self->c, false);
	/* nobody answers any more */
	EXPECT_N(1, self->ended.times);
	EXPECT_N(-ESHUTDOWN, self->ended.rc);
	begin(self);
	EXPECT_N(PST_WORKER_DRAINING, state(self, id));
	kill((pid_t)stat_of(self, id).out_pid, SIGKILL);
	UNTIL(state(self, id) == PST_WORKER_STOPPED);
	/* and so it stays, though the config names it */
	children_close(self->c, false);
	begin(self);
	EXPECT_N(PST_WORKER_STOPPED, state(self, id));
	EXPECT_N(0, children_workers(self->c));
	ASSERT_EQ(0, children_reload(self->c, NULL));
	EXPECT_N(0, children_workers(self->c));
}

static bool ended_well(pid_t pid)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%d", test_tmpdir(), (int)pid);
	return !access(path, F_OK);
}

TEST_F(set, the_end_of_all)
{
	uint32_t id = start(self), deaf;
	struct ended e = {0};
	pid_t pid[2];

	double_does("deaf");
	deaf = start(self);
	pid[0] = (pid_t)stat_of(self, id).out_pid;
	pid[1] = (pid_t)stat_of(self, deaf).out_pid;
	ASSERT_EQ(0, children_drain(self->c, deaf, 0, on_end, &e));
	children_close(self->c, true);
	EXPECT_FALSE(runs(pid[0]));
	EXPECT_FALSE(runs(pid[1]));
	EXPECT_TRUE(ended_well(pid[0]));
	EXPECT_FALSE(ended_well(pid[1]));
	EXPECT_N(0, double_kept());
	EXPECT_N(-ESHUTDOWN, e.rc);
	begin(self);
}

/* The config */

static void unconfigure(struct fixture_set *self)
{
	memset(self->d.config.worker, 0, sizeof(self->d.config.worker));
	self->d.config.nworkers = 0;
}

TEST_F(set, the_config_is_read_again)
{
	struct pst_cmd_worker_stat s;

	configure(self, "a", "cpu:0", "");
	configure(self, "b", "cpu:0", "shm://b");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(state(self, 1) == PST_WORKER_SERVING && state(self, 2) == PST_WORKER_SERVING);
	s = stat_of(self, 1);
	/* b has other threads, and c is new; a goes on */
	unconfigure(self);
	configure(self, "c", "cpu:0", "");
	configure(self, "a", "cpu:0", "");
	configure(self, "b", "cpu:0", "shm://b");
	self->d.config.worker[2].threads = 7;
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(state(self, 2) == PST_WORKER_STOPPED);
	UNTIL(state(self, 3) == PST_WORKER_SERVING && children_workers(self->c) == 3);
	UNTIL(state(self, 4) == PST_WORKER_SERVING);
	EXPECT_STREQ("shm://b", (char *)stat_of(self, 4).out_url);
	EXPECT_N(s.out_pid, stat_of(self, 1).out_pid);
	EXPECT_N(0, events(self, PST_EVENT_DIED));
	/* nothing is named any more */
	unconfigure(self);
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(!children_workers(self->c));
}

TEST_F(set, the_config_names_what_cannot_be)
{
	configure(self, "a", "cpu:9", "");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(state(self, 1) == PST_WORKER_FAILED);
	EXPECT_TRUE(strstr((char *)stat_of(self, 1).out_note, "cpu:9"));
}

/* Its command line, in one piece with a blank before each word. */
static void words_of(uint32_t pid, char *to, size_t len)
{
	char path[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, to, len - 1);
	close(fd);
	ASSERT_GT(n, 0);
	to[n] = '\0';
	for (ssize_t i = 0; i < n; i++)
		to[i] = to[i] ? to[i] : ' ';
}

TEST_F(set, what_computes)
{
	char words[1024];

	configure(self, "a", "gpu:0", "");
	configure(self, "b", "cpu:0", "");
	ASSERT_EQ(0, children_reload(self->c, NULL));
	UNTIL(state(self, 1) == PST_WORKER_SERVING && state(self, 2) == PST_WORKER_SERVING);
	words_of(stat_of(self, 1).out_pid, words, sizeof(words));
	EXPECT_TRUE(strstr(words, " --device cuda:0 ") != NULL);
	words_of(stat_of(self, 2).out_pid, words, sizeof(words));
	EXPECT_TRUE(strstr(words, "--device") == NULL);
	EXPECT_N(1, now->gpus);
}

int main(int argc, char **argv)
{
	double_main(argc, argv);
	return test_main(argc, argv);
}
