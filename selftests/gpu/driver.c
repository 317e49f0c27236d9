/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for libcuda.so.1: devices, memory, copies and streams are as a driver's. */
#include "selftests/gpu/driver.h"

#include <pthread.h>

TEST(no_control_file_is_no_driver)
{
	unsetenv(STANDIN_ENV);
	open_library();
	EXPECT_EQ((CUresult)CUDA_ERROR_NO_DEVICE, cu.cuInit(0));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_INITIALIZED, cu.cuDeviceGetCount(&(int){0}));
}

TEST_F(driver, devices)
{
	char name[64], pci[32];
	CUdevice dev;
	size_t bytes;
	CUuuid uuid;
	int n;

	OK(cuDeviceGetCount(&n));
	EXPECT_EQ(2, n);
	OK(cuDeviceGet(&dev, 1));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_DEVICE, cu.cuDeviceGet(&dev, 2));
	OK(cuDeviceGetName(name, sizeof(name), 1));
	EXPECT_STREQ("Stand-in H200", name);
	OK(cuDeviceTotalMem(&bytes, 1));
	EXPECT_EQ(64 * MIB, (unsigned long long)bytes);
	OK(cuDeviceGetUuid(&uuid, 1));
	EXPECT_EQ(0x57, uuid.bytes[0]);
	EXPECT_EQ(1, uuid.bytes[15]);
	OK(cuDeviceGetAttribute(&n, 75, 0));
	EXPECT_EQ(9, n);
	OK(cuDeviceGetAttribute(&n, 16, 0));
	EXPECT_EQ(132, n);
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuDeviceGetAttribute(&n, 9999, 0));
	OK(cuDeviceGetPCIBusId(pci, sizeof(pci), 1));
	EXPECT_STREQ("0000:3C:00.0", pci);
	OK(cuDeviceGetByPCIBusId(&dev, pci));
	EXPECT_EQ(1, dev);
}

TEST_F(driver, functions_and_errors_have_names)
{
	const char *text = NULL;
	int status = 7;
	void *fn;

	OK(cuGetErrorName(214, &text));
	EXPECT_STREQ("CUDA_ERROR_ECC_UNCORRECTABLE", text);
	OK(cuGetErrorString(2, &text));
	EXPECT_STREQ("out of memory", text);
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuGetErrorName(123456, &text));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_FOUND,
		  cu.cuGetProcAddress("cuNone", &fn, 13000, 0, &status));
	EXPECT_EQ(1, status);
	EXPECT_FALSE(fn);
	/* not newer than who asks wants it, nor than the driver is */
	OK(cuGetProcAddress("cuMemcpyBatchAsync", &fn, 13000, 0, &status));
	EXPECT_TRUE(fn);
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_FOUND,
		  cu.cuGetProcAddress("cuMemcpyBatchAsync", &fn, 12080, 0, &status));
	s->cuda_version = 12080;
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_FOUND,
		  cu.cuGetProcAddress("cuMemcpyBatchAsync", &fn, 13000, 0, &status));
}

static void *without_context(void *arg)
{
	CUdeviceptr p;

	(void)arg;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_CONTEXT, cu.cuMemAlloc(&p, 1));
	return NULL;
}

TEST_F(driver, contexts_are_each_threads)
{
	unsigned int flags;
	pthread_t thread;
	CUcontext ctx;
	int active;

	ASSERT_EQ(0, pthread_create(&thread, NULL, without_context, NULL));
	pthread_join(thread, NULL);
	OK(cuCtxPopCurrent(&ctx));
	EXPECT_TRUE(ctx == self->ctx);
	without_context(NULL);
	OK(cuCtxPushCurrent(ctx));
	OK(cuDevicePrimaryCtxGetState(1, &flags, &active));
	EXPECT_EQ(0, active);
	OK(cuDevicePrimaryCtxRelease(0));
	without_context(NULL);
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_CONTEXT, cu.cuDevicePrimaryCtxRelease(0));
}

