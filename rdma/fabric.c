/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The front of the fabrics: picks one by the URL's scheme, refuses what is
 * wrong on every fabric, and hands the rest to its table of functions.
 */
#include "rdma/fail.h"
#include "rdma/ops.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ACCESS_ALL (PST_ACCESS_READ | PST_ACCESS_WRITE)

static const struct pst_fabric_ops *const fabrics[] = {
	&pst_shm_ops,
	&pst_tcp_ops,
	&pst_verbs_ops,
};

#define NFABRICS (sizeof(fabrics) / sizeof(fabrics[0]))

static bool has_scheme(const struct pst_fabric_ops *ops, const char *url)
{
	size_t n = strlen(ops->scheme);

	return url && !strncmp(url, ops->scheme, n) && !strncmp(url + n, "://", 3);
}

static const struct pst_fabric_ops *ops_of(const char *url)
{
	for (size_t i = 0; i < NFABRICS; i++)
		if (has_scheme(fabrics[i], url))
			return fabrics[i];
	return NULL;
}

static int unknown_scheme(const char *url, struct pst_error *err)
{
	char list[128] = "";
	size_t at = 0;

	for (size_t i = 0; i < NFABRICS && at < sizeof(list); i++)
		at += (size_t)snprintf(list + at, sizeof(list) - at, " %s://", fabrics[i]->scheme);
	return pst_fail(err, -EPROTONOSUPPORT,
			"fabric \"%s\": no fabric has this scheme; this build has%s",
			url ? url : "(null)", list);
}

int pst_fabric_open(const char *url, struct pst_fabric **out, struct pst_error *err)
{
	const struct pst_fabric_ops *ops = ops_of(url);
	struct pst_fabric *fab;
	struct pst_url parsed;
	int rc;

	if (!ops)
		return unknown_scheme(url, err);
	rc = pst_url_parse(url, &parsed, err);
	if (rc)
		return rc;
	fab = calloc(1, sizeof(*fab));
	if (!fab)
		return pst_fail(err, -ENOMEM, "fabric %s: out of memory", url);
	fab->ops = ops;
	fab->set = parsed.set;
	LIST_INIT(&fab->cqs);
	pthread_mutex_init(&fab->lock, NULL);
	rc = ops->open ? ops->open(fab, err) : 0;
	if (rc) {
		pthread_mutex_destroy(&fab->lock);
		free(fab);
		return rc;
	}
	*out = fab;
	return 0;
}

void pst_fabric_close(struct pst_fabric *fab)
{
	if (!fab)
		return;
	if (fab->ops->close)
		fab->ops->close(fab);
	pthread_mutex_destroy(&fab->lock);
	free(fab);
}

const struct pst_settings *pst_fabric_settings(const struct pst_fabric *fab)
{
	return &fab->set;
}

static void add_up(struct pst_fabric_stat *sum, const struct pst_fabric_counters *c)
{
#define X(name) sum->name += atomic_load_explicit(&c->name, memory_order_relaxed);
	PST_COUNTERS(X)
#undef X
}

void pst_fabric_stat(const struct pst_fabric *fab, struct pst_fabric_stat *out)
{
	struct pst_fabric *f = (struct pst_fabric *)(uintptr_t)fab; /* for its lock */
	const struct pst_cq *cq;

	*out = (struct pst_fabric_stat){0};
	add_up(out, &f->count);
	pthread_mutex_lock(&f->lock);
	LIST_FOREACH(cq, &f->cqs, on_fabric)
	{
		add_up(out, &cq->count);
	}
	pthread_mutex_unlock(&f->lock);
}

/* The right to write includes the right to read, on every fabric. */
static uint32_t full_access(uint32_t access)
{
	return access & PST_ACCESS_WRITE ? ACCESS_ALL : access;
}

static int check_region(const struct pst_region_attr *attr, struct pst_error *err)
{
	if (attr->size != sizeof(*attr))
		return pst_fail(err, -EINVAL,
				"region: the attributes are %zu bytes, this library takes %zu",
				attr->size, sizeof(*attr));
	if (!attr->addr || !attr->len || (uintptr_t)attr->addr + attr->len < attr->len)
		return pst_fail(err, -EINVAL, "region: %llu bytes at %p are no memory",
				(unsigned long long)attr->len, attr->addr);
	if (!attr->access || attr->access & ~ACCESS_ALL)
		return pst_fail(err, -EINVAL, "region: access %#x is not one of read, write",
				attr->access);
	if (attr->flags & ~PST_REGION_DMABUF || attr->reserved)
		return pst_fail(err, -EINVAL, "region: flags %#x are unknown", attr->flags);
	if (attr->flags & PST_REGION_DMABUF && attr->fd < 0)
		return pst_fail(err, -EINVAL, "region: a dma-buf is named by its fd");
	return 0;
}

