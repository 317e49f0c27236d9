/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ptx.h - all PTX that the kernels use, one instruction a function.
 *
 * Each function is what the PTX ISA says of its instruction. nvcc gets the instruction; any other
 * C++ compiler gets none, and whoever runs the kernels without a GPU supplies the same functions
 * from the same definitions (selftests/gpu/emulate.h). So kernels hold no asm of their own, and
 * what is proved of them without a GPU stands on the definitions here.
 *
 * Addresses of shared memory are 32 bit, as PTX has them: shared_at() makes one.
 */
#ifndef PST_CUDA_PTX_H
#define PST_CUDA_PTX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

/* The launch's dynamic shared memory, begun on 16 bytes. One in a file: a name has one type. */
#define PST_SHARED(type, name) extern __shared__ __align__(16) type name[]

static __device__ __forceinline__ uint32_t shared_at(const void *p)
{
	return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes from a 16-byte boundary, to one. */
static __device__ __forceinline__ float4 load16(const void *p)
{
	return *(const float4 *)p;
}

static __device__ __forceinline__ void store16(void *p, float4 v)
{
	*(float4 *)p = v;
}

/* 8 bytes from an 8-byte boundary. */
static __device__ __forceinline__ void load8(uint32_t r[2], const void *p)
{
	uint2 v = *(const uint2 *)p;

	r[0] = v.x, r[1] = v.y;
}

/* What is read once need not push out of L2 what is read again. */
static __device__ __forceinline__ uint64_t evict_first(void)
{
	uint64_t policy;

	asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
	return policy;
}

/*
 * 16 bytes on their way from global @from to shared @to, both on 16-byte boundaries; only the
 * first @n of them are read, 0 or 16, the rest is zero. There when this thread has waited.
 */
static __device__ __forceinline__ void cp_async16(uint32_t to, const void *from, uint32_t n)
{
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
		     :
		     : "r"(to), "l"(__cvta_generic_to_global(from)), "r"(n)
		     : "memory");
}

static __device__ __forceinline__ void cp_async16_hint(uint32_t to, const void *from, uint32_t n,
						       uint64_t policy)
{
	asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2, %3;"
		     :
		     : "r"(to), "l"(__cvta_generic_to_global(from)), "r"(n), "l"(policy)
		     : "memory");
}

/* The same of 4 bytes on 4-byte boundaries; @n is 0 or 4. */
static __device__ __forceinline__ void cp_async4(uint32_t to, const void *from, uint32_t n)
{
	asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
		     :
		     : "r"(to), "l"(__cvta_generic_to_global(from)), "r"(n)
		     : "memory");
}

/* All that this thread began since the last commit is one group. */
static __device__ __forceinline__ void cp_async_commit(void)
{
	asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All groups of this thread have come but for the last @N; other threads see it after a barrier. */
template <int N> static __device__ __forceinline__ void cp_async_wait(void)
{
	asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* 8 and 16 bytes of shared memory, on such boundaries. */
static __device__ __forceinline__ void load_shared8(uint32_t r[2], uint32_t at)
{
	asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
		     : "=r"(r[0]), "=r"(r[1])
		     : "r"(at)
		     : "memory");
}

static __device__ __forceinline__ void load_shared16(uint32_t r[4], uint32_t at)
{
	asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"(at)
		     : "memory");
}

/*
 * Four 8 x 8 matrices of 16 bit. Lane l gives the address of row l % 8 of matrix l / 8, and gets
 * of each matrix, in r[matrix], elements 2 (l % 4) and the next of row l / 4.
 */
static __device__ __forceinline__ void ldmatrix(uint32_t r[4], uint32_t row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"(row)
		     : "memory");
}

/* The same of the transposed matrices: column l / 4, rows 2 (l % 4) and the next. */
static __device__ __forceinline__ void ldmatrix_trans(uint32_t r[4], uint32_t row)
{
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
		     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
		     : "r"(row)
		     : "memory");
}

/*
 * D[16,8] += A[16,16] B[16,8], bf16 in, fp32 sums. With q = lane / 4, p = 2 (lane % 4), and the
 * lower half of a register first:
 *	a[0] A[q][p..p+1]   a[1] A[q+8][p..]   a[2] A[q][p+8..]   a[3] A[q+8][p+8..]
 *	b0   B[p..p+1][q]   b1   B[p+8..][q]
 *	d[0..1] D[q][p..p+1]   d[2..3] D[q+8][p..]
 */
static __device__ __forceinline__ void mma_bf16(float d[4], const uint32_t a[4], uint32_t b0,
						uint32_t b1)
{
	asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
	    "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
	    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two bf16 in a register: @a * @b + @c, rounded once; numbers below the normal ones count. */
static __device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c)
{
	uint32_t d;

	asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
	return d;
}

/* Byte i of the result is the byte of @a (0 .. 3) or @b (4 .. 7) that nibble i of @which names. */
static __device__ __forceinline__ uint32_t bytes_of(uint32_t a, uint32_t b, uint32_t which)
{
	return __byte_perm(a, b, which);
}

/* Has the target, sm_89 or later, instructions for e4m3? Those here must not run elsewhere. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
static __device__ __forceinline__ bool has_fp8(void)
{
	return true;
}

/* @low and @high to e4m3 in the lower 16 bits: nearest, ties to even, saturated; NaN is 0x7f. */
static __device__ __forceinline__ uint32_t fp8x2_of(float low, float high)
{
	uint16_t d;

	asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(d) : "f"(high), "f"(low));
	return d;
}

/*
 * D[16,8] += A[16,32] B[32,8], e4m3 in, fp32 sums. With q = lane / 4, p = 4 (lane % 4), and the
 * lowest byte of a register first:
 *	a[0] A[q][p..p+3]   a[1] A[q+8][p..]   a[2] A[q][p+16..]   a[3] A[q+8][p+16..]
 *	b0   B[p..p+3][q]   b1   B[p+16..][q]
 * and D as mma_bf16() has it.
 */
static __device__ __forceinline__ void mma_e4m3(float d[4], const uint32_t a[4], uint32_t b0,
						uint32_t b1)
{
	asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, "
	    "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
	    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
	    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
static __device__ __forceinline__ bool has_fp8(void)
{
	return false;
}

static __device__ __forceinline__ uint32_t fp8x2_of(float, float)
{
	return 0;
}

static __device__ __forceinline__ void mma_e4m3(float *, const uint32_t *, uint32_t, uint32_t)
{
}
#endif

/* Two floats as bf16, to nearest, ties to even, the first one below; a NaN stays one. */
static __device__ __forceinline__ uint32_t bf16_pair(float low, float high)
{
	uint32_t r;

	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
	return r;
}

#endif /* __CUDACC__ */

#endif /* PST_CUDA_PTX_H */
