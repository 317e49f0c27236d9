/* SPDX-License-Identifier: Apache-2.0 */
/* Threads with pread: for hosts that deny io_uring. */
#include "runtime/io/loader_backend.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_THREADS 8

struct list {
	struct pst_loader_request *head, **tail;
};

struct threads {
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t some_todo, some_done;
	struct list todo, done;
	bool stop;
	unsigned int count;
	pthread_t id[MAX_THREADS];
};

static void list_clear(struct list *list)
{
	list->head = NULL;
	list->tail = &list->head;
}

static void list_add(struct list *list, struct pst_loader_request *req)
{
	req->next = NULL;
	*list->tail = req;
	list->tail = &req->next;
}

static struct pst_loader_request *list_take(struct list *list)
{
	struct pst_loader_request *req = list->head;

	list->head = req->next;
	if (!list->head)
		list->tail = &list->head;
	return req;
}

static ssize_t read_one(const struct pst_loader_request *req)
{
	ssize_t n = pread(req->fd, req->io_mem, req->io_len, (off_t)req->io_offset);

	return n < 0 ? -errno : n;
}

static void *work(void *arg)
{
	struct threads *t = arg;
	struct pst_loader_request *req;

	pthread_mutex_lock(&t->lock);
	for (;;) {
		while (!t->todo.head && !t->stop)
			pthread_cond_wait(&t->some_todo, &t->lock);
		if (!t->todo.head)
			break;
		req = list_take(&t->todo);
		pthread_mutex_unlock(&t->lock);
		req->result = read_one(req);
		pthread_mutex_lock(&t->lock);
		list_add(&t->done, req);
		pthread_cond_signal(&t->some_done);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void threads_close(struct pst_loader *loader)
{
	struct threads *t = loader->priv;

	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_cond_broadcast(&t->some_todo);
	pthread_mutex_unlock(&t->lock);
	for (unsigned int i = 0; i < t->count; i++)
		pthread_join(t->id[i], NULL);
	pthread_cond_destroy(&t->some_done);
	pthread_cond_destroy(&t->some_todo);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

/* As many as can be had; signals are for the program's own threads. */
static int start(struct threads *t, unsigned int wanted)
{
	sigset_t all, old;
	int rc = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	while (t->count < wanted && !rc) {
		rc = pthread_create(&t->id[t->count], NULL, work, t);
		if (!rc)
			t->count++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return t->count ? 0 : -rc;
}

static int threads_open(struct pst_loader *loader)
{
	unsigned int wanted = loader->depth < MAX_THREADS ? loader->depth : MAX_THREADS;
	struct threads *t = calloc(1, sizeof(*t));
	int rc;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->some_todo, NULL);
	pthread_cond_init(&t->some_done, NULL);
	list_clear(&t->todo);
	list_clear(&t->done);
	loader->priv = t;
	rc = start(t, wanted);
	if (rc < 0) {
		threads_close(loader);
		return rc;
	}
	loader->threads = t->count;
	if (t->count < wanted)
		pst_loader_note(loader, "only %u of %u threads could be started (see: ulimit -u)",
				t->count, wanted);
	return 0;
}

static void threads_submit(struct pst_loader *loader, struct pst_loader_request *req)
{
	struct threads *t = loader->priv;

	pthread_mutex_lock(&t->lock);
	list_add(&t->todo, req);
	pthread_cond_signal(&t->some_todo);
	pthread_mutex_unlock(&t->lock);
}

static int threads_reap(struct pst_loader *loader, bool wait)
{
	struct threads *t = loader->priv;
	struct pst_loader_request *req;
	struct list done;

	pthread_mutex_lock(&t->lock);
	while (wait && !t->done.head)
		pthread_cond_wait(&t->some_done, &t->lock);
	done.head = t->done.head;
	list_clear(&t->done);
	pthread_mutex_unlock(&t->lock);
	while (done.head) {
		req = done.head;
		done.head = req->next;
		pst_loader_done(loader, req, req->result);
	}
	return 0;
}

const struct pst_loader_backend pst_loader_threads = {
	.name = "threads",
	.open = threads_open,
	.close = threads_close,
	.submit = threads_submit,
	.reap = threads_reap,
};
