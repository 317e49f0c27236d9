/* SPDX-License-Identifier: Apache-2.0 */
/* The handshake: who is let in, and that nobody else is, whatever he says, repeats or leaves out.
 */
#include "rdma/handshake.h"
#include "selftests/lib/test.h"

#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SECRETS 2

static struct pst_secret *secret[SECRETS];

static struct pst_secret *make_secret(char c)
{
	struct pst_error err = {0};
	struct pst_secret *s = NULL;
	char bytes[32], path[64];
	int fd = memfd_create("key", MFD_CLOEXEC);

	memset(bytes, c, sizeof(bytes));
	ASSERT_EQ((ssize_t)sizeof(bytes), write(fd, bytes, sizeof(bytes)));
	ASSERT_EQ(0, fchmod(fd, 0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ASSERT_OK(pst_secret_read(path, &s, &err), &err);
	close(fd);
	return s;
}

static const struct pst_link_hello plain = {
	.fabric = 't', .crc = 1, .ways = 2, .timeout_ms = 2000, .pid = 7};

FIXTURE(pair)
{
	struct pst_handshake client, server;
	struct pst_error err;
	union {
		unsigned char bytes[512];
		struct pst_link_hdr hdr;
		struct pst_link_hello hello;
		struct pst_link_challenge challenge;
		struct pst_link_proof proof;
		struct pst_link_welcome welcome;
	} msg;
	size_t len;
};

FIXTURE_SETUP(pair)
{
	for (int i = 0; i < SECRETS; i++)
		secret[i] = make_secret((char)('a' + i));
	ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &plain));
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
}

FIXTURE_TEARDOWN(pair)
{
	for (int i = 0; i < SECRETS; i++)
		pst_secret_free(secret[i]);
}

/* What @h says next, into self->msg. */
static void say(struct fixture_pair *self, struct pst_handshake *h)
{
	const void *msg;

	ASSERT_TRUE(h->due);
	self->len = pst_handshake_next(h, &msg);
	ASSERT_LE(sizeof(self->msg.hdr), self->len);
	memcpy(self->msg.bytes, msg, self->len);
	EXPECT_EQ(self->len, self->msg.hdr.size);
	EXPECT_FALSE(h->due);
	EXPECT_EQ(0u, pst_handshake_next(h, &msg));
}

static int hear(struct fixture_pair *self, struct pst_handshake *h)
{
	memset(&self->err, 0, sizeof(self->err));
	return pst_handshake_take(h, self->msg.bytes, self->len, &self->err);
}

/* Refused, for good: what would have been right a moment ago is not taken any more. */
static void expect_refused(struct fixture_pair *self, struct pst_handshake *h, int code,
			   const char *why)
{
	EXPECT_EQ(code, hear(self, h));
	EXPECT_EQ(code, self->err.code);
	if (!strstr(self->err.text, why)) {
		printf("# \"%s\" does not say \"%s\"\n", self->err.text, why);
		test_failed = true;
	}
	EXPECT_FALSE(h->due);
	EXPECT_EQ(-EPROTO, hear(self, h));
}

/* Go on until the message of @type is in self->msg. */
static void until(struct fixture_pair *self, uint32_t type)
{
	for (uint32_t t = PST_LINK_HELLO;; t++) {
		struct pst_handshake *from = t & 1 ? &self->client : &self->server;
		struct pst_handshake *to = t & 1 ? &self->server : &self->client;

		say(self, from);
		ASSERT_EQ(t, self->msg.hdr.type);
		if (t == type)
			return;
		if (t == PST_LINK_PROOF) {
			ASSERT_EQ(1, hear(self, to));
			self->server.welcome.link = 99;
			self->server.welcome.pid = 8;
		} else {
			ASSERT_EQ(0, hear(self, to));
		}
	}
}

