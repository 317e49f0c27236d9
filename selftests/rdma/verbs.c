/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What only verbs has: windows that the device itself enforces, pieces, rails that go away and come
 * back, limits of the system. In a guest: selftests/vm/run.
 */
#include "rdma/verbs/verbs.h"
#include "selftests/rdma/pair.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define KIB	  1024
#define ONE_RAIL  "verbs://10.0.0.2:0?dev=rxe1"
#define TWO_RAILS "verbs://10.0.0.2,10.0.1.2:0?dev=rxe1,rxe3"
#define PEER	  "verbs://?dev=rxe0,rxe2"

FIXTURE(verbs)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_SETUP(verbs)
{
	use_key("key", "a key for tests of the fabrics");
	pair_peer = PEER;
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(verbs)
{
}

static void fill(unsigned char *p, size_t len, uint64_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(seed + i * 7 + i / 251);
}

static size_t first_wrong(const unsigned char *p, size_t len, uint64_t seed)
{
	size_t i = 0;

	while (i < len && p[i] == (unsigned char)(seed + i * 7 + i / 251))
		i++;
	return i;
}

static int shell(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Grants a megabyte for writing and stays until it is told to go. */
static void owner(struct end *peer)
{
	struct memory m = memory_make(peer, 1024 * KIB, PST_ACCESS_WRITE);
	char c;

	fill(m.at, m.len, 3);
	share(peer, &m, PST_ACCESS_WRITE);
	hear(peer, &c, 1);
	memory_drop(&m);
}

/* A thread that serves @end's cq until it is stopped; what comes out of it last is kept. */
struct beside {
	struct end *end;
	pthread_t thread;
	_Atomic bool stop;
	struct pst_link *link;
};

static void *beside_main(void *arg)
{
	struct beside *b = arg;
	struct pst_wc wc;

	while (!b->stop)
		if (pst_cq_wait(b->end->cq, &wc, 1, 10) > 0 && wc.kind == PST_WC_CONNECTED)
			b->link = wc.link;
	return NULL;
}

static void beside_start(struct beside *b, struct end *end)
{
	*b = (struct beside){.end = end};
	ASSERT_EQ(0, pthread_create(&b->thread, NULL, beside_main, b));
}

static void beside_stop(struct beside *b)
{
	b->stop = true;
	pthread_join(b->thread, NULL);
}

/* Connect @me to @far, which listens at @url in this process. */
static struct pst_link *connect_here(struct end *me, struct end *far, const char *url,
				     struct pst_link **there)
{
	struct pst_error err = {0};
	struct pst_link *link;
	struct beside b;

	beside_start(&b, far);
	ASSERT_OK(pst_connect(me->cq, url, 20000, &link, &err), &err);
	while (!*(struct pst_link *volatile *)&b.link)
		usleep(1000);
	beside_stop(&b);
	*there = b.link;
	return link;
}

static struct pst_wr transfer(int op, const struct memory *m, struct pst_key key, uint64_t off,
			      uint64_t len)
{
	return (struct pst_wr){.id = off,
			       .op = (uint16_t)op,
			       .local = m->region,
			       .local_addr = m->at + off,
			       .key = key,
			       .remote_off = off,
			       .len = len};
}

/* Out, and back into other memory: the same. */
static void there_and_back(struct end *me, uint64_t rounds, uint64_t len)
{
	struct memory out = memory_make(me, len, PST_ACCESS_WRITE);
	struct memory in = memory_make(me, len, PST_ACCESS_WRITE);
	struct pst_key key;
	struct pst_wr wr;

	hear(me, &key, sizeof(key));
	for (uint64_t round = 0; round < rounds; round++) {
		fill(out.at, out.len, round);
		wr = transfer(PST_WR_WRITE, &out, key, 0, out.len);
		ASSERT_EQ(0, carry(me, &wr));
		memset(in.at, 0, in.len);
		wr = transfer(PST_WR_READ, &in, key, 0, in.len);
		ASSERT_EQ(0, carry(me, &wr));
		ASSERT_EQ(in.len, first_wrong(in.at, in.len, round));
	}
	say(me, "b", 1);
	memory_drop(&out);
	memory_drop(&in);
}

TEST_F(verbs, pieces_of_regions_are_crossed)
{
	struct pst_fabric_stat stat;

	pair_peer = PEER "&chunk=65536";
	pair_start_on(&self->pair, ONE_RAIL "&chunk=69632", true, owner);
	there_and_back(self->me, 2, 1024 * KIB);
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(2 * 1024 * KIB, (int)stat.registered_bytes);
	EXPECT_LT(0, (int)stat.registered_ns);
	pair_end(&self->pair);
}

TEST_F(verbs, large_requests_go_over_both_rails)
{
	struct verbs_link *link;
	struct pst_fabric_stat stat;

	pair_start_on(&self->pair, TWO_RAILS, true, owner);
	there_and_back(self->me, 2, 1024 * KIB);
	link = verbs_link(self->me->link);
	for (int way = 0; way < 2; way++) {
		ASSERT_TRUE(link->way[way] != NULL);
		EXPECT_TRUE(link->way[way]->rate > 0);
	}
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(0, (int)stat.rails_lost);
	EXPECT_EQ(2 * 1024 * KIB, (int)stat.read_bytes);
	pair_end(&self->pair);
}

/* What a peer that keeps to no rule can do with the key of the device: nothing beyond the window.
 */
static void read_only_owner(struct end *peer)
{
	struct memory m = memory_make(peer, 8192, PST_ACCESS_READ);
	struct pst_wc wc;

	fill(m.at, m.len, 9);
	share(peer, &m, PST_ACCESS_READ);
	do {
		ASSERT_EQ(1, pst_cq_wait(peer->cq, &wc, 1, 30000));
	} while (wc.kind != PST_WC_DOWN);
	EXPECT_EQ(m.len, first_wrong(m.at, m.len, 9));
	memory_drop(&m);
}

FIXTURE(cheat)
{
	struct pair pair;
	struct end *me;
	struct memory mine;
	struct pst_key key;
	struct verbs_taken *taken;
};

FIXTURE_SETUP(cheat)
{
	use_key("key", "a key for tests of the fabrics");
	pair_peer = PEER;
	self->me = &self->pair.me;
	pair_start_on(&self->pair, ONE_RAIL, true, read_only_owner);
	self->mine = memory_make(self->me, 16384, PST_ACCESS_WRITE);
	hear(self->me, &self->key, sizeof(self->key));
	self->taken = pst_verbs_find(verbs_link(self->me->link), &self->key);
	ASSERT_TRUE(self->taken != NULL);
}

/* The request passes this side's checks, which were bent; the device must refuse it. */
static void refused_by_device(struct fixture_cheat *self, int op, uint64_t off, uint64_t len)
{
	struct pst_wr wr = transfer(op, &self->mine, self->key, 0, len);
	struct pst_wc wc;

	wr.remote_off = off;
	EXPECT_EQ(-ECONNRESET, carry(self->me, &wr));
	wc = expect(self->me, PST_WC_DOWN);
	EXPECT_EQ(PST_CAUSE_REM_ACCESS, (int)wc.cause);
	EXPECT_TRUE(strstr(pst_link_why(self->me->link), "the key does not let at that memory"));
}

FIXTURE_TEARDOWN(cheat)
{
	memory_drop(&self->mine);
	pair_end(&self->pair);
}

TEST_F(cheat, write_to_a_read_only_window)
{
	self->taken->access |= PST_ACCESS_WRITE;
	refused_by_device(self, PST_WR_WRITE, 0, 64);
}

TEST_F(cheat, read_beyond_the_window)
{
	self->taken->len = self->taken->chunk = 16384;
	refused_by_device(self, PST_WR_READ, 8192 - 32, 64);
}

TEST_F(cheat, forged_key)
{
	self->taken->rkey[0] ^= 1;
	refused_by_device(self, PST_WR_READ, 0, 64);
}

/* Grants the same memory to each of two links; the second asks with the first one's key. */
TEST_F(verbs, keys_are_of_one_link)
{
	struct pst_error err = {0};
	struct pst_key key[2];
	struct verbs_taken *taken[2];
	struct memory m, mine;
	struct end far;
	struct pst_link *link[2], *there[2];
	struct pst_listener *l;
	struct pst_wc wc;

	end_open_on(&far, ONE_RAIL);
	end_open_on(self->me, PEER);
	ASSERT_OK(pst_listen(far.cq, ONE_RAIL, &l, &err), &err);
	m = memory_make(&far, 4096, PST_ACCESS_WRITE);
	mine = memory_make(self->me, 4096, PST_ACCESS_WRITE);
	for (int i = 0; i < 2; i++) {
		link[i] = connect_here(self->me, &far, pst_listener_url(l), &there[i]);
		ASSERT_EQ(0, pst_link_grant(there[i], m.region, PST_ACCESS_WRITE, &key[i]));
		ASSERT_EQ(0, pst_link_send(there[i], "k", 1, 1000));
		expect(self->me, PST_WC_MESSAGE);
		taken[i] = pst_verbs_find(verbs_link(link[i]), &key[i]);
		ASSERT_TRUE(taken[i] != NULL);
	}
	EXPECT_NE(taken[0]->rkey[0], taken[1]->rkey[0]);
	EXPECT_NE(key[0].k[0], key[1].k[0]);
	/* bound to the other link's queue pair */
	taken[1]->rkey[0] = taken[0]->rkey[0];
	self->me->link = link[1];
	EXPECT_EQ(-ECONNRESET, carry(self->me, &(struct pst_wr){.op = PST_WR_READ,
								.local = mine.region,
								.local_addr = mine.at,
								.key = key[1],
								.len = 8}));
	wc = expect(self->me, PST_WC_DOWN);
	EXPECT_EQ(PST_CAUSE_REM_ACCESS, (int)wc.cause);
	pst_link_close(link[1]);
	/* and the first goes on, until its owner closes it: then its key is worth nothing */
	self->me->link = link[0];
	EXPECT_EQ(0, carry(self->me, &(struct pst_wr){.op = PST_WR_READ,
						      .local = mine.region,
						      .local_addr = mine.at,
						      .key = key[0],
						      .len = 8}));
	pst_link_close(link[0]);
	self->me->link = NULL;
	memory_drop(&m);
	memory_drop(&mine);
	end_close(&far);
	end_close(self->me);
}

/* A rail that breaks while its port is well: it is tried again until it is back, and used. */
TEST_F(verbs, rail_comes_back)
{
	struct verbs_link *link;
	struct pst_fabric_stat stat;
	struct memory in;
	struct pst_key key;
	struct pst_wr wr;
	struct pst_wc wc;

	pair_start_on(&self->pair, TWO_RAILS, true, owner);
	in = memory_make(self->me, 1024 * KIB, PST_ACCESS_WRITE);
	hear(self->me, &key, sizeof(key));
	link = verbs_link(self->me->link);
	for (int way = 0; way < 2; way++) {
		while (!link->way[0] || !link->way[1])
			pst_cq_wait(self->me->cq, &wc, 1, 20);
		pst_verbs_rail_fail(link->way[way], PST_CAUSE_FLUSHED, "test");
		wr = transfer(PST_WR_READ, &in, key, 0, in.len);
		EXPECT_EQ(0, carry(self->me, &wr));
		EXPECT_EQ(in.len, first_wrong(in.at, in.len, 3));
		memset(in.at, 0, in.len);
	}
	while (!link->way[0] || !link->way[1] || !link->taken[0].rkey[0] || !link->taken[0].rkey[1])
		pst_cq_wait(self->me->cq, &wc, 1, 20);
	wr = transfer(PST_WR_READ, &in, key, 0, in.len);
	EXPECT_EQ(0, carry(self->me, &wr));
	EXPECT_EQ(in.len, first_wrong(in.at, in.len, 3));
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(2, (int)stat.rails_lost);
	say(self->me, "b", 1);
	memory_drop(&in);
	pair_end(&self->pair);
}

TEST_F(verbs, loss_and_reordering_change_nothing)
{
	ASSERT_EQ(0, shell("tc qdisc add dev va root netem delay 1ms reorder 5% loss 1%"));
	pair_start_on(&self->pair, ONE_RAIL "&timeout=5000", true, owner);
	there_and_back(self->me, 8, 64 * KIB);
	pair_end(&self->pair);
	EXPECT_EQ(0, shell("tc qdisc del dev va root"));
}

static int register_some(struct end *e, uint64_t len, uint32_t flags, int fd, struct pst_error *err)
{
	struct pst_region_attr attr = {
		.size = sizeof(attr),
		.len = len,
		.fd = fd,
		.access = PST_ACCESS_WRITE,
		.flags = flags,
	};
	struct pst_region *region;

	attr.addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return pst_region_register(e->fab, &attr, &region, err);
}

TEST_F(verbs, locked_memory_has_a_limit)
{
	const struct rlimit limit = {256 * KIB, 256 * KIB};
	struct pst_error err = {0};

	ASSERT_EQ(0, chmod(getenv("PENSTOCK_KEY"), 0600));
	ASSERT_EQ(0, chown(getenv("PENSTOCK_KEY"), 65534, 65534));
	ASSERT_EQ(0, chmod(test_tmpdir(), 0755));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &limit));
	ASSERT_EQ(0, setgid(65534));
	ASSERT_EQ(0, setuid(65534));
	end_open_on(self->me, PEER);
	EXPECT_EQ(-ENOMEM, register_some(self->me, 1024 * KIB, 0, -1, &err));
	EXPECT_TRUE(strstr(err.text, pst_cause_row(PST_CAUSE_MEMLOCK)->mend));
}

