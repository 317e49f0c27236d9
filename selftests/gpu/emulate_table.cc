/* SPDX-License-Identifier: Apache-2.0 */
/* All kernels by number, launched as the driver would: name, arguments, and what cuda.h says. */
#include "selftests/gpu/emulate_table.h"
#include "kernels/op.h"

#include <utility>

extern "C" {
#define VOID_OP(name, ret, args) RETURNS_##ret(name, args)
#define RETURNS_void(name, args) void name args;
#define RETURNS_float(name, args)
#define RETURNS_double(name, args)
PST_OPS(VOID_OP, float)
void balance(float *out, float *coef, const int32_t *idx, const float *score, size_t rows, size_t e,
	     size_t k, float alpha);
void sumsq(double *out, const float *x, size_t n);
#define DECLARE(name, args, ...) void name args;
PST_CUDA_SUMSQ(DECLARE)
PST_CUDA_EXPERTS(DECLARE)
}

template <class... A, size_t... I>
static void call(void (*fn)(A...), void *const *params, std::index_sequence<I...>)
{
	fn(*(A *)params[I]...);
}

template <class... A> static void call(void (*fn)(A...), void *const *params)
{
	call(fn, params, std::index_sequence_for<A...>());
}

#define CALL_OP(name, ...)                           \
	static void call_##name(void *const *params) \
	{                                            \
		call(name, params);                  \
	}
PST_CUDA_KERNELS(CALL_OP, CALL_OP)

#define ENTRY(name, ...) call_##name,
static emulate_fn *const table[] = {PST_CUDA_KERNELS(ENTRY, ENTRY)};

/* The ops' blocks go on to what is left over, so any number of them will do. */
#define COUNT(...) +1
static const int ops = 0 PST_CUDA_OPS(COUNT);

static uint32_t few_blocks;
static unsigned int launches;

extern "C" void emulate_few_blocks(uint32_t most)
{
	few_blocks = most;
}

extern "C" int emulate_kernel(enum pst_cuda_kernel k, void *const *params)
{
	struct pst_cuda_launch l;
	int rc = pst_cuda_geometry(k, params, &l);

	if (rc)
		return rc;
	if (few_blocks && k < ops && l.grid[0] > few_blocks && ++launches % 2)
		l.grid[0] = few_blocks;
	emulate_launch(table[k], &l, params);
	return 0;
}
