/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/store/view.h"

#include "rdma/fail.h"
#include "runtime/io/dtype.h"
#include "runtime/store/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_TIMEOUT_MS 60000

struct pst_view {
	struct pst_cq *cq;
	struct pst_link *link;
	const struct pst_snapshot_head *head;
	uint64_t buffer[2]; /* offsets, checked */
	size_t count;
	struct pst_wire_tensor *tensor; /* private copy */
	uint32_t *by_name;		/* indices, sorted */
};

int pst_view_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_view **out,
		     struct pst_error *err)
{
	struct pst_view *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return pst_fail(err, -ENOMEM, "no memory for a view");
	v->cq = cq;
	rc = pst_connect(cq, url, timeout_ms, &v->link, err);
	if (rc < 0) {
		free(v);
		return rc;
	}
	*out = v;
	return 0;
}

static bool inside(uint64_t from, uint64_t bytes, uint64_t len)
{
	return from <= len && bytes <= len - from;
}

static bool sane(const struct pst_view *v, const struct pst_snapshot_head *h, uint64_t len)
{
	if (len < sizeof(*h) || h->magic != PST_SNAPSHOT_MAGIC || !h->tensors ||
	    h->tensors > PST_MAX_TENSORS || h->directory % 8 || h->buffer[0] % 64 ||
	    h->buffer[1] % 64 || !inside(h->directory, h->tensors * sizeof(*v->tensor), len))
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

static int take_directory(struct pst_view *v, const struct pst_snapshot_head *h, uint64_t len)
{
	struct pst_snapshot_head head;

	if (len < sizeof(head))
		return -EPROTO;
	memcpy(&head, h, sizeof(head)); /* what was checked is what is used */
	if (!sane(v, &head, len))
		return -EPROTO;
	v->tensor = malloc(head.tensors * sizeof(*v->tensor));
	v->by_name = malloc(head.tensors * sizeof(*v->by_name));
	if (!v->tensor || !v->by_name)
		return -ENOMEM;
	memcpy(v->tensor, (const char *)h + head.directory, head.tensors * sizeof(*v->tensor));
	for (size_t i = 0; i < head.tensors; i++) {
		if (!tensor_sane(&v->tensor[i], head.buffer_bytes))
			return -EPROTO;
		v->by_name[i] = (uint32_t)i;
	}
	qsort_r(v->by_name, head.tensors, sizeof(*v->by_name), by_name, v->tensor);
	v->buffer[0] = head.buffer[0];
	v->buffer[1] = head.buffer[1];
	v->count = head.tensors;
	v->head = h;
	return 0;
}

int pst_view_open(struct pst_view *v, struct pst_error *err)
{
	struct pst_msg ask = {.size = sizeof(ask), .type = PST_MSG_TABLE_OPEN};
	struct pst_msg_table_opened answer;
	struct pst_key key;
	uint64_t len;
	void *addr;
	int rc = pst_rpc(v->cq, v->link, &ask, &answer, sizeof(answer), OPEN_TIMEOUT_MS, err);

	if (rc < 0)
		return rc;
	memcpy(&key, &answer.snapshot, sizeof(key));
	rc = pst_link_map(v->link, key, PST_ACCESS_READ, &addr, &len);
	if (rc < 0)
		return pst_fail(err, rc, "%s: its snapshots cannot be mapped: %s",
				pst_link_peer(v->link), strerror(-rc));
	rc = take_directory(v, addr, len);
	if (rc < 0)
		return pst_fail(err, rc, "%s: its snapshot region makes no sense",
				pst_link_peer(v->link));
	return 0;
}

void pst_view_close(struct pst_view *v)
{
	if (!v)
		return;
	pst_link_close(v->link);
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

uint64_t pst_view_current(const struct pst_view *v)
{
	return __atomic_load_n(&v->head->current, __ATOMIC_ACQUIRE);
}

const float *pst_view_weight(const struct pst_view *v, size_t i, uint64_t version)
{
	if (__atomic_load_n(&v->head->held[version & 1], __ATOMIC_ACQUIRE) != version)
		return NULL;
	return (const float *)((const char *)v->head + v->buffer[version & 1] +
			       v->tensor[i].offset);
}