TEST_F(pair, same_key)
{
	until(self, PST_LINK_WELCOME);
	EXPECT_TRUE(self->server.proved);
	EXPECT_EQ(1, hear(self, &self->client));
	EXPECT_TRUE(self->client.proved);
	EXPECT_EQ(99u, self->client.welcome.link);
	EXPECT_EQ(2000u, self->client.welcome.timeout_ms);
	EXPECT_EQ(1u, self->client.welcome.crc);
	EXPECT_EQ(0, self->err.code);
	/* the server knows what the client said */
	EXPECT_FALSE(memcmp(&self->client.hello, &self->server.hello, sizeof(plain)));
	EXPECT_EQ(7u, self->server.hello.pid);
	/* nothing is left to say or to take */
	EXPECT_FALSE(self->client.due);
	EXPECT_EQ(-EPROTO, hear(self, &self->client));
	EXPECT_EQ(-EPROTO, hear(self, &self->server));
}

TEST_F(pair, nothing_is_known_before_the_proof)
{
	until(self, PST_LINK_PROOF);
	EXPECT_FALSE(self->server.proved);
	EXPECT_TRUE(self->client.proved);
}

TEST_F(pair, further_way)
{
	struct pst_link_hello hello = plain;

	hello.way = 1;
	EXPECT_EQ(-EINVAL,
		  pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &hello));
	hello.link = 99;
	ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &hello));
	until(self, PST_LINK_WELCOME);
	EXPECT_EQ(99u, self->server.hello.link);
	EXPECT_EQ(1, hear(self, &self->client));
}

TEST_F(pair, further_way_of_another_link)
{
	struct pst_link_hello hello = plain;

	hello.way = 1;
	hello.link = 98;
	ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &hello));
	until(self, PST_LINK_WELCOME);
	expect_refused(self, &self->client, -EPROTO, "welcome");
}

TEST_F(pair, other_key_of_the_server)
{
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[1], NULL));
	until(self, PST_LINK_CHALLENGE);
	expect_refused(self, &self->client, -EACCES, "the server has another key");
	EXPECT_FALSE(self->client.proved);
}

/* A client that goes on all the same, with the key that it has. */
TEST_F(pair, other_key_of_the_client)
{
	until(self, PST_LINK_CHALLENGE);
	self->client.secret = secret[1];
	EXPECT_EQ(-EACCES, hear(self, &self->client));
	self->client.secret = secret[0];
	ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &plain));
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
	until(self, PST_LINK_HELLO);
	ASSERT_EQ(0, hear(self, &self->server));
	say(self, &self->server);
	{
		const struct pst_piece piece[] = {{"penstock client 1", 17},
						  {&self->client.hello, sizeof(plain)},
						  {self->msg.bytes, self->len}};
		struct pst_link_proof proof = {{PST_LINK_MAGIC, PST_LINK_PROOF, sizeof(proof)},
					       {0}};

		ASSERT_EQ(0, pst_secret_sign(secret[1], piece, 3, proof.mac));
		self->msg.proof = proof;
		self->len = sizeof(proof);
	}
	expect_refused(self, &self->server, -EACCES, "the client has another key");
	EXPECT_FALSE(self->server.proved);
}

/* The proofs are what link.h says, so that another program can make them. */
TEST_F(pair, proofs_by_the_book)
{
	unsigned char mac[32];

	until(self, PST_LINK_PROOF);
	{
		const struct pst_piece piece[] = {{"penstock server 1", 17},
						  {&self->client.hello, sizeof(self->client.hello)},
						  {self->server.challenge.nonce, PST_LINK_NONCE}};

		ASSERT_EQ(0, pst_secret_sign(secret[0], piece, 3, mac));
		EXPECT_FALSE(memcmp(mac, self->server.challenge.mac, 32));
	}
	{
		const struct pst_piece piece[] = {
			{"penstock client 1", 17},
			{&self->client.hello, sizeof(self->client.hello)},
			{&self->server.challenge, sizeof(self->server.challenge)}};

		ASSERT_EQ(0, pst_secret_sign(secret[0], piece, 3, mac));
		EXPECT_FALSE(memcmp(mac, self->msg.proof.mac, 32));
	}
}

/* The proof of this handshake's server, sent back as the client's, and so on. */
TEST_F(pair, reflection)
{
	until(self, PST_LINK_CHALLENGE);
	memcpy(self->msg.proof.mac, self->server.challenge.mac, PST_LINK_MAC);
	self->msg.hdr =
		(struct pst_link_hdr){PST_LINK_MAGIC, PST_LINK_PROOF, sizeof(self->msg.proof)};
	self->len = sizeof(self->msg.proof);
	expect_refused(self, &self->server, -EACCES, "another key");
}

