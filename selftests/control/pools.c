/* SPDX-License-Identifier: Apache-2.0 */
/* Pools of penstockd: had, shared, counted, given back, and kept whoever is killed. */
#include "selftests/lib/sanitized.h"
#include "selftests/control/daemon.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define MIB	(1ull << 20)
#define NOBODY	65534
#define WAIT_MS 20000

static struct pst_error why; /* of the last command that failed */

static int call(struct pst_control *c, uint32_t cmd, void *arg)
{
	memset(&why, 0, sizeof(why));
	return pst_control_call(c, cmd, arg, &why);
}

static struct pst_cmd_pool_create wish(const char *name, uint64_t bytes, uint32_t flags)
{
	struct pst_cmd_pool_create create = {
		.size = sizeof(create), .flags = flags, .bytes = bytes, .node = PST_ANY};

	strncpy((char *)create.name, name, sizeof(create.name) - 1);
	return create;
}

/* An id, or -errno. */
static int create(struct pst_control *c, const char *name, uint64_t bytes, uint32_t flags)
{
	struct pst_cmd_pool_create how = wish(name, bytes, flags);
	int rc = call(c, PST_CMD_POOL_CREATE, &how);

	return rc ? rc : (int)how.out_id;
}

/* A descriptor, or -errno. */
static int map_fd(struct pst_control *c, uint32_t id, uint32_t flags)
{
	struct pst_cmd_pool_map how = {.size = sizeof(how), .flags = flags, .id = id};
	int rc = call(c, PST_CMD_POOL_MAP, &how);

	return rc ? rc : how.out_fd;
}

static int stat_pool(struct pst_control *c, uint32_t id, uint32_t flags,
		     struct pst_cmd_pool_stat *out)
{
	*out = (struct pst_cmd_pool_stat){.size = sizeof(*out), .flags = flags, .id = id};
	return call(c, PST_CMD_POOL_STAT, out);
}

static int destroy(struct pst_control *c, uint32_t id)
{
	struct pst_cmd_pool_destroy how = {.size = sizeof(how), .id = id};

	return call(c, PST_CMD_POOL_DESTROY, &how);
}

static unsigned int count(struct pst_control *c)
{
	struct pst_cmd_pool_stat st = {0};
	unsigned int n = 0;

	while (!stat_pool(c, st.id, PST_STAT_NEXT, &st))
		n++;
	return n;
}

static struct pst_cmd_info info(struct pst_control *c)
{
	struct pst_cmd_info i = {.size = sizeof(i)};

	EXPECT_EQ(0, call(c, PST_CMD_INFO, &i));
	return i;
}

static char *map_at(int fd, uint64_t bytes, int prot)
{
	void *at = mmap(NULL, bytes, prot, MAP_SHARED, fd, 0);

	return at == MAP_FAILED ? NULL : at;
}

static char *map(struct pst_control *c, uint32_t id, uint64_t bytes)
{
	int fd = map_fd(c, id, 0);
	char *at;

	ASSERT_GE(fd, 0);
	at = map_at(fd, bytes, PROT_READ | PROT_WRITE);
	ASSERT_TRUE(at != NULL);
	close(fd);
	return at;
}

static bool is_program(pid_t pid, const char *name)
{
	char path[64], comm[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (f && !fgets(comm, sizeof(comm), f))
		comm[0] = '\0';
	if (f)
		fclose(f);
	comm[strcspn(comm, "\n")] = '\0';
	return !strcmp(comm, name);
}

/* The keeper of @d, 0: none answers. */
static pid_t keeper_of(const struct daemon *d)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct ucred who = {0};
	socklen_t len = sizeof(who);

	snprintf(at.sun_path, sizeof(at.sun_path), "%.100s.keep", d->socket);
	if (!connect(fd, (struct sockaddr *)&at, sizeof(at)))
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
	close(fd);
	return is_program(who.pid, "penstock-keeper") ? who.pid : 0;
}

static pid_t await_keeper(const struct daemon *d, pid_t other_than)
{
	pid_t pid = 0;

	WAIT_FOR((pid = keeper_of(d)) && pid != other_than);
	return pid;
}

