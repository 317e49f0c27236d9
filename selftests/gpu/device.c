/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU of the runtime, on the stand-in driver: what it is, its memory, copies, kernels, graphs. */
#include "selftests/gpu/device_fixture.h"

#include <pthread.h>
#include <sys/stat.h>

/* The driver. */

TEST(no_driver)
{
	struct pst_gpu *gpu;

	setenv(PST_CUDA_LIBRARY_ENV, "libcuda-of-nobody.so.1", 1);
	EXPECT_FAILS(-ENOENT, "PENSTOCK_CUDA_LIB", pst_gpu_open(0, NULL, &gpu, &err));
	/* it is not looked for again */
	use_standin(1);
	EXPECT_FAILS(-ENOENT, "libcuda-of-nobody", pst_gpu_open(0, NULL, &gpu, &err));
}

TEST(an_old_driver)
{
	struct pst_cuda_outcome o;
	const struct pst_cuda *cu;
	struct pst_gpu *gpu;

	use_standin(1);
	s->cuda_version = 11080;
	EXPECT_FAILS(-ENOSYS, "is too old: it lacks cuGetProcAddress",
		     pst_gpu_open(0, NULL, &gpu, &err));
	EXPECT_EQ(-ENOSYS, pst_cuda_open(&cu, &o));
	EXPECT_TRUE(o.state == PST_CUDA_TOO_OLD);
	EXPECT_STREQ("cuGetProcAddress", o.lacks);
}

TEST(no_gpu)
{
	struct pst_cuda_outcome o;
	const struct pst_cuda *cu;
	struct pst_gpu *gpu;

	use_standin(0);
	EXPECT_FAILS(-ENODEV, "nvidia-smi -L", pst_gpu_open(0, NULL, &gpu, &err));
	EXPECT_EQ(-ENODEV, pst_cuda_open(&cu, &o));
	EXPECT_TRUE(o.state == PST_CUDA_NO_DEVICE);
	EXPECT_EQ(13000, o.version);
}

TEST(a_driver_that_does_not_start)
{
	struct pst_gpu *gpu;

	use_standin(1);
	s->fn[STANDIN_cuInit].fail_rc = CUDA_ERROR_SYSTEM_DRIVER_MISMATCH;
	s->fn[STANDIN_cuInit].fail_in = 1;
	EXPECT_FAILS(-EIO, "reboot", pst_gpu_open(0, NULL, &gpu, &err));
}

static void *open_driver(void *arg)
{
	const struct pst_cuda *cu;

	EXPECT_EQ(0, pst_cuda_open(&cu, NULL));
	*(const struct pst_cuda **)arg = cu;
	return NULL;
}

TEST(the_driver_is_opened_once)
{
	const struct pst_cuda *cu[8];
	pthread_t thread[8];

	use_standin(1);
	for (int i = 0; i < 8; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, open_driver, &cu[i]));
	for (int i = 0; i < 8; i++)
		pthread_join(thread[i], NULL);
	for (int i = 1; i < 8; i++)
		EXPECT_TRUE(cu[i] == cu[0]);
	EXPECT_EQ(1u, (unsigned int)s->fn[STANDIN_cuInit].calls);
}

TEST(errors_have_names_without_a_driver)
{
	EXPECT_STREQ("CUDA_ERROR_ILLEGAL_ADDRESS", pst_cuda_error_name(700));
	EXPECT_STREQ("out of memory", pst_cuda_error_text(2));
	EXPECT_STREQ("CUDA_ERROR", pst_cuda_error_name(123456));
	EXPECT_TRUE(pst_cuda_error_stays(CUDA_ERROR_ASSERT));
	EXPECT_FALSE(pst_cuda_error_stays(CUDA_ERROR_OUT_OF_MEMORY));
	EXPECT_STREQ("sm_80", pst_cuda_target(8, 9));
	EXPECT_STREQ("sm_90a", pst_cuda_target(9, 0));
	EXPECT_STREQ("sm_100f", pst_cuda_target(10, 3));
	EXPECT_FALSE(pst_cuda_target(12, 0));
	EXPECT_FALSE(pst_cuda_target(7, 5));
}

TEST(names_of_devices)
{
	uint32_t k = 9;
	int n = -7;

	EXPECT_EQ(0, pst_gpu_parse("cuda:3/4", &n, &k, &err));
	EXPECT_EQ(3, n);
	EXPECT_EQ(4u, k);
	EXPECT_EQ(0, pst_gpu_parse("cuda:12", &n, &k, &err));
	EXPECT_EQ(12, n);
	EXPECT_EQ(1u, k);
	EXPECT_FAILS(-EINVAL, "cuda:N", pst_gpu_parse("cuda:1/0", &n, &k, &err));
	EXPECT_FAILS(-EINVAL, "cuda:N", pst_gpu_parse("cuda:1/", &n, &k, &err));
	EXPECT_FAILS(-EINVAL, "cuda:N", pst_gpu_parse("cuda:", &n, &k, &err));
	EXPECT_FAILS(-EINVAL, "cuda:N", pst_gpu_parse("cuda:1x", &n, &k, &err));
	EXPECT_FAILS(-EINVAL, "cuda:N", pst_gpu_parse("cuda:-1", &n, &k, &err));
	EXPECT_FAILS(-EINVAL, "cuda:N", pst_gpu_parse("gpu:1", &n, &k, &err));
	EXPECT_EQ(12, n);
}

