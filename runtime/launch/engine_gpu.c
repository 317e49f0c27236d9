/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/engine_gpu.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MS 60000 /* for what is computed between two looks at it */

struct reached {
	void *at;
	struct reached *next;
};

struct pst_engine_gpu {
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	struct pst_compute *compute;
	struct reached *reached;
};

/* Registered memory goes with its GPU. */
static int close_parts(struct pst_engine_gpu *g)
{
	struct pst_error ignored = {0};
	int rc;

	pst_compute_gpu_close(g->compute);
	pst_gpu_kernels_close(g->kernels);
	rc = pst_gpu_close(g->gpu, &ignored);
	free(g);
	return rc;
}

int pst_engine_gpu_open(const char *device, struct pst_engine_gpu **out, struct pst_error *err)
{
	struct pst_gpu_options o = {.size = sizeof(o)};
	struct pst_engine_gpu *g;
	int ordinal, rc;

	if (!*device) {
		*out = NULL;
		return 0;
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return pst_fail(err, -ENOMEM, "no memory for an engine on a GPU");
	rc = pst_gpu_parse(device, &ordinal, &o.share, err);
	if (!rc)
		rc = pst_gpu_open(ordinal, &o, &g->gpu, err);
	if (!rc)
		rc = pst_gpu_kernels_open(g->gpu, NULL, &g->kernels, err);
	if (!rc)
		rc = pst_compute_gpu_open(g->gpu, g->kernels, TIMEOUT_MS, &g->compute, err);
	if (rc) {
		close_parts(g);
		return rc;
	}
	*out = g;
	return 0;
}

/* What a GPU that failed may still touch. */
struct left {
	struct pst_pool *pool;
	struct pst_client *client;
	struct pst_fabric *fabric;
	struct left *next;
};

static _Atomic(struct left *) left_behind;

static void leave(struct pst_pool **pool, struct pst_client **client, struct pst_fabric **fabric)
{
	struct left *l = malloc(sizeof(*l));

	if (l) {
		*l = (struct left){*pool, *client, *fabric, atomic_load(&left_behind)};
		while (!atomic_compare_exchange_weak(&left_behind, &l->next, l))
			;
	}
	*pool = NULL;
	*client = NULL;
	*fabric = NULL;
}

void pst_engine_gpu_close(struct pst_engine_gpu *g, struct pst_pool **pool,
			  struct pst_client **client, struct pst_fabric **fabric)
{
	struct reached *r;

	if (!g)
		return;
	while ((r = g->reached)) {
		g->reached = r->next;
		free(r);
	}
	if (close_parts(g))
		leave(pool, client, fabric);
}

struct pst_compute *pst_engine_gpu_compute(const struct pst_engine_gpu *g)
{
	return g ? g->compute : NULL;
}

void pst_engine_gpu_note(const struct pst_engine_gpu *g, char note[256])
{
	struct pst_gpu_stat s = {0};

	if (g)
		pst_gpu_stat(g->gpu, &s);
	memcpy(note, s.note, sizeof(s.note));
}

static int reach(struct pst_engine_gpu *g, const void *memory, uint64_t bytes, uint32_t flags,
		 struct pst_error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	void *at = (void *)(uintptr_t)memory;
	struct reached *r = g->reached;
	int rc;

	while (r && r->at != at)
		r = r->next;
	if (r || !at)
		return 0;
	r = malloc(sizeof(*r));
	if (!r)
		return pst_fail(err, -ENOMEM, "no memory to reach an engine's weights");
	rc = pst_gpu_register(g->gpu, at, (bytes + page - 1) / page * page, flags, -1, err);
	if (rc) {
		free(r);
		return rc;
	}
	*r = (struct reached){at, g->reached};
	g->reached = r;
	return 0;
}

int pst_engine_gpu_reach_pool(struct pst_engine_gpu *g, const struct pst_pool *pool,
			      struct pst_error *err)
{
	if (!g || !pool)
		return 0;
	return reach(g, pst_pool_base(pool), pst_pool_bytes(pool), 0, err);
}

int pst_engine_gpu_reach(struct pst_engine_gpu *g, const struct pst_client *c,
			 struct pst_error *err)
{
	const void *at;
	uint64_t bytes;
	bool read_only;
	int rc = 0;

	if (!g)
		return 0;
	for (size_t i = 0; !rc && !pst_client_memory(c, i, &at, &bytes, &read_only); i++)
		rc = reach(g, at, bytes, read_only ? PST_GPU_HOST_READ_ONLY : 0, err);
	return rc;
}
