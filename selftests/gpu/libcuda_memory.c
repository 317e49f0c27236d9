/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the stand-in's GPUs, host memory that they know of, and copies. */
#include "selftests/gpu/libcuda.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull
/* What was never written has this in it, as far as that costs no time. */
#define POISON	   0xa5
#define POISON_MAX (4ull << 20)

/* Where a GPU sees host memory that it cannot see where it is: each piece apart. */
#define ELSEWHERE    (1ull << 62)
#define NUMBER_SHIFT 48
#define PLACE	     ((1ull << NUMBER_SHIFT) - 1)

/* Host memory that was registered, or allocated to be. */
struct host {
	char *at;
	size_t len;
	bool ours;
	uint64_t number;
	TAILQ_ENTRY(host) on_list;
};
static TAILQ_HEAD(, host) hosts = TAILQ_HEAD_INITIALIZER(hosts);

/* Twice the memory, so that holes between allocations are never what is missing. */
int cuda_memory_open(struct cuda_gpu *gpu)
{
	size_t span = (2 * gpu->g->memory_bytes + PAGE - 1) / PAGE * PAGE + PAGE;
	int fd = memfd_create("gpu", MFD_CLOEXEC);
	char *base = MAP_FAILED, *alias = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, (off_t)span)) {
		base = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
			    0);
		alias = mmap(NULL, span, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	}
	if (base == MAP_FAILED || alias == MAP_FAILED)
		return -1;
	gpu->base = base;
	gpu->alias = alias;
	gpu->span = span;
	gpu->fd = fd;
	return 0;
}

static struct cuda_gpu *gpu_of(CUdeviceptr at)
{
	for (int i = 0; i < STANDIN_GPUS; i++) {
		struct cuda_gpu *gpu = &cuda.gpu[i];

		if (gpu->base && at >= (uintptr_t)gpu->base &&
		    at < (uintptr_t)gpu->base + gpu->span)
			return gpu;
	}
	return NULL;
}

static struct block *block_of(struct cuda_gpu *gpu, CUdeviceptr at, size_t len)
{
	struct block *b;

	TAILQ_FOREACH(b, &gpu->blocks, on_gpu)
	{
		if (at >= b->at && at - b->at <= b->asked && len <= b->asked - (at - b->at))
			return b;
	}
	return NULL;
}

static struct host *host_of(const void *at, size_t len)
{
	struct host *h;

	TAILQ_FOREACH(h, &hosts, on_list)
	{
		if ((const char *)at >= h->at && (const char *)at + len <= h->at + h->len)
			return h;
	}
	return NULL;
}

void *cuda_at(CUdeviceptr at, size_t len)
{
	struct cuda_gpu *gpu = gpu_of(at);
	void *host = (void *)(uintptr_t)at;

	if (gpu)
		return block_of(gpu, at, len) ? gpu->alias + (at - (uintptr_t)gpu->base) : NULL;
	return host_of(host, len) ? host : NULL;
}

static CUdeviceptr elsewhere(const struct host *h, CUdeviceptr at)
{
	return ELSEWHERE | (h->number & 0xfff) << NUMBER_SHIFT | at;
}

void *cuda_at_kernel(const struct cuda_gpu *gpu, CUdeviceptr at)
{
	struct host *h;

	if (gpu_of(at) || !gpu->g->no_host_pointer)
		return cuda_at(at, 1);
	h = at & ELSEWHERE ? host_of((void *)(uintptr_t)(at & PLACE), 1) : NULL;
	return h && elsewhere(h, at & PLACE) == at ? (void *)(uintptr_t)(at & PLACE) : NULL;
}

bool cuda_is_device(CUdeviceptr at, size_t len)
{
	struct cuda_gpu *gpu = gpu_of(at);

	return gpu && block_of(gpu, at, len);
}

/* The first hole that is large enough, with a page after it that is not there. */
static struct block *place(struct cuda_gpu *gpu, size_t len)
{
	CUdeviceptr at = (uintptr_t)gpu->base;
	struct block *b, *new = calloc(1, sizeof(*new));

