/* SPDX-License-Identifier: Apache-2.0 */
/* The loader against pread: both backends, with O_DIRECT and without. */
#include "runtime/io/loader_backend.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define FILE_BYTES ((1u << 20) + 1234)
#define POOL_BYTES (16u << 20)
#define BLOCK	   PST_LOADER_BLOCK
#define GUARD	   0xa5

FIXTURE(loader)
{
	struct pst_pool *pool;
	struct pst_loader *loader;
	char path[512];
	unsigned int file;
	unsigned char *content, *memory;
};

FIXTURE_VARIANT(loader)
{
	uint32_t flags;
	const char *backend;
};

FIXTURE_VARIANT_ADD(loader, uring){0, "io_uring"};
FIXTURE_VARIANT_ADD(loader, uring_buffered){PST_LOADER_BUFFERED, "io_uring"};
FIXTURE_VARIANT_ADD(loader, threads){PST_LOADER_THREADS, "threads"};
FIXTURE_VARIANT_ADD(loader, threads_buffered){PST_LOADER_THREADS | PST_LOADER_BUFFERED, "threads"};

static unsigned char *make_file(const char *path, size_t bytes, uint64_t seed)
{
	unsigned char *content = malloc(bytes + 8);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	uint64_t r;

	for (size_t i = 0; i < bytes; i += 8) {
		r = test_random(&seed);
		memcpy(content + i, &r, 8);
	}
	ASSERT_EQ((ssize_t)bytes, write(fd, content, bytes));
	close(fd);
	return content;
}

static struct pst_pool *make_pool(void)
{
	const struct pst_pool_options opts = {
		.size = sizeof(opts), .name = "test", .bytes = POOL_BYTES, .node = PST_NODE_ANY};
	struct pst_error err = {0};
	struct pst_pool *pool;

	ASSERT_OK(pst_pool_create(&opts, &pool, &err), &err);
	return pool;
}

static struct pst_loader *open_loader(struct pst_pool **pool, uint32_t flags, unsigned int depth,
				      uint64_t chunk)
{
	const struct pst_loader_options opts = {.size = sizeof(opts),
						.depth = depth,
						.chunk = chunk,
						.flags = flags,
						.pools = pool,
						.npools = pool ? 1 : 0};
	struct pst_error err = {0};
	struct pst_loader *loader;

	ASSERT_OK(pst_loader_open(&opts, &loader, &err), &err);
	return loader;
}

FIXTURE_SETUP(loader)
{
	struct pst_error err = {0};

	snprintf(self->path, sizeof(self->path), "%s/file", test_tmpdir());
	self->content = make_file(self->path, FILE_BYTES, 1);
	self->pool = make_pool();
	self->memory = pst_pool_alloc(self->pool, POOL_BYTES / 2, BLOCK);
	ASSERT_NE(NULL, self->memory);
	self->loader = open_loader(&self->pool, variant->flags, 8, 64 << 10);
	ASSERT_OK(pst_loader_file(self->loader, self->path, &self->file, &err), &err);
}

FIXTURE_TEARDOWN(loader)
{
	pst_loader_close(self->loader);
	pst_pool_free(self->pool, self->memory);
	pst_pool_destroy(self->pool);
	free(self->content);
}

static struct pst_loader_stat stat_of(const struct pst_loader *loader)
{
	struct pst_loader_stat stat;

	pst_loader_stat(loader, &stat);
	return stat;
}

static void read_to(struct fixture_loader *self, uint64_t offset, uint64_t bytes, void *dst,
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

TEST_F(loader, stat)
{
	struct pst_loader_stat stat = stat_of(self->loader);

	EXPECT_STREQ(variant->backend, stat.backend);
	EXPECT_EQ(!(variant->flags & PST_LOADER_BUFFERED), stat.direct);
	EXPECT_STREQ("", stat.note);
}

TEST_F(loader, whole_file)
{
	read_to(self, 0, FILE_BYTES, self->memory, 0, BLOCK);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp(self->content, self->memory, FILE_BYTES));
	struct pst_loader_stat stat = stat_of(self->loader);
	EXPECT_EQ(FILE_BYTES, stat.wanted_bytes);
	EXPECT_EQ(FILE_BYTES, stat.read_bytes);
	EXPECT_EQ(0u, stat.copied_bytes);
	EXPECT_EQ(17u, stat.requests);
}

