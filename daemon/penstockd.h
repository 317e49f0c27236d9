/* SPDX-License-Identifier: Apache-2.0 */
/*
 * penstockd.h - the daemon: its parts, and how they know of each other.
 *
 *	control/   the door: sockets, copy-in, permission; one file of handlers per kind of object
 *	pools      memory that others map
 *	devices    what the host has to compute with
 *	kernels    images that were tried, and what is bound
 *	children   workers and servers: started, listened to, started again
 *	events     what happened, to who wants to know
 *	keep       what outlives this process: descriptors and a few words about each
 *	metrics    the same figures for Prometheus
 *
 * Handlers stand on the parts, parts do not know handlers. All run in the loop's thread;
 * none waits for anything but the disk.
 */
#ifndef DAEMON_PENSTOCKD_H
#define DAEMON_PENSTOCKD_H

#include "daemon/config.h"
#include "daemon/loop.h"

#include <stdint.h>

struct children;
struct devices;
struct door;
struct events;
struct keep;
struct kernels;
struct metrics;
struct pools;

struct penstockd {
	struct config config;
	struct loop *loop;
	struct keep *keep;
	struct events *events;
	struct devices *devices;
	struct pools *pools;
	struct kernels *kernels;
	struct children *children;
	struct door *door;
	struct metrics *metrics;
	int64_t started_ns; /* CLOCK_BOOTTIME */
};

#endif /* DAEMON_PENSTOCKD_H */
