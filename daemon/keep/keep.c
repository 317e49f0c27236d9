/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are an index (keep_index.h) and descriptors under numbers (keep_store.h), so that a store
 * needs to know no more than a name, and what a daemon leaves behind is always whole: a descriptor
 * is stored first, then the index says what it is; one that the index does not know goes.
 *
 * Of each descriptor there is a duplicate here too. A keeper that ends takes nothing with it then.
 */
#include "daemon/keep/keep.h"

#include "daemon/keep/keep_index.h"
#include "daemon/keep/keep_store.h"
#include "daemon/keep/keeper.h"
#include "daemon/log.h"
#include "daemon/loop.h"
#include "rdma/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INDEX_NAME "keep-index"
#define AGAIN_MS   1000 /* between attempts to start a keeper that does not stay */

struct entry {
	char name[KEEP_NAME];
	uint64_t number;
	uint32_t slot;
	int fd;
	json_t *about; /* of one that was brought back, until it is handed over */
};

struct keep {
	struct keep_store store;
	struct keep_index index;
	struct entry *entry[KEEP_MAX];
	size_t n;
	uint64_t last; /* number that was used */
	struct loop *loop;
	struct loop_source src;
	struct loop_timer again;
	int64_t begun_ms;
};

static void number_name(char *out, size_t len, uint64_t number)
{
	snprintf(out, len, "keep-%llu", (unsigned long long)number);
}

static struct entry **find(struct keep *k, const char *name)
{
	for (size_t i = 0; i < KEEP_MAX; i++)
		if (k->entry[i] && !strcmp(k->entry[i]->name, name))
			return &k->entry[i];
	return NULL;
}

static void free_entry(struct keep *k, struct entry **at)
{
	struct entry *e = *at;

	*at = NULL;
	k->n--;
	if (e->fd >= 0)
		close(e->fd);
	json_decref(e->about);
	free(e);
}

static struct entry *new_entry(struct keep *k, const char *name)
{
	struct entry *e = calloc(1, sizeof(*e));
	size_t i = 0;

	while (i < KEEP_MAX && k->entry[i])
		i++;
	if (!e || i == KEEP_MAX) {
		free(e);
		return NULL;
	}
	snprintf(e->name, sizeof(e->name), "%s", name);
	e->fd = -1;
	k->entry[i] = e;
	k->n++;
	return e;
}

/* What the store brought back, before the index says what it is. */
struct found {
	struct keep *keep;
	struct {
		char name[KEEPER_NAME];
		int fd;
	} fd[KEEPER_MAX];
	size_t n;
	int index;
};

static void on_stored(void *ctx, const char *name, int fd)
{
	struct found *f = ctx;

	if (!strcmp(name, INDEX_NAME) && f->index < 0) {
		f->index = fd;
	} else if (f->n < KEEPER_MAX && strlen(name) < KEEPER_NAME) {
		strcpy(f->fd[f->n].name, name);
		f->fd[f->n++].fd = fd;
	} else {
		close(fd);
	}
}

static int take_stored(struct found *f, const char *name)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->fd[i].fd >= 0 && !strcmp(f->fd[i].name, name)) {
			int fd = f->fd[i].fd;

			f->fd[i].fd = -1;
			return fd;
		}
	return -1;
}

static void on_record(void *ctx, const struct keep_record *r)
{
	struct found *f = ctx;
	struct keep *k = f->keep;
	char name[KEEPER_NAME];
	struct entry *e = NULL;
	json_t *about;
	int fd;

	if (r->number > k->last)
		k->last = r->number;
	number_name(name, sizeof(name), r->number);
	fd = take_stored(f, name);
	about = json_loadb(r->about, r->about_len, JSON_REJECT_DUPLICATES, NULL);
	if (fd >= 0 && json_is_object(about))
		e = new_entry(k, r->name);
	if (!e) {
		if (fd >= 0)
			close(fd);
		json_decref(about);
		keep_index_clear(&k->index, r->slot);
		if (fd >= 0)
			k->store.ops->drop(&k->store, name);
		return;
	}
	e->number = r->number;
	e->slot = r->slot;
	e->fd = fd;
	e->about = about;
}

