/* SPDX-License-Identifier: Apache-2.0 */
/* A pool from outside: what it promises, what it says when it cannot, and what it refuses. */
#include "runtime/mem/pool.h"
#include "selftests/lib/sanitized.h"
#include "selftests/lib/test.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { MIB = 1 << 20, BYTES = 32 * MIB };

static int create(uint64_t bytes, int node, uint32_t flags, struct pst_pool **out,
		  struct pst_error *err)
{
	struct pst_pool_options o = {
		.size = sizeof(o), .name = "experts", .bytes = bytes, .node = node, .flags = flags};

	memset(err, 0, sizeof(*err));
	return pst_pool_create(&o, out, err);
}

static struct pst_pool *pool_of(uint64_t bytes, uint32_t flags)
{
	struct pst_pool *pool = NULL;
	struct pst_error err;

	ASSERT_OK(create(bytes, PST_NODE_ANY, flags, &pool, &err), &err);
	return pool;
}

static struct pst_pool_stat stat_of(struct pst_pool *pool)
{
	struct pst_pool_stat s;

	pst_pool_stat(pool, &s);
	return s;
}

static bool says(const char *text, const char *what)
{
	if (strstr(text, what))
		return true;
	printf("# no \"%s\" in: %s\n", what, text);
	return false;
}

FIXTURE(pool)
{
	struct pst_pool *p;
};

FIXTURE_SETUP(pool)
{
	self->p = pool_of(BYTES, 0);
}

FIXTURE_TEARDOWN(pool)
{
	pst_pool_destroy(self->p);
}

TEST_F(pool, fresh)
{
	const uint64_t *w = pst_pool_base(self->p);
	struct pst_pool_stat s = stat_of(self->p);
	uint64_t any = 0;

	EXPECT_EQ((uint64_t)BYTES, pst_pool_bytes(self->p));
	EXPECT_EQ((uint64_t)BYTES, s.bytes);
	EXPECT_EQ((uint64_t)BYTES, s.largest_free);
	EXPECT_EQ(0u, s.used + s.peak + s.cached + s.blocks + s.allocs + s.frees + s.failures);
	EXPECT_EQ(4096u, s.page_bytes);
	EXPECT_STREQ("", s.note); /* nothing was wanted, so nothing is missing */
	for (size_t i = 0; i < BYTES / sizeof(*w); i++)
		any |= w[i];
	EXPECT_EQ(0u, any);
}

/* All of it is there already: no fault can find memory short later. */
TEST_F(pool, populated)
{
	static unsigned char in[BYTES / 4096];
	size_t missing = 0;

	ASSERT_EQ(0, mincore(pst_pool_base(self->p), BYTES, in));
	for (size_t i = 0; i < sizeof(in); i++)
		missing += !(in[i] & 1);
	EXPECT_EQ(0u, missing);
}

TEST_F(pool, rounds_up)
{
	struct pst_pool *p = pool_of(1, 0);
	void *a;

	EXPECT_EQ(4096u, pst_pool_bytes(p));
	a = pst_pool_alloc(p, 4096, 4096);
	EXPECT_EQ(pst_pool_base(p), a);
	EXPECT_EQ(NULL, pst_pool_alloc(p, 1, 0));
	pst_pool_free(p, a);
	pst_pool_destroy(p);
}

TEST_F(pool, names)
{
	char *a = pst_pool_alloc(self->p, 100, 0), *b = pst_pool_alloc(self->p, 100, 0);

	EXPECT_EQ(a, (char *)pst_pool_at(self->p, pst_pool_offset(self->p, a)));
	EXPECT_EQ(b, (char *)pst_pool_base(self->p) + pst_pool_offset(self->p, b));
	EXPECT_EQ(256u, stat_of(self->p).used);
	EXPECT_EQ(2u, stat_of(self->p).blocks);
}

TEST_F(pool, refused_requests)
{
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, 0, 0));
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, SIZE_MAX, 0));
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, SIZE_MAX - 200, 0));
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, BYTES + 1, 0));
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, 64, 3));
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, 64, 96));
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, 64, 1ull << 40));
	EXPECT_EQ(7u, stat_of(self->p).failures);
	EXPECT_EQ(0u, stat_of(self->p).allocs);
}