/* A block with room for the slack gets its tensor without a copy, wherever the tensor lies. */
TEST_F(loader, in_place)
{
	enum { READS = 200 };
	struct {
		uint64_t offset, bytes;
		unsigned char *block;
	} read[READS];
	uint64_t seed = 7, wanted = 0, at = 0;

	for (int i = 0; i < READS; i++) {
		read[i].offset = test_random(&seed) % FILE_BYTES;
		read[i].bytes = test_random(&seed) % (i % 10 ? 3000 : 300000);
		if (read[i].bytes > FILE_BYTES - read[i].offset)
			read[i].bytes = FILE_BYTES - read[i].offset;
		uint64_t room = pst_loader_room(read[i].offset, read[i].bytes);
		unsigned char *block = read[i].block = self->memory + at, *dst;

		at += room;
		ASSERT_LE(at, POOL_BYTES / 2);
		dst = pst_loader_target(block, read[i].offset);
		ASSERT_LE(dst + read[i].bytes, block + room);
		read_to(self, read[i].offset, read[i].bytes, dst, dst - block,
			block + room - dst - read[i].bytes);
		wanted += read[i].bytes;
	}
	wait_for(self->loader);
	for (int i = 0; i < READS; i++)
		EXPECT_EQ(0,
			  memcmp(self->content + read[i].offset,
				 pst_loader_target(read[i].block, read[i].offset), read[i].bytes));
	struct pst_loader_stat stat = stat_of(self->loader);
	EXPECT_EQ(wanted, stat.wanted_bytes);
	EXPECT_GE(stat.read_bytes, wanted);
	EXPECT_EQ(0u, stat.copied_bytes);
}

/* Any target, any slack: the bytes are right and nothing beyond the slack is touched. */
TEST_F(loader, any_target)
{
	enum { AREA = 512 << 10 };
	uint64_t seed = 3;

	for (int i = 0; i < 120; i++) {
		uint64_t offset = test_random(&seed) % FILE_BYTES;
		uint64_t bytes = test_random(&seed) % (i % 3 ? 9000 : 200000);
		uint64_t before = test_random(&seed) % 3 * (BLOCK / 2),
			 after = test_random(&seed) % 3 * 2048;
		unsigned char *area = self->memory, *dst = area + 2 * BLOCK;

		if (bytes > FILE_BYTES - offset)
			bytes = FILE_BYTES - offset;
		/* every other target could take its blocks in place */
		dst += i % 2 ? offset % BLOCK : test_random(&seed) % BLOCK;
		memset(area, GUARD, AREA);
		read_to(self, offset, bytes, dst, before, after);
		wait_for(self->loader);
		EXPECT_EQ(0, memcmp(self->content + offset, dst, bytes));
		for (unsigned char *p = area; p < dst - before; p++)
			ASSERT_EQ(GUARD, *p);
		for (unsigned char *p = dst + bytes + after; p < area + AREA; p++)
			ASSERT_EQ(GUARD, *p);
	}
}

TEST_F(loader, copies_are_counted)
{
	bool direct = !(variant->flags & PST_LOADER_BUFFERED);

	/* not congruent: all of it */
	read_to(self, 100, 200000, self->memory, BLOCK, BLOCK);
	wait_for(self->loader);
	EXPECT_EQ(direct ? 200000u : 0u, stat_of(self->loader).copied_bytes);
	EXPECT_EQ(0, memcmp(self->content + 100, self->memory, 200000));
	/* congruent without slack: the first and the last block */
	read_to(self, 100, 200000, self->memory + 100, 0, 0);
	wait_for(self->loader);
	EXPECT_EQ(direct ? 200000u + (BLOCK - 100) + 200100 % BLOCK : 0u,
		  stat_of(self->loader).copied_bytes);
	EXPECT_EQ(0, memcmp(self->content + 100, self->memory + 100, 200000));
}

