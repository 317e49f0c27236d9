/* SPDX-License-Identifier: Apache-2.0 */
/* What is launched for attention: all heads of all sequences at once, but where a cache absorbs. */
#include "runtime/device/compute_gpu_priv.h"

/* Distances between rows, and between the heads of one. */
struct lds {
	size_t rows, q, qk, kv, head_kv, kva, o;
};

static struct lds lds_of(const struct pst_mla *a)
{
	return (struct lds){.rows = a->batch * a->seq,
			    .q = a->heads * pst_mla_qk(a),
			    .qk = pst_mla_qk(a),
			    .kv = a->heads * (a->nope + a->v),
			    .head_kv = a->nope + a->v,
			    .kva = a->lora + a->rope,
			    .o = a->heads * a->v};
}

/* The parts of @heads heads of a tensor. */
struct parts {
	float *at;
	size_t ld, head;
};

static void copy_heads(struct pst_compute_gpu *g, struct parts y, struct parts x, size_t rows,
		       size_t heads, size_t cols)
{
	PST_GPU_RUN(g, copy_heads, &y.at, &y.ld, &y.head, &x.at, &x.ld, &x.head, &rows, &heads,
		    &cols);
}

static void sum_heads(struct pst_compute_gpu *g, float *y, size_t ldy, struct parts x, size_t rows,
		      size_t heads, size_t cols)
{
	PST_GPU_RUN(g, sum_heads, &y, &ldy, &x.at, &x.ld, &x.head, &rows, &heads, &cols);
}

static void rope(struct pst_compute_gpu *g, const struct pst_mla *mla, struct parts x, size_t heads,
		 int inverse)
{
	struct pst_mla a = *mla;
	size_t rows = a.batch * a.seq;
	int split = !a.interleave;

	PST_GPU_RUN(g, rope_heads, &x.at, &x.ld, &x.head, &rows, &heads, &a.rope, &a.pos, &a.cos_t,
		    &a.sin_t, &split, &inverse);
}

void pst_gpu_rotate(struct pst_compute *c, const struct pst_mla *a)
{
	struct lds ld = lds_of(a);

	rope(pst_gpu_of(c), a, (struct parts){a->q + a->nope, ld.q, ld.qk}, a->heads, 0);
	rope(pst_gpu_of(c), a, (struct parts){a->kva + a->lora, ld.kva, 0}, 1, 0);
}

/* Scores of @width, values of @dv. */
static void attend(struct pst_compute_gpu *g, const struct pst_mla *mla, struct parts o,
		   struct parts q, struct parts k, struct parts v, size_t keys, size_t width,
		   size_t dv)
{
	struct pst_mla a = *mla;

	PST_GPU_RUN(g, attn_heads, &o.at, &o.ld, &o.head, &a.lse, &q.at, &q.ld, &q.head, &k.at,
		    &k.ld, &k.head, &v.at, &v.ld, &v.head, &a.heads, &a.batch, &a.seq, &keys,
		    &width, &dv, &a.scale);
}

void pst_gpu_attend(struct pst_compute *c, const struct pst_mla *a)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	struct lds ld = lds_of(a);
	struct parts k = {a->k, ld.q, ld.qk}, turned = {a->k + a->nope, ld.q, ld.qk};
	struct parts shared = {a->kva + a->lora, ld.kva, 0}, kv = {a->kv, ld.kv, ld.head_kv};

	copy_heads(g, k, kv, ld.rows, a->heads, a->nope);
	copy_heads(g, turned, shared, ld.rows, a->heads, a->rope);
	attend(g, a, (struct parts){a->o, ld.o, a->v}, (struct parts){a->q, ld.q, ld.qk}, k,
	       (struct parts){a->kv + a->nope, ld.kv, ld.head_kv}, a->seq, ld.qk, a->v);
}

