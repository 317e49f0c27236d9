/* SPDX-License-Identifier: Apache-2.0 */
/* speed.c - two kernels of an op take turns, and are timed. */
#include "kernels/table.h"
#include "kernels/trial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
	PAIRS = 25,
	FEWEST = 5,		  /* however long they take */
	BUDGET_NS = 60 * 1000000, /* for one set of flags */
	TIMES = 4,		  /* that one which seems slower is timed */
};

const struct pst_agree_shape pst_agree_speed_shapes[] = {{8, 768, 64}, {96, 384, 96}};
const size_t pst_agree_nspeed_shapes =
	sizeof(pst_agree_speed_shapes) / sizeof(pst_agree_speed_shapes[0]);

/* Calls of one set of flags. The first pair warms up and is not counted. */
struct clock {
	int calls;
	int64_t began, first;
	double took[NCOPIES];
	double ratio[PAIRS];
};

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Of this thread alone: what others do with the CPU meanwhile is not its time. */
static int64_t own_ns(void)
{
	return now_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* K R R K K R R K: who comes second finds the caches as who comes first next time. */
static int whose_turn(int call)
{
	return (call + 1) / 2 % 2 ? REF : KERNEL;
}

static void begin_again(struct trial *t, int s)
{
	const struct buffer *from = NULL;

	for (int i = t->nbuffers; i-- > 0;) {
		const struct buffer *b = t->buffer + i;
		size_t n = b->rows ? (b->rows - 1) * b->ld + b->cols : 0;

		if (b->copy == AGAIN)
			from = b;
		else if (b->copy == s)
			memcpy(b->data, from->data, n * trial_kind_size(b->kind));
	}
}

bool trial_next_timed(struct trial *t, int *s)
{
	struct clock *c = t->clock;
	int64_t own = own_ns(), now = now_ns(CLOCK_MONOTONIC);
	int pairs;

	if (!c->calls)
		c->first = now;
	else
		c->took[whose_turn(c->calls - 1)] = (double)(own - c->began);
	pairs = c->calls / 2 - 1;
	if (c->calls && c->calls % 2 == 0 && pairs > 0)
		c->ratio[pairs - 1] = c->took[KERNEL] / (c->took[REF] > 1 ? c->took[REF] : 1);
	if (c->calls % 2 == 0 &&
	    (pairs == PAIRS || (pairs >= FEWEST && now - c->first > BUDGET_NS)))
		return false;
	*s = whose_turn(c->calls++);
	begin_again(t, *s);
	c->began = own_ns();
	return true;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(struct clock *c)
{
	int n = c->calls / 2 - 1;

	qsort(c->ratio, (size_t)n, sizeof(c->ratio[0]), compare);
	return n % 2 ? c->ratio[n / 2] : (c->ratio[n / 2 - 1] + c->ratio[n / 2]) / 2;
}

/* What seems slower is timed again: a neighbour may have had the machine. The best counts. */
static double time_flags(struct trial *t)
{
	double best = 0, now;

	for (int i = 0; i < TIMES && (!i || best > 1); i++) {
		struct clock c = {0};

		t->clock = &c;
		pst_op_trials[t->op].run(t);
		now = t->rc ? 0 : median(&c);
		best = !i || now < best ? now : best;
		trial_free(t);
	}
	return best;
}

int pst_agree_speed(const struct pst_ops *ops, const struct pst_ops *other, enum pst_op op,
		    const struct pst_agree_shape *shape, uint64_t seed, double *ratio)
{
	struct trial t = {.ops = ops,
			  .other = other,
			  .op = op,
			  .m = shape->m,
			  .n = shape->n,
			  .k = shape->k,
			  .rng = seed};
	double worst = 0;

	if (!pst_op_name(op))
		return -EINVAL;
	if (!pst_ops_get(ops, op) || !pst_ops_get(other, op))
		return -ENOSYS;
	for (t.flags = 0; t.flags < pst_op_trials[op].flags && !t.rc; t.flags++) {
		double now = time_flags(&t);

		worst = now > worst ? now : worst;
	}
	if (t.rc)
		return t.rc;
	*ratio = worst;
	return 0;
}
