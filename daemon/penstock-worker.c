/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-worker: computes experts. */
#include "daemon/serve.h"

static int begin(const struct pst_serve_options *o, void **out, struct pst_error *err)
{
	return pst_worker_begin(o, (struct pst_worker **)out, err);
}

static const char *url(const void *worker)
{
	return pst_worker_url(worker);
}

static int run(void *worker, struct pst_error *err)
{
	return pst_worker_run(worker, err);
}

static void end(void *worker)
{
	pst_worker_end(worker);
}

static void release(void *worker)
{
	pst_worker_free(worker);
}

int main(int argc, char **argv)
{
	static const struct serve_role role = {
		.name = "penstock-worker",
		.what = "an expert worker: it computes experts for engines and keeps nothing that "
			"can be lost",
		.begin = begin,
		.url = url,
		.run = run,
		.end = end,
		.release = release,
	};

	return serve_main(&role, argc, argv);
}
