/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server: one thread, any number of clients at once, all tests.
 *
 * A client is believed nothing: what it asks for is checked against what it was given, and one
 * that talks nonsense, does not take its answers or dies loses its link and nothing else happens.
 * The server spins while a run is on that wants it, and sleeps otherwise, also when a client that
 * is in a run has been silent for a while.
 */
#include "kernels/op.h"
#include "rdma/fail.h"
#include "rdma/pause.h"
#include "tools/perf/perf.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#define SILENT_S       0.5
#define BATCH	       64
#define TRIPS_PER_POLL 64 /* so that who writes all the time does not keep others waiting */

struct session {
	TAILQ_ENTRY(session) on_server;
	struct pst_link *link;
	struct perf_hello hello;
	struct perf_memory memory;
	bool ready, running, dead;
	uint8_t next; /* WRITE_BACK: what the last byte is to become */
	struct perf_watch watch;
	uint64_t size, count, bytes;
	float *sum;
	unsigned char *in, *out; /* WRITE_BACK */
	struct pst_wr back;	 /* from one to the other side */
};

struct server {
	const struct perf_plan *plan;
	struct pst_fabric *fab;
	struct pst_cq *cq;
	TAILQ_HEAD(, session) sessions;
	unsigned int spinning; /* runs that want it */
	uint64_t promised;     /* bytes of memory that clients have */
	bool quiet;
};

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

/* Not closed at once: this batch of completions may have more of it. */
static void drop(struct server *srv, struct session *s, const char *why)
{
	if (why && !s->dead && !srv->quiet)
		fprintf(stderr, "penstock-perf: %s: %s; its link is closed\n",
			pst_link_peer(s->link), why);
	s->dead = true;
}

static void end_run(struct server *srv, struct session *s)
{
	if (s->running && !s->hello.sleep)
		srv->spinning--;
	s->running = false;
}

static void session_free(struct server *srv, struct session *s)
{
	end_run(srv, s);
	TAILQ_REMOVE(&srv->sessions, s, on_server);
	pst_link_close(s->link);
	srv->promised -= s->memory.maplen;
	perf_memory_free(&s->memory);
	free(s->sum);
	free(s);
}

static void sweep(struct server *srv)
{
	struct session *s = TAILQ_FIRST(&srv->sessions), *next;

	for (; s; s = next) {
		next = TAILQ_NEXT(s, on_server);
		if (s->dead)
			session_free(srv, s);
	}
}

static void add_session(struct server *srv, struct pst_link *link)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s) {
		pst_link_close(link);
		return;
	}
	s->link = link;
	pst_link_set_user(link, s);
	TAILQ_INSERT_TAIL(&srv->sessions, s, on_server);
}

/* Never waits: a client that does not take what it asked for is no client. */
static void post(struct server *srv, struct session *s, struct pst_wr *wr)
{
	int rc;

	wr->flags |= PST_WR_UNSIGNALED;
	rc = pst_link_post(s->link, wr, 1);
	if (rc != 1)
		drop(srv, s,
		     rc == -ENOTCONN ? NULL
		     : rc	     ? strerror(-rc)
				     : "it does not take its answers");
}

static void say(struct server *srv, struct session *s, const void *msg, size_t len)
{
	struct pst_wr wr = {.op = PST_WR_SEND, .local_addr = (void *)(uintptr_t)msg, .len = len};

	post(srv, s, &wr);
}

