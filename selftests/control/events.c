/* SPDX-License-Identifier: Apache-2.0 */
/* Events to readers that are slow, leave, or come late. The loop runs in the test's process. */
#include "daemon/events.h"

#include "selftests/lib/test.h"

#include <fcntl.h>
#include <sys/socket.h>

FIXTURE(events)
{
	struct loop *loop;
	struct events *events;
};
FIXTURE_SETUP(events)
{
	/* what is logged is not looked at here */
	ASSERT_GE(dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), STDERR_FILENO), 0);
	ASSERT_EQ(0, loop_new(&self->loop));
	ASSERT_EQ(0, events_new(self->loop, &self->events));
}
FIXTURE_TEARDOWN(events)
{
	events_free(self->events);
	loop_free(self->loop);
}

struct ending {
	struct loop_timer timer;
	struct loop *loop;
};

static void end_now(struct loop_timer *timer)
{
	loop_end(((struct ending *)timer)->loop);
}

/* All that is ready is served; nothing new comes meanwhile. */
static void turn(struct fixture_events *self)
{
	struct ending ending = {.timer.fire = end_now, .loop = self->loop};

	loop_after(self->loop, &ending.timer, 5);
	ASSERT_EQ(0, loop_run(self->loop));
}

static void emit(struct fixture_events *self, uint32_t type, int from, int count)
{
	for (int i = 0; i < count; i++)
		events_emit(self->events, type, (uint32_t)(from + i), -i, "number %d", from + i);
}

/* false: there is none. */
static bool take(int fd, struct pst_event *out)
{
	ssize_t n = recv(fd, out, sizeof(*out), MSG_DONTWAIT);

	ASSERT_TRUE(n == (ssize_t)sizeof(*out) || (n < 0 && errno == EAGAIN));
	return n > 0;
}

static void expect_ids(int fd, uint32_t from, uint32_t count)
{
	struct pst_event event;

	for (uint32_t i = 0; i < count; i++) {
		ASSERT_TRUE(take(fd, &event));
		ASSERT_EQ(from + i, event.id);
	}
}

static void expect_nothing(int fd)
{
	struct pst_event event;

	EXPECT_FALSE(take(fd, &event));
}

TEST_F(events, as_they_come)
{
	struct pst_event event;
	int fd = events_open(self->events, 0, 0, 0);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	errno = 77;
	emit(self, PST_EVENT_DIED, 5, 1);
	EXPECT_EQ(77, errno);
	ASSERT_TRUE(take(fd, &event));
	EXPECT_EQ((uint32_t)sizeof(event), event.size);
	EXPECT_EQ((uint32_t)PST_EVENT_DIED, event.type);
	EXPECT_EQ(5u, event.id);
	EXPECT_STREQ("number 5", (char *)event.text);
	EXPECT_GT(event.time_ns, 1600000000ull * 1000000000ull);
	expect_nothing(fd);
	EXPECT_EQ(1ull, events_count(self->events, PST_EVENT_DIED));
	EXPECT_EQ(0ull, events_count(self->events, PST_EVENT_HUNG));
	EXPECT_EQ(0ull, events_count(self->events, 1000));
	close(fd);
}

TEST_F(events, types_that_are_none)
{
	int fd = events_open(self->events, 0, 0, 10);

	emit(self, 0, 1, 1);
	emit(self, PST_EVENT_END, 1, 1);
	expect_nothing(fd);
	close(fd);
}

TEST_F(events, mask)
{
	int fd = events_open(self->events, 0, PST_EVENT_BIT(PST_EVENT_XID), 0);

	emit(self, PST_EVENT_DIED, 1, 3);
	emit(self, PST_EVENT_XID, 10, 2);
	emit(self, PST_EVENT_DIED, 4, 1);
	expect_ids(fd, 10, 2);
	expect_nothing(fd);
	close(fd);
}

