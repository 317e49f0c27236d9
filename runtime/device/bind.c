/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/device/bind.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

struct pst_bound_table {
	struct pst_ops ops;
	struct pst_image *image[PST_OP_COUNT];
	struct pst_bound_table *next;
};

int pst_bound_init(struct pst_bound *b, const struct pst_ops *ops)
{
	struct pst_bound_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->ops = *ops;
	atomic_init(&b->now, t);
	atomic_init(&b->calls, 0);
	atomic_init(&b->old, NULL);
	pthread_mutex_init(&b->lock, NULL);
	return 0;
}

static void free_table(struct pst_bound_table *t)
{
	for (int op = 0; op < PST_OP_COUNT; op++)
		pst_image_put(t->image[op]);
	free(t);
}

static void free_tables(struct pst_bound_table *t)
{
	while (t) {
		struct pst_bound_table *next = t->next;

		free_table(t);
		t = next;
	}
}

void pst_bound_destroy(struct pst_bound *b)
{
	free_tables(atomic_load(&b->old));
	free_table(atomic_load(&b->now));
	pthread_mutex_destroy(&b->lock);
}

/*
 * Those that are old now, if no call runs: taken off, to be freed without the lock. A call
 * that begins after @calls was read as 0 reads @now after that, so it cannot have one of them:
 * the store of @now came before them all, and all of this is in one order.
 */
static struct pst_bound_table *take_old(struct pst_bound *b)
{
	return atomic_load(&b->calls) ? NULL : atomic_exchange(&b->old, NULL);
}

void pst_bound_enter(struct pst_bound *b)
{
	atomic_fetch_add(&b->calls, 1);
}

/* Whoever has the lock will look for himself, so nobody waits for it here. */
void pst_bound_leave(struct pst_bound *b)
{
	struct pst_bound_table *old = NULL;

	if (atomic_fetch_sub(&b->calls, 1) != 1 || !atomic_load(&b->old) ||
	    pthread_mutex_trylock(&b->lock))
		return;
	old = take_old(b);
	pthread_mutex_unlock(&b->lock);
	free_tables(old);
}

const struct pst_ops *pst_bound_ops(const struct pst_bound *b)
{
	return &atomic_load(&b->now)->ops;
}

int pst_bound_set(struct pst_bound *b, const struct pst_ops *builtin, enum pst_op op,
		  struct pst_image *image)
{
	struct pst_bound_table *t = malloc(sizeof(*t)), *old;

	if (!t)
		return -ENOMEM;
	pthread_mutex_lock(&b->lock);
	old = atomic_load(&b->now);
	*t = *old;
	t->next = NULL;
	t->image[op] = image;
	for (int i = 0; i < PST_OP_COUNT; i++)
		pst_image_hold(t->image[i]);
	pst_ops_put(&t->ops, op, image ? pst_image_kernel(image) : pst_ops_get(builtin, op));
	atomic_store(&b->now, t);
	old->next = atomic_load(&b->old);
	atomic_store(&b->old, old);
	old = take_old(b);
	pthread_mutex_unlock(&b->lock);
	free_tables(old);
	return 0;
}

unsigned int pst_bound_tables(struct pst_bound *b)
{
	unsigned int n = 1;

	pthread_mutex_lock(&b->lock);
	for (struct pst_bound_table *t = atomic_load(&b->old); t; t = t->next)
		n++;
	pthread_mutex_unlock(&b->lock);
	return n;
}
