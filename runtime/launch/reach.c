/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/launch/reach.h"

#include "rdma/fail.h"

#include <errno.h>
#include <time.h>

#define FIRST_MS 200  /* until the first look whether servers still run */
#define LEAVE_MS 5000 /* for a server to be left by those who used it last */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int check_servers(struct pst_launch *l, struct pst_error *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < pst_launch_servers(l) && !rc; i++)
		rc = pst_launch_check_server(l, i, err);
	return rc;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* Is it worth another try, @ms after the first? */
static bool passes(int rc, int64_t ms, int timeout_ms)
{
	if (rc == -EEXIST || rc == -EBUSY)
		return ms < LEAVE_MS && ms < timeout_ms;
	return (rc == -ECONNREFUSED || rc == -ETIMEDOUT) && ms < timeout_ms;
}

/* Tries are short at first, and each is twice as long as the one before. */
int pst_reach_servers(struct pst_launch *l, struct pst_client_options *co, struct pst_client **out,
		      struct pst_error *err)
{
	int timeout_ms = pst_launch_connect_ms(l), rc;
	const char *urls[PST_LAUNCH_MAX];
	int64_t began = now_ms();

	co->urls = urls;
	co->servers = pst_launch_servers(l);
	for (unsigned int i = 0; i < co->servers; i++)
		urls[i] = pst_launch_server(l, i);
	for (int ms = FIRST_MS;; ms *= 2) {
		int64_t left = began + timeout_ms - now_ms();
		struct pst_error why = {0};

		/* one below 0 would be for ever */
		co->timeout_ms = left < 0 ? 0 : left < ms ? (int)left : ms;
		rc = pst_client_open(co, out, &why);
		if (!rc)
			return 0;
		if (!passes(rc, now_ms() - began, timeout_ms))
			return pst_fail(err, rc, "%s", why.text);
		rc = check_servers(l, err);
		if (rc < 0)
			return rc;
		pause_ms(FIRST_MS / 20);
	}
}

static int check_client(void *client, struct pst_error *err)
{
	return pst_client_check(client, err);
}

int pst_reach_workers(struct pst_launch *l, struct pst_client *client, struct pst_moe_options *mo,
		      struct pst_moe **out, struct pst_error *err)
{
	struct pst_wire_server server[PST_LAUNCH_MAX];
	struct pst_moe *moe;
	int rc;

	mo->workers = pst_launch_workers(l);
	mo->nservers = pst_launch_servers(l);
	mo->servers = server;
	mo->connect_ms = pst_launch_connect_ms(l);
	mo->replace = pst_launch_replace;
	mo->check = pst_launch_check_worker;
	mo->ctx = l;
	mo->reach = check_client;
	mo->reach_ctx = client;
	for (unsigned int i = 0; i < mo->nservers; i++)
		pst_client_describe(client, i, &server[i]);
	rc = pst_moe_create(mo, &moe, err);
	if (rc < 0)
		return rc;
	for (unsigned int i = 0; i < mo->workers && !rc; i++) {
		rc = pst_launch_await_worker(l, i, err);
		if (!rc)
			rc = pst_moe_connect(moe, i, pst_launch_worker(l, i), err);
	}
	if (rc < 0)
		pst_moe_destroy(moe);
	else
		*out = moe;
	return rc;
}
