/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A libcuda.so.1 of the stand-in whose launches run the kernels of cuda.h themselves, under the
 * emulation (emulate.h): instead of libcuda_op.c, for gpu-check and gpu-bench without a GPU.
 *
 * $STANDIN_WRONG = "KERNEL N": from its N-th launch on, what KERNEL's first argument points to
 * comes out wrong.
 */
#include "selftests/gpu/emulate_table.h"
#include "selftests/gpu/libcuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST = 1024 };

static struct cuda_op ops[PST_CUDA_KERNEL_COUNT];
static uint32_t lists[PST_CUDA_KERNEL_COUNT];

const struct cuda_op *cuda_op(const char *name)
{
	enum pst_cuda_kernel k = pst_cuda_kernel_find(name);

	if (k == PST_CUDA_KERNEL_COUNT)
		return NULL;
	ops[k].name = pst_cuda_kernel_name(k);
	ops[k].params = emulate_signature(k, &lists[k]);
	return &ops[k];
}

/* Host memory is where it is, known or not: who touches what is not there gets SIGSEGV. */
static void *here(const struct cuda_gpu *gpu, CUdeviceptr at)
{
	void *p = cuda_at_kernel(gpu, at);

	return p || cuda_is_device(at, 1) ? p : (void *)(uintptr_t)at;
}

/* Pointers of a list on the device, as they are here: as many as there are. */
static void translate(const struct cuda_gpu *gpu, CUdeviceptr list, const void **to)
{
	for (int i = 0; i < LIST; i++) {
		const CUdeviceptr *from = cuda_at(list + (CUdeviceptr)i * 8, 8);

		if (!from)
			return;
		to[i] = here(gpu, *from);
	}
}

static void go_wrong(const char *name, void *first)
{
	static unsigned int launches;
	const char *how = getenv("STANDIN_WRONG");
	char kernel[64];
	unsigned int n;

	if (!how || sscanf(how, "%63s %u", kernel, &n) != 2 || strcmp(kernel, name) ||
	    ++launches < n)
		return;
	*(uint32_t *)first ^= 0x01000000;
}

static bool is_idle(const char *name)
{
	const char *idle = getenv("STANDIN_IDLE");

	return idle && !strcmp(idle, name);
}

uint32_t cuda_op_run(struct task *t)
{
	enum pst_cuda_kernel k = (enum pst_cuda_kernel)(t->op - ops);
	const void *(*list)[LIST] = calloc(CUDA_PARAMS, sizeof(*list));
	struct pst_cuda_launch l;
	void *p[CUDA_PARAMS], *params[CUDA_PARAMS];

	if (!list)
		return CUDA_ERROR_OUT_OF_MEMORY;
	cuda.s->launches++;
	pthread_mutex_lock(&cuda.lock);
	for (int i = 0; t->op->params[i]; i++) {
		params[i] = &t->param[i];
		if (t->op->params[i] != 'p' || !t->param[i])
			continue;
		p[i] = here(t->gpu, t->param[i]);
		params[i] = &p[i];
		if (!(lists[k] >> i & 1) || !cuda_is_device(t->param[i], 8))
			continue;
		translate(t->gpu, t->param[i], list[i]);
		p[i] = list[i];
	}
	pthread_mutex_unlock(&cuda.lock);
	/* the launch's own shape is checked and then not kept, but it follows from the arguments */
	if (!is_idle(t->op->name) && !pst_cuda_geometry(k, params, &l)) {
		cuda.s->running++;
		emulate_kernel_as(k, &l, params);
		cuda.s->running--;
		go_wrong(t->op->name, *(void **)params[0]);
	}
	free(list);
	return 0;
}
