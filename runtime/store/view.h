/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - a server's published tensors, used in place by a reader.
 *
 * A view is a link to one server with its snapshot region mapped read-only.
 * Nothing is pulled: a weight is a pointer into the server's memory, valid for one
 * version until the version after the next is being published.
 *
 * What the region says is checked once when it is opened (it is another
 * process's memory); offsets are kept in private memory afterwards.
 *
 * Threads: those of the cq.
 */
#ifndef PST_VIEW_H
#define PST_VIEW_H

#include "rdma/fabric.h"

#include <penstock/wire.h>

struct pst_view;

/* Connect to the server at @url, which may still be starting. */
int pst_view_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_view **out,
		     struct pst_error *err);

/* Ask for the snapshot and map it; the table must be there. */
int pst_view_open(struct pst_view *view, struct pst_error *err);
void pst_view_close(struct pst_view *view); /* closes the link */

struct pst_link *pst_view_link(const struct pst_view *view);
size_t pst_view_count(const struct pst_view *view);
const struct pst_wire_tensor *pst_view_tensor(const struct pst_view *view, size_t i);
long pst_view_find(const struct pst_view *view, const char *name); /* -ENOENT */

/* Version that the server wants read now; PST_VERSION_NONE before the first. */
uint64_t pst_view_current(const struct pst_view *view);

/* Tensor @i as of @version; NULL when the server does not hold that version (any more). */
const float *pst_view_weight(const struct pst_view *view, size_t i, uint64_t version);

#endif /* PST_VIEW_H */
