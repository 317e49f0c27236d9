/* SPDX-License-Identifier: Apache-2.0 */
/* How a tcp link comes to be: addresses, keys, limits, and strangers at the door. */
#include "selftests/rdma/tcp_raw.h"

#include <time.h>

#define ANY "tcp://127.0.0.1:0?timeout=400"

FIXTURE(setup)
{
	struct end me;
	struct pst_listener *listener;
	int fds;
};

FIXTURE_SETUP(setup)
{
	use_key("key", "a key for tests of the fabrics");
	self->fds = open_fds();
}

FIXTURE_TEARDOWN(setup)
{
	end_close(&self->me);
	EXPECT_EQ(self->fds, open_fds());
}

static const char *serve(struct fixture_setup *self, const char *url)
{
	struct pst_error err = {0};

	end_open_on(&self->me, url);
	ASSERT_OK(pst_listen(self->me.cq, url, &self->listener, &err), &err);
	return pst_listener_url(self->listener);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

struct client {
	pthread_t thread;
	const char *settings, *url;
	int timeout_ms, rc;
	struct end end;
	struct pst_error err;
};

static void *client_main(void *arg)
{
	struct client *c = arg;

	end_open_on(&c->end, c->settings);
	c->rc = pst_connect(c->end.cq, c->url, c->timeout_ms, &c->end.link, &c->err);
	return NULL;
}

static void client_start(struct client *c, const char *settings, const char *url, int timeout_ms)
{
	*c = (struct client){.settings = settings, .url = url, .timeout_ms = timeout_ms, .rc = 1};
	ASSERT_EQ(0, pthread_create(&c->thread, NULL, client_main, c));
}

/* Until it is done; this side's cq is driven by its thread. */
static int client_wait(struct client *c)
{
	pthread_join(c->thread, NULL);
	return c->rc;
}

/* The same, while @me closes links that are dead, which count until then. */
static int client_wait_tidily(struct client *c, struct end *me)
{
	struct pst_wc wc;

	while (pthread_tryjoin_np(c->thread, NULL))
		if (pst_cq_wait(me->cq, &wc, 1, 10) == 1 && wc.kind == PST_WC_DOWN)
			pst_link_close(wc.link);
	return c->rc;
}

static void try_address(struct fixture_setup *self, const char *listen, const char *like)
{
	const char *url = serve(self, listen);
	struct client c;

	EXPECT_TRUE(!strncmp(url, like, strlen(like)));
	EXPECT_EQ(NULL, strchr(url, '?'));
	client_start(&c, "tcp://", url, 5000);
	ASSERT_OK(client_wait(&c), &c.err);
	self->me.link = expect(&self->me, PST_WC_CONNECTED).link;
	EXPECT_EQ(getpid(), pst_link_peer_pid(self->me.link));
	EXPECT_EQ(getpid(), pst_link_peer_pid(c.end.link));
	EXPECT_TRUE(!strncmp(pst_link_peer(c.end.link), url, strlen(url)));
	say(&c.end, "hi", 2);
	expect(&self->me, PST_WC_MESSAGE);
	end_close(&c.end);
}

TEST_F(setup, ipv4)
{
	try_address(self, "tcp://127.0.0.1:0", "tcp://127.0.0.1:");
}

TEST_F(setup, ipv6)
{
	try_address(self, "tcp://[::1]:0", "tcp://[::1]:");
}

TEST_F(setup, host_name)
{
	try_address(self, "tcp://localhost:0?conns=2", "tcp://localhost:");
}

TEST_F(setup, port_in_use_says_how_to_see_by_whom)
{
	const char *url = serve(self, ANY);
	struct pst_error err = {0};
	struct pst_listener *l;

	EXPECT_EQ(-EADDRINUSE, pst_listen(self->me.cq, url, &l, &err));
	EXPECT_TRUE(strstr(err.text, "ss -tlnp") != NULL);
	memset(&err, 0, sizeof(err));
	EXPECT_EQ(-EADDRNOTAVAIL, pst_listen(self->me.cq, "tcp://192.0.2.1:7", &l, &err));
}

TEST_F(setup, host_that_is_none)
{
	struct pst_error err = {0};
	struct pst_link *link;

	serve(self, ANY);
	EXPECT_EQ(-EHOSTUNREACH,
		  pst_connect(self->me.cq, "tcp://no-such-host.invalid:9", 1000, &link, &err));
	EXPECT_TRUE(strstr(err.text, "no-such-host.invalid") != NULL);
	memset(&err, 0, sizeof(err));
	EXPECT_EQ(-EINVAL, pst_connect(self->me.cq, "tcp://a,b:9", 1000, &link, &err));
}

TEST_F(setup, nobody_listens)
{
	struct pst_error err = {0};
	struct pst_link *link;
	char url[64];

	snprintf(url, sizeof(url), "%s", serve(self, ANY));
	pst_listener_close(self->listener);
	EXPECT_EQ(-ECONNREFUSED, pst_connect(self->me.cq, url, 50, &link, &err));
	EXPECT_TRUE(strstr(err.text, "nobody listens there") != NULL);
}

TEST_F(setup, server_that_starts_later_is_found)
{
	struct pst_error err = {0};
	struct client c;
	char url[64];

	snprintf(url, sizeof(url), "%s", serve(self, ANY));
	pst_listener_close(self->listener);
	client_start(&c, "tcp://", url, 10000);
	usleep(50000);
	ASSERT_OK(pst_listen(self->me.cq, url, &self->listener, &err), &err);
	ASSERT_OK(client_wait(&c), &c.err);
	self->me.link = expect(&self->me, PST_WC_CONNECTED).link;
	end_close(&c.end);
}

TEST_F(setup, another_key_is_refused_on_both_sides)
{
	const char *url = serve(self, ANY);
	struct pst_fabric_stat stat;
	struct pst_wc wc;
	struct client c;

	use_key("other", "another key, which nobody has");
	client_start(&c, "tcp://", url, 2000);
	EXPECT_EQ(-EACCES, client_wait(&c));
	EXPECT_TRUE(strstr(c.err.text, "key") != NULL);
	EXPECT_EQ(0, pst_cq_wait(self->me.cq, &wc, 1, 5));
	pst_fabric_stat(self->me.fab, &stat);
	EXPECT_EQ(0, (int)stat.links_lost);
	end_close(&c.end);
}

TEST_F(setup, no_key_no_fabric)
{
	struct pst_error err = {0};
	struct pst_fabric *fab;

	serve(self, ANY);
	setenv("PENSTOCK_KEY", "/nonexistent/key", 1);
	EXPECT_EQ(-ENOENT, pst_fabric_open("tcp://", &fab, &err));
}

TEST_F(setup, links_are_limited)
{
	const char *url = serve(self, "tcp://127.0.0.1:0?links=2");
	struct client c[3];

	for (int i = 0; i < 3; i++) {
		client_start(&c[i], "tcp://", url, i < 2 ? 5000 : 50);
		EXPECT_EQ(i < 2 ? 0 : -EUSERS, client_wait(&c[i]));
	}
	EXPECT_TRUE(strstr(c[2].err.text, "links=") != NULL);
	/* one goes, another may come */
	pst_link_close(expect(&self->me, PST_WC_CONNECTED).link);
	end_close(&c[2].end);
	client_start(&c[2], "tcp://", url, 10000);
	EXPECT_EQ(0, client_wait_tidily(&c[2], &self->me)); /* its last try may be a link too */
	for (int i = 0; i < 3; i++)
		end_close(&c[i].end);
}

/* Nobody who connects and says nothing, or nonsense, holds up the others. */
TEST_F(setup, strangers_do_not_hold_up_others)
{
	const char *url = serve(self, ANY);
	const struct pst_link_hdr half = {
		.magic = PST_LINK_MAGIC, .type = PST_LINK_HELLO, .size = 80};
	char junk[100];
	struct client c;
	int sock[100];

	memset(junk, 'G', sizeof(junk));
	for (int i = 0; i < 100; i++) {
		sock[i] = raw_connect(url);
		if (i % 3 == 1)
			send(sock[i], &half, sizeof(half), MSG_NOSIGNAL);
		if (i % 3 == 2)
			send(sock[i], junk, sizeof(junk), MSG_NOSIGNAL);
	}
	client_start(&c, "tcp://", url, 10000);
	ASSERT_OK(client_wait(&c), &c.err);
	self->me.link = expect(&self->me, PST_WC_CONNECTED).link;
	/* and all of them are sent away */
	for (int i = 0; i < 100; i++) {
		struct pst_link_welcome w;
		struct pollfd p = {.fd = sock[i], .events = POLLIN};

		while (poll(&p, 1, 0) < 1)
			pst_cq_wait(self->me.cq, &(struct pst_wc){0}, 1, 1);
		if (recv(sock[i], &w, sizeof(w), MSG_WAITALL) == sizeof(w)) {
			EXPECT_EQ(PST_LINK_WELCOME, (int)w.hdr.type);
			EXPECT_GT(0, w.code);
		}
		close(sock[i]);
	}
	say(&c.end, "hi", 2);
	expect(&self->me, PST_WC_MESSAGE);
	end_close(&c.end);
}

TEST_F(setup, what_answers_is_not_penstock)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int peer, door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	static const char text[] = "220 mail.example.org ESMTP, how do you do\r\n";
	socklen_t len = sizeof(sin);
	struct client c;
	char url[64];

	ASSERT_EQ(0, bind(door, (struct sockaddr *)&sin, len));
	ASSERT_EQ(0, listen(door, 1));
	ASSERT_EQ(0, getsockname(door, (struct sockaddr *)&sin, &len));
	snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", ntohs(sin.sin_port));
	client_start(&c, "tcp://", url, 5000);
	peer = accept(door, NULL, NULL);
	send(peer, text, sizeof(text), MSG_NOSIGNAL);
	EXPECT_EQ(-EPROTO, client_wait(&c));
	EXPECT_TRUE(strstr(c.err.text, "not penstock") != NULL);
	end_close(&c.end);
	close(peer);
	/* and one that says nothing */
	client_start(&c, "tcp://?timeout=100", url, 150);
	peer = accept(door, NULL, NULL);
	EXPECT_EQ(-ETIMEDOUT, client_wait(&c));
	end_close(&c.end);
	close(peer);
	close(door);
	serve(self, ANY);
}

