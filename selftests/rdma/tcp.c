/* SPDX-License-Identifier: Apache-2.0 */
/* What is tcp's own: silent peers, cut ways, slow readers, several connections, service without the
 * owner. */
#include "selftests/rdma/pair.h"

#include "rdma/cause.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#define MIB (1024 * 1024)

FIXTURE(tcp)
{
	struct pair pair;
	struct end *me;
};

FIXTURE_VARIANT(tcp)
{
	const char *url, *quick; /* quick to give a peer up */
};

#define ADD(name, settings)                                         \
	FIXTURE_VARIANT_ADD(tcp, name)                              \
	{                                                           \
		.url = "tcp://127.0.0.1:0?" settings,               \
		.quick = "tcp://127.0.0.1:0?timeout=1000&" settings \
	}
ADD(epoll, "io=epoll");
ADD(epoll_conns, "io=epoll&conns=4");
ADD(uring, "io=uring");
ADD(uring_conns, "io=uring&conns=4");
/* A peer at 127.0.0.2 looks like another host: sends without a copy are tried. */
FIXTURE_VARIANT_ADD(tcp, uring_far){.url = "tcp://127.0.0.2:0?io=uring",
				    .quick = "tcp://127.0.0.2:0?timeout=1000&io=uring"};

FIXTURE_SETUP(tcp)
{
	use_key("key", "a key for tests of the fabrics");
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(tcp)
{
}

static void write_one(struct end *e, struct memory *m, struct pst_key key, uint64_t id,
		      uint64_t len)
{
	const struct pst_wr wr = {.id = id,
				  .op = PST_WR_WRITE,
				  .local = m->region,
				  .local_addr = m->at,
				  .key = key,
				  .remote_off = id * MIB / 2,
				  .len = len};

	ASSERT_EQ(1, pst_link_post(e->link, &wr, 1));
}

/* Grants memory, and does nothing any more; its process lives. */
static void grant_and_wait(struct end *peer)
{
	struct memory m = memory_make(peer, 8 * MIB, PST_ACCESS_WRITE);

	share(peer, &m, PST_ACCESS_WRITE);
	for (;;)
		pause();
}

/* Every request and the link end within the timeout, for the reason that it was. */
static void expect_end(struct end *me, uint64_t first, uint64_t n, int status, uint32_t cause)
{
	struct pst_wc wc;

	for (uint64_t i = 0; i < n; i++) {
		wc = expect(me, PST_WC_DONE);
		EXPECT_EQ(first + i, wc.id);
		EXPECT_EQ(status, wc.status);
		EXPECT_EQ(cause, wc.cause);
		EXPECT_TRUE(strstr(pst_link_why(me->link), "write of") != NULL);
	}
	wc = expect(me, PST_WC_DOWN);
	EXPECT_EQ(status, wc.status);
	EXPECT_EQ(cause, wc.cause);
	EXPECT_TRUE(strstr(pst_link_why(me->link), pst_cause_row(cause)->what) != NULL);
	EXPECT_TRUE(strstr(pst_link_why(me->link), pst_link_peer(me->link)) != NULL);
}

/* And it is, when this returns. */
static void stop(struct pair *p)
{
	int status;

	kill(p->pid, SIGSTOP);
	ASSERT_EQ(p->pid, waitpid(p->pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
}

static void finish(struct pair *p, struct memory *m)
{
	kill(p->pid, SIGKILL);
	kill(p->pid, SIGCONT);
	waitpid(p->pid, NULL, 0);
	if (m)
		memory_drop(m);
	end_close(&p->me);
}

TEST_F(tcp, stopped_peer_is_given_up)
{
	struct memory m;
	struct pst_key key;

	pair_start_on(&self->pair, variant->quick, true, grant_and_wait);
	m = memory_make(self->me, 8 * MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	write_one(self->me, &m, key, 1, MIB / 2);
	EXPECT_EQ(0, expect(self->me, PST_WC_DONE).status);
	stop(&self->pair);
	for (uint64_t i = 2; i < 12; i++)
		write_one(self->me, &m, key, i, i % 2 ? MIB / 2 : 100);
	expect_end(self->me, 2, 10, -ETIMEDOUT, PST_CAUSE_PEER_SILENT);
	finish(&self->pair, &m);
}

TEST_F(tcp, stopped_peer_of_an_idle_link_is_given_up)
{
	struct pst_key key;

	pair_start_on(&self->pair, variant->quick, true, grant_and_wait);
	hear(self->me, &key, sizeof(key));
	stop(&self->pair);
	expect_end(self->me, 0, 0, -ETIMEDOUT, PST_CAUSE_PEER_SILENT);
	finish(&self->pair, NULL);
}

/* Both owners are away for longer than the timeout, and the link is as it was. */
static void sleeps(struct end *peer)
{
	char c;

	usleep(1600000);
	hear(peer, &c, 1);
}

TEST_F(tcp, quiet_link_lives)
{
	char url[128];

	snprintf(url, sizeof(url), "%s&timeout=1000", variant->url);
	pair_start_on(&self->pair, url, true, sleeps);
	usleep(1500000);
	say(self->me, "x", 1);
	expect(self->me, PST_WC_DOWN);
	pair_end(&self->pair);
}

/* The owner of memory never calls the library: its peers read and write there all the same. */
static _Atomic int *told;

static void grants_and_computes(struct end *peer)
{
	struct memory m = memory_make(peer, MIB, PST_ACCESS_WRITE);

	memset(m.at, 'a', MIB);
	share(peer, &m, PST_ACCESS_WRITE);
	while (!*told)
		usleep(1000);
	expect(peer, PST_WC_MESSAGE);
	EXPECT_EQ('b', m.at[5]);
	EXPECT_EQ('a', m.at[MIB - 1]);
	memory_drop(&m);
}

TEST_F(tcp, memory_is_served_without_its_owner)
{
	struct memory m;
	struct pst_key key;
	struct pst_wr wr;

	told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pair_start_on(&self->pair, variant->url, true, grants_and_computes);
	m = memory_make(self->me, MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	wr = (struct pst_wr){
		.op = PST_WR_READ, .local = m.region, .local_addr = m.at, .key = key, .len = MIB};
	for (int i = 0; i < 20; i++) {
		ASSERT_EQ(0, carry(self->me, &wr));
		ASSERT_EQ('a', m.at[MIB - 1]);
		m.at[MIB - 1] = 0;
	}
	m.at[0] = 'b';
	wr.op = PST_WR_WRITE;
	wr.remote_off = 5;
	wr.len = 1;
	ASSERT_EQ(0, carry(self->me, &wr));
	*told = 1;
	say(self->me, "x", 1);
	expect(self->me, PST_WC_DOWN);
	memory_drop(&m);
	pair_end(&self->pair);
}

/* A peer that takes no messages holds up no reads, and loses none of them. */
static void takes_late(struct end *peer)
{
	struct memory m = memory_make(peer, MIB, PST_ACCESS_WRITE);
	uint32_t got;

	memset(m.at, 'a', MIB);
	share(peer, &m, PST_ACCESS_WRITE);
	while (!*told)
		usleep(1000);
	for (uint32_t i = 0; i < (uint32_t)*told; i++) {
		hear(peer, &got, 4);
		ASSERT_EQ(i, got);
	}
	say(peer, "all", 3);
	expect(peer, PST_WC_DOWN);
	memory_drop(&m);
}

TEST_F(tcp, slow_reader_holds_up_nothing_else)
{
	struct memory m;
	struct pst_key key;
	uint32_t sent = 0;

	told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pair_start_on(&self->pair, variant->url, true, takes_late);
	m = memory_make(self->me, MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	while (!pst_link_send(self->me->link, &sent, 4, 10))
		sent++;
	EXPECT_LE(32, (int)sent);
	EXPECT_EQ(-ETIMEDOUT, pst_link_send(self->me->link, &sent, 4, 10));
	for (int i = 0; i < 20; i++) {
		const struct pst_wr wr = {.op = PST_WR_READ,
					  .local = m.region,
					  .local_addr = m.at,
					  .key = key,
					  .len = MIB};

		/* longer than the timeout, all together: who is slow is not dead */
		ASSERT_EQ(0, carry(self->me, &wr));
		usleep(30000);
	}
	*told = (int)sent;
	expect(self->me, PST_WC_MESSAGE);
	pst_link_close(self->me->link);
	self->me->link = NULL;
	memory_drop(&m);
	pair_end(&self->pair);
}

/* Overlapping requests of all sizes, many under way: memory is as if they were done in order. */
TEST_F(tcp, overlapping_requests_keep_their_order)
{
	uint64_t seed = 11, id = 0, done = 0;
	unsigned char *model = malloc(4 * MIB);
	struct memory m;
	struct pst_key key;
	struct pst_wc wc[16];

	pair_start_on(&self->pair, variant->url, true, grant_and_wait);
	m = memory_make(self->me, 16 * MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	memset(model, 0, 4 * MIB);
	for (int i = 0; i < 12 * MIB; i++)
		m.at[i] = (unsigned char)(i * 2654435761u >> 24);
	while (id < 400) {
		uint64_t len = 1 + test_random(&seed) % (id % 4 ? 3000 : 2 * MIB);
		uint64_t to = test_random(&seed) % (4 * MIB - len);
		uint64_t from = test_random(&seed) % (12 * MIB - len);
		const struct pst_wr wr = {.id = id,
					  .op = id % 5 == 4 ? PST_WR_READ : PST_WR_WRITE,
					  .local = m.region,
					  .local_addr = m.at + (id % 5 == 4 ? 12 * MIB + to : from),
					  .key = key,
					  .remote_off = to,
					  .len = len};
		int n = pst_link_post(self->me->link, &wr, 1);

		ASSERT_LE(0, n);
		if (n && wr.op == PST_WR_WRITE)
			memcpy(model + to, m.at + from, len);
		id += (uint64_t)n;
		for (n = pst_cq_poll(self->me->cq, wc, 16); n > 0; n--, done++)
			ASSERT_EQ(0, wc[n - 1].status);
	}
	for (; done < id; done++)
		ASSERT_EQ(0, expect(self->me, PST_WC_DONE).status);
	ASSERT_EQ(0, carry(self->me, &(struct pst_wr){.op = PST_WR_READ,
						      .local = m.region,
						      .local_addr = m.at + 12 * MIB,
						      .key = key,
						      .len = 4 * MIB}));
	EXPECT_EQ(0, memcmp(model, m.at + 12 * MIB, 4 * MIB));
	free(model);
	finish(&self->pair, &m);
}

/* A write to what a read before it is still fetching waits for it. */
TEST_F(tcp, write_does_not_overtake_a_read)
{
	struct memory m;
	struct pst_key key;

	pair_start_on(&self->pair, variant->url, true, grant_and_wait);
	m = memory_make(self->me, 16 * MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	for (int i = 0; i < 10; i++) {
		struct pst_wr wr = {.op = PST_WR_READ,
				    .local = m.region,
				    .local_addr = m.at,
				    .key = key,
				    .len = 8 * MIB};
		int done = 0;

		ASSERT_EQ(1, pst_link_post(self->me->link, &wr, 1));
		wr.op = PST_WR_WRITE;
		wr.local_addr = m.at + 8 * MIB;
		memset(m.at + 8 * MIB, i + 1, 8 * MIB);
		while (!pst_link_post(self->me->link, &wr, 1)) {
			struct pst_wc wc;

			done += pst_cq_wait(self->me->cq, &wc, 1, 30000);
		}
		for (; done < 2; done++)
			ASSERT_EQ(0, expect(self->me, PST_WC_DONE).status);
		for (int at = 0; at < 8 * MIB; at += 512)
			ASSERT_EQ(i, (int)m.at[at]);
	}
	finish(&self->pair, &m);
}

/* A message behind writes of all sizes comes when they are there. */
static void checks_at_messages(struct end *peer)
{
	struct memory m = memory_make(peer, 4 * MIB, PST_ACCESS_WRITE);
	uint32_t round;

	share(peer, &m, PST_ACCESS_WRITE);
	for (uint32_t i = 1; i <= 20; i++) {
		hear(peer, &round, 4);
		ASSERT_EQ(i, round);
		for (int at = 0; at < 4 * MIB; at += 4096)
			ASSERT_EQ((int)i, (int)m.at[at]);
		ASSERT_EQ((int)i, (int)m.at[4 * MIB - 1]);
		say(peer, &round, 4);
	}
	expect(peer, PST_WC_DOWN);
	memory_drop(&m);
}

TEST_F(tcp, message_comes_after_what_was_written_before_it)
{
	struct memory m;
	struct pst_key key;

	pair_start_on(&self->pair, variant->url, true, checks_at_messages);
	m = memory_make(self->me, 4 * MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	for (uint32_t i = 1; i <= 20; i++) {
		struct pst_wr wr[5];
		uint32_t round;
		int n = 0;

		memset(m.at, (int)i, 4 * MIB);
		for (int k = 0; k < 4; k++)
			wr[k] = (struct pst_wr){.op = PST_WR_WRITE,
						.flags = PST_WR_UNSIGNALED,
						.local = m.region,
						.local_addr = m.at + k * MIB,
						.key = key,
						.remote_off = (uint64_t)k * MIB,
						.len = MIB};
		wr[4] = (struct pst_wr){.flags = PST_WR_UNSIGNALED, .local_addr = &i, .len = 4};
		ASSERT_EQ(5, n = pst_link_post(self->me->link, wr, 5));
		hear(self->me, &round, 4);
		ASSERT_EQ(i, round);
	}
	pst_link_close(self->me->link);
	self->me->link = NULL;
	memory_drop(&m);
	pair_end(&self->pair);
}

/* Whoever is told that memory was read changes it at once. */
static void changes_when_told(struct end *peer)
{
	struct memory m = memory_make(peer, 8 * MIB, PST_ACCESS_READ);
	char round;

	share(peer, &m, PST_ACCESS_READ);
	for (int i = 0; i < 10; i++) {
		hear(peer, &round, 1);
		memset(m.at, i + 1, m.len);
		say(peer, &round, 1);
	}
	expect(peer, PST_WC_DOWN);
	memory_drop(&m);
}

TEST_F(tcp, read_comes_before_what_a_later_message_changes)
{
	struct memory m;
	struct pst_key key;

	pair_start_on(&self->pair, variant->url, true, changes_when_told);
	m = memory_make(self->me, 8 * MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	for (int i = 0; i < 10; i++) {
		char round = (char)i;
		const struct pst_wr wr[] = {
			{.op = PST_WR_READ,
			 .local = m.region,
			 .local_addr = m.at,
			 .key = key,
			 .len = 8 * MIB},
			{.flags = PST_WR_UNSIGNALED, .local_addr = &round, .len = 1},
		};

		ASSERT_EQ(2, pst_link_post(self->me->link, wr, 2));
		for (int left = 2; left; left--) {
			struct pst_wc wc;

			ASSERT_EQ(1, pst_cq_wait(self->me->cq, &wc, 1, 30000));
			ASSERT_EQ(0, wc.status);
		}
		for (int at = 0; at < 8 * MIB; at += 512)
			ASSERT_EQ(i, (int)m.at[at]);
	}
	pst_link_close(self->me->link);
	self->me->link = NULL;
	memory_drop(&m);
	pair_end(&self->pair);
}

/* Turn the loopback of a network namespace of our own on or off. */
static int set_loopback(bool up)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = up ? IFF_UP : 0};
	int rc, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	rc = ioctl(fd, SIOCSIFFLAGS, &ifr);
	close(fd);
	return rc;
}

/* The cable is cut: nobody says anything, not even the kernel of the other side. */
TEST_F(tcp, cut_way_ends_all_requests)
{
	struct timespec before, after;
	struct memory m;
	struct pst_key key;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) && unshare(CLONE_NEWNET))
		SKIP("no network namespace of our own", "as root, or sysctl -w "
							"kernel.unprivileged_userns_clone=1");
	ASSERT_EQ(0, set_loopback(true));
	pair_start_on(&self->pair, variant->quick, true, grant_and_wait);
	m = memory_make(self->me, 8 * MIB, PST_ACCESS_READ);
	hear(self->me, &key, sizeof(key));
	ASSERT_EQ(0, set_loopback(false));
	clock_gettime(CLOCK_MONOTONIC, &before);
	for (uint64_t i = 0; i < 5; i++)
		write_one(self->me, &m, key, i, i % 2 ? MIB / 2 : 100);
	for (int i = 0; i < 5; i++)
		EXPECT_GT(0, expect(self->me, PST_WC_DONE).status);
	expect(self->me, PST_WC_DOWN);
	clock_gettime(CLOCK_MONOTONIC, &after);
	/* far from any limit of TCP's own; the machine may be slow */
	EXPECT_GT(20, (int)(after.tv_sec - before.tv_sec));
	finish(&self->pair, &m);
}

/* Grants more than go out at once while nobody takes them in. */
static void grants_many(struct end *peer)
{
	struct memory m[256];
	struct pst_key key[257];
	char c;

	for (int i = 0; i < 256; i++) {
		m[i] = memory_make(peer, 4096, PST_ACCESS_READ);
		m[i].at[0] = (unsigned char)i;
		ASSERT_EQ(0, pst_link_grant(peer->link, m[i].region, PST_ACCESS_READ, &key[i]));
	}
	for (int i = 0; i < 256; i++)
		say(peer, &key[i], sizeof(key[i]));
	hear(peer, &c, 1);
	for (int i = 0; i < 256; i++)
		memory_drop(&m[i]);
}

TEST_F(tcp, many_grants_come_before_the_messages_behind_them)
{
	struct pst_key key[256];
	struct memory m;

	pair_start_on(&self->pair, variant->url, true, grants_many);
	m = memory_make(self->me, 4096, PST_ACCESS_READ);
	for (int i = 0; i < 256; i++)
		hear(self->me, &key[i], sizeof(key[i]));
	for (int i = 0; i < 256; i++) {
		ASSERT_EQ(0, carry(self->me, &(struct pst_wr){.op = PST_WR_READ,
							      .local = m.region,
							      .local_addr = m.at,
							      .key = key[i],
							      .len = 1}));
		ASSERT_EQ(i, (int)m.at[0]);
	}
	say(self->me, "b", 1);
	expect(self->me, PST_WC_DOWN);
	memory_drop(&m);
	pair_end(&self->pair);
}

TEST_MAIN
