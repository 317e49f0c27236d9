/* SPDX-License-Identifier: Apache-2.0 */
/* libcuda.so.1 of the stand-in: devices, contexts, errors, and who finds functions. */
#include "selftests/gpu/libcuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXTS 16

struct cuda cuda = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* The contexts of this thread, the current one last. */
static _Thread_local CUcontext stack[CONTEXTS];
static _Thread_local int depth;

uint32_t cuda_enter(enum standin_call fn)
{
	return cuda.s ? standin_enter(cuda.s, fn) : CUDA_ERROR_NOT_INITIALIZED;
}

uint32_t cuda_enter_gpu(enum standin_call fn, struct cuda_gpu **gpu)
{
	uint32_t rc = cuda_enter(fn);

	if (rc)
		return rc;
	*gpu = depth ? stack[depth - 1] : NULL;
	if (!*gpu)
		return CUDA_ERROR_INVALID_CONTEXT;
	pthread_mutex_lock(&cuda.lock);
	if (!(*gpu)->retained)
		rc = CUDA_ERROR_INVALID_CONTEXT;
	else if ((*gpu)->g->lost)
		(*gpu)->sticky = CUDA_ERROR_DEVICE_UNAVAILABLE;
	if (!rc)
		rc = (*gpu)->sticky;
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuInit(unsigned int flags)
{
	struct standin *s = standin_find();
	uint32_t rc;

	if (!s)
		return CUDA_ERROR_NO_DEVICE;
	rc = standin_enter(s, STANDIN_cuInit);
	if (rc || flags)
		return rc ? rc : CUDA_ERROR_INVALID_VALUE;
	if (!s->ngpus)
		return CUDA_ERROR_NO_DEVICE;
	pthread_mutex_lock(&cuda.lock);
	for (uint32_t i = 0; !cuda.s && i < STANDIN_GPUS; i++) {
		cuda.gpu[i].index = i;
		cuda.gpu[i].g = &s->gpu[i];
		TAILQ_INIT(&cuda.gpu[i].blocks);
	}
	cuda.s = s;
	pthread_mutex_unlock(&cuda.lock);
	return 0;
}

API CUresult cuDriverGetVersion(int *to)
{
	struct standin *s = standin_find();

	*to = s ? (int)s->cuda_version : 13000;
	return 0;
}

struct error {
	CUresult rc;
	const char *name, *text;
};

static const struct error *find_error(CUresult rc)
{
#define ROW(name, number, text) {number, #name, text},
	static const struct error errors[] = {PST_CUDA_ERRORS(ROW)};
#undef ROW

	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++)
		if (errors[i].rc == rc)
			return &errors[i];
	return NULL;
}

