/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/jobs.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct jobs {
	pthread_mutex_t lock;
	STAILQ_HEAD(, job) ended;
	bool closed;
	size_t refs; /* threads, and the owner */
	int wake;
	struct loop *loop;
	struct loop_source src;
};

static void put(struct jobs *jobs)
{
	bool last;

	pthread_mutex_lock(&jobs->lock);
	last = !--jobs->refs;
	pthread_mutex_unlock(&jobs->lock);
	if (!last)
		return;
	close(jobs->wake);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

static struct job *take(struct jobs *jobs)
{
	struct job *job;

	pthread_mutex_lock(&jobs->lock);
	job = STAILQ_FIRST(&jobs->ended);
	if (job)
		STAILQ_REMOVE_HEAD(&jobs->ended, on_jobs);
	pthread_mutex_unlock(&jobs->lock);
	return job;
}

static void on_wake(struct loop_source *src, uint32_t events)
{
	struct jobs *jobs = (void *)((char *)src - offsetof(struct jobs, src));
	uint64_t n;
	struct job *job;

	(void)events;
	if (read(src->fd, &n, sizeof(n)) < 0) {
		/* what there is to be done is in the list */
	}
	while ((job = take(jobs)))
		job->done(job);
}

int jobs_new(struct loop *loop, struct jobs **out)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	int rc;

	if (!jobs)
		return -ENOMEM;
	jobs->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (jobs->wake < 0) {
		rc = -errno;
		goto free_jobs;
	}
	pthread_mutex_init(&jobs->lock, NULL);
	STAILQ_INIT(&jobs->ended);
	jobs->refs = 1;
	jobs->loop = loop;
	jobs->src = (struct loop_source){.fd = jobs->wake, .ready = on_wake};
	rc = loop_watch(loop, &jobs->src, EPOLLIN);
	if (rc)
		goto close_wake;
	*out = jobs;
	return 0;

close_wake:
	pthread_mutex_destroy(&jobs->lock);
	close(jobs->wake);
free_jobs:
	free(jobs);
	return rc;
}

void jobs_free(struct jobs *jobs)
{
	struct job *job;

	if (!jobs)
		return;
	loop_unwatch(jobs->loop, &jobs->src);
	pthread_mutex_lock(&jobs->lock);
	jobs->closed = true;
	pthread_mutex_unlock(&jobs->lock);
	while ((job = take(jobs)))
		job->drop(job);
	put(jobs);
}

static void end(struct jobs *jobs, struct job *job)
{
	static const uint64_t one = 1;
	bool closed;

	pthread_mutex_lock(&jobs->lock);
	closed = jobs->closed;
	if (!closed)
		STAILQ_INSERT_TAIL(&jobs->ended, job, on_jobs);
	pthread_mutex_unlock(&jobs->lock);
	if (closed)
		job->drop(job);
	else if (write(jobs->wake, &one, sizeof(one)) < 0) {
		/* it is awake */
	}
}

static void *work(void *arg)
{
	struct job *job = arg;
	struct jobs *jobs = job->jobs;

	job->run(job);
	end(jobs, job);
	put(jobs);
	return NULL;
}

static int start_thread(struct job *job)
{
	sigset_t all, before;
	pthread_attr_t attr;
	pthread_t thread;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	rc = pthread_create(&thread, &attr, work, job);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

void jobs_start(struct jobs *jobs, struct job *job)
{
	job->jobs = jobs;
	pthread_mutex_lock(&jobs->lock);
	jobs->refs++;
	pthread_mutex_unlock(&jobs->lock);
	if (start_thread(job))
		work(job);
}
