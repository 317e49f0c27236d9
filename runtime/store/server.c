/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/server_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int pst_server_answer(struct request *r)
{
	struct pst_msg_answer answer;

	return pst_rpc_answer(r->link, r->msg, &answer, sizeof(answer), &r->err);
}

struct peer *pst_server_peer(struct pst_server *s, struct pst_link *link, struct pst_error *err)
{
	struct peer *p = pst_link_user(link);

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p) {
		pst_fail(err, -ENOMEM, "no memory for one more link");
		return NULL;
	}
	p->link = link;
	p->next = s->peers;
	s->peers = p;
	atomic_fetch_add(&s->facts.clients, 1);
	pst_link_set_user(link, p);
	return p;
}

/* One table of requests, one check of their length */

static const struct handler {
	pst_server_fn *handle;
	size_t bytes;
	bool needs_table;
} handlers[] = {
	[PST_MSG_TABLE_CREATE] = {pst_server_table_create, sizeof(struct pst_msg_table_create),
				  false},
	[PST_MSG_TABLE_INIT] = {pst_server_table_init, sizeof(struct pst_msg_table_init), true},
	[PST_MSG_TABLE_LOAD] = {pst_server_table_load, sizeof(struct pst_msg_table_load), true},
	[PST_MSG_TABLE_OPEN] = {pst_server_table_open, sizeof(struct pst_msg), true},
	[PST_MSG_SLOT_OPEN] = {pst_server_slot_open, sizeof(struct pst_msg), true},
	[PST_MSG_SLOT_ATTACH] = {pst_server_slot_attach, sizeof(struct pst_msg_slot_attach), true},
	[PST_MSG_COMMIT] = {pst_server_commit, sizeof(struct pst_msg_commit), true},
	[PST_MSG_APPLY] = {pst_server_apply, sizeof(struct pst_msg_apply), true},
	[PST_MSG_SAVE] = {pst_server_save, sizeof(struct pst_msg_save), true},
	[PST_MSG_STAT] = {pst_server_stated, sizeof(struct pst_msg), false},
	[PST_MSG_PUSHED] = {pst_server_pushed, sizeof(struct pst_msg_pushed), true},
};

/* An error here is the link's, not the server's: its DOWN follows. */
static void message(struct pst_server *s, const struct pst_wc *wc)
{
	const struct pst_msg *hdr = pst_rpc_check(wc->msg, wc->len, sizeof(*hdr));
	struct request r = {.link = wc->link, .msg = hdr};
	const struct handler *h;

	if (!hdr)
		return;
	h = hdr->type < sizeof(handlers) / sizeof(*handlers) ? &handlers[hdr->type] : NULL;
	if (!h || !h->handle)
		pst_fail(&r.err, -ENOTTY, "a server does not know request %u", hdr->type);
	else if (wc->len < h->bytes)
		pst_fail(&r.err, -EINVAL, "request %u is too short: %u bytes, not %zu", hdr->type,
			 wc->len, h->bytes);
	else if (h->needs_table && !s->shard)
		pst_fail(&r.err, -ENOENT, "%s: has no table yet", s->config.url);
	if (r.err.code)
		pst_server_answer(&r);
	else
		h->handle(s, &r);
	pst_server_count(&s->facts.calls, 1);
}

static struct peer *find(struct pst_server *s, bool (*is)(const struct peer *p, unsigned int n),
			 unsigned int number)
{
	for (struct peer *p = s->peers; p; p = p->next)
		if (is(p, number))
			return p;
	return NULL;
}

static bool joined(const struct peer *p, unsigned int number)
{
	return p->slots[number / 64] >> number % 64 & 1;
}

static bool reads(const struct peer *p, unsigned int number)
{
	(void)number;
	return p->reads || p->slots[0] || p->slots[1];
}

static void forget_peer(struct pst_server *s, const struct peer *peer)
{
	for (struct peer **at = &s->peers; *at; at = &(*at)->next)
		if (*at == peer) {
			struct peer *gone = *at;

			*at = gone->next;
			atomic_fetch_sub(&s->facts.clients, 1);
			free(gone);
			return;
		}
}