TEST_F(events, past)
{
	int fd;

	emit(self, PST_EVENT_DIED, 0, 10);
	emit(self, PST_EVENT_XID, 100, 5);
	fd = events_open(self->events, 0, 0, 3);
	expect_ids(fd, 102, 3);
	expect_nothing(fd);
	close(fd);
	/* of the mask, whatever came between */
	fd = events_open(self->events, 0, PST_EVENT_BIT(PST_EVENT_DIED), 4);
	expect_ids(fd, 6, 4);
	expect_nothing(fd);
	emit(self, PST_EVENT_DIED, 10, 1);
	expect_ids(fd, 10, 1);
	close(fd);
	/* more than there were */
	fd = events_open(self->events, 0, 0, ~0u);
	expect_ids(fd, 0, 10);
	close(fd);
}

TEST_F(events, past_as_far_as_it_is_kept)
{
	int fd;

	emit(self, PST_EVENT_DIED, 0, EVENTS_KEPT + 44);
	fd = events_open(self->events, 0, 0, ~0u);
	for (int seen = 0; seen < EVENTS_KEPT;) {
		struct pst_event event;

		if (!take(fd, &event)) {
			turn(self);
			continue;
		}
		ASSERT_EQ((uint32_t)(44 + seen), event.id);
		seen++;
	}
	expect_nothing(fd);
	close(fd);
}

/* A reader who sleeps: what he misses is counted, and comes in order after that. */
TEST_F(events, lost)
{
	int fd = events_open(self->events, 0, 0, 0);
	int total = 3000, seen = 0, lost = 0, next = 0;
	struct pst_event event;

	emit(self, PST_EVENT_DIED, 0, total);
	for (int idle = 0; idle < 3;) {
		if (!take(fd, &event)) {
			turn(self);
			idle++;
			continue;
		}
		idle = 0;
		if (event.type == PST_EVENT_LOST) {
			EXPECT_GT(event.value, 0);
			lost += (int)event.value;
			next += (int)event.value;
			continue;
		}
		ASSERT_EQ((uint32_t)next, event.id);
		next++;
		seen++;
	}
	EXPECT_GT(lost, 0);
	EXPECT_GE(seen, EVENTS_KEPT);
	EXPECT_EQ(total, seen + lost);
	close(fd);
}

/* Others are not kept waiting by him. */
TEST_F(events, one_slow_one_quick)
{
	int slow = events_open(self->events, 0, 0, 0), quick = events_open(self->events, 0, 0, 0);

	for (int i = 0; i < 2000; i++) {
		emit(self, PST_EVENT_DIED, i, 1);
		expect_ids(quick, (uint32_t)i, 1);
	}
	close(slow);
	close(quick);
}

TEST_F(events, readers_leave)
{
	int before = dup(0), after, fd[8];

	close(before);
	for (int i = 0; i < 8; i++)
		fd[i] = events_open(self->events, 0, 0, 0);
	emit(self, PST_EVENT_DIED, 0, 3);
	close(fd[0]); /* noticed when something is sent */
	emit(self, PST_EVENT_DIED, 3, 1);
	for (int i = 1; i < 4; i++)
		close(fd[i]); /* or by itself */
	turn(self);
	emit(self, PST_EVENT_DIED, 4, 1);
	expect_ids(fd[5], 0, 5);
	for (int i = 4; i < 8; i++)
		close(fd[i]);
	turn(self);
	after = dup(0);
	EXPECT_EQ(before, after);
	close(after);
}

TEST_F(events, as_many_as_may_be)
{
	int fd[256], n = 0;

	for (uid_t uid = 1; uid <= 4; uid++) {
		for (int i = 0; i < 64; i++) {
			fd[n] = events_open(self->events, uid, 0, 0);
			ASSERT_GE(fd[n++], 0);
		}
		if (uid < 4) {
			EXPECT_EQ(-EUSERS, events_open(self->events, uid, 0, 0));
		}
	}
	EXPECT_EQ(-EUSERS, events_open(self->events, 99, 0, 0));
	close(fd[0]);
	turn(self);
	fd[0] = events_open(self->events, 1, 0, 0);
	EXPECT_GE(fd[0], 0);
	while (n--)
		close(fd[n]);
}

/* They cannot be written to the daemon; who tries gets no harm done. */
TEST_F(events, written_to)
{
	int fd = events_open(self->events, 0, 0, 0);

	for (int i = 0; i < 1000; i++)
		send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	turn(self);
	emit(self, PST_EVENT_DIED, 1, 1);
	expect_ids(fd, 1, 1);
	close(fd);
}

TEST_MAIN
