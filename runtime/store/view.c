/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/view.h"

#include "rdma/fail.h"
#include "runtime/io/dtype.h"
#include "runtime/store/region.h"
#include "runtime/store/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_TIMEOUT_MS 60000

struct pst_view {
	struct pst_inbox *inbox;
	struct pst_link *link;
	const struct pst_snapshot_head *head; /* in place; NULL: not mapped */
	uint64_t bytes;			      /* that are mapped */
	struct pst_key key;
	uint64_t buffer[2]; /* offsets, checked */
	size_t count;
	struct pst_wire_tensor *tensor; /* private copy */
	uint32_t *by_name;		/* indices, sorted */
	/* not mapped */
	struct pst_pool *page; /* for small reads */
	struct pst_region *page_region;
	struct pst_copies *copies;
	struct pst_copy *copy; /* of each tensor */
	bool asked;	       /* for its head, in this need */
};

int pst_view_connect(struct pst_inbox *inbox, const char *url, int timeout_ms,
		     struct pst_view **out, struct pst_error *err)
{
	struct pst_view *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return pst_fail(err, -ENOMEM, "no memory for a view");
	v->inbox = inbox;
	rc = pst_connect(pst_inbox_cq(inbox), url, timeout_ms, &v->link, err);
	if (rc < 0) {
		free(v);
		return rc;
	}
	*out = v;
	return 0;
}

/* Small reads */

static int make_page(struct pst_view *v, struct pst_error *err)
{
	struct pst_pool_options po = {
		.size = sizeof(po), .name = "heads", .bytes = PST_PEEK_MAX, .node = PST_NODE_ANY};
	int rc = pst_pool_create(&po, &v->page, err);

	return rc < 0 ? rc
		      : pst_pool_region(pst_inbox_fabric(v->inbox), v->page, PST_ACCESS_READ,
					&v->page_region, err);
}

static struct pst_wr page_read(const struct pst_view *v, struct pst_key key, uint64_t offset,
			       size_t len)
{
	return (struct pst_wr){
		.op = PST_WR_READ,
		.local = v->page_region,
		.local_addr = pst_pool_base(v->page),
		.key = key,
		.remote_off = offset,
		.len = len,
	};
}

int pst_view_peek(const struct pst_view *v, struct pst_key key, uint64_t offset, void *out,
		  size_t len, struct pst_error *err)
{
	struct pst_wr wr = page_read(v, key, offset, len);
	struct pst_batch b;
	int rc;

	pst_batch_begin(v->inbox, &b);
	pst_batch_post(v->inbox, &b, v->link, &wr, 1);
	rc = pst_batch_wait(v->inbox, &b, err);
	if (!rc)
		memcpy(out, wr.local_addr, len);
	return rc;
}

/* Opening: what the region says of itself */

static bool inside(uint64_t from, uint64_t bytes, uint64_t len)
{
	return from <= len && bytes <= len - from;
}

static bool sane(const struct pst_snapshot_head *h, uint64_t len)
{
	uint64_t directory = h->tensors * sizeof(struct pst_wire_tensor);

	if (len < sizeof(*h) || h->magic != PST_SNAPSHOT_MAGIC || !h->tensors ||
	    h->tensors > PST_MAX_TENSORS || h->directory % 8 || h->buffer[0] % 64 ||
	    h->buffer[1] % 64 || !inside(h->directory, directory, len))
		return false;
	return inside(h->buffer[0], h->buffer_bytes, len) &&
	       inside(h->buffer[1], h->buffer_bytes, len);
}

static bool tensor_sane(const struct pst_wire_tensor *t, uint64_t buffer_bytes)
{
	uint64_t bytes = pst_dtype_bytes((enum pst_dtype)t->dtype);

	if (!memchr(t->name, 0, sizeof(t->name)) || t->dtype != PST_F32 || t->ndim < 1 ||
	    t->ndim > PST_WIRE_DIMS || t->offset % 64)
		return false;
	for (unsigned int d = 0; d < t->ndim; d++)
		if (__builtin_mul_overflow(bytes, t->shape[d], &bytes))
			return false;
	return bytes == t->bytes && inside(t->offset, bytes, buffer_bytes);
}

