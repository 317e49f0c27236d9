/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels.h - images of kernels: who may be trusted, what was tried, what is bound.
 *
 * An image is read, its manifest checked, its signature verified, and then tried in a child
 * of its own (penstock-trial), which is killed when it takes too long. What is bound is
 * held against ref again now and then, in the workers; what disagrees, or is there when a worker
 * crashes or hangs, is taken back. Built-in kernels have ids too.
 *
 * Threads: the loop's.
 */
#ifndef DAEMON_KERNELS_H
#define DAEMON_KERNELS_H

#include "daemon/control/command.h"

int kernels_open(struct penstockd *d, struct kernels **out, struct pst_error *err);
void kernels_close(struct kernels *kernels); /* NULL is fine */

/* As the commands say; load and bind answer later. */
int kernels_load(struct kernels *kernels, struct request *r);
int kernels_bind(struct kernels *kernels, struct request *r);
int kernels_rollback(struct kernels *kernels, struct request *r);
int kernels_unload(struct kernels *kernels, struct request *r);
int kernels_stat(struct kernels *kernels, bool next, struct pst_cmd_kernel_stat *io);
uint32_t kernels_count(const struct kernels *kernels);
bool kernels_signed(const struct kernels *kernels); /* images need a signature */

#endif /* DAEMON_KERNELS_H */
