/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.h - what the mains of penstock-ps and penstock-worker share: options,
 * signals (TERM and INT end it well), the end of standard input, a leash.
 */
#ifndef DAEMON_SERVE_H
#define DAEMON_SERVE_H

#include "daemon/children/leashed.h"
#include "runtime/penstock.h"

#include <stdbool.h>

struct serve_role {
	const char *name, *what;
	bool computes; /* it takes --device */
	int (*begin)(const struct pst_serve_options *opts, void **out, struct pst_error *err);
	const char *(*url)(const void *object);
	int (*run)(void *object, struct pst_error *err);
	void (*end)(void *object); /* from a signal handler */
	void (*release)(void *object);
	uint32_t leash_role; /* PST_LEASH_* */
	const struct leashed_ops *leashed;
};

/* Exit status: 0 ended by a signal, 1 failed, 2 usage. */
int serve_main(const struct serve_role *role, int argc, char **argv);

#endif /* DAEMON_SERVE_H */
