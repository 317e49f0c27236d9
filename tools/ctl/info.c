/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

#include <penstock/door.h>

static const struct word features[] = {
	{PST_FEATURE_KEEP, "keep", TONE_PLAIN},
	{PST_FEATURE_EXACT_NODE, "exact-node", TONE_PLAIN},
	{PST_FEATURE_DMABUF, "dma-buf", TONE_PLAIN},
	{PST_FEATURE_MODULE, "module", TONE_PLAIN},
	{PST_FEATURE_SIGNED, "signed", TONE_PLAIN},
	{0},
};

#define COMMAND_WORD(NAME, name, ...) {1ull << (PST_CMD_##NAME - PST_CMD_BASE), #name, TONE_PLAIN},
static const struct word names_of_commands[] = {PST_COMMANDS(COMMAND_WORD){0}};
#undef COMMAND_WORD

static const struct column columns[] = {
	COLUMN(pst_cmd_info, out_version, "version", CELL_TEXT),
	COLUMN(pst_cmd_info, out_pid, "process", CELL_OR_NONE),
	COLUMN(pst_cmd_info, out_start_ns, "up", CELL_SINCE),
	COLUMN(pst_cmd_info, out_may_change, "you may change things", CELL_BOOL),
	COLUMN(pst_cmd_info, out_nodes, "NUMA nodes", CELL_NUMBER),
	COLUMN(pst_cmd_info, out_devices, "devices", CELL_NUMBER),
	COLUMN(pst_cmd_info, out_workers, "workers", CELL_NUMBER),
	COLUMN(pst_cmd_info, out_kernels, "kernels", CELL_NUMBER),
	COLUMN(pst_cmd_info, out_pool_bytes, "in pools", CELL_BYTES),
	COLUMN(pst_cmd_info, out_quota_used, "of these yours", CELL_BYTES),
	COLUMN(pst_cmd_info, out_quota_bytes, "you may have", CELL_BYTES),
	COLUMN_WORDS(pst_cmd_info, out_features, "features", CELL_BITS, features),
	COLUMN_WORDS(pst_cmd_info, out_commands, NULL, CELL_BITS, names_of_commands),
};

const struct sheet sheet_info = {
	.one = "daemon",
	.many = "daemons",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_info),
	.upright = true,
};

int cmd_info(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {.command = "info",
					       .words = "",
					       .help = "What the daemon has, and what you may do."};
	struct pst_cmd_info info = {0};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	if (rc >= 0)
		return rc;
	if (ctl_call(ctl, PST_CMD_INFO, &info) < 0)
		return ctl_fail(ctl);
	return ctl_show(ctl, &sheet_info, &info, 1);
}
