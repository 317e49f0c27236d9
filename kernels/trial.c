/* SPDX-License-Identifier: Apache-2.0 */
/* How each op is tried: its buffers, and its call. */
#include "kernels/trial.h"
#include "kernels/ref/gate.h"

#include <string.h>

enum { PAD = 3 }; /* between rows where an op takes the distance of rows */

static size_t one_at_least(size_t n)
{
	return n ? n : 1;
}

/* @want of [1, most] */
static size_t within(size_t want, size_t most)
{
	return want < 1 ? 1 : (want > most ? most : want);
}

static void try_gemm(struct trial *t)
{
	int ta = t->flags & 1, tb = t->flags >> 1 & 1, acc = t->flags >> 2 & 1;
	size_t lda = (ta ? t->m : t->k) + PAD, ldb = (tb ? t->k : t->n) + PAD, ldc = t->n + PAD;
	float *a = trial_in(t, ta ? t->k : t->m, ta ? t->m : t->k, lda, -2, 2);
	float *b = trial_in(t, tb ? t->n : t->k, tb ? t->k : t->n, ldb, -2, 2);
	float *c[NCOPIES];

	trial_out(t, c, t->m, t->n, ldc, -2, 2);
	BOTH(t, gemm, ta, tb, t->m, t->n, t->k, a, lda, b, ldb, c[s], ldc, acc);
}

static void try_gemm_bf16(struct trial *t)
{
	int ta = t->flags & 1, tb = t->flags >> 1 & 1, acc = t->flags >> 2 & 1;
	size_t lda = (ta ? t->m : t->k) + PAD, ldb = (tb ? t->k : t->n) + PAD, ldc = t->n + PAD;
	float *a = trial_in(t, ta ? t->k : t->m, ta ? t->m : t->k, lda, -2, 2);
	uint16_t *b = trial_in_bf16(t, tb ? t->n : t->k, tb ? t->k : t->n, ldb);
	float *c[NCOPIES];

	trial_out(t, c, t->m, t->n, ldc, -2, 2);
	BOTH(t, gemm_bf16, ta, tb, t->m, t->n, t->k, a, lda, b, ldb, c[s], ldc, acc);
}

/* Flag 1: in place. */
static void try_rmsnorm(struct trial *t)
{
	size_t n = one_at_least(t->n), ld = n + PAD;
	float *x = trial_in(t, t->m, n, ld, -2, 2), *w = trial_in(t, 1, n, n, -2, 2);
	float *y[NCOPIES], *rstd[NCOPIES];

	trial_out(t, y, t->m, n, ld, -2, 2);
	trial_out(t, rstd, 1, t->m, t->m, 0, 1);
	BOTH(t, rmsnorm, y[s], ld, rstd[s], t->flags ? y[s] : x, ld, w, t->m, n, 1e-6f);
}

/* rstd is not that of x, for then the terms of few columns would cancel. */
static void try_rmsnorm_dx(struct trial *t)
{
	size_t n = one_at_least(t->n), ld = n + PAD;
	float *x = trial_in(t, t->m, n, ld, -2, 2), *w = trial_in(t, 1, n, n, -2, 2);
	float *dy = trial_in(t, t->m, n, n, -2, 2), *rstd = trial_in(t, 1, t->m, t->m, .1f, 1);
	float *dx[NCOPIES];

	trial_out(t, dx, t->m, n, ld, -2, 2);
	BOTH(t, rmsnorm_dx, dx[s], ld, t->flags ? dx[s] : dy, t->flags ? ld : n, x, ld, w, rstd,
	     t->m, n);
}

static void try_rmsnorm_dw(struct trial *t)
{
	size_t ld = t->n + PAD;
	float *x = trial_in(t, t->m, t->n, ld, -2, 2), *rstd = trial_in(t, 1, t->m, t->m, .1f, 1);
	float *dy = trial_in(t, t->m, t->n, ld, -2, 2), *dw[NCOPIES];

	trial_out(t, dw, 1, t->n, t->n, -2, 2);
	BOTH(t, rmsnorm_dw, dw[s], dy, ld, x, ld, rstd, t->m, t->n);
}

