/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-ps: a parameter server. */
#include "daemon/serve.h"

#include <string.h>

static int begin(const struct pst_serve_options *o, void **out, struct pst_error *err)
{
	return pst_server_begin(o, (struct pst_server **)out, err);
}

static const char *url(const void *server)
{
	return pst_server_url(server);
}

static int run(void *server, struct pst_error *err)
{
	return pst_server_run(server, err);
}

static void end(void *server)
{
	pst_server_end(server);
}

static void release(void *server)
{
	pst_server_free(server);
}

/* What the leash asks and orders */

static void tell(void *server, struct pst_leash_hello *hello, struct pst_leash_beat *beat)
{
	struct pst_server_stat s = {.size = sizeof(s)};

	if (pst_server_stat(server, &s) < 0)
		return;
	hello->threads = s.threads;
	hello->node = s.node;
	memcpy(hello->note, s.note, sizeof(hello->note));
	beat->engines = s.clients;
	beat->tables = s.tables;
	beat->calls = s.calls;
	beat->busy_ns = s.busy_ns;
	beat->pool_bytes = s.pool_bytes;
	beat->read_bytes = s.read_bytes;
}

/* What it holds is nobody's any more when its last client has left. */
static void leave(void *server)
{
	struct pst_server_stat s = {.size = sizeof(s)};

	if (!pst_server_stat(server, &s) && !s.clients)
		pst_server_end(server);
}

static int table(void *server, struct pst_leash_table *io)
{
	struct pst_table_stat s = {.size = sizeof(s), .number = io->number};
	int rc = pst_server_table(server, &s);

	if (rc < 0)
		return rc;
	io->number = s.number;
	io->tensors = s.tensors;
	io->clients = s.clients;
	io->bytes = s.bytes;
	io->state_bytes = s.state_bytes;
	io->version = s.version;
	io->pushed = s.pushed;
	memcpy(io->name, s.name, sizeof(io->name));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct leashed_ops leashed = {
		.tell = tell,
		.end = end,
		.leave = leave,
		.table = table,
	};
	static const struct serve_role role = {
		.name = "penstock-ps",
		.what = "a parameter server: it owns tensors, their optimizer state and their "
			"versions",
		.begin = begin,
		.url = url,
		.run = run,
		.end = end,
		.release = release,
		.leash_role = PST_LEASH_SERVER,
		.leashed = &leashed,
	};

	return serve_main(&role, argc, argv);
}
