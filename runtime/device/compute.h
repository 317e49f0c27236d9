/* SPDX-License-Identifier: Apache-2.0 */
/*
 * compute.h - what an engine computes, as ops over whole tensors.
 *
 * The model
 *   compute  who does it: a CPU device (device.h), or a GPU (compute_gpu.h). Both are this struct
 *            and a table of ops; a model says what is to be done, and never by whom.
 *   memory   all tensors of an op are in the compute's memory. That of a CPU is the host's. That
 *            of a GPU lies apart: pointers to it are addresses there, for ops alone.
 *   put      from the host to there, fetch from there to the host. Where memory is not apart both
 *            move nothing if the two places are one.
 *   mark     a number. What was put (fetched) since the last mark is under way, and *_need()
 *            has what is computed from then on wait for it.
 *   wait     until all that was fetched is on the host. Ops say nothing of how they went: the first
 *            that failed is what wait returns, and then they do nothing any more.
 *
 * What is under way reads and writes its memory until a wait behind it, a need, or an op that
 * uses the same tensor: ops come one after the other, puts and fetches beside them. A put may
 * therefore only go where nothing that was given since the last wait reads or writes.
 *
 * Numbers: a CPU cuts an op by its shape alone, so bits depend on nothing else. A GPU's bits are
 * others than a CPU's, and the same from run to run. All is fp32.
 *
 * Threads: one, of a compute.
 */
#ifndef PST_DEVICE_COMPUTE_H
#define PST_DEVICE_COMPUTE_H

#include "runtime/device/mlp.h"

#define PST_COMPUTE_ROWS     32	  /* rows in one task of a CPU */
#define PST_COMPUTE_MAX_ROPE 1024 /* of qk_rope */

/* y = x W^T with a weight [out, in]; rows of x and y are ldx and ldy apart. */
struct pst_linear {
	const float *w;
	size_t in, out;
};

/* RMSNorm of [rows, cols]; rstd [rows] is for backward. */
struct pst_norm {
	const float *w, *x;
	float *rstd;
	size_t ldx, rows, cols;
	float eps;
};

/*
 * The loss of [rows, vocab] logits. @spare: [pst_xent_spare(rows), vocab], for losses that
 * leave the logits as they are.
 */
struct pst_xent {
	size_t rows, vocab;
	float *logit, *spare;
	const int32_t *target;
	float *loss;
};

static inline size_t pst_xent_spare(size_t rows)
{
	return (rows + PST_COMPUTE_ROWS - 1) / PST_COMPUTE_ROWS;
}

/* The gate of @batch sequences of @seq tokens; op gate_topk (kernels/op.h) says what it means. */
struct pst_gate {
	size_t batch, seq, experts, topk, n_group, topk_group;
	bool norm;
	float scale;
	const float *bias;
	float *logit;	 /* [rows, experts]; backward: overwritten with its gradient */
	int32_t *expert; /* [rows, topk] */
	float *weight, *score;
	float *coef; /* [batch, experts], from balance to backward; NULL: no balance loss */
};

/*
 * Multi-head latent attention (arXiv:2412.19437 eq. 1-11) between its projections. Rows are those
 * of @batch sequences of @seq tokens.
 */
struct pst_mla {
	size_t batch, seq, heads, nope, rope, v, lora;
	bool interleave; /* pairs of a rotation are (2i, 2i + 1), else (i, i + rope / 2) */
	float scale;
	const int32_t *pos; /* [rows] */
	const float *cos_t, *sin_t;
	float *q;   /* [rows, heads, nope + rope] */
	float *kva; /* [rows, lora + rope] */
	float *kv;  /* [rows, heads, nope + v] */
	float *k;   /* [rows, heads, nope + rope]: is made of kv and kva */
	float *o;   /* [rows, heads, v] */
	float *lse; /* [heads, rows] */
};

struct pst_mla_grad {
	const float *dout;	     /* of o */
	float *dq, *dk, *dkv, *dkva; /* of kva: its last rope columns */
	float *delta;		     /* [heads, rows], where memory is apart */
};

/* A cache of latents [positions, lora + rope], in which @cached positions are before the rows. */
struct pst_mla_cache {
	float *rows;
	size_t cached;
	const float *c, *kv_b;	  /* [rows, lora] normed; [heads, nope + v, lora] */
	float *absorbed, *latent; /* [heads, rows, lora + rope], [heads, rows, lora] */
};

struct pst_compute;