static void try_rope(struct trial *t)
{
	size_t half = t->n / 2, dim = 2 * half, positions = one_at_least(t->k), ld = dim + PAD;
	float *co = trial_in(t, positions, half, half, -1, 1);
	float *si = trial_in(t, positions, half, half, -1, 1), *x[NCOPIES];
	int32_t *pos = trial_in_index(t, t->m, 0, positions);

	trial_out(t, x, t->m, dim, ld, -2, 2);
	BOTH(t, rope, x[s], ld, t->m, dim, pos, co, si, t->flags & 1);
}

/* Flag 1: more keys than queries. */
static void try_attn(struct trial *t)
{
	size_t tk = t->m + (t->flags ? t->k : 0), dqk = within(t->n, 256), dv = within(t->k, 256);
	float *q = trial_in(t, t->m, dqk, dqk + PAD, -2, 2);
	float *k = trial_in(t, tk, dqk, dqk + PAD, -2, 2);
	float *v = trial_in(t, tk, dv, dv + PAD, -2, 2), *o[NCOPIES], *lse[NCOPIES];

	trial_out(t, o, t->m, dv, dv + PAD, -2, 2);
	trial_out(t, lse, 1, t->m, t->m, -2, 2);
	BOTH(t, attn, o[s], dv + PAD, lse[s], q, dqk + PAD, k, dqk + PAD, v, dv + PAD, t->m, tk,
	     dqk, dv, 0.25f);
}

/* lse is the true one; o is not, for then the gradient of a single key would cancel. */
static void try_attn_bwd(struct trial *t)
{
	size_t n = t->m, dqk = within(t->n, 256), dv = within(t->k, 256), ldq = dqk + PAD,
	       ldv = dv + PAD;
	float *q = trial_in(t, n, dqk, ldq, -2, 2), *k = trial_in(t, n, dqk, ldq, -2, 2);
	float *v = trial_in(t, n, dv, ldv, -2, 2), *o = trial_in(t, n, dv, ldv, -2, 2);
	float *dout = trial_in(t, n, dv, ldv, -2, 2), *lse = trial_in(t, 1, n, n, 0, 1);
	float *dq[NCOPIES], *dk[NCOPIES], *dvalue[NCOPIES];

	trial_out(t, dq, n, dqk, ldq, -2, 2);
	trial_out(t, dk, n, dqk, ldq, -2, 2);
	trial_out(t, dvalue, n, dv, ldv, -2, 2);
	if (!t->rc && n) {
		pst_ops_ref()->attn(o, ldv, lse, q, ldq, k, ldq, v, ldv, n, n, dqk, dv, 0.25f);
		for (size_t i = 0; i < n; i++)
			memcpy(o + i * ldv, dout + (n - 1 - i) * ldv, dv * sizeof(*o));
	}
	BOTH(t, attn_bwd, dq[s], ldq, dk[s], ldq, dvalue[s], ldv, o, ldv, dout, ldv, lse, q, ldq, k,
	     ldq, v, ldv, n, dqk, dv, 0.25f);
}

/* Flags: a is g, a is u. */
static void try_swiglu(struct trial *t)
{
	size_t n = t->m * t->n;
	float *g = trial_in(t, 1, n, n, -9, 9), *u = trial_in(t, 1, n, n, -2, 2), *a[NCOPIES];

	trial_out(t, a, 1, n, n, -9, 9);
	BOTH(t, swiglu, a[s], t->flags == 1 ? a[s] : g, t->flags == 2 ? a[s] : u, n);
}

/* Flag: all in place. */
static void try_swiglu_bwd(struct trial *t)
{
	size_t n = t->m * t->n;
	float *g = trial_in(t, 1, n, n, -9, 9), *u = trial_in(t, 1, n, n, -2, 2);
	float *da = trial_in(t, 1, n, n, -2, 2), *dg[NCOPIES], *du[NCOPIES], *a[NCOPIES];

	trial_out(t, dg, 1, n, n, -9, 9);
	trial_out(t, du, 1, n, n, -2, 2);
	trial_out(t, a, 1, n, n, -2, 2);
	if (t->flags)
		BOTH(t, swiglu_bwd, dg[s], du[s], a[s], a[s], dg[s], du[s], n);
	else
		BOTH(t, swiglu_bwd, dg[s], du[s], a[s], da, g, u, n);
}

/*
 * Two scores that are almost equal may be ordered either way, so the choice and the weights are
 * judged by the kernel's own scores: they become the reference.
 */
