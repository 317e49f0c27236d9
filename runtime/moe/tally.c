/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/moe/tally.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Experts [from, from + n) of a layer; a model with more of them adds another span. */
struct tally_span {
	uint32_t layer, from, n;
	struct pst_tally_expert expert[];
};

void pst_tally_init(struct pst_tally *t)
{
	memset(t, 0, sizeof(*t));
	pthread_mutex_init(&t->lock, NULL);
}

void pst_tally_destroy(struct pst_tally *t)
{
	for (size_t i = 0; i < t->spans; i++)
		free(t->span[i]);
	free(t->span);
	pthread_mutex_destroy(&t->lock);
}

/* How many spans begin at (@layer, @index) or before. */
static size_t spans_until(const struct pst_tally *t, uint32_t layer, uint32_t index)
{
	size_t lo = 0, hi = t->spans;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		const struct tally_span *s = t->span[mid];

		if (s->layer < layer || (s->layer == layer && s->from <= index))
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static int insert(struct pst_tally *t, size_t at, struct tally_span *s)
{
	struct tally_span **grown;
	int rc = -ENOMEM;

	pthread_mutex_lock(&t->lock);
	grown = realloc(t->span, (t->spans + 1) * sizeof(struct tally_span *));
	if (grown) {
		t->span = grown;
		memmove(&grown[at + 1], &grown[at], (t->spans - at) * sizeof(struct tally_span *));
		grown[at] = s;
		t->spans++;
		rc = 0;
	}
	pthread_mutex_unlock(&t->lock);
	return rc;
}

int pst_tally_cover(struct pst_tally *t, uint32_t layer, uint32_t experts)
{
	size_t at = spans_until(t, layer, UINT32_MAX);
	const struct tally_span *last = at ? t->span[at - 1] : NULL;
	uint32_t have = last && last->layer == layer ? last->from + last->n : 0;
	struct tally_span *s;
	int rc;

	if (experts <= have)
		return 0;
	s = calloc(1, sizeof(*s) + (experts - have) * sizeof(*s->expert));
	if (!s)
		return -ENOMEM;
	s->layer = layer;
	s->from = have;
	s->n = experts - have;
	rc = insert(t, at, s);
	if (rc < 0)
		free(s);
	return rc;
}

struct pst_tally_expert *pst_tally_find(struct pst_tally *t, uint32_t layer, uint32_t index)
{
	struct tally_span *s = t->span[spans_until(t, layer, index) - 1];

	return &s->expert[index - s->from];
}

void pst_tally_note(struct pst_tally *t, const char *note)
{
	pthread_mutex_lock(&t->lock);
	snprintf(t->note, sizeof(t->note), "%s", note);
	pthread_mutex_unlock(&t->lock);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void pst_tally_begin(struct pst_tally *t)
{
	atomic_store_explicit(&t->busy_since_ns, now_ns(), memory_order_relaxed);
}

void pst_tally_end(struct pst_tally *t)
{
	uint64_t since = atomic_load_explicit(&t->busy_since_ns, memory_order_relaxed);

	atomic_store_explicit(&t->busy_since_ns, 0, memory_order_relaxed);
	pst_tally_add(&t->busy_ns, now_ns() - since);
}

/* Reading */

static uint64_t get(_Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void pst_tally_stat(struct pst_tally *t, struct pst_tally_stat *out)
{
	*out = (struct pst_tally_stat){
		.rows = get(&t->rows),
		.calls = get(&t->calls),
		.pulled = get(&t->pulled),
		.busy_ns = get(&t->busy_ns),
		.busy_since_ns = get(&t->busy_since_ns),
		.engines = atomic_load_explicit(&t->engines, memory_order_relaxed),
	};
	pthread_mutex_lock(&t->lock);
	memcpy(out->note, t->note, sizeof(out->note));
	pthread_mutex_unlock(&t->lock);
}

static void describe(struct pst_tally_expert *x, struct pst_tally_expert_stat *out)
{
	out->bytes = get(&x->bytes);
	out->rows = get(&x->rows);
	out->pulled = get(&x->pulled);
	out->copied = atomic_load_explicit(&x->copies, memory_order_relaxed) != 0;
	out->pinned = atomic_load_explicit(&x->pins, memory_order_relaxed) != 0;
}

/* The first in span @at, from (@layer, @index) on, that an engine has had. */
static bool find_in(const struct pst_tally *t, size_t at, uint32_t layer, uint64_t index,
		    struct pst_tally_expert_stat *io)
{
	struct tally_span *s = t->span[at];
	uint64_t i = s->layer == layer && index > s->from ? index - s->from : 0;

	for (; i < s->n; i++) {
		if (!get(&s->expert[i].bytes))
			continue;
		io->layer = s->layer;
		io->index = s->from + (uint32_t)i;
		describe(&s->expert[i], io);
		return true;
	}
	return false;
}

int pst_tally_next(struct pst_tally *t, struct pst_tally_expert_stat *io)
{
	bool begin = io->layer == UINT32_MAX && io->index == UINT32_MAX, found = false;
	uint32_t layer = begin ? 0 : io->layer;
	uint64_t index = begin ? 0 : (uint64_t)io->index + 1;
	size_t at;

	pthread_mutex_lock(&t->lock);
	at = begin ? 0 : spans_until(t, layer, io->index);
	for (at -= at > 0; at < t->spans && !found; at++)
		if (t->span[at]->layer >= layer)
			found = find_in(t, at, layer, index, io);
	pthread_mutex_unlock(&t->lock);
	return found ? 0 : -ENOENT;
}