/* Opening. */

TEST(which_gpus_can_be_opened)
{
	struct pst_gpu *gpu = NULL;

	use_standin(2);
	EXPECT_FAILS(-ENODEV, "the driver shows 2", pst_gpu_open(2, NULL, &gpu, &err));
	s->gpu[1].major = 7;
	EXPECT_FAILS(-ENOEXEC, "compute capability 7.0", pst_gpu_open(1, NULL, &gpu, &err));
	EXPECT_FAILS(-EINVAL, "page size",
		     pst_gpu_open(0,
				  &(struct pst_gpu_options){.size = sizeof(struct pst_gpu_options),
							    .chunk = 1000},
				  &gpu, &err));
	EXPECT_FALSE(gpu);
	expect_nothing_left();
}

TEST(what_it_is)
{
	struct pst_gpu_options o = {.size = sizeof(o)};
	char root[256], path[PATH_MAX];
	struct pst_gpu_info info;
	struct pst_gpu_stat st;
	struct pst_gpu *gpu;
	FILE *f;

	use_standin(2);
	snprintf(root, sizeof(root), "%s", test_tmpdir());
	snprintf(path, sizeof(path), "mkdir -p %s/sys/bus/pci/devices/0000:3c:00.0", root);
	ASSERT_EQ(0, system(path));
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/0000:3c:00.0/numa_node", root);
	f = fopen(path, "w");
	ASSERT_TRUE(f);
	fputs("3\n", f);
	fclose(f);
	o.root = root;
	OK(pst_gpu_open(1, &o, &gpu, &err));
	pst_gpu_info(gpu, &info);
	EXPECT_STREQ("Stand-in H200", info.name);
	EXPECT_STREQ("0000:3C:00.0", info.pci);
	EXPECT_STREQ("sm_90a", info.target);
	EXPECT_EQ(1, info.ordinal);
	EXPECT_EQ(3, info.node);
	EXPECT_EQ(132, info.multiprocessors);
	EXPECT_EQ(13000, info.driver);
	EXPECT_EQ(232448u, info.shared);
	EXPECT_EQ(64 * MIB, (unsigned long long)info.memory);
	/* without a size it takes all but a sixteenth */
	EXPECT_EQ(60 * MIB, (unsigned long long)info.arena);
	/* host memory elsewhere costs: said once, with what mends it */
	OK(pst_gpu_register(gpu, host_memory(4096, PROT_READ | PROT_WRITE), 4096, 0, 3, &err));
	pst_gpu_stat(gpu, &st);
	EXPECT_STREQ("", st.note);
	OK(pst_gpu_register(gpu, host_memory(4096, PROT_READ | PROT_WRITE), 4096, 0, 1, &err));
	OK(pst_gpu_register(gpu, host_memory(4096, PROT_READ | PROT_WRITE), 4096, 0, 2, &err));
	pst_gpu_stat(gpu, &st);
	EXPECT_TRUE(strstr(st.note, "NUMA node 3 and its host memory on node 1"));
	EXPECT_TRUE(strstr(st.note, "numactl --cpunodebind=3 --membind=3"));
	OK(pst_gpu_close(gpu, &err));
	expect_nothing_left();
}

/* The arena. */

TEST(an_arena_that_does_not_fit)
{
	struct pst_gpu_options o = {.size = sizeof(o), .arena = 60 * MIB};
	struct pst_gpu *gpu;

	use_standin(1);
	ASSERT_EQ(0, standin_take(s, 0, 24 * MIB));
	EXPECT_FAILS(-ENOMEM, "60 MiB of device memory are asked for, and 40 MiB of 64 MiB",
		     pst_gpu_open(0, &o, &gpu, &err));
	ASSERT_EQ(0, standin_take(s, 0, -(int64_t)(24 * MIB)));
	expect_nothing_left();
}

TEST_F(gpu, blocks)
{
	uint64_t a, b, c, after = 77;
	struct pst_gpu_stat st;

	OK(pst_gpu_alloc(self->gpu, 1, 0, &a, &err));
	OK(pst_gpu_alloc(self->gpu, 700, 4096, &b, &err));
	EXPECT_TRUE(a % PST_GPU_GRANULE == 0);
	EXPECT_TRUE(b % 4096 == 0 && a != b);
	OK(pst_gpu_alloc(self->gpu, 8 * MIB, 512, &c, &err));
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(8 * MIB + 512 + 1024, (unsigned long long)st.used);
	EXPECT_FAILS(-ENOMEM, "8 MiB are asked for",
		     pst_gpu_alloc(self->gpu, 8 * MIB, 0, &after, &err));
	EXPECT_FAILS(-ENOMEM, "of 16 MiB", pst_gpu_alloc(self->gpu, ~0ull, 0, &after, &err));
	EXPECT_FAILS(-EINVAL, "power of two", pst_gpu_alloc(self->gpu, 1, 8192, &after, &err));
	EXPECT_FAILS(-EINVAL, "power of two", pst_gpu_alloc(self->gpu, 1, 48, &after, &err));
	EXPECT_FAILS(-EINVAL, "some bytes", pst_gpu_alloc(self->gpu, 0, 0, &after, &err));
	EXPECT_EQ(77ull, (unsigned long long)after);
	pst_gpu_free(self->gpu, c);
	/* neither twice nor in the middle nor elsewhere */
	pst_gpu_free(self->gpu, c);
	pst_gpu_free(self->gpu, b + 512);
	pst_gpu_free(self->gpu, b + 1);
	pst_gpu_free(self->gpu, 4096);
	pst_gpu_free(self->gpu, 0);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(512ull + 1024, (unsigned long long)st.used);
	OK(pst_gpu_alloc(self->gpu, 8 * MIB, 0, &c, &err));
	pst_gpu_free(self->gpu, a);
	pst_gpu_free(self->gpu, b);
	pst_gpu_free(self->gpu, c);
	/* the driver was asked once */
	EXPECT_EQ(1u, (unsigned int)s->fn[STANDIN_cuMemAlloc].calls);
	EXPECT_EQ(16 * MIB, (unsigned long long)standin_used(s, 0));
}

