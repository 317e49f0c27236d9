/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults of RDMA that are made to happen, and the sentence for each: what a machine lacks, and what
 * only a peer that keeps to no rule does. In a guest: selftests/vm/run. What this process hides, it
 * hides in a mount namespace of its own.
 */
#include "rdma/verbs/verbs.h"
#include "selftests/rdma/pair.h"

#include <sched.h>
#include <sys/mount.h>

#define SERVER "verbs://10.0.0.2:0?dev=rxe1"
#define PEER   "verbs://?dev=rxe0"
#define SOME   65536
#define LIBS   "/usr/lib/x86_64-linux-gnu"

/* The sentence is that of the row: what happened, and how to mend it. */
static void expect_words(const char *text, uint32_t cause)
{
	const struct pst_cause_row *row = pst_cause_row(cause);
	bool good = strstr(text, row->what) && strstr(text, row->likely) && strstr(text, row->mend);

	if (!good)
		test_say(__FILE__, __LINE__, "\"%s\" is the sentence for %s", text, row->name);
	EXPECT_TRUE(good);
}

static int shell(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* What a machine lacks */

FIXTURE(lacking){};

FIXTURE_SETUP(lacking)
{
	use_key("key", "a key for tests of the fabrics");
	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

FIXTURE_TEARDOWN(lacking)
{
}

/* Nothing is in @folder any more, for this process. */
static void hide(const char *folder)
{
	ASSERT_EQ(0, mount("none", folder, "tmpfs", 0, NULL));
}

static void expect_no_fabric(const char *url, uint32_t cause)
{
	struct pst_fabric *fab = NULL;
	struct pst_error err = {0};

	EXPECT_EQ(pst_cause_row(cause)->status, pst_fabric_open(url, &fab, &err));
	EXPECT_TRUE(fab == NULL);
	expect_words(err.text, cause);
}

TEST_F(lacking, library)
{
	ASSERT_EQ(0, mount("/dev/null", LIBS "/libibverbs.so.1", NULL, MS_BIND, NULL));
	expect_no_fabric(PEER, PST_CAUSE_VERBS_LIBRARY);
}

TEST_F(lacking, library_of_the_connection_manager)
{
	ASSERT_EQ(0, mount("/dev/null", LIBS "/librdmacm.so.1", NULL, MS_BIND, NULL));
	expect_no_fabric(PEER, PST_CAUSE_VERBS_LIBRARY);
}

/* To delete devices that a cgroup has a limit for is more than this kernel can bear. */
TEST_F(lacking, devices)
{
	hide("/sys/class/infiniband");
	hide("/dev/infiniband");
	expect_no_fabric("verbs://", PST_CAUSE_VERBS_DEVICE);
}

TEST_F(lacking, files_of_the_devices)
{
	hide("/dev/infiniband");
	expect_no_fabric(PEER, PST_CAUSE_VERBS_NODE);
}

TEST_F(lacking, right_to_open_the_device)
{
	ASSERT_EQ(0, mount("none", "/dev/infiniband", "tmpfs", 0, NULL));
	ASSERT_EQ(0, shell("for i in 0 1 2 3; do mknod -m 0 /dev/infiniband/uverbs$i c 231 "
			   "$((192 + i)); done"));
	ASSERT_EQ(0, shell("chown 65534 $PENSTOCK_KEY; chmod 755 $(dirname $PENSTOCK_KEY)"));
	ASSERT_EQ(0, setgid(65534));
	ASSERT_EQ(0, setuid(65534));
	expect_no_fabric(PEER, PST_CAUSE_VERBS_NODE);
}

TEST_F(lacking, provider)
{
	hide(LIBS "/libibverbs");
	hide("/etc/libibverbs.d"); /* it would complain of each that is named there */
	expect_no_fabric(PEER, PST_CAUSE_VERBS_PROVIDER);
}

TEST_F(lacking, connection_manager)
{
	struct pst_error err = {0};
	struct pst_fabric *fab;
	struct pst_cq *cq = NULL;

	ASSERT_EQ(0, mount("/dev/null", "/dev/infiniband/rdma_cm", NULL, MS_BIND, NULL));
	ASSERT_OK(pst_fabric_open(PEER, &fab, &err), &err);
	EXPECT_EQ(-ENODEV, pst_cq_create(fab, &cq, &err));
	EXPECT_TRUE(cq == NULL);
	expect_words(err.text, PST_CAUSE_VERBS_CM);
	pst_fabric_close(fab);
}

TEST_F(lacking, device_of_that_name)
{
	expect_no_fabric("verbs://?dev=rxe9", PST_CAUSE_VERBS_NO_SUCH);
	expect_no_fabric("verbs://?dev=rxe0,rxe9", PST_CAUSE_VERBS_NO_SUCH);
}

FIXTURE(gone){};

FIXTURE_SETUP(gone)
{
	use_key("key", "a key for tests of the fabrics");
}

FIXTURE_TEARDOWN(gone)
{
	EXPECT_EQ(0, shell("ip link set vc up; selftests/vm/guest.sh routes"));
}

TEST_F(gone, port)
{
	ASSERT_EQ(0, shell("ip link set vc down"));
	expect_no_fabric("verbs://?dev=rxe2", PST_CAUSE_VERBS_PORT);
}

/* Regions */

TEST(memory_that_is_none)
{
	struct pst_region_attr attr = {.size = sizeof(attr), .len = SOME, .fd = -1, .access = 3};
	struct pst_error err = {0};
	struct pst_region *region = NULL;
	struct end e;

	use_key("key", "a key for tests of the fabrics");
	end_open_on(&e, PEER);
	attr.addr = mmap(NULL, SOME, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_EQ(0, munmap(attr.addr, SOME));
	EXPECT_EQ(-EIO, pst_region_register(e.fab, &attr, &region, &err));
	EXPECT_TRUE(region == NULL);
	expect_words(err.text, PST_CAUSE_DEVICE_REFUSED);
	end_close(&e);
}

/* Links */

FIXTURE(link)
{
	struct pair pair;
	struct end *me;
	struct memory mine;
	struct pst_key key;
	bool killed; /* the peer, so that there is nobody to wait for */
};

FIXTURE_SETUP(link)
{
	use_key("key", "a key for tests of the fabrics");
	pair_peer = PEER;
	self->me = &self->pair.me;
}

FIXTURE_TEARDOWN(link)
{
	memory_drop(&self->mine);
	if (self->killed)
		end_close(self->me);
	else
		pair_end(&self->pair);
}

static void begin(struct fixture_link *self, void (*role)(struct end *peer))
{
	pair_start_on(&self->pair, SERVER, true, role);
	self->mine = memory_make(self->me, SOME, PST_ACCESS_WRITE);
	hear(self->me, &self->key, sizeof(self->key));
}

static void expect_down(struct end *e, uint32_t cause)
{
	struct pst_wc wc;

	do {
		ASSERT_EQ(1, pst_cq_wait(e->cq, &wc, 1, 30000));
		if (wc.kind == PST_WC_DONE)
			EXPECT_NE(0, wc.status);
	} while (wc.kind != PST_WC_DOWN);
	EXPECT_EQ(cause, wc.cause);
	EXPECT_EQ(pst_cause_row(cause)->status, wc.status);
	expect_words(pst_link_why(e->link), cause);
}

static struct verbs_rail *rail_of(const struct end *e)
{
	return verbs_link(e->link)->primary;
}

/* What is too long to go inline. */
static void move_much(struct fixture_link *self, uint16_t op)
{
	const struct pst_wr wr = {.op = op,
				  .local = self->mine.region,
				  .local_addr = self->mine.at,
				  .key = self->key,
				  .len = SOME};

	ASSERT_EQ(1, pst_link_post(self->me->link, &wr, 1));
}

/* A message as no link would send it, of @len bytes. */
static void send_bare(struct fixture_link *self, uint32_t len)
{
	const struct verbs_wqe wqe = {.kind = WQE_CTRL};
	const struct verbs_region *r = self->mine.region->priv;
	struct verbs_rail *rail = rail_of(self->me);
	struct verbs_chain chain = {.n = 0};
	struct ibv_send_wr *wr = pst_verbs_chain(&chain, rail, &wqe, true);

	wr->opcode = IBV_WR_SEND;
	wr->num_sge = len ? 1 : 0;
	wr->sg_list[0] = (struct ibv_sge){(uintptr_t)self->mine.at, len,
					  r->mr[rail->dev->index]->mr[0]->lkey};
	pst_verbs_chain_post(&chain);
}

static void grant(struct end *peer, struct memory *m)
{
	*m = memory_make(peer, SOME, PST_ACCESS_WRITE);
	share(peer, m, PST_ACCESS_WRITE);
}

static void grant_until_the_end(struct end *peer)
{
	struct memory m;

	grant(peer, &m);
	expect(peer, PST_WC_DOWN);
}

/* Local memory that the device does not know by this key. */
TEST_F(link, local_key_is_wrong)
{
	const struct verbs_region *r;
	struct ibv_mr *mr;

	begin(self, grant_until_the_end);
	r = self->mine.region->priv;
	mr = r->mr[rail_of(self->me)->dev->index]->mr[0];
	mr->lkey ^= 1;
	move_much(self, PST_WR_READ);
	expect_down(self->me, PST_CAUSE_LOC_PROT);
	mr->lkey ^= 1;
}

/* Its queue pair goes to error by itself, while nothing of ours was wrong. */
TEST_F(link, queue_pair_is_flushed)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	begin(self, grant_until_the_end);
	ASSERT_EQ(0, pst_ibv.modify_qp(rail_of(self->me)->qp, &attr, IBV_QP_STATE));
	expect_down(self->me, PST_CAUSE_FLUSHED);
}

/* Lets nobody write, whatever it granted. */
static void allow_nothing(struct end *peer)
{
	struct ibv_qp_attr attr = {.qp_access_flags = 0};
	struct memory m;

	grant(peer, &m);
	ASSERT_EQ(0, pst_ibv.modify_qp(rail_of(peer)->qp, &attr, IBV_QP_ACCESS_FLAGS));
	say(peer, "n", 1);
	expect(peer, PST_WC_DOWN);
}

TEST_F(link, peer_that_allows_no_writes)
{
	begin(self, allow_nothing);
	expect(self->me, PST_WC_MESSAGE);
	move_much(self, PST_WR_WRITE);
	expect_down(self->me, PST_CAUSE_REM_INV_REQ);
}

/* Takes back what it granted, and says nothing. */
static void take_back(struct end *peer)
{
	struct memory m;

	grant(peer, &m);
	pst_region_release(m.region);
	say(peer, "b", 1);
	expect(peer, PST_WC_DOWN);
}

TEST_F(link, peer_that_released_its_region)
{
	begin(self, take_back);
	expect(self->me, PST_WC_MESSAGE);
	move_much(self, PST_WR_WRITE);
	expect_down(self->me, PST_CAUSE_REM_ACCESS);
}

static void receive_too_much(struct end *peer)
{
	struct memory m;

	grant(peer, &m);
	expect_down(peer, PST_CAUSE_LOC_QP_OP);
}

/* Both sides of it. */
TEST_F(link, message_longer_than_a_receive)
{
	begin(self, receive_too_much);
	send_bare(self, VERBS_FRAME + 4);
	expect_down(self->me, PST_CAUSE_REM_OP);
}

/* Grants, and looks at nothing any more. */
static void look_away(struct end *peer)
{
	struct memory m;

	grant(peer, &m);
	pause();
}

TEST_F(link, peer_without_receives)
{
	begin(self, look_away);
	for (int i = 0; i < VERBS_RECVS + 1; i++)
		send_bare(self, 0);
	expect_down(self->me, PST_CAUSE_RNR_RETRY_EXC);
	kill(self->pair.pid, SIGKILL);
	waitpid(self->pair.pid, NULL, 0);
	self->killed = true;
}

/* Says something of which a bit is wrong, and all that follows as it should be. */
static void break_one(struct end *peer)
{
	struct verbs_link *link = verbs_link(peer->link);
	struct memory m;

	grant(peer, &m);
	link->crc = false;
	say(peer, "first", 5);
	link->crc = true;
	say(peer, "second", 6);
	expect(peer, PST_WC_DOWN);
}

TEST_F(link, message_that_came_broken_comes_again)
{
	struct pst_fabric_stat stat;
	char text[8];

	begin(self, break_one);
	hear(self->me, text, 5);
	EXPECT_EQ(0, memcmp(text, "first", 5));
	hear(self->me, text, 6);
	EXPECT_EQ(0, memcmp(text, "second", 6));
	pst_fabric_stat(self->me->fab, &stat);
	EXPECT_EQ(1, (int)stat.crc_bad);
	pst_link_close(self->me->link);
	self->me->link = NULL;
}

/* Says the same broken thing whenever it is asked, and more often. */
static void break_all(struct end *peer)
{
	struct verbs_link *link = verbs_link(peer->link);
	struct memory m;

	grant(peer, &m);
	for (int i = 0; i < 10; i++) {
		struct pst_frame *frame = pst_verbs_rail_ctrl(link->primary);

		*frame = (struct pst_frame){.size = sizeof(*frame),
					    .type = PST_FRAME_MESSAGE,
					    .seq = link->tx_seq + 1,
					    .crc = 1};
		pst_verbs_rail_send_ctrl(link->primary, frame, sizeof(*frame));
	}
	expect(peer, PST_WC_DOWN);
}

TEST_F(link, message_that_stays_broken)
{
	begin(self, break_all);
	expect_down(self->me, PST_CAUSE_FRAME_BROKEN);
}

static void hold_a_link(struct end *peer)
{
	struct pst_error err = {0};
	struct pst_link *more = NULL;
	struct memory m;
	char url[64];

	grant(peer, &m);
	hear(peer, url, sizeof(url));
	EXPECT_NE(0, pst_connect(peer->cq, url, 5000, &more, &err));
	EXPECT_TRUE(more == NULL);
	EXPECT_TRUE(strstr(err.text, "links="));
	say(peer, "d", 1);
}

TEST_F(link, no_more_links_than_are_allowed)
{
	char url[64] = "", c;

	pair_start_on(&self->pair, SERVER "&links=1", true, hold_a_link);
	self->mine = memory_make(self->me, SOME, PST_ACCESS_WRITE);
	hear(self->me, &self->key, sizeof(self->key));
	snprintf(url, sizeof(url), "%s", pst_listener_url(self->pair.listener));
	say(self->me, url, sizeof(url));
	hear(self->me, &c, 1);
}

TEST(way_by_another_device)
{
	struct pst_error err = {0};
	struct pst_link *link = NULL;
	struct end e;

	use_key("key", "a key for tests of the fabrics");
	end_open_on(&e, "verbs://?dev=rxe2");
	EXPECT_EQ(-ENODEV, pst_connect(e.cq, "verbs://[fe80::ff:fe00:2%va]:7", 5000, &link, &err));
	EXPECT_TRUE(link == NULL);
	expect_words(err.text, PST_CAUSE_WAY_DEV);
	end_close(&e);
}

TEST_MAIN
