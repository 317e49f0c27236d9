/* SPDX-License-Identifier: Apache-2.0 */
/* attn.c - attention of this CPU's kernels, forward and backward, against fp64. */
#include <math.h>

#include "kernels/op.h"
#include "selftests/lib/test.h"

#define GUARD 12345.5f

struct rows {
	float *at;
	size_t n, cols, ld;
};

struct head {
	size_t tq, tk, dqk, dv;
	float scale, *lse;
	struct rows q, k, v, o, dout, dq, dk, dvalue;
};

static float number(uint64_t *state)
{
	return (float)(int)(test_random(state) >> 40) / (float)(1 << 23) - 1.0f;
}

/* Exactly as long as its last element, so that ASan sees what lies past it. */
static struct rows rows_new(size_t n, size_t cols, size_t gap, uint64_t *seed)
{
	struct rows r = {.n = n, .cols = cols, .ld = cols + gap};
	size_t all = n ? (n - 1) * r.ld + cols : 0;

	r.at = malloc(all * sizeof(float) + 1);
	for (size_t i = 0; i < all; i++)
		r.at[i] = seed && i % r.ld < cols ? number(seed) : GUARD;
	return r;
}

static size_t gaps_written(const struct rows *r)
{
	size_t wrong = 0;

	for (size_t i = 0; i + 1 < r->n; i++)
		for (size_t j = r->cols; j < r->ld; j++)
			wrong += r->at[i * r->ld + j] != GUARD;
	return wrong;
}

static struct head head_new(size_t tq, size_t tk, size_t dqk, size_t dv, size_t gap, uint64_t *seed)
{
	struct head h = {.tq = tq, .tk = tk, .dqk = dqk, .dv = dv};

	h.scale = 2.0f / sqrtf((float)dqk);
	h.lse = malloc(tq * sizeof(float) + 1);
	h.q = rows_new(tq, dqk, gap, seed);
	h.k = rows_new(tk, dqk, 2 * gap, seed);
	h.v = rows_new(tk, dv, gap, seed);
	h.dout = rows_new(tq, dv, 3 * gap, seed);
	h.o = rows_new(tq, dv, gap, NULL);
	h.dq = rows_new(tq, dqk, gap, NULL);
	h.dk = rows_new(tk, dqk, gap, NULL);
	h.dvalue = rows_new(tk, dv, gap, NULL);
	return h;
}

static void head_free(struct head *h)
{
	free(h->lse);
	free(h->q.at);
	free(h->k.at);
	free(h->v.at);
	free(h->dout.at);
	free(h->o.at);
	free(h->dq.at);
	free(h->dk.at);
	free(h->dvalue.at);
}

static void forward(const struct pst_ops *ops, struct head *h)
{
	ops->attn(h->o.at, h->o.ld, h->lse, h->q.at, h->q.ld, h->k.at, h->k.ld, h->v.at, h->v.ld,
		  h->tq, h->tk, h->dqk, h->dv, h->scale);
}

static void backward(const struct pst_ops *ops, struct head *h)
{
	ops->attn_bwd(h->dq.at, h->dq.ld, h->dk.at, h->dk.ld, h->dvalue.at, h->dvalue.ld, h->o.at,
		      h->o.ld, h->dout.at, h->dout.ld, h->lse, h->q.at, h->q.ld, h->k.at, h->k.ld,
		      h->v.at, h->v.ld, h->tq, h->dqk, h->dv, h->scale);
}

static double dot(const struct rows *a, size_t i, const struct rows *b, size_t j)
{
	double sum = 0;

	for (size_t c = 0; c < a->cols; c++)
		sum += (double)a->at[i * a->ld + c] * (double)b->at[j * b->ld + c];
	return sum;
}

/* Probabilities of query @i in fp64 into p[0 .. seen); returns lse. */
static double probabilities(const struct head *h, size_t i, double *p)
{
	size_t seen = i + h->tk - h->tq + 1;
	double max = -INFINITY, sum = 0;

	for (size_t j = 0; j < seen; j++) {
		p[j] = (double)h->scale * dot(&h->q, i, &h->k, j);
		max = fmax(max, p[j]);
	}
	for (size_t j = 0; j < seen; j++)
		sum += p[j] = exp(p[j] - max);
	for (size_t j = 0; j < seen; j++)
		p[j] /= sum;
	return max + log(sum);
}

/* The largest difference from @want of the same layout without gaps. */
static double worst(const struct rows *got, const double *want)
{
	double most = 0;

	for (size_t i = 0; i < got->n; i++)
		for (size_t c = 0; c < got->cols; c++) {
			double d = fabs(got->at[i * got->ld + c] - want[i * got->cols + c]);

			most = d <= most ? most : d;
		}
	return most;
}

static double worst_forward(const struct head *h)
{
	double *p = calloc(h->tk, sizeof(*p)), *o = calloc(h->tq * h->dv, sizeof(*o)), most = 0;

	for (size_t i = 0; i < h->tq; i++) {
		double d = fabs(probabilities(h, i, p) - h->lse[i]);

		most = d <= most ? most : d;
		for (size_t j = 0; j <= i + h->tk - h->tq; j++)
			for (size_t c = 0; c < h->dv; c++)
				o[i * h->dv + c] += p[j] * (double)h->v.at[j * h->v.ld + c];
	}
	most = fmax(most, worst(&h->o, o));
	free(p);
	free(o);
	return most;
}