/* Host memory. */

TEST_F(gpu, host_memory_in_chunks)
{
	unsigned char *at = host_memory(256 * 1024, PROT_READ | PROT_WRITE);
	struct pst_gpu_stat st;
	uint64_t dev;

	OK(pst_gpu_register(self->gpu, at, 65536 * 3 + 4096, 0, -1, &err));
	EXPECT_EQ(4, (int)s->registered);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(65536ull * 3 + 4096, (unsigned long long)st.registered);
	EXPECT_GT(st.register_ns, 0u);
	OK(pst_gpu_host_address(self->gpu, at + 70000, &dev, &err));
	EXPECT_TRUE(dev == (uintptr_t)at + 70000);
	EXPECT_FAILS(-EFAULT, "register its pool",
		     pst_gpu_host_address(self->gpu, at + 65536 * 3 + 4096, &dev, &err));
	EXPECT_FAILS(-EEXIST, "once", pst_gpu_register(self->gpu, at + 4096, 4096, 0, -1, &err));
	EXPECT_FAILS(-EINVAL, "page size", pst_gpu_register(self->gpu, at, 100, 0, -1, &err));
	EXPECT_FAILS(-EINVAL, "page size", pst_gpu_register(self->gpu, at + 8, 4096, 0, -1, &err));
	EXPECT_FAILS(-ENOENT, "no host memory", pst_gpu_unregister(self->gpu, at + 65536, &err));
	OK(pst_gpu_unregister(self->gpu, at, &err));
	EXPECT_EQ(0, (int)s->registered);
	EXPECT_FAILS(-EFAULT, "register its pool", pst_gpu_host_address(self->gpu, at, &dev, &err));
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(0ull, (unsigned long long)st.registered);
	/* what is left is taken back by close */
	OK(pst_gpu_register(self->gpu, at, 65536 * 2, 0, -1, &err));
}

TEST_F(gpu, host_memory_that_cannot_be_registered)
{
	unsigned char *at = host_memory(65536 * 3, PROT_READ | PROT_WRITE);
	struct standin_fn *fn = &s->fn[STANDIN_cuMemHostRegister];
	static const struct {
		CUresult rc;
		int code;
		const char *part;
	} says[] = {
		{CUDA_ERROR_OUT_OF_MEMORY, -ENOMEM, "ulimit -l unlimited"},
		{CUDA_ERROR_OPERATING_SYSTEM, -ENOMEM, "memlock=-1"},
		{CUDA_ERROR_NOT_PERMITTED, -EPERM, "CAP_IPC_LOCK"},
		{CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, -EEXIST, "another library"},
		{CUDA_ERROR_NOT_SUPPORTED, -EOPNOTSUPP, "CUDA_ERROR_NOT_SUPPORTED"},
	};

	/* the last of three chunks fails: the first two are given back */
	for (size_t i = 0; i < sizeof(says) / sizeof(*says); i++) {
		fn->fail_rc = says[i].rc;
		fn->fail_in = 3;
		EXPECT_FAILS(says[i].code, says[i].part,
			     pst_gpu_register(self->gpu, at, 65536 * 3, 0, -1, &err));
		EXPECT_EQ(0, (int)s->registered);
	}
	OK(pst_gpu_register(self->gpu, at, 65536 * 3, 0, -1, &err));
}

TEST_F(gpu, host_memory_that_may_only_be_read)
{
	unsigned char *at = host_memory(4096, PROT_READ);
	struct pst_gpu_copies *c;
	uint64_t block;

	EXPECT_FAILS(-EINVAL, "register it as read-only",
		     pst_gpu_register(self->gpu, at, 4096, 0, -1, &err));
	OK(pst_gpu_register(self->gpu, at, 4096, PST_GPU_HOST_READ_ONLY, -1, &err));
	OK(pst_gpu_alloc(self->gpu, 4096, 0, &block, &err));
	OK(pst_gpu_copies_new(self->gpu, 1, &c, &err));
	EXPECT_FAILS(-EACCES, "read-only", pst_gpu_copies_add(c, (uintptr_t)at, block, 4096, &err));
	OK(pst_gpu_copies_add(c, block, (uintptr_t)at, 4096, &err));
	OK(pst_gpu_copies_send(c, PST_GPU_IN, &err));
	OK(pst_gpu_wait(self->gpu, PST_GPU_IN, MS, &err));
	pst_gpu_copies_free(c);
	OK(pst_gpu_unregister(self->gpu, at, &err));
	s->gpu[0].no_read_only = 1;
	EXPECT_FAILS(-EOPNOTSUPP, "map it writable",
		     pst_gpu_register(self->gpu, at, 4096, PST_GPU_HOST_READ_ONLY, -1, &err));
}

