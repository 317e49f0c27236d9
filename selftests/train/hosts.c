/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Servers and workers that others started, named by URL: the same digest as ever, also when some
 * of them die and come back; and what ends a run does so in time, with a sentence.
 */
#include "selftests/tools/program.h"

#include <fcntl.h>
#include <sys/stat.h>

#define SHAPE "--preset nano --data " TEXT " --batch 2 --seq 128 --json - "

FIXTURE(hosts)
{
	char fabric[400]; /* options of the engine */
	struct program server[2], worker[3];
	char server_url[2][128], worker_url[3][128];
	int born;
};
FIXTURE_VARIANT(hosts)
{
	const char *fabric, *listen;
	const char *none; /* where nobody listens */
	bool key;
};
FIXTURE_VARIANT_ADD(hosts, shm){.fabric = "shm", .none = "shm://penstock-nobody"};
#if !SANITIZED /* which are slow, and tcp is as far */
FIXTURE_VARIANT_ADD(hosts, far){.fabric = "shm?map=0", .none = "shm://penstock-nobody"};
#endif
FIXTURE_VARIANT_ADD(hosts, tcp){
	.fabric = "tcp", .listen = "tcp://127.0.0.1:0", .none = "tcp://127.0.0.1:9", .key = true};

FIXTURE_SETUP(hosts)
{
	write_file(in_tmp("key"), "sixteen bytes, or a few more", 28);
	ASSERT_EQ(0, chmod(in_tmp("key"), 0600));
	snprintf(self->fabric, sizeof(self->fabric), "--fabric %s %s%s", variant->fabric,
		 variant->key ? "--key " : "", variant->key ? in_tmp("key") : "");
}
FIXTURE_TEARDOWN(hosts)
{
	for (int i = 0; i < 2; i++)
		if (self->server[i].pid)
			program_end(&self->server[i], SIGTERM, NULL);
	for (int i = 0; i < 3; i++)
		if (self->worker[i].pid)
			program_end(&self->worker[i], SIGTERM, NULL);
}

/* @at: a URL to take again; "": a fresh one. */
static void serve(struct fixture_hosts *h, const struct variant_hosts *v, struct program *p,
		  const char *program, char url[128], const char *at)
{
	char fresh[128];

	if (v->listen)
		snprintf(fresh, sizeof(fresh), "%s", v->listen);
	else
		snprintf(fresh, sizeof(fresh), "shm://penstock-hosts-%d-%d", getpid(), h->born++);
	program_serve(p, url, 128, NULL, "%s --threads 1 --listen %s%s %s %s", program,
		      *at ? at : fresh, strchr(v->fabric, '?') ? strchr(v->fabric, '?') : "",
		      v->key ? "--key" : "", v->key ? in_tmp("key") : "");
}

static void serve_server(struct fixture_hosts *h, const struct variant_hosts *v, int i,
			 const char *at)
{
	serve(h, v, &h->server[i], "penstock-ps", h->server_url[i], at);
}

static void serve_worker(struct fixture_hosts *h, const struct variant_hosts *v, int i,
			 const char *at)
{
	serve(h, v, &h->worker[i], "penstock-worker", h->worker_url[i], at);
}

static void stop(struct program *p, int sig)
{
	struct ended e;

	program_end(p, sig, &e);
	ended_free(&e);
	p->pid = 0;
}

/* Of the same run with everything in one process. */
static const char *want(int steps)
{
	static char digest[32];
	json_t *r = program_json(NULL, "penstock train " SHAPE "--embedded --steps %d", steps);

	strcpy(digest, digest_of(r));
	json_decref(r);
	return digest;
}

static void expect_digest(const char *digest, json_t *r)
{
	EXPECT_STREQ(digest, digest_of(r));
	json_decref(r);
}

/* The lists in options, for @servers and @workers of them. */
static const char *lists(const struct fixture_hosts *h, int servers, int workers)
{
	static char text[1024];
	int n = snprintf(text, sizeof(text), "%s%s", h->fabric, servers ? " --server-at" : "");

	for (int i = 0; i < servers; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " %s", h->server_url[i]);
	n += snprintf(text + n, sizeof(text) - (size_t)n, "%s", workers ? " --worker-at" : "");
	for (int i = 0; i < workers; i++)
		n += snprintf(text + n, sizeof(text) - (size_t)n, " %s", h->worker_url[i]);
	return text;
}