struct pst_compute_ops {
	/* where memory is apart, else NULL: a block of it; host memory that is put and fetched */
	int (*alloc)(struct pst_compute *c, uint64_t bytes, void **out, struct pst_error *err);
	void (*free)(struct pst_compute *c, void *block);
	int (*reach)(struct pst_compute *c, void *at, uint64_t bytes, struct pst_error *err);
	void (*leave)(struct pst_compute *c, void *at);

	void (*put)(struct pst_compute *c, void *to, const void *host, size_t bytes);
	void (*put_mark)(struct pst_compute *c, uint32_t mark);
	void (*put_need)(struct pst_compute *c, uint32_t mark);
	/* Where the host finds it after a wait: at @host, or where it is anyway. */
	const void *(*fetch)(struct pst_compute *c, void *host, const void *from, size_t bytes);
	void (*fetch_mark)(struct pst_compute *c, uint32_t mark);
	void (*fetch_need)(struct pst_compute *c, uint32_t mark);
	int (*wait)(struct pst_compute *c);

	void (*linear)(struct pst_compute *c, struct pst_linear l, size_t rows, float *y,
		       size_t ldy, const float *x, size_t ldx);
	void (*linear_dx)(struct pst_compute *c, struct pst_linear l, size_t rows, float *dx,
			  size_t lddx, const float *dy, size_t lddy, bool acc);
	void (*linear_dw)(struct pst_compute *c, struct pst_linear l, size_t rows, float *dw,
			  const float *dy, size_t lddy, const float *x, size_t ldx, bool acc);
	void (*norm)(struct pst_compute *c, const struct pst_norm *n, float *y);
	/* dx = d loss / d x and dw; with @sum also sum += dx (rows cols apart). */
	void (*norm_bwd)(struct pst_compute *c, const struct pst_norm *n, float *dx, size_t lddx,
			 float *dw, float *sum, const float *dy);
	/* y = a + b over n; y may be a. */
	void (*sum)(struct pst_compute *c, float *y, const float *a, const float *b, size_t n);
	void (*zero)(struct pst_compute *c, float *y, size_t n);
	void (*embed)(struct pst_compute *c, float *y, const float *table, const int32_t *id,
		      size_t rows, size_t cols);
	void (*embed_bwd)(struct pst_compute *c, float *dtable, const float *dy, const int32_t *id,
			  size_t rows, size_t vocab, size_t cols);
	/* One network; @scratch: pst_mlp_scratch(). */
	void (*mlp)(struct pst_compute *c, const struct pst_mlp_job *job, float *scratch);
	void (*mlp_bwd)(struct pst_compute *c, const struct pst_mlp_job *job, float *scratch);
	/* The loss of each row; the gradient in place of the logits, times @scale. */
	void (*loss)(struct pst_compute *c, const struct pst_xent *x);
	void (*loss_bwd)(struct pst_compute *c, const struct pst_xent *x, float scale);
	void (*gate)(struct pst_compute *c, const struct pst_gate *g);
	/* loss[batch], each of @alpha */
	void (*balance)(struct pst_compute *c, const struct pst_gate *g, float *loss, float alpha);
	void (*gate_bwd)(struct pst_compute *c, const struct pst_gate *g, const float *dweight);
	/* Positions into q and kva. */
	void (*rotate)(struct pst_compute *c, const struct pst_mla *a);
	void (*attend)(struct pst_compute *c, const struct pst_mla *a);
	/* d loss / d what rotate got and, of kv, all; from dout. */
	void (*attend_bwd)(struct pst_compute *c, const struct pst_mla *a,
			   const struct pst_mla_grad *g);
	/* The rows go into the cache, and o is made with it: kv and k are not (2405.04434, 2.1.2).
	 */
	void (*attend_cache)(struct pst_compute *c, const struct pst_mla *a,
			     const struct pst_mla_cache *cache);
};

struct pst_compute {
	const struct pst_compute_ops *op;
	bool apart;	      /* its memory is not the host's */
	struct pst_error err; /* the first failure; code 0: none yet */
};

/* The cores of @dev, which stays. */
struct pst_compute_cpu {
	struct pst_compute base;
	struct pst_device *dev;
};

void pst_compute_cpu_init(struct pst_compute_cpu *out, struct pst_device *dev);

static inline size_t pst_mla_qk(const struct pst_mla *a)
{
	return a->nope + a->rope;
}

#endif /* PST_DEVICE_COMPUTE_H */
