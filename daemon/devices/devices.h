/* SPDX-License-Identifier: Apache-2.0 */
/*
 * devices.h - what the host has to compute with: a CPU device per NUMA node with cores, then a
 * GPU per device of NVML, which is opened with dlopen and may not be there.
 *
 * Figures are read when asked for, at most every 100 ms; errors that the driver tells (XID) come
 * as events. What was set (caps, clocks) is put back by devices_close(). Threads: the loop's.
 */
#ifndef DAEMON_DEVICES_H
#define DAEMON_DEVICES_H

#include "daemon/penstockd.h"

#include <penstock/error.h>
#include <penstock/ioctl.h>

int devices_open(struct penstockd *d, struct devices **out, struct pst_error *err);
void devices_close(struct devices *devices); /* NULL is fine */

uint32_t devices_count(const struct devices *devices);
/* -ENOENT; @next: the lowest id above. */
int devices_stat(struct devices *devices, bool next, struct pst_cmd_device_stat *io);
int devices_power(struct devices *devices, const struct pst_cmd_device_power *how,
		  struct pst_error *err);

/* "cpu:0", "gpu:1" (counted by kind) to an id; -ENOENT. */
int devices_find(const struct devices *devices, const char *name, uint32_t *id);

struct device_place {
	uint32_t kind, index; /* PST_DEVICE_*, counted by kind */
	int32_t node;
	uint32_t cores;
};
int devices_place(const struct devices *devices, uint32_t id, struct device_place *out);

#endif /* DAEMON_DEVICES_H */
