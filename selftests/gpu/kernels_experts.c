/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The experts' CUDA kernels against ref ops in fp32 on the same bf16 operands, as kernels.c.
 * Every buffer ends at a page that cannot be touched, and begins behind bytes that are looked at;
 * outputs hold NaN before.
 */
#include "kernels/bf16.h"
#include "kernels/op.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/lib/test.h"

#include <math.h>
#include <sys/mman.h>

/*
 * What bf16 rounding leaves on the average, and what it leaves of a few numbers, one of which may
 * be most of their norm (half of 2^-7); and what fp32 sums in another order leave.
 */
#define GATE_BF16     2.5e-3
#define GATE_BF16_FEW 4e-3
#define GATE_F32      5e-6
#define FEW	      256

enum { PAGE = 4096, MOST_BUFFERS = 512, MOST_EXPERTS = 40, PAD = 8 };

static struct {
	unsigned char *base, *data;
} buffers[MOST_BUFFERS];
static int nbuffers;

/* @n elements of @size, all 0xff: NaN as bf16 and as fp32. */
static void *guarded(size_t n, size_t size)
{
	size_t bytes = n * size, pages = (bytes + PAGE - 1) / PAGE + 1;
	unsigned char *p = mmap(NULL, (pages + 1) * PAGE, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE((void *)MAP_FAILED, (void *)p);
	ASSERT_LT(nbuffers, (int)MOST_BUFFERS);
	memset(p, 0xff, pages * PAGE);
	mprotect(p + pages * PAGE, PAGE, PROT_NONE);
	buffers[nbuffers].base = p;
	buffers[nbuffers].data = p + pages * PAGE - bytes;
	return buffers[nbuffers++].data;
}

static bool nothing_before_buffers_was_written(void)
{
	for (int i = 0; i < nbuffers; i++)
		for (unsigned char *p = buffers[i].base; p < buffers[i].data; p++)
			if (*p != 0xff)
				return false;
	return true;
}

static uint64_t rng;

static float any(float most)
{
	return ((float)(test_random(&rng) >> 40) / (float)(1 << 23) - 1) * most;
}

static uint16_t *random_bf16(size_t rows, size_t cols, size_t ld, float most)
{
	/* nothing behind the last row */
	uint16_t *p = guarded(rows ? (rows - 1) * ld + cols : 0, sizeof(*p));

	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			p[r * ld + c] = pst_bf16_from_f32(any(most));
	return p;
}

/* fp32 of @rows rows, those that @idx names if it is not NULL, side by side. */
static float *widened(const uint16_t *x, size_t ld, const int32_t *idx, size_t rows, size_t cols)
{
	float *to = calloc(rows * cols + 1, sizeof(*to));

	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			to[r * cols + c] = pst_bf16_to_f32(x[(idx ? (size_t)idx[r] : r) * ld + c]);
	return to;
}

/* |got - want| / |want|; infinite if something is not a number. */
static double distance(const float *got, const float *want, size_t n)
{
	double diff = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isfinite(got[i]))
			return INFINITY;
		diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
		norm += (double)want[i] * want[i];
	}
	return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

static bool rounds_to(const uint16_t *got, const float *want, size_t n)
{
	float *wide = widened(got, 1, NULL, n, 1);
	double d = distance(wide, want, n);

	free(wide);
	return d < (n < FEW ? GATE_BF16_FEW : GATE_BF16);
}

FIXTURE(experts)
{
	size_t n, rows, hidden, inter, tokens, ldx;
	int32_t *off, *idx;
	uint16_t *x, *dy;
	uint16_t **gate, **up, **down;
	/* made by the kernels */
	uint16_t *a, *kept, *dg, *du, *again;
	float *y, *dx, *dw;
};

FIXTURE_VARIANT(experts)
{
	size_t hidden, inter, n;
	int rows[MOST_EXPERTS];
	bool gather;
};

FIXTURE_VARIANT_ADD(experts, smallest){.hidden = 8, .inter = 8, .n = 1, .rows = {1}};
FIXTURE_VARIANT_ADD(experts, no_rows){.hidden = 16, .inter = 8, .n = 2};
FIXTURE_VARIANT_ADD(experts, no_experts){.hidden = 16, .inter = 8};
FIXTURE_VARIANT_ADD(experts, uneven){
	.hidden = 72, .inter = 136, .n = 7, .rows = {0, 1, 17, 0, 66, 3, 0}, .gather = true};
FIXTURE_VARIANT_ADD(experts, one_hot_expert){
	.hidden = 136, .inter = 72, .n = 4, .rows = {0, 150, 0, 1}, .gather = true};
