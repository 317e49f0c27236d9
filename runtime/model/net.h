/* SPDX-License-Identifier: Apache-2.0 */
/*
 * net.h - the inside of a model; private to model/.
 *
 * T is the number of rows (tokens) of a call, H hidden, A heads. A layer is
 *	x1 = x + attention(norm(x)),   next x = x1 + ffn(norm(x1))
 * and its act holds what its backward needs again. Without training all
 * layers share one act.
 *
 * All tensors are in the memory of the compute (device/compute.h), which may lie apart: then only
 * what is in struct pst_model's @host, and weights and gradients as they are given, can be looked
 * at here, and apart.c has what crosses over.
 */
#ifndef PST_NET_H
#define PST_NET_H

#include "runtime/device/compute.h"
#include "runtime/model/layout.h"
#include "runtime/model/model.h"

#define PST_FEED_ROWS  128   /* tokens of a prompt that go through the layers at once */
#define PST_LATENT_EPS 1e-6f /* of q_a_layernorm and kv_a_layernorm, whatever the config says */

struct pst_act {
	float *x, *x1;		      /* [T, H] */
	float *h, *h2;		      /* [T, H] normed x, normed x1 */
	float *rstd, *rstd2;	      /* [T] */
	float *qa, *qan, *qa_rstd;    /* [T, q_lora] before and after its norm, [T] */
	float *q;		      /* [T, A, nope + rope], rotated */
	float *kva;		      /* [T, kv_lora + rope], the last rotated */
	float *c, *c_rstd;	      /* [T, kv_lora] normed latent, [T] */
	float *kv;		      /* [T, A, nope + v] */
	float *k;		      /* [T, A, nope + rope] */
	float *o, *lse;		      /* [T, A, v], [A, T] */
	float *kept;		      /* [T, 2 * inter] of the dense or shared network */
	float *score, *weight, *coef; /* [T, E], [T, topk], [batch, E] */
	int32_t *expert;	      /* [T, topk] */
};

/* What the host writes or reads. Where memory is not apart they are the tensors themselves, and
 * those of routed experts are not needed. */
struct pst_model_host {
	int32_t *pos, *tokens, *targets;
	float *cos_t, *sin_t;
	float *token_loss, *seq_balance;
	float *x, *y;		 /* [T, H] to routed experts, and what they add */
	float *weight, *dweight; /* [T, topk] */
	int32_t *expert;	 /* [T, topk] */
	float *logits;		 /* [V] */
};

struct pst_apart;

struct pst_model {
	struct pst_config cfg;
	struct pst_compute_cpu cores; /* where no other compute was given */
	struct pst_compute *c;
	const struct pst_compute_ops *op;
	struct pst_pool *pool;
	struct pst_moe *moe;
	uint32_t batch_max, seq_max;
	double alpha;
	bool train;

	struct pst_model_params at;
	struct pst_layer_params *layer_at; /* [layers] */
	struct pst_act *acts;		   /* [layers], or one */
	uint32_t *load;			   /* [layers, E] */
	void *block;			   /* of the compute; all below lies in it */
	void *host_block;		   /* of the pool, where memory is apart */
	struct pst_model_host host;
	struct pst_apart *apart; /* NULL: it is not */

	float *cos_t, *sin_t; /* [seq, rope / 2] */
	float scale;	      /* of scores */
	int32_t *pos, *tokens, *targets;
	float *last, *last_rstd, *last_h; /* [T, H] behind the last layer, [T], normed [T, H] */
	float *logits, *xent_row;	  /* [T, V], [blocks of rows, V] */
	float *token_loss, *seq_balance;  /* [T], [layers, batch] */

	float *y; /* [T, H] what a residual gets */
	float *mlp_scratch;
	float *router;	      /* [T, E] logits, then their gradient */
	float *dx, *dh, *tmp; /* [T, H], [T, H], [T, max(H, q_lora, kv_lora)] */
	float *dq, *dk, *dkv, *dkva, *dc, *dqan, *dqa, *dout, *dweight;
	float *delta, *added; /* [A, T], [T, H]: where memory is apart */

	float *cache;		  /* [layers, seq, kv_lora + rope] */
	float *absorbed, *latent; /* [A, rows, kv_lora + rope], [A, rows, kv_lora] */
	uint32_t cached;

	/* of the last forward */
	uint32_t batch, seq;
	size_t rows, counted; /* tokens, tokens with a target */
	bool ready;	      /* backward may follow */
};

/* Derived widths. */
static inline size_t pst_qk(const struct pst_model *m)
{
	return (size_t)m->cfg.qk_nope + m->cfg.qk_rope;
}

