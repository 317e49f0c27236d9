/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inbox.h - a completion queue of which several wait for different things.
 *
 * The model
 *   inbox  a cq, and all that is under way on its links. Whoever waits takes what
 *          comes from the cq and gives each to the one whom it is for: an
 *          answer to its call (rpc.h), the end of a read or write to its batch.
 *   kept   what nobody waits for (requests of peers, immediates, the end of a
 *          link) is kept in order for pst_inbox_next(), or dropped by an inbox
 *          that was made without PST_INBOX_KEEP. So reads can be waited for within
 *          the handling of a message, and no other message is lost.
 *   batch  reads and writes on any links of the inbox, posted as deep as the
 *          queues take them and waited for together. Each of them ends, because
 *          every fabric bounds that; so waiting for a batch has no time of its own.
 *
 * What is kept is bounded: a link that says too much while others are served loses
 * its place: its end is told then (-ENOBUFS) and nothing more of it.
 *
 * Threads: those of the cq.
 */
#ifndef PST_INBOX_H
#define PST_INBOX_H

#include "rdma/fabric.h"

struct pst_inbox;
struct pst_rpc_call;

enum pst_inbox_flags {
	PST_INBOX_KEEP = 1, /* somebody calls pst_inbox_next() */
};

#define PST_INBOX_MAX (64u << 20) /* bytes of messages that are kept */

int pst_inbox_create(struct pst_fabric *fab, uint32_t flags, struct pst_inbox **out,
		     struct pst_error *err);
void pst_inbox_destroy(struct pst_inbox *inbox); /* NULL is fine; closes its links */

struct pst_cq *pst_inbox_cq(const struct pst_inbox *inbox);
struct pst_fabric *pst_inbox_fabric(const struct pst_inbox *inbox);

/*
 * The next that nobody else waits for, as pst_cq_wait() of one. Its message is valid until
 * the next call of this function, also when there is waiting in between.
 */
int pst_inbox_next(struct pst_inbox *inbox, struct pst_wc *wc, int timeout_ms);

/* Take what the cq has, waiting up to @timeout_ms for it, and give it to whom it is for. */
int pst_inbox_pump(struct pst_inbox *inbox, int timeout_ms);

/* Close a link of the inbox, with all that is kept of it. */
void pst_inbox_close(struct pst_inbox *inbox, struct pst_link *link);

/* For rpc.c: a call that was sent, until it is taken out again. */
void pst_inbox_add_call(struct pst_inbox *inbox, struct pst_rpc_call *call);
void pst_inbox_drop_call(struct pst_inbox *inbox, struct pst_rpc_call *call);

struct pst_batch {
	uint64_t id;
	size_t under_way;
	int status; /* 0 or the first failure */
	struct pst_error err;
	struct pst_batch *next;
};

void pst_batch_begin(struct pst_inbox *inbox, struct pst_batch *batch);
/*
 * Post @n reads or writes on @link; their ids and flags are set here (PST_WR_IMM stays). A
 * failure is the batch's and shows when it is waited for; nothing more is posted then.
 */
void pst_batch_post(struct pst_inbox *inbox, struct pst_batch *batch, struct pst_link *link,
		    struct pst_wr *wr, size_t n);
/* Wait until all of it has ended, well or not. The first failure, with its sentence in @err. */
int pst_batch_wait(struct pst_inbox *inbox, struct pst_batch *batch, struct pst_error *err);

#endif /* PST_INBOX_H */
