/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - a server's published tensors, as a reader sees them.
 *
 * The model
 *   view  a link to one server, and what its snapshot region says of itself.
 *   need  makes tensors of one version readable. Where the region can be mapped
 *         (shm) they are read in place: nothing moves. Elsewhere those
 *         that are not here are pulled into local copies (copies.h) by one-sided
 *         reads, as many under way as the queues take; then the head is read: when
 *         the server still holds the version, nothing was torn, and else
 *         all that came is thrown away.
 *   A weight is a pointer: in place it is valid until the version after the next is
 *   being published, as a copy until the next request begins.
 *
 * What the region says is checked once when it is opened (it is another
 * process's memory); what was checked is kept in private memory.
 *
 * Order of calls: connect, open; keep, once; then, per request, pst_copies_begin, need, weight.
 * Threads: those of the inbox.
 */
#ifndef PST_VIEW_H
#define PST_VIEW_H

#include "runtime/store/copies.h"
#include "runtime/store/inbox.h"

#include <penstock/wire.h>

struct pst_view;

/* Connect to the server at @url, which may still be starting. */
int pst_view_connect(struct pst_inbox *inbox, const char *url, int timeout_ms,
		     struct pst_view **out, struct pst_error *err);

/* Ask for the snapshot and take its directory; the table must be there. */
int pst_view_open(struct pst_view *view, struct pst_error *err);
void pst_view_close(struct pst_view *view); /* closes the link; NULL is fine */

struct pst_link *pst_view_link(const struct pst_view *view);
size_t pst_view_count(const struct pst_view *view);
const struct pst_wire_tensor *pst_view_tensor(const struct pst_view *view, size_t i);
long pst_view_find(const struct pst_view *view, const char *name); /* -ENOENT */
bool pst_view_mapped(const struct pst_view *view);
/* All that is mapped, of *@bytes; NULL: nothing is. */
const void *pst_view_memory(const struct pst_view *view, uint64_t *bytes);

/* Where copies go, which outlive the view (or NULL); a view that is mapped needs none. */
void pst_view_keep(struct pst_view *view, struct pst_copies *copies);

/*
 * Version that the server wants read now; PST_VERSION_NONE before the first. Where nothing
 * is mapped it is asked for one-sidedly, and none when that fails.
 */
uint64_t pst_view_current(const struct pst_view *view);

struct pst_view_want {
	struct pst_view *view; /* of one inbox, and with one set of copies */
	const uint32_t *tensor;
	size_t n;
};

/*
 * Make all that is wanted readable as of @version. -ESTALE: a server does not hold it (any
 * more); -ENOSPC: more at once than the copies' budget.
 */
int pst_views_need(const struct pst_view_want *want, size_t n, uint64_t version,
		   struct pst_error *err);
int pst_view_need(struct pst_view *view, const uint32_t *tensor, size_t n, uint64_t version,
		  struct pst_error *err);

/* Tensor @i as of @version; NULL when that is not held (any more), or was not pulled. */
const float *pst_view_weight(const struct pst_view *view, size_t i, uint64_t version);

/*
 * For a view with copies: keep that of tensor @i for good, or no longer; let it go, pinned or
 * not; count it in @here (or NULL), one more while there is one, and in @pulled, the bytes that
 * come. Where nothing is copied: nothing.
 */
void pst_view_pin(struct pst_view *view, size_t i, bool pinned);
void pst_view_drop(struct pst_view *view, size_t i);
void pst_view_count_in(struct pst_view *view, size_t i, _Atomic uint32_t *here,
		       _Atomic uint64_t *pulled);

/* A few bytes (up to PST_PEEK_MAX) of memory that the server granted, read one-sidedly. */
#define PST_PEEK_MAX 4096
int pst_view_peek(const struct pst_view *view, struct pst_key key, uint64_t offset, void *out,
		  size_t len, struct pst_error *err);

#endif /* PST_VIEW_H */
