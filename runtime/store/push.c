/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/push.h"

#include "rdma/crc32c.h"
#include "rdma/fail.h"
#include "rdma/url.h"
#include "runtime/store/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRIES		  4
#define TELLINGS	  64 /* messages that wait for their answer at a time */
#define ANSWER_TIMEOUT_MS 120000

struct pst_push {
	struct pst_inbox *inbox;
	struct pst_view *view;
	struct pst_link *link;
	struct pst_key key;
	uint64_t token;
	uint32_t slot;
	bool crc, told;
	struct pst_slot_head head; /* checked */
	char *base;		   /* in place; NULL: not mapped */
	uint64_t bytes;		   /* that are mapped */
};

/* Opening */

static uint64_t buffer_bytes(const struct pst_view *v)
{
	uint64_t buffer = 0;

	for (size_t i = 0; i < pst_view_count(v); i++) {
		const struct pst_wire_tensor *t = pst_view_tensor(v, i);

		if (t->offset + t->bytes > buffer)
			buffer = t->offset + t->bytes;
	}
	return buffer;
}

static bool inside(uint64_t from, uint64_t bytes, uint64_t len)
{
	return from <= len && bytes <= len - from;
}

static bool sane(const struct pst_push *p, uint64_t len)
{
	const struct pst_slot_head *h = &p->head;
	size_t count = pst_view_count(p->view);

	return h->gradients % 64 == 0 && h->norms % 8 == 0 &&
	       inside(h->gradients, buffer_bytes(p->view), len) && inside(h->mask, count, len) &&
	       inside(h->norms, count * sizeof(double), len);
}

static int take_mapped(struct pst_push *p, char *base, uint64_t len)
{
	if (len < sizeof(p->head))
		return -EPROTO;
	memcpy(&p->head, base, sizeof(p->head));
	p->base = base;
	p->bytes = len;
	return sane(p, len) ? 0 : -EPROTO;
}

/* Nobody says how long the slot is: what it claims to hold ends within it if this can be read. */
static int take_far(struct pst_push *p)
{
	size_t count = pst_view_count(p->view);
	char last;
	int rc = pst_view_peek(p->view, p->key, 0, &p->head, sizeof(p->head), NULL);

	if (rc < 0)
		return rc;
	if (!sane(p, UINT64_MAX))
		return -EPROTO;
	rc = pst_view_peek(p->view, p->key, p->head.gradients + buffer_bytes(p->view) - 1, &last, 1,
			   NULL);
	if (!rc)
		rc = pst_view_peek(p->view, p->key, p->head.mask + count - 1, &last, 1, NULL);
	if (!rc)
		rc = pst_view_peek(p->view, p->key, p->head.norms + count * sizeof(double) - 1,
				   &last, 1, NULL);
	return rc;
}

static int ask_for_slot(struct pst_push *p, const struct pst_push_options *o, struct pst_error *err)
{
	struct pst_msg_slot_attach join = {
		.hdr = {.size = sizeof(join), .type = PST_MSG_SLOT_ATTACH}, .token = o->token};
	struct pst_msg own = {.size = sizeof(own), .type = PST_MSG_SLOT_OPEN};
	struct pst_msg_slot_opened answer;
	int rc = pst_rpc(p->inbox, p->link, o->join ? &join.hdr : &own, &answer, sizeof(answer),
			 o->timeout_ms, err);

	if (rc < 0)
		return rc;
	memcpy(&p->key, &answer.key, sizeof(p->key));
	p->token = answer.token;
	p->slot = answer.slot;
	return 0;
}

int pst_push_open(const struct pst_push_options *o, struct pst_push **out, struct pst_error *err)
{
	struct pst_push *p = calloc(1, sizeof(*p));
	uint64_t len;
	void *addr;
	int rc;

	if (!p)
		return pst_fail(err, -ENOMEM, "no memory for a push slot");
	p->inbox = o->inbox;
	p->view = o->view;
	p->link = pst_view_link(o->view);
	p->crc = pst_fabric_settings(pst_inbox_fabric(o->inbox))->crc;
	rc = ask_for_slot(p, o, err);
	if (rc < 0)
		goto free_push;
	rc = p->slot < PST_MAX_SLOTS ? pst_link_map(p->link, p->key, PST_ACCESS_WRITE, &addr, &len)
				     : -EPROTO;
	if (!rc)
		rc = take_mapped(p, addr, len);
	else if (rc == -EOPNOTSUPP)
		rc = take_far(p);
	if (rc < 0) {
		pst_fail(err, rc, "%s: its push slot cannot be used: %s", pst_link_peer(p->link),
			 strerror(-rc));
		goto free_push;
	}
	*out = p;
	return 0;
free_push:
	free(p);
	return rc;
}

void pst_push_close(struct pst_push *p)
{
	free(p);
}

uint64_t pst_push_token(const struct pst_push *p)
{
	return p->token;
}

bool pst_push_mapped(const struct pst_push *p)
{
	return p->base;
}