/* Is what @hello asks for something that this server does? */
static int check_hello(const struct server *srv, const struct perf_hello *h, struct pst_error *err)
{
	uint64_t most = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
	uint64_t slot = h->slots ? h->remote / h->slots : 0;

	if (h->test < PERF_PASSIVE || h->test > PERF_RETURN)
		return pst_fail(err, -EINVAL, "this server knows no test %u", h->test);
	if (!h->remote || h->remote > most || srv->promised > most - h->remote)
		return pst_fail(
			err, -ENOMEM,
			"%llu bytes of memory are more than the server gives (%llu, half of "
			"what it has, for all clients)",
			(unsigned long long)h->remote, (unsigned long long)most);
	if (h->page & (h->page - 1) || h->page > 1u << 30)
		return pst_fail(err, -EINVAL, "there are no pages of %u bytes", h->page);
	if (h->test == PERF_SUM && (!slot || h->work > slot || h->work % sizeof(float)))
		return pst_fail(err, -EINVAL, "slots of %llu bytes do not fit",
				(unsigned long long)h->work);
	if (h->test == PERF_RETURN &&
	    (!slot || h->slots > 256 || h->work > slot || h->local < h->remote))
		return pst_fail(err, -EINVAL, "%u slots do not fit", h->slots);
	return 0;
}

static int give_memory(struct server *srv, struct session *s, struct pst_error *err)
{
	const struct perf_hello *h = &s->hello;
	uint64_t in = (h->remote + 127) / 128 * 128;
	int rc = perf_memory_new(srv->fab, h->test == PERF_WRITE_BACK ? 2 * in : h->remote, h->page,
				 PST_ACCESS_WRITE, &s->memory, err);

	if (rc)
		return rc;
	srv->promised += s->memory.maplen;
	s->in = s->memory.at;
	s->out = s->memory.at + in;
	if (h->test == PERF_PASSIVE)
		perf_fill_pattern(&s->memory);
	if (h->test != PERF_SUM)
		return 0;
	s->sum = calloc(h->work / sizeof(float), sizeof(float));
	return s->sum ? 0 : pst_fail(err, -ENOMEM, "the server is out of memory");
}

static void take_hello(struct server *srv, struct session *s, const void *msg)
{
	struct perf_ready ready = {.hdr = PERF_HDR(PERF_READY, ready)};
	struct pst_error err = {0};
	int rc;

	memcpy(&s->hello, msg, sizeof(s->hello));
	rc = check_hello(srv, &s->hello, &err);
	if (!rc)
		rc = give_memory(srv, s, &err);
	if (!rc) {
		rc = pst_link_grant(s->link, s->memory.region, PST_ACCESS_WRITE, &ready.key);
		if (rc)
			pst_fail(&err, rc, "granting memory: %s", strerror(-rc));
	}
	ready.code = rc;
	ready.len = rc ? 0 : s->memory.len;
	snprintf(ready.text, sizeof(ready.text), "%.*s", (int)sizeof(ready.text) - 1, err.text);
	s->ready = !rc;
	say(srv, s, &ready, sizeof(ready));
}

static void take_start(struct server *srv, struct session *s, const void *msg)
{
	const struct perf_hdr go = PERF_HDR(PERF_GO, go);
	struct perf_start start;

	memcpy(&start, msg, sizeof(start));
	if (start.size > s->hello.remote ||
	    (s->hello.test == PERF_WRITE_BACK && (!start.size || start.size > s->hello.local))) {
		drop(srv, s, "it would like more than it was given");
		return;
	}
	s->size = start.size;
	s->count = 0;
	s->bytes = 0;
	s->next = 1;
	s->back = (struct pst_wr){
		.op = PST_WR_WRITE,
		.local = s->memory.region,
		.local_addr = s->out,
		.key = s->hello.key,
		.remote_off = s->hello.base,
		.len = s->size,
	};
	perf_watch_start(&s->watch, srv->plan->fabric);
	if (s->hello.test == PERF_WRITE_BACK)
		__atomic_store_n(&s->in[s->size - 1], 0, __ATOMIC_RELEASE);
	if (s->sum)
		memset(s->sum, 0, s->hello.work);
	s->running = true;
	if (!s->hello.sleep)
		srv->spinning++;
	say(srv, s, &go, sizeof(go));
}

static void take_stop(struct server *srv, struct session *s)
{
	struct perf_result result = {.hdr = PERF_HDR(PERF_RESULT, result),
				     .count = s->count,
				     .bytes = s->bytes,
				     .sum = s->sum ? (double)s->sum[0] : 0};

	end_run(srv, s);
	say(srv, s, &result, sizeof(result));
}