TEST_F(verbs, cgroup_has_a_limit)
{
	struct pst_error err = {0};

	ASSERT_EQ(0, shell("mkdir -p /sys/fs/cgroup/few && echo 'rxe0 hca_object=4' "
			   ">/sys/fs/cgroup/few/rdma.max"));
	ASSERT_EQ(0, shell("echo $PPID >/sys/fs/cgroup/few/cgroup.procs"));
	end_open_on(self->me, "verbs://?dev=rxe0");
	for (int i = 0; i < 8 && !err.code; i++)
		register_some(self->me, 64 * KIB, 0, -1, &err);
	EXPECT_EQ(-EAGAIN, err.code);
	EXPECT_TRUE(strstr(err.text, pst_cause_row(PST_CAUSE_RDMA_CGROUP)->mend));
}

TEST_F(verbs, memory_of_a_gpu_is_refused_in_words)
{
	int fd = memfd_create("no-dmabuf", MFD_CLOEXEC);
	struct pst_error err = {0};

	end_open_on(self->me, PEER);
	EXPECT_EQ(-EOPNOTSUPP, register_some(self->me, 64 * KIB, PST_REGION_DMABUF, fd, &err));
	EXPECT_TRUE(strstr(err.text, pst_cause_row(PST_CAUSE_NO_DMABUF)->mend));
}

