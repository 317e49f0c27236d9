/* SPDX-License-Identifier: Apache-2.0 */
/* What the front does for every fabric: settings of the URL, what a link remembers of its faults.
 */
#include "selftests/rdma/pair.h"

#include "rdma/cause.h"

/* Grants one page for reading, and goes when it is told to. */
static void owner(struct end *peer)
{
	struct memory m = memory_make(peer, 4096, PST_ACCESS_READ);
	char c;

	share(peer, &m, PST_ACCESS_READ);
	hear(peer, &c, 1);
	memory_drop(&m);
}

TEST(a_failed_request_says_what_it_was)
{
	struct memory mine;
	struct pair p;
	struct pst_recent r[PST_RECENT + 1];
	struct pst_key key;
	struct pst_wc wc;
	struct pst_wr wr = {.id = 7, .op = PST_WR_WRITE, .remote_off = 4000, .len = 200};

	pair_start(&p, false, owner);
	mine = memory_make(&p.me, 4096, PST_ACCESS_READ);
	hear(&p.me, &key, sizeof(key));
	EXPECT_STREQ("", pst_link_why(p.me.link));
	EXPECT_EQ(0, pst_link_recent(p.me.link, r, 8));
	wr.local = mine.region;
	wr.local_addr = mine.at;
	wr.key = key;
	ASSERT_EQ(1, pst_link_post(p.me.link, &wr, 1));
	wc = expect(&p.me, PST_WC_DONE);
	EXPECT_EQ(-EACCES, wc.status);
	EXPECT_EQ((uint32_t)PST_CAUSE_READ_ONLY, wc.cause);
	EXPECT_TRUE(strstr(pst_link_why(p.me.link), "granted this region for reading only") !=
		    NULL);
	EXPECT_TRUE(strstr(pst_link_why(p.me.link), pst_link_peer(p.me.link)) != NULL);
	wr.op = PST_WR_READ;
	wr.id = 8;
	ASSERT_EQ(1, pst_link_post(p.me.link, &wr, 1));
	wc = expect(&p.me, PST_WC_DONE);
	EXPECT_EQ((uint32_t)PST_CAUSE_RANGE, wc.cause);
	EXPECT_TRUE(strstr(pst_link_why(p.me.link), "4000") != NULL);
	wr.key.k[0] ^= 1;
	wr.id = 9;
	ASSERT_EQ(1, pst_link_post(p.me.link, &wr, 1));
	wc = expect(&p.me, PST_WC_DONE);
	EXPECT_EQ((uint32_t)PST_CAUSE_NO_KEY, wc.cause);

	ASSERT_EQ(3, pst_link_recent(p.me.link, r, PST_RECENT + 1));
	EXPECT_EQ(9u, r[0].id);
	EXPECT_EQ(-ENOENT, r[0].status);
	EXPECT_EQ(-ERANGE, r[1].status);
	EXPECT_EQ(-EACCES, r[2].status);
	EXPECT_EQ(200u, r[2].len);
	EXPECT_EQ(1, pst_link_recent(p.me.link, r, 1));
	say(&p.me, "b", 1);
	wc = expect(&p.me, PST_WC_DOWN);
	EXPECT_EQ((uint32_t)PST_CAUSE_PEER_CLOSED, wc.cause);
	EXPECT_TRUE(strstr(pst_link_why(p.me.link), "closed the link") != NULL);
	memory_drop(&mine);
	pair_end(&p);
}

TEST(only_the_last_requests_are_kept)
{
	struct pst_recent r[PST_RECENT + 1];
	struct pair p;
	struct pst_key key;

	pair_start(&p, false, owner);
	hear(&p.me, &key, sizeof(key));
	for (uint64_t i = 0; i < 2 * PST_RECENT; i++)
		ASSERT_EQ(0, carry(&p.me, &(struct pst_wr){.id = i, .op = PST_WR_WRITE}));
	ASSERT_EQ(PST_RECENT, pst_link_recent(p.me.link, r, PST_RECENT + 1));
	for (uint64_t i = 0; i < PST_RECENT; i++)
		EXPECT_EQ(2 * PST_RECENT - 1 - i, r[i].id);
	say(&p.me, "b", 1);
	pair_end(&p);
}

