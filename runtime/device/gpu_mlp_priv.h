/* SPDX-License-Identifier: Apache-2.0 */
/* gpu_mlp_priv.h - inside of gpu_mlp.c, which moves things, and gpu_mlp_kernels.c, which computes.
 */
#ifndef PST_DEVICE_GPU_MLP_PRIV_H
#define PST_DEVICE_GPU_MLP_PRIV_H

#include "runtime/device/gpu_mlp.h"

#define MLP_PARTS      2
#define MLP_PLACES     2 /* of weights that come */
#define MLP_BLOCKS     (MLP_PARTS * 12 + MLP_PLACES)
#define MLP_NO_VERSION UINT64_MAX

enum { GATE, UP, DOWN, MATRICES };

/* Lists of a part, as the kernels read them: where rows begin, weights, gradients. */
struct mlp_table {
	uint64_t bytes, weights, grads; /* offsets of [MATRICES][most] addresses */
};

struct pst_gpu_mlp {
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	size_t most;
	uint32_t ms;
	struct pst_gpu_copies *copies;
	struct pst_gpu_event *came, *done, *arrived[MLP_PLACES], *rounded[MLP_PLACES];
	struct mlp_table table;
	char *lists; /* of both parts, on the host, registered */
	uint64_t lists_bytes;
	struct pst_gpu_weights *newest, *oldest;
	struct pst_gpu_mlp_stat stat;
	bool stuck;
	/* of one call */
	uint64_t call;
	uint32_t *order; /* jobs of part 0, then of part 1 */
	uint64_t block[MLP_BLOCKS];
	unsigned int blocks;
};

struct mlp_call {
	const struct pst_mlp_job *jobs;
	struct pst_gpu_weights *const *weights;
	size_t n;
	uint64_t version;
	bool backward;
	size_t hidden, inter;
};

/* Where on the device. fp32: x, y, dy, dx, dw; the others are bf16. */
struct mlp_part {
	const uint32_t *job;
	size_t n, rows, most_rows;
	char *lists; /* on the host */
	uint64_t table;
	uint64_t x, x16, a, y;
	uint64_t dy, dy16, kept, dg, du, dw;
};

static inline uint64_t matrix_elements(const struct mlp_call *c)
{
	return (uint64_t)c->hidden * c->inter;
}

/* @n elements from fp32 to bf16, on the device. */
int pst_gpu_mlp_round(struct pst_gpu_mlp *m, uint64_t to, uint64_t from, size_t n,
		      struct pst_error *err);
/* All kernels of one part, whose rows and weights are there when COMPUTE comes to it. */
int pst_gpu_mlp_run(struct pst_gpu_mlp *m, const struct mlp_call *c, struct mlp_part *p,
		    struct pst_error *err);

#endif /* PST_DEVICE_GPU_MLP_PRIV_H */
