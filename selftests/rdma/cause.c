/* SPDX-License-Identifier: Apache-2.0 */
/* The table of causes, the sentences that are made from it, and the ring of last requests. */
#include "rdma/cause.h"
#include "rdma/ops.h"
#include "selftests/lib/test.h"

/* Printable words, which go on in a sentence that somebody else ends. */
static void check_words(const struct pst_cause_row *row, const char *text, const char *which)
{
	size_t n = strlen(text);
	bool good = n >= 5 && text[n - 1] != '.' && text[0] != ' ' && !strstr(text, "  ");

	for (const char *c = text; *c; c++)
		good = good && *c >= 0x20 && *c <= 0x7e;
	if (!good) {
		printf("# %s: %s: \"%s\"\n", row->name, which, text);
		test_failed = true;
	}
}

TEST(rows_are_whole)
{
	EXPECT_STREQ("NONE", pst_cause_row(PST_CAUSE_NONE)->name);
	EXPECT_EQ(0, pst_cause_row(PST_CAUSE_NONE)->status);
	for (uint32_t c = 1; c <= PST_CAUSE_COUNT; c++) {
		const struct pst_cause_row *row = pst_cause_row(c);

		EXPECT_LT(row->status, 0);
		EXPECT_GT(row->status, -4096);
		check_words(row, row->what, "what");
		check_words(row, row->likely, "likely");
		check_words(row, row->mend, "mend");
		/* the parts are told from each other, and there is room for the device's words */
		EXPECT_FALSE(strchr(row->what, ';') || strchr(row->likely, ';'));
		EXPECT_LE(strlen(row->what) + strlen(row->likely) + strlen(row->mend), 340u);
	}
}

TEST(rows_differ)
{
	for (uint32_t a = 0; a < PST_CAUSE_COUNT; a++)
		for (uint32_t b = 0; b < a; b++) {
			EXPECT_TRUE(strcmp(pst_cause_row(a)->name, pst_cause_row(b)->name));
			EXPECT_TRUE(strcmp(pst_cause_row(a)->what, pst_cause_row(b)->what));
		}
}

TEST(unknown)
{
	EXPECT_STREQ("UNKNOWN", pst_cause_row(PST_CAUSE_COUNT)->name);
	EXPECT_TRUE(pst_cause_row(PST_CAUSE_COUNT) == pst_cause_row(UINT32_MAX));
	EXPECT_EQ(-EIO, pst_cause_row(UINT32_MAX)->status);
}

static const struct pst_recent request = {
	.region = 0xabc, .remote_off = 4096, .len = 65536, .op = PST_WR_WRITE};

TEST(sentence)
{
	struct pst_link link = {.peer = "tcp://b:7471 pid 7"};
	struct pst_recent send = {.len = 12, .op = PST_WR_SEND};

	EXPECT_EQ(-ECONNRESET, pst_blame(&link, PST_CAUSE_PEER_CLOSED, "rxe0", &request, "code 5"));
	EXPECT_EQ((uint32_t)PST_CAUSE_PEER_CLOSED, link.trace.cause);
	EXPECT_STREQ("rxe0: tcp://b:7471 pid 7: write of 65536 bytes at 4096 of region "
		     "0000000000000abc: the peer closed the link (code 5); likely it ended, or was "
		     "killed; to mend it: look at its log",
		     link.trace.why);
	EXPECT_EQ(-ETIMEDOUT, pst_blame(&link, PST_CAUSE_PEER_SILENT, NULL, NULL, NULL));
	EXPECT_STREQ(
		"tcp://b:7471 pid 7: the peer was silent for longer than timeout= allows; "
		"likely its host, its NIC or the way to it is down, or it was stopped; to mend "
		"it: penstock-perf doctor HOST",
		link.trace.why);
	pst_blame(&link, PST_CAUSE_PEER_CLOSED, "", &send, "");
	EXPECT_TRUE(strstr(link.trace.why, "pid 7: send of 12 bytes: the peer closed the link;") !=
		    NULL);
	send.op = PST_WR_READ;
	pst_blame(&link, PST_CAUSE_PEER_CLOSED, "", &send, "");
	EXPECT_TRUE(strstr(link.trace.why, ": read of 12 bytes at 0 of region") != NULL);
	send.op = 99;
	pst_blame(&link, PST_CAUSE_PEER_CLOSED, "", &send, "");
	EXPECT_TRUE(strstr(link.trace.why, ": request of 12 bytes") != NULL);
}

static const char *words(size_t n)
{
	static char text[1200];

	memset(text, 'w', sizeof(text));
	text[n] = '\0';
	return text;
}

static bool ends_with(const char *text, const char *end)
{
	size_t n = strlen(text), m = strlen(end);

	return n >= m && !strcmp(text + n - m, end);
}

