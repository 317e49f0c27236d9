/* SPDX-License-Identifier: Apache-2.0 */
/* client_step.c - one step of a client: weights in, gradients out. */
#include "runtime/store/client_priv.h"

#include "rdma/fail.h"
#include "runtime/store/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is this engine's, and the memory that it needs for it where nothing is mapped */

void pst_client_free_local(struct pst_client *c)
{
	if (c->local_region)
		pst_region_release(c->local_region);
	pst_pool_destroy(c->local);
	c->local_region = NULL;
	c->local = NULL;
}

int pst_client_train(struct pst_client *c, struct pst_error *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < c->parts && !rc; i++) {
		struct pst_push_options o = {
			.size = sizeof(o),
			.inbox = c->inbox,
			.view = c->part[i].view,
			.timeout_ms = STEP_TIMEOUT_MS,
		};

		rc = pst_push_open(&o, &c->part[i].push, err);
	}
	return rc;
}

static bool far(const struct part *p)
{
	return !pst_view_mapped(p->view);
}

static int list_wanted(struct pst_client *c, const uint8_t *mine)
{
	for (unsigned int i = 0; i < c->parts; i++) {
		struct part *p = &c->part[i];

		free(p->wanted);
		p->nwanted = 0;
		p->wanted = malloc((p->count + 1) * sizeof(*p->wanted));
		if (!p->wanted)
			return -ENOMEM;
	}
	for (size_t i = 0; i < c->count; i++) {
		struct part *p = &c->part[c->place[i].part];

		if (mine[i])
			p->wanted[p->nwanted++] = c->place[i].index;
	}
	for (unsigned int i = 0; i < c->parts; i++)
		c->want[i] = (struct pst_view_want){c->part[i].view, c->part[i].wanted,
						    c->part[i].nwanted};
	return 0;
}

static int make_copies(struct pst_client *c, struct pst_error *err)
{
	struct pst_copies_options o = {.size = sizeof(o),
				       .fabric = c->fabric,
				       .bytes = c->copy_bytes,
				       .node = PST_NODE_ANY};
	bool any = false;
	int rc;

	for (size_t i = 0; i < c->count; i++) {
		if (!c->mine[i] || !far(&c->part[c->place[i].part]))
			continue;
		any = true;
		if (!c->copy_bytes)
			o.bytes += pst_copies_cost(pst_client_bytes(&c->tensor[i]));
	}
	for (unsigned int p = 0; p < c->parts; p++)
		pst_view_keep(c->part[p].view, NULL);
	pst_copies_destroy(c->copies);
	c->copies = NULL;
	if (!any)
		return 0;
	rc = pst_copies_create(&o, &c->copies, err);
	for (unsigned int p = 0; p < c->parts && !rc; p++)
		pst_view_keep(c->part[p].view, c->copies);
	return rc;
}

/* Another set of tensors than in the begin before: everything is made for it. */
static int take_mine(struct pst_client *c, const uint8_t *mine, struct pst_error *err)
{
	int rc;

	if (c->mine && !memcmp(c->mine, mine, c->count))
		return 0;
	free(c->mine);
	pst_client_free_local(c);
	c->mine = malloc(c->count);
	if (!c->mine || list_wanted(c, mine) < 0) {
		rc = pst_fail(err, -ENOMEM, "no memory for a list of %zu tensors", c->count);
	} else {
		memcpy(c->mine, mine, c->count);
		rc = make_copies(c, err);
	}
	if (rc < 0) {
		free(c->mine);
		c->mine = NULL;
	}
	return rc;
}

static uint64_t pad(uint64_t n)
{
	return (n + PST_POOL_ALIGN - 1) / PST_POOL_ALIGN * PST_POOL_ALIGN;
}

/* Lay out what is pushed from here, beginning at @base (NULL: only count). */
static uint64_t lay_out(struct pst_client *c, char *base)
{
	uint64_t at = 0;

	for (unsigned int i = 0; i < c->parts; i++) {
		struct part *p = &c->part[i];

		if (!far(p))
			continue;
		if (base) {
			p->mask = (uint8_t *)base + at;
			p->norms = (double *)(base + at + pad(p->count));
		}
		at += pad(p->count) + pad(p->count * sizeof(*p->norms));
	}
	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct part *p = &c->part[pl->part];

		c->gradient[i] = NULL;
		if (!c->mine || !c->mine[i])
			continue;
		if (!far(p)) {
			if (p->push)
				c->gradient[i] = pst_push_place(p->push, pl->index);
			continue;
		}
		if (base)
			c->gradient[i] = (float *)(base + at);
		at += pad(pst_client_bytes(&c->tensor[i]));
	}
	return at;
}

static int make_local(struct pst_client *c, struct pst_error *err)
{
	struct pst_pool_options po = {
		.size = sizeof(po), .name = "gradients", .node = PST_NODE_ANY};
	int rc;

	if (c->local)
		return 0;
	po.bytes = lay_out(c, NULL);
	if (!po.bytes)
		return 0; /* all is mapped */
	rc = pst_pool_create(&po, &c->local, err);
	if (!rc)
		rc = pst_pool_region(c->fabric, c->local, PST_ACCESS_READ, &c->local_region, err);
	if (rc < 0)
		pst_client_free_local(c);
	else
		lay_out(c, pst_pool_base(c->local));
	return rc;
}

