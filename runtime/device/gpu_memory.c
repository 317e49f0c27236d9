/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: device memory that is taken from the driver once, and cut by the pool's allocator. */
#include "runtime/device/gpu_priv.h"
#include "runtime/mem/admit.h"

static int too_large(struct pst_gpu *gpu, uint64_t bytes, uint64_t free, uint64_t total,
		     struct pst_error *err)
{
	char asked[32], left[32], all[32];

	return pst_fail(err, -ENOMEM,
			"cuda:%d: %s of device memory are asked for, and %s of %s are free; end "
			"what else holds memory of it (nvidia-smi shows who), or ask for less",
			gpu->info.ordinal, pst_admit_size(asked, sizeof(asked), bytes),
			pst_admit_size(left, sizeof(left), free),
			pst_admit_size(all, sizeof(all), total));
}

int pst_gpu_arena_open(struct pst_gpu *gpu, uint64_t bytes, uint32_t share, struct pst_error *err)
{
	size_t left, total;
	CUdeviceptr base;
	int rc;

	rc = pst_gpu_result(gpu, gpu->cu->cuMemGetInfo(&left, &total), err,
			    "asking for its free memory");
	if (rc)
		return rc;
	/* of the whole: how much the others have taken already depends on who comes first */
	if (!bytes)
		bytes = (left < total / share ? left : total / share) / 16 * 15;
	/* whole pages, for whom it is given to */
	bytes &= ~(uint64_t)(PST_GPU_ALIGN - 1);
	if (bytes > left || !bytes)
		return too_large(gpu, bytes, left, total, err);
	rc = pst_heap_init(&gpu->heap, bytes / PST_GPU_GRANULE);
	if (rc)
		return pst_fail(err, rc, "cuda:%d: no memory to keep book of its own",
				gpu->info.ordinal);
	rc = pst_gpu_result(gpu, gpu->cu->cuMemAlloc(&base, bytes), err,
			    "taking %llu bytes of its memory", (unsigned long long)bytes);
	if (rc) {
		pst_heap_fini(&gpu->heap);
		return rc;
	}
	gpu->base = base;
	gpu->info.arena = bytes;
	return 0;
}

void pst_gpu_arena_close(struct pst_gpu *gpu)
{
	gpu->cu->cuMemFree(gpu->base);
	pst_heap_fini(&gpu->heap);
}

bool pst_gpu_in_arena(const struct pst_gpu *gpu, uint64_t at, uint64_t bytes)
{
	return at >= gpu->base && at - gpu->base <= gpu->info.arena &&
	       bytes <= gpu->info.arena - (at - gpu->base);
}

static int full(struct pst_gpu *gpu, uint64_t bytes, struct pst_error *err)
{
	char asked[32], piece[32], used[32], all[32];
	struct pst_heap_stat h;

	pst_heap_stat(&gpu->heap, &h);
	return pst_fail(err, -ENOMEM,
			"cuda:%d: %s are asked for and %s are free in one piece: %s of its arena "
			"of %s are used; open it with a larger arena, or keep less on the GPU",
			gpu->info.ordinal, pst_admit_size(asked, sizeof(asked), bytes),
			pst_admit_size(piece, sizeof(piece), h.largest * PST_GPU_GRANULE),
			pst_admit_size(used, sizeof(used), h.used * PST_GPU_GRANULE),
			pst_admit_size(all, sizeof(all), gpu->info.arena));
}

int pst_gpu_alloc(struct pst_gpu *gpu, uint64_t bytes, uint64_t align, uint64_t *out,
		  struct pst_error *err)
{
	uint64_t granules = bytes / PST_GPU_GRANULE + !!(bytes % PST_GPU_GRANULE), at;
	uint64_t in_granules = align <= PST_GPU_GRANULE ? 1 : align / PST_GPU_GRANULE;
	int rc = pst_gpu_dead(gpu, err);

	if (rc)
		return rc;
	if (align & (align - 1) || align > PST_GPU_ALIGN || !bytes)
		return pst_fail(err, -EINVAL,
				"cuda:%d: %llu bytes aligned to %llu cannot be: some bytes, and a "
				"power of two up to %d",
				gpu->info.ordinal, (unsigned long long)bytes,
				(unsigned long long)align, PST_GPU_ALIGN);
	at = granules <= gpu->info.arena / PST_GPU_GRANULE
		     ? pst_heap_take(&gpu->heap, granules, in_granules)
		     : PST_TLSF_NONE;
	if (at == PST_TLSF_NONE)
		return full(gpu, bytes, err);
	*out = gpu->base + at * PST_GPU_GRANULE;
	return 0;
}

void pst_gpu_free(struct pst_gpu *gpu, uint64_t block)
{
	if (block && pst_gpu_in_arena(gpu, block, 1) && !((block - gpu->base) % PST_GPU_GRANULE))
		pst_heap_give(&gpu->heap, (block - gpu->base) / PST_GPU_GRANULE);
}
