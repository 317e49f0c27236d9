/* SPDX-License-Identifier: Apache-2.0 */
#include "selftests/control/table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define AT(type, field)	 ((int)offsetof(struct pst_cmd_##type, field))
#define END(type, field) (AT(type, field) + (int)sizeof(((struct pst_cmd_##type *)0)->field))
#define ROW(NAME, type, last)                                                        \
	.name = #NAME, .cmd = PST_CMD_##NAME, .size = sizeof(struct pst_cmd_##type), \
	.min = END(type, last)
#define ID(type)       .id = AT(type, id), .rc = -ENOENT, .good = no_such_##type
#define RESERVED(type) .reserved = AT(type, __reserved)

#define NO_SUCH(type)                             \
	static void no_such_##type(void *arg)     \
	{                                         \
		struct pst_cmd_##type *how = arg; \
                                                  \
		how->id = NO_SUCH_ID;             \
	}
NO_SUCH(pool_map)
NO_SUCH(pool_stat)
NO_SUCH(pool_destroy)
NO_SUCH(device_stat)
NO_SUCH(kernel_stat)
NO_SUCH(kernel_bind)
NO_SUCH(kernel_rollback)
NO_SUCH(kernel_unload)
NO_SUCH(worker_stat)
NO_SUCH(worker_drain)
NO_SUCH(worker_stop)
NO_SUCH(server_stat)
NO_SUCH(table_stat)

static void nothing(void *arg)
{
	(void)arg;
}

static void some_pool(void *arg)
{
	struct pst_cmd_pool_create *how = arg;
	static unsigned int count;

	how->bytes = 1 << 16;
	how->node = PST_ANY;
	snprintf((char *)how->name, sizeof(how->name), "t%d-%u", (int)getpid(), count++);
}

static void no_such_device_power(void *arg)
{
	struct pst_cmd_device_power *how = arg;

	how->flags = PST_DEVICE_POWER_CAP;
	how->id = NO_SUCH_ID;
	how->cap_mw = 100000;
}

static void no_files(void *arg)
{
	struct pst_cmd_kernel_load *how = arg;

	how->image_fd = how->manifest_fd = -1;
}

static void on_no_device(void *arg)
{
	struct pst_cmd_worker_start *how = arg;

	how->device = NO_SUCH_ID;
}

static void no_expert(void *arg)
{
	struct pst_cmd_expert_stat *how = arg;

	how->layer = how->index = NO_SUCH_ID;
}

static void at_no_worker(void *arg)
{
	struct pst_cmd_expert_place *how = arg;

	how->worker = NO_SUCH_ID;
	how->order = PST_EXPERT_PIN;
}

const struct table_row table[] = {
	{ROW(INFO, info, flags), .good = nothing},
	{ROW(WHY, why, flags), .good = nothing},
	{ROW(POOL_CREATE, pool_create, name), RESERVED(pool_create), .changes = true,
	 .flags = PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK | PST_POOL_CREATE_KEEP,
	 .text = AT(pool_create, name), .text_bytes = PST_NAME_MAX, .good = some_pool},
	{ROW(POOL_MAP, pool_map, out_bytes), ID(pool_map), .flags = PST_POOL_MAP_READ,
	 .out_fd = AT(pool_map, out_fd)},
	{ROW(POOL_STAT, pool_stat, id), ID(pool_stat), .flags = PST_STAT_NEXT},
	{ROW(POOL_DESTROY, pool_destroy, __reserved), ID(pool_destroy), RESERVED(pool_destroy)},
	{ROW(DEVICE_STAT, device_stat, id), ID(device_stat), .flags = PST_STAT_NEXT},
	{ROW(DEVICE_POWER, device_power, clock_max_mhz), ID(device_power), .changes = true,
	 .flags = PST_DEVICE_POWER_CAP | PST_DEVICE_POWER_CLOCK | PST_DEVICE_POWER_RESET},
	{ROW(KERNEL_LOAD, kernel_load, out_id), .changes = true, .flags = PST_KERNEL_LOAD_SLOWER,
	 .rc = -EBADF, .good = no_files},
	{ROW(KERNEL_STAT, kernel_stat, id), ID(kernel_stat), .flags = PST_STAT_NEXT},
	{ROW(KERNEL_BIND, kernel_bind, __reserved), ID(kernel_bind), RESERVED(kernel_bind),
	 .changes = true},
	{ROW(KERNEL_ROLLBACK, kernel_rollback, out_id), ID(kernel_rollback), .changes = true},
	{ROW(KERNEL_UNLOAD, kernel_unload, __reserved), ID(kernel_unload), RESERVED(kernel_unload),
	 .changes = true},
	{ROW(WORKER_START, worker_start, out_url), .changes = true, .rc = -ENOENT,
	 .text = AT(worker_start, url), .text_bytes = PST_URL_BYTES, .good = on_no_device},
	{ROW(WORKER_STAT, worker_stat, id), ID(worker_stat), .flags = PST_STAT_NEXT},
	{ROW(WORKER_DRAIN, worker_drain, timeout_ms), ID(worker_drain), .changes = true},
	{ROW(WORKER_STOP, worker_stop, __reserved), ID(worker_stop), RESERVED(worker_stop),
	 .changes = true},
	{ROW(SERVER_STAT, server_stat, id), ID(server_stat), RESERVED(server_stat),
	 .flags = PST_STAT_NEXT},
	{ROW(TABLE_STAT, table_stat, id), ID(table_stat), .flags = PST_STAT_NEXT},
	{ROW(EXPERT_STAT, expert_stat, index), .flags = PST_STAT_NEXT, .rc = -ENOENT,
	 .good = no_expert},
	{ROW(EXPERT_PLACE, expert_place, order), .changes = true, .id = AT(expert_place, worker),
	 .rc = -ENOENT, .good = at_no_worker},
	{ROW(EVENTS, events, out_fd), .out_fd = AT(events, out_fd), .good = nothing},
};
const unsigned int table_rows = sizeof(table) / sizeof(table[0]);

_Static_assert(sizeof(table) / sizeof(table[0]) == PST_CMD_END - PST_CMD_BASE,
	       "a new command has a row here");

void table_good(const struct table_row *row, union table_arg *arg)
{
	memset(arg, 0, sizeof(*arg));
	row->good(arg->bytes);
	memcpy(arg->bytes, &row->size, sizeof(row->size));
}

void table_drop(const struct table_row *row, const union table_arg *arg)
{
	int fd;

	if (!row->out_fd)
		return;
	memcpy(&fd, arg->bytes + row->out_fd, sizeof(fd));
	close(fd);
}
