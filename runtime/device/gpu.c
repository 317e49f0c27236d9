/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a GPU, what it is, and what its errors mean. */
#include "runtime/device/gpu_priv.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define USUAL_CHUNK    (1ull << 30)
#define USUAL_PATIENCE 10000

static int code_of(CUresult rc)
{
	if (pst_cuda_error_stays(rc))
		return -EIO;
	switch (rc) {
	case CUDA_ERROR_INVALID_VALUE:
		return -EINVAL;
	case CUDA_ERROR_OUT_OF_MEMORY:
		return -ENOMEM;
	case CUDA_ERROR_INVALID_DEVICE:
		return -ENODEV;
	case CUDA_ERROR_INVALID_IMAGE:
	case CUDA_ERROR_NO_BINARY_FOR_GPU:
	case CUDA_ERROR_INVALID_PTX:
		return -ENOEXEC;
	case CUDA_ERROR_NOT_FOUND:
		return -ENOENT;
	case CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED:
		return -EEXIST;
	case CUDA_ERROR_NOT_PERMITTED:
		return -EPERM;
	case CUDA_ERROR_NOT_SUPPORTED:
		return -EOPNOTSUPP;
	default:
		return -EIO;
	}
}

static const char *remedy(CUresult rc)
{
	switch (rc) {
	case CUDA_ERROR_OUT_OF_MEMORY:
		return "end what else holds memory of it (nvidia-smi shows who), or ask for less";
	case CUDA_ERROR_INVALID_IMAGE:
		return "the image is no fatbin or is damaged: build it again";
	case CUDA_ERROR_NO_BINARY_FOR_GPU:
		return "the image was built for other GPUs: build it for this one";
	case CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES:
		return "the kernel needs more registers or shared memory than a block can have";
	default:
		return "nvidia-smi and dmesg | grep -i xid say more";
	}
}

const char *pst_gpu_last(struct pst_gpu *gpu, char *to, size_t len)
{
	const char *last;

	pthread_mutex_lock(&gpu->lock);
	last = atomic_load(&gpu->last);
	snprintf(to, len, "%s", last ? last : *gpu->last_name ? gpu->last_name : "no kernel");
	pthread_mutex_unlock(&gpu->lock);
	return to;
}

void pst_gpu_forget(struct pst_gpu *gpu, const char *name)
{
	const char *was = name;

	pthread_mutex_lock(&gpu->lock);
	if (atomic_compare_exchange_strong(&gpu->last, &was, NULL))
		snprintf(gpu->last_name, sizeof(gpu->last_name), "%s", name);
	pthread_mutex_unlock(&gpu->lock);
}

/* The first reason is the one that counts. */
static void die(struct pst_gpu *gpu, CUresult rc, const char *what)
{
	char last[64];

	pst_gpu_last(gpu, last, sizeof(last));
	pthread_mutex_lock(&gpu->lock);
	pst_fail(&gpu->why, -EIO,
		 "cuda:%d is dead for this process: %s: %s (%u: %s); %s was launched last; only a "
		 "new process can use the GPU again; dmesg | grep -i xid says more",
		 gpu->info.ordinal, what, pst_cuda_error_name(rc), rc, pst_cuda_error_text(rc),
		 last);
	pthread_mutex_unlock(&gpu->lock);
	atomic_store(&gpu->dead, true);
}

int pst_gpu_dead(struct pst_gpu *gpu, struct pst_error *err)
{
	int rc;

	if (!atomic_load(&gpu->dead))
		return 0;
	pthread_mutex_lock(&gpu->lock);
	rc = pst_fail(err, -EIO, "%s", gpu->why.text);
	pthread_mutex_unlock(&gpu->lock);
	return rc;
}

int pst_gpu_result(struct pst_gpu *gpu, CUresult rc, struct pst_error *err, const char *fmt, ...)
{
	char what[160];
	va_list ap;

	if (!rc)
		return 0;
	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	if (pst_cuda_error_stays(rc)) {
		die(gpu, rc, what);
		return pst_gpu_dead(gpu, err);
	}
	return pst_fail(err, code_of(rc), "cuda:%d: %s: %s (%u: %s); %s", gpu->info.ordinal, what,
			pst_cuda_error_name(rc), rc, pst_cuda_error_text(rc), remedy(rc));
}

int pst_gpu_enter(struct pst_gpu *gpu, struct pst_error *err)
{
	int rc = pst_gpu_dead(gpu, err);

	return rc ? rc
		  : pst_gpu_result(gpu, gpu->cu->cuCtxSetCurrent(gpu->ctx), err,
				   "making its context current");
}

bool pst_gpu_enter_undo(struct pst_gpu *gpu)
{
	if (atomic_load(&gpu->dead))
		return false;
	/* what does not help here does no harm */
	gpu->cu->cuCtxSetCurrent(gpu->ctx);
	return true;
}

