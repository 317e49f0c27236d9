/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on CUDA against ref, in the places that emulate_table.h names: the ops, all heads of a
 * batch at once, and decoding from a cache. There operands that bf16 holds exactly show the kernel,
 * and any others what rounding them costs. Every buffer ends at a page that cannot be touched; what
 * is made, and what lies between, holds NaN before.
 */
#include "kernels/agree.h"
#include "kernels/bf16.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/gpu/kernels_guard.h"
#include "selftests/gpu/kernels_ops.h"
#include "selftests/gpu/libcuda_attn.h"

/* Probabilities rounded to bf16; all operands, too; and fp32 throughout. */
#define GATE_KERNEL 2.5e-3
#define GATE_RECIPE 6e-3
#define GATE_F32    1e-5

enum { PAD = 3 };

FIXTURE(one_head)
{
	int unused;
};

FIXTURE_VARIANT(one_head)
{
	enum pst_op op;
};

FIXTURE_VARIANT_ADD(one_head, attn){.op = PST_OP_attn};
FIXTURE_VARIANT_ADD(one_head, attn_bwd){.op = PST_OP_attn_bwd};

FIXTURE_SETUP(one_head)
{
}

FIXTURE_TEARDOWN(one_head)
{
}

TEST_F(one_head, agrees_with_ref)
{
	static const struct pst_agree_shape wide[] = {{7, 256, 250}, {66, 5, 40}};
	struct pst_agree_result res = {0};

	emulate_seed(1);
	EXPECT_EQ(0, pst_agree_op(&kernels_ops, variant->op, pst_agree_shapes,
				  pst_agree_nshapes - 1, 1, 0, &res));
	EXPECT_EQ(0, pst_agree_op(&kernels_ops, variant->op, wide, 2, 2, 0, &res));
	if (res.text[0])
		printf("# %s\n", res.text);
	printf("# relative error %.2g\n", res.error);
}

TEST_F(one_head, stays_within_its_buffers)
{
	static const struct pst_agree_shape shapes[] = {{5, 33, 7}, {1, 3, 1}};
	struct pst_agree_result res = {0};

	for (int i = 0; i < 2; i++)
		EXPECT_EQ(0, pst_agree_guarded(&kernels_ops, variant->op, &shapes[i], 7, &res));
	if (res.text[0])
		printf("# %s\n", res.text);
}

static struct guards guards;

static float *floats(size_t n)
{
	return guarded(&guards, n, sizeof(float));
}

/* As the stand-in for the driver does it, which runs no kernel but says that it has (libcuda.h). */
static bool by_standin;

static const struct cuda_op standin_ops[] = {CUDA_ATTN_OPS, CUDA_MLA_OPS};

static void run_standin(const char *name, void *const *params)
{
	const struct cuda_op *op = standin_ops;
	uint64_t v[CUDA_PARAMS] = {0};
	void *p[CUDA_PARAMS] = {NULL};

	while (strcmp(op->name, name))
		ASSERT_LT(++op - standin_ops, (long)(sizeof(standin_ops) / sizeof(*standin_ops)));
	for (int i = 0; op->params[i]; i++) {
		ASSERT_LT(i, (int)CUDA_PARAMS);
		memcpy(&v[i], params[i], strchr("pz", op->params[i]) ? 8 : 4);
		if (op->params[i] == 'p')
			memcpy(&p[i], params[i], sizeof(p[i]));
	}
	op->run(p, v);
}

static void run(enum pst_cuda_kernel k, void *const *params)
{
	if (by_standin)
		run_standin(pst_cuda_kernel_name(k), params);
	else
		ASSERT_EQ(0, emulate_kernel(k, params));
}

#define RUN(name, ...) run(PST_CUDA_##name, (void *[]){__VA_ARGS__})

/* Rows of all heads: what lies between the parts of heads, and behind them, is nobody's. */
struct matrix {
	float *at;
	size_t rows, ld, head, heads, cols;
};

static struct matrix matrix_of(size_t rows, size_t heads, size_t cols, size_t pad)
{
	struct matrix m = {NULL, rows, heads * (cols + pad) + pad, cols + pad, heads, cols};