static void own_choice(struct trial *t, int32_t *idx[], float *w[], float *score[],
		       const float *bias, size_t e, size_t k, size_t groups, float scale)
{
	for (size_t r = 0; r < t->m && !t->rc && !t->clock; r++) {
		for (size_t j = 0; j < k; j++) {
			int32_t i = idx[KERNEL][r * k + j];

			if (i < 0 || (size_t)i >= e || (j && i <= idx[KERNEL][r * k + j - 1])) {
				trial_disagrees(t,
						"gate_topk: row %zu chooses no %zu distinct "
						"experts of %zu in ascending order",
						r, k, e);
				return;
			}
		}
		pst_gate_choose(idx[REF] + r * k, score[KERNEL] + r * e, bias, e, k, groups,
				groups / 2);
		pst_gate_weigh(w[REF] + r * k, idx[REF] + r * k, score[KERNEL] + r * e, k,
			       t->flags & 1, scale);
	}
}

/* Flags: norm; groups; scores that tie. */
static void try_gate_topk(struct trial *t)
{
	size_t e = 4 * one_at_least(t->n), groups = t->flags & 2 ? 4 : 1;
	size_t k = within(t->k % 17, e / 2);
	float *logit = trial_in(t, t->m, e, e, -4, 4), *bias = trial_in(t, 1, e, e, -.1f, .1f);
	int32_t *idx[NCOPIES];
	float *w[NCOPIES], *score[NCOPIES];

	trial_out_i32(t, idx, t->m, k);
	trial_out(t, w, t->m, k, k, -2, 2);
	trial_out(t, score, t->m, e, e, -2, 2);
	for (size_t i = 0; t->flags & 4 && !t->rc && i < t->m * e; i++)
		logit[i] = truncf(logit[i]);
	for (size_t i = 0; t->flags & 4 && !t->rc && i < e; i++)
		bias[i] = 0;
	BOTH(t, gate_topk, idx[s], w[s], score[s], logit, bias, t->m, e, k, groups, groups / 2,
	     t->flags & 1, 2.5f);
	own_choice(t, idx, w, score, bias, e, k, groups, 2.5f);
}

/* k different experts for each of @rows rows. */
static int32_t *in_choice(struct trial *t, size_t rows, size_t e, size_t k)
{
	int32_t *idx = trial_in_index(t, rows * k, 0, e / k);

	for (size_t i = 0; idx && i < rows * k; i++)
		idx[i] += (int32_t)(i % k * (e / k));
	return idx;
}

/* Flags: norm; with the balance loss. */
static void try_gate_bwd(struct trial *t)
{
	size_t e = one_at_least(t->n), k = within(t->k, e);
	float *dw = trial_in(t, t->m, k, k, -2, 2), *score = trial_in(t, t->m, e, e, .1f, 1);
	float *coef = trial_in(t, 1, e, e, -2, 2), *dlogit[NCOPIES];
	int32_t *idx = in_choice(t, t->m, e, k);

	trial_out(t, dlogit, t->m, e, e, -2, 2);
	BOTH(t, gate_bwd, dlogit[s], dw, idx, score, t->flags & 2 ? coef : NULL, t->m, e, k,
	     t->flags & 1, 2.5f);
}

static void try_balance(struct trial *t)
{
	size_t e = one_at_least(t->n), k = within(t->k, e);
	float *score = trial_in(t, t->m, e, e, .1f, 1), *coef[NCOPIES], *loss[NCOPIES];
	int32_t *idx = in_choice(t, t->m, e, k);

	trial_out(t, coef, 1, e, e, -2, 2);
	trial_out(t, loss, 1, 1, 1, -2, 2);
	for (int s = 0; trial_next(t, &s); s++)
		*loss[s] = trial_table(t, s)->balance(coef[s], idx, score, t->m, e, k, 0.5f);
}

static void try_xent(struct trial *t)
{
	size_t vocab = one_at_least(t->n), ld = vocab + PAD;
	int32_t *target = trial_in_index(t, t->m, -1, vocab);
	float *loss[NCOPIES], *logit[NCOPIES];

	trial_out(t, loss, 1, t->m, t->m, -2, 2);
	trial_out(t, logit, t->m, vocab, ld, -8, 8);
	BOTH(t, xent, loss[s], logit[s], ld, target, t->m, vocab, 0.125f);
}

