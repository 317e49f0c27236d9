/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CUDA kernels against ref: on the CPU under an emulation (emulate.h), or on a GPU, as
 * emulate_table.h says. What passes under the emulation has the right indices, layouts, barriers
 * and sums; it says nothing of a GPU.
 */
#include "kernels/agree.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/gpu/kernels_ops.h"
#include "selftests/lib/test.h"

#include <math.h>

/* What ref has: a shape, and all flags and places that agree.h tries. */
static void agree(enum pst_op op, const struct pst_agree_shape *shapes, size_t n, uint64_t seed)
{
	struct pst_agree_result res = {0};

	emulate_seed(seed);
	/* each launch has another order of blocks and of threads, and the bits must be the same */
	EXPECT_EQ(0, pst_agree_op(&kernels_ops, op, shapes, n, seed, 0, &res));
	if (res.text[0])
		printf("# %s\n", res.text);
	printf("# %s: relative error %.2g\n", pst_op_name(op), res.error);
}

FIXTURE(op)
{
	int unused;
};

FIXTURE_VARIANT(op)
{
	enum pst_op op;
};

FIXTURE_SETUP(op)
{
}

FIXTURE_TEARDOWN(op)
{
}

#define VARIANT(name, ...) FIXTURE_VARIANT_ADD(op, name){.op = PST_OP_##name};
PST_CUDA_OPS(VARIANT)

/* No rows, one, odd tails, more columns than a block has threads: the shapes that find most. */
TEST_F(op, agrees_with_ref)
{
	agree(variant->op, pst_agree_shapes, pst_agree_nshapes, 1);
}

/* As many blocks as there is work for, and then few: that makes no difference. */
TEST_F(op, gives_the_same_bits_in_any_grid)
{
	static const struct pst_agree_shape shapes[] = {{33, 65, 64}, {7, 1051, 70}, {70, 37, 3}};

	emulate_few_blocks(2);
	for (uint64_t seed = 4; seed < 7; seed++)
		agree(variant->op, shapes, 3, seed);
}

/* More columns than the threads of a block take at once. */
TEST_F(op, agrees_with_ref_on_long_rows)
{
	static const struct pst_agree_shape shapes[] = {{3, 2053, 8}, {2, 4109, 3}, {9, 1024, 7}};

	agree(variant->op, shapes, 3, 3);
}

/*
 * Between pages that cannot be touched: nothing is read or written around a buffer. Buffers begin
 * on 16 bytes there, or end on them, so this is where accesses are wide, too.
 */
TEST_F(op, stays_within_its_buffers)
{
	static const struct pst_agree_shape shapes[] = {{5, 33, 7}, {4, 64, 4}, {1, 3, 1}};
	struct pst_agree_result res = {0};

	for (int i = 0; i < 3; i++)
		EXPECT_EQ(0, pst_agree_guarded(&kernels_ops, variant->op, &shapes[i], 7, &res));
	if (res.text[0])
		printf("# %s\n", res.text);
}

/*
 * Addresses: an op with all its buffers on 16 bytes, with none of them there, and with some. The
 * bits are the same.
 */
enum { PLACES = 12, PLACE = 2048, ROWS = 3, COLS = 24, N = 77 };

struct places {
	float memory[PLACES][PLACE] __attribute__((aligned(16)));
	unsigned int off; /* a bit for each buffer, in the order of asking */
	int n;
	uint64_t rng;
};

static void *place(struct places *p)
{
	float *at = p->memory[p->n] + (p->off >> p->n & 1);

	for (int i = 0; i < PLACE - 1; i++)
		at[i] = (float)(test_random(&p->rng) >> 40) / (float)(1 << 23) + 0.01f;
	p->n++;
	return at;
}

static int32_t *place_index(struct places *p, int below)
{
	int32_t *at = place(p);

	for (int i = 0; i < PLACE - 1; i++)
		at[i] = i * 5 % below;
	return at;
}

static const void *at_gather(struct places *p, size_t *bytes)
{
	float *y = place(p), *x = place(p);

	kernels_ops.gather(y, x, place_index(p, ROWS), ROWS, COLS);
	*bytes = ROWS * COLS * sizeof(*y);
	return y;
}

static const void *at_combine(struct places *p, size_t *bytes)
{
	float *y = place(p), *x = place(p), *w = place(p);

	kernels_ops.combine(y, x, w, place_index(p, 2 * ROWS), ROWS, 2, COLS, 1);
	*bytes = ROWS * COLS * sizeof(*y);
	return y;
}

