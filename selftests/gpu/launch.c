/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for libcuda.so.1: launches do what `ref` does, and errors stay as a driver's do. */
#include "kernels/op.h"
#include "selftests/gpu/driver.h"

#include <sched.h>

static void random_floats(float *to, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++)
		to[i] = (float)(test_random(&seed) >> 40) / (float)(1 << 23) - 1;
}

static CUdeviceptr upload(const void *from, size_t len)
{
	CUdeviceptr p = 0;

	ASSERT_EQ((CUresult)0, cu.cuMemAlloc(&p, len));
	ASSERT_EQ((CUresult)0, cu.cuMemcpyHtoD(p, from, len));
	return p;
}

TEST_F(driver, gemm_is_ref_bit_for_bit)
{
	enum { M = 7, N = 13, K = 33 };
	float a[M * K], b[N * K], c[M * N], want[M * N];
	CUdeviceptr pa, pb, pc;
	size_t m = M, n = N, k = K;
	int ta = 0, tb = 1, acc = 1;
	void *params[] = {&ta, &tb, &m, &n, &k, &pa, &k, &pb, &k, &pc, &n, &acc};

	random_floats(a, M * K, 1);
	random_floats(b, N * K, 2);
	random_floats(want, M * N, 3);
	pa = upload(a, sizeof(a));
	pb = upload(b, sizeof(b));
	pc = upload(want, sizeof(want));
	pst_ops_ref()->gemm(ta, tb, m, n, k, a, k, b, k, want, n, acc);
	ASSERT_EQ((CUresult)0, launch(function("gemm"), self->a, params));
	/* the values were taken when it was launched */
	m = n = k = 0;
	OK(cuStreamSynchronize(self->a));
	OK(cuMemcpyDtoH(c, pc, sizeof(c)));
	EXPECT_EQ(0, memcmp(want, c, sizeof(c)));
	EXPECT_EQ(1ull, (unsigned long long)s->launches);
}

TEST_F(driver, swiglu_is_ref_bit_for_bit)
{
	enum { N = 301 };
	float g[N], u[N], out[N], want[N];
	CUdeviceptr pg, pu, po;
	size_t n = N;
	void *params[] = {&po, &pg, &pu, &n};

	random_floats(g, N, 4);
	random_floats(u, N, 5);
	pg = upload(g, sizeof(g));
	pu = upload(u, sizeof(u));
	OK(cuMemAlloc(&po, sizeof(out)));
	pst_ops_ref()->swiglu(want, g, u, N);
	ASSERT_EQ((CUresult)0, launch(function("swiglu"), NULL, params));
	OK(cuMemcpyDtoH(out, po, sizeof(out)));
	EXPECT_EQ(0, memcmp(want, out, sizeof(out)));
}

TEST_F(driver, rmsnorm_is_ref_bit_for_bit)
{
	enum { ROWS = 5, COLS = 24 };
	float x[ROWS * COLS], w[COLS], y[ROWS * COLS], rstd[ROWS], want[ROWS * COLS],
		want_rstd[ROWS];
	CUdeviceptr px, pw, py, pr;
	size_t rows = ROWS, cols = COLS;
	float eps = 1e-5f;
	void *params[] = {&py, &cols, &pr, &px, &cols, &pw, &rows, &cols, &eps};

	random_floats(x, ROWS * COLS, 6);
	random_floats(w, COLS, 7);
	px = upload(x, sizeof(x));
	pw = upload(w, sizeof(w));
	OK(cuMemAlloc(&py, sizeof(y)));
	OK(cuMemAlloc(&pr, sizeof(rstd)));
	pst_ops_ref()->rmsnorm(want, cols, want_rstd, x, cols, w, rows, cols, eps);
	ASSERT_EQ((CUresult)0, launch(function("rmsnorm"), self->b, params));
	OK(cuStreamSynchronize(self->b));
	OK(cuMemcpyDtoH(y, py, sizeof(y)));
	OK(cuMemcpyDtoH(rstd, pr, sizeof(rstd)));
	EXPECT_EQ(0, memcmp(want, y, sizeof(y)));
	EXPECT_EQ(0, memcmp(want_rstd, rstd, sizeof(rstd)));
}

