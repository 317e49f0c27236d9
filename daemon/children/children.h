/* SPDX-License-Identifier: Apache-2.0 */
/*
 * children.h - workers and servers: started, listened to, killed when silent, started again.
 *
 * The model
 *   child   a process of ours (penstock-worker, penstock-ps) with an id that it keeps when it is
 *           started again, and its leash (penstock/leash.h). Ids of workers and servers are
 *           counted apart.
 *   adopt   children outlive the daemon: their leashes are kept (keep.h), and the
 *           next daemon goes on with them; it watches them by pidfd.
 *
 * Devices are named by their ids (devices.h). Threads: the loop's.
 */
#ifndef DAEMON_CHILDREN_H
#define DAEMON_CHILDREN_H

#include "daemon/penstockd.h"

#include <penstock/error.h>
#include <penstock/leash.h>

/* Adopts what was kept, then starts what the config names and is not there yet. */
int children_open(struct penstockd *d, struct children **out, struct pst_error *err);
/*
 * @stop: end them, in two seconds or so; else leave them to the next. Orders that are under way
 * end with -ESHUTDOWN, but for those of bind and check, whose @done is not called. NULL is fine.
 */
void children_close(struct children *c, bool stop);
/*
 * After the config was read again: start what is new, stop what went; the rest goes on. -ENOMEM.
 * What cannot be started, as on a device that is not there, has failed and is tried again.
 */
int children_reload(struct children *c, struct pst_error *err);

/* What a handler knows of the end of an order: @rc and @err; PST_LEASH_CHECKED comes whole. */
typedef void order_fn(void *ctx, int rc, const struct pst_error *err,
		      const struct pst_leash *answer);

/* Of all orders: @done is called once, from the loop; NULL: nobody wants to know. */

/* Start one: @done when it listens. 0 or -errno; then @done is not called. */
int children_start(struct children *c, const struct pst_cmd_worker_start *how, order_fn *done,
		   void *ctx, uint32_t *id, struct pst_error *err);
int children_drain(struct children *c, uint32_t id, int timeout_ms, order_fn *done, void *ctx);
int children_stop(struct children *c, uint32_t id, order_fn *done, void *ctx);
int children_place(struct children *c, uint32_t id, const struct pst_cmd_expert_place *how,
		   order_fn *done, void *ctx);

/* -ENOENT; @next: the lowest id above. */
int children_worker(struct children *c, bool next, struct pst_cmd_worker_stat *io);
int children_server(struct children *c, bool next, struct pst_cmd_server_stat *io);
int children_table(struct children *c, bool next, struct pst_cmd_table_stat *io);
int children_expert(struct children *c, bool next, struct pst_cmd_expert_stat *io);
uint32_t children_workers(const struct children *c); /* that are not stopped */

/*
 * Kernels (kernels.c): tell every serving worker on devices of @kind to bind @image (-1: what is
 * built in) for @op; @done once, when all answered, with the first failure. Workers that are
 * started later are told by who listens.
 */
int children_bind(struct children *c, uint32_t kind, const char *op, uint32_t kernel, int image,
		  order_fn *done, void *ctx);
/* One worker. */
int children_bind_one(struct children *c, uint32_t id, const char *op, uint32_t kernel, int image,
		      order_fn *done, void *ctx);
/* Hold what serves @op in worker @id against ref. */
int children_check(struct children *c, uint32_t id, const char *op, uint64_t seed, order_fn *done,
		   void *ctx);

/* Who wants to know of workers: one listener. */
struct children_listener {
	/* @id says HELLO for the first time since it was started: it is told to bind what is bound
	 */
	void (*hello)(struct children_listener *l, uint32_t id, uint32_t kind);
	/* @id died of a signal (@sig), or was killed because it hung (@hung) */
	void (*died)(struct children_listener *l, uint32_t id, int sig, bool hung);
};
void children_listen(struct children *c, struct children_listener *l);

#endif /* DAEMON_CHILDREN_H */