static const void *at_combine_dw(struct places *p, size_t *bytes)
{
	float *dw = place(p), *dy = place(p), *x = place(p);

	kernels_ops.combine_dw(dw, dy, x, place_index(p, 2 * ROWS), ROWS, 2, COLS);
	*bytes = 2 * ROWS * sizeof(*dw);
	return dw;
}

static const void *at_scatter_scaled(struct places *p, size_t *bytes)
{
	float *dx = place(p), *dy = place(p), *w = place(p);

	kernels_ops.scatter_scaled(dx, dy, w, place_index(p, 2 * ROWS), ROWS, 2, COLS);
	*bytes = 2 * ROWS * COLS * sizeof(*dx);
	return dx;
}

static const void *at_add(struct places *p, size_t *bytes)
{
	float *y = place(p), *x = place(p);

	kernels_ops.add(y, x, N);
	*bytes = N * sizeof(*y);
	return y;
}

static const void *at_swiglu(struct places *p, size_t *bytes)
{
	float *a = place(p), *g = place(p), *u = place(p);

	kernels_ops.swiglu(a, g, u, N);
	*bytes = N * sizeof(*a);
	return a;
}

static const void *at_swiglu_bwd(struct places *p, size_t *bytes)
{
	float *dg = place(p), *du = place(p), *a = place(p), *da = place(p), *g = place(p),
	      *u = place(p);

	kernels_ops.swiglu_bwd(dg, du, a, da, g, u, N);
	*bytes = N * sizeof(*dg);
	return dg;
}

static const void *at_rmsnorm(struct places *p, size_t *bytes)
{
	float *y = place(p), *x = place(p), *w = place(p), *rstd = place(p);

	kernels_ops.rmsnorm(y, COLS, rstd, x, COLS, w, ROWS, COLS, 1e-6f);
	*bytes = ROWS * COLS * sizeof(*y);
	return y;
}

static const void *at_rmsnorm_dx(struct places *p, size_t *bytes)
{
	float *dx = place(p), *dy = place(p), *x = place(p), *w = place(p), *rstd = place(p);

	kernels_ops.rmsnorm_dx(dx, COLS, dy, COLS, x, COLS, w, rstd, ROWS, COLS);
	*bytes = ROWS * COLS * sizeof(*dx);
	return dx;
}

static const void *at_xent(struct places *p, size_t *bytes)
{
	float *logit = place(p), *loss = place(p);

	kernels_ops.xent(loss, logit, COLS, place_index(p, COLS), ROWS, COLS, 0.5f);
	*bytes = ROWS * COLS * sizeof(*logit);
	return logit;
}

static const void *at_adamw(struct places *p, size_t *bytes)
{
	float *w = place(p), *m = place(p), *v = place(p), *out = place(p), *g = place(p);

	kernels_ops.adamw(w, m, v, out, g, N, 1e-2f, .9f, .95f, 1e-8f, .1f, .1f, .05f, .5f);
	*bytes = N * sizeof(*out);
	return out;
}

static const void *at_adamw_bf16(struct places *p, size_t *bytes)
{
	float *w = place(p), *m = place(p), *v = place(p), *g;
	uint16_t *out = place(p);

	g = place(p);
	kernels_ops.adamw_bf16(w, m, v, out, g, N, 1e-2f, .9f, .95f, 1e-8f, .1f, .1f, .05f, .5f);
	*bytes = N * sizeof(*out);
	return out;
}

static const void *at_to_bf16(struct places *p, size_t *bytes)
{
	uint16_t *y = place(p);

	kernels_ops.to_bf16(y, place(p), N);
	*bytes = N * sizeof(*y);
	return y;
}

static const void *at_from_bf16(struct places *p, size_t *bytes)
{
	float *y = place(p);

	kernels_ops.from_bf16(y, place(p), N);
	*bytes = N * sizeof(*y);
	return y;
}

static const void *at_sumsq(struct places *p, size_t *bytes)
{
	double *sum = place(p);

	*sum = kernels_ops.sumsq(place(p), N);
	*bytes = sizeof(*sum);
	return sum;
}

FIXTURE(address)
{
	struct places *p;
};

FIXTURE_VARIANT(address)
{
	const void *(*run)(struct places * p, size_t * bytes);
};

FIXTURE_SETUP(address)
{
	ASSERT_EQ(0, posix_memalign((void **)&self->p, 16, sizeof(*self->p)));
}

