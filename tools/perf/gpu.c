/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/perf/gpu.h"

#include "rdma/fail.h"
#include "rdma/pause.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define USUAL_WAIT_MS 10000

static const char *remedy(CUresult rc)
{
	switch (rc) {
	case CUDA_ERROR_OUT_OF_MEMORY:
		return "end what else holds its memory (nvidia-smi shows who), or choose a smaller "
		       "--size or --tx-depth; for host memory: ulimit -l unlimited";
	case CUDA_ERROR_NO_BINARY_FOR_GPU:
	case CUDA_ERROR_INVALID_IMAGE:
		return "the image is not for this GPU: kernels/cuda/nvcc.sh builds one";
	case CUDA_ERROR_NOT_FOUND:
		return "the image is of another version: kernels/cuda/nvcc.sh builds it again";
	default:
		return "nvidia-smi and dmesg | grep -i xid say more";
	}
}

int perf_gpu_result(struct perf_gpu *g, CUresult rc, const char *what, struct pst_error *err)
{
	if (!rc)
		return 0;
	/* what is under way may still touch its memory */
	g->stuck = g->stuck || pst_cuda_error_stays(rc);
	return pst_fail(err, -EIO, "cuda:%d: %s: %s (%u: %s); %s", g->ordinal, what,
			pst_cuda_error_name(rc), rc, pst_cuda_error_text(rc), remedy(rc));
}

int perf_gpu_late(struct perf_gpu *g, const char *what, struct pst_error *err)
{
	g->stuck = true;
	return pst_fail(err, -ETIMEDOUT,
			"cuda:%d: %s for %llu ms; if that is how long it takes, --timeout says so, "
			"else nvidia-smi and dmesg | grep -i xid say more",
			g->ordinal, what, (unsigned long long)g->wait_ms);
}

static int wait_for(struct perf_gpu *g, CUresult (*query)(void *), void *which,
		    struct pst_error *err)
{
	uint64_t until = perf_now_ns() + g->wait_ms * 1000000;
	CUresult rc;

	while ((rc = query(which)) == CUDA_ERROR_NOT_READY) {
		if (perf_now_ns() > until)
			return perf_gpu_late(g, "it did not get done with its work", err);
		pst_pause();
	}
	return perf_gpu_result(g, rc, "waiting for its work", err);
}

int perf_gpu_wait(struct perf_gpu *g, CUstream stream, struct pst_error *err)
{
	return wait_for(g, (CUresult(*)(void *))g->cu->cuStreamQuery, stream, err);
}

int perf_gpu_wait_event(struct perf_gpu *g, CUevent event, struct pst_error *err)
{
	return wait_for(g, (CUresult(*)(void *))g->cu->cuEventQuery, event, err);
}

static int read_node(const char *pci)
{
	char path[96], lower[32];
	int node = -1;
	FILE *f;

	for (size_t i = 0; i < sizeof(lower); i++)
		lower[i] = (char)tolower((unsigned char)pci[i]);
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.31s/numa_node", lower);
	f = fopen(path, "re");
	if (f && fscanf(f, "%d", &node) != 1)
		node = -1;
	if (f)
		fclose(f);
	return node;
}

static int find_device(struct perf_gpu *g, struct pst_error *err)
{
	const struct pst_cuda *cu = g->cu;
	int n = 0, rc = perf_gpu_result(g, cu->cuDeviceGetCount(&n), "counting GPUs", err);

	if (!rc && g->ordinal >= n)
		rc = pst_fail(err, -ENODEV,
			      "cuda:%d: the driver shows %d GPUs, from cuda:0; nvidia-smi -L lists "
			      "them, CUDA_VISIBLE_DEVICES hides them",
			      g->ordinal, n);
	if (!rc)
		rc = perf_gpu_result(g, cu->cuDeviceGet(&g->dev, g->ordinal), "opening it", err);
	if (!rc)
		rc = perf_gpu_result(g, cu->cuDeviceGetName(g->name, sizeof(g->name), g->dev),
				     "asking for its name", err);
	if (!rc)
		rc = perf_gpu_result(g, cu->cuDeviceGetPCIBusId(g->pci, sizeof(g->pci), g->dev),
				     "asking for its place on the PCI bus", err);
	g->node = rc ? -1 : read_node(g->pci);
	return rc;
}

static int make_streams(struct perf_gpu *g, struct pst_error *err)
{
	int rc = 0;

	for (int i = 0; !rc && i < PERF_GPU_STREAMS; i++)
		rc = perf_gpu_result(g,
				     g->cu->cuStreamCreate(&g->stream[i], CU_STREAM_NON_BLOCKING),
				     "making a stream", err);
	return rc;
}

int perf_gpu_open(const struct perf_plan *plan, struct perf_gpu *g, struct pst_error *err)
{
	struct pst_cuda_outcome found;
	int rc;

	*g = (struct perf_gpu){.ordinal = plan->ordinal, .node = -1};
	g->wait_ms = plan->timeout_ms ? plan->timeout_ms : USUAL_WAIT_MS;
	rc = pst_cuda_open(&g->cu, &found);
	if (rc)
		return pst_fail(err, rc, "%s", found.text);
	g->driver = found.version;
	rc = find_device(g, err);
	if (!rc)
		rc = perf_gpu_result(g, g->cu->cuDevicePrimaryCtxRetain(&g->ctx, g->dev),
				     "making its context", err);
	if (!rc)
		rc = perf_gpu_result(g, g->cu->cuCtxSetCurrent(g->ctx),
				     "making its context current", err);
	if (!rc)
		rc = make_streams(g, err);
	if (rc)
		perf_gpu_close(g);
	return rc;
}

int perf_gpu_memory(struct perf_gpu *g, uint64_t len, uint64_t page, uint64_t device,
		    struct pst_error *err)
{
	int rc = perf_memory_map(len, page, &g->host, err);

	if (!rc)
		rc = perf_gpu_result(g,
				     g->cu->cuMemHostRegister(g->host.at, g->host.maplen,
							      CU_MEMHOSTREGISTER_PORTABLE |
								      CU_MEMHOSTREGISTER_DEVICEMAP),
				     "pinning host memory", err);
	g->pinned = !rc;
	if (!rc && device)
		rc = perf_gpu_result(g, g->cu->cuMemAlloc(&g->memory, device),
				     "taking device memory", err);
	return rc;
}

/* What does not end is left to the end of this process, which is near. */
void perf_gpu_close(struct perf_gpu *g)
{
	if (!g->stuck && g->ctx) {
		if (g->module)
			g->cu->cuModuleUnload(g->module);
		if (g->memory)
			g->cu->cuMemFree(g->memory);
		if (g->pinned)
			g->cu->cuMemHostUnregister(g->host.at);
		for (int i = 0; i < PERF_GPU_STREAMS; i++)
			if (g->stream[i])
				g->cu->cuStreamDestroy(g->stream[i]);
		g->cu->cuDevicePrimaryCtxRelease(g->dev);
	}
	if (!g->stuck)
		perf_memory_free(&g->host);
	*g = (struct perf_gpu){0};
}
