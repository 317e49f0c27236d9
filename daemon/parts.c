/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/parts.h"

#include "daemon/children/children.h"
#include "daemon/control/door.h"
#include "daemon/devices/devices.h"
#include "daemon/events.h"
#include "daemon/keep/keep.h"
#include "daemon/kernels/kernels.h"
#include "daemon/metrics/metrics.h"
#include "daemon/pools/pools.h"
#include "rdma/fail.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static int64_t boottime_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int open_all(struct penstockd *d, struct pst_error *err)
{
	int rc = loop_new(&d->loop);

	if (rc < 0)
		return pst_fail(err, rc, "no loop: %s", strerror(-rc));
	rc = keep_open(d->config.socket, &d->keep, err);
	if (rc >= 0)
		keep_watch(d->keep, d->loop);
	if (rc >= 0)
		rc = events_new(d->loop, &d->events);
	if (rc >= 0)
		rc = devices_open(d, &d->devices, err);
	if (rc >= 0)
		rc = pools_open(d, &d->pools, err);
	if (rc >= 0)
		rc = children_open(d, &d->children, err);
	if (rc >= 0)
		rc = kernels_open(d, &d->kernels, err);
	if (rc >= 0)
		rc = metrics_open(d, &d->metrics, err);
	if (rc >= 0)
		rc = door_open(d, &d->door, err);
	return rc;
}

int parts_open(struct penstockd *d, struct pst_error *err)
{
	int rc;

	d->started_ns = boottime_ns();
	rc = open_all(d, err);
	if (rc >= 0)
		return 0;
	pst_fail(err, rc, "it cannot begin: %s", strerror(-rc));
	parts_close(d, false);
	return rc;
}

void parts_close(struct penstockd *d, bool stop)
{
	door_close(d->door);
	d->door = NULL;
	metrics_close(d->metrics);
	d->metrics = NULL;
	kernels_close(d->kernels);
	d->kernels = NULL;
	if (d->children)
		children_close(d->children, stop);
	d->children = NULL;
	pools_close(d->pools);
	d->pools = NULL;
	devices_close(d->devices);
	d->devices = NULL;
	events_free(d->events);
	d->events = NULL;
	keep_close(d->keep);
	d->keep = NULL;
	loop_free(d->loop);
	d->loop = NULL;
}

/* Where it listens, and where it tells its figures, stay until it is started again. */
static void take_over(struct config *config, const struct config *old)
{
	memcpy(config->socket, old->socket, sizeof(config->socket));
	memcpy(config->metrics, old->metrics, sizeof(config->metrics));
}

int parts_reload(struct penstockd *d, const char *path)
{
	struct config config, old = d->config;
	struct pst_error err = {0};
	int rc = config_read(path, &config, &err);

	if (!rc) {
		take_over(&config, &d->config);
		d->config = config;
		rc = children_reload(d->children, &err);
		if (rc < 0)
			d->config = old;
		door_reload(d->door);
	}
	if (rc < 0)
		events_emit(d->events, PST_EVENT_RELOADED, 0, rc, "%s; all stays as it was",
			    err.text);
	else
		events_emit(d->events, PST_EVENT_RELOADED, 0, 0, "the config was read again");
	return rc;
}
