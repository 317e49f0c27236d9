/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/launch.h"

#include "rdma/fail.h"
#include "runtime/launch/process.h"
#include "runtime/mem/pool.h"
#include "runtime/moe/worker.h"
#include "runtime/store/server.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* One server or worker, as a thread or as a process. */
struct part {
	char url[PST_WIRE_URL];
	struct pst_server *server; /* embedded */
	struct pst_worker *worker; /* embedded */
	pthread_t thread;
	bool running;
	struct pst_process process;
};

struct pst_launch {
	struct pst_launch_options o;
	uint32_t tag; /* makes URLs this run's own */
	unsigned int born;
	struct part *server, *worker;
};

unsigned int pst_launch_cores(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set))
		return 1;
	return (unsigned int)CPU_COUNT(&set);
}

static unsigned int share_of(unsigned int parts)
{
	unsigned int cores = pst_launch_cores();

	return cores > parts ? cores / parts : 1;
}

static void *serve_server(void *arg)
{
	pst_server_serve(arg, NULL);
	return NULL;
}

static void *serve_worker(void *arg)
{
	pst_worker_serve(arg, NULL);
	return NULL;
}

static int start_thread(struct part *p, struct pst_error *err)
{
	int rc = p->server ? pthread_create(&p->thread, NULL, serve_server, p->server)
			   : pthread_create(&p->thread, NULL, serve_worker, p->worker);

	if (rc)
		return pst_fail(err, -rc, "%s: no thread for it: %s", p->url, strerror(rc));
	p->running = true;
	return 0;
}

static void name_part(struct pst_launch *l, struct part *p, const char *kind)
{
	snprintf(p->url, sizeof(p->url), "shm://penstock-%08x-%s%u", l->tag, kind, l->born++);
}

static int start_process(struct pst_launch *l, struct part *p, const char *program,
			 unsigned int threads, struct pst_error *err)
{
	struct pst_process_options o = {
		.threads = threads,
		.node = l->o.node,
		.lock = l->o.pool_flags & PST_POOL_LOCK_MUST ? 2
							     : !!(l->o.pool_flags & PST_POOL_LOCK),
		.huge = !!(l->o.pool_flags & PST_POOL_HUGE),
	};

	return pst_process_start(program, p->url, &o, &p->process, err);
}

static int start_server(struct pst_launch *l, struct part *p, struct pst_error *err)
{
	struct pst_server_config c = {
		.size = sizeof(c),
		.url = p->url,
		.threads = l->o.server_threads,
		.node = l->o.node,
		.pool_flags = l->o.pool_flags,
	};
	int rc;

	name_part(l, p, "ps");
	if (!l->o.embedded)
		return start_process(l, p, "penstock-ps", c.threads, err);
	rc = pst_server_create(&c, &p->server, err);
	return rc < 0 ? rc : start_thread(p, err);
}

static int start_worker(struct pst_launch *l, struct part *p, struct pst_error *err)
{
	struct pst_worker_config c = {
		.size = sizeof(c),
		.url = p->url,
		.threads = l->o.worker_threads,
		.node = l->o.node,
		.pool_flags = l->o.pool_flags,
	};
	int rc;

	name_part(l, p, "worker");
	if (!l->o.embedded)
		return start_process(l, p, "penstock-worker", c.threads, err);
	rc = pst_worker_create(&c, &p->worker, err);
	return rc < 0 ? rc : start_thread(p, err);
}

static void stop_part(struct part *p)
{
	if (p->server)
		pst_server_stop(p->server);
	if (p->worker)
		pst_worker_stop(p->worker);
	if (p->running)
		pthread_join(p->thread, NULL);
	pst_server_destroy(p->server);
	pst_worker_destroy(p->worker);
	pst_process_kill(&p->process);
	*p = (struct part){0};
}

int pst_launch_start(const struct pst_launch_options *opts, struct pst_launch **out,
		     struct pst_error *err)
{
	struct pst_launch *l = calloc(1, sizeof(*l));
	int rc = 0;

	if (!l)
		return pst_fail(err, -ENOMEM, "no memory to launch anything");
	l->o = *opts;
	if (!l->o.server_threads)
		l->o.server_threads = share_of(opts->servers);
	if (!l->o.worker_threads)
		l->o.worker_threads = share_of(opts->workers);
	l->server = calloc(opts->servers, sizeof(*l->server));
	l->worker = calloc(opts->workers, sizeof(*l->worker));
	if (!l->server || !l->worker)
		rc = pst_fail(err, -ENOMEM, "no memory to launch anything");
	else if (getrandom(&l->tag, sizeof(l->tag), 0) != sizeof(l->tag))
		rc = pst_fail(err, -EIO, "no random name for this run");
	for (unsigned int i = 0; i < opts->servers && !rc; i++)
		rc = start_server(l, &l->server[i], err);
	for (unsigned int i = 0; i < opts->workers && !rc; i++)
		rc = start_worker(l, &l->worker[i], err);
	if (rc < 0) {
		pst_launch_stop(l);
		return rc;
	}
	*out = l;
	return 0;
}

void pst_launch_stop(struct pst_launch *l)
{
	if (!l)
		return;
	for (unsigned int i = 0; l->worker && i < l->o.workers; i++)
		stop_part(&l->worker[i]);
	for (unsigned int i = 0; l->server && i < l->o.servers; i++)
		stop_part(&l->server[i]);
	free(l->worker);
	free(l->server);
	free(l);
}

const char *pst_launch_server(const struct pst_launch *l, unsigned int i)
{
	return l->server[i].url;
}

const char *pst_launch_worker(const struct pst_launch *l, unsigned int i)
{
	return l->worker[i].url;
}

int pst_launch_check_server(void *ctx, unsigned int i, struct pst_error *err)
{
	struct pst_launch *l = ctx;

	return pst_process_check(&l->server[i].process, l->server[i].url, err);
}

int pst_launch_check_worker(void *ctx, unsigned int i, struct pst_error *err)
{
	struct pst_launch *l = ctx;

	for (unsigned int s = 0; s < l->o.servers; s++)
		if (pst_launch_check_server(l, s, err) < 0)
			return -EHOSTDOWN;
	return pst_process_check(&l->worker[i].process, l->worker[i].url, err);
}

int pst_launch_replace(void *ctx, unsigned int i, char url[PST_WIRE_URL], struct pst_error *err)
{
	struct pst_launch *l = ctx;
	struct part *p = &l->worker[i];
	int rc;

	stop_part(p);
	rc = start_worker(l, p, err);
	if (rc < 0)
		return rc;
	memcpy(url, p->url, PST_WIRE_URL);
	return 0;
}
