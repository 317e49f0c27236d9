/* SPDX-License-Identifier: Apache-2.0 */
/* Workers and servers of a penstockd, through its door: real programs all of them. */
#include "selftests/control/daemon.h"

#include <sys/prctl.h>
#include <sys/stat.h>

/* fields of structs have many types */
#define EXPECT_N(want, got) EXPECT_EQ((int64_t)(want), (int64_t)(got))

#define CHILDREN "[children]\nsilence = 20s\n"

FIXTURE(workers)
{
	struct daemon d;
	struct pst_control *control;
};

/* Over tcp there must be one. */
static void write_key(const char *path)
{
	FILE *f = fopen(path, "w");

	ASSERT_NE(NULL, f);
	ASSERT_EQ(0, fchmod(fileno(f), 0600));
	fputs("a key for this test only, of many bytes\n", f);
	ASSERT_EQ(0, fclose(f));
}

FIXTURE_SETUP(workers)
{
	char config[512], key[160];

	/* what a killed daemon leaves is this process's to end */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	daemon_init(&self->d);
	snprintf(key, sizeof(key), "%s/key", self->d.folder);
	write_key(key);
	snprintf(config, sizeof(config),
		 "[daemon]\nkey = %s\n" CHILDREN "[worker one]\ndevice = cpu:0\nthreads = 1\n",
		 key);
	daemon_configure(&self->d, config);
	daemon_run(&self->d);
	self->control = daemon_connect(&self->d);
}

FIXTURE_TEARDOWN(workers)
{
	pst_control_close(self->control);
	if (self->d.pid)
		EXPECT_EQ(0, daemon_stop(&self->d));
}

static struct pst_cmd_worker_stat stat_of(struct fixture_workers *self, uint32_t id)
{
	struct pst_cmd_worker_stat s = {.size = sizeof(s), .id = id};
	struct pst_error err = {0};

	ASSERT_OK(pst_control_call(self->control, PST_CMD_WORKER_STAT, &s, &err), &err);
	return s;
}

static bool serves(struct fixture_workers *self, uint32_t id)
{
	return stat_of(self, id).out_state == PST_WORKER_SERVING;
}

static bool ended(uint32_t pid)
{
	/* one that was adopted by this process waits for it */
	waitpid((pid_t)pid, NULL, WNOHANG);
	return kill((pid_t)pid, 0) && errno == ESRCH;
}

static uint32_t start(struct fixture_workers *self, struct pst_cmd_worker_start *how)
{
	struct pst_error err = {0};

	how->size = sizeof(*how);
	how->threads = 1;
	ASSERT_OK(pst_control_call(self->control, PST_CMD_WORKER_START, how, &err), &err);
	return how->out_id;
}

TEST_F(workers, started_and_stopped)
{
	struct pst_cmd_worker_start how = {.url = "tcp://127.0.0.1:0"};
	struct pst_cmd_worker_stop stop = {.size = sizeof(stop)};
	struct pst_cmd_worker_stat s;
	struct pst_error err = {0};

	WAIT_FOR(serves(self, 1));
	s = stat_of(self, 1);
	EXPECT_N(1, s.out_threads);
	EXPECT_TRUE(!strncmp((char *)s.out_url, "shm://", 6));
	EXPECT_EQ(-ENOENT,
		  pst_control_call(self->control, PST_CMD_WORKER_STOP,
				   &(struct pst_cmd_worker_stop){.size = 16, .id = 9}, NULL));
	start(self, &how);
	EXPECT_N(2, how.out_id);
	EXPECT_TRUE(!strncmp((char *)how.out_url, "tcp://127.0.0.1:", 16));
	EXPECT_TRUE(strcmp((char *)how.out_url, "tcp://127.0.0.1:0") != 0);
	EXPECT_N(how.out_pid, stat_of(self, 2).out_pid);
	/* the port is taken, and the daemon says so */
	memcpy(how.url, how.out_url, sizeof(how.url));
	how.out_id = 0;
	how.size = sizeof(how);
	EXPECT_EQ(-EADDRINUSE, pst_control_call(self->control, PST_CMD_WORKER_START, &how, &err));
	EXPECT_TRUE(err.text[0]);
	stop.id = 2;
	EXPECT_EQ(0, pst_control_call(self->control, PST_CMD_WORKER_STOP, &stop, NULL));
	EXPECT_N(PST_WORKER_STOPPED, stat_of(self, 2).out_state);
}

TEST_F(workers, drained)
{
	struct pst_cmd_worker_drain drain = {.size = sizeof(drain), .id = 1};
	struct pst_error err = {0};

	WAIT_FOR(serves(self, 1));
	ASSERT_OK(pst_control_call(self->control, PST_CMD_WORKER_DRAIN, &drain, &err), &err);
	EXPECT_N(PST_WORKER_STOPPED, stat_of(self, 1).out_state);
	EXPECT_N(0, stat_of(self, 1).out_restarts);
}