/* An op that returns a value has one argument more; registered memory serves as arguments, too. */
TEST_F(driver, a_value_that_is_returned)
{
	float *x;
	double *out;
	size_t n = 1000;
	void *params[] = {&out, &x, &n};

	OK(cuMemHostAlloc((void **)&x, n * sizeof(*x), 0));
	OK(cuMemHostAlloc((void **)&out, sizeof(*out), 0));
	random_floats(x, n, 8);
	ASSERT_EQ((CUresult)0, launch(function("sumsq"), self->a, params));
	OK(cuStreamSynchronize(self->a));
	EXPECT_TRUE(*out == pst_ops_ref()->sumsq(x, n));
}

/* All ops of the table can be launched, and no other can. */
TEST_F(driver, every_op_has_its_kernel)
{
#define CAN(name, ret, args) EXPECT_TRUE(function(#name));
	PST_OPS(CAN, float)
#undef CAN
}

TEST_F(driver, images)
{
	CUfunction fn;
	CUlibrary l;
	CUkernel k;
	CUmodule m;
	int shared;

	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_IMAGE, cu.cuModuleLoadData(&m, "\177ELF"));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_IMAGE,
		  cu.cuModuleLoadData(&m, STANDIN_IMAGE "\nonly-a-name\n"));
	EXPECT_EQ((CUresult)CUDA_ERROR_NO_BINARY_FOR_GPU,
		  cu.cuModuleLoadData(&m, STANDIN_IMAGE "\nfn no_such_op\n"));
	OK(cuLibraryLoadData(&l, STANDIN_IMAGE "\nf add\ng nop\n", NULL, NULL, 0, NULL, NULL, 0));
	OK(cuLibraryGetKernel(&k, l, "g"));
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_FOUND, cu.cuLibraryGetKernel(&k, l, "h"));
	OK(cuKernelGetFunction(&fn, k));
	ASSERT_EQ((CUresult)0, launch(fn, self->a, NULL));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuLaunchKernel(fn, 1, 1, 1, 1025, 1, 1, 0, NULL, NULL, NULL));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuLaunchKernel(fn, 0, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
	/* more shared memory has to be asked for */
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE,
		  cu.cuLaunchKernel(fn, 1, 1, 1, 1, 1, 1, 200000, NULL, NULL, NULL));
	OK(cuFuncSetAttribute(fn, 8, 200000));
	OK(cuFuncGetAttribute(&shared, 8, fn));
	EXPECT_EQ(200000, shared);
	OK(cuLaunchKernel(fn, 1, 1, 1, 1, 1, 1, 200000, NULL, NULL, NULL));
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuFuncSetAttribute(fn, 8, 300000));
	OK(cuLibraryUnload(l));
}

TEST_F(driver, launches_with_attributes)
{
	CUlaunchAttribute attr = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
				  .value.allowed = 1};
	CUlaunchConfig config = {.grid = {1, 1, 1},
				 .block = {32, 1, 1},
				 .stream = self->a,
				 .attrs = &attr,
				 .nattrs = 1};
	CUfunction fn = function("nop");

	OK(cuLaunchKernelEx(&config, fn, NULL, NULL));
	OK(cuStreamSynchronize(self->a));
	EXPECT_EQ(1ull, (unsigned long long)s->launches);
	EXPECT_EQ(1ull, (unsigned long long)s->pdl);
	config.nattrs = 2;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuLaunchKernelEx(&config, fn, NULL, NULL));
	config.nattrs = 1;
	attr.id = 4711;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuLaunchKernelEx(&config, fn, NULL, NULL));
	config.nattrs = 0;
	config.block[0] = 1025;
	EXPECT_EQ((CUresult)CUDA_ERROR_INVALID_VALUE, cu.cuLaunchKernelEx(&config, fn, NULL, NULL));
}