static void add_floats(struct pst_gpu *gpu, uint64_t y, uint64_t x, size_t n)
{
	struct pst_gpu_module *m = module_of(gpu, "add");
	void *params[] = {&y, &x, &n};

	OK(launch(gpu, kernel_of(m, "add"), params));
	OK(pst_gpu_wait(gpu, PST_GPU_COMPUTE, MS, &err));
	pst_gpu_module_unload(m);
}

/* Kernels use host memory where the device sees it, which need not be where it is. */
TEST(host_memory_has_an_address_on_the_device)
{
	struct pst_gpu_options o = {.size = sizeof(o), .chunk = 65536};
	float *host;
	struct pst_gpu *gpu;
	uint64_t x, y;

	use_standin(1);
	s->gpu[0].no_host_pointer = 1;
	OK(pst_gpu_open(0, &o, &gpu, &err));
	host = (float *)host_memory(65536 * 2, PROT_READ | PROT_WRITE);
	OK(pst_gpu_register(gpu, host, 65536 * 2, 0, -1, &err));
	OK(pst_gpu_host_address(gpu, host + 8, &y, &err));
	OK(pst_gpu_host_address(gpu, (char *)host + 65536 + 128, &x, &err));
	EXPECT_FALSE(y == (uintptr_t)(host + 8));
	host[8] = 3;
	host[65536 / 4 + 32] = 4;
	add_floats(gpu, y, x, 1);
	EXPECT_TRUE(host[8] == 7);
	OK(pst_gpu_close(gpu, &err));
	expect_nothing_left();
}

/* Copies. */

struct both {
	struct pst_gpu_copies *c;
	unsigned char *host;
	uint64_t dev;
	size_t len;
};

static void set_up_both(struct pst_gpu *gpu, struct both *b)
{
	b->len = 65536 * 4;
	b->host = host_memory(b->len, PROT_READ | PROT_WRITE);
	for (size_t i = 0; i < b->len; i++)
		b->host[i] = (unsigned char)(i * 7 + i / 256);
	OK(pst_gpu_register(gpu, b->host, b->len, 0, -1, &err));
	OK(pst_gpu_alloc(gpu, b->len, 0, &b->dev, &err));
	OK(pst_gpu_copies_new(gpu, 8, &b->c, &err));
}

static int add(struct both *b, size_t to, size_t from, size_t len)
{
	return pst_gpu_copies_add(b->c, b->dev + to, (uintptr_t)b->host + from, len, &err);
}

static void send(struct pst_gpu *gpu, struct both *b, enum pst_gpu_stream stream)
{
	OK(pst_gpu_copies_send(b->c, stream, &err));
	OK(pst_gpu_wait(gpu, stream, MS, &err));
}

/* What is at @from on the device, through memory that was something else. */
static void expect_there(struct pst_gpu *gpu, struct both *b, size_t from, size_t like, size_t len)
{
	unsigned char *back = host_memory(b->len, PROT_READ | PROT_WRITE);

	memset(back, 0x3c, b->len);
	OK(pst_gpu_register(gpu, back, b->len, 0, -1, &err));
	OK(pst_gpu_copies_add(b->c, (uintptr_t)back, b->dev + from, len, &err));
	send(gpu, b, PST_GPU_OUT);
	EXPECT_EQ(0, memcmp(back, b->host + like, len));
	OK(pst_gpu_unregister(gpu, back, &err));
	munmap(back, b->len);
}

TEST_F(gpu, a_batch_is_one_call)
{
	struct pst_gpu_stat st;
	struct both b;

	set_up_both(self->gpu, &b);
	OK(add(&b, 0, 1000, 300));
	OK(add(&b, 1024, 5000, 300));
	OK(add(&b, 4096, 70, 30));
	send(self->gpu, &b, PST_GPU_IN);
	EXPECT_EQ(1ull, (unsigned long long)s->batches);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(3u, st.copies);
	EXPECT_EQ(3u, st.sent);
	EXPECT_EQ(1u, st.calls);
	EXPECT_EQ(630u, st.bytes_in);
	expect_there(self->gpu, &b, 0, 1000, 300);
	expect_there(self->gpu, &b, 1024, 5000, 300);
	expect_there(self->gpu, &b, 4096, 70, 30);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(630u, st.bytes_out);
	EXPECT_EQ(6u, st.copies);
	/* within the device, and both ways in one batch */
	OK(pst_gpu_copies_add(b.c, b.dev + 8192, b.dev, 300, &err));
	OK(add(&b, 16384, 0, 10));
	send(self->gpu, &b, PST_GPU_COMPUTE);
	expect_there(self->gpu, &b, 8192, 1000, 300);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(300u, st.bytes_within);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	/* nothing is nothing */
	OK(add(&b, 0, 0, 0));
	send(self->gpu, &b, PST_GPU_IN);
	pst_gpu_copies_free(b.c);
}

TEST_F(gpu, neighbours_become_one)
{
	struct pst_gpu_stat st;
	struct both b;

	set_up_both(self->gpu, &b);
	for (size_t i = 0; i < 16; i++)
		OK(add(&b, i * 100, 200 + i * 100, 100));
	send(self->gpu, &b, PST_GPU_IN);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(16u, st.copies);
	EXPECT_EQ(1u, st.sent);
	EXPECT_EQ(1u, st.calls);
	expect_there(self->gpu, &b, 0, 200, 1600);
	pst_gpu_copies_free(b.c);
}

