/* SPDX-License-Identifier: Apache-2.0 */
/* The socket itself: what is no request, who does not read, who comes too often, in which order. */
#include "selftests/control/daemon.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define SESSIONS_PER_USER 64

struct request {
	struct pst_door_request head;
	struct pst_cmd_info info;
	unsigned char more[2 * PST_DOOR_MAX];
};

FIXTURE(door)
{
	struct daemon d;
	int fd, fds; /* a session, and how many descriptors the daemon has with it */
	struct request ask;
};
FIXTURE_SETUP(door)
{
	struct pst_cmd_info info = {.size = sizeof(info)};

	daemon_start(&self->d, NULL);
	self->fd = daemon_socket(&self->d);
	ASSERT_EQ(0, raw_call(self->fd, PST_CMD_INFO, &info, sizeof(info)));
	self->fds = daemon_fds(&self->d);
	self->ask.head.cmd = PST_CMD_INFO;
	self->ask.info.size = sizeof(self->ask.info);
}
FIXTURE_TEARDOWN(door)
{
	close(self->fd);
	EXPECT_EQ(0, daemon_stop(&self->d));
}

#define ASK_BYTES (offsetof(struct request, more))

/* It answers, to a caller who was there before and to a new one. */
static void expect_serves(struct fixture_door *self, int fd)
{
	struct pst_cmd_info info = {.size = sizeof(info)};
	int other = daemon_socket(&self->d);

	ASSERT_GE(other, 0);
	EXPECT_EQ(0, raw_call(other, PST_CMD_INFO, &info, sizeof(info)));
	EXPECT_EQ((uint32_t)self->d.pid, info.out_pid);
	close(other);
	EXPECT_EQ(0, raw_call(fd, PST_CMD_INFO, &info, sizeof(info)));
}

static void expect_no_leak(struct fixture_door *self)
{
	int now = 0;

	for (int i = 0; i < 5000; i++) {
		now = daemon_fds(&self->d);
		if (now == self->fds)
			break;
		usleep(1000);
	}
	EXPECT_EQ(self->fds, now);
}

static void expect_cut_off(struct fixture_door *self, const void *bytes, size_t len)
{
	int fd = daemon_socket(&self->d);
	char answer[64];

	ASSERT_GE(fd, 0);
	EXPECT_TRUE(raw_send(fd, bytes, len));
	EXPECT_EQ(0, raw_receive(fd, answer, sizeof(answer)));
	close(fd);
	expect_serves(self, self->fd);
}

/* What breaks the rules of penstock/door.h ends that session, and nothing else. */
TEST_F(door, what_is_no_request)
{
	struct request ask = self->ask;

	for (size_t len = 1; len < sizeof(ask.head); len++)
		expect_cut_off(self, &ask, len);
	ask.head.__reserved = 1;
	expect_cut_off(self, &ask, ASK_BYTES);
	ask.head.__reserved = 0;
	expect_cut_off(self, &ask, ASK_BYTES + 1); /* more than its size says */
	expect_cut_off(self, &ask, sizeof(ask));   /* more than there can be, of a short struct */
	ask.info.size = 0;
	expect_cut_off(self, &ask, ASK_BYTES);
	expect_no_leak(self);
}

static int32_t answer_to(int fd, const void *bytes, size_t len)
{
	struct pst_door_answer answer[64];

	EXPECT_TRUE(raw_send(fd, bytes, len));
	ASSERT_GE(raw_receive(fd, answer, sizeof(answer)), (ssize_t)sizeof(answer[0]));
	return answer[0].rc;
}

