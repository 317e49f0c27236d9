/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the batched attention kernels of kernels/cuda/cuda.h do: ref's attention, head by head and
 * sequence by sequence, or the same sums.
 */
#include "selftests/gpu/libcuda_attn.h"

#include "kernels/bf16.h"
#include "kernels/op.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define P(i) (p[i])
#define Z(i) ((size_t)v[i])
#define F(i) (as_float(v[i]))

static float as_float(uint64_t v)
{
	uint32_t bits = (uint32_t)v;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* Rows of all heads of all sequences: where those of one begin. */
struct rows {
	float *at;
	size_t ld, head, each; /* rows of a sequence */
};

static float *rows_of(const struct rows *r, size_t h, size_t b)
{
	return r->at + b * r->each * r->ld + h * r->head;
}

void cuda_attn_heads(void *const *p, const uint64_t *v)
{
	size_t heads = Z(13), batch = Z(14), tq = Z(15), tk = Z(16);
	struct rows o = {P(0), Z(1), Z(2), tq}, q = {P(4), Z(5), Z(6), tq},
		    k = {P(7), Z(8), Z(9), tk}, value = {P(10), Z(11), Z(12), tk};
	float *lse = P(3);

	for (size_t h = 0; h < heads; h++)
		for (size_t b = 0; b < batch; b++)
			pst_ops_ref()->attn(rows_of(&o, h, b), o.ld, lse + (h * batch + b) * tq,
					    rows_of(&q, h, b), q.ld, rows_of(&k, h, b), k.ld,
					    rows_of(&value, h, b), value.ld, tq, tk, Z(17), Z(18),
					    F(19));
}

static float dot(const float *a, const float *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i] * b[i];
	return (float)sum;
}

static void axpy(float *y, float a, const float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += a * x[i];
}

void cuda_attn_heads_delta(void *const *p, const uint64_t *v)
{
	size_t rows = Z(6) * Z(7), dv = Z(8);
	float *delta = P(0);
	struct rows o = {P(1), Z(3), Z(4), 1}, dout = {P(2), Z(3), Z(4), 1};

	for (size_t i = 0; i < Z(5) * rows; i++) {
		delta[i] = dot(rows_of(&o, i / rows, i % rows), rows_of(&dout, i / rows, i % rows),
			       dv);
	}
}

/* Backward of one launch; what is not wanted is NULL. */
struct backward {
	float *dq, *dk, *dv;
	struct rows dout, q, k, v;
	const float *lse, *delta;
	size_t heads, batch, t, dqk, dvdim;
	float scale;
};

/* The gradient that lies as @like does: its rows of one head, cleared. */
static struct rows begin_gradient(float *to, const struct rows *like, size_t h, size_t b, size_t t,
				  size_t cols)
{
	struct rows r = {to ? to + b * t * like->ld + h * like->head : NULL, like->ld, 0, 0};

	for (size_t i = 0; to && i < t; i++)
		memset(r.at + i * r.ld, 0, cols * sizeof(*to));
	return r;
}

static void backward_one(const struct backward *w, size_t h, size_t b)
{
	const float *q = rows_of(&w->q, h, b), *k = rows_of(&w->k, h, b), *v = rows_of(&w->v, h, b);
	const float *dout = rows_of(&w->dout, h, b);
	size_t first = (h * w->batch + b) * w->t;
	struct rows dq = begin_gradient(w->dq, &w->q, h, b, w->t, w->dqk),
		    dk = begin_gradient(w->dk, &w->k, h, b, w->t, w->dqk),
		    dv = begin_gradient(w->dv, &w->v, h, b, w->t, w->dvdim);

	for (size_t i = 0; i < w->t; i++, q += w->q.ld, dout += w->dout.ld) {
		for (size_t j = 0; j <= i; j++) {
			const float *kj = k + j * w->k.ld;
			float p = expf(w->scale * dot(q, kj, w->dqk) - w->lse[first + i]);
			float d = dot(dout, v + j * w->v.ld, w->dvdim) - w->delta[first + i];
			float ds = p * d * w->scale;

			if (w->dq)
				axpy(dq.at + i * dq.ld, ds, kj, w->dqk);
			if (w->dk)
				axpy(dk.at + j * dk.ld, ds, q, w->dqk);
			if (w->dv)
				axpy(dv.at + j * dv.ld, p, dout, w->dvdim);
		}
	}
}

static void backward(const struct backward *w)
{
	for (size_t h = 0; h < w->heads; h++)
		for (size_t b = 0; b < w->batch; b++)
			backward_one(w, h, b);
}

