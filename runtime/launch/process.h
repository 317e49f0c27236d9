/* SPDX-License-Identifier: Apache-2.0 */
/* process.h - start and end penstock-ps and penstock-worker. */
#ifndef PST_PROCESS_H
#define PST_PROCESS_H

#include <penstock/error.h>
#include <sys/types.h>

struct pst_process {
	pid_t pid; /* 0: none */
	int leash; /* other end of its standard input: it ends when this closes */
};

/* Run `@program --listen @url --threads N --node N --until-eof`. */
int pst_process_start(const char *program, const char *url, unsigned int threads, int node,
		      struct pst_process *out, struct pst_error *err);
void pst_process_kill(struct pst_process *process); /* and wait for its end */

#endif /* PST_PROCESS_H */