static bool is(const struct pst_wc *wc, enum perf_wire_type type, size_t size)
{
	struct perf_hdr hdr;

	if (wc->len != size)
		return false;
	memcpy(&hdr, wc->msg, sizeof(hdr));
	return hdr.mark == PERF_MARK && hdr.type == type && hdr.version == PERF_VERSION &&
	       hdr.size == size;
}

static void take_message(struct server *srv, struct session *s, const struct pst_wc *wc)
{
	bool data = wc->len && !*(const unsigned char *)wc->msg;

	if (s->running && data && s->hello.test == PERF_ECHO) {
		s->count++;
		say(srv, s, wc->msg, wc->len);
	} else if (s->running && data && s->hello.test == PERF_COUNT) {
		s->count++;
		s->bytes += wc->len;
	} else if (!s->ready && is(wc, PERF_HELLO, sizeof(struct perf_hello)))
		take_hello(srv, s, wc->msg);
	else if (s->ready && !s->running && is(wc, PERF_START, sizeof(struct perf_start)))
		take_start(srv, s, wc->msg);
	else if (s->running && is(wc, PERF_STOP, sizeof(struct perf_hdr)))
		take_stop(srv, s);
	else
		drop(srv, s, "it said something that no penstock-perf says here");
}

/* Rows of a slot go back to where the client has the same slot. */
static void give_back(struct server *srv, struct session *s, uint32_t imm)
{
	uint64_t slot = s->hello.remote / s->hello.slots;
	uint64_t len = PERF_ROWS_N(imm) * s->hello.work;
	struct pst_wr wr = {.op = PST_WR_WRITE, .flags = PST_WR_IMM, .imm = imm, .len = len};

	if (PERF_ROWS_SLOT(imm) >= s->hello.slots || len > slot) {
		drop(srv, s, "it asks for rows that there are not");
		return;
	}
	wr.local = s->memory.region;
	wr.local_addr = s->memory.at + PERF_ROWS_SLOT(imm) * slot;
	wr.key = s->hello.key;
	wr.remote_off = s->hello.base + PERF_ROWS_SLOT(imm) * slot;
	s->bytes += len;
	post(srv, s, &wr);
}

static void take_imm(struct server *srv, struct session *s, uint32_t imm)
{
	struct pst_wr answer = {.op = PST_WR_WRITE, .flags = PST_WR_IMM, .imm = imm};
	uint64_t slot = s->hello.slots ? s->hello.remote / s->hello.slots : 0;

	if (!s->running || s->hello.test < PERF_SUM) {
		drop(srv, s, "it raised an immediate that means nothing here");
		return;
	}
	s->count++;
	if (s->hello.test == PERF_RETURN) {
		give_back(srv, s, imm);
		return;
	}
	if (s->hello.test == PERF_SUM) {
		if (imm >= s->hello.slots) {
			drop(srv, s, "it has no such slot");
			return;
		}
		pst_ops_cpu()->add(s->sum, (const float *)(s->memory.at + imm * slot),
				   s->hello.work / sizeof(float));
		s->bytes += s->hello.work;
	}
	post(srv, s, &answer);
}

static void take(struct server *srv, const struct pst_wc *wc)
{
	struct session *s = pst_link_user(wc->link);

	if (wc->kind == PST_WC_CONNECTED) {
		add_session(srv, wc->link);
		return;
	}
	if (!s || s->dead)
		return;
	if (wc->kind == PST_WC_MESSAGE)
		take_message(srv, s, wc);
	else if (wc->kind == PST_WC_IMM)
		take_imm(srv, s, wc->imm);
	else if (wc->kind == PST_WC_DONE && wc->status)
		drop(srv, s,
		     *pst_link_why(s->link) ? pst_link_why(s->link) : strerror(-wc->status));
	else if (wc->kind == PST_WC_DOWN)
		drop(srv, s, NULL);
}

