/* SPDX-License-Identifier: Apache-2.0 */
/* What is launched for the ops of a compute but attention's. */
#include "runtime/device/compute_gpu_priv.h"

const enum pst_cuda_kernel pst_gpu_dense_kernels[] = {
	PST_CUDA_add,
	PST_CUDA_attn_heads,
	PST_CUDA_attn_heads_delta,
	PST_CUDA_attn_heads_dkv,
	PST_CUDA_attn_heads_dq,
	PST_CUDA_balance,
	PST_CUDA_copy_heads,
	PST_CUDA_embed,
	PST_CUDA_embed_bwd,
	PST_CUDA_gate_bwd,
	PST_CUDA_gate_topk,
	PST_CUDA_gemm,
	PST_CUDA_rmsnorm,
	PST_CUDA_rmsnorm_dw,
	PST_CUDA_rmsnorm_dx,
	PST_CUDA_rope_heads,
	PST_CUDA_sum_heads,
	PST_CUDA_swiglu,
	PST_CUDA_swiglu_bwd,
	PST_CUDA_xent,
};
const size_t pst_gpu_dense_count = sizeof(pst_gpu_dense_kernels) / sizeof(*pst_gpu_dense_kernels);

void pst_gpu_gemm(struct pst_compute_gpu *g, int ta, int tb, size_t m, size_t n, size_t k,
		  const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
		  int acc)
{
	PST_GPU_RUN(g, gemm, &ta, &tb, &m, &n, &k, &a, &lda, &b, &ldb, &c, &ldc, &acc);
}

void pst_gpu_add(struct pst_compute_gpu *g, float *y, const float *x, size_t n)
{
	PST_GPU_RUN(g, add, &y, &x, &n);
}

void pst_gpu_linear(struct pst_compute *c, struct pst_linear l, size_t rows, float *y, size_t ldy,
		    const float *x, size_t ldx)
{
	pst_gpu_gemm(pst_gpu_of(c), 0, 1, rows, l.out, l.in, x, ldx, l.w, l.in, y, ldy, 0);
}

void pst_gpu_linear_dx(struct pst_compute *c, struct pst_linear l, size_t rows, float *dx,
		       size_t lddx, const float *dy, size_t lddy, bool acc)
{
	pst_gpu_gemm(pst_gpu_of(c), 0, 0, rows, l.in, l.out, dy, lddy, l.w, l.in, dx, lddx, acc);
}

void pst_gpu_linear_dw(struct pst_compute *c, struct pst_linear l, size_t rows, float *dw,
		       const float *dy, size_t lddy, const float *x, size_t ldx, bool acc)
{
	pst_gpu_gemm(pst_gpu_of(c), 1, 0, l.out, l.in, rows, dy, lddy, x, ldx, dw, l.in, acc);
}

void pst_gpu_norm(struct pst_compute *c, const struct pst_norm *norm, float *y)
{
	struct pst_norm n = *norm;

	PST_GPU_RUN(pst_gpu_of(c), rmsnorm, &y, &n.cols, &n.rstd, &n.x, &n.ldx, &n.w, &n.rows,
		    &n.cols, &n.eps);
}

void pst_gpu_norm_bwd(struct pst_compute *c, const struct pst_norm *norm, float *dx, size_t lddx,
		      float *dw, float *sum, const float *dy)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	struct pst_norm n = *norm;

	PST_GPU_RUN(g, rmsnorm_dw, &dw, &dy, &n.cols, &n.x, &n.ldx, &n.rstd, &n.rows, &n.cols);
	PST_GPU_RUN(g, rmsnorm_dx, &dx, &lddx, &dy, &n.cols, &n.x, &n.ldx, &n.w, &n.rstd, &n.rows,
		    &n.cols);
	if (sum) /* dx has no gaps then */
		pst_gpu_add(g, sum, dx, n.rows * n.cols);
}

void pst_gpu_sum(struct pst_compute *c, float *y, const float *a, const float *b, size_t n)
{
	if (y != a)
		pst_gpu_copy(pst_gpu_of(c), y, a, n);
	pst_gpu_add(pst_gpu_of(c), y, b, n);
}

/* The sum over no terms. */
void pst_gpu_zero(struct pst_compute *c, float *y, size_t n)
{
	pst_gpu_gemm(pst_gpu_of(c), 0, 0, 1, n, 0, NULL, 0, NULL, n, y, n, 0);
}

void pst_gpu_embed(struct pst_compute *c, float *y, const float *table, const int32_t *id,
		   size_t rows, size_t cols)
{
	PST_GPU_RUN(pst_gpu_of(c), embed, &y, &table, &id, &rows, &cols);
}

void pst_gpu_embed_bwd(struct pst_compute *c, float *dtable, const float *dy, const int32_t *id,
		       size_t rows, size_t vocab, size_t cols)
{
	PST_GPU_RUN(pst_gpu_of(c), embed_bwd, &dtable, &cols, &dy, &cols, &id, &rows, &vocab,
		    &cols);
}

/* One network: @kept and scratch have all of g, then all of u */

