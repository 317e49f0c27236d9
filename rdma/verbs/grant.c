/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Grants: what lets a peer at a region is a memory window per rail and piece, bound to that rail's
 * queue pair, with a key that is fresh and ends with it. It allows reading, or reading and writing,
 * and nothing beyond the region. A device without windows registers the memory once more for each
 * grant: that key is also fresh and ends with the link, but would serve whoever guesses it on
 * another link of the same process.
 *
 * The peer checks key, range and access itself, so an honest mistake costs one request; what it
 * does not check the device does, and then the rail is lost.
 */
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void drop_holds(struct verbs_window *w)
{
	for (unsigned int i = 0; i < w->pieces; i++) {
		if (w->piece[i].mw)
			ibv_dealloc_mw(w->piece[i].mw);
		if (w->piece[i].mr)
			pst_ibv.dereg_mr(w->piece[i].mr);
	}
}

static void drop_window(struct verbs_fabric *vf, struct verbs_window *w)
{
	pthread_mutex_lock(&vf->lock);
	if (w->region)
		LIST_REMOVE(w, on_region);
	drop_holds(w);
	pthread_mutex_unlock(&vf->lock);
	free(w);
}

static int hold_piece(struct verbs_window *w, unsigned int i, uint32_t access)
{
	const struct verbs_region *r = w->region;
	struct verbs_hold *hold = &w->piece[i];
	int flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_RELAXED_ORDERING;
	char *addr = (char *)r->base->addr + i * r->chunk;

	if (w->dev->windows) {
		hold->mw = ibv_alloc_mw(w->dev->pd, IBV_MW_TYPE_2);
		if (hold->mw)
			hold->rkey = ibv_inc_rkey(hold->mw->rkey);
		return hold->mw ? 0 : -errno;
	}
	if (access & PST_ACCESS_WRITE)
		flags |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE;
	hold->mr = r->base->flags & PST_REGION_DMABUF
			   ? pst_ibv.reg_dmabuf_mr(w->dev->pd, i * r->chunk, verbs_piece_len(r, i),
						   (uintptr_t)addr, r->base->fd, flags)
			   : pst_ibv.reg_mr_iova2(w->dev->pd, addr, verbs_piece_len(r, i),
						  (uintptr_t)addr, (unsigned int)flags);
	if (hold->mr)
		hold->rkey = hold->mr->rkey;
	return hold->mr ? 0 : -errno;
}

static int new_window(struct verbs_fabric *vf, struct pst_region *region, struct verbs_dev *dev,
		      uint32_t access, struct verbs_window **out)
{
	struct verbs_region *r = region->priv;
	struct verbs_window *w;
	int rc = 0;

	if (!pst_verbs_region_on(region, dev, &rc))
		return rc;
	w = calloc(1, sizeof(*w) + r->pieces * sizeof(w->piece[0]));
	if (!w)
		return -ENOMEM;
	w->region = r;
	w->dev = dev;
	for (; !rc && w->pieces < r->pieces; w->pieces++)
		rc = hold_piece(w, w->pieces, access);
	if (rc) {
		drop_holds(w);
		free(w);
		return rc;
	}
	pthread_mutex_lock(&vf->lock);
	LIST_INSERT_HEAD(&r->windows, w, on_region);
	pthread_mutex_unlock(&vf->lock);
	*out = w;
	return 0;
}

/* A window for each rail that is up and has none. */
static int open_windows(struct verbs_link *link, struct verbs_given *g)
{
	struct verbs_fabric *vf = verbs_fabric(link->base.cq->fab);
	int rc = 0;

	for (uint8_t way = 0; way < link->ways && !rc; way++)
		if (link->way[way] && !g->window[way])
			rc = new_window(vf, g->region, link->way[way]->dev, g->access,
					&g->window[way]);
	return rc;
}

static void close_windows(struct verbs_link *link, struct verbs_given *g)
{
	for (uint8_t way = 0; way < link->ways; way++) {
		if (g->window[way])
			drop_window(verbs_fabric(link->base.cq->fab), g->window[way]);
		g->window[way] = NULL;
	}
}

