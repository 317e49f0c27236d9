/* SPDX-License-Identifier: Apache-2.0 */
/*
 * launch.h - the servers and workers of one host.
 *
 * Either as threads of this process (embedded) or as processes (penstock-ps,
 * penstock-worker), which die with it; their URLs are the same kind, and so is
 * all that follows. A worker process that died is started again on demand.
 *
 * The programs are looked for in $PENSTOCK_BIN, beside this program, beside
 * libpenstock (and in ../bin from there), then in $PATH.
 *
 * Threads: one.
 */
#ifndef PST_LAUNCH_H
#define PST_LAUNCH_H

#include <penstock/wire.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pst_launch;

struct pst_launch_options {
	size_t size; /* sizeof(struct pst_launch_options) */
	unsigned int servers, workers;
	bool embedded;
	unsigned int server_threads, worker_threads; /* 0: the host's cores shared out */
	int node;
	uint32_t pool_flags;
};

/* Starts them all; they may not be listening yet when this returns. */
int pst_launch_start(const struct pst_launch_options *opts, struct pst_launch **out,
		     struct pst_error *err);
void pst_launch_stop(struct pst_launch *launch); /* NULL is fine */

const char *pst_launch_server(const struct pst_launch *launch, unsigned int i);
const char *pst_launch_worker(const struct pst_launch *launch, unsigned int i);

/*
 * Server or worker @i runs: 0; it ended: -ECHILD and why. -EHOSTDOWN: worker @i is of no use, for
 * a server ended. The signatures are those of pst_moe_options.check, @ctx the launch.
 */
int pst_launch_check_server(void *ctx, unsigned int i, struct pst_error *err);
int pst_launch_check_worker(void *ctx, unsigned int i, struct pst_error *err);

/*
 * Make sure that worker @i is dead, start another and store its URL (a fresh
 * one). The signature is that of pst_moe_options.replace, @ctx the launch.
 */
int pst_launch_replace(void *ctx, unsigned int i, char url[PST_WIRE_URL], struct pst_error *err);

/* Cores that this process may run on. */
unsigned int pst_launch_cores(void);

#endif /* PST_LAUNCH_H */
