/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/gpu/emulate_faults.h"

#define THREADS 64

static float given[4 * THREADS + 4] __attribute__((aligned(16)));

static float *out_of(void *const *params)
{
	return *(float **)params[0];
}

/* Every thread copies 16 bytes and reads those of its neighbour. */
static void copy(void *const *params, bool commit, bool wait, bool barrier)
{
	PST_SHARED(float, shared);
	unsigned int t = threadIdx.x;

	given[4 * t] = (float)t;
	cp_async16(shared_at(shared + 4 * t), given + 4 * t, 16);
	if (commit)
		cp_async_commit();
	if (wait)
		cp_async_wait<0>();
	if (barrier)
		__syncthreads();
	out_of(params)[t] = shared[4 * ((t + 1) % THREADS)];
	if (!wait)
		cp_async_wait<0>();
}

void fault_none(void *const *params)
{
	copy(params, true, true, true);
}

void fault_no_wait(void *const *params)
{
	copy(params, true, false, true);
}

void fault_no_barrier_after_wait(void *const *params)
{
	copy(params, true, true, false);
}

void fault_never_waited(void *const *params)
{
	copy(params, false, true, true);
}

void fault_barrier_skipped(void *const *)
{
	if (threadIdx.x)
		__syncthreads();
}

void fault_barriers_differ(void *const *)
{
	if (threadIdx.x < 32)
		__syncthreads();
	else
		__syncthreads();
}

void fault_lane_missing(void *const *params)
{
	if (threadIdx.x != 5)
		out_of(params)[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

void fault_warps_differ(void *const *params)
{
	if (threadIdx.x % 2)
		out_of(params)[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
	else
		__syncwarp();
}

void fault_shared_unwritten(void *const *params)
{
	PST_SHARED(float, shared);

	out_of(params)[threadIdx.x] = shared[threadIdx.x];
}

void fault_static_shared_unwritten(void *const *params)
{
	__shared__ float shared[THREADS];

	out_of(params)[threadIdx.x] = shared[threadIdx.x];
	shared[threadIdx.x] = 1;
}

void fault_load_unaligned(void *const *params)
{
	out_of(params)[threadIdx.x] = load16(given + 1).x;
}

void fault_copy_unaligned(void *const *)
{
	PST_SHARED(float, shared);

	cp_async16(shared_at(shared) + 8, given, 16);
}

void fault_copy_beyond_shared(void *const *)
{
	PST_SHARED(float, shared);

	cp_async16(shared_at(shared + 4 * THREADS), given, 16);
}

void fault_write_beyond_shared(void *const *)
{
	PST_SHARED(float, shared);

	((volatile float *)shared)[4 * THREADS] = 1;
}

void fault_copy4_unaligned(void *const *)
{
	PST_SHARED(float, shared);

	cp_async4(shared_at(shared) + 2, given, 4);
}

void fault_load8_unaligned(void *const *params)
{
	uint32_t r[2];

	load8(r, given + 1);
	out_of(params)[threadIdx.x] = __uint_as_float(r[0]);
}

void fault_shared8_unaligned(void *const *params)
{
	PST_SHARED(float, shared);
	uint32_t r[2];

	load_shared8(r, shared_at(shared + 1));
	out_of(params)[threadIdx.x] = __uint_as_float(r[0]);
}

void fault_shared16_beyond(void *const *params)
{
	PST_SHARED(float, shared);
	uint32_t r[4];

	load_shared16(r, shared_at(shared + 4 * THREADS));
	out_of(params)[threadIdx.x] = __uint_as_float(r[0]);
}

/* e4m3 on a GPU that knows nothing of it. */
void fault_no_fp8(void *const *params)
{
	emulate_fp8(0);
	out_of(params)[threadIdx.x] = (float)fp8x2_of(1, 2);
}
