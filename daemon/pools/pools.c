/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool is a descriptor and a few words about it. Its memory is filled and locked by another
 * process (pool_memory.h), and given back by a thread, since a pool of hundreds of gigabytes takes
 * minutes; all else is quick and happens here.
 *
 * What is kept (pools_kept.c) outlives this process: the descriptor, and the socket of who holds
 * the lock, so that the memory stays locked while no daemon runs. The lock is lost only when
 * that process is killed; the pool's note says so then. Huge pages that are reserved, and the
 * module's, are never swapped, and nobody holds a lock for them.
 */
#include "daemon/pools/pools_priv.h"

#include "daemon/events.h"
#include "daemon/log.h"
#include "daemon/spawn.h"
#include "rdma/fail.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct pool *pools_find(const struct pools *p, uint32_t id, bool next)
{
	struct pool *pool;

	for (pool = TAILQ_FIRST(&p->pools); pool; pool = TAILQ_NEXT(pool, on_pools))
		if (next ? pool->id > id : pool->id == id)
			return pool;
	return NULL;
}

struct pool *pools_new(struct pools *p)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	pool->pools = p;
	pool->memory = POOL_MEMORY_NONE;
	return pool;
}

void pools_enlist(struct pools *p, struct pool *pool)
{
	struct pool *after = pools_find(p, pool->id, true);

	if (after)
		TAILQ_INSERT_BEFORE(after, pool, on_pools);
	else
		TAILQ_INSERT_TAIL(&p->pools, pool, on_pools);
	if (pool->id > p->last_id)
		p->last_id = pool->id;
}

/* The memory is as it was, but may be swapped from now on. */
void pools_lock_lost(struct pool *pool)
{
	struct pool_memory *m = &pool->memory;

	loop_unwatch(pool->pools->d->loop, &pool->lock);
	if (m->holder >= 0)
		close(m->holder);
	m->holder = -1;
	m->flags &= ~(uint32_t)PST_POOL_CREATE_LOCK;
	snprintf(m->note, sizeof(m->note),
		 "no longer locked: penstock-pool, which held it, was killed (make it anew, or use "
		 "huge pages)");
	events_emit(pool->pools->d->events, PST_EVENT_POOL, pool->id, 0, "pool %s: %s", pool->name,
		    m->note);
	if (pool->keep)
		pools_keep(pool, NULL);
}

static void holder_ended(struct loop_source *src, uint32_t events)
{
	(void)events;
	pools_lock_lost((void *)((char *)src - offsetof(struct pool, lock)));
}

void pools_watch_lock(struct pool *pool)
{
	if (pool->memory.holder < 0)
		return;
	pool->lock = (struct loop_source){.fd = pool->memory.holder, .ready = holder_ended};
	loop_watch(pool->pools->d->loop, &pool->lock, EPOLLIN);
}

struct release {
	struct job job;
	struct pool_memory memory;
};

static void release_run(struct job *job)
{
	pool_memory_free(&((struct release *)job)->memory);
}

static void release_done(struct job *job)
{
	free(job);
}

void pools_release(struct pools *p, struct pool_memory *memory)
{
	struct release *rel = malloc(sizeof(*rel));

	if (rel) {
		*rel = (struct release){
			.job = {.run = release_run, .done = release_done, .drop = release_done},
			.memory = *memory,
		};
		*memory = POOL_MEMORY_NONE;
		jobs_start(p->jobs, &rel->job);
	} else {
		pool_memory_free(memory);
	}
}

void pools_remove(struct pool *pool)
{
	struct pools *p = pool->pools;

	TAILQ_REMOVE(&p->pools, pool, on_pools);
	if (pool->session)
		session_forget(pool->session, &pool->end);
	pools_unkeep(pool);
	loop_unwatch(p->d->loop, &pool->lock);
	pools_release(p, &pool->memory);
	free(pool);
}

int pools_open(struct penstockd *d, struct pools **out, struct pst_error *err)
{
	struct pools *p = calloc(1, sizeof(*p));
	int rc, door;

	if (!p)
		return pst_fail(err, -ENOMEM, "pools: no memory");
	p->d = d;
	p->ids = -1;
	TAILQ_INIT(&p->pools);
	TAILQ_INIT(&p->making);
	TAILQ_INIT(&p->makers);
	rc = jobs_new(d->loop, &p->jobs);
	if (rc) {
		free(p);
		return pst_fail(err, rc, "pools: %s", strerror(-rc));
	}
	door = pool_module_open();
	if (door >= 0)
		close(door);
	else if (door != -ENOENT)
		log_line(LOG_WARNING, NULL,
			 "pools come from memory of this process: /dev/penstock is there, but: %s",
			 strerror(-door));
	p->module = door >= 0;
	pools_bring_back(p);
	*out = p;
	return 0;
}