TEST_F(loader, end_of_file)
{
	static const uint64_t last[] = {1, 1233, 1234, 1235, 4096, 5330, 65536, 70000};

	for (size_t i = 0; i < sizeof(last) / sizeof(last[0]); i++) {
		uint64_t offset = FILE_BYTES - last[i];
		unsigned char *dst = pst_loader_target(self->memory, offset);

		memset(self->memory, GUARD, 128 << 10);
		read_to(self, offset, last[i], dst, offset % BLOCK, 2 * BLOCK);
		wait_for(self->loader);
		EXPECT_EQ(0, memcmp(self->content + offset, dst, last[i]));
		memset(self->memory, GUARD, 128 << 10);
		read_to(self, offset, last[i], self->memory + 1, 0, 0);
		wait_for(self->loader);
		EXPECT_EQ(0, memcmp(self->content + offset, self->memory + 1, last[i]));
		EXPECT_EQ(GUARD, self->memory[0]);
		EXPECT_EQ(GUARD, self->memory[1 + last[i]]);
	}
}

TEST_F(loader, past_the_end)
{
	struct pst_error err = {0};

	EXPECT_EQ(-ENODATA, pst_loader_read(self->loader, self->file, FILE_BYTES - 1, 2,
					    self->memory, 0, 0, &err));
	EXPECT_TRUE(strstr(err.text, self->path));
	EXPECT_EQ(-ENODATA, pst_loader_read(self->loader, self->file, UINT64_MAX, 2, self->memory,
					    0, 0, NULL));
	EXPECT_EQ(-ENODATA, pst_loader_read(self->loader, self->file, 1, UINT64_MAX, self->memory,
					    0, 0, NULL));
	EXPECT_EQ(0, pst_loader_read(self->loader, self->file, FILE_BYTES, 0, NULL, 0, 0, NULL));
	wait_for(self->loader);
	EXPECT_EQ(0u, stat_of(self->loader).requests);
}

TEST_F(loader, grown_meanwhile)
{
	int fd = open(self->path, O_WRONLY | O_APPEND);

	ASSERT_EQ(4, write(fd, "more", 4));
	close(fd);
	read_to(self, FILE_BYTES, 4, self->memory, 0, 0);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp("more", self->memory, 4));
}

TEST_F(loader, cut_off_meanwhile)
{
	static const off_t left[] = {FILE_BYTES - 10, 512 << 10, 8192 + 100, 100, 0};
	struct pst_error err;

	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
		memset(&err, 0, sizeof(err));
		ASSERT_EQ(0, truncate(self->path, left[i]));
		self->loader->files[self->file].bytes = FILE_BYTES;
		read_to(self, 1000, FILE_BYTES - 1000, self->memory + 1000, 0, 0);
		EXPECT_EQ(-ENODATA, pst_loader_wait(self->loader, &err));
		EXPECT_TRUE(strstr(err.text, self->path));
		EXPECT_TRUE(strstr(err.text, "cut off"));
		/* the error has been told, and what is still there can be read */
		wait_for(self->loader);
	}
	ASSERT_EQ(0, truncate(self->path, 100));
	read_to(self, 0, 100, self->memory, 0, BLOCK);
	wait_for(self->loader);
}

TEST_F(loader, outside_of_pools)
{
	unsigned char *mine = malloc(300000);

	read_to(self, 12345, 300000, mine, 0, 0);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp(self->content + 12345, mine, 300000));
	free(mine);
}

TEST_F(loader, depths_and_chunks)
{
	static const uint64_t chunks[] = {1, 4096, 5000, 1 << 20};
	struct pst_error err = {0};
	unsigned int file;

	for (unsigned int depth = 1; depth <= 64; depth = depth < 4 ? depth + 1 : depth * 2) {
		for (size_t c = 0; c < 4; c++) {
			struct pst_loader *loader =
				open_loader(&self->pool, variant->flags, depth, chunks[c]);

			ASSERT_OK(pst_loader_file(loader, self->path, &file, &err), &err);
			memset(self->memory, 0, 120000);
			for (int i = 0; i < 3; i++)
				ASSERT_EQ(0, pst_loader_read(loader, file, 777 + 40000 * i, 40000,
							     self->memory + 777 + 40000 * i, 0, 0,
							     NULL));
			wait_for(loader);
			EXPECT_EQ(0, memcmp(self->content + 777, self->memory + 777, 120000));
			pst_loader_close(loader);
		}
	}
}