	if (!new)
		return NULL;
	new->len = len;
	TAILQ_FOREACH(b, &gpu->blocks, on_gpu)
	{
		if (b->at - at >= len + PAGE)
			break;
		at = b->at + b->len + PAGE;
	}
	if (at + len + PAGE > (uintptr_t)gpu->base + gpu->span) {
		free(new);
		return NULL;
	}
	new->at = at;
	if (b)
		TAILQ_INSERT_BEFORE(b, new, on_gpu);
	else
		TAILQ_INSERT_TAIL(&gpu->blocks, new, on_gpu);
	return new;
}

static uint32_t alloc(struct cuda_gpu *gpu, CUdeviceptr *to, size_t asked)
{
	size_t len = (asked + PAGE - 1) / PAGE * PAGE;
	struct block *b;
	char *alias;

	if (asked > gpu->g->memory_bytes || standin_take(cuda.s, gpu->index, (int64_t)len))
		return CUDA_ERROR_OUT_OF_MEMORY;
	b = place(gpu, len);
	if (!b) {
		standin_take(cuda.s, gpu->index, -(int64_t)len);
		return CUDA_ERROR_OUT_OF_MEMORY;
	}
	b->asked = asked;
	alias = gpu->alias + (b->at - (uintptr_t)gpu->base);
	mprotect(alias, len, PROT_READ | PROT_WRITE);
	memset(alias, POISON, asked < POISON_MAX ? asked : POISON_MAX);
	*to = b->at;
	return 0;
}

API CUresult cuMemAlloc_v2(CUdeviceptr *to, size_t len)
{
	uint32_t rc;

	ENTER_GPU(cuMemAlloc);
	if (!len)
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	rc = alloc(gpu, to, len);
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

/* As the driver does, it waits for all that may still use the memory. */
API CUresult cuMemFree_v2(CUdeviceptr at)
{
	struct block *b;
	uint32_t rc;
	off_t off;

	ENTER_GPU(cuMemFree);
	if (!at)
		return 0;
	pthread_mutex_lock(&cuda.lock);
	gpu = gpu_of(at);
	b = gpu ? block_of(gpu, at, 1) : NULL;
	rc = b && b->at == at ? cuda_drain_all(gpu) : CUDA_ERROR_INVALID_VALUE;
	if (!rc) {
		off = (off_t)(at - (uintptr_t)gpu->base);
		mprotect(gpu->alias + off, b->len, PROT_NONE);
		if (fallocate(gpu->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off,
			      (off_t)b->len))
			abort();
		standin_take(cuda.s, gpu->index, -(int64_t)b->len);
		TAILQ_REMOVE(&gpu->blocks, b, on_gpu);
		free(b);
	}
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
	ENTER_GPU(cuMemGetInfo);
	*total = gpu->g->memory_bytes;
	*free_bytes = *total - standin_used(cuda.s, gpu->index);
	return 0;
}

/* Host memory. */

static uint32_t know(void *at, size_t len, bool ours)
{
	static uint64_t numbers;
	struct host *h, *new = malloc(sizeof(*new));

	if (!new)
		return CUDA_ERROR_OUT_OF_MEMORY;
	*new = (struct host){.at = at, .len = len, .ours = ours};
	pthread_mutex_lock(&cuda.lock);
	TAILQ_FOREACH(h, &hosts, on_list)
	{
		if ((char *)at < h->at + h->len && h->at < (char *)at + len)
			break;
	}
	if (!h) {
		new->number = ++numbers;
		TAILQ_INSERT_TAIL(&hosts, new, on_list);
		cuda.s->registered++;
	}
	pthread_mutex_unlock(&cuda.lock);
	if (!h)
		return 0;
	free(new);
	return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

static uint32_t forget(void *at, bool ours)
{
	struct host *h;

	pthread_mutex_lock(&cuda.lock);
	TAILQ_FOREACH(h, &hosts, on_list)
	{
		if (h->at == at && h->ours == ours)
			break;
	}
	if (h) {
		TAILQ_REMOVE(&hosts, h, on_list);
		cuda.s->registered--;
	}
	pthread_mutex_unlock(&cuda.lock);
	if (!h)
		return ours ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
	free(h);
	return 0;
}

API CUresult cuMemHostAlloc(void **to, size_t len, unsigned int flags)
{
	size_t whole = (len + PAGE - 1) / PAGE * PAGE;
	void *at;
	uint32_t rc;

	ENTER_GPU(cuMemHostAlloc);
	(void)gpu;
	if (!len || flags & ~7u)
		return CUDA_ERROR_INVALID_VALUE;
	at = aligned_alloc(PAGE, whole);
	if (!at)
		return CUDA_ERROR_OUT_OF_MEMORY;
	memset(at, POISON, whole < POISON_MAX ? whole : POISON_MAX);
	rc = know(at, len, true);
	if (rc)
		free(at);
	else
		*to = at;
	return rc;
}

API CUresult cuMemFreeHost(void *at)
{
	uint32_t rc;

	ENTER_GPU(cuMemFreeHost);
	pthread_mutex_lock(&cuda.lock);
	rc = cuda_drain_all(gpu);
	pthread_mutex_unlock(&cuda.lock);
	if (!rc)
		rc = forget(at, true);
	if (!rc)
		free(at);
	return rc;
}

/* May all of it be written? What is not mapped may not. */
static bool writable(uintptr_t at, size_t len)
{
	uintptr_t from, to, upto = at;
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512], mode[8];

	while (maps && upto < at + len && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3)
			continue;
		if (from <= upto && upto < to && mode[1] == 'w')
			upto = to;
	}
	if (maps)
		fclose(maps);
	return upto >= at + len;
}

