/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The devices of a verbs fabric: those that dev= allows. Where there are none, the reason is looked
 * for from the bottom: library, kernel, device nodes, provider, port.
 *
 * They are opened here and not taken from librdmacm, which opens each once in a process and for
 * good: a process that forks could not use them in the child.
 */
#include "rdma/fail.h"
#include "rdma/verbs/verbs.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GIDS 64 /* of a port that are looked at */

static bool holds_anything(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e = NULL;

	while (dir && (e = readdir(dir)) && e->d_name[0] == '.')
		;
	if (dir)
		closedir(dir);
	return e;
}

/* Why there is no device, from the bottom up. */
static uint32_t why_none(void)
{
	if (access("/sys/class/infiniband_verbs", F_OK))
		return PST_CAUSE_VERBS_KERNEL;
	if (!holds_anything("/sys/class/infiniband"))
		return PST_CAUSE_VERBS_DEVICE;
	if (!holds_anything("/dev/infiniband"))
		return PST_CAUSE_VERBS_NODE;
	return PST_CAUSE_VERBS_PROVIDER;
}

static bool known(const struct verbs_fabric *vf, const char *name)
{
	for (unsigned int i = 0; i < vf->ndevs; i++)
		if (!strcmp(vf->dev[i].name, name))
			return true;
	return false;
}

bool pst_verbs_port_is_active(struct ibv_context *ctx, uint8_t port)
{
	struct ibv_port_attr attr;

	memset(&attr, 0, sizeof(attr));
	return !pst_ibv.query_port(ctx, port, (struct _compat_ibv_port_attr *)&attr) &&
	       attr.state == IBV_PORT_ACTIVE;
}

static bool has_active_port(struct ibv_context *ctx, uint8_t ports)
{
	for (uint8_t port = 1; port <= ports; port++)
		if (pst_verbs_port_is_active(ctx, port))
			return true;
	return false;
}

/* 0: it is in the list now, or has no active port. */
static int open_dev(struct verbs_fabric *vf, struct ibv_device *device, struct pst_error *err)
{
	struct verbs_dev *dev = &vf->dev[vf->ndevs];
	int rc = 0;

	*dev = (struct verbs_dev){.index = vf->ndevs, .max_inline = 512};
	dev->name = pst_ibv.get_device_name(device);
	dev->ctx = pst_ibv.open_device(device);
	if (!dev->ctx)
		return pst_fail_cause(err,
				      errno == EACCES || errno == ENOENT || errno == EPERM
					      ? PST_CAUSE_VERBS_NODE
					      : pst_verbs_errno_cause(errno),
				      strerror(errno), "verbs: %s", dev->name);
	if (pst_ibv.query_device(dev->ctx, &dev->attr) ||
	    !has_active_port(dev->ctx, dev->attr.phys_port_cnt))
		goto close_device;
	dev->pd = pst_ibv.alloc_pd(dev->ctx);
	if (!dev->pd) {
		rc = pst_fail_cause(err, pst_verbs_errno_cause(errno), strerror(errno),
				    "verbs: protection domain on %s", dev->name);
		goto close_device;
	}
	dev->windows = dev->attr.device_cap_flags &
		       (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B);
	vf->ndevs++;
	return 0;

close_device:
	pst_ibv.close_device(dev->ctx);
	return rc;
}

/* One of dev='s names, or any where it is "". */
static int open_named(struct verbs_fabric *vf, const char *name, size_t len, bool *seen,
		      struct pst_error *err)
{
	for (struct ibv_device **d = vf->list; *d; d++) {
		const char *is = pst_ibv.get_device_name(*d);
		int rc;

		if (len && (strlen(is) != len || strncmp(is, name, len)))
			continue;
		*seen = true;
		rc = known(vf, is) ? 0 : open_dev(vf, *d, err);
		if (rc)
			return rc;
	}
	return 0;
}

