/* SPDX-License-Identifier: Apache-2.0 */
/* server_step.c - slots, what arrives in them, and the steps that are made of it. */
#include "runtime/store/server_priv.h"

#include "runtime/store/region.h"

#include <errno.h>
#include <string.h>

/* Slots */

static int free_slot(const struct pst_server *s)
{
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (!s->slot[i])
			return i;
	return -ENOSPC;
}

static int answer_slot(struct pst_server *s, struct request *r, const struct pst_slot *slot,
		       unsigned int number)
{
	struct pst_msg_slot_opened answer = {.slot = number};
	struct peer *peer = slot ? pst_server_peer(s, r->link, &r->err) : NULL;
	struct pst_key key;
	int rc;

	if (peer) {
		rc = pst_link_grant(r->link, slot->region, PST_ACCESS_WRITE, &key);
		if (rc < 0) {
			pst_fail(&r->err, rc, "the slot cannot be granted: %s", strerror(-rc));
		} else {
			memcpy(&answer.key, &key, sizeof(key));
			answer.token = slot->token;
			peer->slots[number / 64] |= 1ull << number % 64;
		}
	}
	return pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
}

static struct pst_slot *slot_of(struct pst_server *s, const struct pst_link *link)
{
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (s->slot[i] && s->slot[i]->owner == link)
			return s->slot[i];
	return NULL;
}

static struct pst_slot *first_slot(const struct pst_server *s)
{
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (s->slot[i])
			return s->slot[i];
	return NULL;
}

int pst_server_slot_open(struct pst_server *s, struct request *r)
{
	struct pst_slot *slot = NULL, *first = first_slot(s);
	int number = free_slot(s);

	if (slot_of(s, r->link))
		pst_fail(&r->err, -EEXIST, "%s: this engine has a slot already", s->config.url);
	else if (first && first->summed)
		pst_fail(&r->err, -EBUSY, "%s: a step is being made, ask again after it",
			 s->config.url);
	else if (number < 0)
		pst_fail(&r->err, number, "%s: all %d slots are taken", s->config.url,
			 PST_MAX_SLOTS);
	else
		pst_slot_create(s->shard, r->link, s->config.node, s->config.pool_flags, &slot,
				&r->err);
	if (slot) {
		if (pst_pool_region(s->fabric, slot->pool, PST_ACCESS_WRITE, &slot->region,
				    &r->err) < 0) {
			pst_slot_destroy(slot);
			slot = NULL;
		} else {
			s->slot[number] = slot;
			pst_server_tell_pools(s);
		}
	}
	return answer_slot(s, r, slot, number < 0 ? 0 : (unsigned int)number);
}

int pst_server_slot_attach(struct pst_server *s, struct request *r)
{
	const struct pst_msg_slot_attach *m = r->msg;

	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (s->slot[i] && s->slot[i]->token == m->token)
			return answer_slot(s, r, s->slot[i], (unsigned int)i);
	pst_fail(&r->err, -EACCES, "no slot has this token");
	return answer_slot(s, r, NULL, 0);
}

/* A step */

static bool everybody_committed(const struct pst_server *s)
{
	bool any = false;

	for (int i = 0; i < PST_MAX_SLOTS; i++) {
		if (s->slot[i] && !pst_slot_complete(s->slot[i]))
			return false;
		any |= s->slot[i] != NULL;
	}
	return any;
}

/* When the last gradient of the last client is there: sum, square, answer all. */
static void try_finish_commit(struct pst_server *s)
{
	struct pst_slot *first = NULL;

	if (!everybody_committed(s))
		return;
	for (int i = 0; i < PST_MAX_SLOTS; i++) {
		if (!s->slot[i] || s->slot[i]->summed)
			continue;
		if (first)
			pst_slot_add(first, s->slot[i], s->shard, pst_device_ops(s->device));
		else
			first = s->slot[i];
	}
	if (!first)
		return;
	first->sum = true;
	pst_shard_norms(s->shard, first->mask, first->gradients, first->norms);
	for (int i = 0; i < PST_MAX_SLOTS; i++) {
		struct pst_slot *slot = s->slot[i];
		struct pst_msg_answer answer;

		if (!slot)
			continue;
		if (slot != first)
			memcpy(slot->norms, first->norms,
			       pst_shard_count(s->shard) * sizeof(*slot->norms));
		slot->summed = true;
		pst_rpc_answer(slot->owner, &slot->commit, &answer, sizeof(answer), NULL);
	}
}

int pst_server_commit(struct pst_server *s, struct request *r)
{
	const struct pst_msg_commit *m = r->msg;
	struct pst_slot *slot = slot_of(s, r->link);

	if (!slot)
		pst_fail(&r->err, -EINVAL, "a commit without a slot");
	else if (slot->committed)
		pst_fail(&r->err, -EALREADY, "a second commit of one step");
	else if (m->version != pst_shard_version(s->shard))
		pst_fail(&r->err, -ESTALE, "gradients of version %llu, the table is at %llu",
			 (unsigned long long)m->version,
			 (unsigned long long)pst_shard_version(s->shard));
	if (r->err.code)
		return pst_server_answer(r);
	pst_slot_commit(slot, &m->hdr);
	try_finish_commit(s);
	return 0;
}

