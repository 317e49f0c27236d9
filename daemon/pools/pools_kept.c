/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools that outlive this process: entries of keep.h named "pool-ID", beside it "reader-ID" for the
 * second dma-buf of one from the module and "lock-ID" for the socket of who holds its lock, and
 * "pools" with the last id. That is kept from the
 * first pool with PST_POOL_CREATE_KEEP on until a daemon ends by order and leaves none of them, so
 * that ids are not used again by the next daemon while somebody may hold one.
 */
#include "daemon/pools/pools_priv.h"

#include "daemon/keep/keep.h"
#include "daemon/log.h"
#include "rdma/fail.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define IDS	    "pools"
#define POOL	    "pool-"
#define READER	    "reader-"
#define LOCK	    "lock-"
#define PAGE_BYTES  4096
#define NAME_DIGITS (2 * PST_NAME_MAX)

/* A name may be any bytes, JSON has letters. */
static void to_hex(char *out, const char *name)
{
	for (; *name; name++, out += 2)
		sprintf(out, "%02x", (unsigned char)*name);
	*out = '\0';
}

static bool from_hex(char *name, const char *hex)
{
	size_t n = hex ? strlen(hex) : 0;
	unsigned int byte;

	if (!n || n % 2 || n >= NAME_DIGITS)
		return false;
	for (; *hex; hex += 2, name++) {
		if (sscanf(hex, "%2x", &byte) != 1 || !byte)
			return false;
		*name = (char)byte;
	}
	*name = '\0';
	return true;
}

static json_t *describe(const struct pool *pool)
{
	const struct pool_memory *m = &pool->memory;
	char name[NAME_DIGITS + 1];

	to_hex(name, pool->name);
	return json_pack("{s:I, s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:s}", "id",
			 (json_int_t)pool->id, "name", name, "bytes", (json_int_t)m->bytes,
			 "page_bytes", (json_int_t)m->page_bytes, "node", m->node, "uid",
			 (json_int_t)pool->uid, "pid", (json_int_t)pool->pid, "pid_time",
			 (json_int_t)pool->pid_time, "flags", (json_int_t)m->flags, "maps",
			 (json_int_t)pool->maps, "huge", m->huge, "module", m->module, "note",
			 m->note);
}

static int put(struct pools *p, const char *prefix, uint32_t id, int fd, json_t *about,
	       struct pst_error *err)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%u", prefix, id);
	return keep_put(p->d->keep, name, fd, about, err);
}

static void drop(struct pools *p, const char *prefix, uint32_t id)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%u", prefix, id);
	keep_drop(p->d->keep, name);
}

int pools_keep_last_id(struct pools *p, bool begin, struct pst_error *err)
{
	json_t *about;
	int rc;

	if (p->ids < 0 && !begin)
		return 0;
	if (p->ids < 0)
		p->ids = memfd_create("penstock-ids", MFD_CLOEXEC);
	if (p->ids < 0)
		return pst_fail(err, -errno, "pools: no descriptor for ids: %s", strerror(errno));
	about = json_pack("{s:I}", "last", (json_int_t)p->last_id);
	if (!about)
		return pst_fail(err, -ENOMEM, "pools: no memory");
	rc = keep_put(p->d->keep, IDS, p->ids, about, err);
	json_decref(about);
	return rc;
}

int pools_keep(struct pool *pool, struct pst_error *err)
{
	struct pools *p = pool->pools;
	json_t *about;
	int rc;

	if (!p->d->keep)
		return pst_fail(err, -EOPNOTSUPP, "pool %s: this daemon keeps nothing", pool->name);
	about = describe(pool);
	if (!about)
		return pst_fail(err, -ENOMEM, "pool %s: it cannot be described", pool->name);
	rc = pools_keep_last_id(p, true, err);
	if (pool->memory.holder < 0)
		drop(p, LOCK, pool->id);
	else if (!rc)
		rc = put(p, LOCK, pool->id, pool->memory.holder, about, err);
	if (!rc && pool->memory.module)
		rc = put(p, READER, pool->id, pool->memory.reader, about, err);
	if (!rc)
		rc = put(p, POOL, pool->id, pool->memory.fd, about, err);
	json_decref(about);
	return rc;
}

void pools_unkeep(struct pool *pool)
{
	if (!pool->keep)
		return;
	drop(pool->pools, POOL, pool->id);
	drop(pool->pools, READER, pool->id);
	drop(pool->pools, LOCK, pool->id);
}