/*
 * What was granted of memory that goes away with this link goes away first: links that joined its
 * slot are closed, and when it made the table all that have anything of that.
 */
static void end_link(struct pst_server *s, struct pst_link *link)
{
	bool creator = s->creator == link;
	struct pst_slot *slot;
	unsigned int number;
	struct peer *p;

	if (s->making && s->making->link == link)
		s->making->link = NULL;
	if (creator)
		s->creator = NULL;
	slot = pst_server_take_slot(s, link, &number);
	forget_peer(s, pst_link_user(link));
	pst_link_close(link);
	if (s->making && !s->making->link)
		pst_server_stop_making(s); /* nothing is read into it any more */
	while (creator && (p = find(s, reads, 0)))
		end_link(s, p->link);
	if (slot) {
		while ((p = find(s, joined, number)))
			end_link(s, p->link);
		pst_server_slot_gone(s, slot);
	}
	if (creator)
		pst_server_drop_table(s);
}

static void take(struct pst_server *s, const struct pst_wc *wc)
{
	if (wc->kind == PST_WC_MESSAGE)
		message(s, wc);
	else if (wc->kind == PST_WC_IMM)
		pst_server_immediate(s, wc->link, wc->imm);
	else if (wc->kind == PST_WC_DONE)
		pst_server_made(s, wc);
	else if (wc->kind == PST_WC_DOWN)
		end_link(s, wc->link);
}

int pst_server_serve(struct pst_server *s, struct pst_error *err)
{
	struct pst_wc wc;
	uint64_t began;

	while (!atomic_load(&s->stop)) {
		int rc = pst_cq_wait(s->cq, &wc, 1, -1);

		if (rc < 0 && rc != -EINTR)
			return pst_fail(err, rc, "%s: %s", s->config.url, strerror(-rc));
		if (rc <= 0)
			continue;
		began = pst_server_now_ns();
		take(s, &wc);
		pst_server_count(&s->facts.busy_ns, pst_server_now_ns() - began);
	}
	return 0;
}

const char *pst_server_at(const struct pst_server *s)
{
	return pst_listener_url(s->listener);
}

void pst_server_stop(struct pst_server *s)
{
	atomic_store(&s->stop, true);
	pst_cq_wake(s->cq);
}

int pst_server_create(const struct pst_server_config *config, struct pst_server **out,
		      struct pst_error *err)
{
	struct pst_server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return pst_fail(err, -ENOMEM, "no memory for a server");
	pst_server_facts_init(&s->facts);
	s->config = *config;
	s->config.url = strdup(config->url);
	rc = s->config.url ? pst_device_open_cpu(config->node, config->threads, &s->device, err)
			   : pst_fail(err, -ENOMEM, "no memory for a server");
	if (!rc)
		rc = pst_fabric_open(config->url, &s->fabric, err);
	if (!rc)
		rc = pst_cq_create(s->fabric, &s->cq, err);
	if (!rc)
		rc = pst_listen(s->cq, config->url, &s->listener, err);
	if (!rc) {
		/* as others know it: with the port that it has, without the settings */
		free((char *)s->config.url);
		s->config.url = strdup(pst_listener_url(s->listener));
		rc = s->config.url ? 0 : pst_fail(err, -ENOMEM, "no memory for a URL");
	}
	if (rc < 0) {
		pst_server_destroy(s);
		return rc;
	}
	*out = s;
	return 0;
}

void pst_server_destroy(struct pst_server *s)
{
	if (!s)
		return;
	if (s->cq)
		pst_cq_destroy(s->cq);
	if (s->making)
		pst_server_stop_making(s);
	while (s->peers)
		forget_peer(s, s->peers);
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		pst_slot_destroy(s->slot[i]);
	pst_server_drop_table(s);
	if (s->fabric)
		pst_fabric_close(s->fabric);
	if (s->device)
		pst_device_close(s->device);
	pst_server_facts_destroy(&s->facts);
	free((char *)s->config.url);
	free(s);
}
