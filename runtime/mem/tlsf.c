/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/mem/tlsf.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

/*
 * Blocks looked at where no class is sure to fit: a few, so that it stays O(1),
 * and the same few that pst_tlsf_largest() looks at, so that it tells the truth.
 */
#define WALK 64
#define LOOK 8

struct place {
	unsigned int level, class;
};

static struct place place_of(uint64_t n)
{
	unsigned int log;

	if (n < PST_TLSF_CLASSES)
		return (struct place){0, (unsigned int)n};
	log = 63u - (unsigned int)__builtin_clzll(n);
	return (struct place){log - PST_TLSF_SPLIT + 1,
			      (unsigned int)(n >> (log - PST_TLSF_SPLIT)) - PST_TLSF_CLASSES};
}

/* The first class all of whose blocks have @n granules. */
static struct place place_above(uint64_t n)
{
	if (n >= PST_TLSF_CLASSES)
		n += (1ull << (63 - __builtin_clzll(n) - PST_TLSF_SPLIT)) - 1;
	return place_of(n);
}

/* Move @p to the next class, from itself on, that has a block. */
static bool place_next(const struct pst_tlsf *t, struct place *p)
{
	uint32_t classes;
	uint64_t levels;

	if (p->level >= PST_TLSF_LEVELS)
		return false;
	classes = p->class < PST_TLSF_CLASSES ? t->classes[p->level] & ~0u << p->class : 0;
	if (!classes) {
		levels = t->levels & ~1ull << p->level;
		if (!levels)
			return false;
		p->level = (unsigned int)__builtin_ctzll(levels);
		classes = t->classes[p->level];
	}
	p->class = (unsigned int)__builtin_ctz(classes);
	return true;
}

static void insert(struct pst_tlsf *t, uint64_t granule, uint64_t n)
{
	struct place p = place_of(n);
	uint64_t *head = &t->head[p.level][p.class];

	pst_tag_set(t, granule, n, PST_TAG_FREE);
	if (n > 1)
		pst_tag_set(t, granule + n - 1, n, PST_TAG_TAIL);
	t->link[granule] = (struct pst_tlsf_link){*head, PST_TLSF_NONE};
	if (*head != PST_TLSF_NONE)
		t->link[*head].prev = granule;
	*head = granule;
	t->classes[p.level] |= 1u << p.class;
	t->levels |= 1ull << p.level;
}

static void remove_block(struct pst_tlsf *t, uint64_t granule, uint64_t n)
{
	struct pst_tlsf_link l = t->link[granule];
	struct place p = place_of(n);

	if (l.next != PST_TLSF_NONE)
		t->link[l.next].prev = l.prev;
	if (l.prev != PST_TLSF_NONE)
		t->link[l.prev].next = l.next;
	else
		t->head[p.level][p.class] = l.next;
	if (t->head[p.level][p.class] == PST_TLSF_NONE) {
		t->classes[p.level] &= ~(1u << p.class);
		if (!t->classes[p.level])
			t->levels &= ~(1ull << p.level);
	}
	pst_tag_set(t, granule, 0, PST_TAG_NONE);
	pst_tag_set(t, granule + n - 1, 0, PST_TAG_NONE);
}

int pst_tlsf_init(struct pst_tlsf *t, uint64_t granules)
{
	size_t tags, bytes;
	void *map;

	if (!granules || granules >= 1ull << 40)
		return -EINVAL;
	tags = (granules + 2) * sizeof(*t->tag);
	bytes = tags + granules * sizeof(*t->link);
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	/* One huge page for one tag is what laziness is to avoid. */
	madvise(map, bytes, MADV_NOHUGEPAGE);

	memset(t, 0, sizeof(*t));
	memset(t->head, 0xff, sizeof(t->head));
	t->map = map;
	t->map_bytes = bytes;
	t->tag = (uint64_t *)map + 1;
	t->link = (struct pst_tlsf_link *)((char *)map + tags);
	t->granules = granules;
	insert(t, 0, granules);
	return 0;
}

void pst_tlsf_fini(struct pst_tlsf *t)
{
	if (t->map)
		munmap(t->map, t->map_bytes);
	t->map = NULL;
}

