/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/inbox.h"

#include "rdma/fail.h"
#include "runtime/store/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT_ONCE 16
#define LOOK_MS 1000 /* a wait that nothing ends is begun anew after it */

/* Something that nobody waited for. */
struct kept {
	struct pst_wc wc;
	struct kept *next;
	_Alignas(8) char msg[];
};

/* A link whose end was told because it said too much. */
struct cut {
	const struct pst_link *link;
	struct cut *next;
};

struct pst_inbox {
	struct pst_fabric *fabric;
	struct pst_cq *cq;
	uint32_t flags;
	uint64_t last_id;
	size_t kept_bytes;
	struct kept *kept, **kept_end;
	struct cut *cuts;
	struct pst_rpc_call *calls;
	struct pst_batch *batches;
	_Alignas(8) char current[PST_MSG_MAX]; /* what pst_inbox_next() gave */
};

int pst_inbox_create(struct pst_fabric *fab, uint32_t flags, struct pst_inbox **out,
		     struct pst_error *err)
{
	struct pst_inbox *in = calloc(1, sizeof(*in));
	int rc;

	if (!in)
		return pst_fail(err, -ENOMEM, "no memory for an inbox");
	in->fabric = fab;
	in->flags = flags;
	in->kept_end = &in->kept;
	rc = pst_cq_create(fab, &in->cq, err);
	if (rc < 0) {
		free(in);
		return rc;
	}
	*out = in;
	return 0;
}

static bool is_cut(const struct pst_inbox *in, const struct pst_link *link)
{
	for (const struct cut *c = in->cuts; c; c = c->next)
		if (c->link == link)
			return true;
	return false;
}

static void forget_cut(struct pst_inbox *in, const struct pst_link *link)
{
	for (struct cut **at = &in->cuts; *at; at = &(*at)->next) {
		struct cut *c = *at;

		if (c->link != link)
			continue;
		*at = c->next;
		free(c);
		return;
	}
}

static struct kept *pop(struct pst_inbox *in)
{
	struct kept *k = in->kept;

	in->kept = k->next;
	if (!in->kept)
		in->kept_end = &in->kept;
	in->kept_bytes -= sizeof(*k) + k->wc.len;
	return k;
}

void pst_inbox_destroy(struct pst_inbox *in)
{
	if (!in)
		return;
	pst_cq_destroy(in->cq);
	while (in->kept)
		free(pop(in));
	while (in->cuts)
		forget_cut(in, in->cuts->link);
	free(in);
}

struct pst_cq *pst_inbox_cq(const struct pst_inbox *in)
{
	return in->cq;
}

struct pst_fabric *pst_inbox_fabric(const struct pst_inbox *in)
{
	return in->fabric;
}

/* Keeping */

static bool append(struct pst_inbox *in, const struct pst_wc *wc)
{
	struct kept *k = malloc(sizeof(*k) + wc->len);

	if (!k)
		return false;
	k->wc = *wc;
	k->next = NULL;
	if (wc->len)
		memcpy(k->msg, wc->msg, wc->len);
	*in->kept_end = k;
	in->kept_end = &k->next;
	in->kept_bytes += sizeof(*k) + wc->len;
	return true;
}

/* Its end instead of what it says. */
static void cut_off(struct pst_inbox *in, struct pst_link *link)
{
	struct pst_wc end = {.link = link, .kind = PST_WC_DOWN, .status = -ENOBUFS};
	struct cut *c = malloc(sizeof(*c));

	if (!c || !append(in, &end)) {
		free(c);
		return;
	}
	*c = (struct cut){link, in->cuts};
	in->cuts = c;
}

static void keep(struct pst_inbox *in, const struct pst_wc *wc)
{
	if (!(in->flags & PST_INBOX_KEEP) || is_cut(in, wc->link))
		return;
	if (wc->kind == PST_WC_DOWN ||
	    in->kept_bytes + sizeof(struct kept) + wc->len <= PST_INBOX_MAX)
		append(in, wc);
	else
		cut_off(in, wc->link);
}

/* Giving out */

static bool to_call(struct pst_inbox *in, const struct pst_wc *wc)
{
	bool taken = false;

	for (struct pst_rpc_call *c = in->calls; c; c = c->next)
		taken |= pst_rpc_take(c, wc);
	return taken;
}

static void fail_batch(struct pst_batch *b, struct pst_link *link, int status)
{
	const char *why = pst_link_why(link);

	if (b->status)
		return;
	b->status = status;
	if (*why)
		pst_fail(&b->err, status, "%s", why);
	else
		pst_fail(&b->err, status, "%s: its memory cannot be reached: %s",
			 pst_link_peer(link), strerror(-status));
}

