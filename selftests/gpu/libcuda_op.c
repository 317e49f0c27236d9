/* SPDX-License-Identifier: Apache-2.0 */
/* What the stand-in's kernels do: the `ref` kernel of an op, or something that goes wrong. */
#include "kernels/op.h"
#include "selftests/gpu/libcuda.h"
#include "selftests/gpu/libcuda_attn.h"
#include "selftests/gpu/libcuda_engine.h"
#include "selftests/gpu/libcuda_experts.h"
#include "selftests/gpu/libcuda_quant.h"

#include <sched.h>
#include <string.h>
#include <time.h>

/* Argument @i of a launch: a pointer, as it is here, or a value. */
#define P(i) (p[i])
#define Z(i) ((size_t)v[i])
#define I(i) ((int)v[i])
#define F(i) (as_float(v[i]))

static float as_float(uint64_t v)
{
	uint32_t bits = (uint32_t)v;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#define OP(name, ...)                                             \
	static void run_##name(void *const *p, const uint64_t *v) \
	{                                                         \
		(void)v;                                          \
		pst_ops_ref()->name(__VA_ARGS__);                 \
	}
#define OP_TO(type, name, ...)                                    \
	static void run_##name(void *const *p, const uint64_t *v) \
	{                                                         \
		*(type *)P(0) = pst_ops_ref()->name(__VA_ARGS__); \
	}

/* clang-format off */
OP(gemm, I(0), I(1), Z(2), Z(3), Z(4), P(5), Z(6), P(7), Z(8), P(9), Z(10), I(11))
OP(gemm_bf16, I(0), I(1), Z(2), Z(3), Z(4), P(5), Z(6), P(7), Z(8), P(9), Z(10), I(11))
OP(rmsnorm, P(0), Z(1), P(2), P(3), Z(4), P(5), Z(6), Z(7), F(8))
OP(rmsnorm_dx, P(0), Z(1), P(2), Z(3), P(4), Z(5), P(6), P(7), Z(8), Z(9))
OP(rmsnorm_dw, P(0), P(1), Z(2), P(3), Z(4), P(5), Z(6), Z(7))
OP(rope, P(0), Z(1), Z(2), Z(3), P(4), P(5), P(6), I(7))
OP(attn, P(0), Z(1), P(2), P(3), Z(4), P(5), Z(6), P(7), Z(8), Z(9), Z(10), Z(11), Z(12), F(13))
OP(attn_bwd, P(0), Z(1), P(2), Z(3), P(4), Z(5), P(6), Z(7), P(8), Z(9), P(10), P(11), Z(12),
   P(13), Z(14), P(15), Z(16), Z(17), Z(18), Z(19), F(20))
OP(swiglu, P(0), P(1), P(2), Z(3))
OP(swiglu_bwd, P(0), P(1), P(2), P(3), P(4), P(5), Z(6))
OP(gate_topk, P(0), P(1), P(2), P(3), P(4), Z(5), Z(6), Z(7), Z(8), Z(9), I(10), F(11))
OP(gate_bwd, P(0), P(1), P(2), P(3), P(4), Z(5), Z(6), Z(7), I(8), F(9))
OP_TO(float, balance, P(1), P(2), P(3), Z(4), Z(5), Z(6), F(7))
OP(xent, P(0), P(1), Z(2), P(3), Z(4), Z(5), F(6))
OP(embed, P(0), P(1), P(2), Z(3), Z(4))
OP(embed_bwd, P(0), Z(1), P(2), Z(3), P(4), Z(5), Z(6), Z(7))
OP(gather, P(0), P(1), P(2), Z(3), Z(4))
OP(combine, P(0), P(1), P(2), P(3), Z(4), Z(5), Z(6), I(7))
OP(combine_dw, P(0), P(1), P(2), P(3), Z(4), Z(5), Z(6))
OP(scatter_scaled, P(0), P(1), P(2), P(3), Z(4), Z(5), Z(6))
OP(add, P(0), P(1), Z(2))
OP_TO(double, sumsq, P(1), Z(2))
OP(adamw, P(0), P(1), P(2), P(3), P(4), Z(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13))
OP(adamw_bf16, P(0), P(1), P(2), P(3), P(4), Z(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12),
   F(13))
OP(to_bf16, P(0), P(1), Z(2))
OP(from_bf16, P(0), P(1), Z(2))

/*
 * kernels/cuda/doorbell.cu: answers what rings, until it is told to stop or has heard nothing for
 * as long as it may wait.
 */
static void run_doorbell(void *const *p, const uint64_t *v)
{
	const _Atomic uint32_t *ring = p[0], *stop = p[2];
	_Atomic uint32_t *answer = p[1];
	uint64_t limit = v[4], since = now_ns();
	uint32_t seen = 0, n;

	while (!*stop && now_ns() - since < limit) {
		n = *ring;
		if (n == seen) {
			sched_yield();
			continue;
		}
		seen = n;
		*answer = n;
		since = now_ns();
	}
}

static const struct cuda_op ops[] = {
	{"add", "ppz", run_add},
	{"adamw", "pppppzffffffff", run_adamw},
	{"adamw_bf16", "pppppzffffffff", run_adamw_bf16},
	{"attn", "pzppzpzpzzzzzf", run_attn},
	{"attn_bwd", "pzpzpzpzpzppzpzpzzzzf", run_attn_bwd},
	CUDA_ATTN_OPS,
	{"balance", "ppppzzzf", run_balance},
	{"combine", "ppppzzzi", run_combine},
	{"combine_dw", "ppppzzz", run_combine_dw},
	{"doorbell", "pppzz", run_doorbell},
	{"embed", "pppzz", run_embed},
	{"embed_bwd", "pzpzpzzz", run_embed_bwd},
	CUDA_EXPERTS_OPS,
	{"from_bf16", "ppz", run_from_bf16},
	{"gate_bwd", "pppppzzzif", run_gate_bwd},
	{"gate_topk", "pppppzzzzzif", run_gate_topk},
	{"gather", "pppzz", run_gather},
	{"gemm", "iizzzpzpzpzi", run_gemm},
	{"gemm_bf16", "iizzzpzpzpzi", run_gemm_bf16},
	CUDA_ENGINE_OPS,
	CUDA_MLA_OPS,
	CUDA_QUANT_OPS,
	{"rmsnorm", "pzppzpzzf", run_rmsnorm},
	{"rmsnorm_dw", "ppzpzpzz", run_rmsnorm_dw},
	{"rmsnorm_dx", "pzpzpzppzz", run_rmsnorm_dx},
	{"rope", "pzzzpppi", run_rope},
	{"scatter_scaled", "ppppzzz", run_scatter_scaled},
	{"sumsq", "ppz", run_sumsq},
	{"swiglu", "pppz", run_swiglu},
	{"swiglu_bwd", "ppppppz", run_swiglu_bwd},
	{"to_bf16", "ppz", run_to_bf16},
	{"xent", "ppzpzzf", run_xent},
	/* what goes wrong, with any arguments */
	{"assert", NULL, NULL},
	{"fault", NULL, NULL},
	{"hang", NULL, NULL},
	{"nop", NULL, NULL},
};
/* clang-format on */

const struct cuda_op *cuda_op(const char *name)
{
	for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	return NULL;
}

static uint32_t go_wrong(const struct task *t)
{
	const char *how = t->op->name;

	while (!strcmp(how, "hang") && !t->gpu->g->release && !t->gpu->g->lost)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	if (!strcmp(how, "assert"))
		return CUDA_ERROR_ASSERT;
	return !strcmp(how, "fault") ? CUDA_ERROR_ILLEGAL_ADDRESS : 0;
}

/* An address that is NULL is the op's to judge; any other must be somewhere now. */
uint32_t cuda_op_run(struct task *t)
{
	void *p[CUDA_PARAMS] = {NULL};
	const char *params = t->op->params;
	uint32_t rc = 0;

	cuda.s->launches++;
	if (!t->op->run) {
		cuda.s->running++;
		rc = go_wrong(t);
		cuda.s->running--;
		return rc;
	}
	pthread_mutex_lock(&cuda.lock);
	for (int i = 0; params[i]; i++) {
		if (params[i] != 'p' || !t->param[i])
			continue;
		p[i] = cuda_at_kernel(t->gpu, t->param[i]);
		if (!p[i])
			rc = CUDA_ERROR_ILLEGAL_ADDRESS;
	}
	pthread_mutex_unlock(&cuda.lock);
	cuda.s->running++;
	if (!rc)
		t->op->run(p, t->param);
	cuda.s->running--;
	return rc;
}
