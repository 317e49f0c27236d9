/* SPDX-License-Identifier: Apache-2.0 */
/* What is launched for one part of a call. */
#include "runtime/device/gpu_mlp_priv.h"

int pst_gpu_mlp_round(struct pst_gpu_mlp *m, uint64_t to, uint64_t from, size_t n,
		      struct pst_error *err)
{
	void *params[] = {&to, &from, &n};

	return pst_gpu_run(m->kernels, PST_GPU_COMPUTE, PST_CUDA_to_bf16, params, err);
}

/* The arguments that many kernels end with. */
struct lists {
	uint64_t off, gate, up, down, dw[MATRICES];
};

static struct lists lists_of(const struct pst_gpu_mlp *m, const struct mlp_part *p)
{
	uint64_t each = m->most * sizeof(uint64_t), w = p->table + m->table.weights,
		 g = p->table + m->table.grads;

	return (struct lists){.off = p->table,
			      .gate = w + GATE * each,
			      .up = w + UP * each,
			      .down = w + DOWN * each,
			      .dw = {g + GATE * each, g + UP * each, g + DOWN * each}};
}

static enum pst_cuda_kernel by_rows(size_t rows, enum pst_cuda_kernel few,
				    enum pst_cuda_kernel some, enum pst_cuda_kernel many)
{
	return rows <= 16 ? few : rows <= 64 ? some : many;
}

/* @kept: 0, or where g and u go. */
static int run_up(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		  uint64_t kept, struct pst_error *err)
{
	struct lists l = lists_of(m, p);
	size_t hidden = c->hidden, inter = c->inter;
	uint64_t idx = 0;
	void *params[] = {&p->a, &kept,	 &p->x16, &hidden,  &idx,    &l.gate,
			  &l.up, &l.off, &p->n,	  &p->rows, &hidden, &inter};

	return pst_gpu_run(m->kernels, PST_GPU_COMPUTE,
			   by_rows(p->most_rows, PST_CUDA_experts_up_16, PST_CUDA_experts_up_64,
				   PST_CUDA_experts_up_128),
			   params, err);
}

static int run_forward(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		       struct pst_error *err)
{
	struct lists l = lists_of(m, p);
	size_t hidden = c->hidden, inter = c->inter;
	int narrow = 0, rc = run_up(m, c, p, 0, err);
	void *params[] = {&p->y, &narrow, &p->a, &l.down, &l.off, &p->n, &p->rows, &hidden, &inter};

	if (rc)
		return rc;
	return pst_gpu_run(m->kernels, PST_GPU_COMPUTE,
			   by_rows(p->most_rows, PST_CUDA_experts_down_16, PST_CUDA_experts_down_64,
				   PST_CUDA_experts_down_128),
			   params, err);
}

/* dw of one matrix: [rows of it, cols of it] = left^T right. */
static int run_dw(struct pst_gpu_mlp *m, struct mlp_part *p, uint64_t dw, uint64_t left,
		  uint64_t right, size_t rows, size_t cols, struct pst_error *err)
{
	struct lists l = lists_of(m, p);
	uint64_t idx = 0;
	int acc = 0;
	void *params[] = {&dw, &left, &right, &cols, &idx, &l.off, &p->n, &rows, &cols, &acc};

	return pst_gpu_run(m->kernels, PST_GPU_COMPUTE, PST_CUDA_experts_dw, params, err);
}

static int run_rows_back(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
			 struct pst_error *err)
{
	struct lists l = lists_of(m, p);
	size_t hidden = c->hidden, inter = c->inter;
	bool many = p->most_rows > 64;
	int narrow = 0, rc;
	void *da[] = {&p->dg, &p->du, &p->a,	&p->dy16, &p->kept, &l.down,
		      &l.off, &p->n,  &p->rows, &hidden,  &inter};
	void *dx[] = {&p->y,  &narrow, &p->dg,	 &p->du,  &l.gate, &l.up,
		      &l.off, &p->n,   &p->rows, &hidden, &inter};

	rc = pst_gpu_run(m->kernels, PST_GPU_COMPUTE,
			 many ? PST_CUDA_experts_da_128 : PST_CUDA_experts_da_64, da, err);
	if (rc)
		return rc;
	return pst_gpu_run(m->kernels, PST_GPU_COMPUTE,
			   many ? PST_CUDA_experts_dx_128 : PST_CUDA_experts_dx_64, dx, err);
}

static int run_backward(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
			struct pst_error *err)
{
	struct lists l = lists_of(m, p);
	int rc = pst_gpu_mlp_round(m, p->dy16, p->dy, p->rows * c->hidden, err);

	if (!rc)
		rc = run_up(m, c, p, p->kept, err);
	if (!rc)
		rc = run_rows_back(m, c, p, err);
	if (!rc)
		rc = run_dw(m, p, l.dw[GATE], p->dg, p->x16, c->inter, c->hidden, err);
	if (!rc)
		rc = run_dw(m, p, l.dw[UP], p->du, p->x16, c->inter, c->hidden, err);
	if (!rc)
		rc = run_dw(m, p, l.dw[DOWN], p->dy16, p->a, c->hidden, c->inter, err);
	return rc;
}

int pst_gpu_mlp_run(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		    struct pst_error *err)
{
	int rc = pst_gpu_mlp_round(m, p->x16, p->x, p->rows * c->hidden, err);

	if (rc)
		return rc;
	return c->backward ? run_backward(m, c, p, err) : run_forward(m, c, p, err);
}