/* Somebody without the key asks a second server for what he must answer the first with. */
TEST_F(pair, reflection_through_another_server)
{
	struct pst_handshake second;
	struct pst_link_challenge first;

	until(self, PST_LINK_CHALLENGE);
	first = self->msg.challenge;
	self->msg.hello = self->client.hello;
	memcpy(self->msg.hello.nonce, first.nonce, PST_LINK_NONCE);
	self->len = sizeof(self->msg.hello);
	ASSERT_EQ(0, pst_handshake_begin(&second, PST_HANDSHAKE_SERVER, secret[0], NULL));
	ASSERT_EQ(0, hear(self, &second));
	say(self, &second);
	memmove(self->msg.proof.mac, self->msg.challenge.mac, PST_LINK_MAC);
	self->msg.hdr =
		(struct pst_link_hdr){PST_LINK_MAGIC, PST_LINK_PROOF, sizeof(self->msg.proof)};
	self->len = sizeof(self->msg.proof);
	expect_refused(self, &self->server, -EACCES, "another key");
}

/* A client's own hello comes back to it as if a server had said it. */
TEST_F(pair, own_words)
{
	say(self, &self->client);
	expect_refused(self, &self->client, -EPROTO, "no place");
}

/* All that both sides said in a handshake that went well serves nobody in a later one. */
TEST_F(pair, replay)
{
	struct pst_link_hello hello;
	struct pst_link_challenge challenge;
	struct pst_link_proof proof;

	until(self, PST_LINK_WELCOME);
	ASSERT_EQ(1, hear(self, &self->client));
	hello = self->client.hello;
	challenge = self->server.challenge;
	proof = self->client.proof;

	/* to a server */
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
	self->msg.hello = hello;
	self->len = sizeof(hello);
	ASSERT_EQ(0, hear(self, &self->server));
	EXPECT_TRUE(memcmp(self->server.challenge.nonce, challenge.nonce, PST_LINK_NONCE));
	say(self, &self->server);
	self->msg.proof = proof;
	self->len = sizeof(proof);
	expect_refused(self, &self->server, -EACCES, "another key");

	/* to a client */
	ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &plain));
	EXPECT_TRUE(memcmp(self->client.hello.nonce, hello.nonce, PST_LINK_NONCE));
	say(self, &self->client);
	self->msg.challenge = challenge;
	self->len = sizeof(challenge);
	expect_refused(self, &self->client, -EACCES, "another key");
}

/* One bit wrong, anywhere in a message, is never taken for good. */
static void every_bit(struct fixture_pair *self, uint32_t type, size_t from, size_t to)
{
	struct pst_handshake *h = type & 1 ? &self->server : &self->client, before;

	until(self, type);
	before = *h;
	for (size_t bit = 8 * from; bit < 8 * to; bit++) {
		int rc;

		self->msg.bytes[bit / 8] ^= 1u << bit % 8;
		*h = before;
		rc = hear(self, h);
		self->msg.bytes[bit / 8] ^= 1u << bit % 8;
		if (rc >= 0 || !self->err.text[0]) {
			printf("# byte %zu, bit %zu: %d\n", bit / 8, bit % 8, rc);
			test_failed = true;
		}
	}
	*h = before;
	ASSERT_LE(0, hear(self, h));
}

TEST_F(pair, wrong_bits_in_the_challenge)
{
	every_bit(self, PST_LINK_CHALLENGE, 0, sizeof(struct pst_link_challenge));
}

TEST_F(pair, wrong_bits_in_the_proof)
{
	every_bit(self, PST_LINK_PROOF, 0, sizeof(struct pst_link_proof));
}

TEST_F(pair, wrong_bits_in_headers)
{
	every_bit(self, PST_LINK_HELLO, 0, sizeof(struct pst_link_hdr) + 4);
}

TEST_F(pair, wrong_bits_in_the_header_of_the_welcome)
{
	every_bit(self, PST_LINK_WELCOME, 0, sizeof(struct pst_link_hdr) + 4);
}