/* Pieces that the driver knows by themselves are not one to it. */
TEST_F(gpu, copies_end_where_chunks_do)
{
	struct pst_gpu_stat st;
	struct both b;

	set_up_both(self->gpu, &b);
	OK(add(&b, 0, 65536 - 1000, 65536 + 2000));
	OK(add(&b, 67536 + 65536 - 67536 + 2000, 65536 * 2 + 1000, 100));
	send(self->gpu, &b, PST_GPU_IN);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(2u, st.copies);
	EXPECT_EQ(3u, st.sent);
	expect_there(self->gpu, &b, 0, 65536 - 1000, 1000);
	expect_there(self->gpu, &b, 1000, 65536, 65536);
	expect_there(self->gpu, &b, 1000 + 65536, 65536 * 2, 1100);
	/* neighbours on both sides of an edge */
	OK(add(&b, 0, 65536 - 10, 10));
	OK(add(&b, 10, 65536, 10));
	send(self->gpu, &b, PST_GPU_IN);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(3u + 3 + 2, st.sent);
	OK(pst_gpu_copies_add(b.c, (uintptr_t)b.host + 65536 - 10, b.dev, 10, &err));
	OK(pst_gpu_copies_add(b.c, (uintptr_t)b.host + 65536, b.dev + 10, 10, &err));
	send(self->gpu, &b, PST_GPU_OUT);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(3u + 3 + 2 + 2, st.sent);
	pst_gpu_copies_free(b.c);
}

TEST_F(gpu, wrong_copies_are_refused)
{
	static unsigned char plain[64];
	struct pst_gpu_stat st;
	struct both b;

	set_up_both(self->gpu, &b);
	EXPECT_FAILS(-EFAULT, "register the pool",
		     pst_gpu_copies_add(b.c, b.dev, (uintptr_t)plain, 64, &err));
	EXPECT_FAILS(-EFAULT, "register the pool",
		     pst_gpu_copies_add(b.c, (uintptr_t)plain, b.dev, 64, &err));
	EXPECT_FAILS(-EFAULT, "register the pool", add(&b, 0, b.len - 10, 11));
	EXPECT_FAILS(-EFAULT, "register the pool", add(&b, 64 * MIB, 0, 11));
	EXPECT_FAILS(-EINVAL, "host memory to host memory",
		     pst_gpu_copies_add(b.c, (uintptr_t)b.host, (uintptr_t)b.host + 100, 10, &err));
	/* what was added stays as it was: a batch that is full, and a copy that needs two places */
	for (size_t i = 0; i < 7; i++)
		OK(add(&b, i * 1024, i * 100, 50));
	EXPECT_FAILS(-ENOSPC, "send it", add(&b, 8192, 65536 - 100, 200));
	OK(add(&b, 7 * 1024, 65536 - 150, 50));
	/* one that goes on where the last one ends, and then needs a place */
	EXPECT_FAILS(-ENOSPC, "send it", add(&b, 7 * 1024 + 50, 65536 - 100, 200));
	send(self->gpu, &b, PST_GPU_IN);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(8u, st.copies);
	EXPECT_EQ(400u, st.bytes_in);
	for (size_t i = 0; i < 7; i++)
		expect_there(self->gpu, &b, i * 1024, i * 100, 50);
	expect_there(self->gpu, &b, 7 * 1024, 65536 - 150, 50);
	/* nor does one that ends with its chunk grow later */
	for (size_t i = 0; i < 7; i++)
		OK(add(&b, i * 1024, i * 100, 50));
	OK(add(&b, 7 * 1024, 65536 - 50, 50));
	for (int i = 0; i < 2; i++)
		EXPECT_FAILS(-ENOSPC, "send it", add(&b, 7 * 1024 + 50, 65536, 10));
	send(self->gpu, &b, PST_GPU_IN);
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	pst_gpu_copies_free(b.c);
}

/* A driver of CUDA 12.0 has no batches, and no launches that overlap. */
TEST(a_driver_without_what_is_optional)
{
	const struct pst_gpu_shape overlapped = {
		.grid = {1, 1, 1}, .block = {32, 1, 1}, .overlap = true};
	struct pst_gpu_options o = {.size = sizeof(o), .chunk = 65536};
	struct pst_gpu_module *m;
	struct pst_gpu_stat st;
	struct pst_gpu *gpu;
	uint64_t offset;
	struct both b;
	int fd;

	use_standin(1);
	s->cuda_version = 12000;
	s->fn[STANDIN_cuCtxGetStreamPriorityRange].absent = 1;
	s->fn[STANDIN_cuLaunchKernelEx].absent = 1;
	s->fn[STANDIN_cuMemGetHandleForAddressRange].absent = 1;
	OK(pst_gpu_open(0, &o, &gpu, &err));
	set_up_both(gpu, &b);
	OK(add(&b, 0, 1000, 300));
	OK(add(&b, 1024, 5000, 300));
	OK(add(&b, 1324, 5300, 300));
	send(gpu, &b, PST_GPU_IN);
	pst_gpu_stat(gpu, &st);
	EXPECT_EQ(3u, st.copies);
	EXPECT_EQ(2u, st.calls);
	EXPECT_EQ(0ull, (unsigned long long)s->batches);
	expect_there(gpu, &b, 1024, 5000, 600);
	m = module_of(gpu, "nop");
	OK(pst_gpu_launch(gpu, PST_GPU_COMPUTE, kernel_of(m, "nop"), &overlapped, NULL, &err));
	OK(pst_gpu_wait(gpu, PST_GPU_COMPUTE, MS, &err));
	EXPECT_FAILS(-EOPNOTSUPP, "nvidia-peermem",
		     pst_gpu_dmabuf(gpu, b.dev, 10, &fd, &offset, &err));
	pst_gpu_module_unload(m);
	pst_gpu_copies_free(b.c);
	OK(pst_gpu_close(gpu, &err));
	expect_nothing_left();
}