static void try_embed(struct trial *t)
{
	size_t vocab = one_at_least(t->k);
	float *table = trial_in(t, vocab, t->n, t->n, -2, 2), *y[NCOPIES];
	int32_t *id = trial_in_index(t, t->m, 0, vocab);

	trial_out(t, y, t->m, t->n, t->n, -2, 2);
	BOTH(t, embed, y[s], table, id, t->m, t->n);
}

static void try_embed_bwd(struct trial *t)
{
	size_t vocab = one_at_least(t->k), ld = t->n + PAD;
	float *dy = trial_in(t, t->m, t->n, ld, -2, 2), *dtable[NCOPIES];
	int32_t *id = trial_in_index(t, t->m, 0, vocab);

	trial_out(t, dtable, vocab, t->n, ld, -2, 2);
	BOTH(t, embed_bwd, dtable[s], ld, dy, ld, id, t->m, vocab, t->n);
}

static void try_gather(struct trial *t)
{
	size_t from = one_at_least(t->k);
	float *x = trial_in(t, from, t->n, t->n, -2, 2), *y[NCOPIES];
	int32_t *idx = trial_in_index(t, t->m, 0, from);

	trial_out(t, y, t->m, t->n, t->n, -2, 2);
	BOTH(t, gather, y[s], x, idx, t->m, t->n);
}

/* Flags: add to y; no weights. */
static void try_combine(struct trial *t)
{
	size_t k = t->k % 9;
	float *x = trial_in(t, t->m * k, t->n, t->n, -2, 2), *w = trial_in(t, t->m, k, k, 0, 1);
	int32_t *slot = trial_in_permutation(t, t->m * k);
	float *y[NCOPIES];

	trial_out(t, y, t->m, t->n, t->n, -2, 2);
	BOTH(t, combine, y[s], x, t->flags & 2 ? NULL : w, slot, t->m, k, t->n, t->flags & 1);
}

static void try_combine_dw(struct trial *t)
{
	size_t k = t->k % 9;
	float *x = trial_in(t, t->m * k, t->n, t->n, -2, 2), *dw[NCOPIES];
	float *dy = trial_in(t, t->m, t->n, t->n, -2, 2);
	int32_t *slot = trial_in_permutation(t, t->m * k);

	trial_out(t, dw, t->m, k, k, -2, 2);
	BOTH(t, combine_dw, dw[s], dy, x, slot, t->m, k, t->n);
}

static void try_scatter_scaled(struct trial *t)
{
	size_t k = t->k % 9;
	float *dy = trial_in(t, t->m, t->n, t->n, -2, 2), *w = trial_in(t, t->m, k, k, 0, 1);
	int32_t *slot = trial_in_permutation(t, t->m * k);
	float *dx[NCOPIES];

	trial_out(t, dx, t->m * k, t->n, t->n, -2, 2);
	BOTH(t, scatter_scaled, dx[s], dy, w, slot, t->m, k, t->n);
}

static void try_add(struct trial *t)
{
	size_t n = t->m * t->n;
	float *x = trial_in(t, 1, n, n, -2, 2), *y[NCOPIES];

	trial_out(t, y, 1, n, n, -2, 2);
	BOTH(t, add, y[s], x, n);
}

/* The sum is looked at as a float, which is enough to tell a wrong one. */
static void try_sumsq(struct trial *t)
{
	size_t n = t->m * t->n;
	float *x = trial_in(t, 1, n, n, -2, 2), *sum[NCOPIES];

	trial_out(t, sum, 1, 1, 1, -2, 2);
	for (int s = 0; trial_next(t, &s); s++)
		*sum[s] = (float)trial_table(t, s)->sumsq(x, n);
}

/* Flags: no gradient; no snapshot. */
static void try_adamw(struct trial *t)
{
	size_t n = t->m * t->n;
	float *g = trial_in(t, 1, n, n, -2, 2);
	float *w[NCOPIES], *m[NCOPIES], *v[NCOPIES], *out[NCOPIES];

	trial_out(t, w, 1, n, n, -2, 2);
	trial_out(t, m, 1, n, n, -2, 2);
	trial_out(t, v, 1, n, n, 0, 1);
	trial_out(t, out, 1, n, n, -2, 2);
	BOTH(t, adamw, w[s], m[s], v[s], t->flags & 2 ? NULL : out[s], t->flags & 1 ? NULL : g, n,
	     1e-2f, .9f, .95f, 1e-8f, .1f, .1f, .05f, .5f);
}

