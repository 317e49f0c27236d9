/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an XID error of NVIDIA's driver means for who uses the GPU. From NVIDIA's public Xid catalog
 * (docs.nvidia.com/deploy/xid-errors): its immediate actions RESTART_APP and RESET_GPU.
 */
#include "daemon/devices/device_gpu.h"

#include <stddef.h>

static const struct gpu_xid xids[] = {
	/* faults of a program: the GPU goes on for the others */
	{13, PST_HEALTH_OK, "a kernel failed (graphics engine exception)", ""},
	{31, PST_HEALTH_OK, "a kernel touched memory that it may not (MMU fault)", ""},
	{43, PST_HEALTH_OK, "a program's work was stopped", ""},
	{45, PST_HEALTH_OK, "a program's work was cleaned up after an earlier error", ""},
	{69, PST_HEALTH_OK, "a program sent a command that is none (class error)", ""},
	{109, PST_HEALTH_OK, "a program's context did not switch in time", ""},
	{154, PST_HEALTH_OK, "the driver changed what it wants done; nvidia-smi -q tells", ""},

	{48, PST_HEALTH_DEGRADED, "memory had a double-bit ECC error",
	 "drain its workers and reset it"},
	{62, PST_HEALTH_DEGRADED, "its microcontroller halted", "drain its workers and reset it"},
	{63, PST_HEALTH_DEGRADED, "a bad row of memory is replaced at the next reset",
	 "reset it when it is idle"},
	{64, PST_HEALTH_DEGRADED, "a bad row of memory could not be replaced",
	 "drain its workers and reset it; if it comes again, have it serviced"},
	{74, PST_HEALTH_DEGRADED, "NVLink had an error",
	 "if it comes again, drain its workers and reset it"},
	{92, PST_HEALTH_DEGRADED, "memory has many ECC errors that were corrected",
	 "if it lasts, have it serviced"},
	{94, PST_HEALTH_DEGRADED, "memory had an ECC error that hit one program only",
	 "reset it when it is idle"},
	{95, PST_HEALTH_DEGRADED, "memory had an ECC error that may have hit any program",
	 "drain its workers and reset it now"},
	{119, PST_HEALTH_DEGRADED, "its system processor (GSP) did not answer",
	 "drain its workers and reset it"},
	{120, PST_HEALTH_DEGRADED, "its system processor (GSP) failed",
	 "drain its workers and reset it"},
	{140, PST_HEALTH_DEGRADED, "memory had an ECC error that was not recovered",
	 "drain its workers and reset it"},

	{79, PST_HEALTH_LOST, "it fell off the bus",
	 "restart the host; if it comes again, have slot and power looked at"},
};

const struct gpu_xid *gpu_xid(uint64_t xid)
{
	static const struct gpu_xid unknown = {0, PST_HEALTH_DEGRADED, "the driver saw an error",
					       "see NVIDIA's Xid catalog"};

	for (size_t i = 0; i < sizeof(xids) / sizeof(*xids); i++)
		if (xids[i].xid == xid)
			return &xids[i];
	return &unknown;
}
