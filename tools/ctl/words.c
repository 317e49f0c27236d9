/* SPDX-License-Identifier: Apache-2.0 */
/* Words of the command line: options, numbers, and what objects are called. */
#include "tools/ctl/ctl.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ctl_parse(struct ctl *ctl, int argc, char **argv, const struct ctl_usage *usage,
	      const char **word)
{
	struct option_row rows[CTL_OPTIONS + 3] = {
		{"", NULL, OPT_TITLE, NULL, 0, 0, usage->help, NULL}};
	struct opt_list words = {0};
	char synopsis[128];
	size_t n = 1;
	int rc;

	for (const struct option_row *r = usage->option; r->help; r++)
		rows[n++] = *r;
	rows[n++] = (struct option_row){
		"json", NULL, OPT_FLAG, &ctl->json, 0, 0, "print JSON, for programs", NULL};
	rows[n++] = (struct option_row){
		"socket", "PATH", OPT_TEXT, &ctl->socket, 0, 0, "the daemon's socket", NULL};
	snprintf(synopsis, sizeof(synopsis), "%s%s[OPTION...]", usage->words,
		 *usage->words ? " " : "");
	rc = parse_options(argc, argv, usage->command, synopsis, rows, n, &words);
	if (rc < 0 && (words.count < usage->least || words.count > usage->most))
		rc = usage_error(usage->command, "%s; it takes %s",
				 words.count < usage->least ? "a word is missing"
							    : "too many words",
				 *usage->words ? usage->words : "none");
	for (size_t i = 0; rc < 0 && i < words.count; i++)
		word[i] = words.item[i];
	free_list(&words);
	return rc;
}

int ctl_number(const char *text, uint32_t *out)
{
	unsigned long long v;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (*end || errno || v > UINT32_MAX)
		return -EINVAL;
	*out = (uint32_t)v;
	return 0;
}

int ctl_size(const char *text, __u64 *out)
{
	static const char unit[] = "KMGTPE";
	const char *u;
	char *end;
	double v;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	v = strtod(text, &end);
	while (*end == ' ')
		end++;
	u = *end ? strchr(unit, toupper((unsigned char)*end)) : NULL;
	if (u) {
		v = ldexp(v, 10 * (int)(u - unit + 1));
		end += strncmp(end + 1, "iB", 2) ? 1 : 3;
	} else if (*end == 'B') {
		end++;
	}
	if (*end || !(v >= 1) || v >= 0x1p63)
		return -EINVAL;
	*out = (__u64)v;
	return 0;
}

#define NAME_OF(type, field)                                                    \
	{                                                                       \
		offsetof(struct type, field), sizeof(((struct type *)0)->field) \
	}
const struct naming naming_device = {
	PST_CMD_DEVICE_STAT,
	"device",
	"devices",
	{NAME_OF(pst_cmd_device_stat, out_name), NAME_OF(pst_cmd_device_stat, out_uuid)},
	offsetof(struct pst_cmd_device_stat, out_kind)};
const struct naming naming_kernel = {
	PST_CMD_KERNEL_STAT, "kernel", "kernels", {NAME_OF(pst_cmd_kernel_stat, out_name)}, 0};
const struct naming naming_pool = {
	PST_CMD_POOL_STAT, "pool", "pools", {NAME_OF(pst_cmd_pool_stat, out_name)}, 0};
const struct naming naming_worker = {
	PST_CMD_WORKER_STAT, "worker", "workers", {NAME_OF(pst_cmd_worker_stat, out_url)}, 0};

static bool is_called(const struct naming *n, const char *row, const char *word)
{
	for (int i = 0; i < 2; i++) {
		const char *name = row + n->name[i].at;
		size_t bytes = n->name[i].bytes;

		if (bytes && strnlen(name, bytes) == strlen(word) &&
		    !memcmp(name, word, strlen(word)))
			return true;
	}
	return false;
}

/* "gpu:1" or "gpu1": the second of its kind. Its kind, 0: not such a word. */
static uint32_t by_kind(const char *word, uint32_t *index)
{
	const char *digits = word + 3 + (strlen(word) > 3 && word[3] == ':');
	uint32_t kind = !strncmp(word, "cpu", 3)   ? PST_DEVICE_CPU
			: !strncmp(word, "gpu", 3) ? PST_DEVICE_GPU
						   : 0;

	return kind && !ctl_number(digits, index) ? kind : 0;
}

static uint32_t number_at(const char *row, size_t at)
{
	uint32_t v;

	memcpy(&v, row + at, sizeof(v));
	return v;
}

int ctl_find(struct ctl *ctl, const struct naming *naming, const char *word, uint32_t *id)
{
	uint32_t kind, index = 0, found = 0;
	size_t n, bytes = ctl_struct_bytes(naming->cmd), hits = 0;
	void *rows;
	int rc;

	if (!ctl_number(word, id))
		return 0;
	kind = naming->kind_at ? by_kind(word, &index) : 0;
	rc = ctl_list(ctl, naming->cmd, &rows, &n);
	if (rc < 0)
		return rc;
	for (size_t i = 0; i < n; i++) {
		const char *row = (const char *)rows + i * bytes;
		bool nth = kind && number_at(row, naming->kind_at) == kind && !index--;

		if (!nth && !is_called(naming, row, word))
			continue;
		found = number_at(row, offsetof(struct pst_cmd_pool_stat, id));
		hits++;
	}
	free(rows);
	if (!hits)
		return ctl_error(ctl, -ENOENT,
				 "no %s is called '%s'; those that there are: penstockctl %s",
				 naming->noun, word, naming->list);
	if (hits > 1)
		return ctl_error(ctl, -EEXIST, "%zu %s are called '%s'; say an id: penstockctl %s",
				 hits, naming->list, word, naming->list);
	*id = found;
	return 0;
}
