/* SPDX-License-Identifier: Apache-2.0 */
/* config_parser.h - what reads penstockd.conf line by line, and what sets the values of keys. */
#ifndef DAEMON_CONFIG_PARSER_H
#define DAEMON_CONFIG_PARSER_H

#include "daemon/config.h"

#include <stdbool.h>
#include <stddef.h>

enum section { NONE, DAEMON, POOLS, KERNELS, CHILDREN, WORKER, SERVER };

/* Lines are counted as they are handed out: inih tells a handler of no line. */
struct parser {
	const char *text; /* what was not handed out yet */
	unsigned int line;
	enum section section;
	uint64_t seen[7];    /* bits of enum section's keys, of this section where there are many */
	unsigned int failed; /* the line of the first error, 0: none */
	char why[400];
	struct config *config;
};

/* false. The first one counts, and is told at the end. */
__attribute__((format(printf, 2, 3))) bool config_wrong(struct parser *p, const char *fmt, ...);

/* Stores @value of @key at @at, or says what is allowed. */
typedef bool config_set_fn(struct parser *p, const char *key, const char *value, void *at,
			   size_t bytes);
config_set_fn config_set_text;
config_set_fn config_set_path;
config_set_fn config_set_size;
config_set_fn config_set_ms;
config_set_fn config_set_seconds;
config_set_fn config_set_bool;
config_set_fn config_set_threads;
config_set_fn config_set_node;
config_set_fn config_set_device;
config_set_fn config_set_url;
config_set_fn config_set_metrics;
config_set_fn config_set_trust;

#endif /* DAEMON_CONFIG_PARSER_H */
