/* SPDX-License-Identifier: Apache-2.0 */
/* client_priv.h - a client's inside: client.c has the table, client_step.c the steps. */
#ifndef PST_CLIENT_PRIV_H
#define PST_CLIENT_PRIV_H

#include "runtime/mem/pool.h"
#include "runtime/store/client.h"
#include "runtime/store/push.h"
#include "runtime/store/rpc.h"

#define STEP_TIMEOUT_MS 120000

/* One server's part. */
struct part {
	char url[PST_WIRE_URL];
	struct pst_view *view;
	struct pst_push *push;
	size_t count;	  /* tensors */
	uint32_t *wanted; /* those of this engine */
	size_t nwanted;
	/* not mapped: in the engine's own memory */
	uint8_t *mask;
	double *norms;
};

/* Where a tensor lives. */
struct place {
	uint32_t part;
	uint32_t index; /* in the part */
};

struct pst_client {
	struct pst_fabric *fabric;
	struct pst_inbox *inbox;
	unsigned int parts;
	struct part *part;
	size_t count;
	struct place *place;
	struct pst_wire_tensor *tensor;
	struct pst_rpc_call *call; /* one per part */
	uint64_t version;
	uint8_t *mine; /* of the last begin; NULL: none yet */
	struct pst_view_want *want;
	struct pst_push_item *item;
	/* not mapped */
	uint64_t copy_bytes;
	struct pst_copies *copies;
	struct pst_pool *local; /* gradients, masks, norms */
	struct pst_region *local_region;
	float **gradient; /* of each tensor of this engine */
	struct pst_push_stat pushed;
};

static inline uint64_t pst_client_bytes(const struct pst_wire_tensor *t)
{
	uint64_t bytes = sizeof(float);

	for (unsigned int d = 0; d < t->ndim; d++)
		bytes *= t->shape[d];
	return bytes;
}

/* Ask all servers for the same, and wait; their answers say nothing but well or not. */
int pst_client_ask(struct pst_client *client, struct pst_msg *msg, int timeout_ms,
		   struct pst_error *err);
void pst_client_free_local(struct pst_client *client);

#endif /* PST_CLIENT_PRIV_H */
