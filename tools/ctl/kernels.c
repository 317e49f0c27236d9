/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/ctl/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const struct word states[] = {
	{PST_KERNEL_TESTED, "tested", TONE_PLAIN},
	{PST_KERNEL_BOUND, "bound", TONE_PLAIN},
	{PST_KERNEL_REPLACED, "replaced", TONE_PLAIN},
	{PST_KERNEL_TAKEN_BACK, "taken-back", TONE_BAD},
	{0},
};

static const struct word kinds[] = {
	{PST_DEVICE_CPU, "cpu", TONE_PLAIN},
	{PST_DEVICE_GPU, "gpu", TONE_PLAIN},
	{0},
};

static const struct column columns[] = {
	COLUMN(pst_cmd_kernel_stat, id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_kernel_stat, out_op, "OP", CELL_TEXT),
	COLUMN(pst_cmd_kernel_stat, out_name, "NAME", CELL_TEXT),
	COLUMN_WORDS(pst_cmd_kernel_stat, out_kind, "KIND", CELL_WORD, kinds),
	COLUMN_WORDS(pst_cmd_kernel_stat, out_state, "STATE", CELL_WORD, states),
	COLUMN(pst_cmd_kernel_stat, out_builtin, "BUILT IN", CELL_BOOL),
	COLUMN(pst_cmd_kernel_stat, out_workers, "WORKERS", CELL_NUMBER),
	COLUMN(pst_cmd_kernel_stat, out_speed, "TIME", CELL_PERMILLE_OR_NONE),
	COLUMN(pst_cmd_kernel_stat, out_checks, "CHECKS", CELL_COUNT),
	COLUMN(pst_cmd_kernel_stat, out_error_ppb, "ERROR", CELL_PPB),
	COLUMN(pst_cmd_kernel_stat, out_hash, "SHA-256", CELL_HASH),
};

static const struct sheet sheet_kernels = {
	.one = "kernel",
	.many = "kernels",
	.column = columns,
	.columns = sizeof(columns) / sizeof(*columns),
	.row_bytes = sizeof(struct pst_cmd_kernel_stat),
};

static const struct column loaded[] = {
	COLUMN(pst_cmd_kernel_load, out_id, "ID", CELL_NUMBER),
	COLUMN(pst_cmd_kernel_load, out_speed, "TIME", CELL_PERMILLE_OR_NONE),
};

static const struct sheet sheet_loaded = {
	.one = "kernel",
	.many = "kernels",
	.column = loaded,
	.columns = sizeof(loaded) / sizeof(*loaded),
	.row_bytes = sizeof(struct pst_cmd_kernel_load),
};

static const struct column rolled_back[] = {
	COLUMN(pst_cmd_kernel_rollback, out_id, "ID", CELL_NUMBER),
};

static const struct sheet sheet_rolled_back = {
	.one = "kernel",
	.many = "kernels",
	.column = rolled_back,
	.columns = sizeof(rolled_back) / sizeof(*rolled_back),
	.row_bytes = sizeof(struct pst_cmd_kernel_rollback),
};

int cmd_kernels(struct ctl *ctl, int argc, char **argv)
{
	static const struct ctl_usage usage = {
		.command = "kernels",
		.words = "",
		.help = "Kernels: implementations of ops, built in or loaded. TIME is that of "
			"what\n"
			"it replaces, ERROR the worst relative one that was seen."};
	int rc = ctl_parse(ctl, argc, argv, &usage, NULL);

	return rc >= 0 ? rc : ctl_show_all(ctl, PST_CMD_KERNEL_STAT, &sheet_kernels);
}

static int open_file(struct ctl *ctl, const char *path, int32_t *fd)
{
	*fd = open(path, O_RDONLY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	return ctl_error(ctl, -errno, "%s cannot be read: %s", path, strerror(errno));
}

static int load(struct ctl *ctl, struct pst_cmd_kernel_load *how, const char *const *path)
{
	int rc = open_file(ctl, path[0], &how->image_fd);

	if (rc < 0)
		return rc;
	rc = open_file(ctl, path[1], &how->manifest_fd);
	if (rc < 0)
		goto close_image;
	rc = ctl_call(ctl, PST_CMD_KERNEL_LOAD, how);
	close(how->manifest_fd);
close_image:
	close(how->image_fd);
	return rc;
}

int cmd_kernel_load(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_kernel_load how = {0};
	uint32_t slower = 0;
	const char *word[2];
	const struct ctl_usage usage = {
		.command = "kernel load",
		.words = "IMAGE MANIFEST",
		.help = "Let the daemon try a kernel's image against ref, in a process of its "
			"own.\n"
			"When it is right it may be bound.",
		.least = 2,
		.most = 2,
		.option = {{"slower", NULL, OPT_FLAG, &slower, 0, 0,
			    "it may be slower than what it would replace", NULL}},
	};
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	how.flags = slower ? PST_KERNEL_LOAD_SLOWER : 0;
	if (load(ctl, &how, word) < 0)
		return ctl_fail(ctl);
	if (!how.out_speed)
		return ctl_done(ctl, &sheet_loaded, &how,
				"kernel %u is right; bind it: penstockctl kernel bind %u",
				how.out_id, how.out_id);
	return ctl_done(ctl, &sheet_loaded, &how,
			"kernel %u is right, and takes %.1f %% of the time of what it would "
			"replace; bind it: penstockctl kernel bind %u",
			how.out_id, how.out_speed / 10.0, how.out_id);
}

/* The kernel that the only word names. -1: go on; else the status to exit with. */
static int one_kernel(struct ctl *ctl, int argc, char **argv, const char *command, const char *help,
		      uint32_t *id)
{
	const struct ctl_usage usage = {
		.command = command, .words = "ID|NAME", .help = help, .least = 1, .most = 1};
	const char *word[1];
	int rc = ctl_parse(ctl, argc, argv, &usage, word);

	if (rc >= 0)
		return rc;
	return ctl_find(ctl, &naming_kernel, word[0], id) < 0 ? ctl_fail(ctl) : -1;
}

int cmd_kernel_bind(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_kernel_bind how = {0};
	int rc =
		one_kernel(ctl, argc, argv, "kernel bind",
			   "Let a kernel serve its op in every worker on devices of its kind. What "
			   "it replaces\nstays for kernel rollback.",
			   &how.id);

	if (rc >= 0)
		return rc;
	if (ctl_call(ctl, PST_CMD_KERNEL_BIND, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_none, &how, "kernel %u is bound", how.id);
}

int cmd_kernel_rollback(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_kernel_rollback how = {0};
	int rc = one_kernel(ctl, argc, argv, "kernel rollback",
			    "Take a bound kernel back: what it replaced serves again.", &how.id);

	if (rc >= 0)
		return rc;
	if (ctl_call(ctl, PST_CMD_KERNEL_ROLLBACK, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_rolled_back, &how, "kernel %u serves again", how.out_id);
}

int cmd_kernel_unload(struct ctl *ctl, int argc, char **argv)
{
	struct pst_cmd_kernel_unload how = {0};
	int rc = one_kernel(ctl, argc, argv, "kernel unload",
			    "Forget a kernel that is not bound and not kept for a rollback.",
			    &how.id);

	if (rc >= 0)
		return rc;
	if (ctl_call(ctl, PST_CMD_KERNEL_UNLOAD, &how) < 0)
		return ctl_fail(ctl);
	return ctl_done(ctl, &sheet_none, &how, "kernel %u is unloaded", how.id);
}