/* What a hello says is open, but whoever changes it on the way spoils both proofs. */
TEST_F(pair, changed_hello)
{
	struct pst_handshake fresh = self->server;
	struct pst_link_hello hello;

	say(self, &self->client);
	hello = self->msg.hello;
	for (size_t bit = 8 * sizeof(struct pst_link_hdr); bit < 8 * sizeof(hello); bit++) {
		struct pst_handshake client = self->client;

		self->server = fresh;
		self->msg.hello = hello;
		self->len = sizeof(hello);
		self->msg.bytes[bit / 8] ^= 1u << bit % 8;
		if (hear(self, &self->server) < 0)
			continue;
		say(self, &self->server);
		EXPECT_EQ(-EACCES, hear(self, &client));
	}
}

#define BAD_HELLO(field, ...)                                                          \
	do {                                                                           \
		__typeof__(plain.field) values_[] = {__VA_ARGS__};                     \
		for (size_t i_ = 0; i_ < sizeof(values_) / sizeof(values_[0]); i_++) { \
			struct pst_link_hello hello = good;                            \
			hello.field = values_[i_];                                     \
			bad_hello(self, &hello, #field);                               \
		}                                                                      \
	} while (0)

static void bad_hello(struct fixture_pair *self, const struct pst_link_hello *hello,
		      const char *field)
{
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
	self->msg.hello = *hello;
	self->len = sizeof(*hello);
	if (hear(self, &self->server) != -EPROTO || self->server.due) {
		printf("# %s\n", field);
		test_failed = true;
	}
}

TEST_F(pair, fields_of_the_hello)
{
	struct pst_link_hello good;

	say(self, &self->client);
	good = self->msg.hello;
	BAD_HELLO(hdr.magic, 0, PST_LINK_MAGIC + 1);
	BAD_HELLO(hdr.type, 0, 2, 3, 4, 5);
	BAD_HELLO(hdr.size, 0, 79, 81, 240, UINT32_MAX);
	BAD_HELLO(abi, 0, 2, UINT32_MAX);
	EXPECT_TRUE(strstr(self->err.text, "speaks version 4294967295") != NULL);
	BAD_HELLO(fabric, 0, 's', 'v', 'T', 255);
	BAD_HELLO(crc, 2, 255);
	BAD_HELLO(way, 1, 2, 255);
	BAD_HELLO(ways, 0, 9, 255);
	BAD_HELLO(recv, 1, UINT32_MAX);
	BAD_HELLO(timeout_ms, 0, 99, 600001, UINT32_MAX);
	BAD_HELLO(pid, 0x80000000u, UINT32_MAX);
	BAD_HELLO(reserved, 1, 0x80000000u);
	BAD_HELLO(link, 1, UINT64_MAX);
	good.fabric = 'v';
	good.recv = 1;
	BAD_HELLO(recv, 0, 65537);
	good.way = 1;
	good.link = 5;
	BAD_HELLO(link, 0);
	BAD_HELLO(way, 2);
	self->msg.hello = good;
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
	EXPECT_EQ(0, hear(self, &self->server));
	/* nor does our own client begin with one */
	good.ways = 1;
	EXPECT_EQ(-EINVAL,
		  pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &good));
}

static void bad_welcome(struct fixture_pair *self, const struct pst_link_welcome *w,
			const char *field)
{
	struct pst_handshake client = self->client;

	self->msg.welcome = *w;
	self->len = sizeof(*w);
	if (hear(self, &client) != -EPROTO) {
		printf("# %s\n", field);
		test_failed = true;
	}
}

