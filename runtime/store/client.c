/* SPDX-License-Identifier: Apache-2.0 */
/* client.c - the table of a client: opened, made, filled, saved. */
#include "runtime/store/client_priv.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"
#include "runtime/mem/pool.h"
#include "runtime/store/region.h"
#include "runtime/store/shard.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define FILE_TIMEOUT_MS 3600000

/* Placement */

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
			load[best] += pst_client_bytes(&c->tensor[end]);
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
		rc = pst_rpc_send(c->inbox, &c->call[sent], pst_view_link(c->part[sent].view), msg,
				  (char *)answers + sent * len, len, err);
		if (rc < 0)
			break;
	}
	done = pst_rpc_wait(c->inbox, c->call, sent, timeout_ms, err);
	return rc < 0 ? rc : done;
}

int pst_client_ask(struct pst_client *c, struct pst_msg *msg, int timeout_ms, struct pst_error *err)
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
		rc = pst_rpc_send(c->inbox, &c->call[sent], link, &m.hdr, &answers[sent],
				  sizeof(*answers), err);
		if (rc < 0)
			break;
	}
	done = pst_rpc_wait(c->inbox, c->call, sent, STEP_TIMEOUT_MS, err);
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
	c->want = calloc(o->servers, sizeof(*c->want));
	c->item = calloc(o->count + o->servers, sizeof(*c->item));
	c->gradient = calloc(o->count, sizeof(*c->gradient));
	c->copy_bytes = o->copy_bytes;
	if (!c->part || !c->call || !c->place || !c->tensor || !c->want || !c->item ||
	    !c->gradient) {
		pst_fail(err, rc, "no memory for a table of %zu tensors", o->count);
		goto close_client;
	}
	memcpy(c->tensor, o->tensors, o->count * sizeof(*c->tensor));
	rc = place_tensors(c, o->unit);
	if (!rc)
		rc = check_parts(c, err);
	if (!rc)
		rc = pst_inbox_create(o->fabric, 0, &c->inbox, err);
	for (unsigned int p = 0; p < c->parts && !rc; p++) {
		snprintf(c->part[p].url, sizeof(c->part[p].url), "%s", o->urls[p]);
		rc = pst_view_connect(c->inbox, o->urls[p], o->timeout_ms, &c->part[p].view, err);
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
	for (unsigned int p = 0; c->part && p < c->parts; p++) {
		pst_push_close(c->part[p].push);
		pst_view_close(c->part[p].view);
		free(c->part[p].wanted);
	}
	pst_inbox_destroy(c->inbox);
	pst_copies_destroy(c->copies);
	pst_client_free_local(c);
	free(c->mine);
	free(c->gradient);
	free(c->item);
	free(c->want);
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
	return pst_client_ask(c, &m.hdr, STEP_TIMEOUT_MS, err);
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
			total += pst_client_bytes(&c->tensor[i]);
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
	out->token = c->part[i].push ? pst_push_token(c->part[i].push) : 0;
}

int pst_client_stat(struct pst_client *c, unsigned int server, struct pst_msg_stated *out,
		    struct pst_error *err)
{
	struct pst_msg m = {.size = sizeof(m), .type = PST_MSG_STAT};

	return pst_rpc(c->inbox, pst_view_link(c->part[server].view), &m, out, sizeof(*out),
		       STEP_TIMEOUT_MS, err);
}

int pst_client_check(struct pst_client *c, struct pst_error *err)
{
	struct pst_link_info info;

	pst_inbox_pump(c->inbox, 0);
	for (unsigned int i = 0; i < c->parts; i++) {
		const struct pst_link *link = pst_view_link(c->part[i].view);

		if (pst_link_info(link, &info) != -ENOTCONN)
			continue;
		if (*pst_link_why(link))
			return pst_fail(err, -EHOSTDOWN, "%s", pst_link_why(link));
		return pst_fail(err, -EHOSTDOWN, "%s: died, or closed its link",
				pst_link_peer(link));
	}
	return 0;
}
