/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions: registered once with each device that uses them, in pieces of chunk= bytes, side by side
 * in threads, since pinning pages is work for a CPU and not for the device.
 *
 * Nobody gets at a region through its own keys: they allow local access only, and what peers are
 * given are memory windows over them (grant.c).
 */
#include "rdma/fail.h"
#include "rdma/verbs/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define THREADS_MAX 8
#define ROUND	    (2ull << 20) /* pieces end where huge pages do */

/* Pieces of one region that are being registered. */
struct job {
	struct verbs_region *r;
	struct verbs_dev *dev;
	struct verbs_mr *mr;
	_Atomic unsigned int next;
	_Atomic int error;
};

static struct ibv_mr *register_piece(const struct verbs_region *r, const struct verbs_dev *dev,
				     unsigned int i)
{
	char *addr = (char *)r->base->addr + i * r->chunk;
	uint64_t len = verbs_piece_len(r, i);
	int bind = dev->windows ? IBV_ACCESS_MW_BIND : 0;
	int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING | bind;
	struct ibv_mr *mr;

	if (r->base->flags & PST_REGION_DMABUF)
		return pst_ibv.reg_dmabuf_mr(dev->pd, i * r->chunk, len, (uintptr_t)addr,
					     r->base->fd, access);
	mr = pst_ibv.reg_mr_iova2(dev->pd, addr, len, (uintptr_t)addr, (unsigned int)access);
	/* Memory that this process itself may only read. */
	if (!mr && (errno == EFAULT || errno == EACCES) && !(r->base->access & PST_ACCESS_WRITE))
		mr = pst_ibv.reg_mr_iova2(dev->pd, addr, len, (uintptr_t)addr,
					  (unsigned int)(access & ~IBV_ACCESS_LOCAL_WRITE));
	return mr;
}

static void *register_some(void *arg)
{
	struct job *job = arg;
	unsigned int i;

	while (!job->error && (i = job->next++) < job->r->pieces) {
		job->mr->mr[i] = register_piece(job->r, job->dev, i);
		if (!job->mr->mr[i])
			job->error = errno ? errno : EIO;
	}
	return NULL;
}

static void run_job(struct job *job)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t thread[THREADS_MAX];
	unsigned int want = job->r->pieces, n = 0;

	if (want > THREADS_MAX)
		want = THREADS_MAX;
	if (cpus > 0 && want > (unsigned int)cpus)
		want = (unsigned int)cpus;
	/* This thread is one of them, so it goes on too where no other can be had. */
	while (n + 1 < want && !pthread_create(&thread[n], NULL, register_some, job))
		n++;
	register_some(job);
	while (n)
		pthread_join(thread[--n], NULL);
}

static void drop(struct verbs_mr *mr)
{
	for (unsigned int i = 0; i < mr->pieces; i++)
		if (mr->mr[i])
			pst_ibv.dereg_mr(mr->mr[i]);
	free(mr);
}

static struct verbs_mr *register_on(struct verbs_region *r, struct verbs_dev *dev, int *error)
{
	struct pst_fabric_counters *count = &r->base->fab->count;
	struct job job = {.r = r, .dev = dev};
	int64_t begin = pst_verbs_now_ns();

	job.mr = calloc(1, sizeof(*job.mr) + r->pieces * sizeof(job.mr->mr[0]));
	if (!job.mr) {
		*error = ENOMEM;
		return NULL;
	}
	job.mr->pieces = r->pieces;
	run_job(&job);
	if (job.error) {
		*error = job.error;
		drop(job.mr);
		return NULL;
	}
	pst_count(&count->registered_bytes, r->base->len);
	pst_count(&count->registered_ns, (uint64_t)(pst_verbs_now_ns() - begin));
	return job.mr;
}

struct verbs_mr *pst_verbs_region_on(struct pst_region *region, struct verbs_dev *dev, int *rc)
{
	struct verbs_region *r = region->priv;
	struct verbs_mr *mr = atomic_load_explicit(&r->mr[dev->index], memory_order_acquire);
	struct verbs_fabric *vf = verbs_fabric(region->fab);
	int error = EIO;

