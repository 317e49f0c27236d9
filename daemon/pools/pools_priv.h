/* SPDX-License-Identifier: Apache-2.0 */
/* pools_priv.h - what the files of pools share. */
#ifndef DAEMON_POOLS_PRIV_H
#define DAEMON_POOLS_PRIV_H

#include "daemon/jobs.h"
#include "daemon/pools/pool_memory.h"
#include "daemon/pools/pools.h"

struct pool {
	TAILQ_ENTRY(pool) on_pools;
	struct pools *pools;
	struct session *session; /* that it goes with; NULL: none */
	struct session_end end;
	uint32_t id;
	bool keep;
	uid_t uid;
	pid_t pid; /* who made it, and when that process began */
	uint64_t pid_time;
	uint32_t maps;
	char name[PST_NAME_MAX];
	struct pool_memory memory;
	struct loop_source lock; /* the holder of the lock: it says nothing until its end */
	/* where its pages were found */
	int64_t looked_ms; /* 0: never */
	uint64_t looks, pages, elsewhere;
	bool unknown; /* the kernel does not say */
};

/* A penstock-pool of ours, until it has ended. */
struct maker {
	TAILQ_ENTRY(maker) on_makers;
	struct pools *pools;
	struct loop_source src; /* a pidfd */
	pid_t pid;
};

struct pools {
	struct penstockd *d;
	TAILQ_HEAD(, maker) makers;
	struct jobs *jobs;
	TAILQ_HEAD(, pool) pools; /* ids rising */
	TAILQ_HEAD(, making) making;
	uint32_t last_id;
	int ids; /* a descriptor to keep @last_id with; -1: not kept yet */
	bool module;
};

struct pool *pools_find(const struct pools *pools, uint32_t id, bool next);
struct pool *pools_new(struct pools *pools);
/* In the order of ids. */
void pools_enlist(struct pools *pools, struct pool *pool);
/* From here on it is told when the lock is lost. */
void pools_watch_lock(struct pool *pool);
void pools_lock_lost(struct pool *pool);
/* Take it out of all lists and of keep; its memory goes in a thread. */
void pools_remove(struct pool *pool);
/* The same for what never was a pool. */
void pools_release(struct pools *pools, struct pool_memory *memory);

/* pools_make.c */
void pools_make_close(struct pools *pools); /* answers whoever waits */

/* pools_kept.c */
int pools_keep(struct pool *pool, struct pst_error *err); /* what is new about it, too */
void pools_unkeep(struct pool *pool);
/* Where ids are kept already, or @begin. */
int pools_keep_last_id(struct pools *pools, bool begin, struct pst_error *err);
void pools_bring_back(struct pools *pools);
void pools_kept_close(struct pools *pools);

/* pools_look.c */
void pools_look(struct pool *pool);

#endif /* DAEMON_POOLS_PRIV_H */
