/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the door, with handlers that answer when this test says so: order, callers who
 * left meanwhile, and what goes with a session. The loop runs in the test's process.
 */
#include "daemon/control/session.h"

#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/socket.h>

/* The handlers of all commands are one. */
static request_fn *handler;
#define HANDLER(NAME, name, last, in1, in2, out) \
	int handle_##name(struct request *r)     \
	{                                        \
		return handler(r);               \
	}
PST_COMMANDS(HANDLER)

static struct request *later[8];
static int nlater, ran, gone;

static int at_once(struct request *r)
{
	(void)r;
	ran++;
	return 0;
}

/* KERNEL_BIND waits, others do not. */
static int some_wait(struct request *r)
{
	ran++;
	if (r->cmd != PST_CMD_KERNEL_BIND)
		return 0;
	later[nlater++] = r;
	return REQUEST_LATER;
}

static int answers_itself(struct request *r)
{
	ran++;
	request_answer(r, -EBUSY);
	return REQUEST_LATER;
}

static int overwrites(struct request *r)
{
	memset(r->arg, 0xff, sizeof(r->arg));
	return 0;
}

static int gives_fd(struct request *r)
{
	r->out_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return 0;
}

static int keeps_fds(struct request *r)
{
	EXPECT_GE(r->in_fd[0], 0);
	EXPECT_GE(r->in_fd[1], 0);
	close(r->in_fd[1]);
	r->in_fd[1] = -1; /* taken; the other one is closed for us */
	return -EKEYREJECTED;
}

FIXTURE(session)
{
	struct penstockd d;
	struct session *session;
	int fd, lowest;
};

static struct fixture_session *the_fixture;

static void session_gone(struct session *s)
{
	EXPECT_TRUE(s == the_fixture->session);
	the_fixture->session = NULL;
	gone++;
}

static int lowest_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	close(fd);
	return fd;
}

FIXTURE_SETUP(session)
{
	struct caller who = {.uid = 5, .may_change = true};
	int pair[2];

	the_fixture = self;
	ASSERT_GE(dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO), 0);
	ASSERT_EQ(0, loop_new(&self->d.loop));
	self->lowest = lowest_fd();
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair));
	self->fd = pair[0];
	ASSERT_EQ(0, session_new(&self->d, pair[1], &who, session_gone, &self->session));
	handler = at_once;
}
FIXTURE_TEARDOWN(session)
{
	close(self->fd);
	if (self->session)
		session_close(self->session);
	EXPECT_EQ(1, gone);
	EXPECT_EQ(self->lowest, lowest_fd());
	loop_free(self->d.loop);
}

struct ending {
	struct loop_timer timer;
	struct loop *loop;
};

static void end_now(struct loop_timer *timer)
{
	loop_end(((struct ending *)timer)->loop);
}

static void turn(struct fixture_session *self)
{
	struct ending ending = {.timer.fire = end_now, .loop = self->d.loop};

	loop_after(self->d.loop, &ending.timer, 5);
	ASSERT_EQ(0, loop_run(self->d.loop));
}

struct bind {
	struct pst_door_request head;
	struct pst_cmd_kernel_bind arg;
};

static void ask(struct fixture_session *self, uint32_t cmd, uint32_t id)
{
	struct bind b = {{.cmd = cmd}, {.size = sizeof(b.arg), .id = id}};

	ASSERT_EQ((ssize_t)sizeof(b), send(self->fd, &b, sizeof(b), MSG_NOSIGNAL));
}

/* INT_MIN: there is none. */
static int answer(struct fixture_session *self, uint32_t cmd, struct pst_cmd_kernel_bind *arg)
{
	struct {
		struct pst_door_answer head;
		struct pst_cmd_kernel_bind arg;
	} a = {0};
	ssize_t n = recv(self->fd, &a, sizeof(a), MSG_DONTWAIT);

	if (n < 0)
		return INT32_MIN;
	EXPECT_EQ(cmd, a.head.cmd);
	EXPECT_EQ(a.head.rc ? (ssize_t)sizeof(a.head) : (ssize_t)sizeof(a), n);
	if (arg)
		*arg = a.arg;
	return a.head.rc;
}

