/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/daemon.h"

#include "rdma/fail.h"
#include "runtime/penstock.h"

#include <errno.h>
#include <penstock/ioctl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(PST_URL_BYTES == PST_WIRE_URL, "a URL of the one is one of the other");

static int add(struct pst_daemon_part **list, unsigned int *n, const __u8 *url, uint32_t id,
	       uint32_t pid, struct pst_error *err)
{
	struct pst_daemon_part *grown = realloc(*list, (*n + 1) * sizeof(*grown));

	if (!grown)
		return pst_fail(err, -ENOMEM, "no memory for a list of workers");
	*list = grown;
	grown += (*n)++;
	memcpy(grown->url, url, sizeof(grown->url));
	grown->url[sizeof(grown->url) - 1] = 0;
	grown->id = id;
	grown->pid = pid;
	return 0;
}

/* A walk ended: well at the last one; else @why says it. */
static int walked(int rc, const struct pst_error *why, struct pst_error *err)
{
	if (!rc || rc == -ENOENT)
		return 0;
	if (rc == -ENOTTY)
		return pst_fail(err, rc, "this door keeps no workers: penstockd does not run here");
	return pst_fail(err, rc, "penstockd cannot be asked: %s",
			why->code ? why->text : strerror(-rc));
}

static int ask_workers(struct pst_control *c, unsigned int max, struct pst_daemon_parts *p,
		       struct pst_error *err)
{
	struct pst_cmd_worker_stat w = {.size = sizeof(w), .flags = PST_STAT_NEXT};
	struct pst_error why = {0};
	int rc = 0;

	while (!rc && p->workers < max) {
		rc = pst_control_call(c, PST_CMD_WORKER_STAT, &w, &why);
		if (!rc && w.out_state == PST_WORKER_SERVING && w.out_url[0])
			rc = add(&p->worker, &p->workers, w.out_url, w.id, w.out_pid, &why);
	}
	return walked(rc, &why, err);
}

/* One that is being started again has the same URL: it is waited for there. */
static int ask_servers(struct pst_control *c, unsigned int max, struct pst_daemon_parts *p,
		       struct pst_error *err)
{
	struct pst_cmd_server_stat s = {.size = sizeof(s), .flags = PST_STAT_NEXT};
	struct pst_error why = {0};
	int rc = 0;

	while (!rc && p->servers < max) {
		rc = pst_control_call(c, PST_CMD_SERVER_STAT, &s, &why);
		if (!rc && s.out_url[0])
			rc = add(&p->server, &p->servers, s.out_url, s.id, s.out_pid, &why);
	}
	return walked(rc, &why, err);
}

int pst_daemon_ask(const char *door, unsigned int max, struct pst_daemon_parts *out,
		   struct pst_error *err)
{
	struct pst_daemon_parts p = {0};
	struct pst_control *c;
	int rc = pst_control_open(*door ? door : NULL, &c, err);

	if (rc < 0)
		return rc;
	rc = ask_workers(c, max, &p, err);
	if (!rc)
		rc = ask_servers(c, max, &p, err);
	pst_control_close(c);
	if (rc < 0)
		pst_daemon_forget(&p);
	else
		*out = p;
	return rc;
}

void pst_daemon_forget(struct pst_daemon_parts *p)
{
	free(p->worker);
	free(p->server);
	*p = (struct pst_daemon_parts){0};
}

static bool of(const struct pst_daemon_part *p, const char *scheme)
{
	size_t n = strlen(scheme);

	return !strncmp(p->url, scheme, n) && !strncmp(p->url + n, "://", 3);
}

static unsigned int keep(struct pst_daemon_part *p, unsigned int n, const char *scheme)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < n; i++)
		if (of(&p[i], scheme))
			p[kept++] = p[i];
	return kept;
}

/* Workers count; between equals, servers. */
static unsigned int weight(const struct pst_daemon_parts *p, const char *scheme)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < p->workers; i++)
		n += of(&p->worker[i], scheme) ? 2 : 0;
	for (unsigned int i = 0; i < p->servers; i++)
		if (of(&p->server[i], scheme))
			return n + 1;
	return n;
}

void pst_daemon_choose(struct pst_daemon_parts *p, char scheme[8])
{
	static const char *const all[] = {"shm", "tcp", "verbs"};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all) && !*scheme; i++) {
		bool most = true;

		for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++)
			most &= weight(p, all[k]) <= weight(p, all[i]);
		if (most)
			strcpy(scheme, all[i]);
	}
	p->workers = keep(p->worker, p->workers, scheme);
	p->servers = keep(p->server, p->servers, scheme);
}