static uint64_t whole(uint64_t bytes, uint64_t page)
{
	return (bytes + page - 1) / page * page;
}

static void await_end(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	EXPECT_TRUE(fd < 0 || poll(&p, 1, WAIT_MS) == 1);
	if (fd >= 0)
		close(fd);
}

FIXTURE(pools)
{
	struct daemon d;
	struct pst_control *c;
};

FIXTURE_SETUP(pools)
{
	daemon_start(&self->d, "[pools]\nquota = 64M\n");
	self->c = daemon_connect(&self->d);
}

FIXTURE_TEARDOWN(pools)
{
	pst_control_close(self->c);
	EXPECT_EQ(0, daemon_stop(&self->d));
}

TEST_F(pools, there_and_gone)
{
	struct pst_cmd_pool_create how = wish("first", 5000, 0);
	struct pst_cmd_pool_stat st;
	char *at;

	ASSERT_EQ(0, call(self->c, PST_CMD_POOL_CREATE, &how));
	EXPECT_EQ(1u, how.out_id);
	EXPECT_EQ(test_huge_pages() ? 2 * MIB : 4096u, how.out_page_bytes);
	EXPECT_EQ(whole(5000, how.out_page_bytes), how.out_bytes);
	EXPECT_GE(how.out_node, 0);
	ASSERT_EQ(0, stat_pool(self->c, 1, 0, &st));
	EXPECT_EQ(how.out_bytes, st.out_bytes);
	EXPECT_EQ(how.out_node, st.out_node);
	EXPECT_EQ(geteuid(), st.out_uid);
	EXPECT_EQ((uint32_t)getpid(), st.out_pid);
	EXPECT_EQ(0u, st.out_maps);
	EXPECT_EQ(0u, st.out_flags & PST_POOL_CREATE_KEEP);
	EXPECT_STREQ("first", (char *)st.out_name);
	at = map(self->c, 1, how.out_bytes);
	for (int i = 0; i < 8192; i++)
		ASSERT_EQ(0, at[i]);
	ASSERT_EQ(0, stat_pool(self->c, 0, PST_STAT_NEXT, &st));
	EXPECT_EQ(1u, st.id);
	EXPECT_EQ(1u, st.out_maps);
	EXPECT_EQ(-ENOENT, stat_pool(self->c, 1, PST_STAT_NEXT, &st));
	EXPECT_EQ(-ENOENT, stat_pool(self->c, 2, 0, &st));
	EXPECT_TRUE(strstr(why.text, "no pool 2") != NULL);
	ASSERT_EQ(0, destroy(self->c, 1));
	EXPECT_EQ(-ENOENT, destroy(self->c, 1));
	EXPECT_EQ(-ENOENT, map_fd(self->c, 1, 0));
	EXPECT_EQ(-ENOENT, stat_pool(self->c, 1, 0, &st));
	/* who has it mapped still has it */
	at[8191] = 7;
	EXPECT_EQ(7, at[8191]);
	/* its id is never used again, its name may be */
	EXPECT_EQ(2, create(self->c, "first", 1, 0));
}

