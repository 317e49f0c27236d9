/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept comes back, whoever dies in between, and to nobody else. */
#include "daemon/keep/keep.h"
#include "daemon/keep/keep_index.h"
#include "daemon/keep/keeper.h"
#include "daemon/loop.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define SOCKET	"d.sock"
#define WAIT_MS 20000

static const char *path(const char *name)
{
	static char buf[2][128];
	static int turn;

	turn = !turn;
	snprintf(buf[turn], sizeof(buf[turn]), "%s/%s", test_tmpdir(), name);
	return buf[turn];
}

/* Programs are two folders above this one, unless something else was said. */
static void say_where(void)
{
	char self[PATH_MAX], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	ASSERT_GT(n, 0);
	self[n] = '\0';
	for (int i = 0; i < 3; i++) {
		slash = strrchr(self, '/');
		*slash = '\0';
	}
	setenv("PENSTOCK_BIN", self, 0);
	unsetenv("FDSTORE");
}

static struct keep *open_keep(void)
{
	struct pst_error err = {0};
	struct keep *k;

	say_where();
	ASSERT_OK(keep_open(path(SOCKET), &k, &err), &err);
	return k;
}

static int memory(const char *text)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	ASSERT_GE(fd, 0);
	ASSERT_EQ((ssize_t)strlen(text), pwrite(fd, text, strlen(text), 0));
	return fd;
}

/* An entry whose descriptor has as text what its JSON says. */
static void put(struct keep *k, const char *name, const char *text)
{
	struct pst_error err = {0};
	json_t *about = json_pack("{s:s}", "text", text);
	int fd = memory(text);

	ASSERT_OK(keep_put(k, name, fd, about, &err), &err);
	close(fd);
	json_decref(about);
}

struct seen {
	size_t n, torn;
	char name[KEEP_MAX][KEEP_NAME];
	char text[KEEP_MAX][32];
	int fd[KEEP_MAX];
};

static void on_entry(void *ctx, const char *name, int fd, json_t *about)
{
	struct seen *s = ctx;
	const char *text = json_string_value(json_object_get(about, "text"));
	char have[32] = "";

	ASSERT_TRUE(pread(fd, have, sizeof(have) - 1, 0) >= 0);
	if (!text || strcmp(text, have))
		s->torn++;
	snprintf(s->name[s->n], KEEP_NAME, "%s", name);
	snprintf(s->text[s->n], sizeof(s->text[0]), "%s", have);
	ASSERT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	s->fd[s->n++] = fd;
}

static struct seen *look(struct keep *k, const char *prefix)
{
	static struct seen s;

	memset(&s, 0, sizeof(s));
	keep_each(k, prefix, on_entry, &s);
	for (size_t i = 0; i < s.n; i++)
		close(s.fd[i]);
	EXPECT_EQ(0u, s.torn);
	return &s;
}

static const char *text_of(const struct seen *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->name[i], name))
			return s->text[i];
	return "(none)";
}

/* A daemon in a process of its own: @fn, then it says so and waits to be killed. */
static pid_t begin_daemon(void (*fn)(struct keep *k))
{
	int said[2];
	char byte;
	pid_t pid;

	ASSERT_EQ(0, pipe2(said, O_CLOEXEC));
	pid = fork();
	if (!pid) {
		fn(open_keep());
		ASSERT_EQ(1, write(said[1], "!", 1));
		for (;;)
			pause();
	}
	close(said[1]);
	ASSERT_EQ(1, read(said[0], &byte, 1));
	close(said[0]);
	return pid;
}

static void kill_hard(pid_t pid)
{
	kill(pid, SIGKILL);
	ASSERT_EQ(pid, waitpid(pid, NULL, 0));
}

/* A connection that is no daemon's, or -errno. */
static int connect_raw(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), rc;

	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path(SOCKET KEEPER_SUFFIX));
	if (!connect(fd, (struct sockaddr *)&at, sizeof(at)))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

