/* SPDX-License-Identifier: Apache-2.0 */
/* Images, functions and launches of the stand-in; standin.h says what an image looks like. */
#include "selftests/gpu/libcuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTIONS 64
#define SHARED	  8 /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */

#define SHARED_PLAIN 49152u
#define SHARED_MOST  232448u

struct cuda_function {
	char name[64];
	const struct cuda_op *op;
	unsigned int shared;
};

struct cuda_module {
	struct cuda_function fn[FUNCTIONS];
	size_t n;
	bool fatbin;
	LIST_ENTRY(cuda_module) on_list;
};

/* What cuFatbinary of the toolkit writes begins so. */
static bool is_fatbin(const char *image)
{
	return !strncmp(image, "\x50\xed\x55\xba", 4);
}

static uint32_t parse(struct cuda_module *m, const char *image)
{
	char op[64];
	int len;

	m->fatbin = is_fatbin(image);
	if (m->fatbin)
		return 0;
	if (strncmp(image, STANDIN_IMAGE "\n", strlen(STANDIN_IMAGE "\n")))
		return CUDA_ERROR_INVALID_IMAGE;
	image += strlen(STANDIN_IMAGE "\n");
	for (; *image; image += len) {
		struct cuda_function *f = &m->fn[m->n];

		len = 0;
		if (m->n == FUNCTIONS ||
		    sscanf(image, "%63[^ \n] %63[^ \n]%*1[\n]%n", f->name, op, &len) != 2 || !len)
			return CUDA_ERROR_INVALID_IMAGE;
		f->op = cuda_op(op);
		if (!f->op)
			return CUDA_ERROR_NO_BINARY_FOR_GPU;
		f->shared = SHARED_PLAIN;
		m->n++;
	}
	return 0;
}

static uint32_t load(CUmodule *to, const char *image)
{
	struct cuda_module *m;
	uint32_t rc;

	if (!image)
		return CUDA_ERROR_INVALID_VALUE;
	m = calloc(1, sizeof(*m));
	if (!m)
		return CUDA_ERROR_OUT_OF_MEMORY;
	rc = parse(m, image);
	if (rc) {
		free(m);
		return rc;
	}
	cuda.s->modules++;
	pthread_mutex_lock(&cuda.lock);
	LIST_INSERT_HEAD(&cuda.modules, m, on_list);
	pthread_mutex_unlock(&cuda.lock);
	*to = m;
	return 0;
}

/* Whoever still runs a function of it is waited for; who calls one later is found by sanitizers. */
static void unload(CUmodule m)
{
	pthread_mutex_lock(&cuda.lock);
	for (int i = 0; i < STANDIN_GPUS; i++)
		cuda_drain_all(&cuda.gpu[i]);
	LIST_REMOVE(m, on_list);
	pthread_mutex_unlock(&cuda.lock);
	cuda.s->modules--;
	free(m);
}

/* In a fatbin a function is the op of its name. */
static uint32_t find_op(CUfunction *to, CUmodule m, const char *name)
{
	const struct cuda_op *op = cuda_op(name);
	struct cuda_function *f = &m->fn[m->n];

	if (!op || m->n == FUNCTIONS)
		return CUDA_ERROR_NOT_FOUND;
	snprintf(f->name, sizeof(f->name), "%s", name);
	f->op = op;
	f->shared = SHARED_PLAIN;
	m->n++;
	*to = f;
	return 0;
}

static uint32_t find(CUfunction *to, CUmodule m, const char *name)
{
	if (!m || !name)
		return CUDA_ERROR_INVALID_VALUE;
	for (size_t i = 0; i < m->n; i++) {
		if (strcmp(m->fn[i].name, name))
			continue;
		*to = &m->fn[i];
		return 0;
	}
	return m->fatbin ? find_op(to, m, name) : CUDA_ERROR_NOT_FOUND;
}

API CUresult cuModuleLoadData(CUmodule *to, const void *image)
{
	ENTER_GPU(cuModuleLoadData);
	(void)gpu;
	return load(to, image);
}

API CUresult cuModuleUnload(CUmodule m)
{
	ENTER_GPU(cuModuleUnload);
	(void)gpu;
	if (!m)
		return CUDA_ERROR_INVALID_VALUE;
	unload(m);
	return 0;
}

