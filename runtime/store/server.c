/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/server.h"

#include "rdma/fail.h"
#include "runtime/store/region.h"
#include "runtime/store/rpc.h"
#include "runtime/store/shard.h"
#include "runtime/store/slot.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TABLE_TENSORS (1u << 22)

struct pst_server {
	struct pst_server_config config;
	struct pst_fabric *fabric;
	struct pst_cq *cq;
	struct pst_listener *listener;
	struct pst_device *device;
	struct pst_shard *shard;
	struct pst_region *snapshot;
	struct pst_slot *slot[PST_MAX_SLOTS];
	atomic_bool stop;
};

/* What a handler is given: the request, checked for its length, and who asks. */
struct request {
	struct pst_link *link;
	const void *msg;
	struct pst_error err;
};

/* Table */

static int fetch_directory(struct request *r, const struct pst_msg_table_create *m,
			   struct pst_wire_tensor **out)
{
	struct pst_key key;
	uint64_t len, bytes;
	void *addr;
	int rc;

	if (!m->tensors || m->tensors > MAX_TABLE_TENSORS || !m->shards || m->shard >= m->shards)
		return pst_fail(&r->err, -EINVAL, "a table of %llu tensors, shard %u of %u",
				(unsigned long long)m->tensors, m->shard, m->shards);
	memcpy(&key, &m->key, sizeof(key));
	rc = pst_link_map(r->link, key, PST_ACCESS_READ, &addr, &len);
	bytes = m->tensors * sizeof(**out);
	if (!rc && (m->offset % 8 || m->offset > len || bytes > len - m->offset))
		rc = -ERANGE;
	if (rc < 0)
		return pst_fail(&r->err, rc, "the table's directory cannot be read: %s",
				strerror(-rc));
	*out = malloc(bytes);
	if (!*out)
		return pst_fail(&r->err, -ENOMEM, "no memory for a table of %llu tensors",
				(unsigned long long)m->tensors);
	memcpy(*out, (char *)addr + m->offset, bytes);
	return 0;
}

static int make_table(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_create *m = r->msg;
	struct pst_shard_options o = {
		.size = sizeof(o),
		.count = m->tensors,
		.shard = m->shard,
		.shards = m->shards,
		.device = s->device,
		.node = s->config.node,
		.pool_flags = s->config.pool_flags,
	};
	struct pst_wire_tensor *tensors;
	int rc;

	if (s->shard)
		return pst_fail(&r->err, -EEXIST, "%s: has a table already", s->config.url);
	rc = fetch_directory(r, m, &tensors);
	if (rc < 0)
		return rc;
	o.tensors = tensors;
	rc = pst_shard_create(&o, &s->shard, &r->err);
	free(tensors);
	if (rc < 0)
		return rc;
	rc = pst_pool_region(s->fabric, pst_shard_snapshot(s->shard), PST_ACCESS_READ, &s->snapshot,
			     &r->err);
	if (rc < 0) {
		pst_shard_destroy(s->shard);
		s->shard = NULL;
	}
	return rc;
}

static int answer_plain(struct request *r)
{
	struct pst_msg_answer answer;

	return pst_rpc_answer(r->link, r->msg, &answer, sizeof(answer), &r->err);
}

static int table_create(struct pst_server *s, struct request *r)
{
	make_table(s, r);
	return answer_plain(r);
}

static int table_init(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_init *m = r->msg;

	pst_shard_init(s->shard, m->seed, &r->err);
	return answer_plain(r);
}

static bool path_sane(const char path[PST_WIRE_PATH])
{
	return path[0] == '/' && memchr(path, 0, PST_WIRE_PATH);
}

static int table_load(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_load *m = r->msg;
	struct pst_shard_loaded loaded = {0};
	struct pst_msg_table_loaded answer = {0};

	if (m->flags & ~PST_LOAD_OPTIMIZER || m->reserved || !path_sane(m->path) ||
	    m->version == PST_VERSION_NONE)
		pst_fail(&r->err, -EINVAL, "a load request that makes no sense");
	else
		pst_shard_load(s->shard, m->path, m->flags & PST_LOAD_OPTIMIZER, m->version,
			       &loaded, &r->err);
	answer.read_bytes = loaded.read_bytes;
	answer.copied_bytes = loaded.copied_bytes;
	memcpy(answer.note, loaded.note, sizeof(answer.note));
	return pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
}

static int table_open(struct pst_server *s, struct request *r)
{
	struct pst_msg_table_opened answer = {0};
	struct pst_key key;
	int rc = pst_link_grant(r->link, s->snapshot, PST_ACCESS_READ, &key);

	if (rc < 0)
		pst_fail(&r->err, rc, "the snapshots cannot be granted: %s", strerror(-rc));
	else
		memcpy(&answer.snapshot, &key, sizeof(key));
	return pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
}

static int save(struct pst_server *s, struct request *r)
{
	const struct pst_msg_save *m = r->msg;
	struct pst_msg_saved answer = {0};
	uint64_t bytes = 0;

	if (!path_sane(m->path))
		pst_fail(&r->err, -EINVAL, "a save request that makes no sense");
	else
		pst_shard_save(s->shard, m->path, &bytes, &r->err);
	answer.bytes = bytes;
	return pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
}

/* Slots */

static int free_slot(const struct pst_server *s)
{
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (!s->slot[i])
			return i;
	return -ENOSPC;
}

static int answer_slot(struct request *r, const struct pst_slot *slot, int number)
{
	struct pst_msg_slot_opened answer = {.slot = (uint32_t)number};
	struct pst_key key;
	int rc;

	if (slot && !r->err.code) {
		rc = pst_link_grant(r->link, slot->region, PST_ACCESS_WRITE, &key);
		if (rc < 0)
			pst_fail(&r->err, rc, "the slot cannot be granted: %s", strerror(-rc));
		else
			memcpy(&answer.key, &key, sizeof(key));
		answer.token = slot->token;
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

static int slot_open(struct pst_server *s, struct request *r)
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
		}
	}
	return answer_slot(r, slot, number < 0 ? 0 : number);
}