static void queue_binds(struct verbs_link *link, const struct verbs_given *g)
{
	for (uint8_t way = 0; way < link->ways; way++) {
		struct verbs_window *w = g->window[way];
		struct verbs_req *req;

		if (!w || w->queued || !link->way[way])
			continue;
		w->queued = true;
		if (!w->dev->windows)
			continue;
		req = pst_verbs_req_add(link);
		req->kind = REQ_BIND;
		req->flags = (uint16_t)g->access;
		req->way = way;
		req->rail = link->way[way];
		req->window = w;
	}
}

static void queue_frame(struct verbs_link *link, const struct verbs_given *g)
{
	const struct verbs_region *r = g->region->priv;
	uint32_t keys = r->pieces * link->ways;
	struct verbs_req *req = pst_verbs_req_add(link);
	struct pst_frame *head;
	struct pst_frame_grant *frame;

	req->kind = REQ_GRANT;
	req->frame = true;
	head = pst_verbs_frame_new(link, PST_FRAME_GRANT,
				   (uint32_t)(sizeof(*frame) + keys * sizeof(frame->rkey[0])),
				   &req->seq);
	frame = (struct pst_frame_grant *)head;
	frame->key[0] = g->key.k[0];
	frame->key[1] = g->key.k[1];
	frame->len = g->region->len;
	frame->access = g->access;
	frame->pieces = r->pieces;
	frame->addr = (uintptr_t)g->region->addr;
	frame->chunk = r->chunk;
	for (uint8_t way = 0; way < link->ways; way++)
		for (uint32_t i = 0; i < r->pieces; i++)
			frame->rkey[way * r->pieces + i] =
				g->window[way] ? g->window[way]->piece[i].rkey : 0;
}

void pst_verbs_grant_flush(struct verbs_link *link)
{
	for (unsigned int i = 0; i < link->ngiven && link->ndue; i++) {
		struct verbs_given *g = &link->given[i];

		if (!g->due)
			continue;
		if (!verbs_frame_room(link) ||
		    link->tail - link->head + link->ways + 1 > VERBS_REQS)
			return;
		g->due = false;
		link->ndue--;
		queue_binds(link, g);
		queue_frame(link, g);
	}
	pst_verbs_issue(link);
}

static struct verbs_given *find_given(struct verbs_link *link, const struct pst_region *region,
				      uint32_t access)
{
	for (unsigned int i = 0; i < link->ngiven; i++)
		if (link->given[i].region_id == region->id && link->given[i].access == access)
			return &link->given[i];
	return NULL;
}

int pst_verbs_link_grant(struct pst_link *base, struct pst_region *region, uint32_t access,
			 struct pst_key *out)
{
	struct verbs_link *link = verbs_link(base);
	struct verbs_given *g;
	int rc;

	if (link->state != LINK_LIVE)
		return -ENOTCONN;
	g = find_given(link, region, access);
	if (g) {
		*out = g->key;
		return 0;
	}
	if (link->ngiven == VERBS_GRANTS)
		return -ENOSPC;
	g = &link->given[link->ngiven];
	*g = (struct verbs_given){
		.region = region, .region_id = region->id, .access = access, .due = true};
	if (getrandom(&g->key, sizeof(g->key), 0) != sizeof(g->key))
		return -EIO;
	rc = open_windows(link, g);
	if (rc) {
		close_windows(link, g);
		return pst_blame(base, pst_verbs_errno_cause(-rc), NULL, NULL, strerror(-rc));
	}
	link->ngiven++;
	link->ndue++;
	*out = g->key;
	pst_verbs_grant_flush(link);
	return 0;
}

/* A region that was released is granted no more. */
static bool is_alive(const struct verbs_link *link, const struct verbs_given *g)
{
	for (uint8_t way = 0; way < link->ways; way++)
		if (g->window[way] && g->window[way]->region)
			return true;
	return false;
}

