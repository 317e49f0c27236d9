/* SPDX-License-Identifier: Apache-2.0 */
/* server_table.c - the table of a server: made, filled, shown, saved. */
#include "runtime/store/server_priv.h"

#include "runtime/store/region.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TABLE_TENSORS (1u << 22)

/* Making a table */

static int check_create(const struct pst_server *s, const struct pst_msg_table_create *m,
			struct pst_error *err)
{
	if (s->shard)
		return pst_fail(err, -EEXIST, "%s: has a table already", s->config.url);
	if (s->making)
		return pst_fail(err, -EBUSY, "%s: a table is being made, ask again", s->config.url);
	if (!m->tensors || m->tensors > MAX_TABLE_TENSORS || !m->shards || m->shard >= m->shards)
		return pst_fail(err, -EINVAL, "a table of %llu tensors, shard %u of %u",
				(unsigned long long)m->tensors, m->shard, m->shards);
	return 0;
}

static int unreadable(struct pst_error *err, int rc)
{
	return pst_fail(err, rc, "the table's directory cannot be read: %s", strerror(-rc));
}

static int make_table(struct pst_server *s, struct pst_link *link,
		      const struct pst_msg_table_create *m, const struct pst_wire_tensor *tensors,
		      struct pst_error *err)
{
	struct pst_shard_options o = {
		.size = sizeof(o),
		.tensors = tensors,
		.count = m->tensors,
		.shard = m->shard,
		.shards = m->shards,
		.device = s->device,
		.node = s->config.node,
		.pool_flags = s->config.pool_flags,
	};
	int rc;

	/* that it ends is to be noticed */
	if (!pst_server_peer(s, link, err))
		return err->code;
	rc = pst_shard_create(&o, &s->shard, err);
	if (rc < 0)
		return rc;
	rc = pst_pool_region(s->fabric, pst_shard_snapshot(s->shard), PST_ACCESS_READ, &s->snapshot,
			     err);
	if (rc < 0) {
		pst_shard_destroy(s->shard);
		s->shard = NULL;
		return rc;
	}
	s->creator = link;
	pst_server_tell_table(s, m->shard, m->shards);
	return 0;
}

/* The directory is in mapped memory of a peer: what is checked is what was copied. */
static int make_from_mapped(struct pst_server *s, struct request *r, const void *addr, uint64_t len)
{
	const struct pst_msg_table_create *m = r->msg;
	uint64_t bytes = m->tensors * sizeof(struct pst_wire_tensor);
	struct pst_wire_tensor *copy;
	int rc;

	if (m->offset % 8 || m->offset > len || bytes > len - m->offset)
		return unreadable(&r->err, -ERANGE);
	copy = malloc(bytes);
	if (!copy)
		return pst_fail(&r->err, -ENOMEM, "no memory for a table of %llu tensors",
				(unsigned long long)m->tensors);
	memcpy(copy, (const char *)addr + m->offset, bytes);
	rc = make_table(s, r->link, m, copy, &r->err);
	free(copy);
	return rc;
}

void pst_server_stop_making(struct pst_server *s)
{
	if (s->making->region)
		pst_region_release(s->making->region);
	pst_pool_destroy(s->making->pool);
	free(s->making);
	s->making = NULL;
}

static int post_read(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_create *m = r->msg;
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "directory",
		.bytes = m->tensors * sizeof(struct pst_wire_tensor),
		.node = s->config.node,
	};
	struct pst_wr wr = {.op = PST_WR_READ, .remote_off = m->offset, .len = po.bytes};
	struct making *k = s->making;
	int rc = pst_pool_create(&po, &k->pool, &r->err);

	if (!rc)
		rc = pst_pool_region(s->fabric, k->pool, PST_ACCESS_READ, &k->region, &r->err);
	if (rc < 0)
		return rc;
	memcpy(&wr.key, &m->key, sizeof(wr.key));
	wr.local = k->region;
	wr.local_addr = pst_pool_base(k->pool);
	rc = pst_link_post(r->link, &wr, 1);
	return rc == 1 ? 0 : unreadable(&r->err, rc ? rc : -EAGAIN);
}