API CUresult cuModuleGetFunction(CUfunction *to, CUmodule m, const char *name)
{
	ENTER_GPU(cuModuleGetFunction);
	(void)gpu;
	return find(to, m, name);
}

/* Libraries are modules of no context. */

API CUresult cuLibraryLoadData(CUlibrary *to, const void *image, int *jit, void **jit_values,
			       unsigned int njit, int *options, void **option_values,
			       unsigned int noptions)
{
	ENTER(cuLibraryLoadData);
	(void)jit, (void)jit_values, (void)njit, (void)options, (void)option_values, (void)noptions;
	return load(to, image);
}

API CUresult cuLibraryUnload(CUlibrary l)
{
	ENTER(cuLibraryUnload);
	if (!l)
		return CUDA_ERROR_INVALID_VALUE;
	unload(l);
	return 0;
}

API CUresult cuLibraryGetKernel(CUkernel *to, CUlibrary l, const char *name)
{
	ENTER(cuLibraryGetKernel);
	return find(to, l, name);
}

API CUresult cuKernelGetFunction(CUfunction *to, CUkernel k)
{
	ENTER_GPU(cuKernelGetFunction);
	(void)gpu;
	*to = k;
	return k ? 0 : CUDA_ERROR_INVALID_HANDLE;
}

API CUresult cuFuncSetAttribute(CUfunction f, int which, int value)
{
	ENTER_GPU(cuFuncSetAttribute);
	(void)gpu;
	if (!f || which != SHARED || value < 0 || value > (int)SHARED_MOST)
		return CUDA_ERROR_INVALID_VALUE;
	f->shared = (unsigned int)value;
	return 0;
}

API CUresult cuFuncGetAttribute(int *to, int which, CUfunction f)
{
	ENTER_GPU(cuFuncGetAttribute);
	(void)gpu;
	if (!f || which != SHARED)
		return CUDA_ERROR_INVALID_VALUE;
	*to = (int)f->shared;
	return 0;
}

/* Values are the caller's until the launch returns, so they are taken here. */
static void take_params(struct task *t, void *const *params)
{
	for (int i = 0; t->op->params[i]; i++) {
		bool wide = strchr("pz", t->op->params[i]);

		memcpy(&t->param[i], params[i], wide ? 8 : 4);
	}
}

API CUresult cuFuncLoad(CUfunction f)
{
	ENTER_GPU(cuFuncLoad);
	(void)gpu;
	return f ? 0 : CUDA_ERROR_INVALID_HANDLE;
}

static bool good_shape(const CUlaunchConfig *c, const struct cuda_function *f)
{
	const unsigned int *grid = c->grid, *block = c->block;

	for (int i = 0; i < 3; i++)
		if (!grid[i] || !block[i])
			return false;
	return (uint64_t)block[0] * block[1] * block[2] <= 1024 && grid[1] <= 65535 &&
	       grid[2] <= 65535 && c->shared <= f->shared;
}

static uint32_t launch(struct cuda_gpu *gpu, const CUlaunchConfig *c, CUfunction f, void **params,
		       void **extra)
{
	struct task t = {.run = cuda_op_run};

	if (!f)
		return CUDA_ERROR_INVALID_HANDLE;
	if (extra)
		return CUDA_ERROR_NOT_SUPPORTED;
	if (!good_shape(c, f) || (f->op->params && !params))
		return CUDA_ERROR_INVALID_VALUE;
	t.op = f->op;
	if (t.op->params)
		take_params(&t, params);
	return cuda_post(gpu, c->stream, &t);
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **params,
			      void **extra)
{
	ENTER_GPU(cuLaunchKernelEx);
	if (config->nattrs > 1 ||
	    (config->nattrs &&
	     config->attrs->id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION))
		return CUDA_ERROR_INVALID_VALUE;
	if (config->nattrs && config->attrs->value.allowed)
		cuda.s->pdl++;
	return launch(gpu, config, f, params, extra);
}

API CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
			    unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared,
			    CUstream s, void **params, void **extra)
{
	const CUlaunchConfig config = {{gx, gy, gz}, {bx, by, bz}, shared, s, NULL, 0};

	ENTER_GPU(cuLaunchKernel);
	return launch(gpu, &config, f, params, extra);
}
