/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

#include <stdlib.h>

static const struct column columns[] = {
	COLUMN(pst_cmd_expert_stat, layer, "LAYER", CELL_NUMBER),
	COLUMN(pst_cmd_expert_stat, index, "INDEX", CELL_NUMBER),
	COLUMN(pst_cmd_expert_stat, out_recent_rows, "RECENT", CELL_COUNT),
	COLUMN(pst_cmd_expert_stat, out_rows, "ROWS", CELL_COUNT),
	COLUMN(pst_cmd_expert_stat, out_bytes, "SIZE", CELL_BYTES),
	COLUMN(pst_cmd_expert_stat, out_pulled, "PULLED", CELL_BYTES),
	COLUMN(pst_cmd_expert_stat, out_copies, "COPIES", CELL_NUMBER),
	COLUMN(pst_cmd_expert_stat, out_pinned, "PINNED", CELL_NUMBER),
	COLUMN(pst_cmd_expert_stat, out_workers, "WORKERS", CELL_IDS),
};

static const struct sheet sheet_experts = {
	.one = "expert",
	.many = "experts",
	.none = "workers have them from the engines that they serve",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_expert_stat),
};

/* Hot ones first; as cold ones in their order. */
static int by_heat(const void *a, const void *b)
{
	const struct pst_cmd_expert_stat *x = a, *y = b;

	if (x->out_recent_rows != y->out_recent_rows)
		return x->out_recent_rows > y->out_recent_rows ? -1 : 1;
	if (x->out_rows != y->out_rows)
		return x->out_rows > y->out_rows ? -1 : 1;
	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

int cmd_experts(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_expert_stat *list;
	uint32_t layer = 0, top = 0;
	int one_layer = 0, rc;
	size_t n, kept = 0;
	void *rows;
	const struct ctl_usage usage = {
		.command = "experts",
		.words = "",
		.help = "Experts of this host's workers: where copies of them are, and how hot "
			"they\n"
			"are (RECENT: rows of late, halved every ten seconds).",
		.option = {{"layer", "N", OPT_U32, &layer, 0, UINT32_MAX, "of this layer only",
			    &one_layer},
			   {"top", "N", OPT_U32, &top, 1, UINT32_MAX,
			    "the N hottest, hottest first", NULL}},
	};

	rc = ctl_parse(ctl, argc, argv, &usage, NULL);
	if (rc >= 0)
		return rc;
	if (ctl_list(ctl, PST_CMD_EXPERT_STAT, &rows, &n) < 0)
		return ctl_fail(ctl);
	list = rows;
	for (size_t i = 0; i < n; i++)
		if (!one_layer || list[i].layer == layer)
			list[kept++] = list[i];
	if (top) {
		qsort(list, kept, sizeof(*list), by_heat);
		kept = kept < top ? kept : top;
	}
	rc = ctl_show(ctl, &sheet_experts, list, kept);
	free(rows);
	return rc;
}

static int order(struct ctl *ctl, int argc, char **argv, const char *command, const char *help,
		 uint32_t what, const char *done)
{
	const struct ctl_usage usage = {.command = command,
					.words = "LAYER INDEX WORKER",
					.help = help,
					.least = 3,
					.most = 3};
	struct pst_cmd_expert_place how = {.order = what};
	const char *word[3];
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	if (ctl_number(word[0], &how.layer))
		return usage_error(command, "'%s' is no layer", word[0]);
	if (ctl_number(word[1], &how.index))
		return usage_error(command, "'%s' is no index of an expert", word[1]);
	if (ctl_find(ctl, &naming_worker, word[2], &how.worker) < 0 ||
	    ctl_call(ctl, PST_CMD_EXPERT_PLACE, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_none, &how, "expert %u of layer %u %s worker %u", how.index,
			how.layer, done, how.worker);
}

int cmd_expert_place(struct ctl *ctl, int argc, char **argv)
{
	return order(ctl, argc, argv, "expert place",
		     "Bring an expert to a worker, which may let it go again.", PST_EXPERT_BRING,
		     "is brought to");
}

int cmd_expert_pin(struct ctl *ctl, int argc, char **argv)
{
	return order(ctl, argc, argv, "expert pin",
		     "Bring an expert to a worker, and keep it there.", PST_EXPERT_PIN,
		     "is pinned at");
}

int cmd_expert_unpin(struct ctl *ctl, int argc, char **argv)
{
	return order(ctl, argc, argv, "expert unpin",
		     "Let a worker drop an expert when it has no room.", PST_EXPERT_UNPIN,
		     "is no longer pinned at");
}

int cmd_expert_evict(struct ctl *ctl, int argc, char **argv)
{
	return order(ctl, argc, argv, "expert evict",
		     "Let a worker drop its copy of an expert now.", PST_EXPERT_EVICT,
		     "is evicted from");
}
