/* SPDX-License-Identifier: Apache-2.0 */
/* penstock.h - what the commands of penstock(1) share. */
#ifndef TOOLS_PENSTOCK_H
#define TOOLS_PENSTOCK_H

#include "runtime/penstock.h"
#include "tools/options.h"

#include <jansson.h>

int cmd_train(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_inspect(int argc, char **argv);

/* "penstock COMMAND: sentence" on stderr; EXIT_FAILED. */
int say_error(const char *command, const struct pst_error *err);

/* Write @root (and give it back) to @path, "-" for stdout; the status to exit with. */
int write_json(const char *command, const char *path, json_t *root);

/* Bytes of text as a JSON string; what is not UTF-8 becomes U+FFFD. */
json_t *json_text(const char *text, size_t bytes);

/* "1.2 GB"; @buf of 16 bytes. */
const char *human_bytes(double bytes, char buf[16]);

double seconds_now(void);

#endif /* TOOLS_PENSTOCK_H */