TEST_F(workers, killed_and_started_again)
{
	struct pst_cmd_worker_stat s;

	WAIT_FOR(serves(self, 1));
	s = stat_of(self, 1);
	kill((pid_t)s.out_pid, SIGKILL);
	WAIT_FOR(stat_of(self, 1).out_restarts == 1 && serves(self, 1));
	EXPECT_STREQ((char *)s.out_url, (char *)stat_of(self, 1).out_url);
	EXPECT_NE(s.out_pid, stat_of(self, 1).out_pid);
}

/* The next daemon has the same processes, and ends them when it is told to end. */
TEST_F(workers, outlive_the_daemon)
{
	struct pst_cmd_worker_start how = {0};
	struct pst_cmd_worker_stat one, two;

	WAIT_FOR(serves(self, 1));
	start(self, &how);
	one = stat_of(self, 1);
	two = stat_of(self, 2);
	for (int i = 0; i < 3; i++) {
		pst_control_close(self->control);
		daemon_kill(&self->d);
		EXPECT_FALSE(ended(one.out_pid));
		daemon_run(&self->d);
		self->control = daemon_connect(&self->d);
		WAIT_FOR(serves(self, 1) && serves(self, 2));
		EXPECT_N(one.out_pid, stat_of(self, 1).out_pid);
		EXPECT_N(two.out_pid, stat_of(self, 2).out_pid);
		EXPECT_N(0, stat_of(self, 1).out_restarts);
		EXPECT_STREQ((char *)two.out_url, (char *)stat_of(self, 2).out_url);
	}
	/* one that dies while there is none is started again */
	pst_control_close(self->control);
	daemon_kill(&self->d);
	kill((pid_t)two.out_pid, SIGKILL);
	WAIT_FOR(ended(two.out_pid));
	daemon_run(&self->d);
	self->control = daemon_connect(&self->d);
	WAIT_FOR(stat_of(self, 2).out_restarts == 1 && serves(self, 2));
	EXPECT_STREQ((char *)two.out_url, (char *)stat_of(self, 2).out_url);
	/* a well-meant end for a newer daemon leaves them too, SIGTERM does not */
	kill(self->d.pid, SIGUSR2);
	EXPECT_EQ(self->d.pid, waitpid(self->d.pid, NULL, 0));
	EXPECT_FALSE(ended(one.out_pid));
	pst_control_close(self->control);
	daemon_run(&self->d);
	self->control = daemon_connect(&self->d);
	EXPECT_N(one.out_pid, stat_of(self, 1).out_pid);
	EXPECT_EQ(0, daemon_stop(&self->d));
	WAIT_FOR(ended(one.out_pid));
}

TEST_F(workers, experts_and_tables_there_are_none)
{
	struct pst_cmd_expert_stat e = {.size = sizeof(e),
					.flags = PST_STAT_NEXT,
					.layer = PST_EXPERT_FIRST,
					.index = PST_EXPERT_FIRST};
	struct pst_cmd_expert_place p = {.size = sizeof(p), .worker = 1, .order = PST_EXPERT_PIN};
	struct pst_cmd_table_stat t = {.size = sizeof(t), .flags = PST_STAT_NEXT};
	struct pst_cmd_server_stat s = {.size = sizeof(s), .flags = PST_STAT_NEXT};
	struct pst_error err = {0};

	WAIT_FOR(serves(self, 1));
	EXPECT_EQ(-ENOENT, pst_control_call(self->control, PST_CMD_EXPERT_STAT, &e, NULL));
	EXPECT_EQ(-ENOENT, pst_control_call(self->control, PST_CMD_TABLE_STAT, &t, NULL));
	EXPECT_EQ(-ENOENT, pst_control_call(self->control, PST_CMD_SERVER_STAT, &s, NULL));
	EXPECT_EQ(-ENODATA, pst_control_call(self->control, PST_CMD_EXPERT_PLACE, &p, &err));
	EXPECT_TRUE(err.text[0]);
	p.order = 9;
	EXPECT_EQ(-EINVAL, pst_control_call(self->control, PST_CMD_EXPERT_PLACE, &p, NULL));
	p.order = PST_EXPERT_PIN;
	p.worker = 9;
	EXPECT_EQ(-ENOENT, pst_control_call(self->control, PST_CMD_EXPERT_PLACE, &p, NULL));
}

TEST_F(workers, a_server_of_the_config)
{
	struct pst_cmd_server_stat s = {.size = sizeof(s), .id = 1};
	char config[256];
	uint32_t pid;

	snprintf(config, sizeof(config),
		 CHILDREN "[server s]\nthreads = 1\nurl = shm://test-server-%d\n", (int)getpid());
	daemon_configure(&self->d, config);
	kill(self->d.pid, SIGHUP);
	WAIT_FOR(!pst_control_call(self->control, PST_CMD_SERVER_STAT, &s, NULL) && s.out_pid);
	WAIT_FOR(stat_of(self, 1).out_state == PST_WORKER_STOPPED);
	pid = s.out_pid;
	kill((pid_t)pid, SIGKILL);
	WAIT_FOR(!pst_control_call(self->control, PST_CMD_SERVER_STAT, &s, NULL) &&
		 s.out_restarts == 1 && s.out_pid);
	EXPECT_NE(pid, s.out_pid);
}

TEST_MAIN
