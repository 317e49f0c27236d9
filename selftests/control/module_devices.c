/* SPDX-License-Identifier: Apache-2.0 */
/* The module's pools in the hands of devices: as dma-bufs, and as memory of a process. */
#include "selftests/control/importer.h"
#include "selftests/control/mapped.h"

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <sys/mman.h>
#if __has_include(<infiniband/verbs.h>)
#include <dlfcn.h>
#include <infiniband/verbs.h>
#define HAVE_VERBS 1
#endif

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

TEST_F(module, for_reading)
{
	const struct mapped m = map_new(self->fd, "read", HUGE, 0);
	struct importer_map import = {.node = 0};
	char path[64];
	int fd;

	pattern(m.at, HUGE);
	fd = export_pool(self->fd, m.pool.out_id, PST_POOL_MAP_READ);
	ASSERT_LE(0, fd);
	EXPECT_TRUE(map_at(fd, HUGE, PROT_READ | PROT_WRITE) == MAP_FAILED);
	EXPECT_EQ(EACCES, errno);
	unsigned char *at = map_at(fd, HUGE, PROT_READ);

	ASSERT_TRUE(at != MAP_FAILED);
	EXPECT_TRUE(has_pattern(at, HUGE));
	EXPECT_NE(0, mprotect(at, HUGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT_GT(0, open(path, O_RDWR | O_CLOEXEC));
	import.fd = fd;
	const int device = open("/dev/penstock_test", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, device);
	EXPECT_EQ(0, order(device, IMPORTER_MAP, &import));
	import.write = 1;
	EXPECT_EQ(-EACCES, order(device, IMPORTER_MAP, &import));
}

TEST_F(module, a_device_imports_it)
{
	enum { BYTES = 8 * MIB };
	const struct mapped m = map_new(self->fd, "device", BYTES, 1);
	struct importer_map import = {.fd = m.fd, .write = 1, .fill = 1, .node = 1};
	struct dma_buf_sync sync = {.flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW};
	const int device = open("/dev/penstock_test", O_RDWR | O_CLOEXEC);
	size_t wrong = 0;

	ASSERT_LE(0, device);
	ASSERT_EQ(0, order(device, IMPORTER_MAP, &import));
	EXPECT_EQ((uint64_t)BYTES, import.out_bytes);
	EXPECT_EQ(HUGE, import.out_smallest);
	EXPECT_EQ(BYTES / HUGE, import.out_parts);
	EXPECT_EQ(0u, import.out_elsewhere);
	EXPECT_EQ(0, order(m.fd, DMA_BUF_IOCTL_SYNC, &sync));
	for (size_t i = 0; i < BYTES / PAGE; i++)
		wrong += *(uint64_t *)(m.at + i * PAGE) != i;
	EXPECT_EQ(0u, wrong);
	sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
	EXPECT_EQ(0, order(m.fd, DMA_BUF_IOCTL_SYNC, &sync));
	import.node = 0;
	ASSERT_EQ(0, order(device, IMPORTER_MAP, &import));
	EXPECT_EQ(BYTES / PAGE, import.out_elsewhere);
}

/* The pool is destroyed, and both its descriptor and its door closed, while a device has it. */
TEST_F(module, a_device_holds_it)
{
	const struct mapped m = map_new(self->fd, "device", HUGE, 0);
	struct importer_map import = {.fd = m.fd, .write = 1, .fill = 1, .hold_ms = 500};
	struct dma_buf_sync sync = {.flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_RW};
	const int device = open("/dev/penstock_test", O_RDWR | O_CLOEXEC),
		  other = door_open(O_RDWR);
	const pid_t user = child();

	if (!user) {
		close(self->fd);
		munmap(m.at, HUGE);
		_exit(order(device, IMPORTER_MAP, &import) ? 1 : 0);
	}
	usleep(100000);
	EXPECT_EQ(0, order(m.fd, DMA_BUF_IOCTL_SYNC, &sync));
	sync.flags = DMA_BUF_SYNC_END | DMA_BUF_SYNC_RW;
	EXPECT_EQ(0, order(m.fd, DMA_BUF_IOCTL_SYNC, &sync));
	EXPECT_EQ(0, destroy(self->fd, m.pool.out_id));
	close(m.fd);
	munmap(m.at, HUGE);
	EXPECT_EQ(HUGE, info(other).out_pool_bytes);
	EXPECT_EQ(0, ended(user));
	EXPECT_TRUE(becomes(other, 0));
}

/* The drive writes into the pool's pages themselves. */
TEST_F(module, direct_io)
{
	enum { BYTES = 4 * MIB };
	const struct mapped m = map_new(self->fd, "direct", BYTES, 1);
	const int drive = open("/dev/nvme0n1", O_RDWR | O_DIRECT | O_CLOEXEC);

	if (drive < 0)
		SKIP("no drive", "make vm-check");
	pattern(m.at, BYTES);
	ASSERT_EQ((ssize_t)BYTES, pwrite(drive, m.at, BYTES, 64 * MIB));
	memset(m.at, 0, BYTES);
	ASSERT_EQ((ssize_t)BYTES, pread(drive, m.at, BYTES, 64 * MIB));
	EXPECT_TRUE(has_pattern(m.at, BYTES));
}

#ifdef HAVE_VERBS
struct verbs {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_mr *(*reg_mr)(struct ibv_pd *pd, void *at, size_t bytes, int access);
	struct ibv_mr *(*reg_dmabuf_mr)(struct ibv_pd *pd, uint64_t offset, size_t bytes,
					uint64_t iova, int fd, int access);
	int (*dereg_mr)(struct ibv_mr *mr);
};

static struct verbs verbs_open(void)
{
	void *lib = dlopen("libibverbs.so.1", RTLD_NOW);
	struct verbs v = {0};

	if (!lib)
		SKIP("no libibverbs", "tools/deps.sh vm");
	struct ibv_device **(*list)(int *) =
		(struct ibv_device * *(*)(int *))(uintptr_t)dlsym(lib, "ibv_get_device_list");
	struct ibv_context *(*open_device)(struct ibv_device *) =
		(struct ibv_context * (*)(struct ibv_device *))(uintptr_t)dlsym(lib,
										"ibv_open_device");
	struct ibv_pd *(*alloc_pd)(struct ibv_context *) =
		(struct ibv_pd * (*)(struct ibv_context *))(uintptr_t)dlsym(lib, "ibv_alloc_pd");
	int n = 0;
	struct ibv_device **devices = list(&n);

	if (!n)
		SKIP("no RDMA device", "make vm-check");
	*(void **)&v.reg_mr = dlsym(lib, "ibv_reg_mr");
	*(void **)&v.reg_dmabuf_mr = dlsym(lib, "ibv_reg_dmabuf_mr");
	*(void **)&v.dereg_mr = dlsym(lib, "ibv_dereg_mr");
	v.context = open_device(devices[0]);
	ASSERT_TRUE(v.context != NULL);
	v.pd = alloc_pd(v.context);
	ASSERT_TRUE(v.pd != NULL);
	return v;
}

#define ACCESS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE)

TEST_F(module, rdma_registers_the_mapping)
{
	const struct mapped m = map_new(self->fd, "verbs", 8 * MIB, 1);
	const struct verbs v = verbs_open();
	struct ibv_mr *mr = v.reg_mr(v.pd, m.at, 8 * MIB, ACCESS);

	ASSERT_TRUE(mr != NULL);
	EXPECT_EQ(0, v.dereg_mr(mr));
}

/* rxe has no importer of dma-bufs: real devices have. */
TEST_F(module, rdma_registers_the_dmabuf)
{
	const struct mapped m = map_new(self->fd, "verbs", 8 * MIB, 1);
	const struct verbs v = verbs_open();
	struct ibv_mr *mr = v.reg_dmabuf_mr(v.pd, 0, 8 * MIB, (uintptr_t)m.at, m.fd, ACCESS);

	if (!mr && errno == EOPNOTSUPP)
		SKIP("soft-RoCE does not import dma-bufs", "make vm-check, with a real device");
	ASSERT_TRUE(mr != NULL);
	EXPECT_EQ(0, v.dereg_mr(mr));
}
#endif

TEST_MAIN
