/* SPDX-License-Identifier: Apache-2.0 */
/*
 * push.h - a push slot of a server, as those see it who put gradients there.
 *
 * The model
 *   push   a slot that was opened (engine) or joined (worker) over a view's link.
 *   place  where the slot can be mapped (shm), gradients are computed in place and
 *          an immediate says "it is there". Nothing moves.
 *   send   elsewhere a gradient is written one-sidedly from registered memory;
 *          then one message names what was written with its CRC-32C, and the
 *          server says what does not agree. That is written again, a few times;
 *          then it is an error. With crc=0 among the fabric's settings an immediate
 *          comes with each write instead, and the server believes it.
 *
 * What goes to several servers is all on its way before the first answer is waited for.
 *
 * Threads: those of the inbox.
 */
#ifndef PST_PUSH_H
#define PST_PUSH_H

#include "runtime/device/device.h"
#include "runtime/store/view.h"

struct pst_push;

struct pst_push_options {
	size_t size; /* sizeof(struct pst_push_options) */
	struct pst_inbox *inbox;
	struct pst_view *view; /* open; outlives the push */
	bool join;	       /* the slot of @token, else one of one's own */
	uint64_t token;
	int timeout_ms;
};

int pst_push_open(const struct pst_push_options *opts, struct pst_push **out,
		  struct pst_error *err);
void pst_push_close(struct pst_push *push); /* NULL is fine; the slot stays */

uint64_t pst_push_token(const struct pst_push *push);
bool pst_push_mapped(const struct pst_push *push);
/* All that is mapped, of *@bytes; NULL: nothing is. */
void *pst_push_memory(const struct pst_push *push, uint64_t *bytes);
/* Where tensor @i's gradient is computed in place. Mapped only. */
float *pst_push_place(const struct pst_push *push, size_t i);
uint8_t *pst_push_mask(const struct pst_push *push);
const double *pst_push_norms(const struct pst_push *push);

struct pst_push_item {
	struct pst_push *push;
	uint32_t tensor; /* or PST_PUSHED_MASK */
	uint32_t crc;	 /* filled in */
	const void *from;
	bool done;
};

struct pst_push_stat {
	uint64_t bytes;	  /* written */
	uint64_t crc_bad; /* times that a server did not agree */
	uint64_t resent;  /* items that were written again */
};

/*
 * All items are in their slots, and their servers agree, when this returns 0. Not mapped:
 * each lies at @from in @local. @device computes CRCs, NULL: the caller's thread. Counts into
 * @stat.
 */
int pst_push_send(struct pst_inbox *inbox, struct pst_push_item *items, size_t n,
		  struct pst_region *local, uint64_t version, struct pst_device *device,
		  struct pst_push_stat *stat, struct pst_error *err);

/* Not mapped: a read of all norms to @to in @local, for a batch. */
struct pst_wr pst_push_read_norms(const struct pst_push *push, struct pst_region *local, void *to);

#endif /* PST_PUSH_H */
