/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/client.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"
#include "runtime/mem/pool.h"
#include "runtime/store/region.h"
#include "runtime/store/rpc.h"
#include "runtime/store/shard.h"
#include "runtime/store/view.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define STEP_TIMEOUT_MS 120000
#define FILE_TIMEOUT_MS 3600000

/* One server's part. */
struct part {
	char url[PST_WIRE_URL];
	struct pst_view *view;
	size_t count; /* tensors */
	uint64_t token;
	uint32_t slot_number;
	struct pst_slot_head slot; /* checked */
	char *slot_base;
	uint64_t slot_bytes;
};

/* Where a tensor lives. */
struct place {
	uint32_t part;
	uint32_t index; /* in the part */
};

struct pst_client {
	struct pst_fabric *fabric;
	struct pst_cq *cq;
	unsigned int parts;
	struct part *part;
	size_t count;
	struct place *place;
	struct pst_wire_tensor *tensor;
	struct pst_rpc_call *call; /* one per part */
	uint64_t version;
};

/* Placement */

static uint64_t tensor_bytes(const struct pst_wire_tensor *t)
{
	uint64_t bytes = sizeof(float);

	for (unsigned int d = 0; d < t->ndim; d++)
		bytes *= t->shape[d];
	return bytes;
}

static int place_tensors(struct pst_client *c, const uint32_t *unit)
{
	uint64_t *load = calloc(c->parts, sizeof(*load));

	if (!load)
		return -ENOMEM;
	for (size_t i = 0, end; i < c->count; i = end) {
		uint32_t best = 0;

		for (uint32_t p = 1; p < c->parts; p++)
			if (load[p] < load[best])
				best = p;
		for (end = i; end < c->count && unit[end] == unit[i]; end++) {
			load[best] += tensor_bytes(&c->tensor[end]);
			c->place[end] = (struct place){best, (uint32_t)c->part[best].count++};
		}
	}
	free(load);
	return 0;
}

/* Asking all servers the same thing */

static int ask_all(struct pst_client *c, struct pst_msg *msg, void *answers, size_t len,
		   int timeout_ms, struct pst_error *err)
{
	unsigned int sent;
	int rc = 0, done;

	for (sent = 0; sent < c->parts; sent++) {
		rc = pst_rpc_send(&c->call[sent], pst_view_link(c->part[sent].view), msg,
				  (char *)answers + sent * len, len, err);
		if (rc < 0)
			break;
	}
	done = pst_rpc_wait(c->cq, c->call, sent, timeout_ms, err);
	return rc < 0 ? rc : done;
}

static int ask_plain(struct pst_client *c, struct pst_msg *msg, int timeout_ms,
		     struct pst_error *err)
{
	struct pst_msg_answer *answers = calloc(c->parts, sizeof(*answers));
	int rc;

	if (!answers)
		return pst_fail(err, -ENOMEM, "no memory for answers");
	rc = ask_all(c, msg, answers, sizeof(*answers), timeout_ms, err);
	free(answers);
	return rc;
}

/* Making the table */

/* The directories of all parts, one behind the other, in shared memory. */
static int write_directories(struct pst_client *c, struct pst_pool **pool, uint64_t *offset,
			     struct pst_error *err)
{
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "directories",
		.bytes = c->count * sizeof(*c->tensor),
		.node = PST_NODE_ANY,
	};
	struct pst_wire_tensor *base;
	uint64_t at = 0;
	int rc = pst_pool_create(&po, pool, err);

	if (rc < 0)
		return rc;
	base = pst_pool_base(*pool);
	for (unsigned int p = 0; p < c->parts; p++) {
		offset[p] = at * sizeof(*base);
		at += c->part[p].count;
	}
	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct pst_wire_tensor *t = base + offset[pl->part] / sizeof(*base) + pl->index;

		*t = c->tensor[i];
		t->order = i;
	}
	return 0;
}

static int create_parts(struct pst_client *c, struct pst_region *region, const uint64_t *offset,
			struct pst_error *err)
{
	struct pst_msg_answer *answers = calloc(c->parts, sizeof(*answers));
	unsigned int sent;
	int rc = 0, done;

