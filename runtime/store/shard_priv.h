/* SPDX-License-Identifier: Apache-2.0 */
/* shard_priv.h - a shard's inside, for shard.c and shard_file.c. */
#ifndef PST_SHARD_PRIV_H
#define PST_SHARD_PRIV_H

#include "runtime/store/shard.h"

/* One tensor's private memory. A load bias has no moments. */
struct pst_master {
	uint64_t count;	 /* elements */
	void *block[3];	 /* of the pool: value, first and second moment */
	float *value[3]; /* where in the block the elements are */
};

#define PST_MOMENTS 2

struct pst_shard {
	struct pst_device *device;
	struct pst_pool *masters_pool, *snapshot_pool;
	struct pst_wire_tensor *tensor; /* private copy of the directory */
	struct pst_master *master;
	size_t *first; /* first piece of each tensor, count + 1 of them */
	size_t count;
	uint64_t buffer_bytes;
	uint32_t shard, shards;
	uint64_t version;
	struct pst_snapshot_head *head;
};

/* How many of value[] a tensor has. */
static inline int pst_shard_values(const struct pst_shard *s, size_t i)
{
	return s->tensor[i].flags & PST_TENSOR_LOAD ? 1 : 1 + PST_MOMENTS;
}

/* Run @fn over fixed pieces of all tensors on the team. */
typedef void pst_piece_fn(struct pst_shard *shard, size_t tensor, uint64_t from, uint64_t count,
			  void *ctx);
void pst_shard_pieces(struct pst_shard *shard, pst_piece_fn *fn, void *ctx);

/* Copy every master into the buffer of @version and make it current. */
void pst_shard_publish(struct pst_shard *shard, uint64_t version);

#endif /* PST_SHARD_PRIV_H */
