/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults that are made to happen, and the sentence for each: what it was, and
 * what mends it. Those of RDMA devices need a machine that has some; see
 * selftests/vm. Beside them, who asks for io_uring where it is denied.
 */
#include "selftests/rdma/tcp_raw.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1
#elif defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define BIG  (256ul << 20) /* bytes: more than is left where address space is short */
#define SOME 65536

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcmp(text + n - m, end);
}

/* The sentence is that of the row: what happened, and how to mend it. */
static void expect_words(const char *text, uint32_t cause)
{
	const struct pst_cause_row *row = pst_cause_row(cause);
	bool good =
		strstr(text, row->what) && strstr(text, row->likely) && ends_with(text, row->mend);

	if (!good)
		test_say(__FILE__, __LINE__, "\"%s\" is the sentence for %s", text, row->name);
	EXPECT_TRUE(good);
}

/* Connecting to @url fails for this reason. */
static void expect_no_way(struct end *e, const char *url, int timeout_ms, uint32_t cause)
{
	struct pst_link *link = NULL;
	struct pst_error err = {0};
	int rc = pst_connect(e->cq, url, timeout_ms, &link, &err);

	EXPECT_EQ(pst_cause_row(cause)->status, rc);
	EXPECT_EQ(rc, err.code);
	EXPECT_TRUE(link == NULL);
	EXPECT_TRUE(strstr(err.text, url) != NULL);
	expect_words(err.text, cause);
}

/* A request ends, or the link does, for this reason and with this status. */
static void expect_cause(struct end *e, enum pst_wc_kind kind, int status, uint32_t cause)
{
	struct pst_wc wc = expect(e, kind);

	EXPECT_EQ(status, wc.status);
	EXPECT_EQ(cause, wc.cause);
	expect_words(pst_link_why(e->link), cause);
	EXPECT_TRUE(strstr(pst_link_why(e->link), pst_link_peer(e->link)) != NULL);
}

/* A client over tcp, without any link. */
FIXTURE(client)
{
	struct end me;
	char url[64];
	int door; /* a socket that is bound, but not penstock's */
};

FIXTURE_SETUP(client)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sin);

	use_key("key", "a key for tests of the fabrics");
	self->door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ASSERT_EQ(0, bind(self->door, (struct sockaddr *)&sin, len));
	ASSERT_EQ(0, getsockname(self->door, (struct sockaddr *)&sin, &len));
	snprintf(self->url, sizeof(self->url), "tcp://127.0.0.1:%d", ntohs(sin.sin_port));
}

FIXTURE_TEARDOWN(client)
{
	end_close(&self->me);
	close(self->door);
}

TEST_F(client, host_without_a_name)
{
	end_open_on(&self->me, "tcp://");
	expect_no_way(&self->me, "tcp://no-such-host.invalid:7", 50, PST_CAUSE_NO_NAME);
}

TEST_F(client, network_without_a_route)
{
	/* before the first thread: one that has several cannot change its user namespace */
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) && unshare(CLONE_NEWNET))
		SKIP("no network namespace of our own", "as root, or sysctl -w "
							"kernel.unprivileged_userns_clone=1");
	end_open_on(&self->me, "tcp://");
	expect_no_way(&self->me, "tcp://192.0.2.1:7", 50, PST_CAUSE_NO_ROUTE);
	expect_no_way(&self->me, "tcp://[2001:db8::1]:7", 50, PST_CAUSE_NO_ROUTE);
}

TEST_F(client, port_that_nobody_listens_on)
{
	end_open_on(&self->me, "tcp://");
	expect_no_way(&self->me, self->url, 50, PST_CAUSE_NOBODY_THERE);
}

/* The kernel drops the packets of those that have no place in the queue. */
TEST_F(client, packets_that_are_dropped)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons((uint16_t)atoi(strrchr(self->url, ':') + 1)),
				  .sin_addr = {htonl(INADDR_LOOPBACK)}};
	enum { QUEUE = 4 };
	struct pollfd waits[QUEUE];
	int pending = 0;

	ASSERT_EQ(0, listen(self->door, 0));
	for (int i = 0; i < QUEUE; i++) {
		waits[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		waits[i].events = POLLOUT;
		connect(waits[i].fd, (struct sockaddr *)&sin, sizeof(sin));
		pending += !poll(&waits[i], 1, 50);
	}
	ASSERT_LE(1, pending);
	end_open_on(&self->me, "tcp://");
	expect_no_way(&self->me, self->url, 200, PST_CAUSE_NO_ANSWER);
	for (int i = 0; i < QUEUE; i++)
		close(waits[i].fd);
}

/* Its kernel takes the connection, but the server says nothing. */
TEST_F(client, server_that_is_stopped)
{
	ASSERT_EQ(0, listen(self->door, 8));
	end_open_on(&self->me, "tcp://?timeout=100");
	expect_no_way(&self->me, self->url, 200, PST_CAUSE_NO_ANSWER);
}

