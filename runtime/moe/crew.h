/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crew.h - the workers of one engine: who computes which expert, and what
 * happens when one dies.
 *
 * One request for experts is under way at a time. Experts with rows are given
 * to workers by size, the largest first to the one with the least to do; a
 * backward goes where the forward was, if that worker lives. A worker that dies,
 * or is silent for too long, is replaced if it can be; what it had is asked for again. One that
 * drains says so: what it had goes to the others, and its place is free for another.
 *
 * Threads: one.
 */
#ifndef PST_CREW_H
#define PST_CREW_H

#include "rdma/fabric.h"
#include "runtime/mem/pool.h"

#include <penstock/wire.h>

struct pst_crew;

struct pst_crew_options {
	size_t size; /* sizeof(struct pst_crew_options) */
	struct pst_fabric *fabric;
	unsigned int workers;
	uint32_t experts;
	struct pst_pool *rows, *results;   /* granted to every worker */
	struct pst_msg_worker_setup setup; /* keys and header are filled in */
	int timeout_ms;
	int connect_ms; /* for a worker to appear, 0: 20 s */
	int (*replace)(void *ctx, unsigned int worker, char url[PST_WIRE_URL],
		       struct pst_error *err);
	int (*check)(void *ctx, unsigned int worker, struct pst_error *err);
	void *ctx;
	int (*reach)(void *reach_ctx, struct pst_error *err);
	void *reach_ctx;
};

int pst_crew_create(const struct pst_crew_options *opts, struct pst_crew **out,
		    struct pst_error *err);
void pst_crew_destroy(struct pst_crew *crew); /* NULL is fine */

int pst_crew_connect(struct pst_crew *crew, unsigned int worker, const char *url,
		     struct pst_error *err);

/*
 * Ask for all experts e with rows first[e] .. first[e+1]. @m: what is the same
 * for all of them. @owner[e]: for a forward set to the worker that was asked,
 * for a backward the one to ask.
 */
int pst_crew_ask(struct pst_crew *crew, const struct pst_msg_experts *m, const uint32_t *first,
		 uint32_t *owner, struct pst_error *err);

/* Wait until all of them are done. */
int pst_crew_wait(struct pst_crew *crew, struct pst_error *err);

/* Between requests. -ENOTCONN: the worker is dead. */
int pst_crew_worker_stat(struct pst_crew *crew, unsigned int worker, struct pst_msg_stated *out);

void pst_crew_stat(const struct pst_crew *crew, uint64_t *restarts, uint64_t *resent);

#endif /* PST_CREW_H */