API CUresult cuMemHostRegister_v2(void *at, size_t len, unsigned int flags)
{
	bool read_only = flags & CU_MEMHOSTREGISTER_READ_ONLY;

	ENTER_GPU(cuMemHostRegister);
	if (!at || !len || flags & ~15u)
		return CUDA_ERROR_INVALID_VALUE;
	if (read_only && gpu->g->no_read_only)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (!read_only && !writable((uintptr_t)at, len))
		return CUDA_ERROR_INVALID_VALUE;
	return know(at, len, false);
}

API CUresult cuMemHostUnregister(void *at)
{
	uint32_t rc;

	ENTER_GPU(cuMemHostUnregister);
	pthread_mutex_lock(&cuda.lock);
	rc = cuda_drain_all(gpu);
	pthread_mutex_unlock(&cuda.lock);
	return rc ? rc : forget(at, false);
}

API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *to, void *at, unsigned int flags)
{
	CUdeviceptr there = (uintptr_t)at;
	struct host *h;

	ENTER_GPU(cuMemHostGetDevicePointer);
	pthread_mutex_lock(&cuda.lock);
	h = host_of(at, 1);
	if (h && gpu->g->no_host_pointer)
		there = elsewhere(h, there);
	pthread_mutex_unlock(&cuda.lock);
	if (flags || !h)
		return CUDA_ERROR_INVALID_VALUE;
	*to = there;
	return 0;
}

API CUresult cuPointerGetAttribute(void *to, int which, CUdeviceptr at)
{
	struct cuda_gpu *of;
	bool known;

	ENTER(cuPointerGetAttribute);
	pthread_mutex_lock(&cuda.lock);
	known = cuda_at(at, 1);
	of = gpu_of(at);
	pthread_mutex_unlock(&cuda.lock);
	if (!known || (which != CU_POINTER_MEMORY_TYPE && which != CU_POINTER_DEVICE_ORDINAL))
		return CUDA_ERROR_INVALID_VALUE;
	if (which == CU_POINTER_MEMORY_TYPE)
		*(unsigned int *)to = of ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
	else
		*(int *)to = of ? (int)of->index : 0;
	return 0;
}

/* Copies. Plain host memory is taken as it is; all else must be somewhere when the copy runs. */

