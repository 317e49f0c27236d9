/* SPDX-License-Identifier: Apache-2.0 */
/* driver.h - the stand-in for libcuda.so.1, opened in the test's process. */
#ifndef TEST_GPU_DRIVER_H
#define TEST_GPU_DRIVER_H

#include "selftests/gpu/standin.h"
#include "selftests/lib/test.h"

#include <dlfcn.h>
#include <limits.h>

#define MIB (1ull << 20)

/* The driver's functions, found as a runtime finds them. */
static struct {
#define MEMBER(name, symbol, version, args) CUresult(*name) args;
	PST_CUDA_CALLS(MEMBER, MEMBER)
#undef MEMBER
} cu;

static struct standin *s;

static inline void open_library(void)
{
	CUresult (*get)(const char *, void **, int, uint64_t, int *);
	char self[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	void *lib;

	ASSERT_GT(n, 0);
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(path, sizeof(path), "%s/libcuda.so.1", self);
	lib = dlopen(path, RTLD_NOW);
	ASSERT_TRUE(lib);
	*(void **)&get = dlsym(lib, "cuGetProcAddress_v2");
	ASSERT_TRUE(get);
#define FIND(name, symbol, version, args) \
	ASSERT_EQ(0u, get(#name, (void **)&cu.name, version, 0, NULL));
	PST_CUDA_CALLS(FIND, FIND)
#undef FIND
}

#define OK(call) ASSERT_EQ((CUresult)0, cu.call)

/* Stay, so that who looks for leaks finds them. */
static CUmodule modules[64];
static size_t nmodules;

/* A function that does @op. */
static inline CUfunction function(const char *op)
{
	char image[128];
	CUfunction fn;
	CUmodule m;

	snprintf(image, sizeof(image), STANDIN_IMAGE "\nother nop\nfn %s\n", op);
	OK(cuModuleLoadData(&m, image));
	ASSERT_LT(nmodules, sizeof(modules) / sizeof(*modules));
	modules[nmodules++] = m;
	OK(cuModuleGetFunction(&fn, m, "fn"));
	return fn;
}

static inline CUresult launch(CUfunction fn, CUstream st, void **params)
{
	return cu.cuLaunchKernel(fn, 1, 1, 1, 32, 1, 1, 0, st, params, NULL);
}

/* A stream does nothing more until s->gpu[0].release. */
static inline void block(CUstream st)
{
	ASSERT_EQ((CUresult)0, launch(function("hang"), st, NULL));
}

FIXTURE(driver)
{
	CUcontext ctx;
	CUstream a, b;
};
FIXTURE_SETUP(driver)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/standin", test_tmpdir());
	s = standin_make(path, 2, 64 * MIB);
	setenv(STANDIN_ENV, path, 1);
	open_library();
	OK(cuInit(0));
	OK(cuDevicePrimaryCtxRetain(&self->ctx, 0));
	OK(cuCtxSetCurrent(self->ctx));
	OK(cuStreamCreate(&self->a, CU_STREAM_NON_BLOCKING));
	OK(cuStreamCreate(&self->b, CU_STREAM_NON_BLOCKING));
}
FIXTURE_TEARDOWN(driver)
{
	(void)self;
}

#endif /* TEST_GPU_DRIVER_H */
