/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checks come in this order, which the module keeps too: is there such a command (-ENOTTY), can
 * it be read (-EFAULT), its size (-EINVAL, -E2BIG), flags (-EOPNOTSUPP), reserved fields and names
 * (-EINVAL), the right to change things (-EPERM), descriptors (-EBADF); then the handler's own.
 */
#include "daemon/control/command.h"

#include "rdma/fail.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIELD(name, field)                                                       \
	{                                                                        \
		offsetof(struct name, field), sizeof(((struct name *)0)->field), \
	}
#define FIELD_END(name, field) (offsetof(struct name, field) + sizeof(((struct name *)0)->field))

/* What there is to check besides sizes, per command. */
#define RULE_INFO .flags = 0
#define RULE_WHY  .flags = 0
#define RULE_POOL_CREATE                                                             \
	.flags = PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK | PST_POOL_CREATE_KEEP, \
	.changes = true, .reserved = FIELD(pst_cmd_pool_create, __reserved),         \
	.text = FIELD(pst_cmd_pool_create, name)
#define RULE_POOL_MAP	  .flags = PST_POOL_MAP_READ
#define RULE_POOL_STAT	  .flags = PST_STAT_NEXT
#define RULE_POOL_DESTROY .flags = 0, .reserved = FIELD(pst_cmd_pool_destroy, __reserved)
#define RULE_DEVICE_STAT  .flags = PST_STAT_NEXT
#define RULE_DEVICE_POWER                                                                \
	.flags = PST_DEVICE_POWER_CAP | PST_DEVICE_POWER_CLOCK | PST_DEVICE_POWER_RESET, \
	.changes = true
#define RULE_KERNEL_LOAD     .flags = PST_KERNEL_LOAD_SLOWER, .changes = true
#define RULE_KERNEL_STAT     .flags = PST_STAT_NEXT
#define RULE_KERNEL_BIND     .changes = true, .reserved = FIELD(pst_cmd_kernel_bind, __reserved)
#define RULE_KERNEL_ROLLBACK .changes = true
#define RULE_KERNEL_UNLOAD   .changes = true, .reserved = FIELD(pst_cmd_kernel_unload, __reserved)
#define RULE_WORKER_START    .changes = true, .text = FIELD(pst_cmd_worker_start, url)
#define RULE_WORKER_STAT     .flags = PST_STAT_NEXT
#define RULE_WORKER_DRAIN    .changes = true
#define RULE_WORKER_STOP     .changes = true, .reserved = FIELD(pst_cmd_worker_stop, __reserved)
#define RULE_SERVER_STAT     .flags = PST_STAT_NEXT, .reserved = FIELD(pst_cmd_server_stat, __reserved)
#define RULE_TABLE_STAT	     .flags = PST_STAT_NEXT
#define RULE_EXPERT_STAT     .flags = PST_STAT_NEXT
#define RULE_EXPERT_PLACE    .changes = true
#define RULE_EVENTS	     .flags = 0

/* The offset of a field, or -1 for __none, which no struct has. */
#define NONE___none		  0, -1
#define SECOND_(a, b, ...)	  b
#define SECOND(...)		  SECOND_(__VA_ARGS__)
#define FD_FIELD_(name, field, x) SECOND(x, (int)offsetof(struct name, field), 0)
#define FD_FIELD(name, field)	  FD_FIELD_(name, field, NONE_##field)