/* Nothing is left for a keeper to stay for. */
static void drop_index(struct keep *k)
{
	if (k->index.fd < 0)
		return;
	if (k->store.ops->there(&k->store))
		k->store.ops->drop(&k->store, INDEX_NAME);
	keep_index_close(&k->index);
}

/* What was put and never written to the index, or was about to go. */
static void drop_unknown(struct found *f)
{
	struct keep *k = f->keep;

	for (size_t i = 0; i < f->n; i++) {
		if (f->fd[i].fd < 0)
			continue;
		close(f->fd[i].fd);
		k->store.ops->drop(&k->store, f->fd[i].name);
	}
	if (f->index >= 0 && k->index.fd < 0) {
		close(f->index);
		k->store.ops->drop(&k->store, INDEX_NAME);
	}
}

static int bring_back(struct keep *k, struct pst_error *err)
{
	struct found *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return pst_fail(err, -ENOMEM, "keep: no memory");
	f->keep = k;
	f->index = -1;
	rc = k->store.ops->open(&k->store, on_stored, f, err);
	/* numbers on their way out are not used again either, or DROP would hit the new one */
	for (size_t i = 0; i < f->n; i++) {
		unsigned long long number;

		if (sscanf(f->fd[i].name, "keep-%llu", &number) == 1 && number > k->last)
			k->last = number;
	}
	if (!rc && f->index >= 0 && keep_index_adopt(&k->index, f->index, on_record, f))
		k->index.fd = -1;
	drop_unknown(f);
	free(f);
	if (!k->n)
		drop_index(k);
	return rc;
}

/* The keeper's socket is beside the daemon's, under a path that holds in any directory. */
static int choose_address(struct keep *k, const char *socket, struct pst_error *err)
{
	char here[sizeof(k->store.at.sun_path)] = "";
	int n;

	if (socket[0] != '/' && !getcwd(here, sizeof(here)))
		return pst_fail(err, -errno, "keep: %s: its directory has no short path", socket);
	k->store.at.sun_family = AF_UNIX;
	n = snprintf(k->store.at.sun_path, sizeof(k->store.at.sun_path), "%s%s%s" KEEPER_SUFFIX,
		     here, *here ? "/" : "", socket);
	if (n < (int)sizeof(k->store.at.sun_path))
		return 0;
	return pst_fail(err, -ENAMETOOLONG,
			"keep: %s is too long for a socket with " KEEPER_SUFFIX " behind it: give "
			"the daemon a shorter one",
			socket);
}

int keep_open(const char *socket, struct keep **out, struct pst_error *err)
{
	struct keep *k = calloc(1, sizeof(*k));
	int rc;

	if (!k)
		return pst_fail(err, -ENOMEM, "keep: no memory");
	k->store.conn = -1;
	k->index.fd = -1;
	k->store.ops = keep_store_has_systemd() ? &keep_store_systemd : &keep_store_keeper;
	rc = choose_address(k, socket, err);
	if (!rc)
		rc = bring_back(k, err);
	if (rc) {
		keep_close(k);
		return rc;
	}
	*out = k;
	return 0;
}

void keep_close(struct keep *k)
{
	if (!k)
		return;
	if (k->loop) {
		loop_unwatch(k->loop, &k->src);
		loop_cancel(k->loop, &k->again);
	}
	k->store.ops->close(&k->store);
	for (size_t i = 0; i < KEEP_MAX; i++)
		if (k->entry[i])
			free_entry(k, &k->entry[i]);
	keep_index_close(&k->index);
	free(k);
}

static void watch_conn(struct keep *k)
{
	if (!k->loop || k->store.conn < 0)
		return;
	k->src.fd = k->store.conn;
	loop_watch(k->loop, &k->src, EPOLLIN);
}