static void to_batch(struct pst_inbox *in, const struct pst_wc *wc)
{
	for (struct pst_batch *b = in->batches; b; b = b->next) {
		if (b->id != wc->id)
			continue;
		b->under_way--;
		if (wc->status < 0)
			fail_batch(b, wc->link, wc->status);
	}
}

/* True when @wc was for somebody who waits. The end of a link is for all. */
static bool give(struct pst_inbox *in, const struct pst_wc *wc)
{
	if (wc->kind == PST_WC_DONE) {
		to_batch(in, wc);
		return true;
	}
	return (wc->kind == PST_WC_MESSAGE || wc->kind == PST_WC_DOWN) && to_call(in, wc) &&
	       wc->kind == PST_WC_MESSAGE;
}

int pst_inbox_pump(struct pst_inbox *in, int timeout_ms)
{
	struct pst_wc wc[AT_ONCE];
	int n = pst_cq_wait(in->cq, wc, AT_ONCE, timeout_ms);

	for (int i = 0; i < n; i++)
		if (!give(in, &wc[i]))
			keep(in, &wc[i]);
	return n;
}

static int next_kept(struct pst_inbox *in, struct pst_wc *wc)
{
	struct kept *k = pop(in);

	*wc = k->wc;
	if (wc->len)
		memcpy(in->current, k->msg, wc->len);
	free(k);
	return 1;
}

int pst_inbox_next(struct pst_inbox *in, struct pst_wc *wc, int timeout_ms)
{
	int n;

	if (in->kept) {
		next_kept(in, wc);
	} else {
		n = pst_cq_wait(in->cq, wc, 1, timeout_ms);
		if (n <= 0)
			return n;
		if (give(in, wc) || is_cut(in, wc->link))
			return 0;
		if (wc->len)
			memcpy(in->current, wc->msg, wc->len);
	}
	if (wc->kind == PST_WC_MESSAGE)
		wc->msg = in->current;
	return 1;
}

void pst_inbox_close(struct pst_inbox *in, struct pst_link *link)
{
	for (struct kept **at = &in->kept; *at;) {
		struct kept *k = *at;

		if (k->wc.link != link) {
			at = &k->next;
			continue;
		}
		*at = k->next;
		in->kept_bytes -= sizeof(*k) + k->wc.len;
		free(k);
	}
	in->kept_end = &in->kept;
	while (*in->kept_end)
		in->kept_end = &(*in->kept_end)->next;
	forget_cut(in, link);
	pst_link_close(link);
}

void pst_inbox_add_call(struct pst_inbox *in, struct pst_rpc_call *call)
{
	call->next = in->calls;
	in->calls = call;
}

void pst_inbox_drop_call(struct pst_inbox *in, struct pst_rpc_call *call)
{
	for (struct pst_rpc_call **at = &in->calls; *at; at = &(*at)->next)
		if (*at == call) {
			*at = call->next;
			return;
		}
}

/* Batches */

void pst_batch_begin(struct pst_inbox *in, struct pst_batch *b)
{
	*b = (struct pst_batch){.id = ++in->last_id, .next = in->batches};
	in->batches = b;
}

void pst_batch_post(struct pst_inbox *in, struct pst_batch *b, struct pst_link *link,
		    struct pst_wr *wr, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		wr[i].id = b->id;
		wr[i].flags &= PST_WR_IMM;
	}
	while (n && !b->status) {
		int rc = pst_link_post(link, wr, n < AT_ONCE ? (int)n : AT_ONCE);

		if (rc < 0) {
			fail_batch(b, link, rc == -ENOTCONN ? -ECONNRESET : rc);
			return;
		}
		b->under_way += (size_t)rc;
		wr += rc;
		n -= (size_t)rc;
		if (!rc)
			pst_inbox_pump(in, LOOK_MS);
	}
}

int pst_batch_wait(struct pst_inbox *in, struct pst_batch *b, struct pst_error *err)
{
	struct pst_batch **at = &in->batches;
	int rc = 0;

	while (b->under_way && (rc >= 0 || rc == -EINTR))
		rc = pst_inbox_pump(in, LOOK_MS);
	while (*at != b)
		at = &(*at)->next;
	*at = b->next;
	if (b->under_way)
		return pst_fail(err, rc, "waiting for memory of others: %s", strerror(-rc));
	return b->status ? pst_fail(err, b->status, "%s", b->err.text) : 0;
}