/* A struct that is not as long as it should be is an answer, and the session goes on. */
TEST_F(door, structs_that_do_not_fit)
{
	struct request ask = self->ask;

	for (size_t len = 0; len < 8; len++)
		EXPECT_EQ(-EINVAL, answer_to(self->fd, &ask, sizeof(ask.head) + len));
	EXPECT_EQ(-EINVAL, answer_to(self->fd, &ask, ASK_BYTES - 1));
	ask.info.size = PST_DOOR_MAX;
	EXPECT_EQ(-EINVAL, answer_to(self->fd, &ask, ASK_BYTES));
	EXPECT_EQ(0, answer_to(self->fd, &ask, sizeof(ask.head) + PST_DOOR_MAX));
	ask.info.size = PST_DOOR_MAX + 1;
	EXPECT_EQ(-E2BIG, answer_to(self->fd, &ask, sizeof(ask.head) + PST_DOOR_MAX + 1));
	EXPECT_EQ(-E2BIG, answer_to(self->fd, &ask, sizeof(ask)));
	EXPECT_EQ(-E2BIG, answer_to(self->fd, &ask, ASK_BYTES));
	expect_serves(self, self->fd);
}

TEST_F(door, commands_that_are_none)
{
	uint32_t numbers[] = {0, 1, PST_CMD_BASE - 1, PST_CMD_END, 255, 1u << 31, ~0u};
	struct request ask = self->ask;

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		ask.head.cmd = numbers[i];
		EXPECT_EQ(-ENOTTY, answer_to(self->fd, &ask, ASK_BYTES));
		EXPECT_EQ(-ENOTTY, answer_to(self->fd, &ask, sizeof(ask.head)));
	}
	expect_serves(self, self->fd);
}

static bool send_with_fds(int fd, const void *bytes, size_t len, int n)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)] = {0};
	struct iovec iov = {(void *)bytes, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	struct cmsghdr *c;
	bool sent;

	msg.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)n);
	c = CMSG_FIRSTHDR(&msg);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)n);
	for (int i = 0; i < n; i++)
		memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &null, sizeof(int));
	sent = sendmsg(fd, &msg, MSG_NOSIGNAL) == (ssize_t)len;
	close(null);
	return sent;
}

TEST_F(door, descriptors_nobody_asked_for)
{
	struct pst_door_answer answer[64];
	int fd = daemon_socket(&self->d);

	for (int n = 1; n <= PST_DOOR_FDS; n++)
		for (int i = 0; i < 20; i++) {
			ASSERT_TRUE(send_with_fds(self->fd, &self->ask, ASK_BYTES, n));
			ASSERT_GT(raw_receive(self->fd, answer, sizeof(answer)), 0);
			EXPECT_EQ(0, answer[0].rc);
		}
	/* with what is refused, for whatever reason, and with what is cut off, too */
	for (uint32_t cmd = PST_CMD_BASE; cmd <= PST_CMD_END; cmd++) {
		struct request ask = self->ask;

		ask.head.cmd = cmd;
		ask.info.flags = 1u << 31;
		ASSERT_TRUE(send_with_fds(self->fd, &ask, ASK_BYTES, 2));
		ASSERT_GT(raw_receive(self->fd, answer, sizeof(answer)), 0);
		EXPECT_LT(answer[0].rc, 0);
	}
	ASSERT_TRUE(send_with_fds(fd, &self->ask, 4, 2));
	EXPECT_EQ(0, raw_receive(fd, answer, sizeof(answer)));
	close(fd);
	expect_no_leak(self);
}

TEST_F(door, too_many_descriptors)
{
	char answer[64];

	for (int n = PST_DOOR_FDS + 1; n <= 8; n++) {
		int fd = daemon_socket(&self->d);

		ASSERT_TRUE(send_with_fds(fd, &self->ask, ASK_BYTES, n));
		EXPECT_EQ(0, raw_receive(fd, answer, sizeof(answer)));
		close(fd);
	}
	expect_serves(self, self->fd);
	expect_no_leak(self);
}

/* Places among the descriptors that came: beyond them, or one for two fields, is none. */
TEST_F(door, places_of_descriptors)
{
	int places[][3] = {{0, 1, 1}, {1, 0, 1}, {0, 0, 1},  {0, 0, 2},		{1, 1, 2},
			   {2, 0, 2}, {0, 7, 2}, {-1, 0, 2}, {0x7fffffff, 0, 2}};
	struct {
		struct pst_door_request head;
		struct pst_cmd_kernel_load load;
	} ask = {{.cmd = PST_CMD_KERNEL_LOAD}, {.size = sizeof(ask.load)}};
	struct pst_door_answer answer[64];

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		ask.load.image_fd = places[i][0];
		ask.load.manifest_fd = places[i][1];
		ASSERT_TRUE(send_with_fds(self->fd, &ask, sizeof(ask), places[i][2]));
		ASSERT_GT(raw_receive(self->fd, answer, sizeof(answer)), 0);
		EXPECT_EQ(-EBADF, answer[0].rc);
	}
	expect_no_leak(self);
}