#define COMMAND_ROW(NAME, cmd, last, in1, in2, out)                                    \
	[PST_CMD_##NAME - PST_CMD_BASE] = {                                            \
		.name = #NAME,                                                         \
		.size = sizeof(struct pst_cmd_##cmd),                                  \
		.min = FIELD_END(pst_cmd_##cmd, last),                                 \
		RULE_##NAME,                                                           \
		.in_fd = {FD_FIELD(pst_cmd_##cmd, in1), FD_FIELD(pst_cmd_##cmd, in2)}, \
		.out_fd = FD_FIELD(pst_cmd_##cmd, out),                                \
		.fn = handle_##cmd,                                                    \
	},
#define COMMAND_FITS(NAME, cmd, last, in1, in2, out) \
	_Static_assert(sizeof(struct pst_cmd_##cmd) <= PST_DOOR_MAX, #NAME " is too long");
PST_COMMANDS(COMMAND_FITS)

static const struct command commands[] = {PST_COMMANDS(COMMAND_ROW)};

_Static_assert(sizeof(commands) / sizeof(commands[0]) == PST_CMD_END - PST_CMD_BASE,
	       "PST_COMMANDS has all commands");

const char *command_name(uint32_t cmd)
{
	return cmd >= PST_CMD_BASE && cmd < PST_CMD_END ? commands[cmd - PST_CMD_BASE].name
							: "command";
}

const struct command *command_find(uint32_t cmd)
{
	return cmd >= PST_CMD_BASE && cmd < PST_CMD_END ? &commands[cmd - PST_CMD_BASE] : NULL;
}

static bool all_zero(const unsigned char *p, size_t len)
{
	while (len && !*p) {
		p++;
		len--;
	}
	return !len;
}

static int copy_in(const struct command *c, struct request *r, const unsigned char *raw,
		   uint32_t len)
{
	if (len < c->min)
		return pst_fail(&r->err, -EINVAL,
				"%s: the struct has %u bytes, and needs %u at least", c->name, len,
				c->min);
	if (len > PST_DOOR_MAX)
		return pst_fail(&r->err, -E2BIG, "%s: the struct has %u bytes, more than %u",
				c->name, len, PST_DOOR_MAX);
	if (len > c->size && !all_zero(raw + c->size, len - c->size))
		return pst_fail(&r->err, -E2BIG,
				"%s: the struct says more than this daemon knows (%u bytes, not "
				"%u); a newer penstockd may know it",
				c->name, c->size, len);
	memset(r->arg, 0, sizeof(r->arg));
	memcpy(r->arg, raw, len);
	return 0;
}

static int check_fields(const struct command *c, struct request *r)
{
	const unsigned char *text = r->arg + c->text.at;
	uint32_t flags;
	size_t len;

	memcpy(&flags, r->arg + sizeof(uint32_t), sizeof(flags));
	if (flags & ~c->flags)
		return pst_fail(&r->err, -EOPNOTSUPP, "%s: unknown flags %#x", c->name,
				flags & ~c->flags);
	if (!all_zero(r->arg + c->reserved.at, c->reserved.bytes))
		return pst_fail(&r->err, -EINVAL, "%s: a reserved field is not 0", c->name);
	len = strnlen((const char *)text, c->text.bytes);
	if (c->text.bytes && (len == c->text.bytes || !all_zero(text + len, c->text.bytes - len)))
		return pst_fail(&r->err, -EINVAL,
				"%s: a name has no end within %u bytes, or more behind its end",
				c->name, c->text.bytes);
	return 0;
}

int command_take(const struct command *c, struct request *r, const void *raw, uint32_t len)
{
	int rc = copy_in(c, r, raw, len);

	if (!rc)
		rc = check_fields(c, r);
	if (!rc && c->changes && !r->who.may_change)
		rc = pst_fail(&r->err, -EPERM,
			      "%s: user %u may look but not change anything; root may, and "
			      "members of the group that penstockd.conf names",
			      c->name, r->who.uid);
	return rc;
}

/* -1 where no descriptor is named. */
static int named_fd(const struct request *r, int at)
{
	int32_t index;

	if (at < 0)
		return -1;
	memcpy(&index, r->arg + at, sizeof(index));
	return index;
}

int command_take_fds(const struct command *c, struct request *r, const int *fds, uint32_t nfds)
{
	int left[PST_DOOR_FDS], rc = 0;

	for (uint32_t i = 0; i < PST_DOOR_FDS; i++)
		left[i] = i < nfds ? fds[i] : -1;
	for (int i = 0; i < PST_DOOR_FDS && !rc; i++) {
		int index = named_fd(r, c->in_fd[i]);

		if (c->in_fd[i] < 0)
			continue;
		if (index < 0 || index >= PST_DOOR_FDS || left[index] < 0) {
			rc = pst_fail(&r->err, -EBADF, "%s: a descriptor is missing", c->name);
			break;
		}
		r->in_fd[i] = left[index];
		left[index] = -1;
	}
	for (int i = 0; i < PST_DOOR_FDS; i++)
		if (left[i] >= 0)
			close(left[i]);
	return rc;
}

int command_ask(struct penstockd *d, uint32_t cmd, void *arg)
{
	const struct command *c = command_find(cmd);
	struct request *r;
	uint32_t size;
	int rc;

	if (!c)
		return -ENOTTY;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->d = d;
	r->cmd = cmd;
	r->who.pid = getpid();
	r->who.uid = geteuid();
	r->who.gid = getegid();
	r->who.may_change = true;
	r->in_fd[0] = r->in_fd[1] = r->out_fd = -1;
	memcpy(&size, arg, sizeof(size));
	rc = command_take(c, r, arg, size);
	if (!rc)
		rc = c->fn(r);
	if (!rc)
		memcpy(arg, r->arg, size);
	if (r->out_fd >= 0)
		close(r->out_fd);
	free(r);
	return rc;
}
