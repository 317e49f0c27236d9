/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools in the making: asked for, waiting for room, with penstock-pool, there.
 *
 * What several of them will take together is looked at before they begin: each of them alone
 * asks whether there is memory for it, and would be told that there is.
 */
#include "daemon/pools/pools_priv.h"

#include "daemon/events.h"
#include "daemon/keep/keep.h"
#include "daemon/spawn.h"
#include "rdma/fail.h"
#include "runtime/mem/admit.h"
#include "runtime/mem/place.h"

#include <errno.h>
#include <stddef.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_BYTES (1ull << 45) /* more than any machine has */
#define MAX_POOLS 1024	       /* of a user, since each is descriptors too */

struct making {
	TAILQ_ENTRY(making) on_making;
	struct pools *pools;
	struct request *r;
	struct pool_wish wish;
	uint64_t bytes; /* that it is charged until it is there */
	bool keep, running;
	struct loop_source src; /* the socket of its penstock-pool */
	pid_t pid;
	struct pool_memory memory;
};

static bool named(const struct pools *p, const char *name)
{
	const struct pool *pool;
	const struct making *m;

	for (pool = TAILQ_FIRST(&p->pools); pool; pool = TAILQ_NEXT(pool, on_pools))
		if (!strcmp(pool->name, name))
			return true;
	for (m = TAILQ_FIRST(&p->making); m; m = TAILQ_NEXT(m, on_making))
		if (!strcmp(m->wish.name, name))
			return true;
	return false;
}

/* With what is in the making but @except, which is there by now. */
static uint64_t used(const struct pools *p, uid_t uid, const struct making *except, uint32_t *count)
{
	const struct pool *pool;
	const struct making *m;
	uint64_t sum = 0;

	*count = 0;
	for (pool = TAILQ_FIRST(&p->pools); pool; pool = TAILQ_NEXT(pool, on_pools))
		if (pool->uid == uid) {
			sum += pool->memory.bytes;
			++*count;
		}
	for (m = TAILQ_FIRST(&p->making); m; m = TAILQ_NEXT(m, on_making))
		if (m != except && m->r->who.uid == uid) {
			sum += m->bytes;
			++*count;
		}
	return sum;
}

static int check_quota(const struct pools *p, struct request *r, const char *name, uint64_t bytes,
		       const struct making *except)
{
	uint64_t quota = p->d->config.quota_bytes, have;
	char a[32], b[32], c[32];
	uint32_t count;
	uid_t uid = r->who.uid;

	have = used(p, uid, except, &count);
	if ((!quota || (bytes <= quota && have <= quota - bytes)) && count < MAX_POOLS)
		return 0;
	pst_admit_size(a, sizeof(a), bytes);
	pst_admit_size(b, sizeof(b), have);
	if (count >= MAX_POOLS)
		pst_fail(&r->err, -EDQUOT,
			 "pool %s: user %u has %u pools already, more there cannot be; destroy "
			 "one with: penstockctl pool destroy NAME",
			 name, uid, count);
	else
		pst_fail(&r->err, -EDQUOT,
			 "pool %s: user %u has %s in pools and may have %s, so not %s more; "
			 "destroy one with: penstockctl pool destroy NAME, or raise quota in "
			 "[pools] of penstockd.conf",
			 name, uid, b, pst_admit_size(c, sizeof(c), quota), a);
	events_emit(p->d->events, PST_EVENT_LIMIT, uid,
		    bytes > INT64_MAX ? INT64_MAX : (int64_t)bytes, "%s", r->err.text);
	return -EDQUOT;
}

static int check_node(struct request *r, const char *name, int32_t node)
{
	struct pst_node_mask nodes;

	pst_place_nodes("", &nodes);
	if (node == PST_ANY || pst_place_has(&nodes, node))
		return 0;
	return pst_fail(&r->err, -EINVAL,
			"pool %s: node %d has no memory or does not exist; the nodes that have "
			"are in /sys/devices/system/node/has_memory",
			name, node);
}