TEST_F(driver, memory_comes_to_an_end)
{
	size_t free_bytes, total;
	CUdeviceptr p, q;

	OK(cuMemAlloc(&p, 40 * MIB));
	OK(cuMemGetInfo(&free_bytes, &total));
	EXPECT_EQ(24 * MIB, (unsigned long long)free_bytes);
	EXPECT_EQ(40 * MIB, (unsigned long long)standin_used(s, 0));
	EXPECT_EQ((CUresult)CUDA_ERROR_OUT_OF_MEMORY, cu.cuMemAlloc(&q, 25 * MIB));
	EXPECT_EQ((CUresult)CUDA_ERROR_OUT_OF_MEMORY, cu.cuMemAlloc(&q, ~0ull));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemAlloc(&q, 0));
	/* it is no error that stays */
	OK(cuMemAlloc(&q, 24 * MIB));
	OK(cuMemFree(p));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemFree(p));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemFree(q + 4096));
	OK(cuMemAlloc(&p, 39 * MIB));
	/* the other GPU has its own */
	EXPECT_EQ(0ull, (unsigned long long)standin_used(s, 1));
}

TEST_F(driver, memory_of_the_dead_is_free)
{
	CUdeviceptr p;
	int status;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(standin_take(s, 0, 60 * MIB) ? 1 : 0);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
	OK(cuMemAlloc(&p, 60 * MIB));
}

/* Does touching @at kill? */
static bool kills(volatile char *at)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		_exit(*at ? 0 : 0);
	}
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

TEST_F(driver, the_host_may_not_touch_device_memory)
{
	CUdeviceptr p;
	char byte = 0;

	OK(cuMemAlloc(&p, 100));
	EXPECT_TRUE(kills((volatile char *)(uintptr_t)p));
	EXPECT_FALSE(kills(&byte));
}

TEST_F(driver, copies_there_and_back)
{
	unsigned char from[1000], to[1000] = {0};
	CUdeviceptr p, q;

	for (size_t i = 0; i < sizeof(from); i++)
		from[i] = (unsigned char)(i * 7);
	OK(cuMemAlloc(&p, sizeof(from)));
	OK(cuMemAlloc(&q, sizeof(from)));
	OK(cuMemcpyDtoH(to, p, 4));
	EXPECT_EQ(0xa5, to[0]); /* nobody has written there */
	OK(cuMemcpyHtoD(p, from, sizeof(from)));
	OK(cuMemcpyDtoD(q, p, sizeof(from)));
	OK(cuMemcpyDtoH(to, q, sizeof(from)));
	EXPECT_EQ(0, memcmp(from, to, sizeof(to)));
	OK(cuMemcpyDtoH(to, q + 100, 10));
	EXPECT_EQ(0, memcmp(from + 100, to, 10));
	OK(cuMemsetD8(q, 3, 10));
	OK(cuMemsetD32(q + 4, 0x01020304, 1));
	OK(cuMemcpyDtoH(to, q, 10));
	EXPECT_EQ(0, memcmp("\3\3\3\3\4\3\2\1\3\3", to, 10));
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
}

TEST_F(driver, wrong_copies_are_refused)
{
	char host[100];
	CUdeviceptr p;

	OK(cuMemAlloc(&p, 100));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemcpyHtoD(p, host, 101));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemcpyHtoD(p + 100, host, 1));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemcpyDtoH(host, p + 1, 100));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemcpyHtoD(p, (const void *)(uintptr_t)p, 10));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemcpyHtoD((uintptr_t)host, host, 10));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemsetD8(p, 0, 101));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_HANDLE,
		  cu.cuMemcpyHtoDAsync(p, host, 10, (CUstream)(uintptr_t)host));
	/* none of it stays */
	OK(cuCtxSynchronize());
}