/* The arguments from dout on, which is number @i, are the same in both. */
static struct backward backward_of(void *const *p, const uint64_t *v, int i)
{
	size_t t = Z(i + 7);

	return (struct backward){
		.dout = {P(i), Z(i + 1), Z(i + 2), t},
		.lse = P(i + 3),
		.delta = P(i + 4),
		.heads = Z(i + 5),
		.batch = Z(i + 6),
		.t = t,
		.dqk = Z(i + 8),
		.dvdim = Z(i + 9),
		.scale = F(i + 10),
		.q = {P(i + 11), Z(i + 12), Z(i + 13), t},
		.k = {P(i + 14), Z(i + 15), Z(i + 16), t},
		.v = {P(i + 17), Z(i + 18), Z(i + 19), t},
	};
}

void cuda_attn_heads_dq(void *const *p, const uint64_t *v)
{
	struct backward w = backward_of(p, v, 1);

	w.dq = P(0);
	backward(&w);
}

void cuda_attn_heads_dkv(void *const *p, const uint64_t *v)
{
	struct backward w = backward_of(p, v, 2);

	w.dk = P(0);
	w.dv = P(1);
	backward(&w);
}

/* The cache of one sequence in fp32, rows side by side; NULL: no memory. */
static float *cache_of(void *const *p, const uint64_t *v, size_t b, size_t rows, size_t cols)
{
	float *to = calloc(rows * cols + 1, sizeof(*to));

	for (size_t i = 0; to && i < rows * cols; i++) {
		size_t at = b * Z(8) + i / cols * Z(7) + i % cols;

		to[i] = (int)v[6] ? pst_bf16_to_f32(((const uint16_t *)P(5))[at])
				  : ((const float *)P(5))[at];
	}
	return to;
}

/* One query and one part of its keys, @seen of which it sees. */
static void part_one(void *const *p, const uint64_t *v, const float *cache, size_t at,
		     const float *q, size_t seen)
{
	size_t lora = Z(15), dim = lora + Z(16);

	if (!seen)
		((float *)P(1))[at] = -INFINITY;
	else
		pst_ops_ref()->attn((float *)P(0) + at * lora, lora, (float *)P(1) + at, q, dim,
				    cache, dim, cache, dim, 1, seen, dim, lora, F(17));
}

void cuda_mla_decode(void *const *p, const uint64_t *v)
{
	const int32_t *len = P(9);
	size_t heads = Z(10), batch = Z(11), tq = Z(12), most = Z(13), keys = Z(14),
	       dim = Z(15) + Z(16);

	for (size_t b = 0; b < batch; b++) {
		float *cache = cache_of(p, v, b, (size_t)len[b], dim);

		for (size_t i = 0; cache && i < heads * tq * ((most + keys - 1) / keys); i++) {
			size_t h = i % heads, row = b * tq + i / heads % tq, part = i / heads / tq,
			       first = part * keys, upto = (size_t)len[b] - tq + i / heads % tq + 1;

			upto = upto < first + keys ? upto : first + keys;
			part_one(p, v, cache + first * dim, (part * heads + h) * batch * tq + row,
				 (const float *)P(2) + row * Z(3) + h * Z(4),
				 upto > first ? upto - first : 0);
		}
		free(cache);
	}
}

static void combine_one(float *o, float *lse, const float *part, const float *part_lse,
			size_t parts, size_t apart, size_t lora)
{
	double max = -INFINITY, sum = 0;

	for (size_t i = 0; i < parts; i++)
		max = fmax(max, part_lse[i * apart]);
	for (size_t i = 0; i < parts; i++)
		sum += exp(part_lse[i * apart] - max);
	if (lse)
		*lse = (float)(max + log(sum));
	for (size_t c = 0; c < lora; c++) {
		double value = 0;

		for (size_t i = 0; i < parts; i++)
			if (part_lse[i * apart] > -INFINITY)
				value += exp(part_lse[i * apart] - max) / sum *
					 part[i * apart * lora + c];
		o[c] = (float)value;
	}
}

void cuda_mla_combine(void *const *p, const uint64_t *v)
{
	size_t rows = Z(7) * Z(8), apart = Z(6) * rows, lora = Z(11);
	float *o = P(0), *lse = P(3);

	for (size_t i = 0; i < apart; i++)
		combine_one(o + i % rows * Z(1) + i / rows * Z(2), lse ? lse + i : NULL,
			    (const float *)P(4) + i * lora, (const float *)P(5) + i,
			    (Z(9) + Z(10) - 1) / Z(10), apart, lora);
}
