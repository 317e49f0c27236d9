/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every command does with a struct that is not as it must be: the same at both doors, for all
 * that they serve. The door of a daemon that this starts, and /dev/penstock where it is.
 */
#include "selftests/control/daemon.h"
#include "selftests/control/table.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>

FIXTURE(door)
{
	struct daemon daemon;
	const char *path;
	struct pst_control *control;
	uint64_t commands; /* that it serves */
};
FIXTURE_VARIANT(door)
{
	const char *module;
};
FIXTURE_VARIANT_ADD(door, socket){NULL};
FIXTURE_VARIANT_ADD(door, module){"/dev/penstock"};

static struct pst_control *open_door(const char *path)
{
	struct pst_control *control = NULL;
	struct pst_error err = {0};

	ASSERT_OK(pst_control_open(path, &control, &err), &err);
	return control;
}

FIXTURE_SETUP(door)
{
	struct pst_cmd_info info = {.size = sizeof(info)};

	if (variant->module && access(variant->module, F_OK))
		SKIP("no /dev/penstock", "make vm-check");
	if (!variant->module)
		daemon_start(&self->daemon, NULL);
	self->path = variant->module ? variant->module : self->daemon.socket;
	self->control = open_door(self->path);
	ASSERT_EQ(0, pst_control_call(self->control, PST_CMD_INFO, &info, NULL));
	self->commands = info.out_commands;
}

FIXTURE_TEARDOWN(door)
{
	pst_control_close(self->control);
	if (self->daemon.pid)
		EXPECT_EQ(0, daemon_stop(&self->daemon));
}

static bool serves(const struct fixture_door *self, const struct table_row *row)
{
	return self->commands >> (row->cmd - PST_CMD_BASE) & 1;
}

#define FOR_EACH(row)                                                              \
	for (const struct table_row *row = table; row < table + table_rows; row++) \
		if (serves(self, row))

/* The sentence is there when it fails, and says so itself. */
static int call(const struct fixture_door *self, const struct table_row *row, union table_arg *arg)
{
	struct pst_error err = {0};
	int rc = pst_control_call(self->control, row->cmd, arg, &err);

	if (!rc) {
		table_drop(row, arg);
		return 0;
	}
	EXPECT_EQ(rc, err.code);
	EXPECT_NE('\0', err.text[0]);
	return rc;
}

static void expect(const struct fixture_door *self, const struct table_row *row, int rc,
		   union table_arg *arg, const char *what)
{
	union table_arg before = *arg;
	int got = call(self, row, arg);

	if (got != rc) {
		printf("# %s, %s: %d is not %d\n", row->name, what, got, rc);
		test_failed = true;
	}
	/* nothing is written on failure */
	if (got && memcmp(&before, arg, sizeof(before))) {
		printf("# %s, %s: failed, and wrote\n", row->name, what);
		test_failed = true;
	}
}

static void set_size(union table_arg *arg, uint32_t size)
{
	memcpy(arg->bytes, &size, sizeof(size));
}

TEST_F(door, serves_what_it_must)
{
	uint64_t pools = 0;

	for (uint32_t cmd = PST_CMD_INFO; cmd <= PST_CMD_POOL_DESTROY; cmd++)
		pools |= 1ull << (cmd - PST_CMD_BASE);
	EXPECT_EQ(pools, self->commands & pools);
	if (!variant->module)
		EXPECT_EQ((1ull << (PST_CMD_END - PST_CMD_BASE)) - 1, self->commands);
}

TEST_F(door, good)
{
	union table_arg arg;

	FOR_EACH(row)
	{
		table_good(row, &arg);
		expect(self, row, row->rc, &arg, "as it should be");
	}
}

TEST_F(door, too_short)
{
	union table_arg arg;

	FOR_EACH(row)
	{
		uint32_t sizes[] = {0, 1, 3, 4, 7, row->min - 1};

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			table_good(row, &arg);
			set_size(&arg, sizes[i]);
			expect(self, row, -EINVAL, &arg, "too short");
		}
	}
}