/* Answers what rings, and ends when it is told to or nobody rings. */
TEST_F(driver, the_doorbell)
{
	_Atomic uint32_t *at;
	CUdeviceptr ring, answer, stop;
	size_t spin = 0, limit = 60000000000ull;
	void *params[] = {&ring, &answer, &stop, &spin, &limit};

	OK(cuMemHostAlloc((void **)&at, 3 * sizeof(*at), 0));
	at[0] = at[1] = at[2] = 0;
	OK(cuMemHostGetDevicePointer(&ring, (void *)at, 0));
	answer = ring + sizeof(*at);
	stop = answer + sizeof(*at);
	ASSERT_EQ((CUresult)0, launch(function("doorbell"), self->a, params));
	for (uint32_t i = 1; i < 4; i++) {
		at[0] = i * 1000;
		while (at[1] != i * 1000)
			sched_yield();
	}
	EXPECT_EQ((CUresult)CUDA_ERROR_NOT_READY, cu.cuStreamQuery(self->a));
	at[2] = 1;
	OK(cuStreamSynchronize(self->a));
	at[2] = 0;
	limit = 1000;
	ASSERT_EQ((CUresult)0, launch(function("doorbell"), self->a, params));
	OK(cuStreamSynchronize(self->a));
}

/* Errors that stay. */

static void expect_poisoned(CUresult rc, CUstream st)
{
	char host = 7;
	CUdeviceptr p;

	EXPECT_EQ(rc, cu.cuStreamSynchronize(st));
	EXPECT_EQ(rc, cu.cuCtxSynchronize());
	EXPECT_EQ(rc, cu.cuMemAlloc(&p, 1));
	EXPECT_EQ(rc, cu.cuMemcpyHtoD(0, &host, 1));
	EXPECT_EQ(rc, cu.cuStreamQuery(NULL));
}

TEST_F(driver, a_fault_poisons_the_context)
{
	CUdeviceptr p;
	char *host;

	OK(cuMemAlloc(&p, 1));
	OK(cuMemHostAlloc((void **)&host, 1, 0));
	*host = 7;
	/* it comes out when somebody asks, and nothing after it is done */
	block(self->a);
	ASSERT_EQ((CUresult)0, launch(function("fault"), self->a, NULL));
	OK(cuMemcpyDtoHAsync(host, p, 1, self->a));
	s->gpu[0].release = 1;
	expect_poisoned(CUDA_ERROR_ILLEGAL_ADDRESS, self->a);
	EXPECT_EQ(7, *host);
	/* for good, but for this GPU only */
	EXPECT_EQ((CUresult)CUDA_ERROR_ILLEGAL_ADDRESS, cu.cuDevicePrimaryCtxRetain(&self->ctx, 0));
	OK(cuDevicePrimaryCtxRetain(&self->ctx, 1));
	OK(cuCtxSetCurrent(self->ctx));
	OK(cuMemAlloc(&p, 1));
}

TEST_F(driver, a_bad_argument_is_a_fault)
{
	float plain[4] = {0};
	CUdeviceptr p;
	size_t n = 4;
	float *host = plain;
	void *params[] = {&p, &host, &n};

	OK(cuMemAlloc(&p, sizeof(plain)));
	/* host memory that nobody registered */
	ASSERT_EQ((CUresult)0, launch(function("add"), self->a, params));
	expect_poisoned(CUDA_ERROR_ILLEGAL_ADDRESS, self->a);
}

TEST_F(driver, an_assertion)
{
	ASSERT_EQ((CUresult)0, launch(function("assert"), self->b, NULL));
	expect_poisoned(CUDA_ERROR_ASSERT, self->b);
}

TEST_F(driver, errors_that_are_injected)
{
	CUdeviceptr p;

	OK(cuMemAlloc(&p, 1));
	s->gpu[0].sticky = CUDA_ERROR_ECC_UNCORRECTABLE;
	/* until there is work, nobody knows */
	OK(cuCtxSynchronize());
	cu.cuMemsetD8Async(p, 1, 1, self->a);
	expect_poisoned(CUDA_ERROR_ECC_UNCORRECTABLE, self->a);
}

TEST_F(driver, a_launch_that_fails)
{
	s->gpu[0].sticky = CUDA_ERROR_LAUNCH_FAILED;
	ASSERT_EQ((CUresult)0, launch(function("nop"), self->a, NULL));
	expect_poisoned(CUDA_ERROR_LAUNCH_FAILED, self->a);
}