TEST_F(hosts, started_here)
{
	const char *digest = want(8);

	expect_digest(digest, program_json(NULL, "penstock train " SHAPE "--steps 8 --servers 2 %s",
					   self->fabric));
	expect_digest(digest,
		      program_json(NULL, "penstock train " SHAPE "--steps 8 --embedded --fabric %s",
				   variant->fabric));
	expect_digest(digest, program_json(NULL, "penstock train " SHAPE "--steps 8 --fabric %s",
					   variant->fabric));
}

TEST_F(hosts, started_by_others_and_used_again)
{
	const char *digest = want(8);
	json_t *r;

	for (int i = 0; i < 2; i++) {
		serve_server(self, variant, i, "");
		serve_worker(self, variant, i, "");
	}
	for (int run = 0; run < 3; run++) {
		r = program_json(NULL, "penstock train " SHAPE "--steps 8 %s", lists(self, 2, 2));
		EXPECT_TRUE(number_of(r, "servers") == 2);
		EXPECT_TRUE(number_of(r, "workers") == 2);
		EXPECT_TRUE(number_of(r, "worker_restarts") == 0);
		expect_digest(digest, r);
	}
}

TEST_F(hosts, one_kind_here_and_the_other_not)
{
	const char *digest = want(8);

	serve_server(self, variant, 0, "");
	serve_worker(self, variant, 0, "");
	expect_digest(digest, program_json(NULL, "penstock train " SHAPE "--steps 8 %s",
					   lists(self, 1, 0)));
	expect_digest(digest, program_json(NULL, "penstock train " SHAPE "--steps 8 --embedded %s",
					   lists(self, 1, 0)));
	expect_digest(digest, program_json(NULL, "penstock train " SHAPE "--steps 8 --servers 2 %s",
					   lists(self, 0, 1)));
}

/* Checkpoints go where the servers write them; and a generator uses the same servers. */
TEST_F(hosts, checkpoints_and_text)
{
	static const char how[] = "--temperature 0 --max-tokens 12 --json -";
	const char *digest = want(8);
	json_t *a, *b;

	serve_server(self, variant, 0, "");
	serve_server(self, variant, 1, "");
	serve_worker(self, variant, 0, "");
	json_decref(program_json(NULL, "penstock train " SHAPE "--steps 5 --out %s %s",
				 in_tmp("out"), lists(self, 2, 1)));
	expect_digest(digest, program_json(NULL,
					   "penstock train --data " TEXT
					   " --json - --steps 8 --resume %s %s",
					   in_tmp("out"), lists(self, 2, 1)));
	a = program_json(NULL, "penstock generate %s %s", in_tmp("out"), how);
	b = program_json(NULL, "penstock generate %s %s %s", in_tmp("out"), how, lists(self, 2, 1));
	EXPECT_STREQ(json_string_value(json_object_get(a, "text")),
		     json_string_value(json_object_get(b, "text")));
	json_decref(b);
	b = program_json(NULL, "penstock generate %s %s --servers 2 --workers 3 --fabric %s",
			 in_tmp("out"), how, variant->fabric);
	EXPECT_STREQ(json_string_value(json_object_get(a, "text")),
		     json_string_value(json_object_get(b, "text")));
	json_decref(b);
	json_decref(a);
}

#define LONG  100000 /* steps that no run makes */
#define SAVES 6	     /* checkpoints of a run; the first says that it is under way */

/* Runs @steps with what is listed; @p has taken some of them when this returns. */
static void start_run(struct program *p, const char *lists, int steps, const char *out)
{
	int every = steps < LONG ? steps / SAVES : 3;

	program_start(p, NULL,
		      "penstock train " SHAPE "--steps %d --save-every %d --out %s --sample 0 %s",
		      steps, every, out, lists);
	while (access(in_tmp("out/step-%08d", every), F_OK) && program_runs(p))
		sleep_ms(1);
}

static json_t *end_run(struct program *p)
{
	struct ended e;
	json_t *r;

	program_wait(p, 60000, &e);
	r = json_loads(e.out, 0, NULL);
	if (e.code || !r) {
		printf("# %s\n# exit status %d: %s\n", p->command, e.code, e.err);
		_exit(TEST_FAIL);
	}
	ended_free(&e);
	return r;
}