void *pst_push_memory(const struct pst_push *p, uint64_t *bytes)
{
	*bytes = p->bytes;
	return p->base;
}

float *pst_push_place(const struct pst_push *p, size_t i)
{
	return (float *)(p->base + p->head.gradients + pst_view_tensor(p->view, i)->offset);
}

uint8_t *pst_push_mask(const struct pst_push *p)
{
	return (uint8_t *)p->base + p->head.mask;
}

const double *pst_push_norms(const struct pst_push *p)
{
	return (const double *)(p->base + p->head.norms);
}

struct pst_wr pst_push_read_norms(const struct pst_push *p, struct pst_region *local, void *to)
{
	return (struct pst_wr){
		.op = PST_WR_READ,
		.local = local,
		.local_addr = to,
		.key = p->key,
		.remote_off = p->head.norms,
		.len = pst_view_count(p->view) * sizeof(double),
	};
}

/* Sending */

static uint64_t bytes_of(const struct pst_push_item *it)
{
	return it->tensor == PST_PUSHED_MASK ? pst_view_count(it->push->view)
					     : pst_view_tensor(it->push->view, it->tensor)->bytes;
}

static uint64_t offset_of(const struct pst_push_item *it)
{
	const struct pst_push *p = it->push;

	return it->tensor == PST_PUSHED_MASK
		       ? p->head.mask
		       : p->head.gradients + pst_view_tensor(p->view, it->tensor)->offset;
}

static void compute_crc(void *ctx, size_t i)
{
	struct pst_push_item *it = (struct pst_push_item *)ctx + i;

	if (it->push->crc && !it->done)
		it->crc = pst_crc32c(0, it->from, bytes_of(it));
}

static void compute_crcs(struct pst_push_item *items, size_t n, struct pst_device *device)
{
	if (device)
		pst_device_for(device, n, compute_crc, items);
	for (size_t i = 0; !device && i < n; i++)
		compute_crc(items, i);
}

/* What was said over a link that had ended by then was said to nobody. */
static int check_links(struct pst_inbox *inbox, const struct pst_push_item *items, size_t n,
		       struct pst_error *err)
{
	const struct pst_push *last = NULL;
	struct pst_link_info info;

	pst_inbox_pump(inbox, 0);
	for (size_t i = 0; i < n; i++) {
		const struct pst_push *p = items[i].push;

		if (p == last || !p->base)
			continue;
		last = p;
		if (pst_link_info(p->link, &info) == -ENOTCONN)
			return pst_fail(err, -ECONNRESET, "%s: died, or closed its link",
					pst_link_peer(p->link));
	}
	return 0;
}

static int announce(struct pst_push_item *items, size_t n, uint64_t version, struct pst_error *err)
{
	for (size_t i = 0; i < n; i++) {
		struct pst_push *p = items[i].push;
		int rc = 0;

		if (!p->base)
			continue;
		items[i].done = true;
		if (items[i].tensor != PST_PUSHED_MASK)
			rc = pst_rpc_announce(p->inbox, p->link,
					      PST_IMM(p->slot, version, items[i].tensor));
		if (rc < 0)
			return pst_fail(err, rc, "%s: cannot be told of a gradient: %s",
					pst_link_peer(p->link), strerror(-rc));
	}
	return 0;
}

/* One item's write; without a CRC an immediate comes with it. */
static void write_item(struct pst_batch *b, struct pst_push_item *it, struct pst_region *local,
		       uint64_t version)
{
	struct pst_push *p = it->push;
	struct pst_wr wr = {
		.op = PST_WR_WRITE,
		.local = local,
		.local_addr = (void *)(uintptr_t)it->from,
		.key = p->key,
		.remote_off = offset_of(it),
		.len = bytes_of(it),
	};

	if (!p->crc && it->tensor != PST_PUSHED_MASK) {
		wr.flags = PST_WR_IMM;
		wr.imm = PST_IMM(p->slot, version, it->tensor);
	}
	pst_batch_post(p->inbox, b, p->link, &wr, 1);
}

/* One message about items of one server, and its answer. */
struct telling {
	struct pst_msg_pushed_answer answer;
	size_t first; /* it names @count items of the same push that are open, from this one on */
	size_t count;
};

struct sending {
	struct pst_inbox *inbox;
	struct pst_device *device;
	struct pst_push_item *items;
	size_t n;
	uint64_t version;
	size_t tellings; /* under way */
	struct telling telling[TELLINGS];
	struct pst_rpc_call call[TELLINGS];
	struct pst_push_stat *stat;
};

static bool open_of(const struct pst_push_item *it, const struct pst_push *p)
{
	return it->push == p && !it->done;
}

