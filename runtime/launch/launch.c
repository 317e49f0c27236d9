/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/launch.h"

#include "rdma/fail.h"
#include "runtime/launch/daemon.h"
#include "runtime/launch/process.h"
#include "runtime/launch/where.h"
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
#include <time.h>

#define REPLACEMENTS 16	   /* of a worker that ends before it listens */
#define AGAIN_MS     100   /* that a dead worker elsewhere may cost when it is looked for; */
#define AGAIN_MAX_MS 1600  /* twice as long each time, up to this */
#define AGAIN_SHARE  20	   /* ... and then not for so many times as long */
#define AGAIN_CALM   60000 /* after this a death is a new one */

/* One server or worker: a thread, a process, or somewhere else. */
struct part {
	char name[PST_WIRE_URL + 32]; /* for people */
	char url[PST_WIRE_URL];	      /* "": not known yet */
	struct pst_server *server;    /* embedded */
	struct pst_worker *worker;    /* embedded */
	pthread_t thread;
	bool running;
	struct pst_process process;
	bool away;    /* others keep it */
	uint32_t pid; /* of one of the daemon's, when it was taken */
	int again_ms;
	int64_t not_before; /* when it may be looked for again */
};

struct pst_launch {
	struct pst_launch_options o;
	struct pst_where where;
	uint32_t tag; /* makes names this run's own */
	unsigned int born;
	char device[64]; /* of workers; "": they are not told */
	char engine[64]; /* that the engine has; "": none */
	struct part *server, *worker;
	char *daemon;	     /* NULL: none */
	bool daemon_workers; /* are its */
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

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

/* Starting */

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

static bool over_shm(const struct pst_launch *l)
{
	return !strcmp(l->where.scheme, "shm");
}

/* Over shm a name says it all; elsewhere a port says nothing. */
static void name_part(const struct pst_launch *l, struct part *p)
{
	bool server = p >= l->server && p < l->server + l->o.servers;
	unsigned int i = (unsigned int)(p - (server ? l->server : l->worker));

	if (p->away || over_shm(l))
		snprintf(p->name, sizeof(p->name), "%s", p->url);
	else
		snprintf(p->name, sizeof(p->name), "%s %u%s%s%s", server ? "server" : "worker", i,
			 p->url[0] ? " (" : "", p->url, p->url[0] ? ")" : "");
}

static int start_process(struct pst_launch *l, struct part *p, const char *program, const char *url,
			 unsigned int threads, const char *device, struct pst_error *err)
{
	struct pst_process_options o = {
		.threads = threads,
		.node = l->o.node,
		.lock = l->o.pool_flags & PST_POOL_LOCK_MUST ? 2
							     : !!(l->o.pool_flags & PST_POOL_LOCK),
		.huge = !!(l->o.pool_flags & PST_POOL_HUGE),
		.device = device,
		.fd = l->where.key_fd,
	};

	return pst_process_start(program, url, &o, &p->process, err);
}

/* Where it will listen; over shm that is also its URL already. */
static int listen_where(struct pst_launch *l, struct part *p, const char *kind,
			char url[PST_URL_MAX], struct pst_error *err)
{
	char name[48];

	snprintf(name, sizeof(name), "penstock-%08x-%s%u", l->tag, kind, l->born++);
	p->url[0] = 0;
	if (over_shm(l))
		snprintf(p->url, sizeof(p->url), "shm://%s", name);
	name_part(l, p);
	return pst_where_listen(&l->where, name, url, err);
}

/* An embedded part listens from its creation on. */
static int take_url(const struct pst_launch *l, struct part *p, struct pst_error *err)
{
	const char *url = p->server ? pst_server_at(p->server) : pst_worker_at(p->worker);

	if ((size_t)snprintf(p->url, sizeof(p->url), "%s", url) >= sizeof(p->url))
		return pst_fail(err, -ENAMETOOLONG, "%s: longer than %zu bytes", url,
				sizeof(p->url) - 1);
	name_part(l, p);
	return start_thread(p, err);
}

static int start_server(struct pst_launch *l, struct part *p, struct pst_error *err)
{
	char url[PST_URL_MAX];
	struct pst_server_config c = {
		.size = sizeof(c),
		.url = url,
		.threads = l->o.server_threads,
		.node = l->o.node,
		.pool_flags = l->o.pool_flags,
	};
	int rc = listen_where(l, p, "ps", url, err);

	if (rc < 0)
		return rc;
	if (!l->o.embedded)
		return start_process(l, p, "penstock-ps", url, c.threads, NULL, err);
	rc = pst_server_create(&c, &p->server, err);
	return rc < 0 ? rc : take_url(l, p, err);
}

static int start_worker(struct pst_launch *l, struct part *p, struct pst_error *err)
{
	char url[PST_URL_MAX];
	struct pst_worker_config c = {
		.size = sizeof(c),
		.url = url,
		.threads = l->o.worker_threads,
		.node = l->o.node,
		.device = l->device[0] ? l->device : NULL,
		.pool_flags = l->o.pool_flags,
	};
	int rc = listen_where(l, p, "worker", url, err);

	if (rc < 0)
		return rc;
	if (!l->o.embedded)
		return start_process(l, p, "penstock-worker", url, c.threads, c.device, err);
	rc = pst_worker_create(&c, &p->worker, err);
	return rc < 0 ? rc : take_url(l, p, err);
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

/* A process over shm is connected to by its name, as soon as it is there. */
static int await(const struct pst_launch *l, struct part *p, struct pst_error *err)
{
	int rc;

	if (p->url[0])
		return 0;
	rc = pst_process_wait(&p->process, p->name, l->o.connect_ms, p->url, sizeof(p->url), err);
	name_part(l, p);
	return rc;
}

/* Creation */

static int take_list(struct pst_launch *l, struct part *part, const char *const *at, unsigned int n,
		     struct pst_error *err)
{
	for (unsigned int i = 0; i < n; i++) {
		int rc = pst_where_peer(&l->where, at[i], part[i].url, err);

		if (rc < 0)
			return rc;
		for (unsigned int k = 0; k < i; k++)
			if (!strcmp(part[k].url, part[i].url))
				return pst_fail(err, -EINVAL, "%s: is in the list twice",
						part[i].url);
		part[i].away = true;
		name_part(l, &part[i]);
	}
	return 0;
}

/* A worker must reach the servers, wherever it is. */
static int check_reach(const struct pst_launch *l, const struct pst_launch_options *o,
		       struct pst_error *err)
{
	bool servers_here = !o->nserver_at,
	     loopback = !l->where.host[0] && strcmp(l->where.scheme, "verbs");

	if (o->listen_host && o->nserver_at && o->nworker_at)
		return pst_fail(err, -EINVAL,
				"host %s to listen on: nothing is started here that would listen",
				o->listen_host);
	/* what the daemon keeps is on this host */
	for (unsigned int i = 0;
	     i < o->nworker_at && !l->daemon_workers && servers_here && loopback; i++)
		if (!pst_where_local(l->worker[i].url))
			return pst_fail(err, -EINVAL,
					"%s: cannot reach servers that listen on 127.0.0.1 of this "
					"host; say an address of it (--listen-host)",
					l->worker[i].url);
	return 0;
}

static int open_where(struct pst_launch *l, const struct pst_launch_options *o,
		      struct pst_error *err)
{
	const char *peer[2 * PST_LAUNCH_MAX];
	struct pst_where_options wo = {
		.fabric = o->fabric,
		.key = o->key,
		.host = o->listen_host,
		.peers = peer,
		.npeers = o->nserver_at + o->nworker_at,
	};

	for (unsigned int i = 0; i < o->nserver_at; i++)
		peer[i] = o->server_at[i];
	for (unsigned int i = 0; i < o->nworker_at; i++)
		peer[o->nserver_at + i] = o->worker_at[i];
	return pst_where_open(&wo, &l->where, err);
}

/* @device as it is told to each of @share that are on it. */
static int tell_device(char to[64], const char *device, unsigned int share, struct pst_error *err)
{
	int n;

	to[0] = '\0';
	if (!strcmp(device, "cpu"))
		return 0;
	if (share < 2 || strncmp(device, "cuda:", 5) || strchr(device, '/'))
		n = snprintf(to, 64, "%s", device);
	else
		n = snprintf(to, 64, "%s/%u", device, share);
	return n < 64 ? 0 : pst_fail(err, -EINVAL, "device '%.64s...' is no GPU", device);
}

/* Workers, and an engine, that share a GPU are told of how many each is one. */
static int take_device(struct pst_launch *l, const struct pst_launch_options *o,
		       struct pst_error *err)
{
	const char *comma = o->device ? strchr(o->device, ',') : NULL, *engine;
	unsigned int workers = o->nworker_at ? 0 : l->o.workers, both;
	char of_workers[64];
	int rc;

	if (!o->device)
		return 0;
	engine = comma ? comma + 1 : o->device;
	snprintf(of_workers, sizeof(of_workers), "%.*s", (int)(strcspn(o->device, ",") % 64),
		 o->device);
	if (!*engine || !*of_workers)
		return pst_fail(err, -EINVAL,
				"device '%.64s' lacks a part: WORKERS,ENGINE, as in cuda:0,cpu, or "
				"one for both",
				o->device);
	if (comma && o->nworker_at && strcmp(of_workers, "cpu"))
		return pst_fail(
			err, -EINVAL,
			"device %s is for workers that are started here, and those of a list "
			"or of penstockd have theirs; for the engine alone: cpu,%s",
			of_workers, engine);
	both = strcmp(of_workers, engine) ? 0 : workers + 1;
	rc = tell_device(l->engine, engine, both, err);
	if (!rc && workers)
		rc = tell_device(l->device, of_workers, both ? both : workers, err);
	return rc;
}

static int make_parts(struct pst_launch *l, const struct pst_launch_options *o,
		      struct pst_error *err)
{
	int rc;

	l->server = calloc(l->o.servers, sizeof(*l->server));
	l->worker = calloc(l->o.workers, sizeof(*l->worker));
	if (!l->server || !l->worker)
		return pst_fail(err, -ENOMEM, "no memory to launch anything");
	if (getrandom(&l->tag, sizeof(l->tag), 0) != sizeof(l->tag))
		return pst_fail(err, -EIO, "no random name for this run");
	rc = take_device(l, o, err);
	if (!rc)
		rc = open_where(l, o, err);
	if (!rc)
		rc = take_list(l, l->server, o->server_at, o->nserver_at, err);
	if (!rc)
		rc = take_list(l, l->worker, o->worker_at, o->nworker_at, err);
	return rc < 0 ? rc : check_reach(l, o, err);
}

static int create(const struct pst_launch_options *opts, const struct pst_daemon_parts *theirs,
		  struct pst_launch **out, struct pst_error *err)
{
	struct pst_launch *l = calloc(1, sizeof(*l));
	int rc;

	if (!l)
		return pst_fail(err, -ENOMEM, "no memory to launch anything");
	l->o = *opts;
	l->daemon_workers = theirs->workers;
	l->o.servers = opts->nserver_at ? opts->nserver_at : opts->servers;
	l->o.workers = opts->nworker_at ? opts->nworker_at : opts->workers;
	if (!l->o.server_threads)
		l->o.server_threads = share_of(l->o.servers);
	if (!l->o.worker_threads)
		l->o.worker_threads = share_of(l->o.workers);
	l->where.key_fd = -1;
	rc = make_parts(l, opts, err);
	if (!rc && opts->daemon) {
		l->daemon = strdup(opts->daemon);
		rc = l->daemon ? 0 : pst_fail(err, -ENOMEM, "no memory to launch anything");
	}
	for (unsigned int i = 0; i < theirs->workers && !rc; i++)
		l->worker[i].pid = theirs->worker[i].pid;
	l->o.server_at = l->o.worker_at = NULL; /* the caller's */
	l->o.fabric = l->o.key = l->o.listen_host = l->o.daemon = l->o.device = NULL;
	if (rc < 0) {
		pst_launch_stop(l);
		return rc;
	}
	*out = l;
	return 0;
}

/* The scheme that was said, with the fabric or in a list; "": none was. */
static void scheme_said(const struct pst_launch_options *o, char scheme[8])
{
	const char *const *list[] = {o->server_at, o->worker_at};
	const unsigned int n[] = {o->nserver_at, o->nworker_at};

	scheme[0] = 0;
	if (o->fabric)
		snprintf(scheme, 8, "%.*s", (int)strcspn(o->fabric, "?"), o->fabric);
	for (int k = 0; k < 2; k++)
		for (unsigned int i = 0; i < n[k] && !*scheme; i++)
			if (strstr(list[k][i], "://"))
				snprintf(scheme, 8, "%.*s",
					 (int)(strstr(list[k][i], "://") - list[k][i]), list[k][i]);
}

/* What the daemon has of the kinds that have no list. It may be starting its workers. */
static int ask_daemon(const struct pst_launch_options *o, char scheme[8],
		      struct pst_daemon_parts *out, struct pst_error *err)
{
	int64_t end = now_ms() + o->connect_ms;

	for (;;) {
		int rc = pst_daemon_ask(o->daemon, PST_LAUNCH_MAX, out, err);

		if (rc < 0)
			return rc;
		scheme_said(o, scheme);
		pst_daemon_choose(out, scheme);
		if (o->nserver_at)
			out->servers = 0;
		if (out->workers || o->nworker_at)
			break;
		pst_daemon_forget(out);
		if (now_ms() >= end)
			return pst_fail(err, -ENODEV,
					"penstockd has no worker that serves over %s; start one: "
					"penstockctl worker start",
					scheme);
		nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * 1000000l}, NULL);
	}
	if (o->nworker_at)
		out->workers = 0;
	return 0;
}

