/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/children.h"
#include "daemon/control/command.h"
#include "daemon/devices/devices.h"
#include "daemon/kernels/kernels.h"
#include "daemon/pools/pools.h"
#include "runtime/penstock.h"

#include <stdio.h>
#include <unistd.h>

/* "0", "0-3", "0,2-3" */
static uint32_t count_list(const char *list)
{
	uint32_t count = 0;
	unsigned int from, to;
	int n;

	for (; sscanf(list, "%u%n", &from, &n) == 1; list += *list == ',') {
		list += n;
		to = from;
		if (sscanf(list, "-%u%n", &to, &n) == 1)
			list += n;
		count += to >= from ? to - from + 1 : 0;
	}
	return count;
}

static uint32_t nodes_with_memory(void)
{
	FILE *f = fopen("/sys/devices/system/node/has_memory", "re");
	char list[512] = "0";

	if (f) {
		if (!fgets(list, sizeof(list), f))
			list[0] = '\0';
		fclose(f);
	}
	return count_list(list);
}

static uint64_t commands(void)
{
	uint64_t bits = 0;

	for (uint32_t cmd = PST_CMD_BASE; cmd < PST_CMD_END; cmd++)
		if (command_find(cmd))
			bits |= 1ull << (cmd - PST_CMD_BASE);
	return bits;
}

static uint64_t features(const struct penstockd *d, const struct pools_sum *sum)
{
	return (d->keep && d->pools ? PST_FEATURE_KEEP : 0) |
	       (sum->module ? PST_FEATURE_MODULE | PST_FEATURE_EXACT_NODE | PST_FEATURE_DMABUF
			    : 0) |
	       (d->kernels && kernels_signed(d->kernels) ? PST_FEATURE_SIGNED : 0);
}

int handle_info(struct request *r)
{
	struct pst_cmd_info *info = (struct pst_cmd_info *)r->arg;
	const struct penstockd *d = r->d;
	struct pools_sum sum = {0};

	if (d->pools)
		pools_sum(d->pools, r->who.uid, &sum);
	info->out_features = features(d, &sum);
	info->out_commands = commands();
	info->out_pool_bytes = sum.bytes;
	info->out_quota_bytes = d->config.quota_bytes ? d->config.quota_bytes : PST_UNKNOWN;
	info->out_quota_used = sum.user_bytes;
	info->out_start_ns = (uint64_t)d->started_ns;
	info->out_nodes = nodes_with_memory();
	info->out_pid = (uint32_t)getpid();
	info->out_devices = d->devices ? devices_count(d->devices) : 0;
	info->out_workers = d->children ? children_workers(d->children) : 0;
	info->out_kernels = d->kernels ? kernels_count(d->kernels) : 0;
	info->out_may_change = r->who.may_change;
	snprintf((char *)info->out_version, sizeof(info->out_version), "%s", pst_version());
	return 0;
}
