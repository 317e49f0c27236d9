/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_memory.h - memory of gpu-check that the GPU reaches by the addresses that the host has.
 *
 * The model: tests allocate and map as they like, and the linker gives their calls (--wrap) to this
 * file. What they allocate lies in an arena; the stack that they run on is its beginning; what they
 * map is known by its range. Before a launch all of that is registered with the driver, in whole
 * pages, and a page that may not be touched is not: a kernel that reaches around a buffer hits an
 * address that the GPU has not. Ranges are taken back before they are unmapped.
 *
 * Order: check_memory_stack() in the process that forks tests, check_memory_register() before each
 * launch in the process of a test. Threads: one.
 */
#ifndef PST_CHECK_MEMORY_H
#define PST_CHECK_MEMORY_H

#include "kernels/cuda/driver.h"

#include <stdbool.h>
#include <stddef.h>

/* Runs @main on a stack that the GPU can be made to reach, and returns what that returns. */
int check_memory_stack(int (*main)(int argc, char **argv), int argc, char **argv);

/* All that is there now; an error of the driver, or 0. */
CUresult check_memory_register(const struct pst_cuda *cu);

/* May a kernel be given this address? The end of a range may be: there can be nothing of no rows.
 */
bool check_memory_knows(const void *at);

#endif /* PST_CHECK_MEMORY_H */