/* Its experts go to the others; when it is back at its URL, it is found again. */
TEST_F(hosts, a_worker_dies_and_comes_back)
{
	const int steps = SANITIZED ? 40 : 150;
	char digest[32];
	struct program p;
	json_t *r;

	snprintf(digest, sizeof(digest), "%s", want(steps));
	serve_server(self, variant, 0, "");
	for (int i = 0; i < 3; i++)
		serve_worker(self, variant, i, "");
	start_run(&p, lists(self, 1, 3), steps, in_tmp("out"));
	stop(&self->worker[0], SIGKILL);
	stop(&self->worker[2], SIGTERM);
	serve_worker(self, variant, 0, self->worker_url[0]);
	r = end_run(&p);
	EXPECT_TRUE(number_of(r, "worker_restarts") <= 1);
	expect_digest(digest, r);
}

/* With nobody left the run waits for one to come back. */
TEST_F(hosts, all_workers_die_and_one_comes_back)
{
	char digest[32];
	struct program p;
	json_t *r;

	snprintf(digest, sizeof(digest), "%s", want(24));
	serve_server(self, variant, 0, "");
	serve_worker(self, variant, 0, "");
	serve_worker(self, variant, 1, "");
	start_run(&p, lists(self, 1, 2), 24, in_tmp("out"));
	stop(&self->worker[0], SIGKILL);
	stop(&self->worker[1], SIGKILL);
	sleep_ms(100);
	serve_worker(self, variant, 1, self->worker_url[1]);
	r = end_run(&p);
	EXPECT_TRUE(number_of(r, "worker_restarts") == 1);
	expect_digest(digest, r);
}

/* One line on stderr, and it says @text. */
static void expect_end(struct program *p, const char *text)
{
	struct ended e;
	char *end;

	program_wait(p, 30000, &e);
	end = strchr(e.err, '\n');
	if (e.code != 1 || strncmp(e.err, "penstock train: ", 16) || !strstr(e.err, text) || !end ||
	    end[1]) {
		printf("# exit status %d, not one line that says %s: %s\n", e.code, text, e.err);
		test_failed = true;
	}
	ended_free(&e);
}

TEST_F(hosts, all_workers_die_for_good)
{
	struct program p;
	char options[1100];

	serve_server(self, variant, 0, "");
	serve_worker(self, variant, 0, "");
	snprintf(options, sizeof(options), "--connect-timeout 700 %s", lists(self, 1, 1));
	start_run(&p, options, LONG, in_tmp("out"));
	stop(&self->worker[0], SIGKILL);
	expect_end(&p, "no worker is left");
}

TEST_F(hosts, a_server_dies)
{
	struct program p;

	for (int i = 0; i < 2; i++) {
		serve_server(self, variant, i, "");
		serve_worker(self, variant, i, "");
	}
	start_run(&p, lists(self, 2, 2), LONG, in_tmp("out"));
	stop(&self->server[1], SIGKILL);
	expect_end(&p, "--resume");
}

TEST_F(hosts, nobody_there)
{
	serve_server(self, variant, 0, "");
	/* 205: the time is up in the pause behind a try of 200 ms */
	for (unsigned int ms = 205; ms <= 500; ms += 295)
		program_refused(NULL, 1, variant->none,
				"penstock train " SHAPE
				"--steps 2 --connect-timeout %u %s --server-at %s",
				ms, self->fabric, variant->none);
	program_refused(NULL, 1, variant->none,
			"penstock train " SHAPE "--steps 2 --connect-timeout 500 %s --worker-at %s",
			lists(self, 1, 0), variant->none);
	program_refused(NULL, 1, variant->none,
			"penstock generate %s --connect-timeout 500 %s --server-at %s",
			"selftests/goldens/nano", self->fabric, variant->none);
}

static void write_key(const char *name, char c)
{
	char key[24];

	memset(key, c, sizeof(key));
	write_file(in_tmp("%s", name), key, sizeof(key));
	ASSERT_EQ(0, chmod(in_tmp("%s", name), 0600));
}

