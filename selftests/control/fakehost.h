/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fakehost.h - a fake door with a host behind it: two CPUs, two GPUs of which one is hot, three
 * workers, a server with tables, pools on two nodes, kernels, experts and events.
 */
#ifndef TEST_FAKEHOST_H
#define TEST_FAKEHOST_H

#include "selftests/control/fakedoor.h"

/* Fills @f and opens it at @path. Of static memory: one at a time. */
void fakehost_open(struct fakedoor *f, const char *path);

#endif /* TEST_FAKEHOST_H */
