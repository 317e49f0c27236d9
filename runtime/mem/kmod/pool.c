// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/* Pools as objects: ids and names, who may do what with them, and when they go. */
#include <linux/cred.h>
#include <linux/dma-buf.h>
#include <linux/file.h>
#include <linux/mm.h>
#include <linux/nodemask.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/topology.h>
#include <linux/user_namespace.h>
#include <linux/xarray.h>

#include "kmod.h"

static DEFINE_MUTEX(pools_lock);
static DEFINE_XARRAY(pools); /* by id */
static u32 last_id;

/* Sentences too long to stand where they are said. */
static const char no_node[] =
	"pool %s: node %d has no memory; who has: cat /sys/devices/system/node/has_memory";
static const char too_much[] =
	"pool %s: more than user %u may have; see /sys/module/penstock/parameters/quota";
static const char no_memory[] =
	"pool %s: node %d or memory.max has no %llu bytes more; see numactl -H";
static const char not_yours[] = "pool %s: not yours, and the device is open for reading only";
static const char in_pieces[] =
	"%llu of %llu bytes are in small pages; node %d wants echo 1 >/proc/sys/vm/compact_memory";

static void pool_free(struct kref *ref)
{
	struct pst_pool *pool = container_of(ref, struct pst_pool, ref);

	pst_pages_put(&pool->pages);
	pst_quota_uncharge(pool->uid, pool->bytes);
	put_pid(pool->maker);
	kfree(pool);
}

void pst_pool_put(struct pst_pool *pool)
{
	kref_put(&pool->ref, pool_free);
}

static bool named(const u8 *name)
{
	struct pst_pool *pool;
	unsigned long id;

	xa_for_each(&pools, id, pool) {
		if (!memcmp(pool->name, name, PST_NAME_MAX))
			return true;
	}
	return false;
}

/* From here on the id and the name are taken, but nobody finds the pool before it is ready. */
static int enlist(struct pst_pool *pool)
{
	int rc = -EEXIST;

	mutex_lock(&pools_lock);
	if (named(pool->name))
		goto unlock;
	rc = -ENOSPC;
	if (last_id == U32_MAX)
		goto unlock;
	rc = xa_insert(&pools, last_id + 1, pool, GFP_KERNEL_ACCOUNT);
	if (!rc)
		pool->id = ++last_id;
unlock:
	mutex_unlock(&pools_lock);
	return rc;
}

/* The caller puts it, without the lock. */
static void delist(struct pst_pool *pool)
{
	lockdep_assert_held(&pools_lock);
	xa_erase(&pools, pool->id);
	list_del(&pool->on_door);
}

static struct pst_pool *find(u32 id, bool after)
{
	unsigned long at = id;
	struct pst_pool *pool;

	mutex_lock(&pools_lock);
	pool = after ? xa_find_after(&pools, &at, U32_MAX, XA_PRESENT) : xa_load(&pools, id);
	while (after && pool && !pool->ready)
		pool = xa_find_after(&pools, &at, U32_MAX, XA_PRESENT);
	if (pool && !pool->ready)
		pool = NULL;
	if (pool)
		kref_get(&pool->ref);
	mutex_unlock(&pools_lock);
	return pool;
}

static bool may(const struct pst_door *door, const struct pst_pool *pool)
{
	return door->may_change || uid_eq(door->cred->euid, pool->uid);
}

static u64 page_bytes(const struct pst_pool *pool)
{
	return pool->pages.nhuge == pool->pages.npages ? PMD_SIZE : PAGE_SIZE;
}

/* Pools of a huge page and more are whole huge pages. */
static u64 round_bytes(u64 bytes, bool huge)
{
	u64 unit = huge || bytes >= PMD_SIZE ? PMD_SIZE : PAGE_SIZE;

	return bytes > -unit ? -unit : ALIGN(bytes, unit);
}

