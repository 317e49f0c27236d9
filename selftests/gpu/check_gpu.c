/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/gpu/check_gpu.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define L2_CACHE_SIZE 38    /* CU_DEVICE_ATTRIBUTE_ */
#define PLAIN_SHARED  49152 /* what a launch gets unasked */

static int say(int rc, char *why, size_t len, const char *what, CUresult error)
{
	snprintf(why, len, "CUDA: %s: %s (%u: %s); nvidia-smi and dmesg | grep -i nvrm say more",
		 what, pst_cuda_error_name(error), error, pst_cuda_error_text(error));
	return rc;
}

static CUresult ask(struct check_gpu *g)
{
	const struct pst_cuda *cu = g->cu;
	int l2 = 0;
	CUresult rc = cu->cuDeviceGet(&g->dev, 0);

	if (!rc)
		rc = cu->cuDeviceGetName(g->name, sizeof(g->name), g->dev);
	if (!rc)
		rc = cu->cuDeviceGetAttribute(&g->major, CU_DEVICE_COMPUTE_CAPABILITY_MAJOR,
					      g->dev);
	if (!rc)
		rc = cu->cuDeviceGetAttribute(&g->minor, CU_DEVICE_COMPUTE_CAPABILITY_MINOR,
					      g->dev);
	if (!rc)
		rc = cu->cuDeviceGetAttribute(&g->sms, CU_DEVICE_MULTIPROCESSOR_COUNT, g->dev);
	if (!rc)
		rc = cu->cuDeviceGetAttribute(&l2, L2_CACHE_SIZE, g->dev);
	if (!rc)
		rc = cu->cuDeviceTotalMem(&g->memory, g->dev);
	g->l2 = (size_t)l2;
	return rc;
}

static CUresult load(struct check_gpu *g)
{
	CUresult rc = 0;

	for (int i = 0; i < PST_CUDA_IMAGE_COUNT && !rc; i++) {
		size_t bytes;
		const void *image = pst_cuda_image((enum pst_cuda_image)i, &bytes);

		rc = g->cu->cuLibraryLoadData(&g->library[i], image, NULL, NULL, 0, NULL, NULL, 0);
	}
	return rc;
}

static CUresult begin(struct check_gpu *g)
{
	CUresult rc = g->cu->cuDevicePrimaryCtxRetain(&g->ctx, g->dev);

	if (!rc)
		rc = g->cu->cuCtxSetCurrent(g->ctx);
	if (!rc)
		rc = g->cu->cuStreamCreate(&g->stream, CU_STREAM_NON_BLOCKING);
	return rc;
}

int check_gpu_open(struct check_gpu *g, char *why, size_t len)
{
	struct pst_cuda_outcome found;
	size_t bytes;
	CUresult rc;

	*g = (struct check_gpu){0};
	if (pst_cuda_open(&g->cu, &found)) {
		snprintf(why, len, "%s", found.text);
		return found.state == PST_CUDA_BROKEN ? -EIO : -ENODEV;
	}
	g->version = found.version;
	rc = ask(g);
	if (rc)
		return say(-EIO, why, len, "the GPU does not say what it is", rc);
	if (!pst_cuda_target(g->major, g->minor)) {
		snprintf(why, len,
			 "CUDA: %s has compute capability %d.%d, and there is code for 8.x, 9.0 "
			 "and 10.x only; CUDA_VISIBLE_DEVICES=N takes another GPU",
			 g->name, g->major, g->minor);
		return -ENODEV;
	}
	if (!pst_cuda_image((enum pst_cuda_image)0, &bytes)) {
		snprintf(why, len,
			 "this was built without nvcc, so there are no CUDA kernels; install the "
			 "CUDA toolkit, or name it: NVCC=.../bin/nvcc");
		return -ENODEV;
	}
	rc = begin(g);
	if (rc)
		return say(-EIO, why, len, "the GPU cannot be used", rc);
	rc = load(g);
	return rc ? say(-EIO, why, len, "the kernels' images cannot be loaded", rc) : 0;
}

static CUresult find(struct check_gpu *g, enum pst_cuda_kernel k)
{
	CUkernel kernel;
	CUresult rc;

	if (g->kernel[k].fn)
		return 0;
	rc = g->cu->cuLibraryGetKernel(&kernel, g->library[pst_cuda_kernel_image(k)],
				       pst_cuda_kernel_name(k));
	g->kernel[k].shared = PLAIN_SHARED;
	return rc ? rc : g->cu->cuKernelGetFunction(&g->kernel[k].fn, kernel);
}

CUresult check_gpu_launch(struct check_gpu *g, enum pst_cuda_kernel k,
			  const struct pst_cuda_launch *l, void *const *params)
{
	CUresult rc = find(g, k);

	if (!rc && l->shared > g->kernel[k].shared) {
		rc = g->cu->cuFuncSetAttribute(
			g->kernel[k].fn, CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)l->shared);
		g->kernel[k].shared = rc ? PLAIN_SHARED : l->shared;
	}
	if (rc)
		return rc;
	return g->cu->cuLaunchKernel(g->kernel[k].fn, l->grid[0], l->grid[1], l->grid[2], l->block,
				     1, 1, l->shared, g->stream, (void **)params, NULL);
}