/* Down to the fields that must be there, zeros follow. */
TEST_F(door, as_short_as_may_be)
{
	union table_arg arg;

	FOR_EACH(row)
	for (uint32_t size = row->min; size < row->size; size += 4) {
		union table_arg before;

		table_good(row, &arg);
		set_size(&arg, size);
		memset(arg.bytes + size, 0x5a, sizeof(arg.bytes) - size);
		before = arg;
		expect(self, row, row->rc, &arg, "short");
		EXPECT_EQ(0,
			  memcmp(arg.bytes + size, before.bytes + size, sizeof(arg.bytes) - size));
	}
}

TEST_F(door, longer_with_zeros)
{
	union table_arg arg;

	FOR_EACH(row)
	{
		uint32_t sizes[] = {row->size + 1, row->size + 8, PST_DOOR_MAX};

		for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
			table_good(row, &arg);
			set_size(&arg, sizes[i]);
			expect(self, row, row->rc, &arg, "longer, zeros");
		}
	}
}

TEST_F(door, longer_with_more)
{
	union table_arg arg;

	FOR_EACH(row)
	{
		uint32_t at[] = {row->size, row->size + 7, PST_DOOR_MAX - 1};

		for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
			table_good(row, &arg);
			set_size(&arg, at[i] + 1);
			arg.bytes[at[i]] = 1;
			expect(self, row, -E2BIG, &arg, "longer, more");
		}
	}
}

TEST_F(door, longer_than_any)
{
	uint32_t sizes[] = {PST_DOOR_MAX + 1, PST_DOOR_MAX + 8, 1u << 31, ~0u};
	union table_arg arg;

	FOR_EACH(row)
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		table_good(row, &arg);
		set_size(&arg, sizes[i]);
		expect(self, row, -E2BIG, &arg, "longer than any");
	}
}

TEST_F(door, unknown_flags)
{
	union table_arg arg;

	FOR_EACH(row)
	for (int bit = 0; bit < 32; bit++) {
		uint32_t flags = 1u << bit;

		if (row->flags & flags)
			continue;
		table_good(row, &arg);
		memcpy(arg.bytes + 4, &flags, sizeof(flags));
		expect(self, row, -EOPNOTSUPP, &arg, "an unknown flag");
	}
}

TEST_F(door, reserved)
{
	union table_arg arg;

	FOR_EACH(row)
	for (int i = 0; row->reserved && i < 4; i++) {
		table_good(row, &arg);
		arg.bytes[row->reserved + i] = 0x80;
		expect(self, row, -EINVAL, &arg, "reserved");
	}
}

TEST_F(door, names)
{
	union table_arg arg;

	FOR_EACH(row)
	{
		if (!row->text)
			continue;
		table_good(row, &arg);
		memset(arg.bytes + row->text, 'x', (size_t)row->text_bytes);
		expect(self, row, -EINVAL, &arg, "a name without an end");
		table_good(row, &arg);
		arg.bytes[row->text + row->text_bytes - 1] = 'x';
		expect(self, row, -EINVAL, &arg, "a name, and more behind it");
	}
}

TEST_F(door, ids)
{
	uint32_t ids[] = {0, NO_SUCH_ID, 1u << 31, ~0u};
	union table_arg arg;

	FOR_EACH(row)
	for (size_t i = 0; row->id && i < sizeof(ids) / sizeof(ids[0]); i++) {
		table_good(row, &arg);
		memcpy(arg.bytes + row->id, &ids[i], sizeof(ids[i]));
		expect(self, row, -ENOENT, &arg, "an id that there is not");
	}
}

TEST_F(door, walks_end)
{
	union table_arg arg;

	FOR_EACH(row)
	{
		uint32_t next = PST_STAT_NEXT, last = ~0u;

		if (!row->id || row->flags != PST_STAT_NEXT)
			continue;
		table_good(row, &arg);
		memcpy(arg.bytes + 4, &next, sizeof(next));
		memcpy(arg.bytes + row->id, &last, sizeof(last));
		expect(self, row, -ENOENT, &arg, "behind the last");
	}
}