static int check(const struct pools *p, struct request *r, const struct pst_cmd_pool_create *how)
{
	const char *name = (const char *)how->name;
	char a[32];
	int rc;

	if (!*name)
		return pst_fail(&r->err, -EINVAL, "a pool needs a name");
	if (!how->bytes)
		return pst_fail(&r->err, -EINVAL, "pool %s: it would have 0 bytes", name);
	rc = check_node(r, name, how->node);
	if (rc)
		return rc;
	if (named(p, name))
		return pst_fail(&r->err, -EEXIST,
				"pool %s: there is one of this name; see penstockctl pools", name);
	rc = check_quota(p, r, name, how->bytes, NULL);
	if (rc)
		return rc;
	if (how->bytes > MAX_BYTES)
		return pst_fail(&r->err, -ENOMEM, "pool %s: no machine has %s of memory", name,
				pst_admit_size(a, sizeof(a), how->bytes));
	return 0;
}

/* The session that it goes with has ended. */
static void session_gone(struct session_end *end)
{
	struct pool *pool = (void *)((char *)end - offsetof(struct pool, end));

	pool->session = NULL;
	pools_remove(pool);
}

/* What was made becomes a pool of its own; then all fields of the answer are known. */
static int settle(struct making *m)
{
	struct pst_cmd_pool_create *how = (struct pst_cmd_pool_create *)m->r->arg;
	struct pools *p = m->pools;
	struct request *r = m->r;
	struct pool *pool;
	int rc;

	/* whole pages may be more than was asked for */
	rc = check_quota(p, r, m->wish.name, m->memory.bytes, m);
	if (rc)
		return rc;
	pool = pools_new(p);
	if (!pool)
		return pst_fail(&r->err, -ENOMEM, "pool %s: no memory", m->wish.name);
	pool->id = p->last_id + 1;
	pool->uid = r->who.uid;
	pool->pid = r->who.pid;
	pool->pid_time = spawn_time(pool->pid);
	pool->keep = m->keep;
	memcpy(pool->name, m->wish.name, sizeof(pool->name));
	pool->memory = m->memory;
	pools_enlist(p, pool);
	rc = pool->keep ? pools_keep(pool, &r->err) : pools_keep_last_id(p, false, &r->err);
	if (rc) {
		pool->memory = POOL_MEMORY_NONE;
		pools_remove(pool);
		return rc;
	}
	if (!pool->keep && r->session) {
		pool->session = r->session;
		pool->end.fn = session_gone;
		session_on_end(r->session, &pool->end);
	}
	pools_watch_lock(pool);
	how->out_bytes = pool->memory.bytes;
	how->out_page_bytes = pool->memory.page_bytes;
	how->out_id = pool->id;
	how->out_node = pool->memory.node;
	if (*pool->memory.note)
		events_emit(p->d->events, PST_EVENT_POOL, pool->id, 0, "pool %s: %s", pool->name,
			    pool->memory.note);
	return 0;
}

/* Does it fit beside those that run? What they have taken already is counted twice: no harm. */
static bool fits(const struct pools *p, const struct making *next)
{
	uint64_t sum = next->bytes, limit, have = pst_admit_memory("");
	uint64_t room = pst_admit_cgroup("", &limit);
	const struct making *m;
	unsigned int running = 0;

	for (m = TAILQ_FIRST(&p->making); m; m = TAILQ_NEXT(m, on_making))
		if (m->running) {
			sum += m->bytes;
			running++;
		}
	return !running || (sum <= have && sum <= room);
}

static void maker_ended(struct loop_source *src, uint32_t events)
{
	struct maker *maker = (void *)((char *)src - offsetof(struct maker, src));

	(void)events;
	loop_unwatch(maker->pools->d->loop, src);
	close(src->fd);
	waitpid(maker->pid, NULL, WNOHANG);
	TAILQ_REMOVE(&maker->pools->makers, maker, on_makers);
	free(maker);
}

/* It is a child, to be waited for whenever it ends. Without that it is left to be one that is dead.
 */