/*
 * Look some times whether the client's write is there, and some more when it was: who polls in
 * between may be late for the next. True: it was there.
 */
static bool write_back(struct server *srv, struct session *s)
{
	const unsigned char *last = &s->in[s->size - 1];
	unsigned int i = 0, seen = 0;

	while (i < s->watch.spins && seen < TRIPS_PER_POLL && !s->dead) {
		if (__atomic_load_n(last, __ATOMIC_ACQUIRE) != s->next) {
			if (s->watch.pauses)
				pst_pause();
			i++;
			continue;
		}
		perf_mark(s->out, s->size, s->next++);
		post(srv, s, &s->back);
		perf_watch_seen(&s->watch, i);
		s->count++;
		seen++;
		i = 0;
	}
	s->watch.polled = true;
	return seen;
}

static bool spin(struct server *srv)
{
	struct session *s;
	bool seen = false;

	TAILQ_FOREACH(s, &srv->sessions, on_server)
	{
		if (s->running && !s->dead && s->hello.test == PERF_WRITE_BACK)
			seen |= write_back(srv, s);
	}
	return seen;
}

/* One look at everything. @awake: without sleeping. True: something happened. */
static int turn(struct server *srv, bool awake, bool *happened)
{
	struct pst_wc wc[BATCH];
	int n = awake ? pst_cq_poll(srv->cq, wc, BATCH)
		      : pst_cq_wait(srv->cq, wc, BATCH, srv->spinning ? 1 : 1000);

	if (n < 0)
		return n == -EINTR ? 0 : n;
	for (int i = 0; i < n; i++)
		take(srv, &wc[i]);
	*happened = n > 0;
	if (n)
		sweep(srv);
	return 0;
}

static int serve(struct server *srv)
{
	uint64_t silent = perf_ticks_of(SILENT_S), last = perf_ticks();
	bool awake = true;
	int rc = 0;

	while (!stopped && !rc) {
		bool happened = false, wrote = srv->spinning && spin(srv);

		rc = turn(srv, srv->spinning && awake, &happened);
		if (happened || wrote)
			last = 0;
		else if (!last)
			last = perf_ticks();
		awake = !last || perf_ticks() - last < silent;
	}
	return rc;
}

static int announce(const char *url, int ready_fd, struct pst_error *err)
{
	if (ready_fd < 0) {
		printf("penstock-perf serves %s\n", url);
		fflush(stdout);
		return 0;
	}
	if (write(ready_fd, url, strlen(url) + 1) < 0)
		return pst_fail(err, -errno, "telling where the server is: %s", strerror(errno));
	return 0;
}

int perf_serve(const struct perf_plan *plan, const char *url, int ready_fd, struct pst_error *err)
{
	const struct sigaction act = {.sa_handler = on_signal};
	struct server srv = {.plan = plan, .quiet = ready_fd >= 0};
	struct pst_listener *listener;
	int rc;

	TAILQ_INIT(&srv.sessions);
	sigaction(SIGINT, &act, NULL);
	sigaction(SIGTERM, &act, NULL);
	rc = perf_pin(plan->cpu[ready_fd >= 0], err);
	if (rc)
		return rc;
	rc = pst_fabric_open(url, &srv.fab, err);
	if (rc)
		return rc;
	rc = pst_cq_create(srv.fab, &srv.cq, err);
	if (rc)
		goto close_fabric;
	rc = pst_listen(srv.cq, url, &listener, err);
	if (!rc)
		rc = announce(pst_listener_url(listener), ready_fd, err);
	if (!rc)
		rc = serve(&srv);
	if (rc)
		pst_fail(err, rc, "serving %s: %s", url, strerror(-rc));
	while (!TAILQ_EMPTY(&srv.sessions))
		session_free(&srv, TAILQ_FIRST(&srv.sessions));
	pst_cq_destroy(srv.cq);
close_fabric:
	pst_fabric_close(srv.fab);
	return rc;
}
