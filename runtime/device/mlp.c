/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SwiGLU networks side by side. Forward has one task per (job, block of rows).
 * Backward has two phases, since a weight's gradient sums over all rows: first
 * per block of rows dg, du, a and dx, then per block of rows of each weight its
 * gradient.
 */
#include "runtime/device/mlp.h"

#define ROWS 96 /* of the input, and of a weight's gradient, in one task */

struct mlp {
	const struct pst_ops *ops;
	const struct pst_mlp_job *jobs;
	float *scratch;
};

/* One block of a job: rows [first, first + rows) and the job's scratch. */
struct block {
	const struct pst_mlp_job *job;
	float *scratch;
	size_t first, rows;
};

/* Per row: forward g and u, or only a where g and u are kept; backward dg, du and a. */
static size_t scratch_width(const struct pst_mlp_job *job, bool backward)
{
	return (backward ? 3 : job->kept ? 1 : 2) * job->inter;
}

size_t pst_mlp_scratch(const struct pst_mlp_job *jobs, size_t njobs, bool backward)
{
	size_t floats = 0;

	for (size_t i = 0; i < njobs; i++)
		floats += jobs[i].rows * scratch_width(&jobs[i], backward);
	return floats;
}

static size_t div_up(size_t a, size_t b)
{
	return (a + b - 1) / b;
}

static size_t row_blocks(const struct pst_mlp_job *job)
{
	return div_up(job->rows, ROWS);
}

/* Blocks of the gradients of gate, up and down. */
static size_t weight_blocks(const struct pst_mlp_job *job)
{
	return 2 * div_up(job->inter, ROWS) + div_up(job->hidden, ROWS);
}

static size_t count_tasks(const struct pst_mlp_job *jobs, size_t njobs,
			  size_t (*blocks)(const struct pst_mlp_job *))
{
	size_t tasks = 0;

	for (size_t i = 0; i < njobs; i++)
		tasks += blocks(&jobs[i]);
	return tasks;
}

/* The job that @task falls into; @task becomes the block within it. */
static struct block find_job(const struct mlp *mlp, size_t *task, bool backward,
			     size_t (*blocks)(const struct pst_mlp_job *))
{
	struct block b = {.job = mlp->jobs, .scratch = mlp->scratch};

	for (size_t n; *task >= (n = blocks(b.job)); b.job++) {
		*task -= n;
		b.scratch += b.job->rows * scratch_width(b.job, backward);
	}
	return b;
}

static struct block find_rows(const struct mlp *mlp, size_t task, bool backward)
{
	struct block b = find_job(mlp, &task, backward, row_blocks);

	b.first = task * ROWS;
	b.rows = b.job->rows - b.first < ROWS ? b.job->rows - b.first : ROWS;
	return b;
}

/* g = gate(x) and u = up(x) of the block's rows. */
static void gate_up(const struct mlp *mlp, const struct block *b, float *g, float *u, size_t ld)
{
	const struct pst_mlp_job *j = b->job;
	const float *x = j->x + b->first * j->hidden;

	mlp->ops->gemm(0, 1, b->rows, j->inter, j->hidden, x, j->hidden, j->gate, j->hidden, g, ld,
		       0);
	mlp->ops->gemm(0, 1, b->rows, j->inter, j->hidden, x, j->hidden, j->up, j->hidden, u, ld,
		       0);
}

static float *forward_kept(const struct mlp *mlp, const struct block *b)
{
	size_t inter = b->job->inter;
	float *kept = b->job->kept + b->first * 2 * inter;
	float *a = b->scratch + b->first * inter;

	gate_up(mlp, b, kept, kept + inter, 2 * inter);
	for (size_t r = 0; r < b->rows; r++)
		mlp->ops->swiglu(a + r * inter, kept + 2 * r * inter, kept + (2 * r + 1) * inter,
				 inter);
	return a;
}

static float *forward_dropped(const struct mlp *mlp, const struct block *b)
{
	size_t inter = b->job->inter;
	float *g = b->scratch + b->first * 2 * inter;
	float *u = g + b->rows * inter;

	gate_up(mlp, b, g, u, inter);
	mlp->ops->swiglu(g, g, u, b->rows * inter);
	return g;
}

static void forward_rows(void *ctx, size_t task)
{
	const struct mlp *mlp = ctx;
	struct block b = find_rows(mlp, task, false);
	const struct pst_mlp_job *j = b.job;
	const float *a = j->kept ? forward_kept(mlp, &b) : forward_dropped(mlp, &b);

	mlp->ops->gemm(0, 1, b.rows, j->hidden, j->inter, a, j->inter, j->down, j->inter,
		       j->y + b.first * j->hidden, j->hidden, 0);
}