FIXTURE_TEARDOWN(address)
{
	free(self->p);
}

#define AT(name) FIXTURE_VARIANT_ADD(address, name){.run = at_##name};
AT(gather)
AT(combine)
AT(combine_dw)
AT(scatter_scaled)
AT(add)
AT(swiglu)
AT(swiglu_bwd)
AT(rmsnorm)
AT(rmsnorm_dx)
AT(xent)
AT(adamw)
AT(adamw_bf16)
AT(to_bf16)
AT(from_bf16)
AT(sumsq)

TEST_F(address, changes_no_bits)
{
	unsigned char wide[PLACE * sizeof(float)];
	struct places *p = self->p;

	/* none off, all, every one alone */
	for (unsigned int i = 0; i < 8; i++) {
		const void *out;
		size_t bytes;

		p->off = i < 2 ? 0u - i : 1u << (i - 2);
		p->n = 0;
		p->rng = 3;
		out = variant->run(p, &bytes);
		if (!i)
			memcpy(wide, out, bytes);
		EXPECT_EQ(0, memcmp(wide, out, bytes));
	}
}

/* In two launches, with the bits of one. */
TEST(sumsq_in_two_launches)
{
	const size_t sizes[] = {0, 5, 1000, 150000};
	float *x = malloc(sizes[3] * sizeof(*x));
	size_t parts = PST_CUDA_SUMSQ_PARTS;
	uint64_t rng = 5;

	for (size_t i = 0; i < sizes[3]; i++)
		x[i] = (float)(test_random(&rng) >> 40) / (float)(1 << 23) - 1;
	for (int i = 0; i < 4; i++) {
		double part[PST_CUDA_SUMSQ_PARTS], *at = part, one = NAN, two = NAN, *to = &one;
		size_t n = sizes[i];

		memset(part, 0xff, sizeof(part));
		ASSERT_EQ(0, emulate_kernel(PST_CUDA_sumsq, (void *[]){&to, &x, &n}));
		ASSERT_EQ(0, emulate_kernel(PST_CUDA_sumsq_parts, (void *[]){&at, &x, &n}));
		to = &two;
		ASSERT_EQ(0, emulate_kernel(PST_CUDA_sumsq_total, (void *[]){&to, &at, &parts}));
		EXPECT_EQ(0, memcmp(&one, &two, sizeof(one)));
		EXPECT_TRUE(fabs(one - pst_ops_ref()->sumsq(x, n)) <= 1e-12 * one);
	}
	free(x);
}

/* With nothing but NaN to choose by, or almost, the choice is ref's. */
TEST(gate_chooses_among_nan)
{
	enum { E = 40, K = 3 };
	float logit[E], bias[E], w[K], score[E];

	for (int i = 0; i < E; i++)
		logit[i] = bias[i] = (float)NAN;
	for (int real = 0; real < 3; real++) {
		for (size_t groups = 1; groups <= 4; groups += 3) {
			int32_t idx[K] = {-1, -1, -1}, want[K];

			kernels_ops.gate_topk(idx, w, score, logit, bias, 1, E, K, groups, 2, 1, 1);
			pst_ops_ref()->gate_topk(want, w, score, logit, bias, 1, E, K, groups, 2, 1,
						 1);
			EXPECT_EQ(0, memcmp(idx, want, sizeof(want)));
		}
		logit[33 + real] = bias[33 + real] = 0;
	}
}

/* No group at all: whoever comes after nothing in order is out, as in ref. */
TEST(gate_without_groups)
{
	enum { E = 160, GROUPS = 40, K = 5 };
	float logit[E], bias[E], w[K], score[E];
	int32_t idx[K], want[K];
	uint64_t rng = 9;

	for (int i = 0; i < E; i++) {
		logit[i] = (float)(test_random(&rng) % 100) - 50;
		/* the best of all are in groups whose sums are below 0 */
		bias[i] = i % 8 >= 4 ? 0 : (i % 8 ? -9 : 1);
	}
	for (uint64_t seed = 0; seed < 3; seed++) {
		emulate_seed(seed);
		kernels_ops.gate_topk(idx, w, score, logit, bias, 1, E, K, GROUPS, 0, 1, 1);
		pst_ops_ref()->gate_topk(want, w, score, logit, bias, 1, E, K, GROUPS, 0, 1, 1);
		EXPECT_EQ(0, memcmp(idx, want, sizeof(want)));
	}
}

TEST_MAIN
