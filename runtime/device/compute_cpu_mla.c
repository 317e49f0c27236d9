/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over a team: rows side by side where positions turn and keys are put together, heads
 * of sequences side by side where they attend.
 */
#include "runtime/device/compute_priv.h"

#include <string.h>

struct mla {
	const struct pst_ops *ops;
	const struct pst_mla *a;
	const struct pst_mla_grad *g;
	const struct pst_mla_cache *cache;
	size_t rows, ld_q, ld_kv, ld_kva, ld_o, head_kv;
};

static struct mla mla_of(struct pst_compute *c, const struct pst_mla *a)
{
	return (struct mla){.ops = pst_device_ops(pst_cpu(c)),
			    .a = a,
			    .rows = a->batch * a->seq,
			    .ld_q = a->heads * pst_mla_qk(a),
			    .ld_kv = a->heads * (a->nope + a->v),
			    .ld_kva = a->lora + a->rope,
			    .ld_o = a->heads * a->v,
			    .head_kv = a->nope + a->v};
}

/*
 * Rotations are of pairs (2i, 2i + 1): bring pairs (i, i + dim / 2) into that order, or @back. A
 * score is a sum over both its sides, so it does not matter that they stay in that order.
 */
static void interleave(float *x, size_t ldx, size_t rows, size_t dim, bool back)
{
	float old[PST_COMPUTE_MAX_ROPE];
	size_t half = dim / 2;

	for (size_t r = 0; r < rows; r++, x += ldx) {
		memcpy(old, x, dim * sizeof(*x));
		for (size_t i = 0; i < half; i++) {
			x[back ? i : 2 * i] = old[back ? 2 * i : i];
			x[back ? i + half : 2 * i + 1] = old[back ? 2 * i + 1 : i + half];
		}
	}
}

/* Rotate the last columns of @x's rows, or turn a gradient back. */
static void rotate(const struct mla *t, float *x, size_t ldx, size_t first, size_t rows,
		   bool inverse)
{
	const struct pst_mla *a = t->a;

	if (!a->interleave && !inverse)
		interleave(x, ldx, rows, a->rope, false);
	t->ops->rope(x, ldx, rows, a->rope, a->pos + first, a->cos_t, a->sin_t, inverse);
	if (!a->interleave && inverse)
		interleave(x, ldx, rows, a->rope, true);
}

static void rotate_rows(void *ctx, size_t first, size_t rows)
{
	const struct mla *t = ctx;
	const struct pst_mla *a = t->a;
	float *q = a->q + first * t->ld_q + a->nope;

	for (size_t head = 0; head < a->heads; head++)
		rotate(t, q + head * pst_mla_qk(a), t->ld_q, first, rows, false);
	rotate(t, a->kva + first * t->ld_kva + a->lora, t->ld_kva, first, rows, false);
}

void pst_cpu_rotate(struct pst_compute *c, const struct pst_mla *a)
{
	struct mla t = mla_of(c, a);

	pst_cpu_rows(c, t.rows, rotate_rows, &t);
}

/* k of each head: its own part out of kv, and the shared rotated part. */
static void assemble_rows(void *ctx, size_t first, size_t rows)
{
	const struct mla *t = ctx;
	const struct pst_mla *a = t->a;

	for (size_t r = first; r < first + rows; r++) {
		const float *kv = a->kv + r * t->ld_kv;
		const float *shared = a->kva + r * t->ld_kva + a->lora;
		float *k = a->k + r * t->ld_q;

		for (size_t head = 0; head < a->heads; head++) {
			memcpy(k, kv, a->nope * sizeof(*k));
			memcpy(k + a->nope, shared, a->rope * sizeof(*k));
			kv += t->head_kv;
			k += pst_mla_qk(a);
		}
	}
}

/* Where one head of one sequence begins. */
struct head {
	size_t q, v, o, lse;
};

static struct head find_head(const struct mla *t, size_t task)
{
	size_t row = task / t->a->heads * t->a->seq, head = task % t->a->heads;

	return (struct head){
		.q = row * t->ld_q + head * pst_mla_qk(t->a),
		.v = row * t->ld_kv + head * t->head_kv + t->a->nope,
		.o = row * t->ld_o + head * t->a->v,
		.lse = head * t->rows + row,
	};
}

static void attend_head(void *ctx, size_t task)
{
	const struct mla *t = ctx;
	const struct pst_mla *a = t->a;
	struct head h = find_head(t, task);

	t->ops->attn(a->o + h.o, t->ld_o, a->lse + h.lse, a->q + h.q, t->ld_q, a->k + h.q, t->ld_q,
		     a->kv + h.v, t->ld_kv, a->seq, a->seq, pst_mla_qk(a), a->v, a->scale);
}

void pst_cpu_attend(struct pst_compute *c, const struct pst_mla *a)
{
	struct mla t = mla_of(c, a);

	pst_cpu_rows(c, t.rows, assemble_rows, &t);
	pst_device_for(pst_cpu(c), a->batch * a->heads, attend_head, &t);
}

