/* SPDX-License-Identifier: Apache-2.0 */
/* process.h - start and end penstock-ps and penstock-worker. */
#ifndef PST_PROCESS_H
#define PST_PROCESS_H

#include <penstock/error.h>
#include <stdbool.h>
#include <sys/types.h>

struct pst_process {
	pid_t pid; /* 0: none */
	int leash; /* other end of its standard input: it ends when this closes, and
		    * says there where it listens, and why it failed */
	bool listens;
};

/* What it is told besides where to listen. */
struct pst_process_options {
	unsigned int threads;
	int node;
	unsigned int lock, huge; /* as in pst_host_options */
	const char *device;	 /* of a worker; NULL: it is not told */
	int fd;			 /* that it inherits, under the same number; -1: none */
};

/* Run `@program --listen @url --threads N --node N --lock N --huge N [--device D] --until-eof`. */
int pst_process_start(const char *program, const char *url, const struct pst_process_options *opts,
		      struct pst_process *out, struct pst_error *err);
/*
 * Wait until it listens, and store where. -ECHILD: it ended, and why; -ETIMEDOUT. @name is for the
 * sentences, here and below.
 */
int pst_process_wait(struct pst_process *process, const char *name, int timeout_ms, char *url,
		     size_t len, struct pst_error *err);
/* 0: it runs. -ECHILD: it ended, and why as far as that is known. */
int pst_process_check(const struct pst_process *process, const char *name, struct pst_error *err);
void pst_process_kill(struct pst_process *process); /* and wait for its end */

#endif /* PST_PROCESS_H */
