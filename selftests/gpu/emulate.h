/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emulate.h - CUDA kernels on the CPU, so that they can be tested without a GPU.
 *
 * The model: a source of kernels/cuda is compiled as C++ by the C compiler, with this header
 * before it. A launch runs its blocks one after the other; in a block every thread is a fiber,
 * which runs until it must wait for others: at a barrier, or at an instruction of its whole warp.
 * The order of blocks and of fibers is another one at each launch (emulate_seed()).
 *
 * What it shows: index arithmetic, the layouts of fragments and of shared memory, barriers,
 * numerics. What is wrong ends the process with one line that says what:
 *   - a thread that misses a barrier or a warp's instruction that others wait at, or that waits at
 *     another one than they do
 *   - an access of 16 bytes that is not on 16 bytes, or of 8 or 4 by ptx.h that is not on as many
 *   - an address of shared memory beyond the launch's (and a plain access there hits a page that
 *     cannot be touched)
 * Shared memory holds NaN until it is written, and so does what cp.async writes until its thread
 * has waited for it: whoever reads too early gets NaN, in some order at least. Accesses to global
 * memory are plain; whoever calls gives buffers that are guarded.
 *
 * What it does not show: anything of a GPU. Floats are the CPU's (expf() is not CUDA's), threads
 * do not run at once, memory is not weakly ordered, and time means nothing.
 *
 * Not at once: one launch at a time in a process.
 */
#ifndef PST_EMULATE_H
#define PST_EMULATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pst_cuda_launch;

/* A kernel that finds its arguments through pointers, as cuLaunchKernel() is given them. */
typedef void emulate_fn(void *const *params);

/* Runs @fn as launch @l says. */
void emulate_launch(emulate_fn *fn, const struct pst_cuda_launch *l, void *const *params);

/* Whether the GPU has instructions for e4m3, as it has at first: ptx.h, has_fp8(). */
void emulate_fp8(int has);

/* Orders from now on follow from @seed and from how many launches there were since. */
void emulate_seed(uint64_t seed);

#ifdef __cplusplus
}

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
/* Where emulate.cc finds it, to fill it with NaN before each block. */
#define __shared__	       static __attribute__((section("emulate_shared")))
#define PST_SHARED(type, name) type *name = (type *)emulate_shared()

struct uint3 {
	unsigned int x, y, z;
};
struct alignas(16) float4 {
	float x, y, z, w;
};

extern struct uint3 blockIdx, blockDim, gridDim;
extern struct uint3 threadIdx; /* of the fiber that runs */

unsigned char *emulate_shared(void);
/* The process ends here. */
[[noreturn]] void emulate_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void emulate_barrier(const char *file, int line);
/* @run sees what all lanes of the warp gave, when the last of them has. */
void emulate_warp(const char *what, void *lane, void (*run)(void *const lane[32]));

void emulate_cp_async(uint32_t to, const void *from, uint32_t n, uint32_t size);
void emulate_cp_async_commit(void);
void emulate_cp_async_wait(int but);

#define __syncthreads() emulate_barrier(__FILE__, __LINE__)

static inline void emulate_nothing(void *const lane[32])
{
	(void)lane;
}

static inline void __syncwarp(void)
{
	emulate_warp("__syncwarp", NULL, emulate_nothing);
}

/* Shuffles: @from says which lane's value lane @lane gets. */
template <class T, class FROM> struct emulate_shuffle {
	T value, got;
	int with;
	static void run(void *const lane[32])
	{
		for (int i = 0; i < 32; i++) {
			emulate_shuffle *to = (emulate_shuffle *)lane[i];
			int from = FROM::lane(i, to->with);

			to->got = ((emulate_shuffle *)lane[from & 31])->value;
		}
	}
	static T of(const char *what, uint32_t mask, T value, int with)
	{
		emulate_shuffle s = {value, value, with};

		if (mask != 0xffffffffu)
			emulate_fail("%s: only whole warps are emulated", what);
		emulate_warp(what, &s, run);
		return s.got;
	}
};

struct emulate_xor {
	static int lane(int i, int with)
	{
		return i ^ with;
	}
};

