/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets how much of the module, and what it does with those who mean it no good. */
#include "selftests/control/mapped.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

FIXTURE(module)
{
	int fd;
};
FIXTURE_SETUP(module)
{
	self->fd = door_open(O_RDWR);
	ASSERT_LE(0, self->fd);
	ASSERT_TRUE(becomes(self->fd, 0));
}
FIXTURE_TEARDOWN(module)
{
	close(self->fd);
}

TEST_F(module, who_may_only_look)
{
	const struct mapped m = map_new(self->fd, "seen", HUGE, 0);
	struct pst_cmd_pool_create pool;
	struct pst_cmd_why why = {.size = sizeof(why)};
	const pid_t looker = child();

	if (!looker) {
		become_nobody();
		ASSERT_GT(0, open(DOOR, O_RDWR));
		const int fd = door_open(O_RDONLY);

		ASSERT_LE(0, fd);
		ASSERT_EQ(0u, info(fd).out_may_change);
		ASSERT_EQ(-EPERM, create(fd, "mine", PAGE, 0, 0, &pool));
		ASSERT_EQ(0, order(fd, PST_IOC_WHY, &why));
		ASSERT_EQ(-EPERM, why.out_code);
		ASSERT_EQ((int)PST_CMD_POOL_CREATE, (int)why.out_cmd);
		ASSERT_TRUE(strstr((char *)why.out_text, "open for reading") != NULL);
		ASSERT_EQ(0u, stat_of(fd, m.pool.out_id).out_uid);
		ASSERT_EQ(-EPERM, export_pool(fd, m.pool.out_id, 0));
		ASSERT_EQ(-EPERM, export_pool(fd, m.pool.out_id, PST_POOL_MAP_READ));
		ASSERT_EQ(-EPERM, destroy(fd, m.pool.out_id));
		_exit(0);
	}
	EXPECT_EQ(0, ended(looker));
}

/* A door that was opened by root and given away is charged to root, who can be asked for it. */
TEST_F(module, a_user_has_a_quota)
{
	struct pst_cmd_pool_create pool;
	pid_t user;

	ASSERT_EQ(0, chmod(DOOR, 0666));
	write_file(QUOTA, "8388608");
	user = child();
	if (!user) {
		become_nobody();
		const int fd = door_open(O_RDWR);

		ASSERT_EQ(8 * MIB, info(fd).out_quota_bytes);
		ASSERT_EQ(-EDQUOT, create(fd, "nine", 9 * MIB, 0, 0, &pool));
		ASSERT_EQ(-EDQUOT, create(fd, "all", ~0ull, 0, 0, &pool));
		ASSERT_EQ(0, create(fd, "four", 4 * MIB, 0, 0, &pool));
		const uint32_t four = pool.out_id;
		const int held = export_pool(fd, pool.out_id, 0);

		ASSERT_EQ(0, create(fd, "more", 4 * MIB, 1, 0, &pool));
		const uint32_t more = pool.out_id;

		ASSERT_EQ(8 * MIB, info(fd).out_quota_used);
		ASSERT_EQ(-EDQUOT, create(fd, "page", PAGE, 1, 0, &pool));
		ASSERT_EQ(0, destroy(fd, more));
		ASSERT_EQ(0, destroy(fd, four));
		/* What is held counts. */
		ASSERT_EQ(4 * MIB, info(fd).out_quota_used);
		ASSERT_EQ(-EDQUOT, create(fd, "six", 6 * MIB, 0, 0, &pool));
		close(held);
		ASSERT_TRUE(becomes(fd, 0));
		ASSERT_EQ(0, create(fd, "six", 6 * MIB, 0, 0, &pool));
		ASSERT_EQ(0, create(self->fd, "root's", 8 * MIB, 0, 0, &pool));
		ASSERT_EQ(6 * MIB, info(fd).out_quota_used);
		ASSERT_EQ(8 * MIB, info(self->fd).out_quota_used);
		/* Many small ones are too many some time. */
		int i = 0, rc;

		do {
			char name[16];

			snprintf(name, sizeof(name), "small %d", i++);
			rc = create(fd, name, PAGE, 0, 0, &pool);
		} while (!rc && i < 2000);
		ASSERT_EQ(-EDQUOT, rc);
		ASSERT_GT(1025, i);
		_exit(0);
	}
	EXPECT_EQ(0, ended(user));
	write_file(QUOTA, "0");
	ASSERT_EQ(0, chmod(DOOR, 0664));
}