	if (!answers)
		return pst_fail(err, -ENOMEM, "no memory for answers");
	for (sent = 0; sent < c->parts; sent++) {
		struct pst_link *link = pst_view_link(c->part[sent].view);
		struct pst_msg_table_create m = {
			.hdr = {.size = sizeof(m), .type = PST_MSG_TABLE_CREATE},
			.offset = offset[sent],
			.tensors = c->part[sent].count,
			.shard = sent,
			.shards = c->parts,
		};
		struct pst_key key;

		rc = pst_link_grant(link, region, PST_ACCESS_READ, &key);
		if (rc < 0) {
			pst_fail(err, rc, "%s: cannot be given the table's directory: %s",
				 pst_link_peer(link), strerror(-rc));
			break;
		}
		memcpy(&m.key, &key, sizeof(m.key));
		rc = pst_rpc_send(&c->call[sent], link, &m.hdr, &answers[sent], sizeof(*answers),
				  err);
		if (rc < 0)
			break;
	}
	done = pst_rpc_wait(c->cq, c->call, sent, STEP_TIMEOUT_MS, err);
	free(answers);
	return rc < 0 ? rc : done;
}

static int create_table(struct pst_client *c, struct pst_error *err)
{
	uint64_t *offset = calloc(c->parts, sizeof(*offset));
	struct pst_pool *pool = NULL;
	struct pst_region *region = NULL;
	int rc;

	if (!offset)
		return pst_fail(err, -ENOMEM, "no memory for a table");
	rc = write_directories(c, &pool, offset, err);
	if (rc < 0)
		goto free_offset;
	rc = pst_pool_region(c->fabric, pool, PST_ACCESS_READ, &region, err);
	if (rc < 0)
		goto destroy_pool;
	rc = create_parts(c, region, offset, err);
	for (unsigned int p = 0; p < c->parts && !rc; p++)
		rc = pst_view_open(c->part[p].view, err);
	pst_region_release(region);
destroy_pool:
	pst_pool_destroy(pool);
free_offset:
	free(offset);
	return rc;
}

static int check_parts(const struct pst_client *c, struct pst_error *err)
{
	for (unsigned int p = 0; p < c->parts; p++) {
		if (!c->part[p].count)
			return pst_fail(err, -EINVAL,
					"%u servers are more than this model has pieces for (%u "
					"would do)",
					c->parts, p);
	}
	return 0;
}

int pst_client_open(const struct pst_client_options *o, struct pst_client **out,
		    struct pst_error *err)
{
	struct pst_client *c = calloc(1, sizeof(*c));
	int rc = -ENOMEM;

	if (!c)
		return pst_fail(err, rc, "no memory for a client");
	c->fabric = o->fabric;
	c->parts = o->servers;
	c->count = o->count;
	c->part = calloc(o->servers, sizeof(*c->part));
	c->call = calloc(o->servers, sizeof(*c->call));
	c->place = calloc(o->count, sizeof(*c->place));
	c->tensor = calloc(o->count, sizeof(*c->tensor));
	if (!c->part || !c->call || !c->place || !c->tensor) {
		pst_fail(err, rc, "no memory for a table of %zu tensors", o->count);
		goto close_client;
	}
	memcpy(c->tensor, o->tensors, o->count * sizeof(*c->tensor));
	rc = place_tensors(c, o->unit);
	if (!rc)
		rc = check_parts(c, err);
	if (!rc)
		rc = pst_cq_create(o->fabric, &c->cq, err);
	for (unsigned int p = 0; p < c->parts && !rc; p++) {
		snprintf(c->part[p].url, sizeof(c->part[p].url), "%s", o->urls[p]);
		rc = pst_view_connect(c->cq, o->urls[p], o->timeout_ms, &c->part[p].view, err);
	}
	if (!rc)
		rc = create_table(c, err);
	if (rc < 0)
		goto close_client;
	*out = c;
	return 0;
close_client:
	pst_client_close(c);
	return rc;
}

void pst_client_close(struct pst_client *c)
{
	if (!c)
		return;
	for (unsigned int p = 0; c->part && p < c->parts; p++)
		pst_view_close(c->part[p].view);
	if (c->cq)
		pst_cq_destroy(c->cq);
	free(c->tensor);
	free(c->place);
	free(c->call);
	free(c->part);
	free(c);
}

int pst_client_init(struct pst_client *c, uint64_t seed, struct pst_error *err)
{
	struct pst_msg_table_init m = {.hdr = {.size = sizeof(m), .type = PST_MSG_TABLE_INIT},
				       .seed = seed};

	c->version = 0;
	return ask_plain(c, &m.hdr, STEP_TIMEOUT_MS, err);
}

