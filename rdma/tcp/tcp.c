/* SPDX-License-Identifier: Apache-2.0 */
/* The tcp fabric's table of functions, its key, and its regions. */
#include "rdma/tcp/tcp.h"
#include "rdma/fail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t pst_tcp_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Has the administrator turned io_uring off, for all or for some? */
static bool turned_off(void)
{
	FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	int value = f ? getc(f) : '0';

	if (f)
		fclose(f);
	return value == '1' || value == '2';
}

/* Who asks for io_uring by name is told when there is none. */
static int check_io(const struct pst_settings *set, struct pst_error *err)
{
	int rc = strcmp(set->io, "uring") ? 0 : pst_tcp_uring_allowed();

	if (!rc)
		return 0;
	if (rc == -EPERM && turned_off())
		return pst_fail(err, rc,
				"fabric tcp: io=uring: kernel.io_uring_disabled denies io_uring; "
				"to mend it: sysctl -w kernel.io_uring_disabled=0, or io=auto");
	if (rc == -EPERM)
		return pst_fail(err, rc,
				"fabric tcp: io=uring: a seccomp filter denies io_uring; likely "
				"that of the container; to mend it: docker run --security-opt "
				"seccomp=unconfined, or io=auto");
	if (rc == -ENOSYS)
		return pst_fail(err, rc,
				"fabric tcp: io=uring: there is no io_uring, or one that lacks "
				"what is needed; likely the kernel is older than 6.1, or a seccomp "
				"filter hides it; to mend it: uname -r; docker run --security-opt "
				"seccomp=unconfined, or io=auto");
	return pst_fail(err, rc,
			"fabric tcp: io=uring: %s; to mend it: raise ulimit -n and ulimit -l, or "
			"io=auto",
			strerror(-rc));
}

static int open_fabric(struct pst_fabric *fab, struct pst_error *err)
{
	struct tcp_fabric *priv;
	int rc = check_io(&fab->set, err);

	if (rc)
		return rc;
	priv = calloc(1, sizeof(*priv));
	if (!priv)
		return pst_fail(err, -ENOMEM, "fabric tcp: out of memory");
	rc = pst_secret_read(fab->set.key, &priv->secret, err);
	if (rc) {
		free(priv);
		return rc;
	}
	fab->priv = priv;
	return 0;
}

static void close_fabric(struct pst_fabric *fab)
{
	struct tcp_fabric *priv = fab->priv;

	pst_secret_free(priv->secret);
	free(priv);
}

/* Any memory of this process will do. */
static int region_register(struct pst_region *region, struct pst_error *err)
{
	if (region->flags & PST_REGION_DMABUF)
		return pst_fail(err, -EOPNOTSUPP,
				"region: sockets cannot reach the memory of a GPU; use verbs://");
	return 0;
}

const struct pst_fabric_ops pst_tcp_ops = {
	.scheme = "tcp",
	.open = open_fabric,
	.close = close_fabric,
	.region_register = region_register,
	.cq_create = pst_tcp_cq_create,
	.cq_destroy = pst_tcp_cq_destroy,
	.cq_poll = pst_tcp_cq_poll,
	.cq_wait = pst_tcp_cq_wait,
	.cq_wake = pst_tcp_cq_wake,
	.listen = pst_tcp_listen,
	.listener_close = pst_tcp_listener_close,
	.connect = pst_tcp_connect,
	.link_close = pst_tcp_link_close,
	.link_grant = pst_tcp_link_grant,
	.link_post = pst_tcp_link_post,
	.link_room = pst_tcp_link_room,
	.link_info = pst_tcp_link_info,
};
