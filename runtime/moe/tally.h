/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tally.h - what a worker did, and with which experts.
 *
 * The worker's thread counts, any thread reads: counters are atomic, and the place of
 * an expert's counters never changes, so that counting takes no lock. The lock is for
 * making room for experts of a new engine, and for walking over them.
 */
#ifndef PST_TALLY_H
#define PST_TALLY_H

#include <penstock/error.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One expert, over all engines that are or were served. */
struct pst_tally_expert {
	_Atomic uint64_t bytes; /* of its weights; 0: no engine has had such an expert */
	_Atomic uint64_t rows, pulled;
	_Atomic uint32_t copies, pins; /* sessions that have it here or mapped; that keep it */
};

struct tally_span;

struct pst_tally {
	_Atomic uint64_t rows, calls, pulled;
	_Atomic uint64_t busy_ns, busy_since_ns; /* CLOCK_MONOTONIC; 0: it computes nothing */
	_Atomic uint32_t engines;
	pthread_mutex_t lock;
	struct tally_span **span; /* sorted; [spans] */
	size_t spans;
	char note[256];
};

void pst_tally_init(struct pst_tally *tally);
void pst_tally_destroy(struct pst_tally *tally);

/* Make room for the first @experts of @layer. By the worker's thread, as what follows. */
int pst_tally_cover(struct pst_tally *tally, uint32_t layer, uint32_t experts);
/* There is room for it. */
struct pst_tally_expert *pst_tally_find(struct pst_tally *tally, uint32_t layer, uint32_t index);
void pst_tally_note(struct pst_tally *tally, const char *note);
void pst_tally_begin(struct pst_tally *tally); /* computing */
void pst_tally_end(struct pst_tally *tally);

static inline void pst_tally_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* As a reader sees it. */
struct pst_tally_stat {
	uint64_t rows, calls, pulled, busy_ns, busy_since_ns;
	uint32_t engines;
	char note[256];
};

struct pst_tally_expert_stat {
	uint32_t layer, index;
	uint64_t bytes, rows, pulled;
	bool copied, pinned;
};

/* From any thread, as what follows. */
void pst_tally_stat(struct pst_tally *tally, struct pst_tally_stat *out);
/* The next behind (@io->layer, @io->index); (~0, ~0) begins. -ENOENT: there is none. */
int pst_tally_next(struct pst_tally *tally, struct pst_tally_expert_stat *io);

#endif /* PST_TALLY_H */