	m.at = floats(rows ? (rows - 1) * m.ld + (heads - 1) * m.head + cols : 0);
	return m;
}

static float *row(const struct matrix *m, size_t head, size_t r)
{
	return m->at + r * m->ld + head * m->head;
}

static struct matrix random_matrix(uint64_t *rng, size_t rows, size_t heads, size_t cols,
				   size_t pad, bool exact)
{
	struct matrix m = matrix_of(rows, heads, cols, pad);

	for (size_t i = 0; i < heads * rows; i++)
		for (size_t c = 0; c < cols; c++) {
			float f = (float)(test_random(rng) >> 40) / (float)(1 << 22) - 2;

			row(&m, i / rows, i % rows)[c] =
				exact ? pst_bf16_to_f32(pst_bf16_from_f32(f)) : f;
		}
	return m;
}

/* |got - want| / |want|; infinite where something is not a number in one alone. */
static double distance(const struct matrix *got, const struct matrix *want)
{
	double diff = 0, norm = 0;

	for (size_t i = 0; i < got->heads * got->rows; i++)
		for (size_t c = 0; c < got->cols; c++) {
			double g = row(got, i / got->rows, i % got->rows)[c],
			       w = row(want, i / got->rows, i % got->rows)[c];

			if (!isfinite(g))
				return INFINITY;
			diff += (g - w) * (g - w);
			norm += w * w;
		}
	return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

/* Both may be -inf. */
static double lse_distance(float got, float want)
{
	if (got == want)
		return 0;
	return isfinite(got) ? fabs((double)got - want) / fmax(1, fabs(want)) : INFINITY;
}

static bool same_bits(const struct matrix *a, const struct matrix *b)
{
	for (size_t i = 0; i < a->heads * a->rows; i++)
		if (memcmp(row(a, i / a->rows, i % a->rows), row(b, i / a->rows, i % a->rows),
			   a->cols * sizeof(float)))
			return false;
	return true;
}

/* Is what lies between what it was? */
static bool gaps_are_untouched(const struct matrix *m)
{
	const uint32_t none = 0xffffffff;
	size_t n = m->rows ? (m->rows - 1) * m->ld + (m->heads - 1) * m->head + m->cols : 0;

	for (size_t i = 0; i < n; i++) {
		size_t in = i % m->ld;

		if (in < m->heads * m->head && in % m->head < m->cols)
			continue;
		if (memcmp(m->at + i, &none, sizeof(none)))
			return false;
	}
	return true;
}

/* All heads of a batch. */
struct attention {
	size_t heads, batch, tq, tk, dqk, dv, head_k, head_v, pad;
	float scale;
	struct matrix q, k, v;
	bool any, wide;
};

struct attention_case {
	size_t heads, batch, tq, tk, dqk, dv, pad;
	bool shared, any; /* one set of keys; operands that bf16 does not hold */
	float scale;	  /* 0: the usual one */
};

static struct attention attention_of(const struct attention_case *c)
{
	uint64_t rng = 7;
	size_t sets = c->shared ? 1 : c->heads;
	struct attention a = {.heads = c->heads,
			      .batch = c->batch,
			      .tq = c->tq,
			      .tk = c->tk,
			      .dqk = c->dqk,
			      .dv = c->dv,
			      .pad = c->pad,
			      .scale = c->scale > 0 ? c->scale : 1 / sqrtf((float)c->dqk),
			      .any = c->any};

	a.q = random_matrix(&rng, a.batch * a.tq, a.heads, a.dqk, a.pad, !a.any);
	a.k = random_matrix(&rng, a.batch * a.tk, sets, a.dqk, a.pad, !a.any);
	a.v = random_matrix(&rng, a.batch * a.tk, sets, a.dv, a.pad, !a.any);
	a.head_k = c->shared ? 0 : a.k.head;
	a.head_v = c->shared ? 0 : a.v.head;
	a.wide = a.dqk > PST_CUDA_ATTN_DQK || a.dv > PST_CUDA_ATTN_DV;
	return a;
}

FIXTURE(forward)
{
	struct attention a;
};

FIXTURE_VARIANT(forward)
{
	struct attention_case c;
};

FIXTURE_SETUP(forward)
{
	self->a = attention_of(&variant->c);
}

FIXTURE_TEARDOWN(forward)
{
	EXPECT_TRUE(guards_are_whole(&guards));
}

FIXTURE(backward)
{
	struct attention a;
};

FIXTURE_VARIANT(backward)
{
	struct attention_case c;
};

FIXTURE_SETUP(backward)
{
	self->a = attention_of(&variant->c);
}

FIXTURE_TEARDOWN(backward)
{
	EXPECT_TRUE(guards_are_whole(&guards));
}

#define FORWARD(name, ...) FIXTURE_VARIANT_ADD(forward, name){.c = {__VA_ARGS__}};
#define BOTH_WAYS(name, ...)       \
	FORWARD(name, __VA_ARGS__) \
	FIXTURE_VARIANT_ADD(backward, name){.c = {__VA_ARGS__}};
BOTH_WAYS(smallest, 1, 1, 1, 1, 1, 1, PAD, false, false, 0)
BOTH_WAYS(odd, 3, 2, 70, 70, 23, 19, PAD, false, false, 0)
BOTH_WAYS(real, 2, 1, 150, 150, 192, 128, 0, false, false, 0)
BOTH_WAYS(any_operands, 1, 1, 140, 140, 192, 128, 4, false, true, 0)
BOTH_WAYS(widest_odd, 1, 2, 65, 65, 191, 127, PAD, false, false, 0)
BOTH_WAYS(steep, 2, 1, 140, 140, 48, 40, PAD, false, false, 12)
BOTH_WAYS(wide_keys, 1, 2, 9, 9, 193, 8, PAD, false, true, 0)
BOTH_WAYS(wide_values, 1, 1, 9, 9, 8, 260, PAD, false, true, 0)
FORWARD(more_keys, 2, 2, 5, 200, 40, 24, PAD, false, false, 0)
FORWARD(fewer_keys, 1, 2, 70, 3, 16, 8, PAD, false, false, 0)
FORWARD(shared_keys, 3, 1, 20, 90, 64, 48, 0, true, false, 0)
FORWARD(absorbed, 2, 1, 3, 9, 576, 512, 0, true, true, 0)

static double gate(const struct attention *self)
{
	return self->wide ? GATE_F32 : (self->any ? GATE_RECIPE : GATE_KERNEL);
}

static struct matrix run_heads(struct attention *self, float *lse)
{
	struct matrix o = matrix_of(self->q.rows, self->heads, self->dv, PAD);

	RUN(attn_heads, &o.at, &o.ld, &o.head, &lse, &self->q.at, &self->q.ld, &self->q.head,
	    &self->k.at, &self->k.ld, &self->head_k, &self->v.at, &self->v.ld, &self->head_v,
	    &self->heads, &self->batch, &self->tq, &self->tk, &self->dqk, &self->dv, &self->scale);
	EXPECT_TRUE(gaps_are_untouched(&o));
	return o;
}

static struct matrix ref_heads(const struct attention *self, float *lse)
{
	struct matrix o = matrix_of(self->q.rows, self->heads, self->dv, 0);

	for (size_t h = 0; h < self->heads; h++)
		for (size_t b = 0; b < self->batch; b++)
			pst_ops_ref()->attn(
				row(&o, h, b * self->tq), o.ld,
				lse + (h * self->batch + b) * self->tq,
				row(&self->q, h, b * self->tq), self->q.ld,
				self->k.at + b * self->tk * self->k.ld + h * self->head_k,
				self->k.ld,
				self->v.at + b * self->tk * self->v.ld + h * self->head_v,
				self->v.ld, self->tq, self->tk, self->dqk, self->dv, self->scale);
	return o;
}

TEST_F(forward, agrees_with_ref)
{
	struct attention *a = &self->a;
	size_t n = a->heads * a->q.rows;
	float *lse = floats(n), *again = floats(n), *want_lse = floats(n);
	struct matrix want = ref_heads(a, want_lse), o, other;
	double d, most = 0;

	emulate_seed(1);
	o = run_heads(a, lse);
	other = run_heads(a, again);
	d = distance(&o, &want);
	for (size_t i = 0; i < n; i++)
		most = fmax(most, lse_distance(lse[i], want_lse[i]));
	printf("# relative error %.2g, of lse at the most %.2g\n", d, most);
	EXPECT_TRUE(d < gate(a));
	EXPECT_TRUE(most < (a->any && !a->wide ? 2e-2 : 1e-5));
	EXPECT_TRUE(same_bits(&o, &other));
	EXPECT_EQ(0, memcmp(lse, again, n * sizeof(*lse)));
}

TEST_F(forward, standin_computes_it)
{
	struct attention *a = &self->a;
	size_t n = a->heads * a->q.rows;
	float *lse = floats(n), *want_lse = floats(n);
	struct matrix want = ref_heads(a, want_lse), o;

	by_standin = true;
	o = run_heads(a, lse);
	EXPECT_TRUE(same_bits(&o, &want));
	EXPECT_EQ(0, memcmp(lse, want_lse, n * sizeof(*lse)));
}

/* What a head of a sequence gets does not depend on the others. */
TEST_F(forward, a_head_alone_gets_the_same_bits)
{
	struct attention *a = &self->a;
	size_t n = a->heads * a->q.rows, tq = a->tq;
	float *lse = floats(n), *alone_lse = floats(tq);
	struct matrix all = run_heads(a, lse), alone;
	struct attention one = *a;

	one.heads = one.batch = 1;
	one.q.rows = tq;
	for (size_t h = 0; h < a->heads; h++)
		for (size_t b = 0; b < a->batch; b++) {
			struct matrix part = {row(&all, h, b * tq), tq, all.ld, 0, 1, all.cols};

			one.q.at = row(&a->q, h, b * tq);
			one.k.at = a->k.at + b * a->tk * a->k.ld + h * a->head_k;
			one.v.at = a->v.at + b * a->tk * a->v.ld + h * a->head_v;
			alone = run_heads(&one, alone_lse);
			EXPECT_TRUE(same_bits(&alone, &part));
			EXPECT_EQ(0, memcmp(alone_lse, lse + (h * a->batch + b) * tq,
					    tq * sizeof(*lse)));
		}
}

struct gradients {
	struct matrix dq, dk, dv;
	float *delta;
};

static struct matrix like(const struct matrix *m)
{
	struct matrix to = *m;

	to.at = floats(m->rows ? (m->rows - 1) * m->ld + (m->heads - 1) * m->head + m->cols : 0);
	return to;
}

static struct gradients run_backward(struct attention *self, const struct matrix *o,
				     const struct matrix *dout, float *lse)
{
	struct gradients g = {like(&self->q), like(&self->k), like(&self->v),
			      floats(self->heads * self->q.rows)};
	const float *at_o = o->at, *at_d = dout->at;
	size_t ldo = o->ld, head_o = o->head;

	RUN(attn_heads_delta, &g.delta, &at_o, &at_d, &ldo, &head_o, &self->heads, &self->batch,
	    &self->tq, &self->dv);
#define FROM_DOUT                                                                                \
	&at_d, &ldo, &head_o, &lse, &g.delta, &self->heads, &self->batch, &self->tq, &self->dqk, \
		&self->dv, &self->scale, &self->q.at, &self->q.ld, &self->q.head, &self->k.at,   \
		&self->k.ld, &self->k.head, &self->v.at, &self->v.ld, &self->v.head
	RUN(attn_heads_dq, &g.dq.at, FROM_DOUT);
	RUN(attn_heads_dkv, &g.dk.at, &g.dv.at, FROM_DOUT);
	return g;
}

static struct gradients ref_backward(struct attention *self, const struct matrix *o,
				     const struct matrix *dout, const float *lse)
{
	struct gradients g = {like(&self->q), like(&self->k), like(&self->v), NULL};
	size_t t = self->tq;

	for (size_t h = 0; h < self->heads; h++)
		for (size_t r = 0; r < self->batch * t; r += t)
			pst_ops_ref()->attn_bwd(
				row(&g.dq, h, r), g.dq.ld, row(&g.dk, h, r), g.dk.ld,
				row(&g.dv, h, r), g.dv.ld, row(o, h, r), o->ld, row(dout, h, r),
				dout->ld, lse + h * self->batch * t + r, row(&self->q, h, r),
				self->q.ld, row(&self->k, h, r), self->k.ld, row(&self->v, h, r),
				self->v.ld, t, self->dqk, self->dv, self->scale);
	return g;
}

static void expect_gradient(const char *name, const struct matrix *got, const struct matrix *again,
			    const struct matrix *want, double most)
{
	double d = distance(got, want);

	printf("# %s: relative error %.2g\n", name, d);
	EXPECT_TRUE(d < most);
	EXPECT_TRUE(same_bits(got, again));
	EXPECT_TRUE(gaps_are_untouched(got));
}

/*
 * Not with the o that the softmax made, for then the gradient of a single key would be 0: with one
 * that makes a delta which is another number.
 */
TEST_F(backward, agrees_with_ref)
{
	struct attention *a = &self->a;
	uint64_t rng = 9;
	float *lse = floats(a->heads * a->q.rows);
	struct matrix o, dout;
	struct gradients got, again, want;
	double most = gate(a);

	ref_heads(a, lse);
	o = random_matrix(&rng, a->q.rows, a->heads, a->dv, a->pad, false);
	dout = random_matrix(&rng, a->q.rows, a->heads, a->dv, a->pad, !a->any);
	want = ref_backward(a, &o, &dout, lse);
	emulate_seed(3);
	got = run_backward(a, &o, &dout, lse);
	again = run_backward(a, &o, &dout, lse);
	expect_gradient("dq", &got.dq, &again.dq, &want.dq, most);
	expect_gradient("dk", &got.dk, &again.dk, &want.dk, most);
	expect_gradient("dv", &got.dv, &again.dv, &want.dv, most);
}

TEST_F(backward, standin_computes_it)
{
	struct attention *a = &self->a;
	uint64_t rng = 9;
	float *lse = floats(a->heads * a->q.rows);
	struct matrix o, dout;
	struct gradients got, want;

	ref_heads(a, lse);
	o = random_matrix(&rng, a->q.rows, a->heads, a->dv, a->pad, false);
	dout = random_matrix(&rng, a->q.rows, a->heads, a->dv, a->pad, false);
	want = ref_backward(a, &o, &dout, lse);
	by_standin = true;
	got = run_backward(a, &o, &dout, lse);
	expect_gradient("dq", &got.dq, &got.dq, &want.dq, GATE_F32);
	expect_gradient("dk", &got.dk, &got.dk, &want.dk, GATE_F32);
	expect_gradient("dv", &got.dv, &got.dv, &want.dv, GATE_F32);
}

/*
 * A long cache and few queries: a sequence that fills some parts of it, and whoever is beside it.
 */
enum { MOST_BATCH = 3 };

FIXTURE(decode)
{
	size_t heads, batch, tq, most, keys, lora, rope, dim, ldc, seq_c, rows, parts;
	int narrow;
	float scale;
	struct matrix q;
	float *cache; /* as fp32; what is not in use is NaN */
	void *given;
	int32_t *len;
};

FIXTURE_VARIANT(decode)
{
	size_t heads, batch, tq, most, keys, lora, rope, pad;
	int32_t len[MOST_BATCH];
	int narrow;
	float scale; /* 0: the usual one */
};

FIXTURE_VARIANT_ADD(decode, smallest){1, 1, 1, 1, 64, 1, 1, 0, {1}, 1, 0};
FIXTURE_VARIANT_ADD(decode, real){16, 1, 1, 200, 128, 512, 64, 0, {177}, 1, 0};
FIXTURE_VARIANT_ADD(decode, many_heads){70, 1, 1, 64, 64, 64, 16, 8, {64}, 1, 0};
FIXTURE_VARIANT_ADD(decode, uneven){3, 3, 2, 300, 64, 96, 32, 0, {300, 2, 67}, 1, 0};
FIXTURE_VARIANT_ADD(decode, odd){5, 2, 3, 100, 64, 37, 6, 1, {70, 65}, 1, 0};
FIXTURE_VARIANT_ADD(decode, steep){3, 1, 1, 150, 64, 64, 16, 0, {150}, 1, 60};
FIXTURE_VARIANT_ADD(decode, fp32){4, 2, 1, 130, 64, 64, 16, 0, {130, 5}, 0, 0};
FIXTURE_VARIANT_ADD(decode, fp32_odd){4, 1, 2, 90, 128, 61, 9, 3, {90}, 0, 0};
FIXTURE_VARIANT_ADD(decode, too_wide){2, 2, 2, 70, 64, 520, 60, 0, {66, 3}, 1, 0};
FIXTURE_VARIANT_ADD(decode, too_wide_fp32){2, 1, 1, 70, 64, 20, 600, 0, {70}, 0, 0};

/* Elements of a cache that bf16 holds exactly, in the format that the kernel is given. */
static void fill_cache(struct fixture_decode *self, uint64_t *rng)
{
	size_t n = (self->batch - 1) * self->seq_c + (self->most - 1) * self->ldc + self->dim;
	float *wide = floats(n);
	uint16_t *narrow = guarded(&guards, n, sizeof(*narrow));

	for (size_t i = 0; i < self->batch * self->most * self->dim; i++) {
		size_t b = i / self->dim / self->most, r = i / self->dim % self->most;
		size_t at = b * self->seq_c + r * self->ldc + i % self->dim;

		if (r >= (size_t)self->len[b])
			continue;
		narrow[at] = pst_bf16_from_f32((float)(test_random(rng) >> 40) / (1 << 22) - 2);
		wide[at] = pst_bf16_to_f32(narrow[at]);
	}
	self->cache = wide;
	self->given = self->narrow ? (void *)narrow : (void *)wide;
}

FIXTURE_SETUP(decode)
{
	uint64_t rng = 5;

	self->heads = variant->heads;
	self->batch = variant->batch;
	self->tq = variant->tq;
	self->most = variant->most;
	self->keys = variant->keys;
	self->lora = variant->lora;
	self->rope = variant->rope;
	self->narrow = variant->narrow;
	self->dim = self->lora + self->rope;
	self->ldc = self->dim + variant->pad;
	self->seq_c = self->ldc * self->most + variant->pad;
	self->rows = self->batch * self->tq;
	self->parts = (self->most + self->keys - 1) / self->keys;
	self->scale = variant->scale > 0 ? variant->scale : 1 / sqrtf((float)self->dim);
	self->q = random_matrix(&rng, self->rows, self->heads, self->dim, variant->pad, true);
	self->len = guarded(&guards, self->batch, sizeof(*self->len));
	memcpy(self->len, variant->len, self->batch * sizeof(*self->len));
	fill_cache(self, &rng);
}

FIXTURE_TEARDOWN(decode)
{
	EXPECT_TRUE(guards_are_whole(&guards));
}

static struct matrix run_decode(struct fixture_decode *self, float *lse)
{
	size_t n = self->parts * self->heads * self->rows;
	float *part = floats(n * self->lora), *part_lse = floats(n);
	struct matrix o = matrix_of(self->rows, self->heads, self->lora, PAD);

	RUN(mla_decode, &part, &part_lse, &self->q.at, &self->q.ld, &self->q.head, &self->given,
	    &self->narrow, &self->ldc, &self->seq_c, &self->len, &self->heads, &self->batch,
	    &self->tq, &self->most, &self->keys, &self->lora, &self->rope, &self->scale);
	RUN(mla_combine, &o.at, &o.ld, &o.head, &lse, &part, &part_lse, &self->heads, &self->batch,
	    &self->tq, &self->most, &self->keys, &self->lora);
	EXPECT_TRUE(gaps_are_untouched(&o));
	return o;
}

static struct matrix ref_decode(const struct fixture_decode *self, float *lse)
{
	struct matrix o = matrix_of(self->rows, self->heads, self->lora, 0);

	for (size_t h = 0; h < self->heads; h++)
		for (size_t b = 0; b < self->batch; b++) {
			const float *c = self->cache + b * self->seq_c;

			pst_ops_ref()->attn(row(&o, h, b * self->tq), o.ld,
					    lse + h * self->rows + b * self->tq,
					    row(&self->q, h, b * self->tq), self->q.ld, c,
					    self->ldc, c, self->ldc, self->tq, (size_t)self->len[b],
					    self->dim, self->lora, self->scale);
		}
	return o;
}

TEST_F(decode, agrees_with_ref)
{
	size_t n = self->heads * self->rows;
	float *lse = floats(n), *again = floats(n), *want_lse = floats(n), *none = NULL;
	bool wide = self->dim > PST_CUDA_MLA_COLS || self->lora > PST_CUDA_MLA_VALUES;
	struct matrix want = ref_decode(self, want_lse), o, other, silent;
	double d, most = 0;

	emulate_seed(1);
	o = run_decode(self, lse);
	other = run_decode(self, again);
	silent = run_decode(self, none);
	d = distance(&o, &want);
	for (size_t i = 0; i < n; i++)
		most = fmax(most, lse_distance(lse[i], want_lse[i]));
	printf("# relative error %.2g, of lse at the most %.2g\n", d, most);
	EXPECT_TRUE(d < (wide ? GATE_F32 : GATE_KERNEL));
	EXPECT_TRUE(most < 1e-5);
	EXPECT_TRUE(same_bits(&o, &other));
	EXPECT_TRUE(same_bits(&o, &silent));
	EXPECT_EQ(0, memcmp(lse, again, n * sizeof(*lse)));
}

/* Nor does a sequence notice who is beside it, or for how many more keys there would be room. */
TEST_F(decode, a_sequence_alone_gets_the_same_bits)
{
	float *lse = floats(self->heads * self->rows);
	float *alone_lse = floats(self->heads * self->tq);
	struct matrix all = run_decode(self, lse), alone;
	struct fixture_decode one = *self;

	one.batch = 1;
	one.rows = self->tq;
	one.q.rows = self->tq;
	for (size_t b = 0; b < self->batch; b++) {
		struct matrix part = all;

		one.q.at = row(&self->q, 0, b * self->tq);
		one.given = (char *)self->given + b * self->seq_c * (self->narrow ? 2 : 4);
		one.len = self->len + b;
		one.most = (size_t)self->len[b];
		one.parts = (one.most + one.keys - 1) / one.keys;
		alone = run_decode(&one, alone_lse);
		part.at = row(&all, 0, b * self->tq);
		part.rows = self->tq;
		EXPECT_TRUE(same_bits(&alone, &part));
	}
}

TEST_F(decode, standin_computes_it)
{
	size_t n = self->heads * self->rows;
	float *lse = floats(n), *want_lse = floats(n);
	struct matrix want = ref_decode(self, want_lse), o;

	by_standin = true;
	o = run_decode(self, lse);
	EXPECT_TRUE(distance(&o, &want) < GATE_F32);
	for (size_t i = 0; i < n; i++)
		EXPECT_TRUE(lse_distance(lse[i], want_lse[i]) < 1e-5);
}

/* Sizes that a kernel does not take are refused, and the launch is left as it was. */
TEST(attention_of_sizes_that_no_launch_takes)
{
	struct pst_cuda_launch l = {{7, 7, 7}, 7, 7}, before = l;
	size_t one = 1, keys = 64, odd = 65, none = 0, huge = (size_t)1 << 40;
	void *decode[18], *heads[20];

	for (int i = 0; i < 20; i++)
		heads[i] = &one;
	for (int i = 0; i < 18; i++)
		decode[i] = &one;
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_mla_decode, decode, &l));
	decode[14] = &odd;
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_mla_decode, decode, &l));
	decode[14] = &none;
	EXPECT_EQ(-EINVAL, pst_cuda_geometry(PST_CUDA_mla_decode, decode, &l));
	decode[14] = &keys;
	for (int i = 10; i < 14; i++) {
		decode[i] = &huge;
		EXPECT_EQ(-E2BIG, pst_cuda_geometry(PST_CUDA_mla_decode, decode, &l));
		decode[i] = &one;
	}
	for (int i = 13; i < 16; i++) {
		heads[i] = &huge;
		EXPECT_EQ(-E2BIG, pst_cuda_geometry(PST_CUDA_attn_heads, heads, &l));
		heads[i] = &one;
	}
	EXPECT_EQ(0, memcmp(&before, &l, sizeof(l)));
	EXPECT_EQ(0, pst_cuda_geometry(PST_CUDA_mla_decode, decode, &l));
	EXPECT_EQ(0, pst_cuda_geometry(PST_CUDA_attn_heads, heads, &l));
}
