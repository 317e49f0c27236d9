/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gpu_cublas.c - cuBLASLt by dlopen: the ceilings of bf16 and fp8 products, and experts one product
 * after the other, as who has no grouped kernel does them.
 *
 * Prototypes and numbers are facts of docs.nvidia.com/cuda/cublas, "Using the cuBLASLt API"; its
 * header is not needed. It works column by column, so a row-major C = A B is given as C' = B' A'.
 */
#include "selftests/bench/gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	COMPUTE_32F = 68,
	R_32F = 0,
	R_16BF = 14,
	R_8F_E4M3 = 28,
	DESC_TRANSA = 3,
	DESC_TRANSB = 4,
	OP_T = 1
};
enum { PREF_MAX_WORKSPACE = 1 };
#define WORKSPACE ((size_t)32 << 20)
#define PEAK	  8192

struct algo {
	uint64_t algo[8];
	size_t workspace;
	int state;
	float waves;
	int reserved[4];
};

/* clang-format off */
#define CALLS(CALL) \
	CALL(Create, (void **handle)) \
	CALL(MatmulDescCreate, (void **desc, int compute, int scale)) \
	CALL(MatmulDescSetAttribute, (void *desc, int which, const void *from, size_t len)) \
	CALL(MatmulDescDestroy, (void *desc)) \
	CALL(MatrixLayoutCreate, (void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld)) \
	CALL(MatrixLayoutDestroy, (void *layout)) \
	CALL(MatmulPreferenceCreate, (void **pref)) \
	CALL(MatmulPreferenceSetAttribute, (void *pref, int which, const void *from, size_t len)) \
	CALL(MatmulPreferenceDestroy, (void *pref)) \
	CALL(MatmulAlgoGetHeuristic, (void *handle, void *desc, void *a, void *b, void *c, void *d, \
		void *pref, int want, struct algo *to, int *found)) \
	CALL(Matmul, (void *handle, void *desc, const void *alpha, const void *a, void *la, \
		const void *b, void *lb, const void *beta, const void *c, void *lc, void *d, void *ld, \
		const struct algo *algo, void *workspace, size_t len, CUstream stream))
/* clang-format on */

struct cublas {
	void *handle;
	CUdeviceptr workspace;
#define MEMBER(name, args) int(*name) args;
	CALLS(MEMBER)
};

/* C [m, n] row-major = op(A) op(B), sum over k; how it is done is looked up once. */
struct plan {
	void *desc, *left, *right, *to;
	struct algo algo;
};

static bool find_calls(struct cublas *c, void *lib)
{
#define FIND(name, args)                                   \
	*(void **)&c->name = dlsym(lib, "cublasLt" #name); \
	if (!c->name)                                      \
		return false;
	CALLS(FIND)
	return true;
}

struct cublas *cublas_open(struct bench *b, char *why, size_t len)
{
	static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12",
					    "/usr/local/cuda/lib64/libcublasLt.so"};
	static struct cublas found;
	void *lib = NULL;

	for (int i = 0; i < 3 && !lib; i++)
		lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
	if (!lib || !find_calls(&found, lib)) {
		snprintf(why, len,
			 "there is no libcublasLt.so.12 or .13; install the CUDA toolkit");
		return NULL;
	}
	if (b->gpu.cu->cuMemAlloc(&found.workspace, WORKSPACE) || found.Create(&found.handle)) {
		snprintf(why, len, "cuBLASLt does not start on this GPU");
		return NULL;
	}
	return &found;
}

static void forget(struct cublas *c, struct plan *p)
{
	if (p->desc)
		c->MatmulDescDestroy(p->desc);
	if (p->left)
		c->MatrixLayoutDestroy(p->left);
	if (p->right)
		c->MatrixLayoutDestroy(p->right);
	if (p->to)
		c->MatrixLayoutDestroy(p->to);
	*p = (struct plan){0};
}

static bool choose(struct cublas *c, struct plan *p)
{
	size_t workspace = WORKSPACE;
	void *pref = NULL;
	int found = 0;

	if (c->MatmulPreferenceCreate(&pref))
		return false;
	if (!c->MatmulPreferenceSetAttribute(pref, PREF_MAX_WORKSPACE, &workspace,
					     sizeof(workspace)))
		c->MatmulAlgoGetHeuristic(c->handle, p->desc, p->left, p->right, p->to, p->to, pref,
					  1, &p->algo, &found);
	c->MatmulPreferenceDestroy(pref);
	return found > 0 && !p->algo.state;
}

/* A is [m, k] ([k, m] if @ta), B [k, n] ([n, k] if @tb): the library's first operand is B. */
static bool prepare(struct cublas *c, struct plan *p, bool ta, bool tb, size_t m, size_t n,
		    size_t k, int from, int to)
{
	int left = tb ? OP_T : 0, right = ta ? OP_T : 0;
	size_t ldb = tb ? k : n, lda = ta ? m : k;

	*p = (struct plan){0};
	if (!c->MatmulDescCreate(&p->desc, COMPUTE_32F, R_32F) &&
	    !c->MatmulDescSetAttribute(p->desc, DESC_TRANSA, &left, sizeof(left)) &&
	    !c->MatmulDescSetAttribute(p->desc, DESC_TRANSB, &right, sizeof(right)) &&
	    !c->MatrixLayoutCreate(&p->left, from, ldb, tb ? n : k, (int64_t)ldb) &&
	    !c->MatrixLayoutCreate(&p->right, from, lda, ta ? k : m, (int64_t)lda) &&
	    !c->MatrixLayoutCreate(&p->to, to, n, m, (int64_t)n) && choose(c, p))
		return true;
	forget(c, p);
	return false;
}