static void *mail_server(void *arg)
{
	static const char text[] = "220 mail.example.org ESMTP, how do you do\r\n";
	const struct fixture_client *self = arg;
	int peer = accept(self->door, NULL, NULL);
	char c;

	send(peer, text, sizeof(text), MSG_NOSIGNAL);
	while (recv(peer, &c, 1, 0) > 0)
		;
	close(peer);
	return NULL;
}

TEST_F(client, another_server_has_the_port)
{
	pthread_t thread;

	ASSERT_EQ(0, listen(self->door, 8));
	end_open_on(&self->me, "tcp://");
	ASSERT_EQ(0, pthread_create(&thread, NULL, mail_server, self));
	expect_no_way(&self->me, self->url, 5000, PST_CAUSE_NOT_PENSTOCK);
	pthread_join(thread, NULL);
}

/* A link over tcp, or shm. */
FIXTURE(linked)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_VARIANT(linked)
{
	const char *url;
};

FIXTURE_VARIANT_ADD(linked, epoll){.url = "tcp://127.0.0.1:0?io=epoll"};
FIXTURE_VARIANT_ADD(linked, uring){.url = "tcp://127.0.0.1:0?io=uring"};

FIXTURE_SETUP(linked)
{
	use_key("key", "a key for tests of the fabrics");
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(linked)
{
	pair_end(&self->pair);
}

/* Grants memory, says nothing that it would be answered, and goes when the link does. */
static void grant_until_the_end(struct end *peer)
{
	struct memory m = memory_make(peer, SOME, PST_ACCESS_WRITE);

	share(peer, &m, PST_ACCESS_WRITE);
	expect(peer, PST_WC_DOWN);
	pst_link_close(peer->link);
	peer->link = NULL;
	memory_drop(&m);
}

static void wait_for_the_end(struct end *peer)
{
	expect(peer, PST_WC_DOWN);
}

/* The address is not given to anybody else, so what the kernel finds there is sure. */
static void take_away(const struct memory *m)
{
	ASSERT_TRUE(mmap(m->at, m->len, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0) == m->at);
}

static void move_memory_that_is_gone(struct fixture_linked *self, const char *url, uint16_t op)
{
	struct memory mine;
	struct pst_key key;
	struct pst_wr wr;

	pair_start_on(&self->pair, url, true, grant_until_the_end);
	mine = memory_make(self->me, SOME, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	take_away(&mine);
	wr = (struct pst_wr){.id = 3,
			     .op = op,
			     .local = mine.region,
			     .local_addr = mine.at,
			     .key = key,
			     .len = SOME};
	ASSERT_EQ(1, pst_link_post(self->me->link, &wr, 1));
	expect_cause(self->me, PST_WC_DONE, -EFAULT, PST_CAUSE_MEMORY_GONE);
	EXPECT_TRUE(strstr(pst_link_why(self->me->link), "of 65536 bytes at 0") != NULL);
	expect_cause(self->me, PST_WC_DOWN, -EFAULT, PST_CAUSE_MEMORY_GONE);
	memory_drop(&mine);
}

TEST_F(linked, write_from_memory_that_is_gone)
{
	move_memory_that_is_gone(self, variant->url, PST_WR_WRITE);
}

TEST_F(linked, read_into_memory_that_is_gone)
{
	move_memory_that_is_gone(self, variant->url, PST_WR_READ);
}

/* All that this process may have is what it has. */
static struct rlimit no_more_memory(void)
{
	struct rlimit before, none;
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	ASSERT_EQ(1, fscanf(f, "%lu", &pages));
	fclose(f);
	ASSERT_EQ(0, getrlimit(RLIMIT_AS, &before));
	none = before;
	none.rlim_cur = pages * 4096;
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &none));
	return before;
}

struct block {
	struct block *next;
};

/* Take what is left of the heap. */
static struct block *fill_heap(void)
{
	struct block *all = NULL, *b;

	for (size_t size = 1 << 20; size >= 1024; size /= 2)
		while ((b = malloc(size))) {
			b->next = all;
			all = b;
		}
	return all;
}

TEST_F(linked, no_memory_for_a_message)
{
	struct rlimit before;
	struct block *all, *b;
	int rc;

	if (SANITIZED)
		SKIP("the sanitizer has address space of its own", "make check without SAN");
	pair_start_on(&self->pair, variant->url, true, wait_for_the_end);
	before = no_more_memory();
	all = fill_heap();
	rc = pst_link_send(self->me->link, "x", 1, 0);
	while ((b = all)) {
		all = b->next;
		free(b);
	}
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &before));
	EXPECT_EQ(-ENOTCONN, rc);
	expect_cause(self->me, PST_WC_DOWN, -ENOMEM, PST_CAUSE_NO_MEMORY);
}