static void attend_head_backward(void *ctx, size_t task)
{
	const struct mla *t = ctx;
	const struct pst_mla *a = t->a;
	const struct pst_mla_grad *g = t->g;
	struct head h = find_head(t, task);

	t->ops->attn_bwd(g->dq + h.q, t->ld_q, g->dk + h.q, t->ld_q, g->dkv + h.v, t->ld_kv,
			 a->o + h.o, t->ld_o, g->dout + h.o, t->ld_o, a->lse + h.lse, a->q + h.q,
			 t->ld_q, a->k + h.q, t->ld_q, a->kv + h.v, t->ld_kv, a->seq, pst_mla_qk(a),
			 a->v, a->scale);
}

/* dk of each head goes to dkv, and, summed over heads in order, to the shared part. */
static void disassemble_row(const struct mla *t, size_t r)
{
	size_t nope = t->a->nope, rope = t->a->rope;
	const float *dk = t->g->dk + r * t->ld_q;
	float *dkv = t->g->dkv + r * t->ld_kv;
	float *shared = t->g->dkva + r * t->ld_kva + t->a->lora;

	for (size_t head = 0; head < t->a->heads; head++) {
		memcpy(dkv, dk, nope * sizeof(*dk));
		if (head)
			t->ops->add(shared, dk + nope, rope);
		else
			memcpy(shared, dk + nope, rope * sizeof(*dk));
		dk += nope + rope;
		dkv += t->head_kv;
	}
}

static void unrotate_rows(void *ctx, size_t first, size_t rows)
{
	const struct mla *t = ctx;
	const struct pst_mla *a = t->a;
	float *dq = t->g->dq + first * t->ld_q + a->nope;

	for (size_t head = 0; head < a->heads; head++)
		rotate(t, dq + head * pst_mla_qk(a), t->ld_q, first, rows, true);
	for (size_t r = first; r < first + rows; r++)
		disassemble_row(t, r);
	rotate(t, t->g->dkva + first * t->ld_kva + a->lora, t->ld_kva, first, rows, true);
}

void pst_cpu_attend_bwd(struct pst_compute *c, const struct pst_mla *a,
			const struct pst_mla_grad *g)
{
	struct mla t = mla_of(c, a);

	t.g = g;
	pst_device_for(pst_cpu(c), a->batch * a->heads, attend_head_backward, &t);
	pst_cpu_rows(c, t.rows, unrotate_rows, &t);
}

/*
 * Generation over a cache of latents. Keys and values are never made: a head's part of kv_b is
 * multiplied into its query and its output instead (absorbed), so that all heads attend to the
 * same cached rows of lora + rope floats.
 */

static void remember(const struct mla *t)
{
	const struct pst_mla *a = t->a;
	float *to = t->cache->rows + t->cache->cached * t->ld_kva;

	for (size_t r = 0; r < t->rows; r++, to += t->ld_kva) {
		memcpy(to, t->cache->c + r * a->lora, a->lora * sizeof(*to));
		memcpy(to + a->lora, a->kva + r * t->ld_kva + a->lora, a->rope * sizeof(*to));
	}
}

/* The query of one head against latents: nope times its part of kv_b, and rope as it is. */
static float *absorb_query(const struct mla *t, size_t head, const float *kv_b)
{
	const struct pst_mla *a = t->a;
	const float *q = a->q + head * pst_mla_qk(a);
	float *to = t->cache->absorbed + head * t->rows * t->ld_kva;

	t->ops->gemm(0, 0, t->rows, a->lora, a->nope, q, t->ld_q, kv_b, a->lora, to, t->ld_kva, 0);
	for (size_t r = 0; r < t->rows; r++)
		memcpy(to + r * t->ld_kva + a->lora, q + r * t->ld_q + a->nope,
		       a->rope * sizeof(*to));
	return to;
}

static void attend_head_cached(void *ctx, size_t head)
{
	const struct mla *t = ctx;
	const struct pst_mla *a = t->a;
	const struct pst_mla_cache *cache = t->cache;
	const float *kv_b = cache->kv_b + head * t->head_kv * a->lora, *rows = cache->rows;
	float *q = absorb_query(t, head, kv_b), *latent = cache->latent + head * t->rows * a->lora;

	t->ops->attn(latent, a->lora, a->lse + head * t->rows, q, t->ld_kva, rows, t->ld_kva, rows,
		     t->ld_kva, t->rows, cache->cached + t->rows, t->ld_kva, a->lora, a->scale);
	t->ops->gemm(0, 1, t->rows, a->v, a->lora, latent, a->lora, kv_b + a->nope * a->lora,
		     a->lora, a->o + head * a->v, t->ld_o, 0);
}

void pst_cpu_attend_cache(struct pst_compute *c, const struct pst_mla *a,
			  const struct pst_mla_cache *cache)
{
	struct mla t = mla_of(c, a);

	t.cache = cache;
	remember(&t);
	pst_device_for(pst_cpu(c), a->heads, attend_head_cached, &t);
}
