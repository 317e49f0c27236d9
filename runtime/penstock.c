/* SPDX-License-Identifier: Apache-2.0 */
/* penstock.c - the public face of what servers and workers are below. */
#include "runtime/penstock.h"

#include "rdma/fail.h"
#include "runtime/host.h"
#include "runtime/launch/where.h"
#include "runtime/moe/worker.h"
#include "runtime/store/server.h"

#include <errno.h>
#include <string.h>

const char *pst_version(void)
{
	return PST_VERSION;
}

void pst_serve_defaults(struct pst_serve_options *o)
{
	*o = (struct pst_serve_options){.size = sizeof(*o),
					.host = {.node = -1, .huge = 1, .lock = 1}};
}

/* Options with the defaults of what the caller left out, and @url to open and to listen at. */
static int take_options(const struct pst_serve_options *opts, struct pst_serve_options *o,
			char url[PST_URL_MAX], struct pst_error *err)
{
	int rc;

	pst_serve_defaults(o);
	rc = pst_host_take_options(o, sizeof(*o), opts, opts->size, err);
	if (rc < 0)
		return rc;
	if (!o->url)
		return pst_fail(err, -EINVAL, "no URL to listen at was named");
	return pst_where_add_key(o->url, o->key, url, err);
}

/*
 * To a struct of the caller's from ours of @bytes, both with their size first. The caller's may be
 * an older one; of a newer one he has zeros behind what we know.
 */
static int give(void *to, const void *from, size_t bytes)
{
	size_t size = *(const size_t *)to;

	if (size < sizeof(size))
		return -EINVAL;
	memset(to, 0, size);
	memcpy(to, from, size < bytes ? size : bytes);
	*(size_t *)to = size;
	return 0;
}

/* The fields of @io up to @bytes are read: they must be there. */
static bool has(const void *io, size_t bytes)
{
	return *(const size_t *)io >= bytes;
}

int pst_server_begin(const struct pst_serve_options *opts, struct pst_server **out,
		     struct pst_error *err)
{
	struct pst_server_config c = {.size = sizeof(c)};
	struct pst_serve_options o;
	char url[PST_URL_MAX];
	int rc = take_options(opts, &o, url, err);

	if (rc < 0)
		return rc;
	c.url = url;
	c.threads = o.host.threads;
	c.node = o.host.node;
	c.pool_flags = pst_host_pool_flags(&o.host);
	return pst_server_create(&c, out, err);
}

const char *pst_server_url(const struct pst_server *server)
{
	return pst_server_at(server);
}

int pst_server_run(struct pst_server *server, struct pst_error *err)
{
	return pst_server_serve(server, err);
}

void pst_server_end(struct pst_server *server)
{
	pst_server_stop(server);
}

int pst_server_stat(struct pst_server *server, struct pst_server_stat *out)
{
	struct pst_server_facts f;
	struct pst_server_stat s;

	pst_server_facts(server, &f);
	s = (struct pst_server_stat){
		.pool_bytes = f.pool_bytes,
		.read_bytes = f.read_bytes,
		.calls = f.calls,
		.busy_ns = f.busy_ns,
		.tables = f.tables,
		.clients = f.clients,
		.threads = f.threads,
		.node = f.node,
	};
	memcpy(s.note, f.note, sizeof(s.note));
	return give(out, &s, sizeof(s));
}

int pst_server_table(struct pst_server *server, struct pst_table_stat *io)
{
	struct pst_table_facts f = {0};
	struct pst_table_stat s;
	int rc;

	if (!has(io, offsetof(struct pst_table_stat, tensors)))
		return -EINVAL;
	f.number = io->number;
	rc = pst_server_next_table(server, &f);
	if (rc < 0)
		return rc;
	s = (struct pst_table_stat){
		.number = f.number,
		.tensors = f.tensors,
		.clients = f.clients,
		.bytes = f.bytes,
		.state_bytes = f.state_bytes,
		.version = f.version,
		.pushed = f.pushed,
	};
	memcpy(s.name, f.name, sizeof(s.name));
	return give(io, &s, sizeof(s));
}

void pst_server_free(struct pst_server *server)
{
	pst_server_destroy(server);
}

int pst_worker_begin(const struct pst_serve_options *opts, struct pst_worker **out,
		     struct pst_error *err)
{
	struct pst_worker_config c = {.size = sizeof(c)};
	struct pst_serve_options o;
	char url[PST_URL_MAX];
	int rc = take_options(opts, &o, url, err);

	if (rc < 0)
		return rc;
	c.url = url;
	c.threads = o.host.threads;
	c.node = o.host.node;
	c.device = o.host.device;
	c.pool_flags = pst_host_pool_flags(&o.host);
	return pst_worker_create(&c, out, err);
}

const char *pst_worker_url(const struct pst_worker *worker)
{
	return pst_worker_at(worker);
}

int pst_worker_run(struct pst_worker *worker, struct pst_error *err)
{
	return pst_worker_serve(worker, err);
}

void pst_worker_end(struct pst_worker *worker)
{
	pst_worker_stop(worker);
}

void pst_worker_drain(struct pst_worker *worker)
{
	pst_worker_leave(worker);
}

int pst_worker_stat(struct pst_worker *worker, struct pst_worker_stat *out)
{
	struct pst_worker_facts f;
	struct pst_worker_stat s;

	pst_worker_facts(worker, &f);
	s = (struct pst_worker_stat){
		.rows = f.tally.rows,
		.calls = f.tally.calls,
		.busy_ns = f.tally.busy_ns,
		.busy_since_ns = f.tally.busy_since_ns,
		.pulled = f.tally.pulled,
		.moved = f.moved,
		.copied = f.copied,
		.engines = f.tally.engines,
		.threads = f.threads,
		.draining = f.draining,
		.node = f.node,
	};
	snprintf(s.kernels, sizeof(s.kernels), "%s", f.kernels);
	memcpy(s.note, f.tally.note, sizeof(s.note));
	return give(out, &s, sizeof(s));
}

int pst_worker_expert(struct pst_worker *worker, struct pst_expert_stat *io)
{
	struct pst_tally_expert_stat f;
	struct pst_expert_stat s;
	int rc;

	if (!has(io, offsetof(struct pst_expert_stat, bytes)))
		return -EINVAL;
	f.layer = io->layer;
	f.index = io->index;
	rc = pst_worker_next_expert(worker, &f);
	if (rc < 0)
		return rc;
	s = (struct pst_expert_stat){
		.layer = f.layer,
		.index = f.index,
		.bytes = f.bytes,
		.rows = f.rows,
		.pulled = f.pulled,
		.copied = f.copied,
		.pinned = f.pinned,
	};
	return give(io, &s, sizeof(s));
}

int pst_worker_place(struct pst_worker *worker, uint32_t layer, uint32_t index, uint32_t order,
		     struct pst_error *err)
{
	return pst_worker_order(worker, layer, index, order, err);
}

int pst_worker_bind(struct pst_worker *worker, const char *op, int image, struct pst_error *err)
{
	return pst_worker_take_kernel(worker, op, image, err);
}

int pst_worker_check(struct pst_worker *worker, const char *op, uint64_t seed, double *error,
		     struct pst_error *err)
{
	return pst_worker_try_kernel(worker, op, seed, error, err);
}

void pst_worker_free(struct pst_worker *worker)
{
	pst_worker_destroy(worker);
}