TEST_F(pool, full)
{
	void *a = pst_pool_alloc(self->p, BYTES, 0);

	EXPECT_EQ(pst_pool_base(self->p), a);
	EXPECT_EQ(0u, stat_of(self->p).largest_free);
	EXPECT_EQ(NULL, pst_pool_alloc(self->p, 64, 0));
	EXPECT_EQ(1u, stat_of(self->p).failures);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->p).peak);
	pst_pool_free(self->p, a);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->p).largest_free);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->p).peak);
}

/* Each is counted, none changes what is allocated. */
TEST_F(pool, bad_frees)
{
	char *big = pst_pool_alloc(self->p, MIB, 0), *small = pst_pool_alloc(self->p, 128, 0);
	struct pst_pool *other = pool_of(MIB, 0);
	char *foreign = pst_pool_alloc(other, 64, 0);
	int stack;
	char *const bad[] = {big + 64,
			     big + 1,
			     small + 64,
			     (char *)pst_pool_base(self->p) - 64,
			     (char *)pst_pool_base(self->p) + BYTES,
			     (char *)pst_pool_base(self->p) + BYTES - 64,
			     foreign,
			     (char *)&stack};
	const size_t n = sizeof(bad) / sizeof(bad[0]);

	for (size_t i = 0; i < n; i++) {
		pst_pool_free(self->p, bad[i]);
		EXPECT_EQ(i + 1, stat_of(self->p).failures);
	}
	pst_pool_free(self->p, NULL);
	EXPECT_EQ(n, stat_of(self->p).failures);
	EXPECT_EQ(2u, stat_of(self->p).blocks);

	pst_pool_free(self->p, big);
	pst_pool_free(self->p, big);
	EXPECT_EQ(n + 1, stat_of(self->p).failures);
	pst_pool_free(self->p, small);
	pst_pool_trim(self->p, 1);
	pst_pool_free(self->p, small);
	EXPECT_EQ(n + 2, stat_of(self->p).failures);
	EXPECT_EQ(0u, stat_of(self->p).blocks);
	EXPECT_EQ((uint64_t)BYTES, stat_of(self->p).largest_free);
	EXPECT_EQ(1u, stat_of(other).blocks);
	pst_pool_destroy(other);
}

struct shadow {
	uint64_t *at;
	size_t bytes;
	uint64_t mark;
};

static uint64_t *last_word(const struct shadow *b)
{
	return b->at + (b->bytes - 8) / 8;
}

/* Words at both ends and in the middle: who overlaps it would have to write over one of them. */
static void mark(struct shadow *b, uint64_t value)
{
	b->mark = value;
	b->at[0] = value;
	b->at[b->bytes / 16] = value;
	*last_word(b) = value;
}

static bool marked(const struct shadow *b)
{
	return b->at[0] == b->mark && b->at[b->bytes / 16] == b->mark && *last_word(b) == b->mark;
}

/* A million operations; contents kept, no overlap; then one free block of the whole size. */
TEST_F(pool, random_model)
{
	enum { BLOCKS = 1024, STEPS = SANITIZED ? 100000 : 1000000 };
	static struct shadow b[BLOCKS];
	uint64_t seed = 7, used = 0, bad = 0;
	struct pst_pool_stat s;

	for (uint64_t i = 0; i < STEPS; i++) {
		uint64_t r = test_random(&seed), k = r % BLOCKS;
		size_t align = (r >> 50) % 8 ? 0 : 64ull << (r >> 54) % 8;

		if (b[k].at) {
			bad += !marked(&b[k]);
			pst_pool_free(self->p, b[k].at);
			used -= (b[k].bytes + 63) / 64 * 64;
			b[k].at = NULL;
			continue;
		}
		b[k].bytes = 8 + ((r >> 10) % (256 << 10) >> (r >> 30) % 15);
		b[k].at = pst_pool_alloc(self->p, b[k].bytes, align);
		if (!b[k].at)
			continue;
		ASSERT_EQ(0u, (uintptr_t)b[k].at % (align ? align : 64));
		used += (b[k].bytes + 63) / 64 * 64;
		mark(&b[k], r);
	}
	EXPECT_EQ(0u, bad);
	EXPECT_EQ(used, stat_of(self->p).used);
	for (int k = 0; k < BLOCKS; k++)
		if (b[k].at) {
			EXPECT_TRUE(marked(&b[k]));
			pst_pool_free(self->p, b[k].at);
		}
	pst_pool_trim(self->p, 1);
	s = stat_of(self->p);
	EXPECT_EQ(0u, s.used + s.cached + s.blocks);
	EXPECT_EQ(s.allocs, s.frees);
	EXPECT_EQ((uint64_t)BYTES, s.largest_free);
	EXPECT_LE(used, s.peak);
}

