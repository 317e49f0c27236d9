/* SPDX-License-Identifier: Apache-2.0 */
/*
 * options.h - one table of options per command: it parses, and it makes --help.
 *
 * --name VALUE and --name=VALUE. A list takes all words up to the next option. What may be left out
 * is said as --name=VALUE only.
 */
#ifndef TOOLS_OPTIONS_H
#define TOOLS_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

enum opt_kind {
	OPT_FLAG,  /* uint32_t, set to 1 */
	OPT_U32,   /* uint32_t in [min, max] */
	OPT_I32,   /* int32_t in [min, max] */
	OPT_U64,   /* uint64_t */
	OPT_REAL,  /* double in [min, max] */
	OPT_TEXT,  /* const char * */
	OPT_MAYBE, /* const char *; "" when the option stands alone */
	OPT_LIST,  /* struct opt_list */
	OPT_TITLE, /* a line of its own in --help */
};

struct opt_list {
	const char **item;
	size_t count;
};

struct option_row {
	const char *name, *arg; /* without the dashes; what --help calls its value */
	enum opt_kind kind;
	void *to;
	double min, max;
	const char *help;
	int *given; /* set to 1 when the option is there; may be NULL */
};

/* Exit statuses, also of parse_options() below when it says that the program is done. */
enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/*
 * Parse @argv[1..]. Words that are no options go to @words (NULL: there may be
 * none). -1: go on; else the status to exit with (--help: 0, after printing).
 */
int parse_options(int argc, char **argv, const char *command, const char *synopsis,
		  const struct option_row *rows, size_t nrows, struct opt_list *words);
void free_list(struct opt_list *list);

/* Who speaks in --help and errors: "penstock", unless main says another. */
extern const char *options_program;

/* "penstock COMMAND: sentence" on stderr; the status to exit with. */
int usage_error(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif /* TOOLS_OPTIONS_H */
