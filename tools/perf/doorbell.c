/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doorbell: how long it takes to have a GPU do something, three ways: a kernel that stays and looks
 * at pinned memory (kernels/cuda/doorbell.cu), a launch of one that does nothing, and a graph of
 * that. Each time is from the host's first step until the host sees that it is done.
 */
#include "tools/perf/gpu.h"

#include "rdma/fail.h"
#include "rdma/pause.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* In the shared memory, a cache line each. */
#define RING	 0
#define ANSWER	 256
#define STOP	 512
#define SPIN_NS	 1000000ull	/* the kernel reads without a pause for so long */
#define LIMIT_NS 20000000000ull /* and ends when nobody rang for so long */
#define LOOKS	 1024		/* at the answer for one at the clock */
#define ONE_MOST (64u << 20)	/* bytes of an image */

struct bell {
	struct perf_gpu g;
	const struct perf_plan *plan;
	CUfunction doorbell, nop;
	CUgraphExec graph;
	uint32_t *ring, *answer, *stop;
	CUdeviceptr at; /* of the memory, to the device */
	uint32_t number;
	bool runs;
};

typedef int round_fn(struct bell *b, struct pst_error *err);

/* Nobody answers: is the kernel there at all? */
static int no_answer(struct bell *b, struct pst_error *err)
{
	CUresult rc = b->g.cu->cuStreamQuery(b->g.stream[0]);

	if (rc == CUDA_ERROR_NOT_READY)
		return perf_gpu_late(&b->g, "the resident kernel has not answered", err);
	if (rc)
		return perf_gpu_result(&b->g, rc, "the resident kernel failed", err);
	return pst_fail(err, -EPROTO,
			"cuda:%d: the resident kernel has ended and not answered: the image is of "
			"another version; kernels/cuda/nvcc.sh builds it again",
			b->g.ordinal);
}

static int ring(struct bell *b, struct pst_error *err)
{
	uint64_t until = perf_ticks() + perf_ticks_of((double)b->g.wait_ms / 1e3);
	uint32_t n = ++b->number;

	__atomic_store_n(b->ring, n, __ATOMIC_RELEASE);
	for (;;) {
		for (int i = 0; i < LOOKS; i++) {
			if (__atomic_load_n(b->answer, __ATOMIC_ACQUIRE) == n)
				return 0;
			pst_pause();
		}
		if (perf_ticks() > until)
			return no_answer(b, err);
	}
}

static int launch_nop(struct bell *b, CUstream s)
{
	return b->g.cu->cuLaunchKernel(b->nop, 1, 1, 1, 32, 1, 1, 0, s, NULL, NULL);
}

static int launch(struct bell *b, struct pst_error *err)
{
	int rc = perf_gpu_result(&b->g, launch_nop(b, b->g.stream[1]), "launching a kernel", err);

	return rc ? rc : perf_gpu_wait(&b->g, b->g.stream[1], err);
}

static int launch_graph(struct bell *b, struct pst_error *err)
{
	int rc = perf_gpu_result(&b->g, b->g.cu->cuGraphLaunch(b->graph, b->g.stream[1]),
				 "launching a graph", err);

	return rc ? rc : perf_gpu_wait(&b->g, b->g.stream[1], err);
}

static int rounds(struct bell *b, round_fn *fn, uint64_t iters, uint64_t span, struct histogram *h,
		  uint64_t *took, struct pst_error *err)
{
	uint64_t first = perf_ticks(), before = first;
	int rc = 0;

	for (uint64_t i = 0; !rc && (span ? before - first < span : i < iters); i++) {
		uint64_t now;

		rc = fn(b, err);
		now = perf_ticks();
		if (!rc && h)
			histogram_record(h, now - before);
		before = h ? perf_ticks() : now;
	}
	*took = before - first;
	return rc;
}

static int one_way(struct bell *b, const char *name, round_fn *fn, struct perf_report *report,
		   struct pst_error *err)
{
	const struct perf_plan *plan = b->plan;
	uint64_t iters = perf_iterations(plan, sizeof(uint32_t)), took;
	uint64_t span = plan->duration > 0 ? perf_ticks_of(plan->duration) : 0;
	struct histogram *h = calloc(1, sizeof(*h));
	struct perf_row row;
	int rc;

	if (!h)
		return pst_fail(err, -ENOMEM, "out of memory");
	rc = rounds(b, fn, perf_warm_up(plan, iters), 0, NULL, &took, err);
	if (!rc)
		rc = rounds(b, fn, iters, span, h, &took, err);
	row = (struct perf_row){
		.bytes = sizeof(uint32_t),
		.iters = h->count,
		.seconds = perf_seconds(took),
		.halved = 1,
		.h = h,
		.label = name,
	};
	if (!rc)
		perf_report_row(report, &row);
	free(h);
	return rc;
}

/* All of @path, with a NUL behind it. */
static int read_image(const char *path, char **out, struct pst_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), rc = -EINVAL;
	struct stat st;
	char *image;

	if (fd < 0)
		return pst_fail(err, -errno, "--image %s: %s", path, strerror(errno));
	image = fstat(fd, &st) || st.st_size > ONE_MOST ? NULL : calloc(1, (size_t)st.st_size + 1);
	if (image && st.st_size > 4 && read(fd, image, (size_t)st.st_size) == st.st_size)
		rc = 0;
	close(fd);
	if (rc) {
		free(image);
		return pst_fail(err, rc, "--image %s: is no image that nvcc made", path);
	}
	*out = image;
	return 0;
}

