/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The experts' CUDA kernels on quantised weights, in the places that emulate_table.h names: against
 * fp64 sums of the dequantised operands, which is what a kernel is asked for, and of what they were
 * before, which is what the format costs.
 */
#include "kernels/bf16.h"
#include "kernels/quant.h"
#include "selftests/gpu/emulate_table.h"
#include "selftests/gpu/kernels_guard.h"

/* Where the tests run under the emulation, they choose whether the GPU knows e4m3. */
#pragma weak emulate_fp8

enum kind { W8, W4, W8A8 };
enum { MOST_EXPERTS = 8 };

/*
 * Products of codes are exact, so what fp32 sums leave is all that differs; then what rounding to
 * bf16 leaves, and what it leaves of a few numbers.
 */
#define GATE_F32      5e-6
#define GATE_BF16     2.5e-3
#define GATE_BF16_FEW 4e-3
#define FEW	      256

/* A weight [rows, cols]: as it was, as it is, and as a kernel has it. */
struct weight {
	size_t rows, cols;
	float *full, *plain;
	uint8_t *codes;
	void *scale;
};

FIXTURE(quant)
{
	enum kind kind;
	size_t n, rows, hidden, inter, tokens, ldx;
	int32_t *off, *idx;
	/* activations as they were, as they are, and as a kernel has them */
	float *full, *plain;
	void *x;
	float *x_scale;
	struct weight gate[MOST_EXPERTS], up[MOST_EXPERTS], down[MOST_EXPERTS];
	/* made by the kernels; a is what down is given, too, as plain numbers in a_plain */
	uint16_t *a, *kept;
	float *a_plain, *y;
	void *a_codes;
	float *a_scale;
	uint64_t rng;
	struct guards guards;
};

FIXTURE_VARIANT(quant)
{
	enum kind kind;
	size_t hidden, inter, n;
	int rows[MOST_EXPERTS];
	bool gather;
};