int pst_region_register(struct pst_fabric *fab, const struct pst_region_attr *attr,
			struct pst_region **out, struct pst_error *err)
{
	static _Atomic uint64_t last_id;
	struct pst_region *region;
	int rc = check_region(attr, err);

	if (rc)
		return rc;
	region = calloc(1, sizeof(*region));
	if (!region)
		return pst_fail(err, -ENOMEM, "region: out of memory");
	*region = (struct pst_region){
		.fab = fab,
		.id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1,
		.addr = attr->addr,
		.len = attr->len,
		.fd = attr->fd,
		.access = full_access(attr->access),
		.flags = attr->flags,
	};
	rc = fab->ops->region_register(region, err);
	if (rc) {
		free(region);
		return rc;
	}
	*out = region;
	return 0;
}

void pst_region_release(struct pst_region *region)
{
	if (!region)
		return;
	if (region->fab->ops->region_release)
		region->fab->ops->region_release(region);
	free(region);
}

int pst_cq_create(struct pst_fabric *fab, struct pst_cq **out, struct pst_error *err)
{
	int rc = fab->ops->cq_create(fab, out, err);

	if (rc)
		return rc;
	pthread_mutex_lock(&fab->lock);
	LIST_INSERT_HEAD(&fab->cqs, *out, on_fabric);
	pthread_mutex_unlock(&fab->lock);
	return 0;
}

void pst_cq_destroy(struct pst_cq *cq)
{
	struct pst_fabric_counters last;
	struct pst_fabric *fab;

	if (!cq)
		return;
	fab = cq->fab;
	pthread_mutex_lock(&fab->lock);
	LIST_REMOVE(cq, on_fabric);
	pthread_mutex_unlock(&fab->lock);
	last = cq->count;
#define X(name) pst_count(&fab->count.name, last.name);
	PST_COUNTERS(X)
#undef X
	fab->ops->cq_destroy(cq);
}

int pst_cq_poll(struct pst_cq *cq, struct pst_wc *wc, int n)
{
	return n > 0 ? cq->fab->ops->cq_poll(cq, wc, n) : 0;
}

int pst_cq_wait(struct pst_cq *cq, struct pst_wc *wc, int n, int timeout_ms)
{
	return n > 0 ? cq->fab->ops->cq_wait(cq, wc, n, timeout_ms) : 0;
}

void pst_cq_wake(struct pst_cq *cq)
{
	cq->fab->ops->cq_wake(cq);
}

/* @url for a fabric's own functions: of its scheme, and without settings. */
static int plain_url(const struct pst_cq *cq, const char *url, char plain[PST_URL_MAX],
		     struct pst_error *err)
{
	const char *scheme = cq->fab->ops->scheme;
	struct pst_url parsed;
	int rc;

	if (!ops_of(url))
		return unknown_scheme(url, err);
	if (!has_scheme(cq->fab->ops, url))
		return pst_fail(err, -EINVAL, "%s: this completion queue is of the %s fabric", url,
				scheme);
	rc = pst_url_parse(url, &parsed, err);
	if (rc)
		return rc;
	if (snprintf(plain, PST_URL_MAX, "%s://%s", scheme, parsed.name) >= PST_URL_MAX)
		return pst_fail(err, -ENAMETOOLONG, "%s: a URL may have %d characters", url,
				PST_URL_MAX - 1);
	return 0;
}

int pst_listen(struct pst_cq *cq, const char *url, struct pst_listener **out, struct pst_error *err)
{
	char plain[PST_URL_MAX];
	int rc = plain_url(cq, url, plain, err);

	return rc ? rc : cq->fab->ops->listen(cq, plain, out, err);
}

const char *pst_listener_url(const struct pst_listener *listener)
{
	return listener->url;
}

void pst_listener_close(struct pst_listener *listener)
{
	if (listener)
		listener->cq->fab->ops->listener_close(listener);
}

int pst_connect(struct pst_cq *cq, const char *url, int timeout_ms, struct pst_link **out,
		struct pst_error *err)
{
	char plain[PST_URL_MAX];
	int rc = plain_url(cq, url, plain, err);

	return rc ? rc : cq->fab->ops->connect(cq, plain, timeout_ms, out, err);
}

void pst_link_close(struct pst_link *link)
{
	if (link)
		link->cq->fab->ops->link_close(link);
}

void pst_link_set_user(struct pst_link *link, void *user)
{
	link->user = user;
}

void *pst_link_user(const struct pst_link *link)
{
	return link->user;
}

const char *pst_link_peer(const struct pst_link *link)
{
	return link->peer;
}

int pst_link_peer_pid(const struct pst_link *link)
{
	return link->pid;
}

int pst_link_info(const struct pst_link *link, struct pst_link_info *out)
{
	struct pst_link_info info = {0};
	int rc = link->cq->fab->ops->link_info(link, &info);

	if (!rc)
		*out = info;
	return rc;
}

const char *pst_link_why(const struct pst_link *link)
{
	return link->trace.why;
}