int pst_gpu_parse(const char *device, int *ordinal, uint32_t *share, struct pst_error *err)
{
	char *end = NULL;
	long n = -1, k = 1;

	if (!strncmp(device, "cuda:", 5) && isdigit((unsigned char)device[5]))
		n = strtol(device + 5, &end, 10);
	if (n >= 0 && *end == '/' && isdigit((unsigned char)end[1]))
		k = strtol(end + 1, &end, 10);
	if (n < 0 || n > 1023 || k < 1 || k > 1024 || *end)
		return pst_fail(err, -EINVAL,
				"device '%.64s' is no GPU: cuda:N with N from nvidia-smi -L",
				device);
	*ordinal = (int)n;
	*share = (uint32_t)k;
	return 0;
}

static int read_node(const char *root, const char *pci)
{
	char path[512], lower[32];
	int node = -1;
	FILE *f;

	for (size_t i = 0; i < sizeof(lower); i++)
		lower[i] = (char)tolower((unsigned char)pci[i]);
	snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/numa_node", root, lower);
	f = fopen(path, "re");
	if (f && fscanf(f, "%d", &node) != 1)
		node = -1;
	if (f)
		fclose(f);
	return node;
}

static int ask(struct pst_gpu *gpu, int attribute, const char *what, int *to, struct pst_error *err)
{
	return pst_gpu_result(gpu, gpu->cu->cuDeviceGetAttribute(to, attribute, gpu->dev), err,
			      "asking for its %s", what);
}

/* What an old driver does not know is not there. */
static bool has(struct pst_gpu *gpu, int attribute)
{
	int value = 0;

	return !gpu->cu->cuDeviceGetAttribute(&value, attribute, gpu->dev) && value > 0;
}

static int find_device(struct pst_gpu *gpu, struct pst_error *err)
{
	int n, rc;

	rc = pst_gpu_result(gpu, gpu->cu->cuDeviceGetCount(&n), err, "counting GPUs");
	if (rc)
		return rc;
	if (gpu->info.ordinal < 0 || gpu->info.ordinal >= n)
		return pst_fail(err, -ENODEV,
				"cuda:%d: there is no such GPU: the driver shows %d, from cuda:0 "
				"(nvidia-smi -L lists them, CUDA_VISIBLE_DEVICES hides them)",
				gpu->info.ordinal, n);
	return pst_gpu_result(gpu, gpu->cu->cuDeviceGet(&gpu->dev, gpu->info.ordinal), err,
			      "opening it");
}

static int learn(struct pst_gpu *gpu, const char *root, struct pst_error *err)
{
	const struct pst_cuda *cu = gpu->cu;
	struct pst_gpu_info *info = &gpu->info;
	size_t memory = 0;
	int shared = 0, rc;

	rc = pst_gpu_result(gpu, cu->cuDeviceGetName(info->name, sizeof(info->name), gpu->dev), err,
			    "asking for its name");
	if (!rc)
		rc = pst_gpu_result(gpu, cu->cuDeviceTotalMem(&memory, gpu->dev), err,
				    "asking for its memory");
	if (!rc)
		rc = pst_gpu_result(gpu,
				    cu->cuDeviceGetPCIBusId(info->pci, sizeof(info->pci), gpu->dev),
				    err, "asking for its place on the PCI bus");
	if (!rc)
		rc = ask(gpu, CU_DEVICE_COMPUTE_CAPABILITY_MAJOR, "compute capability",
			 &info->major, err);
	if (!rc)
		rc = ask(gpu, CU_DEVICE_COMPUTE_CAPABILITY_MINOR, "compute capability",
			 &info->minor, err);
	if (!rc)
		rc = ask(gpu, CU_DEVICE_MULTIPROCESSOR_COUNT, "multiprocessors",
			 &info->multiprocessors, err);
	if (!rc)
		rc = ask(gpu, CU_DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, "shared memory", &shared,
			 err);
	info->memory = memory;
	info->shared = (uint32_t)shared;
	info->node = read_node(root, info->pci);
	gpu->same_address = has(gpu, CU_DEVICE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM);
	gpu->page_tables = has(gpu, CU_DEVICE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES);
	return rc;
}

static int choose_target(struct pst_gpu *gpu, struct pst_error *err)
{
	struct pst_gpu_info *info = &gpu->info;

	info->target = pst_cuda_target(info->major, info->minor);
	if (info->target)
		return 0;
	return pst_fail(err, -ENOEXEC,
			"cuda:%d: there are no kernels for %s, of compute capability %d.%d: they "
			"are built for 8.x (sm_80), 9.0 (sm_90a) and 10.x (sm_100f); use another "
			"GPU or --device cpu",
			info->ordinal, info->name, info->major, info->minor);
}

