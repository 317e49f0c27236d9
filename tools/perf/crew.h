/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crew.h - threads that prepare on their own and begin to measure together.
 *
 * Nobody measures before all have prepared, and nobody at all when one of them could not.
 */
#ifndef PERF_CREW_H
#define PERF_CREW_H

#include <penstock/error.h>
#include <stddef.h>

typedef int crew_fn(void *member);

/* Threads for @n members of @size bytes; -errno of the first that failed, its sentence in @err. */
int crew_run(void *members, size_t size, unsigned int n, crew_fn *prepare, crew_fn *measure,
	     struct pst_error *err);

#endif /* PERF_CREW_H */