TEST_F(loader, several_files)
{
	enum { FILES = 300, BYTES = 10000 };
	unsigned char *content[FILES];
	struct pst_error err = {0};
	unsigned int file[FILES];
	char path[600];

	for (int i = 0; i < FILES; i++) {
		snprintf(path, sizeof(path), "%s/f%d", test_tmpdir(), i % 7);
		if (i < 7)
			content[i] = make_file(path, BYTES, i);
		ASSERT_OK(pst_loader_file(self->loader, path, &file[i], &err), &err);
	}
	for (int i = 0; i < FILES; i++)
		ASSERT_OK(pst_loader_read(self->loader, file[i], 3, BYTES - 3,
					  self->memory + i * BYTES, 0, 0, &err),
			  &err);
	wait_for(self->loader);
	for (int i = 0; i < FILES; i++)
		EXPECT_EQ(0, memcmp(content[i % 7] + 3, self->memory + i * BYTES, BYTES - 3));
	for (int i = 0; i < 7; i++)
		free(content[i]);
}

TEST_F(loader, wrong_arguments)
{
	struct pst_error err = {0};
	unsigned int file = 77;

	EXPECT_EQ(-EINVAL, pst_loader_read(NULL, 0, 0, 1, self->memory, 0, 0, NULL));
	EXPECT_EQ(-EINVAL, pst_loader_read(self->loader, 9, 0, 1, self->memory, 0, 0, NULL));
	EXPECT_EQ(-EINVAL, pst_loader_read(self->loader, self->file, 0, 1, NULL, 0, 0, NULL));
	EXPECT_EQ(-EINVAL, pst_loader_file(self->loader, NULL, &file, NULL));
	EXPECT_EQ(-EINVAL, pst_loader_file(self->loader, "/dev/zero", &file, &err));
	EXPECT_TRUE(strstr(err.text, "character device"));
	EXPECT_EQ(-EINVAL, pst_loader_file(self->loader, test_tmpdir(), &file, NULL));
	EXPECT_EQ(-ENOENT, pst_loader_file(self->loader, "/none", &file, NULL));
	EXPECT_EQ(77u, file);
	read_to(self, 0, 10, self->memory, 0, 0);
	wait_for(self->loader);
	pst_loader_close(NULL);
}

TEST(options)
{
	struct pst_loader_options opts = {.size = sizeof(opts)}, bad;
	struct pst_loader *loader = NULL;

	EXPECT_EQ(-EINVAL, pst_loader_open(NULL, &loader, NULL));
	EXPECT_EQ(-EINVAL, pst_loader_open(&opts, NULL, NULL));
#define EXPECT_BAD(field, value)        \
	(bad = opts, bad.field = value, \
	 ({ EXPECT_EQ(-EINVAL, pst_loader_open(&bad, &loader, NULL)); }))
	EXPECT_BAD(size, sizeof(opts) - 1);
	EXPECT_BAD(flags, 4);
	EXPECT_BAD(depth, 4097);
	EXPECT_BAD(chunk, (1ull << 30) + 1);
	EXPECT_BAD(npools, 1);
	EXPECT_EQ(NULL, loader);
	ASSERT_EQ(0, pst_loader_open(&opts, &loader, NULL));
	pst_loader_close(loader);
}

TEST(room_and_target)
{
	EXPECT_EQ(0u, pst_loader_room(0, 0));
	EXPECT_EQ(4096u, pst_loader_room(0, 1));
	EXPECT_EQ(4096u, pst_loader_room(8192, 4096));
	EXPECT_EQ(8192u, pst_loader_room(1, 4096));
	EXPECT_EQ(8192u, pst_loader_room(4095, 2));
	EXPECT_EQ((void *)(uintptr_t)(8192 + 5),
		  pst_loader_target((void *)(uintptr_t)8192, 4096 + 5));
}

/* A backend that goes wrong on request, in front of a real one. */
static const struct pst_loader_backend *real;
static struct pst_loader_request *kept;
static int (*wrong)(struct pst_loader_request *req); /* 0: read it, -errno: instead */

static void mock_submit(struct pst_loader *loader, struct pst_loader_request *req)
{
	int rc = wrong(req);

	if (rc < 0) {
		req->result = rc;
		req->next = kept;
		kept = req;
		return;
	}
	real->submit(loader, req);
}

static int mock_reap(struct pst_loader *loader, bool wait)
{
	struct pst_loader_request *req = kept, *next;
	bool some = req != NULL;

	kept = NULL;
	for (; req; req = next) {
		next = req->next;
		pst_loader_done(loader, req, req->result);
	}
	return real->reap(loader, wait && !some);
}