FIXTURE_VARIANT_ADD(experts,
		    more_steps_than_stages){.hidden = 392, .inter = 328, .n = 2, .rows = {5, 64}};
FIXTURE_VARIANT_ADD(experts, more_experts_than_lanes){
	.hidden = 16,
	.inter = 8,
	.n = MOST_EXPERTS,
	.rows = {1, 0, 2, 0, 0, 3, [30] = 17, 0, 2, 1, [38] = 4, 1},
	.gather = true};

static uint16_t **weights(size_t n, size_t rows, size_t cols)
{
	uint16_t **w = guarded(n, sizeof(*w));

	for (size_t i = 0; i < n; i++)
		w[i] = random_bf16(rows, cols, cols, 1.0f / sqrtf((float)cols));
	return w;
}

/* Every row comes from somewhere else; tokens that none wants stay NaN. */
static void choose_rows(struct fixture_experts *self)
{
	self->idx = guarded(self->rows, sizeof(*self->idx));
	self->tokens = 2 * self->rows;
	for (size_t r = 0; r < self->rows; r++)
		self->idx[r] = (int32_t)(2 * ((r * 7 + 3) % self->rows));
}

FIXTURE_SETUP(experts)
{
	rng = 11;
	self->n = variant->n;
	self->hidden = variant->hidden;
	self->inter = variant->inter;
	self->off = guarded(self->n + 1, sizeof(*self->off));
	self->off[0] = 0;
	for (size_t i = 0; i < self->n; i++)
		self->off[i + 1] = self->off[i] + variant->rows[i];
	self->rows = (size_t)self->off[self->n];
	self->tokens = self->rows;
	if (variant->gather)
		choose_rows(self);
	self->ldx = self->hidden + PAD;
	self->x = random_bf16(self->tokens, self->hidden, self->ldx, 2);
	for (size_t t = 1; variant->gather && t < self->tokens; t += 2)
		memset(self->x + t * self->ldx, 0xff, self->hidden * sizeof(*self->x));
	self->gate = weights(self->n, self->inter, self->hidden);
	self->up = weights(self->n, self->inter, self->hidden);
	self->down = weights(self->n, self->hidden, self->inter);
	self->dy = random_bf16(self->rows, self->hidden, self->hidden, 2);
}

FIXTURE_TEARDOWN(experts)
{
	EXPECT_TRUE(nothing_before_buffers_was_written());
}