/* With the longest of everything, what helps is still there. */
TEST(sentences_end)
{
	struct pst_link link = {0};
	struct pst_recent r = {.region = UINT64_MAX,
			       .remote_off = UINT64_MAX,
			       .len = UINT64_MAX,
			       .op = PST_WR_WRITE};

	memset(link.peer, 'p', sizeof(link.peer) - 1);
	for (uint32_t c = 1; c <= PST_CAUSE_COUNT; c++) {
		const struct pst_cause_row *row = pst_cause_row(c);
		struct pst_error err = {0};

		pst_blame(&link, c, words(100), &r, words(1000));
		EXPECT_TRUE(ends_with(link.trace.why, row->mend));
		EXPECT_TRUE(strstr(link.trace.why, row->what) != NULL);
		EXPECT_TRUE(strstr(link.trace.why, row->likely) != NULL);
		EXPECT_EQ(row->status, pst_fail_cause(&err, c, words(1000), "%s", words(1000)));
		EXPECT_EQ(row->status, err.code);
		EXPECT_TRUE(ends_with(err.text, row->mend));
		EXPECT_TRUE(strstr(err.text, row->what) != NULL);
		EXPECT_TRUE(strstr(err.text, "www...: ") != NULL);
	}
}

/* Every length of the head: cut only where it has to be, and never over the end. */
TEST(heads_of_all_lengths)
{
	const char *tail = pst_cause_row(PST_CAUSE_PEER_CLOSED)->mend;

	for (size_t n = 0; n < 600; n++) {
		struct pst_error err = {0};
		size_t len;

		pst_fail_cause(&err, PST_CAUSE_PEER_CLOSED, NULL, "%s", words(n));
		len = strlen(err.text);
		EXPECT_TRUE(ends_with(err.text, tail));
		EXPECT_LT(len, sizeof(err.text));
		if (strstr(err.text, "..."))
			EXPECT_GE(len + 8, sizeof(err.text));
	}
}

TEST(first_reason_wins)
{
	struct pst_error err = {.code = -EINVAL, .text = "before"};

	EXPECT_EQ(-ETIMEDOUT, pst_fail_cause(&err, PST_CAUSE_PEER_SILENT, NULL, "connect"));
	EXPECT_EQ(-EINVAL, err.code);
	EXPECT_STREQ("before", err.text);
	EXPECT_EQ(-ETIMEDOUT, pst_fail_cause(NULL, PST_CAUSE_PEER_SILENT, NULL, "connect"));
	err = (struct pst_error){0};
	pst_fail_cause(&err, PST_CAUSE_PEER_SILENT, "3 s", "connect %s", "a");
	EXPECT_TRUE(!strncmp(err.text,
			     "connect a: the peer was silent for longer than timeout= "
			     "allows (3 s); likely ",
			     70));
}

TEST(ring)
{
	struct pst_trace t = {0};
	const struct pst_recent *r;

	for (uint64_t id = 1; id <= 100; id++)
		pst_trace_post(&t, &(struct pst_wr){.id = id,
						    .op = PST_WR_READ,
						    .flags = PST_WR_UNSIGNALED,
						    .key = {{id * 10, 7}},
						    .remote_off = id * 100,
						    .len = id * 1000});
	EXPECT_EQ(100u, t.posted);
	r = pst_trace_failed(&t, 100, -EIO);
	ASSERT_TRUE(r != NULL);
	EXPECT_EQ(100u, r->id);
	EXPECT_EQ(1000u, r->region);
	EXPECT_EQ(10000u, r->remote_off);
	EXPECT_EQ(100000u, r->len);
	EXPECT_EQ(PST_WR_READ, r->op);
	EXPECT_EQ(PST_WR_UNSIGNALED, r->flags);
	EXPECT_EQ(-EIO, r->status);
	/* each fails once; the oldest that is kept, and the one before it */
	EXPECT_TRUE(pst_trace_failed(&t, 100, -EIO) == NULL);
	EXPECT_TRUE(pst_trace_failed(&t, 37, -EIO) != NULL);
	EXPECT_TRUE(pst_trace_failed(&t, 36, -EIO) == NULL);
	EXPECT_TRUE(pst_trace_failed(&t, 1, -EIO) == NULL);
}

TEST(ring_of_sends)
{
	struct pst_trace t = {0};
	const struct pst_recent *r;

	EXPECT_TRUE(pst_trace_failed(&t, 0, -EIO) == NULL);
	pst_trace_post(
		&t,
		&(struct pst_wr){
			.id = 5, .op = PST_WR_SEND, .key = {{1, 2}}, .remote_off = 3, .len = 4});
	EXPECT_TRUE(pst_trace_failed(&t, 0, -EIO) == NULL);
	r = pst_trace_failed(&t, 5, -EIO);
	ASSERT_TRUE(r != NULL);
	EXPECT_EQ(0u, r->region);
	EXPECT_EQ(0u, r->remote_off);
	EXPECT_EQ(4u, r->len);
	/* the same number is used again: each request has its own entry */
	pst_trace_post(&t, &(struct pst_wr){.id = 5, .op = PST_WR_SEND});
	EXPECT_TRUE(pst_trace_failed(&t, 5, -EPIPE) != r);
	EXPECT_EQ(-EIO, r->status);
}

TEST_MAIN
