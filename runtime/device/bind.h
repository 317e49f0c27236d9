/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bind.h - which kernels serve a device, and how one is swapped while calls run; private to
 * device/. Others see pst_device_bind().
 *
 * The model
 *   table   ops, and the images that some of them come from. It never changes once it is
 *           published, which is one store.
 *   call    between enter and leave: the table that it reads stays. Calls may nest.
 *
 * A table that was replaced is freed when a moment has been seen without calls: who
 * comes later finds the new one.
 */
#ifndef PST_BIND_H
#define PST_BIND_H

#include "runtime/device/image.h"

#include <pthread.h>
#include <stdatomic.h>

struct pst_bound_table;

struct pst_bound {
	_Atomic(struct pst_bound_table *) now;
	_Atomic unsigned int calls;
	_Atomic(struct pst_bound_table *) old; /* replaced, and not freed yet; under @lock */
	pthread_mutex_t lock;
};

int pst_bound_init(struct pst_bound *b, const struct pst_ops *ops); /* 0 or -ENOMEM */
void pst_bound_destroy(struct pst_bound *b);			    /* no call runs */

void pst_bound_enter(struct pst_bound *b);
void pst_bound_leave(struct pst_bound *b);
const struct pst_ops *pst_bound_ops(const struct pst_bound *b);

/* @image is held for as long as it may be called; NULL: what @builtin has for @op. */
int pst_bound_set(struct pst_bound *b, const struct pst_ops *builtin, enum pst_op op,
		  struct pst_image *image);
unsigned int pst_bound_tables(struct pst_bound *b); /* that are not freed, for tests */

#endif /* PST_BIND_H */
