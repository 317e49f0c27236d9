/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a GPU on the stand-in driver, where every call of the driver fails once. */
#include "selftests/gpu/device.h"

static int record_one(void *ctx, enum pst_gpu_stream stream, uint64_t bucket, struct pst_error *e)
{
	(void)bucket;
	return pst_gpu_launch(((void **)ctx)[0], stream, ((void **)ctx)[1], &one_block, NULL, e);
}

struct life {
	struct pst_gpu *gpu;
	struct pst_gpu_module *m;
	struct pst_gpu_kernel *k;
	struct pst_gpu_copies *c;
	struct pst_gpu_event *e, *f;
	struct pst_gpu_graphs *g;
	unsigned char *host;
	bool registered;
	uint64_t block, mapped;
	int fd;
};

static int live(struct life *l)
{
	static const char image[] = STANDIN_IMAGE "\nnop nop\n";
	const struct pst_gpu_shape overlapped = {
		.grid = {1, 1, 1}, .block = {32, 1, 1}, .overlap = true};
	const struct pst_gpu_options o = {
		.size = sizeof(o), .arena = MIB, .chunk = 4096, .patience_ms = 2000};
	void *ctx[2];
	uint64_t offset;
	float ms;
	int rc;

#define DO(call)                   \
	do {                       \
		rc = (call);       \
		if (rc < 0)        \
			return rc; \
	} while (0)
	DO(pst_gpu_open(0, &o, &l->gpu, &err));
	DO(pst_gpu_alloc(l->gpu, 8192, 4096, &l->block, &err));
	DO(pst_gpu_register(l->gpu, l->host, 8192, 0, -1, &err));
	l->registered = true;
	DO(pst_gpu_host_address(l->gpu, l->host, &l->mapped, &err));
	DO(pst_gpu_copies_new(l->gpu, 4, &l->c, &err));
	DO(pst_gpu_copies_add(l->c, l->block, (uintptr_t)l->host, 100, &err));
	DO(pst_gpu_copies_send(l->c, PST_GPU_IN, &err));
	DO(pst_gpu_copies_add(l->c, l->block, (uintptr_t)l->host, 8192, &err));
	DO(pst_gpu_copies_send(l->c, PST_GPU_IN, &err));
	DO(pst_gpu_event_new(l->gpu, true, &l->e, &err));
	DO(pst_gpu_event_new(l->gpu, true, &l->f, &err));
	DO(pst_gpu_event_record(l->e, PST_GPU_IN, &err));
	DO(pst_gpu_event_await(l->e, PST_GPU_COMPUTE, &err));
	DO(pst_gpu_module_load(l->gpu, image, sizeof(image), &l->m, &err));
	DO(pst_gpu_kernel(l->m, "nop", 100000, &l->k, &err));
	DO(pst_gpu_launch(l->gpu, PST_GPU_COMPUTE, l->k, &one_block, NULL, &err));
	DO(pst_gpu_launch(l->gpu, PST_GPU_COMPUTE, l->k, &overlapped, NULL, &err));
	DO(pst_gpu_graphs_new(l->gpu, 1, &l->g, &err));
	ctx[0] = l->gpu;
	ctx[1] = l->k;
	DO(pst_gpu_graph_launch(l->g, PST_GPU_COMPUTE, 1, record_one, ctx, &err));
	DO(pst_gpu_graph_launch(l->g, PST_GPU_COMPUTE, 2, record_one, ctx, &err));
	DO(pst_gpu_event_record(l->f, PST_GPU_COMPUTE, &err));
	DO(pst_gpu_event_wait(l->f, MS, &err));
	DO(pst_gpu_event_come(l->e, &err));
	DO(pst_gpu_event_ms(l->e, l->f, &ms, &err));
	DO(pst_gpu_dmabuf(l->gpu, l->block, 8192, &l->fd, &offset, &err));
	DO(pst_gpu_wait(l->gpu, PST_GPU_COMPUTE, MS, &err));
	return 0;
}

static int end_life(struct life *l)
{
	int rc = 0, closed;

	pst_gpu_graphs_free(l->g);
	pst_gpu_module_unload(l->m);
	pst_gpu_event_free(l->f);
	pst_gpu_event_free(l->e);
	pst_gpu_copies_free(l->c);
	if (l->registered)
		rc = pst_gpu_unregister(l->gpu, l->host, &err);
	if (l->fd >= 0)
		close(l->fd);
	closed = pst_gpu_close(l->gpu, &err);
	return rc ? rc : closed;
}