TEST_F(driver, a_gpu_that_is_lost)
{
	CUcontext ctx;

	block(self->a);
	s->gpu[0].lost = 1;
	/* who waits for it is let go */
	expect_poisoned(CUDA_ERROR_DEVICE_UNAVAILABLE, self->a);
	EXPECT_EQ((CUresult)CUDA_ERROR_DEVICE_UNAVAILABLE, cu.cuDevicePrimaryCtxRetain(&ctx, 0));
	/* and one that has no work */
	OK(cuDevicePrimaryCtxRetain(&ctx, 1));
	OK(cuCtxSetCurrent(ctx));
	s->gpu[1].lost = 1;
	EXPECT_EQ((CUresult)CUDA_ERROR_DEVICE_UNAVAILABLE,
		  cu.cuMemGetInfo(&(size_t){0}, &(size_t){0}));
}

TEST_F(driver, the_nth_call_fails)
{
	struct standin_fn *f = &s->fn[STANDIN_cuMemAlloc];
	CUdeviceptr p;

	f->fail_rc = CUDA_ERROR_OUT_OF_MEMORY;
	f->fail_in = 3;
	OK(cuMemAlloc(&p, 1));
	OK(cuMemAlloc(&p, 1));
	EXPECT_EQ((CUresult)CUDA_ERROR_OUT_OF_MEMORY, cu.cuMemAlloc(&p, 1));
	OK(cuMemAlloc(&p, 1));
	EXPECT_EQ(4u, f->calls);
}

/* Graphs. */

TEST_F(driver, graphs)
{
	unsigned char host = 0;
	CUgraphExec exec;
	CUdeviceptr p;
	CUgraph g;
	CUevent e;
	int state;
	size_t n = 1;
	float one = 1, x = 0;
	CUdeviceptr px = upload(&x, sizeof(x)), pone = upload(&one, sizeof(one));
	void *params[] = {&px, &pone, &n};

	OK(cuMemAlloc(&p, 1));
	OK(cuMemsetD8(p, 1, 1));
	OK(cuEventCreate(&e, 0));
	OK(cuStreamBeginCapture(self->a, 0));
	OK(cuStreamIsCapturing(self->a, &state));
	EXPECT_EQ(1, state);
	OK(cuMemsetD8Async(p, 2, 1, self->a));
	ASSERT_EQ((CUresult)0, launch(function("add"), self->a, params));
	OK(cuEventRecord(e, self->a));
	OK(cuStreamWaitEvent(self->a, e, 0));
	EXPECT_EQ((CUresult)CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
		  cu.cuStreamWaitEvent(self->b, e, 0));
	OK(cuStreamEndCapture(self->a, &g));
	/* nothing of it has been done */
	OK(cuCtxSynchronize());
	OK(cuMemcpyDtoH(&host, p, 1));
	EXPECT_EQ(1, host);
	OK(cuGraphInstantiateWithFlags(&exec, g, 0));
	OK(cuGraphDestroy(g));
	for (int i = 0; i < 3; i++)
		OK(cuGraphLaunch(exec, self->b));
	OK(cuStreamSynchronize(self->b));
	OK(cuMemcpyDtoH(&host, p, 1));
	EXPECT_EQ(2, host);
	OK(cuMemcpyDtoH(&x, px, sizeof(x)));
	EXPECT_TRUE(x == 3);
	OK(cuGraphExecDestroy(exec));
	OK(cuEventDestroy(e));
}

TEST_F(driver, a_capture_that_somebody_waits_for)
{
	CUgraph g = (CUgraph)self;

	OK(cuStreamBeginCapture(self->a, 0));
	EXPECT_EQ((CUresult)CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cu.cuStreamSynchronize(self->a));
	EXPECT_EQ((CUresult)CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
		  cu.cuStreamEndCapture(self->a, &g));
	EXPECT_FALSE(g);
	EXPECT_EQ((CUresult)CUDA_ERROR_ILLEGAL_STATE, cu.cuStreamEndCapture(self->a, &g));
	OK(cuStreamSynchronize(self->a));
}

TEST_MAIN