static int check_create(struct pst_request *r)
{
	const struct pst_cmd_pool_create *how = &r->arg.create;

	if (!how->name[0])
		return pst_say(r, -EINVAL, "a pool needs a name");
	if (!how->bytes)
		return pst_say(r, -EINVAL, "pool %s: it would have 0 bytes", how->name);
	if (how->node == PST_ANY)
		return 0;
	if (how->node < 0 || how->node >= MAX_NUMNODES || !node_state(how->node, N_MEMORY))
		return pst_say(r, -EINVAL, no_node, how->name, how->node);
	return 0;
}

static int say_create(struct pst_request *r, const struct pst_pool *pool, int node, int rc)
{
	switch (rc) {
	case -EDQUOT:
		return pst_say(r, rc, too_much, pool->name,
			       from_kuid_munged(r->door->cred->user_ns, pool->uid));
	case -EEXIST:
		return pst_say(r, rc, "pool %s: there is a pool with this name", pool->name);
	case -ENOMEM:
		return pst_say(r, rc, no_memory, pool->name, node, pool->bytes);
	case -EINTR:
		return pst_say(r, rc, "pool %s: its maker was killed", pool->name);
	default:
		return pst_say(r, rc, "pool %s: all ids are used up; load the module again",
			       pool->name);
	}
}

