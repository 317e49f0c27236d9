// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Bytes per user. Not RLIMIT_MEMLOCK with the user's locked_vm, as some have it: that limit belongs
 * to the process that happens to call, so two sessions of a user would get two answers, and its
 * usual 8 MiB are for those who have no right to pinned memory, whereas who may write to the
 * device was given it. How much one control group may have, its memory.max says: pages are
 * charged to it.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "kmod.h"

static unsigned long long quota;
module_param(quota, ullong, 0644);
MODULE_PARM_DESC(quota, "bytes that each user may have in pools; 0: no limit (default)");

/* Pools of a user, so that small ones do not make long lists. */
#define PST_USER_POOLS 1024

struct pst_user {
	struct list_head on_users;
	kuid_t uid;
	unsigned int pools;
	u64 bytes;
};

static DEFINE_MUTEX(users_lock);
static LIST_HEAD(users);
static u64 all_bytes;

static struct pst_user *find(kuid_t uid)
{
	struct pst_user *user;

	list_for_each_entry(user, &users, on_users) {
		if (uid_eq(user->uid, uid))
			return user;
	}
	return NULL;
}

static u64 limit(void)
{
	u64 bytes = READ_ONCE(quota);

	return bytes ? bytes : U64_MAX;
}

void pst_quota_tell(kuid_t uid, u64 *all, u64 *may, u64 *has)
{
	const struct pst_user *user;

	mutex_lock(&users_lock);
	user = find(uid);
	*all = all_bytes;
	*may = limit();
	*has = user ? user->bytes : 0;
	mutex_unlock(&users_lock);
}

int pst_quota_charge(kuid_t uid, u64 bytes)
{
	u64 may = limit();
	struct pst_user *user;
	int rc = 0;

	mutex_lock(&users_lock);
	user = find(uid);
	if (bytes > may || (user && (user->bytes > may - bytes || user->pools >= PST_USER_POOLS))) {
		rc = -EDQUOT;
		goto unlock;
	}
	if (!user) {
		user = kzalloc(sizeof(*user), GFP_KERNEL_ACCOUNT);
		if (!user) {
			rc = -ENOMEM;
			goto unlock;
		}
		user->uid = uid;
		list_add(&user->on_users, &users);
	}
	user->pools++;
	user->bytes += bytes;
	all_bytes += bytes;
unlock:
	mutex_unlock(&users_lock);
	return rc;
}

void pst_quota_uncharge(kuid_t uid, u64 bytes)
{
	struct pst_user *user;

	mutex_lock(&users_lock);
	user = find(uid);
	user->bytes -= bytes;
	all_bytes -= bytes;
	if (!--user->pools) {
		list_del(&user->on_users);
		kfree(user);
	}
	mutex_unlock(&users_lock);
}