static void list_urls(const struct pst_daemon_part *part, unsigned int n, const char **url)
{
	for (unsigned int i = 0; i < n; i++)
		url[i] = part[i].url;
}

/* As if they were lists. */
static int create_with_daemon(const struct pst_launch_options *opts, struct pst_launch **out,
			      struct pst_error *err)
{
	const char *worker[PST_LAUNCH_MAX], *server[PST_LAUNCH_MAX];
	struct pst_launch_options o = *opts;
	struct pst_daemon_parts theirs;
	char scheme[8];
	int rc = ask_daemon(opts, scheme, &theirs, err);

	if (rc < 0)
		return rc;
	list_urls(theirs.worker, theirs.workers, worker);
	list_urls(theirs.server, theirs.servers, server);
	if (theirs.workers) {
		o.worker_at = worker;
		o.nworker_at = theirs.workers;
	}
	if (theirs.servers) {
		o.server_at = server;
		o.nserver_at = theirs.servers;
	}
	rc = create(&o, &theirs, out, err);
	pst_daemon_forget(&theirs);
	return rc;
}

int pst_launch_create(const struct pst_launch_options *opts, struct pst_launch **out,
		      struct pst_error *err)
{
	static const struct pst_daemon_parts none;

	if (opts->nserver_at > PST_LAUNCH_MAX || opts->nworker_at > PST_LAUNCH_MAX)
		return pst_fail(err, -EINVAL, "more than %d servers or workers", PST_LAUNCH_MAX);
	if (opts->daemon && !(opts->nserver_at && opts->nworker_at))
		return create_with_daemon(opts, out, err);
	return create(opts, &none, out, err);
}