/* One that takes long holds up those behind it, and no others are run before it. */
TEST_F(session, in_order)
{
	handler = some_wait;
	ask(self, PST_CMD_KERNEL_UNLOAD, 1);
	ask(self, PST_CMD_KERNEL_BIND, 2);
	ask(self, PST_CMD_KERNEL_UNLOAD, 3);
	ask(self, PST_CMD_KERNEL_BIND, 4);
	turn(self);
	EXPECT_EQ(2, ran);
	EXPECT_EQ(0, answer(self, PST_CMD_KERNEL_UNLOAD, NULL));
	EXPECT_EQ(INT32_MIN, answer(self, 0, NULL));
	request_answer(later[0], -EDOM);
	turn(self);
	EXPECT_EQ(4, ran);
	EXPECT_EQ(-EDOM, answer(self, PST_CMD_KERNEL_BIND, NULL));
	EXPECT_EQ(0, answer(self, PST_CMD_KERNEL_UNLOAD, NULL));
	request_answer(later[1], 0);
	EXPECT_EQ(0, answer(self, PST_CMD_KERNEL_BIND, NULL));
}

TEST_F(session, answered_within_the_handler)
{
	handler = answers_itself;
	ask(self, PST_CMD_KERNEL_BIND, 1);
	ask(self, PST_CMD_KERNEL_BIND, 2);
	turn(self);
	EXPECT_EQ(2, ran);
	EXPECT_EQ(-EBUSY, answer(self, PST_CMD_KERNEL_BIND, NULL));
	EXPECT_EQ(-EBUSY, answer(self, PST_CMD_KERNEL_BIND, NULL));
}

TEST_F(session, the_caller_left)
{
	handler = some_wait;
	ask(self, PST_CMD_KERNEL_BIND, 1);
	ask(self, PST_CMD_KERNEL_BIND, 2); /* is never run */
	turn(self);
	ASSERT_EQ(1, nlater);
	EXPECT_FALSE(later[0]->gone);
	shutdown(self->fd, SHUT_RDWR);
	turn(self);
	EXPECT_EQ(1, gone);
	EXPECT_TRUE(later[0]->gone);
	request_answer(later[0], 0);
	EXPECT_EQ(1, ran);
}

/* Answered in the same turn in which he leaves. */
TEST_F(session, the_caller_leaves_now)
{
	handler = some_wait;
	ask(self, PST_CMD_KERNEL_BIND, 1);
	turn(self);
	shutdown(self->fd, SHUT_RDWR);
	request_answer(later[0], 0);
	EXPECT_EQ(0, gone); /* not under the hands of who answered */
	turn(self);
	EXPECT_EQ(1, gone);
}

/* Only the end of his writing: he gets his answers. */
TEST_F(session, he_says_no_more)
{
	handler = some_wait;
	ask(self, PST_CMD_KERNEL_UNLOAD, 1);
	ask(self, PST_CMD_KERNEL_BIND, 1);
	shutdown(self->fd, SHUT_WR);
	turn(self);
	EXPECT_EQ(0, answer(self, PST_CMD_KERNEL_UNLOAD, NULL));
	EXPECT_EQ(0, gone);
	request_answer(later[0], 0);
	EXPECT_EQ(0, answer(self, PST_CMD_KERNEL_BIND, NULL));
	turn(self);
	EXPECT_EQ(1, gone);
}

/* Size and flags come back as they went, whatever a handler makes of the struct. */
TEST_F(session, handlers_cannot_break_the_frame)
{
	struct pst_cmd_kernel_bind arg;

	handler = overwrites;
	ask(self, PST_CMD_KERNEL_BIND, 1);
	turn(self);
	EXPECT_EQ(0, answer(self, PST_CMD_KERNEL_BIND, &arg));
	EXPECT_EQ((uint32_t)sizeof(arg), arg.size);
	EXPECT_EQ(~0u, arg.id);
}

