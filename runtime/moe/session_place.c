/* SPDX-License-Identifier: Apache-2.0 */
/* session_place.c - copies that are kept, brought or let go because somebody says so. */
#include "runtime/moe/session_priv.h"

#include "rdma/fail.h"

#include <errno.h>
#include <penstock/ioctl.h>

#define TRIES 3 /* a version may go while it is pulled */

static struct expert *find(const struct pst_session *s, uint32_t layer, uint32_t index)
{
	struct expert *x;

	if (layer >= s->setup.layers || index >= s->setup.experts)
		return NULL;
	x = &s->expert[(size_t)layer * s->setup.experts + index];
	return x->known ? x : NULL;
}

static int unknown(uint32_t layer, uint32_t index, struct pst_error *err)
{
	return pst_fail(err, -ENODATA,
			"expert %u of layer %u: no engine that is served here has such an expert",
			index, layer);
}

/* A request needs room for one more than what is pinned, unless all are. */
static bool room(const struct pst_session *s)
{
	uint32_t pins = s->pins + 1, most = s->experts_at_once;

	return pins < most || (pins == most && pins == s->far_experts);
}

int pst_session_may_pin(const struct pst_session *s, uint32_t layer, uint32_t index,
			struct pst_error *err)
{
	const struct expert *x = find(s, layer, index);

	if (!x)
		return unknown(layer, index, err);
	if (!pst_session_far(s, x) || x->pinned || room(s))
		return 0;
	return pst_fail(err, -ENOSPC,
			"expert %u of layer %u: %u experts are pinned, and there is room for %u; "
			"unpin one",
			index, layer, s->pins, s->experts_at_once);
}

static void pin(struct pst_session *s, struct expert *x, bool pinned)
{
	if (x->pinned == pinned)
		return;
	x->pinned = pinned;
	s->pins += pinned ? 1 : -1u;
	atomic_fetch_add(&x->tally->pins, pinned ? 1 : -1u);
	for (int k = 0; k < MATRICES; k++)
		pst_view_pin(s->source[x->source].view, x->tensor[k], pinned);
}

static void evict(struct pst_session *s, struct expert *x)
{
	pin(s, x, false);
	for (int k = 0; k < MATRICES; k++)
		pst_view_drop(s->source[x->source].view, x->tensor[k]);
}

/* As its server publishes it now. */
static int bring(struct pst_session *s, struct expert *x, struct pst_error *err)
{
	struct pst_view *view = s->source[x->source].view;
	struct pst_error why = {0};
	int rc = -ESTALE;

	for (int i = 0; i < TRIES && rc == -ESTALE; i++) {
		uint64_t version = pst_view_current(view);

		pst_copies_begin(s->copies);
		rc = pst_view_need(view, x->tensor, MATRICES, version, &why);
	}
	return rc < 0 ? pst_fail(err, rc, "%s", why.text) : 0;
}

int pst_session_place(struct pst_session *s, uint32_t layer, uint32_t index, uint32_t order,
		      struct pst_error *err)
{
	struct expert *x = find(s, layer, index);
	bool was;
	int rc;

	if (!x)
		return unknown(layer, index, err);
	if (!pst_session_far(s, x))
		return 0;
	switch (order) {
	case PST_EXPERT_PIN:
		rc = pst_session_may_pin(s, layer, index, err);
		if (rc < 0)
			return rc;
		was = x->pinned;
		pin(s, x, true);
		rc = bring(s, x, err);
		/* one that came too late comes with the next request, and stays */
		if (rc == -ESTALE)
			return 0;
		if (rc < 0)
			pin(s, x, was);
		return rc;
	case PST_EXPERT_UNPIN:
		pin(s, x, false);
		return 0;
	case PST_EXPERT_EVICT:
		evict(s, x);
		return 0;
	case PST_EXPERT_BRING:
		return bring(s, x, err);
	default:
		return pst_fail(err, -EINVAL, "order %u: there is no such order", order);
	}
}