/* A step */

int pst_client_begin(struct pst_client *c, const uint8_t *mine, const float **weights,
		     float **grads, uint64_t *version, struct pst_error *err)
{
	int rc = take_mine(c, mine, err);

	if (!rc && c->copies)
		pst_copies_begin(c->copies);
	if (!rc)
		rc = pst_views_need(c->want, c->parts, c->version, err);
	if (!rc && grads)
		rc = make_local(c, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct part *p = &c->part[pl->part];

		weights[i] = mine[i] ? pst_view_weight(p->view, pl->index, c->version) : NULL;
		if (mine[i] && !weights[i])
			return pst_fail(err, -ESTALE, "%s: no longer holds version %llu", p->url,
					(unsigned long long)c->version);
		if (grads)
			grads[i] = c->gradient[i];
	}
	*version = c->version;
	return 0;
}

/* What the commit will name: masks, and the gradients of this engine. */
static size_t list_items(struct pst_client *c, const uint8_t *mine, const uint8_t *has)
{
	size_t n = 0;

	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct part *p = &c->part[pl->part];

		(far(p) ? p->mask : pst_push_mask(p->push))[pl->index] = has[i];
		if (has[i] && mine[i])
			c->item[n++] = (struct pst_push_item){
				.push = p->push, .tensor = pl->index, .from = c->gradient[i]};
	}
	for (unsigned int p = 0; p < c->parts; p++)
		if (far(&c->part[p]))
			c->item[n++] = (struct pst_push_item){.push = c->part[p].push,
							      .tensor = PST_PUSHED_MASK,
							      .from = c->part[p].mask};
	return n;
}

static int fetch_norms(struct pst_client *c, struct pst_error *err)
{
	struct pst_batch b;

	pst_batch_begin(c->inbox, &b);
	for (unsigned int i = 0; i < c->parts; i++) {
		struct part *p = &c->part[i];
		struct pst_wr wr;

		if (!far(p))
			continue;
		wr = pst_push_read_norms(p->push, c->local_region, p->norms);
		pst_batch_post(c->inbox, &b, pst_view_link(p->view), &wr, 1);
	}
	return pst_batch_wait(c->inbox, &b, err);
}

int pst_client_commit(struct pst_client *c, const uint8_t *mine, const uint8_t *has,
		      double *norm_sq, struct pst_error *err)
{
	struct pst_msg_commit m = {.hdr = {.size = sizeof(m), .type = PST_MSG_COMMIT},
				   .version = c->version};
	double sum = 0;
	int rc = make_local(c, err);

	if (!rc)
		rc = pst_push_send(c->inbox, c->item, list_items(c, mine, has), c->local_region,
				   c->version, NULL, &c->pushed, err);
	if (!rc)
		rc = pst_client_ask(c, &m.hdr, STEP_TIMEOUT_MS, err);
	if (!rc)
		rc = fetch_norms(c, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		const struct part *p = &c->part[pl->part];

		sum += (far(p) ? p->norms : pst_push_norms(p->push))[pl->index];
	}
	*norm_sq = sum;
	return 0;
}

int pst_client_apply(struct pst_client *c, struct pst_msg_apply *m, struct pst_error *err)
{
	int rc;

	m->hdr = (struct pst_msg){.size = sizeof(*m), .type = PST_MSG_APPLY};
	m->version = c->version;
	rc = pst_client_ask(c, &m->hdr, STEP_TIMEOUT_MS, err);
	if (!rc)
		c->version++;
	return rc;
}

/* A view and a slot of each server, then what is not mapped: copies, and memory of our own. */
int pst_client_memory(const struct pst_client *c, size_t i, const void **at, uint64_t *bytes,
		      bool *read_only)
{
	const struct pst_pool *pool = NULL;
	size_t parts = 2 * (size_t)c->parts;

	*at = NULL;
	*bytes = 0;
	*read_only = i < parts && i % 2 == 0;
	if (*read_only) {
		*at = pst_view_memory(c->part[i / 2].view, bytes);
	} else if (i < parts) {
		const struct pst_push *push = c->part[i / 2].push;

		*at = push ? pst_push_memory(push, bytes) : NULL;
	} else if (i == parts) {
		pool = c->copies ? pst_copies_pool(c->copies) : NULL;
	} else if (i == parts + 1) {
		pool = c->local;
	} else {
		return -ENOENT;
	}
	if (pool) {
		*at = pst_pool_base(pool);
		*bytes = pst_pool_bytes(pool);
	}
	return 0;
}

void pst_client_moved(const struct pst_client *c, struct pst_client_moved *out)
{
	struct pst_copies_stat s = {0};

	if (c->copies)
		pst_copies_stat(c->copies, &s);
	*out = (struct pst_client_moved){
		.pulled_bytes = s.pulled_bytes,
		.pull_hits = s.hits,
		.pushed_bytes = c->pushed.bytes,
		.crc_bad = c->pushed.crc_bad,
		.resent = c->pushed.resent,
	};
}