TEST(bad_options)
{
	struct pst_pool_options o = {.size = sizeof(o), .name = "x", .bytes = MIB, .node = -1};
	struct pst_pool *mark = (struct pst_pool *)&o, *p = mark;
	struct pst_error err = {0};

	EXPECT_EQ(-EINVAL, create(0, -1, 0, &p, &err));
	EXPECT_TRUE(says(err.text, "0 bytes"));
	EXPECT_EQ(-EINVAL, create(UINT64_MAX, -1, 0, &p, &err));
	EXPECT_EQ(-EINVAL, create(MIB, -1, 32, &p, &err));
	EXPECT_TRUE(says(err.text, "unknown flags 0x20"));
	EXPECT_EQ(-EINVAL, create(MIB, 1000, 0, &p, &err));
	EXPECT_TRUE(says(err.text, "node 1000"));
	EXPECT_EQ(-EINVAL, create(MIB, -2, 0, &p, &err));
	EXPECT_EQ(-EINVAL, create(MIB, 1 << 20, 0, &p, &err));
	o.size = sizeof(o) - 1;
	EXPECT_EQ(-EINVAL, pst_pool_create(&o, &p, NULL));
	o.size = sizeof(o);
	o.name = NULL;
	EXPECT_EQ(-EINVAL, pst_pool_create(&o, &p, NULL));
	EXPECT_EQ(mark, p); /* untouched by all of them */
	pst_pool_destroy(NULL);
}

/* More than the machine has is refused by reckoning, not by the kernel's killer. */
TEST(too_much)
{
	struct pst_pool *p = NULL;
	struct pst_error err;

	EXPECT_EQ(-ENOMEM, create(1ull << 44, -1, 0, &p, &err));
	EXPECT_TRUE(says(err.text, "pool experts: needs 16 TiB of memory"));
	EXPECT_EQ(NULL, p);
}

TEST(address_space_short)
{
	struct rlimit r = {.rlim_cur = 1ull << 28, .rlim_max = 1ull << 28};
	struct pst_pool *p = NULL;
	struct pst_error err;

	if (SANITIZED)
		SKIP("the sanitizer needs address space without a limit", "make check without SAN");
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &r));
	EXPECT_EQ(-ENOMEM, create(1ull << 30, -1, 0, &p, &err)); /* the mapping */
	EXPECT_EQ(-ENOMEM, create(200 * MIB, -1, 0, &p, &err));	 /* the book-keeping */
	EXPECT_TRUE(says(err.text, "ulimit -v"));
	EXPECT_EQ(NULL, p);
	EXPECT_EQ(0, create(MIB, -1, 0, &p, &err));
	pst_pool_destroy(p);
}

/* Everything that a failed or a finished pool had is given back. */
TEST(leaves_nothing)
{
	struct pst_pool *p;
	struct pst_error err;
	int first, last;

	pst_pool_destroy(pool_of(MIB, 0));
	first = dup(0);
	close(first);
	for (int i = 0; i < 20; i++) {
		pst_pool_destroy(pool_of(MIB, 0));
		create(MIB, 1000, 0, &p, &err);
		create(1ull << 44, -1, 0, &p, &err);
		create(1ull << 40, -1, PST_POOL_HUGE_MUST, &p, &err);
	}
	last = dup(0);
	EXPECT_EQ(first, last);
}