#define RUN(name, ...) \
	ASSERT_EQ(0, emulate_kernel(PST_CUDA_experts_##name, (void *[]){__VA_ARGS__}))
#define RUN_OF(name, of, ...)                                                   \
	ASSERT_EQ(0, emulate_kernel(of == 16   ? PST_CUDA_experts_##name##_16   \
				    : of == 64 ? PST_CUDA_experts_##name##_64   \
					       : PST_CUDA_experts_##name##_128, \
				    (void *[]){__VA_ARGS__}))
#define RUN_WIDE(name, of, ...)                                               \
	ASSERT_EQ(0, emulate_kernel(of == 64 ? PST_CUDA_experts_##name##_64   \
					     : PST_CUDA_experts_##name##_128, \
				    (void *[]){__VA_ARGS__}))

static void run_up(struct fixture_experts *self, int of)
{
	self->a = guarded(self->rows * self->inter, sizeof(*self->a));
	self->kept = guarded(self->rows * 2 * self->inter, sizeof(*self->kept));
	RUN_OF(up, of, &self->a, &self->kept, &self->x, &self->ldx, &self->idx, &self->gate,
	       &self->up, &self->off, &self->n, &self->rows, &self->hidden, &self->inter);
}

static void run_down(struct fixture_experts *self, int of)
{
	int narrow = 0;

	self->y = guarded(self->rows * self->hidden, sizeof(*self->y));
	RUN_OF(down, of, &self->y, &narrow, &self->a, &self->down, &self->off, &self->n,
	       &self->rows, &self->hidden, &self->inter);
}

static void run_da(struct fixture_experts *self, int of)
{
	self->dg = guarded(self->rows * self->inter, sizeof(*self->dg));
	self->du = guarded(self->rows * self->inter, sizeof(*self->du));
	self->again = guarded(self->rows * self->inter, sizeof(*self->again));
	RUN_WIDE(da, of, &self->dg, &self->du, &self->again, &self->dy, &self->kept, &self->down,
		 &self->off, &self->n, &self->rows, &self->hidden, &self->inter);
}

static void run_dx(struct fixture_experts *self, int of)
{
	int narrow = 0;

	self->dx = guarded(self->rows * self->hidden, sizeof(*self->dx));
	RUN_WIDE(dx, of, &self->dx, &narrow, &self->dg, &self->du, &self->gate, &self->up,
		 &self->off, &self->n, &self->rows, &self->hidden, &self->inter);
}

/* d loss / d gate of all experts, into matrices that hold @before. */
static float **run_dgate(struct fixture_experts *self, int acc, float before)
{
	float **dw = guarded(self->n, sizeof(*dw));

	for (size_t i = 0; i < self->n; i++) {
		dw[i] = guarded(self->inter * self->hidden, sizeof(**dw));
		for (size_t j = 0; acc && j < self->inter * self->hidden; j++)
			dw[i][j] = before;
	}
	RUN(dw, &dw, &self->dg, &self->x, &self->ldx, &self->idx, &self->off, &self->n,
	    &self->inter, &self->hidden, &acc);
	return dw;
}

static float *product(int ta, int tb, size_t m, size_t n, size_t k, const float *a, const float *b)
{
	float *c = calloc(m * n + 1, sizeof(*c));

	pst_ops_ref()->gemm(ta, tb, m, n, k, a, ta ? m : k, b, tb ? k : n, c, n, 0);
	return c;
}

/* Expert @i: its rows of g, u and a, from ref. */
static void expect_up(struct fixture_experts *self, size_t i)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first,
	       n = rows * self->inter;
	float *x = widened(self->x + (self->idx ? 0 : first * self->ldx), self->ldx,
			   self->idx ? self->idx + first : NULL, rows, self->hidden);
	float *gate = widened(self->gate[i], self->hidden, NULL, self->inter, self->hidden);
	float *up = widened(self->up[i], self->hidden, NULL, self->inter, self->hidden);
	float *g = product(0, 1, rows, self->inter, self->hidden, x, gate);
	float *u = product(0, 1, rows, self->inter, self->hidden, x, up);
	const uint16_t *kept = self->kept + first * 2 * self->inter;

	for (size_t r = 0; r < rows; r++, kept += 2 * self->inter) {
		EXPECT_TRUE(rounds_to(kept, g + r * self->inter, self->inter));
		EXPECT_TRUE(rounds_to(kept + self->inter, u + r * self->inter, self->inter));
	}
	pst_ops_ref()->swiglu(g, g, u, n);
	EXPECT_TRUE(rounds_to(self->a + first * self->inter, g, n));
	free(x), free(gate), free(up), free(g), free(u);
}

static void expect_down(struct fixture_experts *self, size_t i)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first;
	float *a = widened(self->a + first * self->inter, self->inter, NULL, rows, self->inter);
	float *down = widened(self->down[i], self->inter, NULL, self->hidden, self->inter);
	float *y = product(0, 1, rows, self->hidden, self->inter, a, down);

	EXPECT_TRUE(distance(self->y + first * self->hidden, y, rows * self->hidden) < GATE_F32);
	free(a), free(down), free(y);
}

TEST_F(experts, forward_agrees_with_ref)
{
	const int of[] = {16, 64, 128};
	uint16_t *a = NULL, *kept = NULL;
	float *y = NULL;

	for (int v = 0; v < 3; v++) {
		emulate_seed((uint64_t)v);
		run_up(self, of[v]);
		run_down(self, of[v]);
		for (size_t i = 0; i < self->n && !v; i++) {
			expect_up(self, i);
			expect_down(self, i);
		}
		/* the others add the same in the same order */
		EXPECT_TRUE(!a || !memcmp(a, self->a, self->rows * self->inter * sizeof(*a)));
		EXPECT_TRUE(!a ||
			    !memcmp(kept, self->kept, self->rows * 2 * self->inter * sizeof(*a)));
		EXPECT_TRUE(!y || !memcmp(y, self->y, self->rows * self->hidden * sizeof(*y)));
		a = self->a, kept = self->kept, y = self->y;
	}
}

static void expect_da(struct fixture_experts *self, size_t i)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first,
	       inter = self->inter, n = rows * inter;
	const uint16_t *kept = self->kept + first * 2 * inter;
	float *dy =
		widened(self->dy + first * self->hidden, self->hidden, NULL, rows, self->hidden);
	float *down = widened(self->down[i], inter, NULL, self->hidden, inter);
	float *da = product(0, 0, rows, inter, self->hidden, dy, down);
	float *g = widened(kept, 2 * inter, NULL, rows, inter);
	float *u = widened(kept + inter, 2 * inter, NULL, rows, inter);

	pst_ops_ref()->swiglu_bwd(g, u, da, da, g, u, n);
	EXPECT_TRUE(rounds_to(self->dg + first * inter, g, n));
	EXPECT_TRUE(rounds_to(self->du + first * inter, u, n));
	EXPECT_TRUE(rounds_to(self->again + first * inter, da, n));
	free(dy), free(down), free(da), free(g), free(u);
}