static uint32_t run_copy(struct task *t)
{
	void *to = (void *)(uintptr_t)t->to, *from = (void *)(uintptr_t)t->from;

	pthread_mutex_lock(&cuda.lock);
	if (!t->host_to)
		to = cuda_at(t->to, t->len);
	if (!t->host_from)
		from = cuda_at(t->from, t->len);
	pthread_mutex_unlock(&cuda.lock);
	if (!to || !from)
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	cuda.s->overlaps += cuda.s->running > 0;
	memmove(to, from, t->len);
	if (cuda.s->corrupt && !--cuda.s->corrupt)
		*(unsigned char *)to ^= 0xff;
	cuda.s->copies++;
	cuda.s->copied_bytes += t->len;
	return 0;
}

static uint32_t run_set8(struct task *t)
{
	unsigned char *to;

	pthread_mutex_lock(&cuda.lock);
	to = cuda_at(t->to, t->len);
	pthread_mutex_unlock(&cuda.lock);
	if (!to)
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	memset(to, (int)t->value, t->len);
	return 0;
}

static uint32_t run_set32(struct task *t)
{
	uint32_t *to;

	pthread_mutex_lock(&cuda.lock);
	to = cuda_at(t->to, t->len);
	pthread_mutex_unlock(&cuda.lock);
	if (!to)
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	for (size_t i = 0; i < t->len / 4; i++)
		to[i] = t->value;
	return 0;
}

/* Is what it names there now? And is it host memory where host memory is said? */
static bool good(const struct task *t)
{
	bool to, from;

	pthread_mutex_lock(&cuda.lock);
	to = t->host_to ? t->to && !gpu_of(t->to) : cuda_at(t->to, t->len) != NULL;
	from = t->run != run_copy ||
	       (t->host_from ? t->from && !gpu_of(t->from) : cuda_at(t->from, t->len) != NULL);
	pthread_mutex_unlock(&cuda.lock);
	return to && from;
}

static bool pageable(bool host, CUdeviceptr at, size_t len)
{
	return host && !host_of((void *)(uintptr_t)at, len);
}

static uint32_t post(struct cuda_gpu *gpu, CUstream s, const struct task *t)
{
	if (!t->len)
		return 0;
	if (!good(t))
		return CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	if (pageable(t->host_to, t->to, t->len) || pageable(t->host_from, t->from, t->len))
		cuda.s->pageable_copies++;
	pthread_mutex_unlock(&cuda.lock);
	return cuda_post(gpu, s, t);
}

/* On the legacy stream, and until it is done. */
static uint32_t post_wait(struct cuda_gpu *gpu, const struct task *t)
{
	uint32_t rc;

	if (!t->len)
		return 0;
	rc = good(t) ? cuda_post(gpu, NULL, t) : CUDA_ERROR_INVALID_VALUE;
	pthread_mutex_lock(&cuda.lock);
	if (!rc)
		rc = cuda_drain(gpu, gpu->stream[0]);
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

#define COPY(d, s, n, ...)                                                       \
	&(struct task)                                                           \
	{                                                                        \
		.run = run_copy, .to = (d), .from = (s), .len = (n), __VA_ARGS__ \
	}

API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t len)
{
	ENTER_GPU(cuMemcpyHtoD);
	return post_wait(gpu, COPY(to, (uintptr_t)from, len, .host_from = true));
}

API CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t len)
{
	ENTER_GPU(cuMemcpyDtoH);
	return post_wait(gpu, COPY((uintptr_t)to, from, len, .host_to = true));
}

API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t len)
{
	ENTER_GPU(cuMemcpyDtoD);
	return post_wait(gpu, COPY(to, from, len));
}

API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t len, CUstream s)
{
	ENTER_GPU(cuMemcpyHtoDAsync);
	return post(gpu, s, COPY(to, (uintptr_t)from, len, .host_from = true));
}

API CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t len, CUstream s)
{
	ENTER_GPU(cuMemcpyDtoHAsync);
	return post(gpu, s, COPY((uintptr_t)to, from, len, .host_to = true));
}

API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t len, CUstream s)
{
	ENTER_GPU(cuMemcpyDtoDAsync);
	return post(gpu, s, COPY(to, from, len));
}

API CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t len, CUstream s)
{
	bool host_to, host_from;

	ENTER_GPU(cuMemcpyAsync);
	pthread_mutex_lock(&cuda.lock);
	host_to = !gpu_of(to);
	host_from = !gpu_of(from);
	pthread_mutex_unlock(&cuda.lock);
	return post(gpu, s, COPY(to, from, len, .host_to = host_to, .host_from = host_from));
}

/* One kind of attributes follows the other, the first from the first copy on. */
static bool good_attributes(const CUmemcpyAttributes *attrs, const size_t *from, size_t nattrs,
			    size_t n)
{
	if (!attrs || !from || !nattrs || from[0])
		return false;
	for (size_t i = 0; i < nattrs; i++) {
		if (from[i] >= n || (i && from[i] <= from[i - 1]) || attrs[i].flags & ~1u ||
		    attrs[i].src_access_order < 1 || attrs[i].src_access_order > 3)
			return false;
	}
	return true;
}

API CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *to, CUdeviceptr *from, size_t *len, size_t n,
				   CUmemcpyAttributes *attrs, size_t *attrs_from, size_t nattrs,
				   CUstream s)
{
	uint32_t rc = 0;

	ENTER_GPU(cuMemcpyBatchAsync);
	if (!s || s == CU_STREAM_LEGACY)
		return CUDA_ERROR_INVALID_HANDLE;
	if (!n || !good_attributes(attrs, attrs_from, nattrs, n))
		return CUDA_ERROR_INVALID_VALUE;
	cuda.s->batches++;
	for (size_t i = n; !rc && i--;) {
		bool host_to, host_from;

		pthread_mutex_lock(&cuda.lock);
		host_to = !gpu_of(to[i]);
		host_from = !gpu_of(from[i]);
		pthread_mutex_unlock(&cuda.lock);
		rc = post(gpu, s,
			  COPY(to[i], from[i], len[i], .host_to = host_to, .host_from = host_from));
	}
	return rc;
}

/* A memfd with what is there now stands for the dma-buf. */
API CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr at, size_t len, int type,
					   unsigned long long flags)
{
	const char *from = NULL;
	struct block *b;
	int fd;

	ENTER_GPU(cuMemGetHandleForAddressRange);
	if (type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || !len || at % PAGE || len % PAGE)
		return CUDA_ERROR_INVALID_VALUE;
	if (gpu->g->no_dma_buf || flags)
		return CUDA_ERROR_NOT_SUPPORTED;
	pthread_mutex_lock(&cuda.lock);
	b = gpu_of(at) == gpu ? block_of(gpu, at, 1) : NULL;
	if (b && at - b->at + len <= b->len)
		from = gpu->alias + (at - (uintptr_t)gpu->base);
	pthread_mutex_unlock(&cuda.lock);
	if (!from)
		return CUDA_ERROR_INVALID_VALUE;
	fd = memfd_create("dma-buf", MFD_CLOEXEC);
	if (fd < 0 || write(fd, from, len) != (ssize_t)len) {
		if (fd >= 0)
			close(fd);
		return CUDA_ERROR_OPERATING_SYSTEM;
	}
	*(int *)handle = fd;
	return 0;
}

#define SET(fn, d, v, n)                                         \
	&(struct task)                                           \
	{                                                        \
		.run = (fn), .to = (d), .value = (v), .len = (n) \
	}

API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char v, size_t n)
{
	ENTER_GPU(cuMemsetD8);
	return post_wait(gpu, SET(run_set8, to, v, n));
}

API CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned int v, size_t n)
{
	ENTER_GPU(cuMemsetD32);
	return to % 4 ? CUDA_ERROR_INVALID_VALUE : post_wait(gpu, SET(run_set32, to, v, 4 * n));
}

API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char v, size_t n, CUstream s)
{
	ENTER_GPU(cuMemsetD8Async);
	return post(gpu, s, SET(run_set8, to, v, n));
}

API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned int v, size_t n, CUstream s)
{
	ENTER_GPU(cuMemsetD32Async);
	return to % 4 ? CUDA_ERROR_INVALID_VALUE : post(gpu, s, SET(run_set32, to, v, 4 * n));
}
