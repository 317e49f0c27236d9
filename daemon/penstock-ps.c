/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-ps: a parameter server. */
#include "daemon/serve.h"

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

int main(int argc, char **argv)
{
	static const struct serve_role role = {
		.name = "penstock-ps",
		.what = "a parameter server: it owns tensors, their optimizer state and their "
			"versions",
		.begin = begin,
		.url = url,
		.run = run,
		.end = end,
		.release = release,
	};

	return serve_main(&role, argc, argv);
}
