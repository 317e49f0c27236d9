/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels as a table of ops: each call is a launch, as emulate_table.h says. */
#include "selftests/gpu/kernels_ops.h"
#include "selftests/gpu/emulate_table.h"

#include <stdio.h>
#include <unistd.h>

static void run(enum pst_cuda_kernel k, void *const *params)
{
	int rc = emulate_kernel(k, params);

	if (!rc)
		return;
	printf("# no launch for %s: %d\n", pst_cuda_kernel_name(k), rc);
	fflush(stdout);
	_exit(1);
}

#define RUN(name, ...) run(PST_CUDA_##name, (void *[]){__VA_ARGS__})

static void run_rmsnorm(float *y, size_t ldy, float *rstd, const float *x, size_t ldx,
			const float *w, size_t rows, size_t cols, float eps)
{
	RUN(rmsnorm, &y, &ldy, &rstd, &x, &ldx, &w, &rows, &cols, &eps);
}

static void run_rmsnorm_dx(float *dx, size_t lddx, const float *dy, size_t lddy, const float *x,
			   size_t ldx, const float *w, const float *rstd, size_t rows, size_t cols)
{
	RUN(rmsnorm_dx, &dx, &lddx, &dy, &lddy, &x, &ldx, &w, &rstd, &rows, &cols);
}

static void run_rmsnorm_dw(float *dw, const float *dy, size_t lddy, const float *x, size_t ldx,
			   const float *rstd, size_t rows, size_t cols)
{
	RUN(rmsnorm_dw, &dw, &dy, &lddy, &x, &ldx, &rstd, &rows, &cols);
}

static void run_rope(float *x, size_t ldx, size_t rows, size_t dim, const int32_t *pos,
		     const float *cos_t, const float *sin_t, int inverse)
{
	RUN(rope, &x, &ldx, &rows, &dim, &pos, &cos_t, &sin_t, &inverse);
}

static void run_swiglu(float *a, const float *g, const float *u, size_t n)
{
	RUN(swiglu, &a, &g, &u, &n);
}

static void run_swiglu_bwd(float *dg, float *du, float *a, const float *da, const float *g,
			   const float *u, size_t n)
{
	RUN(swiglu_bwd, &dg, &du, &a, &da, &g, &u, &n);
}

static void run_gate_topk(int32_t *idx, float *w, float *score, const float *logit,
			  const float *bias, size_t rows, size_t e, size_t k, size_t n_group,
			  size_t topk_group, int norm, float scale)
{
	RUN(gate_topk, &idx, &w, &score, &logit, &bias, &rows, &e, &k, &n_group, &topk_group, &norm,
	    &scale);
}

static void run_gate_bwd(float *dlogit, const float *dw, const int32_t *idx, const float *score,
			 const float *coef, size_t rows, size_t e, size_t k, int norm, float scale)
{
	RUN(gate_bwd, &dlogit, &dw, &idx, &score, &coef, &rows, &e, &k, &norm, &scale);
}

static float run_balance(float *coef, const int32_t *idx, const float *score, size_t rows, size_t e,
			 size_t k, float alpha)
{
	float value = 0.0f / 0.0f, *to = &value;

	RUN(balance, &to, &coef, &idx, &score, &rows, &e, &k, &alpha);
	return value;
}

static void run_xent(float *loss, float *logit, size_t ld, const int32_t *target, size_t rows,
		     size_t vocab, float scale)
{
	RUN(xent, &loss, &logit, &ld, &target, &rows, &vocab, &scale);
}

static void run_embed(float *y, const float *table, const int32_t *id, size_t rows, size_t cols)
{
	RUN(embed, &y, &table, &id, &rows, &cols);
}

static void run_embed_bwd(float *dtable, size_t ldt, const float *dy, size_t lddy,
			  const int32_t *id, size_t rows, size_t vocab, size_t cols)
{
	RUN(embed_bwd, &dtable, &ldt, &dy, &lddy, &id, &rows, &vocab, &cols);
}

