/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slot.h - where one client's gradients arrive at a server.
 *
 * A slot is a region of its own, so that a client can write nothing but its own
 * gradients. That one has arrived is said by an immediate, or by PST_MSG_PUSHED with its
 * CRC, that is checked here. The client's mask is copied when it commits: what is checked
 * is what is used.
 */
#ifndef PST_SLOT_H
#define PST_SLOT_H

#include "rdma/fabric.h"
#include "runtime/store/shard.h"

struct pst_slot {
	struct pst_link *owner;
	struct pst_pool *pool;
	struct pst_region *region; /* set by the server */
	uint64_t token;
	size_t count;		  /* tensors */
	float *gradients;	  /* in the pool */
	double *norms;		  /* in the pool */
	const uint8_t *wire_mask; /* in the pool */
	uint8_t *mask;		  /* private copy, since the commit */
	uint8_t *arrived;	  /* in this step */
	struct pst_msg commit;	  /* to be answered */
	bool committed, summed;
	bool sum; /* @gradients are the sum of all slots */
};

int pst_slot_create(const struct pst_shard *shard, struct pst_link *owner, int node,
		    uint32_t pool_flags, struct pst_slot **out, struct pst_error *err);
void pst_slot_destroy(struct pst_slot *slot); /* NULL is fine */

/*
 * The request was checked: @items name tensors of the slot. What agrees has arrived, what does
 * not has not; its bit is set in @bad. Returns how many are bad.
 */
size_t pst_slot_pushed(struct pst_slot *slot, const struct pst_shard *shard,
		       struct pst_device *device, const struct pst_wire_pushed *items, size_t n,
		       __u64 *bad);

void pst_slot_commit(struct pst_slot *slot, const struct pst_msg *req);
/* Committed, and every gradient that its mask names has arrived. */
bool pst_slot_complete(const struct pst_slot *slot);
/* Add @from's gradients to @to's. */
void pst_slot_add(struct pst_slot *to, const struct pst_slot *from, const struct pst_shard *shard,
		  const struct pst_ops *ops);
/* Take @from's gradients, a sum, in place of @to's own. */
void pst_slot_inherit(struct pst_slot *to, const struct pst_slot *from,
		      const struct pst_shard *shard);
void pst_slot_reset(struct pst_slot *slot);

#endif /* PST_SLOT_H */