TEST(huge_must)
{
	struct pst_pool *p = NULL;
	struct pst_error err;

	EXPECT_EQ(-ENOMEM, create(1ull << 42, -1, PST_POOL_HUGE_MUST, &p, &err));
	EXPECT_TRUE(says(err.text, "needs 2097152 huge pages of 2 MiB"));
	EXPECT_TRUE(says(err.text, "echo 2097152 > /proc/sys/vm/nr_hugepages"));
	EXPECT_EQ(NULL, p);
}

/* Huge pages or a note that says how to get them: never neither. */
TEST(huge_wanted)
{
	struct pst_pool *p = pool_of(8 * MIB, PST_POOL_HUGE);
	struct pst_pool_stat s = stat_of(p);

	EXPECT_TRUE(s.page_bytes > 4096 || says(s.note, "echo 4 > /proc/sys/vm/nr_hugepages"));
	EXPECT_TRUE(s.page_bytes == 4096 || !strstr(s.note, "4 KiB"));
	EXPECT_EQ(0u, s.bytes % s.page_bytes);
	EXPECT_EQ(0u, (uintptr_t)pst_pool_base(p) % s.page_bytes);
	pst_pool_destroy(p);
}

static void limit_memlock(rlim_t bytes)
{
	struct rlimit r = {.rlim_cur = bytes, .rlim_max = bytes};

	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &r));
	if (!geteuid())
		ASSERT_EQ(0, setresuid(65534, 65534, 65534)); /* and CAP_IPC_LOCK is gone */
}

TEST(memlock_too_small)
{
	struct rusage before, after;
	struct pst_pool *p = NULL;
	struct pst_pool_stat s;
	struct pst_error err;

	limit_memlock(8 * MIB);
	/* Refused before it is filled. */
	getrusage(RUSAGE_SELF, &before);
	EXPECT_EQ(-EPERM, create(256 * MIB, -1, PST_POOL_LOCK_MUST, &p, &err));
	getrusage(RUSAGE_SELF, &after);
	EXPECT_LT(after.ru_maxrss, before.ru_maxrss + 128 * 1024);

	p = pool_of(16 * MIB, PST_POOL_LOCK);
	s = stat_of(p);
	EXPECT_EQ(0, s.locked);
	EXPECT_TRUE(says(s.note, "16 MiB wanted, RLIMIT_MEMLOCK is 8 MiB (ulimit -l unlimited"));
	pst_pool_destroy(p);

	p = NULL;
	EXPECT_EQ(-EPERM, create(16 * MIB, -1, PST_POOL_LOCK_MUST, &p, &err));
	EXPECT_EQ(-EPERM, err.code);
	EXPECT_TRUE(says(err.text,
			 "pool experts: needs 16 MiB pinned, the limit "
			 "(RLIMIT_MEMLOCK) is 8 MiB; raise it with: ulimit -l unlimited"));
	EXPECT_TRUE(says(err.text, "LimitMEMLOCK=infinity"));
	EXPECT_TRUE(says(err.text, "/etc/security/limits.d"));
	EXPECT_EQ(NULL, p);
}

/* What fits is locked, and what is locked already counts. */
TEST(memlock_enough_once)
{
	struct pst_pool *a, *b = NULL;
	struct pst_error err;

	if (SANITIZED)
		SKIP("the sanitizer makes mlock() do nothing", "make check without SAN");
	limit_memlock(8 * MIB);
	a = pool_of(6 * MIB, PST_POOL_LOCK_MUST);
	EXPECT_EQ(1, stat_of(a).locked);
	EXPECT_STREQ("", stat_of(a).note);
	EXPECT_EQ(-EPERM, create(6 * MIB, -1, PST_POOL_LOCK_MUST, &b, &err));
	pst_pool_destroy(a);
	ASSERT_OK(create(6 * MIB, -1, PST_POOL_LOCK_MUST, &b, &err), &err);
	pst_pool_destroy(b);
}

