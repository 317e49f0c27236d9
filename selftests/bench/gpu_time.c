/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_time.c - memory of gpu-bench, and what time a launch takes. */
#include "selftests/bench/gpu.h"
#include "kernels/bf16.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN ((size_t)256)
#define MIB   ((size_t)1 << 20)
#define PARTS (PST_CUDA_SUMSQ_PARTS * sizeof(double))

int bench_failed(struct bench *b, const char *what, CUresult rc)
{
	printf("# %s: %s (%u: %s)\n", what, pst_cuda_error_name(rc), rc, pst_cuda_error_text(rc));
	b->dead |= pst_cuda_error_stays(rc);
	return -EIO;
}

/* Memory. */

CUdeviceptr bench_take(struct bench *b, size_t bytes)
{
	size_t at = (b->used + ALIGN - 1) / ALIGN * ALIGN;

	if (bytes > b->bytes || at > b->bytes - bytes) {
		b->full = true;
		return b->arena;
	}
	b->used = at + bytes;
	return b->arena + at;
}

void bench_forget(struct bench *b)
{
	b->used = 0;
	b->full = false;
}

/* Each begins elsewhere in the pool, so that no two are alike. */
static CUdeviceptr copy_of(struct bench *b, CUdeviceptr pool, size_t bytes)
{
	CUdeviceptr to = bench_take(b, bytes);
	size_t skip = b->used / ALIGN * 4096 % b->pool;
	CUresult rc = 0;

	for (size_t done = 0, n; !b->full && !rc && done < bytes; done += n, skip = 0) {
		n = b->pool - skip < bytes - done ? b->pool - skip : bytes - done;
		rc = b->gpu.cu->cuMemcpyDtoDAsync(to + done, pool + skip, n, b->gpu.stream);
	}
	if (rc)
		bench_failed(b, "random data cannot be copied", rc);
	return to;
}

CUdeviceptr bench_floats(struct bench *b, size_t n)
{
	return copy_of(b, b->floats, n * sizeof(float));
}

CUdeviceptr bench_halves(struct bench *b, size_t n)
{
	return copy_of(b, b->halves, n * sizeof(uint16_t));
}

CUdeviceptr bench_quarters(struct bench *b, size_t n)
{
	return copy_of(b, b->quarters, n);
}

CUdeviceptr bench_result(struct bench *b, size_t bytes)
{
	CUdeviceptr to = bench_take(b, bytes);
	CUresult rc = b->full ? 0 : b->gpu.cu->cuMemsetD8Async(to, 0xff, bytes, b->gpu.stream);

	if (rc)
		bench_failed(b, "a result cannot be filled with NaN", rc);
	return to;
}

CUdeviceptr bench_upload(struct bench *b, const void *from, size_t bytes)
{
	CUdeviceptr to = bench_take(b, bytes);
	CUresult rc = b->full ? 0 : b->gpu.cu->cuStreamSynchronize(b->gpu.stream);

	if (!rc && !b->full)
		rc = b->gpu.cu->cuMemcpyHtoD(to, from, bytes);
	if (rc)
		bench_failed(b, "arguments cannot be brought to the GPU", rc);
	return to;
}

static uint64_t next_random(uint64_t *rng)
{
	*rng = *rng * 6364136223846793005ull + 1442695040888963407ull;
	return *rng >> 32;
}

/* Uniform in [-1, 1) as fp32 and as bf16; e4m3 of any bits but those of 2 and more, and of NaN. */
static void make_pools(float *f, uint16_t *h, uint8_t *q, size_t bytes)
{
	uint64_t rng = 1;

	for (size_t i = 0; i < bytes / sizeof(*h); i++) {
		float x = (float)(next_random(&rng) >> 8) / (float)(1 << 23) - 1;

		h[i] = pst_bf16_from_f32(x);
		if (i < bytes / sizeof(*f))
			f[i] = x;
	}
	for (size_t i = 0; i < bytes; i++)
		q[i] = (uint8_t)(next_random(&rng) >> 8) & 0xbf;
}

static CUresult fill_pools(struct bench *b)
{
	unsigned char *host = malloc(3 * b->pool);
	unsigned char *halves = host + b->pool, *quarters = host + 2 * b->pool;
	CUresult rc;

	if (!host)
		return CUDA_ERROR_OUT_OF_MEMORY;
	make_pools((float *)host, (uint16_t *)halves, quarters, b->pool);
	rc = b->gpu.cu->cuMemcpyHtoD(b->floats, host, b->pool);
	if (!rc)
		rc = b->gpu.cu->cuMemcpyHtoD(b->halves, halves, b->pool);
	if (!rc)
		rc = b->gpu.cu->cuMemcpyHtoD(b->quarters, quarters, b->pool);
	free(host);
	return rc;
}