int pst_launch_start(struct pst_launch *l, struct pst_error *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < l->o.servers && !rc; i++)
		if (!l->server[i].away)
			rc = start_server(l, &l->server[i], err);
	for (unsigned int i = 0; i < l->o.workers && !rc; i++)
		if (!l->worker[i].away)
			rc = start_worker(l, &l->worker[i], err);
	/* after all are started: they come up side by side */
	for (unsigned int i = 0; i < l->o.servers && !rc; i++)
		rc = await(l, &l->server[i], err);
	return rc;
}

void pst_launch_stop(struct pst_launch *l)
{
	if (!l)
		return;
	for (unsigned int i = 0; l->worker && i < l->o.workers; i++)
		stop_part(&l->worker[i]);
	for (unsigned int i = 0; l->server && i < l->o.servers; i++)
		stop_part(&l->server[i]);
	pst_where_close(&l->where);
	free(l->daemon);
	free(l->worker);
	free(l->server);
	free(l);
}

/* Asking */

void pst_launch_fabric(const struct pst_launch *l, char url[PST_URL_MAX])
{
	pst_where_fabric(&l->where, url);
}

const char *pst_launch_device(const struct pst_launch *l)
{
	return l->engine;
}

int pst_launch_connect_ms(const struct pst_launch *l)
{
	return l->o.connect_ms;
}