/* A keeper, and everything to it. */
static int put_all(struct keep *k, struct pst_error *err)
{
	const struct keep_store_ops *ops = k->store.ops;
	char name[KEEPER_NAME];
	int rc;

	if (k->loop)
		loop_unwatch(k->loop, &k->src);
	k->begun_ms = loop_now_ms();
	rc = ops->begin(&k->store, err);
	if (!rc)
		rc = ops->put(&k->store, INDEX_NAME, k->index.fd, err);
	for (size_t i = 0; !rc && i < KEEP_MAX; i++) {
		const struct entry *e = k->entry[i];

		/* one that is being put for the first time comes behind the others */
		if (!e || e->fd < 0)
			continue;
		number_name(name, sizeof(name), e->number);
		rc = ops->put(&k->store, name, e->fd, err);
	}
	if (!rc)
		watch_conn(k);
	return rc;
}

/* Somebody to put to, who has the index and all entries that there are. */
static int be_there(struct keep *k, struct pst_error *err)
{
	int rc;

	if (k->index.fd >= 0 && k->store.ops->there(&k->store))
		return 0;
	if (k->index.fd < 0) {
		rc = keep_index_new(&k->index);
		if (rc)
			return pst_fail(err, rc, "keep: no memory for an index: %s", strerror(-rc));
		if (k->store.ops->there(&k->store)) {
			rc = k->store.ops->put(&k->store, INDEX_NAME, k->index.fd, NULL);
			if (!rc)
				return 0;
		}
	}
	return put_all(k, err);
}