static void mock_close(struct pst_loader *loader)
{
	/* Or the kernel would write to memory that has gone to somebody else. */
	EXPECT_EQ(0u, loader->inflight);
	real->close(loader);
}

static void mock(struct pst_loader *loader, int (*fn)(struct pst_loader_request *req))
{
	static struct pst_loader_backend backend;

	real = loader->backend;
	backend = *real;
	backend.submit = mock_submit;
	backend.reap = mock_reap;
	backend.close = mock_close;
	loader->backend = &backend;
	wrong = fn;
}

static int short_read(struct pst_loader_request *req)
{
	static uint64_t seed;
	size_t most = req->io_len;

	/* The kernel gives whole blocks, or the end of the file. */
	if (req->direct)
		req->io_len = (1 + test_random(&seed) % (most / BLOCK)) * BLOCK;
	else
		req->io_len = 1 + test_random(&seed) % most;
	return 0;
}

TEST_F(loader, short_reads)
{
	mock(self->loader, short_read);
	read_to(self, 4321, FILE_BYTES - 4321, self->memory, 0, 0);
	read_to(self, 0, FILE_BYTES, self->memory + (2 << 20), 0, 0);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp(self->content + 4321, self->memory, FILE_BYTES - 4321));
	EXPECT_EQ(0, memcmp(self->content, self->memory + (2 << 20), FILE_BYTES));
	EXPECT_EQ(2ull * FILE_BYTES - 4321, stat_of(self->loader).wanted_bytes);
}

static int as_it_is(struct pst_loader_request *req)
{
	(void)req;
	return 0;
}

TEST_F(loader, closed_with_reads_in_flight)
{
	mock(self->loader, as_it_is);
	for (int i = 0; i < 2; i++)
		read_to(self, 0, FILE_BYTES, self->memory, 0, BLOCK);
}

static int refuse_direct(struct pst_loader_request *req)
{
	return req->direct ? -EINVAL : 0;
}

/* O_DIRECT was taken at open, and the first reads are refused; buffered, none of them is made. */
TEST_F(loader, direct_refused_late)
{
	bool asked = !(variant->flags & PST_LOADER_BUFFERED);

	mock(self->loader, refuse_direct);
	read_to(self, 1000, FILE_BYTES - 2000, self->memory, 0, 0);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp(self->content + 1000, self->memory, FILE_BYTES - 2000));
	EXPECT_EQ(0, stat_of(self->loader).direct);
	EXPECT_EQ(asked, strstr(stat_of(self->loader).note, "page cache") != NULL);
	EXPECT_EQ(0, fcntl(self->loader->files[self->file].fd, F_GETFL) & O_DIRECT);
}

TEST(direct_refused_at_open)
{
	struct pst_loader *loader = open_loader(NULL, 0, 0, 0);
	const char *path = "/sys/kernel/notes";
	struct pst_error err = {0};
	unsigned int file;
	char buf[16];

	if (open(path, O_RDONLY | O_DIRECT) >= 0 || errno != EINVAL)
		SKIP("no file that refuses O_DIRECT", "mount sysfs");
	ASSERT_OK(pst_loader_file(loader, path, &file, &err), &err);
	ASSERT_OK(pst_loader_read(loader, file, 3, 16, buf, 0, 0, &err), &err);
	wait_for(loader);
	EXPECT_EQ(0, stat_of(loader).direct);
	EXPECT_TRUE(strstr(stat_of(loader).note, path));
	pst_loader_close(loader);
}

static int fail_at_512_KiB(struct pst_loader_request *req)
{
	return req->io_offset == 512 << 10 ? -EIO : 0;
}

/* One bad place: it is named, and all the rest is there. */
TEST_F(loader, io_error)
{
	struct pst_error err = {0};

	mock(self->loader, fail_at_512_KiB);
	read_to(self, 0, FILE_BYTES, self->memory, 0, BLOCK);
	EXPECT_EQ(-EIO, pst_loader_wait(self->loader, &err));
	EXPECT_TRUE(strstr(err.text, self->path));
	EXPECT_TRUE(strstr(err.text, "offset 524288"));
	EXPECT_TRUE(strstr(err.text, "Input/output error"));
	EXPECT_EQ(0, memcmp(self->content, self->memory, 512 << 10));
	EXPECT_EQ(0, memcmp(self->content + (512 << 10) + (64 << 10),
			    self->memory + (512 << 10) + (64 << 10),
			    FILE_BYTES - (512 << 10) - (64 << 10)));
	read_to(self, 0, 100, self->memory, 0, BLOCK);
	wait_for(self->loader);
}