static void try_adamw_bf16(struct trial *t)
{
	size_t n = t->m * t->n;
	float *g = trial_in(t, 1, n, n, -2, 2), *w[NCOPIES], *m[NCOPIES], *v[NCOPIES];
	uint16_t *out[NCOPIES];

	trial_out(t, w, 1, n, n, -2, 2);
	trial_out(t, m, 1, n, n, -2, 2);
	trial_out(t, v, 1, n, n, 0, 1);
	trial_out_bf16(t, out, n);
	BOTH(t, adamw_bf16, w[s], m[s], v[s], t->flags & 2 ? NULL : out[s], t->flags & 1 ? NULL : g,
	     n, 1e-2f, .9f, .95f, 1e-8f, .1f, .1f, .05f, .5f);
}

static void try_to_bf16(struct trial *t)
{
	size_t n = t->m * t->n;
	float *x = trial_in(t, 1, n, n, -2, 2);
	uint16_t *y[NCOPIES];

	trial_out_bf16(t, y, n);
	BOTH(t, to_bf16, y[s], x, n);
}

static void try_from_bf16(struct trial *t)
{
	size_t n = t->m * t->n;
	uint16_t *x = trial_in_bf16(t, 1, n, n);
	float *y[NCOPIES];

	trial_out(t, y, 1, n, n, -2, 2);
	BOTH(t, from_bf16, y[s], x, n);
}

/* A bf16 snapshot may differ by one rounding where the weight differs by its last bit. */
const struct op_trial pst_op_trials[PST_OP_COUNT] = {
	[PST_OP_gemm] = {try_gemm, 2e-6, 1e-1, 8},
	[PST_OP_gemm_bf16] = {try_gemm_bf16, 2e-6, 1e-1, 8},
	[PST_OP_rmsnorm] = {try_rmsnorm, 1e-6, 0, 2},
	[PST_OP_rmsnorm_dx] = {try_rmsnorm_dx, 2e-6, 5e-1, 2},
	[PST_OP_rmsnorm_dw] = {try_rmsnorm_dw, 1e-6, 1e-1, 1},
	[PST_OP_rope] = {try_rope, 1e-6, 1e-1, 2},
	[PST_OP_attn] = {try_attn, 1e-5, 1e-1, 2},
	[PST_OP_attn_bwd] = {try_attn_bwd, 2e-5, 1e-2, 1},
	[PST_OP_swiglu] = {try_swiglu, 1e-6, 0, 3},
	[PST_OP_swiglu_bwd] = {try_swiglu_bwd, 1e-6, 1e-2, 2},
	[PST_OP_gate_topk] = {try_gate_topk, 1e-6, 0, 8},
	[PST_OP_gate_bwd] = {try_gate_bwd, 2e-6, 1e-2, 4},
	[PST_OP_balance] = {try_balance, 2e-6, 1e-3, 1},
	[PST_OP_xent] = {try_xent, 2e-6, 1e-2, 1},
	[PST_OP_embed] = {try_embed, 1e-30, 0, 1},
	[PST_OP_embed_bwd] = {try_embed_bwd, 1e-6, 1e-1, 1},
	[PST_OP_gather] = {try_gather, 1e-30, 0, 1},
	[PST_OP_combine] = {try_combine, 1e-6, 1e-1, 4},
	[PST_OP_combine_dw] = {try_combine_dw, 2e-6, 1e-1, 1},
	[PST_OP_scatter_scaled] = {try_scatter_scaled, 1e-6, 0, 1},
	[PST_OP_add] = {try_add, 1e-6, 0, 1},
	[PST_OP_sumsq] = {try_sumsq, 1e-6, 0, 1},
	[PST_OP_adamw] = {try_adamw, 1e-6, 1e-2, 4},
	[PST_OP_adamw_bf16] = {try_adamw_bf16, 1e-4, 1e-2, 4},
	[PST_OP_to_bf16] = {try_to_bf16, 1e-30, 0, 1},
	[PST_OP_from_bf16] = {try_from_bf16, 1e-30, 0, 1},
};