/* A peer of another release, which cannot do what it was asked. */
TEST_F(linked, peer_that_refuses_a_request)
{
	const struct raw_grant grant = {.key = {9, 9}, .len = SOME, .access = 3};
	struct pst_error err = {0};
	union raw_frame f;
	struct memory mine;
	struct raw raw;
	struct pst_wr wr;

	end_open_on(self->me, variant->url);
	ASSERT_OK(pst_listen(self->me->cq, variant->url, &self->pair.listener, &err), &err);
	raw = raw_open(self->me, pst_listener_url(self->pair.listener));
	mine = memory_make(self->me, SOME, PST_ACCESS_READ);
	raw_grant(&raw, &grant);
	raw_message(&raw, "granted");
	expect(self->me, PST_WC_MESSAGE);
	wr = (struct pst_wr){.id = 4,
			     .op = PST_WR_WRITE,
			     .local = mine.region,
			     .local_addr = mine.at,
			     .key = {{9, 9}},
			     .len = 1};
	ASSERT_EQ(1, pst_link_post(self->me->link, &wr, 1));
	f = (union raw_frame){.done = {.request = 1, .status = -EIO}};
	raw_seal(&raw, &f, PST_FRAME_DONE, sizeof(f.done), sizeof(f.done));
	raw_send(&raw, &f, sizeof(f.done));
	expect_cause(self->me, PST_WC_DONE, -EIO, PST_CAUSE_PEER_REFUSED);
	/* it is that request alone */
	raw_message(&raw, "go on");
	expect(self->me, PST_WC_MESSAGE);
	raw_close(&raw);
	memory_drop(&mine);
	end_close(self->me);
	/* for what comes when a test is over */
	pair_start(&self->pair, false, wait_for_the_end);
	pst_link_close(self->me->link);
	self->me->link = NULL;
}

/* Memory of a peer that is larger than the address space that is left. */
static void grant_much(struct end *peer)
{
	struct memory m = memory_make(peer, BIG, PST_ACCESS_READ);

	share(peer, &m, PST_ACCESS_READ);
	expect(peer, PST_WC_DOWN);
	memory_drop(&m);
}

TEST(address_space_for_the_peers_memory)
{
	struct pst_wr wr = {.id = 5, .op = PST_WR_READ, .len = 8};
	struct rlimit before;
	struct memory mine;
	struct pair p;

	pair_start(&p, true, grant_much);
	mine = memory_make(&p.me, SOME, PST_ACCESS_READ);
	hear(&p.me, &wr.key, sizeof(wr.key));
	wr.local = mine.region;
	wr.local_addr = mine.at;
	before = no_more_memory();
	ASSERT_EQ(1, pst_link_post(p.me.link, &wr, 1));
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &before));
	expect_cause(&p.me, PST_WC_DONE, -ENOMEM, PST_CAUSE_NO_MAP);
	EXPECT_TRUE(strstr(pst_link_why(p.me.link), "read of 8 bytes") != NULL);
	/* the link is as good as before */
	wr.id = 6;
	EXPECT_EQ(0, carry(&p.me, &wr));
	pst_link_close(p.me.link);
	p.me.link = NULL;
	memory_drop(&mine);
	pair_end(&p);
}

FIXTURE(denied)
{
	int unused;
};

FIXTURE_VARIANT(denied)
{
	int code;
	const char *what, *mend;
};

FIXTURE_VARIANT_ADD(denied, container){EPERM, "a seccomp filter denies io_uring",
				       "seccomp=unconfined, or io=auto"};
FIXTURE_VARIANT_ADD(denied, old_kernel){ENOSYS, "there is no io_uring",
					"seccomp=unconfined, or io=auto"};
FIXTURE_VARIANT_ADD(denied, no_memory){ENOMEM, "Cannot allocate memory", "ulimit -l, or io=auto"};

FIXTURE_SETUP(denied)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned int)variant->code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = 4, .filter = filter};

	use_key("key", "a key for tests of the fabrics");
	ASSERT_EQ(0, prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		SKIP("this kernel has no seccomp filters", "a kernel with CONFIG_SECCOMP_FILTER");
}

FIXTURE_TEARDOWN(denied)
{
}

/* Is io_uring turned off for all, so that the filter is not what denies it? */
static bool turned_off(void)
{
	FILE *f = fopen("/proc/sys/kernel/io_uring_disabled", "re");
	int c = f ? getc(f) : '0';

	if (f)
		fclose(f);
	return c != '0';
}

TEST_F(denied, io_uring_by_name_is_an_error)
{
	struct pst_fabric *fab = NULL;
	struct pst_error err = {0};

	EXPECT_EQ(-variant->code, pst_fabric_open("tcp://?io=uring", &fab, &err));
	EXPECT_EQ(-variant->code, err.code);
	EXPECT_TRUE(fab == NULL);
	if (variant->code == EPERM && turned_off()) {
		EXPECT_TRUE(strstr(err.text, "sysctl -w kernel.io_uring_disabled=0") != NULL);
		return;
	}
	EXPECT_TRUE(strstr(err.text, variant->what) != NULL);
	EXPECT_TRUE(ends_with(err.text, variant->mend));
}

TEST_F(denied, auto_takes_what_there_is)
{
	struct pair p;

	pair_start_on(&p, "tcp://127.0.0.1:0?io=auto", false, meet);
	meet(&p.me);
	pair_end(&p);
}

TEST_MAIN