static int load(struct bell *b, struct pst_error *err)
{
	const void *image = perf_doorbell_image();
	struct perf_gpu *g = &b->g;
	char *read = NULL;
	int rc = 0;

	if (b->plan->image) {
		rc = read_image(b->plan->image, &read, err);
		image = read;
	} else if (!image) {
		rc = pst_fail(err, -ENOEXEC,
			      "this penstock-perf was built without nvcc and has no kernel for "
			      "the GPU: build it with the CUDA toolkit, or name an image by "
			      "--image (kernels/cuda/nvcc.sh NVCC kernels/cuda/doorbell.cu FILE)");
	}
	if (!rc)
		rc = perf_gpu_result(g, g->cu->cuModuleLoadData(&g->module, image),
				     "loading its kernels", err);
	free(read);
	if (!rc)
		rc = perf_gpu_result(
			g, g->cu->cuModuleGetFunction(&b->doorbell, g->module, "doorbell"),
			"finding kernel doorbell", err);
	if (!rc)
		rc = perf_gpu_result(g, g->cu->cuModuleGetFunction(&b->nop, g->module, "nop"),
				     "finding kernel nop", err);
	if (!rc && g->cu->cuFuncLoad)
		rc = perf_gpu_result(g, g->cu->cuFuncLoad(b->doorbell), "loading kernel doorbell",
				     err);
	return rc;
}

static int make_graph(struct bell *b, struct pst_error *err)
{
	const struct pst_cuda *cu = b->g.cu;
	CUstream s = b->g.stream[1];
	CUgraph graph = NULL;
	CUresult launched;
	int rc = perf_gpu_result(&b->g,
				 cu->cuStreamBeginCapture(s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
				 "beginning to record a graph", err);

	if (rc)
		return rc;
	launched = launch_nop(b, s);
	rc = perf_gpu_result(&b->g, cu->cuStreamEndCapture(s, &graph), "recording a graph", err);
	if (!rc)
		rc = perf_gpu_result(&b->g, launched, "recording a launch", err);
	if (!rc)
		rc = perf_gpu_result(&b->g, cu->cuGraphInstantiateWithFlags(&b->graph, graph, 0),
				     "making a graph", err);
	if (graph)
		cu->cuGraphDestroy(graph);
	return rc;
}

/* Before the kernel that stays: what waits for the whole device would wait for it. */
static int set_up(struct bell *b, struct pst_error *err)
{
	struct perf_gpu *g = &b->g;
	int rc = load(b, err);

	if (!rc)
		rc = perf_gpu_memory(g, 4096, b->plan->page, 0, err);
	if (rc)
		return rc;
	b->ring = (uint32_t *)(g->host.at + RING);
	b->answer = (uint32_t *)(g->host.at + ANSWER);
	b->stop = (uint32_t *)(g->host.at + STOP);
	rc = perf_gpu_result(g, g->cu->cuMemHostGetDevicePointer(&b->at, g->host.at, 0),
			     "asking where it sees host memory", err);
	if (!rc)
		rc = make_graph(b, err);
	/* the first of each is slow */
	if (!rc)
		rc = launch(b, err);
	return rc ? rc : launch_graph(b, err);
}

static int start(struct bell *b, struct pst_error *err)
{
	CUdeviceptr at_ring = b->at + RING, at_answer = b->at + ANSWER, at_stop = b->at + STOP;
	size_t spin = SPIN_NS, limit = LIMIT_NS;
	void *params[] = {&at_ring, &at_answer, &at_stop, &spin, &limit};
	int rc = perf_gpu_result(&b->g,
				 b->g.cu->cuLaunchKernel(b->doorbell, 1, 1, 1, 32, 1, 1, 0,
							 b->g.stream[0], params, NULL),
				 "launching the resident kernel", err);

	b->runs = !rc;
	return rc;
}

static int stop(struct bell *b, struct pst_error *err)
{
	if (!b->runs)
		return 0;
	b->runs = false;
	__atomic_store_n(b->stop, 1, __ATOMIC_RELEASE);
	return perf_gpu_wait(&b->g, b->g.stream[0], err);
}

/* It is told to end also when nobody believes that it hears. */
static void tear_down(struct bell *b)
{
	struct pst_error ignored = {0};

	if (b->runs && stop(b, &ignored))
		b->g.stuck = true;
	else if (b->graph && !b->g.stuck)
		b->g.cu->cuGraphExecDestroy(b->graph);
	perf_gpu_close(&b->g);
}

int perf_run_doorbell(struct perf_plan *plan, struct perf_report *report, struct pst_error *err)
{
	struct bell b = {.plan = plan};
	int rc = perf_gpu_open(plan, &b.g, err);

	if (rc)
		return rc;
	rc = set_up(&b, err);
	if (!rc)
		perf_report_gpu(report, &b.g);
	if (!rc)
		rc = start(&b, err);
	if (!rc)
		rc = one_way(&b, "doorbell", ring, report, err);
	if (!rc)
		rc = stop(&b, err);
	if (!rc)
		rc = one_way(&b, "launch", launch, report, err);
	if (!rc)
		rc = one_way(&b, "graph", launch_graph, report, err);
	tear_down(&b);
	return rc;
}