/* Devices before 9.0 have no launches that overlap. */
TEST(a_device_without_what_is_optional)
{
	const struct pst_gpu_shape overlapped = {
		.grid = {1, 1, 1}, .block = {32, 1, 1}, .overlap = true};
	struct pst_gpu_module *m;
	struct pst_gpu *gpu;

	use_standin(1);
	s->gpu[0].major = 8;
	OK(pst_gpu_open(0, NULL, &gpu, &err));
	m = module_of(gpu, "nop");
	OK(pst_gpu_launch(gpu, PST_GPU_COMPUTE, kernel_of(m, "nop"), &overlapped, NULL, &err));
	OK(pst_gpu_wait(gpu, PST_GPU_COMPUTE, MS, &err));
	EXPECT_EQ(1ull, (unsigned long long)s->launches);
	EXPECT_EQ(0ull, (unsigned long long)s->pdl);
	pst_gpu_module_unload(m);
	OK(pst_gpu_close(gpu, &err));
}

/* Kernels. */

TEST_F(gpu, launches)
{
	const struct pst_gpu_shape overlapped = {
		.grid = {1, 1, 1}, .block = {32, 1, 1}, .overlap = true};
	struct pst_gpu_module *m = module_of(self->gpu, "nop");
	struct pst_gpu_kernel *k = kernel_of(m, "nop"), *none = NULL;
	struct pst_gpu_stat st;
	struct both b;
	float *f;

	set_up_both(self->gpu, &b);
	f = (float *)b.host;
	f[0] = 2;
	f[1] = 5;
	OK(add(&b, 0, 0, 8));
	send(self->gpu, &b, PST_GPU_IN);
	add_floats(self->gpu, b.dev, b.dev + 4, 1);
	f[0] = 7;
	expect_there(self->gpu, &b, 0, 0, 4);
	for (int i = 0; i < 3; i++)
		OK(launch(self->gpu, k, NULL));
	OK(pst_gpu_launch(self->gpu, PST_GPU_COMPUTE, k, &overlapped, NULL, &err));
	EXPECT_EQ(4u, pst_gpu_kernel_launches(k));
	EXPECT_EQ(1ull, (unsigned long long)s->pdl);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(5u, st.launches);
	EXPECT_FAILS(-ENOENT, "no kernel fn_other", pst_gpu_kernel(m, "fn_other", 0, &none, &err));
	EXPECT_FAILS(-EINVAL, "232448 at the most",
		     pst_gpu_kernel(m, "fn_nop", 232449, &none, &err));
	EXPECT_FALSE(none);
	EXPECT_FAILS(-EINVAL, "launching kernel fn_nop",
		     pst_gpu_launch(self->gpu, PST_GPU_COMPUTE, k,
				    &(struct pst_gpu_shape){{1, 1, 1}, {32, 1, 1}, 200000, 0}, NULL,
				    &err));
	OK(pst_gpu_kernel(m, "fn_nop", 200000, &k, &err));
	OK(pst_gpu_launch(self->gpu, PST_GPU_COMPUTE, k,
			  &(struct pst_gpu_shape){{1, 1, 1}, {32, 1, 1}, 200000, 0}, NULL, &err));
	/* they were made ready before */
	EXPECT_EQ(3u, (unsigned int)s->fn[STANDIN_cuFuncLoad].calls);
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	pst_gpu_module_unload(m);
	pst_gpu_copies_free(b.c);
}

TEST_F(gpu, images)
{
	static const unsigned char fatbin[24] = {0x50, 0xed, 0x55, 0xba, 1, 0, 16, 0, 8};
	static const unsigned char tiny[3] = {0x50, 0xed, 0x55};
	static const char bad[] = "this is no image at all", other[] = STANDIN_IMAGE "\nf other\n";
	struct pst_gpu_module *m = NULL;
	struct pst_gpu_kernel *k;

	EXPECT_FAILS(-ENOEXEC, "build it again",
		     pst_gpu_module_load(self->gpu, bad, sizeof(bad), &m, &err));
	EXPECT_FAILS(-ENOEXEC, "built for other GPUs",
		     pst_gpu_module_load(self->gpu, other, sizeof(other), &m, &err));
	EXPECT_FAILS(-ENOEXEC, "cut short", pst_gpu_module_load(self->gpu, fatbin, 23, &m, &err));
	EXPECT_FAILS(-ENOEXEC, "cut short", pst_gpu_module_load(self->gpu, tiny, 3, &m, &err));
	EXPECT_FALSE(m);
	/* in a fatbin the functions of the stand-in are ops */
	OK(pst_gpu_module_load(self->gpu, fatbin, sizeof(fatbin), &m, &err));
	OK(pst_gpu_kernel(m, "swiglu", 0, &k, &err));
	pst_gpu_module_unload(m);
}

