/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tlsf.h - two-level segregated fit over granules, its book-keeping in a side table.
 *
 * The model
 *   granule  64 bytes of a pool, named by their index. The allocator never
 *            touches the memory that it hands out.
 *   tag      one word per granule. The first granule of a block says what the
 *            block is and how long; the last one of a free block says so too,
 *            so that a neighbour finds where it begins. All others are 0,
 *            which is how a pointer that is no block is told from one that is.
 *   class    free blocks of about one size, in a list: a power of two (first
 *            level) cut into 32 (second level). Two bitmaps find the next class
 *            that has a block, so that taking and giving back is O(1).
 *
 * M. Masmano, I. Ripoll, A. Crespo, J. Real: TLSF, a new dynamic memory
 * allocator for real-time systems, ECRTS 2004.
 *
 * The tables are as lazy as memory is: what was never a block's edge costs nothing.
 *
 * Threads: one at a time. Tags may be read by anyone, hence the relaxed atomics.
 */
#ifndef PST_TLSF_H
#define PST_TLSF_H

#include <stddef.h>
#include <stdint.h>

#define PST_TLSF_NONE	 UINT64_MAX
#define PST_TLSF_SPLIT	 5 /* log2 of the second level's classes */
#define PST_TLSF_CLASSES (1u << PST_TLSF_SPLIT)
#define PST_TLSF_LEVELS	 (40 - PST_TLSF_SPLIT + 1) /* up to 2^40 granules, 64 TiB */

enum pst_tag_kind {
	PST_TAG_NONE,
	PST_TAG_USED,
	PST_TAG_CACHED, /* in a thread's cache: free for the user, taken for the allocator */
	PST_TAG_FREE,
	PST_TAG_TAIL, /* last granule of a free block of more than one */
};

struct pst_tlsf {
	uint64_t *tag; /* [-1 .. granules]: both ends have a neighbour that is nothing */
	struct pst_tlsf_link {
		uint64_t next, prev;
	} * link; /* [granules], of free blocks */
	uint64_t granules, taken;
	uint64_t levels; /* bit: a class of this level has a block */
	uint32_t classes[PST_TLSF_LEVELS];
	uint64_t head[PST_TLSF_LEVELS][PST_TLSF_CLASSES];
	void *map;
	size_t map_bytes;
};

static inline enum pst_tag_kind pst_tag_kind(uint64_t tag)
{
	return (enum pst_tag_kind)(tag & 7);
}

static inline uint64_t pst_tag_size(uint64_t tag)
{
	return tag >> 3;
}

/* @granule: from -1, which stands before the first; as unsigned, its neighbour by - 1. */
static inline uint64_t pst_tag_get(const struct pst_tlsf *t, uint64_t granule)
{
	return __atomic_load_n(&t->tag[(int64_t)granule], __ATOMIC_RELAXED);
}

static inline void pst_tag_set(struct pst_tlsf *t, uint64_t granule, uint64_t size,
			       enum pst_tag_kind kind)
{
	__atomic_store_n(&t->tag[(int64_t)granule], size << 3 | kind, __ATOMIC_RELAXED);
}

/* One free block of all @granules. -ENOMEM, -EINVAL (0 or too many). */
int pst_tlsf_init(struct pst_tlsf *t, uint64_t granules);
void pst_tlsf_fini(struct pst_tlsf *t);

/*
 * Take @n granules whose first is a multiple of @align (a power of two).
 * PST_TLSF_NONE: no such block.
 */
uint64_t pst_tlsf_take(struct pst_tlsf *t, uint64_t n, uint64_t align);

/* Give back the used block at @granule; its size, or 0 when there is none. */
uint64_t pst_tlsf_give(struct pst_tlsf *t, uint64_t granule);

/* The most granules that pst_tlsf_take() could give now, with @align 1. */
uint64_t pst_tlsf_largest(const struct pst_tlsf *t);

#endif /* PST_TLSF_H */
