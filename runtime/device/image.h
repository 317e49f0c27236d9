/* SPDX-License-Identifier: Apache-2.0 */
/*
 * image.h - a kernel in a shared object (kernels/image.h), loaded into this process.
 *
 * What is loaded cannot change: it is a sealed memfd, or becomes one. An image is checked before
 * the loader sees it, and its ABI after; but it is not tried here, and what its constructors do
 * is its own matter. It is there until the last who holds it lets go.
 *
 * Threads: any.
 */
#ifndef PST_DEVICE_IMAGE_H
#define PST_DEVICE_IMAGE_H

#include "kernels/table.h"

#include <penstock/error.h>
#include <stdint.h>

struct pst_image;

#define PST_IMAGE_MAX (64u << 20) /* bytes */

/*
 * Load the shared object in @fd, which stays the caller's. -ENOEXEC: it is none for this
 * machine, is not whole, cannot be loaded, or was built against another ABI.
 */
int pst_image_open(int fd, struct pst_image **out, struct pst_error *err);
void pst_image_hold(struct pst_image *image); /* NULL is fine, as below */
void pst_image_put(struct pst_image *image);

enum pst_op pst_image_op(const struct pst_image *image);
const char *pst_image_name(const struct pst_image *image);
pst_any_fn *pst_image_kernel(const struct pst_image *image);

#endif /* PST_DEVICE_IMAGE_H */