/* Devices may speak twice before anybody looks; only pst_cq_wake ends a wait early. */
TEST_F(verbs, news_of_devices_are_not_the_callers)
{
	int64_t start;
	struct pst_wc wc;

	end_open_on(self->me, PEER);
	start = pst_verbs_now();
	pst_verbs_cq_news(verbs_cq(self->me->cq));
	pst_verbs_cq_news(verbs_cq(self->me->cq));
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, 300));
	EXPECT_LE(300, (int)(pst_verbs_now() - start));
	pst_verbs_cq_news(verbs_cq(self->me->cq));
	pst_cq_wake(self->me->cq);
	EXPECT_EQ(0, pst_cq_wait(self->me->cq, &wc, 1, -1));
	end_close(self->me);
}

TEST_F(verbs, nobody_there_is_refused)
{
	struct pst_error err = {0};
	struct pst_link *link;

	end_open_on(self->me, PEER);
	EXPECT_EQ(-ECONNREFUSED,
		  pst_connect(self->me->cq, "verbs://10.0.0.2:9", 3000, &link, &err));
	EXPECT_TRUE(strstr(err.text, "nobody listens"));
}

TEST_F(verbs, other_key_is_refused)
{
	struct pst_error err = {0};
	struct pst_listener *l;
	struct pst_link *link;
	struct end far;
	struct beside b;

	end_open_on(&far, ONE_RAIL);
	ASSERT_OK(pst_listen(far.cq, ONE_RAIL, &l, &err), &err);
	use_key("other", "quite another key, of someone else");
	end_open_on(self->me, PEER);
	beside_start(&b, &far);
	EXPECT_EQ(-EACCES, pst_connect(self->me->cq, pst_listener_url(l), 20000, &link, &err));
	beside_stop(&b);
	end_close(self->me);
	end_close(&far);
}

