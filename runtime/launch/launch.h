/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.h - the servers and workers of one engine.
 *
 * The model
 *   started   here: threads of this process (embedded), or processes (penstock-ps,
 *             penstock-worker), which die with it. A worker that died is started
 *             again on demand.
 *   at a URL  others started it, here or on another host, and keep it running. A
 *             worker that died is looked for again at the same URL, now and then.
 *   of a daemon  those that penstockd of this host keeps, as if they were at URLs of a
 *             list; it is asked again when a worker died, or drained: another takes its place.
 *   Of each kind there is the one or the other; what follows is the same.
 *
 * Order of calls: create says what would be where and touches nothing; then open
 * a fabric with pst_launch_fabric(), start, and ask for URLs.
 *
 * The programs are looked for in $PENSTOCK_BIN, beside this program, beside
 * libpenstock (and in ../bin from there), then in $PATH.
 *
 * Threads: one.
 */
#ifndef PST_LAUNCH_H
#define PST_LAUNCH_H

#include "rdma/url.h"

#include <penstock/wire.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PST_LAUNCH_MAX 256 /* servers, or workers */

struct pst_launch;

struct pst_launch_options {
	size_t size;		       /* sizeof(struct pst_launch_options) */
	unsigned int servers, workers; /* to start; not looked at for a kind that has a list */
	const char *const *server_at;  /* URLs or hosts, NULL: none */
	const char *const *worker_at;
	unsigned int nserver_at, nworker_at;
	const char
		*daemon; /* its socket, "": the usual one; NULL: none. For kinds without a list */
	const char *fabric, *key, *listen_host; /* as in penstock.h */
	int connect_ms;				/* for what was started to listen */
	bool embedded;
	unsigned int server_threads, worker_threads; /* 0: the host's cores shared out */
	int node;
	/*
	 * What computes: "WORKERS,ENGINE", each "cpu" or a GPU (pst_gpu_parse()), or one for both;
	 * NULL: the cores. The first is for workers that are started here, the other is told by
	 * pst_launch_device(). Those that are on one GPU are told how many share it.
	 */
	const char *device;
	uint32_t pool_flags;
};

/* The lists and strings are not kept. A daemon is asked here, and waited for until it has a worker.
 */
int pst_launch_create(const struct pst_launch_options *opts, struct pst_launch **out,
		      struct pst_error *err);
/* Start what is to be started; servers listen when this returns, workers may not yet. */
int pst_launch_start(struct pst_launch *launch, struct pst_error *err);
void pst_launch_stop(struct pst_launch *launch); /* NULL is fine */

/* The GPU that the engine computes on, "cuda:N/K"; "": none. Valid as long as @launch. */
const char *pst_launch_device(const struct pst_launch *launch);

/* The URL to open the engine's fabric with. */
void pst_launch_fabric(const struct pst_launch *launch, char url[PST_URL_MAX]);

int pst_launch_connect_ms(const struct pst_launch *launch);
unsigned int pst_launch_servers(const struct pst_launch *launch);
unsigned int pst_launch_workers(const struct pst_launch *launch);
const char *pst_launch_server(const struct pst_launch *launch, unsigned int i);
const char *pst_launch_worker(const struct pst_launch *launch, unsigned int i);

/* Wait until worker @i listens, at pst_launch_worker(); one that ends before is replaced. */
int pst_launch_await_worker(struct pst_launch *launch, unsigned int i, struct pst_error *err);

/*
 * Server or worker @i runs, as far as can be told from here: 0; it ended: -ECHILD and why.
 * -EHOSTDOWN: worker @i is of no use, for a server ended. The signatures are those of
 * pst_moe_options.check, @ctx the launch.
 */
int pst_launch_check_server(void *ctx, unsigned int i, struct pst_error *err);
int pst_launch_check_worker(void *ctx, unsigned int i, struct pst_error *err);

/*
 * What there is to try in place of worker @i, which died; its URL is stored. 0: another
 * one was started, after it was made sure that the old one is dead. Of a worker that others
 * keep: the milliseconds that it may take to reach it again, or one that the daemon has instead;
 * or -EAGAIN: it was tried a moment ago, or the daemon has none now. The signature is that of
 * pst_moe_options.replace, @ctx the launch.
 */
int pst_launch_replace(void *ctx, unsigned int i, char url[PST_WIRE_URL], struct pst_error *err);

/* Cores that this process may run on. */
unsigned int pst_launch_cores(void);

#endif /* PST_LAUNCH_H */
