/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/agree.h"
#include "kernels/bf16.h"
#include "kernels/trial.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FENCE = 128 };

const struct pst_agree_shape pst_agree_shapes[] = {
	{0, 5, 3},   {3, 0, 4},	  {4, 3, 0},	{1, 1, 1},     {1, 7, 2},    {2, 8, 8},
	{3, 9, 5},   {5, 33, 17}, {16, 64, 32}, {7, 31, 70},   {33, 65, 64}, {64, 256, 16},
	{6, 515, 3}, {65, 40, 9}, {130, 97, 8}, {37, 129, 261}};
const size_t pst_agree_nshapes = sizeof(pst_agree_shapes) / sizeof(pst_agree_shapes[0]);

/* clang-format off */
#define OP_NAME(name, ret, args) #name,
static const char *const names[] = {PST_OPS(OP_NAME, float)};
#undef OP_NAME

/* Has the table a kernel for op number @op? */
#define HAS_OP(name, ret, args) case PST_OP_##name: return ops->name != NULL;
static bool has_op(const struct pst_ops *ops, enum pst_op op)
{
	switch (op) {
	PST_OPS(HAS_OP, float)
	default: return false;
	}
}
#undef HAS_OP
/* clang-format on */

const char *pst_op_name(enum pst_op op)
{
	return (unsigned int)op < PST_OP_COUNT ? names[op] : NULL;
}

static uint64_t next_random(struct trial *t)
{
	uint64_t z = (t->rng += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

static float random_float(struct trial *t, float low, float high)
{
	static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e-45f, 0.0f, -0.0f};
	uint64_t r = next_random(t);

	if (t->wild && r % 8 == 0)
		return odd[r / 8 % (sizeof(odd) / sizeof(odd[0]))];
	return low + (high - low) * (float)(r >> 40) * 0x1p-24f;
}

static size_t kind_size(enum kind kind)
{
	return kind == BF16 ? sizeof(uint16_t) : sizeof(float);
}

/*
 * A fenced matrix, all of it 0xff. Addresses differ from buffer to buffer by an odd number of
 * elements, since a kernel may ask for no more alignment than that of an element.
 */
static void *new_buffer(struct trial *t, enum kind kind, size_t rows, size_t cols, size_t ld,
			int copy)
{
	size_t size = kind_size(kind), n = rows ? (rows - 1) * ld + cols : 0;
	struct buffer *b = t->buffer + t->nbuffers;

	if (t->rc)
		return NULL;
	*b = (struct buffer){.kind = kind, .rows = rows, .cols = cols, .ld = ld, .copy = copy};
	b->bytes = 2 * FENCE + n * size;
	b->base = malloc(b->bytes);
	if (!b->base) {
		t->rc = -ENOMEM;
		return NULL;
	}
	memset(b->base, 0xff, b->bytes);
	b->data = b->base + FENCE / 2 + size * (size_t)(t->nbuffers % 8);
	t->nbuffers++;
	return b->data;
}

static void free_buffers(struct trial *t)
{
	while (t->nbuffers)
		free(t->buffer[--t->nbuffers].base);
}

static void fill(struct trial *t, float *p, size_t rows, size_t cols, size_t ld, float low,
		 float high)
{
	for (size_t r = 0; p && r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			p[r * ld + c] = random_float(t, low, high);
}

float *trial_in(struct trial *t, size_t rows, size_t cols, size_t ld, float low, float high)
{
	float *p = new_buffer(t, F32, rows, cols, ld, -1);

	fill(t, p, rows, cols, ld, low, high);
	return p;
}

uint16_t *trial_in_bf16(struct trial *t, size_t rows, size_t cols, size_t ld)
{
	uint16_t *p = new_buffer(t, BF16, rows, cols, ld, -1);

	for (size_t r = 0; p && r < rows; r++)
		for (size_t c = 0; c < cols; c++)
			p[r * ld + c] = pst_bf16_from_f32(random_float(t, -2, 2));
	return p;
}

int32_t *trial_in_index(struct trial *t, size_t n, int32_t low, size_t below)
{
	int32_t *p = new_buffer(t, I32, 1, n, n, -1);

	for (size_t i = 0; p && i < n; i++)
		p[i] = low + (int32_t)(next_random(t) % (below - (size_t)low));
	return p;
}

int32_t *trial_in_permutation(struct trial *t, size_t n)
{
	int32_t *p = new_buffer(t, I32, 1, n, n, -1);

	for (size_t i = 0; p && i < n; i++) {
		size_t j = next_random(t) % (i + 1);

		p[i] = p[j];
		p[j] = (int32_t)i;
	}
	return p;
}

void trial_out(struct trial *t, float *copy[NCOPIES], size_t rows, size_t cols, size_t ld,
	       float low, float high)
{
	uint64_t rng = t->rng;

	for (int s = 0; s < NCOPIES; s++) {
		copy[s] = new_buffer(t, F32, rows, cols, ld, s);
		t->rng = rng;
		fill(t, copy[s], rows, cols, ld, low, high);
	}
}

void trial_out_bf16(struct trial *t, uint16_t *copy[NCOPIES], size_t n)
{
	for (int s = 0; s < NCOPIES; s++)
		copy[s] = new_buffer(t, BF16, 1, n, n, s);
}

void trial_out_i32(struct trial *t, int32_t *copy[NCOPIES], size_t rows, size_t cols)
{
	for (int s = 0; s < NCOPIES; s++)
		copy[s] = new_buffer(t, I32, rows, cols, cols, s);
}

void trial_disagrees(struct trial *t, const char *fmt, ...)
{
	va_list ap;

	if (t->rc)
		return;
	t->rc = -EDOM;
	va_start(ap, fmt);
	vsnprintf(t->text, t->textlen, fmt, ap);
	va_end(ap);
}

/* FNV-1a */
static uint64_t seal_of(const struct buffer *b)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < b->bytes; i++)
		h = (h ^ b->base[i]) * 0x100000001b3ull;
	return h;
}