/* In the order of dev=, since the n-th rail takes the n-th. */
static int open_devs(struct pst_fabric *fab, struct pst_error *err)
{
	struct verbs_fabric *vf = verbs_fabric(fab);
	const char *at = fab->set.dev;
	bool seen;

	do {
		size_t len = strcspn(at, ",");
		int rc;

		seen = false;
		rc = open_named(vf, at, len, &seen, err);
		if (rc)
			return rc;
		if (!seen)
			return pst_fail_cause(err, PST_CAUSE_VERBS_NO_SUCH, NULL, "verbs: dev=%.*s",
					      (int)len, at);
		at += len;
		at += *at == ',';
	} while (*at);
	if (vf->ndevs)
		return 0;
	return pst_fail_cause(err, PST_CAUSE_VERBS_PORT, NULL, "verbs: dev=%s",
			      vf->named ? fab->set.dev : "(any)");
}

int pst_verbs_devs_open(struct pst_fabric *fab, struct pst_error *err)
{
	const char *missing = pst_verbs_load();
	struct ibv_device **list;
	struct verbs_fabric *vf;
	int rc, n = 0;

	if (missing)
		return pst_fail_cause(err, PST_CAUSE_VERBS_LIBRARY, missing, "verbs");
	list = pst_ibv.get_device_list(&n);
	if (!list || !n) {
		if (list)
			pst_ibv.free_device_list(list);
		return pst_fail_cause(err, why_none(), NULL, "verbs");
	}
	vf = calloc(1, sizeof(*vf) + (size_t)n * sizeof(vf->dev[0]));
	if (!vf) {
		pst_ibv.free_device_list(list);
		return pst_fail(err, -ENOMEM, "verbs: out of memory");
	}
	pthread_mutex_init(&vf->lock, NULL);
	vf->list = list;
	vf->named = fab->set.dev[0];
	fab->priv = vf;
	rc = open_devs(fab, err);
	if (rc)
		pst_verbs_devs_close(fab);
	return rc;
}

void pst_verbs_devs_close(struct pst_fabric *fab)
{
	struct verbs_fabric *vf = verbs_fabric(fab);

	for (unsigned int i = 0; i < vf->ndevs; i++) {
		pst_ibv.dealloc_pd(vf->dev[i].pd);
		pst_ibv.close_device(vf->dev[i].ctx);
	}
	pst_ibv.free_device_list(vf->list);
	pthread_mutex_destroy(&vf->lock);
	free(vf);
	fab->priv = NULL;
}

struct verbs_dev *pst_verbs_dev(struct pst_fabric *fab, struct ibv_device *device)
{
	struct verbs_fabric *vf = verbs_fabric(fab);
	const char *name = pst_ibv.get_device_name(device);

	for (unsigned int i = 0; i < vf->ndevs; i++)
		if (!strcmp(vf->dev[i].name, name))
			return &vf->dev[i];
	return NULL;
}

static const struct in6_addr *plain(const union ibv_gid *gid, int family)
{
	const struct in6_addr *a = (const struct in6_addr *)gid->raw;

	if (IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LINKLOCAL(a))
		return NULL;
	return IN6_IS_ADDR_V4MAPPED(a) == (family == AF_INET) ? a : NULL;
}

bool pst_verbs_dev_address(const struct verbs_dev *dev, int family, struct sockaddr_storage *out)
{
	const struct in6_addr *a = NULL;
	union ibv_gid gid;

	for (uint8_t port = 1; !a && port <= dev->attr.phys_port_cnt; port++)
		for (int i = 0; !a && !pst_ibv.query_gid(dev->ctx, port, i, &gid) && i < GIDS; i++)
			a = plain(&gid, family);
	if (!a)
		return false;
	memset(out, 0, sizeof(*out));
	out->ss_family = (sa_family_t)family;
	if (family == AF_INET)
		memcpy(&((struct sockaddr_in *)out)->sin_addr, &a->s6_addr[12], 4);
	else
		((struct sockaddr_in6 *)out)->sin6_addr = *a;
	return true;
}
