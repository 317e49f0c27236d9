/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs whose workers a daemon keeps: its answers are those of a small one in this test, its
 * workers and servers are this test's threads. Drained, dead or come later: the same digest.
 */
#include "selftests/tools/program.h"

#include "runtime/penstock.h"

#include <penstock/door.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define SHAPE "--preset nano --data " TEXT " --batch 2 --seq 128 --json - "
#define MAX   6
#define LONG  100000 /* steps that no run makes */

/* A server or worker, as the daemon tells of it. */
struct kept {
	uint32_t id, state;
	char url[PST_URL_BYTES];
	struct pst_server *server;
	struct pst_worker *worker;
	pthread_t thread;
};

FIXTURE(daemon)
{
	char socket[108], options[512];
	int listener, client[8]; /* -1: none */
	bool away;		 /* the listener is to be closed, or is */
	bool end;
	pthread_mutex_t lock; /* of all this */
	pthread_t thread;
	struct kept worker[MAX], server[MAX];
	unsigned int workers, servers, asked;
};
FIXTURE_VARIANT(daemon)
{
	const char *fabric, *settings;
	bool tcp;
};
FIXTURE_VARIANT_ADD(daemon, shm){.fabric = "shm", .settings = ""};
FIXTURE_VARIANT_ADD(daemon, tcp){.fabric = "tcp", .settings = "", .tcp = true};

/* The door */

static int listen_at(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	unlink(path);
	strcpy(a.sun_path, path);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bind(fd, (struct sockaddr *)&a, sizeof(a)));
	ASSERT_EQ(0, listen(fd, 8));
	return fd;
}

static const struct kept *find(const struct kept *k, unsigned int n, uint32_t flags, uint32_t id)
{
	for (unsigned int i = 0; i < n; i++)
		if (flags & PST_STAT_NEXT ? k[i].id > id : k[i].id == id)
			return &k[i];
	return NULL;
}

static int stat_worker(struct fixture_daemon *d, struct pst_cmd_worker_stat *io)
{
	const struct kept *k = find(d->worker, d->workers, io->flags, io->id);

	if (!k)
		return -ENOENT;
	io->id = k->id;
	io->out_state = k->state;
	io->out_pid = k->state == PST_WORKER_SERVING ? k->id + 1000 : 0;
	memcpy(io->out_url, k->url, sizeof(io->out_url));
	return 0;
}

static int stat_server(struct fixture_daemon *d, struct pst_cmd_server_stat *io)
{
	const struct kept *k = find(d->server, d->servers, io->flags, io->id);

	if (!k)
		return -ENOENT;
	io->id = k->id;
	io->out_pid = 1;
	memcpy(io->out_url, k->url, sizeof(io->out_url));
	return 0;
}

/* One request; -1: the caller has gone. */
static int serve_one(struct fixture_daemon *d, int fd)
{
	_Alignas(8) char in[PST_DOOR_MAX];
	struct pst_door_request *ask = (void *)in;
	struct pst_door_answer *answer = (void *)in;
	ssize_t n = recv(fd, in, sizeof(in), 0);

	if (n <= (ssize_t)sizeof(*ask))
		return -1;
	d->asked++;
	*answer = (struct pst_door_answer){.cmd = ask->cmd};
	if (answer->cmd == PST_CMD_WORKER_STAT)
		answer->rc = stat_worker(d, (void *)(answer + 1));
	else if (answer->cmd == PST_CMD_SERVER_STAT)
		answer->rc = stat_server(d, (void *)(answer + 1));
	else
		answer->rc = -ENOTTY;
	if (answer->rc < 0)
		n = sizeof(*answer);
	return send(fd, in, (size_t)n, MSG_NOSIGNAL) == n ? 0 : -1;
}

static void close_all(struct fixture_daemon *d)
{
	for (int i = 0; i < 8; i++)
		if (d->client[i] >= 0) {
			close(d->client[i]);
			d->client[i] = -1;
		}
	if (d->listener >= 0)
		close(d->listener);
	d->listener = -1;
}

static void take_client(struct fixture_daemon *d)
{
	int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; i < 8 && fd >= 0; i++)
		if (d->client[i] < 0) {
			d->client[i] = fd;
			return;
		}
	if (fd >= 0)
		close(fd);
}

