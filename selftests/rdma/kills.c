/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kills.c - peers under load are killed at random moments.
 *
 * A server and some clients, each a process. Clients write patterns into memory of their own at the
 * server and tell it, which checks every byte and answers; meanwhile they read what all may read,
 * and check that. Now and then one is killed (or stopped until its peers give it up, then killed)
 * and another started. Nobody may hang, see a wrong byte, or notice another's death; in the end the
 * server has as many files open and as much memory in use as in the beginning.
 *
 * KILLS and SECONDS from the environment end a run, whichever comes last: make soak sets both.
 */
#include "rdma/fabric.h"
#include "selftests/lib/test.h"
#include "selftests/rdma/leak.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>

#define CLIENTS	 4
#define SEGMENTS 8
#define SEGMENT	 8192
#define COMMON	 (1 << 20)
#define READS	 4
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 1
#endif
#ifdef SLOW
#define USUAL 60 /* kills: what fits beside all else that is tested */
#else
#define USUAL 200
#endif
#define QUIET_S 30 /* a client that gets nothing done for so long hangs */

struct told {
	uint32_t segment, len;
	uint64_t seed;
};

struct granted {
	struct pst_key common, own;
};

/* What the processes of one run see of each other. */
struct board {
	char url[400];		/* of the server that runs */
	_Atomic uint32_t epoch; /* servers started, ever; odd while there is none */
	_Atomic bool stop;
	_Atomic uint64_t done[CLIENTS];
	_Atomic uint64_t downs; /* links that a server saw end */
	_Atomic bool failed;
};

static struct board *board;
static const char *scheme, *client_scheme; /* what server and clients open their fabric with */

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

/* Bytes @from .. @from + @len of the pattern of @seed; whole words. */
static void fill(void *at, uint64_t seed, uint64_t from, uint64_t len)
{
	uint64_t *w = at;

	for (uint64_t i = 0; i < len / 8; i++)
		w[i] = mix(seed + from / 8 + i);
}

static bool filled(const void *at, uint64_t seed, uint64_t from, uint64_t len)
{
	const uint64_t *w = at;

	for (uint64_t i = 0; i < len / 8; i++)
		if (w[i] != mix(seed + from / 8 + i))
			return false;
	return true;
}