void pst_mlp_forward(struct pst_device *dev, const struct pst_mlp_job *jobs, size_t njobs,
		     float *scratch)
{
	struct mlp mlp = {.jobs = jobs, .scratch = scratch};

	pst_device_enter(dev);
	mlp.ops = pst_device_ops(dev);
	pst_device_for(dev, count_tasks(jobs, njobs, row_blocks), forward_rows, &mlp);
	pst_device_leave(dev);
}

/* The three parts of a job's backward scratch, each [rows, inter]. */
struct grads {
	float *dg, *du, *a;
};

static struct grads job_grads(const struct block *b)
{
	size_t part = b->job->rows * b->job->inter;

	return (struct grads){b->scratch, b->scratch + part, b->scratch + 2 * part};
}

/* dg, du and a of the block's rows; @a holds da at first. */
static void back_through_swiglu(const struct mlp *mlp, const struct block *b, struct grads at)
{
	const struct pst_mlp_job *j = b->job;
	const float *kept;
	size_t inter = j->inter;

	if (!j->kept || !j->have_kept) {
		gate_up(mlp, b, at.dg, at.du, inter);
		mlp->ops->swiglu_bwd(at.dg, at.du, at.a, at.a, at.dg, at.du, b->rows * inter);
		return;
	}
	kept = j->kept + b->first * 2 * inter;
	for (size_t r = 0; r < b->rows; r++)
		mlp->ops->swiglu_bwd(at.dg + r * inter, at.du + r * inter, at.a + r * inter,
				     at.a + r * inter, kept + 2 * r * inter,
				     kept + (2 * r + 1) * inter, inter);
}

static void backward_rows(void *ctx, size_t task)
{
	const struct mlp *mlp = ctx;
	struct block b = find_rows(mlp, task, true);
	const struct pst_mlp_job *j = b.job;
	struct grads at = job_grads(&b);
	const float *dy = j->dy + b.first * j->hidden;
	float *dx = j->dx + b.first * j->hidden;

	at.dg += b.first * j->inter;
	at.du += b.first * j->inter;
	at.a += b.first * j->inter;
	mlp->ops->gemm(0, 0, b.rows, j->inter, j->hidden, dy, j->hidden, j->down, j->inter, at.a,
		       j->inter, 0);
	back_through_swiglu(mlp, &b, at);
	mlp->ops->gemm(0, 0, b.rows, j->hidden, j->inter, at.dg, j->inter, j->gate, j->hidden, dx,
		       j->hidden, 0);
	mlp->ops->gemm(0, 0, b.rows, j->hidden, j->inter, at.du, j->inter, j->up, j->hidden, dx,
		       j->hidden, 1);
}

/* Rows of dw[m, n] = left[rows, m]^T right[rows, n], block @i of them. */
static void weight_grad(const struct mlp *mlp, float *dw, size_t m, size_t n, const float *left,
			const float *right, size_t rows, size_t i)
{
	size_t first = i * ROWS;

	/* without rows the inputs may be NULL, and the gradient is zero */
	mlp->ops->gemm(1, 0, m - first < ROWS ? m - first : ROWS, n, rows,
		       rows ? left + first : NULL, m, right, n, dw + first * n, n, 0);
}

static void backward_weights(void *ctx, size_t task)
{
	const struct mlp *mlp = ctx;
	struct block b = find_job(mlp, &task, true, weight_blocks);
	const struct pst_mlp_job *j = b.job;
	struct grads at = job_grads(&b);
	size_t blocks = div_up(j->inter, ROWS);

	if (task < blocks)
		weight_grad(mlp, j->dgate, j->inter, j->hidden, at.dg, j->x, j->rows, task);
	else if (task < 2 * blocks)
		weight_grad(mlp, j->dup, j->inter, j->hidden, at.du, j->x, j->rows, task - blocks);
	else
		weight_grad(mlp, j->ddown, j->hidden, j->inter, j->dy, at.a, j->rows,
			    task - 2 * blocks);
}

void pst_mlp_backward(struct pst_device *dev, const struct pst_mlp_job *jobs, size_t njobs,
		      float *scratch)
{
	struct mlp mlp = {.jobs = jobs, .scratch = scratch};

	pst_device_enter(dev);
	mlp.ops = pst_device_ops(dev);
	pst_device_for(dev, count_tasks(jobs, njobs, row_blocks), backward_rows, &mlp);
	pst_device_for(dev, count_tasks(jobs, njobs, weight_blocks), backward_weights, &mlp);
	pst_device_leave(dev);
}
