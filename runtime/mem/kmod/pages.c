// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Memory of one node. Blocks are compound pages that the allocator counts as kernel memory: they
 * are on no LRU list and in no movable block of memory, so nothing migrates, swaps or compacts
 * them, and the memory cgroup of who asked is charged.
 */
#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "kmod.h"

/*
 * Never another node, and no OOM killer: who asks for more than there is gets -ENOMEM, and nobody
 * else pays. Caches are dropped and memory is compacted for it, as hard as can be.
 */
#define PST_GFP                                                                         \
	(GFP_KERNEL_ACCOUNT | __GFP_THISNODE | __GFP_ZERO | __GFP_COMP | __GFP_NOWARN | \
	 __GFP_RETRY_MAYFAIL)

static void put_list(struct list_head *list)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, list, lru) {
		list_del(&page->lru);
		put_page(page);
		cond_resched();
	}
}

/* Once a size cannot be had, the next smaller is asked for, and the larger never again. */
static int fill_list(struct list_head *list, struct pst_pages *pages, bool huge)
{
	unsigned int order = PST_HUGE_ORDER;
	unsigned long left = pages->npages;

	while (left) {
		struct page *page;

		if (fatal_signal_pending(current))
			return -EINTR;
		order = min_t(unsigned int, order, ilog2(left));
		page = alloc_pages_node(pages->node, PST_GFP, order);
		if (!page) {
			if (huge || !order)
				return -ENOMEM;
			order--;
			continue;
		}
		list_add_tail(&page->lru, list);
		pages->nblocks++;
		pages->nhuge += order == PST_HUGE_ORDER ? PST_HUGE_PAGES : 0;
		left -= 1UL << order;
		cond_resched();
	}
	return 0;
}

/*
 * Pages know where in the pool they are: kernels since 6.12 map a huge page as one only when its
 * end, counted from there, is within the file.
 */
static void list_to_blocks(struct list_head *list, struct pst_block *block)
{
	struct page *page, *next;
	unsigned long first = 0;

	list_for_each_entry_safe(page, next, list, lru) {
		list_del(&page->lru);
		*block++ = (struct pst_block){page, first};
		page->index = first;
		first += compound_nr(page);
		cond_resched();
	}
}

int pst_pages_get(struct pst_pages *out, unsigned long npages, int node, bool huge)
{
	struct pst_pages pages = {.npages = npages, .node = node};
	LIST_HEAD(list);
	int rc;

	if (npages > node_present_pages(node))
		return -ENOMEM;
	rc = fill_list(&list, &pages, huge);
	if (rc)
		goto put_list;
	rc = -ENOMEM;
	pages.block = kvmalloc_array(pages.nblocks, sizeof(*pages.block),
				     GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!pages.block)
		goto put_list;
	list_to_blocks(&list, pages.block);
	*out = pages;
	return 0;

put_list:
	put_list(&list);
	return rc;
}

/* What is pinned by somebody stays his until he lets go. */
void pst_pages_put(struct pst_pages *pages)
{
	unsigned long i;

	for (i = 0; i < pages->nblocks; i++) {
		put_page(pages->block[i].page);
		cond_resched();
	}
	kvfree(pages->block);
}

struct page *pst_pages_at(const struct pst_pages *pages, unsigned long index)
{
	unsigned long low = 0, high = pages->nblocks;

	while (high - low > 1) {
		unsigned long middle = low + (high - low) / 2;

		if (pages->block[middle].first <= index)
			low = middle;
		else
			high = middle;
	}
	return nth_page(pages->block[low].page, index - pages->block[low].first);
}

int pst_pages_table(const struct pst_pages *pages, struct sg_table *table)
{
	struct scatterlist *sg;
	unsigned int i;
	int rc;

	if (pages->nblocks > UINT_MAX)
		return -E2BIG;
	rc = sg_alloc_table(table, pages->nblocks, GFP_KERNEL);
	if (rc)
		return rc;
	for_each_sgtable_sg(table, sg, i) {
		sg_set_page(sg, pages->block[i].page, page_size(pages->block[i].page), 0);
		cond_resched();
	}
	return 0;
}

unsigned long pst_pages_elsewhere(const struct pst_pages *pages)
{
	unsigned long i, elsewhere = 0;

	for (i = 0; i < pages->nblocks; i++) {
		if (page_to_nid(pages->block[i].page) != pages->node)
			elsewhere += compound_nr(pages->block[i].page);
		cond_resched();
	}
	return elsewhere;
}
