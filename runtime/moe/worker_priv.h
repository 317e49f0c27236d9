/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_priv.h - a worker's inside: worker.c serves engines, worker_place.c takes orders from
 * other threads.
 */
#ifndef PST_WORKER_PRIV_H
#define PST_WORKER_PRIV_H

#include "runtime/moe/session.h"
#include "runtime/moe/worker.h"

#include <stdatomic.h>

/* A session of some link, in the worker's list. */
struct seat {
	struct pst_session *session;
	struct seat *next;
};

struct place_order;

/* What other threads want done between two requests. */
struct orders {
	pthread_mutex_t lock;
	pthread_cond_t done;
	struct place_order *first;
	bool serving;	  /* somebody will take them */
	atomic_bool some; /* looked at without the lock */
};

struct pst_worker {
	struct pst_worker_config config;
	struct pst_fabric *fabric;
	struct pst_inbox *inbox; /* engines */
	struct pst_listener *listener;
	struct pst_device *device;
	struct pst_worker_gpu *gpu; /* NULL: none */
	struct seat *seats;
	struct pst_tally tally;
	struct orders orders;
	atomic_bool stop, draining;
	char kernels[16]; /* built in */
};

void pst_worker_open_orders(struct pst_worker *w, bool serving); /* false: those left are refused */
void pst_worker_obey(struct pst_worker *w);

#endif /* PST_WORKER_PRIV_H */
