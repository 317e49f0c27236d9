/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpc.h - ask peers, and wait for their answers.
 *
 * A call is one request to one link; many may be in flight on the links of one inbox, and each
 * gets its answer whoever waits. A link that dies fails its calls with -ECONNRESET and a
 * sentence that names the peer.
 *
 * Threads: those of the inbox.
 */
#ifndef PST_RPC_H
#define PST_RPC_H

#include "runtime/store/inbox.h"

#include <penstock/wire.h>

struct pst_rpc_call {
	struct pst_link *link;
	uint64_t seq;
	void *answer; /* whole answer, at least @len bytes are promised by the peer */
	size_t len;
	int status;		   /* -EINPROGRESS until it is answered */
	bool told;		   /* the peer said no, in words: they are in the answer */
	struct pst_rpc_call *next; /* of its inbox */
};

/*
 * Send @msg (its hdr.size and hdr.type are set; hdr.seq is filled in) and make
 * @call wait for an answer of @len bytes at @answer. A call that was sent is to be waited for
 * once; until then it and @answer stay where they are.
 */
int pst_rpc_send(struct pst_inbox *inbox, struct pst_rpc_call *call, struct pst_link *link,
		 struct pst_msg *msg, void *answer, size_t len, struct pst_error *err);

/*
 * Wait up to @timeout_ms until all @n calls are answered. The first failure is
 * returned, in the order of the calls, with the peer's sentence in @err.
 */
int pst_rpc_wait(struct pst_inbox *inbox, struct pst_rpc_call *calls, size_t n, int timeout_ms,
		 struct pst_error *err);

/* One call, sent and waited for. */
int pst_rpc(struct pst_inbox *inbox, struct pst_link *link, struct pst_msg *msg, void *answer,
	    size_t len, int timeout_ms, struct pst_error *err);

/*
 * Raise @imm at the server behind @link, waiting while its queue is full. -ECONNRESET when it
 * is dead, -ETIMEDOUT.
 */
int pst_rpc_announce(struct pst_inbox *inbox, struct pst_link *link, uint32_t imm);

/* For inbox.c: is @wc the answer to @call? The end of its link answers it too. */
bool pst_rpc_take(struct pst_rpc_call *call, const struct pst_wc *wc);

/*
 * The other side: answer @req with @answer, whose hdr and error are filled in
 * here (@err NULL or code 0: well). @len: bytes of the whole answer.
 */
int pst_rpc_answer(struct pst_link *link, const struct pst_msg *req, struct pst_msg_answer *answer,
		   size_t len, const struct pst_error *err);

/* A received message as its struct, or NULL when it is shorter than @len or lies about its size. */
const void *pst_rpc_check(const void *msg, size_t got, size_t len);

#endif /* PST_RPC_H */
