/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory that the device reaches: registered in chunks, and known here by its ranges. */
#include "runtime/device/gpu_priv.h"
#include "runtime/mem/admit.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The range that has some of [@at, @at + @bytes), where to link one before it; under the lock. */
static struct pst_gpu_range *overlap(struct pst_gpu *gpu, uintptr_t at, uint64_t bytes,
				     struct pst_gpu_range ***link)
{
	struct pst_gpu_range **l = &gpu->ranges;

	while (*l && (*l)->at + (*l)->bytes <= at)
		l = &(*l)->next;
	*link = l;
	return *l && (*l)->at < at + bytes ? *l : NULL;
}

bool pst_gpu_host_find(struct pst_gpu *gpu, uint64_t at, uint64_t bytes, struct pst_gpu_range *out)
{
	struct pst_gpu_range **link, *r;

	pthread_mutex_lock(&gpu->lock);
	r = overlap(gpu, (uintptr_t)at, bytes ? bytes : 1, &link);
	if (r)
		*out = *r;
	pthread_mutex_unlock(&gpu->lock);
	return r && at >= out->at && at - out->at + bytes <= out->bytes;
}

static int no_memory(struct pst_gpu *gpu, CUresult rc, uint64_t bytes, struct pst_error *err)
{
	char size[32], limit_text[32], free_text[32];
	uint64_t limit;

	pst_admit_lock("", &limit);
	return pst_fail(err, -ENOMEM,
			"cuda:%d: %s of host memory cannot be pinned: %s (%u); %s are free, and "
			"the limit of locked memory is %s (ulimit -l unlimited, LimitMEMLOCK="
			"infinity in the unit, --ulimit memlock=-1 for a container)",
			gpu->info.ordinal, pst_admit_size(size, sizeof(size), bytes),
			pst_cuda_error_name(rc), rc,
			pst_admit_size(free_text, sizeof(free_text), pst_admit_memory("")),
			limit == PST_ADMIT_UNLIMITED
				? "none"
				: pst_admit_size(limit_text, sizeof(limit_text), limit));
}

static int refused(struct pst_gpu *gpu, CUresult rc, uint32_t flags, uint64_t bytes,
		   struct pst_error *err)
{
	int n = gpu->info.ordinal;

	switch (rc) {
	case CUDA_ERROR_OUT_OF_MEMORY:
	case CUDA_ERROR_OPERATING_SYSTEM:
		return no_memory(gpu, rc, bytes, err);
	case CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED:
		return pst_fail(err, -EEXIST,
				"cuda:%d: some of this host memory was registered by another "
				"library of this process; take it back there, or leave it to that",
				n);
	case CUDA_ERROR_NOT_PERMITTED:
		return pst_fail(err, -EPERM,
				"cuda:%d: this process may not pin this host memory: memory of a "
				"device or of a file may be refused; use that of a pool, or run "
				"with CAP_IPC_LOCK",
				n);
	case CUDA_ERROR_INVALID_VALUE:
		return pst_fail(err, -EINVAL,
				"cuda:%d: this host memory is not mapped, or only to be read%s", n,
				flags & PST_GPU_HOST_READ_ONLY
					? ""
					: ": map it writable, or register it as read-only");
	default:
		return pst_gpu_result(gpu, rc, err, "registering %llu bytes of host memory",
				      (unsigned long long)bytes);
	}
}

/* The first @bytes of what was registered from @at on; backwards, as it came. */
static void unpin(struct pst_gpu *gpu, uintptr_t at, uint64_t bytes)
{
	uint64_t chunks = (bytes + gpu->chunk - 1) / gpu->chunk;

	while (chunks--)
		gpu->cu->cuMemHostUnregister((void *)(at + chunks * gpu->chunk));
}

static int pin(struct pst_gpu *gpu, uintptr_t at, uint64_t bytes, uint32_t flags,
	       struct pst_error *err)
{
	unsigned int how = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
	uint64_t start = now_ns(), done, n;
	CUresult rc;

	if (flags & PST_GPU_HOST_READ_ONLY)
		how |= CU_MEMHOSTREGISTER_READ_ONLY;
	for (done = 0; done < bytes; done += n) {
		n = bytes - done < gpu->chunk ? bytes - done : gpu->chunk;
		rc = gpu->cu->cuMemHostRegister((void *)(at + done), n, how);
		if (rc) {
			unpin(gpu, at, done);
			return refused(gpu, rc, flags, n, err);
		}
	}
	gpu->registered += bytes;
	gpu->register_ns += now_ns() - start;
	return 0;
}

static int check(struct pst_gpu *gpu, uintptr_t at, uint64_t bytes, uint32_t flags,
		 struct pst_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int known = 0, n = gpu->info.ordinal;

	if (!at || at % page || !bytes || bytes % page || flags & ~PST_GPU_HOST_READ_ONLY)
		return pst_fail(err, -EINVAL,
				"cuda:%d: %llu bytes of host memory cannot be registered: begin "
				"and length must be multiples of the page size, %llu",
				n, (unsigned long long)bytes, (unsigned long long)page);
	if (!(flags & PST_GPU_HOST_READ_ONLY))
		return 0;
	if (gpu->cu->cuDeviceGetAttribute(&known, CU_DEVICE_READ_ONLY_HOST_REGISTER_SUPPORTED,
					  gpu->dev) ||
	    !known)
		return pst_fail(err, -EOPNOTSUPP,
				"cuda:%d: the device cannot take host memory that may only be "
				"read; map it writable",
				n);
	return 0;
}

