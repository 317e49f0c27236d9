/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of penstock.ko. Each has a door of its own: the module's pool goes with it, its memory with
 * the last of the dma-bufs. So nothing stays of one whatever crashes, and of what is kept the
 * dma-bufs are enough.
 */
#include "daemon/pools/pool_memory.h"

#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DEVICE "/dev/penstock"

int pool_module_open(void)
{
	struct pst_cmd_info info = {.size = sizeof(info)};
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC), rc;

	if (fd < 0)
		return errno == ENXIO || errno == ENODEV ? -ENOENT : -errno;
	if (!ioctl(fd, PST_IOC_INFO, &info))
		return fd;
	rc = -errno;
	close(fd);
	return rc;
}

static int fail(int door, const char *name, struct pst_error *err)
{
	struct pst_cmd_why why = {.size = sizeof(why)};
	int rc = -errno;

	if (ioctl(door, PST_IOC_WHY, &why) || !why.out_text[0])
		snprintf((char *)why.out_text, sizeof(why.out_text), "%s", strerror(-rc));
	return pst_fail(err, rc, "pool %s: " DEVICE ": %s", name, (const char *)why.out_text);
}

static int export(int door, uint32_t id, uint32_t flags, int *out)
{
	struct pst_cmd_pool_map map = {.size = sizeof(map), .flags = flags, .id = id};

	if (ioctl(door, PST_IOC_POOL_MAP, &map))
		return -1;
	*out = map.out_fd;
	return 0;
}

static int make(const struct pool_wish *wish, struct pool_memory *m, struct pst_error *err)
{
	struct pst_cmd_pool_create create = {
		.size = sizeof(create),
		.flags = wish->flags,
		.bytes = wish->bytes,
		.node = wish->node == PST_ANY ? pool_node_of(wish->pid) : wish->node,
	};
	struct pst_cmd_pool_stat stat = {.size = sizeof(stat)};

	memcpy(create.name, wish->name, sizeof(create.name));
	if (ioctl(m->door, PST_IOC_POOL_CREATE, &create))
		return fail(m->door, wish->name, err);
	stat.id = create.out_id;
	if (ioctl(m->door, PST_IOC_POOL_STAT, &stat) || export(m->door, create.out_id, 0, &m->fd) ||
	    export(m->door, create.out_id, PST_POOL_MAP_READ, &m->reader))
		return fail(m->door, wish->name, err);
	m->bytes = create.out_bytes;
	m->page_bytes = create.out_page_bytes;
	m->node = create.out_node;
	m->flags = stat.out_flags & (PST_POOL_CREATE_HUGE | PST_POOL_CREATE_LOCK);
	m->module = true;
	m->huge = true;
	snprintf(m->note, sizeof(m->note), "%.*s", (int)sizeof(m->note) - 1,
		 (const char *)stat.out_note);
	return 0;
}

int pool_module_make(const struct pool_wish *wish, struct pool_memory *m, struct pst_error *err)
{
	int rc;

	m->door = pool_module_open();
	if (m->door < 0)
		return pst_fail(err, m->door, "pool %s: " DEVICE ": %s", wish->name,
				strerror(-m->door));
	rc = make(wish, m, err);
	if (rc)
		pool_memory_free(m);
	return rc;
}