static int slot_attach(struct pst_server *s, struct request *r)
{
	const struct pst_msg_slot_attach *m = r->msg;

	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (s->slot[i] && s->slot[i]->token == m->token)
			return answer_slot(r, s->slot[i], i);
	pst_fail(&r->err, -EACCES, "no slot has this token");
	return answer_slot(r, NULL, 0);
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

static int commit(struct pst_server *s, struct request *r)
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
		return answer_plain(r);
	pst_slot_commit(slot, &m->hdr);
	try_finish_commit(s);
	return 0;
}

static int apply(struct pst_server *s, struct request *r)
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
	return answer_plain(r);
}

static void immediate(struct pst_server *s, uint32_t imm)
{
	struct pst_slot *slot = s->slot[PST_IMM_SLOT(imm)];

	if (!slot || PST_IMM_TENSOR(imm) >= slot->count)
		return; /* of a client that has gone */
	if (PST_IMM_VERSION(imm) != (pst_shard_version(s->shard) & 1))
		return; /* of a worker that died in the step before */
	slot->arrived[PST_IMM_TENSOR(imm)] = 1;
	try_finish_commit(s);
}

/* Questions about the process */

static int stat_(struct pst_server *s, struct request *r)
{
	struct pst_msg_stated a = {
		.pid = (uint32_t)getpid(),
		.threads = pst_device_threads(s->device),
		.node = s->config.node,
	};
	struct pst_fabric_stat fs;
	struct pst_pool_stat ps;

	pst_fabric_stat(s->fabric, &fs);
	a.moved_bytes = fs.read_bytes + fs.write_bytes;
	a.copied_bytes = fs.copied_bytes;
	snprintf(a.kernels, sizeof(a.kernels), "%s", pst_device_ops(s->device)->kernels);
	if (s->shard) {
		pst_pool_stat(pst_shard_masters(s->shard), &ps);
		a.node = ps.node;
		a.locked = (uint32_t)ps.locked;
		a.page_bytes = ps.page_bytes;
		a.pool_bytes = ps.bytes;
		a.pool_used = ps.used;
		memcpy(a.note, ps.note, sizeof(a.note));
		pst_pool_stat(pst_shard_snapshot(s->shard), &ps);
		a.pool_bytes += ps.bytes;
		a.pool_used += ps.bytes;
	}
	return pst_rpc_answer(r->link, r->msg, &a.answer, sizeof(a), &r->err);
}

/* One table of requests, one check of their length */

static const struct handler {
	int (*handle)(struct pst_server *s, struct request *r);
	size_t bytes;
	bool needs_table;
} handlers[] = {
	[PST_MSG_TABLE_CREATE] = {table_create, sizeof(struct pst_msg_table_create), false},
	[PST_MSG_TABLE_INIT] = {table_init, sizeof(struct pst_msg_table_init), true},
	[PST_MSG_TABLE_LOAD] = {table_load, sizeof(struct pst_msg_table_load), true},
	[PST_MSG_TABLE_OPEN] = {table_open, sizeof(struct pst_msg), true},
	[PST_MSG_SLOT_OPEN] = {slot_open, sizeof(struct pst_msg), true},
	[PST_MSG_SLOT_ATTACH] = {slot_attach, sizeof(struct pst_msg_slot_attach), true},
	[PST_MSG_COMMIT] = {commit, sizeof(struct pst_msg_commit), true},
	[PST_MSG_APPLY] = {apply, sizeof(struct pst_msg_apply), true},
	[PST_MSG_SAVE] = {save, sizeof(struct pst_msg_save), true},
	[PST_MSG_STAT] = {stat_, sizeof(struct pst_msg), false},
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
		answer_plain(&r);
	else
		h->handle(s, &r);
}

static void link_down(struct pst_server *s, struct pst_link *link)
{
	struct pst_slot *gone = NULL, *heir;

	for (int i = 0; i < PST_MAX_SLOTS; i++)
		if (s->slot[i] && s->slot[i]->owner == link) {
			gone = s->slot[i];
			s->slot[i] = NULL;
		}
	pst_link_close(link);
	if (!gone)
		return;
	/* what was summed was acknowledged: the step is made with it */
	heir = first_slot(s);
	if (gone->sum && heir)
		pst_slot_inherit(heir, gone, s->shard);
	pst_slot_destroy(gone);
	try_finish_commit(s);
}

int pst_server_serve(struct pst_server *s, struct pst_error *err)
{
	struct pst_wc wc;

	while (!atomic_load(&s->stop)) {
		int rc = pst_cq_wait(s->cq, &wc, 1, -1);

		if (rc < 0 && rc != -EINTR)
			return pst_fail(err, rc, "%s: %s", s->config.url, strerror(-rc));
		if (rc <= 0)
			continue;
		if (wc.kind == PST_WC_MESSAGE)
			message(s, &wc);
		else if (wc.kind == PST_WC_IMM)
			immediate(s, wc.imm);
		else if (wc.kind == PST_WC_DOWN)
			link_down(s, wc.link);
	}
	return 0;
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
	for (int i = 0; i < PST_MAX_SLOTS; i++)
		pst_slot_destroy(s->slot[i]);
	if (s->snapshot)
		pst_region_release(s->snapshot);
	pst_shard_destroy(s->shard);
	if (s->fabric)
		pst_fabric_close(s->fabric);
	if (s->device)
		pst_device_close(s->device);
	free((char *)s->config.url);
	free(s);
}
