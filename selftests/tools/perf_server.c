/* SPDX-License-Identifier: Apache-2.0 */
/* A penstock-perf that serves outlives its clients, whatever they say and whenever they die. */
#include "rdma/fabric.h"
#include "selftests/tools/program.h"
#include "tools/perf/wire.h"

#include <sys/mman.h>

#define PORT 4813

static int client(const char *test, int n, const char *port)
{
	struct ended e = program_run("penstock-perf %s localhost -n %d -p %s", test, n, port);

	if (e.code)
		printf("# %s: exit status %d, stderr: %s", test, e.code, e.err);
	ended_free(&e);
	return e.code;
}

FIXTURE(server)
{
	struct program p;
	char url[64];
	struct pst_fabric *fab;
	struct pst_cq *cq;
};
FIXTURE_SETUP(server)
{
	struct pst_error err = {0};
	int port = PORT + (int)getpid() % 20000;

	snprintf(self->url, sizeof(self->url), "shm://perf-%d", port);
	program_start(&self->p, NULL, "penstock-perf write_lat -p %d", port);
	ASSERT_OK(pst_fabric_open(self->url, &self->fab, &err), &err);
	ASSERT_OK(pst_cq_create(self->fab, &self->cq, &err), &err);
}
FIXTURE_TEARDOWN(server)
{
	struct ended e;

	pst_cq_destroy(self->cq);
	pst_fabric_close(self->fab);
	/* after all that it serves, and ends as it should */
	EXPECT_EQ(0, client("write_lat", 50, strchr(self->url, '-') + 1));
	program_end(&self->p, SIGTERM, &e);
	EXPECT_EQ(0, e.code);
	ended_free(&e);
}

static struct pst_link *come(struct fixture_server *self)
{
	struct pst_error err = {0};
	struct pst_link *link;

	ASSERT_OK(pst_connect(self->cq, self->url, 10000, &link, &err), &err);
	return link;
}

/* The next message, of @size bytes; false: the link ended. */
static bool hear(struct fixture_server *self, void *msg, size_t size)
{
	struct pst_wc wc;

	ASSERT_EQ(1, pst_cq_wait(self->cq, &wc, 1, 10000));
	if (wc.kind == PST_WC_DOWN)
		return false;
	ASSERT_EQ(PST_WC_MESSAGE, (int)wc.kind);
	ASSERT_EQ(size, (size_t)wc.len);
	memcpy(msg, wc.msg, size);
	return true;
}

static struct perf_hello hello_for(enum perf_wire_test test)
{
	return (struct perf_hello){.hdr = PERF_HDR(PERF_HELLO, struct perf_hello),
				   .test = test,
				   .remote = 4096,
				   .local = 4096,
				   .work = 1024,
				   .slots = 4};
}

static int32_t greet(struct fixture_server *self, struct pst_link *link,
		     const struct perf_hello *hello)
{
	struct perf_ready ready;

	ASSERT_EQ(0, pst_link_send(link, hello, sizeof(*hello), 1000));
	ASSERT_TRUE(hear(self, &ready, sizeof(ready)));
	return ready.code;
}

static void start(struct fixture_server *self, struct pst_link *link, uint64_t size)
{
	const struct perf_start msg = {.hdr = PERF_HDR(PERF_START, msg), .size = size};
	struct perf_hdr go;

	ASSERT_EQ(0, pst_link_send(link, &msg, sizeof(msg), 1000));
	ASSERT_TRUE(hear(self, &go, sizeof(go)));
}

static void expect_hung_up(struct fixture_server *self, struct pst_link *link)
{
	char rest[16];

	EXPECT_FALSE(hear(self, rest, 0));
	pst_link_close(link);
}

static void say_nonsense(struct fixture_server *self, const void *msg, size_t size)
{
	struct pst_link *link = come(self);

	ASSERT_EQ(0, pst_link_send(link, msg, size, 1000));
	expect_hung_up(self, link);
}

TEST_F(server, nonsense)
{
	struct perf_hello hello = hello_for(PERF_PASSIVE);
	const struct perf_start early = {.hdr = PERF_HDR(PERF_START, early)};
	unsigned char noise[PST_MSG_MAX];
	uint64_t state = 1;

	say_nonsense(self, "", 0);
	say_nonsense(self, "P", 1);
	/* as a message of send_lat looks, before there is one */
	say_nonsense(self, "\0x", 2);
	say_nonsense(self, &early, sizeof(early));
	say_nonsense(self, &hello, sizeof(hello) - 1);
	hello.hdr.version++;
	say_nonsense(self, &hello, sizeof(hello));
	hello = hello_for(PERF_PASSIVE);
	hello.hdr.size--;
	say_nonsense(self, &hello, sizeof(hello));
	for (int i = 0; i < 50; i++) {
		for (size_t k = 0; k < sizeof(noise); k++)
			noise[k] = (unsigned char)test_random(&state);
		say_nonsense(self, noise, test_random(&state) % sizeof(noise));
	}
}

