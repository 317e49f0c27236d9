// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * /dev/penstock: commands of penstock/ioctl.h come in, are checked, and find their handlers.
 *
 * The checks come in this order, which the daemon keeps too: is there such a command, can it be
 * read, its size, flags, reserved fields and names, the right to change things; then the
 * handler's own.
 */
#include <linux/compat.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/nospec.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <penstock/door.h>

#include "kmod.h"

struct command {
	const char *name;
	u16 size, min;	    /* of its struct; @min: up to what has to be there */
	u16 reserved, text; /* where a __u32 and a name of PST_NAME_MAX are; 0: there is none */
	u32 flags;	    /* that are known */
	bool changes;	    /* for who may change things only; handlers may be stricter */
	int (*fn)(struct pst_request *r);
	void (*settle)(struct pst_request *r, int rc);
};

static u64 start_ns;

/* Sentences too long to stand where they are said. */
static const char too_new[] =
	"the struct says more than this module knows (%u bytes, not %u); a newer one may";
static const char only_look[] =
	"the device is open for reading only; ls -l /dev/penstock says who may change things";

int pst_say(struct pst_request *r, int code, const char *fmt, ...)
{
	struct pst_cmd_why *why = &r->door->why;
	struct va_format text = {.fmt = fmt};
	va_list args;

	va_start(args, fmt);
	text.va = &args;
	mutex_lock(&r->door->lock);
	why->out_code = code;
	scnprintf(why->out_text, sizeof(why->out_text), "%s: %pV", r->name, &text);
	mutex_unlock(&r->door->lock);
	va_end(args);
	return code;
}

static int why(struct pst_request *r)
{
	u32 size = r->arg.head.size;

	mutex_lock(&r->door->lock);
	r->arg.why = r->door->why;
	mutex_unlock(&r->door->lock);
	r->arg.why.size = size;
	return 0;
}

static int info(struct pst_request *r);

/* A row; @last is the last field that has to be there, what follows are more members. */
#define COMMAND(NAME, type, last, ...)                                            \
	[PST_CMD_##NAME - PST_CMD_BASE] = {.name = #NAME,                         \
					   .size = sizeof(struct type),           \
					   .min = offsetofend(struct type, last), \
					   __VA_ARGS__}

static const struct command commands[] = {
	COMMAND(INFO, pst_cmd_info, flags, .fn = info),
	COMMAND(WHY, pst_cmd_why, flags, .fn = why),
	COMMAND(POOL_CREATE, pst_cmd_pool_create, name,
		.flags = PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK,
		.reserved = offsetof(struct pst_cmd_pool_create, __reserved),
		.text = offsetof(struct pst_cmd_pool_create, name), .changes = true,
		.fn = pst_pool_create, .settle = pst_pool_create_settle),
	COMMAND(POOL_MAP, pst_cmd_pool_map, out_bytes, .flags = PST_POOL_MAP_READ,
		.fn = pst_pool_map, .settle = pst_pool_map_settle),
	COMMAND(POOL_STAT, pst_cmd_pool_stat, id, .flags = PST_STAT_NEXT, .fn = pst_pool_stat),
	COMMAND(POOL_DESTROY, pst_cmd_pool_destroy, __reserved,
		.reserved = offsetof(struct pst_cmd_pool_destroy, __reserved),
		.fn = pst_pool_destroy),
};

static int info(struct pst_request *r)
{
	struct pst_cmd_info *out = &r->arg.info;

	*out = (struct pst_cmd_info){
		.size = out->size,
		.out_features = PST_FEATURE_EXACT_NODE | PST_FEATURE_DMABUF,
		.out_commands = (1ULL << ARRAY_SIZE(commands)) - 1,
		.out_start_ns = start_ns,
		.out_nodes = num_node_state(N_MEMORY),
		.out_may_change = r->door->may_change,
	};
	pst_quota_tell(r->door->cred->euid, &out->out_pool_bytes, &out->out_quota_bytes,
		       &out->out_quota_used);
	strscpy(out->out_version, THIS_MODULE->version, sizeof(out->out_version));
	return 0;
}