/* Whose failure nobody needs to hear of: it undoes, or has another way. */
static bool may_be_silent(int fn)
{
	static const int silent[] = {
		STANDIN_cuStreamDestroy,
		STANDIN_cuEventDestroy,
		STANDIN_cuMemFree,
		STANDIN_cuMemHostUnregister,
		STANDIN_cuModuleUnload,
		STANDIN_cuGraphExecDestroy,
		STANDIN_cuGraphDestroy,
		STANDIN_cuCtxGetStreamPriorityRange,
		STANDIN_cuDriverGetVersion,
		STANDIN_cuCtxSetCurrent,
		STANDIN_cuDeviceGetAttribute,
	};

	for (size_t i = 0; i < sizeof(silent) / sizeof(*silent); i++)
		if (silent[i] == fn)
			return true;
	return false;
}

/* What was not undone is there, of course. */
static bool undoes(int fn)
{
	return fn == STANDIN_cuStreamDestroy || fn == STANDIN_cuEventDestroy ||
	       fn == STANDIN_cuMemFree || fn == STANDIN_cuMemHostUnregister ||
	       fn == STANDIN_cuModuleUnload || fn == STANDIN_cuGraphExecDestroy ||
	       fn == STANDIN_cuGraphDestroy || fn == STANDIN_cuDevicePrimaryCtxRelease ||
	       fn == STANDIN_cuStreamEndCapture;
}

static void check_failure(int fn, unsigned int n, CUresult injected, int rc)
{
	if (rc >= 0 && may_be_silent(fn))
		return;
	if (rc >= 0 || !strstr(err.text, pst_cuda_error_name(injected))) {
		/* refusals of some calls have sentences of their own */
		if (rc < 0 && fn == STANDIN_cuDeviceGetAttribute && err.text[0])
			return;
		test_say(__FILE__, __LINE__, "call %d, time %u: %d, \"%s\"", fn, n, rc, err.text);
		test_failed = true;
	}
}

enum { REACHED = 0, WRONG = 1, NOT_REACHED = 2 };

/* In a process of its own: the driver is opened once. */
static int one_failure(int fn, unsigned int n, CUresult injected)
{
	struct life l = {.fd = -1};
	int rc, closed;

	test_failed = false;
	use_standin(1);
	l.host = host_memory(8192, PROT_READ | PROT_WRITE);
	s->fn[fn].fail_rc = injected;
	s->fn[fn].fail_in = n;
	rc = live(&l);
	closed = end_life(&l);
	if (s->fn[fn].fail_in) {
		if (rc || closed)
			test_say(__FILE__, __LINE__, "call %d: %d, %d: %s", fn, rc, closed,
				 err.text);
		return rc || closed ? WRONG : NOT_REACHED;
	}
	check_failure(fn, n, injected, rc < 0 ? rc : closed);
	if (!undoes(fn) && !pst_cuda_error_stays(injected))
		expect_nothing_left();
	return test_failed ? WRONG : REACHED;
}

/* Each time of each call, until there is no such time; how many there were. */
static int every_failure(CUresult injected)
{
	int failures = 0, status;

	for (int fn = STANDIN_cuInit; fn < STANDIN_CALLS; fn++) {
		for (unsigned int n = 1;; n++) {
			pid_t pid = fork();

			if (!pid)
				_exit(one_failure(fn, n, injected));
			ASSERT_EQ(pid, waitpid(pid, &status, 0));
			if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_REACHED)
				break;
			failures++;
			if (!WIFEXITED(status) || WEXITSTATUS(status) != REACHED) {
				test_say(__FILE__, __LINE__, "call %d, time %u: status %x", fn, n,
					 status);
				test_failed = true;
				break;
			}
		}
	}
	return failures;
}

TEST(every_call_fails_once)
{
	/* each of the some forty calls that are made, some of them several times */
	EXPECT_GT(every_failure(CUDA_ERROR_OPERATING_SYSTEM), 60);
}

TEST(every_call_finds_a_dead_gpu_once)
{
	EXPECT_GT(every_failure(CUDA_ERROR_ILLEGAL_ADDRESS), 60);
}

TEST_MAIN