TEST_F(module, a_control_group_is_charged)
{
	static const char group[] = "/sys/fs/cgroup/penstock-module";
	struct pst_cmd_pool_create pool;
	char path[128];
	pid_t member;

	rmdir(group);
	ASSERT_EQ(0, mkdir(group, 0755));
	snprintf(path, sizeof(path), "%s/memory.max", group);
	write_file(path, "67108864");
	member = child();
	if (!member) {
		snprintf(path, sizeof(path), "%s/cgroup.procs", group);
		write_file(path, "0");
		snprintf(path, sizeof(path), "%s/memory.current", group);
		ASSERT_EQ(-ENOMEM, create(self->fd, "too much", 128 * MIB, 0, 0, &pool));
		ASSERT_GT(8 * MIB, number_in(path, ""));
		ASSERT_EQ(0, create(self->fd, "fits", 32 * MIB, 0, 0, &pool));
		ASSERT_LE(32 * MIB, number_in(path, ""));
		ASSERT_EQ(0, destroy(self->fd, pool.out_id));
		ASSERT_GT(8 * MIB, number_in(path, ""));
		_exit(0);
	}
	EXPECT_EQ(0, ended(member));
	EXPECT_EQ(0, rmdir(group));
}

/* While it asks for memory that takes a while to fill with zeros. */
TEST_F(module, killed_while_it_asks)
{
	struct pst_cmd_pool_create pool;
	const pid_t asks = child();

	if (!asks) {
		for (;;)
			if (!create(self->fd, "slow", 700 * MIB, 1, 0, &pool))
				destroy(self->fd, pool.out_id);
	}
	for (int i = 0; i < 500 && !info(self->fd).out_pool_bytes; i++)
		usleep(1000);
	usleep(20000);
	kill(asks, SIGKILL);
	EXPECT_EQ(SIGKILL, ended(asks));
	/* Killed after the answer it would leave the pool to our door. */
	struct pst_cmd_pool_stat s = {.size = sizeof(s), .flags = PST_STAT_NEXT};

	if (!order(self->fd, PST_IOC_POOL_STAT, &s))
		EXPECT_EQ(0, destroy(self->fd, s.id));
	EXPECT_TRUE(becomes(self->fd, 0));
	EXPECT_EQ(0, create(self->fd, "slow", HUGE, 1, 0, &pool));
}

/* The n-th allocation fails, for every n, until all succeed; nothing is left of those that failed.
 */
TEST_F(module, fail_nth)
{
	const int fail = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC);
	struct pst_cmd_pool_create pool;
	bool failed = true;
	char text[16];
	int n = 0;

	if (fail < 0)
		SKIP("this kernel injects no faults", "make vm-debug-kernel");
	while (failed && n++ < 1000) {
		int rc, fd = -1;

		snprintf(text, sizeof(text), "%d", n);
		ASSERT_LT(0, pwrite(fail, text, strlen(text), 0));
		rc = create(self->fd, "nth", HUGE, 0, 0, &pool);
		if (!rc)
			fd = export_pool(self->fd, pool.out_id, 0);
		memset(text, 0, sizeof(text));
		ASSERT_LT(0, pread(fail, text, sizeof(text) - 1, 0));
		ASSERT_LT(0, pwrite(fail, "0", 1, 0));
		failed = atoi(text) == 0;
		if (rc)
			EXPECT_EQ(-ENOMEM, rc);
		else if (fd < 0)
			EXPECT_TRUE(fd == -ENOMEM || fd == -ENFILE);
		close(fd);
		if (!rc)
			EXPECT_EQ(0, destroy(self->fd, pool.out_id));
		EXPECT_TRUE(becomes(self->fd, 0));
	}
	printf("# each of %d allocations failed once\n", n - 1);
	EXPECT_LT(3, n);
	EXPECT_GT(1000, n);
}

