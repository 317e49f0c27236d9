/* SPDX-License-Identifier: Apache-2.0 */
/* penstock-worker: computes experts. */
#include "daemon/serve.h"

#include <string.h>
#include <time.h>

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

/* What the leash asks and orders */

static uint32_t ms_since(uint64_t since_ns)
{
	struct timespec t;
	uint64_t now;

	if (!since_ns)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	return now > since_ns ? (uint32_t)((now - since_ns) / 1000000) + 1 : 1;
}

static void tell(void *worker, struct pst_leash_hello *hello, struct pst_leash_beat *beat)
{
	struct pst_worker_stat s = {.size = sizeof(s)};

	if (pst_worker_stat(worker, &s) < 0)
		return;
	hello->threads = s.threads;
	hello->node = s.node;
	memcpy(hello->kernels, s.kernels, sizeof(hello->kernels));
	memcpy(hello->note, s.note, sizeof(hello->note));
	beat->engines = s.engines;
	beat->draining = s.draining;
	beat->busy_ms = ms_since(s.busy_since_ns);
	beat->rows = s.rows;
	beat->calls = s.calls;
	beat->busy_ns = s.busy_ns;
	beat->pulled = s.pulled;
	beat->moved = s.moved;
	beat->copied = s.copied;
}

static void drain(void *worker)
{
	pst_worker_drain(worker);
}

static int expert(void *worker, struct pst_leash_expert *io)
{
	struct pst_expert_stat s = {.size = sizeof(s), .layer = io->layer, .index = io->index};
	int rc = pst_worker_expert(worker, &s);

	if (rc < 0)
		return rc;
	io->layer = s.layer;
	io->index = s.index;
	io->bytes = s.bytes;
	io->rows = s.rows;
	io->pulled = s.pulled;
	io->copied = s.copied;
	io->pinned = s.pinned;
	return 0;
}

static int place(void *worker, const struct pst_leash_place *how, struct pst_error *err)
{
	return pst_worker_place(worker, how->layer, how->index, how->order, err);
}

static int bind_op(void *worker, const char *op, int image, struct pst_error *err)
{
	return pst_worker_bind(worker, op, image, err);
}

static int check(void *worker, const char *op, uint64_t seed, double *error, struct pst_error *err)
{
	return pst_worker_check(worker, op, seed, error, err);
}

int main(int argc, char **argv)
{
	static const struct leashed_ops leashed = {
		.tell = tell,
		.end = end,
		.leave = drain,
		.drain = drain,
		.expert = expert,
		.place = place,
		.bind = bind_op,
		.check = check,
	};
	static const struct serve_role role = {
		.name = "penstock-worker",
		.computes = true,
		.what = "an expert worker: it computes experts for engines and keeps nothing that "
			"can be lost",
		.begin = begin,
		.url = url,
		.run = run,
		.end = end,
		.release = release,
		.leash_role = PST_LEASH_WORKER,
		.leashed = &leashed,
	};

	return serve_main(&role, argc, argv);
}