/* Run @child in another process, which has the pool only by its fd. */
static int in_child(struct pst_pool *p, int (*child)(int fd, uint64_t bytes, uint64_t offset),
		    uint64_t offset)
{
	int status, fd = dup(pst_pool_fd(p));
	uint64_t bytes = pst_pool_bytes(p);
	pid_t pid = fork();

	if (!pid) {
		pst_pool_destroy(p);
		_exit(child(fd, bytes, offset));
	}
	close(fd);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int child_reads_and_writes(int fd, uint64_t bytes, uint64_t offset)
{
	char *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (m == MAP_FAILED || strcmp(m + offset, "from the owner"))
		return 1;
	strcpy(m + offset, "from the child");
	return 0;
}

TEST_F(pool, shared_by_fd)
{
	char *a = pst_pool_alloc(self->p, 100, 0);

	a = pst_pool_alloc(self->p, 100, 0);
	strcpy(a, "from the owner");
	EXPECT_EQ(0, in_child(self->p, child_reads_and_writes, pst_pool_offset(self->p, a)));
	EXPECT_STREQ("from the child", a);
}

static int child_cannot_resize(int fd, uint64_t bytes, uint64_t offset)
{
	(void)offset;
	if (!ftruncate(fd, 0) || errno != EPERM)
		return 1;
	if (!ftruncate(fd, (off_t)bytes * 2) || errno != EPERM)
		return 2;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_GROW) != -1 || errno != EPERM)
		return 3;
	return 0;
}

TEST_F(pool, sealed)
{
	EXPECT_EQ(0, in_child(self->p, child_cannot_resize, 0));
}

static int child_only_reads(int fd, uint64_t bytes, uint64_t offset)
{
	char path[64];
	void *m;

	if (mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
		return 1;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, O_RDWR);
	if (fd >= 0 && mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
		return 2;
	if (fd >= 0 && pwrite(fd, "x", 1, 0) == 1)
		return 3;
	m = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED || !mprotect(m, bytes, PROT_READ | PROT_WRITE))
		return 4;
	return strcmp((char *)m + offset, "kept") != 0;
}

TEST(readers)
{
	struct pst_pool *p = pool_of(MIB, PST_POOL_READERS);
	char *a = pst_pool_alloc(p, 64, 0);

	strcpy(a, "kept"); /* the owner may */
	EXPECT_EQ(0, in_child(p, child_only_reads, pst_pool_offset(p, a)));
	EXPECT_STREQ("kept", a);
	pst_pool_destroy(p);
}

TEST_F(pool, audit)
{
	struct pst_error err = {0};
	struct pst_pool_stat s = stat_of(self->p);

	EXPECT_EQ(0u, s.pages_checked);
	for (int repair = 0; repair < 2; repair++) {
		long n = pst_pool_audit(self->p, repair, &err);

		if (n == -EPERM)
			SKIP("move_pages is denied here", "docker run --cap-add SYS_NICE");
		EXPECT_EQ(0, n);
		s = stat_of(self->p);
		EXPECT_EQ(s.bytes / s.page_bytes, s.pages_checked);
		EXPECT_EQ(0u, s.pages_elsewhere);
	}
}

/* As a container's filter does. */
static void deny(unsigned int nr)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(f) / sizeof(f[0]), .filter = f};

	ASSERT_EQ(0, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	ASSERT_EQ(0, prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

TEST_F(pool, audit_denied)
{
	struct pst_error err = {0};

	deny(SYS_move_pages);
	EXPECT_EQ(-EPERM, pst_pool_audit(self->p, 0, &err));
	EXPECT_TRUE(says(err.text, "move_pages"));
	EXPECT_TRUE(says(err.text, "CAP_SYS_NICE"));
	EXPECT_TRUE(says(stat_of(self->p).note, "move_pages is denied"));
	EXPECT_EQ(-EPERM, pst_pool_audit(self->p, 1, NULL));
	EXPECT_EQ(0u, stat_of(self->p).pages_checked);
}

/* Without membarrier the caches pay with fences, and trim from outside still works. */
TEST(membarrier_denied)
{
	struct pst_pool *p;

	deny(SYS_membarrier);
	p = pool_of(MIB, 0);
	pst_pool_free(p, pst_pool_alloc(p, 64, 0));
	pst_pool_trim(p, 1);
	EXPECT_EQ((uint64_t)MIB, stat_of(p).largest_free);
	pst_pool_destroy(p);
}

TEST_MAIN