/* Mostly what the module can understand, so that it gets far; else anything. */
static void random_order(int *door, uint64_t *seed)
{
	static const uint16_t sizes[] = {
		sizeof(struct pst_cmd_info),	    sizeof(struct pst_cmd_why),
		sizeof(struct pst_cmd_pool_create), sizeof(struct pst_cmd_pool_map),
		sizeof(struct pst_cmd_pool_stat),   sizeof(struct pst_cmd_pool_destroy)};
	union {
		uint32_t word[1200];
		struct pst_cmd_pool_create create;
		struct pst_cmd_pool_map map;
		struct pst_cmd_pool_stat stat;
		struct pst_cmd_pool_destroy destroy;
	} arg;
	const uint64_t dice = test_random(seed);
	const unsigned nr = dice % 6;
	unsigned long cmd = _IO(PST_IOCTL_TYPE, PST_CMD_BASE + nr);
	void *at = &arg;
	int rc;

	for (size_t i = 0; i < 160; i++)
		arg.word[i] = (uint32_t)(test_random(seed) >> 20);
	if (dice >> 8 & 7) {
		memset(&arg, 0, sizeof(arg));
		arg.word[0] = sizes[nr];
		arg.create.flags = dice >> 12 & 7 ? 0 : dice >> 20 & 3;
		arg.map.id = dice >> 24 & 63;
	}
	if (nr == PST_CMD_POOL_CREATE - PST_CMD_BASE && dice >> 8 & 7) {
		arg.create.bytes = test_random(seed) >> (40 + dice % 20);
		arg.create.node = (int)(dice >> 30 & 3) - 1;
		arg.create.name[0] = 'a' + (dice >> 40) % 26;
	}
	if (!(dice >> 44 & 31))
		cmd = (unsigned)test_random(seed);
	if (!(dice >> 52 & 31))
		at = (void *)(uintptr_t)test_random(seed);
	rc = ioctl(*door, cmd, at);
	if (!rc && at == &arg && cmd == PST_IOC_POOL_MAP) {
		/* Left mapped some of the time, so that pools die in every order. */
		unsigned char *m = mmap(NULL, arg.map.out_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
					arg.map.out_fd, 0);

		if (m != MAP_FAILED && arg.map.out_bytes) {
			m[test_random(seed) % arg.map.out_bytes] = 1;
			munmap(m, dice >> 57 & 1 ? arg.map.out_bytes : PAGE);
		}
		close(arg.map.out_fd);
	}
	if (!(dice >> 50 & 255)) {
		close(*door);
		*door = open(DOOR, O_RDWR | O_CLOEXEC);
	}
}

TEST_F(module, random_bytes)
{
	const char *said = getenv("VM_FUZZ_SECONDS");
	const int seconds = said ? atoi(said) : 3;
	enum { USERS = 3 };
	pid_t user[USERS];

	/* As the module's own memory for it is not what this is about. */
	ASSERT_EQ(0, chmod(DOOR, 0666));
	write_file(QUOTA, "67108864");
	for (int i = 0; i < USERS; i++) {
		user[i] = child();
		if (!user[i]) {
			uint64_t seed = (uint64_t)i + 1, n = 0;
			int fd = self->fd;
			const time_t end = time(NULL) + seconds;

			become_nobody();
			if (i)
				fd = door_open(O_RDWR);
			while (time(NULL) < end)
				for (int k = 0; k < 100; k++, n++)
					random_order(&fd, &seed);
			printf("# user %d: %lu orders\n", i, (unsigned long)n);
			fflush(stdout);
			_exit(0);
		}
	}
	for (int i = 0; i < USERS; i++)
		EXPECT_EQ(0, ended(user[i]));
	close(self->fd);
	self->fd = door_open(O_RDWR);
	EXPECT_TRUE(becomes(self->fd, 0));
	write_file(QUOTA, "0");
	ASSERT_EQ(0, chmod(DOOR, 0664));
}

TEST_MAIN
