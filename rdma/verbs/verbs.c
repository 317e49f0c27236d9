/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs fabric's table of functions, and the fabric itself. */
#include "rdma/verbs/verbs.h"
#include "rdma/secret.h"

#include <stdlib.h>
#include <time.h>

int64_t pst_verbs_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t pst_verbs_now(void)
{
	return pst_verbs_now_ns() / 1000000;
}

static int open_fabric(struct pst_fabric *fab, struct pst_error *err)
{
	struct pst_secret *secret;
	int rc = pst_verbs_devs_open(fab, err);

	if (rc)
		return rc;
	rc = pst_secret_read(fab->set.key, &secret, err);
	if (rc) {
		pst_verbs_devs_close(fab);
		return rc;
	}
	verbs_fabric(fab)->secret = secret;
	return 0;
}

static void close_fabric(struct pst_fabric *fab)
{
	pst_secret_free(verbs_fabric(fab)->secret);
	pst_verbs_devs_close(fab);
}

const struct pst_fabric_ops pst_verbs_ops = {
	.scheme = "verbs",
	.open = open_fabric,
	.close = close_fabric,
	.region_register = pst_verbs_region_register,
	.region_release = pst_verbs_region_release,
	.cq_create = pst_verbs_cq_create,
	.cq_destroy = pst_verbs_cq_destroy,
	.cq_poll = pst_verbs_cq_poll,
	.cq_wait = pst_verbs_cq_wait,
	.cq_wake = pst_verbs_cq_wake,
	.listen = pst_verbs_listen,
	.listener_close = pst_verbs_listener_close,
	.connect = pst_verbs_connect,
	.link_close = pst_verbs_link_close,
	.link_grant = pst_verbs_link_grant,
	.link_post = pst_verbs_link_post,
	.link_room = pst_verbs_link_room,
	.link_info = pst_verbs_link_info,
};