int pst_server_apply(struct pst_server *s, struct request *r)
{
	struct pst_slot *first = first_slot(s);
	int rc = -EINVAL;

	if (!first || !everybody_committed(s))
		pst_fail(&r->err, rc, "a step before everybody has committed");
	else
		rc = pst_shard_apply(s->shard, first->mask, first->gradients, r->msg);
	if (rc == -EDOM)
		pst_fail(&r->err, rc, "a step whose learning rate or the like makes no sense");
	else if (rc < 0)
		pst_fail(&r->err, -ESTALE, "a step of another version than %llu",
			 (unsigned long long)pst_shard_version(s->shard));
	for (int i = 0; i < PST_MAX_SLOTS && !r->err.code; i++)
		if (s->slot[i])
			pst_slot_reset(s->slot[i]);
	pst_server_tell_version(s);
	return pst_server_answer(r);
}

static bool may_push(const struct pst_link *link, uint32_t number)
{
	const struct peer *peer = pst_link_user(link);

	return peer && number < PST_MAX_SLOTS && peer->slots[number / 64] >> number % 64 & 1;
}

void pst_server_immediate(struct pst_server *s, struct pst_link *link, uint32_t imm)
{
	struct pst_slot *slot = s->slot[PST_IMM_SLOT(imm)];

	if (!slot || !may_push(link, PST_IMM_SLOT(imm)) || PST_IMM_TENSOR(imm) >= slot->count)
		return; /* of a client that has gone, or not one's own */
	if (PST_IMM_VERSION(imm) != (pst_shard_version(s->shard) & 1))
		return; /* of a worker that died in the step before */
	slot->arrived[PST_IMM_TENSOR(imm)] = 1;
	pst_server_count(&s->facts.pushed, pst_shard_tensor_bytes(s->shard, PST_IMM_TENSOR(imm)));
	try_finish_commit(s);
}

static int check_pushed(const struct pst_server *s, const struct pst_link *link,
			const struct pst_msg_pushed *m, struct pst_error *err)
{
	if (!m->count || m->count > PST_PUSHED_MAX ||
	    m->hdr.size != sizeof(*m) + m->count * sizeof(*m->item))
		return pst_fail(err, -EINVAL, "a word of %u pushes whose length is wrong",
				m->count);
	if (!may_push(link, m->slot))
		return pst_fail(err, -EACCES, "slot %u is not one that this link opened or joined",
				m->slot);
	for (uint32_t i = 0; i < m->count; i++)
		if (m->item[i].tensor >= s->slot[m->slot]->count &&
		    m->item[i].tensor != PST_PUSHED_MASK)
			return pst_fail(err, -ERANGE, "no tensor %u in this table",
					m->item[i].tensor);
	if (m->version != pst_shard_version(s->shard) || s->slot[m->slot]->summed)
		return pst_fail(err, -ESTALE,
				"gradients of version %llu, the table is at %llu and takes %s",
				(unsigned long long)m->version,
				(unsigned long long)pst_shard_version(s->shard),
				s->slot[m->slot]->summed ? "no more for it" : "its own only");
	return 0;
}

static void count_pushed(struct pst_server *s, const struct pst_msg_pushed *m, const __u64 *bad)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < m->count; i++)
		if (m->item[i].tensor != PST_PUSHED_MASK && !(bad[i / 64] >> i % 64 & 1))
			bytes += pst_shard_tensor_bytes(s->shard, m->item[i].tensor);
	pst_server_count(&s->facts.pushed, bytes);
}

int pst_server_pushed(struct pst_server *s, struct request *r)
{
	const struct pst_msg_pushed *m = r->msg;
	struct pst_msg_pushed_answer answer = {0};
	int rc;

	if (!check_pushed(s, r->link, m, &r->err)) {
		s->crc_bad += pst_slot_pushed(s->slot[m->slot], s->shard, s->device, m->item,
					      m->count, answer.bad);
		count_pushed(s, m, answer.bad);
	}
	rc = pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
	if (!r->err.code)
		try_finish_commit(s);
	return rc;
}

/* The end of a slot */

struct pst_slot *pst_server_take_slot(struct pst_server *s, const struct pst_link *link,
				      unsigned int *number)
{
	for (unsigned int i = 0; i < PST_MAX_SLOTS; i++) {
		struct pst_slot *slot = s->slot[i];

		if (!slot || slot->owner != link)
			continue;
		s->slot[i] = NULL;
		*number = i;
		return slot;
	}
	return NULL;
}

void pst_server_slot_gone(struct pst_server *s, struct pst_slot *gone)
{
	struct pst_slot *heir = first_slot(s);

	/* what was summed was acknowledged: the step is made with it */
	if (gone->sum && heir)
		pst_slot_inherit(heir, gone, s->shard);
	pst_slot_destroy(gone);
	pst_server_tell_pools(s);
	if (s->creator)
		try_finish_commit(s);
}
