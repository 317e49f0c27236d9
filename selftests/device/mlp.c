/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/lib/test.h"

#include "runtime/device/mlp.h"

#include <math.h>

#define JOBS 5

/* Rows: none, one, a block, more than a block; inner width below and above a block. */
static const struct {
	size_t rows, inter;
} shapes[JOBS] = {{0, 24}, {1, 24}, {96, 8}, {130, 24}, {40, 200}};

enum { HIDDEN = 20 };

struct set {
	struct pst_mlp_job jobs[JOBS];
	float *memory, *scratch;
	size_t floats, scratch_floats;
};

/* With @base NULL only counts. */
static size_t place(struct set *s, float *base, bool kept)
{
	size_t used = 0;

#define TAKE(n) (base ? base + used : NULL), used += (n)
	for (size_t i = 0; i < JOBS; i++) {
		struct pst_mlp_job *j = &s->jobs[i];
		size_t rows = shapes[i].rows, inter = shapes[i].inter, matrix = HIDDEN * inter;

		j->rows = rows;
		j->hidden = HIDDEN;
		j->inter = inter;
		j->gate = TAKE(matrix);
		j->up = TAKE(matrix);
		j->down = TAKE(matrix);
		j->x = TAKE(rows * HIDDEN);
		j->dy = TAKE(rows * HIDDEN);
		j->y = TAKE(rows * HIDDEN);
		j->dx = TAKE(rows * HIDDEN);
		j->dgate = TAKE(matrix);
		j->dup = TAKE(matrix);
		j->ddown = TAKE(matrix);
		if (kept)
			j->kept = TAKE(rows * 2 * inter);
	}
	return used;
}

static void set_up(struct set *s, bool kept)
{
	uint64_t seed = 7;

	memset(s, 0, sizeof(*s));
	s->floats = place(s, NULL, kept);
	s->memory = malloc(s->floats * sizeof(float));
	place(s, s->memory, kept);
	for (size_t i = 0; i < s->floats; i++)
		s->memory[i] = (float)(test_random(&seed) >> 40) / (float)(1 << 23) - 1;
	s->scratch_floats = pst_mlp_scratch(s->jobs, JOBS, true);
	if (pst_mlp_scratch(s->jobs, JOBS, false) > s->scratch_floats)
		s->scratch_floats = pst_mlp_scratch(s->jobs, JOBS, false);
	s->scratch = malloc(s->scratch_floats * sizeof(float));
}

static void tear_down(struct set *s)
{
	free(s->memory);
	free(s->scratch);
}

static struct pst_device *open_team(unsigned int threads)
{
	struct pst_error err = {0};
	struct pst_device *dev;

	ASSERT_OK(pst_device_open_cpu(-1, threads, &dev, &err), &err);
	return dev;
}

static void run(struct set *s, unsigned int threads, bool have_kept)
{
	struct pst_device *dev = open_team(threads);

	pst_mlp_forward(dev, s->jobs, JOBS, s->scratch);
	for (size_t i = 0; i < JOBS; i++) {
		struct pst_mlp_job *j = &s->jobs[i];

		j->have_kept = have_kept;
		if (j->kept && !have_kept)
			memset(j->kept, 0x5a, j->rows * 2 * j->inter * sizeof(float));
	}
	pst_mlp_backward(dev, s->jobs, JOBS, s->scratch);
	pst_device_close(dev);
}

static double dot(const float *a, size_t step_a, const float *b, size_t step_b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)a[i * step_a] * b[i * step_b];
	return sum;
}

/* sum over rows and outputs of dy * y, in double: what backward differentiates. */
static double objective(const struct pst_mlp_job *j)
{
	double sum = 0;
	double *a = malloc(j->inter * sizeof(*a));

	for (size_t r = 0; r < j->rows; r++) {
		for (size_t i = 0; i < j->inter; i++) {
			double g = dot(j->gate + i * HIDDEN, 1, j->x + r * HIDDEN, 1, HIDDEN);
			double u = dot(j->up + i * HIDDEN, 1, j->x + r * HIDDEN, 1, HIDDEN);

			a[i] = g / (1 + exp(-g)) * u;
		}
		for (size_t h = 0; h < HIDDEN; h++) {
			double y = 0;

			for (size_t i = 0; i < j->inter; i++)
				y += a[i] * j->down[h * j->inter + i];
			sum += y * j->dy[r * HIDDEN + h];
		}
	}
	free(a);
	return sum;
}

static bool close_to(double want, double got)
{
	return fabs(want - got) < 2e-3 * (1 + fabs(want));
}