FIXTURE(cut)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_SETUP(cut)
{
	use_key("key", "a key for tests of the fabrics");
	pair_peer = PEER;
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(cut)
{
	EXPECT_EQ(0, shell("ip link set va up && ip link set vb up && "
			   "selftests/vm/guest.sh routes"));
}

/* Pieces go over both rails while one is cut. */
TEST_F(cut, rail_cut_in_the_middle_of_transfers)
{
	struct memory out, in;
	struct pst_fabric_stat stat;
	struct pst_key key;
	struct pst_wr wr;
	struct pst_wc wc;
	int left = 0;

	pair_start_on(&self->pair, TWO_RAILS "&timeout=1000", true, owner);
	out = memory_make(self->me, 1024 * KIB, PST_ACCESS_WRITE);
	in = memory_make(self->me, 1024 * KIB, PST_ACCESS_WRITE);
	hear(self->me, &key, sizeof(key));
	fill(out.at, out.len, 77);
	for (; left < 4; left++) {
		wr = transfer(PST_WR_WRITE, &out, key, (uint64_t)left * 256 * KIB, 256 * KIB);
		ASSERT_EQ(1, pst_link_post(self->me->link, &wr, 1));
	}
	ASSERT_EQ(0, shell("ip link set va down"));
	for (; left; left--) {
		wc = expect(self->me, PST_WC_DONE);
		EXPECT_EQ(0, wc.status);
	}
	wr = transfer(PST_WR_READ, &in, key, 0, in.len);
	EXPECT_EQ(0, carry(self->me, &wr));
	EXPECT_EQ(in.len, first_wrong(in.at, in.len, 77));
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(1, (int)stat.rails_lost);
	EXPECT_EQ(0, (int)stat.links_lost);
	/* it is tried again until it is back */
	ASSERT_EQ(0, shell("ip link set va up && selftests/vm/guest.sh routes"));
	while (!verbs_link(self->me->link)->way[0] || !verbs_link(self->me->link)->way[1])
		pst_cq_wait(self->me->cq, &wc, 1, 50);
	wr = transfer(PST_WR_READ, &in, key, 0, in.len);
	EXPECT_EQ(0, carry(self->me, &wr));
	say(self->me, "b", 1);
	memory_drop(&out);
	memory_drop(&in);
	pair_end(&self->pair);
}

/* Grants, and sees the link end, with all its ports as they are. */
static void stayer(struct end *peer)
{
	struct memory m = memory_make(peer, 4096, PST_ACCESS_WRITE);

	share(peer, &m, PST_ACCESS_WRITE);
	expect(peer, PST_WC_DOWN);
	pause();
}

/* Closed while its port is down; when that is up again, so is everything. */
TEST_F(cut, link_ends_in_time)
{
	struct pst_error err = {0};
	struct pst_link *link;
	struct pst_wc wc;
	struct end far;
	struct beside b;

	pair_peer = "verbs://?dev=rxe0&timeout=1000";
	pair_start_on(&self->pair, ONE_RAIL "&timeout=1000", true, stayer);
	expect(self->me, PST_WC_MESSAGE);
	ASSERT_EQ(0, shell("ip link set vb down"));
	wc = expect(self->me, PST_WC_DOWN);
	EXPECT_EQ(PST_CAUSE_PORT_DOWN, (int)wc.cause);
	EXPECT_EQ(-ENETDOWN, wc.status);
	pst_link_close(self->me->link);
	self->me->link = NULL;
	ASSERT_EQ(0, shell("ip link set vb up && selftests/vm/guest.sh routes"));
	end_open_on(&far, pair_peer);
	beside_start(&b, self->me);
	ASSERT_OK(pst_connect(far.cq, pst_listener_url(self->pair.listener), 20000, &link, &err),
		  &err);
	while (!*(struct pst_link *volatile *)&b.link)
		usleep(1000);
	beside_stop(&b);
	pst_link_close(b.link);
	end_close(&far);
	EXPECT_TRUE(TAILQ_EMPTY(&verbs_cq(self->me->cq)->rails));
	kill(self->pair.pid, SIGKILL);
	waitpid(self->pair.pid, NULL, 0);
	end_close(self->me);
}

/* The path is cut where no port notices. */
TEST_F(cut, packets_that_vanish)
{
	struct pst_wc wc;

	pair_peer = "verbs://?dev=rxe0&timeout=1000";
	pair_start_on(&self->pair, ONE_RAIL "&timeout=1000", true, stayer);
	expect(self->me, PST_WC_MESSAGE);
	ASSERT_EQ(0, shell("tc qdisc add dev va root netem loss 100% && "
			   "tc qdisc add dev vb root netem loss 100%"));
	wc = expect(self->me, PST_WC_DOWN);
	EXPECT_EQ(0, shell("tc qdisc del dev va root && tc qdisc del dev vb root"));
	EXPECT_EQ(PST_CAUSE_RETRY_EXC, (int)wc.cause);
	kill(self->pair.pid, SIGKILL);
	waitpid(self->pair.pid, NULL, 0);
	end_close(self->me);
}

TEST_MAIN
