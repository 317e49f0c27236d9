/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs.h - what takes long, each in a thread of its own; its end is told in the loop.
 *
 * Whoever starts a job embeds it, and leaves what the thread uses alone until done().
 */
#ifndef DAEMON_JOBS_H
#define DAEMON_JOBS_H

#include "daemon/loop.h"

struct jobs;

struct job {
	void (*run)(struct job *job);  /* in the thread */
	void (*done)(struct job *job); /* in the loop; may free it */
	void (*drop)(
		struct job *job); /* in the thread, in place of done(): nobody waits any more */
	struct jobs *jobs;
	STAILQ_ENTRY(job) on_jobs;
};

int jobs_new(struct loop *loop, struct jobs **out);
/* Those that run go on, and end with drop(). NULL is fine. */
void jobs_free(struct jobs *jobs);
/* Where no thread can be had it is run here and now, and done in the loop all the same. */
void jobs_start(struct jobs *jobs, struct job *job);

#endif /* DAEMON_JOBS_H */