TEST_F(door, many_at_once_in_order)
{
	uint32_t cmds[] = {PST_CMD_INFO, PST_CMD_WHY, PST_CMD_POOL_STAT, PST_CMD_END};
	struct request ask = self->ask;

	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 4; i++) {
			ask.head.cmd = cmds[(i + round) % 4];
			ASSERT_TRUE(raw_send(self->fd, &ask, ASK_BYTES));
		}
		for (int i = 0; i < 4; i++) {
			struct pst_door_answer answer[512];

			ASSERT_GT(raw_receive(self->fd, answer, sizeof(answer)), 0);
			EXPECT_EQ(cmds[(i + round) % 4], answer[0].cmd);
		}
	}
}

/* He sends and sends, and reads nothing: others are served, and he is cut off. */
TEST_F(door, who_does_not_read)
{
	int fd = daemon_socket(&self->d);

	while (send(fd, &self->ask, ASK_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		;
	EXPECT_EQ(EAGAIN, errno);
	expect_serves(self, self->fd);
	while (send(fd, &self->ask, ASK_BYTES, MSG_NOSIGNAL) > 0)
		;
	EXPECT_TRUE(errno == EPIPE || errno == ECONNRESET);
	expect_serves(self, self->fd);
	expect_no_leak(self);
	close(fd);
}

/* What was asked before the caller went is done, or not; the daemon does not mind. */
TEST_F(door, who_leaves_at_once)
{
	for (int i = 0; i < 50; i++) {
		int fd = daemon_socket(&self->d);

		for (int n = 0; n < i % 5; n++)
			raw_send(fd, &self->ask, ASK_BYTES);
		if (i % 2)
			shutdown(fd, SHUT_WR);
		close(fd);
	}
	expect_serves(self, self->fd);
	expect_no_leak(self);
}

static int come_often(void *arg)
{
	struct fixture_door *self = arg;
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct pst_control *control = NULL;
	struct pst_error err = {0};
	int fd[SESSIONS_PER_USER];

	for (int i = 0; i < SESSIONS_PER_USER; i++) {
		fd[i] = daemon_socket(&self->d);
		ASSERT_GE(fd[i], 0);
		ASSERT_EQ(0, raw_call(fd[i], PST_CMD_INFO, &info, sizeof(info)));
	}
	/* one more is told so */
	ASSERT_OK(pst_control_open(self->d.socket, &control, &err), &err);
	EXPECT_EQ(-EUSERS, pst_control_call(control, PST_CMD_INFO, &info, &err));
	EXPECT_TRUE(strstr(err.text, "as many") != NULL);
	pst_control_close(control);
	EXPECT_EQ(0, raw_call(fd[0], PST_CMD_INFO, &info, sizeof(info)));
	return test_failed;
}

TEST_F(door, who_comes_too_often)
{
	if (getuid())
		SKIP("it takes root to become somebody else", "sudo");
	EXPECT_EQ(0, as_user(65534, come_often, self));
	expect_serves(self, self->fd);
	expect_no_leak(self);
}

static void set_nofile(const struct daemon *d, rlim_t n)
{
	struct rlimit limit;

	ASSERT_EQ(0, prlimit(d->pid, RLIMIT_NOFILE, NULL, &limit));
	limit.rlim_cur = n;
	ASSERT_EQ(0, prlimit(d->pid, RLIMIT_NOFILE, &limit, NULL));
}

/* Callers for whom there is no descriptor wait until there is one. */
TEST_F(door, no_descriptor_left)
{
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct rlimit was;
	int fd[4];

	ASSERT_EQ(0, prlimit(self->d.pid, RLIMIT_NOFILE, NULL, &was));
	/* INFO opens one file while it answers */
	set_nofile(&self->d, (rlim_t)self->fds);
	for (int i = 0; i < 4; i++)
		fd[i] = daemon_socket(&self->d);
	EXPECT_EQ(0, raw_call(self->fd, PST_CMD_INFO, &info, sizeof(info)));
	set_nofile(&self->d, was.rlim_cur);
	for (int i = 0; i < 4; i++) {
		EXPECT_EQ(0, raw_call(fd[i], PST_CMD_INFO, &info, sizeof(info)));
		close(fd[i]);
	}
	expect_no_leak(self);
}

TEST_F(door, the_daemon_goes)
{
	struct pst_control *control = daemon_connect(&self->d);
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct pst_error err = {0};

	EXPECT_EQ(0, pst_control_call(control, PST_CMD_INFO, &info, NULL));
	daemon_kill(&self->d);
	for (int i = 0; i < 2; i++) {
		err.code = 0;
		EXPECT_EQ(-ECONNRESET, pst_control_call(control, PST_CMD_INFO, &info, &err));
		EXPECT_TRUE(strstr(err.text, "INFO: penstockd ") != NULL);
	}
	pst_control_close(control);
	EXPECT_EQ(-ECONNREFUSED, pst_control_open(self->d.socket, &control, &err));
	daemon_run(&self->d);
	control = daemon_connect(&self->d);
	EXPECT_EQ(0, pst_control_call(control, PST_CMD_INFO, &info, NULL));
	pst_control_close(control);
}

/* A member of the group may change things, by his first group or another one. */
struct member {
	const struct daemon *d;
	gid_t first, other;
};

static int may_change(void *arg)
{
	const struct member *m = arg;
	struct pst_cmd_info info = {.size = sizeof(info)};

	if (m->other && (setgroups(1, &m->other)))
		return 99;
	if (setgid(m->first) || setuid(65534))
		return 98;
	ASSERT_EQ(0, raw_call(daemon_socket(m->d), PST_CMD_INFO, &info, sizeof(info)));
	return (int)info.out_may_change;
}

static int ask_as(const struct daemon *d, gid_t first, gid_t other)
{
	struct member m = {d, first, other};

	return as_user(0, may_change, &m);
}

TEST(members_of_the_group)
{
	const struct group *group = getgrnam("daemon");
	struct daemon d;

	if (getuid())
		SKIP("it takes root to become somebody else", "sudo");
	ASSERT_NE(NULL, group);
	daemon_start(&d, "[daemon]\ngroup = daemon\n");
	EXPECT_EQ(0, ask_as(&d, 65534, 65533));
	EXPECT_EQ(0, ask_as(&d, 65534, 0));
	EXPECT_EQ(1, ask_as(&d, group->gr_gid, 65533));
	EXPECT_EQ(1, ask_as(&d, 65534, group->gr_gid));
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(nobody_there)
{
	struct pst_control *control = NULL;
	struct pst_error err = {0};
	char path[64];

	snprintf(path, sizeof(path), "%s/none.sock", test_tmpdir());
	EXPECT_EQ(-ENOENT, pst_control_open(path, &control, &err));
	EXPECT_TRUE(strstr(err.text, path) != NULL && strstr(err.text, "penstockd --socket"));
	setenv("PENSTOCK_SOCKET", path, 1);
	if (access("/dev/penstock", F_OK)) {
		EXPECT_EQ(-ENOENT, pst_control_open(NULL, &control, NULL));
	}
	EXPECT_EQ(NULL, control);
	pst_control_close(NULL);
}

TEST(the_socket_of_the_environment)
{
	struct pst_cmd_info info = {.size = sizeof(info)};
	struct pst_control *control = NULL;
	struct pst_error err = {0};
	struct daemon d;

	daemon_start(&d, NULL);
	setenv("PENSTOCK_SOCKET", d.socket, 1);
	ASSERT_OK(pst_control_open(NULL, &control, &err), &err);
	EXPECT_EQ(0, pst_control_call(control, PST_CMD_INFO, &info, NULL));
	EXPECT_EQ((uint32_t)d.pid, info.out_pid);
	pst_control_close(control);
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST_MAIN