/* The process is about to end, so nobody minds that this takes its time. */
void pools_close(struct pools *p)
{
	struct pool *pool;

	if (!p)
		return;
	pools_make_close(p);
	pools_kept_close(p);
	while ((pool = TAILQ_FIRST(&p->pools))) {
		TAILQ_REMOVE(&p->pools, pool, on_pools);
		if (pool->session)
			session_forget(pool->session, &pool->end);
		loop_unwatch(p->d->loop, &pool->lock);
		pool_memory_free(&pool->memory);
		free(pool);
	}
	jobs_free(p->jobs);
	free(p);
}

static int no_pool(struct request *r, uint32_t id)
{
	return pst_fail(&r->err, -ENOENT, "there is no pool %u; see penstockctl pools", id);
}

static bool may(const struct caller *who, const struct pool *pool)
{
	return who->may_change || !who->uid || who->uid == pool->uid;
}

int pools_map(struct pools *p, struct request *r, struct pst_cmd_pool_map *how)
{
	struct pool *pool = pools_find(p, how->id, false);
	bool reader = how->flags & PST_POOL_MAP_READ;
	int fd;

	if (!pool)
		return no_pool(r, how->id);
	if (!may(&r->who, pool))
		return pst_fail(&r->err, -EPERM,
				"pool %s is user %u's: user %u may not map it; its owner may, "
				"root, and the group that penstockd.conf names",
				pool->name, pool->uid, r->who.uid);
	fd = reader ? pool_memory_reader(&pool->memory) : pool_memory_writer(&pool->memory);
	if (fd < 0)
		return pst_fail(&r->err, fd, "pool %s: no descriptor for it: %s", pool->name,
				strerror(-fd));
	r->out_fd = fd;
	how->out_bytes = pool->memory.bytes;
	pool->maps++;
	if (pool->keep)
		pools_keep(pool, NULL);
	return 0;
}

int pools_destroy(struct pools *p, struct request *r, uint32_t id)
{
	struct pool *pool = pools_find(p, id, false);

	if (!pool)
		return no_pool(r, id);
	if (!may(&r->who, pool))
		return pst_fail(&r->err, -EPERM,
				"pool %s is user %u's: user %u may not destroy it; its owner may, "
				"root, and the group that penstockd.conf names",
				pool->name, pool->uid, r->who.uid);
	pools_remove(pool);
	return 0;
}

int pools_stat(struct pools *p, bool next, struct pst_cmd_pool_stat *io)
{
	struct pool *pool = pools_find(p, io->id, next);
	static const char unknown[] = "where its pages are is unknown: move_pages is denied (grant "
				      "CAP_SYS_NICE)";
	const struct pool_memory *m;
	const char *note;

	if (!pool)
		return -ENOENT;
	pools_look(pool);
	m = &pool->memory;
	note = *m->note || !pool->unknown ? m->note : unknown;
	*io = (struct pst_cmd_pool_stat){
		.size = io->size,
		.flags = io->flags,
		.id = pool->id,
		.out_flags = m->flags | (pool->keep ? (uint32_t)PST_POOL_CREATE_KEEP : 0),
		.out_bytes = m->bytes,
		.out_page_bytes = m->page_bytes,
		.out_pages = pool->pages,
		.out_pages_elsewhere = pool->elsewhere,
		.out_node = m->node,
		.out_uid = pool->uid,
		.out_maps = pool->maps,
	};
	if (pool->pid_time && spawn_time(pool->pid) == pool->pid_time)
		io->out_pid = (uint32_t)pool->pid;
	memcpy(io->out_name, pool->name, sizeof(io->out_name));
	snprintf((char *)io->out_note, sizeof(io->out_note), "%s", note);
	return 0;
}

void pools_sum(const struct pools *p, uid_t uid, struct pools_sum *out)
{
	const struct pool *pool;

	*out = (struct pools_sum){.module = p->module};
	for (pool = TAILQ_FIRST(&p->pools); pool; pool = TAILQ_NEXT(pool, on_pools)) {
		out->bytes += pool->memory.bytes;
		if (pool->uid == uid)
			out->user_bytes += pool->memory.bytes;
	}
}