int pst_client_load(struct pst_client *c, const char *dir, bool optimizer, uint64_t version,
		    struct pst_client_loaded *out, struct pst_error *err)
{
	struct pst_msg_table_load m = {
		.hdr = {.size = sizeof(m), .type = PST_MSG_TABLE_LOAD},
		.version = version,
		.flags = optimizer ? PST_LOAD_OPTIMIZER : 0,
	};
	struct pst_msg_table_loaded *answers;
	int rc;

	if (strlen(dir) >= sizeof(m.path))
		return pst_fail(err, -ENAMETOOLONG, "%s: path too long", dir);
	strcpy(m.path, dir);
	answers = calloc(c->parts, sizeof(*answers));
	if (!answers)
		return pst_fail(err, -ENOMEM, "no memory for answers");
	rc = ask_all(c, &m.hdr, answers, sizeof(*answers), FILE_TIMEOUT_MS, err);
	if (!rc) {
		memset(out, 0, sizeof(*out));
		for (unsigned int p = 0; p < c->parts; p++) {
			out->read_bytes += answers[p].read_bytes;
			out->copied_bytes += answers[p].copied_bytes;
			answers[p].note[sizeof(answers[p].note) - 1] = 0;
			if (!out->note[0])
				memcpy(out->note, answers[p].note, sizeof(out->note));
		}
		c->version = version;
	}
	free(answers);
	return rc;
}

/* Slots */

static bool slot_sane(const struct part *p)
{
	const struct pst_slot_head *h = &p->slot;
	uint64_t buffer = 0;

	for (size_t i = 0; i < pst_view_count(p->view); i++) {
		const struct pst_wire_tensor *t = pst_view_tensor(p->view, i);

		if (t->offset + t->bytes > buffer)
			buffer = t->offset + t->bytes;
	}
	return h->gradients % 64 == 0 && h->norms % 8 == 0 && h->gradients <= p->slot_bytes &&
	       buffer <= p->slot_bytes - h->gradients && h->mask <= p->slot_bytes &&
	       p->count <= p->slot_bytes - h->mask && h->norms <= p->slot_bytes &&
	       p->count * sizeof(double) <= p->slot_bytes - h->norms;
}

int pst_client_train(struct pst_client *c, struct pst_error *err)
{
	struct pst_msg m = {.size = sizeof(m), .type = PST_MSG_SLOT_OPEN};
	struct pst_msg_slot_opened *answers = calloc(c->parts, sizeof(*answers));
	int rc;

	if (!answers)
		return pst_fail(err, -ENOMEM, "no memory for answers");
	rc = ask_all(c, &m, answers, sizeof(*answers), STEP_TIMEOUT_MS, err);
	for (unsigned int i = 0; i < c->parts && !rc; i++) {
		struct part *p = &c->part[i];
		struct pst_key key;
		void *addr;

		memcpy(&key, &answers[i].key, sizeof(key));
		p->token = answers[i].token;
		p->slot_number = answers[i].slot;
		rc = pst_link_map(pst_view_link(p->view), key, PST_ACCESS_WRITE, &addr,
				  &p->slot_bytes);
		if (!rc && p->slot_bytes < sizeof(p->slot))
			rc = -EPROTO;
		if (!rc) {
			p->slot_base = addr;
			memcpy(&p->slot, addr, sizeof(p->slot));
			if (!slot_sane(p))
				rc = -EPROTO;
		}
		if (rc < 0)
			pst_fail(err, rc, "%s: its push slot cannot be used: %s", p->url,
				 strerror(-rc));
	}
	free(answers);
	return rc;
}

/* A step */

int pst_client_begin(struct pst_client *c, const uint8_t *mine, const float **weights,
		     float **grads, uint64_t *version, struct pst_error *err)
{
	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct part *p = &c->part[pl->part];

		weights[i] = NULL;
		if (grads)
			grads[i] = NULL;
		if (!mine[i])
			continue;
		weights[i] = pst_view_weight(p->view, pl->index, c->version);
		if (!weights[i])
			return pst_fail(err, -ESTALE, "%s: no longer holds version %llu", p->url,
					(unsigned long long)c->version);
		if (grads)
			grads[i] = (float *)(p->slot_base + p->slot.gradients +
					     pst_view_tensor(p->view, pl->index)->offset);
	}
	*version = c->version;
	return 0;
}