int pst_link_recent(const struct pst_link *link, struct pst_recent *out, int n)
{
	const struct pst_trace *t = &link->trace;
	uint64_t there = t->posted < PST_RECENT ? t->posted : PST_RECENT;
	int i = 0;

	for (; i < n && (uint64_t)i < there; i++)
		out[i] = t->recent[(t->posted - 1 - (uint64_t)i) % PST_RECENT];
	return i;
}

int pst_link_grant(struct pst_link *link, struct pst_region *region, uint32_t access,
		   struct pst_key *out)
{
	if (!region || region->fab != link->cq->fab || !access || access & ~ACCESS_ALL)
		return -EINVAL;
	access = full_access(access);
	if (access & ~region->access)
		return -EACCES;
	return link->cq->fab->ops->link_grant(link, region, access, out);
}

int pst_link_map(struct pst_link *link, struct pst_key key, uint32_t access, void **addr,
		 uint64_t *len)
{
	const struct pst_fabric_ops *ops = link->cq->fab->ops;

	if (!access || access & ~ACCESS_ALL)
		return -EINVAL;
	if (!ops->link_map || !link->cq->fab->set.map)
		return -EOPNOTSUPP;
	return ops->link_map(link, key, access, addr, len);
}

/* Is [@addr, @addr + @len) inside of @region? */
static bool in_region(const struct pst_region *region, const void *addr, uint64_t len)
{
	uint64_t off = (uintptr_t)addr - (uintptr_t)region->addr;

	return off <= region->len && len <= region->len - off;
}

static inline __attribute__((always_inline)) bool well_formed(const struct pst_link *link,
							      const struct pst_wr *wr)
{
	if (wr->flags & ~(PST_WR_UNSIGNALED | PST_WR_IMM))
		return false;
	if (wr->flags & PST_WR_IMM && wr->op != PST_WR_WRITE)
		return false;
	if (wr->op == PST_WR_SEND)
		return wr->len <= PST_MSG_MAX && (wr->local_addr || !wr->len);
	if (wr->op != PST_WR_WRITE && wr->op != PST_WR_READ)
		return false;
	return !wr->len || (wr->local && wr->local->fab == link->cq->fab &&
			    in_region(wr->local, wr->local_addr, wr->len));
}

static __attribute__((noinline)) int post_many(struct pst_link *link, const struct pst_wr *wr,
					       int n)
{
	int good = 0, taken;

	while (good < n && well_formed(link, &wr[good]))
		good++;
	if (!good)
		return n ? -EINVAL : 0;
	/* before they are posted: one that fails at once finds its entry */
	for (int i = 0; i < good; i++)
		pst_trace_post(&link->trace, &wr[i]);
	taken = link->cq->fab->ops->link_post(link, wr, good);
	link->trace.posted -= (uint64_t)(good - (taken > 0 ? taken : 0));
	return taken;
}

/*
 * The request whose time counts most: a write that goes where the last one went. What is wrong with
 * it is found, and said, by the long way; what is remembered of it stands behind the copy.
 */
static inline __attribute__((always_inline)) bool write_direct(struct pst_link *link,
							       const struct pst_wr *wr)
{
	const struct pst_direct *d = &link->direct;

	if (wr->op != PST_WR_WRITE || wr->flags != PST_WR_UNSIGNALED || wr->len - 1 >= d->len ||
	    wr->remote_off > d->len - wr->len || wr->key.k[0] != d->key.k[0] ||
	    wr->key.k[1] != d->key.k[1] || !wr->local || wr->local->fab != d->fab ||
	    !in_region(wr->local, wr->local_addr, wr->len))
		return false;
	pst_copy(d->at + wr->remote_off, wr->local_addr, wr->len);
	pst_count_mine(&link->cq->count.write_bytes, wr->len);
	pst_trace_post(&link->trace, wr);
	return true;
}

int pst_link_post(struct pst_link *link, const struct pst_wr *wr, int n)
{
	return n == 1 && write_direct(link, wr) ? 1 : post_many(link, wr, n);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int pst_link_send(struct pst_link *link, const void *msg, size_t len, int timeout_ms)
{
	const struct pst_wr wr = {
		.op = PST_WR_SEND,
		.flags = PST_WR_UNSIGNALED,
		.local_addr = (void *)(uintptr_t)msg,
		.len = len,
	};
	int rc = pst_link_post(link, &wr, 1);
	int64_t end;

	/* mostly there is room, and no time to lose on clocks */
	if (rc)
		return rc < 0 ? rc : 0;
	end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
	for (;;) {
		int64_t left = timeout_ms < 0 ? -1 : end - now_ms();

		if (left < 0 && timeout_ms >= 0)
			left = 0;
		rc = link->cq->fab->ops->link_room(link, (int)left);
		if (rc)
			return rc;
		rc = pst_link_post(link, &wr, 1);
		if (rc)
			return rc < 0 ? rc : 0;
	}
}
