/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A memfd is nobody's to open but ours: a memfd is born with mode 0777, with which who was given
 * it to read could open it again for writing, by /proc/self/fd. With mode 0400 only our own user
 * could, and root, who can do to this process what they want anyway.
 */
#include "daemon/pools/pool_memory.h"

#include "rdma/fail.h"
#include "runtime/mem/place.h"
#include "runtime/mem/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SAMPLE 1024 /* pages that are looked at, at most */

/* The CPU that @pid ran on last, from field 39 of its stat; -1. */
static int cpu_of(pid_t pid)
{
	char path[64], line[1024], *at;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return -1;
	n = fread(line, 1, sizeof(line) - 1, f);
	fclose(f);
	line[n] = '\0';
	/* a name may have anything in it; behind its end field 3 begins */
	at = strrchr(line, ')');
	for (int i = 2; at && i < 39; i++)
		at = strchr(at + 1, ' ');
	return at ? atoi(at + 1) : -1;
}

/* PST_ANY is PST_NODE_ANY too. */
int pool_node_of(pid_t pid)
{
	struct pst_node_mask nodes;
	int cpu = cpu_of(pid);
	char path[96];

	pst_place_nodes("", &nodes);
	for (int node = 0; cpu >= 0 && node < PST_PLACE_NODES; node++) {
		if (!pst_place_has(&nodes, node))
			continue;
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpu%d", node, cpu);
		if (!access(path, F_OK))
			return node;
	}
	return PST_ANY;
}

static uint32_t pool_flags(uint32_t flags)
{
	return PST_POOL_HUGE | PST_POOL_LOCK |
	       (flags & PST_POOL_CREATE_HUGE ? (uint32_t)PST_POOL_HUGE_MUST : 0) |
	       (flags & PST_POOL_CREATE_LOCK ? (uint32_t)PST_POOL_LOCK_MUST : 0);
}

static bool is_hugetlb(int fd)
{
	struct statfs fs;

	return !fstatfs(fd, &fs) && (uint64_t)fs.f_type == HUGETLBFS_MAGIC;
}

static int make_memfd(const struct pool_wish *wish, struct pool_memory *m, struct pst_error *err)
{
	const struct pst_pool_options o = {
		.size = sizeof(o),
		.name = wish->name,
		.bytes = wish->bytes,
		.node = wish->node == PST_ANY ? pool_node_of(wish->pid) : wish->node,
		.flags = pool_flags(wish->flags),
	};
	struct pst_pool_stat stat;
	struct pst_pool *pool;
	int rc = pst_pool_create(&o, &pool, err);

	if (rc)
		return rc;
	m->fd = fcntl(pst_pool_fd(pool), F_DUPFD_CLOEXEC, 0);
	if (m->fd < 0 || fchmod(m->fd, 0400)) {
		rc = pst_fail(err, -errno, "pool %s: %s", wish->name, strerror(errno));
		if (m->fd >= 0)
			close(m->fd);
		pst_pool_destroy(pool);
		return rc;
	}
	pst_pool_stat(pool, &stat);
	m->bytes = stat.bytes;
	m->page_bytes = stat.page_bytes;
	m->node = stat.node;
	m->huge = is_hugetlb(m->fd);
	m->flags = (stat.page_bytes > 4096 ? (uint32_t)PST_POOL_CREATE_HUGE : 0) |
		   (stat.locked ? (uint32_t)PST_POOL_CREATE_LOCK : 0);
	memcpy(m->note, stat.note, sizeof(m->note));
	if (stat.locked && !m->huge)
		m->pool = pool;
	else
		pst_pool_destroy(pool);
	return 0;
}

int pool_memory_make(const struct pool_wish *wish, struct pool_memory *out, struct pst_error *err)
{
	struct pool_memory m = POOL_MEMORY_NONE;
	int rc = wish->module ? pool_module_make(wish, &m, err) : make_memfd(wish, &m, err);

	if (!rc)
		*out = m;
	return rc;
}

void pool_memory_free(struct pool_memory *m)
{
	pst_pool_destroy(m->pool);
	if (m->fd >= 0)
		close(m->fd);
	if (m->reader >= 0)
		close(m->reader);
	if (m->door >= 0)
		close(m->door);
	if (m->holder >= 0)
		close(m->holder);
	*m = POOL_MEMORY_NONE;
}

int pool_memory_writer(const struct pool_memory *m)
{
	int fd = fcntl(m->fd, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

int pool_memory_reader(const struct pool_memory *m)
{
	char path[32];
	int fd;

	if (m->module) {
		fd = fcntl(m->reader, F_DUPFD_CLOEXEC, 0);
	} else {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", m->fd);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	return fd < 0 ? -errno : fd;
}

/*
 * Pages evenly over the pool, from another one on each time. Of a memfd only those that are in
 * RAM: to touch another one would bring it there, and put it somewhere.
 */
static unsigned long choose(const struct pool_memory *m, char *base, uint64_t turn, void **at)
{
	uint64_t pages = m->bytes / m->page_bytes;
	uint64_t step = pages / SAMPLE + (pages % SAMPLE != 0);
	unsigned long n = 0;

	for (uint64_t i = turn % step; i < pages && n < SAMPLE; i += step) {
		char *page = base + i * m->page_bytes;
		unsigned char there = 1;

		if (!m->module && (mincore(page, 1, &there) || !(there & 1)))
			continue;
		(void)*(volatile char *)page;
		at[n++] = page;
	}
	return n;
}

int pool_memory_look(const struct pool_memory *m, uint64_t turn, uint64_t *pages,
		     uint64_t *elsewhere)
{
	void *at[SAMPLE];
	int status[SAMPLE];
	unsigned long n;
	int rc = 0;
	char *base;

	base = mmap(NULL, m->bytes, PROT_READ, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	n = choose(m, base, turn, at);
	if (n && syscall(SYS_move_pages, 0, n, at, NULL, status, 0) < 0)
		rc = -errno;
	munmap(base, m->bytes);
	if (rc)
		return rc;
	*pages = *elsewhere = 0;
	for (unsigned long i = 0; i < n; i++) {
		*pages += status[i] >= 0;
		*elsewhere += status[i] >= 0 && status[i] != m->node;
	}
	return 0;
}