/* Central differences of a few elements of @w, which is the job's own memory. */
static void check_grad(const struct pst_mlp_job *j, float *w, const float *grad, size_t n)
{
	uint64_t seed = 5;

	for (int i = 0; n && i < 6; i++) {
		size_t at = test_random(&seed) % n;
		float old = w[at], step = 1.0f / 256;
		double up, down;

		w[at] = old + step;
		up = objective(j);
		w[at] = old - step;
		down = objective(j);
		w[at] = old;
		EXPECT_TRUE(close_to((up - down) / (2 * step), grad[at]));
	}
}

FIXTURE(mlp)
{
	struct set set;
};
FIXTURE_VARIANT(mlp)
{
	bool kept, have_kept;
};
FIXTURE_VARIANT_ADD(mlp, dropped){false, false};
FIXTURE_VARIANT_ADD(mlp, kept){true, true};
FIXTURE_VARIANT_ADD(mlp, kept_elsewhere){true, false};
FIXTURE_SETUP(mlp)
{
	set_up(&self->set, variant->kept);
}
FIXTURE_TEARDOWN(mlp)
{
	tear_down(&self->set);
}

TEST_F(mlp, forward)
{
	run(&self->set, 2, variant->have_kept);
	for (size_t i = 0; i < JOBS; i++) {
		const struct pst_mlp_job *j = &self->set.jobs[i];

		EXPECT_TRUE(close_to(objective(j), dot(j->y, 1, j->dy, 1, j->rows * HIDDEN)));
	}
}

TEST_F(mlp, gradients)
{
	run(&self->set, 2, variant->have_kept);
	for (size_t i = 0; i < JOBS; i++) {
		const struct pst_mlp_job *j = &self->set.jobs[i];
		size_t matrix = HIDDEN * j->inter;

		check_grad(j, (float *)j->gate, j->dgate, matrix);
		check_grad(j, (float *)j->up, j->dup, matrix);
		check_grad(j, (float *)j->down, j->ddown, matrix);
		check_grad(j, (float *)j->x, j->dx, j->rows * HIDDEN);
	}
}

TEST_F(mlp, no_rows_no_gradient)
{
	struct pst_mlp_job *j = &self->set.jobs[0];

	j->x = j->dy = NULL;
	j->y = j->dx = NULL;
	run(&self->set, 2, variant->have_kept);
	for (size_t i = 0; i < HIDDEN * j->inter; i++)
		EXPECT_TRUE(j->dgate[i] == 0 && j->dup[i] == 0 && j->ddown[i] == 0);
}

TEST_F(mlp, same_bits_from_every_team)
{
	static const unsigned int threads[] = {2, 3, 5};

	run(&self->set, 1, variant->have_kept);
	for (size_t i = 0; i < sizeof(threads) / sizeof(threads[0]); i++) {
		struct set other;

		set_up(&other, variant->kept);
		run(&other, threads[i], variant->have_kept);
		EXPECT_EQ(0,
			  memcmp(self->set.memory, other.memory, self->set.floats * sizeof(float)));
		tear_down(&other);
	}
}

/* What forward kept gives backward the bits that computing it again would. */
TEST(kept_changes_no_bits)
{
	struct set with, without;

	set_up(&with, true);
	set_up(&without, true);
	run(&with, 2, true);
	run(&without, 2, false);
	for (size_t i = 0; i < JOBS; i++)
		memcpy(without.jobs[i].kept, with.jobs[i].kept,
		       shapes[i].rows * 2 * shapes[i].inter * sizeof(float));
	EXPECT_EQ(0, memcmp(with.memory, without.memory, with.floats * sizeof(float)));
	tear_down(&with);
	tear_down(&without);
}

/* A second backward over the same kept values gives the same again. */
TEST(backward_leaves_its_inputs)
{
	struct set s;
	float *once;

	set_up(&s, true);
	run(&s, 2, true);
	once = malloc(s.floats * sizeof(float));
	memcpy(once, s.memory, s.floats * sizeof(float));
	run(&s, 2, true);
	EXPECT_EQ(0, memcmp(once, s.memory, s.floats * sizeof(float)));
	free(once);
	tear_down(&s);
}

/* Not one float more than was asked for is touched. */
TEST(scratch_is_enough)
{
	for (int backward = 0; backward < 2; backward++) {
		struct set s;
		struct pst_device *dev = open_team(1);
		size_t n;

		set_up(&s, backward);
		n = pst_mlp_scratch(s.jobs, JOBS, backward);
		free(s.scratch);
		s.scratch = malloc((n + 64) * sizeof(float));
		for (size_t i = n; i < n + 64; i++)
			s.scratch[i] = 42;
		if (backward)
			pst_mlp_backward(dev, s.jobs, JOBS, s.scratch);
		else
			pst_mlp_forward(dev, s.jobs, JOBS, s.scratch);
		for (size_t i = n; i < n + 64; i++)
			EXPECT_TRUE(s.scratch[i] == 42);
		tear_down(&s);
		pst_device_close(dev);
	}
}

TEST_MAIN
