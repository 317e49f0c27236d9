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
#define AN_OP(...)
#define DECLARE(name, args, ...) void name args;
PST_CUDA_KERNELS(AN_OP, DECLARE)
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

/* What an argument is, as emulate_signature() says it. */
template <class T> struct letter {
	static const char is = sizeof(T) == 8 ? 'z' : 'i';
	static const bool list = false;
};
template <> struct letter<float> {
	static const char is = 'f';
	static const bool list = false;
};
template <class T> struct letter<T *> {
	static const char is = 'p';
	static const bool list = false;
};
template <class T> struct letter<T *const *> {
	static const char is = 'p';
	static const bool list = true;
};

struct kernel {
	emulate_fn *call;
	const char *signature;
	uint32_t lists;
};

template <class... A> static kernel entry(emulate_fn *call, void (*)(A...))
{
	static const char letters[] = {letter<A>::is..., '\0'};
	static const bool is_list[] = {letter<A>::list...};
	kernel k = {call, letters, 0};

	for (size_t i = 0; i < sizeof...(A); i++)
		k.lists |= (uint32_t)is_list[i] << i;
	return k;
}

#define ENTRY(name, ...) entry(call_##name, name),
static const kernel table[] = {PST_CUDA_KERNELS(ENTRY, ENTRY)};

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
	emulate_kernel_as(k, &l, params);
	return 0;
}

extern "C" void emulate_kernel_as(enum pst_cuda_kernel k, const struct pst_cuda_launch *l,
				  void *const *params)
{
	emulate_launch(table[k].call, l, params);
}

extern "C" const char *emulate_signature(enum pst_cuda_kernel k, uint32_t *lists)
{
	*lists = table[k].lists;
	return table[k].signature;
}