TEST_F(door, unknown_commands)
{
	uint32_t numbers[] = {0, 1, PST_CMD_BASE - 1, PST_CMD_END, 255, 1u << 31, ~0u};
	struct pst_cmd_info info = {.size = sizeof(info)};

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		EXPECT_EQ(-ENOTTY, pst_control_call(self->control, numbers[i], &info, NULL));
	EXPECT_EQ(0, pst_control_call(self->control, PST_CMD_INFO, &info, NULL));
}

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	ASSERT_NE(NULL, dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

struct bad_memory {
	char *page, *end; /* a page that may be written; nothing is mapped behind its end */
	char *readonly, *none;
};

static void map_bad(struct bad_memory *bad)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *p = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, (void *)p);
	bad->page = p;
	bad->end = p + page;
	bad->readonly = p + 2 * page;
	bad->none = p + 3 * page;
	ASSERT_EQ(0, munmap(bad->end, page));
}

static int call_at(const struct fixture_door *self, const struct table_row *row, void *arg)
{
	return pst_control_call(self->control, row->cmd, arg, NULL);
}

TEST_F(door, memory_that_is_not_there)
{
	struct bad_memory bad;
	int fds = open_fds();

	map_bad(&bad);
	ASSERT_EQ(0, mprotect(bad.none, 4096, PROT_NONE));
	FOR_EACH(row)
	{
		union table_arg arg;

		table_good(row, &arg);
		EXPECT_EQ(-EFAULT, call_at(self, row, NULL));
		EXPECT_EQ(-EFAULT, call_at(self, row, (void *)64));
		EXPECT_EQ(-EFAULT, call_at(self, row, bad.end));
		EXPECT_EQ(-EFAULT, call_at(self, row, bad.none));
		/* all but the last byte is there; then not even the whole size is */
		memcpy(bad.end - row->size + 1, arg.bytes, row->size - 1);
		EXPECT_EQ(-EFAULT, call_at(self, row, bad.end - row->size + 1));
		memcpy(bad.end - 2, arg.bytes, 2);
		EXPECT_EQ(-EFAULT, call_at(self, row, bad.end - 2));
	}
	EXPECT_EQ(fds, open_fds());
}

/* What succeeds has something to say, and nowhere to say it. */
TEST_F(door, memory_that_cannot_be_written)
{
	struct bad_memory bad;
	int fds = open_fds();

	map_bad(&bad);
	FOR_EACH(row)
	{
		union table_arg arg;

		table_good(row, &arg);
		ASSERT_EQ(0, mprotect(bad.readonly, 4096, PROT_READ | PROT_WRITE));
		memcpy(bad.readonly, arg.bytes, row->size);
		ASSERT_EQ(0, mprotect(bad.readonly, 4096, PROT_READ));
		EXPECT_EQ(row->rc ? row->rc : -EFAULT, call_at(self, row, bad.readonly));
		EXPECT_EQ(0, memcmp(bad.readonly, arg.bytes, row->size));
	}
	EXPECT_EQ(fds, open_fds());
}

/* A struct need not be aligned. */
TEST_F(door, memory_at_odd_places)
{
	char space[sizeof(union table_arg) + 1];

	FOR_EACH(row)
	{
		union table_arg arg;

		table_good(row, &arg);
		memcpy(space + 1, arg.bytes, row->size);
		EXPECT_EQ(row->rc, call_at(self, row, space + 1));
		memcpy(arg.bytes, space + 1, row->size);
		if (!row->rc)
			table_drop(row, &arg);
	}
}

struct stranger {
	struct fixture_door *self;
	const struct variant_door *variant;
};

static int look_only(void *arg)
{
	struct stranger *stranger = arg;
	struct fixture_door *self = stranger->self;
	struct pst_cmd_info info = {.size = sizeof(info)};
	union table_arg a;

	pst_control_close(self->control);
	self->control = open_door(self->path);
	EXPECT_EQ(0, pst_control_call(self->control, PST_CMD_INFO, &info, NULL));
	EXPECT_EQ(0u, info.out_may_change);
	FOR_EACH(row)
	{
		table_good(row, &a);
		expect(self, row, row->changes ? -EPERM : row->rc, &a, "by who may look");
	}
	return test_failed;
}

