/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels_priv.h - what the files of the kernels part share. Nobody else includes it.
 *
 *	kernels.c	the list of kernels, and what others ask of it
 *	kernel_load.c	an image on its way in: read, checked, tried
 *	kernel_bind.c	which kernel serves which op: bound, rolled back, taken back
 *	kernel_check.c	what is bound is held against ref now and then
 *	kernel_keep.c	what the next daemon must know
 *
 * The model
 *	kernel	built in, one per op, or an image that was tried.
 *	slot	an op: the kernel that serves it, and below it those that it replaced, the last on
 *		top. No kernel is in a slot twice; at the bottom is always what is built in.
 *	change	a request to bind or to roll back that waits for the workers. One per slot.
 *
 * Workers may learn of a slot later than this says, never something else: each is told by
 * messages that keep their order, and told again when it begins.
 */
#ifndef DAEMON_KERNELS_PRIV_H
#define DAEMON_KERNELS_PRIV_H

#include "daemon/children/children.h"
#include "daemon/events.h"
#include "daemon/kernels/kernels.h"
#include "daemon/keep/keep.h"
#include "daemon/kernels/manifest.h"
#include "daemon/kernels/trial.h"
#include "kernels/table.h"

#include <stddef.h>
#include <sys/queue.h>

#define FIRST_LOADED 100 /* id; those below are for what is built in */
#define SLOT_MAX     16	 /* kernels of a slot; the oldest that was loaded is forgotten */

#define OF(type, member, pointer) ((type *)((char *)(pointer)-offsetof(type, member)))

struct kernel {
	TAILQ_ENTRY(kernel) on_list; /* by id */
	uint32_t id, state, kind;
	bool builtin;
	enum pst_op op;
	char name[PST_NAME_MAX];
	unsigned char hash[32];
	int image; /* a sealed memfd; -1: built in */
	uint32_t speed;
	uint64_t checks, error_ppb;
	uint64_t bound; /* rises with every time that one is bound */
};

struct change {
	struct request *r;
	struct kernel *from, *to;
	bool rollback;
	struct kernel *before[SLOT_MAX]; /* the slot, to put it back */
	uint32_t nbefore;
};

struct slot {
	struct kernels *ks;
	enum pst_op op;
	struct kernel *at[SLOT_MAX]; /* at[n - 1] serves */
	uint32_t n;
	bool telling, again;	/* workers are being told; they must be told once more */
	struct loop_timer late; /* that they could not be told is heard from the loop too */
	int late_rc;
	struct change *change;
};

TAILQ_HEAD(load_list, load);

struct kernels {
	struct penstockd *d;
	TAILQ_HEAD(kernel_list, kernel) all;
	struct slot slot[PST_OP_COUNT];
	struct kernel builtin[PST_OP_COUNT];
	uint32_t count, last_id;
	uint64_t bound;
	/*
	 * Until then a worker that dies may do so of what was taken back last: those that were
	 * bound before are not blamed.
	 */
	int64_t calm_until_ms;
	uint64_t calm_bound;
	struct load_list loads; /* the first that was read is tried, one at a time */
	struct children_listener listener;
	struct loop_timer check;
	uint32_t turn;	/* of the next worker that is checked */
	uint32_t waits; /* answers of children that are still to come */
	bool closed;
};

/* kernels.c */
struct kernel *kernel_find(const struct kernels *ks, uint32_t id);
/* A loaded one that nobody uses is no more. */
void kernel_free(struct kernels *ks, struct kernel *k);
/* With @id 0: the next one. The image becomes the kernel's. NULL: no memory, nothing is taken. */
struct kernel *kernel_new(struct kernels *ks, uint32_t id, const struct manifest *m, int image);
/* One more, or one less, answer of children is waited for. */
void kernels_wait(struct kernels *ks);
void kernels_waited(struct kernels *ks);
const char *kernel_label(const struct kernel *k, char text[96]); /* "kernel 101 (fast, op add)" */

/* kernel_load.c */
void loads_end(struct kernels *ks); /* those on their way fail */

/* kernel_bind.c */
static inline struct kernel *slot_serving(const struct slot *s)
{
	return s->at[s->n - 1];
}
bool slot_has(const struct slot *s, const struct kernel *k);
void slot_push(struct slot *s, struct kernel *k); /* it serves from now on */
void slot_tell_one(struct slot *s, uint32_t worker);
void changes_end(struct kernels *ks); /* those on their way fail */
/* A kernel that serves, or is kept for a rollback, is not to be trusted; @why it is not. */
void kernel_take_back(struct kernels *ks, struct kernel *k, const char *why);

/* kernel_check.c */
void check_again(struct kernels *ks); /* in a while */

/* kernel_keep.c */
void kernel_keep(struct kernels *ks, struct kernel *k);
void slot_keep(struct slot *s);
void kernel_unkeep(struct kernels *ks, const struct kernel *k);
void kernels_bring_back(struct kernels *ks);

#endif /* DAEMON_KERNELS_PRIV_H */