static void attend_back(struct pst_compute_gpu *g, const struct pst_mla *mla,
			const struct pst_mla_grad *grad)
{
	struct pst_mla a = *mla;
	struct pst_mla_grad b = *grad;
	struct lds ld = lds_of(mla);
	float *v = a.kv + a.nope, *dv = b.dkv + a.nope;

	PST_GPU_RUN(g, attn_heads_delta, &b.delta, &a.o, &b.dout, &ld.o, &a.v, &a.heads, &a.batch,
		    &a.seq, &a.v);
	PST_GPU_RUN(g, attn_heads_dq, &b.dq, &b.dout, &ld.o, &a.v, &a.lse, &b.delta, &a.heads,
		    &a.batch, &a.seq, &ld.qk, &a.v, &a.scale, &a.q, &ld.q, &ld.qk, &a.k, &ld.q,
		    &ld.qk, &v, &ld.kv, &ld.head_kv);
	PST_GPU_RUN(g, attn_heads_dkv, &b.dk, &dv, &b.dout, &ld.o, &a.v, &a.lse, &b.delta, &a.heads,
		    &a.batch, &a.seq, &ld.qk, &a.v, &a.scale, &a.q, &ld.q, &ld.qk, &a.k, &ld.q,
		    &ld.qk, &v, &ld.kv, &ld.head_kv);
}

void pst_gpu_attend_bwd(struct pst_compute *c, const struct pst_mla *a,
			const struct pst_mla_grad *b)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	struct lds ld = lds_of(a);
	struct parts turned = {b->dkva + a->lora, ld.kva, 0};

	attend_back(g, a, b);
	copy_heads(g, (struct parts){b->dkv, ld.kv, ld.head_kv}, (struct parts){b->dk, ld.q, ld.qk},
		   ld.rows, a->heads, a->nope);
	sum_heads(g, turned.at, turned.ld, (struct parts){b->dk + a->nope, ld.q, ld.qk}, ld.rows,
		  a->heads, a->rope);
	rope(g, a, (struct parts){b->dq + a->nope, ld.q, ld.qk}, a->heads, 1);
	rope(g, a, turned, 1, 1);
}

static void remember(struct pst_compute_gpu *g, const struct pst_mla *a,
		     const struct pst_mla_cache *cache)
{
	struct lds ld = lds_of(a);
	float *to = cache->rows + cache->cached * ld.kva;

	copy_heads(g, (struct parts){to, ld.kva, 0},
		   (struct parts){(float *)(uintptr_t)cache->c, a->lora, 0}, ld.rows, 1, a->lora);
	copy_heads(g, (struct parts){to + a->lora, ld.kva, 0},
		   (struct parts){a->kva + a->lora, ld.kva, 0}, ld.rows, 1, a->rope);
}

void pst_gpu_attend_cache(struct pst_compute *c, const struct pst_mla *a,
			  const struct pst_mla_cache *cache)
{
	struct pst_compute_gpu *g = pst_gpu_of(c);
	struct lds ld = lds_of(a);
	size_t rows = ld.rows, lora = a->lora, each = ld.head_kv * lora;
	struct parts q = {cache->absorbed, ld.kva, rows * ld.kva};
	struct parts o = {cache->latent, lora, rows * lora}, keys = {cache->rows, ld.kva, 0};

	remember(g, a, cache);
	for (size_t h = 0; h < a->heads; h++)
		pst_gpu_gemm(g, 0, 0, rows, lora, a->nope, a->q + h * ld.qk, ld.q,
			     cache->kv_b + h * each, lora, q.at + h * q.head, ld.kva, 0);
	copy_heads(g, (struct parts){q.at + lora, q.ld, q.head},
		   (struct parts){a->q + a->nope, ld.q, ld.qk}, rows, a->heads, a->rope);
	attend(g, a, o, q, keys, keys, cache->cached + rows, ld.kva, lora);
	for (size_t h = 0; h < a->heads; h++)
		pst_gpu_gemm(g, 0, 1, rows, a->v, lora, o.at + h * o.head, lora,
			     cache->kv_b + h * each + a->nope * lora, lora, a->o + h * a->v, ld.o,
			     0);
}