TEST_F(door, no_permission)
{
	struct stranger stranger = {self, variant};

	if (getuid())
		SKIP("it takes root to become somebody else", "sudo");
	EXPECT_EQ(0, as_user(65534, look_only, &stranger));
}

/* Size, flags, reserved, names, permission, then the rest: of two things wrong the first is told.
 */
static int in_order(void *arg)
{
	struct stranger *stranger = arg;
	struct fixture_door *self = stranger->self;
	union table_arg a;

	pst_control_close(self->control);
	self->control = open_door(self->path);
	FOR_EACH(row)
	{
		uint32_t flags = 1u << 31;

		if (row->changes && row->text) {
			table_good(row, &a);
			memset(a.bytes + row->text, 'x', (size_t)row->text_bytes);
			expect(self, row, -EINVAL, &a, "a bad name, by who may look");
		}
		table_good(row, &a);
		memcpy(a.bytes + 4, &flags, sizeof(flags));
		if (row->reserved)
			a.bytes[row->reserved] = 1;
		expect(self, row, -EOPNOTSUPP, &a, "flags and reserved");
		set_size(&a, row->size + 1);
		a.bytes[row->size] = 1;
		expect(self, row, -E2BIG, &a, "size and flags");
	}
	return test_failed;
}

TEST_F(door, order_of_checks)
{
	struct stranger stranger = {self, variant};

	if (getuid())
		SKIP("it takes root to become somebody else", "sudo");
	EXPECT_EQ(0, as_user(65534, in_order, &stranger));
}

TEST_F(door, why)
{
	struct pst_cmd_why why = {.size = sizeof(why)};
	struct pst_cmd_info info = {.size = sizeof(info), .flags = 8};
	struct pst_cmd_pool_map map = {.size = sizeof(map), .id = NO_SUCH_ID};

	EXPECT_EQ(0, pst_control_call(self->control, PST_CMD_WHY, &why, NULL));
	EXPECT_EQ(0, why.out_code);
	EXPECT_EQ(-ENOENT, pst_control_call(self->control, PST_CMD_POOL_MAP, &map, NULL));
	EXPECT_EQ(-EOPNOTSUPP, pst_control_call(self->control, PST_CMD_INFO, &info, NULL));
	info.flags = 0;
	EXPECT_EQ(0, pst_control_call(self->control, PST_CMD_INFO, &info, NULL));
	for (int i = 0; i < 2; i++) { /* asking does not change it, nor do others */
		memset(&why, 0, sizeof(why));
		why.size = sizeof(why);
		EXPECT_EQ(0, pst_control_call(self->control, PST_CMD_WHY, &why, NULL));
		EXPECT_EQ(-EOPNOTSUPP, why.out_code);
		EXPECT_EQ((uint32_t)PST_CMD_INFO, why.out_cmd);
		EXPECT_EQ(0, why.out_text[sizeof(why.out_text) - 1]);
		if (!variant->module)
			EXPECT_STREQ("INFO: unknown flags 0x8", (char *)why.out_text);
	}
}

TEST_F(door, descriptors_that_are_none)
{
	int image = open("/dev/null", O_RDONLY | O_CLOEXEC), dead = dup(image);
	int wrong[][2] = {{-1, -1},	 {-1, image},	   {image, -1}, {image, dead},
			  {dead, image}, {image, 1 << 20}, {-2, image}};

	close(dead);
	if (!(self->commands >> (PST_CMD_KERNEL_LOAD - PST_CMD_BASE) & 1))
		SKIP("this door has no command with descriptors", "make check");
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		struct pst_cmd_kernel_load load = {
			.size = sizeof(load), .image_fd = wrong[i][0], .manifest_fd = wrong[i][1]};

		EXPECT_EQ(-EBADF,
			  pst_control_call(self->control, PST_CMD_KERNEL_LOAD, &load, NULL));
	}
}

TEST_MAIN
