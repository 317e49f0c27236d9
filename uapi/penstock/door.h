/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR BSD-2-Clause */
/*
 * DOC: How commands travel over the daemon's socket.
 *
 * The socket is of type SOCK_SEQPACKET. A request is one packet: struct
 * pst_door_request, then the command's struct, as long as its own size field
 * says and at most PST_DOOR_MAX bytes; a shorter packet is -EINVAL, a longer
 * struct -E2BIG. A field that is a file descriptor travels as its place among
 * those sent with the packet (SCM_RIGHTS), counted from 0; -1 is none.
 *
 * The answer is one packet too: struct pst_door_answer and, if the command
 * succeeded, the struct again, as long as it came. An out_fd is 0 and comes
 * with the packet, or -1.
 *
 * A connection is the descriptor that a command is given to: one request at a
 * time; requests sent before the answer came are answered in their order.
 * What breaks the rules of this header is cut off, and so is who does not read
 * his answers. A caller who is not taken in at all (-EUSERS, -ENOMEM) gets an
 * answer to command 0 before the socket is closed.
 */
#ifndef _UAPI_PENSTOCK_DOOR_H
#define _UAPI_PENSTOCK_DOOR_H

#include <penstock/ioctl.h>

#define PST_DOOR_SOCKET "/run/penstock/penstockd.sock"
#define PST_DOOR_MAX	4096
#define PST_DOOR_FDS	2

/**
 * struct pst_door_request - how every request begins
 * @cmd: PST_CMD_*
 * @__reserved: 0
 */
struct pst_door_request {
	__u32 cmd;
	__u32 __reserved;
};

/**
 * struct pst_door_answer - how every answer begins
 * @rc: 0, or -errno
 * @cmd: The command that it answers
 */
struct pst_door_answer {
	__s32 rc;
	__u32 cmd;
};

/*
 * All commands: X(NAME, name, last field that must be there, fields that are descriptors:
 * first in, second in, out; __none if there is no such one). NAME is that of PST_CMD_NAME,
 * name that of struct pst_cmd_name.
 */
#define PST_COMMANDS(X)                                                      \
	X(INFO, info, flags, __none, __none, __none)                         \
	X(WHY, why, flags, __none, __none, __none)                           \
	X(POOL_CREATE, pool_create, name, __none, __none, __none)            \
	X(POOL_MAP, pool_map, out_bytes, __none, __none, out_fd)             \
	X(POOL_STAT, pool_stat, id, __none, __none, __none)                  \
	X(POOL_DESTROY, pool_destroy, __reserved, __none, __none, __none)    \
	X(DEVICE_STAT, device_stat, id, __none, __none, __none)              \
	X(DEVICE_POWER, device_power, clock_max_mhz, __none, __none, __none) \
	X(KERNEL_LOAD, kernel_load, out_id, image_fd, manifest_fd, __none)   \
	X(KERNEL_STAT, kernel_stat, id, __none, __none, __none)              \
	X(KERNEL_BIND, kernel_bind, __reserved, __none, __none, __none)      \
	X(KERNEL_ROLLBACK, kernel_rollback, out_id, __none, __none, __none)  \
	X(KERNEL_UNLOAD, kernel_unload, __reserved, __none, __none, __none)  \
	X(WORKER_START, worker_start, out_url, __none, __none, __none)       \
	X(WORKER_STAT, worker_stat, id, __none, __none, __none)              \
	X(WORKER_DRAIN, worker_drain, timeout_ms, __none, __none, __none)    \
	X(WORKER_STOP, worker_stop, __reserved, __none, __none, __none)      \
	X(SERVER_STAT, server_stat, id, __none, __none, __none)              \
	X(TABLE_STAT, table_stat, id, __none, __none, __none)                \
	X(EXPERT_STAT, expert_stat, index, __none, __none, __none)           \
	X(EXPERT_PLACE, expert_place, order, __none, __none, __none)         \
	X(EVENTS, events, out_fd, __none, __none, out_fd)                    \
	/* EOL */

#endif /* _UAPI_PENSTOCK_DOOR_H */