static void expect_dx(struct fixture_experts *self, size_t i)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first,
	       inter = self->inter, hidden = self->hidden;
	float *dg = widened(self->dg + first * inter, inter, NULL, rows, inter);
	float *du = widened(self->du + first * inter, inter, NULL, rows, inter);
	float *gate = widened(self->gate[i], hidden, NULL, inter, hidden);
	float *up = widened(self->up[i], hidden, NULL, inter, hidden);
	float *dx = product(0, 0, rows, hidden, inter, dg, gate);

	pst_ops_ref()->gemm(0, 0, rows, hidden, inter, du, inter, up, hidden, dx, hidden, 1);
	EXPECT_TRUE(distance(self->dx + first * hidden, dx, rows * hidden) < GATE_F32);
	free(dg), free(du), free(gate), free(up), free(dx);
}

TEST_F(experts, input_gradients_agree_with_ref)
{
	uint16_t *dg = NULL, *du = NULL, *again = NULL;
	float *dx = NULL;

	run_up(self, 64);
	for (int of = 64; of <= 128; of += 64) {
		emulate_seed((uint64_t)of);
		run_da(self, of);
		run_dx(self, of);
		for (size_t i = 0; i < self->n && !dx; i++) {
			expect_da(self, i);
			expect_dx(self, i);
		}
		EXPECT_TRUE(!dg || !memcmp(dg, self->dg, self->rows * self->inter * sizeof(*dg)));
		EXPECT_TRUE(!du || !memcmp(du, self->du, self->rows * self->inter * sizeof(*du)));
		EXPECT_TRUE(!again ||
			    !memcmp(again, self->again, self->rows * self->inter * sizeof(*again)));
		EXPECT_TRUE(!dx || !memcmp(dx, self->dx, self->rows * self->hidden * sizeof(*dx)));
		dg = self->dg, du = self->du, again = self->again, dx = self->dx;
	}
}

static void expect_dgate(struct fixture_experts *self, size_t i, const float *dw,
			 const float *twice)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first,
	       n = self->inter * self->hidden;
	float *dg = widened(self->dg + first * self->inter, self->inter, NULL, rows, self->inter);
	float *x = widened(self->x + (self->idx ? 0 : first * self->ldx), self->ldx,
			   self->idx ? self->idx + first : NULL, rows, self->hidden);
	float *want = product(1, 0, self->inter, self->hidden, rows, dg, x);

	EXPECT_TRUE(distance(dw, want, n) < GATE_F32);
	for (size_t j = 0; j < n; j++)
		want[j] += 3;
	EXPECT_TRUE(distance(twice, want, n) < GATE_F32);
	free(dg), free(x), free(want);
}

/* An expert without rows gets zeros, or keeps what it had. */
TEST_F(experts, weight_gradients_agree_with_ref)
{
	float **dw, **again, **more;

	run_up(self, 64);
	run_da(self, 64);
	dw = run_dgate(self, 0, 0);
	again = run_dgate(self, 0, 0);
	more = run_dgate(self, 1, 3);
	for (size_t i = 0; i < self->n; i++) {
		expect_dgate(self, i, dw[i], more[i]);
		EXPECT_EQ(0, memcmp(dw[i], again[i], self->inter * self->hidden * sizeof(**dw)));
	}
}

/* What an expert computes does not depend on who computes beside it, or how results are rounded. */
TEST_F(experts, an_expert_alone_gets_the_same_bits)
{
	size_t one = 1, inter = self->inter, hidden = self->hidden;

	run_up(self, 16);
	run_down(self, 16);
	for (size_t i = 0; i < self->n; i++) {
		size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first;
		int32_t off[] = {0, (int32_t)rows}, *poff = off;
		int32_t *idx = self->idx ? self->idx + first : NULL;
		uint16_t *x = self->x + (self->idx ? 0 : first * self->ldx), *none = NULL;
		uint16_t *a = guarded(rows * inter, sizeof(*a));
		uint16_t *y = guarded(rows * hidden, sizeof(*y));
		uint16_t **gate = self->gate + i, **up = self->up + i, **down = self->down + i;
		int narrow = 1;

		RUN(up_64, &a, &none, &x, &self->ldx, &idx, &gate, &up, &poff, &one, &rows, &hidden,
		    &inter);
		RUN(down_64, &y, &narrow, &a, &down, &poff, &one, &rows, &hidden, &inter);
		EXPECT_EQ(0, memcmp(self->a + first * inter, a, rows * inter * sizeof(*a)));
		for (size_t j = 0; j < rows * hidden; j++)
			EXPECT_EQ(pst_bf16_from_f32(self->y[first * hidden + j]), y[j]);
	}
}