int pst_pool_create(struct pst_request *r)
{
	struct pst_cmd_pool_create *how = &r->arg.create;
	int node = how->node == PST_ANY ? numa_mem_id() : how->node;
	bool huge = how->flags & PST_POOL_CREATE_HUGE;
	struct pst_pool *pool;
	int rc;

	rc = check_create(r);
	if (rc)
		return rc;
	pool = kzalloc(sizeof(*pool), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return pst_say(r, -ENOMEM, "pool %s: no memory", how->name);
	kref_init(&pool->ref);
	INIT_LIST_HEAD(&pool->on_door);
	memcpy(pool->name, how->name, PST_NAME_MAX);
	pool->uid = r->door->cred->euid;
	pool->bytes = round_bytes(how->bytes, huge);
	rc = enlist(pool);
	if (rc)
		goto free_pool;
	rc = pst_quota_charge(pool->uid, pool->bytes);
	if (rc)
		goto delist_pool;
	rc = pst_pages_get(&pool->pages, pool->bytes >> PAGE_SHIFT, node, huge);
	if (rc)
		goto uncharge;
	pool->maker = get_pid(task_tgid(current));
	how->out_bytes = pool->bytes;
	how->out_page_bytes = page_bytes(pool);
	how->out_id = pool->id;
	how->out_node = node;
	r->pool = pool;
	return 0;

uncharge:
	pst_quota_uncharge(pool->uid, pool->bytes);
delist_pool:
	mutex_lock(&pools_lock);
	delist(pool);
	mutex_unlock(&pools_lock);
free_pool:
	rc = say_create(r, pool, node, rc);
	kfree(pool);
	return rc;
}

void pst_pool_create_settle(struct pst_request *r, int rc)
{
	struct pst_pool *pool = r->pool;

	if (!pool)
		return;
	mutex_lock(&pools_lock);
	if (rc) {
		delist(pool);
	} else {
		pool->ready = true;
		list_add_tail(&pool->on_door, &r->door->pools);
	}
	mutex_unlock(&pools_lock);
	if (rc)
		pst_pool_put(pool);
}

int pst_pool_map(struct pst_request *r)
{
	struct pst_cmd_pool_map *how = &r->arg.map;
	bool write = !(how->flags & PST_POOL_MAP_READ);
	struct pst_pool *pool = find(how->id, false);
	struct dma_buf *dmabuf;
	int rc;

	if (!pool)
		return pst_say(r, -ENOENT, "there is no pool %u", how->id);
	if (!may(r->door, pool)) {
		rc = pst_say(r, -EPERM, not_yours, pool->name);
		goto put_pool;
	}
	r->fd = get_unused_fd_flags(O_CLOEXEC);
	if (r->fd < 0) {
		rc = pst_say(r, r->fd, "pool %s: no descriptor is free; see ulimit -n", pool->name);
		goto put_pool;
	}
	dmabuf = pst_dmabuf(pool, write);
	if (IS_ERR(dmabuf)) {
		rc = pst_say(r, PTR_ERR(dmabuf), "pool %s: no memory for a dma-buf", pool->name);
		goto put_fd;
	}
	how->out_fd = r->fd;
	how->out_bytes = pool->bytes;
	r->file = dmabuf->file;
	r->pool = pool;
	return 0;

put_fd:
	put_unused_fd(r->fd);
put_pool:
	pst_pool_put(pool);
	return rc;
}

void pst_pool_map_settle(struct pst_request *r, int rc)
{
	if (!r->pool)
		return;
	if (rc) {
		put_unused_fd(r->fd);
		fput(r->file);
	} else {
		atomic_inc(&r->pool->maps);
		fd_install(r->fd, r->file);
	}
	pst_pool_put(r->pool);
}

/* As its reader's namespace has it; 0 when it has ended. */
static u32 maker_of(const struct pst_pool *pool)
{
	u32 pid = 0;

	rcu_read_lock();
	if (pid_task(pool->maker, PIDTYPE_TGID))
		pid = pid_vnr(pool->maker);
	rcu_read_unlock();
	return pid;
}

int pst_pool_stat(struct pst_request *r)
{
	struct pst_cmd_pool_stat *io = &r->arg.stat;
	bool next = io->flags & PST_STAT_NEXT;
	struct pst_pool *pool = find(io->id, next);
	u64 small;

	if (!pool)
		return pst_say(r, -ENOENT,
			       next ? "there is no pool after %u" : "there is no pool %u", io->id);
	small = (pool->pages.npages - pool->pages.nhuge) << PAGE_SHIFT;
	*io = (struct pst_cmd_pool_stat){
		.size = io->size,
		.flags = io->flags,
		.id = pool->id,
		.out_flags = PST_POOL_CREATE_LOCK | (small ? 0 : PST_POOL_CREATE_HUGE),
		.out_bytes = pool->bytes,
		.out_page_bytes = page_bytes(pool),
		.out_node = pool->pages.node,
		.out_uid = from_kuid_munged(r->door->cred->user_ns, pool->uid),
		.out_pid = maker_of(pool),
		.out_maps = atomic_read(&pool->maps),
	};
	io->out_pages = pool->bytes / io->out_page_bytes;
	io->out_pages_elsewhere =
		(pst_pages_elsewhere(&pool->pages) << PAGE_SHIFT) / io->out_page_bytes;
	memcpy(io->out_name, pool->name, PST_NAME_MAX);
	if (small && pool->bytes >= PMD_SIZE)
		scnprintf(io->out_note, sizeof(io->out_note), in_pieces, small, pool->bytes,
			  pool->pages.node);
	pst_pool_put(pool);
	return 0;
}

int pst_pool_destroy(struct pst_request *r)
{
	u32 id = r->arg.destroy.id;
	struct pst_pool *pool;
	bool allowed = false;

	mutex_lock(&pools_lock);
	pool = xa_load(&pools, id);
	if (pool && !pool->ready)
		pool = NULL;
	if (pool) {
		allowed = may(r->door, pool);
		if (allowed)
			delist(pool);
	}
	mutex_unlock(&pools_lock);
	if (!pool)
		return pst_say(r, -ENOENT, "there is no pool %u", id);
	if (!allowed)
		return pst_say(r, -EPERM,
			       "pool %u is not yours, and the device is not open for writing", id);
	pst_pool_put(pool);
	return 0;
}

void pst_pools_forget(struct pst_door *door)
{
	struct pst_pool *pool, *next;
	LIST_HEAD(gone);

	mutex_lock(&pools_lock);
	list_for_each_entry_safe(pool, next, &door->pools, on_door) {
		delist(pool);
		list_add(&pool->on_door, &gone);
	}
	mutex_unlock(&pools_lock);
	list_for_each_entry_safe(pool, next, &gone, on_door) {
		list_del(&pool->on_door);
		pst_pool_put(pool);
	}
}