static int interrupted(struct pst_loader_request *req)
{
	static unsigned int n;
	static const int codes[] = {-EINTR, -EAGAIN, -ECANCELED, 0};

	(void)req;
	return codes[n++ % 4];
}

TEST_F(loader, interrupted)
{
	mock(self->loader, interrupted);
	read_to(self, 0, FILE_BYTES, self->memory, 0, BLOCK);
	wait_for(self->loader);
	EXPECT_EQ(0, memcmp(self->content, self->memory, FILE_BYTES));
}

static void deny(unsigned int nr, int code)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = 4, .filter = filter};

	ASSERT_EQ(0, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	ASSERT_EQ(0, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

FIXTURE(denied)
{
	int unused;
};

FIXTURE_VARIANT(denied)
{
	unsigned int nr;
	int code;
	const char *note;
};

FIXTURE_VARIANT_ADD(denied, docker){__NR_io_uring_setup, EPERM, "seccomp=unconfined"};
FIXTURE_VARIANT_ADD(denied, old_kernel){__NR_io_uring_setup, ENOSYS, "io_uring_disabled=0"};
FIXTURE_VARIANT_ADD(denied, memory){__NR_io_uring_setup, ENOMEM, "ulimit -l"};
FIXTURE_VARIANT_ADD(denied, enter){__NR_io_uring_enter, EPERM, "seccomp=unconfined"};

FIXTURE_SETUP(denied)
{
	deny(variant->nr, variant->code);
}

FIXTURE_TEARDOWN(denied)
{
}

TEST_F(denied, threads_take_over)
{
	struct pst_loader *loader = open_loader(NULL, 0, 0, 0);
	struct pst_error err = {0};
	unsigned char *content, buf[5000];
	unsigned int file;
	char path[512];

	snprintf(path, sizeof(path), "%s/file", test_tmpdir());
	content = make_file(path, 10000, 5);
	EXPECT_STREQ("threads", stat_of(loader).backend);
	EXPECT_TRUE(strstr(stat_of(loader).note, "io_uring"));
	EXPECT_TRUE(strstr(stat_of(loader).note, "8 threads"));
	EXPECT_TRUE(strstr(stat_of(loader).note, variant->note));
	ASSERT_OK(pst_loader_file(loader, path, &file, &err), &err);
	ASSERT_OK(pst_loader_read(loader, file, 4000, 5000, buf, 0, 0, &err), &err);
	wait_for(loader);
	EXPECT_EQ(0, memcmp(content + 4000, buf, 5000));
	pst_loader_close(loader);
	free(content);
}

/* A user who may lock little: everything works, and the note says what is missing. */
TEST(pools_cannot_be_registered)
{
	struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
	struct pst_pool *pool = make_pool();
	struct pst_error err = {0};
	struct pst_loader *loader;
	unsigned char *content, *dst = pst_pool_alloc(pool, 10000, BLOCK);
	unsigned int file;
	char path[512];

	snprintf(path, sizeof(path), "%s/file", test_tmpdir());
	content = make_file(path, 10000, 5);
	ASSERT_EQ(0, chmod(test_tmpdir(), 0755));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	if (geteuid() == 0 && setresuid(65534, 65534, 65534))
		SKIP("cannot become an ordinary user", "sudo");
	loader = open_loader(&pool, 0, 0, 0);
	EXPECT_STREQ("io_uring", stat_of(loader).backend);
	EXPECT_TRUE(strstr(stat_of(loader).note, "ulimit -l unlimited"));
	ASSERT_OK(pst_loader_file(loader, path, &file, &err), &err);
	ASSERT_OK(pst_loader_read(loader, file, 0, 9000, dst, 0, 0, &err), &err);
	wait_for(loader);
	EXPECT_EQ(0, memcmp(content, dst, 9000));
	pst_loader_close(loader);
	free(content);
	pst_pool_free(pool, dst);
	pst_pool_destroy(pool);
}

TEST_MAIN