/* A child's end: it says why and fails the run. */
#define CHECK(cond)                                                \
	do {                                                       \
		if (!(cond)) {                                     \
			test_say(__FILE__, __LINE__, "%s", #cond); \
			atomic_store(&board->failed, true);        \
			_exit(TEST_FAIL);                          \
		}                                                  \
	} while (0)

struct memory {
	struct pst_region *region;
	void *at;
	uint64_t len;
	int fd;
};

static void memory_make(struct pst_fabric *fab, struct memory *m, uint64_t len, uint32_t access)
{
	struct pst_region_attr attr = {.size = sizeof(attr), .len = len, .access = access};
	struct pst_error err = {0};

	m->len = len;
	m->fd = memfd_create("kills", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(m->fd >= 0 && !ftruncate(m->fd, (off_t)len));
	m->at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
	CHECK(m->at != MAP_FAILED);
	attr.addr = m->at;
	attr.fd = m->fd;
	CHECK(!pst_region_register(fab, &attr, &m->region, &err));
}

static void memory_drop(struct memory *m)
{
	pst_region_release(m->region);
	munmap(m->at, m->len);
	close(m->fd);
}

/* The server */

struct client_seat {
	struct memory own;
};

struct server {
	struct pst_fabric *fab;
	struct pst_cq *cq;
	struct memory common;
	unsigned int links;
};

static void seat_client(struct server *s, struct pst_link *link)
{
	struct client_seat *seat = calloc(1, sizeof(*seat));
	struct granted g;

	CHECK(seat);
	memory_make(s->fab, &seat->own, (uint64_t)SEGMENTS * SEGMENT, PST_ACCESS_WRITE);
	pst_link_set_user(link, seat);
	s->links++;
	/* it may be dead by now: its DOWN comes */
	if (!pst_link_grant(link, s->common.region, PST_ACCESS_READ, &g.common) &&
	    !pst_link_grant(link, seat->own.region, PST_ACCESS_WRITE, &g.own))
		pst_link_send(link, &g, sizeof(g), 5000);
}

static void unseat_client(struct server *s, struct pst_link *link)
{
	struct client_seat *seat = pst_link_user(link);

	pst_link_close(link);
	if (!seat)
		return;
	memory_drop(&seat->own);
	free(seat);
	s->links--;
	atomic_fetch_add(&board->downs, 1);
}

static void check_told(const struct pst_wc *wc)
{
	struct client_seat *seat = pst_link_user(wc->link);
	struct told t;

	CHECK(wc->len == sizeof(t));
	memcpy(&t, wc->msg, sizeof(t));
	CHECK(t.segment < SEGMENTS && t.len <= SEGMENT);
	CHECK(filled((char *)seat->own.at + (size_t)t.segment * SEGMENT, t.seed, 0, t.len));
	pst_link_send(wc->link, &t, sizeof(t), 5000);
}

static void serve(struct server *s)
{
	struct pst_wc wc[8];
	int n = pst_cq_wait(s->cq, wc, 8, 100);

	CHECK(n >= 0 || n == -EINTR);
	for (int i = 0; i < n; i++) {
		if (wc[i].kind == PST_WC_CONNECTED)
			seat_client(s, wc[i].link);
		else if (wc[i].kind == PST_WC_MESSAGE)
			check_told(&wc[i]);
		else if (wc[i].kind == PST_WC_DOWN)
			unseat_client(s, wc[i].link);
	}
}

/* Libraries open devices of their own with the first connection, and keep them. */
static void warm_up(const char *fabric)
{
	struct pst_link *link;
	struct pst_fabric *fab;
	struct pst_cq *cq;
	char url[400];

	if (strncmp(scheme, "verbs", 5))
		return;
	snprintf(url, sizeof(url), "%.*s1", (int)strcspn(scheme, "?") - 1, scheme);
	CHECK(!pst_fabric_open(fabric, &fab, NULL) && !pst_cq_create(fab, &cq, NULL));
	CHECK(pst_connect(cq, url, 200, &link, NULL));
	pst_cq_destroy(cq);
	pst_fabric_close(fab);
}

static void open_server(struct server *s, struct pst_listener **l)
{
	struct pst_error err = {0};
	char url[400];

	if (!strncmp(scheme, "shm", 3))
		snprintf(url, sizeof(url), "shm://kills-%d", (int)getpid());
	else
		snprintf(url, sizeof(url), "%.*s", (int)strcspn(scheme, "?"), scheme);
	if (pst_fabric_open(scheme, &s->fab, &err) || pst_cq_create(s->fab, &s->cq, &err) ||
	    pst_listen(s->cq, url, l, &err)) {
		test_say(__FILE__, __LINE__, "%s", err.text);
		CHECK(!"a server can be opened");
	}
	memory_make(s->fab, &s->common, COMMON, PST_ACCESS_READ);
	fill(s->common.at, 1, 0, COMMON);
}

static void server_main(void)
{
	struct leak before, listening;
	struct server s = {0};
	struct pst_listener *l;

	warm_up(scheme);
	before = leak_now();
	open_server(&s, &l);
	listening = leak_now();
	/* over verbs the first link brings the device's queue, and its file */
	listening.files += !strncmp(scheme, "verbs", 5);
	snprintf(board->url, sizeof(board->url), "%s", pst_listener_url(l));
	atomic_fetch_add(&board->epoch, 1);
	while (!atomic_load(&board->stop) || s.links)
		serve(&s);
	CHECK(filled(s.common.at, 1, 0, COMMON));
	CHECK(leak_none(&listening));
	memory_drop(&s.common);
	pst_cq_destroy(s.cq);
	pst_fabric_close(s.fab);
	CHECK(leak_none(&before));
	_exit(TEST_PASS);
}

/* A client */

struct client {
	struct pst_fabric *fab;
	struct pst_cq *cq;
	struct pst_link *link;
	struct memory local; /* segments to write from, then places to read to */
	struct granted g;
	uint64_t random;
	bool busy[SEGMENTS];  /* told and not answered */
	uint64_t from[READS]; /* what is being read */
	uint32_t len[READS];  /* 0: nothing */
	uint64_t owed;	      /* completions of signaled requests */
	unsigned int me;
};

/* Writes are ids from 0, reads from 100. */
#define READ_ID 100

static void write_some(struct client *c)
{
	uint32_t k = (uint32_t)(test_random(&c->random) % SEGMENTS);
	struct told t = {.segment = k, .seed = test_random(&c->random)};
	char *at = (char *)c->local.at + (size_t)k * SEGMENT;
	struct pst_wr wr[2] = {
		{.id = k,
		 .op = PST_WR_WRITE,
		 .local = c->local.region,
		 .local_addr = at,
		 .key = c->g.own,
		 .remote_off = (uint64_t)k * SEGMENT},
		{.op = PST_WR_SEND, .flags = PST_WR_UNSIGNALED, .local_addr = &t, .len = sizeof(t)},
	};
	int n;

	if (c->busy[k])
		return;
	t.len = (uint32_t)(test_random(&c->random) % (SEGMENT / 8) * 8);
	wr[0].len = t.len;
	fill(at, t.seed, 0, t.len);
	n = pst_link_post(c->link, wr, 2);
	if (n <= 0)
		return;
	c->owed++;
	c->busy[k] = true;
	/* what did not fit is told by itself */
	if (n == 1)
		pst_link_send(c->link, &t, sizeof(t), 5000);
}

static void read_some(struct client *c)
{
	uint32_t k = (uint32_t)(test_random(&c->random) % READS);
	char *at = (char *)c->local.at + (size_t)(SEGMENTS + k) * SEGMENT;
	struct pst_wr wr = {.id = READ_ID + k,
			    .op = PST_WR_READ,
			    .local = c->local.region,
			    .local_addr = at,
			    .key = c->g.common};

	if (c->len[k])
		return;
	c->len[k] = (uint32_t)(8 + test_random(&c->random) % (SEGMENT / 8) * 8);
	c->from[k] = test_random(&c->random) % ((COMMON - SEGMENT) / 8) * 8;
	wr.remote_off = c->from[k];
	wr.len = c->len[k];
	if (pst_link_post(c->link, &wr, 1) == 1)
		c->owed++;
	else
		c->len[k] = 0;
}

static void ended(struct client *c, const struct pst_wc *wc)
{
	CHECK(c->owed--);
	if (wc->id < READ_ID)
		return;
	if (!wc->status)
		CHECK(filled((char *)c->local.at + (SEGMENTS + wc->id - READ_ID) * SEGMENT, 1,
			     c->from[wc->id - READ_ID], c->len[wc->id - READ_ID]));
	c->len[wc->id - READ_ID] = 0;
}

static void answered(struct client *c, const struct pst_wc *wc)
{
	struct told t;

	CHECK(wc->len == sizeof(t));
	memcpy(&t, wc->msg, sizeof(t));
	CHECK(t.segment < SEGMENTS && c->busy[t.segment]);
	c->busy[t.segment] = false;
	atomic_fetch_add(&board->done[c->me], 1);
}

/* False when the link is down. */
static bool take(struct client *c, int timeout_ms)
{
	struct pst_wc wc[8];
	int n = pst_cq_wait(c->cq, wc, 8, timeout_ms);

	CHECK(n >= 0 || n == -EINTR);
	for (int i = 0; i < n; i++) {
		if (wc[i].kind == PST_WC_DOWN) {
			CHECK(*pst_link_why(c->link));
			CHECK(!c->owed); /* every request has ended before */
			return false;
		}
		if (wc[i].kind == PST_WC_DONE)
			ended(c, &wc[i]);
		else if (wc[i].kind == PST_WC_MESSAGE)
			answered(c, &wc[i]);
	}
	return true;
}

static bool greeted(struct client *c)
{
	int64_t end = now_ms() + QUIET_S * 1000;

	while (now_ms() < end) {
		struct pst_wc wc;
		int n = pst_cq_wait(c->cq, &wc, 1, 100);

		if (n == 1 && wc.kind == PST_WC_DOWN)
			return false;
		if (n != 1 || wc.kind != PST_WC_MESSAGE)
			continue;
		CHECK(wc.len == sizeof(c->g));
		memcpy(&c->g, wc.msg, sizeof(c->g));
		return true;
	}
	CHECK(!"a server that lives greets its clients");
	return false;
}

/* One link's life; who ends it is the server's death, or the end of the run. */
static void client_link(struct client *c)
{
	uint32_t epoch = atomic_load(&board->epoch);
	struct pst_error err = {0};
	char url[400];
	bool alive;

	memcpy(url, board->url, sizeof(url));
	url[sizeof(url) - 1] = 0;
	if (epoch % 2 == 0 || pst_connect(c->cq, url, 3000, &c->link, &err)) {
		usleep(1000);
		CHECK(epoch % 2 == 0 || epoch != atomic_load(&board->epoch) ||
		      err.code == -ETIMEDOUT || err.code == -ECONNREFUSED);
		return;
	}
	alive = greeted(c);
	while (alive && !atomic_load(&board->stop)) {
		for (int i = 0; i < 4; i++) {
			write_some(c);
			read_some(c);
		}
		alive = take(c, 1);
	}
	/* nobody but the server can have ended it */
	if (!alive && epoch == atomic_load(&board->epoch))
		printf("# the link ended: %s\n", pst_link_why(c->link));
	CHECK(alive || epoch != atomic_load(&board->epoch));
	pst_link_close(c->link);
	memset(c->busy, 0, sizeof(c->busy));
	memset(c->len, 0, sizeof(c->len));
	c->owed = 0;
}

static void client_main(unsigned int me, uint64_t seed)
{
	struct client c = {.me = me, .random = seed};
	struct pst_error err = {0};
	struct leak before;

	warm_up(client_scheme);
	before = leak_now();
	CHECK(!pst_fabric_open(client_scheme, &c.fab, &err) && !pst_cq_create(c.fab, &c.cq, &err));
	memory_make(c.fab, &c.local, (uint64_t)(SEGMENTS + READS) * SEGMENT, PST_ACCESS_READ);
	while (!atomic_load(&board->stop))
		client_link(&c);
	memory_drop(&c.local);
	pst_cq_destroy(c.cq);
	pst_fabric_close(c.fab);
	CHECK(leak_none(&before));
	_exit(TEST_PASS);
}

/* Who kills */

#define SERVER CLIENTS

static pid_t start(unsigned int who, uint64_t seed)
{
	pid_t parent = getpid(), pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent) /* it ended before it could be told of */
		_exit(TEST_FAIL);
	if (who == SERVER)
		server_main();
	client_main(who, seed);
	_exit(TEST_FAIL);
}

static void wait_for_server(void)
{
	for (int i = 0; i < QUIET_S * 1000 && atomic_load(&board->epoch) % 2 == 0; i++) {
		ASSERT_FALSE(atomic_load(&board->failed));
		usleep(1000);
	}
	ASSERT_EQ(1u, atomic_load(&board->epoch) % 2);
}

/* Everybody gets something done now. */
static void all_go_on(void)
{
	uint64_t before[CLIENTS];
	int64_t end = now_ms() + QUIET_S * 1000;

	for (int i = 0; i < CLIENTS; i++)
		before[i] = atomic_load(&board->done[i]);
	for (int i = 0; i < CLIENTS; i++) {
		while (atomic_load(&board->done[i]) == before[i]) {
			ASSERT_FALSE(atomic_load(&board->failed));
			if (now_ms() > end)
				test_say(__FILE__, __LINE__, "client %d hangs", i);
			ASSERT_LE(now_ms(), end);
			usleep(1000);
		}
	}
}

/* Its peers must find out by themselves that a stopped client is of no use. */
static void stop_until_noticed(pid_t pid)
{
	uint64_t downs = atomic_load(&board->downs);
	int64_t end = now_ms() + QUIET_S * 1000;

	kill(pid, SIGSTOP);
	while (atomic_load(&board->downs) == downs) {
		ASSERT_LE(now_ms(), end);
		ASSERT_FALSE(atomic_load(&board->failed));
		usleep(1000);
	}
}

static void end_of(pid_t pid)
{
	int status;

	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(TEST_PASS, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static unsigned long number(const char *name, unsigned long standard)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 10) : standard;
}

static void run(unsigned long kills, bool stops)
{
	int64_t end = now_ms() + (int64_t)number("SECONDS", 0) * 1000;
	uint64_t random = 20261122;
	pid_t pid[CLIENTS + 1];

	for (unsigned int i = 0; i <= CLIENTS; i++)
		pid[i] = start(i, i);
	wait_for_server();
	for (unsigned long k = 1; k <= kills || now_ms() < end; k++) {
		unsigned int who =
			k % 250 == 50 ? SERVER : (unsigned int)(test_random(&random) % CLIENTS);

		usleep((useconds_t)(test_random(&random) % 8000));
		if (who == SERVER)
			atomic_fetch_add(&board->epoch, 1);
		else if (stops && k % 100 == 99) {
			all_go_on(); /* it has a link */
			stop_until_noticed(pid[who]);
		}
		kill(pid[who], SIGKILL);
		waitpid(pid[who], NULL, 0);
		pid[who] = start(who, test_random(&random));
		if (who == SERVER)
			wait_for_server();
		ASSERT_FALSE(atomic_load(&board->failed));
		if (k % 20 == 0)
			all_go_on();
	}
	all_go_on();
	atomic_store(&board->stop, true);
	for (unsigned int i = 0; i <= CLIENTS; i++)
		end_of(pid[i]);
	EXPECT_FALSE(atomic_load(&board->failed));
}

/* All that RDMA devices hold for anybody, as text. */
static void held_by_devices(char *text, size_t size)
{
	FILE *f = popen("rdma resource show", "re");
	size_t n = fread(text, 1, size - 1, f);

	text[n] = 0;
	pclose(f);
}

/* The kernel may still be at it for those that were killed last. */
static void expect_held(const char *before)
{
	char now[1000];

	for (int i = 0; i < 100; i++) {
		held_by_devices(now, sizeof(now));
		if (!strcmp(before, now))
			return;
		usleep(50000);
	}
	test_say(__FILE__, __LINE__, "now:\n%sbefore:\n%s", now, before);
	EXPECT_TRUE(!strcmp(before, now));
}

FIXTURE(kills)
{
	int key;
	char held[1000];
};
FIXTURE_VARIANT(kills)
{
	const char *scheme, *host, *server, *client;
	unsigned int kills; /* where USUAL is too many */
	bool stops;	    /* over verbs the device of a stopped process answers for it */
};
#ifndef ONLY_VERBS
FIXTURE_VARIANT_ADD(kills, shm){.scheme = "shm"};
FIXTURE_VARIANT_ADD(kills, tcp){.scheme = "tcp",
				.host = "127.0.0.1",
				.server = "timeout=2000",
				.client = "timeout=2000",
				.stops = true};
#endif
FIXTURE_VARIANT_ADD(kills, verbs){.scheme = "verbs",
				  .host = "10.0.0.2",
				  .server = "dev=rxe1&timeout=5000",
				  .client = "dev=rxe0&timeout=5000",
				  .kills = 60};

static void name_fabrics(const char *name, const char *host, const char *server, const char *client,
			 int key)
{
	static char url[2][400];

	snprintf(url[0], sizeof(url[0]), "%s://%s:0?key=/proc/self/fd/%d&%s", name, host, key,
		 server);
	snprintf(url[1], sizeof(url[1]), "%s://?key=/proc/self/fd/%d&%s", name, key, client);
	scheme = url[0];
	client_scheme = url[1];
}

FIXTURE_SETUP(kills)
{
	struct pst_error err = {0};
	struct pst_fabric *fab;
	int rc;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	ASSERT_TRUE(board != MAP_FAILED);
	self->key = memfd_create("key", 0);
	ASSERT_EQ(0, fchmod(self->key, 0600));
	ASSERT_EQ(32, write(self->key, "0123456789abcdef0123456789abcdef", 32));
	scheme = client_scheme = "shm://";
	if (variant->host)
		name_fabrics(variant->scheme, getenv("KILLS_HOST") ?: variant->host,
			     variant->server, variant->client, self->key);
	rc = pst_fabric_open(scheme, &fab, &err);
	if (rc == -ENODEV)
		SKIP("no RDMA device here", "make vm-check");
	ASSERT_OK(rc, &err);
	pst_fabric_close(fab);
	if (!strcmp(variant->scheme, "verbs"))
		held_by_devices(self->held, sizeof(self->held));
}
FIXTURE_TEARDOWN(kills)
{
	close(self->key);
	if (self->held[0])
		expect_held(self->held);
}

TEST_F(kills, at_random_moments)
{
	run(number("KILLS", variant->kills ? variant->kills : USUAL), variant->stops);
}

TEST_MAIN