/* Others are served while the directory comes. */
static int start_making(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_create *m = r->msg;
	int rc;

	if (m->offset % 8)
		return unreadable(&r->err, -ERANGE);
	s->making = calloc(1, sizeof(*s->making));
	if (!s->making || !pst_server_peer(s, r->link, &r->err)) {
		free(s->making);
		s->making = NULL;
		return pst_fail(&r->err, -ENOMEM, "no memory for a table");
	}
	s->making->link = r->link;
	s->making->ask = *m;
	rc = post_read(s, r);
	if (rc < 0)
		pst_server_stop_making(s);
	return rc;
}

void pst_server_made(struct pst_server *s, const struct pst_wc *wc)
{
	struct making *k = s->making;
	struct request r = {.link = wc->link};
	struct pst_msg_table_create ask;

	if (!k || k->link != wc->link)
		return;
	ask = k->ask;
	r.msg = &ask;
	if (wc->status < 0)
		unreadable(&r.err, wc->status);
	else
		make_table(s, k->link, &ask, pst_pool_base(k->pool), &r.err);
	pst_server_stop_making(s);
	pst_server_answer(&r);
}

int pst_server_table_create(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_create *m = r->msg;
	struct pst_key key;
	uint64_t len;
	void *addr;
	int rc = check_create(s, m, &r->err);

	if (rc < 0)
		return pst_server_answer(r);
	memcpy(&key, &m->key, sizeof(key));
	rc = pst_link_map(r->link, key, PST_ACCESS_READ, &addr, &len);
	if (rc == -EOPNOTSUPP) {
		if (!start_making(s, r))
			return 0; /* answered when the directory is there */
	} else if (rc < 0) {
		unreadable(&r->err, rc);
	} else {
		make_from_mapped(s, r, addr, len);
	}
	return pst_server_answer(r);
}

void pst_server_drop_table(struct pst_server *s)
{
	if (s->snapshot)
		pst_region_release(s->snapshot);
	pst_shard_destroy(s->shard);
	s->snapshot = NULL;
	s->shard = NULL;
	s->creator = NULL;
	pst_server_tell_gone(s);
}

/* Requests about it */

int pst_server_table_init(struct pst_server *s, struct request *r)
{
	const struct pst_msg_table_init *m = r->msg;

	pst_shard_init(s->shard, m->seed, &r->err);
	pst_server_tell_version(s);
	return pst_server_answer(r);
}

static bool path_sane(const char path[PST_WIRE_PATH])
{
	return path[0] == '/' && memchr(path, 0, PST_WIRE_PATH);
}

int pst_server_table_load(struct pst_server *s, struct request *r)
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
	pst_server_count(&s->facts.read_bytes, loaded.read_bytes);
	pst_server_tell_version(s);
	answer.read_bytes = loaded.read_bytes;
	answer.copied_bytes = loaded.copied_bytes;
	memcpy(answer.note, loaded.note, sizeof(answer.note));
	return pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
}

int pst_server_table_open(struct pst_server *s, struct request *r)
{
	struct pst_msg_table_opened answer = {0};
	struct peer *peer = pst_server_peer(s, r->link, &r->err);
	struct pst_key key;
	int rc;

	if (peer) {
		rc = pst_link_grant(r->link, s->snapshot, PST_ACCESS_READ, &key);
		if (rc < 0) {
			pst_fail(&r->err, rc, "the snapshots cannot be granted: %s", strerror(-rc));
		} else {
			memcpy(&answer.snapshot, &key, sizeof(key));
			peer->reads = true;
		}
	}
	return pst_rpc_answer(r->link, r->msg, &answer.answer, sizeof(answer), &r->err);
}

int pst_server_save(struct pst_server *s, struct request *r)
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
