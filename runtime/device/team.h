/* SPDX-License-Identifier: Apache-2.0 */
/* team.h - which cores a device may use; private to device/ and its tests. */
#ifndef PST_TEAM_H
#define PST_TEAM_H

#include <penstock/error.h>
#include <sched.h>
#include <string.h>

/*
 * The cores of @node below @sysfs (normally /sys/devices/system/node) that this
 * process may use; @node < 0: all that it may use. -EINVAL: no such node, -ENODEV:
 * none of its cores is allowed.
 */
int pst_node_cpus(const char *sysfs, int node, cpu_set_t *out, struct pst_error *err);

#endif /* PST_TEAM_H */