/* Who has another key, or none, is refused at once, and the others are served. */
TEST(keys)
{
	struct program server, worker;
	char at[128], other[128];

	write_key("a", 'a');
	write_key("b", 'b');
	setenv("HOME", in_tmp("home"), 1);
	unsetenv("PENSTOCK_KEY");
	program_serve(&server, at, sizeof(at), NULL,
		      "penstock-ps --listen tcp://127.0.0.1:0 --key %s", in_tmp("a"));
	program_serve(&worker, other, sizeof(other), NULL,
		      "penstock-worker --listen tcp://127.0.0.1:0?key=%s", in_tmp("b"));
	program_refused(NULL, 1, "another key",
			"penstock train " SHAPE "--steps 2 --server-at %s --key %s", at,
			in_tmp("b"));
	program_refused(NULL, 1, "umask 077", "penstock train " SHAPE "--steps 2 --server-at %s",
			at);
	/* the worker is let in by the engine's key, or not; it has none for the server */
	program_refused(NULL, 1, "another key",
			"penstock train " SHAPE "--steps 2 --server-at %s --worker-at %s --key %s",
			at, other, in_tmp("a"));
	setenv("PENSTOCK_KEY", in_tmp("a"), 1);
	json_decref(program_json(NULL, "penstock train " SHAPE "--steps 2 --server-at %s", at));
	program_end(&worker, SIGTERM, NULL);
	program_end(&server, SIGTERM, NULL);
}

/* What is started here gets a key that is in no file: on its command line is where it has it. */
TEST(a_key_of_its_own)
{
	char path[64], *line;
	struct program p;
	struct ended e;
	pid_t pid[2];
	size_t len;
	int fd;

	setenv("HOME", in_tmp("home"), 1);
	unsetenv("PENSTOCK_KEY");
	start_run(&p, "--fabric tcp --workers 1", LONG, in_tmp("out"));
	ASSERT_EQ(1, program_children(p.pid, "penstock-worker", pid, 2));
	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid[0]);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	line = calloc(1, 4096);
	len = (size_t)read(fd, line, 4095);
	for (size_t i = 0; i + 1 < len; i++)
		line[i] = line[i] ? line[i] : ' ';
	if (!strstr(line, " tcp://127.0.0.1:0?key=/proc/self/fd/")) {
		printf("# it runs: %s\n", line);
		test_failed = true;
	}
	free(line);
	close(fd);
	kill(p.pid, SIGKILL);
	program_wait(&p, 10000, &e);
	ended_free(&e);
	EXPECT_NE(0, access(in_tmp("home"), F_OK));
}

TEST(hosts_that_there_are_not)
{
	write_key("a", 'a');
	program_refused(NULL, 1, "no-such-host.invalid",
			"penstock train " SHAPE "--steps 2 --key %s --server-at "
			"tcp://no-such-host.invalid:1",
			in_tmp("a"));
	program_refused(NULL, 1, "no-such-host.invalid",
			"penstock train " SHAPE "--steps 2 --fabric tcp --listen-host "
			"no-such-host.invalid");
	/* an address for documentation, which nobody has */
	program_refused(NULL, 1, "192.0.2.1",
			"penstock train " SHAPE "--steps 2 --fabric tcp --listen-host 192.0.2.1");
	json_decref(program_json(NULL, "penstock train " SHAPE
				       "--steps 2 --fabric tcp --listen-host 127.0.0.2"));
}

/* A folder that is another one where the server is. */
TEST(checkpoints_that_a_server_cannot_see)
{
	struct program server;
	struct ended e;
	char at[128];

	if (geteuid())
		SKIP("another view of the files needs root", "sudo make check");
	write_key("a", 'a');
	shell("mkdir -p %s", in_tmp("out"));
	program_serve(&server, at, sizeof(at), &(struct how){.hide = in_tmp("out")},
		      "penstock-ps --listen tcp://127.0.0.1:0 --key %s", in_tmp("a"));
	e = program_run("penstock train " SHAPE "--steps 2 --out %s --sample 0 --server-at %s "
			"--key %s",
			in_tmp("out"), at, in_tmp("a"));
	EXPECT_EQ(1, e.code);
	if (!strstr(e.err, at) || !strstr(e.err, in_tmp("out"))) {
		printf("# does not name the server and the path: %s\n", e.err);
		test_failed = true;
	}
	ended_free(&e);
	shell("test -z \"$(ls -A %s)\"", in_tmp("out"));
	program_end(&server, SIGTERM, NULL);
}

TEST_MAIN
