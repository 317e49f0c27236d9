/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A kernel that stays, and answers the host without a launch: the host writes the next number into
 * pinned memory, one lane reads it there and writes it back beside it. And one that does nothing.
 *
 *	ring    the host's: the number that is asked
 *	answer  ours: the last number that was seen
 *	stop    the host's: not 0 ends it
 *
 * Each in a cache line of its own, so that no read of one side waits for a write of another.
 *
 * A read of host memory goes over PCIe, and a warp has nothing else to do: so it reads again at
 * once while the host rings often (@spin ns), and sleeps longer and longer between reads when it
 * does not, for the sake of power. @stop is read between sleeps and once in some hundred reads, as
 * it would double the time of each round. Whatever happens it ends when nobody rang for @limit ns:
 * a kernel that does not end can be ended by nobody.
 *
 * The driver's calls that wait for the whole device (allocating, loading, freeing) wait for this
 * kernel, too: all of that is done before it starts.
 */
#include <stdint.h>

#define LOOKS	   256	/* at @ring for one at @stop */
#define SLEEP_MOST 1024 /* ns */

static __device__ __forceinline__ uint32_t load_acquire(const uint32_t *p)
{
	uint32_t v;

	asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
	return v;
}

static __device__ __forceinline__ void store_release(uint32_t *p, uint32_t v)
{
	asm volatile("st.release.sys.global.u32 [%0], %1;" : : "l"(p), "r"(v) : "memory");
}

static __device__ __forceinline__ uint64_t now_ns()
{
	uint64_t t;

	asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
	return t;
}

/* How long to sleep after @quiet ns without a ring: an eighth of that. */
static __device__ __forceinline__ uint32_t pause_ns(uint64_t quiet, uint64_t spin)
{
	uint64_t ns = quiet / 8;

	if (quiet < spin)
		return 0;
	return ns < SLEEP_MOST ? (uint32_t)ns : SLEEP_MOST;
}

extern "C" __global__ void doorbell(const uint32_t *ring, uint32_t *answer, const uint32_t *stop,
				    size_t spin, size_t limit)
{
	uint64_t since = now_ns(), quiet = 0;
	uint32_t seen = 0, looks = 0;

	if (threadIdx.x || blockIdx.x)
		return;
	while (quiet < limit) {
		uint32_t n = load_acquire(ring), sleep;

		if (n != seen) {
			store_release(answer, n);
			seen = n;
			since = now_ns();
			continue;
		}
		quiet = now_ns() - since;
		sleep = pause_ns(quiet, spin);
		if (sleep)
			__nanosleep(sleep);
		if ((sleep || !(++looks % LOOKS)) && load_acquire(stop))
			break;
	}
}

extern "C" __global__ void nop()
{
}
