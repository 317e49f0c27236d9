/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

static const struct word kinds[] = {
	{PST_DEVICE_CPU, "cpu", TONE_PLAIN},
	{PST_DEVICE_GPU, "gpu", TONE_PLAIN},
	{0},
};

const struct word words_health[] = {
	{PST_HEALTH_OK, "ok", TONE_PLAIN},
	{PST_HEALTH_THROTTLED, "throttled", TONE_WARN},
	{PST_HEALTH_DEGRADED, "degraded", TONE_WARN},
	{PST_HEALTH_LOST, "lost", TONE_BAD},
	{0},
};

static const struct column columns[] = {
	COLUMN(pst_cmd_device_stat, id, "ID", CELL_NUMBER),
	COLUMN_WORDS(pst_cmd_device_stat, out_kind, "KIND", CELL_WORD, kinds),
	COLUMN(pst_cmd_device_stat, out_name, "NAME", CELL_TEXT),
	COLUMN(pst_cmd_device_stat, out_node, "NODE", CELL_NODE),
	COLUMN(pst_cmd_device_stat, out_cores, "CORES", CELL_NUMBER),
	COLUMN(pst_cmd_device_stat, out_load, "LOAD", CELL_PERMILLE),
	COLUMN(pst_cmd_device_stat, out_memory_used, "USED", CELL_BYTES),
	COLUMN(pst_cmd_device_stat, out_memory_bytes, "MEMORY", CELL_BYTES),
	COLUMN(pst_cmd_device_stat, out_power_mw, "POWER", CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_cap_mw, "CAP", CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_clock_mhz, "CLOCK", CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_temperature_mc, "TEMP", CELL_MILLICELSIUS),
	COLUMN_WORDS(pst_cmd_device_stat, out_health, "HEALTH", CELL_WORD, words_health),
	COLUMN(pst_cmd_device_stat, out_xid, "XID", CELL_OR_NONE),
	COLUMN(pst_cmd_device_stat, out_ecc_corrected, NULL, CELL_NUMBER),
	COLUMN(pst_cmd_device_stat, out_ecc_uncorrected, "ECC", CELL_COUNT),
	COLUMN(pst_cmd_device_stat, out_energy_uj, NULL, CELL_NUMBER),
	COLUMN(pst_cmd_device_stat, out_cap_min_mw, NULL, CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_cap_max_mw, NULL, CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_clock_min_mhz, NULL, CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_clock_max_mhz, NULL, CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_memory_clock_mhz, NULL, CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_uuid, NULL, CELL_TEXT),
	COLUMN(pst_cmd_device_stat, out_note, "NOTE", CELL_NOTE),
};

const struct sheet sheet_devices = {
	.one = "device",
	.many = "devices",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_device_stat),
};

int cmd_devices(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {.command = "devices",
					       .words = "",
					       .help = "CPUs (the cores of a NUMA node) and GPUs."};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	return rc >= 0 ? rc : ctl_show_all(ctl, PST_CMD_DEVICE_STAT, &sheet_devices);
}
