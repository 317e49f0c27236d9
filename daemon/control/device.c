/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control/command.h"
#include "daemon/devices/devices.h"

int handle_device_stat(struct request *r)
{
	struct pst_cmd_device_stat *io = (struct pst_cmd_device_stat *)r->arg;

	return devices_stat(r->d->devices, io->flags & PST_STAT_NEXT, io);
}

int handle_device_power(struct request *r)
{
	return devices_power(r->d->devices, (struct pst_cmd_device_power *)r->arg, &r->err);
}