/* The socket is there before its keeper has begun: then it names who made it. */
static bool is_keeper(pid_t pid)
{
	char name[64], comm[32] = "";
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/comm", pid);
	f = fopen(name, "re");
	if (f && !fgets(comm, sizeof(comm), f))
		comm[0] = '\0';
	if (f)
		fclose(f);
	return !strcmp(comm, "penstock-keeper\n");
}

static pid_t keeper_pid(void)
{
	struct ucred who = {0};
	socklen_t len = sizeof(who);
	int fd = connect_raw();

	if (fd < 0)
		return 0;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
	close(fd);
	return is_keeper(who.pid) ? who.pid : 0;
}

/* One that begins listens in a moment. */
static pid_t await_keeper(pid_t other_than)
{
	pid_t pid = 0;

	for (int i = 0; i < WAIT_MS && (!pid || pid == other_than); i++) {
		poll(NULL, 0, 1);
		pid = keeper_pid();
	}
	return pid;
}

static bool ends(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	bool ended = fd < 0 || poll(&p, 1, WAIT_MS) == 1;

	if (fd >= 0)
		close(fd);
	return ended;
}

static bool runs(pid_t pid)
{
	return pid > 0 && !kill(pid, 0);
}

static void put_three(struct keep *k)
{
	put(k, "pool-1", "one");
	put(k, "pool-2", "two");
	put(k, "child-1", "three");
}

static void put_nothing(struct keep *k)
{
	(void)k;
}

TEST(a_killed_daemon_leaves_all)
{
	struct keep *k;
	struct seen *s;

	kill_hard(begin_daemon(put_three));
	k = open_keep();
	s = look(k, "pool-");
	EXPECT_EQ(2u, s->n);
	EXPECT_STREQ("one", text_of(s, "pool-1"));
	EXPECT_STREQ("two", text_of(s, "pool-2"));
	/* each part takes its own, once */
	EXPECT_EQ(0u, look(k, "pool-")->n);
	EXPECT_EQ(1u, look(k, "child-")->n);
	keep_close(k);
	/* and they are there for the next one again */
	k = open_keep();
	EXPECT_EQ(3u, look(k, "")->n);
	keep_close(k);
}

TEST(what_comes_back_is_the_same_memory)
{
	struct pst_error err = {0};
	struct keep *k = open_keep();
	json_t *about = json_pack("{s:s}", "text", "later");
	int fd = memory("early");

	ASSERT_OK(keep_put(k, "pool-1", fd, about, &err), &err);
	keep_close(k);
	ASSERT_EQ(5, pwrite(fd, "later", 5, 0));
	k = open_keep();
	EXPECT_STREQ("later", text_of(look(k, ""), "pool-1"));
	keep_close(k);
	json_decref(about);
	close(fd);
}

TEST(replaced_and_dropped)
{
	struct pst_error err = {0};
	struct keep *k = open_keep();
	json_t *about = json_pack("{s:s}", "text", "new");
	struct seen *s;
	int fd;

	put_three(k);
	put(k, "pool-1", "other");
	keep_drop(k, "pool-2");
	keep_drop(k, "pool-7");
	/* the same descriptor with other words */
	fd = memory("old");
	ASSERT_OK(keep_put(k, "pool-3", fd, about, &err), &err);
	ASSERT_EQ(3, pwrite(fd, "now", 3, 0));
	json_object_set_new(about, "text", json_string("now"));
	ASSERT_OK(keep_put(k, "pool-3", fd, about, &err), &err);
	keep_close(k);
	k = open_keep();
	s = look(k, "");
	EXPECT_EQ(3u, s->n);
	EXPECT_STREQ("other", text_of(s, "pool-1"));
	EXPECT_STREQ("three", text_of(s, "child-1"));
	EXPECT_STREQ("now", text_of(s, "pool-3"));
	keep_close(k);
	json_decref(about);
	close(fd);
}

