/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/experts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HALF_MS 10000 /* after which what was recent counts half */

/* What one worker last said of an expert. */
struct share {
	struct share *next;
	uint32_t worker;
	bool copied, pinned;
	uint64_t rows, pulled;
};

struct expert {
	uint64_t key; /* layer, index */
	uint64_t bytes, rows, pulled;
	uint64_t recent;
	int64_t halved_ms; /* when @recent was last halved */
	struct share *shares;
};

struct experts {
	struct expert **by_key; /* sorted */
	size_t n, room;
	size_t shares;
};

int experts_new(struct experts **out)
{
	struct experts *x = calloc(1, sizeof(*x));

	if (!x)
		return -ENOMEM;
	*out = x;
	return 0;
}

static void free_expert(struct experts *x, struct expert *e)
{
	while (e->shares) {
		struct share *s = e->shares;

		e->shares = s->next;
		free(s);
		x->shares--;
	}
	free(e);
}

void experts_free(struct experts *x)
{
	if (!x)
		return;
	for (size_t i = 0; i < x->n; i++)
		free_expert(x, x->by_key[i]);
	free(x->by_key);
	free(x);
}

static uint64_t key_of(uint32_t layer, uint32_t index)
{
	return (uint64_t)layer << 32 | index;
}

/* The first that is not below @key. */
static size_t lower(const struct experts *x, uint64_t key)
{
	size_t from = 0, to = x->n;

	while (from < to) {
		size_t mid = from + (to - from) / 2;

		if (x->by_key[mid]->key < key)
			from = mid + 1;
		else
			to = mid;
	}
	return from;
}

static struct expert *find(const struct experts *x, uint64_t key)
{
	size_t at = lower(x, key);

	return at < x->n && x->by_key[at]->key == key ? x->by_key[at] : NULL;
}

static void cool(struct expert *e, int64_t now_ms)
{
	int64_t times = (now_ms - e->halved_ms) / HALF_MS;

	if (times <= 0)
		return;
	e->recent = times < 64 ? e->recent >> times : 0;
	e->halved_ms += times * HALF_MS;
}

static struct expert *add(struct experts *x, uint64_t key, int64_t now_ms)
{
	size_t at = lower(x, key);
	struct expert *e;

	if (x->n == x->room) {
		size_t room = x->room ? x->room * 2 : 256;
		struct expert **bigger = realloc(x->by_key, room * sizeof(*bigger));

		if (!bigger)
			return NULL;
		x->by_key = bigger;
		x->room = room;
	}
	e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	e->key = key;
	e->halved_ms = now_ms;
	memmove(&x->by_key[at + 1], &x->by_key[at], (x->n - at) * sizeof(*x->by_key));
	x->by_key[at] = e;
	x->n++;
	return e;
}

static struct share *share_of(const struct expert *e, uint32_t worker)
{
	struct share *s = e->shares;

	while (s && s->worker != worker)
		s = s->next;
	return s;
}

static void drop_share(struct experts *x, struct expert *e, uint32_t worker)
{
	struct share **at = &e->shares;

	while (*at && (*at)->worker != worker)
		at = &(*at)->next;
	if (*at) {
		struct share *s = *at;

		*at = s->next;
		free(s);
		x->shares--;
	}
}

/* Those that no worker has any more. */
static void drop_unshared(struct experts *x)
{
	size_t kept = 0;

	for (size_t i = 0; i < x->n; i++) {
		if (x->by_key[i]->shares)
			x->by_key[kept++] = x->by_key[i];
		else
			free_expert(x, x->by_key[i]);
	}
	x->n = kept;
}

static void tell_gone(struct experts *x, uint32_t id, uint64_t key)
{
	size_t at = lower(x, key);
	struct expert *e = find(x, key);

	if (!e)
		return;
	drop_share(x, e, id);
	if (e->shares)
		return;
	free_expert(x, e);
	x->n--;
	memmove(&x->by_key[at], &x->by_key[at + 1], (x->n - at) * sizeof(*x->by_key));
}

static int new_share(struct experts *x, uint32_t id, uint64_t key, int64_t now_ms,
		     struct expert **e, struct share **out)
{
	struct share *s;

	if (x->shares >= EXPERTS_MAX)
		return -ENOSPC;
	s = calloc(1, sizeof(*s));
	if (s && !*e)
		*e = add(x, key, now_ms);
	if (!s || !*e) {
		free(s);
		return -ENOMEM;
	}
	s->worker = id;
	s->next = (*e)->shares;
	(*e)->shares = s;
	x->shares++;
	*out = s;
	return 0;
}

/* What was counted since @before; a counter that went back began again. */
static uint64_t more(uint64_t before, uint64_t now)
{
	return now >= before ? now - before : now;
}

int experts_tell(struct experts *x, uint32_t id, const struct pst_leash_expert *m, int64_t now_ms)
{
	uint64_t key = key_of(m->layer, m->index), rows;
	struct expert *e = find(x, key);
	struct share *s = e ? share_of(e, id) : NULL;
	bool first = !s;

	if (!m->bytes) {
		tell_gone(x, id, key);
		return 0;
	}
	if (first) {
		int rc = new_share(x, id, key, now_ms, &e, &s);

		if (rc < 0)
			return rc;
	}
	cool(e, now_ms);
	rows = more(s->rows, m->rows);
	e->bytes = m->bytes;
	e->rows += rows;
	e->pulled += more(s->pulled, m->pulled);
	/* nobody knows how old the first figure is */
	if (!first)
		e->recent += rows;
	s->rows = m->rows;
	s->pulled = m->pulled;
	s->copied = m->copied;
	s->pinned = m->pinned;
	return 0;
}

void experts_died(struct experts *x, uint32_t id)
{
	for (size_t i = 0; i < x->n; i++) {
		struct share *s = share_of(x->by_key[i], id);

		if (s)
			*s = (struct share){.next = s->next, .worker = id};
	}
}

void experts_forget(struct experts *x, uint32_t id)
{
	for (size_t i = 0; i < x->n; i++)
		drop_share(x, x->by_key[i], id);
	drop_unshared(x);
}

static struct expert *above(const struct experts *x, uint64_t key)
{
	size_t at = key == key_of(PST_EXPERT_FIRST, PST_EXPERT_FIRST) ? 0 : lower(x, key + 1);

	return at < x->n ? x->by_key[at] : NULL;
}

int experts_stat(struct experts *x, bool next, struct pst_cmd_expert_stat *io, int64_t now_ms)
{
	uint64_t key = key_of(io->layer, io->index);
	struct expert *e = next ? above(x, key) : find(x, key);

	if (!e)
		return -ENOENT;
	cool(e, now_ms);
	io->layer = (uint32_t)(e->key >> 32);
	io->index = (uint32_t)e->key;
	io->out_bytes = e->bytes;
	io->out_rows = e->rows;
	io->out_recent_rows = e->recent;
	io->out_pulled = e->pulled;
	io->out_copies = 0;
	io->out_pinned = 0;
	io->out_workers = 0;
	for (const struct share *s = e->shares; s; s = s->next) {
		io->out_copies += s->copied;
		io->out_pinned += s->pinned;
		if (s->copied && s->worker >= 1 && s->worker <= 64)
			io->out_workers |= 1ull << (s->worker - 1);
	}
	return 0;
}