	if (mr)
		return mr;
	pthread_mutex_lock(&vf->lock);
	mr = r->mr[dev->index];
	if (!mr)
		mr = register_on(r, dev, &error);
	if (mr)
		atomic_store_explicit(&r->mr[dev->index], mr, memory_order_release);
	else
		*rc = -error;
	pthread_mutex_unlock(&vf->lock);
	return mr;
}

static int refused(const struct pst_region *region, const struct verbs_dev *dev, int error,
		   struct pst_error *err)
{
	bool dmabuf = region->flags & PST_REGION_DMABUF;
	uint32_t cause = pst_verbs_errno_cause(error);

	if (dmabuf && (error == EOPNOTSUPP || error == EPROTONOSUPPORT || error == ENOSYS))
		cause = PST_CAUSE_NO_DMABUF;
	return pst_fail_cause(err, cause, strerror(error), "region of %llu bytes on %s",
			      (unsigned long long)region->len, dev->name);
}

/* Register with those devices that will use it for sure, so that what is wrong is said now. */
static int register_now(struct pst_region *region, struct pst_error *err)
{
	struct verbs_fabric *vf = verbs_fabric(region->fab);
	bool any = vf->named;
	int rc = 0;

	for (unsigned int i = 0; i < vf->ndevs; i++)
		any |= vf->dev[i].used;
	for (unsigned int i = 0; i < vf->ndevs; i++) {
		struct verbs_dev *dev = &vf->dev[i];

		if (any && !vf->named && !dev->used)
			continue;
		if (!pst_verbs_region_on(region, dev, &rc))
			return refused(region, dev, -rc, err);
		if (!any)
			break;
	}
	return 0;
}

/* Pieces of @chunk bytes, or larger where there would be too many. */
static void cut(struct verbs_region *r, uint64_t chunk)
{
	uint64_t len = r->base->len;

	if (len / chunk >= PST_GRANT_PIECES)
		chunk = (len / PST_GRANT_PIECES + ROUND) / ROUND * ROUND;
	r->chunk = chunk < len ? chunk : len;
	r->pieces = (unsigned int)((len + r->chunk - 1) / r->chunk);
}

int pst_verbs_region_register(struct pst_region *region, struct pst_error *err)
{
	unsigned int ndevs = verbs_fabric(region->fab)->ndevs;
	struct verbs_region *r = calloc(1, sizeof(*r) + ndevs * sizeof(r->mr[0]));
	int rc;

	if (!r)
		return pst_fail(err, -ENOMEM, "region: out of memory");
	r->base = region;
	LIST_INIT(&r->windows);
	cut(r, region->fab->set.chunk);
	region->priv = r;
	rc = register_now(region, err);
	if (rc)
		pst_verbs_region_release(region);
	return rc;
}

/* A window over memory that is no longer registered must not be. */
static void take_back(struct verbs_window *w)
{
	for (unsigned int i = 0; i < w->pieces; i++) {
		if (w->piece[i].mw)
			ibv_dealloc_mw(w->piece[i].mw);
		if (w->piece[i].mr)
			pst_ibv.dereg_mr(w->piece[i].mr);
		w->piece[i].mw = NULL;
		w->piece[i].mr = NULL;
	}
	w->region = NULL;
}

void pst_verbs_region_release(struct pst_region *region)
{
	struct verbs_fabric *vf = verbs_fabric(region->fab);
	struct verbs_region *r = region->priv;
	struct verbs_window *w;

	pthread_mutex_lock(&vf->lock);
	while ((w = LIST_FIRST(&r->windows))) {
		LIST_REMOVE(w, on_region);
		take_back(w);
	}
	pthread_mutex_unlock(&vf->lock);
	for (unsigned int i = 0; i < vf->ndevs; i++)
		if (r->mr[i])
			drop(r->mr[i]);
	free(r);
}