static int open_context(struct pst_gpu *gpu, const struct pst_gpu_options *o, struct pst_error *err)
{
	int rc = pst_gpu_result(gpu, gpu->cu->cuDevicePrimaryCtxRetain(&gpu->ctx, gpu->dev), err,
				"making its context");

	if (rc)
		return rc;
	rc = pst_gpu_enter(gpu, err);
	if (rc)
		goto release_context;
	rc = pst_gpu_streams_open(gpu, err);
	if (rc)
		goto release_context;
	rc = pst_gpu_arena_open(gpu, o->arena, o->share ? o->share : 1, err);
	if (rc)
		goto close_streams;
	return 0;

close_streams:
	pst_gpu_streams_close(gpu);
release_context:
	gpu->cu->cuDevicePrimaryCtxRelease(gpu->dev);
	return rc;
}

static int check_options(const struct pst_gpu_options *o, struct pst_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (o->size == sizeof(*o) && !(o->chunk % page))
		return 0;
	return pst_fail(err, -EINVAL,
			"GPU: options of another size, or a chunk of %llu bytes that is no "
			"multiple of the page size, %llu",
			(unsigned long long)o->chunk, (unsigned long long)page);
}

int pst_gpu_open(int ordinal, const struct pst_gpu_options *opts, struct pst_gpu **out,
		 struct pst_error *err)
{
	const struct pst_gpu_options none = {.size = sizeof(none)}, *o = opts ? opts : &none;
	struct pst_cuda_outcome outcome;
	const struct pst_cuda *cu;
	struct pst_gpu *gpu;
	int rc = check_options(o, err);

	if (rc)
		return rc;
	rc = pst_cuda_open(&cu, &outcome);
	if (rc)
		return pst_fail(err, rc, "%s", outcome.text);
	gpu = calloc(1, sizeof(*gpu));
	if (!gpu)
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory to open it with", ordinal);
	gpu->cu = cu;
	gpu->info.ordinal = ordinal;
	gpu->info.driver = outcome.version;
	gpu->chunk = o->chunk ? o->chunk : USUAL_CHUNK;
	gpu->patience_ms = o->patience_ms ? o->patience_ms : USUAL_PATIENCE;
	pthread_mutex_init(&gpu->lock, NULL);
	rc = find_device(gpu, err);
	if (!rc)
		rc = learn(gpu, o->root ? o->root : "", err);
	if (!rc)
		rc = choose_target(gpu, err);
	if (!rc)
		rc = open_context(gpu, o, err);
	if (rc) {
		pthread_mutex_destroy(&gpu->lock);
		free(gpu);
		return rc;
	}
	*out = gpu;
	return 0;
}

int pst_gpu_settle(struct pst_gpu *gpu, struct pst_error *err)
{
	int rc = pst_gpu_enter(gpu, err);

	for (int i = 0; !rc && i < PST_GPU_STREAMS; i++)
		rc = pst_gpu_wait(gpu, i, gpu->patience_ms, err);
	return rc;
}

int pst_gpu_close(struct pst_gpu *gpu, struct pst_error *err)
{
	bool stuck;
	int rc;

	if (!gpu)
		return 0;
	rc = pst_gpu_settle(gpu, err);
	stuck = rc == -ETIMEDOUT || atomic_load(&gpu->dead);
	pst_gpu_host_close(gpu, !stuck);
	if (!stuck) {
		CUresult released;

		pst_gpu_arena_close(gpu);
		pst_gpu_streams_close(gpu);
		released = gpu->cu->cuDevicePrimaryCtxRelease(gpu->dev);
		if (!rc)
			rc = pst_gpu_result(gpu, released, err, "releasing its context");
	} else {
		pst_heap_fini(&gpu->heap);
	}
	pthread_mutex_destroy(&gpu->lock);
	free(gpu);
	return rc;
}

void pst_gpu_info(const struct pst_gpu *gpu, struct pst_gpu_info *out)
{
	*out = gpu->info;
}

void pst_gpu_stat(struct pst_gpu *gpu, struct pst_gpu_stat *out)
{
	struct pst_heap_stat heap;

	pst_heap_stat(&gpu->heap, &heap);
	*out = (struct pst_gpu_stat){
		.used = heap.used * PST_GPU_GRANULE,
		.peak = heap.peak * PST_GPU_GRANULE,
		.largest = heap.largest * PST_GPU_GRANULE,
		.registered = gpu->registered,
		.register_ns = gpu->register_ns,
		.launches = gpu->launches,
		.graph_launches = gpu->graph_launches,
		.captures = gpu->captures,
		.copies = gpu->copies,
		.sent = gpu->sent,
		.calls = gpu->calls,
		.bytes_in = gpu->bytes_in,
		.bytes_out = gpu->bytes_out,
		.bytes_within = gpu->bytes_within,
		.dead = gpu->dead,
	};
	pthread_mutex_lock(&gpu->lock);
	snprintf(out->note, sizeof(out->note), "%s", gpu->note);
	pthread_mutex_unlock(&gpu->lock);
}