unsigned int pst_launch_servers(const struct pst_launch *l)
{
	return l->o.servers;
}

unsigned int pst_launch_workers(const struct pst_launch *l)
{
	return l->o.workers;
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

	return pst_process_check(&l->server[i].process, l->server[i].name, err);
}

int pst_launch_check_worker(void *ctx, unsigned int i, struct pst_error *err)
{
	struct pst_launch *l = ctx;

	for (unsigned int s = 0; s < l->o.servers; s++)
		if (pst_launch_check_server(l, s, err) < 0)
			return -EHOSTDOWN;
	return pst_process_check(&l->worker[i].process, l->worker[i].name, err);
}

int pst_launch_await_worker(struct pst_launch *l, unsigned int i, struct pst_error *err)
{
	struct part *p = &l->worker[i];

	for (int n = 1;; n++) {
		struct pst_error why = {0};
		int rc = await(l, p, &why);

		if (rc == -ECHILD && n < REPLACEMENTS) {
			stop_part(p);
			rc = start_worker(l, p, err);
			if (!rc)
				continue;
		}
		return rc < 0 ? pst_fail(err, rc, "%s", why.text) : 0;
	}
}

/* Nobody is waited for long where nobody may ever be: an engine has other workers. */
static int try_again(struct part *p)
{
	int64_t now = now_ms();

	if (now < p->not_before)
		return -EAGAIN;
	if (!p->again_ms || now > p->not_before + AGAIN_CALM)
		p->again_ms = AGAIN_MS;
	else if (p->again_ms < AGAIN_MAX_MS)
		p->again_ms *= 2;
	p->not_before = now + (1 + AGAIN_SHARE) * p->again_ms;
	return p->again_ms;
}

