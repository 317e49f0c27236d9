/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/leashed.h"

#include "daemon/children/leash.h"
#include "rdma/fail.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define BEAT_MS	  500
#define PER_BEAT  1024 /* experts, or tables, that are told of in one beat */
#define OPS_BOUND 32

/* What was last said of one expert or table. */
struct told {
	uint64_t key, hash;
};

/* A walk over all of them, in the order of keys, that says what is not as it was told. */
struct tale {
	int (*next)(struct leashed *l, uint64_t above, union leash_message *m, uint64_t *key);
	void (*gone)(uint64_t key, union leash_message *m);
	uint64_t start; /* what the first is above of */
	uint64_t above;
	struct told *told;
	size_t n, room;
	size_t at; /* of told, where the walk is */
	unsigned int said;
	bool on;
};

struct leashed {
	int sock, wake;
	uint32_t role;
	const char *url;
	const struct leashed_ops *ops;
	void *object;
	pthread_t thread;
	int64_t beat_ms; /* when the next is due */
	bool closed;	 /* nobody has the other end */
	bool owes_hello;
	bool owes; /* the answer that found no room */
	union leash_message owed;
	char note[256];	      /* as it was last said */
	uint64_t drain, stop; /* orders that are answered at the end */
	struct tale tale[2];
	struct {
		char op[PST_NAME_MAX];
		uint32_t kernel;
	} bound[OPS_BOUND];
};

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* false: no room now */
static bool say(struct leashed *l, const struct pst_leash *m)
{
	int rc = leash_send(l->sock, m, -1);

	if (rc < 0 && rc != -EAGAIN)
		l->closed = true;
	return rc != -EAGAIN;
}

static void answer(struct leashed *l, union leash_message *m)
{
	l->owes = !say(l, &m->hdr);
	if (l->owes)
		l->owed = *m;
}

static void beat(struct leashed *l)
{
	struct pst_leash_hello hello = {0};
	struct pst_leash_beat b = {0};

	l->ops->tell(l->object, &hello, &b);
	if (memcmp(l->note, hello.note, sizeof(l->note)) != 0)
		l->owes_hello = true;
	b.hdr = LEASH_HEADER(b, BEAT, 0);
	say(l, &b.hdr);
}

static void say_hello(struct leashed *l)
{
	struct pst_leash_hello hello = {0};
	struct pst_leash_beat b = {0};

	l->ops->tell(l->object, &hello, &b);
	hello.hdr = LEASH_HEADER(hello, HELLO, 0);
	hello.role = l->role;
	hello.pid = (uint32_t)getpid();
	snprintf((char *)hello.url, sizeof(hello.url), "%s", l->url);
	memcpy(l->note, hello.note, sizeof(l->note));
	l->owes_hello = !say(l, &hello.hdr);
}

/* Experts and tables */

static int next_expert(struct leashed *l, uint64_t above, union leash_message *m, uint64_t *key)
{
	struct pst_leash_expert *e = &m->expert;
	int rc;

	*e = (struct pst_leash_expert){.layer = (uint32_t)(above >> 32), .index = (uint32_t)above};
	rc = l->ops->expert ? l->ops->expert(l->object, e) : -ENOENT;
	e->hdr = LEASH_HEADER(*e, EXPERT, 0);
	*key = (uint64_t)e->layer << 32 | e->index;
	return rc;
}

static void gone_expert(uint64_t key, union leash_message *m)
{
	m->expert = (struct pst_leash_expert){.hdr = LEASH_HEADER(m->expert, EXPERT, 0),
					      .layer = (uint32_t)(key >> 32),
					      .index = (uint32_t)key};
}

static int next_table(struct leashed *l, uint64_t above, union leash_message *m, uint64_t *key)
{
	struct pst_leash_table *t = &m->table;
	int rc;

	*t = (struct pst_leash_table){.number = (uint32_t)above};
	rc = l->ops->table ? l->ops->table(l->object, t) : -ENOENT;
	t->hdr = LEASH_HEADER(*t, TABLE, 0);
	*key = t->number;
	return rc;
}

static void gone_table(uint64_t key, union leash_message *m)
{
	m->table = (struct pst_leash_table){
		.hdr = LEASH_HEADER(m->table, TABLE, 0), .number = (uint32_t)key, .gone = 1};
}