static int by_name(const void *a, const void *b, void *ctx)
{
	const struct pst_wire_tensor *t = ctx;

	return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

/* @head was checked, and v->tensor is a private copy of what it names. */
static int take_directory(struct pst_view *v, const struct pst_snapshot_head *head)
{
	v->by_name = malloc(head->tensors * sizeof(*v->by_name));
	if (!v->by_name)
		return -ENOMEM;
	for (size_t i = 0; i < head->tensors; i++) {
		if (!tensor_sane(&v->tensor[i], head->buffer_bytes))
			return -EPROTO;
		v->by_name[i] = (uint32_t)i;
	}
	qsort_r(v->by_name, head->tensors, sizeof(*v->by_name), by_name, v->tensor);
	v->buffer[0] = head->buffer[0];
	v->buffer[1] = head->buffer[1];
	v->count = head->tensors;
	return 0;
}

static int open_mapped(struct pst_view *v, const void *addr, uint64_t len)
{
	struct pst_snapshot_head head;
	int rc;

	if (len < sizeof(head))
		return -EPROTO;
	memcpy(&head, addr, sizeof(head)); /* what was checked is what is used */
	if (!sane(&head, len))
		return -EPROTO;
	v->tensor = malloc(head.tensors * sizeof(*v->tensor));
	if (!v->tensor)
		return -ENOMEM;
	memcpy(v->tensor, (const char *)addr + head.directory, head.tensors * sizeof(*v->tensor));
	rc = take_directory(v, &head);
	if (!rc) {
		v->head = addr;
		v->bytes = len;
	}
	return rc;
}

/* Nobody says how long the region is: what it claims to hold ends within it if this can be read. */
static int ends_within(const struct pst_view *v, uint64_t from, uint64_t bytes)
{
	char last;

	return bytes ? pst_view_peek(v, v->key, from + bytes - 1, &last, 1, NULL) : 0;
}

static int read_directory(struct pst_view *v, const struct pst_snapshot_head *head)
{
	struct pst_pool_options po = {
		.size = sizeof(po),
		.name = "directory",
		.bytes = head->tensors * sizeof(*v->tensor),
		.node = PST_NODE_ANY,
	};
	struct pst_wr wr = {
		.op = PST_WR_READ, .key = v->key, .remote_off = head->directory, .len = po.bytes};
	struct pst_pool *pool;
	struct pst_batch b;
	int rc = pst_pool_create(&po, &pool, NULL);

	if (rc < 0)
		return rc;
	rc = pst_pool_region(pst_inbox_fabric(v->inbox), pool, PST_ACCESS_READ, &wr.local, NULL);
	if (rc < 0)
		goto destroy_pool;
	wr.local_addr = pst_pool_base(pool);
	pst_batch_begin(v->inbox, &b);
	pst_batch_post(v->inbox, &b, v->link, &wr, 1);
	rc = pst_batch_wait(v->inbox, &b, NULL);
	pst_region_release(wr.local);
	v->tensor = rc ? NULL : malloc(po.bytes);
	if (v->tensor)
		memcpy(v->tensor, wr.local_addr, po.bytes);
	else if (!rc)
		rc = -ENOMEM;
destroy_pool:
	pst_pool_destroy(pool);
	return rc;
}

static int open_far(struct pst_view *v, struct pst_error *err)
{
	struct pst_snapshot_head head;
	int rc = make_page(v, err);

	if (!rc)
		rc = pst_view_peek(v, v->key, 0, &head, sizeof(head), err);
	if (rc < 0)
		return rc;
	if (!sane(&head, UINT64_MAX))
		return -EPROTO;
	rc = ends_within(v, head.directory, head.tensors * sizeof(*v->tensor));
	for (int k = 0; k < 2 && !rc; k++)
		rc = ends_within(v, head.buffer[k], head.buffer_bytes);
	if (!rc)
		rc = read_directory(v, &head);
	if (!rc)
		rc = take_directory(v, &head);
	if (!rc)
		v->copy = calloc(v->count, sizeof(*v->copy));
	return !rc && !v->copy ? -ENOMEM : rc;
}

int pst_view_open(struct pst_view *v, struct pst_error *err)
{
	struct pst_msg ask = {.size = sizeof(ask), .type = PST_MSG_TABLE_OPEN};
	struct pst_msg_table_opened answer;
	uint64_t len;
	void *addr;
	int rc = pst_rpc(v->inbox, v->link, &ask, &answer, sizeof(answer), OPEN_TIMEOUT_MS, err);

	if (rc < 0)
		return rc;
	memcpy(&v->key, &answer.snapshot, sizeof(v->key));
	rc = pst_link_map(v->link, v->key, PST_ACCESS_READ, &addr, &len);
	if (rc < 0 && rc != -EOPNOTSUPP)
		return pst_fail(err, rc, "%s: its snapshots cannot be mapped: %s",
				pst_link_peer(v->link), strerror(-rc));
	rc = rc ? open_far(v, err) : open_mapped(v, addr, len);
	if (rc < 0)
		return pst_fail(err, rc, "%s: its snapshot region makes no sense: %s",
				pst_link_peer(v->link), strerror(-rc));
	return 0;
}

void pst_view_keep(struct pst_view *v, struct pst_copies *copies)
{
	for (size_t i = 0; v->copy && v->copies && i < v->count; i++)
		pst_copies_drop(v->copies, &v->copy[i]);
	v->copies = copies;
}

void pst_view_close(struct pst_view *v)
{
	if (!v)
		return;
	pst_view_keep(v, NULL);
	pst_inbox_close(v->inbox, v->link);
	if (v->page_region)
		pst_region_release(v->page_region);
	pst_pool_destroy(v->page);
	free(v->copy);
	free(v->by_name);
	free(v->tensor);
	free(v);
}

struct pst_link *pst_view_link(const struct pst_view *v)
{
	return v->link;
}

size_t pst_view_count(const struct pst_view *v)
{
	return v->count;
}

const struct pst_wire_tensor *pst_view_tensor(const struct pst_view *v, size_t i)
{
	return &v->tensor[i];
}

long pst_view_find(const struct pst_view *v, const char *name)
{
	size_t lo = 0, hi = v->count;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		int c = strcmp(name, v->tensor[v->by_name[mid]].name);

		if (!c)
			return (long)v->by_name[mid];
		if (c < 0)
			hi = mid;
		else
			lo = mid + 1;
	}
	return -ENOENT;
}

