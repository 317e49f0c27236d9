/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/agree.h"
#include "kernels/bf16.h"
#include "kernels/table.h"
#include "kernels/trial.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct pst_agree_shape pst_agree_shapes[] = {
	{0, 5, 3},   {3, 0, 4},	  {4, 3, 0},	{1, 1, 1},     {1, 7, 2},    {2, 8, 8},
	{3, 9, 5},   {5, 33, 17}, {16, 64, 32}, {7, 31, 70},   {33, 65, 64}, {64, 256, 16},
	{6, 515, 3}, {65, 40, 9}, {130, 97, 8}, {37, 129, 261}};
const size_t pst_agree_nshapes = sizeof(pst_agree_shapes) / sizeof(pst_agree_shapes[0]);

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

static bool next_agreed(struct trial *t, int s)
{
	if (s == NCOPIES)
		return false;
	for (int i = 0; s == 0 && i < t->nbuffers; i++)
		t->buffer[i].seal = seal_of(t->buffer + i);
	return true;
}

bool trial_next(struct trial *t, int *s)
{
	if (t->rc)
		return false;
	return t->clock ? trial_next_timed(t, s) : next_agreed(t, *s);
}

/* Is a byte that belongs to no element still what it was? */
static bool fences_stand(const struct buffer *b)
{
	size_t size = trial_kind_size(b->kind);
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
	size_t size = trial_kind_size(a->kind);

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

/* The trial of this thread that has guards, for who is called when they are hit. */
static _Thread_local struct trial *guarded;

static void say_shape(const struct trial *t, char *text, size_t len)
{
	size_t n = strlen(text);

	snprintf(text + n, len - n, " (m %zu, n %zu, k %zu, flags %#x%s)", t->m, t->n, t->k,
		 t->flags, t->wild ? ", NaN and infinities" : "");
}

/* One shape, one set of flags. What fails is said together with the shape that shows it. */
static int try_one(struct trial *t)
{
	guarded = t->guard ? t : NULL;
	pst_op_trials[t->op].run(t);
	guarded = NULL;
	if (!t->rc)
		judge(t, pst_op_name(t->op));
	if (t->rc == -EDOM)
		say_shape(t, t->text, t->textlen);
	trial_free(t);
	return t->rc;
}

static int try_shape(struct trial *t, const struct pst_agree_shape *shape)
{
	t->m = shape->m;
	t->n = shape->n;
	t->k = shape->k;
	for (t->flags = 0; t->flags < pst_op_trials[t->op].flags && !t->rc; t->flags++) {
		t->wild = false;
		if (try_one(t))
			break;
		t->wild = true;
		try_one(t);
	}
	return t->rc;
}

static int begin(struct trial *t, double gate, struct pst_agree_result *now)
{
	if (!pst_op_name(t->op))
		return -EINVAL;
	if (!pst_ops_get(t->ops, t->op))
		return -ENOSYS;
	t->gate = gate > 0 ? gate : pst_op_trials[t->op].gate;
	t->floor = pst_op_trials[t->op].floor;
	t->text = now->text;
	t->textlen = sizeof(now->text);
	return 0;
}

static int end(const struct trial *t, struct pst_agree_result *now, struct pst_agree_result *res)
{
	if (t->rc && t->rc != -EDOM)
		return t->rc;
	now->error = t->error;
	*res = *now;
	return t->rc;
}

int pst_agree_op(const struct pst_ops *ops, enum pst_op op, const struct pst_agree_shape *shapes,
		 size_t nshapes, uint64_t seed, double gate, struct pst_agree_result *res)
{
	struct trial t = {.ops = ops, .op = op, .rng = seed};
	struct pst_agree_result now = {0};
	int rc = begin(&t, gate, &now);

	if (rc)
		return rc;
	for (size_t i = 0; i < nshapes && !try_shape(&t, shapes + i); i++)
		;
	return end(&t, &now, res);
}

int pst_agree_guarded(const struct pst_ops *ops, enum pst_op op,
		      const struct pst_agree_shape *shape, uint64_t seed,
		      struct pst_agree_result *res)
{
	struct trial t = {.ops = ops, .op = op, .rng = seed};
	struct pst_agree_result now = {0};
	int rc = begin(&t, 0, &now);

	if (rc)
		return rc;
	for (t.guard = GUARD_BEHIND; t.guard <= GUARD_BEFORE && !t.rc; t.guard++)
		try_shape(&t, shape);
	return end(&t, &now, res);
}

/* How far @at is from the elements of @b, if it is in one of its guards; else 0. */
static size_t stray_bytes(const struct buffer *b, uintptr_t at, bool *before)
{
	uintptr_t base = (uintptr_t)b->base, end = base + b->bytes;
	size_t page = (b->mapped - b->bytes) / 2;

	*before = at < base;
	if (at < base - page || at >= end + page || (at >= base && at < end))
		return 0;
	return *before ? base - at : at - end + 1;
}

bool pst_agree_stray(const void *at, struct pst_agree_result *res)
{
	const struct trial *t = guarded;

	for (int i = 0; t && i < t->nbuffers; i++) {
		const struct buffer *b = t->buffer + i;
		bool before;
		size_t bytes = stray_bytes(b, (uintptr_t)at, &before);

		if (!bytes)
			continue;
		snprintf(res->text, sizeof(res->text), "%s: reaches %zu bytes %s an %s",
			 pst_op_name(t->op), bytes, before ? "before" : "behind",
			 b->copy < 0 ? "input" : "output");
		say_shape(t, res->text, sizeof(res->text));
		res->error = t->error;
		return true;
	}
	return false;
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
