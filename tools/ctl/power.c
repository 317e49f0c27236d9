/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What can be set, and within which limits; keys as in devices. */
static const struct column columns[] = {
	COLUMN(pst_cmd_device_stat, id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_device_stat, out_name, "NAME", CELL_TEXT),
	COLUMN(pst_cmd_device_stat, out_power_mw, "POWER", CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_cap_mw, "CAP", CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_cap_min_mw, "LEAST", CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_cap_max_mw, "MOST", CELL_MILLIWATT),
	COLUMN(pst_cmd_device_stat, out_clock_mhz, "CLOCK", CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_clock_min_mhz, "FROM", CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_clock_max_mhz, "TO", CELL_MHZ),
	COLUMN(pst_cmd_device_stat, out_energy_uj, "ENERGY", CELL_MICROJOULE),
};

static const struct sheet sheet = {
	.one = "device",
	.many = "devices",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_device_stat),
};

/* "1200-1800", or "1500" for both. */
static int parse_clock(const char *text, struct pst_cmd_device_power *how)
{
	const char *dash = strchr(text, '-');
	char low[16];

	if (!dash) {
		if (ctl_number(text, &how->clock_min_mhz))
			return -1;
		how->clock_max_mhz = how->clock_min_mhz;
		return 0;
	}
	if (snprintf(low, sizeof(low), "%.*s", (int)(dash - text), text) >= (int)sizeof(low))
		return -1;
	return ctl_number(low, &how->clock_min_mhz) || ctl_number(dash + 1, &how->clock_max_mhz)
		       ? -1
		       : 0;
}

/* The device as it is now. */
static int show(struct ctl *ctl, uint32_t id)
{
	struct pst_cmd_device_stat stat = {.id = id};

	if (ctl_call(ctl, PST_CMD_DEVICE_STAT, &stat) < 0)
		return ctl_fail(ctl);
	return ctl_show(ctl, &sheet, &stat, 1);
}

int cmd_power(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_device_power how = {0};
	const char *clock = NULL, *word[1];
	uint32_t reset = 0;
	double cap = 0;
	const struct ctl_usage usage = {
		.command = "power",
		.words = "DEVICE",
		.help = "Set what a device may draw and how fast it may run, and show both.\n"
			"DEVICE is an id, cpu:N or gpu:N, a name or a UUID.",
		.least = 1,
		.most = 1,
		.option = {{"cap", "WATT", OPT_REAL, &cap, 0.001, 4e6, "draw this at most", NULL},
			   {"clock", "MIN-MAX", OPT_TEXT, &clock, 0, 0,
			    "clock of its cores in MHz; one number for both", NULL},
			   {"reset", NULL, OPT_FLAG, &reset, 0, 0, "put back what the daemon found",
			    NULL}},
	};
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	if (reset && (cap > 0 || clock))
		return usage_error("power", "--reset goes alone");
	if (clock && parse_clock(clock, &how))
		return usage_error("power", "--clock %s: not MIN-MAX in MHz", clock);
	if (ctl_find(ctl, &naming_device, word[0], &how.id) < 0)
		return ctl_fail(ctl);
	how.cap_mw = (uint32_t)lround(1e3 * cap);
	how.flags = (cap > 0 ? PST_DEVICE_POWER_CAP : 0u) | (clock ? PST_DEVICE_POWER_CLOCK : 0u) |
		    (reset ? PST_DEVICE_POWER_RESET : 0u);
	if (how.flags && ctl_call(ctl, PST_CMD_DEVICE_POWER, &how) < 0)
		return ctl_fail(ctl);
	return show(ctl, how.id);
}
