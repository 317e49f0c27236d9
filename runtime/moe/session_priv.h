/* SPDX-License-Identifier: Apache-2.0 */
/*
 * session_priv.h - a session's inside: session.c opens it, session_run.c computes, session_gpu.c
 * has a GPU do it, session_far.c moves what cannot be mapped, session_place.c pins and evicts
 * copies.
 */
#ifndef PST_SESSION_PRIV_H
#define PST_SESSION_PRIV_H

#include "runtime/device/mlp.h"
#include "runtime/mem/pool.h"
#include "runtime/moe/session.h"
#include "runtime/store/push.h"

enum { GATE, UP, DOWN, MATRICES };

/* A server as this session uses it. */
struct source {
	struct pst_view *view;
	struct pst_push *push; /* NULL: forward only */
};

/* An expert: where its matrices are, and what its last forward left. */
struct expert {
	bool known;
	uint32_t source;
	uint32_t tensor[MATRICES];
	struct pst_tally_expert *tally;
	bool pinned;
	float *kept;
	uint64_t kept_pass;
	uint32_t kept_rows;
	struct pst_gpu_weights on_gpu;
};

struct pst_session {
	struct pst_session_host host;
	struct pst_msg_worker_setup setup;
	struct pst_link *engine;
	struct pst_key rows_key, results_key;
	const char *rows; /* in place; NULL: not mapped, as results */
	char *results;
	uint64_t rows_bytes, results_bytes; /* not mapped: no limit is known, the fabric has it */
	struct pst_wire_server *server;
	struct pst_inbox *inbox; /* servers */
	struct source *source;
	struct expert *expert; /* [layers * experts] */
	struct pst_pool *pool;
	float *scratch;
	size_t scratch_floats;
	/* of one request */
	struct pst_mlp_job *job;
	struct pst_view_want *want;
	/* the engine's regions are not mapped: rows of one request, one expert's behind the other's
	 */
	struct pst_pool *local;
	struct pst_region *local_region;
	float *x, *dy, *out;
	uint32_t *local_row; /* first row of each item */
	/* servers are not mapped */
	struct pst_copies *copies;
	struct pst_pool *grads;
	struct pst_region *grads_region;
	uint32_t experts_at_once, grads_at_once;
	uint32_t far_experts, pins; /* that are copied; of these, pinned */
	struct pst_push_item *item;
	struct pst_push_stat pushed;
	uint32_t reached; /* pieces of memory, by the GPU */
};

static inline struct expert *pst_session_expert(struct pst_session *s,
						const struct pst_msg_experts *m, uint32_t i)
{
	return &s->expert[(size_t)m->layer * s->setup.experts + m->item[i].expert];
}

/* Are the weights of @x copied, not mapped? */
static inline bool pst_session_far(const struct pst_session *s, const struct expert *x)
{
	return !pst_view_mapped(s->source[x->source].view);
}

/* Bytes of one matrix of an expert: they are all the same. */
static inline uint64_t pst_session_matrix(const struct pst_session *s)
{
	return (uint64_t)s->setup.hidden * s->setup.inter * sizeof(float);
}

/* Not mapped: is the memory there that the set-up speaks of? Fetches the list of servers. */
int pst_session_reach(struct pst_session *s, struct pst_error *err);
/* Not mapped: memory for one request's rows. */
int pst_session_make_rows(struct pst_session *s, struct pst_error *err);
/* Servers that are not mapped: memory for weights and gradients. */
int pst_session_make_copies(struct pst_session *s, struct pst_error *err);
void pst_session_free_far(struct pst_session *s); /* links to servers are closed */

/* Where a GPU computes; elsewhere nothing. All memory that requests touch is there. */
int pst_session_open_gpu(struct pst_session *s, struct pst_error *err);
void pst_session_close_gpu(struct pst_session *s); /* all of that memory is still there */
/* The jobs of items @from to @from + @n - 1. */
int pst_session_compute_gpu(struct pst_session *s, const struct pst_msg_experts *m, uint32_t from,
			    uint32_t n, struct pst_error *err);

/* Rows of a request's items, from the engine and back to it. Nothing to do where they are mapped.
 */
int pst_session_fetch(struct pst_session *s, const struct pst_msg_experts *m,
		      struct pst_error *err);
int pst_session_store(struct pst_session *s, const struct pst_msg_experts *m,
		      struct pst_error *err);

#endif /* PST_SESSION_PRIV_H */
