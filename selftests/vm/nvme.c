/* SPDX-License-Identifier: Apache-2.0 */
/* The loader on a drive: from NVMe into a pool by io_uring, past the page cache, without a copy. */
#include "runtime/io/loader.h"
#include "selftests/lib/test.h"

#include <fcntl.h>

#define DRIVE "/dev/nvme0n1"
#define STAT  "/sys/block/nvme0n1/stat"

enum { MIB = 1 << 20, BYTES = 12 * MIB, BLOCK = PST_LOADER_BLOCK };

FIXTURE(drive)
{
	unsigned char *content, *memory;
	struct pst_pool *pool;
	struct pst_loader *loader;
	unsigned int file;
};

FIXTURE_VARIANT(drive)
{
	int node;
	uint32_t pool_flags;
};

FIXTURE_VARIANT_ADD(drive, first){0, 0};
FIXTURE_VARIANT_ADD(drive, second_huge){1, PST_POOL_HUGE_MUST};

/* What no earlier run has left there. */
static void write_drive(const unsigned char *content)
{
	const int fd = open(DRIVE, O_WRONLY | O_DIRECT | O_CLOEXEC);

	ASSERT_LE(0, fd);
	for (size_t at = 0; at < BYTES; at += MIB)
		ASSERT_EQ(MIB, pwrite(fd, content + at, MIB, (off_t)at));
	close(fd);
}

FIXTURE_SETUP(drive)
{
	const struct pst_pool_options po = {.size = sizeof(po),
					    .name = "tensors",
					    .bytes = 2 * BYTES,
					    .node = variant->node,
					    .flags = variant->pool_flags};
	const struct pst_loader_options lo = {
		.size = sizeof(lo), .chunk = 256 << 10, .pools = &self->pool, .npools = 1};
	struct pst_error err = {0};
	uint64_t seed = (uint64_t)getpid();

	if (access(DRIVE, R_OK | W_OK))
		SKIP("no drive " DRIVE, "selftests/vm/run");
	self->content = aligned_alloc(BLOCK, BYTES);
	ASSERT_NE(NULL, self->content);
	for (size_t i = 0; i < BYTES / 8; i++)
		((uint64_t *)self->content)[i] = test_random(&seed);
	write_drive(self->content);
	ASSERT_OK(pst_pool_create(&po, &self->pool, &err), &err);
	self->memory = pst_pool_alloc(self->pool, BYTES + BYTES / 2, BLOCK);
	ASSERT_NE(NULL, self->memory);
	ASSERT_OK(pst_loader_open(&lo, &self->loader, &err), &err);
	ASSERT_OK(pst_loader_file(self->loader, DRIVE, &self->file, &err), &err);
}

FIXTURE_TEARDOWN(drive)
{
	pst_loader_close(self->loader);
	pst_pool_free(self->pool, self->memory);
	pst_pool_destroy(self->pool);
	free(self->content);
}

static struct pst_loader_stat stat_of(const struct pst_loader *loader)
{
	struct pst_loader_stat s;

	pst_loader_stat(loader, &s);
	return s;
}

/* Bytes that the drive itself has given out so far. */
static uint64_t drive_read(void)
{
	unsigned long long sectors = 0;
	FILE *f = fopen(STAT, "re");

	ASSERT_NE(NULL, f);
	ASSERT_EQ(1, fscanf(f, "%*u %*u %llu", &sectors));
	fclose(f);
	return sectors * 512;
}

static void read_to(struct fixture_drive *self, uint64_t offset, uint64_t bytes, void *dst,
		    uint64_t before, uint64_t after)
{
	struct pst_error err = {0};

	ASSERT_OK(
		pst_loader_read(self->loader, self->file, offset, bytes, dst, before, after, &err),
		&err);
}

static void wait_for(struct pst_loader *loader)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_loader_wait(loader, &err), &err);
}

/* Twice, and both times from the drive: no page cache between. */
TEST_F(drive, all_of_it)
{
	for (int i = 0; i < 2; i++) {
		const uint64_t from = drive_read();

		memset(self->memory, 0, BYTES);
		read_to(self, 0, BYTES, self->memory, 0, 0);
		wait_for(self->loader);
		EXPECT_EQ(0, memcmp(self->content, self->memory, BYTES));
		EXPECT_LE((uint64_t)BYTES, drive_read() - from);
	}
	const struct pst_loader_stat s = stat_of(self->loader);

	EXPECT_STREQ("io_uring", s.backend);
	EXPECT_STREQ("", s.note);
	EXPECT_EQ(1, s.direct);
	EXPECT_EQ(2u * BYTES, s.read_bytes);
	EXPECT_EQ(2u * BYTES, s.wanted_bytes);
	EXPECT_EQ(0u, s.copied_bytes);
}

/* Tensors lie anywhere in a file; with their slack they land in place all the same. */
TEST_F(drive, tensors_in_place)
{
	enum { TENSORS = 100 };
	uint64_t offset[TENSORS], bytes[TENSORS], at[TENSORS], seed = 3, wanted = 0, used = 0;
	int wrong = 0;

	for (int i = 0; i < TENSORS; i++) {
		bytes[i] = 1 + test_random(&seed) % (i % 10 ? 5000 : 700000);
		offset[i] = test_random(&seed) % (BYTES - bytes[i]);
		const uint64_t room = pst_loader_room(offset[i], bytes[i]);
		unsigned char *block = self->memory + used;
		unsigned char *dst = pst_loader_target(block, offset[i]);
		const uint64_t before = (uint64_t)(dst - block);

		ASSERT_LE(used + room, (uint64_t)BYTES + BYTES / 2);
		read_to(self, offset[i], bytes[i], dst, before, room - before - bytes[i]);
		at[i] = used + before;
		wanted += bytes[i];
		used += room;
	}
	wait_for(self->loader);
	for (int i = 0; i < TENSORS; i++)
		wrong += memcmp(self->content + offset[i], self->memory + at[i], bytes[i]) != 0;
	EXPECT_EQ(0, wrong);
	EXPECT_EQ(wanted, stat_of(self->loader).wanted_bytes);
	EXPECT_EQ(0u, stat_of(self->loader).copied_bytes);
}

/* Without slack it has to be copied; the bytes are right, and it is said. */
TEST_F(drive, a_copy_is_counted)
{
	read_to(self, 5, 10000, self->memory, 0, 0);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp(self->content + 5, self->memory, 10000));
	EXPECT_LT(0u, stat_of(self->loader).copied_bytes);
}

TEST_F(drive, past_the_end)
{
	struct pst_error err = {0};
	const int fd = open(DRIVE, O_RDONLY | O_CLOEXEC);
	const off_t end = lseek(fd, 0, SEEK_END);
	int rc;

	close(fd);
	ASSERT_LT(0, end);
	rc = pst_loader_read(self->loader, self->file, (uint64_t)end - BLOCK, 2 * BLOCK,
			     self->memory, 0, 0, &err);
	if (!rc)
		rc = pst_loader_wait(self->loader, &err);
	EXPECT_EQ(-ENODATA, rc);
	EXPECT_TRUE(strstr(err.text, DRIVE));
}

TEST_MAIN