TEST(a_keeper_ends_with_its_last_reason)
{
	struct keep *k = open_keep();
	struct stat st;
	pid_t keeper;

	EXPECT_EQ(-ENOENT, connect_raw());
	put_three(k);
	keeper = await_keeper(0);
	keep_close(k);
	k = open_keep();
	EXPECT_EQ(keeper, keeper_pid());
	for (int i = 1; i < 3; i++) {
		char name[16];

		snprintf(name, sizeof(name), "pool-%d", i);
		keep_drop(k, name);
	}
	keep_drop(k, "child-1");
	EXPECT_TRUE(runs(keeper));
	put(k, "pool-9", "again");
	keep_drop(k, "pool-9");
	keep_close(k);
	EXPECT_TRUE(ends(keeper));
	EXPECT_EQ(-1, stat(path(SOCKET KEEPER_SUFFIX), &st));
	k = open_keep();
	EXPECT_EQ(0u, look(k, "")->n);
	keep_close(k);
}

TEST(without_its_file_it_ends)
{
	pid_t keeper;

	kill_hard(begin_daemon(put_three));
	keeper = await_keeper(0);
	ASSERT_TRUE(runs(keeper));
	ASSERT_EQ(0, unlink(path(SOCKET KEEPER_SUFFIX)));
	EXPECT_TRUE(ends(keeper));
}

TEST(one_daemon_at_a_time)
{
	struct pst_error err = {0};
	struct keep *k;
	pid_t first = begin_daemon(put_three);

	EXPECT_EQ(-EBUSY, keep_open(path(SOCKET), &k, &err));
	EXPECT_TRUE(strstr(err.text, "another daemon") != NULL);
	/* one that is stopped is there too, and nobody waits for it */
	kill(first, SIGSTOP);
	EXPECT_EQ(-EBUSY, keep_open(path(SOCKET), &k, &err));
	kill_hard(first);
	k = open_keep();
	EXPECT_EQ(3u, look(k, "")->n);
	keep_close(k);
}

static void put_many(struct keep *k)
{
	for (int i = 0; i < 600; i++) {
		char name[16], text[16];

		snprintf(name, sizeof(name), "pool-%d", i);
		snprintf(text, sizeof(text), "text %d", i);
		put(k, name, text);
	}
}

TEST(a_daemon_that_reads_nothing_stops_nobody)
{
	const struct keeper_msg ask = {.op = KEEPER_LIST};
	struct keeper_msg m = {0};
	int lazy, other;
	struct keep *k;

	kill_hard(begin_daemon(put_many));
	await_keeper(0);
	do {
		lazy = connect_raw();
		ASSERT_GE(lazy, 0);
		/* one that only asked for the pid may not be gone yet */
		ASSERT_EQ((ssize_t)sizeof(ask), send(lazy, &ask, sizeof(ask), MSG_NOSIGNAL));
		ASSERT_GT(recv(lazy, &m, sizeof(m), MSG_PEEK), 0);
		if (m.op == KEEPER_BUSY)
			close(lazy);
	} while (m.op == KEEPER_BUSY);
	/* the list is longer than the socket: it waits, the keeper does not */
	other = connect_raw();
	ASSERT_GE(other, 0);
	ASSERT_EQ((ssize_t)sizeof(m), recv(other, &m, sizeof(m), 0));
	EXPECT_EQ((uint32_t)KEEPER_BUSY, m.op);
	EXPECT_EQ(0, recv(other, &m, sizeof(m), 0));
	close(other);
	close(lazy);
	k = open_keep();
	EXPECT_EQ(600u, look(k, "")->n);
	keep_close(k);
}

