/* SPDX-License-Identifier: Apache-2.0 */
/*
 * place.h - on which NUMA node pages are, and getting them there.
 *
 * Plain system calls, since all that is needed of libnuma is three of them.
 * That a call returned 0 does not show where a page is; only the audit does.
 *
 * @root is put before paths of /sys and /proc: "" but in tests.
 */
#ifndef PST_PLACE_H
#define PST_PLACE_H

#include <stddef.h>
#include <stdint.h>

#define PST_PLACE_NODES 1024

struct pst_node_mask {
	unsigned long bits[PST_PLACE_NODES / (8 * sizeof(unsigned long))];
};

/* A list as the kernel writes it, "0-3,8". -EINVAL. */
int pst_place_parse(const char *list, struct pst_node_mask *out);
int pst_place_has(const struct pst_node_mask *mask, int node);
int pst_place_count(const struct pst_node_mask *mask);

/* Nodes that have memory. A kernel without NUMA has node 0. */
void pst_place_nodes(const char *root, struct pst_node_mask *out);

/* The node of the CPU that the caller runs on. */
int pst_place_here(void);

/* Have pages of [@base, @base + @bytes) that are not there yet come from @node; with @strict from
 * nowhere else. -errno. */
int pst_place_bind(void *base, uint64_t bytes, int node, int strict);

/*
 * Make all pages of [@base, @base + @bytes) present, from CPUs of @node (-1: any), in several
 * threads when there is much of it. -errno, never a signal where the kernel has
 * MADV_POPULATE_WRITE; before that the caller has allocated them.
 */
int pst_place_populate(const char *root, void *base, uint64_t bytes, uint64_t page, int node);

struct pst_place_audit {
	uint64_t checked, elsewhere;
};

/* Where is each page? With @repair those elsewhere are moved first. -errno of move_pages(2). */
int pst_place_audit(void *base, uint64_t bytes, uint64_t page, int node, int repair,
		    struct pst_place_audit *out);

#endif /* PST_PLACE_H */