#define EACH_KIND(name, ...)                                            \
	FIXTURE_VARIANT_ADD(quant, w8_##name){.kind = W8, __VA_ARGS__}; \
	FIXTURE_VARIANT_ADD(quant, w4_##name){.kind = W4, __VA_ARGS__}; \
	FIXTURE_VARIANT_ADD(quant, w8a8_##name){.kind = W8A8, __VA_ARGS__};

EACH_KIND(smallest, .hidden = 16, .inter = 16, .n = 1, .rows = {1})
EACH_KIND(no_rows, .hidden = 32, .inter = 16, .n = 2)
EACH_KIND(no_experts, .hidden = 32, .inter = 16)
EACH_KIND(uneven, .hidden = 144, .inter = 208, .n = 7, .rows = {0, 1, 17, 0, 66, 3, 0},
	  .gather = true)
EACH_KIND(one_hot_expert, .hidden = 272, .inter = 80, .n = 4, .rows = {0, 140, 0, 1},
	  .gather = true)
EACH_KIND(more_steps_than_stages, .hidden = 656, .inter = 784, .n = 2, .rows = {5, 9})

/* Blocks of very different size, so that no scale can stand for another; @alike: all alike. */
static float *random_matrix(struct fixture_quant *self, size_t rows, size_t cols, float most,
			    bool alike)
{
	float *to = calloc(rows * cols + 1, sizeof(*to));

	for (size_t r = 0; r < rows; r++)
		for (size_t c = 0; c < cols; c++) {
			size_t block = alike ? 0 : r / 128 * 3 + c / 128 * 5 + r % 7;

			to[r * cols + c] =
				guard_normal(&self->rng) * most * (1 + (float)(block % 8) * 0.75f);
		}
	return to;
}

/* Gives a kernel what is @bytes long. */
static void *given(struct fixture_quant *self, const void *from, size_t bytes)
{
	void *to = guarded(&self->guards, bytes, 1);

	memcpy(to, from, bytes);
	return to;
}

static struct weight weight(struct fixture_quant *self, size_t rows, size_t cols, bool alike)
{
	struct weight w = {.rows = rows, .cols = cols};
	size_t blocks = pst_quant_blocks(cols), bytes = rows * cols;
	uint8_t *codes = malloc(rows * cols);
	float *tiles = calloc(pst_quant_blocks(rows) * blocks, sizeof(*tiles));
	uint16_t *groups = calloc(rows * blocks, sizeof(*groups));

	w.full = random_matrix(self, rows, cols, 1 / sqrtf((float)cols), alike);
	w.plain = malloc(rows * cols * sizeof(*w.plain));
	if (self->kind == W4) {
		pst_quant_int4((int8_t *)codes, groups, w.full, cols, rows, cols);
		pst_dequant_int4(w.plain, cols, (int8_t *)codes, groups, rows, cols);
		w.codes = guarded(&self->guards, pst_int4_bytes(rows, cols), 1);
		pst_int4_pack(w.codes, (int8_t *)codes, rows, cols);
		w.scale = given(self, groups, rows * blocks * sizeof(*groups));
	} else {
		pst_quant_tiles(codes, tiles, w.full, cols, rows, cols);
		pst_dequant_tiles(w.plain, cols, codes, tiles, rows, cols);
		w.codes = given(self, codes, bytes);
		w.scale = given(self, tiles, pst_quant_blocks(rows) * blocks * sizeof(*tiles));
	}
	free(codes), free(tiles), free(groups);
	return w;
}

/* @x[rows, cols] as kernels want activations, and what these are worth. */
static void *activations(struct fixture_quant *self, float *plain, float **scale, const float *x,
			 size_t rows, size_t cols, size_t ld)
{
	size_t blocks = pst_quant_blocks(cols);
	uint8_t *codes = malloc(rows * cols + 1);
	uint16_t *narrow;
	uint8_t *wide;

	*scale = NULL;
	if (self->kind == W8A8) {
		*scale = guarded(&self->guards, rows * blocks, sizeof(**scale));
		pst_quant_rows(codes, *scale, x, cols, rows, cols);
		pst_dequant_rows(plain, cols, codes, *scale, rows, cols);
		wide = guarded(&self->guards, rows ? (rows - 1) * ld + cols : 0, 1);
		for (size_t r = 0; r < rows; r++)
			memcpy(wide + r * ld, codes + r * cols, cols);
		free(codes);
		return wide;
	}
	free(codes);
	narrow = guarded(&self->guards, rows ? (rows - 1) * ld + cols : 0, sizeof(*narrow));
	for (size_t i = 0; i < rows * cols; i++) {
		narrow[i / cols * ld + i % cols] = pst_bf16_from_f32(x[i]);
		plain[i] = pst_bf16_to_f32(pst_bf16_from_f32(x[i]));
	}
	return narrow;
}

/* Rows come from here and there; what none wants is NaN. */
static void choose_rows(struct fixture_quant *self)
{
	self->idx = guarded(&self->guards, self->rows, sizeof(*self->idx));
	self->tokens = 2 * self->rows;
	for (size_t r = 0; r < self->rows; r++)
		self->idx[r] = (int32_t)(2 * ((r * 7 + 3) % self->rows));
}

static void forget_unwanted(struct fixture_quant *self)
{
	size_t element = self->kind == W8A8 ? 1 : 2, blocks = pst_quant_blocks(self->hidden);

	for (size_t t = 1; t < self->tokens; t += 2) {
		memset((char *)self->x + t * self->ldx * element, 0xff, self->hidden * element);
		if (self->x_scale)
			memset(self->x_scale + t * blocks, 0xff, blocks * sizeof(*self->x_scale));
	}
}

static void open_quant(struct fixture_quant *self, const int *rows, bool gather, bool alike)
{
	self->rng = 11;
	self->off = guarded(&self->guards, self->n + 1, sizeof(*self->off));
	self->off[0] = 0;
	for (size_t i = 0; i < self->n; i++)
		self->off[i + 1] = self->off[i] + rows[i];
	self->rows = self->tokens = (size_t)self->off[self->n];
	if (gather)
		choose_rows(self);
	self->ldx = self->hidden + 16;
	self->full = random_matrix(self, self->tokens, self->hidden, 2, alike);
	self->plain = malloc((self->tokens * self->hidden + 1) * sizeof(*self->plain));
	self->x = activations(self, self->plain, &self->x_scale, self->full, self->tokens,
			      self->hidden, self->ldx);
	if (gather)
		forget_unwanted(self);
	for (size_t i = 0; i < self->n; i++) {
		self->gate[i] = weight(self, self->inter, self->hidden, alike);
		self->up[i] = weight(self, self->inter, self->hidden, alike);
		self->down[i] = weight(self, self->hidden, self->inter, alike);
	}
}

FIXTURE_SETUP(quant)
{
	self->kind = variant->kind;
	self->n = variant->n;
	self->hidden = variant->hidden;
	self->inter = variant->inter;
	open_quant(self, variant->rows, variant->gather, false);
}

FIXTURE_TEARDOWN(quant)
{
	EXPECT_TRUE(guards_are_whole(&self->guards));
}

/* A list of the codes, or of the scales, of @n weights. */
static void *list(struct fixture_quant *self, const struct weight *w, size_t n, bool scales)
{
	void **to = guarded(&self->guards, n, sizeof(*to));

	for (size_t i = 0; i < n; i++)
		to[i] = scales ? w[i].scale : w[i].codes;
	return to;
}

static enum pst_cuda_kernel up_kernel(enum kind kind, int many)
{
	static const enum pst_cuda_kernel k[][2] = {
		{PST_CUDA_experts_up_w8_16, PST_CUDA_experts_up_w8_64},
		{PST_CUDA_experts_up_w4_16, PST_CUDA_experts_up_w4_64},
		{PST_CUDA_experts_up_w8a8_64, PST_CUDA_experts_up_w8a8_128}};

	return k[kind][many];
}

static enum pst_cuda_kernel down_kernel(enum kind kind, int many)
{
	static const enum pst_cuda_kernel k[][2] = {
		{PST_CUDA_experts_down_w8_16, PST_CUDA_experts_down_w8_64},
		{PST_CUDA_experts_down_w4_16, PST_CUDA_experts_down_w4_64},
		{PST_CUDA_experts_down_w8a8_64, PST_CUDA_experts_down_w8a8_128}};

	return k[kind][many];
}

static void run_up(struct fixture_quant *self, int many)
{
	void *gate = list(self, self->gate, self->n, false),
	     *gate_scale = list(self, self->gate, self->n, true),
	     *up = list(self, self->up, self->n, false),
	     *up_scale = list(self, self->up, self->n, true);
	void *params[] = {&self->a,    &self->kept,   &self->x,	   &self->x_scale,
			  &self->ldx,  &self->idx,    &gate,	   &gate_scale,
			  &up,	       &up_scale,     &self->off,  &self->n,
			  &self->rows, &self->hidden, &self->inter};

	self->a = guarded(&self->guards, self->rows * self->inter, sizeof(*self->a));
	self->kept = guarded(&self->guards, self->rows * 2 * self->inter, sizeof(*self->kept));
	if (self->kind != W8A8)
		memmove(params + 3, params + 4, 11 * sizeof(*params));
	ASSERT_EQ(0, emulate_kernel(up_kernel(self->kind, many), params));
}

/* From what up made, rounded as this kind wants it. */
static void prepare_down(struct fixture_quant *self)
{
	size_t n = self->rows * self->inter;
	float *a = malloc((n + 1) * sizeof(*a));

	for (size_t i = 0; i < n; i++)
		a[i] = pst_bf16_to_f32(self->a[i]);
	self->a_plain = malloc((n + 1) * sizeof(*self->a_plain));
	self->a_codes = activations(self, self->a_plain, &self->a_scale, a, self->rows, self->inter,
				    self->inter);
	free(a);
}

static void run_down(struct fixture_quant *self, int many)
{
	void *down = list(self, self->down, self->n, false),
	     *scale = list(self, self->down, self->n, true);
	int narrow = 0;
	void *params[] = {&self->y,   &narrow,	&self->a_codes, &self->a_scale, &down,	     &scale,
			  &self->off, &self->n, &self->rows,	&self->hidden,	&self->inter};

	self->y = guarded(&self->guards, self->rows * self->hidden, sizeof(*self->y));
	if (self->kind != W8A8)
		memmove(params + 3, params + 4, 7 * sizeof(*params));
	ASSERT_EQ(0, emulate_kernel(down_kernel(self->kind, many), params));
}

/* x[rows, cols] w[w->rows, cols]^T; row r of x is x[idx[r]]. */
static double *product(const float *x, const int32_t *idx, size_t rows, const float *w,
		       size_t wrows, size_t cols)
{
	double *to = calloc(rows * wrows + 1, sizeof(*to));

	for (size_t r = 0; r < rows; r++)
		for (size_t i = 0; i < wrows; i++)
			for (size_t c = 0; c < cols; c++)
				to[r * wrows + i] +=
					(double)x[(idx ? (size_t)idx[r] : r) * cols + c] *
					w[i * cols + c];
	return to;
}

static double rounding_distance(const uint16_t *got, const double *want, size_t n)
{
	float *wide = malloc((n + 1) * sizeof(*wide));
	double d;

	for (size_t i = 0; i < n; i++)
		wide[i] = pst_bf16_to_f32(got[i]);
	d = guard_distance(wide, want, n);
	free(wide);
	return d;
}

static double gate_of(size_t n)
{
	return n < FEW ? GATE_BF16_FEW : GATE_BF16;
}

static void expect_up(struct fixture_quant *self, size_t i)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first,
	       inter = self->inter, hidden = self->hidden;
	const float *x = self->plain + (self->idx ? 0 : first * hidden);
	const int32_t *idx = self->idx ? self->idx + first : NULL;
	double *g = product(x, idx, rows, self->gate[i].plain, inter, hidden);
	double *u = product(x, idx, rows, self->up[i].plain, inter, hidden);
	const uint16_t *kept = self->kept + first * 2 * inter;

	for (size_t r = 0; r < rows; r++, kept += 2 * inter) {
		EXPECT_TRUE(rounding_distance(kept, g + r * inter, inter) < gate_of(inter));
		EXPECT_TRUE(rounding_distance(kept + inter, u + r * inter, inter) < gate_of(inter));
	}
	for (size_t j = 0; j < rows * inter; j++)
		g[j] = g[j] / (1 + exp(-g[j])) * u[j];
	EXPECT_TRUE(rounding_distance(self->a + first * inter, g, rows * inter) <
		    gate_of(rows * inter));
	free(g), free(u);
}

static void expect_down(struct fixture_quant *self, size_t i)
{
	size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first,
	       inter = self->inter, hidden = self->hidden;
	double *y = product(self->a_plain + first * inter, NULL, rows, self->down[i].plain, hidden,
			    inter);

	EXPECT_TRUE(guard_distance(self->y + first * hidden, y, rows * hidden) < GATE_F32);
	free(y);
}

TEST_F(quant, forward_agrees_with_what_the_codes_say)
{
	uint16_t *a, *kept;
	float *y;

	run_up(self, 0);
	prepare_down(self);
	run_down(self, 0);
	for (size_t i = 0; i < self->n; i++) {
		expect_up(self, i);
		expect_down(self, i);
	}
	/* blocks of more rows add the same in the same order */
	a = self->a, kept = self->kept, y = self->y;
	emulate_seed(5);
	run_up(self, 1);
	run_down(self, 1);
	EXPECT_EQ(0, memcmp(a, self->a, self->rows * self->inter * sizeof(*a)));
	EXPECT_EQ(0, memcmp(kept, self->kept, self->rows * 2 * self->inter * sizeof(*a)));
	EXPECT_EQ(0, memcmp(y, self->y, self->rows * self->hidden * sizeof(*y)));
}

/* Codes are multiplied as bf16 there: the same products, sums rounded elsewhere. */
TEST_F(quant, forward_agrees_on_targets_without_e4m3)
{
	if (!emulate_fp8 || self->kind != W8A8)
		return;
	emulate_fp8(0);
	run_up(self, 0);
	prepare_down(self);
	run_down(self, 1);
	for (size_t i = 0; i < self->n; i++) {
		expect_up(self, i);
		expect_down(self, i);
	}
}

/* What an expert computes does not depend on who computes beside it, or on where its rows lie. */
TEST_F(quant, an_expert_alone_gets_the_same_bits)
{
	struct fixture_quant one = *self;
	uint16_t *a;
	float *y;

	run_up(self, 0);
	prepare_down(self);
	run_down(self, 0);
	a = self->a, y = self->y;
	one.n = 1;
	for (size_t i = 0; i < self->n; i++) {
		size_t first = (size_t)self->off[i], rows = (size_t)self->off[i + 1] - first;
		int32_t off[] = {0, (int32_t)rows};
		size_t element = self->kind == W8A8 ? 1 : 2;

		one.guards = self->guards;
		one.off = off;
		one.rows = rows;
		one.idx = self->idx ? self->idx + first : NULL;
		one.x = (char *)self->x + (self->idx ? 0 : first * self->ldx * element);
		one.x_scale = self->x_scale;
		if (self->x_scale && !self->idx)
			one.x_scale += first * pst_quant_blocks(self->hidden);
		one.gate[0] = self->gate[i], one.up[0] = self->up[i], one.down[0] = self->down[i];
		one.a_codes = (char *)self->a_codes + first * self->inter * element;
		one.a_scale = self->a_scale;
		if (self->a_scale)
			one.a_scale += first * pst_quant_blocks(self->inter);
		run_up(&one, 1);
		run_down(&one, 1);
		EXPECT_EQ(0,
			  memcmp(a + first * self->inter, one.a, rows * self->inter * sizeof(*a)));
		EXPECT_EQ(0, memcmp(y + first * self->hidden, one.y,
				    rows * self->hidden * sizeof(*y)));
		self->guards = one.guards;
	}
}

FIXTURE(quant_once)
{
	struct fixture_quant q;
};

FIXTURE_VARIANT(quant_once)
{
	enum kind kind;
	double cost; /* |o - r| / |r| that a format may cost, for normal numbers */
};

FIXTURE_VARIANT_ADD(quant_once, w8){.kind = W8, .cost = 3.5e-2};
FIXTURE_VARIANT_ADD(quant_once, w4){.kind = W4, .cost = 1.4e-1};
FIXTURE_VARIANT_ADD(quant_once, w8a8){.kind = W8A8, .cost = 4.5e-2};

FIXTURE_SETUP(quant_once)
{
	static const int rows[] = {6, 3};

	self->q.kind = variant->kind;
	self->q.n = 2;
	self->q.hidden = 512;
	self->q.inter = 256;
	open_quant(&self->q, rows, false, true);
}

FIXTURE_TEARDOWN(quant_once)
{
	EXPECT_TRUE(guards_are_whole(&self->q.guards));
}

/* Against numbers that were never quantised: no less than a bit, or nothing was. */
TEST_F(quant_once, a_format_costs_what_it_should)
{
	struct fixture_quant *q = &self->q;

	run_up(q, 0);
	for (size_t i = 0; i < q->n; i++) {
		size_t first = (size_t)q->off[i], rows = (size_t)q->off[i + 1] - first;
		double *g = product(q->full + first * q->hidden, NULL, rows, q->gate[i].full,
				    q->inter, q->hidden);
		float *got = malloc(rows * q->inter * sizeof(*got));
		double d;

		for (size_t j = 0; j < rows * q->inter; j++)
			got[j] = pst_bf16_to_f32(
				q->kept[(first + j / q->inter) * 2 * q->inter + j % q->inter]);
		d = guard_distance(got, g, rows * q->inter);
		printf("# relative error %.2g\n", d);
		EXPECT_TRUE(d < variant->cost && d > variant->cost / 2);
		free(g), free(got);
	}
}

/* A NaN is not lost: it makes its block NaN, and what other blocks make stays as it was. */
TEST_F(quant_once, a_weight_that_is_no_number_shows)
{
	struct fixture_quant *q = &self->q;
	struct weight *w = &q->gate[1];
	size_t high = q->kind == W4 ? 1 : 128;
	uint16_t *before;

	run_up(q, 0);
	before = q->kept;
	if (q->kind == W4)
		((uint16_t *)w->scale)[2 * w->rows + 130] = 0x7fc0;
	else
		((float *)w->scale)[1 * pst_quant_blocks(w->cols) + 2] = (float)NAN;
	run_up(q, 1);
	for (size_t r = 0; r < q->rows; r++) {
		for (size_t c = 0; c < 2 * q->inter; c++) {
			size_t at = r * 2 * q->inter + c, row = c / high * high;
			bool hit = r >= 6 && c < q->inter && row == (q->kind == W4 ? 130 : 128);

			if (hit)
				EXPECT_TRUE(isnan(pst_bf16_to_f32(q->kept[at])));
			else
				EXPECT_EQ(before[at], q->kept[at]);
		}
	}
}