struct emulate_up {
	static int lane(int i, int with)
	{
		return i >= with ? i - with : i;
	}
};

struct emulate_from {
	static int lane(int, int with)
	{
		return with;
	}
};

template <class T> static inline T __shfl_xor_sync(uint32_t mask, T v, int with)
{
	return emulate_shuffle<T, emulate_xor>::of("__shfl_xor_sync", mask, v, with);
}

template <class T> static inline T __shfl_up_sync(uint32_t mask, T v, uint32_t with)
{
	return emulate_shuffle<T, emulate_up>::of("__shfl_up_sync", mask, v, (int)with);
}

template <class T> static inline T __shfl_sync(uint32_t mask, T v, int from)
{
	return emulate_shuffle<T, emulate_from>::of("__shfl_sync", mask, v, from);
}

uint32_t __ballot_sync(uint32_t mask, bool mine);

static inline int __popc(uint32_t x)
{
	return __builtin_popcount(x);
}

static inline int __ffs(int x)
{
	return __builtin_ffs(x);
}

static inline uint32_t __float_as_uint(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

static inline float __uint_as_float(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

/* Fibers do not interrupt each other. */
static inline unsigned int atomicAdd(unsigned int *at, unsigned int n)
{
	unsigned int old = *at;

	*at += n;
	return old;
}

static inline void emulate_aligned(const char *what, const void *p)
{
	if ((uintptr_t)p & 15)
		emulate_fail("%s: the address ends in %#x and not on 16 bytes", what,
			     (unsigned int)((uintptr_t)p & 15));
}

/* The functions of ptx.h, by the PTX ISA. */

static inline float4 load16(const void *p)
{
	float4 v;

	emulate_aligned("load16", p);
	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void store16(void *p, float4 v)
{
	emulate_aligned("store16", p);
	memcpy(p, &v, sizeof(v));
}

static inline void load8(uint32_t r[2], const void *p)
{
	if ((uintptr_t)p & 7)
		emulate_fail("load8: the address ends in %#x and not on 8 bytes",
			     (unsigned int)((uintptr_t)p & 7));
	memcpy(r, p, 8);
}

/* Not 0, so that an address cannot pass for an offset, or NULL for an address. */
#define EMULATE_SHARED_BASE 0x400u

static inline uint32_t shared_at(const void *p)
{
	return EMULATE_SHARED_BASE + (uint32_t)((const unsigned char *)p - emulate_shared());
}

static inline uint64_t evict_first(void)
{
	return 0x12f0000000000000ull;
}

static inline void cp_async16(uint32_t to, const void *from, uint32_t n)
{
	emulate_cp_async(to, from, n, 16);
}

static inline void cp_async4(uint32_t to, const void *from, uint32_t n)
{
	emulate_cp_async(to, from, n, 4);
}

static inline void cp_async16_hint(uint32_t to, const void *from, uint32_t n, uint64_t policy)
{
	if (policy != evict_first())
		emulate_fail("cp.async: %#llx is no cache policy", (unsigned long long)policy);
	emulate_cp_async(to, from, n, 16);
}

static inline void cp_async_commit(void)
{
	emulate_cp_async_commit();
}

template <int N> static inline void cp_async_wait(void)
{
	emulate_cp_async_wait(N);
}

void ldmatrix(uint32_t r[4], uint32_t row);
void ldmatrix_trans(uint32_t r[4], uint32_t row);
void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);

static inline uint32_t emulate_bf16(float f)
{
	uint32_t u = __float_as_uint(f);

	return f == f ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fff;
}

static inline uint32_t bf16_pair(float low, float high)
{
	return emulate_bf16(low) | emulate_bf16(high) << 16;
}
void load_shared8(uint32_t r[2], uint32_t at);
void load_shared16(uint32_t r[4], uint32_t at);
uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c);
uint32_t bytes_of(uint32_t a, uint32_t b, uint32_t which);
bool has_fp8(void);
/* What follows ends the process where has_fp8() says no. */
uint32_t fp8x2_of(float low, float high);
void mma_e4m3(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1);

#endif /* __cplusplus */

#endif /* PST_EMULATE_H */