/* Overlap: what copies goes on while a kernel runs. */
TEST_F(gpu, copies_overlap_kernels)
{
	struct pst_gpu_module *m = module_of(self->gpu, "hang");
	struct both b;

	set_up_both(self->gpu, &b);
	OK(launch(self->gpu, kernel_of(m, "hang"), NULL));
	while (!s->running)
		usleep(1000);
	OK(add(&b, 0, 0, 5000));
	send(self->gpu, &b, PST_GPU_IN);
	OK(pst_gpu_copies_add(b.c, (uintptr_t)b.host + 65536, b.dev, 5000, &err));
	send(self->gpu, &b, PST_GPU_OUT);
	EXPECT_EQ(0, memcmp(b.host, b.host + 65536, 5000));
	EXPECT_EQ(2ull, (unsigned long long)s->overlaps);
	EXPECT_FAILS(-ETIMEDOUT, "fn_hang was launched last",
		     pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, 1, &err));
	/* the driver would take memory back when the kernel has ended only */
	EXPECT_FAILS(-ETIMEDOUT, "fn_hang", pst_gpu_unregister(self->gpu, b.host, &err));
	s->gpu[0].release = 1;
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	OK(pst_gpu_unregister(self->gpu, b.host, &err));
	pst_gpu_module_unload(m);
	pst_gpu_copies_free(b.c);
}

TEST_F(gpu, events_order_streams)
{
	struct pst_gpu_module *m = module_of(self->gpu, "hang");
	struct pst_gpu_event *e, *f, *plain;
	struct both b;
	float ms = -1;

	set_up_both(self->gpu, &b);
	OK(pst_gpu_event_new(self->gpu, true, &e, &err));
	OK(pst_gpu_event_new(self->gpu, true, &f, &err));
	OK(pst_gpu_event_new(self->gpu, false, &plain, &err));
	EXPECT_EQ(1, pst_gpu_event_come(e, &err));
	OK(pst_gpu_event_record(f, PST_GPU_OUT, &err));
	OK(pst_gpu_event_wait(f, MS, &err));
	OK(launch(self->gpu, kernel_of(m, "hang"), NULL));
	OK(pst_gpu_event_record(e, PST_GPU_COMPUTE, &err));
	OK(pst_gpu_event_await(e, PST_GPU_IN, &err));
	OK(add(&b, 0, 0, 5000));
	OK(pst_gpu_copies_send(b.c, PST_GPU_IN, &err));
	EXPECT_EQ(0, pst_gpu_event_come(e, &err));
	EXPECT_FAILS(-ETIMEDOUT, "an event is not there", pst_gpu_event_wait(e, 1, &err));
	EXPECT_FAILS(-ETIMEDOUT, "copies in", pst_gpu_wait(self->gpu, PST_GPU_IN, 1, &err));
	s->gpu[0].release = 1;
	OK(pst_gpu_wait(self->gpu, PST_GPU_IN, MS, &err));
	EXPECT_EQ(1, pst_gpu_event_come(e, &err));
	OK(pst_gpu_event_ms(f, e, &ms, &err));
	EXPECT_TRUE(ms >= 0);
	EXPECT_FAILS(-EINVAL, "without a clock", pst_gpu_event_ms(plain, e, &ms, &err));
	pst_gpu_event_free(e);
	pst_gpu_event_free(f);
	pst_gpu_event_free(plain);
	pst_gpu_module_unload(m);
	pst_gpu_copies_free(b.c);
}

/* Graphs. */

struct work {
	struct pst_gpu *gpu;
	struct pst_gpu_kernel *add;
	struct both *b;
	uint64_t y, x;
	int recorded, fails;
};

/* Bucket n adds n times. */
static int record(void *ctx, enum pst_gpu_stream stream, uint64_t bucket, struct pst_error *e)
{
	struct work *w = ctx;
	size_t n = 1;
	void *params[] = {&w->y, &w->x, &n};
	int rc = w->fails;

	w->recorded++;
	for (uint64_t i = 0; !rc && i < bucket; i++)
		rc = pst_gpu_launch(w->gpu, stream, w->add, &one_block, params, e);
	return rc;
}