#define BAD_WELCOME(field, ...)                                                        \
	do {                                                                           \
		__typeof__(good.field) values_[] = {__VA_ARGS__};                      \
		for (size_t i_ = 0; i_ < sizeof(values_) / sizeof(values_[0]); i_++) { \
			struct pst_link_welcome w = good;                              \
			w.field = values_[i_];                                         \
			bad_welcome(self, &w, #field);                                 \
		}                                                                      \
	} while (0)

TEST_F(pair, fields_of_the_welcome)
{
	struct pst_link_welcome good;

	until(self, PST_LINK_WELCOME);
	good = self->msg.welcome;
	BAD_WELCOME(hdr.magic, 0);
	BAD_WELCOME(hdr.type, 0, 1, 2, 3, 5);
	BAD_WELCOME(hdr.size, 0, 239, 241);
	BAD_WELCOME(code, 1, -1, -EACCES, INT32_MIN);
	BAD_WELCOME(link, 0);
	BAD_WELCOME(recv, 1);
	BAD_WELCOME(timeout_ms, 0, 1999, 600001);
	BAD_WELCOME(crc, 0, 2);
	BAD_WELCOME(pid, 0x80000000u);
	BAD_WELCOME(reserved, 1);
	BAD_WELCOME(text[0], 'x');
	BAD_WELCOME(text[191], 'x');
	self->msg.welcome = good;
	self->msg.welcome.timeout_ms = 600000;
	EXPECT_EQ(1, hear(self, &self->client));
	EXPECT_EQ(600000u, self->client.welcome.timeout_ms);
}

TEST_F(pair, truncated)
{
	for (uint32_t type = PST_LINK_HELLO; type <= PST_LINK_WELCOME; type++) {
		struct pst_handshake *h = type & 1 ? &self->server : &self->client, before;

		ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0],
						 &plain));
		ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0],
						 NULL));
		until(self, type);
		before = *h;
		for (size_t whole = self->len, n = 0; n <= whole + 8; n++) {
			/* exactly as long as said, so that a sanitizer sees who reads on */
			unsigned char *copy = malloc(n ? n : 1);

			memcpy(copy, self->msg.bytes, n);
			*h = before;
			EXPECT_EQ(n == whole ? (type > 2) : -EPROTO,
				  pst_handshake_take(h, copy, n, NULL));
			/* also when the message itself says that it is so long */
			if (n >= sizeof(struct pst_link_hdr) && n != whole) {
				((struct pst_link_hdr *)copy)->size = (uint32_t)n;
				*h = before;
				EXPECT_EQ(-EPROTO, pst_handshake_take(h, copy, n, NULL));
			}
			free(copy);
		}
	}
}

/* Every message at every step of either side where it has no place. */
TEST_F(pair, out_of_order)
{
	struct pst_handshake at[5][2]; /* before the message of that type is taken */
	unsigned char said[5][sizeof(struct pst_link_welcome)];
	size_t len[5];

	for (uint32_t type = PST_LINK_HELLO; type <= PST_LINK_WELCOME; type++) {
		ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0],
						 &plain));
		ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0],
						 NULL));
		until(self, type);
		at[type][0] = self->client;
		at[type][1] = self->server;
		len[type] = self->len;
		memcpy(said[type], self->msg.bytes, self->len);
	}
	for (uint32_t step = 1; step <= 4; step++)
		for (uint32_t type = 1; type <= 4; type++)
			for (int who = 0; who < 2; who++) {
				struct pst_handshake h = at[step][who];
				int rc = pst_handshake_take(&h, said[type], len[type], NULL);

				bool its_turn = type == step && who == (int)(type & 1);
				/* a welcome answers the proof, which was sent at step 3 */
				bool waits = type == PST_LINK_WELCOME && step >= 3 && !who;

				if (rc >= 0 && !its_turn && !waits) {
					printf("# step %u, message %u, side %d: %d\n", step, type,
					       who, rc);
					test_failed = true;
				}
			}
}

/* Who has not heard what we have to say cannot be answering it. */
TEST_F(pair, answer_before_the_question)
{
	const void *msg;

	until(self, PST_LINK_HELLO);
	ASSERT_EQ(0, hear(self, &self->server));
	self->len = sizeof(self->msg.proof);
	self->msg.proof = (struct pst_link_proof){
		.hdr = {PST_LINK_MAGIC, PST_LINK_PROOF, sizeof(self->msg.proof)}};
	expect_refused(self, &self->server, -EPROTO, "no place");
	EXPECT_EQ(0u, pst_handshake_next(&self->server, &msg));
}

TEST_F(pair, welcome_without_a_proof)
{
	until(self, PST_LINK_HELLO);
	self->msg.welcome = (struct pst_link_welcome){
		.hdr = {PST_LINK_MAGIC, PST_LINK_WELCOME, sizeof(self->msg.welcome)},
		.link = 1,
		.timeout_ms = 2000,
		.crc = 1};
	self->len = sizeof(self->msg.welcome);
	expect_refused(self, &self->client, -EPROTO, "without asking");
	EXPECT_FALSE(self->client.proved);
}