static void run_gather(float *y, const float *x, const int32_t *idx, size_t rows, size_t cols)
{
	RUN(gather, &y, &x, &idx, &rows, &cols);
}

static void run_combine(float *y, const float *x, const float *w, const int32_t *slot,
			size_t tokens, size_t k, size_t cols, int acc)
{
	RUN(combine, &y, &x, &w, &slot, &tokens, &k, &cols, &acc);
}

static void run_combine_dw(float *dw, const float *dy, const float *x, const int32_t *slot,
			   size_t tokens, size_t k, size_t cols)
{
	RUN(combine_dw, &dw, &dy, &x, &slot, &tokens, &k, &cols);
}

static void run_scatter_scaled(float *dx, const float *dy, const float *w, const int32_t *slot,
			       size_t tokens, size_t k, size_t cols)
{
	RUN(scatter_scaled, &dx, &dy, &w, &slot, &tokens, &k, &cols);
}

static void run_add(float *y, const float *x, size_t n)
{
	RUN(add, &y, &x, &n);
}

static double run_sumsq(const float *x, size_t n)
{
	double value = 0.0 / 0.0, *to = &value;

	RUN(sumsq, &to, &x, &n);
	return value;
}

static void run_adamw(float *w, float *m, float *v, float *out, const float *g, size_t n, float lr,
		      float b1, float b2, float eps, float wd, float bc1, float bc2, float gscale)
{
	RUN(adamw, &w, &m, &v, &out, &g, &n, &lr, &b1, &b2, &eps, &wd, &bc1, &bc2, &gscale);
}

static void run_adamw_bf16(float *w, float *m, float *v, uint16_t *out, const float *g, size_t n,
			   float lr, float b1, float b2, float eps, float wd, float bc1, float bc2,
			   float gscale)
{
	RUN(adamw_bf16, &w, &m, &v, &out, &g, &n, &lr, &b1, &b2, &eps, &wd, &bc1, &bc2, &gscale);
}

static void run_to_bf16(uint16_t *y, const float *x, size_t n)
{
	RUN(to_bf16, &y, &x, &n);
}

static void run_from_bf16(float *y, const uint16_t *x, size_t n)
{
	RUN(from_bf16, &y, &x, &n);
}

static void run_gemm(int ta, int tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
		     const float *b, size_t ldb, float *c, size_t ldc, int acc)
{
	RUN(gemm, &ta, &tb, &m, &n, &k, &a, &lda, &b, &ldb, &c, &ldc, &acc);
}

static void run_gemm_bf16(int ta, int tb, size_t m, size_t n, size_t k, const float *a, size_t lda,
			  const uint16_t *b, size_t ldb, float *c, size_t ldc, int acc)
{
	RUN(gemm_bf16, &ta, &tb, &m, &n, &k, &a, &lda, &b, &ldb, &c, &ldc, &acc);
}

static void run_attn(float *o, size_t ldo, float *lse, const float *q, size_t ldq, const float *k,
		     size_t ldk, const float *v, size_t ldv, size_t tq, size_t tk, size_t dqk,
		     size_t dv, float scale)
{
	RUN(attn, &o, &ldo, &lse, &q, &ldq, &k, &ldk, &v, &ldv, &tq, &tk, &dqk, &dv, &scale);
}

static void run_attn_bwd(float *dq, size_t lddq, float *dk, size_t lddk, float *dv, size_t lddv,
			 const float *o, size_t ldo, const float *dout, size_t lddo,
			 const float *lse, const float *q, size_t ldq, const float *k, size_t ldk,
			 const float *v, size_t ldv, size_t t, size_t dqk, size_t dvdim,
			 float scale)
{
	RUN(attn_bwd, &dq, &lddq, &dk, &lddk, &dv, &lddv, &o, &ldo, &dout, &lddo, &lse, &q, &ldq,
	    &k, &ldk, &v, &ldv, &t, &dqk, &dvdim, &scale);
}

const struct pst_ops kernels_ops = {.kernels = "cuda",
#define ENTRY(name, ...) .name = run_##name,
				    PST_CUDA_OPS(ENTRY)};
