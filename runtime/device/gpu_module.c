/* SPDX-License-Identifier: Apache-2.0 */
/* Images, kernels and launches. */
#include "runtime/device/gpu_priv.h"

#include <stdlib.h>
#include <string.h>

#define FATBIN_MAGIC 0xba55ed50u
#define SHARED_PLAIN 49152 /* what a block has without asking */

struct pst_gpu_kernel {
	char name[64];
	struct pst_gpu *gpu;
	CUfunction fn;
	_Atomic uint64_t launches;
	struct pst_gpu_kernel *next;
};

struct pst_gpu_module {
	struct pst_gpu *gpu;
	CUmodule module;
	pthread_mutex_t lock;
	struct pst_gpu_kernel *kernels;
};

/* The driver is told no length, and would read beyond the end of what was cut short. */
static int check_whole(struct pst_gpu *gpu, const void *image, size_t bytes, struct pst_error *err)
{
	struct {
		uint32_t magic;
		uint16_t version, head;
		uint64_t bytes;
	} fatbin;

	if (bytes >= sizeof(fatbin)) {
		memcpy(&fatbin, image, sizeof(fatbin));
		if (fatbin.magic != FATBIN_MAGIC ||
		    (fatbin.head <= bytes && fatbin.bytes <= bytes - fatbin.head))
			return 0;
	}
	return pst_fail(err, -ENOEXEC,
			"cuda:%d: the image of %zu bytes is cut short: build it again",
			gpu->info.ordinal, bytes);
}

int pst_gpu_module_load(struct pst_gpu *gpu, const void *image, size_t bytes,
			struct pst_gpu_module **out, struct pst_error *err)
{
	struct pst_gpu_module *m;
	int rc = pst_gpu_enter(gpu, err);

	if (!rc)
		rc = check_whole(gpu, image, bytes, err);
	if (rc)
		return rc;
	m = calloc(1, sizeof(*m));
	if (!m)
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory for a module", gpu->info.ordinal);
	m->gpu = gpu;
	rc = pst_gpu_result(gpu, gpu->cu->cuModuleLoadData(&m->module, image), err,
			    "loading an image of %zu bytes for %s", bytes, gpu->info.target);
	if (rc) {
		free(m);
		return rc;
	}
	pthread_mutex_init(&m->lock, NULL);
	*out = m;
	return 0;
}

void pst_gpu_module_unload(struct pst_gpu_module *m)
{
	struct pst_gpu_kernel *k;

	if (!m)
		return;
	while ((k = m->kernels)) {
		m->kernels = k->next;
		pst_gpu_forget(m->gpu, k->name);
		free(k);
	}
	if (pst_gpu_enter_undo(m->gpu))
		m->gpu->cu->cuModuleUnload(m->module);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* On the device now, and not within the first launch, which would wait for all that runs. */
static int make_ready(struct pst_gpu *gpu, struct pst_gpu_kernel *k, uint32_t shared,
		      struct pst_error *err)
{
	int rc = 0;

	if (shared > gpu->info.shared)
		return pst_fail(err, -EINVAL,
				"cuda:%d: kernel %s wants %u bytes of shared memory, and a block "
				"has %u at the most",
				gpu->info.ordinal, k->name, shared, gpu->info.shared);
	if (shared > SHARED_PLAIN)
		rc = pst_gpu_result(
			gpu,
			gpu->cu->cuFuncSetAttribute(k->fn, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES,
						    (int)shared),
			err, "giving kernel %s %u bytes of shared memory", k->name, shared);
	if (!rc && gpu->cu->cuFuncLoad)
		rc = pst_gpu_result(gpu, gpu->cu->cuFuncLoad(k->fn), err, "loading kernel %s",
				    k->name);
	return rc;
}

static int no_kernel(struct pst_gpu *gpu, const char *name, struct pst_error *err)
{
	return pst_fail(err, -ENOENT,
			"cuda:%d: the image has no kernel %.64s: it is of another version than "
			"this program; build both again",
			gpu->info.ordinal, name);
}

int pst_gpu_kernel(struct pst_gpu_module *m, const char *name, uint32_t shared,
		   struct pst_gpu_kernel **out, struct pst_error *err)
{
	struct pst_gpu *gpu = m->gpu;
	struct pst_gpu_kernel *k;
	CUresult found;
	int rc = pst_gpu_enter(gpu, err);

	if (rc)
		return rc;
	k = calloc(1, sizeof(*k));
	if (!k)
		return pst_fail(err, -ENOMEM, "cuda:%d: no memory for a kernel", gpu->info.ordinal);
	k->gpu = gpu;
	snprintf(k->name, sizeof(k->name), "%s", name);
	found = gpu->cu->cuModuleGetFunction(&k->fn, m->module, name);
	rc = found == CUDA_ERROR_NOT_FOUND
		     ? no_kernel(gpu, name, err)
		     : pst_gpu_result(gpu, found, err, "finding kernel %s", k->name);
	if (!rc)
		rc = make_ready(gpu, k, shared, err);
	if (rc) {
		free(k);
		return rc;
	}
	pthread_mutex_lock(&m->lock);
	k->next = m->kernels;
	m->kernels = k;
	pthread_mutex_unlock(&m->lock);
	*out = k;
	return 0;
}

uint64_t pst_gpu_kernel_launches(const struct pst_gpu_kernel *kernel)
{
	return kernel->launches;
}

static CUresult launch_overlapped(struct pst_gpu *gpu, CUstream stream, CUfunction fn,
				  const struct pst_gpu_shape *s, void **params)
{
	CUlaunchAttribute attr = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
				  .value.allowed = 1};
	const CUlaunchConfig config = {
		.grid = {s->grid[0], s->grid[1], s->grid[2]},
		.block = {s->block[0], s->block[1], s->block[2]},
		.shared = s->shared,
		.stream = stream,
		.attrs = &attr,
		.nattrs = 1,
	};

	return gpu->cu->cuLaunchKernelEx(&config, fn, params, NULL);
}

static CUresult launch_plain(struct pst_gpu *gpu, CUstream stream, CUfunction fn,
			     const struct pst_gpu_shape *s, void **params)
{
	return gpu->cu->cuLaunchKernel(fn, s->grid[0], s->grid[1], s->grid[2], s->block[0],
				       s->block[1], s->block[2], s->shared, stream, params, NULL);
}

int pst_gpu_launch(struct pst_gpu *gpu, enum pst_gpu_stream stream, struct pst_gpu_kernel *kernel,
		   const struct pst_gpu_shape *shape, void **params, struct pst_error *err)
{
	/* devices before 9.0 do not have it */
	bool overlap = shape->overlap && gpu->cu->cuLaunchKernelEx && gpu->info.major >= 9;
	CUstream queue = gpu->queue[stream].stream;
	int rc = pst_gpu_enter(gpu, err);

	if (!rc)
		rc = pst_gpu_room(gpu, stream, err);
	if (rc)
		return rc;
	atomic_store(&gpu->last, kernel->name);
	rc = pst_gpu_result(gpu,
			    overlap ? launch_overlapped(gpu, queue, kernel->fn, shape, params)
				    : launch_plain(gpu, queue, kernel->fn, shape, params),
			    err, "launching kernel %s", kernel->name);
	if (rc)
		return rc;
	kernel->launches++;
	gpu->launches++;
	return 0;
}
