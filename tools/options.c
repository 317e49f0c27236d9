/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 24

const char *options_program = "penstock";

int usage_error(const char *command, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s %s: ", options_program, command);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; see %s %s --help\n", options_program, command);
	return EXIT_USAGE;
}

static void print_help(const char *command, const char *synopsis, const struct option_row *rows,
		       size_t nrows)
{
	printf("Usage: %s %s %s\n", options_program, command, synopsis);
	for (size_t i = 0; i < nrows; i++) {
		const struct option_row *r = &rows[i];
		char left[64];

		if (r->kind == OPT_TITLE) {
			printf("\n%s\n", r->help);
			continue;
		}
		snprintf(left, sizeof(left), "  --%s%s%s", r->name,
			 r->arg && r->kind != OPT_MAYBE ? " " : "", r->arg ? r->arg : "");
		if (strlen(left) < HELP_COLUMN)
			printf("%-*s%s\n", HELP_COLUMN, left, r->help);
		else
			printf("%s\n%*s%s\n", left, HELP_COLUMN, "", r->help);
	}
}

static int append(struct opt_list *list, const char *word)
{
	const char **grown = realloc(list->item, (list->count + 1) * sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	grown[list->count++] = word;
	list->item = grown;
	return 0;
}

void free_list(struct opt_list *list)
{
	free(list->item);
	*list = (struct opt_list){0};
}

static int is_option(const char *word)
{
	return word[0] == '-' && word[1] == '-' && word[2];
}

static int take_number(const char *command, const struct option_row *r, const char *value)
{
	char *end;
	double v;

	errno = 0;
	if (r->kind == OPT_U64) {
		unsigned long long n = strtoull(value, &end, 0);

		if (!*value || *end || errno || *value == '-')
			return usage_error(command, "--%s %s: not a whole number", r->name, value);
		*(uint64_t *)r->to = n;
		return -1;
	}
	v = strtod(value, &end);
	if (!*value || *end || !isfinite(v))
		return usage_error(command, "--%s %s: not a number", r->name, value);
	if (r->kind != OPT_REAL && v != floor(v))
		return usage_error(command, "--%s %s: not a whole number", r->name, value);
	if (v < r->min || v > r->max)
		return usage_error(command, "--%s %s: not between %.12g and %.12g", r->name, value,
				   r->min, r->max);
	if (r->kind == OPT_U32)
		*(uint32_t *)r->to = (uint32_t)v;
	else if (r->kind == OPT_I32)
		*(int32_t *)r->to = (int32_t)v;
	else
		*(double *)r->to = v;
	return -1;
}

static const struct option_row *find_row(const struct option_row *rows, size_t nrows,
					 const char *name, size_t len)
{
	for (size_t i = 0; i < nrows; i++)
		if (rows[i].kind != OPT_TITLE && strlen(rows[i].name) == len &&
		    !memcmp(rows[i].name, name, len))
			return &rows[i];
	return NULL;
}

/* One option at argv[*at]; *at moves past it. */
static int take_option(int argc, char **argv, int *at, const char *command,
		       const struct option_row *rows, size_t nrows)
{
	const char *name = argv[*at] + 2, *value = strchr(name, '=');
	const struct option_row *r =
		find_row(rows, nrows, name, value ? (size_t)(value - name) : strlen(name));

	if (!r)
		return usage_error(command, "unknown option %s", argv[*at]);
	++*at;
	if (r->given)
		*r->given = 1;
	if (r->kind == OPT_FLAG) {
		if (value)
			return usage_error(command, "--%s takes no value", r->name);
		*(uint32_t *)r->to = 1;
		return -1;
	}
	if (r->kind == OPT_MAYBE) {
		*(const char **)r->to = value ? value + 1 : "";
		return -1;
	}
	if (value)
		value++;
	else if (*at < argc && !is_option(argv[*at]))
		value = argv[(*at)++];
	else
		return usage_error(command, "--%s needs a value", r->name);
	if (r->kind == OPT_TEXT) {
		*(const char **)r->to = value;
		return -1;
	}
	if (r->kind != OPT_LIST)
		return take_number(command, r, value);
	if (append(r->to, value))
		return EXIT_FAILED;
	while (*at < argc && !is_option(argv[*at]))
		if (append(r->to, argv[(*at)++]))
			return EXIT_FAILED;
	return -1;
}

int parse_options(int argc, char **argv, const char *command, const char *synopsis,
		  const struct option_row *rows, size_t nrows, struct opt_list *words)
{
	int at = 1, rc;

	while (at < argc) {
		if (!strcmp(argv[at], "--help")) {
			print_help(command, synopsis, rows, nrows);
			return EXIT_DONE;
		}
		if (is_option(argv[at])) {
			rc = take_option(argc, argv, &at, command, rows, nrows);
			if (rc >= 0)
				return rc;
			continue;
		}
		if (!words || argv[at][0] == '-')
			return usage_error(command, "unexpected argument '%s'", argv[at]);
		if (append(words, argv[at++]))
			return EXIT_FAILED;
	}
	return -1;
}
