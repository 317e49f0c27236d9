/* SPDX-License-Identifier: Apache-2.0 */
/* compute_gpu_priv.h - inside of compute_gpu*.c: compute_gpu.c moves things, the others launch. */
#ifndef PST_DEVICE_COMPUTE_GPU_PRIV_H
#define PST_DEVICE_COMPUTE_GPU_PRIV_H

#include "runtime/device/compute_gpu.h"

struct gpu_marks {
	struct pst_gpu_event **event;
	uint32_t n;
};

/* Copies of one way that are not sent yet. */
struct gpu_batch {
	struct pst_gpu_copies *copies;
	unsigned int n;
	enum pst_gpu_stream stream;
};

struct pst_compute_gpu {
	struct pst_compute base;
	struct pst_gpu *gpu;
	struct pst_gpu_kernels *kernels;
	uint32_t ms;
	struct gpu_batch in, out, within;
	struct gpu_marks put, fetched;
	struct pst_gpu_event *computed, *home;
	bool settled; /* after the first failure */
};

static inline struct pst_compute_gpu *pst_gpu_of(struct pst_compute *c)
{
	return (struct pst_compute_gpu *)c;
}

/* An op does nothing once something failed. */
static inline bool pst_gpu_well(const struct pst_compute_gpu *g)
{
	return !g->base.err.code;
}

/* On the device, in the order of the launches. */
void pst_gpu_copy(struct pst_compute_gpu *g, float *y, const float *x, size_t n);

/* Launches of kernels/cuda/cuda.h, by its arguments. */
void pst_gpu_gemm(struct pst_compute_gpu *g, int ta, int tb, size_t m, size_t n, size_t k,
		  const float *a, size_t lda, const float *b, size_t ldb, float *c, size_t ldc,
		  int acc);
void pst_gpu_add(struct pst_compute_gpu *g, float *y, const float *x, size_t n);

/* compute_gpu_ops.c */
extern const enum pst_cuda_kernel pst_gpu_dense_kernels[];
extern const size_t pst_gpu_dense_count;
void pst_gpu_linear(struct pst_compute *c, struct pst_linear l, size_t rows, float *y, size_t ldy,
		    const float *x, size_t ldx);
void pst_gpu_linear_dx(struct pst_compute *c, struct pst_linear l, size_t rows, float *dx,
		       size_t lddx, const float *dy, size_t lddy, bool acc);
void pst_gpu_linear_dw(struct pst_compute *c, struct pst_linear l, size_t rows, float *dw,
		       const float *dy, size_t lddy, const float *x, size_t ldx, bool acc);
void pst_gpu_norm(struct pst_compute *c, const struct pst_norm *n, float *y);
void pst_gpu_norm_bwd(struct pst_compute *c, const struct pst_norm *n, float *dx, size_t lddx,
		      float *dw, float *sum, const float *dy);
void pst_gpu_sum(struct pst_compute *c, float *y, const float *a, const float *b, size_t n);
void pst_gpu_zero(struct pst_compute *c, float *y, size_t n);
void pst_gpu_embed(struct pst_compute *c, float *y, const float *table, const int32_t *id,
		   size_t rows, size_t cols);
void pst_gpu_embed_bwd(struct pst_compute *c, float *dtable, const float *dy, const int32_t *id,
		       size_t rows, size_t vocab, size_t cols);
void pst_gpu_net(struct pst_compute *c, const struct pst_mlp_job *job, float *scratch);
void pst_gpu_net_bwd(struct pst_compute *c, const struct pst_mlp_job *job, float *scratch);
void pst_gpu_loss(struct pst_compute *c, const struct pst_xent *x);
void pst_gpu_loss_bwd(struct pst_compute *c, const struct pst_xent *x, float scale);
void pst_gpu_gate(struct pst_compute *c, const struct pst_gate *g);
void pst_gpu_balance(struct pst_compute *c, const struct pst_gate *g, float *loss, float alpha);
void pst_gpu_gate_bwd(struct pst_compute *c, const struct pst_gate *g, const float *dweight);

/* compute_gpu_mla.c */
void pst_gpu_rotate(struct pst_compute *c, const struct pst_mla *a);
void pst_gpu_attend(struct pst_compute *c, const struct pst_mla *a);
void pst_gpu_attend_bwd(struct pst_compute *c, const struct pst_mla *a,
			const struct pst_mla_grad *grad);
void pst_gpu_attend_cache(struct pst_compute *c, const struct pst_mla *a,
			  const struct pst_mla_cache *cache);

/* RUN(gpu, kernel, addresses of its arguments) */
#define PST_GPU_RUN(g, name, ...)                                                   \
	do {                                                                        \
		if (pst_gpu_well(g))                                                \
			pst_gpu_run((g)->kernels, PST_GPU_COMPUTE, PST_CUDA_##name, \
				    (void *[]){__VA_ARGS__}, &(g)->base.err);       \
	} while (0)

#endif /* PST_DEVICE_COMPUTE_GPU_PRIV_H */