static int open_rc(const char *url)
{
	struct pst_fabric *fab = NULL;
	struct pst_error err = {0};
	int rc = pst_fabric_open(url, &fab, &err);

	EXPECT_EQ(rc, (int)err.code);
	EXPECT_TRUE(!rc == !err.text[0]);
	pst_fabric_close(fab);
	return rc;
}

TEST(settings_that_there_are_not_are_refused)
{
	EXPECT_EQ(0, open_rc("shm://x?map=0&links=4"));
	EXPECT_EQ(-EINVAL, open_rc("shm://x?map=2"));
	EXPECT_EQ(-EINVAL, open_rc("shm://x?mop=1"));
	EXPECT_EQ(-EINVAL, open_rc("shm://x?timeout=99"));
	EXPECT_EQ(-EPROTONOSUPPORT, open_rc("smoke://x"));
}

/* A fabric as if memory were far: the same link, but no mapping. */
TEST(map_can_be_refused)
{
	struct memory mine;
	struct pair p;
	struct pst_key key;
	struct end far;
	uint64_t len = 5;
	void *at = &p;
	struct pst_error err = {0};

	pair_start(&p, false, owner);
	hear(&p.me, &key, sizeof(key));
	EXPECT_EQ(0, pst_link_map(p.me.link, key, PST_ACCESS_READ, &at, &len));
	say(&p.me, "b", 1);
	pair_end(&p);

	/* the same with a fabric that was told so */
	far = (struct end){0};
	ASSERT_OK(pst_fabric_open("shm://?map=0", &far.fab, &err), &err);
	ASSERT_OK(pst_cq_create(far.fab, &far.cq, &err), &err);
	p = (struct pair){.role = owner, .url = "shm://settings-far"};
	snprintf(p.url, sizeof(p.url), "shm://far-%d", (int)getpid());
	ASSERT_OK(pst_listen(far.cq, p.url, &p.listener, &err), &err);
	EXPECT_STREQ(p.url, pst_listener_url(p.listener));
	pair_spawn(&p);
	far.link = expect(&far, PST_WC_CONNECTED).link;
	hear(&far, &key, sizeof(key));
	at = &p;
	EXPECT_EQ(-EOPNOTSUPP, pst_link_map(far.link, key, PST_ACCESS_READ, &at, &len));
	EXPECT_TRUE(at == &p);
	mine = memory_make(&far, 4096, PST_ACCESS_READ);
	EXPECT_EQ(0, carry(&far, &(struct pst_wr){.op = PST_WR_READ,
						  .local = mine.region,
						  .local_addr = mine.at,
						  .key = key,
						  .len = 4096}));
	say(&far, "b", 1);
	memory_drop(&mine);
	pthread_join(p.thread, NULL);
	end_close(&far);
}

/* Stays if it is let in; else its exit status says why not. */
static void visitor(const char *url)
{
	struct end e;

	end_open(&e);
	if (pst_connect(e.cq, url, 5000, &e.link, NULL) == -EUSERS)
		_exit(1);
	pause();
	_exit(0);
}

TEST(a_listener_takes_so_many_links_and_no_more)
{
	struct end server = {0};
	struct pst_fabric_stat stat;
	struct pst_listener *l;
	struct pst_error err = {0};
	struct pst_wc wc;
	char url[64];
	pid_t pid[3];
	int status;

	snprintf(url, sizeof(url), "shm://many-%d", (int)getpid());
	ASSERT_OK(pst_fabric_open("shm://?links=2", &server.fab, &err), &err);
	ASSERT_OK(pst_cq_create(server.fab, &server.cq, &err), &err);
	ASSERT_OK(pst_listen(server.cq, url, &l, &err), &err);
	for (int i = 0; i < 3; i++) {
		pid[i] = fork();
		if (!pid[i])
			visitor(url);
		if (i < 2)
			expect(&server, PST_WC_CONNECTED);
	}
	while (!waitpid(pid[2], &status, WNOHANG))
		pst_cq_wait(server.cq, &wc, 1, 20);
	EXPECT_EQ(1, WEXITSTATUS(status));
	kill(pid[0], SIGKILL);
	kill(pid[1], SIGKILL);
	pst_fabric_stat(server.fab, &stat);
	EXPECT_LE(1u, stat.links_refused); /* it may knock again */
	end_close(&server);
}

TEST_MAIN