static double worst_backward(const struct head *h)
{
	double *dq = calloc(h->tq * h->dqk, sizeof(*dq)), *dk = calloc(h->tk * h->dqk, sizeof(*dk));
	double *dv = calloc(h->tk * h->dv, sizeof(*dv)), *p = calloc(h->tk, sizeof(*p)), most;

	for (size_t i = 0; i < h->tq; i++) {
		double mean = 0;

		probabilities(h, i, p);
		for (size_t j = 0; j <= i; j++)
			mean += p[j] * dot(&h->dout, i, &h->v, j);
		for (size_t j = 0; j <= i; j++) {
			double ds = p[j] * (dot(&h->dout, i, &h->v, j) - mean) * (double)h->scale;

			for (size_t c = 0; c < h->dqk; c++) {
				dq[i * h->dqk + c] += ds * (double)h->k.at[j * h->k.ld + c];
				dk[j * h->dqk + c] += ds * (double)h->q.at[i * h->q.ld + c];
			}
			for (size_t c = 0; c < h->dv; c++)
				dv[j * h->dv + c] += p[j] * (double)h->dout.at[i * h->dout.ld + c];
		}
	}
	most = fmax(worst(&h->dq, dq), fmax(worst(&h->dk, dk), worst(&h->dvalue, dv)));
	free(dq);
	free(dk);
	free(dv);
	free(p);
	return most;
}

static uint64_t digest(uint64_t d, const struct rows *r)
{
	for (size_t i = 0; i < r->n; i++)
		for (size_t c = 0; c < r->cols; c++) {
			uint32_t u;

			memcpy(&u, &r->at[i * r->ld + c], sizeof(u));
			d = (d ^ u) * 0x100000001b3;
		}
	return d;
}

FIXTURE(attn){};
FIXTURE_SETUP(attn)
{
}
FIXTURE_TEARDOWN(attn)
{
}
FIXTURE_VARIANT(attn)
{
	size_t tq, tk, dqk, dv, gap;
};
FIXTURE_VARIANT_ADD(attn, one_key){.tq = 1, .tk = 1, .dqk = 48, .dv = 32};
FIXTURE_VARIANT_ADD(attn, odd_sizes){.tq = 37, .tk = 37, .dqk = 5, .dv = 3, .gap = 1};
FIXTURE_VARIANT_ADD(attn, one_block){.tq = 64, .tk = 64, .dqk = 48, .dv = 32};
FIXTURE_VARIANT_ADD(attn, just_past_a_block){.tq = 65, .tk = 65, .dqk = 20, .dv = 33, .gap = 3};
FIXTURE_VARIANT_ADD(attn, many_blocks){.tq = 333, .tk = 333, .dqk = 48, .dv = 32, .gap = 2};
FIXTURE_VARIANT_ADD(attn, large_heads){.tq = 130, .tk = 130, .dqk = 192, .dv = 128};
FIXTURE_VARIANT_ADD(attn, generation){.tq = 1, .tk = 1500, .dqk = 48, .dv = 32};
FIXTURE_VARIANT_ADD(attn, chunk_after_a_prefix){.tq = 70, .tk = 600, .dqk = 24, .dv = 16, .gap = 1};

TEST_F(attn, forward)
{
	uint64_t seed = 1;
	struct head h =
		head_new(variant->tq, variant->tk, variant->dqk, variant->dv, variant->gap, &seed);

	forward(pst_ops_cpu(), &h);
	EXPECT_TRUE(worst_forward(&h) < 2e-6);
	EXPECT_EQ((size_t)0, gaps_written(&h.o));
	printf("# digest %016llx\n", (unsigned long long)digest(0, &h.o));
	head_free(&h);
}

TEST_F(attn, backward)
{
	uint64_t seed = 2;
	struct head h =
		head_new(variant->tk, variant->tk, variant->dqk, variant->dv, variant->gap, &seed);

	forward(pst_ops_cpu(), &h);
	backward(pst_ops_cpu(), &h);
	EXPECT_TRUE(worst_backward(&h) < 5e-6);
	EXPECT_EQ((size_t)0, gaps_written(&h.dq));
	EXPECT_EQ((size_t)0, gaps_written(&h.dk));
	EXPECT_EQ((size_t)0, gaps_written(&h.dvalue));
	printf("# digest %016llx\n",
	       (unsigned long long)digest(digest(digest(0, &h.dq), &h.dk), &h.dvalue));
	head_free(&h);
}

/* Scores far apart: the softmax must neither overflow nor lose a later, larger block. */
TEST(scores_far_apart)
{
	uint64_t seed = 3;
	struct head h = head_new(600, 600, 16, 8, 0, &seed);

	for (size_t j = 0; j < h.tk; j++)
		for (size_t c = 0; c < h.dqk; c++)
			h.k.at[j * h.k.ld + c] *= (float)(1 + j / 4);
	forward(pst_ops_cpu(), &h);
	for (size_t i = 0; i < h.tq; i++)
		EXPECT_TRUE(isfinite(h.lse[i]));
	EXPECT_TRUE(worst_forward(&h) < 2e-3);
	head_free(&h);
}

/* A key that a query may not see changes nothing for it, however large. */
TEST(future_is_not_seen)
{
	uint64_t seed = 4;
	struct head h = head_new(100, 100, 16, 8, 0, &seed);
	uint64_t before;

	forward(pst_ops_cpu(), &h);
	h.o.n = 70;
	before = digest(0, &h.o);
	for (size_t x = 70 * h.k.ld; x < 100 * h.k.ld; x++)
		h.k.at[x] = 1e30f;
	for (size_t x = 70 * h.v.ld; x < 100 * h.v.ld; x++)
		h.v.at[x] = 1e30f;
	forward(pst_ops_cpu(), &h);
	EXPECT_EQ(before, digest(0, &h.o));
	head_free(&h);
}

TEST_MAIN