/* Once round; false: it is to end. */
static bool turn(struct fixture_daemon *d)
{
	struct pollfd p[9];
	bool end;

	pthread_mutex_lock(&d->lock);
	if (d->away && d->listener >= 0)
		close_all(d);
	else if (!d->away && d->listener < 0)
		d->listener = listen_at(d->socket);
	for (int i = 0; i < 9; i++)
		p[i] = (struct pollfd){.fd = i ? d->client[i - 1] : d->listener, .events = POLLIN};
	pthread_mutex_unlock(&d->lock);
	poll(p, 9, 5);
	pthread_mutex_lock(&d->lock);
	for (int i = 1; i < 9; i++)
		if (p[i].fd >= 0 && p[i].revents && serve_one(d, p[i].fd)) {
			close(p[i].fd);
			d->client[i - 1] = -1;
		}
	if (p[0].fd >= 0 && p[0].revents)
		take_client(d);
	end = d->end;
	pthread_mutex_unlock(&d->lock);
	return !end;
}

static void *run_daemon(void *arg)
{
	while (turn(arg))
		;
	close_all(arg);
	return NULL;
}

/* Its children */

static void *run_worker(void *arg)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_worker_run(arg, &err), &err);
	return NULL;
}

static void *run_server(void *arg)
{
	struct pst_error err = {0};

	ASSERT_OK(pst_server_run(arg, &err), &err);
	return NULL;
}

static struct pst_serve_options serve_options(const struct variant_daemon *v, const char *at,
					      char url[200])
{
	static unsigned int born;
	struct pst_serve_options o;

	pst_serve_defaults(&o);
	o.url = url;
	o.host.threads = 1;
	if (at)
		snprintf(url, 200, "%s%s", at, v->settings);
	else if (v->tcp)
		snprintf(url, 200, "tcp://127.0.0.1:0%s", v->settings);
	else
		snprintf(url, 200, "shm://penstock-daemon-%d-%u%s", getpid(), born++, v->settings);
	return o;
}

/* @at: a URL to take again; NULL: a fresh one. */
static void begin_worker(const struct variant_daemon *v, struct kept *k, const char *at)
{
	char url[200];
	struct pst_serve_options o = serve_options(v, at, url);
	struct pst_error err = {0};

	ASSERT_OK(pst_worker_begin(&o, &k->worker, &err), &err);
	strcpy(k->url, pst_worker_url(k->worker));
	ASSERT_EQ(0, pthread_create(&k->thread, NULL, run_worker, k->worker));
}

static struct kept *start_worker(struct fixture_daemon *d, const struct variant_daemon *v)
{
	struct kept k = {.state = PST_WORKER_SERVING};
	struct kept *at;

	begin_worker(v, &k, NULL);
	pthread_mutex_lock(&d->lock);
	at = &d->worker[d->workers];
	*at = k;
	at->id = ++d->workers;
	pthread_mutex_unlock(&d->lock);
	return at;
}

static void start_server(struct fixture_daemon *d, const struct variant_daemon *v)
{
	char url[200];
	struct pst_serve_options o = serve_options(v, NULL, url);
	struct pst_error err = {0};
	struct kept *k = &d->server[d->servers];

	ASSERT_OK(pst_server_begin(&o, &k->server, &err), &err);
	strcpy(k->url, pst_server_url(k->server));
	ASSERT_EQ(0, pthread_create(&k->thread, NULL, run_server, k->server));
	pthread_mutex_lock(&d->lock);
	k->id = ++d->servers;
	pthread_mutex_unlock(&d->lock);
}

static void set_state(struct fixture_daemon *d, struct kept *k, uint32_t state)
{
	pthread_mutex_lock(&d->lock);
	k->state = state;
	pthread_mutex_unlock(&d->lock);
}

static void free_worker(struct kept *k)
{
	pthread_join(k->thread, NULL);
	pst_worker_free(k->worker);
	k->worker = NULL;
}

/* As the daemon does it: told, and stopped when it has been left. */
static void drain(struct fixture_daemon *d, struct kept *k)
{
	set_state(d, k, PST_WORKER_DRAINING);
	pst_worker_drain(k->worker);
	free_worker(k);
	set_state(d, k, PST_WORKER_STOPPED);
}

static void stop(struct kept *k)
{
	pst_worker_end(k->worker);
	free_worker(k);
}

static uint64_t calls_of(struct kept *k)
{
	struct pst_worker_stat s = {.size = sizeof(s)};

	EXPECT_EQ(0, pst_worker_stat(k->worker, &s));
	return s.calls;
}