/* Once: memory of another node costs, and nobody would see why. */
static void say_far(struct pst_gpu *gpu, int node)
{
	int near = gpu->info.node;

	if (node < 0 || near < 0 || node == near)
		return;
	pthread_mutex_lock(&gpu->lock);
	if (!*gpu->note)
		snprintf(
			gpu->note, sizeof(gpu->note),
			"cuda:%d is at NUMA node %d and its host memory on node %d: each copy goes "
			"through both; run it at the GPU's (numactl --cpunodebind=%d --membind=%d)",
			gpu->info.ordinal, near, node, near, near);
	pthread_mutex_unlock(&gpu->lock);
}

/* A place in the list, taken before the driver is asked: who else wants it sees it. */
static int take_place(struct pst_gpu *gpu, struct pst_gpu_range *r, struct pst_error *err)
{
	struct pst_gpu_range **link;
	int rc = 0;

	pthread_mutex_lock(&gpu->lock);
	if (overlap(gpu, r->at, r->bytes, &link)) {
		rc = -EEXIST;
	} else {
		r->next = *link;
		*link = r;
	}
	pthread_mutex_unlock(&gpu->lock);
	if (rc)
		pst_fail(err, rc,
			 "cuda:%d: some of this host memory is registered already; register a pool "
			 "once",
			 gpu->info.ordinal);
	return rc;
}

static struct pst_gpu_range *leave_place(struct pst_gpu *gpu, uintptr_t at)
{
	struct pst_gpu_range **l = &gpu->ranges, *r;

	pthread_mutex_lock(&gpu->lock);
	while (*l && (*l)->at != at)
		l = &(*l)->next;
	r = *l;
	if (r)
		*l = r->next;
	pthread_mutex_unlock(&gpu->lock);
	return r;
}

int pst_gpu_register(struct pst_gpu *gpu, void *at, uint64_t bytes, uint32_t flags, int node,
		     struct pst_error *err)
{
	struct pst_gpu_range *r;
	int rc = pst_gpu_enter(gpu, err);

	if (!rc)
		rc = check(gpu, (uintptr_t)at, bytes, flags, err);
	if (rc)
		return rc;
	r = malloc(sizeof(*r));
	if (!r)
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory to know a range by",
				gpu->info.ordinal);
	*r = (struct pst_gpu_range){
		.at = (uintptr_t)at, .bytes = bytes, .read_only = flags & PST_GPU_HOST_READ_ONLY};
	rc = take_place(gpu, r, err);
	if (rc)
		goto free_range;
	rc = pin(gpu, r->at, bytes, flags, err);
	if (rc)
		goto leave_place;
	say_far(gpu, node);
	return 0;

leave_place:
	leave_place(gpu, r->at);
free_range:
	free(r);
	return rc;
}

int pst_gpu_unregister(struct pst_gpu *gpu, void *at, struct pst_error *err)
{
	struct pst_gpu_range *r;
	struct pst_error late = {0};
	int rc = pst_gpu_settle(gpu, &late);

	if (rc && !atomic_load(&gpu->dead))
		return pst_fail(err, rc, "%s", late.text);
	r = leave_place(gpu, (uintptr_t)at);
	if (!r)
		return pst_fail(err, -ENOENT, "cuda:%d: no host memory was registered at %p",
				gpu->info.ordinal, at);
	/* a dead gpu has let go of everything */
	if (pst_gpu_enter_undo(gpu))
		unpin(gpu, r->at, r->bytes);
	gpu->registered -= r->bytes;
	free(r);
	return 0;
}

void pst_gpu_host_close(struct pst_gpu *gpu, bool driver)
{
	struct pst_gpu_range *r;

	while ((r = gpu->ranges)) {
		gpu->ranges = r->next;
		if (driver)
			unpin(gpu, r->at, r->bytes);
		free(r);
	}
}

int pst_gpu_host_address(struct pst_gpu *gpu, const void *at, uint64_t *out, struct pst_error *err)
{
	struct pst_gpu_range r;
	CUdeviceptr dev;
	uint64_t into;
	int rc = pst_gpu_enter(gpu, err);

	if (rc)
		return rc;
	if (!pst_gpu_host_find(gpu, (uintptr_t)at, 1, &r))
		return pst_fail(err, -EFAULT,
				"cuda:%d: the host memory at %p is not registered: register its "
				"pool",
				gpu->info.ordinal, at);
	if (gpu->same_address) {
		*out = (uintptr_t)at;
		return 0;
	}
	into = ((uintptr_t)at - r.at) % gpu->chunk;
	rc = pst_gpu_result(
		gpu, gpu->cu->cuMemHostGetDevicePointer(&dev, (void *)((uintptr_t)at - into), 0),
		err, "asking where it sees host memory");
	if (!rc)
		*out = dev + into;
	return rc;
}
