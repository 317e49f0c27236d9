/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/rpc.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#define SEND_TIMEOUT_MS 10000

static uint64_t next_seq(void)
{
	static atomic_uint_fast64_t seq;

	return atomic_fetch_add(&seq, 1) + 1;
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int pst_rpc_send(struct pst_inbox *inbox, struct pst_rpc_call *call, struct pst_link *link,
		 struct pst_msg *msg, void *answer, size_t len, struct pst_error *err)
{
	int rc;

	msg->seq = next_seq();
	*call = (struct pst_rpc_call){link, msg->seq, answer, len, -EINPROGRESS, false, NULL};
	rc = pst_link_send(link, msg, msg->size, SEND_TIMEOUT_MS);
	if (rc < 0) {
		/* whoever finds out first: a link that died is one error */
		rc = rc == -ENOTCONN ? -ECONNRESET : rc;
		call->status = rc;
		return pst_fail(err, rc, "%s: cannot be asked (request %u): %s",
				pst_link_peer(link), msg->type, strerror(-rc));
	}
	pst_inbox_add_call(inbox, call);
	return 0;
}

const void *pst_rpc_check(const void *msg, size_t got, size_t len)
{
	const struct pst_msg *hdr = msg;

	return got >= sizeof(*hdr) && got >= len && hdr->size == got && !hdr->flags ? msg : NULL;
}

static void take_answer(struct pst_rpc_call *call, const struct pst_wc *wc)
{
	const struct pst_msg_answer *answer = wc->msg;

	if (!pst_rpc_check(wc->msg, wc->len, sizeof(*answer))) {
		call->status = -EPROTO;
		return;
	}
	if (answer->error.code) {
		/* an answer that says no may be short */
		memcpy(call->answer, answer, sizeof(*answer));
		((struct pst_msg_answer *)call->answer)->error.text[PST_ERROR_TEXT - 1] = 0;
		call->status = answer->error.code < 0 ? answer->error.code : -EPROTO;
		call->told = call->status != -EINPROGRESS;
		return;
	}
	if (wc->len < call->len) {
		call->status = -EPROTO;
		return;
	}
	memcpy(call->answer, answer, call->len);
	call->status = 0;
}

bool pst_rpc_take(struct pst_rpc_call *call, const struct pst_wc *wc)
{
	const struct pst_msg *hdr = wc->msg;

	if (call->link != wc->link || call->status != -EINPROGRESS)
		return false;
	if (wc->kind == PST_WC_DOWN) {
		call->status = -ECONNRESET;
		return true;
	}
	if (wc->len < sizeof(*hdr) || !(hdr->type & PST_MSG_ANSWER) || hdr->seq != call->seq)
		return false;
	take_answer(call, wc);
	return true;
}

static int verdict(const struct pst_rpc_call *call, struct pst_error *err)
{
	const struct pst_msg_answer *answer = call->answer;
	const char *peer = pst_link_peer(call->link);
	size_t url = strcspn(peer, " ");

	/* of shm a path is this host's too; else the sentence has to say whose it is */
	if (call->told && strncmp(peer, "shm:", 4) && strncmp(peer, answer->error.text, url))
		return pst_fail(err, call->status, "%.*s: %s", (int)url, peer, answer->error.text);
	if (call->told)
		return pst_fail(err, call->status, "%s", answer->error.text);
	switch (call->status) {
	case 0:
		return 0;
	case -ECONNRESET:
		if (*pst_link_why(call->link))
			return pst_fail(err, -ECONNRESET, "%s", pst_link_why(call->link));
		return pst_fail(err, -ECONNRESET, "%s: died, or closed its link", peer);
	case -EINPROGRESS:
		return pst_fail(err, -ETIMEDOUT, "%s: does not answer", peer);
	case -EPROTO:
		return pst_fail(err, -EPROTO, "%s: its answer makes no sense", peer);
	default:
		return pst_fail(err, call->status, "%s: %s", peer, strerror(-call->status));
	}
}

static bool all_done(const struct pst_rpc_call *calls, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (calls[i].status == -EINPROGRESS)
			return false;
	return true;
}

int pst_rpc_wait(struct pst_inbox *inbox, struct pst_rpc_call *calls, size_t n, int timeout_ms,
		 struct pst_error *err)
{
	int64_t end = now_ms() + timeout_ms;
	int rc = 0;

	while (!all_done(calls, n)) {
		int64_t left = end - now_ms();

		if (left <= 0)
			break;
		rc = pst_inbox_pump(inbox, (int)left);
		if (rc < 0 && rc != -EINTR)
			break;
	}
	for (size_t i = 0; i < n; i++)
		pst_inbox_drop_call(inbox, &calls[i]);
	if (rc < 0 && rc != -EINTR)
		return pst_fail(err, rc, "waiting for an answer: %s", strerror(-rc));
	for (size_t i = 0; i < n; i++) {
		rc = verdict(&calls[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int pst_rpc(struct pst_inbox *inbox, struct pst_link *link, struct pst_msg *msg, void *answer,
	    size_t len, int timeout_ms, struct pst_error *err)
{
	struct pst_rpc_call call;
	int rc = pst_rpc_send(inbox, &call, link, msg, answer, len, err);

	return rc < 0 ? rc : pst_rpc_wait(inbox, &call, 1, timeout_ms, err);
}

int pst_rpc_announce(struct pst_inbox *inbox, struct pst_link *link, uint32_t imm)
{
	struct pst_wr wr = {
		.op = PST_WR_WRITE, .flags = PST_WR_IMM | PST_WR_UNSIGNALED, .imm = imm};
	int64_t end = now_ms() + SEND_TIMEOUT_MS;

	for (;;) {
		int rc = pst_link_post(link, &wr, 1);

		if (rc == 1)
			return 0;
		if (rc < 0)
			return rc == -ENOTCONN ? -ECONNRESET : rc;
		pst_inbox_pump(inbox, 1);
		if (now_ms() > end)
			return -ETIMEDOUT;
	}
}

int pst_rpc_answer(struct pst_link *link, const struct pst_msg *req, struct pst_msg_answer *answer,
		   size_t len, const struct pst_error *err)
{
	answer->hdr = (struct pst_msg){
		.size = (uint32_t)len,
		.type = req->type | PST_MSG_ANSWER,
		.seq = req->seq,
	};
	memset(&answer->error, 0, sizeof(answer->error));
	if (err)
		answer->error = *err;
	return pst_link_send(link, answer, len, SEND_TIMEOUT_MS);
}