FIXTURE_SETUP(daemon)
{
	*self = (struct fixture_daemon){.listener = -1};
	for (int i = 0; i < 8; i++)
		self->client[i] = -1;
	snprintf(self->socket, sizeof(self->socket), "%s", in_tmp("socket"));
	write_file(in_tmp("key"), "sixteen bytes, or a few more", 28);
	ASSERT_EQ(0, chmod(in_tmp("key"), 0600));
	setenv("PENSTOCK_KEY", in_tmp("key"), 1);
	snprintf(self->options, sizeof(self->options), "--daemon=%s", self->socket);
	pthread_mutex_init(&self->lock, NULL);
	self->listener = listen_at(self->socket);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, run_daemon, self));
}
FIXTURE_TEARDOWN(daemon)
{
	(void)variant;
	for (unsigned int i = 0; i < self->workers; i++)
		if (self->worker[i].worker)
			stop(&self->worker[i]);
	for (unsigned int i = 0; i < self->servers; i++) {
		pst_server_end(self->server[i].server);
		pthread_join(self->server[i].thread, NULL);
		pst_server_free(self->server[i].server);
	}
	pthread_mutex_lock(&self->lock);
	self->end = true;
	pthread_mutex_unlock(&self->lock);
	pthread_join(self->thread, NULL);
}

/* Runs */

static const char *want(int steps)
{
	static char digest[32];
	json_t *r = program_json(NULL, "penstock train " SHAPE "--embedded --steps %d", steps);

	strcpy(digest, digest_of(r));
	json_decref(r);
	return digest;
}

/* It has taken some of its steps when this returns. */
static void start_run(struct program *p, const char *options, int steps)
{
	int every = steps < LONG ? steps / 6 : 3;

	program_start(p, NULL,
		      "penstock train " SHAPE "--steps %d --save-every %d --out %s --sample 0 %s",
		      steps, every, in_tmp("out"), options);
	while (access(in_tmp("out/step-%08d", every), F_OK) && program_runs(p))
		sleep_ms(1);
}

static void expect_digest(const char *digest, struct program *p, int restarts)
{
	struct ended e;
	json_t *r;

	program_wait(p, 60000, &e);
	r = json_loads(e.out, 0, NULL);
	if (e.code || !r) {
		printf("# %s\n# exit status %d: %s\n", p->command, e.code, e.err);
		_exit(TEST_FAIL);
	}
	EXPECT_STREQ(digest, digest_of(r));
	EXPECT_LE((int)number_of(r, "worker_restarts"), restarts);
	json_decref(r);
	ended_free(&e);
}

TEST_F(daemon, workers_and_servers)
{
	const char *digest = want(8);
	json_t *r;

	start_worker(self, variant);
	start_worker(self, variant);
	for (int run = 0; run < 2; run++) {
		r = program_json(NULL, "penstock train " SHAPE "--steps 8 --servers 2 %s",
				 self->options);
		EXPECT_STREQ(digest, digest_of(r));
		EXPECT_TRUE(number_of(r, "workers") == 2);
		/* its servers are used when it has any */
		EXPECT_TRUE(number_of(r, "servers") == 2 - run);
		json_decref(r);
		if (!run)
			start_server(self, variant);
	}
	EXPECT_LT(0u, calls_of(&self->worker[0]));
	EXPECT_LT(0u, calls_of(&self->worker[1]));
	/* the usual socket is where the environment says */
	setenv("PENSTOCK_SOCKET", self->socket, 1);
	r = program_json(NULL, "penstock train --daemon " SHAPE "--steps 8");
	EXPECT_STREQ(digest, digest_of(r));
	json_decref(r);
}

TEST_F(daemon, text_is_written_too)
{
	static const char how[] = "--temperature 0 --max-tokens 12 --json -";
	json_t *a = program_json(NULL, "penstock train " SHAPE "--steps 2 --out %s --sample 0",
				 in_tmp("out"));
	json_t *b;

	json_decref(a);
	start_worker(self, variant);
	a = program_json(NULL, "penstock generate %s %s", in_tmp("out"), how);
	b = program_json(NULL, "penstock generate %s %s %s", in_tmp("out"), how, self->options);
	EXPECT_STREQ(json_string_value(json_object_get(a, "text")),
		     json_string_value(json_object_get(b, "text")));
	EXPECT_LT(0u, calls_of(&self->worker[0]));
	json_decref(a);
	json_decref(b);
}

TEST_F(daemon, two_of_three_drain)
{
	const int steps = SANITIZED ? 24 : 60;
	char digest[32];
	struct program p;

	snprintf(digest, sizeof(digest), "%s", want(steps));
	for (int i = 0; i < 3; i++)
		start_worker(self, variant);
	start_run(&p, self->options, steps);
	drain(self, &self->worker[0]);
	drain(self, &self->worker[2]);
	expect_digest(digest, &p, 0);
}

