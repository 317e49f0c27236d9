/* SPDX-License-Identifier: Apache-2.0 */
/* emulate_table.h by the driver: each launch on the GPU, in the memory of check_memory.h. */
#include "selftests/gpu/check_call.h"
#include "selftests/gpu/check_gpu.h"
#include "selftests/gpu/check_launch.h"
#include "selftests/gpu/check_memory.h"
#include "selftests/gpu/emulate_table.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* The ops' blocks go on to what is left over, so any number of them will do. */
#define COUNT(...) +1
static const enum pst_cuda_kernel ops = 0 PST_CUDA_OPS(COUNT);

static struct check_gpu gpu;
static bool *launched;
static uint32_t few_blocks;
static unsigned int launches;

/* Whatever went wrong may go on, so the process does not. */
__attribute__((noreturn)) static void end(enum pst_cuda_kernel k, void *const *params,
					  const char *what, CUresult rc)
{
	char call[400];

	check_call(k, params, call, sizeof(call));
	if (rc)
		printf("# %s: %s: %s (%u: %s)\n", call, what, pst_cuda_error_name(rc), rc,
		       pst_cuda_error_text(rc));
	else
		printf("# %s: %s\n", call, what);
	fflush(stdout);
	_exit(1);
}

static void open_once(enum pst_cuda_kernel k, void *const *params)
{
	int reach = 0;
	char why[500];

	if (gpu.stream)
		return;
	if (check_gpu_open(&gpu, why, sizeof(why)))
		end(k, params, why, 0);
	gpu.cu->cuDeviceGetAttribute(&reach, CU_DEVICE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
				     gpu.dev);
	if (!reach)
		end(k, params,
		    "this GPU has other addresses for host memory than the host, and "
		    "gpu-check needs the same; run it on Linux without a vGPU",
		    0);
}

static void expect_reachable(enum pst_cuda_kernel k, void *const *params)
{
	struct check_arg a;
	char what[160];

	for (int i = 0; !check_arg(k, i, &a); i++) {
		const void *at = a.kind == 'p' ? *(void *const *)params[i] : NULL;

		if (!at || check_memory_knows(at))
			continue;
		snprintf(what, sizeof(what),
			 "the test gives it %s in memory that a GPU does not reach "
			 "(emulate_table.h says which it does)",
			 a.name);
		end(k, params, what, 0);
	}
}

int emulate_kernel(enum pst_cuda_kernel k, void *const *params)
{
	struct pst_cuda_launch l;
	int geometry = pst_cuda_geometry(k, params, &l);
	CUresult rc;

	if (geometry)
		return geometry;
	open_once(k, params);
	if (few_blocks && k < ops && l.grid[0] > few_blocks && ++launches % 2)
		l.grid[0] = few_blocks;
	expect_reachable(k, params);
	rc = check_memory_register(gpu.cu);
	if (rc)
		end(k, params, "the host's memory cannot be registered with the GPU", rc);
	rc = check_gpu_launch(&gpu, k, &l, params);
	if (rc)
		end(k, params, "it cannot be launched", rc);
	launched[k] = true;
	rc = gpu.cu->cuStreamSynchronize(gpu.stream);
	if (rc)
		end(k, params, "it failed on the GPU", rc);
	return 0;
}

void emulate_few_blocks(uint32_t most)
{
	few_blocks = most;
}

void check_launch_begin(void)
{
	launched = mmap(NULL, PST_CUDA_KERNEL_COUNT, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (launched != MAP_FAILED)
		return;
	puts("# memory: there is none for what was launched");
	exit(1);
}

int check_launch_end(void)
{
	int missed = 0;

	for (int k = 0; k < PST_CUDA_KERNEL_COUNT; k++) {
		if (launched[k])
			continue;
		missed++;
		printf("# no test has launched %s\n",
		       pst_cuda_kernel_name((enum pst_cuda_kernel)k));
	}
	return missed;
}

/* A GPU has an order of its own. */
void emulate_seed(uint64_t seed)
{
	(void)seed;
}