TEST_F(pools, two_processes_see_the_same_bytes)
{
	uint32_t id = (uint32_t)create(self->c, "shared", MIB, 0);
	char *at = map(self->c, id, MIB);
	int status;
	pid_t pid;

	strcpy(at, "from here");
	pid = fork();
	if (!pid) {
		struct pst_control *c = daemon_connect(&self->d);
		char *there = map(c, id, MIB);

		ASSERT_STREQ("from here", there);
		strcpy(there + MIB - 16, "from there");
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_STREQ("from there", at + MIB - 16);
}

struct stranger {
	const struct daemon *d;
	int fd; /* one that was handed over, to be read */
};

/* All that a process of another user can try, also with a descriptor that it may read. */
static int try_to_write(void *arg)
{
	const struct stranger *s = arg;
	struct pst_control *c = daemon_connect(s->d);
	int fd = s->fd;
	char path[64], *at;

	ASSERT_EQ(-EPERM, map_fd(c, 1, 0));
	ASSERT_EQ(-EPERM, map_fd(c, 1, PST_POOL_MAP_READ));
	ASSERT_TRUE(strstr(why.text, "may not map it") != NULL);
	ASSERT_EQ(-EPERM, destroy(c, 1));
	ASSERT_EQ(-EPERM, create(c, "mine", 4096, 0));
	at = map_at(fd, 4096, PROT_READ);
	ASSERT_TRUE(at != NULL);
	ASSERT_STREQ("look", at);
	ASSERT_TRUE(map_at(fd, 4096, PROT_READ | PROT_WRITE) == NULL);
	ASSERT_EQ(-1, mprotect(at, 4096, PROT_READ | PROT_WRITE));
	ASSERT_EQ(-1, write(fd, "x", 1));
	ASSERT_EQ(-1, ftruncate(fd, 0));
	ASSERT_EQ(-1, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
	ASSERT_EQ(-1, fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	ASSERT_EQ(-1, fchmod(fd, 0777));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ASSERT_EQ(-1, open(path, O_RDWR));
	ASSERT_EQ(EACCES, errno);
	ASSERT_EQ(-1, open(path, O_WRONLY));
	ASSERT_EQ(-1, chmod(path, 0777));
	ASSERT_EQ(-1, truncate(path, 0));
	return 0;
}

TEST_F(pools, readers_only_read)
{
	uint32_t id = (uint32_t)create(self->c, "look", 4096, 0);
	char *at = map(self->c, id, 4096), path[64];
	int fd = map_fd(self->c, id, PST_POOL_MAP_READ);
	struct stranger stranger = {&self->d, fd};

	strcpy(at, "look");
	/* whoever it is: not by the descriptor */
	ASSERT_GE(fd, 0);
	EXPECT_TRUE(map_at(fd, 4096, PROT_READ) != NULL);
	EXPECT_TRUE(map_at(fd, 4096, PROT_READ | PROT_WRITE) == NULL);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	if (geteuid())
		SKIP("only root can be another user", "run it as root");
	EXPECT_EQ(0, as_user(NOBODY, try_to_write, &stranger));
	close(fd);
	EXPECT_STREQ("look", at);
}

TEST_F(pools, writers_cannot_take_it_from_others)
{
	int fd = map_fd(self->c, (uint32_t)create(self->c, "firm", 8192, 0), 0);

	ASSERT_GE(fd, 0);
	EXPECT_EQ(-1, ftruncate(fd, 4096));
	EXPECT_EQ(-1, ftruncate(fd, 16384));
	EXPECT_EQ(-1, fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	EXPECT_EQ(EPERM, errno);
	close(fd);
}

TEST_F(pools, quota_and_names)
{
	struct pst_cmd_events ask = {
		.size = sizeof(ask), .mask = PST_EVENT_BIT(PST_EVENT_LIMIT), .out_fd = -1};
	struct pst_event event;

	ASSERT_EQ(0, call(self->c, PST_CMD_EVENTS, &ask));
	ASSERT_EQ(1, create(self->c, "a", 40 * MIB, 0));
	EXPECT_EQ(64 * MIB, info(self->c).out_quota_bytes);
	EXPECT_EQ(40 * MIB, info(self->c).out_quota_used);
	EXPECT_EQ(40 * MIB, info(self->c).out_pool_bytes);
	EXPECT_EQ(-EEXIST, create(self->c, "a", MIB, 0));
	EXPECT_TRUE(strstr(why.text, "a") != NULL);
	EXPECT_EQ(-EDQUOT, create(self->c, "b", 24 * MIB + 1, 0));
	EXPECT_TRUE(strstr(why.text, "64 MiB") != NULL);
	EXPECT_TRUE(strstr(why.text, "quota in") != NULL);
	ASSERT_EQ((ssize_t)sizeof(event), read(ask.out_fd, &event, sizeof(event)));
	EXPECT_EQ(geteuid(), event.id);
	EXPECT_EQ((int64_t)(24 * MIB + 1), event.value);
	EXPECT_EQ(-EDQUOT, create(self->c, "b", UINT64_MAX, 0));
	/* all of it, and not a page more */
	ASSERT_EQ(2, create(self->c, "b", 24 * MIB, 0));
	EXPECT_EQ(-EDQUOT, create(self->c, "c", 1, 0));
	EXPECT_EQ(0, destroy(self->c, 1));
	EXPECT_EQ(24 * MIB, info(self->c).out_quota_used);
	EXPECT_EQ(3, create(self->c, "c", 40 * MIB, 0));
	close(ask.out_fd);
}

TEST_F(pools, what_cannot_be)
{
	struct pst_cmd_pool_create how = wish("x", MIB, 0);

	EXPECT_EQ(-EINVAL, create(self->c, "", MIB, 0));
	EXPECT_EQ(-EINVAL, create(self->c, "x", 0, 0));
	how.node = 1000;
	EXPECT_EQ(-EINVAL, call(self->c, PST_CMD_POOL_CREATE, &how));
	EXPECT_TRUE(strstr(why.text, "node 1000") != NULL);
	EXPECT_TRUE(strstr(why.text, "has_memory") != NULL);
	how.node = -2;
	EXPECT_EQ(-EINVAL, call(self->c, PST_CMD_POOL_CREATE, &how));
	EXPECT_EQ(0u, count(self->c));
	EXPECT_EQ(0u, info(self->c).out_quota_used);
	how.node = 0;
	EXPECT_EQ(0, call(self->c, PST_CMD_POOL_CREATE, &how));
	EXPECT_EQ(1u, how.out_id);
	EXPECT_EQ(0, how.out_node);
	/* what is wrong with the wish comes before what is wrong with the moment */
	how.node = 1000;
	EXPECT_EQ(-EINVAL, call(self->c, PST_CMD_POOL_CREATE, &how));
}

TEST_F(pools, go_with_their_session)
{
	struct pst_control *other;
	int before;

	/* what there is to keep ids with stays open */
	ASSERT_EQ(1, create(self->c, "kept", MIB, PST_POOL_CREATE_KEEP));
	ASSERT_EQ(0, destroy(self->c, 1));
	WAIT_FOR(!count(self->c));
	before = daemon_fds(&self->d);
	other = daemon_connect(&self->d);
	ASSERT_EQ(2, create(self->c, "stays", MIB, 0));
	ASSERT_EQ(3, create(other, "goes", MIB, 0));
	ASSERT_EQ(4, create(other, "goes too", MIB, 0));
	ASSERT_EQ(5, create(other, "kept", MIB, PST_POOL_CREATE_KEEP));
	/* who destroys what is another session's leaves that one with nothing to forget */
	ASSERT_EQ(0, destroy(self->c, 4));
	ASSERT_EQ(3u, count(self->c));
	pst_control_close(other);
	WAIT_FOR(count(self->c) == 2);
	ASSERT_EQ(0, destroy(self->c, 5));
	ASSERT_EQ(0, destroy(self->c, 2));
	WAIT_FOR(daemon_fds(&self->d) <= before);
}

/* Sent, but not waited for. */
static int ask_for(const struct daemon *d, const char *name, uint64_t bytes)
{
	struct {
		struct pst_door_request head;
		struct pst_cmd_pool_create how;
	} request = {.head.cmd = PST_CMD_POOL_CREATE, .how = wish(name, bytes, 0)};
	int fd = daemon_socket(d);

	ASSERT_GE(fd, 0);
	ASSERT_TRUE(raw_send(fd, &request, sizeof(request)));
	return fd;
}

TEST(others_are_served_while_a_large_one_is_made)
{
	struct daemon d;
	struct pst_control *c;
	bool served = false;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	/* what is asked later, again and again, is answered before it, if not each time */
	for (int i = 0; i < 50 && !served; i++) {
		struct pollfd p = {.fd = ask_for(&d, "large", 512 * MIB), .events = POLLIN};
		struct pst_door_answer answer[64];

		for (int n = 0; n < 20; n++)
			info(c);
		served = !poll(&p, 1, 0);
		ASSERT_GT(raw_receive(p.fd, answer, sizeof(answer)), 0);
		ASSERT_EQ(0, answer[0].rc);
		close(p.fd);
		WAIT_FOR(!count(c));
	}
	EXPECT_TRUE(served);
	/* who does not wait for it has none */
	for (int i = 0; i < 5; i++) {
		int fd = ask_for(&d, "nobody's", 512 * MIB);

		info(c); /* who answers this has begun with it */
		close(fd);
	}
	ASSERT_GT(create(c, "mine", MIB, 0), 0);
	WAIT_FOR(count(c) == 1);
	EXPECT_EQ(whole(MIB, test_huge_pages() ? 2 * MIB : 4096), info(c).out_pool_bytes);
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(more_than_there_is)
{
	struct pst_control *c;
	struct daemon d;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	EXPECT_EQ(PST_UNKNOWN, info(c).out_quota_bytes);
	EXPECT_EQ(-ENOMEM, create(c, "large", 1ull << 44, 0));
	/* the limit, and what mends it */
	EXPECT_TRUE(strstr(why.text, "16 TiB") != NULL);
	EXPECT_TRUE(strstr(why.text, "MemAvailable") != NULL || strstr(why.text, "cgroup") != NULL);
	EXPECT_TRUE(strstr(why.text, "ps -e") != NULL || strstr(why.text, "MemoryMax=") != NULL);
	EXPECT_EQ(-ENOMEM, create(c, "large", UINT64_MAX, 0));
	EXPECT_EQ(-ENOMEM, create(c, "huge", 1ull << 43, PST_POOL_CREATE_HUGE));
	EXPECT_TRUE(strstr(why.text, "nr_hugepages") != NULL);
	EXPECT_EQ(0u, count(c));
	EXPECT_EQ(1, create(c, "small", 1, 0));
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(pages_are_looked_at)
{
	struct pst_cmd_pool_stat st;
	struct pst_control *c;
	struct daemon d;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	ASSERT_EQ(1, create(c, "small", 3 * 4096, 0));
	ASSERT_EQ(0, stat_pool(c, 1, 0, &st));
	if (!st.out_pages) {
		EXPECT_TRUE(strstr((char *)st.out_note, "move_pages") != NULL);
		SKIP("move_pages is denied", "grant CAP_SYS_NICE");
	}
	EXPECT_EQ(3u, st.out_pages);
	EXPECT_EQ(0u, st.out_pages_elsewhere);
	/* of many, some */
	ASSERT_EQ(2, create(c, "large", 10001 * 4096, 0));
	ASSERT_EQ(0, stat_pool(c, 2, 0, &st));
	if (st.out_page_bytes == 4096) {
		EXPECT_GT(st.out_pages, 512u);
		EXPECT_LE(st.out_pages, 1024u);
	}
	EXPECT_EQ(0u, st.out_pages_elsewhere);
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

static unsigned long long field_of(pid_t pid, const char *file, const char *key)
{
	unsigned long long value = 0;
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key)))
			value = strtoull(line + strlen(key), NULL, 10);
	if (f)
		fclose(f);
	return value;
}

/* Words that no disk has. */
static void fill(char *at, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes / 8; i++)
		((uint64_t *)at)[i] = test_random(&seed);
}

static bool is_filled(const char *at, uint64_t bytes, uint64_t seed)
{
	for (uint64_t i = 0; i < bytes / 8; i++)
		if (((const uint64_t *)at)[i] != test_random(&seed))
			return false;
	return true;
}

TEST(what_is_kept_survives_a_kill)
{
	struct pst_cmd_pool_stat st, before;
	struct pst_control *c;
	struct daemon d;
	char *at;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	EXPECT_TRUE(info(c).out_features & PST_FEATURE_KEEP);
	ASSERT_EQ(1, create(c, "passing", MIB, 0));
	ASSERT_EQ(2, create(c, "kept \x81\"\\", 8 * MIB, PST_POOL_CREATE_KEEP));
	ASSERT_EQ(3, create(c, "passing too", MIB, 0));
	fill(map(c, 2, 8 * MIB), 8 * MIB, 1);
	ASSERT_EQ(0, stat_pool(c, 2, 0, &before));
	EXPECT_TRUE(before.out_flags & PST_POOL_CREATE_KEEP);
	await_keeper(&d, 0);
	daemon_kill(&d);
	pst_control_close(c);

	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_EQ(1u, count(c));
	ASSERT_EQ(0, stat_pool(c, 2, 0, &st));
	EXPECT_EQ(0, memcmp(before.out_name, st.out_name, sizeof(st.out_name)));
	EXPECT_EQ(before.out_bytes, st.out_bytes);
	EXPECT_EQ(before.out_page_bytes, st.out_page_bytes);
	EXPECT_EQ(before.out_node, st.out_node);
	EXPECT_EQ(before.out_uid, st.out_uid);
	EXPECT_EQ((uint32_t)getpid(), st.out_pid);
	EXPECT_EQ(1u, st.out_maps);
	EXPECT_EQ(8 * MIB, info(c).out_quota_used);
	at = map(c, 2, 8 * MIB);
	EXPECT_TRUE(is_filled(at, 8 * MIB, 1));
	/* none of it came from a disk; a page of the program may have */
	EXPECT_LT(field_of(d.pid, "io", "read_bytes: "), 1 * MIB);
	/* ids go on where they were, also of those that were not kept */
	EXPECT_EQ(4, create(c, "new", MIB, 0));
	EXPECT_EQ(-EEXIST, create(c, "kept \x81\"\\", MIB, 0));
	/* what is written now is there the next time, also after an end by order */
	fill(at, 8 * MIB, 2);
	pst_control_close(c);
	ASSERT_EQ(0, daemon_stop(&d));
	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_TRUE(is_filled(map(c, 2, 8 * MIB), 8 * MIB, 2));
	ASSERT_EQ(0, destroy(c, 2));
	pst_control_close(c);
	/* nothing is kept: the keeper ends, and the next daemon begins with 1 */
	{
		pid_t keeper = keeper_of(&d);

		ASSERT_EQ(0, daemon_stop(&d));
		await_end(keeper);
	}
	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_EQ(1, create(c, "first", MIB, 0));
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

/* In whatever order, as long as one of both lives. */
TEST(keepers_and_daemons_killed)
{
	struct pst_control *c;
	struct daemon d;
	pid_t keeper;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	ASSERT_EQ(1, create(c, "kept", MIB, PST_POOL_CREATE_KEEP));
	strcpy(map(c, 1, MIB), "still there");
	keeper = await_keeper(&d, 0);
	for (int i = 0; i < 3; i++) {
		kill(keeper, SIGKILL);
		keeper = await_keeper(&d, keeper);
		info(c); /* who answers this has told the keeper all */
		daemon_kill(&d);
		pst_control_close(c);
		daemon_run(&d);
		c = daemon_connect(&d);
		ASSERT_EQ(1u, count(c));
		ASSERT_STREQ("still there", map(c, 1, MIB));
	}
	/* with both gone it is gone, and that is no error */
	kill(keeper, SIGSTOP);
	daemon_kill(&d);
	kill(keeper, SIGKILL);
	await_end(keeper);
	pst_control_close(c);
	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_EQ(0u, count(c));
	EXPECT_EQ(1, create(c, "kept", MIB, PST_POOL_CREATE_KEEP));
	pst_control_close(c);
	ASSERT_EQ(0, daemon_stop(&d));
	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_EQ(0, destroy(c, 1));
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

TEST(two_hundred)
{
	enum { MANY = SANITIZED ? 20 : 200 };
	struct pst_cmd_pool_stat st = {0};
	struct pst_control *c;
	struct daemon d;
	uint32_t id = 0;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	for (int i = 1; i <= MANY; i++) {
		char name[PST_NAME_MAX];

		snprintf(name, sizeof(name), "pool %d", i);
		ASSERT_EQ(i, create(c, name, 4096, i % 2 ? PST_POOL_CREATE_KEEP : 0));
	}
	while (!stat_pool(c, st.id, PST_STAT_NEXT, &st))
		EXPECT_EQ(++id, st.id);
	EXPECT_EQ((uint32_t)MANY, id);
	daemon_kill(&d);
	pst_control_close(c);
	daemon_run(&d);
	c = daemon_connect(&d);
	for (id = 1, st.id = 0; !stat_pool(c, st.id, PST_STAT_NEXT, &st); id += 2)
		EXPECT_EQ(id, st.id);
	EXPECT_EQ((uint32_t)MANY + 1, id);
	EXPECT_EQ(MANY + 1, create(c, "one more", 4096, 0));
	for (id = 1; id < MANY; id += 2)
		ASSERT_EQ(0, destroy(c, id));
	EXPECT_EQ(1u, count(c));
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

/* The last that made a pool, and holds its lock. */
static pid_t holder_of(const struct daemon *d)
{
	char path[64], line[4096] = "";
	pid_t pid = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", d->pid, d->pid);
	f = fopen(path, "re");
	ASSERT_TRUE(f != NULL);
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	for (char *at = line, *end;; at = end) {
		long n = strtol(at, &end, 10);

		if (end == at)
			return pid;
		if (is_program((pid_t)n, "penstock-pool"))
			pid = (pid_t)n;
	}
}

static bool is_locked(struct pst_control *c, uint32_t id)
{
	struct pst_cmd_pool_stat st;

	EXPECT_EQ(0, stat_pool(c, id, 0, &st));
	return st.out_flags & PST_POOL_CREATE_LOCK;
}

static void need_lock(void)
{
	struct rlimit limit;

	SKIP_WITH_HUGE_PAGES();
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (limit.rlim_cur < 4 * MIB)
		SKIP("4 MiB may not be locked", "ulimit -l unlimited");
}

TEST(locks_outlive_a_kill)
{
	struct pst_control *c;
	struct daemon d;
	pid_t holder;

	need_lock();
	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	ASSERT_EQ(1, create(c, "locked", MIB, PST_POOL_CREATE_LOCK | PST_POOL_CREATE_KEEP));
	EXPECT_TRUE(is_locked(c, 1));
	holder = holder_of(&d);
	ASSERT_GT(holder, 0);
	if (!SANITIZED)
		EXPECT_GE(field_of(holder, "status", "VmLck:"), 1024u);
	daemon_kill(&d);
	pst_control_close(c);
	if (!SANITIZED)
		EXPECT_GE(field_of(holder, "status", "VmLck:"), 1024u);
	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_TRUE(is_locked(c, 1));
	EXPECT_EQ(0, kill(holder, 0));
	ASSERT_EQ(0, destroy(c, 1));
	await_end(holder);
	/* without KEEP it ends with its session */
	pst_control_close(c);
	c = daemon_connect(&d);
	ASSERT_EQ(2, create(c, "locked", MIB, PST_POOL_CREATE_LOCK));
	holder = holder_of(&d);
	pst_control_close(c);
	await_end(holder);
	/* and when nobody is left who knows of it */
	c = daemon_connect(&d);
	ASSERT_EQ(3, create(c, "locked", MIB, PST_POOL_CREATE_LOCK | PST_POOL_CREATE_KEEP));
	holder = holder_of(&d);
	{
		pid_t keeper = await_keeper(&d, 0);

		kill(keeper, SIGSTOP);
		daemon_kill(&d);
		kill(keeper, SIGKILL);
	}
	await_end(holder);
	pst_control_close(c);
}

TEST(a_lost_lock_is_told)
{
	struct pst_cmd_events ask = {
		.size = sizeof(ask), .mask = PST_EVENT_BIT(PST_EVENT_POOL), .out_fd = -1};
	struct pst_cmd_pool_stat st;
	struct pst_control *c;
	struct pst_event event;
	struct daemon d;
	pid_t holder;

	need_lock();
	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	ASSERT_EQ(1, create(c, "locked", MIB, PST_POOL_CREATE_LOCK | PST_POOL_CREATE_KEEP));
	strcpy(map(c, 1, MIB), "as it was");
	ASSERT_EQ(0, call(c, PST_CMD_EVENTS, &ask));
	holder = holder_of(&d);
	ASSERT_GT(holder, 0);
	kill(holder, SIGKILL);
	do
		ASSERT_EQ((ssize_t)sizeof(event), read(ask.out_fd, &event, sizeof(event)));
	while (!strstr((char *)event.text, "no longer locked"));
	EXPECT_EQ(1u, event.id);
	close(ask.out_fd);
	EXPECT_FALSE(is_locked(c, 1));
	ASSERT_EQ(0, stat_pool(c, 1, 0, &st));
	EXPECT_TRUE(strstr((char *)st.out_note, "no longer locked") != NULL);
	EXPECT_STREQ("as it was", map(c, 1, MIB));
	/* one that is killed while no daemon runs, too */
	ASSERT_EQ(2, create(c, "too", MIB, PST_POOL_CREATE_LOCK | PST_POOL_CREATE_KEEP));
	holder = holder_of(&d);
	ASSERT_GT(holder, 0);
	daemon_kill(&d);
	pst_control_close(c);
	kill(holder, SIGKILL);
	await_end(holder);
	daemon_run(&d);
	c = daemon_connect(&d);
	WAIT_FOR(!is_locked(c, 2));
	EXPECT_FALSE(is_locked(c, 1));
	EXPECT_EQ(0, destroy(c, 1));
	EXPECT_EQ(0, destroy(c, 2));
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

/* Its maker is killed, as the kernel does when there is no memory. */
TEST(a_killed_maker_is_told)
{
	struct pst_door_answer answer[64];
	struct pst_control *c;
	bool told = false;
	struct daemon d;

	daemon_start(&d, NULL);
	c = daemon_connect(&d);
	for (int i = 0; i < 50 && !told; i++) {
		int fd = ask_for(&d, "large", 512 * MIB);
		struct pollfd answered = {.fd = fd, .events = POLLIN};
		pid_t maker;

		do
			maker = holder_of(&d);
		while (!maker && !poll(&answered, 1, 0));
		if (maker)
			kill(maker, SIGKILL);
		ASSERT_GT(raw_receive(fd, answer, sizeof(answer)), 0);
		told = answer[0].rc == -ENOMEM;
		close(fd);
		WAIT_FOR(!count(c));
	}
	EXPECT_TRUE(told);
	EXPECT_GT(create(c, "small", MIB, 0), 0);
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

/* Of those who may lock little; root without the capability is one of them. */
static void lock_little(void *arg)
{
	struct rlimit little = {64 << 10, 64 << 10};

	(void)arg;
	setrlimit(RLIMIT_MEMLOCK, &little);
	prctl(PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
}

TEST(not_locked)
{
	struct pst_cmd_pool_stat st;
	struct pst_control *c;
	struct daemon d;

	SKIP_WITH_HUGE_PAGES();
	daemon_init(&d);
	d.prepare = lock_little;
	daemon_run(&d);
	c = daemon_connect(&d);
	EXPECT_EQ(-EPERM, create(c, "locked", MIB, PST_POOL_CREATE_LOCK));
	EXPECT_TRUE(strstr(why.text, "RLIMIT_MEMLOCK") != NULL);
	/* as far as it may, and it says so */
	ASSERT_EQ(1, create(c, "as it is", MIB, 0));
	ASSERT_EQ(0, stat_pool(c, 1, 0, &st));
	EXPECT_EQ(0u, st.out_flags & PST_POOL_CREATE_LOCK);
	EXPECT_TRUE(strstr((char *)st.out_note, "RLIMIT_MEMLOCK") != NULL);
	pst_control_close(c);
	EXPECT_EQ(0, daemon_stop(&d));
}

/* Ended while a pool is made: nobody waits for it, nothing stays of it. */
TEST(ended_meanwhile)
{
	struct daemon d;

	for (int i = 0; i < 3; i++) {
		int fd;

		daemon_start(&d, NULL);
		fd = ask_for(&d, "large", 256 * MIB);
		usleep((unsigned int)i * 5000);
		EXPECT_EQ(0, daemon_stop(&d));
		close(fd);
	}
}

TEST_MAIN
