/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mem/pages.h"

#include "runtime/mem/place.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static int open_memfd(const char *name, uint64_t page, int hugetlb)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	if (hugetlb)
		flags |= MFD_HUGETLB | (unsigned int)__builtin_ctzll(page) << MFD_HUGE_SHIFT;
	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, flags);
	return fd < 0 ? -errno : fd;
}

/* Map @fd at a multiple of @align, so that huge pages fit and offsets keep their alignment. */
static void *map_aligned(int fd, uint64_t bytes, uint64_t align)
{
	char *room, *base, *end;
	void *map;

	room = mmap(NULL, bytes + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		    0);
	if (room == MAP_FAILED)
		return MAP_FAILED;
	base = (char *)(((uintptr_t)room + align - 1) & ~(uintptr_t)(align - 1));
	end = base + bytes;
	map = mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	if (map == MAP_FAILED) {
		int saved = errno;

		munmap(room, bytes + align);
		errno = saved;
		return MAP_FAILED;
	}
	if (base > room)
		munmap(room, (size_t)(base - room));
	if (end < room + bytes + align)
		munmap(end, (size_t)(room + bytes + align - end));
	return map;
}

int pst_pages_open(struct pst_pages *p, const char *name, uint64_t bytes, uint64_t page,
		   int hugetlb)
{
	uint64_t align = page > PST_PAGES_2M ? page : PST_PAGES_2M;
	void *base;
	int fd, rc;

	fd = open_memfd(name, page, hugetlb);
	if (fd < 0)
		return fd;
	if (ftruncate(fd, (off_t)bytes)) {
		rc = -errno;
		goto close_fd;
	}
	base = map_aligned(fd, bytes, align);
	if (base == MAP_FAILED) {
		rc = -errno;
		goto close_fd;
	}
	if (!hugetlb && page > 4096)
		madvise(base, bytes, MADV_HUGEPAGE);
	*p = (struct pst_pages){.fd = fd,
				.base = base,
				.bytes = bytes,
				.align = align,
				.page = page,
				.hugetlb = hugetlb};
	return 0;

close_fd:
	close(fd);
	return rc;
}

void pst_pages_close(struct pst_pages *p)
{
	if (p->base)
		munmap(p->base, p->bytes);
	p->base = NULL;
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static int allocate(const struct pst_pages *p)
{
	int rc;

	do {
		rc = fallocate(p->fd, 0, 0, (off_t)p->bytes) ? -errno : 0;
	} while (rc == -EINTR);
	return rc;
}

int pst_pages_fill(struct pst_pages *p, int node)
{
	uint64_t step = p->hugetlb ? p->page : 4096;
	int rc;

	/*
	 * fallocate() gives no transparent huge pages, and takes hugetlb ones where the caller
	 * runs, whatever the mapping is bound to; so huge pages are touched first. A kernel that
	 * cannot do that without a signal says -EINVAL at no cost.
	 */
	if (p->page > 4096 && !madvise(p->base, 0, MADV_POPULATE_WRITE)) {
		rc = pst_place_populate("", p->base, p->bytes, step, node);
		return rc ? rc : allocate(p);
	}
	rc = allocate(p);
	return rc ? rc : pst_place_populate("", p->base, p->bytes, step, node);
}

int pst_pages_seal(struct pst_pages *p, int readers)
{
	int seals = F_SEAL_SHRINK | F_SEAL_GROW;

	if (readers)
		seals |= F_SEAL_FUTURE_WRITE;
	/* Last, F_SEAL_SEAL: who is handed the fd cannot add a seal that harms the owner. */
	return fcntl(p->fd, F_ADD_SEALS, seals | F_SEAL_SEAL) ? -errno : 0;
}

uint64_t pst_pages_huge(const struct pst_pages *p)
{
	uintptr_t begin = (uintptr_t)p->base, stop = begin + p->bytes;
	uint64_t sum = 0;
	char line[512];
	int mine = 0, said = 0;
	FILE *f;

	if (p->hugetlb)
		return p->bytes;
	f = fopen("/proc/self/smaps", "re");
	if (!f)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to, kib;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2 && to > from)
			mine = from < stop && to > begin;
		else if (mine && sscanf(line, "ShmemPmdMapped: %lu kB", &kib) == 1) {
			sum += kib * 1024;
			said = 1;
		}
	}
	fclose(f);
	return said ? sum : UINT64_MAX;
}

int pst_pages_thp(void)
{
	char line[128] = "";
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/shmem_enabled", "re");

	if (!f)
		return 0;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	return strstr(line, "[advise]") || strstr(line, "[always]") ||
	       strstr(line, "[within_size]") || strstr(line, "[force]");
}
