/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pages.h - a sealed memfd and one mapping of it: the memory of a pool.
 *
 * pst_pages_open() takes address space only; the caller says where pages are
 * to come from (mbind) and then has pst_pages_fill() take them, all at once, so
 * that too little memory is an error then and never a SIGBUS later.
 */
#ifndef PST_PAGES_H
#define PST_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PST_PAGES_2M (2ull << 20)
#define PST_PAGES_1G (1ull << 30)

struct pst_pages {
	int fd;
	void *base;
	uint64_t bytes;
	uint64_t align; /* of base */
	uint64_t page;	/* what backs it, as far as asked: see pst_pages_huge() */
	int hugetlb;
};

/* @page: 4096, or a size of hugetlb pages if @hugetlb, or PST_PAGES_2M for transparent ones.
 * -errno. */
int pst_pages_open(struct pst_pages *p, const char *name, uint64_t bytes, uint64_t page,
		   int hugetlb);
int pst_pages_fill(struct pst_pages *p, int node);
void pst_pages_close(struct pst_pages *p);

/* No one changes its size any more, and with @readers no one else maps it writable. -errno. */
int pst_pages_seal(struct pst_pages *p, int readers);

/* Bytes of it that huge pages map (smaps); UINT64_MAX: the kernel does not say. */
uint64_t pst_pages_huge(const struct pst_pages *p);

/* Would the kernel back memfds with transparent huge pages when advised to? */
int pst_pages_thp(void);

#endif /* PST_PAGES_H */