/* A stranger learns why in general and no more; who has the key reads the server's sentence. */
TEST_F(pair, refusals)
{
	until(self, PST_LINK_HELLO);
	ASSERT_EQ(0, hear(self, &self->server));
	pst_handshake_refuse(&self->server, -EUSERS, "secret 1");
	say(self, &self->server);
	EXPECT_TRUE(strstr(self->msg.welcome.text, "as many links as it takes") != NULL);
	expect_refused(self, &self->client, -EUSERS, "as many links as it takes");

	ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0], &plain));
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
	until(self, PST_LINK_PROOF);
	ASSERT_EQ(1, hear(self, &self->server));
	pst_handshake_refuse(&self->server, -ENOSPC, "links=4\n of them are open\xff");
	say(self, &self->server);
	EXPECT_STREQ("links=4? of them are open?", self->msg.welcome.text);
	expect_refused(self, &self->client, -ENOSPC,
		       "refused by the server: links=4? of them are open?");
}

TEST_F(pair, refusals_at_every_step)
{
	static const int code[] = {-EACCES, -EPROTO, -ETIMEDOUT, -EIO, 0, 5, -5000};

	for (size_t i = 0; i < sizeof(code) / sizeof(code[0]); i++) {
		int want = code[i] < 0 && code[i] > -4096 ? code[i] : -EPROTO;

		ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0],
						 &plain));
		ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0],
						 NULL));
		say(self, &self->client);
		pst_handshake_refuse(&self->server, code[i], NULL);
		say(self, &self->server);
		EXPECT_TRUE(self->msg.welcome.text[0]);
		expect_refused(self, &self->client, want, "refused by the server: ");
		expect_refused(self, &self->server, -EPROTO, "no place");
	}
	/* a sentence that is longer than there is room still ends */
	ASSERT_EQ(0, pst_handshake_begin(&self->server, PST_HANDSHAKE_SERVER, secret[0], NULL));
	self->server.proved = true;
	memset(self->msg.bytes, 'a', 300);
	self->msg.bytes[300] = '\0';
	pst_handshake_refuse(&self->server, -EIO, (char *)self->msg.bytes);
	EXPECT_EQ(PST_LINK_TEXT - 1, (int)strlen(self->server.welcome.text));
	/* a client has nobody to refuse */
	pst_handshake_refuse(&self->client, -EIO, "no");
	EXPECT_FALSE(self->client.due);
}

/* A server that wants to write on our terminal. */
TEST_F(pair, refusals_that_are_none)
{
	struct pst_link_welcome good;

	say(self, &self->client);
	pst_handshake_refuse(&self->server, -EACCES, NULL);
	say(self, &self->server);
	good = self->msg.welcome;
	BAD_WELCOME(text[0], '\x1b', '\n', '\x7f', '\x80', '\xff', 0);
	BAD_WELCOME(text[5], '\r', '\t', '\1');
	BAD_WELCOME(text[191], 'a', 1);
	BAD_WELCOME(code, 1, -4096, INT32_MIN);
	BAD_WELCOME(link, 1);
	BAD_WELCOME(recv, 1);
	BAD_WELCOME(timeout_ms, 1);
	BAD_WELCOME(crc, 1);
	BAD_WELCOME(reserved, 1);
	memset(good.text, 'a', sizeof(good.text));
	bad_welcome(self, &good, "text without an end");
	good.text[191] = '\0';
	self->msg.welcome = good;
	EXPECT_EQ(-EACCES, hear(self, &self->client));
}

TEST_F(pair, nonces_are_fresh)
{
	unsigned char seen[50][PST_LINK_NONCE];

	for (int i = 0; i < 50; i++) {
		ASSERT_EQ(0, pst_handshake_begin(&self->client, PST_HANDSHAKE_CLIENT, secret[0],
						 &plain));
		memcpy(seen[i], self->client.hello.nonce, PST_LINK_NONCE);
		for (int k = 0; k < i; k++)
			EXPECT_TRUE(memcmp(seen[i], seen[k], PST_LINK_NONCE));
	}
}

TEST_MAIN