bool trial_next(struct trial *t, int s)
{
	if (t->rc || s == NCOPIES)
		return false;
	for (int i = 0; s == 0 && i < t->nbuffers; i++)
		t->buffer[i].seal = seal_of(t->buffer + i);
	return true;
}

/* Is a byte that belongs to no element still what it was? */
static bool fences_stand(const struct buffer *b)
{
	size_t size = kind_size(b->kind);
	const unsigned char *p = b->base, *row = b->data;

	for (size_t r = 0; r < b->rows; r++, row += b->ld * size) {
		for (; p < row; p++)
			if (*p != 0xff)
				return false;
		p = row + b->cols * size;
	}
	for (; p < b->base + b->bytes; p++)
		if (*p != 0xff)
			return false;
	return true;
}

static double element(const struct buffer *b, size_t r, size_t c)
{
	size_t at = r * b->ld + c;

	switch (b->kind) {
	case F32:
		return ((const float *)b->data)[at];
	case BF16:
		return pst_bf16_to_f32(((const uint16_t *)b->data)[at]);
	default:
		return ((const int32_t *)b->data)[at];
	}
}

/* |got - want| / |want| in L2; the same infinity or NaN in both is no difference. */
static double relative(const struct trial *t, const struct buffer *got, const struct buffer *want)
{
	double diff = 0, norm = 0, least;

	for (size_t r = 0; r < want->rows; r++) {
		for (size_t c = 0; c < want->cols; c++) {
			double g = element(got, r, c), w = element(want, r, c);

			if (g == w || (isnan(g) && isnan(w))) {
				norm += isfinite(w) ? w * w : 0;
				continue;
			}
			if (!isfinite(g) || !isfinite(w))
				return INFINITY;
			diff += (g - w) * (g - w);
			norm += w * w;
		}
	}
	least = t->floor * t->floor * (double)(want->rows * want->cols);
	norm = norm > least ? norm : least;
	return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

static bool same_bits(const struct buffer *a, const struct buffer *b)
{
	size_t size = kind_size(a->kind);

	for (size_t r = 0; r < a->rows; r++)
		if (memcmp(a->data + r * a->ld * size, b->data + r * b->ld * size, a->cols * size))
			return false;
	return true;
}

static void judge_values(struct trial *t, const struct buffer *kernel, const char *op)
{
	double error = relative(t, kernel, kernel + REF);

	if (error > t->error)
		t->error = error;
	if (!(error <= t->gate))
		trial_disagrees(t, "%s: the relative error against ref is %.3g, allowed is %.3g",
				op, error, t->gate);
	else if (!same_bits(kernel, kernel + AGAIN))
		trial_disagrees(t, "%s: the same call gave other bits the second time", op);
}

static void judge(struct trial *t, const char *op)
{
	for (int i = 0; i < t->nbuffers; i++) {
		const struct buffer *b = t->buffer + i;

		if (b->copy < 0 && seal_of(b) != b->seal)
			trial_disagrees(t, "%s: writes to an input, or beside it", op);
		else if (!fences_stand(b))
			trial_disagrees(t, "%s: writes beside the rows of an output", op);
		else if (b->copy == KERNEL && !t->wild)
			judge_values(t, b, op);
	}
}

/* One shape, one set of flags. What fails is said together with the shape that shows it. */
static int try_one(struct trial *t, enum pst_op op)
{
	pst_op_trials[op].run(t);
	if (!t->rc)
		judge(t, names[op]);
	if (t->rc == -EDOM) {
		size_t len = strlen(t->text);

		snprintf(t->text + len, t->textlen - len, " (m %zu, n %zu, k %zu, flags %#x%s)",
			 t->m, t->n, t->k, t->flags, t->wild ? ", NaN and infinities" : "");
	}
	free_buffers(t);
	return t->rc;
}

int pst_agree_op(const struct pst_ops *ops, enum pst_op op, const struct pst_agree_shape *shapes,
		 size_t nshapes, uint64_t seed, double gate, struct pst_agree_result *res)
{
	struct pst_agree_result now = {0};
	struct trial t = {.ops = ops, .rng = seed, .text = now.text, .textlen = sizeof(now.text)};
	const struct op_trial *how;

	if (!pst_op_name(op))
		return -EINVAL;
	if (!has_op(ops, op))
		return -ENOSYS;
	how = pst_op_trials + op;
	t.gate = gate > 0 ? gate : how->gate;
	t.floor = how->floor;
	for (size_t i = 0; i < nshapes && !t.rc; i++) {
		t.m = shapes[i].m;
		t.n = shapes[i].n;
		t.k = shapes[i].k;
		for (t.flags = 0; t.flags < how->flags && !t.rc; t.flags++) {
			t.wild = false;
			if (try_one(&t, op))
				break;
			t.wild = true;
			try_one(&t, op);
		}
	}
	if (t.rc && t.rc != -EDOM)
		return t.rc;
	now.error = t.error;
	*res = now;
	return t.rc;
}

int pst_agree_table(const struct pst_ops *ops, const struct pst_agree_shape *shapes, size_t nshapes,
		    uint64_t seed, struct pst_agree_result *res)
{
	int first = 0;

	for (int op = 0; op < PST_OP_COUNT; op++) {
		int rc;

		res[op] = (struct pst_agree_result){0};
		rc = pst_agree_op(ops, (enum pst_op)op, shapes, nshapes, seed, 0, res + op);
		if (rc && rc != -ENOSYS && !first)
			first = rc;
	}
	return first;
}
