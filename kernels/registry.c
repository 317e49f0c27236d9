/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel serves which op on this CPU. */
#include "kernels/op.h"
#include "kernels/cpu/cpu.h"
#include "kernels/ref/ref.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

/* clang-format off */
#define REF_KERNEL(name, ret, args) .name = pst_ref_f32_##name,
static const struct pst_ops ref_ops = {.kernels = "ref", PST_OPS(REF_KERNEL, float)};
#undef REF_KERNEL
/* clang-format on */

static const struct pst_ops *cpu_ops;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
/* An op with no line in PST_AVX2_OPS keeps its reference. */
#define AVX2_KERNEL(name) .name = pst_avx2_##name,
static struct pst_ops avx2_ops = {.kernels = "avx2", PST_AVX2_OPS(AVX2_KERNEL)};
#undef AVX2_KERNEL

/* Both halves: the CPU decodes AVX2 and FMA, and the kernel saves the wide registers. */
static bool has_avx2(void)
{
	unsigned int a, b, c, d, low, high;
	const unsigned int need = bit_FMA | bit_OSXSAVE | bit_AVX;

	if (!__get_cpuid(1, &a, &b, &c, &d) || (c & need) != need)
		return false;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	if ((low & 6) != 6)
		return false;
	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}
#endif

static void choose(void)
{
	const char *want = getenv("PENSTOCK_KERNELS");

	cpu_ops = &ref_ops;
	if (want && !strcmp(want, "ref"))
		return;
#if defined(__x86_64__)
	if (!has_avx2())
		return;
#define FALL_TO_REF(name, ret, args) avx2_ops.name = avx2_ops.name ?: ref_ops.name;
	PST_OPS(FALL_TO_REF, float)
#undef FALL_TO_REF
	cpu_ops = &avx2_ops;
#endif
}

const struct pst_ops *pst_ops_ref(void)
{
	return &ref_ops;
}

const struct pst_ops *pst_ops_cpu(void)
{
	pthread_once(&once, choose);
	return cpu_ops;
}