/* What is free, but for a part that the peers need; that is enough for all rows on 80 GB. */
static CUresult take_memory(struct bench *b)
{
	const struct pst_cuda *cu = b->gpu.cu;
	size_t free_bytes = 0, total = 0, most = b->small ? 16 * MIB : 24576 * MIB;
	CUresult rc = cu->cuMemGetInfo(&free_bytes, &total);

	b->pool = b->small ? MIB / 64 : 64 * MIB;
	b->flush_bytes = b->small ? MIB / 64 : 4 * b->gpu.l2;
	b->bytes = free_bytes / 2 < most ? free_bytes / 2 : most;
	if (!rc)
		rc = cu->cuMemAlloc(&b->floats, b->pool);
	if (!rc)
		rc = cu->cuMemAlloc(&b->halves, b->pool);
	if (!rc)
		rc = cu->cuMemAlloc(&b->quarters, b->pool);
	if (!rc)
		rc = cu->cuMemAlloc(&b->flush, b->flush_bytes);
	if (!rc)
		rc = cu->cuMemAlloc(&b->arena, b->bytes);
	if (!rc)
		rc = cu->cuMemsetD8(b->flush, 0, b->flush_bytes);
	b->bytes -= PARTS; /* what flush() writes lies behind */
	return rc ? rc : fill_pools(b);
}

/* Time. */

int bench_launch(struct bench *b, void *work)
{
	struct bench_work *w = work;
	struct pst_cuda_launch l;
	void *params[BENCH_PARAMS];
	CUresult rc;

	for (int i = 0; i < w->nparams; i++)
		params[i] = &w->value[i];
	if (pst_cuda_geometry(w->k, params, &l)) {
		printf("# %s: it takes no such sizes\n", pst_cuda_kernel_name(w->k));
		return -EINVAL;
	}
	rc = check_gpu_launch(&b->gpu, w->k, &l, params);
	return rc ? bench_failed(b, pst_cuda_kernel_name(w->k), rc) : 0;
}

/* Reading leaves the cache full of what nobody has to write back. Small sizes tell nothing anyway.
 */
static int flush(struct bench *b)
{
	struct bench_work w = {
		.k = PST_CUDA_sumsq_parts,
		.nparams = 3,
		.value = {b->arena + b->bytes, b->flush, b->flush_bytes / sizeof(float)}};

	return bench_launch(b, &w);
}

static double once(struct bench *b, int (*run)(struct bench *b, void *arg), void *arg)
{
	const struct pst_cuda *cu = b->gpu.cu;
	float ms = 0;
	CUresult rc;

	if (!b->small && flush(b))
		return -1;
	rc = cu->cuEventRecord(b->from, b->gpu.stream);
	if (!rc && run(b, arg))
		return -1;
	if (!rc)
		rc = cu->cuEventRecord(b->to, b->gpu.stream);
	if (!rc)
		rc = cu->cuEventSynchronize(b->to);
	if (!rc)
		rc = cu->cuEventElapsedTime(&ms, b->from, b->to);
	return rc ? bench_failed(b, "a launch", rc) : (double)ms / 1e3;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_time(struct bench *b, int (*run)(struct bench *b, void *arg), void *arg)
{
	double took[64];

	/* the first ones find code that is not there yet, and clocks that are low */
	for (int i = -2; i < b->runs; i++) {
		double now = once(b, run, arg);

		if (now < 0)
			return -1;
		if (i >= 0)
			took[i] = now;
	}
	qsort(took, (size_t)b->runs, sizeof(took[0]), by_value);
	return took[b->runs / 2];
}

int bench_open(struct bench *b, char *why, size_t len)
{
	int rc = check_gpu_open(&b->gpu, why, len);
	CUresult error;

	if (rc)
		return rc;
	b->runs = b->small ? 3 : 21;
	error = take_memory(b);
	if (!error)
		error = b->gpu.cu->cuEventCreate(&b->from, 0);
	if (!error)
		error = b->gpu.cu->cuEventCreate(&b->to, 0);
	if (!error && flush(b))
		error = CUDA_ERROR_UNKNOWN;
	if (!error)
		error = b->gpu.cu->cuStreamSynchronize(b->gpu.stream);
	if (!error)
		return 0;
	snprintf(why, len,
		 "CUDA: what a measurement needs cannot be had: %s (%u: %s); is something else "
		 "using the GPU? nvidia-smi shows it",
		 pst_cuda_error_name(error), error, pst_cuda_error_text(error));
	return -EIO;
}