static uint64_t hash(const union leash_message *m)
{
	uint64_t h = 0, word;

	for (size_t i = 0; i < m->hdr.size; i += sizeof(word)) {
		memcpy(&word, m->raw + i, sizeof(word));
		h = (h ^ word) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	return h;
}

static void forget(struct tale *t)
{
	t->n = 0;
	t->above = t->start;
	t->at = 0;
}

/* What there was before @key, where the walk is, is no more. false: no room */
static bool tell_gone(struct leashed *l, struct tale *t, uint64_t key, bool end)
{
	union leash_message m;

	while (t->at < t->n && (end || t->told[t->at].key < key)) {
		t->gone(t->told[t->at].key, &m);
		if (!say(l, &m.hdr))
			return false;
		t->n--;
		memmove(&t->told[t->at], &t->told[t->at + 1], (t->n - t->at) * sizeof(*t->told));
	}
	return true;
}

static bool make_room(struct tale *t)
{
	size_t room = t->room ? t->room * 2 : 64;
	struct told *bigger;

	if (t->n < t->room)
		return true;
	bigger = realloc(t->told, room * sizeof(*bigger));
	if (!bigger)
		return false;
	t->told = bigger;
	t->room = room;
	return true;
}

/* One that there is. false: no room */
static bool tell_one(struct leashed *l, struct tale *t, uint64_t key, const union leash_message *m)
{
	struct told is = {key, hash(m)};
	bool old = t->at < t->n && t->told[t->at].key == key;

	if (old && t->told[t->at].hash == is.hash)
		return true;
	/* what cannot be remembered is told another time */
	if (!old && !make_room(t))
		return true;
	if (!say(l, &m->hdr))
		return false;
	t->said++;
	if (!old) {
		memmove(&t->told[t->at + 1], &t->told[t->at], (t->n - t->at) * sizeof(is));
		t->n++;
	}
	t->told[t->at] = is;
	return true;
}

/* On with the walk until its end, or as far as there is room and one beat may say. */
static void tell(struct leashed *l, struct tale *t)
{
	union leash_message m;
	uint64_t key;

	while (t->on && !l->closed && !l->owes_hello && t->said < PER_BEAT) {
		int rc = t->next(l, t->above, &m, &key);

		if (!tell_gone(l, t, key, rc < 0))
			return;
		if (rc < 0) {
			t->above = t->start;
			t->at = 0;
			t->on = false;
			return;
		}
		if (!tell_one(l, t, key, &m))
			return;
		t->above = key;
		t->at += t->at < t->n && t->told[t->at].key == key;
	}
	/* the rest waits for the next beat, or for room */
	t->on = t->on && t->said < PER_BEAT;
}

/* Orders */

static int no_such_order(struct pst_error *err)
{
	return pst_fail(err, -EOPNOTSUPP, "this child has no such order");
}

static void remember(struct leashed *l, const struct pst_leash_bind *how)
{
	unsigned int i = 0;

	while (i < OPS_BOUND - 1 && l->bound[i].op[0] &&
	       strcmp(l->bound[i].op, (const char *)how->op) != 0)
		i++;
	memcpy(l->bound[i].op, how->op, sizeof(l->bound[i].op));
	l->bound[i].kernel = how->kernel;
}

static uint32_t serving(const struct leashed *l, const char *op)
{
	for (unsigned int i = 0; i < OPS_BOUND; i++)
		if (!strcmp(l->bound[i].op, op))
			return l->bound[i].kernel;
	return 0;
}

static int bind_op(struct leashed *l, const struct pst_leash_bind *how, int fd,
		   struct pst_error *err)
{
	int rc;

	if (!l->ops->bind)
		return no_such_order(err);
	if (how->kernel && fd < 0)
		return pst_fail(err, -EBADF, "no image came with kernel %u", how->kernel);
	rc = l->ops->bind(l->object, (const char *)how->op, how->kernel ? fd : -1, err);
	if (!rc)
		remember(l, how);
	return rc;
}

static uint64_t parts_per_billion(double error)
{
	return error >= 0 && error < 1e9 ? (uint64_t)(error * 1e9) : UINT64_MAX;
}

static void check_op(struct leashed *l, const struct pst_leash_check *how)
{
	union leash_message m = {0};
	struct pst_leash_checked *c = &m.checked;
	double error = 0;
	int rc;

	*c = (struct pst_leash_checked){.hdr = LEASH_HEADER(*c, CHECKED, how->hdr.seq),
					.kernel = serving(l, (const char *)how->op)};
	memcpy(c->op, how->op, sizeof(c->op));
	rc = l->ops->check
		     ? l->ops->check(l->object, (const char *)how->op, how->seed, &error, &c->error)
		     : no_such_order(&c->error);
	c->error.code = rc;
	c->error_ppb = parts_per_billion(error);
	answer(l, &m);
}

static void answer_with(struct leashed *l, uint64_t seq, int rc, const struct pst_error *err)
{
	union leash_message m = {0};

	m.answer = (struct pst_leash_answer){.hdr = LEASH_HEADER(m.answer, ANSWER, seq),
					     .error = *err};
	m.answer.error.code = rc;
	answer(l, &m);
}

static void obey(struct leashed *l, const union leash_message *m, int fd)
{
	struct pst_error err = {0};
	int rc;

	switch (m->hdr.type) {
	case PST_LEASH_ASK:
		l->owes_hello = true;
		forget(&l->tale[0]);
		forget(&l->tale[1]);
		return;
	case PST_LEASH_STOP:
		l->stop = m->hdr.seq;
		l->ops->end(l->object);
		return;
	case PST_LEASH_CHECK:
		check_op(l, &m->check);
		return;
	case PST_LEASH_DRAIN:
		if (l->ops->drain) {
			l->drain = m->hdr.seq;
			l->ops->drain(l->object);
			return;
		}
		rc = no_such_order(&err);
		break;
	case PST_LEASH_BIND:
		rc = bind_op(l, &m->bind, fd, &err);
		break;
	default: /* PLACE: others do not come through leash_recv() */
		rc = l->ops->place ? l->ops->place(l->object, &m->place, &err)
				   : no_such_order(&err);
	}
	answer_with(l, m->hdr.seq, rc, &err);
}

/* Orders as far as each is answered at once. */
static void read_orders(struct leashed *l)
{
	union leash_message m;
	int fd, rc = 1;

	while (!l->owes && !l->closed && rc > 0) {
		fd = -1;
		rc = leash_recv(l->sock, LEASH_DAEMON, &m, &fd, NULL);
		if (rc > 0)
			obey(l, &m, fd);
		if (fd >= 0)
			close(fd);
	}
	if (rc < 0)
		l->closed = true;
}

/* The thread */

/* What found no room before. */
static void catch_up(struct leashed *l)
{
	if (l->owes)
		l->owes = !say(l, &l->owed.hdr);
	if (l->owes_hello)
		say_hello(l);
}

static void on_time(struct leashed *l)
{
	l->beat_ms = now_ms() + BEAT_MS;
	if (l->closed) {
		l->ops->leave(l->object);
		return;
	}
	beat(l);
	for (unsigned int i = 0; i < 2; i++) {
		l->tale[i].on = true;
		l->tale[i].said = 0;
	}
}

static bool wants_room(const struct leashed *l)
{
	return l->owes || l->owes_hello || l->tale[0].on || l->tale[1].on;
}

static void *live(void *arg)
{
	struct leashed *l = arg;

	for (;;) {
		struct pollfd p[2] = {{.fd = l->wake, .events = POLLIN},
				      {.fd = l->closed ? -1 : l->sock}};
		int64_t left = l->beat_ms - now_ms();

		p[1].events = (short)((l->owes ? 0 : POLLIN) | (wants_room(l) ? POLLOUT : 0));
		poll(p, 2, left > 0 ? (int)left : 0);
		if (p[0].revents)
			return NULL;
		if (p[1].revents & (POLLHUP | POLLERR) && !(p[1].revents & POLLIN))
			l->closed = true;
		if (!l->closed)
			read_orders(l);
		if (!l->closed)
			catch_up(l);
		if (now_ms() >= l->beat_ms)
			on_time(l);
		tell(l, &l->tale[0]);
		tell(l, &l->tale[1]);
	}
}

static void let_go(struct leashed *l)
{
	free(l->tale[0].told);
	free(l->tale[1].told);
	close(l->wake);
	close(l->sock);
	free(l);
}

/* Signals are for the thread that serves. */
static int start(struct leashed *l)
{
	sigset_t all, before;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	rc = pthread_create(&l->thread, NULL, live, l);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

int leashed_begin(int sock, uint32_t role, const char *url, const struct leashed_ops *ops,
		  void *object, struct leashed **out, struct pst_error *err)
{
	struct leashed *l = calloc(1, sizeof(*l));
	int rc;

	if (!l) {
		close(sock);
		return pst_fail(err, -ENOMEM, "no memory for the leash");
	}
	*l = (struct leashed){
		.sock = sock,
		.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.role = role,
		.url = url,
		.ops = ops,
		.object = object,
		.owes_hello = true,
		.tale = {{.next = next_expert, .gone = gone_expert, .start = UINT64_MAX},
			 {.next = next_table, .gone = gone_table, .start = 0}},
	};
	forget(&l->tale[0]);
	forget(&l->tale[1]);
	rc = l->wake < 0 ? errno : start(l);
	if (rc) {
		let_go(l);
		return pst_fail(err, -rc, "no thread to watch the leash: %s", strerror(rc));
	}
	*out = l;
	return 0;
}

/* The last that is said: how it went, figures and orders included. */
static void say_goodbye(struct leashed *l, const struct pst_error *err)
{
	static const struct pst_error well;

	if (err->code) {
		leashed_fail(l->sock, err);
		return;
	}
	if (l->owes && !say(l, &l->owed.hdr))
		return;
	beat(l);
	if (l->drain)
		answer_with(l, l->drain, 0, &well);
	if (l->stop)
		answer_with(l, l->stop, 0, &well);
}

void leashed_end(struct leashed *l, const struct pst_error *err)
{
	uint64_t one = 1;

	if (!l)
		return;
	while (write(l->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(l->thread, NULL);
	if (!l->closed)
		say_goodbye(l, err);
	let_go(l);
}

int leashed_fail(int sock, const struct pst_error *err)
{
	struct pst_leash_answer m = {.hdr = LEASH_HEADER(m, FAIL, 0), .error = *err};

	if (m.error.code >= 0 || m.error.code <= -4096)
		m.error.code = -EIO;
	return leash_send(sock, &m.hdr, -1);
}