TEST_F(driver, host_memory)
{
	static _Alignas(4096) char host[8192];
	CUdeviceptr p, dev;
	unsigned int type;
	void *pinned;

	OK(cuMemAlloc(&p, sizeof(host)));
	OK(cuMemHostAlloc(&pinned, 4096, 0));
	OK(cuMemHostGetDevicePointer(&dev, pinned, 0));
	OK(cuPointerGetAttribute(&type, CU_POINTER_MEMORY_TYPE, dev));
	EXPECT_EQ((unsigned int)CU_MEMORYTYPE_HOST, type);
	OK(cuPointerGetAttribute(&type, CU_POINTER_MEMORY_TYPE, p));
	EXPECT_EQ((unsigned int)CU_MEMORYTYPE_DEVICE, type);
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuPointerGetAttribute(&type, CU_POINTER_MEMORY_TYPE, (uintptr_t)host));
	OK(cuMemHostRegister(host, sizeof(host), 0));
	EXPECT_EQ((CUresult)CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
		  cu.cuMemHostRegister(host + 4096, 4096, 0));
	OK(cuMemcpyHtoDAsync(p, host, sizeof(host), self->a));
	OK(cuStreamSynchronize(self->a));
	EXPECT_EQ(0ull, (unsigned long long)s->pageable_copies);
	OK(cuMemHostUnregister(host));
	EXPECT_EQ((CUresult)CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cu.cuMemHostUnregister(host));
	OK(cuMemcpyHtoDAsync(p, host, sizeof(host), self->a));
	OK(cuStreamSynchronize(self->a));
	EXPECT_EQ(1ull, (unsigned long long)s->pageable_copies);
	OK(cuMemFreeHost(pinned));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuMemFreeHost(pinned));
}

/* The copies of a batch have no order: here the last is done first. */
TEST_F(driver, batches)
{
	CUmemcpyAttributes attrs[2] = {{.src_access_order = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM},
				       {.src_access_order = CU_MEMCPY_SRC_ACCESS_ORDER_ANY}};
	size_t len[2] = {16, 16}, first[2] = {0, 1};
	CUdeviceptr to[2], from[2];
	unsigned char *host;

	OK(cuMemHostAlloc((void **)&host, 48, 0));
	OK(cuMemAlloc(&to[0], 16));
	memset(host, 1, 16);
	memset(host + 16, 2, 16);
	to[1] = to[0];
	from[0] = (uintptr_t)host;
	from[1] = (uintptr_t)host + 16;
	OK(cuMemcpyBatchAsync(to, from, len, 2, attrs, first, 2, self->a));
	OK(cuStreamSynchronize(self->a));
	OK(cuMemcpyDtoH(host + 32, to[0], 16));
	EXPECT_EQ(1, host[32]);
	EXPECT_EQ(1ull, (unsigned long long)s->batches);
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_HANDLE,
		  cu.cuMemcpyBatchAsync(to, from, len, 2, attrs, first, 2, NULL));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemcpyBatchAsync(to, from, len, 0, attrs, first, 2, self->a));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemcpyBatchAsync(to, from, len, 2, NULL, NULL, 0, self->a));
	/* attributes begin with the first copy, one kind after the other */
	first[0] = 1;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemcpyBatchAsync(to, from, len, 2, attrs, first, 1, self->a));
	first[0] = first[1] = 0;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemcpyBatchAsync(to, from, len, 2, attrs, first, 2, self->a));
	attrs[0].src_access_order = 0;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemcpyBatchAsync(to, from, len, 2, attrs, first, 1, self->a));
}

TEST_F(driver, memory_for_others)
{
	CUdeviceptr p;
	int fd = -1;
	char byte;

	OK(cuMemAlloc(&p, 8192));
	OK(cuMemsetD8(p + 4096, 7, 1));
	OK(cuMemGetHandleForAddressRange(&fd, p, 8192, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0));
	ASSERT_EQ(1, (int)pread(fd, &byte, 1, 4096));
	EXPECT_EQ(7, byte);
	close(fd);
	fd = -1;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemGetHandleForAddressRange(&fd, p + 512, 4096, 1, 0));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuMemGetHandleForAddressRange(&fd, p, 8192 + 4096, 1, 0));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_SUPPORTED,
		  cu.cuMemGetHandleForAddressRange(&fd, p, 4096, 1, 1));
	s->gpu[0].no_dma_buf = 1;
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_SUPPORTED,
		  cu.cuMemGetHandleForAddressRange(&fd, p, 4096, 1, 0));
	EXPECT_EQ(-1, fd);
}

/* Streams. */