/* Tell about open items of items[first]'s server, as many as fit. *next: the first that did not. */
static int tell_some(struct sending *s, size_t first, size_t *next, struct pst_error *err)
{
	_Alignas(8) char room[sizeof(struct pst_msg_pushed) +
			      PST_PUSHED_MAX * sizeof(struct pst_wire_pushed)];
	struct pst_msg_pushed *m = (struct pst_msg_pushed *)room;
	struct telling *t = &s->telling[s->tellings];
	struct pst_push *p = s->items[first].push;
	size_t i;
	int rc;

	*m = (struct pst_msg_pushed){
		.hdr = {.type = PST_MSG_PUSHED}, .version = s->version, .slot = p->slot};
	for (i = first; i < s->n && m->count < PST_PUSHED_MAX; i++)
		if (open_of(&s->items[i], p))
			m->item[m->count++] =
				(struct pst_wire_pushed){s->items[i].tensor, s->items[i].crc};
	m->hdr.size = (uint32_t)(sizeof(*m) + m->count * sizeof(*m->item));
	t->first = first;
	t->count = m->count;
	rc = pst_rpc_send(s->inbox, &s->call[s->tellings], p->link, &m->hdr, &t->answer,
			  sizeof(t->answer), err);
	if (rc < 0)
		return rc;
	s->tellings++;
	while (i < s->n && !open_of(&s->items[i], p))
		i++;
	*next = i;
	return 0;
}

static void hear(struct sending *s, const struct telling *t)
{
	const struct pst_push *p = s->items[t->first].push;
	size_t k = 0;

	for (size_t i = t->first; k < t->count; i++) {
		if (!open_of(&s->items[i], p))
			continue;
		if (t->answer.bad[k / 64] >> k % 64 & 1)
			s->stat->crc_bad++;
		else
			s->items[i].done = true;
		k++;
	}
}

static int hear_all(struct sending *s, struct pst_error *err)
{
	int rc = pst_rpc_wait(s->inbox, s->call, s->tellings, ANSWER_TIMEOUT_MS, err);

	for (size_t i = 0; i < s->tellings && !rc; i++)
		hear(s, &s->telling[i]);
	s->tellings = 0;
	return rc;
}

/* Every server is told of all that was written there. */
static int tell_all(struct sending *s, struct pst_error *err)
{
	int rc = 0, done;

	for (size_t i = 0; i < s->n; i++)
		s->items[i].push->told = false;
	for (size_t i = 0; i < s->n && !rc; i++) {
		struct pst_push *p = s->items[i].push;

		if (p->told || s->items[i].done)
			continue;
		p->told = true;
		for (size_t at = i; at < s->n && !rc;) {
			rc = tell_some(s, at, &at, err);
			if (!rc && s->tellings == TELLINGS)
				rc = hear_all(s, err);
		}
	}
	done = hear_all(s, rc ? NULL : err);
	return rc < 0 ? rc : done;
}

/* Write what is open, and have it agreed to. */
static int one_try(struct sending *s, struct pst_region *local, struct pst_error *err)
{
	struct pst_batch b;
	int rc = 0, done;

	compute_crcs(s->items, s->n, s->device);
	pst_batch_begin(s->inbox, &b);
	for (size_t i = 0; i < s->n; i++)
		if (!s->items[i].done) {
			write_item(&b, &s->items[i], local, s->version);
			s->stat->bytes += bytes_of(&s->items[i]);
		}
	for (size_t i = 0; i < s->n; i++)
		s->items[i].done |= !s->items[i].push->crc;
	if (!b.status)
		rc = tell_all(s, err);
	done = pst_batch_wait(s->inbox, &b, rc ? NULL : err);
	return rc < 0 ? rc : done;
}

static size_t first_open(const struct sending *s)
{
	size_t i = 0;

	while (i < s->n && s->items[i].done)
		i++;
	return i;
}

static int send_all(struct sending *s, struct pst_region *local, struct pst_error *err)
{
	size_t i = first_open(s);
	int rc = 0;

	for (int tries = 0; i < s->n && tries < TRIES && !rc; tries++) {
		for (size_t k = i; tries && k < s->n; k++)
			s->stat->resent += !s->items[k].done;
		rc = one_try(s, local, err);
		i = first_open(s);
	}
	if (!rc && i < s->n)
		rc = pst_fail(err, -EBADMSG,
			      "%s: a gradient arrived broken %d times (tensor %u); the way there "
			      "changes what it carries: look at its memory, NIC and cables",
			      pst_link_peer(s->items[i].push->link), TRIES, s->items[i].tensor);
	return rc;
}

int pst_push_send(struct pst_inbox *inbox, struct pst_push_item *items, size_t n,
		  struct pst_region *local, uint64_t version, struct pst_device *device,
		  struct pst_push_stat *stat, struct pst_error *err)
{
	struct sending *s;
	int rc;

	for (size_t i = 0; i < n; i++)
		items[i].done = false;
	rc = announce(items, n, version, err);
	if (!rc)
		rc = check_links(inbox, items, n, err);
	if (rc < 0)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return pst_fail(err, -ENOMEM, "no memory to push gradients");
	s->inbox = inbox;
	s->items = items;
	s->n = n;
	s->version = version;
	s->stat = stat;
	s->device = device;
	rc = send_all(s, local, err);
	free(s);
	return rc;
}