/* Without kcmp(2) what is the same file is taken for the same descriptor. */
static bool same_file(int a, int b)
{
	pid_t self = getpid();
	long rc = syscall(SYS_kcmp, self, self, KCMP_FILE, a, b);
	struct stat sa, sb;

	if (rc >= 0)
		return rc == 0;
	return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* Twice: the keeper may be gone since it was last looked at. */
static int put_stored(struct keep *k, uint64_t number, int fd, struct pst_error *err)
{
	char name[KEEPER_NAME];
	int rc = -EPIPE;

	number_name(name, sizeof(name), number);
	for (int i = 0; rc == -EPIPE && i < 2; i++) {
		struct pst_error why = {0};

		rc = be_there(k, &why);
		if (!rc)
			rc = k->store.ops->put(&k->store, name, fd, &why);
		if (rc && (rc != -EPIPE || i))
			pst_fail(err, rc, "%s", why.text);
	}
	return rc;
}

/* 0; -E2BIG, -EINVAL, -ENOMEM */
static int fill_record(struct keep_record *r, const char *name, json_t *about,
		       struct pst_error *err)
{
	size_t n;

	if (!*name || strlen(name) >= sizeof(r->name))
		return pst_fail(err, -EINVAL, "keep: no name for an entry: \"%s\"", name);
	memset(r->name, 0, sizeof(r->name));
	strcpy(r->name, name);
	n = json_dumpb(about, r->about, sizeof(r->about), JSON_COMPACT);
	if (!n)
		return pst_fail(err, -ENOMEM, "keep: %s: no memory for what is about it", name);
	if (n > sizeof(r->about))
		return pst_fail(err, -E2BIG, "keep: %s: %zu bytes about it, more than %zu", name, n,
				sizeof(r->about));
	r->about_len = (uint32_t)n;
	return 0;
}

/* The entry is as the index says from the moment that the record is written. */
static int commit(struct keep *k, struct entry *e, struct keep_record *r, struct pst_error *err)
{
	bool had = e->number != 0;
	int rc = keep_index_write(&k->index, r);

	if (rc)
		return pst_fail(err, rc, "keep: %s: its record cannot be written: %s", e->name,
				strerror(-rc));
	if (had)
		keep_index_clear(&k->index, e->slot);
	e->slot = r->slot;
	e->number = r->number;
	return 0;
}

static void drop_number(struct keep *k, uint64_t number)
{
	char name[KEEPER_NAME];

	number_name(name, sizeof(name), number);
	if (k->store.ops->there(&k->store))
		k->store.ops->drop(&k->store, name);
}

static int put_entry(struct keep *k, struct entry *e, int fd, struct keep_record *r,
		     struct pst_error *err)
{
	uint64_t old = e->number;
	int rc, copy = -1;

	r->number = old;
	/* systemd stores no descriptor twice, whatever its names are: then only the words change */
	if (!old || !same_file(e->fd, fd)) {
		copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (copy < 0)
			return pst_fail(err, -errno, "keep: %s: %s", e->name, strerror(errno));
		r->number = ++k->last;
		rc = put_stored(k, r->number, copy, err);
		if (rc)
			goto close_copy;
	}
	rc = commit(k, e, r, err);
	if (rc)
		goto drop_new;
	if (copy >= 0) {
		if (e->fd >= 0)
			close(e->fd);
		e->fd = copy;
	}
	if (old && old != r->number)
		drop_number(k, old);
	return 0;

drop_new:
	if (r->number != old)
		drop_number(k, r->number);
close_copy:
	if (copy >= 0)
		close(copy);
	return rc;
}

int keep_put(struct keep *k, const char *name, int fd, json_t *about, struct pst_error *err)
{
	struct entry **at = find(k, name), *e = at ? *at : NULL;
	struct keep_record r;
	int rc = fill_record(&r, name, about, err);

	if (rc)
		return rc;
	if (!e) {
		e = new_entry(k, name);
		if (!e && k->n < KEEP_MAX)
			return pst_fail(err, -ENOMEM, "keep: %s: no memory", name);
		if (!e)
			return pst_fail(err, -ENOSPC,
					"keep: %s: there are %zu entries already, more than %d "
					"there cannot be",
					name, k->n, KEEP_MAX);
	}
	rc = put_entry(k, e, fd, &r, err);
	if (rc && !at)
		free_entry(k, find(k, name));
	return rc;
}

void keep_drop(struct keep *k, const char *name)
{
	struct entry **at = find(k, name);

	if (!at)
		return;
	keep_index_clear(&k->index, (*at)->slot);
	drop_number(k, (*at)->number);
	free_entry(k, at);
	if (!k->n)
		drop_index(k);
}

/* By places, since what is called may put and drop. */
void keep_each(struct keep *k, const char *prefix, keep_fn *fn, void *ctx)
{
	for (size_t i = 0; i < KEEP_MAX; i++) {
		struct entry *e = k->entry[i];
		char name[KEEP_NAME];
		json_t *about;
		int fd;

		if (!e || !e->about || strncmp(e->name, prefix, strlen(prefix)))
			continue;
		fd = fcntl(e->fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			continue;
		about = e->about;
		e->about = NULL;
		memcpy(name, e->name, sizeof(name));
		fn(ctx, name, fd, about);
		json_decref(about);
	}
}

static void begin_again(struct keep *k)
{
	struct pst_error err = {0};

	if (k->index.fd < 0 || !put_all(k, &err)) {
		if (k->index.fd >= 0)
			log_line(LOG_WARNING, NULL,
				 KEEPER_PROGRAM " ended; another one has all again");
		return;
	}
	log_line(LOG_ERR, NULL, "%s; nothing is kept if penstockd ends now", err.text);
	loop_after(k->loop, &k->again, AGAIN_MS);
}

static void on_again(struct loop_timer *timer)
{
	struct keep *k = (void *)((char *)timer - offsetof(struct keep, again));

	if (!k->store.ops->there(&k->store))
		begin_again(k);
}

/* It never speaks of its own accord, so this is its end. */
static void on_ready(struct loop_source *src, uint32_t events)
{
	struct keep *k = (void *)((char *)src - offsetof(struct keep, src));
	int64_t lived = loop_now_ms() - k->begun_ms;

	(void)events;
	loop_unwatch(k->loop, src);
	k->store.ops->close(&k->store);
	if (k->begun_ms && lived < AGAIN_MS)
		loop_after(k->loop, &k->again, AGAIN_MS);
	else
		begin_again(k);
}

void keep_watch(struct keep *k, struct loop *loop)
{
	k->loop = loop;
	k->src.ready = on_ready;
	k->again.fire = on_again;
	watch_conn(k);
}