static const struct pst_link_hello good_hello = {
	.fabric = 't', .crc = 1, .ways = 1, .timeout_ms = 500, .pid = 1};

/* Ways that are no way of a link: another's name, the same twice. */
TEST_F(setup, ways_of_other_links_are_refused)
{
	const char *url = serve(self, ANY);
	struct pst_link_hello hello = good_hello;
	struct pst_link_welcome w;
	int first, second;
	struct pst_wc wc;

	hello.ways = 2;
	first = raw_connect(url);
	w = raw_shake(&self->me, first, &hello);
	EXPECT_TRUE(w.link);
	hello.way = 1;
	hello.link = w.link ^ 1;
	second = raw_connect(url);
	EXPECT_GT(0, raw_try_shake(&self->me, second, &hello));
	close(second);
	hello.ways = 3;
	hello.link = w.link;
	second = raw_connect(url);
	EXPECT_GT(0, raw_try_shake(&self->me, second, &hello));
	close(second);
	/* its own second way; no link before it came */
	EXPECT_EQ(0, pst_cq_wait(self->me.cq, &wc, 1, 1));
	hello.ways = 2;
	second = raw_connect(url);
	raw_shake(&self->me, second, &hello);
	if (!self->me.link)
		self->me.link = expect(&self->me, PST_WC_CONNECTED).link;
	close(first);
	close(second);
}

/* Half a link is not kept for ever. */
TEST_F(setup, half_a_link_is_sent_away)
{
	const char *url = serve(self, "tcp://127.0.0.1:0?timeout=100");
	struct pst_link_hello hello = good_hello;
	int64_t start = now_ms();
	char c;
	int sock;

	hello.ways = 2;
	sock = raw_connect(url);
	raw_shake(&self->me, sock, &hello);
	ASSERT_TRUE(raw_wait(&self->me, sock, 10000));
	while (recv(sock, &c, 1, 0) > 0)
		;
	EXPECT_LE(90, now_ms() - start);
	EXPECT_EQ(NULL, self->me.link);
	close(sock);
}

TEST_MAIN