TEST(what_makes_no_sense_is_cut_off)
{
	static const struct keeper_msg bad[] = {
		{.op = 99},
		{.op = KEEPER_PUT, .name = "no descriptor"},
		{.op = KEEPER_DROP, .name = "a name without an end to it ...."},
		{.op = KEEPER_END},
	};
	struct keeper_msg m;
	struct keep *k;

	kill_hard(begin_daemon(put_three));
	await_keeper(0);
	for (size_t i = 0; i <= sizeof(bad) / sizeof(bad[0]); i++) {
		bool is_short = i == sizeof(bad) / sizeof(bad[0]);
		int fd = connect_raw();
		ssize_t n;

		ASSERT_GE(fd, 0);
		ASSERT_GT(send(fd, &bad[is_short ? 0 : i], is_short ? 3 : sizeof(m), MSG_NOSIGNAL),
			  0);
		n = recv(fd, &m, sizeof(m), 0);
		if (n > 0) { /* BUSY: the one before is not gone yet */
			EXPECT_EQ((uint32_t)KEEPER_BUSY, m.op);
			i--;
		}
		close(fd);
	}
	k = open_keep();
	EXPECT_EQ(3u, look(k, "")->n);
	keep_close(k);
}

TEST(other_users_are_refused)
{
	struct keeper_msg m = {.op = KEEPER_LIST};
	struct pst_error err = {0};
	struct keep *k;
	int status;
	pid_t pid;

	if (geteuid())
		SKIP("only root can be another user", "run it as root");
	kill_hard(begin_daemon(put_three));
	await_keeper(0);
	ASSERT_EQ(0, chmod(test_tmpdir(), 0755));
	pid = fork();
	if (!pid) {
		ASSERT_EQ(0, setresuid(65534, 65534, 65534));
		ASSERT_EQ(-EACCES, connect_raw());
		ASSERT_EQ(-EACCES, keep_open(path(SOCKET), &k, &err));
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	/* whatever the mode of the file says */
	ASSERT_EQ(0, chmod(path(SOCKET KEEPER_SUFFIX), 0666));
	pid = fork();
	if (!pid) {
		int fd;

		ASSERT_EQ(0, setresuid(65534, 65534, 65534));
		fd = connect_raw();
		ASSERT_GE(fd, 0);
		send(fd, &m, sizeof(m), MSG_NOSIGNAL);
		ASSERT_LE(recv(fd, &m, sizeof(m), 0), 0);
		/* nor is a keeper of another user taken for ours */
		ASSERT_EQ(-EPERM, keep_open(path(SOCKET), &k, &err));
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
}

static void two_keepers(struct keep *k)
{
	pid_t keeper;

	put_three(k);
	keeper = await_keeper(0);
	kill(keeper, SIGKILL);
	ASSERT_TRUE(ends(keeper));
	put(k, "pool-4", "four");
}

TEST(a_killed_keeper_is_replaced)
{
	struct keep *k;

	kill_hard(begin_daemon(two_keepers));
	k = open_keep();
	EXPECT_EQ(4u, look(k, "")->n);
	keep_close(k);
}

struct looker {
	struct loop_timer timer;
	struct loop *loop;
	pid_t before, after;
	int64_t end;
};

static void look_again(struct loop_timer *timer)
{
	struct looker *l = (void *)((char *)timer - offsetof(struct looker, timer));
	pid_t pid = keeper_pid();

	if (pid && pid != l->before)
		l->after = pid;
	if (l->after || loop_now_ms() > l->end)
		loop_end(l->loop);
	else
		loop_after(l->loop, timer, 5);
}

/* Without a word of the daemon's: its loop sees the end of the keeper. */
static void loop_on(struct keep *k)
{
	struct looker l = {.timer.fire = look_again, .end = loop_now_ms() + WAIT_MS};

	ASSERT_EQ(0, loop_new(&l.loop));
	keep_watch(k, l.loop);
	put_three(k);
	for (int i = 0; i < 2; i++) {
		l.before = await_keeper(l.before);
		l.after = 0;
		kill(l.before, SIGKILL);
		loop_after(l.loop, &l.timer, 5);
		ASSERT_EQ(0, loop_run(l.loop));
		ASSERT_NE(0, l.after);
	}
}

TEST(the_end_of_a_keeper_is_noticed)
{
	struct keep *k;

	kill_hard(begin_daemon(loop_on));
	k = open_keep();
	EXPECT_EQ(3u, look(k, "")->n);
	keep_close(k);
}

TEST(both_killed)
{
	pid_t daemon = begin_daemon(put_three), keeper = await_keeper(0);
	struct keep *k;

	kill(keeper, SIGKILL);
	kill_hard(daemon);
	EXPECT_TRUE(ends(keeper));
	k = open_keep();
	EXPECT_EQ(0u, look(k, "")->n);
	put_three(k);
	keep_close(k);
	k = open_keep();
	EXPECT_EQ(3u, look(k, "")->n);
	keep_close(k);
}

/* The socket takes some; what has no room has the daemon give up on that keeper. */
static void put_past_a_stopped_one(struct keep *k)
{
	pid_t keeper;
	bool ended;

	put(k, "pool-0", "text 0");
	keeper = await_keeper(0);
	kill(keeper, SIGSTOP);
	put_many(k);
	ended = ends(keeper);
	kill(keeper, SIGCONT);
	ASSERT_TRUE(ended);
	ASSERT_NE(keeper, await_keeper(keeper));
}

TEST(a_stopped_keeper_is_replaced)
{
	struct keep *k;

	kill_hard(begin_daemon(put_past_a_stopped_one));
	k = open_keep();
	EXPECT_EQ(600u, look(k, "")->n);
	keep_close(k);
}

TEST(a_stopped_keeper_is_named)
{
	struct pst_error err = {0};
	struct keep *k;
	char want[32];
	pid_t keeper;

	kill_hard(begin_daemon(put_three));
	keeper = await_keeper(0);
	kill(keeper, SIGSTOP);
	EXPECT_EQ(-ETIMEDOUT, keep_open(path(SOCKET), &k, &err));
	snprintf(want, sizeof(want), "kill -CONT %d", keeper);
	EXPECT_TRUE(strstr(err.text, want) != NULL);
	kill(keeper, SIGCONT);
	k = open_keep();
	EXPECT_EQ(3u, look(k, "")->n);
	keep_close(k);
}

TEST(limits)
{
	struct keep *k = open_keep();
	struct pst_error err = {0};
	char name[KEEP_NAME], long_text[KEEP_ABOUT + 1] = "";
	json_t *about = json_pack("{s:s}", "text", "x");
	int fd = memory("x");

	EXPECT_EQ(-EINVAL, keep_put(k, "", fd, about, &err));
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	EXPECT_EQ(0, keep_put(k, name, fd, about, NULL));
	keep_drop(k, name);
	/* {"text":"..."} has eleven letters besides */
	memset(long_text, 't', KEEP_ABOUT - 11);
	json_object_set_new(about, "text", json_string(long_text));
	EXPECT_EQ(0, keep_put(k, "pool-0", fd, about, NULL));
	memset(long_text, 't', KEEP_ABOUT - 10);
	json_object_set_new(about, "text", json_string(long_text));
	memset(&err, 0, sizeof(err));
	EXPECT_EQ(-E2BIG, keep_put(k, "pool-0", fd, about, &err));
	EXPECT_TRUE(strstr(err.text, "4097 bytes") != NULL);
	json_object_set_new(about, "text", json_string("x"));
	EXPECT_EQ(-EBADF, keep_put(k, "pool-1", -1, about, NULL));
	for (int i = 0; i < KEEP_MAX; i++) {
		snprintf(name, sizeof(name), "pool-%d", i);
		ASSERT_EQ(0, keep_put(k, name, fd, about, &err));
	}
	memset(&err, 0, sizeof(err));
	EXPECT_EQ(-ENOSPC, keep_put(k, "pool-more", fd, about, &err));
	EXPECT_TRUE(strstr(err.text, "1024 entries") != NULL);
	/* what is there can still be replaced */
	put(k, "pool-3", "last");
	keep_close(k);
	k = open_keep();
	EXPECT_STREQ("last", text_of(look(k, ""), "pool-3"));
	keep_close(k);
	k = open_keep();
	EXPECT_EQ((size_t)KEEP_MAX, look(k, "")->n);
	keep_close(k);
	json_decref(about);
	close(fd);
}

/* One that is always there, and others that come and go. */
static void put_for_ever(struct keep *k, unsigned int seed, int says)
{
	uint64_t state = seed;

	for (int i = 0;; i++) {
		uint64_t x = test_random(&state);
		char name[16], text[24];

		snprintf(text, sizeof(text), "%llx", (unsigned long long)(x >> 8));
		put(k, "always", text);
		snprintf(name, sizeof(name), "pool-%d", (int)(x % 5));
		if (x >> 60)
			put(k, name, text);
		else
			keep_drop(k, name);
		if (i == 20)
			ASSERT_EQ(1, write(says, "!", 1));
	}
}

TEST(whole_at_whatever_moment)
{
	struct keep *k = open_keep();
	size_t most = 0;

	put(k, "always", "first");
	keep_close(k);
	for (unsigned int i = 0; i < 60; i++) {
		struct seen *s;
		int said[2];
		char byte;
		pid_t pid;

		ASSERT_EQ(0, pipe2(said, O_CLOEXEC));
		pid = fork();
		if (!pid)
			put_for_ever(open_keep(), i, said[1]);
		close(said[1]);
		ASSERT_EQ(1, read(said[0], &byte, 1));
		close(said[0]);
		usleep(i * 97 % 2000);
		kill_hard(pid);
		k = open_keep();
		s = look(k, ""); /* says what is torn */
		most = s->n > most ? s->n : most;
		EXPECT_TRUE(strcmp("(none)", text_of(s, "always")));
		keep_close(k);
	}
	EXPECT_GT(most, 3u);
}

static void count_record(void *ctx, const struct keep_record *r)
{
	ASSERT_LE(r->about_len, (uint32_t)KEEP_ABOUT);
	ASSERT_LT(strnlen(r->name, KEEP_NAME), (size_t)KEEP_NAME);
	++*(int *)ctx;
}

TEST(an_index_that_was_changed_is_not_believed)
{
	struct keep_index x, y;
	struct keep_record r = {.name = "pool-1", .number = 1, .about = "{}", .about_len = 2};
	uint64_t state = 1, bad = 0x41;
	struct stat st;
	int n = 0, fd;

	ASSERT_EQ(0, keep_index_new(&x));
	for (int i = 0; i < 3; i++) {
		r.name[5] = (char)('1' + i);
		ASSERT_EQ(0, keep_index_write(&x, &r));
	}
	ASSERT_EQ(0, fstat(x.fd, &st));
	ASSERT_EQ(0, keep_index_adopt(&y, dup(x.fd), count_record, &n));
	EXPECT_EQ(3, n);
	keep_index_close(&y);
	/* the later one of the same name counts */
	ASSERT_EQ(0, keep_index_write(&x, &r));
	n = 0;
	ASSERT_EQ(0, keep_index_adopt(&y, dup(x.fd), count_record, &n));
	EXPECT_EQ(3, n);
	keep_index_close(&y);
	/* a byte of the record that counts */
	ASSERT_EQ(1, pwrite(x.fd, &bad, 1, 20));
	n = 0;
	ASSERT_EQ(0, keep_index_adopt(&y, dup(x.fd), count_record, &n));
	EXPECT_EQ(2, n);
	keep_index_close(&y);
	/* anything at all */
	for (int i = 0; i < 200; i++) {
		uint64_t at = test_random(&state) % (uint64_t)(st.st_size - 8);

		bad = test_random(&state);
		ASSERT_EQ(8, pwrite(x.fd, &bad, 8, (off_t)(i % 2 ? at % 9000 : at)));
		ASSERT_EQ(0, keep_index_adopt(&y, dup(x.fd), count_record, &n));
		keep_index_close(&y);
	}
	keep_index_close(&x);
	fd = memory("no index");
	EXPECT_EQ(-EBADMSG, keep_index_adopt(&y, fd, count_record, &n));
	close(fd);
}

/* A descriptor store as systemd has one: what is in already is not taken again. */
struct store {
	int sock;
	struct {
		char name[32];
		int fd;
	} at[16];
	size_t n;
};

static bool is_same(int a, int b)
{
	return !syscall(SYS_kcmp, getpid(), getpid(), 0, a, b);
}

static void store_take(struct store *s, const char *name, int fd)
{
	for (size_t i = 0; i < s->n; i++)
		if (is_same(s->at[i].fd, fd)) {
			close(fd);
			return;
		}
	ASSERT_LT(s->n, 16u);
	snprintf(s->at[s->n].name, sizeof(s->at[0].name), "%s", name);
	s->at[s->n++].fd = fd;
}

static void store_remove(struct store *s, const char *name)
{
	for (size_t i = 0; i < s->n;)
		if (!strcmp(s->at[i].name, name)) {
			close(s->at[i].fd);
			s->at[i] = s->at[--s->n];
		} else {
			i++;
		}
}

static void store_listen(struct store *s)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
	char state[256], name[32];

	for (;;) {
		struct iovec iov = {state, sizeof(state) - 1};
		struct msghdr msg = {.msg_iov = &iov,
				     .msg_iovlen = 1,
				     .msg_control = control,
				     .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(s->sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		int fd;

		if (n < 0)
			return;
		state[n] = '\0';
		ASSERT_TRUE(strstr(state, "FDNAME=") != NULL);
		ASSERT_EQ(1, sscanf(strstr(state, "FDNAME="), "FDNAME=%31[^\n]", name));
		if (!strncmp(state, "FDSTOREREMOVE=1", 15)) {
			store_remove(s, name);
			continue;
		}
		ASSERT_EQ(0, strncmp(state, "FDSTORE=1\n", 10));
		/* a child that died is for the next daemon to find out */
		ASSERT_TRUE(strstr(state, "FDPOLL=0") != NULL);
		ASSERT_NE(NULL, c);
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		store_take(s, name, fd);
	}
}

static void store_begin(struct store *s)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	say_where();
	snprintf(at.sun_path, sizeof(at.sun_path), "%s", path("notify"));
	/* far from where descriptors are handed over */
	s->sock = fcntl(socket(AF_UNIX, SOCK_DGRAM, 0), F_DUPFD_CLOEXEC, 100);
	ASSERT_GE(s->sock, 0);
	ASSERT_EQ(0, bind(s->sock, (struct sockaddr *)&at, sizeof(at)));
	setenv("NOTIFY_SOCKET", path("notify"), 1);
	setenv("FDSTORE", "1100", 1);
}

/* As systemd starts a service: a descriptor of the door first, then the store's. */
static pid_t restart(struct store *s, void (*fn)(struct keep *k))
{
	char pid_text[16], count[16], names[512] = "door";
	pid_t pid = fork();
	int status;

	if (pid)
		goto wait;
	for (size_t i = 0; i < s->n; i++) {
		int up = fcntl(s->at[i].fd, F_DUPFD, 200);

		ASSERT_GE(up, 0);
		s->at[i].fd = up;
	}
	dup2(open("/dev/null", O_RDONLY), 3);
	for (size_t i = 0; i < s->n; i++) {
		ASSERT_EQ((int)i + 4, dup2(s->at[i].fd, (int)i + 4));
		close(s->at[i].fd);
		strcat(names, ":");
		strcat(names, s->at[i].name);
	}
	snprintf(pid_text, sizeof(pid_text), "%d", getpid());
	snprintf(count, sizeof(count), "%zu", s->n + 1);
	setenv("LISTEN_PID", pid_text, 1);
	setenv("LISTEN_FDS", count, 1);
	setenv("LISTEN_FDNAMES", names, 1);
	{
		struct pst_error err = {0};
		struct keep *k;

		ASSERT_OK(keep_open(path(SOCKET), &k, &err), &err);
		fn(k);
		ASSERT_GE(fcntl(3, F_GETFD), 0); /* the door's is left alone */
	}
	_exit(test_failed ? TEST_FAIL : TEST_PASS);
wait:
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	store_listen(s);
	return pid;
}

/* The words of a descriptor that stays change; a store that has it does not take it again. */
static void put_words(struct keep *k)
{
	struct pst_error err = {0};
	json_t *about = json_pack("{s:s}", "text", "");
	int fd = memory("");

	put_three(k);
	ASSERT_OK(keep_put(k, "pool-5", fd, about, &err), &err);
	ASSERT_EQ(4, pwrite(fd, "five", 4, 0));
	json_object_set_new(about, "text", json_string("five"));
	ASSERT_OK(keep_put(k, "pool-5", fd, about, &err), &err);
	put(k, "pool-2", "changed");
	keep_drop(k, "child-1");
}

static void expect_words(struct keep *k)
{
	struct seen *s = look(k, "");

	EXPECT_EQ(3u, s->n);
	EXPECT_STREQ("one", text_of(s, "pool-1"));
	EXPECT_STREQ("changed", text_of(s, "pool-2"));
	EXPECT_STREQ("five", text_of(s, "pool-5"));
}

static void drop_words(struct keep *k)
{
	keep_drop(k, "pool-1");
	keep_drop(k, "pool-2");
	keep_drop(k, "pool-5");
}

TEST(systemd_keeps)
{
	struct store s = {0};
	struct stat st;

	store_begin(&s);
	restart(&s, put_words);
	EXPECT_EQ(4u, s.n); /* with the index */
	restart(&s, expect_words);
	restart(&s, expect_words);
	/* what nobody knows goes */
	store_take(&s, "keep-99", memory("lost"));
	restart(&s, put_nothing);
	EXPECT_EQ(4u, s.n);
	restart(&s, drop_words);
	EXPECT_EQ(0u, s.n);
	EXPECT_EQ(-1, stat(path(SOCKET KEEPER_SUFFIX), &st));
}

TEST(systemd_without_a_store)
{
	struct store s = {0};
	struct keep *k;

	store_begin(&s);
	unsetenv("FDSTORE");
	k = open_keep();
	put(k, "pool-1", "one");
	EXPECT_TRUE(runs(await_keeper(0)));
	store_listen(&s);
	EXPECT_EQ(0u, s.n);
	keep_close(k);
}

TEST(no_program)
{
	struct pst_error err = {0};
	json_t *about = json_pack("{s:s}", "text", "x");
	struct keep *k = open_keep();
	int fd = memory("x");

	setenv("PENSTOCK_BIN", test_tmpdir(), 1);
	EXPECT_EQ(-ENOENT, keep_put(k, "pool-1", fd, about, &err));
	EXPECT_TRUE(strstr(err.text, "PENSTOCK_BIN") != NULL);
	keep_close(k);
	unsetenv("PENSTOCK_BIN");
	/* what failed left nothing */
	k = open_keep();
	EXPECT_EQ(0u, look(k, "")->n);
	keep_close(k);
	json_decref(about);
	close(fd);
}

TEST(long_paths)
{
	char name[120];
	struct pst_error err = {0};
	struct keep *k;

	memset(name, 'p', sizeof(name));
	name[0] = '/';
	name[103] = '\0';
	EXPECT_EQ(-ENAMETOOLONG, keep_open(name, &k, &err));
	EXPECT_TRUE(strstr(err.text, "too long") != NULL);
	name[102] = '\0';
	ASSERT_EQ(0, keep_open(name, &k, &err));
	keep_close(k);
	/* a path from here */
	say_where();
	ASSERT_EQ(0, chdir(test_tmpdir()));
	ASSERT_EQ(0, keep_open(SOCKET, &k, &err));
	put(k, "pool-1", "one");
	keep_close(k);
	ASSERT_EQ(0, chdir("/"));
	k = open_keep();
	EXPECT_EQ(1u, look(k, "")->n);
	keep_close(k);
}

TEST_MAIN