static int multiply(struct bench *b, const struct plan *p, CUdeviceptr left, CUdeviceptr right,
		    CUdeviceptr to, float keep)
{
	const float one = 1;
	struct cublas *c = b->cublas;

	return c->Matmul(c->handle, p->desc, &one, (void *)(uintptr_t)right, p->left,
			 (void *)(uintptr_t)left, p->right, &keep, (void *)(uintptr_t)to, p->to,
			 (void *)(uintptr_t)to, p->to, &p->algo, (void *)(uintptr_t)c->workspace,
			 WORKSPACE, b->gpu.stream);
}

/* The ceiling. */

struct square {
	struct plan plan;
	CUdeviceptr a, b, c;
};

static int run_square(struct bench *b, void *arg)
{
	const struct square *s = arg;

	return multiply(b, &s->plan, s->a, s->b, s->c, 0);
}

double cublas_peak(struct bench *b, bool fp8)
{
	struct square s;
	double took = -1;

	bench_forget(b);
	s.a = fp8 ? bench_quarters(b, (size_t)PEAK * PEAK) : bench_halves(b, (size_t)PEAK * PEAK);
	s.b = fp8 ? bench_quarters(b, (size_t)PEAK * PEAK) : bench_halves(b, (size_t)PEAK * PEAK);
	s.c = bench_take(b, (size_t)PEAK * PEAK * 2);
	if (!b->full && prepare(b->cublas, &s.plan, false, true, PEAK, PEAK, PEAK,
				fp8 ? R_8F_E4M3 : R_16BF, R_16BF)) {
		took = bench_time(b, run_square, &s);
		forget(b->cublas, &s.plan);
	}
	return took > 0 ? 2.0 * PEAK * PEAK * PEAK / took : 0;
}

/* Experts. */

struct experts {
	const struct bench_work *w;
	struct plan plan[BENCH_EXPERTS];
};

static bool prepare_one(struct cublas *c, struct plan *p, const struct bench_work *w, size_t rows)
{
	switch (w->form) {
	case UP: /* x gate', x up' */
		return prepare(c, p, false, true, rows, w->inter, w->hidden, R_16BF, R_16BF);
	case DOWN: /* a down' */
		return prepare(c, p, false, true, rows, w->hidden, w->inter, R_16BF, R_16BF);
	case DA: /* dy down */
		return prepare(c, p, false, false, rows, w->inter, w->hidden, R_16BF, R_16BF);
	case DX: /* dg gate + du up */
		return prepare(c, p, false, false, rows, w->hidden, w->inter, R_16BF, R_16BF);
	case DW: /* dg' x */
		return prepare(c, p, true, false, w->inter, w->hidden, rows, R_16BF, R_32F);
	default:
		return false;
	}
}

static int run_experts(struct bench *b, void *arg)
{
	const struct experts *e = arg;
	const struct bench_work *w = e->w;
	bool twice = w->form == UP || w->form == DX;
	size_t in = w->form == UP || w->form == DA ? w->hidden : w->inter, first = 0;
	size_t out = w->form == UP || w->form == DA ? w->inter : w->hidden;
	size_t matrix = w->hidden * w->inter;
	int rc = 0;

	for (size_t i = 0; i < w->n && !rc; first += (size_t)w->group[i++]) {
		const struct plan *p = &e->plan[i];
		CUdeviceptr rows = w->a + first * in * 2, weight = w->b + i * matrix * 2;
		CUdeviceptr to = w->c + first * out * 2;

		if (!w->group[i])
			continue;
		if (w->form == DW) {
			weight = w->b + first * w->hidden * 2;
			to = w->c + i * matrix * 4;
		}
		rc = multiply(b, p, rows, weight, to, 0);
		/* the other weight; its product is added, or lies beside */
		if (!rc && twice)
			rc = multiply(b, p, rows, weight + w->n * matrix * 2,
				      w->form == UP ? to + w->rows * out * 2 : to,
				      w->form == UP ? 0 : 1);
	}
	return rc;
}

double cublas_experts(struct bench *b, const struct bench_work *w)
{
	static struct experts e;
	double took = -1;
	bool all = b->cublas && w->form != NO_FORM;

	e = (struct experts){.w = w};
	for (size_t i = 0; i < w->n && all; i++)
		all = !w->group[i] || prepare_one(b->cublas, &e.plan[i], w, (size_t)w->group[i]);
	if (all)
		took = bench_time(b, run_experts, &e);
	for (size_t i = 0; i < w->n && b->cublas; i++)
		forget(b->cublas, &e.plan[i]);
	return took;
}