static inline size_t pst_ld_q(const struct pst_model *m)
{
	return m->cfg.heads * pst_qk(m);
}

static inline size_t pst_head_kv(const struct pst_model *m)
{
	return (size_t)m->cfg.qk_nope + m->cfg.v_dim;
}

static inline size_t pst_ld_kv(const struct pst_model *m)
{
	return m->cfg.heads * pst_head_kv(m);
}

static inline size_t pst_ld_kva(const struct pst_model *m)
{
	return (size_t)m->cfg.kv_lora + m->cfg.qk_rope;
}

static inline size_t pst_ld_o(const struct pst_model *m)
{
	return (size_t)m->cfg.heads * m->cfg.v_dim;
}

static inline struct pst_act *pst_act(const struct pst_model *m, uint32_t layer)
{
	return &m->acts[m->train ? layer : 0];
}

/* Where the output of @layer goes. */
static inline float *pst_next_x(const struct pst_model *m, uint32_t layer)
{
	return layer + 1 < m->cfg.layers ? pst_act(m, layer + 1)->x : m->last;
}

/* plan.c: point everything into @base (NULL: only count); returns the bytes. */
uint64_t pst_plan(struct pst_model *m, char *base);
/* The same for what the host has where memory is apart; else it has the tensors. */
uint64_t pst_plan_host(struct pst_model *m, char *base);
void pst_plan_shared(struct pst_model *m);

/*
 * apart.c: nothing of this does anything where memory is not apart. A group of parameters is 0, the
 * embedding; 1 + layer; or 1 + layers, what is behind them.
 */
int pst_apart_alloc(struct pst_model *m, uint64_t bytes, const char *what, void **out,
		    struct pst_error *err);
int pst_apart_create(struct pst_model *m, struct pst_error *err);
void pst_apart_destroy(struct pst_model *m);
/* Have the weights come, if they are others than those that are there; and where they are. In
 * backward they are the same. */
const float *const *pst_apart_weights(struct pst_model *m, const float *const *weights);
const float *const *pst_apart_same(const struct pst_model *m, const float *const *weights);
void pst_apart_need(struct pst_model *m, uint32_t group); /* they are computed with next */
/* Where gradients are computed; and have those of a group go where they are wanted. */
float *const *pst_apart_grads(struct pst_model *m, float *const *grads);
void pst_apart_room(struct pst_model *m, uint32_t layer); /* for a layer's gradients */
void pst_apart_send(struct pst_model *m, float *const *grads, uint32_t group);
void pst_apart_tokens(struct pst_model *m); /* and positions, targets: as the host has them */
/* Where the host adds to @y, [T, H]; and then have it in @y. */
float *pst_apart_lend(struct pst_model *m, float *y);
void pst_apart_take(struct pst_model *m, float *y);
void pst_apart_put(struct pst_model *m, void *to, const void *host, size_t bytes);

/* attention.c: o from q and latents, for whole sequences; generate.c has the other. */
typedef void pst_attend_fn(struct pst_model *m, const float *const *weights, uint32_t layer);
pst_attend_fn pst_attend_causal;
struct pst_mla pst_mla_of(const struct pst_model *m, uint32_t layer);

void pst_attention_forward(struct pst_model *m, const float *const *weights, uint32_t layer,
			   pst_attend_fn *attend);
/* dx: d loss / d x1 becomes d loss / d x. */
void pst_attention_backward(struct pst_model *m, const float *const *weights, float *const *grads,
			    uint32_t layer);

/* ffn.c: dense or experts; dx: d loss / d next x becomes d loss / d x1. */
int pst_ffn_forward(struct pst_model *m, const float *const *weights, uint32_t layer);
int pst_ffn_backward(struct pst_model *m, const float *const *weights, float *const *grads,
		     uint32_t layer);
/* The balance loss of @layer's sequences, in seq_balance; leaves coef for backward. */
void pst_ffn_balance(struct pst_model *m, uint32_t layer);
static inline float *pst_balance_of(const struct pst_model *m, float *seq_balance, uint32_t layer)
{
	return seq_balance + (size_t)layer * m->batch_max;
}

/* model.c: tokens [rows] that stand at m->pos through all layers into m->last. */
int pst_model_layers(struct pst_model *m, const float *const *weights, pst_attend_fn *attend);
/* Logits of @rows rows from row @first of m->last. */
void pst_model_head(struct pst_model *m, const float *const *weights, size_t first, size_t rows);

#endif /* PST_NET_H */