/* A descriptor for a command that has no field for it goes nowhere, and does not stay. */
TEST_F(session, descriptors_out)
{
	struct {
		struct pst_door_request head;
		struct pst_cmd_pool_map map;
	} ask_map = {{.cmd = PST_CMD_POOL_MAP}, {.size = sizeof(ask_map.map)}};
	struct {
		struct pst_door_answer head;
		struct pst_cmd_pool_map map;
	} a;
	int before = lowest_fd();

	handler = gives_fd;
	ASSERT_GT(send(self->fd, &ask_map, sizeof(ask_map), 0), 0);
	turn(self);
	ASSERT_EQ((ssize_t)sizeof(a), recv(self->fd, &a, sizeof(a), 0)); /* closes what comes */
	EXPECT_EQ(0, a.map.out_fd);
	EXPECT_EQ(before, lowest_fd());
	handler = at_once;
	ASSERT_GT(send(self->fd, &ask_map, sizeof(ask_map), 0), 0);
	turn(self);
	ASSERT_EQ((ssize_t)sizeof(a), recv(self->fd, &a, sizeof(a), 0));
	EXPECT_EQ(-1, a.map.out_fd);
}

TEST_F(session, descriptors_in)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {0};
	struct {
		struct pst_door_request head;
		struct pst_cmd_kernel_load load;
	} b = {{.cmd = PST_CMD_KERNEL_LOAD}, {.size = sizeof(b.load), .image_fd = 1}};
	struct iovec iov = {&b, sizeof(b)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fds[2] = {self->fd, self->fd}, before = lowest_fd();

	handler = keeps_fds;
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(c), fds, sizeof(fds));
	ASSERT_GT(sendmsg(self->fd, &msg, 0), 0);
	turn(self);
	EXPECT_EQ(-EKEYREJECTED, answer(self, PST_CMD_KERNEL_LOAD, NULL));
	EXPECT_EQ(before, lowest_fd());
}

struct thing {
	struct session_end end;
	int number;
};
static int ended[4], nended;

static void thing_ends(struct session_end *end)
{
	ended[nended++] = ((struct thing *)end)->number;
}

TEST_F(session, things_go_with_it)
{
	struct thing a = {{.fn = thing_ends}, 1}, b = {{.fn = thing_ends}, 2},
		     c = {{.fn = thing_ends}, 3};

	session_on_end(self->session, &a.end);
	session_on_end(self->session, &b.end);
	session_on_end(self->session, &c.end);
	session_forget(self->session, &b.end);
	shutdown(self->fd, SHUT_RDWR);
	turn(self);
	EXPECT_EQ(2, nended);
	EXPECT_EQ(1, ended[0]);
	EXPECT_EQ(3, ended[1]);
}

TEST_F(session, why_is_kept)
{
	handler = answers_itself;
	ask(self, PST_CMD_KERNEL_BIND, 1);
	turn(self);
	EXPECT_EQ(-EBUSY, self->session->why.out_code);
	EXPECT_STREQ("KERNEL_BIND: Device or resource busy", (char *)self->session->why.out_text);
}

/* The daemon's own questions go through the same checks. */
TEST(the_daemon_asks)
{
	struct pst_cmd_kernel_bind bind = {.size = sizeof(bind)};
	struct penstockd d = {0};

	handler = overwrites;
	EXPECT_EQ(0, command_ask(&d, PST_CMD_KERNEL_BIND, &bind));
	EXPECT_EQ(~0u, bind.id);
	bind = (struct pst_cmd_kernel_bind){.size = sizeof(bind), .flags = 1};
	EXPECT_EQ(-EOPNOTSUPP, command_ask(&d, PST_CMD_KERNEL_BIND, &bind));
	EXPECT_EQ(-ENOTTY, command_ask(&d, PST_CMD_END, &bind));
	EXPECT_EQ(-ENOTTY, command_ask(&d, 0, &bind));
}

TEST_MAIN