void pst_verbs_grant_rejoin(struct verbs_link *link, uint8_t way)
{
	for (unsigned int i = 0; i < link->ngiven; i++) {
		struct verbs_given *g = &link->given[i];

		if (g->window[way] || !is_alive(link, g) || open_windows(link, g) || g->due)
			continue;
		g->due = true;
		link->ndue++;
	}
	if (link->ndue)
		pst_verbs_grant_flush(link);
}

/* A request to bind @w that was not issued has nothing to do any more. */
static void forget_bind(struct verbs_link *link, const struct verbs_window *w)
{
	for (uint32_t at = link->head; at != link->tail; at++) {
		struct verbs_req *req = verbs_req(link, at);

		if (req->kind == REQ_BIND && req->window == w)
			req->window = NULL;
	}
}

void pst_verbs_grant_lost(struct verbs_link *link, uint8_t way)
{
	for (unsigned int i = 0; i < link->ngiven; i++) {
		struct verbs_given *g = &link->given[i];

		if (!g->window[way])
			continue;
		forget_bind(link, g->window[way]);
		drop_window(verbs_fabric(link->base.cq->fab), g->window[way]);
		g->window[way] = NULL;
	}
	for (unsigned int i = 0; i < link->ntaken; i++) {
		const struct verbs_taken *t = &link->taken[i];

		memset(&t->rkey[way * t->pieces], 0, t->pieces * sizeof(t->rkey[0]));
	}
}

struct verbs_taken *pst_verbs_find(struct verbs_link *link, const struct pst_key *key)
{
	for (unsigned int i = 0; i < link->ntaken; i++) {
		/* from the last one that was used, round */
		unsigned int at = link->last + i;
		struct verbs_taken *t;

		at -= at >= link->ntaken ? link->ntaken : 0;
		t = &link->taken[at];

		if (t->key.k[0] == key->k[0] && t->key.k[1] == key->k[1]) {
			link->last = at;
			return t;
		}
	}
	return NULL;
}

static bool is_grant(const struct verbs_link *link, const struct pst_frame_grant *f)
{
	const uint32_t all = PST_ACCESS_READ | PST_ACCESS_WRITE;

	if (!f->pieces || f->pieces > PST_GRANT_PIECES || !f->len || !f->chunk)
		return false;
	if (f->hdr.size != sizeof(*f) + (uint64_t)f->pieces * link->ways * sizeof(f->rkey[0]))
		return false;
	if ((f->len - 1) / f->chunk != f->pieces - 1 || f->addr + f->len < f->len)
		return false;
	return f->access == PST_ACCESS_READ || f->access == all;
}

bool pst_verbs_take(struct verbs_link *link, const struct pst_frame *head)
{
	const struct pst_frame_grant *f = (const struct pst_frame_grant *)head;
	const struct pst_key key = {{f->key[0], f->key[1]}};
	struct verbs_taken *t;
	size_t size;

	if (!is_grant(link, f))
		return false;
	size = (size_t)f->pieces * link->ways * sizeof(f->rkey[0]);
	t = pst_verbs_find(link, &key);
	if (t) {
		/* Again, since a rail came back: only its keys may be others. */
		if (t->len != f->len || t->addr != f->addr || t->chunk != f->chunk ||
		    t->access != f->access)
			return false;
		memcpy(t->rkey, f->rkey, size);
		return true;
	}
	if (link->ntaken == VERBS_GRANTS)
		return false;
	t = &link->taken[link->ntaken];
	*t = (struct verbs_taken){.key = key,
				  .len = f->len,
				  .addr = f->addr,
				  .chunk = f->chunk,
				  .access = f->access,
				  .pieces = f->pieces,
				  .rkey = malloc(size)};
	if (!t->rkey)
		return false;
	memcpy(t->rkey, f->rkey, size);
	link->ntaken++;
	return true;
}

void pst_verbs_grants_drop(struct verbs_link *link)
{
	for (unsigned int i = 0; i < link->ngiven; i++)
		close_windows(link, &link->given[i]);
	for (unsigned int i = 0; i < link->ntaken; i++)
		free(link->taken[i].rkey);
	link->ngiven = link->ntaken = 0;
}
