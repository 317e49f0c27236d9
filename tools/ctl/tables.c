/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

static const struct column columns[] = {
	COLUMN(pst_cmd_table_stat, id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_table_stat, out_name, "NAME", CELL_TEXT),
	COLUMN(pst_cmd_table_stat, out_server, "SERVER", CELL_NUMBER),
	COLUMN(pst_cmd_table_stat, out_version, "VERSION", CELL_NUMBER),
	COLUMN(pst_cmd_table_stat, out_tensors, "TENSORS", CELL_NUMBER),
	COLUMN(pst_cmd_table_stat, out_clients, "CLIENTS", CELL_NUMBER),
	COLUMN(pst_cmd_table_stat, out_bytes, "SIZE", CELL_BYTES),
	COLUMN(pst_cmd_table_stat, out_state_bytes, "STATE", CELL_BYTES),
	COLUMN(pst_cmd_table_stat, out_pushed_bytes, "PUSHED", CELL_BYTES),
};

const struct sheet sheet_tables = {
	.one = "table",
	.many = "tables",
	.none = "servers have them from the engines that they serve",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_table_stat),
};

int cmd_tables(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "tables",
		.words = "",
		.help = "Tables: the parts of the weights that this host's servers keep."};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	return rc >= 0 ? rc : ctl_show_all(ctl, PST_CMD_TABLE_STAT, &sheet_tables);
}
