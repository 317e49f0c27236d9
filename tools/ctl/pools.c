/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

#include <stdio.h>
#include <string.h>

static const struct word flags[] = {
	{PST_POOL_CREATE_HUGE, "huge", TONE_PLAIN},
	{PST_POOL_CREATE_LOCK, "lock", TONE_PLAIN},
	{PST_POOL_CREATE_KEEP, "keep", TONE_PLAIN},
	{0},
};

static const struct column columns[] = {
	COLUMN(pst_cmd_pool_stat, id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_pool_stat, out_name, "NAME", CELL_TEXT),
	COLUMN(pst_cmd_pool_stat, out_bytes, "SIZE", CELL_BYTES),
	COLUMN(pst_cmd_pool_stat, out_page_bytes, "PAGES OF", CELL_BYTES),
	COLUMN(pst_cmd_pool_stat, out_node, "NODE", CELL_NODE),
	COLUMN(pst_cmd_pool_stat, out_pages, NULL, CELL_NUMBER),
	COLUMN(pst_cmd_pool_stat, out_pages_elsewhere, "ELSEWHERE", CELL_COUNT),
	COLUMN(pst_cmd_pool_stat, out_maps, "MAPS", CELL_NUMBER),
	COLUMN(pst_cmd_pool_stat, out_uid, "USER", CELL_NUMBER),
	COLUMN(pst_cmd_pool_stat, out_pid, "PID", CELL_OR_NONE),
	COLUMN_WORDS(pst_cmd_pool_stat, out_flags, "FLAGS", CELL_BITS, flags),
	COLUMN(pst_cmd_pool_stat, out_note, "NOTE", CELL_NOTE),
};

const struct sheet sheet_pools = {
	.one = "pool",
	.many = "pools",
	.none = "one is made by: penstockctl pool create NAME SIZE",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_pool_stat),
};

static const struct column created[] = {
	COLUMN(pst_cmd_pool_create, out_id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_pool_create, out_bytes, "SIZE", CELL_BYTES),
	COLUMN(pst_cmd_pool_create, out_page_bytes, "PAGES OF", CELL_BYTES),
	COLUMN(pst_cmd_pool_create, out_node, "NODE", CELL_NODE),
};

static const struct sheet sheet_created = {
	.one = "pool",
	.many = "pools",
	.column = created,
	.columns = sizeof(created) / sizeof(*created),
	.row_bytes = sizeof(struct pst_cmd_pool_create),
};

int cmd_pools(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "pools", .words = "", .help = "Pools: memory of a NUMA node."};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	return rc >= 0 ? rc : ctl_show_all(ctl, PST_CMD_POOL_STAT, &sheet_pools);
}

static int create(struct ctl *ctl, struct pst_cmd_pool_create *how)
{
	char size[32], page[32], node[32] = "no node of its own";

	if (ctl_call(ctl, PST_CMD_POOL_CREATE, how) < 0)
		return ctl_fail(ctl);
	if (how->out_node != PST_ANY)
		snprintf(node, sizeof(node), "node %d", how->out_node);
	return ctl_done(ctl, &sheet_created, how, "pool %u: %s on %s, in pages of %s", how->out_id,
			cell_bytes((double)how->out_bytes, size), node,
			cell_bytes((double)how->out_page_bytes, page));
}

int cmd_pool_create(struct ctl *ctl, int argc, char **argv)
{
	/* what does not stay would go with this process, that is at once */
	struct pst_cmd_pool_create how = {.flags = PST_POOL_CREATE_KEEP, .node = PST_ANY};
	uint32_t huge = 0, lock = 0;
	const char *word[2];
	const struct ctl_usage usage = {
		.command = "pool create",
		.words = "NAME SIZE",
		.help = "Make a pool, that stays until it is destroyed.\n"
			"SIZE is in bytes, or as 512M, 64G, 1T.",
		.least = 2,
		.most = 2,
		.option = {{"huge", NULL, OPT_FLAG, &huge, 0, 0, "in huge pages, or not at all",
			    NULL},
			   {"lock", NULL, OPT_FLAG, &lock, 0, 0, "locked in RAM, or not at all",
			    NULL},
			   {"node", "N", OPT_I32, &how.node, -1, 4095,
			    "on this NUMA node (default -1: where this runs)", NULL}},
	};
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	if (!*word[0] || strlen(word[0]) >= sizeof(how.name))
		return usage_error("pool create", "'%s' is no name: 1 to %zu bytes", word[0],
				   sizeof(how.name) - 1);
	if (ctl_size(word[1], &how.bytes))
		return usage_error("pool create", "'%s' is no size; write bytes, or 512M, 64G, 1T",
				   word[1]);
	memcpy(how.name, word[0], strlen(word[0]));
	how.flags |= (huge ? PST_POOL_CREATE_HUGE : 0u) | (lock ? PST_POOL_CREATE_LOCK : 0u);
	return create(ctl, &how);
}

int cmd_pool_destroy(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "pool destroy",
		.words = "ID|NAME",
		.help = "Let a pool go. Who has mapped it keeps its memory until he lets it go, "
			"too.",
		.least = 1,
		.most = 1,
	};
	struct pst_cmd_pool_destroy how = {0};
	const char *word[1];
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	if (ctl_find(ctl, &naming_pool, word[0], &how.id) < 0 ||
	    ctl_call(ctl, PST_CMD_POOL_DESTROY, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_none, &how, "pool %u is destroyed", how.id);
}