static void gate_up(struct pst_compute_gpu *g, const struct pst_mlp_job *j, float *to)
{
	size_t n = j->rows * j->inter;

	pst_gpu_gemm(g, 0, 1, j->rows, j->inter, j->hidden, j->x, j->hidden, j->gate, j->hidden, to,
		     j->inter, 0);
	pst_gpu_gemm(g, 0, 1, j->rows, j->inter, j->hidden, j->x, j->hidden, j->up, j->hidden,
		     to + n, j->inter, 0);
}

void pst_gpu_net(struct pst_compute *c, const struct pst_mlp_job *j, float *scratch)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	size_t n = j->rows * j->inter;
	float *at = j->kept ? j->kept : scratch, *u = at + n, *a = scratch;

	gate_up(g, j, at);
	PST_GPU_RUN(g, swiglu, &a, &at, &u, &n);
	pst_gpu_gemm(g, 0, 1, j->rows, j->hidden, j->inter, a, j->inter, j->down, j->inter, j->y,
		     j->hidden, 0);
}

void pst_gpu_net_bwd(struct pst_compute *c, const struct pst_mlp_job *j, float *scratch)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	size_t n = j->rows * j->inter, rows = j->rows, hidden = j->hidden, inter = j->inter;
	float *dg = scratch, *du = dg + n, *a = du + n, *kept = j->kept, *u;

	if (!kept || !j->have_kept) {
		gate_up(g, j, dg);
		kept = dg;
	}
	u = kept + n;
	pst_gpu_gemm(g, 0, 0, rows, inter, hidden, j->dy, hidden, j->down, inter, a, inter, 0);
	PST_GPU_RUN(g, swiglu_bwd, &dg, &du, &a, &a, &kept, &u, &n);
	pst_gpu_gemm(g, 0, 0, rows, hidden, inter, dg, inter, j->gate, hidden, j->dx, hidden, 0);
	pst_gpu_gemm(g, 0, 0, rows, hidden, inter, du, inter, j->up, hidden, j->dx, hidden, 1);
	pst_gpu_gemm(g, 1, 0, inter, hidden, rows, dg, inter, j->x, hidden, j->dgate, hidden, 0);
	pst_gpu_gemm(g, 1, 0, inter, hidden, rows, du, inter, j->x, hidden, j->dup, hidden, 0);
	pst_gpu_gemm(g, 1, 0, hidden, inter, rows, j->dy, hidden, a, inter, j->ddown, inter, 0);
}

static void xent(struct pst_compute_gpu *g, const struct pst_xent *x, size_t first, size_t rows,
		 float *logit, float scale)
{
	const int32_t *target = x->target + first;
	float *loss = x->loss + first;
	size_t vocab = x->vocab;

	PST_GPU_RUN(g, xent, &loss, &logit, &vocab, &target, &rows, &vocab, &scale);
}

/* Of copies, as many rows at a time as there is room for. */
void pst_gpu_loss(struct pst_compute *c, const struct pst_xent *x)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	size_t some = pst_xent_spare(x->rows);

	for (size_t first = 0; first < x->rows; first += some) {
		size_t rows = x->rows - first < some ? x->rows - first : some;

		pst_gpu_copy(g, x->spare, x->logit + first * x->vocab, rows * x->vocab);
		xent(g, x, first, rows, x->spare, 1);
	}
}

void pst_gpu_loss_bwd(struct pst_compute *c, const struct pst_xent *x, float scale)
{
	xent(pst_gpu_of(c), x, 0, x->rows, x->logit, scale);
}

void pst_gpu_gate(struct pst_compute *c, const struct pst_gate *gate)
{
	struct pst_gate t = *gate;
	size_t rows = t.batch * t.seq;
	int norm = t.norm;

	PST_GPU_RUN(pst_gpu_of(c), gate_topk, &t.expert, &t.weight, &t.score, &t.logit, &t.bias,
		    &rows, &t.experts, &t.topk, &t.n_group, &t.topk_group, &norm, &t.scale);
}

void pst_gpu_balance(struct pst_compute *c, const struct pst_gate *t, float *loss, float alpha)
{
	size_t seq = t->seq, e = t->experts, k = t->topk;

	for (size_t s = 0; s < t->batch; s++) {
		float *to = loss + s, *coef = t->coef + s * e;
		const float *score = t->score + s * seq * e;
		const int32_t *expert = t->expert + s * seq * k;

		PST_GPU_RUN(pst_gpu_of(c), balance, &to, &coef, &expert, &score, &seq, &e, &k,
			    &alpha);
	}
}

/* Rows of a sequence share their coef; without it they are all the same. */
void pst_gpu_gate_bwd(struct pst_compute *c, const struct pst_gate *t, const float *dweight)
{
	size_t seq = t->coef ? t->seq : t->batch * t->seq, e = t->experts, k = t->topk;
	size_t n = t->coef ? t->batch : 1;
	float scale = t->scale;
	int norm = t->norm;

	for (size_t s = 0; s < n; s++) {
		const float *dw = dweight + s * seq * k, *score = t->score + s * seq * e;
		const float *coef = t->coef ? t->coef + s * e : NULL;
		const int32_t *expert = t->expert + s * seq * k;
		float *to = t->logit + s * seq * e;

		PST_GPU_RUN(pst_gpu_of(c), gate_bwd, &to, &dw, &expert, &score, &coef, &seq, &e, &k,
			    &norm, &scale);
	}
}