static bool read_pool(struct pool *pool, json_t *about)
{
	struct pool_memory *m = &pool->memory;
	json_int_t id, bytes, page, uid, pid, pid_time, flags, maps;
	const char *name, *note;
	int huge, module;
	struct stat st;

	if (json_unpack(about, "{s:I, s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:s}",
			"id", &id, "name", &name, "bytes", &bytes, "page_bytes", &page, "node",
			&m->node, "uid", &uid, "pid", &pid, "pid_time", &pid_time, "flags", &flags,
			"maps", &maps, "huge", &huge, "module", &module, "note", &note))
		return false;
	if (id < 1 || id > UINT32_MAX || page < PAGE_BYTES || bytes < page || bytes % page ||
	    !from_hex(pool->name, name))
		return false;
	/* a dma-buf has no size there, but its end can be sought */
	if (!module && (fstat(m->fd, &st) || st.st_size != bytes))
		return false;
	pool->id = (uint32_t)id;
	pool->uid = (uid_t)uid;
	pool->pid = (pid_t)pid;
	pool->pid_time = (uint64_t)pid_time;
	pool->maps = (uint32_t)maps;
	m->bytes = (uint64_t)bytes;
	m->page_bytes = (uint64_t)page;
	m->flags = (uint32_t)flags & (PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK);
	m->huge = huge;
	m->module = module;
	snprintf(m->note, sizeof(m->note), "%s", note);
	return true;
}

static void on_pool(void *ctx, const char *name, int fd, json_t *about)
{
	struct pools *p = ctx;
	struct pool *pool = pools_new(p);

	if (!pool) {
		close(fd);
		return;
	}
	pool->keep = true;
	pool->memory.fd = fd;
	if (!read_pool(pool, about) || pools_find(p, pool->id, false)) {
		log_line(LOG_ERR, NULL, "%s that was kept is not understood, and let go", name);
		pool_memory_free(&pool->memory);
		free(pool);
		keep_drop(p->d->keep, name);
		return;
	}
	pools_enlist(p, pool);
}

static void on_reader(void *ctx, const char *name, int fd, json_t *about)
{
	struct pools *p = ctx;
	struct pool *pool =
		pools_find(p, (uint32_t)strtoul(name + strlen(READER), NULL, 10), false);

	(void)about;
	if (pool && pool->memory.module && pool->memory.reader < 0) {
		pool->memory.reader = fd;
		return;
	}
	close(fd);
	keep_drop(p->d->keep, name);
}

static void on_lock(void *ctx, const char *name, int fd, json_t *about)
{
	struct pools *p = ctx;
	struct pool *pool = pools_find(p, (uint32_t)strtoul(name + strlen(LOCK), NULL, 10), false);

	(void)about;
	if (pool && pool->memory.flags & PST_POOL_CREATE_LOCK && pool->memory.holder < 0) {
		pool->memory.holder = fd;
		pools_watch_lock(pool);
		return;
	}
	close(fd);
	keep_drop(p->d->keep, name);
}

static void on_ids(void *ctx, const char *name, int fd, json_t *about)
{
	struct pools *p = ctx;
	json_int_t last = json_integer_value(json_object_get(about, "last"));

	if (strcmp(name, IDS) || p->ids >= 0) {
		close(fd);
		return;
	}
	p->ids = fd;
	if (last > p->last_id && last < UINT32_MAX)
		p->last_id = (uint32_t)last;
}

void pools_bring_back(struct pools *p)
{
	struct pool *pool;

	if (!p->d->keep)
		return;
	keep_each(p->d->keep, IDS, on_ids, p);
	keep_each(p->d->keep, POOL, on_pool, p);
	keep_each(p->d->keep, READER, on_reader, p);
	keep_each(p->d->keep, LOCK, on_lock, p);
	for (pool = TAILQ_FIRST(&p->pools); pool; pool = TAILQ_NEXT(pool, on_pools))
		if (pool->memory.flags & PST_POOL_CREATE_LOCK && !pool->memory.huge &&
		    pool->memory.holder < 0)
			pools_lock_lost(pool);
}

void pools_kept_close(struct pools *p)
{
	const struct pool *pool;
	bool any = false;

	for (pool = TAILQ_FIRST(&p->pools); pool; pool = TAILQ_NEXT(pool, on_pools))
		any |= pool->keep;
	if (p->ids >= 0) {
		close(p->ids);
		if (!any)
			keep_drop(p->d->keep, IDS);
	}
	p->ids = -1;
}