/* What is not waited for has not happened. */
TEST_F(driver, work_is_done_later)
{
	char *host;
	CUdeviceptr p;

	OK(cuMemAlloc(&p, 16));
	OK(cuMemHostAlloc((void **)&host, 16, 0));
	memset(host, 1, 16);
	OK(cuMemsetD8(p, 9, 16));
	block(self->a);
	OK(cuMemcpyDtoHAsync(host, p, 16, self->a));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuStreamQuery(self->a));
	EXPECT_EQ(1, host[0]);
	/* others go on meanwhile */
	OK(cuMemsetD8Async(p, 5, 16, self->b));
	OK(cuStreamSynchronize(self->b));
	s->gpu[0].release = 1;
	OK(cuStreamSynchronize(self->a));
	EXPECT_EQ(5, host[0]);
	OK(cuStreamQuery(self->a));
}

TEST_F(driver, in_order_within_a_stream)
{
	unsigned char host = 0;
	CUdeviceptr p;

	OK(cuMemAlloc(&p, 1));
	for (int i = 0; i < 200; i++)
		OK(cuMemsetD8Async(p, (unsigned char)i, 1, self->a));
	OK(cuMemcpyDtoHAsync(&host, p, 1, self->a));
	OK(cuStreamSynchronize(self->a));
	EXPECT_EQ(199, host);
}

TEST_F(driver, events_order_streams)
{
	unsigned char host = 0;
	CUdeviceptr p;
	CUevent e, f;
	float ms;

	OK(cuMemAlloc(&p, 1));
	OK(cuEventCreate(&e, 0));
	OK(cuEventCreate(&f, 0));
	OK(cuEventQuery(e)); /* never recorded */
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_HANDLE, cu.cuEventElapsedTime(&ms, e, f));
	OK(cuEventRecord(f, self->b));
	OK(cuStreamSynchronize(self->b));
	block(self->a);
	OK(cuMemsetD8Async(p, 1, 1, self->a));
	OK(cuEventRecord(e, self->a));
	OK(cuStreamWaitEvent(self->b, e, 0));
	OK(cuMemsetD8Async(p, 2, 1, self->b));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuEventQuery(e));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuStreamQuery(self->b));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuEventElapsedTime(&ms, f, e));
	s->gpu[0].release = 1;
	OK(cuEventSynchronize(e));
	OK(cuStreamSynchronize(self->b));
	OK(cuMemcpyDtoH(&host, p, 1));
	EXPECT_EQ(2, host);
	OK(cuEventElapsedTime(&ms, f, e));
	EXPECT_TRUE(ms >= 0);
	OK(cuEventDestroy(e));
	OK(cuEventDestroy(f));
	OK(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
	OK(cuEventRecord(e, self->a));
	OK(cuEventSynchronize(e));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_HANDLE, cu.cuEventElapsedTime(&ms, e, e));
	OK(cuEventDestroy(e));
}

/* The legacy stream waits for streams that block, and they for it; others do not care. */
TEST_F(driver, the_legacy_stream)
{
	CUdeviceptr p;
	CUstream c;

	OK(cuMemAlloc(&p, 1));
	OK(cuStreamCreate(&c, 0));
	block(c);
	OK(cuMemsetD8Async(p, 1, 1, NULL));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuStreamQuery(NULL));
	OK(cuMemsetD8Async(p, 2, 1, self->a));
	OK(cuStreamSynchronize(self->a));
	s->gpu[0].release = 1;
	OK(cuStreamSynchronize(NULL));
	s->gpu[0].release = 0;
	block(NULL);
	OK(cuMemsetD8Async(p, 1, 1, c));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuStreamQuery(c));
	s->gpu[0].release = 1;
	OK(cuStreamSynchronize(c));
	OK(cuStreamDestroy(c));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_HANDLE, cu.cuStreamQuery(c));
}

TEST_F(driver, streams_come_and_go)
{
	unsigned char host = 0;
	CUdeviceptr p;
	CUstream c;

	OK(cuMemAlloc(&p, 1));
	for (int i = 0; i < 300; i++) {
		OK(cuStreamCreate(&c, CU_STREAM_NON_BLOCKING));
		OK(cuMemsetD8Async(p, (unsigned char)i, 1, c));
		/* what it was given is done all the same */
		OK(cuStreamDestroy(c));
		OK(cuCtxSynchronize());
	}
	OK(cuMemcpyDtoH(&host, p, 1));
	EXPECT_EQ((unsigned char)299, host);
}

TEST_MAIN