int pst_client_commit(struct pst_client *c, const uint8_t *mine, const uint8_t *has,
		      double *norm_sq, struct pst_error *err)
{
	struct pst_msg_commit m = {.hdr = {.size = sizeof(m), .type = PST_MSG_COMMIT},
				   .version = c->version};
	double sum = 0;
	int rc;

	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct part *p = &c->part[pl->part];

		p->slot_base[p->slot.mask + pl->index] = (char)has[i];
		if (has[i] && mine[i]) {
			rc = pst_rpc_announce(c->cq, pst_view_link(p->view),
					      PST_IMM(p->slot_number, c->version, pl->index));
			if (rc < 0)
				return pst_fail(err, rc, "%s: cannot be told of a gradient: %s",
						p->url, strerror(-rc));
		}
	}
	rc = ask_plain(c, &m.hdr, STEP_TIMEOUT_MS, err);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < c->count; i++) {
		const struct place *pl = &c->place[i];
		struct part *p = &c->part[pl->part];

		sum += ((const double *)(p->slot_base + p->slot.norms))[pl->index];
	}
	*norm_sq = sum;
	return 0;
}

int pst_client_apply(struct pst_client *c, struct pst_msg_apply *m, struct pst_error *err)
{
	int rc;

	m->hdr = (struct pst_msg){.size = sizeof(*m), .type = PST_MSG_APPLY};
	m->version = c->version;
	rc = ask_plain(c, &m->hdr, STEP_TIMEOUT_MS, err);
	if (!rc)
		c->version++;
	return rc;
}

/* Saving */

static int write_index(struct pst_client *c, const char *dir, const char *stem,
		       const char *const *suffix, int nsuffix, struct pst_error *err)
{
	size_t n = 0, room = c->count * (size_t)nsuffix;
	char(*name)[PST_WIRE_NAME + 16] = calloc(room, sizeof(*name));
	char(*file)[64] = calloc(c->parts, sizeof(*file));
	const char **names = calloc(room, sizeof(*names)), **files = calloc(room, sizeof(*files));
	uint64_t total = 0;
	int rc = -ENOMEM;

	if (!name || !file || !names || !files) {
		pst_fail(err, rc, "no memory for an index");
		goto free_all;
	}
	for (unsigned int p = 0; p < c->parts; p++)
		pst_shard_file(file[p], sizeof(*file), "", stem, p, c->parts);
	for (size_t i = 0; i < c->count; i++) {
		if (suffix[0][0] && c->tensor[i].flags & PST_TENSOR_LOAD)
			continue; /* has no moments */
		for (int k = 0; k < nsuffix; k++, n++) {
			snprintf(name[n], sizeof(*name), "%s%s", c->tensor[i].name, suffix[k]);
			names[n] = name[n];
			files[n] = file[c->place[i].part];
			total += tensor_bytes(&c->tensor[i]);
		}
	}
	rc = pst_safetensors_write_index(dir, stem, names, files, n, total, err);
free_all:
	free(files);
	free(names);
	free(file);
	free(name);
	return rc;
}

int pst_client_save(struct pst_client *c, const char *dir, uint64_t *bytes, struct pst_error *err)
{
	static const char *const model[] = {""}, *const optimizer[] = {".exp_avg", ".exp_avg_sq"};
	struct pst_msg_save m = {.hdr = {.size = sizeof(m), .type = PST_MSG_SAVE}};
	struct pst_msg_saved *answers;
	uint64_t sum = 0;
	int rc;

	if (strlen(dir) >= sizeof(m.path))
		return pst_fail(err, -ENAMETOOLONG, "%s: path too long", dir);
	strcpy(m.path, dir);
	answers = calloc(c->parts, sizeof(*answers));
	if (!answers)
		return pst_fail(err, -ENOMEM, "no memory for answers");
	rc = ask_all(c, &m.hdr, answers, sizeof(*answers), FILE_TIMEOUT_MS, err);
	for (unsigned int p = 0; p < c->parts; p++)
		sum += answers[p].bytes;
	free(answers);
	if (!rc && c->parts > 1)
		rc = write_index(c, dir, "model", model, 1, err);
	if (!rc && c->parts > 1)
		rc = write_index(c, dir, "optimizer", optimizer, 2, err);
	if (!rc)
		*bytes = sum;
	return rc;
}

void pst_client_describe(const struct pst_client *c, unsigned int i, struct pst_wire_server *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->url, c->part[i].url, sizeof(out->url));
	out->token = c->part[i].token;
}

int pst_client_stat(struct pst_client *c, unsigned int server, struct pst_msg_stated *out,
		    struct pst_error *err)
{
	struct pst_msg m = {.size = sizeof(m), .type = PST_MSG_STAT};

	return pst_rpc(c->cq, pst_view_link(c->part[server].view), &m, out, sizeof(*out),
		       STEP_TIMEOUT_MS, err);
}