bool pst_view_mapped(const struct pst_view *v)
{
	return v->head;
}

const void *pst_view_memory(const struct pst_view *v, uint64_t *bytes)
{
	*bytes = v->bytes;
	return v->head;
}

uint64_t pst_view_current(const struct pst_view *v)
{
	struct pst_snapshot_head head;

	if (v->head)
		return __atomic_load_n(&v->head->current, __ATOMIC_ACQUIRE);
	if (pst_view_peek(v, v->key, 0, &head, sizeof(head), NULL) < 0)
		return PST_VERSION_NONE;
	return head.current;
}

/* Pulling */

#define READS_AT_ONCE 64

static struct pst_wr copy_read(const struct pst_view *v, uint32_t i, uint64_t version)
{
	return (struct pst_wr){
		.op = PST_WR_READ,
		.local = pst_copies_region(v->copies),
		.local_addr = v->copy[i].at,
		.key = v->key,
		.remote_off = v->buffer[version & 1] + v->tensor[i].offset,
		.len = v->tensor[i].bytes,
	};
}

/* Post reads of what is not here. *came: whether there is any. */
static int pull(struct pst_view *v, const struct pst_view_want *want, uint64_t version,
		struct pst_batch *b, bool *came, struct pst_error *err)
{
	struct pst_wr wr[READS_AT_ONCE];
	size_t n = 0;
	int rc = 0;

	if (!v->copies)
		return pst_fail(err, -EINVAL, "%s: there is no room for copies",
				pst_link_peer(v->link));
	for (size_t k = 0; k < want->n && !rc; k++) {
		uint32_t i = want->tensor[k];
		struct pst_copy *copy = &v->copy[i];

		if (copy->at && copy->version == version) {
			pst_copies_hit(v->copies, copy);
			continue;
		}
		rc = pst_copies_room(v->copies, copy, v->tensor[i].bytes);
		if (rc < 0)
			break;
		*came = true;
		wr[n++] = copy_read(v, i, version);
		if (n == READS_AT_ONCE) {
			pst_batch_post(v->inbox, b, v->link, wr, n);
			n = 0;
		}
	}
	pst_batch_post(v->inbox, b, v->link, wr, n);
	if (rc < 0)
		return pst_fail(
			err, rc, "%s: copies of what is needed at once are more than %llu bytes",
			pst_link_peer(v->link), (unsigned long long)pst_copies_budget(v->copies));
	return 0;
}