TEST_F(gpu, a_graph_for_each_bucket)
{
	static const uint64_t buckets[] = {1, 4, 1, 16, 4, 1};
	struct pst_gpu_module *m = module_of(self->gpu, "add");
	struct pst_gpu_graphs *g;
	struct pst_gpu_stat st;
	struct work w = {.gpu = self->gpu, .add = kernel_of(m, "add")};
	struct both b;
	float *f;

	set_up_both(self->gpu, &b);
	f = (float *)b.host;
	f[0] = 0;
	f[1] = 1;
	OK(add(&b, 0, 0, 8));
	send(self->gpu, &b, PST_GPU_IN);
	w.y = b.dev;
	w.x = b.dev + 4;
	OK(pst_gpu_graphs_new(self->gpu, 2, &g, &err));
	/* 16 takes the place of 4, which takes that of 1 then */
	for (size_t i = 0; i < 6; i++)
		OK(pst_gpu_graph_launch(g, PST_GPU_COMPUTE, buckets[i], record, &w, &err));
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	EXPECT_EQ(5, w.recorded);
	pst_gpu_stat(self->gpu, &st);
	EXPECT_EQ(5u, st.captures);
	EXPECT_EQ(6u, st.graph_launches);
	EXPECT_EQ(2, (int)s->graphs);
	f[0] = 1 + 4 + 1 + 16 + 4 + 1;
	expect_there(self->gpu, &b, 0, 0, 4);
	/* what cannot be recorded leaves nothing, and the stream as it was */
	w.fails = -EXDEV;
	EXPECT_EQ(-EXDEV, pst_gpu_graph_launch(g, PST_GPU_COMPUTE, 7, record, &w, &err));
	EXPECT_EQ(2, (int)s->graphs);
	w.fails = 0;
	OK(pst_gpu_graph_launch(g, PST_GPU_COMPUTE, 7, record, &w, &err));
	OK(pst_gpu_wait(self->gpu, PST_GPU_COMPUTE, MS, &err));
	f[0] += 7;
	expect_there(self->gpu, &b, 0, 0, 4);
	pst_gpu_graphs_free(g);
	pst_gpu_module_unload(m);
	pst_gpu_copies_free(b.c);
}

/* Copies of a graph go one by one, since a batch is no part of one. */
static int record_copies(void *ctx, enum pst_gpu_stream stream, uint64_t bucket,
			 struct pst_error *e)
{
	struct work *w = ctx;
	int rc = add(w->b, 0, 0, bucket);

	if (!rc)
		rc = add(w->b, 1024, 1024, bucket);
	return rc ? rc : pst_gpu_copies_send(w->b->c, stream, e);
}

TEST_F(gpu, a_graph_of_copies)
{
	struct pst_gpu_graphs *g;
	struct both b;
	struct work w = {.b = &b};

	set_up_both(self->gpu, &b);
	OK(pst_gpu_graphs_new(self->gpu, 2, &g, &err));
	OK(pst_gpu_graph_launch(g, PST_GPU_IN, 100, record_copies, &w, &err));
	OK(pst_gpu_wait(self->gpu, PST_GPU_IN, MS, &err));
	b.host[1030] ^= 0xff;
	OK(pst_gpu_graph_launch(g, PST_GPU_IN, 100, record_copies, &w, &err));
	OK(pst_gpu_wait(self->gpu, PST_GPU_IN, MS, &err));
	EXPECT_EQ(0ull, (unsigned long long)s->batches);
	EXPECT_EQ(4ull, (unsigned long long)s->copies);
	expect_there(self->gpu, &b, 1024, 1024, 100);
	pst_gpu_graphs_free(g);
	pst_gpu_copies_free(b.c);
}

/* For NICs. */

TEST_F(gpu, a_dma_buf)
{
	struct standin_fn *fn = &s->fn[STANDIN_cuMemGetHandleForAddressRange];
	uint64_t offset = 0, skip;
	unsigned char got[100];
	struct both b;
	struct stat st;
	int fd = -1;

	OK(pst_gpu_alloc(self->gpu, 512, 0, &skip, &err));
	set_up_both(self->gpu, &b);
	OK(add(&b, 512, 0, 5000));
	send(self->gpu, &b, PST_GPU_IN);
	OK(pst_gpu_dmabuf(self->gpu, b.dev + 512, 5000, &fd, &offset, &err));
	ASSERT_EQ(0, fstat(fd, &st));
	EXPECT_EQ(8192, (int)st.st_size);
	EXPECT_EQ(1024, (int)offset);
	ASSERT_EQ(100, (int)pread(fd, got, 100, (off_t)offset));
	EXPECT_EQ(0, memcmp(got, b.host, 100));
	close(fd);
	fd = -1;
	EXPECT_FAILS(-EFAULT, "arena",
		     pst_gpu_dmabuf(self->gpu, (uintptr_t)b.host, 10, &fd, &offset, &err));
	fn->fail_rc = CUDA_ERROR_NOT_SUPPORTED;
	fn->fail_in = 1;
	EXPECT_FAILS(-EOPNOTSUPP, "nvidia-peermem",
		     pst_gpu_dmabuf(self->gpu, b.dev, 10, &fd, &offset, &err));
	s->gpu[0].no_dma_buf = 1;
	EXPECT_FAILS(-EOPNOTSUPP, "nvidia-peermem",
		     pst_gpu_dmabuf(self->gpu, b.dev, 10, &fd, &offset, &err));
	EXPECT_EQ(-1, fd);
	pst_gpu_copies_free(b.c);
}

/* A coherent device is asked for the way through PCIe first, and for the usual one then. */
TEST(a_dma_buf_of_a_coherent_device)
{
	struct pst_gpu_options o = {.size = sizeof(o)};
	struct pst_gpu *gpu;
	uint64_t block, offset;
	int fd = -1;

	use_standin(1);
	s->gpu[0].coherent = 1;
	OK(pst_gpu_open(0, &o, &gpu, &err));
	OK(pst_gpu_alloc(gpu, 4096, 4096, &block, &err));
	OK(pst_gpu_dmabuf(gpu, block, 4096, &fd, &offset, &err));
	EXPECT_EQ(2u, (unsigned int)s->fn[STANDIN_cuMemGetHandleForAddressRange].calls);
	EXPECT_EQ(0, (int)offset);
	close(fd);
	OK(pst_gpu_close(gpu, &err));
	expect_nothing_left();
}

TEST_MAIN
