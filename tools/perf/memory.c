/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the ends: memfds, since every fabric takes those; and the CPUs beside it. */
#include "rdma/fail.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HUGE_SHIFT 26 /* MFD_HUGE_SHIFT of linux/memfd.h */

static unsigned int huge_flags(uint64_t page)
{
	if (page <= (uint64_t)sysconf(_SC_PAGESIZE))
		return 0;
	return MFD_HUGETLB | (unsigned int)__builtin_ctzll(page) << HUGE_SHIFT;
}

static int no_pages(uint64_t len, uint64_t page, int rc, struct pst_error *err)
{
	if (!huge_flags(page))
		return pst_fail(err, rc, "%llu bytes of memory cannot be had: %s",
				(unsigned long long)len, strerror(-rc));
	return pst_fail(err, rc,
			"%llu bytes in pages of %llu kB cannot be had: %s (as root: echo %llu > "
			"/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages)",
			(unsigned long long)len, (unsigned long long)page >> 10, strerror(-rc),
			(unsigned long long)(len / page) * 2, (unsigned long long)page >> 10);
}

int perf_memory_map(uint64_t len, uint64_t page, struct perf_memory *out, struct pst_error *err)
{
	uint64_t unit = page ? page : (uint64_t)sysconf(_SC_PAGESIZE);
	struct perf_memory m = {.len = len, .maplen = (len + unit - 1) / unit * unit};
	int rc;

	m.fd = memfd_create("penstock-perf", MFD_CLOEXEC | MFD_ALLOW_SEALING | huge_flags(page));
	if (m.fd < 0)
		return no_pages(m.maplen, page, -errno, err);
	if (ftruncate(m.fd, (off_t)m.maplen) || fallocate(m.fd, 0, 0, (off_t)m.maplen)) {
		rc = no_pages(m.maplen, page, -errno, err);
		goto close_fd;
	}
	m.at = mmap(NULL, m.maplen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, m.fd, 0);
	if (m.at == MAP_FAILED) {
		rc = no_pages(m.maplen, page, -errno, err);
		goto close_fd;
	}
	*out = m;
	return 0;

close_fd:
	close(m.fd);
	return rc;
}

int perf_memory_new(struct pst_fabric *fab, uint64_t len, uint64_t page, uint32_t access,
		    struct perf_memory *out, struct pst_error *err)
{
	struct pst_region_attr attr = {.size = sizeof(attr), .access = access};
	struct perf_memory m;
	int rc = perf_memory_map(len, page, &m, err);

	if (rc)
		return rc;
	attr.addr = m.at;
	attr.len = m.len;
	attr.fd = m.fd;
	rc = pst_region_register(fab, &attr, &m.region, err);
	if (rc) {
		perf_memory_free(&m);
		return rc;
	}
	*out = m;
	return 0;
}

void perf_memory_free(struct perf_memory *m)
{
	if (!m->at)
		return;
	pst_region_release(m->region);
	munmap(m->at, m->maplen);
	close(m->fd);
	*m = (struct perf_memory){0};
}

static uint64_t pattern(uint64_t word)
{
	return (word + 1) * 0x9e3779b97f4a7c15ull;
}

void perf_fill_pattern(struct perf_memory *m)
{
	for (uint64_t off = 0; off < m->len; off += 8) {
		uint64_t v = pattern(off / 8), left = m->len - off;

		memcpy(m->at + off, &v, left < 8 ? left : 8);
	}
}

bool perf_is_pattern(const unsigned char *at, uint64_t off, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		uint64_t v = pattern((off + i) / 8);

		if (at[i] != ((const unsigned char *)&v)[(off + i) % 8])
			return false;
	}
	return true;
}

int perf_numa_node(const void *at)
{
	int node = -1;

	/* MPOL_F_NODE | MPOL_F_ADDR: the node of the page at @at */
	return syscall(SYS_get_mempolicy, &node, NULL, 0, at, 3) ? -1 : node;
}

int perf_pin(int cpu, struct pst_error *err)
{
	cpu_set_t set;

	if (cpu < 0)
		return 0;
	CPU_ZERO(&set);
	if (cpu < CPU_SETSIZE)
		CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return pst_fail(err, -errno,
				"CPU %d cannot be used: %s (taskset -p $$ shows which can)", cpu,
				strerror(errno));
	return 0;
}
