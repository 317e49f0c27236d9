/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server_priv.h - a server's inside: server.c has its loop and its links, server_table.c the table,
 * server_step.c slots and steps, server_stat.c what is told of them.
 */
#ifndef PST_SERVER_PRIV_H
#define PST_SERVER_PRIV_H

#include "rdma/fail.h"
#include "runtime/store/rpc.h"
#include "runtime/store/server.h"
#include "runtime/store/shard.h"
#include "runtime/store/slot.h"

#include <pthread.h>
#include <stdatomic.h>

/* A link that has to do with the table: it is the link's user pointer. */
struct peer {
	struct pst_link *link;
	bool reads;			    /* was granted the snapshots */
	uint64_t slots[PST_MAX_SLOTS / 64]; /* bits: may push into these */
	struct peer *next;
};

/* A table whose directory is on its way from a client's memory, by a one-sided read. */
struct making {
	struct pst_link *link;
	struct pst_msg_table_create ask;
	struct pst_pool *pool; /* where the directory will lie */
	struct pst_region *region;
};

/* What any thread may ask for; the server's own writes it. */
struct facts {
	_Atomic uint64_t pool_bytes, read_bytes, calls, busy_ns;
	_Atomic uint64_t version, pushed; /* of the table */
	_Atomic uint32_t clients;
	pthread_mutex_t lock; /* of what follows, which changes with the table */
	bool there;
	uint32_t number, tensors;
	uint64_t bytes, state_bytes;
	int node;
	char name[32], note[256];
};

struct pst_server {
	struct pst_server_config config;
	struct pst_fabric *fabric;
	struct pst_cq *cq;
	struct pst_listener *listener;
	struct pst_device *device;
	struct pst_shard *shard;
	struct pst_region *snapshot;
	struct pst_link *creator; /* of the shard: both end together */
	struct making *making;	  /* or NULL */
	struct pst_slot *slot[PST_MAX_SLOTS];
	struct peer *peers;
	uint64_t crc_bad;
	struct facts facts;
	atomic_bool stop;
};

/* What a handler is given: the request, checked for its least length, and who asks. */
struct request {
	struct pst_link *link;
	const void *msg;
	struct pst_error err;
};

typedef int pst_server_fn(struct pst_server *s, struct request *r);

int pst_server_answer(struct request *r); /* r->err, and nothing else */
/* What is known of @link, made when it is not yet; NULL: no memory, said in @err. */
struct peer *pst_server_peer(struct pst_server *s, struct pst_link *link, struct pst_error *err);

pst_server_fn pst_server_table_create, pst_server_table_init, pst_server_table_load,
	pst_server_table_open, pst_server_save;
/* A read of the table that is being made has ended. */
void pst_server_made(struct pst_server *s, const struct pst_wc *wc);
void pst_server_stop_making(struct pst_server *s);
void pst_server_drop_table(struct pst_server *s); /* no link has anything of it any more */

pst_server_fn pst_server_slot_open, pst_server_slot_attach, pst_server_pushed, pst_server_commit,
	pst_server_apply;
void pst_server_immediate(struct pst_server *s, struct pst_link *link, uint32_t imm);
/* The slot that @link opened, out of the list and of the step; NULL: none. */
struct pst_slot *pst_server_take_slot(struct pst_server *s, const struct pst_link *link,
				      unsigned int *number);
/* It is gone: nobody can write there any more. The step goes on without it. */
void pst_server_slot_gone(struct pst_server *s, struct pst_slot *slot);

pst_server_fn pst_server_stated;
void pst_server_facts_init(struct facts *f);
void pst_server_facts_destroy(struct facts *f);
void pst_server_tell_table(struct pst_server *s, uint32_t shard, uint32_t shards);
void pst_server_tell_gone(struct pst_server *s);
void pst_server_tell_pools(struct pst_server *s);
uint64_t pst_server_now_ns(void);

static inline void pst_server_count(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void pst_server_tell_version(struct pst_server *s)
{
	atomic_store_explicit(&s->facts.version, pst_shard_version(s->shard), memory_order_relaxed);
}

#endif /* PST_SERVER_PRIV_H */