static int copy_in(const struct command *c, struct pst_request *r, const void __user *from)
{
	u32 size;
	int rc;

	if (get_user(size, (const u32 __user *)from))
		return pst_say(r, -EFAULT, "the struct cannot be read");
	if (size < c->min)
		return pst_say(r, -EINVAL, "the struct has %u bytes, and needs %u at least", size,
			       c->min);
	if (size > PST_DOOR_MAX)
		return pst_say(r, -E2BIG, "the struct has %u bytes, more than %u", size,
			       PST_DOOR_MAX);
	rc = copy_struct_from_user(&r->arg, c->size, from, size);
	r->arg.head.size = size; /* another thread may have written there */
	if (rc == -E2BIG)
		return pst_say(r, rc, too_new, c->size, size);
	if (rc)
		return pst_say(r, rc, "the struct cannot be read");
	return 0;
}

static int check_fields(const struct command *c, struct pst_request *r)
{
	const u8 *arg = (const u8 *)&r->arg, *text = arg + c->text;
	u32 unknown = r->arg.head.flags & ~c->flags;
	size_t len = strnlen(text, PST_NAME_MAX);

	if (unknown)
		return pst_say(r, -EOPNOTSUPP, "unknown flags %#x", unknown);
	if (c->reserved && memchr_inv(arg + c->reserved, 0, sizeof(u32)))
		return pst_say(r, -EINVAL, "a reserved field is not 0");
	if (c->text && (len == PST_NAME_MAX || memchr_inv(text + len, 0, PST_NAME_MAX - len)))
		return pst_say(r, -EINVAL,
			       "a name has no end within %u bytes, or more behind its end",
			       PST_NAME_MAX);
	if (c->changes && !r->door->may_change)
		return pst_say(r, -EPERM, only_look);
	return 0;
}

static int execute(const struct command *c, struct pst_request *r, void __user *user)
{
	int rc;

	r->name = c->name;
	rc = copy_in(c, r, user);
	if (!rc)
		rc = check_fields(c, r);
	if (rc)
		return rc;
	rc = c->fn(r);
	if (!rc && copy_to_user(user, &r->arg, min_t(u32, r->arg.head.size, c->size)))
		rc = pst_say(r, -EFAULT, "the struct cannot be written");
	if (c->settle)
		c->settle(r, rc);
	return rc;
}

static long door_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct pst_request r = {.door = file->private_data, .name = "command", .fd = -1};
	unsigned int nr = _IOC_NR(cmd) - PST_CMD_BASE;
	int rc;

	/* What terminals are asked is no command of ours, and not worth a sentence. */
	if (_IOC_TYPE(cmd) != PST_IOCTL_TYPE)
		return -ENOTTY;
	if (nr >= ARRAY_SIZE(commands) || cmd != _IO(PST_IOCTL_TYPE, _IOC_NR(cmd))) {
		rc = pst_say(&r, -ENOTTY, "the module does not know number %#x; penstockd may",
			     _IOC_NR(cmd));
	} else {
		nr = array_index_nospec(nr, ARRAY_SIZE(commands));
		rc = execute(&commands[nr], &r, (void __user *)arg);
	}
	if (rc) {
		mutex_lock(&r.door->lock);
		r.door->why.out_cmd = _IOC_NR(cmd);
		mutex_unlock(&r.door->lock);
	}
	return rc;
}

static int door_open(struct inode *inode, struct file *file)
{
	struct pst_door *door = kzalloc(sizeof(*door), GFP_KERNEL_ACCOUNT);

	if (!door)
		return -ENOMEM;
	door->cred = file->f_cred;
	door->may_change = file->f_mode & FMODE_WRITE;
	mutex_init(&door->lock);
	INIT_LIST_HEAD(&door->pools);
	file->private_data = door;
	return nonseekable_open(inode, file);
}

static int door_release(struct inode *inode, struct file *file)
{
	struct pst_door *door = file->private_data;

	pst_pools_forget(door);
	kfree(door);
	return 0;
}

static const struct file_operations door_fops = {
	.owner = THIS_MODULE,
	.open = door_open,
	.release = door_release,
	.unlocked_ioctl = door_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

/* Who may look and who may change is the node's mode and group, which udev sets. */
static struct miscdevice door_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "penstock",
	.fops = &door_fops,
	.mode = 0664,
};

static int __init door_init(void)
{
	start_ns = ktime_get_boottime_ns();
	return misc_register(&door_device);
}

static void __exit door_exit(void)
{
	misc_deregister(&door_device);
}

module_init(door_init);
module_exit(door_exit);
MODULE_AUTHOR("The Penstock authors");
MODULE_DESCRIPTION("Pools of memory that stay on their NUMA node, as dma-bufs");
MODULE_LICENSE("Dual BSD/GPL");
MODULE_VERSION(PST_VERSION);