TEST_F(daemon, a_new_one_takes_the_place_of_one_that_drains)
{
	const int steps = SANITIZED ? 24 : 60;
	char digest[32];
	struct program p;

	snprintf(digest, sizeof(digest), "%s", want(steps));
	start_worker(self, variant);
	start_run(&p, self->options, steps);
	start_worker(self, variant);
	/* it was the only one that the run knew */
	drain(self, &self->worker[0]);
	EXPECT_TRUE(program_runs(&p));
	expect_digest(digest, &p, 0);
	EXPECT_LT(0u, calls_of(&self->worker[1]));
}

TEST_F(daemon, one_that_died_is_started_again)
{
	const int steps = SANITIZED ? 24 : 60;
	struct kept *k;
	char digest[32], url[PST_URL_BYTES];
	struct program p;

	snprintf(digest, sizeof(digest), "%s", want(steps));
	k = start_worker(self, variant);
	start_run(&p, self->options, steps);
	strcpy(url, k->url);
	set_state(self, k, PST_WORKER_STARTING);
	stop(k);
	sleep_ms(50);
	begin_worker(variant, k, url);
	set_state(self, k, PST_WORKER_SERVING);
	expect_digest(digest, &p, 1);
	EXPECT_LT(0u, calls_of(k));
}

TEST_F(daemon, is_away_for_a_while)
{
	const int steps = SANITIZED ? 24 : 60;
	char digest[32];
	struct program p;

	snprintf(digest, sizeof(digest), "%s", want(steps));
	start_worker(self, variant);
	start_worker(self, variant);
	start_run(&p, self->options, steps);
	pthread_mutex_lock(&self->lock);
	self->away = true;
	pthread_mutex_unlock(&self->lock);
	drain(self, &self->worker[0]);
	start_worker(self, variant);
	drain(self, &self->worker[1]);
	/* nobody is left that the run knows, and nobody to be asked */
	sleep_ms(200);
	EXPECT_TRUE(program_runs(&p));
	pthread_mutex_lock(&self->lock);
	self->away = false;
	pthread_mutex_unlock(&self->lock);
	expect_digest(digest, &p, 0);
	EXPECT_LT(0u, calls_of(&self->worker[2]));
}

TEST_F(daemon, has_none_yet)
{
	char digest[32];
	struct program p;

	snprintf(digest, sizeof(digest), "%s", want(4));
	program_start(&p, NULL, "penstock train " SHAPE "--steps 4 %s", self->options);
	for (unsigned int asked = 0; asked < 3;) {
		pthread_mutex_lock(&self->lock);
		asked = self->asked;
		pthread_mutex_unlock(&self->lock);
		sleep_ms(1);
	}
	start_worker(self, variant);
	expect_digest(digest, &p, 0);
}

/* One line, and it says @text. */
static void expect_end(struct program *p, const char *text)
{
	struct ended e;
	char *end;

	program_wait(p, 30000, &e);
	end = strchr(e.err, '\n');
	if (e.code != 1 || !strstr(e.err, text) || !end || end[1]) {
		printf("# exit status %d, not one line that says %s: %s\n", e.code, text, e.err);
		test_failed = true;
	}
	ended_free(&e);
}

TEST_F(daemon, has_none_any_more)
{
	char options[600];
	struct program p;

	snprintf(options, sizeof(options), "--connect-timeout 500 %s", self->options);
	start_worker(self, variant);
	start_run(&p, options, LONG);
	drain(self, &self->worker[0]);
	expect_end(&p, "penstockctl worker start");
}

TEST_F(daemon, is_refused)
{
	program_refused(NULL, 1, "penstockctl worker start",
			"penstock train " SHAPE "--steps 2 --connect-timeout 300 %s",
			self->options);
	program_refused(NULL, 1, "no-such-socket", "penstock train " SHAPE "--steps 2 --daemon=%s",
			in_tmp("no-such-socket"));
	program_refused(NULL, 2, "--workers", "penstock train " SHAPE "--steps 2 --workers 2 %s",
			self->options);
	start_worker(self, variant);
	/* of another fabric than the one that was said */
	program_refused(NULL, 1, variant->tcp ? "over shm" : "over tcp",
			"penstock train " SHAPE "--steps 2 --connect-timeout 300 --fabric %s %s",
			variant->tcp ? "shm" : "tcp", self->options);
}

TEST_MAIN