API CUresult cuGetErrorName(CUresult rc, const char **to)
{
	const struct error *e = find_error(rc);

	*to = e ? e->name : NULL;
	return e ? 0 : CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuGetErrorString(CUresult rc, const char **to)
{
	const struct error *e = find_error(rc);

	*to = e ? e->text : NULL;
	return e ? 0 : CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuGetProcAddress_v2(const char *name, void **to, int version, uint64_t flags,
				 int *status)
{
	static const struct {
		const char *name;
		int id, since;
		void *fn;
	} calls[] = {
#define ROW(call, symbol, version, args) {#call, STANDIN_##call, version, (void *)symbol},
		PST_CUDA_CALLS(ROW, ROW)
#undef ROW
	};
	struct standin *s = standin_find();
	int here = s ? (int)s->cuda_version : 13000;

	(void)flags;
	*to = NULL;
	for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if (!strcmp(calls[i].name, name) && calls[i].since <= version &&
		    calls[i].since <= here && !(s && s->fn[calls[i].id].absent))
			*to = calls[i].fn;
	if (status)
		*status = !*to;
	return *to ? 0 : CUDA_ERROR_NOT_FOUND;
}

/* Devices. */

static struct cuda_gpu *device(CUdevice dev)
{
	return dev >= 0 && (uint32_t)dev < cuda.s->ngpus ? &cuda.gpu[dev] : NULL;
}

#define ENTER_DEVICE(fn)      \
	struct cuda_gpu *gpu; \
	ENTER(fn);            \
	gpu = device(dev);    \
	if (!gpu)             \
	return CUDA_ERROR_INVALID_DEVICE

API CUresult cuDeviceGet(CUdevice *to, int index)
{
	ENTER(cuDeviceGet);
	if (!device(index))
		return CUDA_ERROR_INVALID_DEVICE;
	*to = index;
	return 0;
}

API CUresult cuDeviceGetCount(int *to)
{
	ENTER(cuDeviceGetCount);
	*to = (int)cuda.s->ngpus;
	return 0;
}

API CUresult cuDeviceGetName(char *to, int len, CUdevice dev)
{
	ENTER_DEVICE(cuDeviceGetName);
	snprintf(to, (size_t)len, "%s", gpu->g->name);
	return 0;
}

/* "GPU-57a2d111-..." to its 16 bytes. */
API CUresult cuDeviceGetUuid_v2(CUuuid *to, CUdevice dev)
{
	const char *at;

	ENTER_DEVICE(cuDeviceGetUuid);
	at = gpu->g->uuid + 4;
	for (int i = 0; i < 16; i++, at += 2) {
		unsigned int byte = 0;

		at += *at == '-';
		sscanf(at, "%2x", &byte);
		to->bytes[i] = (char)byte;
	}
	return 0;
}

API CUresult cuDeviceTotalMem_v2(size_t *to, CUdevice dev)
{
	ENTER_DEVICE(cuDeviceTotalMem);
	*to = gpu->g->memory_bytes;
	return 0;
}

static int pci_part(const struct cuda_gpu *gpu, int which)
{
	unsigned int part[3] = {0};

	sscanf(gpu->g->pci, "%x:%x:%x", &part[0], &part[1], &part[2]);
	return (int)part[which];
}

/* By number of CUdevice_attribute; those of no use to us are not there. */
static bool attribute(const struct cuda_gpu *gpu, int which, int *to)
{
	static const int fixed[][2] = {
		{1, 1024},	/* MAX_THREADS_PER_BLOCK */
		{8, 49152},	/* MAX_SHARED_MEMORY_PER_BLOCK */
		{10, 32},	/* WARP_SIZE */
		{12, 65536},	/* MAX_REGISTERS_PER_BLOCK */
		{18, 0},	/* INTEGRATED */
		{19, 1},	/* CAN_MAP_HOST_MEMORY */
		{31, 1},	/* CONCURRENT_KERNELS */
		{32, 1},	/* ECC_ENABLED */
		{37, 6144},	/* GLOBAL_MEMORY_BUS_WIDTH */
		{38, 62914560}, /* L2_CACHE_SIZE */
		{39, 2048},	/* MAX_THREADS_PER_MULTIPROCESSOR */
		{40, 3},	/* ASYNC_ENGINE_COUNT */
		{41, 1},	/* UNIFIED_ADDRESSING */
		{81, 233472},	/* MAX_SHARED_MEMORY_PER_MULTIPROCESSOR */
		{83, 0},	/* MANAGED_MEMORY */
		{97, 232448},	/* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
		{99, 1},	/* HOST_REGISTER_SUPPORTED */
		{115, 0},	/* MEMORY_POOLS_SUPPORTED */
		{116, 0},	/* GPU_DIRECT_RDMA_SUPPORTED */
		{134, 0},	/* HOST_NUMA_ID */
	};
	const int asked[][2] = {
		{13, (int)gpu->g->clock_max_mhz * 1000},    /* CLOCK_RATE */
		{16, (int)gpu->g->sms},			    /* MULTIPROCESSOR_COUNT */
		{33, pci_part(gpu, 1)},			    /* PCI_BUS_ID */
		{34, pci_part(gpu, 2)},			    /* PCI_DEVICE_ID */
		{36, (int)gpu->g->memory_clock_mhz * 1000}, /* MEMORY_CLOCK_RATE */
		{50, pci_part(gpu, 0)},			    /* PCI_DOMAIN_ID */
		{75, (int)gpu->g->major},		    /* COMPUTE_CAPABILITY_MAJOR */
		{76, (int)gpu->g->minor},		    /* COMPUTE_CAPABILITY_MINOR */
		{91, !gpu->g->no_host_pointer}, /* CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM */
		{100, (int)gpu->g->coherent},	/* PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES */
		{113, !gpu->g->no_read_only},	/* READ_ONLY_HOST_REGISTER_SUPPORTED */
		{124, !gpu->g->no_dma_buf},	/* DMA_BUF_SUPPORTED */
	};

	for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++)
		if (fixed[i][0] == which)
			return *to = fixed[i][1], true;
	for (size_t i = 0; i < sizeof(asked) / sizeof(*asked); i++)
		if (asked[i][0] == which)
			return *to = asked[i][1], true;
	return false;
}

API CUresult cuDeviceGetAttribute(int *to, int which, CUdevice dev)
{
	ENTER_DEVICE(cuDeviceGetAttribute);
	return attribute(gpu, which, to) ? 0 : CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuDeviceGetPCIBusId(char *to, int len, CUdevice dev)
{
	ENTER_DEVICE(cuDeviceGetPCIBusId);
	snprintf(to, (size_t)len, "%04X:%02X:%02X.0", (unsigned int)pci_part(gpu, 0),
		 (unsigned int)pci_part(gpu, 1), (unsigned int)pci_part(gpu, 2));
	return 0;
}

API CUresult cuDeviceGetByPCIBusId(CUdevice *to, const char *pci)
{
	unsigned int domain, bus, slot;

	ENTER(cuDeviceGetByPCIBusId);
	if (sscanf(pci, "%x:%x:%x", &domain, &bus, &slot) != 3)
		return CUDA_ERROR_INVALID_VALUE;
	for (uint32_t i = 0; i < cuda.s->ngpus; i++) {
		if (pci_part(&cuda.gpu[i], 0) != (int)domain ||
		    pci_part(&cuda.gpu[i], 1) != (int)bus || pci_part(&cuda.gpu[i], 2) != (int)slot)
			continue;
		*to = (CUdevice)i;
		return 0;
	}
	return CUDA_ERROR_INVALID_DEVICE;
}

/* Contexts: each device has its primary one. */

API CUresult cuDevicePrimaryCtxRetain(CUcontext *to, CUdevice dev)
{
	uint32_t rc = 0;

	ENTER_DEVICE(cuDevicePrimaryCtxRetain);
	pthread_mutex_lock(&cuda.lock);
	if (gpu->g->lost)
		gpu->sticky = CUDA_ERROR_DEVICE_UNAVAILABLE;
	rc = gpu->sticky;
	if (!rc && !gpu->base && (cuda_memory_open(gpu) || cuda_streams_open(gpu)))
		rc = CUDA_ERROR_OUT_OF_MEMORY;
	if (!rc) {
		gpu->retained++;
		cuda.s->contexts++;
		*to = gpu;
	}
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
	uint32_t rc = 0;

	ENTER_DEVICE(cuDevicePrimaryCtxRelease);
	pthread_mutex_lock(&cuda.lock);
	if (!gpu->retained)
		rc = CUDA_ERROR_INVALID_CONTEXT;
	else if (!--gpu->retained)
		cuda_drain_all(gpu);
	if (!rc)
		cuda.s->contexts--;
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}

API CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
	ENTER_DEVICE(cuDevicePrimaryCtxGetState);
	pthread_mutex_lock(&cuda.lock);
	*flags = 0;
	*active = gpu->retained != 0;
	pthread_mutex_unlock(&cuda.lock);
	return 0;
}

API CUresult cuCtxSetCurrent(CUcontext ctx)
{
	ENTER(cuCtxSetCurrent);
	if (!depth)
		depth = 1;
	stack[depth - 1] = ctx;
	return 0;
}

API CUresult cuCtxGetCurrent(CUcontext *to)
{
	ENTER(cuCtxGetCurrent);
	*to = depth ? stack[depth - 1] : NULL;
	return 0;
}

API CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
	ENTER(cuCtxPushCurrent);
	if (!ctx || depth == CONTEXTS)
		return CUDA_ERROR_INVALID_CONTEXT;
	stack[depth++] = ctx;
	return 0;
}

API CUresult cuCtxPopCurrent_v2(CUcontext *to)
{
	ENTER(cuCtxPopCurrent);
	if (!depth)
		return CUDA_ERROR_INVALID_CONTEXT;
	depth--;
	if (to)
		*to = stack[depth];
	return 0;
}

API CUresult cuCtxGetDevice(CUdevice *to)
{
	ENTER_GPU(cuCtxGetDevice);
	*to = (CUdevice)gpu->index;
	return 0;
}

API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
	ENTER_GPU(cuCtxGetStreamPriorityRange);
	(void)gpu;
	*least = 0;
	*greatest = -5;
	return 0;
}

API CUresult cuCtxSynchronize(void)
{
	uint32_t rc;

	ENTER_GPU(cuCtxSynchronize);
	pthread_mutex_lock(&cuda.lock);
	rc = cuda_drain_all(gpu);
	pthread_mutex_unlock(&cuda.lock);
	return rc;
}