static void look_after(struct pools *p, pid_t pid)
{
	struct maker *maker = calloc(1, sizeof(*maker));

	if (!maker)
		return;
	maker->pools = p;
	maker->pid = pid;
	maker->src.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	maker->src.ready = maker_ended;
	if (maker->src.fd < 0 || loop_watch(p->d->loop, &maker->src, EPOLLIN)) {
		if (maker->src.fd >= 0)
			close(maker->src.fd);
		free(maker);
		return;
	}
	TAILQ_INSERT_TAIL(&p->makers, maker, on_makers);
}

static void start_next(struct pools *p);

static void end(struct making *m, int rc)
{
	struct pools *p = m->pools;
	struct request *r = m->r;

	TAILQ_REMOVE(&p->making, m, on_making);
	free(m);
	request_answer(r, rc);
	start_next(p);
}

/* Who asked and is gone does not know that there is a pool: then there is none. */
static void made(struct loop_source *src, uint32_t events)
{
	struct making *m = (void *)((char *)src - offsetof(struct making, src));
	int rc;

	(void)events;
	/* it may become another source, or be closed */
	loop_unwatch(m->pools->d->loop, src);
	rc = pool_memory_take(&m->wish, src->fd, &m->memory, &m->r->err);
	if (rc == -EAGAIN) {
		rc = loop_watch(m->pools->d->loop, src, EPOLLIN);
		if (!rc)
			return;
		close(src->fd);
	} else if (!rc) {
		rc = m->r->gone ? -ECONNRESET : settle(m);
		if (rc)
			pools_release(m->pools, &m->memory);
	}
	end(m, rc);
}
static int start(struct making *m)
{
	struct pools *p = m->pools;
	int rc = pool_memory_ask(&m->wish, &m->src.fd, &m->pid, &m->r->err);

	if (rc)
		return rc;
	look_after(p, m->pid);
	m->src.ready = made;
	rc = loop_watch(p->d->loop, &m->src, EPOLLIN);
	if (rc) {
		close(m->src.fd);
		return pst_fail(&m->r->err, rc, "pool %s: %s", m->wish.name, strerror(-rc));
	}
	m->running = true;
	return 0;
}

static void start_next(struct pools *p)
{
	struct making *m = TAILQ_FIRST(&p->making);
	int rc;

	while (m && m->running)
		m = TAILQ_NEXT(m, on_making);
	if (!m || (!m->r->gone && !fits(p, m)))
		return;
	rc = m->r->gone ? -ECONNRESET : start(m);
	if (rc)
		end(m, rc); /* which looks for the next one */
	else
		start_next(p);
}

int pools_create(struct pools *p, struct request *r, struct pst_cmd_pool_create *how)
{
	struct making *m;
	int rc = check(p, r, how);

	if (rc)
		return rc;
	m = calloc(1, sizeof(*m));
	if (!m)
		return pst_fail(&r->err, -ENOMEM, "pool %s: no memory", (const char *)how->name);
	m->pools = p;
	m->r = r;
	m->bytes = how->bytes;
	m->keep = how->flags & PST_POOL_CREATE_KEEP;
	m->memory = POOL_MEMORY_NONE;
	m->wish = (struct pool_wish){
		.bytes = how->bytes,
		.node = how->node,
		.pid = r->who.pid,
		.flags = how->flags & (PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK),
		.module = p->module,
	};
	memcpy(m->wish.name, how->name, sizeof(m->wish.name));
	TAILQ_INSERT_TAIL(&p->making, m, on_making);
	start_next(p);
	return REQUEST_LATER;
}

/* Those that are at it are killed, those that hold locks go on. */
void pools_make_close(struct pools *p)
{
	struct maker *maker;
	struct making *m;

	while ((m = TAILQ_FIRST(&p->making))) {
		struct request *r = m->r;

		TAILQ_REMOVE(&p->making, m, on_making);
		if (m->running) {
			loop_unwatch(p->d->loop, &m->src);
			close(m->src.fd);
			kill(m->pid, SIGKILL);
		}
		free(m);
		pst_fail(&r->err, -ECANCELED, "penstockd ends");
		request_answer(r, -ECANCELED);
	}
	while ((maker = TAILQ_FIRST(&p->makers))) {
		TAILQ_REMOVE(&p->makers, maker, on_makers);
		loop_unwatch(p->d->loop, &maker->src);
		close(maker->src.fd);
		free(maker);
	}
}
