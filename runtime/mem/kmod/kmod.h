/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The parts of penstock.ko, and how they know of each other.
 *
 *	door    /dev/penstock: one table of commands, one copy-in, one sentence per file
 *	pool    objects with ids and names, and who owns them
 *	quota   how much each user has
 *	pages   memory of one node, in blocks as large as can be had
 *	dmabuf  a pool as a descriptor, for processes to map and for devices to import
 *
 * A pool is held by the table of ids, while it has one, and by each descriptor that was given
 * out. Its memory, and what it counts against its user's quota, is given back by the last.
 *
 * No lock is held while memory is looked for, so that nobody waits for somebody's pool. Locks are
 * not nested: the table of ids, the quotas, a file's sentence and an export's list each stand
 *alone.
 */
#ifndef PST_KMOD_H
#define PST_KMOD_H

#include <linux/bits.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <penstock/ioctl.h>

/* A file that /dev/penstock was opened as. */
struct pst_door {
	const struct cred *cred; /* of who opened it: it is charged, and asked whose pools are */
	bool may_change;	 /* it was opened for writing */
	struct mutex lock;	 /* of @why */
	struct pst_cmd_why why;
	struct list_head pools; /* that go with it; under the lock of the table of ids */
};

union pst_arg {
	struct {
		__u32 size;
		__u32 flags;
	} head;
	struct pst_cmd_info info;
	struct pst_cmd_why why;
	struct pst_cmd_pool_create create;
	struct pst_cmd_pool_map map;
	struct pst_cmd_pool_stat stat;
	struct pst_cmd_pool_destroy destroy;
};

struct pst_pool;

/*
 * A command whose struct was checked. What a handler made stays in @pool and @fd until it is
 * known whether the caller can be told; then pst_*_settle() publishes it or takes it back.
 */
struct pst_request {
	struct pst_door *door;
	const char *name; /* the command's, to begin sentences with */
	union pst_arg arg;
	struct pst_pool *pool;
	struct file *file;
	int fd;
};

/* Say in one sentence, behind the command's name, why it failed, for WHY; returns @code. */
int pst_say(struct pst_request *r, int code, const char *fmt, ...) __printf(3, 4);

/* Handlers of the pool commands. */
int pst_pool_create(struct pst_request *r);
void pst_pool_create_settle(struct pst_request *r, int rc);
int pst_pool_map(struct pst_request *r);
void pst_pool_map_settle(struct pst_request *r, int rc);
int pst_pool_stat(struct pst_request *r);
int pst_pool_destroy(struct pst_request *r);
/* The door's file is closed: its pools go. */
void pst_pools_forget(struct pst_door *door);

/* Bytes in pools of all users, what @uid may have (~0: as much as there is), and what he has. */
void pst_quota_tell(kuid_t uid, u64 *all, u64 *may, u64 *has);
/* For one pool more. -EDQUOT, -ENOMEM */
int pst_quota_charge(kuid_t uid, u64 bytes);
void pst_quota_uncharge(kuid_t uid, u64 bytes);

#define PST_HUGE_ORDER (PMD_SHIFT - PAGE_SHIFT)
#define PST_HUGE_PAGES BIT(PST_HUGE_ORDER)

/* Pages that lie together: a compound page, the @first page of the pool that it is. */
struct pst_block {
	struct page *page;
	unsigned long first;
};

/* Blocks become no larger from the first to the last, so that each is aligned to its size. */
struct pst_pages {
	struct pst_block *block;
	unsigned long nblocks;
	unsigned long npages;
	unsigned long nhuge; /* of @npages, those in blocks of PST_HUGE_ORDER */
	int node;
};

/*
 * @npages of zeros on @node, and on no other; with @huge in huge blocks only. -ENOMEM, -EINTR: the
 * caller is being killed. @out is untouched on failure.
 */
int pst_pages_get(struct pst_pages *out, unsigned long npages, int node, bool huge);
void pst_pages_put(struct pst_pages *pages);
struct page *pst_pages_at(const struct pst_pages *pages, unsigned long index);
int pst_pages_table(const struct pst_pages *pages, struct sg_table *table);
/* How many are not on their node. */
unsigned long pst_pages_elsewhere(const struct pst_pages *pages);

struct pst_pool {
	struct kref ref;
	struct pst_pages pages;
	u64 bytes;
	kuid_t uid; /* who is charged */
	struct pid *maker;
	struct list_head on_door;
	u32 id;
	bool ready; /* its maker knows of it */
	atomic_t maps;
	char name[PST_NAME_MAX];
};

void pst_pool_put(struct pst_pool *pool);

/* A dma-buf that holds @pool; a pointer or an ERR_PTR. */
struct dma_buf *pst_dmabuf(struct pst_pool *pool, bool write);

#endif /* PST_KMOD_H */