/* What cannot be is refused in words, and the client may try again. */
TEST_F(server, refused)
{
	struct pst_link *link = come(self);
	struct perf_hello h = hello_for(PERF_PASSIVE);

	h.test = 0;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h.test = 99;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h = hello_for(PERF_PASSIVE);
	h.remote = UINT64_MAX;
	EXPECT_EQ(-ENOMEM, greet(self, link, &h));
	h.remote = 0;
	EXPECT_EQ(-ENOMEM, greet(self, link, &h));
	h = hello_for(PERF_PASSIVE);
	h.page = 4097;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h = hello_for(PERF_SUM);
	h.work = 1028;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h.work = 6;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h.slots = 0;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h = hello_for(PERF_RETURN);
	h.work = UINT64_MAX;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h = hello_for(PERF_RETURN);
	h.local = 1;
	EXPECT_EQ(-EINVAL, greet(self, link, &h));
	h = hello_for(PERF_PASSIVE);
	EXPECT_EQ(0, greet(self, link, &h));
	pst_link_close(link);
}

static void raise_imm(struct pst_link *link, uint32_t imm)
{
	const struct pst_wr wr = {
		.op = PST_WR_WRITE, .flags = PST_WR_IMM | PST_WR_UNSIGNALED, .imm = imm};

	ASSERT_EQ(1, pst_link_post(link, &wr, 1));
}

/* Slots and rows that there are not, sizes beyond what was given, immediates out of place. */
TEST_F(server, beyond)
{
	static const struct {
		enum perf_wire_test test;
		uint32_t imm;
	} bad[] = {{PERF_SUM, 4},
		   {PERF_SUM, UINT32_MAX},
		   {PERF_RETURN, PERF_ROWS(4, 1)},
		   {PERF_RETURN, PERF_ROWS(0, 2)},
		   {PERF_RETURN, PERF_ROWS(255, PERF_ROWS_MAX)},
		   {PERF_PASSIVE, 0},
		   {PERF_ECHO, 1}};
	struct pst_region_attr attr = {
		.size = sizeof(attr), .len = 8192, .access = PST_ACCESS_WRITE};
	struct pst_region *region;
	struct pst_error err = {0};
	const struct perf_start big = {.hdr = PERF_HDR(PERF_START, big), .size = 4097};
	struct perf_hello h;
	struct pst_link *link;

	/* memory that would take what must not be sent */
	attr.fd = memfd_create("perf_server", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	ASSERT_EQ(0, ftruncate(attr.fd, 8192));
	attr.addr = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, attr.fd, 0);
	ASSERT_OK(pst_region_register(self->fab, &attr, &region, &err), &err);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		link = come(self);
		h = hello_for(bad[i].test);
		ASSERT_EQ(0, pst_link_grant(link, region, PST_ACCESS_WRITE, &h.key));
		ASSERT_EQ(0, greet(self, link, &h));
		start(self, link, 8);
		raise_imm(link, bad[i].imm);
		expect_hung_up(self, link);
	}
	link = come(self);
	raise_imm(link, 1);
	expect_hung_up(self, link);
	link = come(self);
	h = hello_for(PERF_WRITE_BACK);
	ASSERT_EQ(0, greet(self, link, &h));
	ASSERT_EQ(0, pst_link_send(link, &big, sizeof(big), 1000));
	expect_hung_up(self, link);
	pst_region_release(region);
	close(attr.fd);
}

/* A key that the client never granted: the write back fails, the link ends. */
TEST_F(server, key_that_is_none)
{
	struct pst_link *link = come(self);
	struct perf_hello h = hello_for(PERF_RETURN);

	h.key = (struct pst_key){{1, 2}};
	ASSERT_EQ(0, greet(self, link, &h));
	start(self, link, 8);
	raise_imm(link, PERF_ROWS(0, 1));
	expect_hung_up(self, link);
}

/* Messages that nobody takes back: the server does not wait for them. */
TEST_F(server, flood_of_echoes)
{
	static const char zero[1024];
	struct pst_link *link = come(self);
	struct perf_hello h = hello_for(PERF_ECHO);
	int rc = 0;

	ASSERT_EQ(0, greet(self, link, &h));
	start(self, link, 8);
	for (int i = 0; i < 10000 && !rc; i++)
		rc = pst_link_send(link, zero, sizeof(zero), 1000);
	EXPECT_EQ(-ENOTCONN, rc);
	pst_link_close(link);
}

/* Clients that are killed in the middle of whatever they do, some at a time. */
TEST_F(server, deaths)
{
	static const char *const test[] = {"write_lat", "send_lat", "write_bw", "push",	 "pull",
					   "dispatch",	"combine",  "send_bw",	"incast"};
	const char *port = strchr(self->url, '-') + 1;

	for (size_t i = 0; i < sizeof(test) / sizeof(*test); i++) {
		struct program p[2];
		struct ended e;

		for (int k = 0; k < 2; k++)
			program_start(&p[k], NULL, "penstock-perf %s localhost -D 60 -p %s",
				      test[i], port);
		sleep_ms(60);
		for (int k = 0; k < 2; k++) {
			program_end(&p[k], SIGKILL, &e);
			ended_free(&e);
		}
		EXPECT_EQ(0, client("send_lat", 10, port));
	}
}

TEST_MAIN