static bool in_use(const struct pst_launch *l, const struct part *but, const char *url)
{
	for (unsigned int i = 0; i < l->o.workers; i++)
		if (&l->worker[i] != but && !strcmp(l->worker[i].url, url))
			return true;
	return false;
}

/* One that no other part is; rather another process than the one that was lost. */
static const struct pst_daemon_part *pick(const struct pst_launch *l, const struct part *p,
					  const struct pst_daemon_parts *theirs)
{
	const struct pst_daemon_part *same = NULL;

	for (unsigned int i = 0; i < theirs->workers; i++) {
		const struct pst_daemon_part *w = &theirs->worker[i];

		if (in_use(l, p, w->url))
			continue;
		if (strcmp(w->url, p->url) || w->pid != p->pid)
			return w;
		same = w;
	}
	return same;
}

static int replace_by_daemon(struct pst_launch *l, struct part *p, struct pst_error *err)
{
	const struct pst_daemon_part *w = NULL;
	struct pst_daemon_parts theirs = {0};
	struct pst_error why = {0};
	char scheme[8];

	if (now_ms() < p->not_before)
		return -EAGAIN;
	memcpy(scheme, l->where.scheme, sizeof(scheme));
	if (!pst_daemon_ask(l->daemon, PST_LAUNCH_MAX, &theirs, &why)) {
		pst_daemon_choose(&theirs, scheme);
		w = pick(l, p, &theirs);
	}
	if (w) {
		memcpy(p->url, w->url, sizeof(p->url));
		p->pid = w->pid;
		name_part(l, p);
	}
	pst_daemon_forget(&theirs);
	if (w)
		return try_again(p);
	p->not_before = now_ms() + AGAIN_MS;
	return pst_fail(err, -EAGAIN, "%s",
			why.code ? why.text
				 : "penstockd has no worker that serves beside those that are in "
				   "use; start one: penstockctl worker start");
}

int pst_launch_replace(void *ctx, unsigned int i, char url[PST_WIRE_URL], struct pst_error *err)
{
	struct pst_launch *l = ctx;
	struct part *p = &l->worker[i];
	int rc = 0;

	if (p->away) {
		rc = l->daemon_workers ? replace_by_daemon(l, p, err) : try_again(p);
		if (rc < 0)
			return rc;
	} else {
		stop_part(p);
		rc = start_worker(l, p, err);
		if (!rc)
			rc = await(l, p, err);
		if (rc < 0)
			return rc;
	}
	memcpy(url, p->url, PST_WIRE_URL);
	return rc;
}
