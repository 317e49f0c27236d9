/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/moe/worker_gpu.h"

#include "rdma/fail.h"

#include <errno.h>
#include <penstock/wire.h>
#include <stdlib.h>
#include <unistd.h>

struct reach {
	const void *at;
	unsigned int users;
	struct reach *next;
};

struct pst_worker_gpu {
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	struct pst_gpu_mlp *mlp;
	struct reach *reach;
};

int pst_worker_gpu_open(const char *device, uint32_t ms, struct pst_worker_gpu **out,
			struct pst_error *err)
{
	struct pst_gpu_options o = {.size = sizeof(o)};
	struct pst_worker_gpu *g = calloc(1, sizeof(*g));
	int ordinal, rc;

	if (!g)
		return pst_fail(err, -ENOMEM, "no memory for a worker");
	rc = pst_gpu_parse(device, &ordinal, &o.share, err);
	if (!rc)
		rc = pst_gpu_open(ordinal, &o, &g->gpu, err);
	if (!rc)
		rc = pst_gpu_kernels_open(g->gpu, NULL, &g->kernels, err);
	if (!rc)
		rc = pst_gpu_mlp_open(g->gpu, g->kernels, PST_EXPERTS_MAX, ms, &g->mlp, err);
	if (rc) {
		pst_worker_gpu_close(g);
		return rc;
	}
	*out = g;
	return 0;
}

void pst_worker_gpu_close(struct pst_worker_gpu *g)
{
	struct pst_error ignored;

	if (!g)
		return;
	pst_gpu_mlp_close(g->mlp);
	pst_gpu_kernels_close(g->kernels);
	if (g->gpu)
		pst_gpu_close(g->gpu, &ignored);
	free(g);
}

struct pst_gpu *pst_worker_gpu_device(const struct pst_worker_gpu *g)
{
	return g->gpu;
}

struct pst_gpu_mlp *pst_worker_gpu_mlp(const struct pst_worker_gpu *g)
{
	return g->mlp;
}

static struct reach **find(struct pst_worker_gpu *g, const void *at)
{
	struct reach **r = &g->reach;

	while (*r && (*r)->at != at)
		r = &(*r)->next;
	return r;
}

int pst_worker_gpu_reach(struct pst_worker_gpu *g, const void *at, uint64_t bytes, bool read_only,
			 struct pst_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct reach *r = *find(g, at);
	int rc;

	if (r) {
		r->users++;
		return 0;
	}
	r = malloc(sizeof(*r));
	if (!r)
		return pst_fail(err, -ENOMEM, "no memory to reach what a session has");
	rc = pst_gpu_register(g->gpu, (void *)(uintptr_t)at, (bytes + page - 1) / page * page,
			      read_only ? PST_GPU_HOST_READ_ONLY : 0, -1, err);
	if (rc) {
		free(r);
		return rc;
	}
	*r = (struct reach){at, 1, g->reach};
	g->reach = r;
	return 0;
}

void pst_worker_gpu_leave(struct pst_worker_gpu *g, const void *at)
{
	struct reach **link = find(g, at), *r = *link;
	struct pst_error ignored;

	if (!r || --r->users)
		return;
	pst_gpu_unregister(g->gpu, (void *)(uintptr_t)at, &ignored);
	*link = r->next;
	free(r);
}
