/* SPDX-License-Identifier: Apache-2.0 */
/* penstock.c - the public face of what servers and workers are below. */
#include "runtime/penstock.h"

#include "rdma/fail.h"
#include "runtime/host.h"
#include "runtime/launch/where.h"
#include "runtime/moe/worker.h"
#include "runtime/store/server.h"

#include <errno.h>

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

void pst_worker_free(struct pst_worker *worker)
{
	pst_worker_destroy(worker);
}