/* Where in the free block @granule a block of @n would begin; PST_TLSF_NONE: it does not fit. */
static uint64_t fit(const struct pst_tlsf *t, uint64_t granule, uint64_t n, uint64_t align)
{
	uint64_t at = (granule + align - 1) & ~(align - 1);
	uint64_t end = granule + pst_tag_size(pst_tag_get(t, granule));

	return at < end && n <= end - at ? at : PST_TLSF_NONE;
}

/* Look at up to *left blocks of one class. */
static uint64_t look(const struct pst_tlsf *t, struct place p, uint64_t n, uint64_t align,
		     unsigned int *left, uint64_t *at)
{
	uint64_t g = t->head[p.level][p.class];

	for (; *left && g != PST_TLSF_NONE; g = t->link[g].next, --*left) {
		*at = fit(t, g, n, align);
		if (*at != PST_TLSF_NONE)
			return g;
	}
	return PST_TLSF_NONE;
}

/* No class is sure to have a block that fits: look at a few that may. */
static uint64_t walk(const struct pst_tlsf *t, uint64_t n, uint64_t align, uint64_t *at)
{
	struct place p = place_of(n);
	unsigned int left = WALK;

	while (left && place_next(t, &p)) {
		uint64_t g = look(t, p, n, align, &left, at);

		if (g != PST_TLSF_NONE)
			return g;
		p.class ++;
	}
	return PST_TLSF_NONE;
}

static uint64_t find(const struct pst_tlsf *t, uint64_t n, uint64_t align, uint64_t *at)
{
	struct place p = place_above(n + align - 1);
	unsigned int left = LOOK;
	uint64_t g;

	/*
	 * Blocks of this very size are in the class below the first that is sure to fit, and
	 * who has many of one size (experts) wants them back first.
	 */
	g = look(t, place_of(n), n, align, &left, at);
	if (g != PST_TLSF_NONE)
		return g;
	if (!place_next(t, &p))
		return walk(t, n, align, at);
	g = t->head[p.level][p.class];
	*at = fit(t, g, n, align);
	return g;
}

uint64_t pst_tlsf_take(struct pst_tlsf *t, uint64_t n, uint64_t align)
{
	uint64_t g, at, end;

	if (!n || n > t->granules || align > t->granules)
		return PST_TLSF_NONE;
	g = find(t, n, align, &at);
	if (g == PST_TLSF_NONE)
		return PST_TLSF_NONE;
	end = g + pst_tag_size(pst_tag_get(t, g));
	remove_block(t, g, end - g);
	if (at > g)
		insert(t, g, at - g);
	if (end > at + n)
		insert(t, at + n, end - at - n);
	pst_tag_set(t, at, n, PST_TAG_USED);
	t->taken += n;
	return at;
}

uint64_t pst_tlsf_give(struct pst_tlsf *t, uint64_t granule)
{
	uint64_t tag = pst_tag_get(t, granule), g = granule, n = pst_tag_size(tag), near;

	if (pst_tag_kind(tag) != PST_TAG_USED)
		return 0;
	t->taken -= n;
	pst_tag_set(t, granule, 0, PST_TAG_NONE);

	/* A free block that ends just before is its tail's, or its head's when it is one granule.
	 */
	near = pst_tag_get(t, g - 1);
	if (pst_tag_kind(near) == PST_TAG_TAIL || pst_tag_kind(near) == PST_TAG_FREE) {
		g -= pst_tag_size(near);
		remove_block(t, g, pst_tag_size(near));
	}
	near = pst_tag_get(t, granule + n);
	if (pst_tag_kind(near) == PST_TAG_FREE)
		remove_block(t, granule + n, pst_tag_size(near));
	else
		near = 0;
	insert(t, g, granule + n + pst_tag_size(near) - g);
	return n;
}

uint64_t pst_tlsf_largest(const struct pst_tlsf *t)
{
	uint64_t largest = 0, g;
	unsigned int level, class;

	if (!t->levels)
		return 0;
	level = 63u - (unsigned int)__builtin_clzll(t->levels);
	class = 31u - (unsigned int)__builtin_clz(t->classes[level]);
	g = t->head[level][class];
	for (unsigned int i = 0; i < WALK && g != PST_TLSF_NONE; g = t->link[g].next, i++) {
		uint64_t n = pst_tag_size(pst_tag_get(t, g));

		if (n > largest)
			largest = n;
	}
	return largest;
}