static int not_held(const struct pst_view *v, uint64_t version, struct pst_error *err)
{
	return pst_fail(err, -ESTALE, "%s: no longer holds version %llu", pst_link_peer(v->link),
			(unsigned long long)version);
}

static bool holds(const struct pst_snapshot_head *h, uint64_t version)
{
	return version != PST_VERSION_NONE &&
	       __atomic_load_n(&h->held[version & 1], __ATOMIC_ACQUIRE) == version;
}

/* What came is whole when the version is still held after it. */
static int approve(const struct pst_view_want *want, uint64_t version, struct pst_error *err)
{
	struct pst_view *v = want->view;

	if (!holds(pst_pool_base(v->page), version))
		return not_held(v, version, err);
	for (size_t k = 0; k < want->n; k++)
		v->copy[want->tensor[k]].version = version;
	return 0;
}

static int pull_all(const struct pst_view_want *want, size_t n, uint64_t version, bool *came,
		    struct pst_error *err)
{
	struct pst_inbox *inbox = want[0].view->inbox;
	struct pst_batch b;
	int rc = 0, done;

	pst_batch_begin(inbox, &b);
	for (size_t i = 0; i < n && !rc; i++)
		if (!want[i].view->head)
			rc = pull(want[i].view, &want[i], version, &b, &came[i], err);
	done = pst_batch_wait(inbox, &b, rc ? NULL : err);
	return rc < 0 ? rc : done;
}

static int read_heads(const struct pst_view_want *want, size_t n, const bool *came,
		      struct pst_error *err)
{
	struct pst_inbox *inbox = want[0].view->inbox;
	struct pst_batch b;

	for (size_t i = 0; i < n; i++)
		want[i].view->asked = false;
	pst_batch_begin(inbox, &b);
	for (size_t i = 0; i < n; i++) {
		struct pst_view *v = want[i].view;
		struct pst_wr wr;

		if (!came[i] || v->asked)
			continue;
		v->asked = true;
		wr = page_read(v, v->key, 0, sizeof(struct pst_snapshot_head));
		pst_batch_post(inbox, &b, v->link, &wr, 1);
	}
	return pst_batch_wait(inbox, &b, err);
}

int pst_views_need(const struct pst_view_want *want, size_t n, uint64_t version,
		   struct pst_error *err)
{
	bool *came = calloc(n + 1, sizeof(*came));
	int rc = 0;

	if (!came)
		return pst_fail(err, -ENOMEM, "no memory to ask for weights");
	for (size_t i = 0; i < n && !rc; i++)
		if (version == PST_VERSION_NONE ||
		    (want[i].view->head && !holds(want[i].view->head, version)))
			rc = not_held(want[i].view, version, err);
	if (!rc && n)
		rc = pull_all(want, n, version, came, err);
	if (!rc && n)
		rc = read_heads(want, n, came, err);
	for (size_t i = 0; i < n && !rc; i++)
		if (came[i])
			rc = approve(&want[i], version, err);
	free(came);
	return rc;
}

int pst_view_need(struct pst_view *v, const uint32_t *tensor, size_t n, uint64_t version,
		  struct pst_error *err)
{
	struct pst_view_want want = {v, tensor, n};

	return pst_views_need(&want, 1, version, err);
}

const float *pst_view_weight(const struct pst_view *v, size_t i, uint64_t version)
{
	if (!v->head)
		return v->copy[i].at && version != PST_VERSION_NONE && v->copy[i].version == version
			       ? v->copy[i].at
			       : NULL;
	if (!holds(v->head, version))
		return NULL;
	return (const float *)((const char *)v->head + v->buffer[version & 1] +
			       v->tensor[i].offset);
}

void pst_view_pin(struct pst_view *v, size_t i, bool pinned)
{
	if (v->copy && v->copies)
		pst_copies_pin(v->copies, &v->copy[i], pinned);
}

void pst_view_drop(struct pst_view *v, size_t i)
{
	if (v->copy && v->copies)
		pst_copies_drop(v->copies, &v->copy[i]);
}

void pst_view_count_in(struct pst_view *v, size_t i, _Atomic uint32_t *here,
		       _Atomic uint64_t *pulled)
{
	if (!v->copy)
		return;
	v->copy[i].here = here;
	v->copy[i].pulled = pulled;
}
